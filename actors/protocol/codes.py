"""The closed tables of the protocol: close codes, event types, causes, nack codes, error codes, statuses.

One table each, here and nowhere else. Both sides read them, and a test holds docs/protocol.md against them.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

SUBPROTOCOL: Final = "holdfast.v1"
PROTOCOL_VERSION: Final = 1


# ---------------------------------------------------------------- close codes

Reconnect = Literal["no", "yes", "later", "smaller", "cursor", "unless_newer_attempt"]


class CloseCode(NamedTuple):
    code: int
    name: str
    reconnect: Reconnect


CLOSE_CODES: Final[dict[int, CloseCode]] = {
    c.code: c
    for c in (
        CloseCode(1000, "normal", "no"),
        CloseCode(1001, "going_away", "yes"),
        CloseCode(1009, "frame_too_big", "smaller"),
        CloseCode(1012, "service_restart", "later"),
        CloseCode(1013, "try_again_later", "later"),
        CloseCode(4000, "session_closed", "no"),
        CloseCode(4001, "superseded", "no"),
        CloseCode(4002, "protocol_error", "no"),
        CloseCode(4003, "version_not_supported", "no"),
        CloseCode(4004, "not_found", "no"),
        CloseCode(4008, "slow_consumer", "cursor"),
        CloseCode(4009, "fenced", "unless_newer_attempt"),
        CloseCode(4401, "not_authenticated", "no"),
        CloseCode(4403, "not_allowed", "no"),
        CloseCode(4429, "rate_limited", "later"),
    )
}
CLOSE: Final[dict[str, int]] = {c.name: c.code for c in CLOSE_CODES.values()}


def may_reconnect(code: int | None) -> bool:
    """A code that the table does not know (1006, a cut line, a proxy's own) is a lost connection: come back."""
    row = CLOSE_CODES.get(code) if code is not None else None
    return row is None or row.reconnect not in ("no", "unless_newer_attempt")


# ---------------------------------------------------------------- executions

Status = Literal["queued", "pending", "running", "completed", "failed", "interrupted"]
STATUSES: Final[tuple[Status, ...]] = ("queued", "pending", "running", "completed", "failed", "interrupted")
ACTIVE: Final[frozenset[str]] = frozenset({"pending", "running"})
TERMINAL: Final[frozenset[str]] = frozenset({"completed", "failed", "interrupted"})

Cause = Literal[
    "never_started",
    "stale",
    "disconnected",
    "hung",
    "max_runtime",
    "start_failed",
    "interrupt_timeout",
    "lost",
    "superseded",
    "agent_error",
    "operator",
]

CAUSES: Final[dict[Cause, str]] = {
    "never_started": "the wrapper did not report a start in time",
    "stale": "the wrapper's socket lives, but no frame came for too long",
    "disconnected": "the wrapper went away and did not come back within the grace time",
    "hung": "the execution made no progress for too long",
    "max_runtime": "the execution ran longer than it may",
    "start_failed": "the command could not be started",
    "interrupt_timeout": "the interrupt was not carried out in time",
    "lost": "the wrapper came back and knows nothing of the execution",
    "superseded": "another wrapper took the session over and knows nothing of the execution",
    "agent_error": "the agent or its shim failed",
    "operator": "an operator ended the execution",
}

# What a wrapper's own final may give as `data.cause` of a failure; any other word there is only data.
FINAL_CAUSES: Final[tuple[Cause, ...]] = ("start_failed", "agent_error")

Link = Literal["connected", "grace", "offline"]

# ---------------------------------------------------------------- events

RESERVED_PREFIXES: Final = ("execution.", "session.", "wrapper.", "interrupt.", "approval.", "connection.")
EVENT_TYPE_PATTERN: Final = r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*$"
EVENT_TYPE_MAX: Final = 64  # characters; a type is a name, not a message

# Every type that Holdfast itself writes, and when.
EVENT_TYPES: Final[dict[str, str]] = {
    "execution.queued": "accepted while another execution is active",
    "execution.pending": "its start is on its way to the wrapper",
    "execution.started": "the wrapper reported the start",
    "execution.completed": "terminal: ended well",
    "execution.failed": "terminal: ended badly, see cause",
    "execution.interrupted": "terminal: ended by an interrupt",
    "execution.late_final": "the wrapper's own final came after the end was recorded; it changes nothing",
    "interrupt.requested": "an operator asked for it",
    "interrupt.delivered": "the wrapper has noted it durably",
    "interrupt.acknowledged": "the wrapper has carried it out",
    "wrapper.connected": "a wrapper owns the session",
    "wrapper.disconnected": "the owner is gone; reason, ws_close_code, ws_close_reason, error, fatal",
    "wrapper.resumed": "the owner came back within the grace time",
    "wrapper.superseded": "another wrapper took the session over",
    "approval.requested": "the agent waits for a decision",
    "approval.resolved": "somebody decided",
    "approval.expired": "nobody decided in time",
    "approval.cancelled": "its execution ended first",
    "output.gap": "a range of records will never come; from_seq, to_seq, bytes, reason",
    "output.rewound": "the wrapper's spool went back in time; numbering goes on after what was acknowledged",
    "session.closed": "the session was deleted",
}

NackCode = Literal["gap", "terminal", "invalid", "too_large", "unknown_execution"]
Directive = Literal["resume", "abort", "discard", "done"]
CommandKind = Literal["start", "input", "interrupt", "approval", "abort"]
GapReason = Literal["trimmed", "refused"]


# ---------------------------------------------------------------- error codes


class ErrorCode(NamedTuple):
    code: str
    status: int
    title: str
    retryable: bool
    hint: str


ERRORS: Final[dict[str, ErrorCode]] = {
    e.code: e
    for e in (
        ErrorCode(
            "bad_request", 400, "The request is not valid", False, "See `detail`; the shapes are in /openapi.json."
        ),
        ErrorCode("bad_id", 400, "An id is not valid", False, "Ids match ^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$."),
        ErrorCode(
            "bad_json", 400, "The body is not valid JSON", False, "UTF-8, no NaN, integers up to 2^53, depth up to 32."
        ),
        ErrorCode(
            "webhook_not_allowed",
            400,
            "This callback may not be called",
            False,
            "Public addresses only, unless HOLDFAST_WEBHOOK_ALLOW names the host or the network.",
        ),
        ErrorCode(
            "duplicate_group",
            400,
            "A group is named twice",
            False,
            "Name each pair of sop_id and subscene_id once, with its whole quantity.",
        ),
        ErrorCode(
            "too_many_tasks",
            400,
            "Too many tasks for one batch",
            False,
            "`max` is what one batch may hold; dispatch another batch.",
        ),
        ErrorCode(
            "quota_exceeded",
            400,
            "Beyond what the order may still assign",
            False,
            "`remaining_assignable` is what is left; raise `target_count`, or ask for less.",
        ),
        ErrorCode(
            "target_below_assigned",
            400,
            "The target is below what is assigned already",
            False,
            "At least `min_target`, or exactly `completed_count` to end the order with what it has.",
        ),
        ErrorCode(
            "below_begun",
            400,
            "Tasks that have begun cannot be taken away",
            False,
            "`begun_count` is the least that this group can have.",
        ),
        ErrorCode(
            "too_few_pending",
            400,
            "The group has fewer pending tasks than that",
            False,
            "Nothing was completed; `pending` is how many there are.",
        ),
        ErrorCode(
            "bad_cursor", 400, "The cursor is not valid", False, "Use `next_cursor` of the page before, unchanged."
        ),
        ErrorCode(
            "unauthenticated",
            401,
            "Who are you?",
            False,
            "Send `Authorization: Bearer <token>`; `holdfast up` prints where the token is.",
        ),
        ErrorCode(
            "not_your_station", 403, "The batch is another station's", False, "Use the token of the batch's station."
        ),
        ErrorCode("forbidden", 403, "This token may not do that", False, "Use a token of a wider scope."),
        ErrorCode(
            "origin_not_allowed",
            403,
            "This origin is not on the allow-list",
            False,
            "Add it to HOLDFAST_ALLOWED_ORIGINS.",
        ),
        ErrorCode("not_found", 404, "No such path", False, "See /openapi.json."),
        ErrorCode("session_not_found", 404, "No such session", False, "`holdfast session list` shows what there is."),
        ErrorCode(
            "execution_not_found", 404, "No such execution", False, "`holdfast session show ID` names its executions."
        ),
        ErrorCode("approval_not_found", 404, "No such approval", False, "List the session's approvals."),
        ErrorCode("webhook_not_found", 404, "No such webhook", False, "`holdfast webhook list` shows what there is."),
        ErrorCode("node_not_found", 404, "No such node", False, "`holdfast node list` shows what there is."),
        ErrorCode("invocation_not_found", 404, "No such invocation", False, "`holdfast node show ID` names the node."),
        ErrorCode("task_not_found", 404, "No such task", False, "`holdfast task list` shows what there is."),
        ErrorCode("order_not_found", 404, "No such order", False, "`holdfast order list` shows what there is."),
        ErrorCode("batch_not_found", 404, "No such batch", False, "`holdfast batch list` shows what there is."),
        ErrorCode("group_not_found", 404, "No such group in the batch", False, "`holdfast batch show ID` names them."),
        ErrorCode("station_not_found", 404, "No such station", False, "`holdfast station list` shows what there is."),
        ErrorCode(
            "collector_not_found", 404, "No such collector", False, "`holdfast collector list` shows what there is."
        ),
        ErrorCode("enrolment_not_found", 404, "No such enrolment", False, "`holdfast node enrolments` shows them."),
        ErrorCode(
            "bad_enrolment_code",
            403,
            "This enrolment code is not valid",
            False,
            "Codes are for one device, once, for a short time; ask an operator for a fresh one.",
        ),
        ErrorCode("method_not_allowed", 405, "This path does not take that method", False, "See /openapi.json."),
        ErrorCode("session_exists", 409, "There is a session with this id", False, "Use it, or choose another id."),
        ErrorCode("node_exists", 409, "There is a node with this id", False, "Use it, or choose another id."),
        ErrorCode("task_exists", 409, "There is a task with this id", False, "Use it, or choose another id."),
        ErrorCode("order_exists", 409, "There is an order with this id", False, "Use it, or choose another id."),
        ErrorCode("batch_exists", 409, "There is a batch with this id", False, "Use it, or choose another id."),
        ErrorCode("station_exists", 409, "There is a station with this id", False, "Use it, or choose another id."),
        ErrorCode("collector_exists", 409, "There is a collector with this id", False, "Use it, or choose another id."),
        ErrorCode("order_completed", 409, "The order is completed", False, "Raise its `target_count` to reopen it."),
        ErrorCode("order_terminal", 409, "The order has ended", False, "`current_status` says how; make another."),
        ErrorCode("order_paused", 409, "The order is paused", False, "`holdfast order resume ID`, then try again."),
        ErrorCode(
            "order_conflict",
            409,
            "The order does not go there from where it is",
            False,
            "`current_status` is where it is; only a paused order is resumed.",
        ),
        ErrorCode("batch_terminal", 409, "The batch has ended", False, "`current_status` says how; dispatch another."),
        ErrorCode(
            "has_begun",
            409,
            "It is history already",
            False,
            "`begun_count` tasks of it have begun: cancel it instead, or keep it.",
        ),
        ErrorCode(
            "station_not_bound",
            409,
            "The station has no collector and node now",
            False,
            "`holdfast station update ID --collector C --node N` binds it.",
        ),
        ErrorCode(
            "station_busy",
            409,
            "Work of a station is under way",
            False,
            "`task_ids` or `open_batches` name it; let it end, or cancel it first.",
        ),
        ErrorCode(
            "collector_bound", 409, "The collector is bound to a station", False, "Bind that station otherwise first."
        ),
        ErrorCode(
            "task_conflict",
            409,
            "The task or its device is not in the state for that",
            False,
            "`reason` says which gate is shut; `holdfast task show ID` and `holdfast node show ID` tell the states.",
        ),
        ErrorCode(
            "attempt_mismatch",
            409,
            "The task is at another attempt",
            False,
            "The present one is in `attempt`; leave it out to mean the present one.",
        ),
        ErrorCode(
            "state_unknown",
            409,
            "The device's state is not known well enough",
            True,
            "It was asked to say its state; try again in a few seconds.",
        ),
        ErrorCode(
            "execution_mismatch",
            409,
            "There is an execution with this id and another input",
            False,
            "Choose another execution id.",
        ),
        ErrorCode(
            "already_resolved", 409, "Somebody else decided first", False, "The recorded decision is in `detail`."
        ),
        ErrorCode(
            "nothing_to_interrupt",
            409,
            "No execution is active",
            False,
            "Name a queued execution, or submit one first.",
        ),
        ErrorCode(
            "not_running",
            409,
            "The execution is not running",
            False,
            "Input goes to a running execution; submit a new one instead.",
        ),
        ErrorCode("execution_terminal", 409, "The execution has ended", False, "Its outcome is in the execution."),
        ErrorCode(
            "link_connected",
            409,
            "A wrapper is connected to this session",
            False,
            "Stop it first, or take over with --takeover.",
        ),
        ErrorCode(
            "session_deleted",
            410,
            "The session was deleted",
            False,
            "A deleted id is never used again; choose another.",
        ),
        ErrorCode("token_not_found", 404, "No such token", False, "`holdfast token list` shows what there is."),
        ErrorCode(
            "request_timeout", 408, "The body did not arrive in time", True, "Send the request without long pauses."
        ),
        ErrorCode("headers_too_large", 431, "The headers are too large", False, "Send fewer or shorter headers."),
        ErrorCode("too_large", 413, "The body is too large", False, "Send less at once."),
        ErrorCode(
            "unsupported_media_type", 415, "The body is not JSON", False, "Send `Content-Type: application/json`."
        ),
        ErrorCode(
            "idempotency_mismatch",
            422,
            "This Idempotency-Key came with another body",
            False,
            "Use a fresh key for a new request.",
        ),
        ErrorCode(
            "queue_full", 429, "The session's queue is full", True, "Wait until one of its executions has ended."
        ),
        ErrorCode("rate_limited", 429, "Too many requests", True, "Wait for Retry-After."),
        ErrorCode("too_many_connections", 429, "Too many connections", True, "Close some, or raise the limit."),
        ErrorCode("internal", 500, "Holdfast made a mistake", True, "The log has the trace; please report it."),
        ErrorCode(
            "storage_unavailable",
            503,
            "The store cannot take this now",
            True,
            "Nothing was changed; try again. If it lasts: disk space, `holdfast doctor`.",
        ),
        ErrorCode("unavailable", 503, "The service is not ready", True, "Try again shortly."),
        # on sockets
        ErrorCode("unknown_frame", 400, "This frame type is not known", False, "It was ignored; see /asyncapi.json."),
        ErrorCode("invalid_frame", 400, "This frame is not valid", False, "It was ignored; see `message`."),
        ErrorCode("unknown_role", 400, "This role is not known", False, "Roles: node, recorder, transfer."),
        ErrorCode("foreign_task", 404, "This task is not one of this node", False, "Keep the recording; ask a person."),
        ErrorCode("bad_hello", 400, "The first frame must be a valid hello", False, "See docs/protocol.md."),
        ErrorCode("hello_timeout", 408, "No hello came in time", True, "Send hello as the first frame."),
        ErrorCode(
            "already_connected",
            409,
            "The present owner was seen too recently",
            True,
            "Try again after it has been silent for the threshold.",
        ),
    )
}

# ---------------------------------------------------------------- process exit codes (command line)

EXIT_OK: Final = 0
EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2
EXIT_NOT_FOUND: Final = 3
EXIT_CONFLICT: Final = 4
EXIT_UNAVAILABLE: Final = 5
EXIT_INTERRUPTED: Final = 130
