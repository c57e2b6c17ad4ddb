"""The hand-written decoder keeps the rules of protocol/frames.py, and adds those that a schema cannot say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from actors.gateway import decode as module
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
    decode_all,
    strict_loads,
)
from actors.protocol import frames
from actors.protocol.codes import RESERVED_PREFIXES
from actors.protocol.defaults import EVENTS_PER_FRAME

GOOD = {"type": "output", "ts_ms": 1, "data": {"text": "x"}}


def raw(**fields: Any) -> bytes:
    return json.dumps({"type": "events", "execution_id": "e", "seq": 2, "events": [GOOD], **fields}).encode()


mixed = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.just(2**53),
    st.just(2**53 + 1),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.sampled_from(["", "a", "output", "a.b", "A", "a.", "e!", "x" * 64, "x" * 65, "a\n", "-a"]),
    st.just([]),
    st.just({}),
    st.just({"k": [1, {"l": None}]}),
)
events = st.dictionaries(st.sampled_from(["type", "ts_ms", "data", "more"]), mixed) | st.builds(
    lambda extra: GOOD | extra, st.dictionaries(st.sampled_from(["type", "ts_ms", "data", "more"]), mixed, max_size=1)
)
frames_ = st.builds(
    lambda evs, extra: {"type": "events", "execution_id": "e", "seq": 2, "events": evs} | extra,
    st.lists(events | mixed, max_size=3),
    st.dictionaries(st.sampled_from(["execution_id", "seq", "events", "more"]), mixed, max_size=1),
)


@given(frames_)
@settings(max_examples=600, deadline=None)
def test_by_hand_and_by_schema_agree(frame: dict[str, Any]) -> None:
    try:
        model: frames.Events | None = frames.Events.model_validate_json(json.dumps(frame))
        assert model is not None
        assert not any(e.type.startswith(RESERVED_PREFIXES) for e in model.events)
        # what a schema does not say: numbers inside data, and where a range ends
        assert not any("9007199254740993" in json.dumps(e.data) for e in model.events)
        assert model.seq + len(model.events) - 1 <= 2**53
    except (ValidationError, AssertionError):
        model = None
    item = decode(json.dumps(frame).encode())
    whole = isinstance(item, Records) and item.tail is None
    assert whole == (model is not None), item
    if model is not None:
        assert isinstance(item, Records)
        assert (item.first, item.last) == (model.seq, model.seq + len(model.events) - 1)
        assert [(e.type, e.ts_ms, json.loads(e.data)) for e in item.events] == [
            (e.type, e.ts_ms, e.data) for e in model.events
        ]


@given(st.recursive(mixed, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)))
@settings(max_examples=300, deadline=None)
def test_data_comes_through_as_it_was_sent(value: Any) -> None:
    item = decode(raw(events=[GOOD | {"data": {"v": value}}]))
    if isinstance(item, Records):
        assert json.loads(item.events[0].data) == {"v": value}
    else:
        assert "9007199254740993" in json.dumps(value)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_no_bytes_at_all_make_it_raise(noise: bytes) -> None:
    decode(noise)
    decode(b'{"type":"events","execution_id":"e","seq":1,"events":[' + noise + b"]}")
    decode(b'{"type":"final","execution_id":"e","seq":1,"error":' + noise + b"}")


def test_good_records_before_a_bad_one_are_kept_and_the_bad_one_is_named() -> None:
    item = decode(raw(events=[GOOD, GOOD, GOOD | {"ts_ms": "now"}, GOOD]))
    assert isinstance(item, Records) and (item.first, item.last, len(item.events)) == (2, 3, 2)
    assert isinstance(item.tail, Bad) and item.tail.seq == 4 and item.tail.detail.startswith("seq 4: ts_ms")


@pytest.mark.parametrize(
    "number",
    [b"9007199254740993", b"-9007199254740993", b"18446744073709551616", b"1180591620717411303424", b"9" * 5000],
)
def test_integers_beyond_2_53_are_refused_however_long(number: bytes) -> None:
    frame = raw(events=[GOOD | {"data": {"n": "@"}}]).replace(b'"@"', number)
    assert isinstance(decode(frame), Bad)
    assert isinstance(decode(frame.replace(b'"n": ', b'"n": 1e30, "m": ')), Bad)


@pytest.mark.parametrize("number", ["9007199254740992", "-9007199254740992", "1e30", "-1.5e300", "0.1", "1E5"])
def test_numbers_that_everybody_can_read_are_kept(number: str) -> None:
    item = decode(raw(events=[GOOD | {"data": {"n": "@"}}]).replace(b'"@"', number.encode()))
    assert isinstance(item, Records) and json.loads(item.events[0].data)["n"] == json.loads(number)


@pytest.mark.parametrize(("depth", "ok"), [(31, True), (32, False)])
def test_depth_is_counted_from_the_data(depth: int, ok: bool) -> None:
    nested = b"[" * depth + b"]" * depth
    item = decode(raw(events=[GOOD | {"data": {"n": "@"}}]).replace(b'"@"', nested))
    assert isinstance(item, Records if ok else Bad)
    surrogate = raw(events=[GOOD | {"data": {"n": "@"}}]).replace(b'"@"', nested).replace(b'"text"', b'"text"')
    assert type(decode(surrogate)) is type(item)


def test_a_surrogate_in_a_key_is_refused_too() -> None:
    assert isinstance(decode(raw(events=[GOOD | {"data": {"@": 1}}]).replace(b"@", rb"\udc00")), Bad)
    assert isinstance(decode(raw(events=[GOOD | {"data": {"@": 1}}]).replace(b"@", rb"\ud83d\udc0b")), Records)


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        ({"type": "ready"}, Ready),
        ({"type": "heartbeat", "busy": True}, Beat),
        ({"type": "ephemeral", "execution_id": "e", "events": [GOOD]}, Fleeting),
        ({"type": "ephemeral", "execution_id": "e", "events": []}, Wrong),
        ({"type": "started", "execution_id": "e", "seq": 1}, Control),
        ({"type": "started", "execution_id": "e", "seq": "1"}, Wrong),
        ({"type": "started", "execution_id": "e", "seq": 1, "pid": "x"}, Bad),
        ({"type": "final", "execution_id": "e", "seq": 3, "status": "completed", "more": 1}, Control),
        ({"type": "final", "execution_id": "e", "seq": 3, "status": "completed", "data": {"n": 2**60}}, Bad),
        ({"type": "gap", "execution_id": "e", "seq": 3, "to_seq": 2, "reason": "trimmed"}, Bad),
        ({"type": "gap", "execution_id": "e", "seq": 3, "to_seq": 3, "reason": "trimmed"}, Records),
        ({"type": "command_ack", "command_id": "c", "status": "done"}, Control),
        ({"type": "command_ack", "command_id": "c", "status": "maybe"}, Wrong),
        ({"type": ["events"]}, Wrong),
        ({}, Wrong),
    ],
)
def test_each_frame_is_what_it_says(frame: dict[str, Any], kind: type) -> None:
    assert type(decode(json.dumps(frame).encode())) is kind


def test_a_whole_document_keeps_the_same_rules() -> None:
    assert strict_loads(b'{"a":[1,2.5,1e30,"x",null,true]}') == {"a": [1, 2.5, 1e30, "x", None, True]}
    for bad in (
        b"{",
        b"[NaN]",
        b'["\\ud800"]',
        b"[9007199254740993]",
        b"[18446744073709551616]",
        b"[" * 33 + b"]" * 33,
    ):
        with pytest.raises(ValueError):
            strict_loads(bad)


# ---------------------------------------------------------------- frames that were read together


def joined(items: list[Item]) -> list[Item]:
    """Neighbours that go on where the one before them ended, as one."""
    found: list[Item] = []
    for item in items:
        last = found[-1] if found else None
        if (
            isinstance(item, Records)
            and isinstance(last, Records)
            and not (item.gap or item.tail or last.gap or last.tail)
            and (item.execution_id, item.first) == (last.execution_id, last.last + 1)
        ):
            found[-1] = Records(
                item.execution_id, last.first, item.last, last.events + item.events, last.size + item.size
            )
        else:
            found.append(item)
    return found


# What is no JSON, or only together with its neighbours; what only the lenient reader can tell; what is no object.
odd = st.sampled_from(
    [
        b"", b" ", b"{", b"}", b"[", b"]", b'{"x":[1', b"2]}", b'{"type":"ready"},{"type":"ready"}', b"1", b"null",
        b'"', b"\xff", b'{"type":"ready"}', b'{"type":"heartbeat"}', b' {"type":"ready"} ', b"\xc3", b"\xa4",
        raw(events=[GOOD | {"data": {"n": "@"}}]).replace(b'"@"', b"18446744073709551616"),
        raw(events=[GOOD | {"data": {"n": "@"}}]).replace(b'"@"', b"1e30"),
        raw(events=[GOOD | {"data": {"n": "@"}}]).replace(b'"@"', b"NaN"),
        raw(events=[GOOD | {"data": {"@": 1}}]).replace(b"@", rb"\udc00"),
        raw(events=[GOOD, GOOD | {"ts_ms": None}]),
        b'{"type":"gap","execution_id":"e","seq":3,"to_seq":3,"reason":"trimmed"}',
        b'{"type":"started","execution_id":"e","seq":1}',
    ]
)  # fmt: skip
numbered = st.builds(
    lambda eid, seq, n, extra: json.dumps(
        {"type": "events", "execution_id": eid, "seq": seq, "events": [GOOD] * n} | extra
    ).encode(),
    st.sampled_from(["e", "f"]),
    st.integers(1, 5),
    st.integers(1, 3),
    st.just({})
    | st.dictionaries(st.sampled_from(["type", "execution_id", "seq", "events", "more"]), mixed, max_size=1),
)


@st.composite
def flowing(draw: st.DrawFn) -> list[bytes]:
    """Mostly what a wrapper says, one behind the other, with a stranger between now and then."""
    seq, raws = 1, list[bytes]()
    for n in draw(st.lists(st.integers(1, 3), max_size=12)):
        raws.append(raw(seq=seq, events=[GOOD] * n))
        seq += n
        raws += draw(st.lists(odd | numbered, max_size=1))
    return raws


@given(flowing() | st.lists(odd | numbered, min_size=1, max_size=8), st.sampled_from([2, 3, 64]))
@settings(max_examples=600, deadline=None)
def test_frames_read_together_are_what_each_is_by_itself(raws: list[bytes], at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_AT_ONCE", at_once)
        together = decode_all(raws) if raws else []
    assert joined(together) == joined([decode(one) for one in raws])


def test_frames_that_follow_each_other_are_one() -> None:
    raws = [raw(seq=n, events=[GOOD]) for n in range(1, 41)]
    (item,) = decode_all(raws)
    assert isinstance(item, Records)
    assert (item.first, item.last, len(item.events), item.size) == (1, 40, 40, sum(map(len, raws)))


def test_frames_together_are_no_longer_than_one_may_be() -> None:
    half = EVENTS_PER_FRAME // 2
    raws = [raw(seq=1 + k * half, events=[GOOD] * half) for k in range(3)]
    items = [item for item in decode_all(raws) if isinstance(item, Records)]
    assert [(item.first, len(item.events)) for item in items] == [(1, 2 * half), (1 + 2 * half, half)]


def test_no_frame_can_lend_another_its_end() -> None:
    """(Who knew the word between them could: it is drawn anew in each process and never said.)"""
    between = f',"{module._WORD}",'.encode()
    opened, closed = raw(events=[GOOD])[:-2], b"]}"
    for raws in (
        [opened, closed],
        [raw() + b",1", raw()],
        [b"[1", b"2]", raw()],
        [raw() + between + raw(), raw()],
    ):
        assert decode_all(raws) == [decode(one) for one in raws], raws
