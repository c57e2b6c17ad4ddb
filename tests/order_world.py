"""A world of orders for tests: the real law and the real SQLite store, beside the nodes of tests/node_world.py.

It takes a notice as soon as it is spoken, as the gateway and the reaper do, unless it is told to be deaf; then the
deadline has to do it. `check` looks at what must hold after every transaction, whatever happened.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from actors.law.effects import NodeNoticed
from actors.law.nodes import requests as nq
from actors.law.nodes.answers import upward_of
from actors.law.orders import requests as oq
from actors.law.orders.quota import counted
from actors.law.requests import Request
from actors.protocol.ids import ulid
from actors.protocol.node_codes import TASK_TERMINAL
from actors.protocol.order_codes import BATCH_OPEN, ORDER_OPEN
from actors.store.contract import IdempotencyKey, Outcome, TaskFilter
from tests.node_world import NodeWorld

RUNNABLE = ("pending", "ready", "in_progress")


def wish(quantity: int, sop: str = "sop", subscene: str = "sub", **names: Any) -> oq.GroupWish:
    return oq.GroupWish(sop_id=sop, subscene_id=subscene, quantity=quantity, **names)


class OrderWorld(NodeWorld):
    deaf = False

    # ------------------------------------------------------------ asking

    def do(self, request: Request, key: IdempotencyKey | None = None) -> Outcome:
        outcome = super().do(request, key)
        for said in outcome.speech:
            if isinstance(said, NodeNoticed) and not self.deaf:
                super().do(nq.TakeNotice(node_id=said.node_id, notice_id=said.notice_id, seed=ulid()))
        return outcome

    def carry(self, outcome: Outcome) -> None:
        """Reports are carried by whoever decided; what they say is heard, too."""
        upward = upward_of(outcome.answer)
        for report in upward.tasks:
            self.do(report)
        for told in upward.verify:
            self.look(told, outcome.session_id.removeprefix("node/"))

    def look(self, told: Any, node_id: str) -> Outcome:
        outcome = super().look(told, node_id)
        for said in outcome.speech:
            if isinstance(said, NodeNoticed) and not self.deaf:
                self.do(nq.TakeNotice(node_id=said.node_id, notice_id=said.notice_id, seed=ulid()))
        return outcome

    def station(self, station_id: str = "st", collector: str = "anna", node_id: str = "n", **fields: Any) -> Outcome:
        """With its collector and its node, if they are not there yet."""
        self.do(oq.CreateCollector(collector_id=collector, seed=ulid(), name=collector.title()))
        self.make(node_id)
        return self.do(
            oq.CreateStation(station_id=station_id, seed=ulid(), collector_id=collector, node_id=node_id, **fields)
        )

    def bind(self, station_id: str = "st", **fields: Any) -> Outcome:
        return self.do(oq.ChangeStation(station_id=station_id, seed=ulid(), **fields))

    def order(self, target: int = 10, order_id: str = "o", **fields: Any) -> Outcome:
        return self.do(oq.CreateOrder(order_id=order_id, seed=ulid(), target_count=target, **fields))

    def change(self, order_id: str = "o", **fields: Any) -> Outcome:
        return self.do(oq.ChangeOrder(order_id=order_id, seed=ulid(), **fields))

    def dispatch(self, *groups: oq.GroupWish, batch_id: str = "b", order_id: str = "o", **fields: Any) -> Outcome:
        return self.do(
            oq.DispatchBatch(
                order_id=order_id,
                batch_id=batch_id,
                seed=ulid(),
                groups=groups,
                **{"station_id": "st", **fields},
            )
        )

    def adjust(self, *groups: oq.GroupWish, batch_id: str = "b", order_id: str = "o") -> Outcome:
        return self.do(oq.AdjustBatch(order_id=order_id, batch_id=batch_id, seed=ulid(), groups=groups))

    def cancel_batch(self, batch_id: str = "b", order_id: str = "o") -> Outcome:
        return self.do(oq.ChangeBatch(order_id=order_id, batch_id=batch_id, seed=ulid()))

    def recall(self, batch_id: str = "b", order_id: str = "o") -> Outcome:
        return self.do(oq.RecallBatch(order_id=order_id, batch_id=batch_id, seed=ulid()))

    def complete(
        self,
        quantity: int = 1,
        batch_id: str = "b",
        order_id: str = "o",
        key: IdempotencyKey | None = None,
        **fields: Any,
    ) -> Outcome:
        return self.do(
            oq.CompleteTasks(
                order_id=order_id,
                batch_id=batch_id,
                seed=ulid(),
                quantity=quantity,
                **{"sop_id": "sop", "subscene_id": "sub", **fields},
            ),
            key,
        )

    def planned(self, tasks: int = 4, target: int = 10, **order: Any) -> list[str]:
        """A station, an order and a batch of one group; returns the ids of its tasks, oldest first."""
        self.station()
        self.order(target, **order)
        self.dispatch(wish(tasks))
        return self.task_ids()

    def recording_of(self, task_id: str, connection: str = "rec") -> None:
        """The node's recorder is idle and connected; now it records this task."""
        self.act("config", task_id)
        self.say(("ready", task_id, 1), connection)
        self.act("begin", task_id)
        self.say(("recording", task_id, 1), connection)

    # ------------------------------------------------------------ seeing

    def shown_order(self, order_id: str = "o") -> dict[str, Any]:
        return self.store.order(order_id)

    def shown_batch(self, batch_id: str = "b") -> dict[str, Any]:
        return self.store.batch(batch_id)

    def task_ids(self, status: str | None = None, batch_id: str = "b") -> list[str]:
        """Oldest first."""
        page = self.store.tasks(TaskFilter(batch_id=batch_id, status=status, limit=10_000))
        return [task["task_id"] for task in reversed(page.items)]

    def notices(self, order_id: str = "o") -> list[dict[str, Any]]:
        """Oldest first."""
        return list(reversed(self.store.notices(order_id, 1000, None).items))

    def code(self, outcome: Outcome) -> tuple[str, dict[str, Any]]:
        return self.refused(outcome), dict(outcome.answer.extra)  # type: ignore[union-attr]

    # ------------------------------------------------------------ what always holds

    def check(self) -> None:
        c = self.store._c
        for order_id, status, target, policy, times in c.execute(
            "select id, status, target_count, quota_policy, finalizations from orders"
        ).fetchall():
            self._check_order(order_id, status, target, policy, times)
        for batch_id, order_id, status in c.execute("select id, order_id, status from batches").fetchall():
            self._check_batch(batch_id, order_id, status)
        self._check_notices()
        strays = c.execute(
            "select t.id from tasks t left join batches b on b.id = t.batch_id "
            "where t.order_id is not null and (b.id is null or b.order_id != t.order_id)"
        ).fetchall()
        assert not strays, "a task's batch is of its order"
        wanted = c.execute(
            "select t.id from tasks t join upload_intents i on i.task_id = t.id where t.order_id is not null "
            "and t.status = 'cancelled' and i.state in ('requested', 'accepted', 'uploaded')"
        ).fetchall()
        assert not wanted, "nobody waits for the recording of a cancelled task"

    def _counts(self, column: str, value: str) -> Counter[Any]:
        sql = f"select status, count(*) from tasks where {column} = ? group by status"
        return Counter(dict(self.store._c.execute(sql, (value,)).fetchall()))

    def _check_order(self, order_id: str, status: Any, target: int, policy: Any, times: int) -> None:
        counts = self._counts("order_id", order_id)
        batches = [
            row[0] for row in self.store._c.execute("select status from batches where order_id = ?", (order_id,))
        ]
        runnable = sum(counts[s] for s in RUNNABLE)
        if status in ORDER_OPEN:
            assert counted(policy, counts) <= target, "the quota holds"
            assert counts["completed"] < target, "an order that has what it wanted is completed"
            assert status != "created" or not counts["completed"]
        else:
            assert not runnable and not BATCH_OPEN.intersection(batches), "an order that has ended runs nothing"
        assert status != "completed" or (times and counts["completed"] >= target)
        assert status != "cancelled" or all(s in TASK_TERMINAL for s in counts if counts[s])
        shown = self.store.order(order_id)
        assert sum(shown["tasks"].values()) == shown["task_count"] == counts.total()
        assert shown["remaining_assignable"] == max(0, target - counted(policy, counts))

    def _check_batch(self, batch_id: str, order_id: str, status: Any) -> None:
        counts = self._counts("batch_id", batch_id)
        begun = counts.total() - counts["pending"] - counts["cancelled"]
        open_ = sum(n for s, n in counts.items() if s not in TASK_TERMINAL)
        match status:
            case "pending":
                assert not begun, "a batch of which something has begun is active"
            case "active":
                assert open_ or not counts["completed"], "a batch that is done is completed"
            case "completed":
                assert not sum(counts[s] for s in RUNNABLE)
            case "recalled":
                assert not counts["pending"] + counts["ready"], "nobody does what was recalled"
            case "cancelled":
                assert not open_
        shown = self.store.batch(batch_id)
        assert shown["tasks"] == {s: counts[s] for s in shown["tasks"]}
        for group in shown["groups"]:
            assert sum(group[s] for s in shown["tasks"]) == group["quantity"]
        assert sum(group["quantity"] for group in shown["groups"]) == counts.total()

    def _check_notices(self) -> None:
        c = self.store._c
        told: Counter[str] = Counter()
        for order_id, node_id, cause, notice_id, settled in c.execute(
            "select order_id, node_id, cause, id, settled_at_ms from order_notices"
        ).fetchall():
            for task in next(n for n in self.notices(order_id) if n["notice_id"] == notice_id)["tasks"]:
                told[task["task_id"]] += 1
                row = c.execute("select order_id, status from tasks where id = ?", (task["task_id"],)).fetchone()
                assert row is None or row == (order_id, "cancelled"), "what a device is to drop has ended"
            word, _, which = cause.partition(":")
            if word == "completed":
                times = c.execute("select finalizations from orders where id = ?", (order_id,)).fetchone()[0]
                assert 1 <= int(which) <= times
            armed = c.execute(
                "select 1 from deadlines where session_id = ? and kind = 'notice' and subject = ?",
                (f"node/{node_id}", notice_id),
            ).fetchone()
            here = c.execute(
                "select 1 from node_roles where node_id = ? and role = 'recorder' and link = 'connected'", (node_id,)
            ).fetchone()
            assert not (settled is not None and armed), "what is settled is not said again"
            assert settled is not None or armed or not here, "a notice to somebody who is here is never forgotten"
        assert not [task_id for task_id, n in told.items() if n > 1], "a device is told once"
