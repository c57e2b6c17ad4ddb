"""Decisions about orders in SQL: read the OrderView, perform the effects, in an open write transaction.

A view has what the decision needs and no more (law/orders/reading.py). What moves thousands of tasks is one statement,
held against the number that was counted; a number that differs is a broken expectation, and all is rolled back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, assert_never

from actors.law import effects as fx
from actors.law.effects import Speech
from actors.law.nodes import effects as nfx
from actors.law.nodes.model import NodeView, Standing, Task
from actors.law.nodes.requests import NODE
from actors.law.nodes.tasks import TRANSITIONS
from actors.law.orders import effects as ofx
from actors.law.orders import render
from actors.law.orders import requests as oq
from actors.law.orders.advance import advance
from actors.law.orders.decide import decide
from actors.law.orders.draft import notice_ids
from actors.law.orders.graphs import BATCH_TRANSITIONS
from actors.law.orders.model import Batch, Binding, Counts, Group, GroupKey, Order, OrderView, Station, merged
from actors.law.orders.reading import Wants, wants, wants_after
from actors.law.requests import Request
from actors.protocol.errors import HoldfastError
from actors.protocol.node_codes import INTENT_OPEN
from actors.store import node_rows, order_rows
from actors.store.contract import Outcome
from actors.store.expect import expect
from actors.store.nodes import NodeTransitions

_ORDER = order_rows.ORDERS.select("where id = ?")
_BATCH = order_rows.BATCHES.select("where id = ?")
_GROUPS = order_rows.GROUPS.select("where batch_id = ? order by n")
_GROUP = order_rows.GROUPS.select("where batch_id = ? and sop_id = ? and subscene_id = ?")
_STATION = order_rows.STATIONS.select("where id = ?")
_BINDING = order_rows.BINDINGS.select("where station_id = ? and ended_at_ms is null")
_COUNTS = "select status, count(*) from tasks where order_id = ? group by status"
_GROUP_COUNTS = (
    "select sop_id, subscene_id, status, count(*) from tasks where batch_id = ? group by sop_id, subscene_id, status"
)
_OLDEST = node_rows.TASKS.select(
    "where batch_id = ? and sop_id = ? and subscene_id = ? and status = 'pending' order by n limit ?"
)
_UNBEGUN = node_rows.TASKS.select(
    f"where batch_id = ? and sop_id = ? and subscene_id = ? and {order_rows.UNBEGUN} order by n"
)
_BUSY = node_rows.TASKS.select("where order_id = ? and status in ('ready', 'in_progress')")
_TASK = node_rows.TASKS.select("where id = ?")
# What a recorder was told of, or says that it holds. Cross join: there are fewer recorders than tasks.
_SHADOWED = """
    select t.id from node_roles r cross join tasks t on t.id = r.desired_task_id
        where r.role = 'recorder' and r.desired_state != 'idle' and t.node_id = r.node_id and t.order_id = ?1
    union
    select t.id from node_roles r cross join tasks t on t.id = r.reported_task_id
        where r.role = 'recorder' and r.reported_state in ('ready', 'recording', 'paused') and t.node_id = r.node_id
        and t.order_id = ?1
"""
_STANDING = """
    select o.status, b.status, s.node_id from orders o join batches b on b.id = ?2
        left join station_bindings s on s.station_id = b.station_id and s.ended_at_ms is null where o.id = ?1
"""
_INTENT_OPEN = ", ".join(f"'{state}'" for state in sorted(INTENT_OPEN))


class OrderTransitions(NodeTransitions):
    """Mixed into the store: needs `_c` (a connection), `policy` and `wall_ms()`."""

    # ------------------------------------------------------------ one transition

    def order_transition(self, request: oq.OrderRequest) -> Outcome:
        decision = decide(self._order_view(request), request)
        self._perform_order(decision)
        status, body = self._order_rendered(request, decision.answer)
        return Outcome(request.addressee, decision.answer, decision.speech, 0, status, body)

    def follow_tasks(self, view: NodeView, decision: nfx.NodeDecision, request: Request) -> tuple[Speech, ...]:
        """A task of an order has another status: the order's own decision, in the same transaction."""
        moved: dict[str, dict[str, None]] = {}
        for effect in decision.effects:
            if isinstance(effect, nfx.SetTask) and "status" in effect.changes:
                task = view.tasks[effect.task_id]
                if task.order_id is not None and task.batch_id is not None:
                    moved.setdefault(task.order_id, {})[task.batch_id] = None
        speech: list[Speech] = []
        notices = notice_ids(request.seed)
        for order_id, batch_ids in sorted(moved.items()):
            followed = advance(self._view_after(order_id, tuple(batch_ids)), batch_ids, notices)
            self._perform_order(followed)
            speech += followed.speech
        return tuple(speech)

    def standing(self, task: Task) -> Standing | None:
        """Where the order of a task stands; None: no order owns it."""
        row = self._c.execute(_STANDING, (task.order_id, task.batch_id)).fetchone() if task.order_id else None
        return Standing(*row) if row else None

    # ------------------------------------------------------------ reading

    def _order_row(self, order_id: str) -> Order | None:
        row = self._c.execute(_ORDER, (order_id,)).fetchone()
        return order_rows.ORDERS.read(row) if row else None

    def _batch_row(self, batch_id: str) -> Batch | None:
        row = self._c.execute(_BATCH, (batch_id,)).fetchone()
        return order_rows.BATCHES.read(row) if row else None

    def _station_row(self, station_id: str) -> Station | None:
        row = self._c.execute(_STATION, (station_id,)).fetchone()
        return order_rows.STATIONS.read(row) if row else None

    def _binding_row(self, station_id: str) -> Binding | None:
        row = self._c.execute(_BINDING, (station_id,)).fetchone()
        return order_rows.BINDINGS.read(row) if row else None

    def _counts(self, order_id: str) -> Counts:
        return dict(self._c.execute(_COUNTS, (order_id,)).fetchall())

    def _group_counts(self, batch_id: str) -> dict[GroupKey, dict[Any, int]]:
        found: dict[GroupKey, dict[Any, int]] = {}
        for sop_id, subscene_id, status, n in self._c.execute(_GROUP_COUNTS, (batch_id,)).fetchall():
            found.setdefault(GroupKey(sop_id, subscene_id), {})[status] = n
        return found

    def _groups(self, batch_id: str) -> dict[GroupKey, Group]:
        found = map(order_rows.GROUPS.read, self._c.execute(_GROUPS, (batch_id,)).fetchall())
        return {group.key: group for group in found}

    def _order_view(self, request: oq.OrderRequest) -> OrderView:
        order, counts = self._order_row(request.order_id), self._counts(request.order_id)
        named = self._batch_row(request.batch_id) if isinstance(request, oq.BatchRequest) else None
        batch = named if named is not None and named.order_id == request.order_id else None
        of = {batch.batch_id: self._group_counts(batch.batch_id)} if batch is not None else {}
        wanted = Wants()
        if order is not None:
            wanted = wants(request, order, counts, batch, next(iter(of.values()), {}))
        asker = request.station_id if isinstance(request, oq.CompleteTasks) else None
        return self._view_of(
            order,
            counts,
            {batch.batch_id: batch} if batch is not None else {},
            of,
            wanted,
            batch_taken=named is not None and batch is None,
            asker_station=asker is None or self._station_row(asker) is not None,
        )

    def _view_after(self, order_id: str, batch_ids: Iterable[str]) -> OrderView:
        order, counts = self._order_row(order_id), self._counts(order_id)
        batches = {batch_id: batch for batch_id in batch_ids if (batch := self._batch_row(batch_id)) is not None}
        of = {batch_id: self._group_counts(batch_id) for batch_id in batches}
        wanted = Wants()
        if order is not None:
            wanted = wants_after(order, counts, batches, {batch_id: merged(*c.values()) for batch_id, c in of.items()})
        return self._view_of(order, counts, batches, of, wanted)

    def _view_of(
        self,
        order: Order | None,
        counts: Counts,
        batches: Mapping[str, Batch],
        of: Mapping[str, Mapping[GroupKey, Counts]],
        wanted: Wants,
        **more: Any,
    ) -> OrderView:
        """of: the counts of each batch's groups."""
        named = next(iter(batches), "")
        if order is not None and (wanted.cascade or wanted.batch_cascade):
            more |= self._held(order.order_id, wanted.cascade)
        if wanted.oldest is not None:
            key, n = wanted.oldest
            more["oldest"] = self._tasks_of(_OLDEST, (named, *key, max(n, 0)))
        if wanted.begun and order is not None:
            more["begun"] = self._begun(order.order_id, named)
        if wanted.station_id is not None:
            more["station"] = self._station_row(wanted.station_id)
            more["binding"] = self._binding_row(wanted.station_id)
        return OrderView(
            order=order,
            counts=counts,
            batches=batches,
            batch_counts={batch_id: merged(*groups.values()) for batch_id, groups in of.items()},
            group_counts=of,
            groups={batch_id: self._groups(batch_id) for batch_id in batches},
            unbegun={key: self._tasks_of(_UNBEGUN, (named, *key)) for key in wanted.unbegun},
            service_ms=self.service_ms_now(),
            wall_ms=self.wall_ms(),
            **more,
        )

    def _tasks_of(self, sql: str, values: tuple[Any, ...]) -> tuple[Task, ...]:
        return tuple(map(node_rows.TASKS.read, self._c.execute(sql, values).fetchall()))

    def _held(self, order_id: str, all_batches: bool) -> dict[str, Any]:
        """What devices may be at; and, if all of it may end, how many batches are open."""
        held = {task.task_id: task for task in self._tasks_of(_BUSY, (order_id,))}
        shadowed = frozenset(row[0] for row in self._c.execute(_SHADOWED, (order_id,)).fetchall())
        for task_id in shadowed - held.keys():
            held |= {task.task_id: task for task in self._tasks_of(_TASK, (task_id,))}
        found: dict[str, Any] = {"held": held, "shadowed": shadowed}
        if all_batches:
            found["open_batches"] = dict(
                self._c.execute(
                    "select status, count(*) from batches where order_id = ? and status in ('pending', 'active') "
                    "group by status",
                    (order_id,),
                ).fetchall()
            )
        return found

    def _begun(self, order_id: str, batch_id: str) -> int:
        """Of the batch, if one is named."""
        scope, value = ("batch_id", batch_id) if batch_id else ("order_id", order_id)
        sql = f"select count(*) from tasks where {scope} = ? and not {order_rows.UNBEGUN}"
        return int(self._c.execute(sql, (value,)).fetchone()[0])

    # ------------------------------------------------------------ performing

    def _perform_order(self, decision: ofx.OrderDecision) -> None:
        for effect in decision.effects:
            self._do_order(effect)

    def _do_order(self, effect: ofx.OrderEffect) -> None:
        c = self._c
        match effect:
            case ofx.InsertOrder(order):
                c.execute(order_rows.ORDERS.insert, order_rows.ORDERS.values(order))
            case ofx.SetOrder(order_id, status, changes):
                sql, values = order_rows.ORDERS.update(changes, "id = ? and status = ?")
                expect(c.execute(sql, [*values, order_id, status]).rowcount == 1, f"order {order_id} is not {status}")
            case ofx.RemoveOrder(order_id, tasks):
                self._remove_order(order_id, tasks)
            case ofx.InsertBatch(batch):
                c.execute(order_rows.BATCHES.insert, order_rows.BATCHES.values(batch))
            case ofx.SetBatch(batch_id, status, changes):
                sql, values = order_rows.BATCHES.update(changes, "id = ? and status = ?")
                expect(c.execute(sql, [*values, batch_id, status]).rowcount == 1, f"batch {batch_id} is not {status}")
            case ofx.CloseBatches(order_id, taken, expected):
                for status, n in expected.items():
                    after = BATCH_TRANSITIONS[status, taken]
                    done = c.execute(
                        f"update batches set status = ?, {after}_at_ms = ? where order_id = ? and status = ?",
                        (after, self.wall_ms(), order_id, status),
                    )
                    expect(done.rowcount == n, f"{n} batches of {order_id} were {status}, {done.rowcount} are")
            case ofx.RemoveBatch(batch_id, tasks):
                gone = c.execute("delete from tasks where batch_id = ?", (batch_id,)).rowcount
                expect(gone == tasks, f"batch {batch_id} had {gone} tasks, not {tasks}")
                c.execute("delete from batch_groups where batch_id = ?", (batch_id,))
                expect(c.execute("delete from batches where id = ?", (batch_id,)).rowcount == 1, "no such batch")
            case ofx.InsertGroup(group):
                c.execute(order_rows.GROUPS.insert, order_rows.GROUPS.values(group))
            case ofx.SetGroup(group):
                columns = {n: getattr(group, n) for n in order_rows.GROUPS.attributes}
                sql, values = order_rows.GROUPS.update(columns, "batch_id = ? and sop_id = ? and subscene_id = ?")
                done = c.execute(sql, [*values, group.batch_id, *group.key])
                expect(done.rowcount == 1, f"{group.key} is no group of {group.batch_id}")
            case nfx.InsertTask() | nfx.SetTask() | nfx.ArmNode():
                self.do_node(effect, self.wall_ms())
            case ofx.CancelTasks(order_id, batch_id, expected, detail):
                scope = ("order_id", order_id) if batch_id is None else ("batch_id", batch_id)
                self._cancel_tasks(*scope, expected, detail)
            case ofx.DiscardIntents(task_ids):
                for task_id in task_ids:
                    self._discard("task_id = ?", (task_id,))
            case ofx.RemoveTasks(task_ids):
                sql = "delete from tasks where id = ? and status in ('pending', 'cancelled')"
                gone = sum(c.execute(sql, (task_id,)).rowcount for task_id in task_ids)
                expect(gone == len(task_ids), f"{gone} tasks were there to be removed, not {len(task_ids)}")
            case ofx.InsertNotice(notice):
                c.execute(order_rows.NOTICES.insert, order_rows.NOTICES.values(notice))
            case _:
                assert_never(effect)

    def _cancel_tasks(self, column: str, scope: str, expected: Counts, detail: str) -> None:
        statuses = ", ".join(f"'{status}'" for status in expected)
        self._discard(f"task_id in (select id from tasks where {column} = ? and status in ({statuses}))", (scope,))
        for status, n in expected.items():
            done = self._c.execute(
                "update tasks set status = ?, detail = ?, cancelled_at_ms = coalesce(cancelled_at_ms, ?) "
                f"where {column} = ? and status = ?",
                (TRANSITIONS[status, "cancel"], detail, self.wall_ms(), scope, status),
            )
            expect(done.rowcount == n, f"{n} tasks of {scope} were {status}, {done.rowcount} are")

    def _discard(self, which: str, values: tuple[Any, ...]) -> None:
        """Open intents, and the deadlines that would ask for them again."""
        gone = self._c.execute(
            f"update upload_intents set state = 'discarded' where state in ({_INTENT_OPEN}) and {which} "
            "returning node_id, task_id, attempt",
            values,
        ).fetchall()
        self._c.executemany(
            "delete from deadlines where session_id = ? and kind = 'upload_resend' and subject = ?",
            [(NODE + node_id, f"{task_id}:{attempt}") for node_id, task_id, attempt in gone],
        )

    def _remove_order(self, order_id: str, tasks: int) -> None:
        c = self._c
        gone = c.execute("delete from tasks where order_id = ?", (order_id,)).rowcount
        expect(gone == tasks, f"order {order_id} had {gone} tasks, not {tasks}")
        notices = c.execute("select node_id, id from order_notices where order_id = ?", (order_id,)).fetchall()
        c.executemany(
            "delete from deadlines where session_id = ? and kind = 'notice' and subject = ?",
            [(NODE + node_id, notice_id) for node_id, notice_id in notices],
        )
        c.execute("delete from order_notices where order_id = ?", (order_id,))
        c.execute("delete from batch_groups where batch_id in (select id from batches where order_id = ?)", (order_id,))
        c.execute("delete from batches where order_id = ?", (order_id,))
        expect(c.execute("delete from orders where id = ?", (order_id,)).rowcount == 1, "no such order")

    # ------------------------------------------------------------ answers

    def _order_rendered(self, request: oq.OrderRequest, answer: fx.Answer) -> tuple[int, dict[str, Any] | None]:
        if not isinstance(answer, fx.Show):
            return 200, None
        match answer.what:
            case "nothing":
                return answer.status, None
            case "order":
                return answer.status, self.order_resource(request.order_id)
            case "batch":
                return answer.status, self.batch_resource(answer.object_id or "")
            case "adjusted":
                return answer.status, self._adjusted(answer)
            case "completed":
                return answer.status, self._completed(answer)
        raise AssertionError(answer.what)

    def _adjusted(self, answer: fx.Show) -> dict[str, Any]:
        batch = self.batch_resource(answer.object_id or "")
        shown = {GroupKey(g["sop_id"], g["subscene_id"]): g for g in batch["groups"]}
        groups = [
            {**shown[GroupKey(sop_id, subscene_id)], "previous_quantity": before}
            for sop_id, subscene_id, before in answer.data["groups"]
        ]
        data = answer.data
        return {"batch": batch, "groups": groups, "added_count": data["added"], "removed_count": data["removed"]}

    def _completed(self, answer: fx.Show) -> dict[str, Any]:
        batch, data = self.batch_resource(answer.object_id or ""), answer.data
        group = next(g for g in batch["groups"] if (g["sop_id"], g["subscene_id"]) == data["group"])
        return {
            "batch_id": batch["batch_id"],
            "requested_count": data["requested"],
            "completed_count": len(data["task_ids"]),
            "created_count": 0,
            "group": {**group, "total": group["quantity"]},
            "tasks": [self.task_resource(task_id) for task_id in data["task_ids"]],
            "batch": batch,
        }

    def order_resource(self, order_id: str) -> dict[str, Any]:
        """Errors: order_not_found."""
        order = self._order_row(order_id)
        if order is None:
            raise HoldfastError("order_not_found")
        batches = self._c.execute("select count(*) from batches where order_id = ?", (order_id,)).fetchone()[0]
        return render.order(order, self._counts(order_id), batches)

    def batch_resource(self, batch_id: str) -> dict[str, Any]:
        """Errors: batch_not_found."""
        batch = self._batch_row(batch_id)
        if batch is None:
            raise HoldfastError("batch_not_found")
        groups = self._groups(batch_id).values()
        return render.batch(batch, groups, self._group_counts(batch_id), self._binding_row(batch.station_id))

    def task_group(self, task: Task) -> dict[str, Any] | None:
        """The names of what a task is for, as they are now."""
        if task.batch_id is None:
            return None
        row = self._c.execute(_GROUP, (task.batch_id, task.sop_id, task.subscene_id)).fetchone()
        return render.names(order_rows.GROUPS.read(row)) if row else None
