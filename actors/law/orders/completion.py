"""An external device has done some of a group by itself: its collector completes that many planned tasks.

All or nothing, the oldest first; nothing is ever created. What it means for batch and order follows in the same
decision.
"""

from __future__ import annotations

from actors.law.effects import Refuse, Show
from actors.law.orders.advance import follow
from actors.law.orders.batches import ended
from actors.law.orders.draft import OrderDraft, notice_ids
from actors.law.orders.effects import DiscardIntents, OrderDecision
from actors.law.orders.model import Batch, OrderView
from actors.law.orders.orders import terminal
from actors.law.orders.requests import CompleteTasks
from actors.protocol.defaults import BATCH_TASKS_MAX


def complete(view: OrderView, request: CompleteTasks) -> OrderDecision:
    batch = view.batches.get(request.batch_id)
    if not view.asker_station:
        return OrderDecision(Refuse("station_not_found", "the station of this token is gone"))
    if view.order is None or batch is None:
        return OrderDecision(Refuse("batch_not_found"))
    if refusal := _refusal(view, batch, request):
        return OrderDecision(refusal)
    tasks = view.oldest[: request.quantity]
    draft = OrderDraft(view, notice_ids(request.seed))
    for task in tasks:
        draft.step_task(task, "external")
    task_ids = tuple(task.task_id for task in tasks)
    draft.do(DiscardIntents(task_ids))
    follow(draft, (batch.batch_id,))
    data = {"requested": request.quantity, "task_ids": task_ids, "group": tuple(request.key)}
    return draft.decide(Show("completed", object_id=batch.batch_id, data=data))


def _refusal(view: OrderView, batch: Batch, request: CompleteTasks) -> Refuse | None:
    assert view.order is not None
    if request.station_id is not None and request.station_id != batch.station_id:
        return Refuse("not_your_station", f"the batch is of station {batch.station_id}")
    if not 1 <= request.quantity <= BATCH_TASKS_MAX:
        return Refuse("bad_request", f"quantity is 1 to {BATCH_TASKS_MAX}")
    if not request.sop_id or not request.subscene_id:
        return Refuse("bad_request", "sop_id and subscene_id name the group")
    if not batch.open:
        return ended(batch)
    if view.order.status == "paused":
        return Refuse("order_paused", "", {"current_status": "paused"})
    if not view.order.open:
        return terminal(view.order.status)
    if request.key not in view.groups.get(batch.batch_id, {}):
        return Refuse("group_not_found", f"{request.sop_id}/{request.subscene_id} is no group of the batch")
    pending = view.group_counts.get(batch.batch_id, {}).get(request.key, {}).get("pending", 0)
    if pending < request.quantity:
        return Refuse("too_few_pending", f"{pending} are pending", {"requested": request.quantity, "pending": pending})
    return None
