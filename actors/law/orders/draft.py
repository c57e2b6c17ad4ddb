"""A decision about an order being written: collects effects and keeps the counts in step. Local to one decision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

from actors.law.effects import Answer, NodeNoticed, Speech
from actors.law.nodes.effects import ArmNode, InsertTask, SetTask
from actors.law.nodes.model import Notice, Task
from actors.law.nodes.tasks import Step, stepped
from actors.law.orders.effects import (
    CancelTasks,
    CloseBatches,
    InsertNotice,
    OrderDecision,
    OrderEffect,
    SetBatch,
    SetOrder,
)
from actors.law.orders.graphs import BATCH_TRANSITIONS, ORDER_TRANSITIONS, BatchStep, OrderStep
from actors.law.orders.model import Batch, Order, OrderView
from actors.law.requests import nth_id
from actors.protocol.defaults import NOTICE_S
from actors.protocol.node_codes import TaskStatus

_ORDER_MOMENTS = {"in_progress": "started_at_ms", "completed": "completed_at_ms", "cancelled": "cancelled_at_ms"}
_BATCH_MOMENTS = {
    "active": "started_at_ms",
    "completed": "completed_at_ms",
    "cancelled": "cancelled_at_ms",
    "recalled": "recalled_at_ms",
}


def notice_ids(seed: str) -> Iterator[str]:
    """The same seed, the same ids."""
    return (nth_id("ntc", seed, k) for k in count())


class OrderDraft:
    """notices: where the ids of new notices come from."""

    def __init__(self, view: OrderView, notices: Iterator[str]) -> None:
        assert view.order is not None
        self.view, self._notices = view, notices
        self.order: Order = view.order
        self.batches = dict(view.batches)
        self.counts = dict(view.counts)
        self.batch_counts = {bid: dict(counts) for bid, counts in view.batch_counts.items()}
        self.held = dict(view.held)
        self.open_batches = dict(view.open_batches)
        self.effects: list[OrderEffect] = []
        self._speech: list[Speech] = []

    # ------------------------------------------------------------ reading

    def count(self, status: TaskStatus) -> int:
        return self.counts.get(status, 0)

    def counts_of(self, batch_id: str) -> dict[TaskStatus, int]:
        return self.batch_counts.setdefault(batch_id, {})

    # ------------------------------------------------------------ writing

    def do(self, *effects: OrderEffect) -> None:
        self.effects.extend(effects)

    def set_order(self, **changes: Any) -> Order:
        before = self.order
        self.order = replace(before, **changes)
        self.do(SetOrder(before.order_id, before.status, changes))
        return self.order

    def step_order(self, taken: OrderStep, **changes: Any) -> Order:
        """One edge of the graph. A moment is that of the first time; completed again, of the last."""
        status = ORDER_TRANSITIONS[self.order.status, taken]
        moment = _ORDER_MOMENTS.get(status)
        if taken == "reopen":
            changes["completed_at_ms"] = None
        elif moment is not None and getattr(self.order, moment) is None:
            changes[moment] = self.view.wall_ms
        return self.set_order(status=status, **changes)

    def step_batch(self, batch_id: str, taken: BatchStep) -> Batch:
        before = self.batches[batch_id]
        status = BATCH_TRANSITIONS[before.status, taken]
        changes: dict[str, Any] = {"status": status}
        if getattr(before, _BATCH_MOMENTS[status]) is None:
            changes[_BATCH_MOMENTS[status]] = self.view.wall_ms
        after = self.batches[batch_id] = replace(before, **changes)
        self.do(SetBatch(batch_id, before.status, changes))
        if self.open_batches.get(before.status):
            self.open_batches[before.status] -= 1
        if after.open:
            self.open_batches[after.status] = self.open_batches.get(after.status, 0) + 1
        return after

    def close_batches(self, taken: BatchStep) -> None:
        """Every open batch of the order."""
        wanted = {status: n for status, n in self.open_batches.items() if n}
        if wanted:
            self.do(CloseBatches(self.order.order_id, taken, wanted))
        for batch in list(self.batches.values()):
            if batch.open:
                self.batches[batch.batch_id] = replace(batch, status=BATCH_TRANSITIONS[batch.status, taken])
        self.open_batches = {}

    def insert_task(self, task: Task) -> None:
        self.do(InsertTask(task))
        self._count(task.batch_id, task.status, 1)

    def step_task(self, task: Task, taken: Step) -> Task:
        changes = stepped(task, taken, self.view.wall_ms)
        self.do(SetTask(task.task_id, task.status, changes))
        after = replace(task, **changes)
        if task.task_id in self.held:
            self.held[task.task_id] = after
        self._count(task.batch_id, task.status, -1)
        self._count(task.batch_id, after.status, 1)
        return after

    def forget_tasks(self, tasks: Iterable[Task]) -> None:
        """Only the counts: the rows go by an effect of the caller's."""
        for task in tasks:
            self._count(task.batch_id, task.status, -1)

    def _count(self, batch_id: str | None, status: TaskStatus, n: int) -> None:
        self.counts[status] = self.counts.get(status, 0) + n
        if batch_id is not None:
            of = self.counts_of(batch_id)
            of[status] = of.get(status, 0) + n

    def cancel_tasks(self, statuses: Iterable[TaskStatus], detail: str, batch_id: str | None = None) -> list[Task]:
        """Those of the batch, or all of the order. Returns the ones that a device may hold."""
        scope = self.counts if batch_id is None else self.counts_of(batch_id)
        wanted = {status: scope[status] for status in statuses if scope.get(status)}
        if not wanted:
            return []
        self.do(CancelTasks(self.order.order_id, batch_id, wanted, detail))
        for status, n in wanted.items():
            for counts in (self.counts,) if batch_id is None else (self.counts, scope):
                counts[status] -= n
                counts["cancelled"] = counts.get("cancelled", 0) + n
        gone = [t for t in self.held.values() if t.status in wanted and batch_id in (None, t.batch_id)]
        for task in gone:
            self.held[task.task_id] = replace(task, status="cancelled")
        return [task for task in gone if task.busy or task.task_id in self.view.shadowed]

    def notify(self, cause: str, tasks: Iterable[Task]) -> None:
        """Downward is a row of the outbox: one notice per device, and a deadline should nobody hear of it."""
        by_node: dict[str, list[Task]] = {}
        for task in tasks:
            by_node.setdefault(task.node_id, []).append(task)
        for node_id, held in sorted(by_node.items()):
            told = tuple(sorted((t.task_id, t.attempt) for t in held))
            notice = Notice(next(self._notices), self.order.order_id, node_id, cause, told, self.view.wall_ms)
            due_ms = self.view.service_ms + round(NOTICE_S * 1000)
            self.do(InsertNotice(notice), ArmNode(node_id, "notice", notice.notice_id, due_ms))
            self._speech.append(NodeNoticed(node_id, notice.notice_id))

    def decide(self, answer: Answer) -> OrderDecision:
        return OrderDecision(answer, tuple(self.effects), tuple(self._speech))
