"""G1 … G13, looked at after every step from what was seen at the edges and from the store; nothing is trusted twice.

The watchman keeps his own log of every session (what was committed, when it was first seen) and his own idea of who
owns it. A guarantee that does not hold raises a Violation with its name.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from actors.law import requests as rq
from actors.law.effects import Acked, Connected, Done, Fenced, Nacked, Refuse, RefuseConnection
from actors.protocol.codes import TERMINAL
from actors.protocol.errors import HoldfastError
from actors.store.contract import Appended, AppendItem, Keyed
from tests.each_event import each_event
from tests.simulation.kernel import Process, Violation

if TYPE_CHECKING:
    from tests.simulation.world import World

_EVENTS = (
    f"select seq, execution_id, exec_seq, type, data from {each_event('session_id = ?1 and seq > ?2')} "
    "where seq > ?2 order by seq"
)
_SESSION = (
    "select last_seq, stream_id, link, connection_id, connection_epoch, deleted_at_ms from sessions_now where id = ?"
)
_LIVE = (
    "select id, status, interrupt_id, acked_seq from executions_now "
    "where session_id = ? and status in ('queued', 'pending', 'running')"
)
TERMINAL_EVENTS = frozenset(f"execution.{status}" for status in TERMINAL)


@dataclass
class Mirror:
    """A session's log as it was seen, and who owned it when it was looked at."""

    stream_id: str = ""
    events: list[tuple[str | None, int | None, str, str]] = field(default_factory=list)  # at seq − 1
    cover: dict[str, int] = field(default_factory=dict)  # execution → the last of its numbers that stands
    ended: dict[str, str] = field(default_factory=dict)  # execution → its terminal event
    said: dict[str, int] = field(default_factory=dict)  # execution → the agent's last line in the log
    gaps: set[str] = field(default_factory=set)
    once: set[tuple[str, str]] = field(default_factory=set)
    owner: str | None = None
    epoch: int = 0
    connected: bool = False
    deleted: bool = False


class Watchman:
    def __init__(self, world: World) -> None:
        self.world = world
        self.mirrors: dict[str, Mirror] = {}
        self.runs: Counter[str] = Counter()
        self.ran_on: dict[str, str] = {}
        self.failed: set[str] = set()  # connections that met a storage error
        self.answers: dict[str, tuple[int, str]] = {}
        self.interrupts: dict[tuple[str, str], str] = {}  # (session, execution) → interrupt_id, as operators heard it
        self.max_epoch = 0
        self.restores = 0
        self.checks = 0
        self.met: Counter[str] = Counter()  # which answers the law and the fence gave: what was visited at all
        self.doubles_allowed: set[str] = set()

    def mirror(self, session_id: str) -> Mirror:
        found = self.mirrors.get(session_id)
        if found is None:
            found = self.mirrors[session_id] = Mirror()
        return found

    # ------------------------------------------------------------ commits

    def before_commit(self, batch: list[Any]) -> dict[int, tuple[int | None, int]]:
        """Of each sweep: when its deadline is due, and what time it is by the clock that it goes by."""
        due: dict[int, tuple[int | None, int]] = {}
        for i, (job, _) in enumerate(batch):
            if type(job) is rq.Sweep:
                c = self.world.disk.connection
                row = c.execute(
                    "select due_ms from deadlines where session_id = ? and kind = ? and subject = ?",
                    (job.session_id, job.kind, job.subject),
                ).fetchone()
                clock = c.execute("select t_ms from service_clock").fetchone()[0]
                due[i] = (row[0] if row else None, self.world.disk.wall_ms() if job.kind == "approval" else clock)
        return due

    def storage_failed(self, process: Process, batch: list[Any]) -> None:
        self.world.kernel.said(process.name, "! the storage refuses, nothing of this group happened")
        for job, _ in batch:
            if type(job) is AppendItem:
                self.failed.add(job.connection_id)

    def after_commit(self, process: Process, batch: list[Any], results: list[Any], before: dict[int, Any]) -> None:
        self.checks += 1
        touched: dict[str, None] = {}
        for i, ((job, _), result) in enumerate(zip(batch, results, strict=True)):
            if callable(job):
                continue
            request = job.request if type(job) is Keyed else job
            touched[request.session_id] = None
            if isinstance(result, HoldfastError):
                if result.code == "internal":
                    raise Violation("G5", f"a decision broke in its own transaction: {request!r}: {result}")
                continue
            mirror = self.mirror(request.session_id)
            if type(request) is AppendItem:
                self.met[f"append {getattr(result, 'why', 'stored')}"] += 1
                if type(result) is Appended and not self._owns(mirror, request.connection_id, request.epoch):
                    raise Violation("G6", f"records of a connection that owns nothing were stored: {request!r}")
            else:
                self.met[_name(request, result.answer)] += 1
                self._decided(process, mirror, request, result.answer, before.get(i))
        for session_id in touched:
            self.look(session_id)
        self.accusations()

    def _owns(self, mirror: Mirror, connection_id: str, epoch: int) -> bool:
        return mirror.connected and mirror.owner == connection_id and mirror.epoch == epoch

    def _decided(self, process: Process, mirror: Mirror, request: rq.Request, answer: Any, due: Any) -> None:
        if type(request) is rq.Connect:
            if type(answer) is Connected and (mirror.owner, mirror.epoch) != (request.connection_id, answer.epoch):
                if answer.epoch <= self.max_epoch:
                    raise Violation("G6", f"epoch {answer.epoch} was given out before")
                known = self.world.disk.connection.execute(
                    "select 1 from gateways where id = ?", (request.gateway_id,)
                ).fetchone()
                if known is None:
                    raise Violation("G5", f"{request.gateway_id} is dead, and took {request.session_id}")
                self.max_epoch = answer.epoch
                mirror.owner, mirror.epoch, mirror.connected = request.connection_id, answer.epoch, True
        elif isinstance(request, rq.Framed):
            if type(answer) is Acked and not self._owns(mirror, request.connection_id, request.epoch):
                raise Violation("G6", f"a control frame of a connection that owns nothing was heeded: {request!r}")
        elif type(request) is rq.Closed:
            if type(answer) is Done and answer.changed:
                if not mirror.connected or mirror.owner != request.connection_id:
                    raise Violation("G6", f"the close of {request.connection_id} was honoured; it owned nothing")
                mirror.connected = False
        elif type(request) is rq.Sweep and type(answer) is Done and answer.changed and request.kind != "hung":
            if due[0] is None:
                raise Violation("G5", f"a deadline fired that did not stand: {request!r}")
            if due[0] > due[1]:
                raise Violation("G8", f"{request.kind} of {request.subject} fired {due[0] - due[1]} ms early")

    def accusations(self) -> None:
        c = self.world.disk.connection
        accused = c.execute("select guarantee, what from violated limit 1").fetchone()
        if accused is not None:
            raise Violation(*accused)

    # ------------------------------------------------------------ a session after a commit

    def look(self, session_id: str) -> None:
        c = self.world.disk.connection
        row = c.execute(_SESSION, (session_id,)).fetchone()
        if row is None:
            return
        mirror = self.mirror(session_id)
        last_seq, stream_id, link, connection_id, epoch, deleted = row
        if mirror.stream_id and mirror.stream_id != stream_id and not self.world.restoring:
            raise Violation("G1", f"{session_id} has another stream_id")
        mirror.stream_id, mirror.owner, mirror.epoch = stream_id, connection_id, epoch
        mirror.connected, mirror.deleted = link == "connected", deleted is not None
        self.max_epoch = max(self.max_epoch, epoch)
        if mirror.deleted and self.world.restoring:
            mirror.events = [(None, None, "", "")] * last_seq  # some may be gone already, and nobody may see them
            return
        if last_seq != len(mirror.events):
            for event in c.execute(_EVENTS, (session_id, len(mirror.events))).fetchall():
                self._event(session_id, mirror, *event)
        if last_seq != len(mirror.events):
            raise Violation("G1", f"{session_id} says {last_seq} events and has {len(mirror.events)}")
        live = c.execute(_LIVE, (session_id,)).fetchall()
        if live:
            self._live(session_id, mirror, link, live)

    def _live(self, session_id: str, mirror: Mirror, link: str, live: list[Any]) -> None:
        c = self.world.disk.connection
        if mirror.deleted:
            raise Violation("G12", f"{session_id} is deleted and something of it is {live[0][1]}")
        armed = set(c.execute("select kind, subject from deadlines where session_id = ?", (session_id,)).fetchall())
        active = False
        for eid, status, interrupt_id, acked_seq in live:
            heard = self.interrupts.get((session_id, eid))
            if heard is not None and heard != interrupt_id:
                raise Violation("G7", f"{eid}: interrupt {heard} was accepted, the store has {interrupt_id}")
            if acked_seq != mirror.cover.get(eid, 0):
                raise Violation("G1", f"{eid} is acknowledged to {acked_seq}, its log goes to {mirror.cover.get(eid)}")
            if status == "queued":
                continue
            active = True
            if status == "pending":
                if ("pending_start", eid) not in armed:
                    raise Violation("G12", f"{eid} is pending and nothing will end it")
            elif link == "offline":
                raise Violation("G12", f"{eid} runs without an owner")
            elif link == "grace":
                if ("grace", str(mirror.epoch)) not in armed:
                    raise Violation("G12", f"{eid} is in grace without an end")
            else:
                if ("stale", eid) not in armed:
                    raise Violation("G12", f"{eid} runs and nothing watches its owner")
                if interrupt_id is not None and ("ladder", eid) not in armed:
                    raise Violation("G7", f"{eid} is interrupted and its ladder does not stand")
        if not active:
            raise Violation("G12", f"{session_id} has {len(live)} waiting and none of them is the active one")

    def _event(
        self, session_id: str, mirror: Mirror, seq: int, eid: str | None, exec_seq: int | None, kind: str, data: str
    ) -> None:
        if seq != len(mirror.events) + 1:
            raise Violation("G1", f"{session_id} has no event {len(mirror.events) + 1}, but {seq}")
        mirror.events.append((eid, exec_seq, kind, data))
        self.world.kernel.said("store", f"= {session_id} {seq} {kind} {eid or ''} {exec_seq or ''}")
        if eid is None:
            return
        if eid in mirror.ended:
            raise Violation("G4", f"{eid} had {mirror.ended[eid]}, and then {kind} at {seq}")
        if exec_seq is not None:
            at = mirror.cover.get(eid, 0)
            if exec_seq != at + 1:
                raise Violation("G1" if exec_seq > at else "G2", f"{eid}: after number {at} came {exec_seq} at {seq}")
            mirror.cover[eid] = json.loads(data)["to_seq"] if kind == "output.gap" else exec_seq
        if kind in TERMINAL_EVENTS:
            mirror.ended[eid] = kind
        elif kind in ("execution.pending", "execution.started", "execution.queued"):
            if (eid, kind) in mirror.once:
                raise Violation("G9", f"{eid} was {kind} twice")
            mirror.once.add((eid, kind))
        elif kind == "output.gap":
            if eid not in self.doubles_allowed and not self.world.odds.small_spool:
                raise Violation("G2", f"{eid}: records were given up that no limit and no backup explains: {data}")
            mirror.gaps.add(eid)
        elif kind in ("line", "big"):
            n, said = json.loads(data)["n"], mirror.said.get(eid, -1)
            if n != said + 1 and eid not in self.doubles_allowed and (n <= said or eid not in mirror.gaps):
                raise Violation("G2" if n <= said else "G1", f"{eid}: after the agent's line {said} came {n} at {seq}")
            mirror.said[eid] = n

    # ------------------------------------------------------------ what gateways say

    def gateway_says(self, session_id: str, connection: Any, data: bytes) -> None:
        if data.startswith(b'{"type":"ack"'):
            frame = json.loads(data)
            self._acked(session_id, connection, frame["execution_id"], frame["seq"])
        elif data.startswith(b'{"type":"hello_ack"'):
            for one in json.loads(data)["executions"]:
                if one["directive"] == "resume":
                    self._acked(session_id, connection, one["execution_id"], one["acked_seq"])
        elif b'"kind":"interrupt"' in data:
            frame = json.loads(data)
            row = self.world.disk.connection.execute(
                "select interrupt_id from executions_now where session_id = ? and id = ?",
                (session_id, frame["execution_id"]),
            ).fetchone()
            if row is None or row[0] != frame["interrupt_id"]:
                raise Violation("G7", f"an interrupt goes to {frame['execution_id']}, which has {row}")

    def _acked(self, session_id: str, connection: Any, eid: str, seq: int) -> None:
        row = self.world.disk.connection.execute(
            "select acked_seq from executions_now where session_id = ? and id = ?", (session_id, eid)
        ).fetchone()
        stands = row[0] if row else 0
        if seq > stands:
            name = "G10" if connection.connection_id in self.failed else "G1"
            raise Violation(name, f"{eid} was acknowledged to {seq}; committed is {stands}")

    def published(self, session_id: str, stream_id: str, events: list[Any]) -> None:
        """At the moment of sending: only what stands may be shown."""
        mirror = self.mirror(session_id)
        if events and stream_id == mirror.stream_id and events[-1]["seq"] > len(mirror.events):
            raise Violation("G1", f"{session_id} {events[-1]['seq']} was shown before it was committed")

    # ------------------------------------------------------------ what others say

    def answered(self, key: str, status: int, body: Any) -> None:
        said = json.dumps(body, sort_keys=True)
        known = self.answers.setdefault(key, (status, said))
        if known != (status, said) and not self.restores:
            raise Violation("G9", f"{key} was answered {known}, and then {status} {said}")

    def interrupt_accepted(self, session_id: str, eid: str, interrupt_id: str | None) -> None:
        if interrupt_id is not None:
            self.interrupts.setdefault((session_id, eid), interrupt_id)

    def agent_runs(self, host: Any, eid: str) -> None:
        self.runs[eid] += 1
        self.world.kernel.said(host.name, f"* exec of {eid}")
        before = self.ran_on.setdefault(eid, host.name)
        if self.runs[eid] > 1 and not (self.restores and before != host.name):
            raise Violation("G13", f"{eid} was exec'd on {before} and then on {host.name}")

    def agent_signalled(self, host: Any, eid: str, number: int) -> None:
        self.world.kernel.said(host.name, f"* signal {number} to the agent of {eid}")
        run = host.wrapper.runner.current if host.wrapper is not None else None
        if run is None or run.execution_id != eid or run.ladder is None or run.ladder.kind != "interrupt":
            return
        row = self.world.disk.connection.execute(
            "select interrupt_id from executions_now where session_id = ? and id = ?", (host.session_id, eid)
        ).fetchone()
        if (row is None or row[0] is None) and not self.restores:
            raise Violation("G7", f"the agent of {eid} was interrupted, and nobody had asked for it")

    def restored(self) -> None:
        """What the log was before is what the backup says; numbers after it will be used again."""
        self.restores += 1
        old, self.mirrors = self.mirrors, {}
        self.interrupts.clear()
        self.doubles_allowed |= {eid for mirror in old.values() for eid in (*mirror.cover, *mirror.ended)}
        self.max_epoch = 0
        for (session_id,) in self.world.disk.connection.execute("select id from sessions").fetchall():
            self.look(session_id)


def _name(request: rq.Request, answer: Any) -> str:
    """What was asked and what came of it, in three words at most."""
    name = f"{type(request).__name__} {type(answer).__name__}"
    if isinstance(answer, (Refuse, RefuseConnection, Fenced, Nacked)):
        return f"{name} {answer.code}"
    if type(request) is rq.Sweep:
        return f"{name} {request.kind} {answer.changed}"
    return name
