"""Every route and every socket, and what each caller is told there. Nothing is undecided.

A new route: add a row. A row says what the callers who may are told (`yes`), who they are (`may`), and for what: `one`
session (other sessions' tokens are told 404), `all` (tokens of one session are told 403), or `anybody` (no token).
`station`: as `all`, and a collector is told 404 but for its own station; `complete`: 403 there; `work`: a list, in
which a collector finds its own and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.security.callers import ALL, BOUND, NOBODY

OPERATE = frozenset({"admin", "operator"})
READ = OPERATE | {"reader"}
INGEST = OPERATE | {"wrapper"}
ADMIN = frozenset({"admin"})
CONNECT = frozenset({"admin", "node"})
SEE_WORK = READ | {"collector"}
COMPLETE = OPERATE | {"collector"}
EVERY_SCOPE = frozenset({"admin", "operator", "reader", "wrapper", "node", "collector"})
CLOSES = {401: 4401, 403: 4403, 404: 4004}


@dataclass(frozen=True)
class Row:
    method: str
    path: str
    yes: int
    may: frozenset[str] = frozenset()
    of: Literal["one", "all", "self", "anybody", "node", "station", "complete", "work"] = "one"
    body: Any = None
    how: Literal["http", "sse", "socket"] = "http"
    # what has to be there: "running", "approval", "token", "webhook", "node", "invocation", "task", "enrolment",
    # "code", "collector", "station" (bound to both), "order", "batch"
    first: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        return f"{self.method} {self.path} {self.how}"

    def told(self, who: str) -> int:
        """The status; for a socket the close code, or 0 for one that stays open."""
        status = self._status(who)
        if self.how != "socket":
            return status
        return CLOSES.get(status, 0)

    def _status(self, who: str) -> int:
        if self.of == "anybody":
            return self.yes
        if who in NOBODY:
            return 401
        if self.of == "node":
            return self._of_node(who)
        kind, _, scope = who.rpartition(" ")
        if scope not in self.may:
            return 403
        if scope == "collector" and self.of in ("station", "complete"):
            return self.yes if kind == "own" else 404 if self.of == "station" else 403
        if kind == "" or self.of == "self" or scope == "collector":
            return self.yes
        if self.of != "one":
            return 403
        return self.yes if kind == "own" else 404

    def _of_node(self, who: str) -> int:
        """Admins, and tokens of this very node; another node's token learns nothing, nor does an unbound one."""
        kind, _, scope = who.rpartition(" ")
        if scope not in self.may:
            return 403
        return self.yes if scope == "admin" or kind == "own" else 404


S = "/v1/sessions/{sid}"
N = "/v1/nodes/{nid}"
O = "/v1/orders/{oid}"  # noqa: E741
B = "/v1/batches/{bid}"
T = "/v1/stations/{station_id}"
C = "/v1/collectors/{collector_id}"
G = {"sop_id": "sop", "subscene_id": "sub"}  # the group of every batch
AT_WORK = ("node", "collector", "station", "order", "batch")
TABLE = (
    Row("POST", "/v1/sessions", 201, OPERATE, "all", {}),
    Row("GET", "/v1/sessions", 200, READ, "all"),
    Row("GET", S, 200, READ),
    Row("DELETE", S, 204, OPERATE),
    Row("POST", S + "/executions", 202, OPERATE, body={}),
    Row("GET", S + "/executions", 200, READ),
    Row("GET", S + "/executions/{eid}", 200, READ, first=("running",)),
    Row("POST", S + "/executions/{eid}/fail", 200, OPERATE, body={"error": "x"}, first=("running",)),
    Row("POST", S + "/executions/{eid}/input", 202, OPERATE, body={"input": "x"}, first=("running",)),
    Row("POST", S + "/interrupt", 202, OPERATE, body={}, first=("running",)),
    Row("GET", S + "/events", 200, READ),
    Row("GET", S + "/approvals", 200, READ),
    Row("POST", S + "/approvals/{aid}", 200, OPERATE, body={"decision": "allow"}, first=("running", "approval")),
    Row("GET", S + "/stream", 200, READ, how="sse"),
    Row("GET", S + "/stream", 0, READ, how="socket"),
    Row("GET", S + "/ingest", 400, frozenset(), "anybody"),  # without an upgrade: it is a socket and says so
    Row("GET", S + "/ingest", 0, INGEST, how="socket"),
    Row("GET", "/v1/stream", 200, READ, "all", how="sse"),
    Row("GET", "/v1/stream", 0, READ, "all", how="socket"),
    Row("POST", "/v1/tickets", 201, READ, body={"session_id": "{sid}", "scope": "reader"}),
    Row("POST", "/v1/tickets", 201, OPERATE, body={"session_id": "{sid}", "scope": "operator"}),
    Row("POST", "/v1/nodes", 201, OPERATE, "all", {}),
    Row("GET", "/v1/nodes", 200, READ, "all"),
    Row("GET", N, 200, READ, "all", first=("node",)),
    Row("PATCH", N, 200, OPERATE, "all", {"drained": True}, first=("node",)),
    Row("DELETE", N, 204, OPERATE, "all", first=("node",)),
    Row("GET", N + "/events", 200, READ, "all", first=("node",)),
    Row("GET", N + "/connect", 400, frozenset(), "anybody"),  # without an upgrade: it is a socket and says so
    Row("GET", N + "/connect", 0, CONNECT, "node", how="socket"),
    Row("GET", N + "/connect?role=recorder", 0, CONNECT, "node", how="socket", first=("node",)),
    Row("POST", N + "/invoke", 200, OPERATE, "all", {"command": "echo"}, first=("node",)),
    Row("GET", N + "/invocations", 200, READ, "all", first=("node",)),
    Row("GET", "/v1/invocations/{iid}", 200, READ, "all", first=("node", "invocation")),
    Row("POST", "/v1/invocations/{iid}/cancel", 200, OPERATE, "all", first=("node", "invocation")),
    Row("POST", N + "/tasks", 201, OPERATE, "all", {}, first=("node",)),
    Row("GET", "/v1/tasks", 200, SEE_WORK, "work"),
    Row("GET", "/v1/tasks/{task_id}", 200, SEE_WORK, "station", first=AT_WORK),
    Row("POST", "/v1/tasks/{task_id}/{action}", 202, OPERATE, "all", {}, first=("node", "task")),
    Row("POST", "/v1/enrolment-codes", 201, OPERATE, "all", {}),
    Row("POST", "/v1/enrolments", 202, of="anybody", body={"code": "{code}", "node_id": "{nid}"}, first=("code",)),
    Row("GET", "/v1/enrolments", 200, OPERATE, "all"),
    Row("POST", "/v1/enrolments/{enrolment_id}", 200, OPERATE, "all", {"decision": "approve"}, first=("enrolment",)),
    Row(
        "POST",
        "/v1/enrolments/{enrolment_id}/claim",
        200,
        of="anybody",
        body={"claim": "{claim}"},
        first=("enrolment",),
    ),
    Row("POST", "/v1/orders", 201, OPERATE, "all", {"target_count": 1}),
    Row("GET", "/v1/orders", 200, READ, "all"),
    Row("GET", O, 200, READ, "all", first=("order",)),
    Row("PATCH", O, 200, OPERATE, "all", {"status": "paused"}, first=("order",)),
    Row("DELETE", O, 204, OPERATE, "all", first=("order",)),
    Row(
        "POST",
        O + "/batches",
        201,
        OPERATE,
        "all",
        {"station_id": "{sid}", "groups": [{**G, "quantity": 1}]},
        first=AT_WORK[:-1],
    ),
    Row("GET", O + "/batches", 200, READ, "all", first=("order",)),
    Row("GET", O + "/notices", 200, READ, "all", first=("order",)),
    Row("GET", "/v1/batches", 200, SEE_WORK, "work"),
    Row("GET", B, 200, SEE_WORK, "station", first=AT_WORK),
    Row("PATCH", B, 200, OPERATE, "all", {"status": "cancelled"}, first=AT_WORK),
    Row("DELETE", B, 204, OPERATE, "all", first=AT_WORK),
    Row("POST", B + "/tasks", 200, OPERATE, "all", {"groups": [{**G, "quantity": 1}]}, first=AT_WORK),
    Row("POST", B + "/complete-tasks", 200, COMPLETE, "complete", G, first=AT_WORK),
    Row("POST", B + "/recall", 200, OPERATE, "all", first=AT_WORK),
    Row("GET", B + "/groups/{sop_id}/{subscene_id}/handoff", 200, SEE_WORK, "station", first=AT_WORK),
    Row(
        "POST",
        "/v1/stations",
        201,
        OPERATE,
        "all",
        {"collector_id": "{collector_id}", "node_id": "{nid}"},
        first=("node", "collector"),
    ),
    Row("GET", "/v1/stations", 200, READ, "all"),
    Row("GET", T, 200, SEE_WORK, "station", first=AT_WORK[:3]),
    Row("PATCH", T, 200, OPERATE, "all", {"name": "x"}, first=AT_WORK[:3]),
    Row("DELETE", T, 204, OPERATE, "all", first=AT_WORK[:3]),
    Row("GET", T + "/bindings", 200, READ, "all", first=AT_WORK[:3]),
    Row("POST", "/v1/collectors", 201, OPERATE, "all", {"name": "x"}),
    Row("GET", "/v1/collectors", 200, READ, "all"),
    Row("GET", C, 200, READ, "all", first=("collector",)),
    Row("PATCH", C, 200, OPERATE, "all", {"name": "y"}, first=("collector",)),
    Row("DELETE", C, 204, OPERATE, "all", first=("collector",)),
    Row("GET", "/v1/webhooks", 200, OPERATE, "all"),
    Row("GET", "/v1/webhooks?session_id={sid}", 200, OPERATE),
    Row("GET", "/v1/webhooks/{wid}", 200, OPERATE, first=("webhook",)),
    Row("POST", "/v1/webhooks/{wid}/replay", 202, OPERATE, first=("webhook",)),
    Row("GET", "/v1/audit", 200, ADMIN, "all"),
    Row("GET", "/v1/audit?session_id={sid}", 200, ADMIN, "all"),
    Row("GET", "/v1/me", 200, EVERY_SCOPE, "self"),
    Row("POST", "/v1/tokens", 201, ADMIN, "all", {"scope": "reader"}),
    Row("GET", "/v1/tokens", 200, ADMIN, "all"),
    Row("DELETE", "/v1/tokens/{tid}", 204, ADMIN, "all", first=("token",)),
    Row("GET", "/metrics", 200, READ, "all"),
    Row("GET", "/healthz", 200, of="anybody"),
    Row("HEAD", "/healthz", 200, of="anybody"),
    Row("GET", "/readyz", 200, of="anybody"),
    Row("HEAD", "/readyz", 200, of="anybody"),
    Row("GET", "/openapi.json", 200, of="anybody"),
    Row("HEAD", "/openapi.json", 200, of="anybody"),
    Row("GET", "/asyncapi.json", 200, of="anybody"),
    Row("HEAD", "/asyncapi.json", 200, of="anybody"),
    Row("GET", "/docs", 200, of="anybody"),
    Row("HEAD", "/docs", 200, of="anybody"),
    Row("GET", "/", 200, of="anybody"),
    Row("HEAD", "/", 200, of="anybody"),
)


def undecided(routes: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Of these (method, path), those without a row; and rows without a route."""
    return routes ^ {(row.method, row.path.partition("?")[0]) for row in TABLE}


def cells() -> list[tuple[Row, str]]:
    return [(row, who) for row in TABLE for who in ALL]


Fill = Callable[[str], str]
__all__ = ["BOUND", "TABLE", "Row", "cells", "undecided"]
