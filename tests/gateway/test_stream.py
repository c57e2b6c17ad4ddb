from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from actors.gateway.stream import Watcher
from actors.gateway.wire import BACKLOG_BYTES
from actors.protocol import frames
from actors.protocol.defaults import FEED_EVENTS
from tests.gateway.house import House, event, eventually, final, output, texts

STREAM_FRAME: TypeAdapter[Any] = TypeAdapter(frames.StreamFrame)


def seqs(events: list[dict[str, Any]]) -> list[int]:
    return [e["seq"] for e in events]


async def test_replay_and_live_are_one_contiguous_stream(house: House) -> None:
    wrapper = await house.running()
    await wrapper.say(output(2, *[f"{i}" for i in range(300)]))
    await wrapper.acked(301)
    watcher = await house.watch(after_seq=0)
    assert (await watcher.next())["type"] == "snapshot"
    for i in range(300):
        await wrapper.say(output(302 + i, f"{300 + i}"))
    await wrapper.acked(601)
    head = (await house.call("GET", "/v1/sessions/s"))["last_seq"]
    events = await watcher.stored(head)
    assert seqs(events) == list(range(1, head + 1))
    assert texts(events) == [f"{i}" for i in range(600)]
    kinds = [f["type"] for f in watcher.heard]
    assert kinds.count("caught_up") == 1 and kinds.count("snapshot") == 1
    for frame in watcher.heard:
        STREAM_FRAME.validate_json(json.dumps(frame))
        if frame["type"] == "events":
            assert frame["live"] == (kinds.index("caught_up") < watcher.heard.index(frame))
    await watcher.close()
    await wrapper.close()


async def test_the_tail_that_is_kept_does_not_grow_from_group_to_group(house: House) -> None:
    wrapper = await house.running()
    watcher = await house.watch()
    await watcher.hear("caught_up")
    for n in range(2, FEED_EVENTS + 50):
        await wrapper.say(output(n, "x"))
        await wrapper.acked(n)  # so that each is a group of its own
    feed = house.gateway.door.hub.feeds["s"]
    assert len(feed.after(feed.head - FEED_EVENTS)) == FEED_EVENTS
    assert feed.after(feed.head - FEED_EVENTS - 1) == ()
    await watcher.close()
    await wrapper.close()


async def test_what_a_long_group_left_is_shed_by_the_clock(house: House) -> None:
    wrapper = await house.running()
    watcher = await house.watch()
    await watcher.hear("caught_up")
    await wrapper.say(*(output(n, "x" * 100) for n in range(2, 50)))
    await wrapper.acked(49)
    feed = house.gateway.door.hub.feeds["s"]
    await eventually(lambda: all(one.cursor == feed.head for one in feed.subscribers), what="everybody has it")
    feed._limit_bytes = feed._bytes // 2  # as if it had been longer than the tail
    await house.gateway.loops.look()
    assert 0 < feed._bytes <= feed._limit_bytes
    await watcher.close()
    await wrapper.close()


async def test_live_events_are_word_for_word_what_a_page_says(house: House) -> None:
    wrapper = await house.running()
    watcher = await house.watch()
    await watcher.hear("caught_up")
    gap = {"type": "gap", "execution_id": "e", "seq": 4, "to_seq": 9, "bytes": 1, "reason": "trimmed"}
    await wrapper.say(output(2, "ä\u0000\n", "\U0001f40b"), gap, output(10, "z"), final(11))
    await wrapper.acked(11)
    live = await watcher.stored(8)
    assert live == [e for e in await house.events() if e["seq"] >= live[0]["seq"]]
    assert len(live) == 5
    await watcher.close()
    await wrapper.close()


async def test_a_cursor_takes_up_where_it_left(house: House) -> None:
    wrapper = await house.running()
    await wrapper.say(output(2, "a", "b", "c"))
    await wrapper.acked(4)
    watcher = await house.watch(after_seq=4)
    events = await watcher.stored(6)
    assert seqs(events) == [5, 6]
    await watcher.hear("caught_up", seq=6)
    await watcher.close()
    await wrapper.close()


async def test_without_a_cursor_only_what_comes_is_shown(house: House) -> None:
    wrapper = await house.running()
    watcher = await house.watch()
    snapshot = await watcher.next()
    assert snapshot["session"]["session_id"] == "s" and snapshot["session"]["active_execution"]["status"] == "running"
    assert (await watcher.next()) == {"type": "caught_up", "seq": snapshot["session"]["last_seq"]}
    await wrapper.say(output(2, "new"))
    frame = await watcher.next()
    assert frame["live"] is True and texts(frame["events"]) == ["new"]
    await watcher.close()
    await wrapper.close()


@pytest.mark.parametrize(
    ("query", "reason"),
    [({"after_seq": 99}, "ahead"), ({"after_seq": 1, "stream_id": "str_other"}, "restored")],
)
async def test_a_cursor_that_cannot_be_honoured_is_reset(house: House, query: dict[str, Any], reason: str) -> None:
    wrapper = await house.running()
    session = await house.call("GET", "/v1/sessions/s")
    watcher = await house.watch(**query)
    assert (await watcher.next())["type"] == "snapshot"
    assert await watcher.next() == {
        "type": "reset",
        "reason": reason,
        "first_seq": 1,
        "last_seq": session["last_seq"],
        "stream_id": session["stream_id"],
    }
    assert seqs(await watcher.stored(session["last_seq"])) == list(range(1, session["last_seq"] + 1))
    await watcher.close()
    await wrapper.close()


async def test_filters_leave_out_and_never_stall(house: House) -> None:
    wrapper = await house.running()
    watcher = await house.watch(after_seq=0, types="execution.started,execution.completed")
    await wrapper.say(*(output(2 + i, "x") for i in range(400)), final(402))
    events: list[dict[str, Any]] = []
    while not events or events[-1]["type"] != "execution.completed":
        events += (await watcher.hear("events"))["events"]
    assert [e["type"] for e in events] == ["execution.started", "execution.completed"]
    await watcher.close()
    await wrapper.close()


async def test_ephemeral_events_are_shown_and_never_stored(house: House) -> None:
    wrapper = await house.running()
    watcher = await house.watch()
    await watcher.hear("caught_up")
    await wrapper.say({"type": "ephemeral", "execution_id": "e", "events": [event("typ", "delta")]}, output(2, "typed"))
    shown = await watcher.hear("ephemeral")
    STREAM_FRAME.validate_json(json.dumps(shown))
    assert shown["events"][0]["data"]["text"] == "typ"
    assert texts((await watcher.hear("events"))["events"]) == ["typed"]
    assert "delta" not in [e["type"] for e in await house.events()]
    await watcher.close()
    await wrapper.close()


async def test_a_deleted_session_shows_its_last_event_and_closes_4000(house: House) -> None:
    wrapper = await house.running()
    watcher = await house.watch()
    filtered = await house.watch(types="output")
    await watcher.hear("caught_up")
    await filtered.hear("caught_up")
    await house.call("DELETE", "/v1/sessions/s", status=204)
    assert (await watcher.closed())[0] == 4000
    told = [e["type"] for f in watcher.heard if f["type"] == "events" for e in f["events"]]
    assert told[-1] == "session.closed" and "execution.failed" in told
    assert (await filtered.closed())[0] == 4000
    assert (await wrapper.closed())[0] == 4000
    assert (await (await house.watch()).closed())[0] == 4000


async def test_a_deletion_in_another_process_is_found_by_the_poll(house: House) -> None:
    from actors.law.requests import DeleteSession
    from actors.protocol.ids import ulid

    await house.session()
    watcher = await house.watch()
    await watcher.hear("caught_up")
    other = house._store()
    other.transact(DeleteSession(session_id="s", seed=ulid()))
    other.close()
    assert (await watcher.closed())[0] == 4000
    assert [e["type"] for f in watcher.heard if f["type"] == "events" for e in f["events"]] == ["session.closed"]


@pytest.mark.parametrize(
    ("query", "token", "code"),
    [
        ({}, "wrong", 4401),
        ({}, "wrapper", 4403),
        ({"after_seq": "-1"}, "reader", 4002),
        ({"types": "A!"}, "reader", 4002),
    ],
)
async def test_who_or_what_is_not_allowed_is_told_by_close_code(
    house: House, query: dict[str, Any], token: str, code: int
) -> None:
    await house.session()
    assert (await (await house.watch(token=token, **query)).closed())[0] == code


async def test_a_stream_of_no_session_closes_4004(house: House) -> None:
    assert (await (await house.watch("nowhere")).closed())[0] == 4004


async def test_a_slow_subscriber_is_closed_4008_and_nobody_waits_for_it(tmp_path: Path) -> None:
    house = await House(tmp_path).open(slow_s=0.3)
    wrapper = await house.running()
    slow, quick = await house.watch(after_seq=0), await house.watch(after_seq=0)
    big, n = "x" * 60_000, 300
    reading = asyncio.ensure_future(quick.stored(n + 3))
    for i in range(n):  # 18 MB: beyond any socket buffer
        await wrapper.say(output(2 + i, big))
        if i % 20 == 19:
            await wrapper.acked(2 + i)
    assert seqs(await reading) == list(range(1, n + 4))
    await eventually(lambda: sum(1 for s in house.gateway.door.sockets if type(s).__name__ == "Watcher") == 1)
    assert (await slow.closed())[0] == 4008
    seen = [e["seq"] for f in slow.heard if f["type"] == "events" for e in f["events"]]
    assert seen == list(range(1, len(seen) + 1)) and len(seen) < n
    again = await house.watch(after_seq=seen[-1])
    assert seqs(await again.stored(n + 3)) == list(range(seen[-1] + 1, n + 4))
    await house.close()


async def test_a_slow_subscriber_of_a_session_that_falls_silent_is_closed_4008_too(tmp_path: Path) -> None:
    house = await House(tmp_path).open(slow_s=0.3)
    wrapper = await house.running()
    slow = await house.watch(after_seq=0)
    await slow.hear("caught_up")
    (watcher,) = (s for s in house.gateway.door.sockets if isinstance(s, Watcher))
    n = 1
    while watcher.wire is not None and watcher.wire.backlog <= BACKLOG_BYTES:
        n += 1
        assert n < 600, "18 MB are beyond any socket buffer"
        await wrapper.say(output(n, "x" * 60_000))
        await wrapper.acked(n)
    await eventually(lambda: watcher not in house.gateway.door.sockets)
    assert (await slow.closed())[0] == 4008
    await house.close()


# ---------------------------------------------------------------- SSE


async def sse(house: House, query: str = "", **headers: str) -> Any:
    return await house.client.get(
        f"{house.url}/v1/sessions/s/stream?{query}",
        headers={"Authorization": "Bearer t-reader", "Accept": "text/event-stream", **headers},
    )


async def blocks(response: Any, until: str) -> list[dict[str, str]]:
    """Events of an SSE body up to the first of a type."""
    found: list[dict[str, str]] = []
    current: dict[str, str] = {}
    async for raw in response.content:
        line = raw.decode().rstrip("\n")
        if line:
            name, _, value = line.partition(":")
            current[name] = value.removeprefix(" ")
        elif current:
            found.append(current)
            if current.get("event") == until:
                return found
            current = {}
    return found


async def test_sse_says_the_same_with_ids_on_stored_events_only(house: House) -> None:
    wrapper = await house.running()
    await wrapper.say(output(2, "a", "b\nc"))
    await wrapper.acked(3)
    response = await sse(house, "after_seq=0")
    assert response.status == 200 and response.content_type == "text/event-stream"
    told = await blocks(response, "caught_up")
    assert told[0] == {"retry": "1000"}
    assert told[1]["event"] == "snapshot" and "id" not in told[1] and "id" not in told[-1]
    stored = [t for t in told if "id" in t]
    assert [json.loads(t["data"]) for t in stored] == await house.events()
    assert [int(t["id"]) for t in stored] == list(range(1, 6))
    assert stored[-1]["event"] == "output"
    await wrapper.say(output(4, "live"))
    (live,) = await blocks(response, "output")
    assert json.loads(live["data"])["data"]["text"] == "live"
    response.close()
    again = await sse(house, "after_seq=0", **{"Last-Event-ID": "5"})
    told = await blocks(again, "caught_up")
    assert [t["id"] for t in told if "id" in t] == ["6"]
    again.close()
    await wrapper.close()


async def test_sse_refusals_are_problem_documents(house: House) -> None:
    response = await sse(house)
    assert response.status == 404 and response.content_type == "application/problem+json"
    await house.session()
    response = await sse(house, "after_seq=x")
    assert response.status == 400 and (await response.json())["code"] == "bad_request"


async def test_sse_of_a_deleted_session_ends(house: House) -> None:
    await house.session()
    response = await sse(house, "after_seq=0")
    await blocks(response, "caught_up")
    await house.call("DELETE", "/v1/sessions/s", status=204)
    assert [t["event"] for t in await blocks(response, "never")] == ["session.closed"]


# ---------------------------------------------------------------- tickets, revocation, fleet


async def test_a_ticket_opens_one_socket_and_only_of_its_session(house: House) -> None:
    await house.session()
    await house.session("other")
    made = await house.call("POST", "/v1/tickets", {"session_id": "s"}, token="reader", status=201)
    path = "/v1/sessions/{}/stream?ticket=" + made["ticket"]
    watcher = await house.socket(path.format("s"), None)
    await watcher.hear("caught_up")
    assert (await (await house.socket(path.format("s"), None)).closed())[0] == 4401
    made = await house.call("POST", "/v1/tickets", {"session_id": "s"}, token="reader", status=201)
    path = "/v1/sessions/{}/stream?ticket=" + made["ticket"]
    assert (await (await house.socket(path.format("other"), None)).closed())[0] == 4004
    await watcher.close()


async def test_a_revoked_token_loses_its_sockets_within_five_seconds(house: House) -> None:
    wrapper = await house.running()
    watcher = await house.watch()
    await watcher.hear("caught_up")
    await house.worker.write(
        lambda s: s._c.execute("update tokens set revoked_at_ms = 1 where id = 'tok_reader'").rowcount
    )
    assert (await watcher.closed(5.0))[0] == 4401
    await wrapper.say(output(2, "still here"))
    await wrapper.acked(2)
    await wrapper.close()


async def test_the_fleet_shows_what_changed(house: House) -> None:
    await house.session("one")
    fleet = await house.socket("/v1/stream", "reader")
    first = await fleet.hear("sessions")
    assert [s["session_id"] for s in first["changed"]] == ["one"] and first["counts"]["sessions"] == 1
    await house.session("two")
    told = await fleet.hear("sessions")
    assert [s["session_id"] for s in told["changed"]] == ["two"] and told["counts"]["sessions"] == 2
    wrapper = await house.wrapper("two")
    told = await fleet.hear("sessions")
    assert told["changed"][0]["link"]["state"] == "connected" and told["counts"]["connected"] == 1
    await fleet.close()
    await wrapper.close()
