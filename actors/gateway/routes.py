"""Every route of the door, once: the router, /openapi.json and /docs are made from this table, so they cannot differ.

A new route is a row here and a method of a room (Api, Pages, Ingest, Streams, …); what is added to the application in
another way has no document, and tests/contract finds it. A row says what its handler checks: scopes, parameters, body,
and the codes that do not follow from those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from aiohttp import web
from pydantic import BaseModel

from actors.gateway.auth import MAY_ADMINISTER, MAY_INGEST, MAY_OPERATE, MAY_READ
from actors.gateway.operations import STATES
from actors.gateway.query import KEY_PATTERN, LABELS_MAX, LIST_LIMIT, LIST_LIMIT_MAX, PAGE_LIMIT, TYPES_MAX
from actors.protocol import resources
from actors.protocol.codes import EVENT_TYPE_MAX, EVENT_TYPE_PATTERN, STATUSES, Link
from actors.protocol.defaults import MAX_SAFE_INTEGER, PAGE_EVENTS
from actors.protocol.ids import ID_PATTERN

Schema = dict[str, Any]
ID: Final[Schema] = {"type": "string", "pattern": ID_PATTERN}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": MAX_SAFE_INTEGER}
TYPE: Final[Schema] = {"type": "string", "pattern": EVENT_TYPE_PATTERN, "maxLength": EVENT_TYPE_MAX}


@dataclass(frozen=True, slots=True)
class Param:
    name: str
    schema: Schema
    says: str
    where: Literal["query", "header"] = "query"
    many: Literal["", "commas", "repeated"] = ""
    codes: tuple[str, ...] = ("bad_request",)


@dataclass(frozen=True, slots=True)
class Text:
    """An answer that is not one of our resources."""

    content_type: str
    says: str


Answer = type[BaseModel] | Text | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    handler: str  # room.method
    tag: str
    does: str
    more: str = ""
    scopes: frozenset[str] | None = None  # None: anybody, without a token
    body: type[BaseModel] | None = None
    answers: Mapping[int, Answer] = field(default_factory=dict)
    params: tuple[Param, ...] = ()
    codes: tuple[str, ...] = ()  # beside those that follow from the rest
    never: tuple[str, ...] = ()  # would follow, and is not so
    socket: str | None = None  # the channel of /asyncapi.json that opens here

    @property
    def operation_id(self) -> str:
        return self.handler.replace(".", "_")

    @property
    def path_params(self) -> tuple[str, ...]:
        return tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))

    def problems(self) -> frozenset[str]:
        """Every code that it can answer with."""
        found = {"internal", "unsupported_media_type", "rate_limited", "too_many_connections", *self.codes}
        if self.scopes is not None:
            found |= {"unauthenticated", "forbidden", "origin_not_allowed", "storage_unavailable"}
        for name in self.path_params:
            found |= set(PATH_PARAMS[name].codes)
        for param in self.params:
            found |= set(param.codes)
        if self.body is not None:
            found |= {"bad_json", "bad_request", "too_large", "request_timeout"}
            if any(name.endswith("_id") for name in self.body.model_fields):
                found.add("bad_id")
        return frozenset(found - set(self.never))


# ---------------------------------------------------------------- parameters

PATH_PARAMS: Final[dict[str, Param]] = {
    "sid": Param("sid", ID, "the session", codes=("session_not_found", "session_deleted")),
    "eid": Param("eid", ID, "the execution", codes=("execution_not_found",)),
    "aid": Param("aid", ID, "the approval", codes=("approval_not_found",)),
    "wid": Param("wid", ID, "the webhook", codes=("webhook_not_found",)),
    "tid": Param("tid", ID, "the token", codes=("token_not_found",)),
}
LIMIT: Final = Param(
    "limit",
    {"type": "integer", "minimum": 1, "maximum": LIST_LIMIT_MAX, "default": LIST_LIMIT},
    "how many at most",
)
CURSOR: Final = Param(
    "cursor",
    {"type": "string", "maxLength": 500},
    "`next_cursor` of the page before, unchanged",
    codes=("bad_cursor", "bad_request"),
)
OF_SESSION: Final = Param("session_id", ID, "only of this session", codes=("bad_id", "session_not_found"))
EXECUTION: Final = Param("execution_id", ID, "only events of this execution", codes=("bad_id",))
TYPES: Final = Param(
    "types",
    {"type": "array", "items": TYPE, "maxItems": TYPES_MAX},
    "only events of these types, separated by commas or said repeatedly",
    many="commas",
)
KEY: Final = Param(
    "Idempotency-Key",
    {"type": "string", "pattern": KEY_PATTERN},
    "the same key and body: one effect, and the stored answer (`Idempotent-Replayed: true`); kept for a day",
    "header",
    codes=("bad_request", "idempotency_mismatch"),
)
WATCHING: Final = (
    Param("after_seq", COUNT, "go on behind this `seq`; 0: everything; absent: from now on"),
    Param("stream_id", ID, "of the snapshot that the cursor was counted in", codes=("bad_id",)),
    TYPES,
    EXECUTION,
    Param("Last-Event-ID", COUNT, "SSE's own cursor; counts over `after_seq`", "header"),
)
TICKET: Final = Param(
    "ticket", {"type": "string"}, "instead of `Authorization`, for browsers: single use, 30 s", codes=()
)
SSE: Final = Text("text/event-stream", "events, for as long as the client listens; frames as in /asyncapi.json")
UPGRADED: Final[Answer] = None
HTML: Final = Text("text/html", "a page for people")
PROMETHEUS: Final = Text("text/plain", "the metrics, in the text format of Prometheus")
JSON: Final = Text("application/json", "the document")

# ---------------------------------------------------------------- the table

SESSION: Final = "/v1/sessions/{sid}"
TAGS: Final[dict[str, str]] = {
    "sessions": "A session is a log, a link to at most one wrapper, and a queue of executions.",
    "executions": "One run of the agent. It ends exactly once, with an outcome.",
    "events": "What happened in a session, numbered from 1 without holes: pages and live streams.",
    "approvals": "Questions of an agent. Each is decided once.",
    "operations": "For who keeps the service: callbacks on their way, and what operators did.",
    "access": "Who may do what.",
    "service": "The process itself and its documents.",
}
ROUTES: Final[tuple[Route, ...]] = (
    # ------------------------------------------------------------ sessions
    Route(
        method="POST",
        path="/v1/sessions",
        handler="api.create_session",
        tag="sessions",
        does="Make a session",
        more="A deleted id is never used again.",
        scopes=MAY_OPERATE,
        body=resources.CreateSession,
        params=(KEY,),
        answers={201: resources.SessionResource},
        codes=("session_exists", "session_deleted", "webhook_not_allowed"),
    ),
    Route(
        method="GET",
        path="/v1/sessions",
        handler="api.list_sessions",
        tag="sessions",
        does="List sessions, the newest activity first",
        scopes=MAY_READ,
        params=(
            Param("state", {"enum": [*STATUSES, "idle"]}, "of the active execution, or else of the latest"),
            Param("link", {"enum": list(get_args(Link))}, "whether its wrapper is there"),
            Param(
                "label",
                {
                    "type": "array",
                    "items": {"type": "string", "pattern": "^[^:]+:"},
                    "maxItems": LABELS_MAX,
                },
                "`key:value`; said repeatedly, all of them hold",
                many="repeated",
            ),
            Param("q", {"type": "string", "maxLength": 200}, "part of the id or of the title"),
            LIMIT,
            CURSOR,
        ),
        answers={200: resources.SessionPage},
    ),
    Route(
        method="GET",
        path=SESSION,
        handler="api.show_session",
        tag="sessions",
        does="Show a session",
        scopes=MAY_READ,
        answers={200: resources.SessionResource},
    ),
    Route(
        method="DELETE",
        path=SESSION,
        handler="api.delete_session",
        tag="sessions",
        does="End and remove a session",
        more="Aborts what runs, closes its sockets with 4000, then removes it. Repeated: 204 again.",
        scopes=MAY_OPERATE,
        answers={204: None},
        never=("session_deleted",),
    ),
    # ------------------------------------------------------------ executions
    Route(
        method="POST",
        path=SESSION + "/executions",
        handler="api.submit",
        tag="executions",
        does="Submit an execution",
        more="`pending` where nothing else is active, otherwise `queued`. The same `execution_id` with the same input "
        "is the same execution.",
        scopes=MAY_OPERATE,
        body=resources.SubmitExecution,
        params=(KEY,),
        answers={202: resources.ExecutionResource},
        codes=("execution_mismatch", "queue_full", "webhook_not_allowed"),
    ),
    Route(
        method="GET",
        path=SESSION + "/executions",
        handler="api.list_executions",
        tag="executions",
        does="List executions, the newest first",
        scopes=MAY_READ,
        params=(LIMIT, CURSOR),
        answers={200: resources.ExecutionPage},
    ),
    Route(
        method="GET",
        path=SESSION + "/executions/{eid}",
        handler="api.show_execution",
        tag="executions",
        does="Show an execution",
        scopes=MAY_READ,
        answers={200: resources.ExecutionResource},
    ),
    Route(
        method="POST",
        path=SESSION + "/executions/{eid}/fail",
        handler="api.fail",
        tag="executions",
        does="End an execution by hand",
        more="Whoever comes second gets `changed: false` and the recorded outcome.",
        scopes=MAY_OPERATE,
        body=resources.FailRequest,
        params=(KEY,),
        answers={200: resources.FailAnswer},
    ),
    Route(
        method="POST",
        path=SESSION + "/executions/{eid}/input",
        handler="api.send_input",
        tag="executions",
        does="Send a follow-up to a running execution",
        scopes=MAY_OPERATE,
        body=resources.InputRequest,
        params=(KEY,),
        answers={202: resources.ExecutionResource},
        codes=("not_running", "execution_terminal"),
    ),
    Route(
        method="POST",
        path=SESSION + "/interrupt",
        handler="api.interrupt",
        tag="executions",
        does="Interrupt the active execution, or the named one",
        more="Again: the same interrupt; `force` upgrades it. Named and already ended: 200 with the recorded outcome.",
        scopes=MAY_OPERATE,
        body=resources.InterruptRequest,
        params=(KEY,),
        answers={200: resources.InterruptAnswer, 202: resources.InterruptAnswer},
        codes=("nothing_to_interrupt", "execution_not_found"),
    ),
    # ------------------------------------------------------------ events
    Route(
        method="GET",
        path=SESSION + "/events",
        handler="api.events",
        tag="events",
        does="Read a page of events",
        more="Forwards behind `after_seq`; with `before_seq` the last ones before it.",
        scopes=MAY_READ,
        params=(
            Param("after_seq", COUNT, "events behind this `seq`"),
            Param("before_seq", COUNT, "events before this `seq`; must leave room behind `after_seq`"),
            Param(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": PAGE_EVENTS, "default": PAGE_LIMIT},
                "how many at most",
            ),
            TYPES,
            EXECUTION,
        ),
        answers={200: resources.EventPage},
    ),
    Route(
        method="GET",
        path=SESSION + "/stream",
        handler="streams.session",
        tag="events",
        does="Follow a session",
        more="SSE, or a WebSocket where the request asks for an upgrade. On a WebSocket a refusal is a close code.",
        scopes=MAY_READ,
        params=(*WATCHING, TICKET),
        answers={200: SSE, 101: UPGRADED},
        codes=("bad_request", "unavailable"),
        socket="stream",
    ),
    Route(
        method="GET",
        path="/v1/stream",
        handler="streams.fleet",
        tag="events",
        does="Follow the fleet",
        more="SSE or a WebSocket: which sessions changed, at most four times a second.",
        scopes=MAY_READ,
        params=(TICKET,),
        answers={200: SSE, 101: UPGRADED},
        codes=("bad_request", "unavailable"),
        socket="fleet",
    ),
    Route(
        method="GET",
        path=SESSION + "/ingest",
        handler="ingest.handle",
        tag="events",
        does="The wrapper's socket",
        more="A WebSocket and nothing else; a refusal after the upgrade is a close code.",
        scopes=MAY_INGEST,
        answers={101: UPGRADED},
        codes=("bad_request",),
        never=(
            "unauthenticated",
            "forbidden",
            "origin_not_allowed",
            "storage_unavailable",
            "session_not_found",
            "session_deleted",
        ),
        socket="ingest",
    ),
    # ------------------------------------------------------------ approvals
    Route(
        method="GET",
        path=SESSION + "/approvals",
        handler="api.list_approvals",
        tag="approvals",
        does="List approvals, open ones first",
        more="At most 200: one page, `next_cursor` is null.",
        scopes=MAY_READ,
        answers={200: resources.ApprovalPage},
    ),
    Route(
        method="POST",
        path=SESSION + "/approvals/{aid}",
        handler="api.resolve_approval",
        tag="approvals",
        does="Decide",
        more="`decision` is one of the approval's options. A second decision gets 409 with the `winner`.",
        scopes=MAY_OPERATE,
        body=resources.ResolveApproval,
        params=(KEY,),
        answers={200: resources.ApprovalResource},
        codes=("already_resolved",),
    ),
    # ------------------------------------------------------------ operations
    Route(
        method="GET",
        path="/v1/webhooks",
        handler="operations.list_webhooks",
        tag="operations",
        does="List callbacks, the newest first",
        scopes=MAY_OPERATE,
        params=(Param("state", {"enum": list(STATES)}, "of the delivery"), OF_SESSION, LIMIT, CURSOR),
        answers={200: resources.WebhookPage},
    ),
    Route(
        method="GET",
        path="/v1/webhooks/{wid}",
        handler="operations.show_webhook",
        tag="operations",
        does="Show a callback and how its delivery goes",
        scopes=MAY_OPERATE,
        answers={200: resources.WebhookResource},
    ),
    Route(
        method="POST",
        path="/v1/webhooks/{wid}/replay",
        handler="operations.replay",
        tag="operations",
        does="Deliver a callback once more",
        more="Due at once, whatever became of it, under the same id. No body.",
        scopes=MAY_OPERATE,
        params=(KEY,),
        answers={202: resources.WebhookResource},
        codes=("too_large", "request_timeout"),
    ),
    Route(
        method="GET",
        path="/v1/audit",
        handler="operations.audit",
        tag="operations",
        does="Read what operators did, the newest first",
        scopes=MAY_ADMINISTER,
        params=(OF_SESSION, LIMIT, CURSOR),
        answers={200: resources.AuditPage},
    ),
    # ------------------------------------------------------------ access
    Route(
        method="POST",
        path="/v1/tickets",
        handler="api.ticket",
        tag="access",
        does="Get a ticket for a browser's socket",
        more="Single use, at most 30 s, as `?ticket=` on a stream. Of the token's scope or a lesser one.",
        scopes=MAY_READ,
        body=resources.TicketRequest,
        answers={201: resources.Ticket},
        codes=("session_not_found",),
    ),
    Route(
        method="GET",
        path="/v1/me",
        handler="tokens.me",
        tag="access",
        does="Who the token is",
        scopes=frozenset(get_args(resources.Scope)),
        answers={200: resources.Me},
        never=("forbidden",),
    ),
    Route(
        method="POST",
        path="/v1/tokens",
        handler="tokens.create",
        tag="access",
        does="Make a token",
        more="The answer holds its secret, this once. No `Idempotency-Key`: to repeat the answer it would be kept.",
        scopes=MAY_ADMINISTER,
        body=resources.TokenRequest,
        answers={201: resources.MadeToken},
    ),
    Route(
        method="GET",
        path="/v1/tokens",
        handler="tokens.list",
        tag="access",
        does="List tokens, the newest first",
        more="Never a secret.",
        scopes=MAY_ADMINISTER,
        params=(LIMIT, CURSOR),
        answers={200: resources.TokenPage},
    ),
    Route(
        method="DELETE",
        path="/v1/tokens/{tid}",
        handler="tokens.revoke",
        tag="access",
        does="Revoke a token",
        more="Its sockets are closed with 4401. Repeated: 204 again.",
        scopes=MAY_ADMINISTER,
        answers={204: None},
    ),
    # ------------------------------------------------------------ service
    Route(
        method="GET",
        path="/healthz",
        handler="pages.health",
        tag="service",
        does="Does the process answer?",
        answers={200: resources.Health},
        never=("rate_limited", "too_many_connections"),
    ),
    Route(
        method="GET",
        path="/readyz",
        handler="pages.ready",
        tag="service",
        does="Is the store writable, and are the actors reachable?",
        answers={200: resources.Readiness},
        codes=("unavailable",),
        never=("rate_limited", "too_many_connections"),
    ),
    Route(
        method="GET",
        path="/metrics",
        handler="metrics.show",
        tag="service",
        does="Numbers for Prometheus",
        more="With `metrics_open`, loopback peers need no token.",
        scopes=MAY_READ,
        answers={200: PROMETHEUS},
    ),
    Route(
        method="GET",
        path="/openapi.json",
        handler="pages.openapi",
        tag="service",
        does="The routes, as OpenAPI 3.1",
        answers={200: JSON},
    ),
    Route(
        method="GET",
        path="/asyncapi.json",
        handler="pages.asyncapi",
        tag="service",
        does="The sockets and their frames, as AsyncAPI 3.0",
        answers={200: JSON},
    ),
    Route(
        method="GET",
        path="/docs",
        handler="pages.docs",
        tag="service",
        does="Both documents as one page",
        answers={200: HTML},
    ),
    Route(
        method="GET",
        path="/",
        handler="pages.home",
        tag="service",
        does="Where to begin",
        answers={200: HTML},
    ),
)


def bind(**rooms: object) -> list[web.RouteDef]:
    """The table as aiohttp's routes. Raises AttributeError for a handler that is not there."""
    made = []
    for route in ROUTES:
        room, _, name = route.handler.partition(".")
        handler = getattr(rooms[room], name)
        more = {"allow_head": route.scopes is None} if route.method == "GET" else {}
        made.append(web.RouteDef(route.method, route.path, handler, more))
    return made
