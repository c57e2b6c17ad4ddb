"""Decisions about nodes and tasks in SQL: read the NodeView, perform the effects, in an open write transaction.

Whatever an effect expects of a row is in its `where`; a statement that changes no row is a broken expectation, and the
transition is rolled back whole.
"""

from __future__ import annotations

from typing import Any, assert_never

from actors.law import effects as fx
from actors.law.model import Policy
from actors.law.nodes import effects as nfx
from actors.law.nodes import render
from actors.law.nodes import requests as rq
from actors.law.nodes.decide import decide
from actors.law.nodes.model import NodeView, Standing, Task
from actors.law.requests import Request
from actors.protocol.defaults import SERVICE_STEP_MAX_S
from actors.protocol.errors import HoldfastError
from actors.store import node_rows as rows
from actors.store import tallies
from actors.store.contract import Outcome
from actors.store.expect import expect
from actors.store.order_rows import NOTICES
from actors.store.rows import dumps

_NODE = rows.NODES.select("where id = ?")
_ROLES = rows.ROLES.select("where node_id = ?")
_OPEN = rows.INVOCATIONS.select("where node_id = ? and state != 'settled' order by n")
_INVOCATION = rows.INVOCATIONS.select("where id = ?")
_WAITING = rows.OUTBOX.select(
    "where node_id = ? and role = ? and connection_epoch = ? and (fetched_seed is null or fetched_seed = ?) "
    "order by fetched_seed is null, n limit ?"
)
_BUSY = rows.TASKS.select("where node_id = ? and status in ('ready', 'in_progress')")
_TASK = rows.TASKS.select("where id = ?")
_OPEN_INTENTS = rows.INTENTS.select("where node_id = ? and state in ('requested', 'accepted', 'uploaded')")
_INTENTS = rows.INTENTS.select("where task_id = ?")
_NOTICES = NOTICES.select("where node_id = ? and settled_at_ms is null order by n")
_ARTIFACT = rows.ARTIFACTS.select("where task_id = ?")


class NodeTransitions:
    """Mixed into the store: needs `_c` (a connection), `policy` and `wall_ms()`."""

    _c: Any
    policy: Policy

    def wall_ms(self) -> int:
        raise NotImplementedError

    def follow_tasks(self, view: NodeView, decision: nfx.NodeDecision, request: Request) -> tuple[fx.Speech, ...]:
        """What the moves of this decision mean for the orders that own the tasks (orders.py)."""
        raise NotImplementedError

    def standing(self, task: Task) -> Standing | None:
        raise NotImplementedError

    def task_group(self, task: Task) -> dict[str, Any] | None:
        raise NotImplementedError

    def service_ms_now(self) -> int:
        """The stored service time, carried on to this moment as the next tick will carry it, at most one step."""
        t, wall = self._c.execute("select t_ms, wall_ms from service_clock").fetchone()
        return int(t + min(max(self.wall_ms() - wall, 0), round(SERVICE_STEP_MAX_S * 1000)))

    # ------------------------------------------------------------ one transition

    def node_transition(self, request: Request) -> Outcome:
        view = self._node_view(request)
        decision = decide(view, request)
        for effect in decision.effects:
            self.do_node(effect, view.wall_ms)
        followed = self.follow_tasks(view, decision, request)
        tallies.count_node(self._c, request, decision)
        status, body = self._node_rendered(request, decision.answer)
        return Outcome(request.addressee, decision.answer, (*decision.speech, *followed), 0, status, body)

    # ------------------------------------------------------------ reading

    def _node_view(self, request: Request) -> NodeView:
        c = self._c
        named = request.tasks_named() if isinstance(request, rq.NodeRequest) else ()
        if isinstance(request, rq.TaskRequest):
            named = (request.task_id,)
        tasks = {t.task_id: t for tid in named if (t := self._task_row(tid)) is not None}
        node_id = self._about(request, tasks)
        row = c.execute(_NODE, (node_id,)).fetchone()
        roles = {r.role: r for r in map(rows.ROLES.read, c.execute(_ROLES, (node_id,)).fetchall())}
        for task in map(rows.TASKS.read, c.execute(_BUSY, (node_id,)).fetchall()):
            tasks[task.task_id] = task
        intents = {
            (i.task_id, i.attempt): i for i in map(rows.INTENTS.read, c.execute(_OPEN_INTENTS, (node_id,)).fetchall())
        }
        wanted = [r.reported_task_id for r in roles.values() if r.reported_task_id] + [tid for tid, _ in intents]
        for tid in wanted:
            if tid not in tasks and (found := self._task_row(tid)) is not None:
                tasks[tid] = found
        for tid in named:
            for intent in map(rows.INTENTS.read, c.execute(_INTENTS, (tid,)).fetchall()):
                intents[intent.task_id, intent.attempt] = intent
        invocations = {i.invocation_id: i for i in map(rows.INVOCATIONS.read, c.execute(_OPEN, (node_id,)).fetchall())}
        iid = request.invocation_named() if isinstance(request, rq.NodeRequest) else None
        if iid is not None and iid not in invocations and (one := c.execute(_INVOCATION, (iid,)).fetchone()):
            invocations[iid] = rows.INVOCATIONS.read(one)
        sweep = isinstance(request, rq.NodeSweep)
        # A sweep judges by the stored clock: what the next tick has not confirmed has not passed yet.
        service = c.execute("select t_ms from service_clock").fetchone()[0] if sweep else self.service_ms_now()
        hello = request if isinstance(request, rq.NodeConnect) else None
        return NodeView(
            node=rows.NODES.read(row) if row else None,
            roles=roles,
            invocations=invocations,
            outbox=self._waiting(request) if isinstance(request, rq.NodeFetch) else (),
            tasks=tasks,
            intents=intents,
            deadline_due=self._node_due(request) if isinstance(request, rq.NodeSweep) else None,
            service_ms=service,
            wall_ms=self.wall_ms(),
            next_epoch=c.execute("select value from counters where name = 'epoch'").fetchone()[0] + 1,
            policy=self.policy,
            door_open=hello is None or self._stands("gateways", hello.gateway_id),
            connection_used=hello is not None and self._stands("connections", hello.connection_id),
            notices={n.notice_id: n for n in map(NOTICES.read, c.execute(_NOTICES, (node_id,)).fetchall())},
            standing=self.standing(tasks[named[0]])
            if isinstance(request, rq.TaskAction) and named[0] in tasks
            else None,
        )

    @staticmethod
    def _about(request: Request, tasks: dict[str, Task]) -> str:
        """The node that it is about; a task's action is about the node that the task belongs to."""
        if isinstance(request, rq.TaskAction):
            task = tasks.get(request.task_id)
            return task.node_id if task is not None else ""
        assert isinstance(request, rq.NodeRequest | rq.CreateTask | rq.TaskReport | rq.UploadVerified)
        return request.node_id

    def _task_row(self, task_id: str) -> Task | None:
        row = self._c.execute(_TASK, (task_id,)).fetchone()
        return rows.TASKS.read(row) if row else None

    def _stands(self, table: str, key: str) -> bool:
        return self._c.execute(f"select 1 from {table} where id = ?", (key,)).fetchone() is not None

    def _waiting(self, request: rq.NodeFetch) -> tuple[Any, ...]:
        """One more than is asked for: to know whether something is left."""
        found = self._c.execute(
            _WAITING, (request.node_id, request.role, request.epoch, request.seed, request.limit + 1)
        ).fetchall()
        return tuple(rows.OUTBOX.read(row) for row in found)

    def _node_due(self, request: rq.NodeSweep) -> int | None:
        row = self._c.execute(
            "select due_ms from deadlines where session_id = ? and kind = ? and subject = ?",
            (request.addressee, request.kind, request.subject_key),
        ).fetchone()
        return int(row[0]) if row else None

    # ------------------------------------------------------------ performing

    def do_node(self, effect: nfx.NodeEffect, wall_ms: int) -> None:
        c = self._c
        match effect:
            case nfx.InsertNode(node):
                c.execute(rows.NODES.insert, rows.NODES.values(node))
            case nfx.SetNode(node_id, changes):
                sql, values = rows.NODES.update(changes, "id = ?")
                expect(c.execute(sql, [*values, node_id]).rowcount == 1, f"node {node_id} is not there")
            case nfx.RemoveNode(node_id):
                self._remove_node(node_id, wall_ms)
            case nfx.InsertRole(role):
                c.execute(rows.ROLES.insert, rows.ROLES.values(role))
            case nfx.SetRole(node_id, role_name, epoch, changes):
                sql, values = rows.ROLES.update(changes, "node_id = ? and role = ? and connection_epoch = ?")
                done = c.execute(sql, [*values, node_id, role_name, epoch])
                expect(done.rowcount == 1, f"role {role_name} of {node_id} is not at epoch {epoch}")
            case nfx.TakeNodeEpoch(epoch):
                done = c.execute("update counters set value = ? where name = 'epoch' and value = ?", (epoch, epoch - 1))
                expect(done.rowcount == 1, "the epoch counter moved inside our transaction")
            case nfx.RememberNodeConnection(connection_id, node_id, epoch):
                c.execute(
                    "insert into connections values (?, ?, ?, ?)",
                    (connection_id, rq.NODE + node_id, epoch, wall_ms),
                )
            case nfx.LogEvent(node_id, type_, data):
                self._log_event(node_id, type_, data, wall_ms)
            case nfx.InsertInvocation(invocation):
                c.execute(rows.INVOCATIONS.insert, rows.INVOCATIONS.values(invocation))
            case nfx.SetInvocation(iid, state, changes):
                sql, values = rows.INVOCATIONS.update(changes, "id = ? and state = ?")
                expect(c.execute(sql, [*values, iid, state]).rowcount == 1, f"invocation {iid} is not {state}")
            case nfx.Post(node_id, role_name, epoch, frame, iid):
                c.execute(
                    "insert into node_outbox (node_id, role, connection_epoch, frame, invocation_id) "
                    "values (?, ?, ?, ?, ?)",
                    (node_id, role_name, epoch, dumps(frame), iid),
                )
            case nfx.MarkFetched(node_id, role_name, ns, seed):
                c.execute(
                    "delete from node_outbox where node_id = ? and role = ? and fetched_seed is not null",
                    (node_id, role_name),
                )
                c.executemany("update node_outbox set fetched_seed = ? where n = ?", [(seed, n) for n in ns])
            case nfx.DropPosted(node_id, role_name, iid):
                c.execute(
                    "delete from node_outbox where node_id = ? and role = ?"
                    + (" and invocation_id = ?" if iid is not None else ""),
                    (node_id, role_name, *((iid,) if iid is not None else ())),
                )
            case nfx.ArmNode(node_id, kind, key, due_ms, keep):
                c.execute(
                    "insert into deadlines values (?, ?, ?, null, 'service', ?, ?) on conflict do "
                    + ("nothing" if keep else "update set due_ms = excluded.due_ms, retry_ms = excluded.retry_ms"),
                    (rq.NODE + node_id, kind, key, due_ms, due_ms),
                )
            case nfx.DisarmNode(node_id, kind, key):
                c.execute(
                    "delete from deadlines where session_id = ? and kind = ? and subject = ?",
                    (rq.NODE + node_id, kind, key),
                )
            case nfx.InsertTask(task):
                c.execute(rows.TASKS.insert, rows.TASKS.values(task))
            case nfx.SetTask(task_id, status, changes):
                sql, values = rows.TASKS.update(changes, "id = ? and status = ?")
                expect(c.execute(sql, [*values, task_id, status]).rowcount == 1, f"task {task_id} is not {status}")
            case nfx.InsertIntent(intent):
                c.execute(rows.INTENTS.insert, rows.INTENTS.values(intent))
            case nfx.SetIntent(task_id, attempt, state, changes):
                sql, values = rows.INTENTS.update(changes, "task_id = ? and attempt = ? and state = ?")
                done = c.execute(sql, [*values, task_id, attempt, state])
                expect(done.rowcount == 1, f"the intent of {task_id}:{attempt} is not {state}")
            case nfx.InsertArtifact(artifact):
                c.execute(rows.ARTIFACTS.insert, rows.ARTIFACTS.values(artifact))
            case nfx.SetNotice(notice_id, sends, changes):
                sql, values = NOTICES.update(changes, "id = ? and settled_at_ms is null and sends = ?")
                done = c.execute(sql, [*values, notice_id, sends])
                expect(done.rowcount == 1, f"notice {notice_id} is settled, or was not said {sends} times")
            case _:
                assert_never(effect)

    def _log_event(self, node_id: str, type_: str, data: Any, wall_ms: int) -> None:
        seq = self._c.execute(
            "update nodes set last_event_seq = last_event_seq + 1 where id = ? returning last_event_seq", (node_id,)
        ).fetchall()
        expect(len(seq) == 1, f"node {node_id} is not there")
        self._c.execute(
            "insert into node_events values (?, ?, ?, ?, ?)", (node_id, seq[0][0], type_, wall_ms, dumps(data))
        )

    def _remove_node(self, node_id: str, wall_ms: int) -> None:
        c = self._c
        for table in ("node_roles", "node_events", "node_outbox"):
            c.execute(f"delete from {table} where node_id = ?", (node_id,))
        c.execute("delete from deadlines where session_id = ?", (rq.NODE + node_id,))
        c.execute("update tokens set revoked_at_ms = ? where node_id = ? and revoked_at_ms is null", (wall_ms, node_id))
        expect(c.execute("delete from nodes where id = ?", (node_id,)).rowcount == 1, f"node {node_id} is not there")

    # ------------------------------------------------------------ answers

    def _node_rendered(self, request: Request, answer: fx.Answer) -> tuple[int, dict[str, Any] | None]:
        if not isinstance(answer, fx.Show) or answer.what == "nothing":
            return (answer.status, None) if isinstance(answer, fx.Show) else (200, None)
        if answer.what == "node":
            assert isinstance(request, rq.NodeRequest)
            return answer.status, self.node_resource(request.node_id)
        if answer.what == "task":
            assert isinstance(request, rq.TaskRequest)
            return answer.status, self.task_resource(request.task_id)
        assert answer.object_id is not None
        return answer.status, self.invocation_resource(answer.object_id)

    def node_resource(self, node_id: str) -> dict[str, Any]:
        """Errors: node_not_found."""
        row = self._c.execute(_NODE, (node_id,)).fetchone()
        if row is None:
            raise HoldfastError("node_not_found")
        roles = map(rows.ROLES.read, self._c.execute(_ROLES, (node_id,)).fetchall())
        return render.node(rows.NODES.read(row), roles, self.policy.node_commands)

    def invocation_resource(self, invocation_id: str) -> dict[str, Any]:
        """Errors: invocation_not_found."""
        row = self._c.execute(_INVOCATION, (invocation_id,)).fetchone()
        if row is None:
            raise HoldfastError("invocation_not_found")
        return render.invocation(rows.INVOCATIONS.read(row))

    def task_resource(self, task_id: str) -> dict[str, Any]:
        """Errors: task_not_found."""
        task = self._task_row(task_id)
        if task is None:
            raise HoldfastError("task_not_found")
        of = {i.attempt: i for i in map(rows.INTENTS.read, self._c.execute(_INTENTS, (task_id,)).fetchall())}
        artifact = self._c.execute(_ARTIFACT, (task_id,)).fetchone()
        return render.task(
            task, of.get(task.attempt), rows.ARTIFACTS.read(artifact) if artifact else None, self.task_group(task)
        )
