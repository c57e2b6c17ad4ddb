"""What the store has said to somebody, and whether a file that came back from a power cut still stands by it.

Two judges that know nothing of each other. One compares whole tables with what they held after the last commit that
had returned (or, if one was under way, after that one: nothing else is allowed). The other knows only the answers:
events that were acknowledged, executions that were seen to end, requests that were answered; and asks for them again
through the store's own calls.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from actors.law.requests import Request
from actors.store.contract import Appended, AppendItem, AppendRefused
from actors.store.sqlite import SqliteStore
from tests.power.dbapi import Hashes

Fact = tuple[Any, ...]


@dataclass(slots=True)
class Told:
    """The sum of the facts told so far."""

    events: dict[tuple[str, int], tuple[str, int, str]] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)  # session → first_seq, as retention left it
    ended: dict[tuple[str, str], str] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)  # deleted sessions
    answered: tuple[Request, Any] | None = None
    appended: AppendItem | None = None

    def hear(self, facts: list[Fact]) -> None:
        for fact in facts:
            match fact:
                case ("event", sid, seq, eid, exec_seq, data):
                    self.events[sid, seq] = (eid, exec_seq, data)
                case ("first", sid, seq):
                    for key in [k for k in self.events if k[0] == sid and k[1] < seq]:
                        del self.events[key]
                    self.first[sid] = seq
                case ("ended", sid, eid, status):
                    self.ended[sid, eid] = status
                case ("kept", keys):  # ended executions go with their age
                    self.ended = {k: v for k, v in self.ended.items() if k in keys}
                case ("deleted", sid):
                    self.forgotten.add(sid)
                    self.events = {k: v for k, v in self.events.items() if k[0] != sid}
                    self.ended = {k: v for k, v in self.ended.items() if k[0] != sid}
                case ("answered", request, body):
                    self.answered = (request, body)
                case ("appended", item):
                    self.appended = item
                case _:
                    raise AssertionError(fact)


def of_append(item: AppendItem, result: Any) -> list[Fact]:
    if not isinstance(result, Appended):
        return []
    events = item.events[result.skipped :]
    first = item.first + result.skipped
    return [
        *(
            ("event", item.session_id, result.first_seq + i, item.execution_id, first + i, e.data)
            for i, e in enumerate(events)
        ),
        ("appended", item),
    ]


def differences(found: Hashes, allowed: list[Hashes]) -> list[str]:
    """[] if it is one of the allowed contents; otherwise how it differs from the first of them."""
    if any(found == one for one in allowed):
        return []
    wanted = allowed[0]
    return [
        f"table {name}: {found.get(name, ('none', 0))[0]} rows where {wanted.get(name, ('none', 0))[0]} were committed"
        for name in sorted(found | wanted)
        if found.get(name) != wanted.get(name)
    ]


def broken_promises(store: SqliteStore, told: Told) -> tuple[int, list[str]]:
    """How many acknowledged events are lost; and everything that is wrong, in sentences."""
    wrong: list[str] = []
    lost = 0
    by_session: dict[str, dict[int, tuple[str, int, str]]] = {}
    for (sid, seq), event in told.events.items():
        by_session.setdefault(sid, {})[seq] = event
    heads = store.heads(list(by_session))
    for sid, wanted in by_session.items():
        if sid not in heads:
            lost += len(wanted)
            wrong.append(f"session {sid} is gone, and with it {len(wanted)} acknowledged events")
            continue
        page = store.page(sid, 0, 1 << 20, max_bytes=1 << 30)
        if list(page.seqs) != list(range(page.first_seq, page.last_seq + 1)) and page.seqs:
            wrong.append(f"{sid}: the stream has holes: {page.first_seq}..{page.last_seq}, {len(page.seqs)} rows")
        if told.first.get(sid, 1) > page.first_seq:
            wrong.append(f"{sid}: first_seq went back to {page.first_seq}")
        found = {
            seq: (eid, fragment)
            for seq, eid, fragment in zip(page.seqs, page.execution_ids, page.fragments, strict=True)
        }
        gone = [seq for seq in wanted if seq not in found]
        if gone:
            lost += len(gone)
            wrong.append(f"{sid}: acknowledged events {_some(gone)} are lost (last_seq is {page.last_seq})")
        for seq, (eid, exec_seq, data) in wanted.items():
            if seq in found and (
                found[seq][0] != eid
                or f'"exec_seq":{exec_seq},' not in found[seq][1]
                or not found[seq][1].endswith(f'"data":{data}}}')
            ):
                wrong.append(f"{sid}: seq {seq} is another event than was acknowledged: {found[seq][1][:120]}")
        wrong += _twice(sid, page.fragments)
    for (sid, eid), status in told.ended.items():
        try:
            now = store.execution(sid, eid)["status"]
        except Exception as error:
            now = repr(error)
        if now != status:
            wrong.append(f"{sid}/{eid} was told to have ended as {status}; now it is {now}")
    return lost, wrong


def _twice(sid: str, fragments: tuple[str, ...]) -> list[str]:
    """No record of an execution stands twice or out of order, and nothing of it comes after its end."""
    wrong, last, over = [], {}, set()
    for event in map(json.loads, fragments):
        eid, exec_seq = event["execution_id"], event["exec_seq"]
        if eid in over and event["type"] != "execution.late_final":
            wrong.append(f"{sid}: {event['type']} of {eid} stands after its terminal event")
        if event["type"] in ("execution.completed", "execution.failed", "execution.interrupted"):
            over.add(eid)
        if exec_seq is not None:
            if exec_seq <= last.get(eid, 0):
                wrong.append(f"{sid}: record {exec_seq} of {eid} stands twice or out of order")
            last[eid] = exec_seq
    return wrong


def asked_again(store: SqliteStore, told: Told) -> list[str]:
    """A repetition after the power came back: one effect, one answer."""
    wrong = []
    if told.answered is not None:
        request, body = told.answered
        if request.session_id not in told.forgotten:
            again = store.transact(request)
            if not again.replayed or again.body != body:
                wrong.append(f"{type(request).__name__} asked again was answered otherwise: {again.body} not {body}")
    if told.appended is not None:
        (result,) = store.commit_group([told.appended]).results
        if not isinstance(result, AppendRefused):
            wrong.append(f"an acknowledged append could be done again: {result}")
    return wrong


def _some(numbers: list[int]) -> str:
    return f"{numbers[0]}..{numbers[-1]}" if len(numbers) > 3 else ", ".join(map(str, numbers))
