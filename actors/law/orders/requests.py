"""What may be asked about orders, batches, stations and collectors. Plain frozen values, idempotent by their seed.

Everything about an order, its batches and their tasks is decided for `order/<id>`; a batch's request carries its order
(the caller reads it first; a foreign pair is refused as not found). Stations and collectors have no actor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from actors.law.model import Json
from actors.law.nodes.requests import ORDER, UNSET, Unset
from actors.law.orders.model import GroupKey
from actors.law.requests import Request
from actors.protocol.order_codes import OrderWish, QuotaPolicy

STATION = "station/"
COLLECTOR = "collector/"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupWish:
    """quantity: how many tasks, or (adjusting) how many the group is to have. Names: None says nothing."""

    sop_id: str
    subscene_id: str
    quantity: int
    sop_slug: str | None = None
    sop_version: str | int | None = None
    scene_name: str | None = None
    subscene_name: str | None = None
    params: Json = None

    @property
    def key(self) -> GroupKey:
        return GroupKey(self.sop_id, self.subscene_id)


# ---------------------------------------------------------------- orders and batches


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRequest(Request):
    order_id: str

    @property
    def addressee(self) -> str:
        return ORDER + self.order_id


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateOrder(OrderRequest):
    target_count: int
    name: str | None = None
    quota_policy: QuotaPolicy = "rows"
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeOrder(OrderRequest):
    """All or nothing. A raised target is looked at before the status."""

    name: str | Unset | None = UNSET
    target_count: int | Unset = UNSET
    status: OrderWish | Unset = UNSET
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteOrder(OrderRequest):
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest(OrderRequest):
    batch_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchBatch(BatchRequest):
    station_id: str
    groups: tuple[GroupWish, ...]
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdjustBatch(BatchRequest):
    groups: tuple[GroupWish, ...]
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeBatch(BatchRequest):
    status: Literal["cancelled"] = "cancelled"
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallBatch(BatchRequest):
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteBatch(BatchRequest):
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteTasks(BatchRequest):
    """station_id: the one that the asker's token speaks for; None: an operator, for any station."""

    sop_id: str
    subscene_id: str
    quantity: int = 1
    station_id: str | None = None
    by: str | None = None

    @property
    def key(self) -> GroupKey:
        return GroupKey(self.sop_id, self.subscene_id)


# ---------------------------------------------------------------- stations and collectors


@dataclass(frozen=True, slots=True, kw_only=True)
class StationRequest(Request):
    station_id: str

    @property
    def addressee(self) -> str:
        return STATION + self.station_id


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateStation(StationRequest):
    """capabilities None: no node type was given."""

    collector_id: str
    node_id: str
    name: str | None = None
    node_type_name: str | None = None
    capabilities: Json = None
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeStation(StationRequest):
    """node_type_name and capabilities come together."""

    collector_id: str | Unset = UNSET
    node_id: str | Unset = UNSET
    name: str | Unset | None = UNSET
    node_type_name: str | Unset | None = UNSET
    capabilities: Json | Unset = UNSET
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteStation(StationRequest):
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorRequest(Request):
    collector_id: str

    @property
    def addressee(self) -> str:
        return COLLECTOR + self.collector_id


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateCollector(CollectorRequest):
    name: str
    operator_id: str | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeCollector(CollectorRequest):
    name: str | Unset = UNSET
    operator_id: str | Unset | None = UNSET
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteCollector(CollectorRequest):
    by: str | None = None


# What operators and collectors ask; answered again from the stored answer when asked again.
BY_ORDER_OPERATORS: Final = (
    CreateOrder,
    ChangeOrder,
    DeleteOrder,
    DispatchBatch,
    AdjustBatch,
    ChangeBatch,
    RecallBatch,
    DeleteBatch,
    CompleteTasks,
    CreateStation,
    ChangeStation,
    DeleteStation,
    CreateCollector,
    ChangeCollector,
    DeleteCollector,
)
