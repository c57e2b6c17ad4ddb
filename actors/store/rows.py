"""Between rows and the law's values: which columns there are, and how each is written. No statement is run here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from actors.law.model import Approval, Execution, Session
from actors.store.contract import EncodedEvent

# attribute → column, where they differ
_SESSION = {"session_id": "id"}
_EXECUTION = {"execution_id": "id"}
_APPROVAL = {"approval_id": "id"}
JSON_COLUMNS = frozenset({"labels", "limits", "callback", "input", "data", "options", "payload", "signal"})

SESSION_COLUMNS = tuple(_SESSION.get(f.name, f.name) for f in fields(Session))
EXECUTION_COLUMNS = tuple(_EXECUTION.get(f.name, f.name) for f in fields(Execution))
APPROVAL_COLUMNS = tuple(_APPROVAL.get(f.name, f.name) for f in fields(Approval))


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def loads(text: str) -> Any:
    return json.loads(text)


def column(name: str, value: Any) -> Any:
    """A value as its column holds it. None stays NULL only where None means "not there"."""
    if name in JSON_COLUMNS:
        if value is None and name in ("callback", "signal"):
            return None
        return dumps(dict(value) if isinstance(value, Mapping) else list(value) if isinstance(value, tuple) else value)
    return int(value) if isinstance(value, bool) else value


def _value(name: str, stored: Any) -> Any:
    return json.loads(stored) if name in JSON_COLUMNS and stored is not None else stored


def session(row: tuple[Any, ...]) -> Session:
    return Session(*(_value(c, v) for c, v in zip(SESSION_COLUMNS, row, strict=True)))


def execution(row: tuple[Any, ...]) -> Execution:
    values = [_value(c, v) for c, v in zip(EXECUTION_COLUMNS, row, strict=True)]
    for flag in ("interrupt_force", "late_final"):
        i = EXECUTION_COLUMNS.index(flag)
        values[i] = bool(values[i])
    return Execution(*values)


def approval(row: tuple[Any, ...]) -> Approval:
    values = [_value(c, v) for c, v in zip(APPROVAL_COLUMNS, row, strict=True)]
    i = APPROVAL_COLUMNS.index("options")
    values[i] = tuple(values[i])
    return Approval(*values)


def insert(table: str, columns: tuple[str, ...]) -> str:
    return f"insert into {table} ({', '.join(columns)}) values ({', '.join('?' * len(columns))})"


def values_of(item: Session | Execution | Approval, columns: tuple[str, ...], names: dict[str, str]) -> list[Any]:
    back = {c: a for a, c in names.items()}
    return [column(c, getattr(item, back.get(c, c))) for c in columns]


def session_values(item: Session) -> list[Any]:
    return values_of(item, SESSION_COLUMNS, _SESSION)


def execution_values(item: Execution) -> list[Any]:
    return values_of(item, EXECUTION_COLUMNS, _EXECUTION)


def approval_values(item: Approval) -> list[Any]:
    return values_of(item, APPROVAL_COLUMNS, _APPROVAL)


def changes(table: str, set_: Mapping[str, Any], where: str) -> tuple[str, list[Any]]:
    """`update … set … where …`; the caller appends the parameters of `where`."""
    columns = [_SESSION.get(k, k) for k in set_]
    sql = f"update {table} set {', '.join(f'{c} = ?' for c in columns)} where {where}"
    return sql, [column(k, v) for k, v in set_.items()]


def fragment(seq: int, execution_id: str | None, exec_seq: int | None, type: str, ts_ms: int, data: str) -> str:
    """One stored event as it goes over the wire; `data` is JSON text already. Here and below, it is spelled."""
    execution = "null" if execution_id is None else f'"{execution_id}"'
    return (
        f'{{"seq":{seq},"execution_id":{execution},"exec_seq":{"null" if exec_seq is None else exec_seq},'
        f'"type":"{type}","ts_ms":{ts_ms},"data":{data}}}'
    )


def run(events: Sequence[EncodedEvent], words: Sequence[str]) -> tuple[str, bytes]:
    """Events that stand in one row, and their `fragments`: its `type` and its words. No spelling of an event has a line
    end in it."""
    types = dict.fromkeys([event.type for event in reversed(events)])  # the last one's type first
    return f" {' '.join(reversed(types))} ", "\n".join(words).encode()


def last_type(type: str) -> str:
    """Of the last event in a row, by the row's `type`."""
    return type.split()[-1]


def type_of(fragment: str) -> str:
    """No id has a quote in it, so what looks like the type first is the type."""
    return fragment.split('"type":"', 1)[1].split('"', 1)[0]


def fragments(seq: int, execution_id: str, exec_seq: int, events: Iterable[EncodedEvent]) -> list[str]:
    """The same of events that follow each other in one execution: what they share is spelled once."""
    shared, ahead = f',"execution_id":"{execution_id}","exec_seq":', exec_seq - seq
    return [
        f'{{"seq":{n}{shared}{n + ahead},"type":"{type}","ts_ms":{ts_ms},"data":{data}}}'
        for n, (type, ts_ms, data) in enumerate(events, seq)
    ]


RUN_EVENTS: Final = 100  # in a row at most: who begins within it reads the others in vain; the gain is had by then
EVENT_COLUMNS = "session_id, seq, execution_id, exec_seq, type, ts_ms, stored_at_ms, data"
INSERT_EVENT = f"insert into events ({EVENT_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?)"
# How many events a row holds, and the first of them.
LENGTH_SQL = "max(run_length, 1)"
FIRST_SQL = f"(seq + 1 - {LENGTH_SQL})"
# An event's JSON as it came. In `events` a long one may be kept compressed (compressed.py), in `fresh` none is.
DATA_SQL = "iif(typeof(data) = 'blob', plain(data), data)"

# `fragment` by SQLite, over the columns of either.
_FRAGMENT_SQL = (
    """format('{"seq":%d,"execution_id":%s,"exec_seq":%s,"type":"%s","ts_ms":%d,"data":%s}', seq, """
    """iif(execution_id is null, 'null', '"' || execution_id || '"'), ifnull(exec_seq, 'null'), type, ts_ms, """
)
FRESH_FRAGMENT_SQL = f"{_FRAGMENT_SQL}data)"
FRAGMENT_SQL = f"{_FRAGMENT_SQL}{DATA_SQL})"
