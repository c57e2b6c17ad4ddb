"""The closed tables of work orders: statuses of orders and batches, quota policies, causes of notices.

One table each, here and nowhere else, each name with what it means; docs/protocol.md is made from them. Which status
follows which is the law's (law/orders/graphs.py).
"""

from __future__ import annotations

from typing import Final, Literal

OrderStatus = Literal["created", "in_progress", "paused", "completed", "cancelled"]
ORDER_STATUSES: Final[dict[OrderStatus, str]] = {
    "created": "nothing of it is completed yet",
    "in_progress": "at least one task is completed, or it was resumed or reopened",
    "paused": "no dispatch, no growth, nothing new begins; what runs ends by itself and counts",
    "completed": "terminal, unless its target is raised: as many tasks are completed as were wanted",
    "cancelled": "terminal: an operator ended it",
}
ORDER_OPEN: Final[frozenset[OrderStatus]] = frozenset({"created", "in_progress", "paused"})

BatchStatus = Literal["pending", "active", "completed", "cancelled", "recalled"]
BATCH_STATUSES: Final[dict[BatchStatus, str]] = {
    "pending": "no task of it has begun",
    "active": "a task of it has begun",
    "completed": "terminal: no task of it is open and at least one is completed, or its order is completed",
    "cancelled": "terminal: an operator ended it with all its open tasks",
    "recalled": "terminal: taken back from its station; what was being recorded or uploaded goes on and counts",
}
BATCH_OPEN: Final[frozenset[BatchStatus]] = frozenset({"pending", "active"})

QuotaPolicy = Literal["rows", "live"]
QUOTA_POLICIES: Final[dict[QuotaPolicy, str]] = {
    "rows": "every task counts until it is deleted",
    "live": "failed and cancelled tasks are released",
}

# What an order may be asked to become (PATCH); the other statuses it reaches by what its tasks do.
OrderWish = Literal["paused", "in_progress", "cancelled"]

# The first part of a notice's cause; the second says which one (`completed:1`, `batch_recalled:<batch_id>`).
NoticeCause = Literal["completed", "cancelled", "batch_cancelled", "batch_recalled"]
NOTICE_CAUSES: Final[dict[NoticeCause, str]] = {
    "completed": "the order was completed, for the n-th time",
    "cancelled": "the order was cancelled",
    "batch_cancelled": "the batch was cancelled",
    "batch_recalled": "the batch was recalled",
}
