"""Between the rows of orders and stations and the law's values. Runs nothing."""

from __future__ import annotations

from actors.law.nodes.model import Notice
from actors.law.orders.model import Batch, Binding, Collector, Group, Order, Station
from actors.store.node_rows import Table

ORDERS = Table("orders", Order, {"order_id": "id"})
BATCHES = Table("batches", Batch, {"batch_id": "id"})
GROUPS = Table("batch_groups", Group, {})
NOTICES = Table("order_notices", Notice, {"notice_id": "id"})
STATIONS = Table("stations", Station, {"station_id": "id"})
BINDINGS = Table("station_bindings", Binding, {})
COLLECTORS = Table("collectors", Collector, {"collector_id": "id"})

# A task that never began: no recorder ever worked on it and no recording of it is known. It may be taken away.
UNBEGUN = (
    "(status in ('pending', 'cancelled') and started_at_ms is null and finished_at_ms is null "
    "and not exists (select 1 from upload_intents i where i.task_id = tasks.id))"
)
