from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import processes
from actors.gateway import loops
from actors.gateway.door import FairClock
from actors.gateway.loops import TEND_PART, at_its_moment
from actors.law.requests import Submit
from actors.protocol.errors import HoldfastError
from actors.protocol.ids import ulid
from actors.store.sqlite import SqliteStore, now_ms
from tests.gateway.house import House, eventually, output


async def test_service_time_moves_while_the_door_is_open(house: House) -> None:
    before = await house.worker.read(lambda store: store.service_ms())
    await eventually(lambda: _later(house, before + 900))


async def _later(house: House, than: int) -> bool:
    return bool(await house.worker.read(lambda store: store.service_ms()) > than)


async def test_a_crowd_of_sockets_is_tended_in_parts(house: House) -> None:
    """Whoever leaves meanwhile is in nobody's way, and the loop turns in between."""
    turns = [0]
    tended: list[tuple[Any, int]] = []

    async def turning() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    class Fake:
        token_hash = None

        def tend(self) -> None:
            tended.append((self, turns[0]))
            sockets.pop(others[-1], None)

    others = [Fake() for _ in range(5 * TEND_PART)]
    sockets: dict[Any, None] = house.gateway.door.sockets
    sockets.update(dict.fromkeys(others))
    turner = asyncio.create_task(turning())
    try:
        await house.gateway.loops.tend()
    finally:
        turner.cancel()
        for one in others:
            sockets.pop(one, None)
    assert [one for one, _ in tended if one in others[:-1]] == others[:-1], "each once, and in order"
    at = [turn for _, turn in tended]
    assert max(at.count(turn) for turn in set(at)) <= TEND_PART


async def test_without_a_reaper_the_gateway_sweeps_what_is_due(tmp_path: Path) -> None:
    house = await House(tmp_path, pending_s=0.5).open()
    await house.session()
    await house.submit()

    async def ended() -> bool:
        return bool((await house.execution())["status"] == "failed")

    await eventually(ended, within=6)
    assert (await house.execution())["outcome"]["cause"] == "never_started"
    await house.close()


async def test_what_an_actor_committed_is_shown_on_its_hint(house: House) -> None:
    await house.session()
    wrapper, watcher = await house.wrapper(), await house.watch()
    await watcher.hear("caught_up")
    await house.gateway.loops.stop()  # no poll: only the hint can tell
    other = house._store()
    outcome = other.transact(Submit(session_id="s", seed=ulid(), execution_id="e"))
    other.close()
    house.gateway.hint("s", outcome.last_seq)
    assert [e["type"] for e in (await watcher.hear("events"))["events"]] == ["execution.pending"]
    assert (await wrapper.hear("command"))["kind"] == "start"
    await watcher.close()
    await wrapper.close()


async def test_rows_of_which_no_hint_came_are_found_by_the_poll(house: House) -> None:
    await house.session()
    watcher = await house.watch()
    await watcher.hear("caught_up")
    other = house._store()
    other.transact(Submit(session_id="s", seed=ulid(), execution_id="e"))
    other.close()
    assert [e["type"] for e in (await watcher.hear("events"))["events"]] == ["execution.pending"]
    await watcher.close()


async def test_last_seen_is_flushed_for_those_who_spoke(house: House) -> None:
    wrapper = await house.running()

    async def link() -> dict[str, Any]:
        return dict((await house.call("GET", "/v1/sessions/s"))["link"])

    before = (await link())["last_seen_at_ms"]

    async def seen() -> bool:
        await wrapper.say({"type": "heartbeat", "busy": True})
        return bool((await link())["last_seen_at_ms"] > before)

    await eventually(seen, within=8)
    await wrapper.say(output(2))
    await wrapper.acked(2)
    await wrapper.close()


async def test_a_frozen_reaper_is_ended_by_pid_and_start_time_and_nobody_else_is(house: House) -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(sleeper) as frozen, subprocess.Popen(sleeper) as stranger:
        try:
            loops = house.gateway.loops
            await loops.stop()
            loops.ticked_at = 1e18  # as if the writer had just committed
            started = processes.started_at(frozen.pid) or 0

            async def silent(pid: int, pid_started: int) -> None:
                store = _in_the_past(house)
                store.reaper_beat("r", pid, pid_started)
                store.close()
                for _ in range(3):
                    await loops.watch_reaper()

            strangers = processes.started_at(stranger.pid) or 0
            await silent(stranger.pid, strangers + 1)  # the pid was given to somebody else
            await silent(stranger.pid, 0)
            await silent(os.getpid(), processes.started_at(os.getpid()) or 0)
            assert stranger.poll() is None
            await silent(frozen.pid, started)
            await eventually(lambda: frozen.poll() is not None)
            assert frozen.returncode == -9 and stranger.poll() is None
        finally:
            frozen.kill()
            stranger.kill()


def _in_the_past(house: House) -> SqliteStore:
    return SqliteStore.open(
        house.settings.store_path, house.settings.policy(), wall=lambda: now_ms() - 60_000, synchronous="OFF"
    )


def test_a_fair_clock_does_not_run_while_nobody_listened() -> None:
    now = 100.0
    clock = FairClock(lambda: now)
    now += 1.5
    assert clock() == 1.5
    now += 3600
    assert clock() == 3.5


async def test_a_writer_that_hangs_fails_the_health_check_until_it_goes_on(house: House) -> None:
    """A tick that neither succeeds nor fails: only another process can help, and it looks at /healthz."""
    house.gateway.loops.stuck_s = 0.3
    release = threading.Event()
    hanging = asyncio.ensure_future(house.worker.write(lambda store: release.wait(30)))

    async def health() -> int:
        async with house.client.get(house.url + "/healthz") as answer:
            return answer.status

    async def is_stuck() -> bool:
        return await health() == 503

    async def is_well() -> bool:
        return await health() == 200

    assert await is_well()
    try:
        await eventually(is_stuck, 10)
    finally:
        release.set()
    await hanging
    await eventually(is_well, 10)


async def test_a_crowd_is_flushed_in_parts_and_everybody_is(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "FLUSH_PART", 2)
    await house.gateway.loops.stop()
    wrappers = []
    for n in range(5):
        await house.session(f"s{n}")
        wrappers.append(await house.wrapper(f"s{n}"))
    written = 0
    write = house.worker.write

    async def counted(fn: Any) -> Any:
        nonlocal written
        written += 1
        return await write(fn)

    monkeypatch.setattr(house.worker, "write", counted)
    for wrapper in wrappers:
        await wrapper.say({"type": "heartbeat", "busy": False})
    await eventually(lambda: all(c.seen for c in house.gateway.door.connections.values()))
    before = {n: (await house.call("GET", f"/v1/sessions/s{n}"))["link"]["last_seen_at_ms"] for n in range(5)}
    await eventually(lambda: now_ms() > max(before.values()))
    await house.gateway.loops.flush_seen()
    assert written == 3
    after = {n: (await house.call("GET", f"/v1/sessions/s{n}"))["link"]["last_seen_at_ms"] for n in range(5)}
    assert all(after[n] > before[n] for n in range(5))
    for wrapper in wrappers:
        await wrapper.close()


@given(
    phase=st.floats(0, 1),
    every_s=st.sampled_from([0.05, 0.25, 1.0, 3.0]),
    took=st.lists(st.floats(0, 20), min_size=1, max_size=30),
)
def test_a_turn_keeps_its_moment_whatever_turns_take(phase: float, every_s: float, took: list[float]) -> None:
    due, now = 100 + phase, 100 + phase
    for taken in took:
        now = max(now, due) + taken
        before, due = due, at_its_moment(due + every_s, every_s, now)
        assert due >= before + every_s * 0.999 and due > now - every_s * 1.001, "each moment once, and none is owed"
        assert due <= max(now, before + every_s) + 1e-6, "who is late has its turn at once"
        turns = (due - 100 - phase) / every_s
        assert abs(turns - round(turns)) < 1e-6, "apart from the others, for ever"


async def test_a_loop_begins_at_its_phase_and_stays_there_through_slow_and_failing_turns(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.gateway.loops.stop()
    now, begun = 50.0, list[float]()
    took = iter([0.0, 0.4, 1.3, 2.6, 0.0])
    fails: dict[int, Exception] = {1: HoldfastError("storage_unavailable"), 4: ValueError("a mistake of ours")}

    async def turn() -> None:
        nonlocal now
        begun.append(now)
        try:
            now += next(took)
        except StopIteration:
            raise asyncio.CancelledError from None
        if (error := fails.get(len(begun))) is not None:
            raise error

    async def sleep(s: float) -> None:
        nonlocal now
        now += s

    monkeypatch.setattr(asyncio, "sleep", sleep)
    house.gateway.loops._clock = lambda: now
    with pytest.raises(asyncio.CancelledError):
        await house.gateway.loops._every("x", 1.0, turn, 0.3)
    monkeypatch.undo()
    # The third turn ends at 53.6, so that of 53.3 comes at once; the fourth at 56.2, so that of 55.3 does.
    assert begun == pytest.approx([50.3, 51.3, 52.3, 53.6, 56.2, 56.3])


async def test_the_turns_begin_apart_from_each_other(house: House) -> None:
    await house.gateway.loops.stop()
    begun: dict[str, float] = {}

    async def every(name: str, every_s: float, turn: Any, phase_s: float) -> None:
        begun[name] = phase_s

    house.gateway.loops._every = every  # type: ignore[method-assign]
    house.gateway.loops.start()
    await asyncio.gather(*house.gateway.loops._tasks)
    phases = sorted(begun.values())
    assert begun["tick"] == 0, "the door is open from its first tick on"
    assert len(phases) == 7 and min(b - a for a, b in itertools.pairwise(phases)) > 0.03
