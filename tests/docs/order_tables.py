"""The generated blocks about work orders: closed tables with their meanings, graphs from their TRANSITIONS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from actors.law.orders.graphs import BATCH_TRANSITIONS, ORDER_TRANSITIONS
from actors.protocol import order_codes as codes
from tests.docs.node_tables import Table, diagram


def _meanings(table: Table, head: str, said: Mapping[Any, str]) -> str:
    rows: Iterable[tuple[str, str]] = ((f"`{name}`", means) for name, means in said.items())
    return table((head, "means"), rows)


def blocks(table: Table) -> Mapping[str, Callable[[], str]]:
    """table: how the other documents write theirs."""
    return {
        "order-statuses": lambda: _meanings(table, "status", codes.ORDER_STATUSES),
        "batch-statuses": lambda: _meanings(table, "status", codes.BATCH_STATUSES),
        "quota-policies": lambda: _meanings(table, "policy", codes.QUOTA_POLICIES),
        "notice-causes": lambda: _meanings(table, "cause", codes.NOTICE_CAUSES),
        "order-diagram": lambda: diagram(ORDER_TRANSITIONS, "created"),
        "batch-diagram": lambda: diagram(BATCH_TRANSITIONS, "pending"),
    }
