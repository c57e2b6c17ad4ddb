"""What a decision about an order needs to read beyond the order, its counts and the named batch. Pure, so that the
store reads no more than that: one completion of an order of ten thousand tasks reads no task but its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from actors.law.nodes.requests import Unset
from actors.law.orders import quota
from actors.law.orders.advance import due, left_over
from actors.law.orders.model import Batch, Counts, GroupKey, Order
from actors.law.orders.requests import (
    AdjustBatch,
    ChangeBatch,
    ChangeOrder,
    CompleteTasks,
    DeleteBatch,
    DeleteOrder,
    DispatchBatch,
    OrderRequest,
    RecallBatch,
)


@dataclass(frozen=True, slots=True)
class Wants:
    """cascade: all open tasks may end: those that devices hold, and the open batches. batch_cascade: the same, of the
    named batch. oldest: so many pending tasks of the group. unbegun: of these groups, what never began. begun: how
    many of the order or the batch have begun. station_id: the station, and its present binding.
    """

    cascade: bool = False
    batch_cascade: bool = False
    oldest: tuple[GroupKey, int] | None = None
    unbegun: tuple[GroupKey, ...] = ()
    begun: bool = False
    station_id: str | None = None


def wants(
    request: OrderRequest,
    order: Order,
    counts: Counts,
    batch: Batch | None,
    groups: Mapping[GroupKey, Counts],
) -> Wants:
    """batch: the named one, if it is of this order; groups: its counts."""
    match request:
        case ChangeOrder():
            return Wants(cascade=_may_end(request, order, counts))
        case DeleteOrder() | DeleteBatch():
            return Wants(begun=True)
        case DispatchBatch():
            return Wants(station_id=request.station_id)
        case AdjustBatch() if batch is not None:
            has = {wish.key: quota.counted(order.quota_policy, groups.get(wish.key, {})) for wish in request.groups}
            less = tuple(wish.key for wish in request.groups if wish.quantity < has[wish.key])
            return Wants(unbegun=less, station_id=batch.station_id)
        case ChangeBatch() | RecallBatch():
            return Wants(batch_cascade=True)
        case CompleteTasks():
            ends = counts.get("completed", 0) + request.quantity >= order.target_count
            return Wants(cascade=ends, oldest=(request.key, request.quantity))
    return Wants()


def _may_end(request: ChangeOrder, order: Order, counts: Counts) -> bool:
    if request.status == "cancelled":
        return True
    target = order.target_count if isinstance(request.target_count, Unset) else request.target_count
    return counts.get("completed", 0) >= target


def wants_after(order: Order, counts: Counts, batches: Mapping[str, Batch], of: Mapping[str, Counts]) -> Wants:
    """After another's decision, which moved a task in these batches."""
    return Wants(
        cascade=due(order, counts.get("completed", 0)),
        batch_cascade=any(left_over(batch, of[batch_id]) for batch_id, batch in batches.items()),
    )
