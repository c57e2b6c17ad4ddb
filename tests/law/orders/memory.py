"""Orders in memory, for storms over the law alone: rows are plain values, a transaction is a decision performed whole.

It reads what law/orders/reading.py asks for and holds each effect against what it expects, as the store does
(tests/store/test_orders_model.py plays the same games on both). Devices are a word each: which task a recorder was
told of or says that it holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

from actors.law.effects import Answer
from actors.law.nodes import effects as nfx
from actors.law.nodes.model import Notice, Task
from actors.law.nodes.tasks import TRANSITIONS, Step, stepped
from actors.law.orders import effects as ofx
from actors.law.orders import requests as oq
from actors.law.orders.advance import advance
from actors.law.orders.decide import decide
from actors.law.orders.draft import notice_ids
from actors.law.orders.graphs import BATCH_TRANSITIONS
from actors.law.orders.model import Batch, Binding, Counts, Group, GroupKey, Order, OrderView, Station, merged
from actors.law.orders.reading import Wants, wants, wants_after
from tests import order_rules


@dataclass
class Memory:
    """told: the pending tasks that a recorder was told of. Tasks are kept in the order in which they were made."""

    orders: dict[str, Order] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    groups: dict[tuple[str, GroupKey], Group] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    notices: dict[tuple[str, str, str], Notice] = field(default_factory=dict)
    armed: set[tuple[str, str]] = field(default_factory=set)
    stations: dict[str, str] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    wall_ms: int = 1_700_000_000_000

    # ------------------------------------------------------------ transitions

    def do(self, request: oq.OrderRequest) -> Answer:
        decision = decide(self.view(request), request)
        self.perform(decision)
        return decision.answer

    def move(self, task_id: str, taken: Step, seed: str) -> None:
        """A device's report or an operator's act moved a task: with what follows for the order, in one transaction."""
        task = self.tasks[task_id]
        self._set_task(task_id, task.status, {**stepped(task, taken, self.wall_ms), "began": taken == "recording"})
        assert task.order_id is not None and task.batch_id is not None
        self.perform(advance(self._after(task.order_id, (task.batch_id,)), (task.batch_id,), notice_ids(seed)))

    def tell(self, task_id: str) -> None:
        """A recorder is told to prepare for a task that waits."""
        self.told.add(task_id)

    # ------------------------------------------------------------ reading

    def of(self, order_id: str | None = None, batch_id: str | None = None) -> list[Task]:
        if batch_id is not None:
            return [t for t in self.tasks.values() if t.batch_id == batch_id]
        return [t for t in self.tasks.values() if t.order_id == order_id]

    def view(self, request: oq.OrderRequest) -> OrderView:
        order = self.orders.get(request.order_id)
        named = self.batches.get(request.batch_id) if isinstance(request, oq.BatchRequest) else None
        batch = named if named is not None and named.order_id == request.order_id else None
        wanted = Wants()
        if order is not None:
            of = self._by_group(batch.batch_id) if batch is not None else {}
            wanted = wants(request, order, self._counts(request.order_id), batch, of)
        asker = request.station_id if isinstance(request, oq.CompleteTasks) else None
        return self._view(
            request.order_id,
            (batch.batch_id,) if batch is not None else (),
            wanted,
            batch_taken=named is not None and batch is None,
            asker_station=asker is None or asker in self.stations,
        )

    def _after(self, order_id: str, batch_ids: tuple[str, ...]) -> OrderView:
        batches = {batch_id: self.batches[batch_id] for batch_id in batch_ids}
        of = {batch_id: merged(*self._by_group(batch_id).values()) for batch_id in batch_ids}
        return self._view(order_id, batch_ids, wants_after(self.orders[order_id], self._counts(order_id), batches, of))

    def _view(self, order_id: str, batch_ids: tuple[str, ...], wanted: Wants, **more: Any) -> OrderView:
        """Only what is wanted, so that a decision that stands on more is found out."""
        of = {batch_id: self._by_group(batch_id) for batch_id in batch_ids}
        named = next(iter(batch_ids), None)
        mine = self.of(order_id)
        if wanted.cascade or wanted.batch_cascade:
            more["shadowed"] = frozenset(t.task_id for t in mine if t.task_id in self.told)
            more["held"] = {t.task_id: t for t in mine if t.busy or t.task_id in self.told}
        if wanted.cascade:
            more["open_batches"] = Counter(b.status for b in self.batches.values() if b.order_id == order_id and b.open)
        if wanted.oldest is not None:
            key, n = wanted.oldest
            waiting = [t for t in self._in(named, key) if t.status == "pending"]
            more["oldest"] = tuple(waiting[: max(n, 0)])
        if wanted.begun:
            scope = mine if named is None else self.of(batch_id=named)
            more["begun"] = sum(not unbegun(t) for t in scope)
        if wanted.station_id is not None and wanted.station_id in self.stations:
            more["station"] = Station(wanted.station_id, None, 1, "x")
            more["binding"] = Binding(wanted.station_id, 1, "anna", self.stations[wanted.station_id], 1)
        return OrderView(
            order=self.orders.get(order_id),
            counts=self._counts(order_id),
            batches={batch_id: self.batches[batch_id] for batch_id in batch_ids},
            batch_counts={batch_id: merged(*groups.values()) for batch_id, groups in of.items()},
            group_counts=of,
            groups={batch_id: {k: g for (b, k), g in self.groups.items() if b == batch_id} for batch_id in batch_ids},
            unbegun={key: tuple(t for t in self._in(named, key) if unbegun(t)) for key in wanted.unbegun},
            service_ms=1000,
            wall_ms=self.wall_ms,
            **more,
        )

    def _in(self, batch_id: str | None, key: GroupKey) -> list[Task]:
        return [t for t in self.of(batch_id=batch_id) if (t.sop_id, t.subscene_id) == key]

    def _counts(self, order_id: str) -> Counts:
        return Counter([t.status for t in self.of(order_id)])

    def _by_group(self, batch_id: str) -> dict[GroupKey, dict[Any, int]]:
        found: dict[GroupKey, dict[Any, int]] = {}
        for task in self.of(batch_id=batch_id):
            counts = found.setdefault(GroupKey(task.sop_id or "", task.subscene_id or ""), {})
            counts[task.status] = counts.get(task.status, 0) + 1
        return found

    # ------------------------------------------------------------ performing

    def perform(self, decision: ofx.OrderDecision) -> None:
        for effect in decision.effects:
            self._do(effect)

    def _do(self, effect: ofx.OrderEffect) -> None:
        match effect:
            case ofx.InsertOrder(order):
                assert order.order_id not in self.orders
                self.orders[order.order_id] = order
            case ofx.SetOrder(order_id, expected, changes):
                assert self.orders[order_id].status == expected
                self.orders[order_id] = replace(self.orders[order_id], **changes)
            case ofx.InsertBatch(batch):
                assert batch.batch_id not in self.batches
                self.batches[batch.batch_id] = batch
            case ofx.SetBatch(batch_id, expected, changes):
                assert self.batches[batch_id].status == expected
                self.batches[batch_id] = replace(self.batches[batch_id], **changes)
            case ofx.CloseBatches(order_id, taken, counted):
                mine = [b for b in self.batches.values() if b.order_id == order_id and b.open]
                assert Counter(b.status for b in mine) == counted
                for batch in mine:
                    after = BATCH_TRANSITIONS[batch.status, taken]
                    moment: dict[str, Any] = {f"{after}_at_ms": self.wall_ms}
                    self.batches[batch.batch_id] = replace(batch, status=after, **moment)
            case ofx.InsertGroup(group) | ofx.SetGroup(group):
                assert ((group.batch_id, group.key) in self.groups) == isinstance(effect, ofx.SetGroup)
                self.groups[group.batch_id, group.key] = group
            case nfx.InsertTask(task):
                assert task.task_id not in self.tasks
                self.tasks[task.task_id] = task
            case nfx.SetTask(task_id, expected_status, changes):
                self._set_task(task_id, expected_status, changes)
            case ofx.CancelTasks(order_id, batch_id, counted_tasks, detail):
                scope = self.of(order_id) if batch_id is None else self.of(batch_id=batch_id)
                mine_ = [t for t in scope if t.status in counted_tasks]
                assert Counter(t.status for t in mine_) == counted_tasks
                for task in mine_:
                    after_ = TRANSITIONS[task.status, "cancel"]
                    self.tasks[task.task_id] = replace(
                        task, status=after_, detail=detail, cancelled_at_ms=task.cancelled_at_ms or self.wall_ms
                    )
            case ofx.DiscardIntents():
                pass  # there are none here
            case ofx.RemoveTasks(task_ids):
                for task_id in task_ids:
                    assert unbegun(self.tasks.pop(task_id)), "what has begun is never taken away"
            case ofx.InsertNotice(notice):
                key = (notice.order_id, notice.cause, notice.node_id)
                assert key not in self.notices, "one notice per order, cause and device"
                self.notices[key] = notice
            case nfx.ArmNode(node_id, "notice", key_, _):
                self.armed.add((node_id, key_))
            case ofx.RemoveBatch(batch_id, n):
                self._forget([t.task_id for t in self.of(batch_id=batch_id)], n)
                self._forget_batches([batch_id])
            case ofx.RemoveOrder(order_id, n):
                self._forget([t.task_id for t in self.of(order_id)], n)
                self._forget_batches([b.batch_id for b in self.batches.values() if b.order_id == order_id])
                self.notices = {k: notice for k, notice in self.notices.items() if k[0] != order_id}
                del self.orders[order_id]
            case nfx.ArmNode():
                raise AssertionError(f"an order arms nothing but notices: {effect}")
            case _:
                assert_never(effect)

    def _set_task(self, task_id: str, expected: str, changes: Any) -> None:
        assert self.tasks[task_id].status == expected
        self.tasks[task_id] = replace(self.tasks[task_id], **changes)

    def _forget(self, task_ids: Iterable[str], expected: int) -> None:
        gone = [self.tasks.pop(task_id) for task_id in list(task_ids)]
        assert len(gone) == expected

    def _forget_batches(self, batch_ids: list[str]) -> None:
        for batch_id in batch_ids:
            del self.batches[batch_id]
        self.groups = {k: group for k, group in self.groups.items() if k[0] not in batch_ids}

    # ------------------------------------------------------------ seeing

    def check(self) -> None:
        order_rules.check(self.orders.values(), self.batches.values(), self.tasks.values(), self.notices.values())
        assert {(n.node_id, n.notice_id) for n in self.notices.values()} <= self.armed

    def rows(self) -> Any:
        """All of it, to see that a refusal changed nothing."""
        return (dict(self.orders), dict(self.batches), dict(self.groups), dict(self.tasks), dict(self.notices))


def unbegun(task: Task) -> bool:
    return task.status in ("pending", "cancelled") and task.started_at_ms is None and task.finished_at_ms is None
