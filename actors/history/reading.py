"""Histories as lines: JSONL in, observations out. It judges the form of a line, never what it says.

One line is one observation: `who` saw `what`, `at` which second of one monotonic clock that all files share. A line
that cannot be an observation ends the reading: a verdict over half a history would be worth nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

# What each kind of observation must say beside who, at and what (docs/history.md has the table).
FIELDS: Final[Mapping[str, Mapping[str, type | tuple[type, ...]]]] = {
    "owned": {"session": str, "connection": str, "epoch": int},
    "sent": {"session": str, "execution": str, "connection": str, "seq": int, "hashes": list},
    "acked": {"session": str, "execution": str, "seq": int},
    "ran": {"session": str, "execution": str},
    "writing": {"session": str, "execution": str, "text": str},
    "wrote": {"session": str, "execution": str, "text": str},
    "signalled": {"session": str, "execution": str, "signal": str},
    "exited": {"session": str, "execution": str},
    "opened": {"session": str},
    "delivered": {"session": str, "events": list},
    "reset": {"session": str, "first_seq": int},
    "finished": {"session": str},
    "asked": {"id": str, "op": str, "session": str},
    "answered": {"id": str, "status": int},
    "unknown": {"id": str},
    "stored": {"session": str, "seq": int, "type": str, "data": dict, "at_ms": int},
    "execution": {"session": str, "execution": str, "status": str},
    "session": {"session": str, "link": str, "first_seq": int, "last_seq": int},
    "deadline": {"session": str, "kind": str, "overdue_s": (int, float)},
    "fault": {"fault": str, "target": str},
    "quiet": {},
    "end": {"settled": bool},
}


class Unreadable(ValueError):
    """A line that is no observation; the message names file, line and reason."""


@dataclass(frozen=True, slots=True)
class Observation:
    who: str
    at: float
    what: str
    said: Mapping[str, Any]
    source: str  # "file:line", for evidence

    def __getitem__(self, name: str) -> Any:
        return self.said[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.said.get(name, default)

    @property
    def of(self) -> tuple[str, str]:
        """(session, execution); an observation of a whole session has no execution: ""."""
        return self.said["session"], self.said.get("execution") or ""


def content_hash(kind: str, data: Any) -> str:
    """The identity of an event's content: 16 hex digits over the canonical JSON of [type, data]."""
    text = json.dumps([kind, data], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def parse(lines: Iterable[str], name: str) -> Iterator[Observation]:
    """Raises Unreadable."""
    for number, text in enumerate(lines, 1):
        if text.strip():
            yield _one(text, f"{name}:{number}")


def _one(text: str, source: str) -> Observation:
    try:
        said = json.loads(text)
    except ValueError as error:
        raise Unreadable(f"{source}: not JSON ({error})") from error
    if not isinstance(said, dict):
        raise Unreadable(f"{source}: not an object")
    who, at, what = said.get("who"), said.get("at"), said.get("what")
    if not isinstance(who, str) or not isinstance(at, (int, float)) or not isinstance(what, str):
        raise Unreadable(f"{source}: every line says who (text), at (seconds) and what (text)")
    if what not in FIELDS:
        raise Unreadable(f"{source}: nobody knows the observation {what!r}")
    for field, kind in FIELDS[what].items():
        if not isinstance(said.get(field), kind):
            raise Unreadable(f"{source}: {what!r} needs {field!r}, and it is {said.get(field)!r}")
    return Observation(who, float(at), what, said, source)


def read(paths: Iterable[str]) -> list[Observation]:
    """Every line of every file, by time. Raises Unreadable, also for a file that cannot be opened."""
    found: list[Observation] = []
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                found += parse(file, path)
        except (OSError, UnicodeDecodeError) as error:
            raise Unreadable(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    found.sort(key=lambda o: o.at)
    return found
