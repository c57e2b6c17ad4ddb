"""Stations and the collectors who work there. Who and what works where is a binding; a new one supersedes the present
one of its station, of its collector and of its node, but never takes a node away from work that is under way.
"""

from __future__ import annotations

from typing import Any

from actors.law.effects import Refuse, Show
from actors.law.nodes.requests import Unset
from actors.law.orders.effects import (
    EndBinding,
    FollowNode,
    InsertBinding,
    InsertCollector,
    InsertStation,
    RemoveCollector,
    RemoveStation,
    SetCollector,
    SetStation,
    StationDecision,
    StationEffect,
)
from actors.law.orders.model import Binding, Collector, Station, StationView
from actors.law.orders.requests import (
    ChangeCollector,
    ChangeStation,
    CreateCollector,
    CreateStation,
    DeleteCollector,
    DeleteStation,
)


def create(view: StationView, request: CreateStation) -> StationDecision:
    if view.station is not None:
        if view.station.made_by != request.seed:
            return StationDecision(Refuse("station_exists"))
        return StationDecision(Show("station", 201, changed=False))
    bound, refusal = _bind(view, request.station_id, request.collector_id, request.node_id, request.by)
    if refusal is not None:
        return StationDecision(refusal)
    station = Station(
        request.station_id,
        request.name,
        view.wall_ms,
        request.seed,
        request.node_type_name,
        request.capabilities,
    )
    return StationDecision(Show("station", 201), (InsertStation(station), *bound))


def change(view: StationView, request: ChangeStation) -> StationDecision:
    if view.station is None:
        return StationDecision(Refuse("station_not_found"))
    given = {"name": request.name, "node_type_name": request.node_type_name, "capabilities": request.capabilities}
    changes = _changes(view.station, given)
    effects: list[StationEffect] = [SetStation(request.station_id, changes)] if changes else []
    if not isinstance(request.collector_id, Unset) or not isinstance(request.node_id, Unset):
        now = _present(view, request.station_id)
        collector_id = _or(request.collector_id, now.collector_id if now else None)
        node_id = _or(request.node_id, now.node_id if now else None)
        if collector_id is None or node_id is None:
            return StationDecision(Refuse("bad_request", "the station is not bound: give collector_id and node_id"))
        bound, refusal = _bind(view, request.station_id, collector_id, node_id, request.by)
        if refusal is not None:
            return StationDecision(refusal)
        effects += bound
    return StationDecision(Show("station", changed=bool(effects)), tuple(effects))


def _or(given: str | Unset, otherwise: str | None) -> str | None:
    return otherwise if isinstance(given, Unset) else given


def _changes(known: Any, given: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in given.items() if not isinstance(v, Unset) and v != getattr(known, k)}


def _present(view: StationView, station_id: str) -> Binding | None:
    return next((b for b in view.current if b.station_id == station_id), None)


def _bind(
    view: StationView, station_id: str, collector_id: str, node_id: str, by: str | None
) -> tuple[tuple[StationEffect, ...], Refuse | None]:
    if not view.collector_exists:
        return (), Refuse("collector_not_found")
    if not view.node_exists:
        return (), Refuse("node_not_found")
    now = _present(view, station_id)
    if now is not None and (now.collector_id, now.node_id) == (collector_id, node_id):
        return (), None
    superseded = [b for b in view.current if b.station_id == station_id or _takes(b, collector_id, node_id)]
    # The same station keeps its node when only the collector changes; every other one that is superseded loses its.
    robbed = [b.station_id for b in superseded if b.station_id != station_id or b.node_id != node_id]
    busy = sorted(task_id for sid in robbed for task_id in view.under_way.get(sid, ()))
    if busy:
        return (), Refuse("station_busy", f"{len(busy)} tasks are under way", {"task_ids": busy})
    binding = Binding(station_id, view.version + 1, collector_id, node_id, view.wall_ms, by=by)
    effects: list[StationEffect] = [EndBinding(b.station_id, b.version) for b in superseded]
    effects.append(InsertBinding(binding))
    if now is None or now.node_id != node_id:
        effects.append(FollowNode(station_id, node_id))
    return tuple(effects), None


def _takes(binding: Binding, collector_id: str, node_id: str) -> bool:
    return binding.collector_id == collector_id or binding.node_id == node_id


def delete(view: StationView, request: DeleteStation) -> StationDecision:
    if view.station is None:
        return StationDecision(Refuse("station_not_found"))
    if view.open_batches:
        return StationDecision(Refuse("station_busy", "", {"open_batches": list(view.open_batches)}))
    return StationDecision(Show("nothing", 204), (RemoveStation(request.station_id),))


# ---------------------------------------------------------------- collectors


def create_collector(view: StationView, request: CreateCollector) -> StationDecision:
    if view.collector is not None:
        if view.collector.made_by != request.seed:
            return StationDecision(Refuse("collector_exists"))
        return StationDecision(Show("collector", 201, changed=False))
    collector = Collector(request.collector_id, request.name, view.wall_ms, request.seed, request.operator_id)
    return StationDecision(Show("collector", 201), (InsertCollector(collector),))


def change_collector(view: StationView, request: ChangeCollector) -> StationDecision:
    if view.collector is None:
        return StationDecision(Refuse("collector_not_found"))
    changes = _changes(view.collector, {"name": request.name, "operator_id": request.operator_id})
    if not changes:
        return StationDecision(Show("collector", changed=False))
    return StationDecision(Show("collector"), (SetCollector(request.collector_id, changes),))


def delete_collector(view: StationView, request: DeleteCollector) -> StationDecision:
    if view.collector is None:
        return StationDecision(Refuse("collector_not_found"))
    if view.current:
        bound = view.current[0].station_id
        return StationDecision(Refuse("collector_bound", f"it is bound to {bound}", {"station_id": bound}))
    return StationDecision(Show("nothing", 204), (RemoveCollector(request.collector_id),))
