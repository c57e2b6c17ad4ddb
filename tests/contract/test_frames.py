"""Every frame of every socket, driven against the live service: valid by the document, and the same after a model.

A story is one conversation. SHOWS says which messages it has; together they are all of /asyncapi.json.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from actors.gateway.door import SOCKETS_MAX
from actors.protocol import frames
from actors.protocol.codes import CLOSE, CLOSE_CODES, CommandKind, Directive, NackCode
from tests.contract.judge import Case, Judge
from tests.contract.node_stories import NODE_STORIES
from tests.contract.talk import Talk
from tests.contract.test_http import Idle
from tests.gateway.house import TOKENS, Frame, House, event, final, hello, node_hello, output, started


async def opened(house: House, judge: Judge, **fields: Any) -> Talk:
    """A wrapper, ready, with execution `e` running."""
    await house.session()
    talk = Talk(judge, "ingest", await house.ingest())
    await talk.say(hello(**fields))
    await talk.hear("hello_ack")
    await talk.say({"type": "ready"})
    await house.submit("s", "e", input={"n": [1, None]}, limits={"hung_s": None})
    command = await talk.hear("command", kind="start")
    assert command["input"] == {"n": [1, None]} and command["limits"]["hung_s"] is None
    await talk.say({"type": "command_ack", "command_id": command["command_id"], "status": "received"})
    await talk.say(started())
    await talk.acked(1)
    return talk


# ---------------------------------------------------------------- stories


async def a_whole_life(house: House, judge: Judge) -> set[str]:
    known = {"execution_id": "x", "state": "final", "first_seq": 1, "last_seq": 3, "final": {"status": "failed"}}
    talk = await opened(house, judge, executions=[known])
    watch = Talk(judge, "stream", await house.watch(after_seq=0))
    assert (await watch.hear("snapshot"))["session"]["active_execution"]["execution_id"] == "e"
    await watch.hear("caught_up")
    texts = ["plain", "ä€😀\n\x00", ""]
    await talk.say(output(2, *texts))
    await talk.acked(4)
    await talk.say({"type": "heartbeat", "execution_id": "e", "busy": True}, {"type": "heartbeat"})
    stored = [e for e in await watch.socket.stored(6) if e["type"] == "output"]
    assert [e["data"]["text"] for e in stored] == texts and [e["exec_seq"] for e in stored] == [2, 3, 4]
    await talk.say({"type": "ephemeral", "execution_id": "e", "events": [event("delta", "text.delta")]})
    assert (await watch.hear("ephemeral"))["events"] == [event("delta", "text.delta")]
    asked = {"type": "approval", "execution_id": "e", "seq": 5, "approval_id": "apr_1", "title": "?", "options": ["y"]}
    await talk.say({**asked, "expires_in_s": 60, "data": {"path": "/"}})
    await talk.acked(5)
    await house.call("POST", "/v1/sessions/s/approvals/apr_1", {"decision": "y", "note": "ok"})
    assert (await talk.hear("command", kind="approval"))["decision"] == "y"
    await house.call("POST", "/v1/sessions/s/executions/e/input", {"input": "more"})
    assert (await talk.hear("command", kind="input"))["input"] == "more"
    await house.call("POST", "/v1/sessions/s/interrupt", {"reason": "enough", "force": True})
    assert (await talk.hear("command", kind="interrupt"))["force"] is True
    await talk.say({"type": "gap", "execution_id": "e", "seq": 6, "to_seq": 9, "bytes": 7, "reason": "trimmed"})
    await talk.acked(9)
    await talk.say(final(10, status="interrupted", exit_code=None, signal="SIGINT", error="stopped", data={"a": 1}))
    await talk.acked(10)
    assert (await house.execution())["outcome"]["signal"] == "SIGINT"
    await watch.hear("events")
    await watch.socket.close()
    await talk.socket.close()
    return talk.seen | watch.seen


async def an_end_by_hand(house: House, judge: Judge) -> set[str]:
    talk = await opened(house, judge)
    await house.call("POST", "/v1/sessions/s/executions/e/fail", {"error": "by hand"})
    assert (await talk.hear("command", kind="abort"))["reason"] == "operator"
    await talk.socket.close()
    return talk.seen


async def what_is_refused(house: House, judge: Judge) -> set[str]:
    talk = await opened(house, judge)
    await talk.say(output(7))
    assert await talk.hear("nack") == {
        "type": "nack",
        "execution_id": "e",
        "code": "gap",
        "expected_seq": 2,
        "detail": None,
    }
    await talk.socket.say({**output(2), "events": [event(type="execution.completed")]})
    assert (await talk.hear("nack"))["code"] == "invalid"
    await talk.say(output(1, execution_id="stranger"))
    assert (await talk.hear("nack"))["code"] == "unknown_execution"
    await talk.socket.say({"type": "of another time"})
    assert (await talk.hear("error"))["code"] == "unknown_frame"
    await talk.socket.say({"type": "command_ack"})
    assert (await talk.hear("error"))["code"] == "invalid_frame"
    await house.call("POST", "/v1/sessions/s/executions/e/fail", {"error": "by hand"})
    await talk.hear("command", kind="abort")
    await talk.say(output(2))
    assert (await talk.hear("nack"))["code"] == "terminal"
    await talk.socket.close()
    return talk.seen


async def a_cursor_that_cannot_be_honoured(house: House, judge: Judge) -> set[str]:
    await house.session()
    seen: set[str] = set()
    for query, reason in (({"after_seq": 99}, "ahead"), ({"after_seq": 0, "stream_id": "str_old"}, "restored")):
        watch = Talk(judge, "stream", await house.watch(**query))
        assert (await watch.hear("reset"))["reason"] == reason
        await watch.hear("caught_up")
        await watch.socket.close()
        seen |= watch.seen
    return seen


async def the_fleet(house: House, judge: Judge) -> set[str]:
    await house.session("a", labels={"k": "v"})
    watch = Talk(judge, "fleet", await house.socket("/v1/stream", "reader"))
    first = await watch.hear("sessions")
    assert [s["session_id"] for s in first["changed"]] == ["a"] and first["counts"]["sessions"] == 1
    await house.submit("a", "e")
    while (await watch.hear("sessions"))["counts"]["pending"] != 1:
        continue
    await watch.socket.close()
    return watch.seen


OPENED = {"Hello", "HelloAck", "Ready", "StartCommand", "CommandAck", "Started", "Ack"}
STORIES: dict[Callable[[House, Judge], Awaitable[set[str]]], set[str]] = {
    a_whole_life: {
        *OPENED,
        *("Events", "Ephemeral", "Heartbeat", "Approval", "Gap", "Final"),
        *("ApprovalCommand", "InputCommand", "InterruptCommand"),
        *("StreamSnapshot", "StreamEvents", "StreamCaughtUp", "StreamEphemeral"),
    },
    an_end_by_hand: OPENED | {"AbortCommand"},
    what_is_refused: OPENED | {"Events", "Nack", "Error", "AbortCommand"},
    a_cursor_that_cannot_be_honoured: {"StreamSnapshot", "StreamReset", "StreamCaughtUp"},
    the_fleet: {"FleetSessions"},
    **NODE_STORIES,
}


async def test_the_stories_have_every_message(house: House) -> None:
    judge = await Judge.of(house)
    assert set().union(*STORIES.values()) == set(judge.asyncapi["components"]["messages"])


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
async def test_every_frame_is_what_the_document_says(house: House, story: Any) -> None:
    assert await story(house, await Judge.of(house)) == STORIES[story]


async def test_a_frame_that_the_document_does_not_have_is_noticed(house: House) -> None:
    judge = await Judge.of(house)
    with pytest.raises(AssertionError, match="does not send"):
        judge.frame("stream", {"type": "ack", "execution_id": "e", "seq": 1})
    with pytest.raises(AssertionError, match="seq"):
        judge.frame("ingest", {"type": "ack", "execution_id": "e", "seq": "1"})


async def test_what_the_document_calls_invalid_is_refused_by_the_service(house: House) -> None:
    """Not stricter on paper than at the door: one bad value for every field of every frame from a wrapper."""
    judge = await Judge.of(house)
    talk = await opened(house, judge)
    good: dict[str, Frame] = {
        "events": output(2),
        "started": started(seq=2),
        "approval": {
            "type": "approval",
            "execution_id": "e",
            "seq": 2,
            "approval_id": "a",
            "title": "?",
            "options": ["y"],
        },
        "gap": {"type": "gap", "execution_id": "e", "seq": 2, "to_seq": 3, "reason": "trimmed"},
        "final": final(2),
        "ephemeral": {"type": "ephemeral", "execution_id": "e", "events": [event()]},
        "command_ack": {"type": "command_ack", "command_id": "cmd_x", "status": "done"},
    }
    for kind, frame in good.items():
        for name in frame.keys() - {"type"}:
            bad = {**frame, name: {"not": "this"}}
            with pytest.raises(AssertionError):
                judge.frame("ingest", bad, "receive")
            await talk.socket.say(bad)
            told = await talk.socket.next()
            assert told["type"] in ("nack", "error"), (kind, name, told)
            assert told["code"] in ("invalid", "invalid_frame"), (kind, name, told)
    assert (await house.execution())["status"] == "running"
    await talk.socket.close()


def test_the_codes_on_sockets_are_declared_as_they_are() -> None:
    from typing import get_args

    shown = {
        NackCode: frames.Nack.model_fields["code"].annotation,
        Directive: frames.ExecutionDirective.model_fields["directive"].annotation,
    }
    for table, used in shown.items():
        assert get_args(table) == get_args(used)
    assert len(get_args(CommandKind)) == 5


# ---------------------------------------------------------------- SSE


async def test_sse_carries_the_same_frames(house: House) -> None:
    judge = await Judge.of(house)
    wrapper = await house.running()
    await wrapper.say(output(2, "a", "b"))
    await wrapper.acked(3)
    headers = {"Authorization": f"Bearer {TOKENS['reader']}"}
    seen: dict[str, Any] = {}
    async with house.client.get(f"{house.url}/v1/sessions/s/stream?after_seq=0", headers=headers) as response:
        assert response.content_type == "text/event-stream"
        block: dict[str, str] = {}
        while "caught_up" not in seen:
            line = (await asyncio.wait_for(response.content.readline(), 10)).decode().rstrip("\n")
            if line:
                name, _, value = line.partition(": ")
                block[name] = value
                continue
            if "data" in block:
                seen.setdefault(block["event"], []).append((block.get("id"), json.loads(block["data"])))
            block = {}
    for kind in ("snapshot", "caught_up"):
        ((ident, frame),) = seen.pop(kind)
        assert ident is None
        judge.frame("stream", frame)
    stored = sorted((e for found in seen.values() for e in found), key=lambda pair: pair[1]["seq"])
    assert [ident for ident, _ in stored] == [str(e["seq"]) for _, e in stored] == [str(n + 1) for n in range(5)]
    judge.frame("stream", {"type": "events", "events": [e for _, e in stored], "live": False})
    await wrapper.close()


# ---------------------------------------------------------------- close codes


async def _crowded(house: House) -> None:
    house.gateway.door.sockets.update((Idle(), None) for _ in range(SOCKETS_MAX))


async def _not_accepting(house: House) -> None:
    house.gateway.door.accepting = False


async def _nothing(house: House) -> None: ...


async def _second(house: House, **fields: Any) -> None:
    other = await house.wrapper(**fields)
    await other.close()


Before = Callable[[House], Awaitable[None]]
# (channel, close code) → what stands before, path, token, what is said, what happens then
CLOSES: dict[tuple[str, str], tuple[Before, str, str | None, list[Frame | str], Before]] = {}
for _channel, _path, _token in (
    ("ingest", "/v1/sessions/s/ingest", "wrapper"),
    ("node", "/v1/nodes/n/connect", "admin"),
    ("stream", "/v1/sessions/s/stream", "reader"),
    ("fleet", "/v1/stream", "reader"),
):
    _opening: list[Frame | str] = {"ingest": [hello()], "node": [node_hello(attempt=1)]}.get(_channel, [])
    CLOSES |= {
        (_channel, "rate_limited"): (_crowded, _path, _token, [], _nothing),
        (_channel, "try_again_later"): (_not_accepting, _path, _token, [], _nothing),
        (_channel, "not_authenticated"): (_nothing, _path, None, [], _nothing),
        (_channel, "not_allowed"): (
            _nothing,
            _path,
            "reader" if _channel in ("ingest", "node") else "wrapper",
            [],
            _nothing,
        ),
        (_channel, "service_restart"): (_nothing, _path, _token, _opening, lambda house: house.gateway.stop()),
        (_channel, "frame_too_big"): (_nothing, _path, _token, [*_opening, '"' + "x" * (2 << 20) + '"'], _nothing),
    }
    if _channel in ("ingest", "stream"):
        CLOSES |= {
            (_channel, "not_found"): (_nothing, _path.replace("/s/", "/nosuch/"), _token, _opening, _nothing),
            (_channel, "session_closed"): (
                _nothing,
                _path,
                _token,
                _opening,
                lambda house: house.call("DELETE", "/v1/sessions/s"),
            ),
        }
CLOSES |= {
    ("ingest", "protocol_error"): (_nothing, "/v1/sessions/s/ingest", "wrapper", ["{"], _nothing),
    ("stream", "protocol_error"): (_nothing, "/v1/sessions/s/stream?execution_id=!!", "reader", [], _nothing),
    ("ingest", "version_not_supported"): (
        _nothing,
        "/v1/sessions/s/ingest",
        "wrapper",
        [hello(protocol=2)],
        _nothing,
    ),
    ("ingest", "superseded"): (
        _nothing,
        "/v1/sessions/s/ingest",
        "wrapper",
        [hello()],
        lambda house: _second(house, wrapper_id="w_2", instance_id="i_2"),
    ),
    ("node", "protocol_error"): (_nothing, "/v1/nodes/n/connect?role=chef", "admin", [], _nothing),
    ("node", "version_not_supported"): (_nothing, "/v1/nodes/n/connect", "admin", [node_hello(protocol=2)], _nothing),
    ("node", "not_found"): (
        _nothing,
        "/v1/nodes/n/connect",
        "admin",
        [node_hello()],
        lambda house: house.call("DELETE", "/v1/nodes/n"),
    ),
    ("node", "superseded"): (
        _nothing,
        "/v1/nodes/n/connect",
        "admin",
        [node_hello()],
        lambda house: house.node(instance_id="i_2"),
    ),
    ("node", "fenced"): (
        _nothing,
        "/v1/nodes/n/connect",
        "admin",
        [node_hello(attempt=1)],
        lambda house: house.node(attempt=2),
    ),
    ("ingest", "fenced"): (
        _nothing,
        "/v1/sessions/s/ingest",
        "wrapper",
        [hello()],
        lambda house: _second(house, attempt=2),
    ),
}
# What the peer itself says, or what needs time to pass: tests/gateway has them.
NOT_HERE = {("ingest", "normal"), ("stream", "normal"), ("fleet", "normal"), ("ingest", "going_away")}
NOT_HERE |= {("node", "normal"), ("node", "going_away")}
NOT_HERE |= {("stream", "slow_consumer"), ("fleet", "slow_consumer")}


async def test_every_declared_close_code_is_met(house: House) -> None:
    judge = await Judge.of(house)
    declared = {
        (name, CLOSE_CODES[code].name)
        for name, channel in judge.asyncapi["channels"].items()
        for code in channel["x-close-codes"]
    }
    assert declared == CLOSES.keys() | NOT_HERE
    assert not CLOSES.keys() & NOT_HERE


@pytest.mark.parametrize(("channel", "name"), CLOSES)
async def test_a_socket_closes_with_its_declared_code(house: House, channel: str, name: str) -> None:
    before, path, token, said, then = CLOSES[channel, name]
    judge = await Judge.of(house)
    await house.session()
    await before(house)
    socket = await house.socket(path, token)
    await socket.say(*said)
    if then is not _nothing:  # it has to be there before something happens to it
        await socket.hear(
            {"ingest": "hello_ack", "node": "hello_ack", "stream": "snapshot", "fleet": "sessions"}[channel]
        )
    happening = asyncio.ensure_future(then(house))
    code, _ = await socket.closed()
    assert code == CLOSE[name]
    await happening
    for frame in socket.heard:
        judge.frame(channel, frame)
    house.gateway.door.sockets = {s: None for s in house.gateway.door.sockets if not isinstance(s, Idle)}


async def test_a_ticket_opens_a_stream_once(house: House) -> None:
    judge = await Judge.of(house)
    await house.session()
    from tests.contract.test_http import OF

    told = await judge.ask(house, OF["api_ticket"], Case("/v1/tickets", {"session_id": "s"}))
    path = f"/v1/sessions/s/stream?ticket={told.body['ticket']}"
    first, second = await house.socket(path, None), await house.socket(path, None)
    await first.hear("snapshot")
    assert (await second.closed())[0] == CLOSE["not_authenticated"]
    await first.close()
