"""The frames of PROTOCOL §4 as pydantic models: what a node says and hears on `/v1/nodes/{nid}/connect?role=`.

Unknown fields are ignored; types are strict. A payload is bounded where it is stored (law/nodes), not here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from actors.protocol.codes import EVENT_TYPE_MAX, EVENT_TYPE_PATTERN
from actors.protocol.defaults import NODE_COMMANDS_MAX, NODE_UPLOADS_MAX
from actors.protocol.fields import Count, Data, Id, Seq
from actors.protocol.frames import Client, Error, Frame, Heartbeat
from actors.protocol.node_codes import HOLDING, Disposition, ReportedState, TaskActionName, UploadStatus

CommandName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

# ---------------------------------------------------------------- node → Holdfast


class NodeReported(Frame):
    """What the device says of itself. A state that holds a task names it; attempt absent: the present one."""

    state: ReportedState
    task_id: Id | None = None
    attempt: Seq | None = None

    @model_validator(mode="after")
    def _names_its_task(self) -> Self:
        if self.state in HOLDING and self.task_id is None:
            raise ValueError(f"a report of {self.state} names its task_id")
        return self


class UploadRow(Frame):
    """One recording, as the device knows it: a line of hello.uploads, and the body of `upload`."""

    task_id: Id
    attempt: Seq
    status: UploadStatus
    object_key: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    sha256: Sha256 | None = None
    size: Count | None = None
    detail: Annotated[str, Field(max_length=4096)] | None = None

    @model_validator(mode="after")
    def _says_what_was_uploaded(self) -> Self:
        if self.status == "uploaded" and (self.object_key is None or self.sha256 is None or self.size is None):
            raise ValueError("uploaded says object_key, sha256 and size")
        return self


class NodeHello(Frame):
    """uploads absent: nothing is concluded. An empty list says that the device has no recording at all."""

    type: Literal["hello"]
    protocol: int
    instance_id: Id
    attempt: Seq | None = None
    client: Client = Client()
    commands: Annotated[list[CommandName], Field(max_length=NODE_COMMANDS_MAX)] = Field(default_factory=list)
    capabilities: Data = Field(default_factory=dict)
    reported: NodeReported | None = None
    uploads: Annotated[list[UploadRow], Field(max_length=NODE_UPLOADS_MAX)] | None = None


class NodeFailure(Frame):
    code: Annotated[str, Field(max_length=64)] | None = None
    message: Annotated[str, Field(max_length=4096)] = ""


class InvokeResult(Frame):
    type: Literal["invoke_result"]
    invocation_id: Id
    ok: bool
    payload: JsonValue = None
    error: NodeFailure | None = None


class InvokeProgress(Frame):
    """seq counts from 1, without holes; a repeat or a hole is ignored."""

    type: Literal["invoke_progress"]
    invocation_id: Id
    seq: Seq
    payload: JsonValue = None


class State(Frame):
    type: Literal["state"]
    reported: NodeReported


class Upload(UploadRow):
    type: Literal["upload"]


class LogLine(Frame):
    type: Annotated[str, Field(pattern=EVENT_TYPE_PATTERN, max_length=EVENT_TYPE_MAX)]
    data: Data = Field(default_factory=dict)


class NodeLogEvent(Frame):
    """A line for the node's own log; names under `node.` are ours."""

    type: Literal["event"]
    event: LogLine


FromNode = Annotated[
    NodeHello | InvokeResult | InvokeProgress | State | Upload | NodeLogEvent | Heartbeat,
    Field(discriminator="type"),
]

# ---------------------------------------------------------------- Holdfast → node


class NodeHelloAck(Frame):
    """directives: frames to be carried out first, in order, as if they had come on their own."""

    type: Literal["hello_ack"] = "hello_ack"
    connection_id: Id
    epoch: Count
    node_id: Id
    role: str
    server_time_ms: Count
    heartbeat_interval_s: float
    max_frame_bytes: Count
    directives: list[dict[str, Any]]


class Invoke(Frame):
    """within_s: what is left of the caller's time, null: no limit. idempotency_key: the caller's, or the id."""

    type: Literal["invoke"] = "invoke"
    invocation_id: Id
    command: str
    params: JsonValue = None
    within_s: float | None = None
    idempotency_key: str


class InvokeCancel(Frame):
    type: Literal["invoke_cancel"] = "invoke_cancel"
    invocation_id: Id


class TaskCommand(Frame):
    type: Literal["task"] = "task"
    action: TaskActionName
    task_id: Id
    attempt: Seq
    params: JsonValue = None


class Probe(Frame):
    """Say your state."""

    type: Literal["probe"] = "probe"


class UploadRequest(Frame):
    type: Literal["upload_request"] = "upload_request"
    task_id: Id
    attempt: Seq


class UploadAck(Frame):
    """keep: it is stored, delete your copy. discard: nobody wants it, delete your copy."""

    type: Literal["upload_ack"] = "upload_ack"
    task_id: Id
    attempt: Seq
    disposition: Disposition


class Ignored(Frame):
    """A result or a progress that does not count; nothing to be done about it."""

    type: Literal["ignored"] = "ignored"
    invocation_id: Id


Directive = Annotated[
    TaskCommand | Probe | UploadRequest | UploadAck | Invoke | InvokeCancel | Error, Field(discriminator="type")
]
ToNode = Annotated[
    NodeHelloAck | Invoke | InvokeCancel | TaskCommand | Probe | UploadRequest | UploadAck | Ignored | Error,
    Field(discriminator="type"),
]
