"""A world of orders for tests: the real law and the real SQLite store, beside the nodes of tests/node_world.py.

It takes a notice as soon as it is spoken, as the gateway and the reaper do, unless it is told to be deaf; then the
deadline has to do it. `check` looks at what must hold after every transaction, whatever happened.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from actors.law.effects import NodeNoticed
from actors.law.nodes import requests as nq
from actors.law.nodes.answers import upward_of
from actors.law.nodes.model import Notice
from actors.law.orders import requests as oq
from actors.law.requests import Request
from actors.protocol.ids import ulid
from actors.protocol.node_codes import TASK_STATUSES
from actors.store import node_rows, order_rows
from actors.store.contract import BatchFilter, IdempotencyKey, OrderFilter, Outcome, TaskFilter
from tests import order_rules
from tests.node_world import NodeWorld


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
        notices = _all(c, order_rows.NOTICES)
        order_rules.check(_all(c, order_rows.ORDERS), _all(c, order_rows.BATCHES), _all(c, node_rows.TASKS), notices)
        wanted = c.execute(
            "select t.id from tasks t join upload_intents i on i.task_id = t.id where t.order_id is not null "
            "and t.status = 'cancelled' and i.state in ('requested', 'accepted', 'uploaded')"
        ).fetchall()
        assert not wanted, "nobody waits for the recording of a cancelled task"
        for notice in notices:
            self._check_armed(notice)

    def _check_armed(self, notice: Notice) -> None:
        c = self.store._c
        armed = c.execute(
            "select 1 from deadlines where session_id = ? and kind = 'notice' and subject = ?",
            (f"node/{notice.node_id}", notice.notice_id),
        ).fetchone()
        here = c.execute(
            "select 1 from node_roles where node_id = ? and role = 'recorder' and link = 'connected'", (notice.node_id,)
        ).fetchone()
        if notice.settled_at_ms is not None:
            assert not armed, "what is settled is not said again"
        else:
            assert armed or not here, "a notice to somebody who is here is never forgotten"

    def check_shown(self, order_id: str = "o") -> None:
        """Each answer adds up."""
        order = self.store.order(order_id)
        tasks = self.store.tasks(TaskFilter(order_id=order_id, limit=100_000)).items
        assert order["tasks"] == {s: sum(t["status"] == s for t in tasks) for s in TASK_STATUSES}
        assert order["task_count"] == len(tasks) and order["completed_count"] == order["tasks"]["completed"]
        batches = self.store.batches(BatchFilter(order_id=order_id, limit=100_000)).items
        assert order["batch_count"] == len(batches)
        for status in TASK_STATUSES:
            assert sum(b["tasks"][status] for b in batches) == order["tasks"][status]
            for batch in batches:
                assert sum(g[status] for g in batch["groups"]) == batch["tasks"][status]
        for batch in batches:
            assert batch["task_count"] == sum(g["quantity"] for g in batch["groups"])


def _all(c: Any, table: Any) -> list[Any]:
    return list(map(table.read, c.execute(table.select("")).fetchall()))


def judged(folder: Path) -> Iterator[OrderWorld]:
    """For a fixture: whatever a test did in it, its rows and its answers must add up at the end."""
    world = OrderWorld(folder)
    yield world
    world.check()
    for order in world.store.orders(OrderFilter()).items:
        world.check_shown(order["order_id"])
    world.close()
