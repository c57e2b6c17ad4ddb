"""What holds of orders after every transaction, whatever happened: the rules, over plain values.

The law's storms hold them against a model in memory, the store's against the rows of the real file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from actors.law.nodes.model import Notice, Task
from actors.law.orders.model import Batch, Order
from actors.law.orders.quota import counted
from actors.protocol.node_codes import TASK_TERMINAL

RUNNABLE = ("pending", "ready", "in_progress")


def check(orders: Iterable[Order], batches: Iterable[Batch], tasks: Iterable[Task], notices: Iterable[Notice]) -> None:
    known = {order.order_id: order for order in orders}
    held = {batch.batch_id: batch for batch in batches}
    theirs = {task.task_id: task for task in tasks if task.order_id is not None}
    of_order: dict[str, Counter[str]] = {order_id: Counter() for order_id in known}
    of_batch: dict[str, Counter[str]] = {batch_id: Counter() for batch_id in held}
    for task in theirs.values():
        assert task.batch_id in held and held[task.batch_id].order_id == task.order_id, "a task's batch is its order's"
        of_order[task.order_id or ""][task.status] += 1
        of_batch[task.batch_id][task.status] += 1
    for order_id, order in known.items():
        _order(order, of_order[order_id], [b for b in held.values() if b.order_id == order_id])
    for batch_id, batch in held.items():
        _batch(batch, of_batch[batch_id])
    _notices(known, theirs, notices)


def _order(order: Order, counts: Counter[str], batches: list[Batch]) -> None:
    runnable = sum(counts[status] for status in RUNNABLE)
    if order.open:
        assert counted(order.quota_policy, counts) <= order.target_count, "the quota holds"  # type: ignore[arg-type]
        assert counts["completed"] < order.target_count, "an order that has what it wanted is completed"
        assert order.status != "created" or not counts["completed"], "the first completed task starts the order"
    else:
        assert not runnable and not any(b.open for b in batches), "an order that has ended runs nothing"
    if order.status == "completed":
        assert order.finalizations >= 1 and counts["completed"] >= order.target_count
    if order.status == "cancelled":
        assert all(status in TASK_TERMINAL for status, n in counts.items() if n)


def _batch(batch: Batch, counts: Counter[str]) -> None:
    begun = counts.total() - counts["pending"] - counts["cancelled"]
    open_ = sum(n for status, n in counts.items() if status not in TASK_TERMINAL)
    match batch.status:
        case "pending":
            assert not begun, "a batch of which something has begun is active"
        case "active":
            assert open_ or not counts["completed"], "a batch that is done is completed"
        case "completed":
            assert not sum(counts[status] for status in RUNNABLE)
        case "recalled":
            assert not counts["pending"] + counts["ready"], "nobody does what was recalled"
        case "cancelled":
            assert not open_


def _notices(orders: dict[str, Order], tasks: dict[str, Task], notices: Iterable[Notice]) -> None:
    keys: Counter[tuple[str, str, str]] = Counter()
    told: Counter[str] = Counter()
    for notice in notices:
        keys[notice.order_id, notice.cause, notice.node_id] += 1
        told.update(task_id for task_id, _ in notice.tasks)
        for task_id, attempt in notice.tasks:
            task = tasks.get(task_id)
            if task is not None:
                assert (task.order_id, task.node_id, task.attempt) == (notice.order_id, notice.node_id, attempt)
                assert task.status == "cancelled", "what a device is to drop has ended"
        word, _, which = notice.cause.partition(":")
        assert word != "completed" or 1 <= int(which) <= orders[notice.order_id].finalizations
    assert all(n == 1 for n in keys.values()), "one notice per order, cause and device"
    assert all(n == 1 for n in told.values()), "a device is told of a task once"
