"""What a decision about a node wants done, inside its own transaction: frozen values named as imperatives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.law.effects import Answer, Speech
from actors.law.model import Json
from actors.law.nodes.model import Artifact, Intent, Invocation, Node, NodeDeadlineKind, Role, Task
from actors.protocol.node_codes import IntentState, InvocationState, TaskStatus
from actors.protocol.node_codes import Role as RoleName


@dataclass(frozen=True, slots=True)
class InsertNode:
    node: Node


@dataclass(frozen=True, slots=True)
class SetNode:
    node_id: str
    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RemoveNode:
    """The node, its roles, its log, its outbox, its deadlines and its tokens. Invocations and tasks stay."""

    node_id: str


@dataclass(frozen=True, slots=True)
class InsertRole:
    role: Role


@dataclass(frozen=True, slots=True)
class SetRole:
    """Only while its epoch is still `expected_epoch`."""

    node_id: str
    role: RoleName
    expected_epoch: int
    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TakeNodeEpoch:
    """The global counter, shared with sessions, moves to `epoch`; it stood at epoch − 1."""

    epoch: int


@dataclass(frozen=True, slots=True)
class RememberNodeConnection:
    """This connection owned a role once: it never will again."""

    connection_id: str
    node_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One event at the end of the node's own log."""

    node_id: str
    type: str
    data: Json


@dataclass(frozen=True, slots=True)
class InsertInvocation:
    invocation: Invocation


@dataclass(frozen=True, slots=True)
class SetInvocation:
    """Only while its state is still `expected`."""

    invocation_id: str
    expected: InvocationState
    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Post:
    """A frame for the present connection of a role. invocation_id: the frame is made when it is fetched."""

    node_id: str
    role: RoleName
    epoch: int
    frame: Json
    invocation_id: str | None = None


@dataclass(frozen=True, slots=True)
class MarkFetched:
    """These rows go out with the fetch of this seed; what earlier fetches of the connection took is forgotten."""

    node_id: str
    role: RoleName
    ns: tuple[int, ...]
    seed: str


@dataclass(frozen=True, slots=True)
class DropPosted:
    """Rows of the role that wait no more: all of them, or those of one invocation."""

    node_id: str
    role: RoleName
    invocation_id: str | None = None


@dataclass(frozen=True, slots=True)
class ArmNode:
    """A deadline of `node/<id>`. keep: if it is armed already, leave it as it is."""

    node_id: str
    kind: NodeDeadlineKind
    key: str
    due_ms: int
    keep: bool = False


@dataclass(frozen=True, slots=True)
class DisarmNode:
    node_id: str
    kind: NodeDeadlineKind
    key: str


@dataclass(frozen=True, slots=True)
class InsertTask:
    task: Task


@dataclass(frozen=True, slots=True)
class SetTask:
    """Only while its status is still `expected`."""

    task_id: str
    expected: TaskStatus
    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class InsertIntent:
    intent: Intent


@dataclass(frozen=True, slots=True)
class SetIntent:
    """Only while it is still of this task and attempt, and its state `expected` (compare and swap)."""

    task_id: str
    attempt: int
    expected: IntentState
    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class InsertArtifact:
    """One per task, for ever."""

    artifact: Artifact


@dataclass(frozen=True, slots=True)
class SetNotice:
    """Only while it is not settled, and was said so often."""

    notice_id: str
    sends: int
    changes: Mapping[str, Any]


NodeEffect = (
    InsertNode
    | SetNode
    | RemoveNode
    | InsertRole
    | SetRole
    | TakeNodeEpoch
    | RememberNodeConnection
    | LogEvent
    | InsertInvocation
    | SetInvocation
    | Post
    | MarkFetched
    | DropPosted
    | ArmNode
    | DisarmNode
    | InsertTask
    | SetTask
    | InsertIntent
    | SetIntent
    | InsertArtifact
    | SetNotice
)


@dataclass(frozen=True, slots=True)
class NodeDecision:
    """A refusal may have effects, too: a stale state is refused, and a probe goes out."""

    answer: Answer
    effects: tuple[NodeEffect, ...] = ()
    speech: tuple[Speech, ...] = ()
