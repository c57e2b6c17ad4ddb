"""What a decision wants done: frozen values named as imperatives. The store performs the writes inside the same
transaction; what is to be *spoken* (Speak) waits until the commit has succeeded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from actors.law.model import Approval, Command, DeadlineKind, Execution, Json, Session
from actors.law.nodes.answers import NodeAnswer
from actors.protocol.codes import Directive, NackCode

# ---------------------------------------------------------------- writes


@dataclass(frozen=True, slots=True)
class InsertSession:
    session: Session


@dataclass(frozen=True, slots=True)
class SetSession:
    """Columns of the session's row."""

    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RememberConnection:
    """This connection owned the session once: it never will again (a repeat of an old connect is a ghost)."""

    connection_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class TakeEpoch:
    """The global counter moves to `epoch`; it stood at epoch − 1."""

    epoch: int


@dataclass(frozen=True, slots=True)
class InsertExecution:
    execution: Execution


@dataclass(frozen=True, slots=True)
class SetExecution:
    """Columns of an execution, only while its status is still `expected` (compare and swap)."""

    execution_id: str
    expected: str
    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Append:
    """One event at the end of the session's stream. exec_seq: the wrapper's own number, where it has one."""

    type: str
    data: Json
    execution_id: str | None = None
    exec_seq: int | None = None


@dataclass(frozen=True, slots=True)
class Enqueue:
    command: Command


@dataclass(frozen=True, slots=True)
class SetCommand:
    command_id: str
    state: Literal["pending", "received", "done", "rejected", "withdrawn"]


@dataclass(frozen=True, slots=True)
class RequeueStart:
    """The execution's start goes out again, to whoever owns the session now."""

    execution_id: str


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Commands of the execution that are not done yet are never sent again; `only`: just these kinds."""

    execution_id: str
    only: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Arm:
    """A deadline row. `keep`: if it is armed already, leave it as it is."""

    kind: DeadlineKind
    subject: str
    due_ms: int
    execution_id: str | None = None
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Disarm:
    kind: DeadlineKind
    subject: str


@dataclass(frozen=True, slots=True)
class DisarmExecution:
    """Every deadline of the execution."""

    execution_id: str


@dataclass(frozen=True, slots=True)
class DisarmGrace:
    """Every grace deadline of the session, whatever its epoch."""


@dataclass(frozen=True, slots=True)
class InsertApproval:
    approval: Approval


@dataclass(frozen=True, slots=True)
class SetApproval:
    """Only while it is open."""

    approval_id: str
    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Notify:
    """An outbox row: tell the callback of this execution how it ended. webhook_id: the receiver's idempotency key."""

    webhook_id: str
    execution_id: str
    url_spec: Json
    body: Json


Effect = (
    InsertSession
    | SetSession
    | TakeEpoch
    | RememberConnection
    | InsertExecution
    | SetExecution
    | Append
    | Enqueue
    | SetCommand
    | RequeueStart
    | Withdraw
    | Arm
    | Disarm
    | DisarmExecution
    | DisarmGrace
    | InsertApproval
    | SetApproval
    | Notify
)

# ---------------------------------------------------------------- said after the commit


@dataclass(frozen=True, slots=True)
class CloseSocket:
    connection_id: str
    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CommandsWait:
    """The owner of the session, if it is ready, has something to fetch."""


@dataclass(frozen=True, slots=True)
class Wake:
    """The session has work: its actor should be awake."""


@dataclass(frozen=True, slots=True)
class NodeWaits:
    """This node's connections, one of them, have something to fetch."""

    node_id: str


@dataclass(frozen=True, slots=True)
class InvocationSettled:
    """Whoever waits for it reads its outcome now."""

    invocation_id: str


@dataclass(frozen=True, slots=True)
class NodeNoticed:
    """An order has something for the node to drop: whoever hears it asks TakeNotice of the node and waits for nobody.
    Lost: the deadline `notice` says it again."""

    node_id: str
    notice_id: str


Speech = CloseSocket | CommandsWait | Wake | NodeWaits | InvocationSettled | NodeNoticed

# ---------------------------------------------------------------- answers


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nothing was changed. `code` is of codes.ERRORS; `extra` are members for the problem body."""

    code: str
    detail: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RefuseConnection:
    """The socket is closed with this code."""

    code: int
    reason: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Directed:
    execution_id: str
    directive: Directive
    acked_seq: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Connected:
    epoch: int
    directives: tuple[Directed, ...]
    grace_s: float


@dataclass(frozen=True, slots=True)
class Acked:
    """Everything of the execution up to seq is stored."""

    seq: int


@dataclass(frozen=True, slots=True)
class Nacked:
    code: NackCode
    expected_seq: int | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Fenced:
    """The connection does not own the session. `code`: how its socket is to be closed (4001, 4009, 4000 or 1001)."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Show:
    """An operator's answer: the resource as it stands after the effects, rendered inside the transaction.

    data: what the decision knows and no row tells, such as which tasks it completed.
    """

    what: Literal[
        "session",
        "execution",
        "interrupt",
        "fail",
        "approval",
        "nothing",
        "node",
        "invocation",
        "task",
        "order",
        "batch",
        "adjusted",
        "completed",
        "station",
        "collector",
    ]
    status: int = 200
    execution_id: str | None = None
    approval_id: str | None = None
    changed: bool = True
    object_id: str | None = None  # of an invocation
    data: Any = None


@dataclass(frozen=True, slots=True)
class Done:
    """Settled; `changed` tells whether anything happened."""

    changed: bool


Answer = Refuse | RefuseConnection | Connected | Acked | Nacked | Fenced | Show | Done | NodeAnswer


@dataclass(frozen=True, slots=True)
class Decision:
    answer: Answer
    effects: tuple[Effect, ...] = ()
    speech: tuple[Speech, ...] = ()
