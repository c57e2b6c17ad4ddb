"""Records → frames, as text. Pure: bodies were encoded once, when they were spooled, and are only joined here.

Numbers without holes is the promise: what the spool no longer has (a store restored from a backup asks again) becomes
an explicit `gap`, and a lost record 1 is `started` again, because nothing else makes an execution run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final, NamedTuple

from actors.protocol.defaults import EVENTS_PER_FRAME
from wrapper.link import Plan
from wrapper.records import Record, size_of

EVENTS: Final = ("output", "event")


class Packed(NamedTuple):
    first: int
    last: int
    text: str
    size: int  # bytes on the wire


def pack(plan: Plan, records: Sequence[Record], last_seq: int, pid: int | None) -> list[Packed]:
    """Frames for ``records``, the rows after ``plan.after_seq``; ``last_seq``: what the link knows to be spooled."""
    frames: list[Packed] = []
    group: list[str] = []
    size = 0
    at = plan.after_seq  # everything up to here is in a frame or in the group

    def close() -> None:
        nonlocal group, size
        if group:
            first = at - len(group) // 2 + 1
            frames.append(_frame("events", plan.execution_id, first, at, ',"events":[', *group[1:], "]"))
            group, size = [], 0

    def missing(before: int) -> None:
        nonlocal at
        close()
        if at == 0 and before > 1:
            frames.append(_fields("started", plan.execution_id, 1, 1, json.dumps({"pid": pid})))
            at = 1
        if at + 1 < before:
            frames.append(_gap(plan.execution_id, at + 1, before - 1, '{"bytes":0,"reason":"trimmed"}'))
            at = before - 1

    for record in records:
        if record.seq > at + 1:
            missing(record.seq)
        if record.kind in EVENTS:
            cost = size_of(record.body) + 1
            if group and (plan.single or size + cost > plan.budget_bytes or len(group) >= 2 * EVENTS_PER_FRAME):
                close()
            group += (",", record.body)  # half a megabyte is joined once
            size += cost
        else:
            close()
            # A gap that grew while part of it was in flight goes on behind the cursor.
            first = max(record.seq, at + 1)
            if record.kind == "gap":
                frames.append(_gap(plan.execution_id, first, record.to_seq, record.body))
            else:
                frames.append(_fields(record.kind, plan.execution_id, first, record.to_seq, record.body))
        at = record.to_seq
        if plan.single and group:
            close()
    close()
    if not records and at < last_seq:
        missing(last_seq + 1)
    return frames


def _gap(execution_id: str, first: int, last: int, body: str) -> Packed:
    return _frame("gap", execution_id, first, last, f',"to_seq":{last},{body[1:-1]}')


def _fields(kind: str, execution_id: str, first: int, last: int, body: str) -> Packed:
    return _frame(kind, execution_id, first, last, f",{body[1:-1]}")


def _frame(kind: str, execution_id: str, first: int, last: int, *rest: str) -> Packed:
    text = "".join((f'{{"type":"{kind}","execution_id":"{execution_id}","seq":{first}', *rest, "}"))
    return Packed(first, last, text, size_of(text))
