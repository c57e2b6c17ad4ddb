"""The one door of decisions about orders and stations: a view and a request in, a decision out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from actors.law.orders import batches, completion, orders, requests, stations
from actors.law.orders.effects import OrderDecision, StationDecision
from actors.law.orders.model import OrderView, StationView
from actors.law.requests import Request

TABLE: Final[dict[type[Request], Callable[[OrderView, Any], OrderDecision]]] = {
    requests.CreateOrder: orders.create,
    requests.ChangeOrder: orders.change,
    requests.DeleteOrder: orders.delete,
    requests.DispatchBatch: batches.dispatch,
    requests.AdjustBatch: batches.adjust,
    requests.ChangeBatch: batches.change,
    requests.RecallBatch: batches.recall,
    requests.DeleteBatch: batches.delete,
    requests.CompleteTasks: completion.complete,
}
STATION_TABLE: Final[dict[type[Request], Callable[[StationView, Any], StationDecision]]] = {
    requests.CreateStation: stations.create,
    requests.ChangeStation: stations.change,
    requests.DeleteStation: stations.delete,
    requests.CreateCollector: stations.create_collector,
    requests.ChangeCollector: stations.change_collector,
    requests.DeleteCollector: stations.delete_collector,
}


def decide(view: OrderView, request: requests.OrderRequest) -> OrderDecision:
    return TABLE[type(request)](view, request)


def decide_station(view: StationView, request: requests.StationRequest | requests.CollectorRequest) -> StationDecision:
    return STATION_TABLE[type(request)](view, request)
