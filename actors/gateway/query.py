"""Query parameters, checked, with errors that say which one and why."""

from __future__ import annotations

import re
from typing import Final

from aiohttp import web

from actors.protocol import ids
from actors.protocol.codes import EVENT_TYPE_MAX, EVENT_TYPE_PATTERN, STATUSES
from actors.protocol.defaults import MAX_SAFE_INTEGER, PAGE_EVENTS
from actors.protocol.errors import HoldfastError

LIST_LIMIT: Final = 50
LIST_LIMIT_MAX: Final = 500
PAGE_LIMIT: Final = 100
TYPES_MAX: Final = 50  # names in one filter
LABELS_MAX: Final = 16
KEY_PATTERN: Final = r"^[!-~]([ -~]{0,253}[!-~])?$"  # Idempotency-Key: what every client and proxy passes on unchanged
_TYPE: Final = re.compile(EVENT_TYPE_PATTERN[:-1] + r"\Z")
_DIGITS: Final = re.compile(r"[0-9]{1,16}\Z")


class Query:
    """A filter that is said has a value: `?execution_id=` (a variable that was empty) is an error, not everything."""

    def __init__(self, request: web.Request) -> None:
        self._query = request.query

    def text(self, name: str, longest: int = 200) -> str | None:
        value = self._query.get(name)
        if not value:
            return None
        if len(value) > longest:
            raise HoldfastError("bad_request", f"{name} is longer than {longest} characters")
        return value

    def integer(self, name: str) -> int | None:
        value = self._query.get(name)
        return None if value is None else self.checked_integer(name, value)

    @staticmethod
    def checked_integer(name: str, value: str) -> int:
        if not _DIGITS.match(value) or int(value) > MAX_SAFE_INTEGER:
            raise HoldfastError("bad_request", f"{name} is not an integer from 0 to 2^53: {value[:32]!r}")
        return int(value)

    def limit(self, default: int = LIST_LIMIT, most: int = LIST_LIMIT_MAX) -> int:
        wanted = self.integer("limit")
        if wanted is None:
            return default
        if not 1 <= wanted <= most:
            raise HoldfastError("bad_request", f"limit is from 1 to {most}, not {wanted}")
        return wanted

    def page_limit(self) -> int:
        return self.limit(PAGE_LIMIT, PAGE_EVENTS)

    def id(self, name: str) -> str | None:
        value = self._query.get(name)
        if value is None:
            return None
        if not ids.valid_id(value):
            raise HoldfastError("bad_id", f"{name}: {value[:80]!r}")
        return value

    def one_of(self, name: str, allowed: tuple[str, ...]) -> str | None:
        value = self._query.get(name)
        if value is None:
            return None
        if value not in allowed:
            raise HoldfastError("bad_request", f"{name} is one of {', '.join(allowed)}, not {value[:40]!r}")
        return value

    def state(self) -> str | None:
        return self.one_of("state", (*STATUSES, "idle"))

    def types(self) -> tuple[str, ...]:
        """`types=a,b` or repeated."""
        names = [n for value in self._query.getall("types", []) for n in value.split(",") if n]
        if len(names) > TYPES_MAX:
            raise HoldfastError("bad_request", f"at most {TYPES_MAX} types")
        for name in names:
            if len(name) > EVENT_TYPE_MAX or not _TYPE.match(name):
                raise HoldfastError("bad_request", f"types: {name[:80]!r} is not the name of an event type")
        return tuple(dict.fromkeys(names))

    def labels(self) -> tuple[tuple[str, str], ...]:
        found = []
        for value in self._query.getall("label", []):
            key, colon, wanted = value.partition(":")
            if not colon or not key:
                raise HoldfastError("bad_request", f"label is key:value, not {value[:80]!r}")
            found.append((key, wanted))
        if len(found) > LABELS_MAX:
            raise HoldfastError("bad_request", f"at most {LABELS_MAX} labels")
        return tuple(found)
