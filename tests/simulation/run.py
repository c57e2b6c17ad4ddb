"""One run: chaos for so many steps, then calm until everything has settled, and the last questions.

`run(plan)` is a pure function of the plan: the same plan gives the same Result, its hash included.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from actors.law import requests as rq
from tests.each_event import each_event
from tests.simulation import faults
from tests.simulation.kernel import US, Violation
from tests.simulation.plan import Happening, Plan
from tests.simulation.world import Parts, World

STEPS = 1000  # at least so many in each run
CHAOS_STEPS = 1300  # with faults; then as many more as the calm needs to come to rest
# Virtual. What has not settled by then never does: the longest chain is a queue of ten behind an active one, none of
# which is ever started: eleven times pending_s (9 s) and a grace.
CALM_S = 150.0
HEARD_S = 20.0  # of calm; by then every question that an agent asked, and that is still known, stands in the store
LOOK_EVERY = 16  # steps, for what costs more than a glance
_TABLES = ("sessions", "executions", "events", "commands", "approvals", "deadlines", "connections", "idempotency")


@dataclass
class Result:
    plan: Plan
    violation: Violation | None
    steps: int
    turns: int
    virtual_s: float
    digest: str
    story: list[tuple[int, str, str]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    met: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        how = f"FAILED {self.violation}" if self.violation else "ok"
        return f"seed {self.plan.seed}: {how} ({self.steps} steps, {self.virtual_s:.0f} s, {self.digest})"


def run(plan: Plan, *, story: bool = False, steps: int = STEPS, parts: Parts | None = None) -> Result:
    Violation.made.clear()
    world = World(plan, story=story, parts=parts)
    kernel = world.kernel
    violation: Violation | None = None
    try:
        chaos = steps * CHAOS_STEPS // STEPS
        while kernel.steps < chaos and kernel.step():
            if kernel.steps % LOOK_EVERY == 0:
                _look(world)
        _calm(world)
        until = kernel.now + int(CALM_S * US)
        while (kernel.steps < steps or _unsettled(world) is not None) and kernel.now < until and kernel.step():
            if kernel.steps % LOOK_EVERY == 0:
                _look(world)
        if (left := _unsettled(world)) is not None:
            raise Violation(*left)
        _last_questions(world)
    except Violation as raised:
        violation = Violation.made[0] if Violation.made else raised
        kernel.said("watchman", f"! {violation}")
    try:
        return Result(
            plan,
            violation,
            kernel.steps,
            kernel.turns,
            kernel.now / US,
            _digest(world),
            kernel.story or [],
            _counts(world),
            world.watchman.met,
        )
    finally:
        world.close()


# ---------------------------------------------------------------- the calm


def _calm(world: World) -> None:
    """Faults stop. What is frozen wakes or is ended, what is down is born, each session has a wrapper that may stay."""
    kernel = world.kernel
    kernel.calm = True
    kernel.said("world", "= calm")
    world.down_until = 0
    kernel.stir(world.people)
    for process in world.processes():
        process.doom = None
        if process.frozen:
            process.thaw()
    for one in [*world.gateways, *world.actors, *([world.reaper] if world.reaper else [])]:
        one.worker.doom, one.worker.fail_next, one.worker.reads_fail = None, [], 0
    for gateway in world.gateways[:-1]:
        gateway.process.crash()
    for line in world.lines:
        for pipe in (line.client.out, line.server.out):
            pipe.lose = pipe.double = 0
        if line.client.out.swallowed or line.server.out.swallowed:
            # TCP loses nothing in the middle of a stream: a line that has swallowed a frame is about to fall. (What is
            # said once a connection, `ready` and a command, comes again with the next one, and only with it.)
            line.cut(0.0, True, True)
    for host in world.hosts:
        host.disk_full = False
    for sid in world.sessions:
        mine = [host for host in world.hosts if host.session_id == sid]
        alive = [host for host in mine if host.process is not None and host.process.alive]
        for host in (alive or mine)[:1]:
            kernel.after(2 * US, world.birth_wrapper, host)
        for host in mine if world.odds.stale_only else ():
            if host is not (alive or mine)[0]:  # it would be refused for ever, as the policy says
                host.wanted = False
                if host.process is not None:
                    host.process.crash()
    kernel.after(US, _approve_all, world)
    if world.watchman.restores:
        kernel.after(int(HEARD_S * US), _interrupt_the_unheard, world)
    kernel.settle()


def _approve_all(world: World) -> None:
    """An agent that waits for somebody's word is nobody's fault but the people's."""
    faults.approve(world, Happening(world.kernel.now, "approve", 0.0, 0.0))
    world.kernel.after(2 * US, _approve_all, world)


def _interrupt_the_unheard(world: World) -> None:
    """A restored store may have forgotten a question that it had acknowledged: nobody has it any more, the log says
    `output.gap`, and the agent waits with its owner connected. Only a person can see that; G7 says that it ends."""
    c = world.disk.connection
    for host in world.hosts:
        for shim in host.shims.values():
            name = (host.session_id, shim.execution_id)
            if not (shim.agent_runs and shim.script is not None and shim.script.waiting):
                continue
            asked = c.execute("select 1 from approvals where session_id = ? and execution_id = ?", name).fetchone()
            runs = c.execute(
                "select 1 from executions where session_id = ? and id = ? and status = 'running' "
                "and interrupt_id is null",
                name,
            ).fetchone()
            if runs is not None and asked is None:
                world.operator.ask(partial(_interrupt, world, *name), keyed=True)
    world.kernel.after(2 * US, _interrupt_the_unheard, world)


def _interrupt(world: World, sid: str, eid: str) -> rq.Request:
    return rq.Interrupt(session_id=sid, seed=world.kernel.mint(), execution_id=eid, force=False, by="op")


def _unsettled(world: World) -> tuple[str, str] | None:
    """What is still to come to its end, by the guarantee that says it does; None: all is quiet."""
    c = world.disk.connection
    for one in (*world.gateways[-1:], *([world.reaper] if world.reaper else [])):
        if not one.process.alive:
            return "G12", f"{one.process.name} was not born again"
    if world.operator.open:
        return "G9", f"{world.operator.open} operators have no answer"
    stuck = c.execute(
        "select e.id, e.status, e.interrupt_id, s.link from executions e join sessions s on s.id = e.session_id "
        "where e.status in ('pending', 'running', 'queued') order by e.ordinal"
    ).fetchall()
    for eid, status, interrupt_id, link in stuck:
        if interrupt_id is not None:
            return "G7", f"{eid} is {status} and was interrupted"
        return "G12", f"{eid} is {status}, its link is {link}"
    for watcher in world.watchers:
        if (seq := watcher.behind()) is not None:
            return "G3", f"{watcher.name} has not seen {seq}"
    for host in world.hosts:
        if host.process is not None and host.process.alive and host.wrapper is not None and host.db is not None:
            row = host.db.execute(
                "SELECT e.execution_id, e.state, e.last_seq, min(r.seq) FROM executions e "
                "JOIN records r ON r.no = e.no GROUP BY e.no LIMIT 1"
            ).fetchone()
            if row is not None:
                return (
                    "G2",
                    f"{host.name} has record {row[3]} of {row[0]} ({row[1]}), neither acknowledged nor given up",
                )
    return None


def _look(world: World) -> None:
    for gateway in world.gateways[-2:]:
        if gateway.process.alive and (much := gateway.memory()) is not None:
            raise Violation("G11", much)


def _last_questions(world: World) -> None:
    c, watchman = world.disk.connection, world.watchman
    late = c.execute(
        "select d.kind, d.subject, t.t_ms - d.due_ms from deadlines d, service_clock t "
        "where d.clock = 'service' and t.t_ms - d.due_ms > 2500"
    ).fetchone()
    if late is not None:
        raise Violation("G8", f"{late[0]} of {late[1]} is {late[2]} ms late, and nothing was in its way")
    for (sid, eid), interrupt_id in watchman.interrupts.items():
        row = c.execute(
            "select status, interrupt_id from executions where session_id = ? and id = ?", (sid, eid)
        ).fetchone()
        if row is None or row[1] != interrupt_id:
            raise Violation("G7", f"interrupt {interrupt_id} of {eid} was accepted, the store has {row}")
    for sid in world.sessions:
        mirror = watchman.mirror(sid)
        rows = c.execute(
            f"select execution_id, exec_seq, type, data from {each_event('session_id = ?1')} order by seq", (sid,)
        ).fetchall()
        if mirror.deleted:
            continue  # its events go, chunk by chunk
        if rows != mirror.events:
            raise Violation("G1", f"the log of {sid} is not what was seen of it")
        ended = c.execute(
            "select id from executions where session_id = ? and status in ('completed', 'failed', 'interrupted')",
            (sid,),
        ).fetchall()
        for (eid,) in ended:
            if eid not in mirror.ended:
                raise Violation("G4", f"{eid} ended without a terminal event")


# ---------------------------------------------------------------- what two runs have in common


def _digest(world: World) -> str:
    kernel = world.kernel
    state = hashlib.blake2b(digest_size=8)
    state.update(f"{kernel.now} {kernel.steps} {kernel.turns} {kernel.count} {kernel.digest}".encode())
    for table in _TABLES:
        for row in world.disk.connection.execute(f"select * from {table}").fetchall():
            state.update(repr(row).encode())
    for watcher in world.watchers:
        state.update(f"{watcher.name} {watcher.cursor} {watcher.seen} {watcher.connects}".encode())
    state.update(repr(sorted(world.watchman.runs.items())).encode())
    return state.hexdigest()


def _counts(world: World) -> dict[str, Any]:
    return {
        "commits": world.disk.commits,
        "events": sum(len(m.events) for m in world.watchman.mirrors.values()),
        "executions": len(world.executions),
        "ended": sum(len(m.ended) for m in world.watchman.mirrors.values()),
        "agent runs": sum(world.watchman.runs.values()),
        "shown to watchers": sum(w.seen for w in world.watchers),
        "watcher connects": sum(w.connects for w in world.watchers),
        "wrappers born": sum(h.born for h in world.hosts),
        "gateways born": len(world.gateways),
    }
