"""What follows by itself when a task of an order has moved: the order starts, batches begin and end, the order is
completed. Level-triggered: it looks at the counts as they stand, so twice is once.

It is part of the decision that moved the task, in the same transaction: after a node's decision the store asks
`advance`, an order's own decisions call `follow`. An order that has ended decides nothing, and notifies nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from actors.law.effects import Done
from actors.law.nodes.model import Task
from actors.law.orders.draft import OrderDraft
from actors.law.orders.effects import OrderDecision
from actors.law.orders.model import Batch, Counts, Order, OrderView
from actors.protocol.node_codes import TASK_TERMINAL, TaskStatus

# What an order that is completed takes back; what is uploaded already goes on, and counts.
RUNNABLE: Final[tuple[TaskStatus, ...]] = ("pending", "ready", "in_progress")
OPEN: Final[tuple[TaskStatus, ...]] = (*RUNNABLE, "uploading")
# What a recall takes back: what is being recorded goes on.
WAITING: Final[tuple[TaskStatus, ...]] = ("pending", "ready")
_BEGUN: Final[tuple[TaskStatus, ...]] = ("ready", "in_progress", "uploading", "completed", "failed")


def due(order: Order, completed: int) -> bool:
    """Whether it is to be completed now; then all that it would take back has to be read."""
    return order.open and completed >= order.target_count


def left_over(batch: Batch, counts: Counts) -> bool:
    """A recording of a recalled batch was given back to it (a lost device): nobody will do it any more."""
    return batch.status == "recalled" and any(counts.get(status) for status in WAITING)


def advance(view: OrderView, moved: Iterable[str], notices: Iterator[str]) -> OrderDecision:
    """After somebody else's decision. moved: the batches in which a task has another status now."""
    if view.order is None:
        return OrderDecision(Done(changed=False))
    draft = OrderDraft(view, notices)
    follow(draft, moved)
    return draft.decide(Done(changed=bool(draft.effects)))


def follow(draft: OrderDraft, moved: Iterable[str]) -> None:
    batches = [batch_id for batch_id in dict.fromkeys(moved) if batch_id in draft.batches]
    for batch_id in batches:
        if left_over(draft.batches[batch_id], draft.counts_of(batch_id)):
            draft.cancel_tasks(WAITING, "the batch was recalled", batch_id)
    if not draft.order.open:
        return
    completed = draft.count("completed")
    if draft.order.status == "created" and completed:
        draft.step_order("start")
    for batch_id in batches:
        _batch(draft, batch_id)
    if due(draft.order, completed):
        _finalize(draft)


def _batch(draft: OrderDraft, batch_id: str) -> None:
    counts = draft.counts_of(batch_id)
    if draft.batches[batch_id].status == "pending" and any(counts.get(status) for status in _BEGUN):
        draft.step_batch(batch_id, "begin")
    if draft.batches[batch_id].status != "active" or not counts.get("completed"):
        return
    if not any(n for status, n in counts.items() if status not in TASK_TERMINAL):
        draft.step_batch(batch_id, "end")


def _finalize(draft: OrderDraft) -> None:
    nth = draft.order.finalizations + 1
    draft.step_order("finalize", finalizations=nth)
    held: list[Task] = draft.cancel_tasks(RUNNABLE, "the order was completed")
    draft.close_batches("finalize")
    draft.notify(f"completed:{nth}", held)
