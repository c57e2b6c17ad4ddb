"""A node's frames: whatever comes, decoding answers and never raises; and a result that is none is a result."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.gateway.decode import Beat, Wrong
from actors.gateway.node_decode import Said, decode
from actors.protocol import node_frames as frames
from tests.gateway.house import node_hello

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = LEAVES | st.lists(LEAVES, max_size=2) | st.dictionaries(st.text(max_size=4), LEAVES, max_size=2)
KINDS = ("hello", "invoke_result", "invoke_progress", "state", "upload", "event", "heartbeat", "other", "")
NAMES = ("invocation_id", "ok", "payload", "seq", "reported", "task_id", "attempt", "status", "event", "error", "busy")
GOOD: dict[str, dict[str, Any]] = {
    "hello": node_hello(reported={"state": "ready", "task_id": "t", "attempt": 1}, uploads=[]),
    "invoke_result": {"type": "invoke_result", "invocation_id": "inv_1", "ok": True, "payload": [1, {"a": None}]},
    "invoke_progress": {"type": "invoke_progress", "invocation_id": "inv_1", "seq": 1, "payload": "x"},
    "state": {"type": "state", "reported": {"state": "idle"}},
    "upload": {"type": "upload", "task_id": "t", "attempt": 1, "status": "accepted"},
    "event": {"type": "event", "event": {"type": "battery.low", "data": {"level": 7}}},
}


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_answered(raw: bytes) -> None:
    assert isinstance(decode(raw), Said | Beat | Wrong)


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a loaded host
@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6))
def test_frames_of_any_content_are_answered_and_what_is_wrong_can_be_said(kind: str, fields: dict[str, Any]) -> None:
    item = decode(json.dumps({**fields, "type": kind}).encode("utf-8", "surrogatepass"))
    assert isinstance(item, Said | Beat | Wrong)
    if isinstance(item, Wrong):
        assert not item.fatal and item.message.encode() and len(item.message) <= 500


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_frame_is_what_it_says(kind: str) -> None:
    item = decode(json.dumps(GOOD[kind]).encode())
    assert isinstance(item, Said) and item.frame.type == kind
    assert item.frame.model_dump(exclude_unset=True) == GOOD[kind]


@pytest.mark.parametrize("kind", GOOD)
def test_each_field_of_each_frame_is_checked(kind: str) -> None:
    for name in GOOD[kind].keys() - {"type", "payload", "capabilities"}:
        item = decode(json.dumps({**GOOD[kind], name: "not this"}).encode())
        if kind == "invoke_result" and name != "invocation_id":
            assert isinstance(item, Said) and isinstance(item.frame, frames.InvokeResult) and not item.frame.ok
        else:
            assert isinstance(item, Wrong) and item.code == "invalid_frame" and name in item.message, (kind, name)


@pytest.mark.parametrize("payload", ["NaN", "9007199254740993", '"\\ud800"', "[" * 40 + "]" * 40, "1e400"])
def test_a_result_that_is_no_json_for_everybody_is_a_failure_of_its_node(payload: str) -> None:
    raw = f'{{"type":"invoke_result","invocation_id":"inv_1","ok":true,"payload":{payload}}}'
    item = decode(raw.encode())
    assert isinstance(item, Said) and isinstance(item.frame, frames.InvokeResult)
    assert (item.frame.invocation_id, item.frame.ok, item.frame.payload) == ("inv_1", False, None)
    assert item.frame.error is not None and "not valid" in item.frame.error.message


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"1", b"\xff", b'"text"'])
def test_what_is_no_object_at_all_ends_the_conversation(raw: bytes) -> None:
    item = decode(raw)
    assert isinstance(item, Wrong) and item.fatal
