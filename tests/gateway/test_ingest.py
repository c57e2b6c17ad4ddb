from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest

from actors.law.requests import Connect, Submit
from actors.protocol.ids import ulid
from tests.gateway.house import House, Socket, event, eventually, final, hello, output, started, texts


async def test_a_hello_is_acknowledged_with_everything_a_wrapper_needs(house: House) -> None:
    await house.session()
    socket = await house.wrapper()
    ack = socket.hello_ack
    assert set(ack) == {
        "type",
        "connection_id",
        "epoch",
        "session_id",
        "server_time_ms",
        "heartbeat_interval_s",
        "grace_s",
        "max_frame_bytes",
        "window_bytes",
        "executions",
    }
    assert ack["connection_id"].startswith("con_") and ack["session_id"] == "s" and ack["executions"] == []
    assert socket.ws.protocol == "holdfast.v1"
    link = (await house.call("GET", "/v1/sessions/s"))["link"]
    assert link["state"] == "connected" and link["connection_id"] == ack["connection_id"]
    await socket.close()


async def test_one_burst_of_started_500_events_and_final_lands_in_order_with_the_terminal_event_last(
    house: House,
) -> None:
    await house.session()
    socket = await house.wrapper()
    await house.submit()
    await socket.hear("command")
    await socket.say(started(), *(output(2 + i, f"line {i}") for i in range(500)), final(502))
    await socket.acked(502)
    stored = await house.events(execution_id="e", after_seq=1)
    assert texts(stored) == [f"line {i}" for i in range(500)][: len(texts(stored))]
    rest = await house.events(after_seq=stored[-1]["seq"])
    everything = stored + rest
    assert texts(everything) == [f"line {i}" for i in range(500)]
    assert [e["type"] for e in everything if e["execution_id"] == "e"][-1] == "execution.completed"
    assert [e["seq"] for e in everything] == list(range(everything[0]["seq"], everything[-1]["seq"] + 1))
    assert [e["exec_seq"] for e in everything if e["exec_seq"]] == list(range(1, 503))
    await socket.close()


async def test_what_was_acknowledged_is_acknowledged_again_and_stored_once(house: House) -> None:
    socket = await house.running()
    await socket.say(output(2, "a", "b"))
    await socket.acked(3)
    await socket.say(output(2, "a", "b"))
    await socket.acked(3)
    await socket.say(output(3, "b", "c"))
    await socket.acked(4)
    assert texts(await house.events()) == ["a", "b", "c"]
    await socket.close()


async def test_a_gap_is_nacked_once_and_frames_are_dropped_until_the_expected_one_comes(house: House) -> None:
    socket = await house.running()
    await socket.say(output(5, "e"), output(6, "f"))
    assert await socket.hear("nack") == {
        "type": "nack",
        "execution_id": "e",
        "code": "gap",
        "expected_seq": 2,
        "detail": None,
    }
    await socket.say(output(7, "g"), output(2, "b", "c", "d"), output(5, "e"))
    await socket.acked(5)
    assert [f["type"] for f in socket.heard].count("nack") == 1
    assert texts(await house.events()) == ["b", "c", "d", "e"]
    await socket.close()


async def test_a_gap_frame_stands_for_its_range(house: House) -> None:
    socket = await house.running()
    gap = {"type": "gap", "execution_id": "e", "seq": 2, "to_seq": 50, "bytes": 99, "reason": "trimmed"}
    await socket.say(gap, output(51, "after"))
    await socket.acked(51)
    await socket.say({**gap, "to_seq": 60})  # half of it stands already: only the rest is a gap
    await socket.acked(60)
    gaps = [e for e in await house.events() if e["type"] == "output.gap"]
    assert [g["data"] for g in gaps] == [
        {"from_seq": 2, "to_seq": 50, "bytes": 99, "reason": "trimmed"},
        {"from_seq": 52, "to_seq": 60, "bytes": 99, "reason": "trimmed"},
    ]
    await socket.close()


async def test_frames_of_an_ended_execution_are_nacked_terminal(house: House) -> None:
    socket = await house.running()
    await house.call("POST", "/v1/sessions/s/executions/e/fail", {"error": "enough"})
    await socket.say(output(2, "late"))
    assert (await socket.hear("nack"))["code"] == "terminal"
    await socket.say(final(3))
    assert (await socket.hear("nack"))["code"] == "terminal"
    assert texts(await house.events()) == []
    await socket.close()


async def test_frames_of_an_execution_that_nobody_submitted_are_nacked(house: House) -> None:
    await house.session()
    socket = await house.wrapper()
    await socket.say(output(1, execution_id="nobody"), output(2, execution_id="nobody"))
    assert (await socket.hear("nack"))["code"] == "unknown_execution"
    await socket.close()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (rb'{"text":"\ud800"}', "surrogate"),
        (rb'{"n":NaN}', "NaN"),
        (rb'{"n":-Infinity}', "Infinity"),
        (rb'{"n":1e999}', "finite"),
        (b'{"n":%d}' % 2**70, "2^53"),
        (b'{"n":%d}' % (2**53 + 1), "2^53"),
        (b'{"n":' + b"[" * 40 + b"]" * 40 + b"}", "deeper"),
        (b'"text"', "object"),
        (b'{"text":"\xff"}', "UTF-8"),
    ],
)
async def test_a_poison_record_is_refused_alone_and_a_gap_takes_its_place(house: House, data: bytes, why: str) -> None:
    socket = await house.running()
    good = json.dumps(event("good")).encode()
    bad = b'{"type":"output","ts_ms":1,"data":' + data + b"}"
    frame = b'{"type":"events","execution_id":"e","seq":2,"events":[%b,%b,%b]}' % (good, bad, good)
    await socket.say(frame, output(5, "beyond"))
    nack = await socket.hear("nack")
    assert (nack["code"], nack["expected_seq"]) == ("invalid", 3) and why in nack["detail"], nack
    replacement = {"type": "gap", "execution_id": "e", "seq": 3, "to_seq": 3, "bytes": 1, "reason": "refused"}
    await socket.say(replacement, output(4, "on"))
    await socket.acked(4)
    assert texts(await house.events()) == ["good", "on"]
    assert [f["type"] for f in socket.heard].count("nack") == 1
    await socket.close()


@pytest.mark.parametrize("name", ["execution.completed", "wrapper.x", "Output", "a..b", "a b", "", "x" * 65])
async def test_event_types_that_are_reserved_or_no_names_are_refused(house: House, name: str) -> None:
    socket = await house.running()
    await socket.say({"type": "events", "execution_id": "e", "seq": 2, "events": [event(type=name)]})
    assert (await socket.hear("nack"))["code"] == "invalid"
    await socket.close()


async def test_a_refused_record_of_an_unknown_line_acknowledges_nothing_before_it(house: House) -> None:
    """The execution is pending: nobody told this connection where it stands, and nothing of it is stored."""
    await house.session()
    socket = await house.wrapper()
    await house.submit()
    await socket.hear("command")
    await socket.say({"type": "events", "execution_id": "e", "seq": 5, "events": [{"type": "Bad!"}]})
    assert (await socket.hear("nack"))["expected_seq"] == 5
    await socket.say(output(3))
    assert (await socket.hear("nack"))["expected_seq"] == 1
    assert "ack" not in [f["type"] for f in socket.heard]
    await socket.close()


async def test_an_invalid_final_is_nacked_and_its_bare_form_is_taken(house: House) -> None:
    socket = await house.running()
    await socket.say(final(2, exit_code="zero"))
    nack = await socket.hear("nack")
    assert (nack["code"], nack["expected_seq"]) == ("invalid", 2)
    await socket.say(final(2))
    await socket.acked(2)
    assert (await house.execution())["status"] == "completed"
    await socket.close()


async def test_a_frame_of_unknown_type_is_told_and_the_socket_stays(house: House) -> None:
    socket = await house.running()
    await socket.say({"type": "telepathy"}, {"type": "command_ack"}, output(2, "still here"))
    assert (await socket.hear("error"))["code"] == "unknown_frame"
    assert (await socket.hear("error"))["code"] == "invalid_frame"
    await socket.acked(2)
    await socket.close()


@pytest.mark.parametrize("frame", ["{", "[1]", '"x"', ""])
async def test_what_is_no_json_object_ends_the_socket_after_what_came_before_it(house: House, frame: str) -> None:
    socket = await house.running()
    await socket.say(output(2, "before"), frame)
    code, _ = await socket.closed()
    assert code == 4002
    assert {"type": "ack", "execution_id": "e", "seq": 2} in socket.heard
    assert texts(await house.events()) == ["before"]


async def test_a_frame_of_exactly_the_limit_passes_and_one_byte_more_closes_1009(tmp_path: Path) -> None:
    house = await House(tmp_path, max_frame_bytes=8192).open()
    socket = await house.running()
    empty = len(json.dumps(output(2, "")).encode())
    await socket.say(output(2, "x" * (8192 - empty)))
    await socket.acked(2)
    await socket.say(output(3, "x" * (8193 - empty)))
    assert (await socket.closed())[0] == 1009
    await house.close()


# ---------------------------------------------------------------- the first frame


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (json.dumps({"type": "ready"}), 4002),
        ("{", 4002),
        (json.dumps(hello(wrapper_id="not an id")), 4002),
        (json.dumps(hello(protocol=2)), 4003),
        (json.dumps({"type": "hello", "protocol": 7, "other": "shape"}), 4003),
    ],
)
async def test_the_first_frame_is_a_hello_that_we_understand(house: House, first: str, code: int) -> None:
    await house.session()
    socket = await house.ingest()
    await socket.say(first)
    assert (await socket.closed())[0] == code
    assert await house.events() == []


async def test_without_a_hello_the_socket_ends(tmp_path: Path) -> None:
    house = await House(tmp_path).open(hello_timeout_s=0.1)
    await house.session()
    socket = await house.ingest()
    code, reason = await socket.closed()
    assert (code, reason, socket.heard[0]["code"]) == (4002, "hello_timeout", "hello_timeout")
    await house.close()


@pytest.mark.parametrize(("token", "code"), [("wrong", 4401), (None, 4401), ("reader", 4403)])
async def test_who_may_not_ingest_is_told_by_close_code(house: House, token: str | None, code: int) -> None:
    await house.session()
    assert (await (await house.ingest(token=token)).closed())[0] == code


async def test_a_session_that_is_not_there_closes_4004_and_a_deleted_one_4000(house: House) -> None:
    socket = await house.ingest("nowhere")
    await socket.say(hello())
    assert (await socket.closed())[0] == 4004
    await house.session()
    await house.call("DELETE", "/v1/sessions/s", status=204)
    socket = await house.ingest()
    await socket.say(hello())
    assert (await socket.closed())[0] == 4000


# ---------------------------------------------------------------- ownership


async def test_another_instance_takes_over_and_the_old_socket_gets_4001(house: House) -> None:
    old = await house.running()
    report = {"execution_id": "e", "state": "running", "first_seq": 1, "last_seq": 1, "final": None}
    new = await house.wrapper(instance_id="i_2", executions=[report])
    assert (await old.closed())[0] == 4001
    assert new.hello_ack["executions"] == [{"execution_id": "e", "directive": "resume", "acked_seq": 1, "reason": None}]
    await new.say(output(2, "mine"))
    await new.acked(2)
    link = (await house.call("GET", "/v1/sessions/s"))["link"]
    assert (link["state"], link["connection_id"]) == ("connected", new.hello_ack["connection_id"])
    await new.close()


async def test_a_later_attempt_of_the_same_instance_closes_4009(house: House) -> None:
    old = await house.running()
    new = await house.wrapper(attempt=2)
    assert (await old.closed())[0] == 4009
    late = await house.ingest()
    await late.say(hello(attempt=1))
    assert (await late.closed())[0] == 4009
    await new.close()


async def test_frames_in_flight_of_a_superseded_socket_write_nothing(house: House) -> None:
    """The ghost: its owner was replaced behind the gateway's back, so only the store's fence can know."""
    old = await house.running()
    await house.worker.perform(
        Connect(
            session_id="s",
            seed=ulid(),
            connection_id="con_other",
            gateway_id=house.gateway.door.gateway_id,
            wrapper_id="w_2",
            instance_id="i_9",
            attempt=1,
        )
    )
    await old.say(output(2, "ghost"))
    assert (await old.closed())[0] == 4001
    assert "ack" not in [f["type"] for f in old.heard[-2:] if f.get("seq") == 2]
    assert texts(await house.events()) == []
    link = (await house.call("GET", "/v1/sessions/s"))["link"]
    assert (link["state"], link["connection_id"]) == ("connected", "con_other")


async def test_the_close_of_a_superseded_socket_writes_nothing(house: House) -> None:
    await house.session()
    old = await house.wrapper()
    new = await house.wrapper(instance_id="i_2")
    await old.closed()
    await eventually(lambda: len(house.gateway.door.connections) == 1)
    await house.gateway.door.settle(2.0)
    kinds = [e["type"] for e in await house.events()]
    assert "wrapper.disconnected" not in kinds and kinds[0] == "wrapper.connected"
    await new.close()


async def test_a_close_tells_code_and_reason_after_the_frames_before_it(house: House) -> None:
    socket = await house.running()
    await socket.say(output(2, *[f"{i}" for i in range(100)]))
    await socket.close(4321, b"bye")

    async def gone() -> list[dict]:
        return [e for e in await house.events() if e["type"] == "wrapper.disconnected"]

    (told,) = await eventually(gone)
    assert (told["data"]["ws_close_code"], told["data"]["ws_close_reason"]) == (4321, "bye")
    assert len(texts(await house.events())) == 100
    assert (await house.call("GET", "/v1/sessions/s"))["link"]["state"] == "grace"


async def test_a_cut_line_counts_as_1006(house: House) -> None:
    socket = await house.running()
    socket.ws._response.connection.transport.abort()

    async def gone() -> list[dict]:
        return [e for e in await house.events() if e["type"] == "wrapper.disconnected"]

    (told,) = await eventually(gone)
    assert (told["data"]["ws_close_code"], told["data"]["error"]) == (1006, "connection lost")


# ---------------------------------------------------------------- commands, life, storage


async def _all_that_a_hint_brings(house: House, socket: Socket) -> None:
    """Somebody says that commands wait; what that makes the gateway say has been heard when this returns."""
    house.gateway.door.commands_wait("s")
    for _ in range(20):
        await house.worker.read(lambda store: None)  # who reads for the hint has read by then
    await socket.say(started(ulid()))  # of nobody: its answer comes after what was said before it
    await socket.hear("nack")


async def test_commands_flow_once_the_wrapper_is_ready_in_order_and_once(house: House) -> None:
    await house.session()
    await house.submit()
    socket = await house.wrapper(ready=False)
    await socket.say(started("other"))  # a question that is answered, so that silence before it is proven
    await socket.hear("nack")
    await _all_that_a_hint_brings(house, socket)
    assert [f["type"] for f in socket.heard] == ["hello_ack", "nack", "nack"]
    await socket.say({"type": "ready"}, {"type": "ready"})
    start = await socket.hear("command")
    assert (start["kind"], start["execution_id"]) == ("start", "e") and "limits" in start
    await socket.say({"type": "command_ack", "command_id": start["command_id"], "status": "received"}, started())
    await socket.acked(1)
    await house.call("POST", "/v1/sessions/s/executions/e/input", {"input": "more"})
    await house.call("POST", "/v1/sessions/s/interrupt", {"reason": "stop"})
    assert (await socket.hear("command"))["input"] == "more"
    assert (await socket.hear("command"))["kind"] == "interrupt"
    await _all_that_a_hint_brings(house, socket)  # both still wait for their ack, and have been said
    commands = [f for f in socket.heard if f["type"] == "command"]
    assert len({c["command_id"] for c in commands}) == len(commands) == 3
    await socket.close()


async def test_commands_made_by_another_process_are_found_by_the_poll(house: House) -> None:
    await house.session()
    socket = await house.wrapper()
    other = house._store()
    other.transact(Submit(session_id="s", seed=ulid(), execution_id="e"))
    other.close()
    assert (await socket.hear("command", within=5))["kind"] == "start"
    await socket.close()


async def _fill_the_disk(house: House) -> None:
    """A real SQLITE_FULL: the file may not grow any more."""

    def fill(store) -> None:  # type: ignore[no-untyped-def]
        pages = store._c.execute("pragma page_count").fetchone()[0]
        store._c.execute(f"pragma max_page_count = {pages}")

    await house.worker.write(fill)


async def _free_the_disk(house: House) -> None:
    await house.worker.write(lambda store: store._c.execute("pragma max_page_count = 1000000").fetchone())


async def test_after_a_storage_error_nothing_is_acknowledged_and_the_wrapper_comes_back(house: House) -> None:
    socket = await house.running()
    await _fill_the_disk(house)
    sent = 2
    for _ in range(50):
        await socket.say(output(sent, *["x" * 2000] * 10))
        sent += 10
    code, reason = await socket.closed()
    assert code == 1013 and json.loads(reason)["retry_after_s"] > 0
    assert [f["code"] for f in socket.heard if f["type"] == "error"] == ["storage_unavailable"]
    acked = max(f["seq"] for f in socket.heard if f["type"] == "ack")
    assert acked < sent - 1
    await _free_the_disk(house)
    assert len(texts(await house.events())) == acked - 1
    report = {"execution_id": "e", "state": "running", "first_seq": 1, "last_seq": sent - 1, "final": None}

    again = await house.wrapper(attempt=2, executions=[report])
    assert again.hello_ack["executions"][0]["acked_seq"] == acked
    await again.say(output(acked + 1, "recovered"))
    await again.acked(acked + 1)
    await again.close()


async def test_a_silent_idle_connection_is_closed_and_a_speaking_one_is_not(tmp_path: Path) -> None:
    house = await House(tmp_path, stale_s=0.4, server_ping_s=0.2, server_pong_s=5).open()
    await house.session("quiet")
    await house.session("alive")
    quiet, alive = await house.wrapper("quiet"), await house.wrapper("alive")

    async def beat() -> bool:
        await alive.say({"type": "heartbeat", "busy": False})
        return not house.gateway.door.of_subject.get("quiet")

    closing = asyncio.ensure_future(quiet.closed())
    await eventually(beat)
    assert (await closing)[0] == 1001
    assert house.gateway.door.of_subject.get("alive")
    await alive.close()
    await house.close()


async def test_a_peer_that_does_not_answer_pings_is_given_up(tmp_path: Path) -> None:
    house = await House(tmp_path, server_ping_s=0.1, server_pong_s=0.2).open()
    await house.session()
    socket = await house.ingest()
    await socket.say(hello())
    await socket.hear("hello_ack")  # and from here on it does not read, so it does not answer pings

    async def gone() -> list[dict]:
        return [e for e in await house.events() if e["type"] == "wrapper.disconnected"]

    (told,) = await eventually(gone)
    assert told["data"]["error"] == "ping timeout"
    await house.close()


async def test_who_ignores_the_window_altogether_breaks_the_protocol(tmp_path: Path) -> None:
    house = await House(tmp_path, max_frame_bytes=65536, window_bytes=4096).open()
    socket = await house.running()
    await house.gateway.loops.stop()  # so that a heartbeat stays noted
    (connection,) = house.gateway.door.connections.values()
    release = threading.Event()
    held = asyncio.ensure_future(house.worker.write(lambda store: release.wait(10)))
    try:
        for i in range(95):  # 149 kB unsettled; the lane holds 2 windows and 2 frames: 139 kB
            await socket.say(output(2 + i, "x" * 1500))
        await socket.say({"type": "heartbeat", "execution_id": "e", "busy": True})  # for who still listens behind it
        await eventually(lambda: connection.over or connection.progressed)
        assert connection.over and (await socket.closed())[0] == 4002
    finally:
        release.set()
        await held
        await house.close()


async def test_a_gateway_that_comes_back_closes_what_its_predecessor_held(tmp_path: Path) -> None:
    house = await House(tmp_path).open()
    held = await house.running()
    # The door falls without a word: its successor opens on the same file.
    successor = await House(tmp_path).open()

    async def gone() -> list[dict]:
        return [e for e in await successor.events() if e["type"] == "wrapper.disconnected"]

    (told,) = await eventually(gone)
    assert (told["data"]["ws_close_code"], told["data"]["error"]) == (1006, "gateway_lost")
    assert not held.ws.closed
    assert (await successor.call("GET", "/v1/sessions/s"))["link"]["state"] == "grace"
    await house.close()
    await successor.close()


async def test_stopping_tells_wrappers_to_come_back(tmp_path: Path) -> None:
    house = await House(tmp_path).open()
    socket = await house.running()
    client = house.client
    await house.gateway.stop()
    assert (await socket.closed())[0] == 1012
    session = await house.worker.read(lambda store: store.session("s"))
    assert session["link"]["state"] == "grace"
    await client.close()
    await house.worker.close()
