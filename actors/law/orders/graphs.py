"""What follows what: the closed graphs of orders and batches. A pair that is absent is refused, or does not happen.

Tasks have theirs in law/nodes/tasks.py. docs/diagrams/orders.md is made from these.
"""

from __future__ import annotations

from typing import Final, Literal

from actors.protocol.order_codes import BatchStatus, OrderStatus

OrderStep = Literal["start", "pause", "resume", "cancel", "finalize", "reopen"]
ORDER_TRANSITIONS: Final[dict[tuple[OrderStatus, OrderStep], OrderStatus]] = {
    ("created", "start"): "in_progress",
    ("created", "pause"): "paused",
    ("created", "cancel"): "cancelled",
    ("in_progress", "pause"): "paused",
    ("in_progress", "finalize"): "completed",
    ("in_progress", "cancel"): "cancelled",
    ("paused", "resume"): "in_progress",
    ("paused", "finalize"): "completed",
    ("paused", "cancel"): "cancelled",
    ("completed", "reopen"): "in_progress",
}

BatchStep = Literal["begin", "end", "finalize", "cancel", "recall"]
BATCH_TRANSITIONS: Final[dict[tuple[BatchStatus, BatchStep], BatchStatus]] = {
    ("pending", "begin"): "active",
    ("pending", "finalize"): "completed",
    ("pending", "cancel"): "cancelled",
    ("pending", "recall"): "recalled",
    ("active", "end"): "completed",
    ("active", "finalize"): "completed",
    ("active", "cancel"): "cancelled",
    ("active", "recall"): "recalled",
}
