"""The mailbox's port over Ray: what each of Ray's errors means to a caller. Handles are played; Ray is not started."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray.exceptions as rx

from actors import processes
from actors.config import Settings
from actors.law.effects import Done
from actors.law.requests import Sweep
from actors.mailbox import Asleep, OutcomeUnknown
from actors.pool import DaemonPool, PoolFull
from actors.protocol.errors import HoldfastError, StorageUnavailable
from actors.protocol.ids import ulid
from actors.runtime import RayPort, Spare, Worked, placement_name
from actors.store.contract import ActorRow, IdempotencyKey, Outcome

OUTCOME = Outcome("s", Done(changed=True), (), 7)
REQUEST = Sweep(session_id="s", seed=ulid(), kind="grace", subject="1")
KEY = IdempotencyKey("tok_1", "POST /v1/sessions", "k", "0" * 64)


class Played:
    """A handle whose `perform` does what the test says."""

    def __init__(self, does: Callable[[], Any]) -> None:
        self.does = does
        self.perform = self

    def remote(self, asked: bytes) -> Any:
        assert pickle.loads(asked) == (REQUEST, KEY)
        return self._perform() if not isinstance(self.does, rx.PendingCallsLimitExceeded) else self._refuse()

    def _refuse(self) -> Any:
        raise self.does  # type: ignore[misc]

    async def _perform(self) -> Any:
        if isinstance(self.does, BaseException):
            raise self.does
        return pickle.dumps(await self.does())


class Stage:
    def __init__(self, does: Any) -> None:
        self.forgotten: list[tuple[str, str]] = []
        self.port = RayPort(Settings(), "cl_1", self._forget)
        self.row = ActorRow("session/s", "cl_1", "inc_1", os.getpid(), 1)
        self.port.believe([self.row])
        self.port.handles["session/s"] = Played(does)

    async def _forget(self, name: str, incarnation: str) -> None:
        self.forgotten.append((name, incarnation))

    async def call(self, within_s: float = 1.0) -> Outcome:
        try:
            return await self.port.call(REQUEST, KEY, within_s)
        finally:
            await asyncio.sleep(0)  # the forgetting goes on behind
            await asyncio.sleep(0)


async def answers() -> Outcome:
    return OUTCOME


async def hangs() -> Outcome:
    await asyncio.sleep(60)
    raise AssertionError


def test_what_was_worked_is_a_share_of_the_time_since_the_last_look() -> None:
    cpu_s, now = iter([2.0, 2.5, 4.5, 4.5]), iter([10.0, 11.0, 13.0, 23.0])
    worked = Worked(lambda: next(cpu_s), lambda: next(now))
    assert [worked(), worked(), worked()] == [0.5, 1.0, 0.0]


def test_what_is_spare_is_in_cores_of_the_machine_since_the_last_look() -> None:
    looks = iter(
        [
            b"cpu  100 0 100 600 200 0 0 0 50 0\ncpu0 1 1 1 1 1 1 1 1\ncpu1 1 1 1 1 1 1 1 1\nintr 5\n",
            b"cpu  150 0 150 660 240 0 0 0 90 0\ncpu0 1 1 1 1 1 1 1 1\ncpu1 1 1 1 1 1 1 1 1\nintr 9\n",
            b"cpu  150 0 150 660 240 0 0 0 90 0\ncpu0 1 1 1 1 1 1 1 1\ncpu1 1 1 1 1 1 1 1 1\nintr 9\n",
        ]
    )
    spare = Spare(lambda: next(looks))
    assert [spare(), spare()] == [1.0, 0.0]


def test_this_machine_says_what_it_can_spare() -> None:
    assert 0.0 <= Spare()() <= len(os.sched_getaffinity(0)) * 64


class Waking(RayPort):
    """Notes who is woken."""

    def __init__(self, **ports: Any) -> None:
        super().__init__(Settings(), "cl_1", _nobody, wake_look_s=0.0, **ports)
        self.woken: list[str] = []

    async def _wake(self, name: str) -> None:
        self.woken.append(name)

    async def look(self) -> list[str]:
        for _ in range(100):  # looks, one a turn
            await asyncio.sleep(0)
        return self.woken


async def _nobody(name: str, incarnation: str) -> None:
    raise AssertionError


async def test_nobody_is_woken_while_this_process_is_busy() -> None:
    shares = iter([0.9, 0.2])
    port = Waking(worked=lambda: next(shares), spare=lambda: 2.0, wake_patience_s=0.0)
    port.believe([])
    port.wake("s")
    assert await port.look() == []
    port.believe([])
    assert await port.look() == ["session/s"]


async def test_nobody_is_woken_while_the_machine_has_no_core_to_spare() -> None:
    spare = [0.5]
    port = Waking(worked=lambda: 0.0, spare=lambda: spare[0], wake_patience_s=60.0)
    port.wake("s")
    assert await port.look() == []
    spare[0] = 0.95
    assert await port.look() == ["session/s"]


async def test_what_was_spare_before_it_was_asked_for_does_not_count() -> None:
    spare = iter([2.0])  # since the last look, which was before
    port = Waking(worked=lambda: 0.0, spare=lambda: next(spare, 0.1), wake_patience_s=60.0)
    port.wake("s")
    assert await port.look() == []


async def test_a_machine_that_is_never_idle_has_its_actors_all_the_same() -> None:
    port = Waking(worked=lambda: 0.0, spare=lambda: 0.0, wake_patience_s=0.0)
    port.believe([])
    port.wake("s")
    assert await port.look() == ["session/s"]


@pytest.mark.parametrize(
    ("stale_s", "works", "woken"),
    [(0.0, False, []), (0.0, True, ["session/s"]), (60.0, False, ["session/s"])],
    ids=["over by now", "still at work", "asked just now"],
)
async def test_who_asked_long_ago_and_has_nothing_to_do_any_more_is_not_woken(
    stale_s: float, works: bool, woken: list[str]
) -> None:
    async def at_work(subject: str) -> bool:
        assert subject == "s"
        return works

    port = Waking(works=at_work, worked=lambda: 0.0, spare=lambda: 2.0, wake_stale_s=stale_s)
    port.believe([])
    port.wake("s")
    assert await port.look() == woken
    port.wake("s")  # what was not done can be asked for again
    assert await port.look() == 2 * woken


@pytest.mark.parametrize(
    ("works", "woken"), [(False, []), (True, ["session/new", "session/old"])], ids=["over", "at work"]
)
async def test_who_waited_for_a_spare_core_in_vain_lends_his_impatience_only_while_he_has_something_to_do(
    works: bool, woken: list[str]
) -> None:
    """One command after the other, each with the whole machine: the second was woken for in its first second."""

    async def at_work(subject: str) -> bool:
        return works

    spare = [0.0]
    port = Waking(works=at_work, worked=lambda: 0.0, spare=lambda: spare[0], wake_patience_s=60.0)
    port.wake("old")
    for stamp in ("asked_at", "again_at"):
        setattr(port._waking["session/old"], stamp, time.monotonic() - 61.0)
    port.wake("new")
    assert await port.look() == woken
    spare[0] = 2.0
    assert sorted(await port.look()) == (woken or ["session/new"])
    assert not port._waking


@pytest.mark.parametrize("spare", [2.0, 0.0], ids=["a core to spare", "none"])
async def test_who_asks_again_while_it_is_found_out_that_he_is_over_is_not_dropped(spare: float) -> None:
    async def at_work(subject: str) -> bool:
        port.wake(subject)
        return False

    port = Waking(works=at_work, worked=lambda: 0.0, spare=lambda: spare, wake_patience_s=60.0)
    port.wake("s")
    for stamp in ("asked_at", "again_at"):
        setattr(port._waking["session/s"], stamp, time.monotonic() - 61.0)
    assert await port.look() == ["session/s"]


async def test_an_answer_is_the_answer() -> None:
    stage = Stage(answers)
    assert await stage.call() == OUTCOME
    assert stage.port.awake("s") and stage.forgotten == []


async def test_a_store_error_comes_out_as_itself_and_the_actor_stays() -> None:
    stage = Stage(rx.RayTaskError("perform", "trace", StorageUnavailable("full")))
    with pytest.raises(StorageUnavailable, match="full"):
        await stage.call()
    assert stage.port.awake("s") and stage.forgotten == []


async def test_a_bug_in_the_actor_is_an_unknown_outcome() -> None:
    with pytest.raises(OutcomeUnknown):
        await Stage(rx.RayTaskError("perform", "trace", KeyError("x"))).call()


async def test_a_dead_actor_is_forgotten_by_its_incarnation() -> None:
    stage = Stage(rx.ActorDiedError())
    with pytest.raises(OutcomeUnknown):
        await stage.call()
    assert not stage.port.awake("s") and stage.forgotten == [("session/s", "inc_1")]


async def test_an_unreachable_actor_loses_its_handle_but_not_its_row() -> None:
    stage = Stage(rx.ActorUnavailableError("away", None))
    with pytest.raises(OutcomeUnknown):
        await stage.call()
    assert stage.port.handles == {} and stage.port.awake("s") and stage.forgotten == []


async def test_a_full_mailbox_certainly_executed_nothing() -> None:
    with pytest.raises(Asleep):
        await Stage(rx.PendingCallsLimitExceeded("1000")).call()


async def test_silence_is_a_timeout_and_the_frozen_process_is_ended_exactly() -> None:
    stage = Stage(hangs)
    with pytest.raises(TimeoutError):
        await stage.call(0.05)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as frozen:
        started = processes.started_at(frozen.pid)
        assert started is not None
        stage.port.believe([ActorRow("session/s", "cl_1", "inc_1", frozen.pid, started)])
        stage.port.end_frozen("s")
        assert frozen.wait(5) == -9
    await asyncio.sleep(0)
    assert stage.forgotten == [("session/s", "inc_1")] and not stage.port.awake("s")


def test_a_pid_that_was_given_to_somebody_else_is_spared() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as somebody:
        started = processes.started_at(somebody.pid)
        assert started is not None
        assert processes.end_exactly(somebody.pid, started - 1) is False
        assert somebody.poll() is None
        assert processes.end_exactly(somebody.pid, started) is True
        assert somebody.wait(5) == -9


async def test_rows_of_another_cluster_are_not_believed_and_a_row_that_went_takes_its_handle() -> None:
    stage = Stage(answers)
    stage.port.believe([ActorRow("session/x", "cl_0", "inc", 1, 1)])
    assert not stage.port.awake("x") and not stage.port.awake("s") and stage.port.handles == {}


@pytest.mark.parametrize(("placement", "wakes"), [("dedicated", []), ("shared:1", ["session-cell/0"])])
async def test_cells_are_as_many_as_were_asked_for(
    placement: str, wakes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, woken = Stage(answers), list[str]()
    stage.port.settings = Settings(session_placement=placement, actors_max=0)

    async def wake(name: str) -> None:
        woken.append(name)

    monkeypatch.setattr(stage.port, "_wake", wake)
    stage.port.wake("other")
    while stage.port._tasks_named("wake") and not woken:
        await asyncio.sleep(0)
    assert woken == wakes


def test_placement_is_stable_and_spreads() -> None:
    assert placement_name("abc", Settings()) == "session/abc"
    shared = Settings(session_placement="shared:3")
    assert placement_name("abc", shared) == "session-cell/0"  # sha256, the same in every process and version
    assert {placement_name(f"s{i}", shared) for i in range(50)} == {f"session-cell/{k}" for k in range(3)}


async def test_a_pool_whose_threads_hang_refuses_at_once() -> None:
    release = threading.Event()
    pool = DaemonPool("t", threads=1, waiting=1)
    taken = threading.Event()
    asked = [asyncio.create_task(pool.run(lambda: taken.set() or release.wait(), 0.5))]
    await asyncio.sleep(0)
    assert await asyncio.to_thread(taken.wait, 10)  # the thread has it: the queue is empty
    asked.append(asyncio.create_task(pool.run(release.wait, 0.5)))
    await asyncio.sleep(0)
    with pytest.raises(PoolFull):
        await pool.run(release.wait, 5)
    assert all(isinstance(e, TimeoutError) for e in await asyncio.gather(*asked, return_exceptions=True))
    release.set()  # the thread is free again, and drops the question whose asker has left
    async with asyncio.timeout(5):
        while (answer := await _answer(pool)) is None:
            await asyncio.sleep(0.01)
    assert answer == 5
    with pytest.raises(HoldfastError):
        await pool.run(_raise, 2)


async def _answer(pool: DaemonPool) -> int | None:
    try:
        return await pool.run(lambda: 5, 2)
    except PoolFull:
        return None


def _raise() -> None:
    raise HoldfastError("unavailable")


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "log").write_text("x")
    return folder


def test_the_sweep_ends_what_has_the_directory_open_and_spares_a_strangers_tail(inside: Path) -> None:
    script = "import sys, time; f = open(sys.argv[1]); print('open', flush=True); time.sleep(60)"
    with (
        subprocess.Popen([sys.executable, "-c", script, str(inside / "log")], stdout=subprocess.PIPE) as ours,
        subprocess.Popen(["tail", "-f", str(inside / "log")], stdout=subprocess.PIPE) as stranger,
    ):
        assert ours.stdout is not None and ours.stdout.readline() == b"open\n"
        assert stranger.stdout is not None and stranger.stdout.read(1) == b"x"
        # in a process of its own: a sweep reaps, and pytest's children are not its to reap
        sweep = f"from actors import processes; print(processes.sweep({str(inside)!r}))"
        done = subprocess.run([sys.executable, "-c", sweep], capture_output=True, text=True, timeout=20, check=True)
        assert done.stdout == "1\n"
        assert ours.wait(5) == -9
        assert stranger.poll() is None
        stranger.kill()
