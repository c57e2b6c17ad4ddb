"""What counts against an order's target, and what is left of it."""

from __future__ import annotations

from typing import Any

from actors.law.orders.model import Counts, Order, total
from actors.protocol.order_codes import QuotaPolicy


def counted(policy: QuotaPolicy, counts: Counts) -> int:
    """rows: every task that is not deleted. live: without those that failed or were cancelled."""
    if policy == "rows":
        return total(counts)
    return total(counts) - counts.get("failed", 0) - counts.get("cancelled", 0)


def remaining(order: Order, counts: Counts) -> int:
    """An order that was ended early may have more than its target; then nothing is left."""
    return max(0, order.target_count - counted(order.quota_policy, counts))


def numbers(order: Order, counts: Counts) -> dict[str, Any]:
    """The numbers that a refusal for the quota's sake carries."""
    return {
        "remaining_assignable": remaining(order, counts),
        "target_count": order.target_count,
        "task_count": total(counts),
        "assigned_count": counted(order.quota_policy, counts),
    }
