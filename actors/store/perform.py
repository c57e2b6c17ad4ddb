"""Transitions in SQL: read the View, perform the effects. Runs only inside an open write transaction (sqlite.py).

Whatever an effect expects of a row is in its `where`; a statement that changes no row is a broken expectation, and the
transition is rolled back whole.
"""

from __future__ import annotations

from typing import Any, assert_never

from actors.law import effects as fx
from actors.law import render
from actors.law.audit import Act, act_of
from actors.law.decide import decide
from actors.law.model import WALL_KINDS, Command, Session, View
from actors.law.nodes.requests import BY_NODE_OPERATORS, counts
from actors.law.orders.requests import BY_ORDER_OPERATORS, CollectorRequest, OrderRequest, StationRequest
from actors.law.requests import (
    BY_OPERATORS,
    AckCommand,
    Connect,
    Request,
    ResolveApproval,
    SessionRequest,
    Sweep,
)
from actors.law.requests import AskApproval as AskApprovalRequest
from actors.protocol.errors import HoldfastError
from actors.store import rows, tallies
from actors.store.contract import IdempotencyKey, Outcome
from actors.store.expect import expect
from actors.store.hot import Hot
from actors.store.stations import StationTransitions

_SESSION = f"select {', '.join(rows.SESSION_COLUMNS)} from sessions_now where id = ?"
_LIVE = (
    f"select {', '.join(rows.EXECUTION_COLUMNS)} from executions_now "
    "where session_id = ? and status in ('queued', 'pending', 'running') order by ordinal"
)
_EXECUTION = f"select {', '.join(rows.EXECUTION_COLUMNS)} from executions_now where session_id = ? and id = ?"
_LAST = (
    f"select {', '.join(rows.EXECUTION_COLUMNS)} from executions_now "
    "where session_id = ? and status in ('completed', 'failed', 'interrupted') order by ordinal desc limit 1"
)
_OPEN_APPROVALS = f"select {', '.join(rows.APPROVAL_COLUMNS)} from approvals where session_id = ? and state = 'open'"
_APPROVAL = f"select {', '.join(rows.APPROVAL_COLUMNS)} from approvals where session_id = ? and id = ?"


def _counted(request: Request, answer: fx.Answer) -> bool:
    return counts(request) and not isinstance(answer, fx.Refuse | fx.Fenced)


class Transitions(StationTransitions, Hot):
    """Mixed into the store: needs `_c` (a connection), `policy` and `wall_ms()`."""

    def note(self, act: Act, wall_ms: int) -> None:
        """An audit row, in the open transaction of the act itself."""
        self._c.execute(
            "insert into audit (at_ms, by, action, session_id, execution_id, object_id, outcome) "
            "values (?, ?, ?, ?, ?, ?, ?)",
            (wall_ms, act.by, act.action, act.session_id, act.execution_id, act.object_id, act.outcome),
        )

    # ------------------------------------------------------------ one transition

    def decide_in_transaction(self, request: Request, key: IdempotencyKey | None) -> Outcome:
        operator = isinstance(request, BY_OPERATORS + BY_NODE_OPERATORS + BY_ORDER_OPERATORS)
        if key is None and (operator or counts(request)):
            # Asked again after an unknown outcome, the same request has the same answer, whatever became active since.
            key = IdempotencyKey("seed", type(request).__name__, request.seed, "")
        if key is not None and (stored := self._stored_answer(request, key)) is not None:
            return stored
        if isinstance(request, SessionRequest):
            outcome = self._session_transition(request)
        elif isinstance(request, OrderRequest):
            outcome = self.order_transition(request)
        elif isinstance(request, StationRequest | CollectorRequest):
            outcome = self.station_transition(request)
        else:
            outcome = self.node_transition(request)
        wall_ms = self.wall_ms()
        if (act := act_of(request, outcome.answer)) is not None:
            self.note(act, wall_ms)
        if key is not None and (isinstance(outcome.answer, fx.Show) or _counted(request, outcome.answer)):
            self.keep_answer(key, outcome.status, outcome.body, wall_ms)
        return outcome

    def _session_transition(self, request: SessionRequest) -> Outcome:
        sid = request.session_id
        self.settle(sid)
        view = self._view(request)
        decision = decide(view, request)
        last_seq = self._perform(sid, view, decision.effects)
        tallies.count(self._c, view, request, decision)
        status, body = self._rendered(sid, decision.answer)
        return Outcome(sid, decision.answer, decision.speech, last_seq, status, body)

    def _stored_answer(self, request: Request, key: IdempotencyKey) -> Outcome | None:
        try:
            stored = self.stored_answer(key)
        except HoldfastError as error:
            return Outcome(request.addressee, fx.Refuse(error.code), (), 0, error.status)
        if stored is None:
            return None
        status, body = stored
        return Outcome(request.addressee, fx.Show("nothing", status, changed=False), (), 0, status, body, True)

    def stored_answer(self, key: IdempotencyKey) -> tuple[int, Any] | None:
        """What the same key and body were answered: status and body. Errors: idempotency_mismatch."""
        row = self._c.execute(
            "select body_hash, status, answer from idempotency where token_id = ? and route = ? and key = ?",
            (key.token_id, key.route, key.key),
        ).fetchone()
        if row is None:
            return None
        if row[0] != key.body_hash:
            raise HoldfastError("idempotency_mismatch")
        return row[1], rows.loads(row[2])

    def keep_answer(self, key: IdempotencyKey, status: int, body: Any, wall_ms: int) -> None:
        self._c.execute(
            "insert into idempotency values (?, ?, ?, ?, ?, ?, ?)",
            (key.token_id, key.route, key.key, key.body_hash, status, rows.dumps(body), wall_ms),
        )

    def _view(self, request: SessionRequest) -> View:
        sid = request.session_id
        row = self._c.execute(_SESSION, (sid,)).fetchone()
        executions = {}
        for live in self._c.execute(_LIVE, (sid,)).fetchall():
            e = rows.execution(live)
            executions[e.execution_id] = e
        for eid in request.executions_named():
            if eid not in executions and (named := self._c.execute(_EXECUTION, (sid, eid)).fetchone()):
                executions[eid] = rows.execution(named)
        approvals = {a.approval_id: a for a in map(rows.approval, self._c.execute(_OPEN_APPROVALS, (sid,)).fetchall())}
        wanted = _approval_named(request)
        if wanted and wanted not in approvals and (found := self._c.execute(_APPROVAL, (sid, wanted)).fetchone()):
            approvals[wanted] = rows.approval(found)
        for approval in list(approvals.values()):
            eid = approval.execution_id
            if eid not in executions and (of := self._c.execute(_EXECUTION, (sid, eid)).fetchone()):
                executions[eid] = rows.execution(of)
        counters = dict(self._c.execute("select name, value from counters").fetchall())
        sweep = isinstance(request, Sweep)
        # A sweep judges by the stored clock: what the next tick has not confirmed has not passed yet.
        service = self._c.execute("select t_ms from service_clock").fetchone()[0] if sweep else self.service_ms_now()
        return View(
            session=rows.session(row) if row else None,
            executions=executions,
            approvals=approvals,
            command=self._command(request) if isinstance(request, AckCommand) else None,
            deadline_due=self._due_of(request) if isinstance(request, Sweep) else None,
            service_ms=service,
            wall_ms=self.wall_ms(),
            next_epoch=counters["epoch"] + 1,
            next_ordinal=counters["ordinal"] + 1,
            policy=self.policy,
            door_open=not isinstance(request, Connect) or self._one("gateways", request.gateway_id),
            connection_used=isinstance(request, Connect) and self._one("connections", request.connection_id),
        )

    def _one(self, table: str, key: str) -> bool:
        return self._c.execute(f"select 1 from {table} where id = ?", (key,)).fetchone() is not None

    def _command(self, request: AckCommand) -> Command | None:
        row = self._c.execute(
            "select id, session_id, execution_id, kind, payload, state from commands where id = ? and session_id = ?",
            (request.command_id, request.session_id),
        ).fetchone()
        return Command(row[0], row[1], row[2], row[3], rows.loads(row[4]), row[5]) if row else None

    def _due_of(self, request: Sweep) -> int | None:
        row = self._c.execute(
            "select due_ms from deadlines where session_id = ? and kind = ? and subject = ?",
            (request.session_id, request.kind, request.subject),
        ).fetchone()
        return int(row[0]) if row else None

    # ------------------------------------------------------------ performing

    def _perform(self, sid: str, view: View, effects: tuple[fx.Effect, ...]) -> int:
        """Returns the session's last_seq after it."""
        last_seq = before = view.session.last_seq if view.session else 0
        for effect in effects:
            if isinstance(effect, fx.Append):
                last_seq += 1
                self._c.execute(
                    rows.INSERT_EVENT,
                    (
                        sid,
                        last_seq,
                        effect.execution_id,
                        effect.exec_seq,
                        effect.type,
                        view.wall_ms,
                        view.wall_ms,
                        rows.dumps(effect.data),
                    ),
                )
            else:
                self._do(sid, view, effect)
        if last_seq != before:
            done = self._c.execute(
                "update sessions set last_seq = ?, updated_at_ms = ? where id = ? and last_seq = ?",
                (last_seq, view.wall_ms, sid, before),
            )
            expect(done.rowcount == 1, f"last_seq of {sid} moved inside our transaction")
        return last_seq

    def _do(self, sid: str, view: View, effect: fx.Effect) -> None:
        c = self._c
        match effect:
            case fx.InsertSession(session):
                # Nothing of it is older than its birth: retention need not look at each one of a crowd that comes.
                columns = (*rows.SESSION_COLUMNS, "oldest_at_ms")
                c.execute(rows.insert("sessions", columns), [*rows.session_values(session), view.wall_ms])
            case fx.SetSession(changes):
                sql, values = rows.changes("sessions", changes, "id = ?")
                expect(c.execute(sql, [*values, sid]).rowcount == 1, f"session {sid} is not there")
            case fx.TakeEpoch(epoch):
                done = c.execute("update counters set value = ? where name = 'epoch' and value = ?", (epoch, epoch - 1))
                expect(done.rowcount == 1, "the epoch counter moved inside our transaction")
            case fx.RememberConnection(connection_id, epoch):
                c.execute("insert into connections values (?, ?, ?, ?)", (connection_id, sid, epoch, view.wall_ms))
            case fx.InsertExecution(execution):
                c.execute(rows.insert("executions", rows.EXECUTION_COLUMNS), rows.execution_values(execution))
                c.execute("update counters set value = ? where name = 'ordinal'", (execution.ordinal,))
            case fx.SetExecution(eid, expected, changes):
                sql, values = rows.changes("executions", changes, "session_id = ? and id = ? and status = ?")
                done = c.execute(sql, [*values, sid, eid, expected])
                expect(done.rowcount == 1, f"execution {eid} is not {expected}")
            case fx.Enqueue(command):
                c.execute(
                    "insert into commands (id, session_id, execution_id, kind, payload, state, created_at_ms) "
                    "values (?, ?, ?, ?, ?, ?, ?)",
                    (
                        command.command_id,
                        sid,
                        command.execution_id,
                        command.kind,
                        rows.dumps(command.payload),
                        command.state,
                        view.wall_ms,
                    ),
                )
            case fx.SetCommand(command_id, state):
                c.execute("update commands set state = ? where id = ? and session_id = ?", (state, command_id, sid))
            case fx.RequeueStart(eid):
                c.execute(
                    "update commands set state = 'pending' where session_id = ? and execution_id = ? and kind = 'start'"
                    " and state in ('pending', 'received', 'done')",
                    (sid, eid),
                )
            case fx.Withdraw(eid, only):
                c.execute(
                    "update commands set state = 'withdrawn' where session_id = ? and execution_id = ?"
                    " and state in ('pending', 'received')"
                    + (f" and kind in ({', '.join('?' * len(only))})" if only else ""),
                    (sid, eid, *only),
                )
            case fx.Arm(kind, subject, due_ms, eid, keep):
                clock = "wall" if kind in WALL_KINDS else "service"
                c.execute(
                    "insert into deadlines values (?, ?, ?, ?, ?, ?, ?) on conflict do "
                    + ("nothing" if keep else "update set due_ms = excluded.due_ms, retry_ms = excluded.retry_ms"),
                    (sid, kind, subject, eid, clock, due_ms, due_ms),
                )
            case fx.Disarm(kind, subject):
                c.execute(
                    "delete from deadlines where session_id = ? and kind = ? and subject = ?", (sid, kind, subject)
                )
            case fx.DisarmExecution(eid):
                c.execute("delete from deadlines where session_id = ? and execution_id = ?", (sid, eid))
            case fx.DisarmGrace():
                c.execute("delete from deadlines where session_id = ? and kind = 'grace'", (sid,))
            case fx.InsertApproval(approval):
                c.execute(rows.insert("approvals", rows.APPROVAL_COLUMNS), rows.approval_values(approval))
            case fx.SetApproval(approval_id, changes):
                sql, values = rows.changes("approvals", changes, "session_id = ? and id = ? and state = 'open'")
                expect(c.execute(sql, [*values, sid, approval_id]).rowcount == 1, f"{approval_id} is not open")
            case fx.Notify(webhook_id, eid, spec, body):
                # An id of long ago, forgotten by retention, may be used again: then this is its callback.
                c.execute(
                    "insert or replace into callbacks "
                    "(id, session_id, execution_id, spec, body, next_at_ms, created_at_ms) "
                    "values (?, ?, ?, ?, ?, ?, ?)",
                    (webhook_id, sid, eid, rows.dumps(spec), rows.dumps(body), view.wall_ms, view.wall_ms),
                )
            case fx.Append():
                raise AssertionError("appended by the caller, which counts")
            case _:
                assert_never(effect)

    # ------------------------------------------------------------ answers

    def _rendered(self, sid: str, answer: fx.Answer) -> tuple[int, dict[str, Any] | None]:
        if not isinstance(answer, fx.Show):
            return 200, None
        if answer.what == "nothing":
            return answer.status, None
        if answer.what == "session":
            return answer.status, self.session_resource(sid)
        if answer.what == "approval":
            row = self._c.execute(_APPROVAL, (sid, answer.approval_id)).fetchone()
            return answer.status, render.approval(rows.approval(row))
        e = rows.execution(self._c.execute(_EXECUTION, (sid, answer.execution_id)).fetchone())
        shown = render.execution(e)
        if answer.what == "interrupt":
            return answer.status, {"interrupt_id": e.interrupt_id, "execution": shown}
        if answer.what == "fail":
            return answer.status, {"changed": answer.changed, "execution": shown}
        return answer.status, shown

    def session_resource(self, sid: str) -> dict[str, Any]:
        """Errors: session_not_found, session_deleted."""
        row = self._c.execute(_SESSION, (sid,)).fetchone()
        if row is None:
            raise HoldfastError("session_not_found")
        s = rows.session(row)
        if s.deleted_at_ms is not None:
            raise HoldfastError("session_deleted")
        return self._session_resource(s)

    def _session_resource(self, s: Session) -> dict[str, Any]:
        live = [rows.execution(r) for r in self._c.execute(_LIVE, (s.session_id,)).fetchall()]
        last = self._c.execute(_LAST, (s.session_id,)).fetchone()
        return render.session(
            s,
            next((e for e in live if e.active), None),
            rows.execution(last) if last else None,
            sum(e.status == "queued" for e in live),
            self.policy.limits.over(s.limits).as_dict(),
        )


def _approval_named(request: Request) -> str | None:
    if isinstance(request, ResolveApproval | AskApprovalRequest):
        return request.approval_id
    if isinstance(request, Sweep) and request.kind == "approval":
        return request.subject
    return None
