"""What a route of the door is, and the parameters that many routes share. The tables are routes.py, node_routes.py and
order_routes.py.

A row says what its handler checks: scopes, parameters, body, and the codes that do not follow from those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import BaseModel

from actors.gateway.query import KEY_PATTERN, LIST_LIMIT, LIST_LIMIT_MAX, TYPES_MAX
from actors.protocol.codes import EVENT_TYPE_MAX, EVENT_TYPE_PATTERN
from actors.protocol.defaults import MAX_SAFE_INTEGER
from actors.protocol.ids import ID_PATTERN
from actors.protocol.node_codes import TASK_ACTIONS

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
    "nid": Param("nid", ID, "the node", codes=("node_not_found",)),
    "iid": Param("iid", ID, "the invocation", codes=("invocation_not_found",)),
    "task_id": Param("task_id", ID, "the task", codes=("task_not_found",)),
    "action": Param("action", {"enum": list(TASK_ACTIONS)}, "what the device shall do", codes=("not_found",)),
    "enrolment_id": Param("enrolment_id", ID, "the enrolment", codes=("enrolment_not_found",)),
    "oid": Param("oid", ID, "the order", codes=("order_not_found",)),
    "bid": Param("bid", ID, "the batch", codes=("batch_not_found",)),
    "station_id": Param("station_id", ID, "the station", codes=("station_not_found",)),
    "collector_id": Param("collector_id", ID, "the collector", codes=("collector_not_found",)),
    "sop_id": Param("sop_id", ID, "of the group", codes=("group_not_found",)),
    "subscene_id": Param("subscene_id", ID, "of the group", codes=("group_not_found",)),
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
