"""What may be asked of a session. Plain frozen values, so that they travel to an actor and can be asked again.

Every request is idempotent: `seed` (a ULID minted by whoever asks, before the first call) makes its ids, so that a
repeat after an unknown outcome decides to the same effect. `by` names the asker for people and audit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from actors.law.model import DeadlineKind, Json
from actors.protocol.codes import Cause

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def nth_id(prefix: str, seed: str, k: int) -> str:
    """The k-th id of a seed: the ULID counted up by k, so a repeated request makes the same ids. Pure."""
    value = 0
    for char in seed:
        value = value * 32 + _CROCKFORD.index(char)
    value = (value & ~0xFFFF) | ((value + k) & 0xFFFF)
    return f"{prefix}_" + "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """addressee: the subject whose mailbox decides it: a session's bare id, `node/<id>`, `order/<id>`, `task/<id>`,
    `station/<id>` or `collector/<id>` (an id has no slash). Not called `subject`: a deadline has one of its own."""

    seed: str

    @property
    def addressee(self) -> str:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest(Request):
    session_id: str

    @property
    def addressee(self) -> str:
        return self.session_id

    @staticmethod
    def owns(subject: str) -> bool:
        """Whether this is the name of a session: an id has no slash, every other kind's name has one."""
        return "/" not in subject

    def executions_named(self) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateSession(SessionRequest):
    title: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, float | None] = field(default_factory=dict)
    callback: Json | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteSession(SessionRequest):
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit(SessionRequest):
    execution_id: str
    input: Json = None
    limits: Mapping[str, float | None] = field(default_factory=dict)
    callback: Json | None = None
    by: str | None = None

    def executions_named(self) -> tuple[str, ...]:
        return (self.execution_id,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupt(SessionRequest):
    execution_id: str | None = None  # None: the active one
    reason: str | None = None
    force: bool = False
    by: str | None = None

    def executions_named(self) -> tuple[str, ...]:
        return (self.execution_id,) if self.execution_id else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail(SessionRequest):
    execution_id: str
    cause: Cause = "operator"
    error: str = ""
    by: str | None = None

    def executions_named(self) -> tuple[str, ...]:
        return (self.execution_id,)


@dataclass(frozen=True, slots=True, kw_only=True)
class SendInput(SessionRequest):
    execution_id: str
    input: Json = None
    by: str | None = None

    def executions_named(self) -> tuple[str, ...]:
        return (self.execution_id,)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolveApproval(SessionRequest):
    approval_id: str
    decision: str
    note: str | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored(SessionRequest):
    """The store came back from a backup: what happened after it is not known here any more."""


# ---------------------------------------------------------------- from the wrapper, by way of the gateway


@dataclass(frozen=True, slots=True)
class Reported:
    """One line of hello.executions[]."""

    execution_id: str
    state: Literal["received", "running", "final"]
    first_seq: int = 1
    last_seq: int = 0
    final: Json | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect(SessionRequest):
    connection_id: str
    gateway_id: str
    wrapper_id: str
    instance_id: str
    attempt: int
    executions: tuple[Reported, ...] = ()
    spool_ok: bool = True
    client: Json = field(default_factory=dict)

    def executions_named(self) -> tuple[str, ...]:
        return tuple(e.execution_id for e in self.executions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed(SessionRequest):
    connection_id: str
    code: int | None = None
    close_reason: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Framed(SessionRequest):
    """A control frame of a connection. `epoch` is what hello_ack gave it, `instance_id` what its hello said."""

    connection_id: str
    epoch: int
    instance_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Framed):
    execution_id: str
    seq: int
    pid: int | None = None

    def executions_named(self) -> tuple[str, ...]:
        return (self.execution_id,)


@dataclass(frozen=True, slots=True, kw_only=True)
class AskApproval(Framed):
    execution_id: str
    seq: int
    approval_id: str
    title: str
    options: tuple[str, ...]
    expires_in_s: float | None = None
    data: Json = field(default_factory=dict)

    def executions_named(self) -> tuple[str, ...]:
        return (self.execution_id,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Final(Framed):
    execution_id: str
    seq: int
    status: Literal["completed", "failed", "interrupted"]
    exit_code: int | None = None
    signal: str | int | None = None
    error: str | None = None
    data: Json = field(default_factory=dict)

    def executions_named(self) -> tuple[str, ...]:
        return (self.execution_id,)


@dataclass(frozen=True, slots=True, kw_only=True)
class AckCommand(Framed):
    command_id: str
    status: Literal["received", "done", "rejected"]
    code: str | None = None
    detail: str | None = None


# ---------------------------------------------------------------- from the reaper


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep(SessionRequest):
    """Deadline `kind` of `subject` (an execution id, an approval id, or an epoch as text) may be due."""

    kind: DeadlineKind
    subject: str

    def executions_named(self) -> tuple[str, ...]:
        return (self.subject,) if self.kind not in ("grace", "approval") else ()


# What operators ask. (The others are idempotent by their numbers, their connection, or the deadline's row.)
BY_OPERATORS = (CreateSession, DeleteSession, Submit, Interrupt, Fail, SendInput, ResolveApproval)
