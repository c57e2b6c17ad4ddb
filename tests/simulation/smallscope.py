"""Every interleaving in a small scope, over the real law and the real statements: not sampled, all of them.

Two connections (two attempts of one wrapper, or two wrappers), records of one execution (started, events, final) with
up to two in flight on each, an interrupt, one short deadline, a reaper, and up to two faults: a wrapper that dies, a
gateway that dies with all its sockets, an answer that is lost so that another incarnation decides the request again.
Depth first; each state is one savepoint deep, so going back is a rollback; a state that was met is not entered again.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from actors.law import requests as rq
from actors.law.effects import Acked, Connected, Fenced, Nacked, RefuseConnection
from actors.law.model import Limits, Policy
from actors.protocol.codes import TERMINAL
from actors.store.contract import Appended, AppendItem, AppendRefused, EncodedEvent
from actors.store.sqlite import SqliteStore
from tests.each_event import each_event
from tests.simulation.kernel import Violation
from tests.simulation.storage import GUARDS, _blank, _Turn, sqlite

FAR_S = 12.0  # beyond what the ticks of a scope can reach
_TABLES = {
    "sessions_now": "link, connection_id, connection_epoch, wrapper_id, attempt, gateway_id, last_seq, "
    "grace_execution_id",
    "executions_now": "id, status, acked_seq, wrapper_id, interrupt_id, cause, late_final",
    each_event(): "seq, execution_id, exec_seq, type",
    "hot": "epoch, execution_id, fresh",
    "commands": "execution_id, kind, state",
    "deadlines": "kind, subject, due_ms",
    "gateways": "id",
    "service_clock": "t_ms",
}
_STATE = tuple(f"select {columns} from {table}" for table, columns in _TABLES.items())
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def seed(label: str) -> str:
    """The same request has the same seed on every path, so that equal states are equal."""
    value = int.from_bytes(hashlib.blake2b(label.encode(), digest_size=12).digest(), "big") << 24
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


@dataclass(frozen=True)
class Scope:
    """deadline: the one that is short; the others stand far away. other: the second connection is another wrapper's.
    events: outputs between `started` and the final, so one of them makes three records."""

    deadline: str
    other: bool
    faults: int = 2
    events: int = 1
    in_flight: int = 1
    ticks: int = 1

    def limits(self) -> Limits:
        short = {self.deadline: 1.0}
        return Limits(
            pending_s=short.get("pending", FAR_S),
            stale_s=short.get("stale", FAR_S),
            grace_s=short.get("grace", FAR_S),
            hung_s=None,
            max_runtime_s=short.get("max_runtime", FAR_S),
            interrupt_s=short.get("ladder", FAR_S),
        )


class Wrapper(NamedTuple):
    """What a wrapper's spool holds, and what its agent did."""

    name: str
    knows: bool = False  # the start arrived
    opened: bool = False
    ended: bool = False  # the final is spooled
    acked: int = 0
    stopping: bool = False  # interrupted or aborted: the gate stays as it is
    dropped: bool = False  # told that nobody wants to hear it


class Conn(NamedTuple):
    """One socket. state: new, live, lost (its close is not told yet), gone."""

    n: int
    state: str = "new"
    epoch: int = 0
    sent: int = 0
    queue: tuple[str, ...] = ()  # frames that the gateway has and has not decided


class Around(NamedTuple):
    """Everything outside the store."""

    wrappers: tuple[Wrapper, ...]
    conns: tuple[Conn, Conn]
    gateway: int = 1
    faults: int = 0
    ticks: int = 0
    execs: int = 0
    interrupt: str | None = None
    again: tuple[str, ...] = ()  # requests whose answer was lost: somebody will decide them once more

    def wrapper_of(self, n: int) -> int:
        return n if len(self.wrappers) > 1 else 0

    def with_conn(self, conn: Conn) -> Around:
        conns = (conn, self.conns[1]) if conn.n == 0 else (self.conns[0], conn)
        return self._replace(conns=conns)

    def with_wrapper(self, at: int, wrapper: Wrapper) -> Around:
        return self._replace(wrappers=(*self.wrappers[:at], wrapper, *self.wrappers[at + 1 :]))


@dataclass
class Found:
    states: int = 0
    transitions: int = 0
    paths: int = 0
    deepest: int = 0


class SmallStore(SqliteStore):
    """A transaction is a savepoint, so that the explorer can go back behind its commit."""

    @contextmanager
    def _snapshot(self) -> Iterator[Any]:
        yield self._c

    def _alone(self, work: Callable[[], Any]) -> Any:
        self._c.execute("savepoint alone")
        try:
            result = work()
        except BaseException:
            self._c.execute("rollback to alone")
            raise
        finally:
            self._c.execute("release alone")
        return result


class Explorer:
    def __init__(self, scope: Scope, made: type[SmallStore] = SmallStore) -> None:
        self.scope = scope
        self.c = sqlite.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=512)
        _blank().backup(self.c)
        self.c.executescript(GUARDS)
        policy = Policy(limits=scope.limits())
        self.store = made(Path("memory"), self.c, _Turn(), policy, lambda: self.wall, False)  # type: ignore[arg-type]
        self.wall = 1_700_000_000_000
        self.seen: dict[Any, int] = {}
        self.found = Found()
        self.trail: list[str] = []
        self.final = 1 + scope.events + 1

    def explore(self) -> Found:
        store = self.store
        store.register_gateway("gw_1", 1, 1, "")
        store.tick("gw_1")
        store.transact(rq.CreateSession(session_id="s", seed=seed("create")))
        for eid in ("e1", "e2"):
            store.transact(rq.Submit(session_id="s", seed=seed(f"submit {eid}"), execution_id=eid))
        names = ("w_0", "w_1") if self.scope.other else ("w_0",)
        self.c.execute("begin")
        self.found.paths = self._from(Around(tuple(Wrapper(name) for name in names), (Conn(0), Conn(1))), 0)
        self.c.execute("rollback")
        return self.found

    def _from(self, around: Around, depth: int) -> int:
        """The number of ways on from here."""
        key = self._key(around)
        if key in self.seen:
            return self.seen[key]
        self.seen[key] = 0
        self.found.states += 1
        self.found.deepest = max(self.found.deepest, depth)
        self._check(around)
        paths = 0
        for name, act in self._actions(around):
            self.c.execute("savepoint step")
            wall = self.wall
            self.trail.append(name)
            self.found.transitions += 1
            paths += self._from(self._fetched(act()), depth + 1)
            self.trail.pop()
            self.wall = wall
            self.c.execute("rollback to step")
            self.c.execute("release step")
        if paths == 0:
            self._to_the_end(around)
            paths = 1
        self.seen[key] = paths
        return paths

    def _key(self, around: Around) -> Any:
        execute = self.c.execute
        return around, *(tuple(execute(sql).fetchall()) for sql in _STATE)

    # ------------------------------------------------------------ what can happen

    def _actions(self, a: Around) -> Iterator[tuple[str, Callable[[], Around]]]:
        scope = self.scope
        for conn in a.conns:
            n, w = conn.n, a.wrappers[a.wrapper_of(conn.n)]
            before = n == 1 and not scope.other and a.conns[0].state == "new"
            if conn.state == "new" and not before:
                yield f"connect {n}", lambda n=n: self._connect(a, n)
            if conn.state == "live":
                last = self.final if w.ended else (1 + scope.events if w.opened else int(w.knows))
                mine = scope.other or n == max(c.n for c in a.conns if c.state != "new")
                if mine and not w.dropped and conn.sent < last and len(conn.queue) < scope.in_flight:
                    yield f"{n} sends {conn.sent + 1}", lambda n=n: self._send(a, n)
            if conn.queue:
                yield f"decide {conn.queue[0]}", lambda n=n: self._decide(a, n, lost=False)
                if a.faults < scope.faults:
                    yield f"decide {conn.queue[0]}, answer lost", lambda n=n: self._decide(a, n, lost=True)
            if conn.state == "lost" and not conn.queue:
                yield f"closed {n}", lambda n=n: self._closed(a, n)
            if conn.state == "live" and a.faults < scope.faults:
                yield f"{n} dies", lambda n=n: self._dies(a, n)
        if a.interrupt is None:
            yield "interrupt", lambda: self._interrupt(a)
        for label in a.again:
            yield f"again {label}", lambda label=label: self._again(a, label)
        if a.faults < scope.faults and any(c.state in ("live", "lost") for c in a.conns):
            yield "gateway dies", lambda: self._gateway_dies(a)
        if a.ticks < scope.ticks:
            yield "tick and sweep", lambda: self._tick(a)

    def _connect(self, a: Around, n: int) -> Around:
        w = a.wrappers[a.wrapper_of(n)]
        answer = self.store.transact(self._hello(a, n)).answer
        if isinstance(answer, RefuseConnection):
            return a.with_conn(a.conns[n]._replace(state="gone"))
        assert isinstance(answer, Connected), answer
        sent = 0
        execs = a.execs
        for told in answer.directives:
            if told.directive == "resume":
                sent = told.acked_seq
                w = w._replace(acked=max(w.acked, told.acked_seq))
                if told.acked_seq >= 1 and not w.opened and not w.stopping:
                    w, execs = w._replace(opened=True), execs + 1
            else:
                w = w._replace(dropped=True, stopping=True)
        a = a.with_wrapper(a.wrapper_of(n), w).with_conn(
            a.conns[n]._replace(state="live", epoch=answer.epoch, sent=sent)
        )
        return a._replace(execs=execs)

    def _hello(self, a: Around, n: int) -> rq.Connect:
        w = a.wrappers[a.wrapper_of(n)]
        told: tuple[rq.Reported, ...] = ()
        if w.knows and not w.dropped:
            state = "final" if w.ended else "running" if w.opened else "received"
            last = self.final if w.ended else 1 + self.scope.events if w.opened else 1
            final = {"status": "completed", "exit_code": 0, "signal": None, "error": None} if w.ended else None
            told = (rq.Reported("e1", state, w.acked + 1, last, final),)  # type: ignore[arg-type]
        return rq.Connect(
            session_id="s",
            seed=seed(f"connect {n}"),
            connection_id=f"con_{n}",
            gateway_id=f"gw_{a.gateway}",
            wrapper_id=w.name,
            instance_id=f"i_{w.name}",
            attempt=n + 1,
            executions=told,
        )

    def _send(self, a: Around, n: int) -> Around:
        conn = a.conns[n]
        if conn.sent + 1 == 1 + self.scope.events:  # its last words: then the agent ends
            at = a.wrapper_of(n)
            a = a.with_wrapper(at, a.wrappers[at]._replace(ended=True))
        return a.with_conn(conn._replace(sent=conn.sent + 1, queue=(*conn.queue, f"{n}:{conn.sent + 1}")))

    def _job(self, a: Around, label: str) -> Any:
        n, k = (int(part) for part in label.split(":"))
        conn = a.conns[n]
        w = a.wrappers[a.wrapper_of(n)]
        framed = {
            "session_id": "s",
            "seed": seed(label),
            "connection_id": f"con_{n}",
            "epoch": conn.epoch,
            "instance_id": f"i_{w.name}",
            "execution_id": "e1",
            "seq": k,
        }
        if k == 1:
            return rq.Started(**framed, pid=1)
        if k == self.final:
            return rq.Final(**framed, status="completed", exit_code=0)
        event = EncodedEvent("output", 1, json.dumps({"n": k}))
        return AppendItem("s", f"con_{n}", conn.epoch, "e1", k, 1, (event,), f"i_{w.name}")

    def _perform(self, a: Around, label: str) -> Any:
        owner = self.c.execute("select link, connection_epoch from sessions").fetchone()
        job = self._job(a, label)
        result = self.store.commit_group([job]).results[0]
        answer = result if isinstance(job, AppendItem) else result.answer
        if isinstance(answer, (Acked, Appended)) and owner != ("connected", job.epoch):
            self._violated("G6", f"{label} was heeded; the owner is {owner}")
        return answer

    def _decide(self, a: Around, n: int, *, lost: bool) -> Around:
        conn = a.conns[n]
        label = conn.queue[0]
        answer = self._perform(a, label)
        conn = conn._replace(queue=conn.queue[1:])
        if lost:  # the process that decided is gone; the one that asked decides again, later
            return a.with_conn(conn)._replace(faults=a.faults + 1, again=(*a.again, label))
        return self._told(a.with_conn(conn), n, label, answer)

    def _again(self, a: Around, label: str) -> Around:
        n = int(label.split(":")[0])
        again = list(a.again)
        again.remove(label)
        return self._told(a._replace(again=tuple(again)), n, label, self._perform(a, label))

    def _told(self, a: Around, n: int, label: str, answer: Any) -> Around:
        conn, at = a.conns[n], a.wrapper_of(n)
        w = a.wrappers[at]
        if isinstance(answer, Fenced) or (isinstance(answer, AppendRefused) and answer.why == "fenced"):
            return a.with_conn(conn._replace(state="lost" if conn.state == "live" else conn.state, queue=()))
        if conn.state != "live":
            return a  # nobody hears it
        seq = getattr(answer, "seq", None) or getattr(answer, "acked_seq", 0)
        if isinstance(answer, (Acked, Appended)) or getattr(answer, "why", "") == "duplicate":
            w, execs = w._replace(acked=max(w.acked, seq)), a.execs
            if seq >= 1 and not w.opened and not w.stopping:
                w, execs = w._replace(opened=True), execs + 1
            if seq >= self.final:
                w = w._replace(dropped=True)
            return a.with_wrapper(at, w)._replace(execs=execs)
        why = answer.code if isinstance(answer, Nacked) else answer.why
        if why in ("terminal", "unknown_execution"):
            return a.with_wrapper(at, w._replace(dropped=True, stopping=True))
        return a.with_conn(conn._replace(sent=max(0, (answer.expected_seq or 1) - 1), queue=()))

    def _fetched(self, a: Around) -> Around:
        """What waits for the owner reaches it at once, and is noted: commands are rows, and their order is not in the
        scope. (In the simulation they travel, are lost and come again.)"""
        link, connection_id = self.c.execute("select link, connection_id from sessions").fetchone()
        for conn in a.conns:
            if conn.state == "live" and link == "connected" and connection_id == f"con_{conn.n}":
                return self._fetch(a, conn.n)
        return a

    def _fetch(self, a: Around, n: int) -> Around:
        at = a.wrapper_of(n)
        w = a.wrappers[at]
        for row in self.store.pending_commands("s", 0, 50):
            if row.execution_id != "e1":
                continue
            if row.kind == "start" and not w.dropped:
                w = w._replace(knows=True)
            elif row.kind in ("interrupt", "abort"):
                w = w._replace(stopping=True)
            framed = {"connection_id": f"con_{n}", "epoch": a.conns[n].epoch, "instance_id": f"i_{w.name}"}
            self.store.transact(
                rq.AckCommand(
                    session_id="s", seed=seed(row.command_id), command_id=row.command_id, status="received", **framed
                )
            )
        return a.with_wrapper(at, w)

    def _closed(self, a: Around, n: int) -> Around:
        before = self.c.execute("select link, connection_id from sessions").fetchone()
        done = self.store.transact(
            rq.Closed(session_id="s", seed=seed(f"closed {n}"), connection_id=f"con_{n}", code=1006)
        ).answer
        if done.changed and before != ("connected", f"con_{n}"):  # type: ignore[union-attr]
            self._violated("G6", f"the close of con_{n} was honoured; the owner was {before}")
        return a.with_conn(a.conns[n]._replace(state="gone"))

    def _dies(self, a: Around, n: int) -> Around:
        """kill -9 of the wrapper: its frames are on their way still."""
        return a.with_conn(a.conns[n]._replace(state="lost"))._replace(faults=a.faults + 1)

    def _gateway_dies(self, a: Around) -> Around:
        born = a.gateway + 1
        for sid, connection_id in self.store.register_gateway(f"gw_{born}", 1, 1, ""):
            self.store.transact(
                rq.Closed(session_id=sid, seed=seed(f"lost {connection_id}"), connection_id=connection_id, code=1006)
            )
        for conn in a.conns:
            if conn.state in ("live", "lost"):
                a = a.with_conn(conn._replace(state="gone", queue=()))
        return a._replace(gateway=born, faults=a.faults + 1, again=())

    def _interrupt(self, a: Around) -> Around:
        outcome = self.store.transact(rq.Interrupt(session_id="s", seed=seed("interrupt"), execution_id="e1"))
        assert outcome.body is not None
        return a._replace(interrupt=outcome.body["interrupt_id"] or "too late")

    def _tick(self, a: Around) -> Around:
        self._walk(a, 1000)
        return a._replace(ticks=a.ticks + 1)

    def _walk(self, a: Around, ms: int) -> None:
        self.wall += ms
        self.store.tick(f"gw_{a.gateway}")
        for due in self.store.due(100):
            request = rq.Sweep(
                session_id="s", seed=seed(f"{due.kind} {due.subject}"), kind=due.kind, subject=due.subject
            )
            self.store.transact(request)
            again = self.store.transact(request).answer  # from two places: harmless
            if again.changed and due.kind not in ("stale", "hung"):  # type: ignore[union-attr]
                self._violated("G5", f"{due.kind} of {due.subject} fired twice")

    # ------------------------------------------------------------ what must hold

    def _violated(self, guarantee: str, what: str) -> None:
        raise Violation(guarantee, f"{what}\n  {self.scope}\n  " + "\n  ".join(self.trail))

    def _check(self, a: Around) -> None:
        c = self.c
        if (accused := c.execute("select guarantee, what from violated limit 1").fetchone()) is not None:
            self._violated(*accused)
        if a.execs > 1:
            self._violated("G13", "e1 was exec'd twice")
        link, epoch, last_seq = c.execute("select link, connection_epoch, last_seq from sessions_now").fetchone()
        events = c.execute(f"select seq, execution_id, exec_seq, type from {each_event()} order by seq").fetchall()
        if [row[0] for row in events] != list(range(1, last_seq + 1)):
            self._violated("G1", "the log has a hole")
        armed = set(c.execute("select kind, subject from deadlines").fetchall())
        rows = c.execute("select id, status, acked_seq, interrupt_id from executions_now").fetchall()
        for eid, status, acked, interrupt_id in rows:
            mine = [row for row in events if row[1] == eid]
            numbers = [row[2] for row in mine if row[2] is not None]
            if numbers != list(range(1, acked + 1)):
                self._violated("G1", f"{eid} is acknowledged to {acked}, its log has {numbers}")
            ends = [row[3] for row in mine if row[3].split(".")[1:] and row[3].split(".")[1] in TERMINAL]
            if len(ends) != (status in TERMINAL) or (ends and not mine[-1][3].endswith(ends[0].split(".")[1])):
                self._violated("G4", f"{eid} is {status}, its log says {ends}, and last {mine[-1][3]}")
            if eid == "e2" and interrupt_id is not None:
                self._violated("G7", "the interrupt of e1 hit e2")
            if status == "pending" and ("pending_start", eid) not in armed:
                self._violated("G12", f"{eid} is pending without an end")
            if status == "running":
                watched = {"connected": ("stale", eid), "grace": ("grace", str(epoch))}.get(link)
                if watched not in armed:
                    self._violated("G12", f"{eid} runs, its link is {link}, and nothing will end it")
                if link == "connected" and interrupt_id is not None and ("ladder", eid) not in armed:
                    self._violated("G7", f"the ladder of {eid} does not stand")
        if a.interrupt not in (None, "too late") and rows[0][3] != a.interrupt:
            self._violated("G7", f"interrupt {a.interrupt} was accepted, the store has {rows[0][3]}")
        for w in a.wrappers:
            if w.acked > rows[0][2]:
                self._violated("G1", f"{w.name} was acknowledged {w.acked}; committed is {rows[0][2]}")

    def _to_the_end(self, a: Around) -> None:
        """Nobody does anything any more: time alone must bring everything to its end."""
        for _ in range(6):
            for _ in range(int(FAR_S) // 3 + 2):
                self.wall += 3000
                self.store.tick(f"gw_{a.gateway}")
                if self.store.due(1):
                    break
            self._walk(a, 0)
            left = self.c.execute(
                "select id, status from executions where status in ('queued', 'pending', 'running')"
            ).fetchall()
            if not left:
                return
        self._violated("G12", f"{left} for ever")


# Grace is where crashes, closes and reconnects meet: there with both faults. The others with one.
SCOPES = (
    Scope("grace", False),
    Scope("grace", True),
    *(Scope(deadline, True, faults=1) for deadline in ("ladder", "pending", "stale", "max_runtime")),
)


def main() -> int:
    """`python -m tests.simulation.smallscope [faults events in_flight ticks]`: the scopes of CI, or larger ones."""
    larger = [int(word) for word in sys.argv[1:]]
    for scope in SCOPES:
        if larger:
            scope = Scope(scope.deadline, scope.other, *larger)
        began = time.process_time()
        found = Explorer(scope).explore()
        print(f"{scope}: {found}, {time.process_time() - began:.1f} s of CPU", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
