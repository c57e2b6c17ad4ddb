"""One tree of errors. Each says who is to blame and what to do.

HoldfastError                  code, retryable, hint; becomes problem+json or an `error` frame
├── Refused                    the caller's request cannot be done; nothing changed
└── StorageError               the store's fault
    ├── StorageUnavailable     full disk, busy, serialization: rolled back, retry later
    └── StorageBroken          I/O error, corruption, failed fsync: the process must exit, never retry
"""

from __future__ import annotations

from typing import Any

from actors.protocol.codes import ERRORS


class HoldfastError(Exception):
    """Carries a `code` of codes.ERRORS, a human sentence, and members for the problem body."""

    def __init__(self, code: str, detail: str = "", **extra: Any) -> None:
        self.row = ERRORS[code]
        self.code = code
        self.detail = detail or self.row.title
        self.extra = extra
        super().__init__(f"{code}: {self.detail}")

    def __reduce__(self) -> tuple[Any, ...]:  # survives pickling with its keyword members
        return (_rebuild, (type(self), self.code, self.detail, self.extra))

    @property
    def status(self) -> int:
        return self.row.status

    @property
    def retryable(self) -> bool:
        return self.row.retryable

    def problem(self, instance: str | None = None) -> dict[str, Any]:
        """The RFC 9457 body, with our `code` and `hint`."""
        body: dict[str, Any] = {
            "type": f"https://holdfast.dev/errors/{self.code}",
            "title": self.row.title,
            "status": self.row.status,
            "detail": self.detail,
            "code": self.code,
            "hint": self.row.hint,
        }
        if instance is not None:
            body["instance"] = instance
        return {**self.extra, **body}


def _rebuild(cls: type[HoldfastError], code: str, detail: str, extra: dict[str, Any]) -> HoldfastError:
    return cls(code, detail, **extra)


class Refused(HoldfastError):
    pass


class StorageError(HoldfastError):
    pass


class StorageUnavailable(StorageError):
    def __init__(self, detail: str = "", code: str = "storage_unavailable", **extra: Any) -> None:
        super().__init__(code, detail, **extra)

    def __reduce__(self) -> tuple[Any, ...]:
        return (StorageUnavailable, (self.detail,))


class StorageBroken(StorageError):
    def __init__(self, detail: str = "", code: str = "internal", **extra: Any) -> None:
        super().__init__(code, detail, **extra)

    def __reduce__(self) -> tuple[Any, ...]:
        return (StorageBroken, (self.detail,))
