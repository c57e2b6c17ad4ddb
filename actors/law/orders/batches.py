"""Batches are dispatched to a station, adjusted, cancelled, recalled, and deleted before they begin.

An adjustment is declarative: it says how many tasks a group is to have. What has begun is never taken away; of what
has not, the newest goes first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from actors.law.effects import Refuse, Show
from actors.law.nodes.model import Task
from actors.law.orders import quota
from actors.law.orders.advance import OPEN, WAITING, follow
from actors.law.orders.draft import OrderDraft, notice_ids
from actors.law.orders.effects import (
    InsertBatch,
    InsertGroup,
    OrderDecision,
    RemoveBatch,
    RemoveTasks,
    SetGroup,
)
from actors.law.orders.model import Batch, Group, GroupKey, OrderView, total
from actors.law.orders.orders import terminal
from actors.law.orders.requests import (
    AdjustBatch,
    BatchRequest,
    ChangeBatch,
    DeleteBatch,
    DispatchBatch,
    GroupWish,
    RecallBatch,
)
from actors.law.requests import nth_id
from actors.protocol.defaults import BATCH_TASKS_MAX

_NAMES: Final = ("sop_slug", "sop_version", "scene_name", "subscene_name")


def ended(batch: Batch) -> Refuse:
    return Refuse("batch_terminal", f"the batch is {batch.status}", {"current_status": batch.status})


def _malformed(groups: Iterable[GroupWish], least: int) -> Refuse | None:
    seen: set[GroupKey] = set()
    for wish in groups:
        if wish.quantity < least:
            return Refuse("bad_request", f"quantity is at least {least}")
        if wish.key in seen:
            return Refuse("duplicate_group", f"{wish.sop_id}/{wish.subscene_id} is named twice", wish.key._asdict())
        seen.add(wish.key)
    return None if seen else Refuse("bad_request", "name at least one group")


def _too_many(tasks: int) -> Refuse | None:
    if tasks <= BATCH_TASKS_MAX:
        return None
    return Refuse("too_many_tasks", f"{tasks} tasks", {"requested": tasks, "max": BATCH_TASKS_MAX})


def _may_not_grow(draft: OrderDraft) -> Refuse | None:
    if draft.order.status == "completed":
        return Refuse("order_completed", "", {"current_status": "completed"})
    if draft.order.status == "paused":
        return Refuse("order_paused", "", {"current_status": "paused"})
    return None if draft.order.open else terminal(draft.order.status)


# ---------------------------------------------------------------- dispatch


def dispatch(view: OrderView, request: DispatchBatch) -> OrderDecision:
    if view.order is None:
        return OrderDecision(Refuse("order_not_found"))
    if (known := view.batches.get(request.batch_id)) is not None or view.batch_taken:
        if known is None or known.made_by != request.seed:
            return OrderDecision(Refuse("batch_exists"))
        return OrderDecision(Show("batch", 201, changed=False, object_id=request.batch_id))
    draft = OrderDraft(view, notice_ids(request.seed))
    wanted = sum(wish.quantity for wish in request.groups)
    refusal = _malformed(request.groups, 1) or _too_many(wanted) or _may_not_grow(draft) or _no_station(view)
    if refusal is None and wanted > quota.remaining(view.order, draft.counts):
        refusal = Refuse("quota_exceeded", "", {"requested": wanted, **quota.numbers(view.order, draft.counts)})
    if refusal is not None:
        return OrderDecision(refusal)
    draft.do(InsertBatch(Batch(request.batch_id, request.order_id, request.station_id, view.wall_ms, request.seed)))
    made = 0
    for wish in request.groups:
        group = _named(Group(request.batch_id, wish.sop_id, wish.subscene_id), wish)
        draft.do(InsertGroup(group))
        _make_tasks(draft, group, wish.quantity, request, made)
        made += wish.quantity
    return draft.decide(Show("batch", 201, object_id=request.batch_id))


def _no_station(view: OrderView) -> Refuse | None:
    if view.station is None:
        return Refuse("station_not_found")
    return Refuse("station_not_bound") if view.binding is None else None


def _named(group: Group, wish: GroupWish) -> Group:
    """What the wish says replaces what the group has; what it does not say stays."""
    given: dict[str, Any] = {name: value for name in _NAMES if (value := getattr(wish, name)) is not None}
    if wish.params is not None:
        given["params"] = wish.params
    return replace(group, **given)


def _make_tasks(draft: OrderDraft, group: Group, quantity: int, request: BatchRequest, made: int) -> None:
    """made: how many tasks this request has made before. The device gets the group's names with the params."""
    assert draft.view.binding is not None
    names = {name: value for name in _NAMES if (value := getattr(group, name)) is not None}
    params = {**(group.params or {}), "sop_id": group.sop_id, "subscene_id": group.subscene_id, **names}
    for k in range(made, made + quantity):
        draft.insert_task(
            Task(
                nth_id("tsk", request.seed, k),
                draft.view.binding.node_id,
                params,
                draft.view.wall_ms,
                request.seed,
                order_id=request.order_id,
                batch_id=request.batch_id,
                sop_id=group.sop_id,
                subscene_id=group.subscene_id,
            )
        )


# ---------------------------------------------------------------- adjust


def adjust(view: OrderView, request: AdjustBatch) -> OrderDecision:
    batch = view.batches.get(request.batch_id)
    if view.order is None or batch is None:
        return OrderDecision(Refuse("batch_not_found"))
    if refusal := _malformed(request.groups, 0):
        return OrderDecision(refusal)
    if view.order.status == "cancelled":
        return OrderDecision(terminal("cancelled"))
    if batch.status in ("cancelled", "recalled"):
        return OrderDecision(ended(batch))
    draft = OrderDraft(view, notice_ids(request.seed))
    policy, of_group = view.order.quota_policy, view.group_counts.get(batch.batch_id, {})
    before = {wish.key: quota.counted(policy, of_group.get(wish.key, {})) for wish in request.groups}
    growth = sum(max(0, wish.quantity - before[wish.key]) for wish in request.groups)
    taken, refusal = _newest(view, before, request.groups)
    refusal = refusal or (_no_growth(draft, batch, growth, len(taken)) if growth else None)
    if refusal is not None:
        return OrderDecision(refusal)
    if taken:
        draft.do(RemoveTasks(tuple(task.task_id for task in taken)))
        draft.forget_tasks(taken)
    made = 0
    for wish in request.groups:
        group = _keep_group(draft, batch.batch_id, wish)
        more = max(0, wish.quantity - before[wish.key])
        if more:
            _make_tasks(draft, group, more, request, made)
            made += more
    follow(draft, (batch.batch_id,))
    told = tuple((wish.sop_id, wish.subscene_id, before[wish.key]) for wish in request.groups)
    data = {"groups": told, "added": growth, "removed": len(taken)}
    return draft.decide(Show("adjusted", changed=bool(draft.effects), object_id=batch.batch_id, data=data))


def _keep_group(draft: OrderDraft, batch_id: str, wish: GroupWish) -> Group:
    known = draft.view.groups.get(batch_id, {}).get(wish.key)
    group = _named(known or Group(batch_id, wish.sop_id, wish.subscene_id), wish)
    if known is None:
        draft.do(InsertGroup(group))
    elif group != known:
        draft.do(SetGroup(group))
    return group


def _newest(
    view: OrderView, before: dict[GroupKey, int], wishes: Iterable[GroupWish]
) -> tuple[list[Task], Refuse | None]:
    """What goes. Pending ones, the newest first; then, if they count, those that were cancelled before they began."""
    assert view.order is not None
    taken: list[Task] = []
    for wish in wishes:
        less = before[wish.key] - wish.quantity
        if less <= 0:
            continue
        unbegun = view.unbegun.get(wish.key, ())[::-1]
        waiting = [task for task in unbegun if task.status == "pending"]
        if view.order.quota_policy == "rows":
            waiting += [task for task in unbegun if task.status == "cancelled"]
        if len(waiting) < less:
            begun = before[wish.key] - len(waiting)
            return [], Refuse("below_begun", f"{begun} have begun", {**wish.key._asdict(), "begun_count": begun})
        taken += waiting[:less]
    return taken, None


def _no_growth(draft: OrderDraft, batch: Batch, growth: int, removed: int) -> Refuse | None:
    order, counts = draft.order, draft.counts_of(batch.batch_id)
    if refusal := _may_not_grow(draft):
        return refusal
    if not batch.open:
        return ended(batch)
    if draft.view.binding is None:
        return Refuse("station_not_bound")
    if refusal := _too_many(total(counts) - removed + growth):
        return refusal
    left, has = quota.remaining(order, draft.counts), quota.counted(order.quota_policy, counts)
    if growth - removed > left:
        numbers = {"requested": has - removed + growth, "max_batch_target": has + left}
        return Refuse("quota_exceeded", "", {**numbers, **quota.numbers(order, draft.counts)})
    return None


# ---------------------------------------------------------------- end


def change(view: OrderView, request: ChangeBatch) -> OrderDecision:
    """Cancelled: with all its open tasks, and what is being uploaded is not wanted any more."""
    batch = view.batches.get(request.batch_id)
    if view.order is None or batch is None:
        return OrderDecision(Refuse("batch_not_found"))
    if batch.status == request.status:
        return OrderDecision(Show("batch", changed=False, object_id=batch.batch_id))
    if not batch.open:
        return OrderDecision(ended(batch))
    draft = OrderDraft(view, notice_ids(request.seed))
    draft.step_batch(batch.batch_id, "cancel")
    held = draft.cancel_tasks(OPEN, "the batch was cancelled", batch.batch_id)
    draft.notify(f"batch_cancelled:{batch.batch_id}", held)
    return draft.decide(Show("batch", object_id=batch.batch_id))


def recall(view: OrderView, request: RecallBatch) -> OrderDecision:
    """Taken back from the station: what waits there is cancelled, what is recorded or uploaded goes on and counts."""
    batch = view.batches.get(request.batch_id)
    if view.order is None or batch is None:
        return OrderDecision(Refuse("batch_not_found"))
    if batch.status == "recalled":
        return OrderDecision(Show("batch", changed=False, object_id=batch.batch_id))
    if not batch.open:
        return OrderDecision(ended(batch))
    draft = OrderDraft(view, notice_ids(request.seed))
    draft.step_batch(batch.batch_id, "recall")
    held = draft.cancel_tasks(WAITING, "the batch was recalled", batch.batch_id)
    draft.notify(f"batch_recalled:{batch.batch_id}", held)
    return draft.decide(Show("batch", object_id=batch.batch_id))


def delete(view: OrderView, request: DeleteBatch) -> OrderDecision:
    batch = view.batches.get(request.batch_id)
    if view.order is None or batch is None:
        return OrderDecision(Refuse("batch_not_found"))
    if view.begun:
        return OrderDecision(Refuse("has_begun", f"{view.begun} tasks have begun", {"begun_count": view.begun}))
    tasks = total(view.batch_counts.get(batch.batch_id, {}))
    return OrderDecision(Show("nothing", 204), (RemoveBatch(batch.batch_id, tasks),))
