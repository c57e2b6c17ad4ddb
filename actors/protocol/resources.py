"""The resources and request bodies of PROTOCOL §1 as pydantic models: the source of /openapi.json.

Answers are built as plain dicts by the store in exactly these shapes; a contract test validates them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from actors.protocol.codes import Cause, Link, Status
from actors.protocol.fields import Count, Data, Id, Seq

Seconds = Annotated[float, Field(gt=0, le=10 * 365 * 86400)]


class Body(BaseModel):
    """A request body: unknown fields are ignored (PROTOCOL), wrong types are not."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Limits(Body):
    """Seconds; null turns a limit off. Execution over session over configuration."""

    pending_s: Seconds | None = None
    stale_s: Seconds | None = None
    grace_s: Seconds | None = None
    hung_s: Seconds | None = None
    max_runtime_s: Seconds | None = None
    interrupt_s: Seconds | None = None


class Callback(Body):
    url: Annotated[str, Field(max_length=2048, pattern=r"^https?://")]
    headers: Annotated[dict[str, str], Field(max_length=32)] = {}
    secret: Annotated[str, Field(max_length=256)] | None = None


Label = Annotated[str, Field(max_length=200)]


class CreateSession(Body):
    session_id: Id | None = None
    title: Annotated[str, Field(max_length=500)] | None = None
    labels: Annotated[dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]{1,64}$")], Label], Field(max_length=64)] = {}
    limits: Limits | None = None
    callback: Callback | None = None


class SubmitExecution(Body):
    execution_id: Id | None = None
    input: JsonValue = None
    limits: Limits | None = None
    callback: Callback | None = None


class InterruptRequest(Body):
    execution_id: Id | None = None
    reason: Annotated[str, Field(max_length=2000)] | None = None
    force: bool = False


class FailRequest(Body):
    cause: Cause = "operator"
    error: Annotated[str, Field(max_length=4096)]


class InputRequest(Body):
    input: JsonValue


class ResolveApproval(Body):
    decision: Annotated[str, Field(max_length=200)]
    note: Annotated[str, Field(max_length=2000)] | None = None


class TicketRequest(Body):
    session_id: Id | None = None
    scope: Literal["operator", "reader"] = "reader"


Scope = Literal["admin", "operator", "reader", "wrapper", "node", "collector"]


class TokenRequest(Body):
    """What a token may do and to what it is bound: a session (operator, reader, wrapper), a node or a station."""

    scope: Scope
    session_id: Id | None = None
    node_id: Id | None = None
    station_id: Id | None = None
    expires_at_ms: Count | None = None

    @model_validator(mode="after")
    def _binding(self) -> Self:
        bound = {name for name in ("session_id", "node_id", "station_id") if getattr(self, name) is not None}
        fits = {"node": {"node_id"}, "collector": {"station_id"}, "admin": set[str]()}.get(self.scope, {"session_id"})
        if bound - fits:
            raise ValueError(f"a token of scope {self.scope} is not bound by {', '.join(sorted(bound - fits))}")
        return self


# ---------------------------------------------------------------- answers


class Resource(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LinkResource(Resource):
    state: Link
    connection_id: Id | None
    epoch: Count
    wrapper_id: Id | None
    instance_id: Id | None
    gateway_id: Id | None
    last_seen_at_ms: Count | None
    grace_until_ms: Count | None


class InterruptResource(Resource):
    interrupt_id: Id
    stage: Literal["requested", "delivered", "acknowledged", "rejected", "done"]
    by: str | None
    reason: str | None
    requested_at_ms: Count


class OutcomeResource(Resource):
    status: Literal["completed", "failed", "interrupted"]
    cause: Cause | None
    error: str | None
    exit_code: int | None
    signal: str | int | None
    data: dict[str, Any]


class ExecutionResource(Resource):
    execution_id: Id
    session_id: Id
    status: Status
    input: JsonValue
    created_at_ms: Count
    received_at_ms: Count | None
    started_at_ms: Count | None
    ended_at_ms: Count | None
    acked_seq: Count
    last_progress_at_ms: Count | None
    interrupt: InterruptResource | None
    outcome: OutcomeResource | None


class EffectiveLimits(Resource):
    """What holds now, in seconds: the session's own limits over the configuration's; null is off."""

    pending_s: float | None
    stale_s: float | None
    grace_s: float | None
    hung_s: float | None
    max_runtime_s: float | None
    interrupt_s: float | None


class SessionResource(Resource):
    session_id: Id
    title: str | None
    labels: dict[str, str]
    created_at_ms: Count
    updated_at_ms: Count
    stream_id: Id
    last_seq: Count
    first_seq: Count
    link: LinkResource
    active_execution: ExecutionResource | None
    last_execution: ExecutionResource | None
    queued: Count
    limits: EffectiveLimits


class ApprovalResource(Resource):
    approval_id: Id
    session_id: Id
    execution_id: Id
    title: str
    options: list[str]
    data: dict[str, Any]
    state: Literal["open", "resolved", "expired", "cancelled"]
    decision: str | None
    note: str | None
    resolved_by: str | None
    created_at_ms: Count
    expires_at_ms: Count | None
    resolved_at_ms: Count | None


class SessionPage(Resource):
    items: list[SessionResource]
    next_cursor: str | None


class ExecutionPage(Resource):
    items: list[ExecutionResource]
    next_cursor: str | None


class ApprovalPage(Resource):
    items: list[ApprovalResource]
    next_cursor: str | None


class InterruptAnswer(Resource):
    """interrupt_id: null where the execution had ended and was never interrupted."""

    interrupt_id: Id | None
    execution: ExecutionResource


class FailAnswer(Resource):
    """changed: false where the execution had ended before; it is shown with the recorded outcome."""

    changed: bool
    execution: ExecutionResource


class Ticket(Resource):
    ticket: str
    expires_at_ms: Count


class Health(Resource):
    status: Literal["ok"]
    gateway_id: Id


class Readiness(Resource):
    """store: it was written lately; actors: Ray answers; accepting: the door is not closing. A 503 has these too."""

    status: Literal["ready"]
    gateway_id: Id
    store: bool
    actors: bool
    accepting: bool


class StoredEvent(Resource):
    """seq: the session's own, from 1. exec_seq: the wrapper's number of it, null where Holdfast wrote it."""

    seq: Seq
    execution_id: Id | None
    exec_seq: Seq | None
    type: str
    ts_ms: Count
    data: Data


class EventPage(Resource):
    items: list[StoredEvent]
    next_after_seq: Count
    first_seq: Count
    last_seq: Count


class Winner(Resource):
    state: Literal["resolved", "expired", "cancelled"]
    decision: str | None
    resolved_by: str | None
    resolved_at_ms: Count | None


class WebhookResource(Resource):
    """A callback's delivery. url: without query and user, which may hold secrets; the secret itself is never shown."""

    webhook_id: Id
    session_id: Id
    execution_id: Id
    type: str
    state: Literal["due", "delivered", "dead"]
    url: str
    signed: bool
    attempts: Count
    created_at_ms: Count
    next_attempt_at_ms: Count | None
    last_attempt_at_ms: Count | None
    last_status: int | None
    last_error: str | None
    settled_at_ms: Count | None


class WebhookPage(Resource):
    items: list[WebhookResource]
    next_cursor: str | None


class AuditResource(Resource):
    """by: a token's id; null: a program inside the service. outcome: ok, unchanged, or an error code."""

    audit_id: Count
    at_ms: Count
    by: str | None
    action: str
    session_id: str | None
    execution_id: str | None
    object_id: str | None
    outcome: str


class AuditPage(Resource):
    items: list[AuditResource]
    next_cursor: str | None


class TokenResource(Resource):
    """Never the secret."""

    token_id: Id
    scope: Scope
    session_id: Id | None
    node_id: Id | None
    station_id: Id | None
    created_at_ms: Count
    expires_at_ms: Count | None
    revoked_at_ms: Count | None


class TokenPage(Resource):
    items: list[TokenResource]
    next_cursor: str | None


class MadeToken(Resource):
    """`token` is the secret: it is shown here, once, and nowhere else."""

    token_id: Id
    token: str
    scope: Scope
    session_id: Id | None
    node_id: Id | None
    station_id: Id | None
    expires_at_ms: Count | None


class Problem(BaseModel):
    """RFC 9457, with our stable `code` and a `hint`. winner: of `already_resolved`, what was decided before."""

    model_config = ConfigDict(extra="allow")
    type: str
    title: str
    status: int
    detail: str
    instance: str | None = None
    code: str
    hint: str
    winner: Winner | None = None
