"""Orders come into being, are renamed, widened, paused, resumed, cancelled, reopened, and deleted before they begin."""

from __future__ import annotations

from typing import Any, Final

from actors.law.effects import Refuse, Show
from actors.law.nodes.requests import Unset
from actors.law.orders import quota
from actors.law.orders.advance import OPEN, follow
from actors.law.orders.draft import OrderDraft, notice_ids
from actors.law.orders.effects import InsertOrder, OrderDecision, RemoveOrder
from actors.law.orders.graphs import ORDER_TRANSITIONS, OrderStep
from actors.law.orders.model import Order, OrderView, total
from actors.law.orders.requests import ChangeOrder, CreateOrder, DeleteOrder
from actors.protocol.defaults import TARGET_MAX
from actors.protocol.order_codes import OrderStatus, OrderWish

_ASKED: Final[dict[OrderWish, OrderStep]] = {"paused": "pause", "in_progress": "resume", "cancelled": "cancel"}


def terminal(status: OrderStatus) -> Refuse:
    return Refuse("order_terminal", f"the order is {status}", {"current_status": status})


def create(view: OrderView, request: CreateOrder) -> OrderDecision:
    if view.order is not None:
        if view.order.made_by != request.seed:
            return OrderDecision(Refuse("order_exists"))
        return OrderDecision(Show("order", 201, changed=False))
    if not 1 <= request.target_count <= TARGET_MAX:
        return OrderDecision(Refuse("bad_request", f"target_count is 1 to {TARGET_MAX}"))
    order = Order(
        request.order_id, request.name, request.target_count, request.quota_policy, view.wall_ms, request.seed
    )
    return OrderDecision(Show("order", 201), (InsertOrder(order),))


def change(view: OrderView, request: ChangeOrder) -> OrderDecision:
    if view.order is None:
        return OrderDecision(Refuse("order_not_found"))
    draft = OrderDraft(view, notice_ids(request.seed))
    refusal = _refuse_cancelled(draft.order, request) or _target(draft, request) or _status(draft, request)
    if refusal is not None:
        return OrderDecision(refusal)  # all or nothing
    if not isinstance(request.name, Unset) and request.name != draft.order.name:
        draft.set_order(name=request.name)
    follow(draft, ())
    return draft.decide(Show("order", changed=bool(draft.effects)))


def _refuse_cancelled(order: Order, request: ChangeOrder) -> Refuse | None:
    """Refuses everything; to be cancelled once more is no change."""
    asked = (request.name, request.target_count)
    if order.status != "cancelled" or (request.status == "cancelled" and all(isinstance(a, Unset) for a in asked)):
        return None
    return terminal(order.status)


def _target(draft: OrderDraft, request: ChangeOrder) -> Refuse | None:
    """Never below what the quota counts; but exactly to what is completed ends the order with what it has."""
    wanted, order = request.target_count, draft.order
    if isinstance(wanted, Unset) or wanted == order.target_count:
        return None
    if not 1 <= wanted <= TARGET_MAX:
        return Refuse("bad_request", f"target_count is 1 to {TARGET_MAX}")
    completed = draft.count("completed")
    least = quota.counted(order.quota_policy, draft.counts)
    if wanted < least and wanted != completed:
        numbers: dict[str, Any] = {"min_target": least, "completed_count": completed}
        return Refuse("target_below_assigned", f"{least} tasks are assigned, {completed} completed", numbers)
    draft.set_order(target_count=wanted)
    if order.status == "completed" and wanted > completed:
        draft.step_order("reopen")
    return None


def _status(draft: OrderDraft, request: ChangeOrder) -> Refuse | None:
    wanted, order = request.status, draft.order
    if isinstance(wanted, Unset) or wanted == order.status:
        return None
    if not order.open:
        return terminal(order.status)
    taken = _ASKED[wanted]
    if (order.status, taken) not in ORDER_TRANSITIONS:
        return Refuse("order_conflict", f"the order is {order.status}", {"current_status": order.status})
    draft.step_order(taken)
    if taken == "cancel":
        held = draft.cancel_tasks(OPEN, "the order was cancelled")
        draft.close_batches("cancel")
        draft.notify("cancelled", held)
    return None


def delete(view: OrderView, request: DeleteOrder) -> OrderDecision:
    if view.order is None:
        return OrderDecision(Refuse("order_not_found"))
    if view.begun:
        return OrderDecision(Refuse("has_begun", f"{view.begun} tasks have begun", {"begun_count": view.begun}))
    return OrderDecision(Show("nothing", 204), (RemoveOrder(request.order_id, total(view.counts)),))
