"""The values that decisions about nodes stand on, exactly as they stand in rows. Nothing here decides anything.

Times: `*_at_ms` is wall time (Unix ms, for people); names with `service` are service time (ms), for deadlines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from actors.law.model import Json, Policy
from actors.protocol.codes import Link
from actors.protocol.node_codes import (
    INTENT_OPEN,
    TASK_BUSY,
    TASK_TERMINAL,
    EnrolmentState,
    IntentState,
    InvocationError,
    InvocationState,
    PresenceReason,
    ReportedState,
    TaskStatus,
    UploadStatus,
)
from actors.protocol.node_codes import Role as RoleName
from actors.protocol.order_codes import BatchStatus, OrderStatus

NodeDeadlineKind = Literal[
    "grace", "invocation", "invocation_idle", "probe", "upload_resend", "task_reconcile", "notice"
]


@dataclass(frozen=True, slots=True)
class Reported:
    """What a device says of itself."""

    state: ReportedState
    task_id: str | None = None
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Desired:
    """What the last task command asked of it."""

    state: ReportedState
    task_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class UploadReport:
    """One recording, as the device knows it. order_id: of what is to be verified, the order that owns the task."""

    task_id: str
    attempt: int
    status: UploadStatus
    object_key: str | None = None
    sha256: str | None = None
    size: int | None = None
    detail: str | None = None
    order_id: str | None = None


@dataclass(frozen=True, slots=True)
class Node:
    node_id: str
    name: str | None
    created_at_ms: int
    made_by: str  # the seed of the request that made it: a repeat of that request is no second one
    drained: bool = False
    allow: tuple[str, ...] | None = None
    last_event_seq: int = 0
    first_event_seq: int = 1


@dataclass(frozen=True, slots=True)
class Role:
    """One role of a node and who owns it.

    lapsed_epoch: the epoch at which its grace last expired; what was held under an older one is given back.
    """

    node_id: str
    role: RoleName
    link: Link = "offline"
    connection_id: str | None = None
    connection_epoch: int = 0
    instance_id: str | None = None
    attempt: int | None = None
    gateway_id: str | None = None
    client: Json = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    capabilities: Json = field(default_factory=dict)
    last_seen_service_ms: int = 0
    last_seen_at_ms: int | None = None
    grace_until_ms: int | None = None
    presence_reason: PresenceReason = "never"
    presence_at_ms: int = 0
    reported_state: ReportedState | None = None
    reported_task_id: str | None = None
    reported_attempt: int | None = None
    reported_at_ms: int | None = None
    reported_service_ms: int = 0
    synced: bool = False
    desired_state: ReportedState | None = None
    desired_task_id: str | None = None
    desired_attempt: int | None = None
    lapsed_epoch: int = 0

    @property
    def connected(self) -> bool:
        return self.link == "connected"

    @property
    def key(self) -> str:
        """The second column of a role's deadlines: whoever owns it later has another epoch; they mean nothing then."""
        return f"{self.role}:{self.connection_epoch}"

    @property
    def reported(self) -> Reported | None:
        if self.reported_state is None:
            return None
        return Reported(self.reported_state, self.reported_task_id, self.reported_attempt)

    @property
    def desired(self) -> Desired | None:
        if self.desired_state is None or self.desired_task_id is None or self.desired_attempt is None:
            return None
        return Desired(self.desired_state, self.desired_task_id, self.desired_attempt)


@dataclass(frozen=True, slots=True)
class Invocation:
    invocation_id: str
    node_id: str
    role: RoleName
    command: str
    params: Json
    by: str | None
    created_at_ms: int
    timeout_s: float
    idle_timeout_s: float | None
    idempotency_key: str | None
    state: InvocationState = "pending"
    connection_id: str | None = None
    due_service_ms: int | None = None
    idle_due_service_ms: int | None = None
    dispatched: bool = False
    dispatched_at_ms: int | None = None
    progress_seq: int = 0
    progress: Json = None
    progress_at_ms: int | None = None
    progress_gaps: int = 0
    ok: bool | None = None
    payload: Json = None
    error_code: InvocationError | None = None
    error_message: str | None = None
    error_node_code: str | None = None
    settled_at_ms: int | None = None

    @property
    def settled(self) -> bool:
        return self.state == "settled"


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A frame for one connection, in order of n. invocation_id: the frame is made when it is fetched."""

    n: int
    node_id: str
    role: RoleName
    connection_epoch: int
    frame: Json
    invocation_id: str | None = None
    fetched_seed: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """held_epoch: the recorder's epoch when a report last confirmed the task there (the fence of a rollback)."""

    task_id: str
    node_id: str
    params: Json
    created_at_ms: int
    made_by: str
    order_id: str | None = None
    batch_id: str | None = None
    sop_id: str | None = None
    subscene_id: str | None = None
    status: TaskStatus = "pending"
    attempt: int = 1
    began: bool = False  # this attempt has been recording: the next config is another attempt
    held_epoch: int = 0
    detail: str | None = None
    ready_at_ms: int | None = None
    started_at_ms: int | None = None
    paused_at_ms: int | None = None
    finished_at_ms: int | None = None
    uploaded_at_ms: int | None = None
    completed_at_ms: int | None = None
    cancelled_at_ms: int | None = None
    failed_at_ms: int | None = None

    @property
    def terminal(self) -> bool:
        return self.status in TASK_TERMINAL

    @property
    def busy(self) -> bool:
        return self.status in TASK_BUSY


@dataclass(frozen=True, slots=True)
class Intent:
    """We want the recording of this attempt. tries: uploads that failed or did not verify; sends: requests sent."""

    task_id: str
    attempt: int
    node_id: str
    state: IntentState
    created_at_ms: int
    tries: int = 0
    sends: int = 0
    object_key: str | None = None
    sha256: str | None = None
    size: int | None = None
    detail: str | None = None

    @property
    def open(self) -> bool:
        return self.state in INTENT_OPEN

    @property
    def key(self) -> str:
        return upload_key(self.task_id, self.attempt)


def upload_key(task_id: str, attempt: int) -> str:
    """The second column of an intent's deadline. An id has no `:`."""
    return f"{task_id}:{attempt}"


@dataclass(frozen=True, slots=True)
class Artifact:
    task_id: str
    node_id: str
    attempt: int
    object_key: str
    sha256: str
    size: int
    verified: bool
    stored_at_ms: int


@dataclass(frozen=True, slots=True)
class Notice:
    """What an order wants a node to drop. tasks: (task_id, attempt) each. Unique by order, cause and node."""

    notice_id: str
    order_id: str
    node_id: str
    cause: str
    tasks: tuple[tuple[str, int], ...]
    created_at_ms: int
    sends: int = 0
    settled_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the order of a task stands. bound_node_id: the node of its station's present binding."""

    order_status: OrderStatus
    batch_status: BatchStatus
    bound_node_id: str | None


@dataclass(frozen=True, slots=True)
class Enrolment:
    enrolment_id: str
    node_id: str
    name: str | None
    commands: tuple[str, ...]
    capabilities: Json
    created_at_ms: int
    state: EnrolmentState = "pending"
    allow: tuple[str, ...] | None = None
    decided_at_ms: int | None = None
    decided_by: str | None = None
    claimed_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class NodeView:
    """Every row that a decision about a node or a task may stand on, read inside its own write transaction.

    node, roles: of the node that the request is about; a task's requests are about the node that it belongs to.
    invocations: all that are not settled, and the named one. outbox: of NodeFetch, what its connection may have now.
    tasks: those of the node that occupy its recorder, those with an open intent, those that its roles report, and
    every one that is named, whosever it is; of ForgetNode, those that may not have heard the node's last word.
    intents: the open ones of the node, and every one of the named tasks.
    notices: those of the node that are not settled. standing: of the task that is acted on, if an order owns it.
    deadline_due: when the swept deadline is due, None if the row is gone. door_open, connection_used: as for sessions.
    vouched: the token of the connection that asks to own a role still holds.
    """

    node: Node | None
    roles: Mapping[RoleName, Role]
    invocations: Mapping[str, Invocation]
    outbox: tuple[OutboxRow, ...]
    tasks: Mapping[str, Task]
    intents: Mapping[tuple[str, int], Intent]
    deadline_due: int | None
    service_ms: int
    wall_ms: int
    next_epoch: int
    policy: Policy
    door_open: bool = True
    connection_used: bool = False
    vouched: bool = True
    notices: Mapping[str, Notice] = field(default_factory=dict)
    standing: Standing | None = None
