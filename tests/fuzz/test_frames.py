"""The frame decoder under any bytes: never an exception, never a value that the strict rules forbid, nothing changed.

The judge is the standard library's json with hooks of its own; it shares no line with decode.py.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.gateway.decode import (
    Bad,
    Beat,
    Control,
    Fleeting,
    Item,
    Ready,
    Records,
    Wrong,
    decode,
    hello_version,
    strict_loads,
)
from tests.fuzz.budget import budget

DEPTH, SAFE = 32, 2**53
ITEMS = (Records, Bad, Control, Ready, Beat, Fleeting, Wrong)
TYPE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*", re.ASCII)
RESERVED = ("execution.", "session.", "wrapper.", "interrupt.", "approval.", "connection.")


class Forbidden(Exception):
    pass


def no(text: str) -> Any:
    raise Forbidden(text)


def whole(text: str) -> int:
    """An integer of JSON, and only one that every reader keeps."""
    value = int(text) if len(text) < 40 else SAFE + 1
    return value if -SAFE <= value <= SAFE else no(text)


def judged(text: str | bytes) -> Any:
    """The value, to the strict rules. Raises Forbidden or ValueError."""
    value = json.loads(text, parse_int=whole, parse_constant=no)
    _look(value, DEPTH)
    return value


def _look(value: Any, room: int) -> None:
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, float) and not math.isfinite(value):
        raise Forbidden("infinite")
    elif isinstance(value, dict | list):
        if room <= 0:
            raise Forbidden("deep")
        for key in value if isinstance(value, dict) else ():
            key.encode()
        for inner in value.values() if isinstance(value, dict) else value:
            _look(inner, room - 1)


def check(item: Item, raw: bytes) -> None:
    """What came out is sound, whatever went in."""
    assert isinstance(item, ITEMS)
    if isinstance(item, Records):
        assert 1 <= item.first <= item.last <= SAFE
        if item.gap is None:
            assert item.last - item.first + 1 == len(item.events) > 0
        if item.tail is not None:
            assert item.tail.seq == item.last + 1
        for event in item.events:
            assert TYPE.fullmatch(event.type) and len(event.type) <= 64 and not event.type.startswith(RESERVED)
            assert type(event.ts_ms) is int and 0 <= event.ts_ms <= SAFE
            assert type(judged(event.data)) is dict
        _the_same(item, raw)
    elif isinstance(item, Fleeting):
        assert judged(item.text)["type"] == "ephemeral"
    elif isinstance(item, Control):
        judged(item.frame.model_dump_json())
    elif isinstance(item, Bad):
        assert 1 <= item.seq <= SAFE
        item.detail.encode()


def _the_same(item: Records, raw: bytes) -> None:
    """Stored is what was sent, in its order; and once more through the decoder it is still that."""
    if item.gap is not None:
        return
    sent = json.loads(raw.decode("utf-8", "surrogateescape"))["events"][: len(item.events)]
    assert [json.loads(e.data) for e in item.events] == [e.get("data", {}) for e in sent]
    events = [{"type": e.type, "ts_ms": e.ts_ms, "data": json.loads(e.data)} for e in item.events]
    again = decode(
        json.dumps({"type": "events", "execution_id": item.execution_id, "seq": item.first, "events": events}).encode()
    )
    assert isinstance(again, Records) and again.tail is None
    assert [(e.type, e.ts_ms, json.loads(e.data)) for e in again.events] == [
        (e.type, e.ts_ms, json.loads(e.data)) for e in item.events
    ]


# ---------------------------------------------------------------- what goes in

text = st.text(st.characters(codec="utf-8"), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-SAFE, SAFE) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["output", "a", "agent.message", "tool.call.end", "x" * 64])
events = st.fixed_dictionaries(
    {"type": names, "ts_ms": st.integers(0, SAFE)}, optional={"data": st.dictionaries(text, values, max_size=3)}
)
ids = st.sampled_from(["e", "exe_1", "E-9"])
good = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("events"), "execution_id": ids, "seq": st.integers(1, 1 << 40),
         "events": st.lists(events, min_size=1, max_size=4)}
    ),
    st.fixed_dictionaries(
        {"type": st.just("ephemeral"), "execution_id": ids, "events": st.lists(events, min_size=1, max_size=3)}
    ),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["started", "final", "approval", "gap", "command_ack", "hello", "heartbeat", "ready"]),
         "execution_id": ids, "seq": st.integers(1, 99)},
        optional={"status": st.sampled_from(["completed", "received"]), "to_seq": st.integers(0, 100),
                  "approval_id": ids, "title": text, "options": st.lists(text, min_size=1, max_size=3),
                  "reason": st.sampled_from(["trimmed", "refused"]), "bytes": st.integers(0, 9), "command_id": ids,
                  "protocol": st.integers(0, 3), "wrapper_id": ids, "instance_id": ids, "attempt": st.integers(1, 9),
                  "data": st.dictionaries(text, values, max_size=2), "exit_code": st.integers(-1, 255)},
    ),
)  # fmt: skip
# Each as bytes that json.dumps would never write: put in the place of a value.
POISON = (
    b'"\\ud800"', b'{"\\udfff":1}', b"NaN", b"-Infinity", b"1e999", b"-1e400", b"9007199254740993", b"1" * 400,
    b"-9223372036854775809", b"18446744073709551616", b"1e19", b"[" * 40 + b"]" * 40, b'{"a":' * 33 + b"1" + b"}" * 33,
    *(b"[" * n + b"]" * n for n in range(29, 34)), b"[" * 100_000,
    b'"\xff"', b'"\xed\xa0\x80"', b'{"a":1,"a":NaN}', b"00", b"+1", b".5", b"'x'",
    b'"\\u0000"', b"true", b"\xef\xbb\xbf1",
)  # fmt: skip


@given(st.binary(max_size=200))
@budget(400)
def test_any_bytes_are_a_frame_or_a_named_refusal(raw: bytes) -> None:
    check(decode(raw), raw)
    hello_version(raw)


@given(good)
@budget(300)
def test_what_is_good_is_taken_as_it_is(frame: dict[str, Any]) -> None:
    raw = json.dumps(frame, ensure_ascii=False).encode()
    item = decode(raw)
    check(item, raw)
    if frame["type"] == "events":
        assert isinstance(item, Records) and item.tail is None, item


@given(good, st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 3), st.binary(max_size=3)), max_size=4))
@budget(500)
def test_a_frame_with_bytes_changed_lost_or_added(frame: dict[str, Any], edits: list[tuple[int, int, bytes]]) -> None:
    raw = bytearray(json.dumps(frame).encode())
    for where, cut, put in edits:
        at = where % (len(raw) + 1)
        raw[at : at + cut] = put
    check(decode(bytes(raw)), bytes(raw))


@given(st.lists(events, min_size=1, max_size=5), st.data(), st.sampled_from(POISON), st.sampled_from(["value", "deep"]))
@example([{"type": "output", "ts_ms": 1}], None, b"1e19", "value")
@budget(400)
def test_one_poisoned_event_is_refused_alone_and_those_before_it_stand(
    listed: list[dict[str, Any]], data: Any, poison: bytes, where: str
) -> None:
    at = data.draw(st.integers(0, len(listed) - 1)) if data is not None else 0
    inside = {"k": "@@"} if where == "value" else {"k": [{"l": "@@"}]}
    marked = [event | {"data": inside} if i == at else event for i, event in enumerate(listed)]
    frame = {"type": "events", "execution_id": "e", "seq": 7, "events": marked}
    raw = json.dumps(frame).encode().replace(b'"@@"', poison)
    item = decode(raw)
    check(item, raw)
    try:
        value = judged(b'{"k":' + poison + b"}" if where == "value" else b'{"k":[{"l":' + poison + b"}]}")
    except (Forbidden, ValueError, RecursionError):
        value = None
    if value is not None:
        assert isinstance(item, Records) and item.tail is None and item.last == 7 + len(listed) - 1
    elif isinstance(item, Records):
        assert item.tail is not None and item.tail.seq == 7 + at and len(item.events) == at
    elif isinstance(item, Bad):
        assert item.seq == 7 and at == 0
    else:  # not JSON in any reading: no record can be named
        assert isinstance(item, Wrong) and item.fatal
        with pytest.raises((ValueError, RecursionError)):
            json.loads(raw.decode("utf-8", "surrogateescape"))


@given(values | st.sampled_from(POISON), st.integers(0, 2))
@budget(300)
def test_a_body_is_read_strictly_too(value: Any, wrapped: int) -> None:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    for _ in range(wrapped):
        raw = b'{"a":[' + raw + b"]}"
    try:
        found = strict_loads(raw)
    except ValueError:
        return  # the named refusal
    assert found == judged(raw)
    assert orjson.loads(orjson.dumps(found)) == found
