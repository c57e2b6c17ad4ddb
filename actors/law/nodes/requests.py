"""What may be asked about a node or a task. Plain frozen values, idempotent by their seed like a session's requests.

A node's requests are decided for `node/<id>`, a task's for the order that owns it, `order/<id>`, or for itself,
`task/<id>`, if none does. A node actor and an order actor never wait for each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from actors.law.model import Json
from actors.law.nodes.model import NodeDeadlineKind, Reported, UploadReport
from actors.law.requests import Request
from actors.protocol.node_codes import Role, TaskActionName

NODE = "node/"
TASK = "task/"
ORDER = "order/"


class Unset:
    """A member that was not given: it stays as it is."""

    def __repr__(self) -> str:
        return "UNSET"

    def __reduce__(self) -> str:
        return "UNSET"  # one object, whatever process it travels to


UNSET: Final = Unset()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRequest(Request):
    node_id: str

    @property
    def addressee(self) -> str:
        return NODE + self.node_id

    def tasks_named(self) -> tuple[str, ...]:
        return ()

    def invocation_named(self) -> str | None:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateNode(NodeRequest):
    name: str | None = None
    allow: tuple[str, ...] | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeNode(NodeRequest):
    name: str | Unset | None = UNSET
    drained: bool | Unset = UNSET
    allow: tuple[str, ...] | Unset | None = UNSET
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetNode(NodeRequest):
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoke(NodeRequest):
    """timeout_s 0: no deadline. idempotency_key: the caller's, passed on to the node."""

    invocation_id: str
    command: str
    params: Json = None
    role: Role = "node"
    timeout_s: float = 30.0
    idle_timeout_s: float | None = None
    expected_connection_id: str | None = None
    idempotency_key: str | None = None
    by: str | None = None

    def invocation_named(self) -> str | None:
        return self.invocation_id


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelInvocation(NodeRequest):
    """node_id: the invocation's (the caller reads it first; a foreign pair is refused as not found)."""

    invocation_id: str
    by: str | None = None

    def invocation_named(self) -> str | None:
        return self.invocation_id


# ---------------------------------------------------------------- from the node, by way of the gateway


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConnect(NodeRequest):
    """may_create: its token was made for this very node, or by an admin: the first connect makes the node.
    token_hash: of that token; it has to stand when this is decided, not only when the socket was let in.

    attempt None: the device does not count its connects; then the later arrival owns. uploads None: it did not say.
    """

    role: Role
    connection_id: str
    gateway_id: str
    instance_id: str
    attempt: int | None = None
    commands: tuple[str, ...] = ()
    capabilities: Mapping[str, Json] = field(default_factory=dict)
    client: Json = field(default_factory=dict)
    reported: Reported | None = None
    uploads: tuple[UploadReport, ...] | None = None
    may_create: bool = False
    token_hash: str | None = None

    def tasks_named(self) -> tuple[str, ...]:
        told = [u.task_id for u in self.uploads or ()]
        if self.reported is not None and self.reported.task_id is not None:
            told.append(self.reported.task_id)
        return tuple(dict.fromkeys(told))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeClosed(NodeRequest):
    """timed_out: it did not answer pings. gateway_lost: the gateway that held it died (register_gateway found it)."""

    role: Role
    connection_id: str
    code: int | None = None
    close_reason: str = ""
    error: str = ""
    timed_out: bool = False
    gateway_lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFramed(NodeRequest):
    """A frame of a connection. `epoch` is what hello_ack gave it, `instance_id` what its hello said."""

    role: Role
    connection_id: str
    epoch: int
    instance_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFetch(NodeFramed):
    """What waits for this connection, in order. Committed before a byte of it is sent; the same seed, the same rows."""

    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InvokeResult(NodeFramed):
    """error: `{code?, message}` as the node said it."""

    invocation_id: str
    ok: bool
    payload: Json = None
    error: Json = None

    def invocation_named(self) -> str | None:
        return self.invocation_id


@dataclass(frozen=True, slots=True, kw_only=True)
class InvokeProgress(NodeFramed):
    invocation_id: str
    seq: int
    payload: Json = None

    def invocation_named(self) -> str | None:
        return self.invocation_id


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState(NodeFramed):
    reported: Reported

    def tasks_named(self) -> tuple[str, ...]:
        return (self.reported.task_id,) if self.reported.task_id else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeUpload(NodeFramed):
    report: UploadReport

    def tasks_named(self) -> tuple[str, ...]:
        return (self.report.task_id,)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEvent(NodeFramed):
    type: str
    data: Json = field(default_factory=dict)


# ---------------------------------------------------------------- from the reaper


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSweep(NodeRequest):
    """Deadline `kind` of `subject_key` may be due: `role:epoch`, an invocation id, a task id, or `task:attempt`."""

    kind: NodeDeadlineKind
    subject_key: str

    def tasks_named(self) -> tuple[str, ...]:
        return (self.subject_key.partition(":")[0],) if self.kind in ("upload_resend", "task_reconcile") else ()

    def invocation_named(self) -> str | None:
        return self.subject_key if self.kind in ("invocation", "invocation_idle") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeNotice(NodeRequest):
    """An order has something for the node to drop: asked by whoever hears NodeNoticed, and by the deadline `notice`."""

    notice_id: str


# ---------------------------------------------------------------- about a task


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest(Request):
    """order_id: of the order that owns the task. It is only where the request goes: what is decided stands on rows."""

    task_id: str
    order_id: str | None = None

    @property
    def addressee(self) -> str:
        return TASK + self.task_id if self.order_id is None else ORDER + self.order_id


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateTask(TaskRequest):
    node_id: str
    params: Json = None
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAction(TaskRequest):
    """attempt: the one that is meant, None: the present one."""

    action: TaskActionName
    attempt: int | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport(TaskRequest):
    """The node has said something about the task: look at its rows. Level-triggered, so it carries no news itself:
    twice, late or out of order it comes to what the rows say now."""

    node_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadVerified(TaskRequest):
    """The object of `attempt` was looked at: ok, or why not. verified false with ok: there is no store to look at."""

    node_id: str
    attempt: int
    object_key: str
    sha256: str
    size: int
    ok: bool
    verified: bool = True
    detail: str | None = None


# What operators ask of nodes and tasks; answered again from the stored answer when asked again.
BY_NODE_OPERATORS: Final = (CreateNode, ChangeNode, ForgetNode, Invoke, CancelInvocation, CreateTask, TaskAction)


def counts(request: Request) -> bool:
    """What a device says that would count twice if it were decided twice: a line of its log, a try that failed."""
    return isinstance(request, NodeEvent) or (isinstance(request, NodeUpload) and request.report.status == "failed")
