"""Nodes, invocations, tasks and enrolments as pydantic models: resources and request bodies for /openapi.json."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, JsonValue

from actors.protocol.codes import Link
from actors.protocol.defaults import ENROLMENT_CODE_MAX_S, INVOKE_TIMEOUT_MAX_S, INVOKE_TIMEOUT_S, NODE_COMMANDS_MAX
from actors.protocol.fields import Count, Data, Id, Seq
from actors.protocol.node_codes import (
    EnrolmentState,
    IntentState,
    InvocationError,
    InvocationState,
    PresenceReason,
    ReportedState,
    Role,
    TaskStatus,
)
from actors.protocol.node_frames import CommandName, Sha256
from actors.protocol.resources import Body, Resource

Name = Annotated[str, Field(max_length=200)]
# A command, or the beginning of one and a `*`; `*` alone is every command.
Pattern = Annotated[str, Field(pattern=r"^(\*|[A-Za-z0-9][A-Za-z0-9_.:/-]{0,126}\*?)$", max_length=128)]
Allow = Annotated[list[Pattern], Field(max_length=NODE_COMMANDS_MAX)]
# One line of text, as it goes to a device: no control characters.
Plain = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Within = Annotated[float, Field(ge=0, le=INVOKE_TIMEOUT_MAX_S)] | Annotated[int, Field(ge=0, le=86400)]

# ---------------------------------------------------------------- bodies


class CreateNode(Body):
    """allow: which of its declared commands may be used, within the service's own list; null: that list alone."""

    node_id: Id | None = None
    name: Name | None = None
    allow: Allow | None = None


class ChangeNode(Body):
    """Only what is given changes. drained: no new invocations, no task begins; what runs goes on."""

    name: Name | None = None
    drained: bool | None = None
    allow: Allow | None = None


class InvokeRequest(Body):
    """timeout_s 0: no deadline. idle_timeout_s: between two progress frames. wait: answer when it has settled."""

    command: CommandName
    params: JsonValue = None
    role: Role = "node"
    timeout_s: Within = INVOKE_TIMEOUT_S
    idle_timeout_s: Within | None = None
    expected_connection_id: Id | None = None
    wait: bool = True


class CreateTask(Body):
    task_id: Id | None = None
    params: JsonValue = None


class TaskActionRequest(Body):
    attempt: Seq | None = None


class EnrolmentCodeRequest(Body):
    """node_id: the only id that it is good for; null: any id that is not taken."""

    node_id: Id | None = None
    expires_in_s: (
        Annotated[float, Field(gt=0, le=ENROLMENT_CODE_MAX_S)] | Annotated[int, Field(gt=0, le=3600)] | None
    ) = None


class EnrolmentRequest(Body):
    """claim: a secret that the device made itself, so that a repeat after a lost answer is the same enrolment."""

    code: Annotated[str, Field(min_length=1, max_length=200)]
    node_id: Id
    name: Name | None = None
    commands: Annotated[list[CommandName], Field(max_length=NODE_COMMANDS_MAX)] = Field(default_factory=list)
    capabilities: Data = Field(default_factory=dict)
    claim: Annotated[str, Field(min_length=32, max_length=200)] | None = None


class EnrolmentDecision(Body):
    decision: Literal["approve", "reject"]
    allow: Allow | None = None


class EnrolmentClaim(Body):
    claim: Annotated[str, Field(min_length=1, max_length=200)]


# ---------------------------------------------------------------- answers


class ReportedResource(Resource):
    state: ReportedState
    task_id: Id | None
    attempt: Seq | None
    at_ms: Count


class DesiredResource(Resource):
    state: ReportedState
    task_id: Id
    attempt: Seq


class RoleResource(Resource):
    """synced: a valid report came on this very connection and nothing has put it in doubt since."""

    state: Link
    connection_id: Id | None
    epoch: Count
    instance_id: Id | None
    gateway_id: Id | None
    client: Data
    commands: list[str]
    last_seen_at_ms: Count | None
    grace_until_ms: Count | None
    reported: ReportedResource | None
    desired: DesiredResource | None
    synced: bool


class PresenceResource(Resource):
    reason: PresenceReason
    at_ms: Count


class NodeResource(Resource):
    """commands: declared and allowed now; denied_commands: declared only. allow: null is the service's list alone."""

    node_id: Id
    name: str | None
    connected: bool
    commands: list[str]
    denied_commands: list[str]
    capabilities: Data
    roles: dict[str, RoleResource]
    presence: PresenceResource
    drained: bool
    allow: list[str] | None
    created_at_ms: Count


class NodePage(Resource):
    items: list[NodeResource]
    next_cursor: str | None


class InvocationFailure(Resource):
    """dispatched false: certainly not executed. node_code: the node's own code of a NODE_ERROR."""

    code: InvocationError
    message: str
    dispatched: bool
    node_code: str | None = None


class ProgressResource(Resource):
    seq: Seq
    payload: JsonValue
    at_ms: Count


class InvocationResource(Resource):
    """ok: null until it has settled. timeout_s 0: no deadline."""

    invocation_id: Id
    node_id: Id
    role: str
    command: str
    params: JsonValue
    state: InvocationState
    dispatched: bool
    ok: bool | None
    payload: JsonValue
    error: InvocationFailure | None
    progress: ProgressResource | None
    connection_id: Id | None
    by: str | None
    timeout_s: float
    idle_timeout_s: float | None
    created_at_ms: Count
    dispatched_at_ms: Count | None
    settled_at_ms: Count | None


class InvocationPage(Resource):
    items: list[InvocationResource]
    next_cursor: str | None


class NodeLogResource(Resource):
    seq: Seq
    type: str
    ts_ms: Count
    data: dict[str, Any]


class NodeLogPage(Resource):
    items: list[NodeLogResource]
    next_after_seq: Count
    first_seq: Count
    last_seq: Count


class GroupNames(BaseModel):
    """What the things of a group are called; it goes to the device with each task, and into the handoff."""

    sop_slug: Plain | None = None
    sop_version: Plain | Count | None = None
    scene_name: Plain | None = None
    subscene_name: Plain | None = None


class TaskGroup(Resource, GroupNames):
    sop_id: Id
    subscene_id: Id


class ArtifactResource(Resource):
    """verified: size and sha256 were checked here; false: no object store is configured."""

    object_key: str
    sha256: Sha256
    size: Count
    verified: bool
    stored_at_ms: Count


class UploadResource(Resource):
    state: IntentState
    attempt: Seq
    tries: Count
    detail: str | None


class TaskResource(Resource):
    """Every `_at_ms` is set once, at the first time. upload: of the present attempt. group: of a batch's task."""

    task_id: Id
    node_id: Id
    order_id: Id | None
    batch_id: Id | None
    group: TaskGroup | None
    params: JsonValue
    status: TaskStatus
    attempt: Seq
    detail: str | None
    upload: UploadResource | None
    artifact: ArtifactResource | None
    created_at_ms: Count
    ready_at_ms: Count | None
    started_at_ms: Count | None
    paused_at_ms: Count | None
    finished_at_ms: Count | None
    uploaded_at_ms: Count | None
    completed_at_ms: Count | None
    cancelled_at_ms: Count | None
    failed_at_ms: Count | None


class TaskPage(Resource):
    items: list[TaskResource]
    next_cursor: str | None


class EnrolmentCode(Resource):
    """`code` is shown here, once."""

    code: str
    node_id: Id | None
    expires_at_ms: Count


class EnrolmentResource(Resource):
    enrolment_id: Id
    node_id: Id
    name: str | None
    commands: list[str]
    capabilities: Data
    state: EnrolmentState
    allow: list[str] | None
    created_at_ms: Count
    decided_at_ms: Count | None
    decided_by: str | None
    claimed_at_ms: Count | None


class EnrolmentPage(Resource):
    items: list[EnrolmentResource]
    next_cursor: str | None


class MadeEnrolment(Resource):
    """claim: the device asks with it whether it was let in; shown here, once."""

    enrolment_id: Id
    claim: str
    state: EnrolmentState


class ClaimedEnrolment(Resource):
    """token: at the first claim after the approval, once."""

    state: EnrolmentState
    node_id: Id
    token: str | None = None
