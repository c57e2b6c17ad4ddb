"""What happened, as one named event with fields; a subscriber picks the words. Payloads never appear here."""

from __future__ import annotations

import sys
from collections.abc import Callable

Emit = Callable[..., None]  # emit("connection.lost", code=1006, …)


def silent(name: str, **fields: object) -> None:
    """For those who embed the wrapper and speak for themselves."""


def to_stderr(name: str, **fields: object) -> None:
    words = " ".join(f"{key}={value}" for key, value in fields.items() if value is not None)
    print(f"holdfast-wrapper: {name} {words}".rstrip(), file=sys.stderr, flush=True)
