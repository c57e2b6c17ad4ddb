"""Bytes in, records out: nothing lost, nothing changed, however the bytes are cut."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from actors.protocol.defaults import CHUNK_BYTES
from actors.protocol.frames import Approval, Event
from wrapper.drivers import driver
from wrapper.drivers.base import FAST_BYTES, Fed, Output, output, plainly
from wrapper.drivers.base import event as spelled
from wrapper.segments import Piece

CALM = settings(deadline=None, suppress_health_check=list(HealthCheck))  # the machine is shared
PLAIN, JSONL = driver("plain"), driver("jsonl")


def feed(speaks: object, *pieces: tuple[str, bytes]) -> list[dict[str, object]]:
    """Each piece in a feed of its own, with the state carried over as the spool does."""
    state: dict[str, str] = {}
    items = []
    for stream, data in pieces:
        fed: Fed = speaks.feed(state, [Piece(stream, 5, data)], end=False)  # type: ignore[attr-defined]
        state, items = json.loads(json.dumps(fed.state)), items + fed.items
    items += speaks.feed(state, [], end=True).items  # type: ignore[attr-defined]
    return [json.loads(item.body) for item in items]


def joined(events: list[dict[str, object]], stream: str) -> bytes:
    whole = b""
    for event in events:
        Event.model_validate(event)
        data = event["data"]
        assert isinstance(data, dict)
        if data["stream"] == stream:
            part = data["text"].encode("utf-8") if "text" in data else base64.b64decode(data["base64"])
            assert len(part) <= CHUNK_BYTES
            whole += part
    return whole


def test_a_character_cut_in_the_middle_stays_text() -> None:
    data = "zß水🍌".encode()
    for cut in range(len(data)):
        events = feed(PLAIN, ("stdout", data[:cut]), ("stderr", b"!"), ("stdout", data[cut:]))
        assert joined(events, "stdout") == data
        assert all("text" in event["data"] for event in events)  # type: ignore[operator]


def test_what_is_not_utf8_is_base64_and_what_is_stays_text() -> None:
    events = feed(PLAIN, ("stdout", b"ok\n"), ("stdout", b"\xff\xfe\n"), ("stdout", b"ok again\n"))
    assert [sorted(event["data"])[0] for event in events] == ["stream", "base64", "stream"]  # type: ignore[call-overload]


def test_letters_are_gathered_and_floods_are_cut() -> None:
    pieces = [Piece("stdout", 1, b"a")] * 100 + [Piece("stderr", 2, b"b" * 40000)] + [Piece("stdout", 3, b"\0")]
    fed = PLAIN.feed({}, pieces, end=False)
    shape = [
        (body["ts_ms"], body["data"]["stream"], len(body["data"]["text"]))
        for body in map(lambda i: json.loads(i.body), fed.items)
    ]
    assert shape == [
        (1, "stdout", 100),
        (2, "stderr", 16384),
        (2, "stderr", 16384),
        (2, "stderr", 7232),
        (3, "stdout", 1),
    ]


@CALM
@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=40) | st.text().map(str.encode))))
@example([("stdout", b"\xf0\x9f"), ("stdout", b"\x8d"), ("stdout", b"a")])
@example([("stdout", b"\xed\xa0\x80"), ("stdout", b"\xc3")])
@pytest.mark.parametrize("speaks", [PLAIN, JSONL])
def test_all_chunks_together_are_the_bytes(speaks: object, pieces: list[tuple[str, bytes]]) -> None:
    events = [event for event in feed(speaks, *pieces) if event["type"] == "output"]
    if speaks is PLAIN:
        for stream in ("stdout", "stderr"):
            assert joined(events, stream) == b"".join(data for one, data in pieces if one == stream)
    else:
        assert joined(events, "stderr") == b"".join(data for one, data in pieces if one == "stderr")


@CALM
@given(st.integers(0, 5), st.binary(max_size=12) | st.text(max_size=6).map(str.encode), st.booleans())
def test_the_bytes_survive_the_end_of_a_chunk(short: int, data: bytes, twice: bool) -> None:
    whole = (b"a" * (CHUNK_BYTES - short) + data) * (1 + twice)
    assert joined(feed(PLAIN, ("stdout", whole)), "stdout") == whole


@CALM
@given(st.text(max_size=40) | st.text(st.characters(max_codepoint=0x7F), max_size=40), st.sampled_from(Output.HELD))
@example("".join(map(chr, range(0x81))) + "\\u0000 \\\\n", "stdout")
def test_an_output_is_spelled_as_the_standard_library_spells_it(text: str, stream: str) -> None:
    assert output(stream, 7, text.encode()) == spelled("output", 7, {"stream": stream, "text": text})


@CALM
@given(st.text(max_size=40), st.sampled_from(Output.HELD))
@example("".join(map(chr, range(0x81))) + "\u2028\ufeff\U0001f34c", "stdout")
def test_a_long_output_is_spelled_the_same_by_whoever_spells_it(text: str, stream: str) -> None:
    long = text.encode() + b"x" * FAST_BYTES
    assert (
        output(stream, 7, long)
        == plainly(stream, 7, long)
        == spelled("output", 7, {"stream": stream, "text": long.decode()})
    )
    assert output(stream, 7, b"\xff" + long) == plainly(stream, 7, b"\xff" + long)


# ---------------------------------------------------------------- jsonl


GOOD = b'{"type":"tool.call","data":{"x":1}}\n'


def test_a_line_of_json_is_an_event_however_it_is_cut() -> None:
    text = b"plain\n" + GOOD + b"more\n" + GOOD
    whole = feed(JSONL, ("stdout", text))
    assert [event["type"] for event in whole] == ["output", "tool.call", "output", "tool.call"]
    for cut in range(len(text)):
        events = feed(JSONL, ("stdout", text[:cut]), ("stdout", text[cut:]))
        typed = [event for event in events if event["type"] == "tool.call"]
        assert [event["data"] for event in typed] == [{"x": 1}] * 2
        assert joined([event for event in events if event["type"] == "output"], "stdout") == b"plain\nmore\n"


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"execution.completed","data":{}}',  # reserved
        b'{"type":"output","data":{}}',
        b'{"type":"Tool","data":{}}',
        b'{"type":"x","data":[]}',
        b'{"type":"x","data":{"n":NaN}}',
        b'{"type":"x","data":{"n":1e999}}',
        b'{"type":"x","data":{"n":9007199254740993}}',
        b'{"type":"x","data":{"s":"\\ud800"}}',
        b'{"type":"x","data":{"s":"\xff"}}',
        b'{"type":"x","data":' + b'{"a":' * 40 + b"1" + b"}" * 41,
        b'{"type":"x","data":' + b"[" * 5000,
        b'{"type":"' + b"x" * 65 + b'","data":{}}',
        b'{"type":"approval","title":7}',
        b'{"type":"approval","title":"t","options":[]}',
        b'{"type":"ephemeral","events":[{"type":"session.x"}]}',
        b'{"type":"heartbeat","busy":"very"}',
        b'{"no":"type"}',
        b"{",
    ],
)
def test_what_is_no_good_event_is_plain_output(line: bytes) -> None:
    events = feed(JSONL, ("stdout", line + b"\n"))
    assert joined(events, "stdout") == line + b"\n"


def test_members_beside_type_are_the_data_when_there_is_none() -> None:
    (event,) = feed(JSONL, ("stdout", b'{"type":"assistant","message":{"a":1}}\n'))
    assert (event["type"], event["data"]) == ("assistant", {"message": {"a": 1}})


def test_an_endless_line_is_not_held() -> None:
    line = b'{"type":"x","data":{"s":"' + b"a" * 600_000
    events = feed(
        JSONL, *(("stdout", line[at : at + 50_000]) for at in range(0, len(line), 50_000)), ("stdout", b"\n" + GOOD)
    )
    assert joined([event for event in events if event["type"] == "output"], "stdout") == line + b"\n"
    assert events[-1]["type"] == "tool.call"


def test_an_approval_gets_an_id_of_ours_and_remembers_the_agents() -> None:
    fed = JSONL.feed({}, [Piece("stdout", 1, b'{"type":"approval","title":"?","id":{"a":1}}\n')], end=False)
    (item,) = fed.items
    Approval.model_validate({"type": "approval", "execution_id": "e", "seq": 1, **json.loads(item.body)})
    assert item.approval_id is not None and item.approval_id.startswith("apr_")
    line = json.loads(JSONL.encode_decision(item.approval_id, item.ref, "allow", None))
    assert line == {
        "type": "approval",
        "id": {"a": 1},
        "approval_id": item.approval_id,
        "decision": "allow",
        "note": None,
    }


def test_ephemeral_and_heartbeat_are_not_records() -> None:
    lines = b'{"type":"ephemeral","events":[{"type":"t.d","data":{"x":1}}]}\n{"type":"heartbeat","busy":true}\n'
    fed = JSONL.feed({}, [Piece("stdout", 3, lines)], end=False)
    assert (fed.items, fed.busy) == ([], True)
    assert fed.ephemeral == [{"type": "t.d", "ts_ms": 3, "data": {"x": 1}}]


@pytest.mark.parametrize(
    ("value", "closed", "kept"),
    [(None, b"", b"\n"), ("a", b"a", b"a\n"), ("a\n", b"a\n", b"a\n"), ({"a": [1]}, b'{"a":[1]}', b'{"a":[1]}\n')],
)
def test_an_input_as_plain_stdin(value: object, closed: bytes, kept: bytes) -> None:
    assert PLAIN.encode_input(value, keep=False) == closed
    assert PLAIN.encode_input(value, keep=True) == kept
