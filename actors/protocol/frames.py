"""The frames of PROTOCOL §2 and §3 as pydantic models: the source of /asyncapi.json, the validator of control frames.

`events` is the hot frame: the gateway checks it by hand (gateway/decode.py) to the same rules, which a test compares.
Unknown fields are ignored, as the protocol says; types are strict, because 1 is not true.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from actors.protocol.codes import EVENT_TYPE_MAX, EVENT_TYPE_PATTERN, Directive, GapReason, NackCode
from actors.protocol.defaults import EVENTS_PER_FRAME
from actors.protocol.fields import Count, Data, Id, Seq
from actors.protocol.resources import SessionResource, StoredEvent


class Frame(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


# ---------------------------------------------------------------- wrapper → Holdfast


class FinalReport(Frame):
    status: Literal["completed", "failed", "interrupted"]
    exit_code: int | None = None
    signal: str | int | None = None
    error: str | None = None


class HelloExecution(Frame):
    execution_id: Id
    state: Literal["received", "running", "final"]
    first_seq: Count = 1
    last_seq: Count = 0
    final: FinalReport | None = None


class Client(Frame):
    name: Annotated[str, Field(max_length=200)] = ""
    version: Annotated[str, Field(max_length=200)] = ""
    capabilities: Annotated[list[str], Field(max_length=64)] = []


class Spool(Frame):
    state: Literal["ok", "unreadable"] = "ok"
    bytes: Count = 0
    limit_bytes: Count = 0


class Hello(Frame):
    type: Literal["hello"]
    protocol: int
    wrapper_id: Id
    instance_id: Id
    attempt: Seq
    client: Client = Client()
    executions: Annotated[list[HelloExecution], Field(max_length=2000)] = []
    spool: Spool = Spool()


class Ready(Frame):
    type: Literal["ready"]


class Started(Frame):
    type: Literal["started"]
    execution_id: Id
    seq: Seq
    pid: int | None = None


class Event(Frame):
    type: Annotated[str, Field(pattern=EVENT_TYPE_PATTERN, max_length=EVENT_TYPE_MAX)]
    ts_ms: Count
    data: Data = {}


class Events(Frame):
    type: Literal["events"]
    execution_id: Id
    seq: Seq
    events: Annotated[list[Event], Field(min_length=1, max_length=EVENTS_PER_FRAME)]


class Approval(Frame):
    type: Literal["approval"]
    execution_id: Id
    seq: Seq
    approval_id: Id
    title: Annotated[str, Field(max_length=1000)]
    options: Annotated[list[Annotated[str, Field(max_length=200)]], Field(min_length=1, max_length=32)]
    expires_in_s: Annotated[float, Field(gt=0, le=30 * 86400)] | Annotated[int, Field(gt=0, le=30 * 86400)] | None = (
        None
    )
    data: Data = {}


class Gap(Frame):
    type: Literal["gap"]
    execution_id: Id
    seq: Seq
    to_seq: Seq
    bytes: Count = 0
    reason: GapReason


class Final(Frame):
    type: Literal["final"]
    execution_id: Id
    seq: Seq
    status: Literal["completed", "failed", "interrupted"]
    exit_code: int | None = None
    signal: str | int | None = None
    error: str | None = None
    data: Data = {}


class Ephemeral(Frame):
    type: Literal["ephemeral"]
    execution_id: Id
    events: Annotated[list[Event], Field(min_length=1, max_length=EVENTS_PER_FRAME)]


class Heartbeat(Frame):
    type: Literal["heartbeat"]
    execution_id: Id | None = None
    busy: bool = False


class CommandAck(Frame):
    type: Literal["command_ack"]
    command_id: Id
    status: Literal["received", "done", "rejected"]
    code: Annotated[str, Field(max_length=64)] | None = None
    detail: Annotated[str, Field(max_length=4096)] | None = None


FromWrapper = Annotated[
    Hello | Ready | Started | Events | Approval | Gap | Final | Ephemeral | Heartbeat | CommandAck,
    Field(discriminator="type"),
]

# ---------------------------------------------------------------- Holdfast → wrapper


class ExecutionDirective(Frame):
    execution_id: Id
    directive: Directive
    acked_seq: Count
    reason: str | None = None


class HelloAck(Frame):
    type: Literal["hello_ack"] = "hello_ack"
    connection_id: Id
    epoch: Count
    session_id: Id
    server_time_ms: Count
    heartbeat_interval_s: float
    grace_s: float
    max_frame_bytes: Count
    window_bytes: Count
    executions: list[ExecutionDirective]


class Ack(Frame):
    type: Literal["ack"] = "ack"
    execution_id: Id
    seq: Count


class Nack(Frame):
    type: Literal["nack"] = "nack"
    execution_id: Id
    code: NackCode
    expected_seq: Count | None = None
    detail: str | None = None


class StartCommand(Frame):
    type: Literal["command"] = "command"
    kind: Literal["start"] = "start"
    command_id: Id
    execution_id: Id
    input: JsonValue = None
    limits: dict[str, float | None] = {}


class InputCommand(Frame):
    type: Literal["command"] = "command"
    kind: Literal["input"] = "input"
    command_id: Id
    execution_id: Id
    input: JsonValue = None


class InterruptCommand(Frame):
    type: Literal["command"] = "command"
    kind: Literal["interrupt"] = "interrupt"
    command_id: Id
    execution_id: Id
    interrupt_id: Id
    reason: str | None = None
    force: bool = False
    within_s: float | None = None


class ApprovalCommand(Frame):
    type: Literal["command"] = "command"
    kind: Literal["approval"] = "approval"
    command_id: Id
    execution_id: Id
    approval_id: Id
    decision: str
    note: str | None = None


class AbortCommand(Frame):
    type: Literal["command"] = "command"
    kind: Literal["abort"] = "abort"
    command_id: Id
    execution_id: Id
    reason: str | None = None


class Error(Frame):
    type: Literal["error"] = "error"
    code: str
    message: str


Command = Annotated[
    StartCommand | InputCommand | InterruptCommand | ApprovalCommand | AbortCommand, Field(discriminator="kind")
]
ToWrapper = HelloAck | Ack | Nack | Command | Error

# ---------------------------------------------------------------- the stream (Holdfast → UI)


class StreamSnapshot(Frame):
    type: Literal["snapshot"] = "snapshot"
    session: SessionResource


class StreamEvents(Frame):
    type: Literal["events"] = "events"
    events: list[StoredEvent]
    live: bool


class StreamCaughtUp(Frame):
    type: Literal["caught_up"] = "caught_up"
    seq: Count


class StreamEphemeral(Frame):
    type: Literal["ephemeral"] = "ephemeral"
    execution_id: Id
    events: list[Event]


class StreamReset(Frame):
    type: Literal["reset"] = "reset"
    reason: Literal["retention", "ahead", "restored"]
    first_seq: Count
    last_seq: Count
    stream_id: Id


StreamFrame = Annotated[
    StreamSnapshot | StreamEvents | StreamCaughtUp | StreamEphemeral | StreamReset, Field(discriminator="type")
]


class FleetCounts(Frame):
    """Of the whole fleet: sessions by link, executions by status."""

    sessions: Count
    connected: Count
    grace: Count
    offline: Count
    queued: Count
    pending: Count
    running: Count


class FleetSessions(Frame):
    """`changed`: sessions whose resource is not what was sent before; the first frame has the newest page of them."""

    type: Literal["sessions"] = "sessions"
    changed: list[SessionResource]
    counts: FleetCounts
