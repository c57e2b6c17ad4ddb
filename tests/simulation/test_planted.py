"""The simulation can fail: each bug planted here, at a port of the world, is found within a few seeds and by its name.

A plant changes one rule of one part and nothing else. Without it the same seeds are clean (test_simulation.py).
The append fence is backed by the compare-and-swap of `acked_seq`, so chance nearly never sees that it is gone: that
plant is test_small_scope.py's, which tries every way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from actors.gateway.connection import Connection
from actors.law import effects as fx
from actors.law import requests as rq
from actors.store.contract import Appended, AppendItem, AppendRefused, DueDeadline, Keyed
from tests.simulation import plan
from tests.simulation.host import Host, SimSpool
from tests.simulation.run import run
from tests.simulation.storage import SimStore, SimWorker
from tests.simulation.world import Parts

SEEDS = 150  # within which each is found; most are in the first ten


class AfterTheEnd(SimStore):
    """Output that comes when the execution is over is stored all the same."""

    def append_in_transaction(self, item: AppendItem, wall_ms: int, service_ms: int) -> Any:
        result = super().append_in_transaction(item, wall_ms, service_ms)
        if isinstance(result, AppendRefused) and result.why == "terminal":
            last = self._c.execute("select last_seq from sessions where id = ?", (item.session_id,)).fetchone()[0]
            self._c.execute("release item")
            self._c.execute("savepoint item")
            self._c.execute(
                "insert into events values (?, ?, ?, ?, 'late', ?, ?, '{}', null, 0, 0)",
                (item.session_id, last + 1, item.execution_id, item.first, wall_ms, wall_ms),
            )
            self._c.execute("update sessions set last_seq = ? where id = ?", (last + 1, item.session_id))
            return Appended(last + 1, 1, item.first)
        return result


class ForgetsGrace(SimStore):
    """The deadline of grace lives in memory only."""

    def _do(self, sid: str, view: Any, effect: Any) -> None:
        if not (isinstance(effect, fx.Arm) and effect.kind == "grace"):
            super()._do(sid, view, effect)


class ForgetsLadder(SimStore):
    def _do(self, sid: str, view: Any, effect: Any) -> None:
        if not (isinstance(effect, fx.Arm) and effect.kind == "ladder"):
            super()._do(sid, view, effect)


class LosesInterrupt(SimStore):
    """The interrupt is a flag in memory: the row that a reconnect reads does not have it."""

    def _do(self, sid: str, view: Any, effect: Any) -> None:
        super()._do(sid, view, effect)
        if isinstance(effect, fx.RememberConnection):
            self._c.execute(
                "update executions set interrupt_id = null where session_id = ? and status = 'running'", (sid,)
            )


class StaleClose(SimStore):
    """A close is honoured whoever owns the session now."""

    def decide_in_transaction(self, request: Any, key: Any) -> Any:
        if isinstance(request, rq.Closed):
            row = self._c.execute("select connection_id from sessions where id = ?", (request.session_id,)).fetchone()
            request = replace(request, connection_id=row[0] or "none")
        return super().decide_in_transaction(request, key)


class OneBack(SimStore):
    """Cursor − 1: a page begins with what was shown already."""

    def page(self, session_id: str, after_seq: int, limit: int, **more: Any) -> Any:
        return super().page(session_id, max(0, after_seq - 1), limit, **more)

    def spelled(self, session_id: str, after_seq: int, limit: int, **more: Any) -> Any:
        return super().spelled(session_id, max(0, after_seq - 1), limit, **more)


class OneTooFar(SimStore):
    """Cursor + 1: a page leaves out what comes next."""

    def page(self, session_id: str, after_seq: int, limit: int, **more: Any) -> Any:
        return super().page(session_id, after_seq + (after_seq > 0), limit, **more)

    def spelled(self, session_id: str, after_seq: int, limit: int, **more: Any) -> Any:
        return super().spelled(session_id, after_seq + (after_seq > 0), limit, **more)


class LeapingClock(SimStore):
    """Service time follows the wall wherever it jumps."""

    def _tick(self, gateway_id: str) -> int:
        t, wall = self._c.execute("select t_ms, wall_ms from service_clock").fetchone()
        now = self.wall_ms()
        self._c.execute("update service_clock set t_ms = ?, wall_ms = ?", (t + now - wall if wall else 0, now))
        return super()._tick(gateway_id)


class TooEarly(SimStore):
    """Every deadline is due, and a sweep believes who asked for it."""

    def due(self, limit: int) -> list[DueDeadline]:
        found = self._c.execute("select session_id, kind, subject, due_ms from deadlines").fetchall()
        return [DueDeadline(*row) for row in found[:limit]]

    def _due_of(self, request: rq.Sweep) -> int | None:
        return None if super()._due_of(request) is None else 0


class ForgetsAnswers(SimStore):
    """Idempotency keys are not kept."""

    def keep_answer(self, key: Any, status: int, body: Any, wall_ms: int) -> None:
        return


class AckBeforeCommit(SimWorker):
    """What is queued is as good as stored."""

    def append(self, item: AppendItem, done: Callable[[Any], None]) -> None:
        self.process.call_soon(done, Appended(0, 0, item.first + item.covers - 1))
        self.process.call_soon(self.after_group)
        super().append(item, lambda result: None)


class AckAfterError(SimWorker):
    """A storage error is told to the log file only."""

    def append(self, item: AppendItem, done: Callable[[Any], None]) -> None:
        def told(result: Any) -> None:
            done(Appended(0, 0, item.first + item.covers - 1) if isinstance(result, Exception) else result)

        super().append(item, told)


class ShownBeforeCommit(SimWorker):
    """A group is published, and then committed; or not."""

    def _take(self) -> list[Any]:
        batch = super()._take()
        if self.fail_next and not callable(batch[0][0]):
            self.fail_next.clear()
            self._tell([(done, self._imagined(job)) for job, done in batch])
            self.process.kernel.settle()
            return [(job, lambda result: None) for job, _ in batch]
        return batch

    def _imagined(self, job: Any) -> Any:
        if isinstance(job, AppendItem):
            row = self.store._c.execute("select last_seq from sessions where id = ?", (job.session_id,)).fetchone()
            return Appended(row[0] + 1, len(job.events), job.first + job.covers - 1)
        request = job.request if isinstance(job, Keyed) else job
        return self.store.transact(request)


class ForgetfulSpool(SimSpool):
    """The opened gate is not written down."""

    def open_gate(self, no: int) -> None:
        return


class ForgetfulHost(Host):
    """… and neither does the shim say so."""

    def opened(self, run_dir: str) -> bool:
        return False

    def adopt(self, run_dir: str) -> Any:
        handle = super().adopt(run_dir)
        if handle is not None:
            handle.opened = lambda: False
        return handle


class DropsAtStart(SimSpool):
    """What was spooled and not acknowledged does not survive the process."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._db.execute("DELETE FROM records WHERE kind IN ('output', 'event')")


class TrustsTheDead(SimStore):
    """A gateway that another has followed may still let its sockets own sessions."""

    def _one(self, table: str, key: str) -> bool:
        return table == "gateways" or super()._one(table, key)


class NeverGivesBack(Connection):
    """What was at the writer is counted as held for ever."""

    def _settled(self, *told: Any) -> None:
        before = self._held
        super()._settled(*told)
        self._held = before


@dataclass(frozen=True)
class Plant:
    name: str
    parts: Parts
    breaks: tuple[str, ...]  # whichever of them is noticed first


PLANTS = (
    Plant("records after the end", Parts(store=AfterTheEnd), ("G4",)),
    Plant("grace not persisted", Parts(store=ForgetsGrace), ("G12",)),
    Plant("ladder not persisted", Parts(store=ForgetsLadder), ("G7",)),
    Plant("interrupt lost at reconnect", Parts(store=LosesInterrupt), ("G7",)),
    Plant("stale close honoured", Parts(store=StaleClose), ("G6",)),
    Plant("cursor - 1", Parts(store=OneBack), ("G3",)),
    Plant("cursor + 1", Parts(store=OneTooFar), ("G3",)),
    Plant("service time leaps", Parts(store=LeapingClock), ("G8",)),
    Plant("deadlines fire early", Parts(store=TooEarly), ("G8",)),
    Plant("answers forgotten", Parts(store=ForgetsAnswers), ("G9",)),
    Plant("ack before commit", Parts(worker=AckBeforeCommit), ("G1", "G10")),
    Plant("ack after a storage error", Parts(worker=AckAfterError), ("G10",)),
    Plant("shown before commit", Parts(worker=ShownBeforeCommit), ("G1",)),
    Plant("run again after a crash", Parts(spool=ForgetfulSpool, host=ForgetfulHost), ("G13",)),
    Plant("a dead gateway is believed", Parts(store=TrustsTheDead), ("G5",)),
    Plant("bytes are counted and never given back", Parts(connection=NeverGivesBack), ("G11",)),
    Plant("spool forgets at a crash", Parts(spool=DropsAtStart), ("G1", "G2")),
)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_planted_bug_is_found_and_named(plant: Plant) -> None:
    for seed in range(SEEDS):
        found = run(plan.make(seed), parts=plant.parts).violation
        if found is not None:
            assert found.guarantee in plant.breaks, f"seed {seed}: {found}"
            print(f"{plant.name}: seed {seed}: {found}")
            return
    pytest.fail(f"{plant.name} was not found in {SEEDS} seeds")
