"""Invocations over the real door: every caller gets an outcome, and every failure says whether it was dispatched."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.gateway.service import Gateway
from actors.mailbox import Mailbox, NoActors
from actors.protocol.codes import CLOSE
from actors.protocol.defaults import INVOKE_PAYLOAD_BYTES
from tests.gateway.house import Frame, House, Socket, eventually, result


def failure(told: Frame) -> tuple[str, bool]:
    assert told["ok"] is False and told["state"] == "settled", told
    return told["error"]["code"], told["error"]["dispatched"]


async def quiet(socket: Socket, *expected: str) -> None:
    """Says something that is answered, so that whatever was on its way has come, and nothing else has."""
    await socket.say({"type": "ping-pong"})
    await socket.hear("error", code="unknown_frame")
    assert [f["type"] for f in socket.heard[:-1]] == ["hello_ack", *expected]


# ---------------------------------------------------------------- the good way


async def test_an_invocation_goes_down_and_its_result_comes_up(house: House) -> None:
    socket = await house.node()
    calling = house.invoke(command="device.info", params={"verbose": True}, timeout_s=5)
    asked = await socket.hear("invoke")
    assert (asked["command"], asked["params"]) == ("device.info", {"verbose": True})
    assert 0 < asked["within_s"] <= 5 and asked["idempotency_key"] == asked["invocation_id"]
    await socket.say(result(asked, {"model": "arm-7"}))
    told = await calling
    assert (told["ok"], told["payload"], told["error"], told["dispatched"]) == (True, {"model": "arm-7"}, None, True)
    assert told["connection_id"] == socket.hello_ack["connection_id"] and told["by"] == "tok_operator"
    assert await house.invocation(told["invocation_id"]) == told
    listed = await house.call("GET", "/v1/nodes/n/invocations")
    assert listed["items"] == [told]
    await quiet(socket, "invoke")


async def test_whoever_does_not_wait_reads_it_later(house: House) -> None:
    socket = await house.node()
    path = "/v1/nodes/n/invoke"
    told = await house.call("POST", path, {"command": "echo", "wait": False, "timeout_s": 0}, status=202)
    assert (told["state"], told["ok"]) == ("pending", None)
    asked = await socket.hear("invoke")
    assert asked["within_s"] is None

    async def state() -> str:
        return str((await house.invocation(asked["invocation_id"]))["state"])

    assert await state() == "dispatched"
    await socket.say(result(asked, 1))
    await eventually(lambda: _is(house, asked, "settled"))
    assert (await house.invocation(asked["invocation_id"]))["payload"] == 1


async def _is(house: House, asked: Frame, state: str) -> bool:
    return bool((await house.invocation(asked["invocation_id"]))["state"] == state)


async def test_frames_go_down_in_the_order_of_asking(house: House) -> None:
    socket = await house.node()
    path = "/v1/nodes/n/invoke"
    for n in range(100):
        await house.call("POST", path, {"command": "echo", "params": n, "wait": False}, status=202)
    assert [(await socket.hear("invoke"))["params"] for _ in range(100)] == list(range(100))


async def test_a_node_that_says_it_failed_is_a_node_error_that_was_dispatched(house: House) -> None:
    socket = await house.node()
    calling = house.invoke()
    asked = await socket.hear("invoke")
    await socket.say(result(asked, ok=False, error={"code": "E_JAM", "message": "the gripper is stuck"}))
    told = await calling
    assert failure(told) == ("NODE_ERROR", True)
    assert (told["error"]["node_code"], told["error"]["message"]) == ("E_JAM", "the gripper is stuck")


# ---------------------------------------------------------------- what is refused before anything is sent


async def test_what_certainly_was_not_executed_says_so_and_can_be_read_again(house: House) -> None:
    await house.call("POST", "/v1/nodes/ghost/invoke", {"command": "echo"}, status=404)
    socket = await house.node()
    for body, code in (
        ({"role": "recorder"}, "NOT_CONNECTED"),
        ({"command": "format.disk"}, "NOT_ALLOWED"),
        ({"expected_connection_id": "con_other"}, "ROUTE_CHANGED"),
    ):
        told = await house.call("POST", "/v1/nodes/n/invoke", {"command": "echo", **body}, status=200)
        assert failure(told) == (code, False) and told["dispatched_at_ms"] is None
        assert await house.invocation(told["invocation_id"]) == told
    await quiet(socket)
    await socket.close()
    await eventually(lambda: _offline(house))
    assert failure(await house.invoke()) == ("NOT_CONNECTED", False)


async def _offline(house: House) -> bool:
    return not (await house.shown())["connected"]


async def test_the_expected_connection_is_served(house: House) -> None:
    socket = await house.node()
    calling = house.invoke(expected_connection_id=socket.hello_ack["connection_id"])
    await socket.say(result(await socket.hear("invoke")))
    assert (await calling)["ok"]


async def test_a_node_takes_so_many_and_not_more(house: House) -> None:
    from actors.protocol.defaults import INVOCATIONS_MAX

    await house.node()
    path, body = "/v1/nodes/n/invoke", {"command": "echo", "wait": False}
    states = [(await house.call("POST", path, body))["state"] for _ in range(INVOCATIONS_MAX)]
    assert set(states) <= {"pending", "dispatched"}
    assert failure(await house.invoke()) == ("UNAVAILABLE", False)


# ---------------------------------------------------------------- time


async def test_silence_is_a_timeout_and_the_node_is_told_to_stop(house: House) -> None:
    socket = await house.node()
    calling = house.invoke(timeout_s=0.5)
    asked = await socket.hear("invoke")
    assert failure(await calling) == ("TIMEOUT", True)
    assert (await socket.hear("invoke_cancel"))["invocation_id"] == asked["invocation_id"]
    await socket.say(result(asked, "late"))
    assert (await socket.hear("ignored"))["invocation_id"] == asked["invocation_id"]
    assert failure(await house.invocation(asked["invocation_id"])) == ("TIMEOUT", True)


async def test_progress_keeps_an_invocation_alive_and_its_end_does_not(house: House) -> None:
    socket = await house.node()
    calling = house.invoke(timeout_s=0, idle_timeout_s=1.5)
    asked = await socket.hear("invoke")
    for seq in range(1, 5):
        await socket.say(progress(asked, seq, {"percent": 25 * seq}))
        await asyncio.sleep(0.5)
    shown = await house.invocation(asked["invocation_id"])
    assert (shown["state"], shown["progress"]["seq"], shown["progress"]["payload"]) == (
        "dispatched",
        4,
        {"percent": 100},
    )
    assert failure(await calling) == ("IDLE_TIMEOUT", True)
    assert (await socket.hear("invoke_cancel"))["invocation_id"] == asked["invocation_id"]


async def test_progress_counts_in_order_only(house: House) -> None:
    socket = await house.node()
    house_call = house.invoke(timeout_s=0)
    asked = await socket.hear("invoke")
    for seq, payload in ((1, "a"), (1, "again"), (3, "a hole before it"), (2, "b")):
        await socket.say(progress(asked, seq, payload))
    await quiet(socket, "invoke", "ignored", "ignored")
    shown = await house.invocation(asked["invocation_id"])
    assert (shown["progress"]["seq"], shown["progress"]["payload"]) == (2, "b")
    await socket.say(result(asked))
    await house_call


def progress(asked: Frame, seq: int, payload: Any) -> Frame:
    return {"type": "invoke_progress", "invocation_id": asked["invocation_id"], "seq": seq, "payload": payload}


# ---------------------------------------------------------------- cancel


async def test_a_cancel_settles_at_once_and_tells_the_node(house: House) -> None:
    socket = await house.node()
    calling = house.invoke()
    asked = await socket.hear("invoke")
    path = f"/v1/invocations/{asked['invocation_id']}/cancel"
    cancelled = await house.call("POST", path, status=200)
    assert failure(cancelled) == ("CANCELLED", True) and await calling == cancelled
    assert (await socket.hear("invoke_cancel"))["invocation_id"] == asked["invocation_id"]
    assert await house.call("POST", path, status=200) == cancelled
    await socket.say(result(asked))
    await socket.hear("ignored")
    assert await house.invocation(asked["invocation_id"]) == cancelled
    await house.call("POST", "/v1/invocations/inv_none/cancel", status=404)


async def test_a_cancel_that_comes_second_gets_the_outcome_that_came_first(house: House) -> None:
    socket = await house.node()
    calling = house.invoke()
    asked = await socket.hear("invoke")
    await socket.say(result(asked, "done"))
    told = await calling
    assert await house.call("POST", f"/v1/invocations/{asked['invocation_id']}/cancel", status=200) == told
    await quiet(socket, "invoke")


# ---------------------------------------------------------------- the same request again


async def test_one_key_is_one_invocation_however_often_it_is_asked(house: House) -> None:
    socket = await house.node()
    first, second = house.invoke(key="k-1", params=1), house.invoke(key="k-1", params=1)
    asked = await socket.hear("invoke")
    assert asked["idempotency_key"] == "k-1"
    await socket.say(result(asked, "once"))
    told = await first
    assert told["payload"] == "once" and await second == told
    assert await house.invoke(key="k-1", params=1) == told, "and after it has settled"
    await house.call(
        "POST", "/v1/nodes/n/invoke", {"command": "echo", "params": 2}, headers={"Idempotency-Key": "k-1"}, status=422
    )
    await quiet(socket, "invoke")


async def test_a_refusal_is_the_answer_of_its_key_too(house: House) -> None:
    await house.call("POST", "/v1/nodes", {"node_id": "n"}, status=201)
    told = await house.invoke(key="k")
    assert failure(told) == ("NOT_CONNECTED", False)
    await house.node()
    assert await house.invoke(key="k") == told


# ---------------------------------------------------------------- results that do not count


async def test_a_result_for_anothers_invocation_is_ignored_and_changes_nothing(house: House) -> None:
    mine, other = await house.node("mine"), await house.node("other")
    calling = house.invoke("mine")
    asked = await mine.hear("invoke")
    await other.say(result(asked, "stolen"))
    assert (await other.hear("ignored"))["invocation_id"] == asked["invocation_id"]
    await other.say({"type": "invoke_result", "invocation_id": "inv_unknown", "ok": True})
    assert (await other.hear("ignored"))["invocation_id"] == "inv_unknown"
    assert (await house.invocation(asked["invocation_id"]))["state"] == "dispatched"
    await mine.say(result(asked, "own"))
    assert (await calling)["payload"] == "own"
    await mine.say(result(asked, "twice"))
    await mine.hear("ignored")
    assert (await house.invocation(asked["invocation_id"]))["payload"] == "own"


async def test_what_the_old_connection_was_asked_settles_at_the_replacement(house: House) -> None:
    old = await house.node(instance_id="i_1")
    calling = house.invoke(timeout_s=60)
    asked = await old.hear("invoke")
    new = await house.node(instance_id="i_2")
    assert failure(await asyncio.wait_for(calling, 5)) == ("DISCONNECTED", True)
    await new.say(result(asked, "from the new one"))
    assert (await new.hear("ignored"))["invocation_id"] == asked["invocation_id"]
    assert failure(await house.invocation(asked["invocation_id"])) == ("DISCONNECTED", True)
    await quiet(new, "ignored")


async def test_a_result_said_right_before_the_close_counts(house: House) -> None:
    for n in range(20):
        socket = await house.node(instance_id=f"i_{n}")
        calling = house.invoke()
        await socket.say(result(await socket.hear("invoke"), n))
        await socket.close()
        assert (await calling)["payload"] == n


async def test_a_lost_connection_settles_what_it_was_asked(house: House) -> None:
    socket = await house.node()
    calling = house.invoke(timeout_s=0)
    await socket.hear("invoke")
    assert socket.ws._response.connection is not None and socket.ws._response.connection.transport is not None
    socket.ws._response.connection.transport.abort()
    assert failure(await asyncio.wait_for(calling, 5)) == ("DISCONNECTED", True)
    assert (await house.log())[-1]["type"] in ("node.disconnected", "node.command")


# ---------------------------------------------------------------- bad input


async def test_a_result_that_is_too_large_is_an_error_of_the_node_and_the_socket_stays(house: House) -> None:
    socket = await house.node()
    calling = house.invoke()
    asked = await socket.hear("invoke")
    await socket.say(result(asked, "x" * INVOKE_PAYLOAD_BYTES))
    told = await calling
    assert failure(told) == ("NODE_ERROR", True) and "too large" in told["error"]["message"]
    calling = house.invoke()
    await socket.say(result(await socket.hear("invoke"), "small"))
    assert (await calling)["payload"] == "small"


@pytest.mark.parametrize("broken", [b'{"n":NaN}', b'"\\ud800"', b"9007199254740993", b"[" * 40 + b"]" * 40])
async def test_a_result_that_is_no_json_for_everybody_settles_its_invocation(house: House, broken: bytes) -> None:
    socket = await house.node()
    calling = house.invoke()
    asked = await socket.hear("invoke")
    said = f'{{"type":"invoke_result","invocation_id":"{asked["invocation_id"]}","ok":true,"payload":'
    await socket.say(said.encode() + broken + b"}")
    told = await calling
    assert failure(told) == ("NODE_ERROR", True) and "not valid" in told["error"]["message"]
    await quiet(socket, "invoke")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"command": "a b"},
        {"command": "echo", "role": "chef"},
        {"command": "echo", "timeout_s": -1},
        {"command": "echo", "timeout_s": 86401},
        {"command": "echo", "idle_timeout_s": "soon"},
        {"command": "echo", "expected_connection_id": "!!"},
    ],
)
async def test_an_invocation_that_is_none_is_refused_before_anything_is_written(house: House, body: Frame) -> None:
    socket = await house.node()
    await house.call("POST", "/v1/nodes/n/invoke", body, status=400)
    assert (await house.call("GET", "/v1/nodes/n/invocations"))["items"] == []
    await quiet(socket)


# ---------------------------------------------------------------- the gateway dies


async def test_a_gateway_that_died_leaves_outcomes_and_its_callers_get_them(house: House) -> None:
    """A second gateway on the same store takes the first for dead, as after a kill -9."""
    sent, deaf = await house.node("sent"), await house.node("deaf")
    waiting = house.invoke("sent", timeout_s=0)
    asked = await sent.hear("invoke")
    house.gateway.door.connections[deaf.hello_ack["connection_id"]].ready = False  # it will never be fetched for it
    unsent = house.invoke("deaf", timeout_s=0)
    await eventually(lambda: _listed(house, "deaf"))
    second = Gateway(house.settings, house.worker, Mailbox(house.worker.perform, NoActors()))
    await second.start()
    assert failure(await asyncio.wait_for(waiting, 10)) == ("UNAVAILABLE", True)
    assert failure(await asyncio.wait_for(unsent, 10)) == ("UNAVAILABLE", False)
    assert failure(await house.invocation(asked["invocation_id"])) == ("UNAVAILABLE", True)
    node = await house.shown("sent")
    assert (node["connected"], node["presence"]["reason"]) == (False, "gateway_lost")
    await second.stop()


async def _listed(house: House, node_id: str) -> bool:
    return bool((await house.call("GET", f"/v1/nodes/{node_id}/invocations"))["items"])


async def test_a_door_that_closes_tells_its_waiting_callers_what_stands(house: House) -> None:
    socket = await house.node()
    calling = house.invoke(timeout_s=0)
    asked = await socket.hear("invoke")
    house.gateway.door.waiting.leave()
    told = await calling
    assert (told["invocation_id"], told["state"]) == (asked["invocation_id"], "dispatched")


async def test_a_closing_gateway_tells_its_nodes_to_come_back(house: House) -> None:
    socket = await house.node()
    closing = asyncio.create_task(house.gateway.stop())
    assert (await socket.closed())[0] == CLOSE["service_restart"]
    await closing
