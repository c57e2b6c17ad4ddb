"""The values that the law reasons over, exactly as they stand in rows. Nothing here decides anything.

Times: `*_at_ms` is wall time (Unix ms, for people); names with `service` are service time (ms), for deadlines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from actors.protocol.codes import ACTIVE, TERMINAL, Cause, CommandKind, Link, Status

Json = Any  # a decoded JSON value
Takeover = Literal["latest_wins", "stale_only"]
DeadlineKind = Literal["pending_start", "stale", "grace", "hung", "max_runtime", "ladder", "spool_lost", "approval"]
WALL_KINDS: frozenset[DeadlineKind] = frozenset({"approval"})  # DESIGN §2.7: approvals expire by the wall


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds; None is off."""

    pending_s: float | None
    stale_s: float | None
    grace_s: float | None
    hung_s: float | None
    max_runtime_s: float | None
    interrupt_s: float | None

    def over(self, *overrides: Mapping[str, float | None]) -> Limits:
        """Later mappings win; a key that is absent inherits, a key that is None turns the limit off."""
        merged = {f.name: getattr(self, f.name) for f in fields(self)}
        for override in overrides:
            merged.update({k: v for k, v in override.items() if k in merged})
        return Limits(**merged)

    def as_dict(self) -> dict[str, float | None]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, slots=True)
class Policy:
    """What configuration says and the law needs; the same in every process of one service."""

    limits: Limits
    queue_limit: int = 10
    takeover: Takeover = "latest_wins"
    takeover_threshold_s: float = 60.0
    node_commands: tuple[str, ...] = ("*",)  # what nodes may be asked, service-wide; `*` at an end is any ending


@dataclass(frozen=True, slots=True)
class Session:
    session_id: str
    stream_id: str
    title: str | None
    labels: Mapping[str, str]
    created_at_ms: int
    updated_at_ms: int
    last_seq: int
    first_seq: int
    limits: Mapping[str, float | None]
    callback: Json | None
    link: Link = "offline"
    connection_id: str | None = None
    connection_epoch: int = 0
    wrapper_id: str | None = None
    instance_id: str | None = None
    attempt: int = 0
    gateway_id: str | None = None
    last_seen_service_ms: int = 0
    last_seen_at_ms: int | None = None
    grace_until_ms: int | None = None
    grace_execution_id: str | None = None  # what was active when the owner was lost; grace is about nothing else
    lost_code: int | None = None
    lost_reason: str | None = None
    deleted_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Execution:
    execution_id: str
    session_id: str
    ordinal: int
    status: Status
    input: Json
    limits: Mapping[str, float | None]
    callback: Json | None
    created_at_ms: int
    wrapper_id: str | None = None  # whose `started` was applied: nobody else may run it
    received_at_ms: int | None = None
    started_at_ms: int | None = None
    ended_at_ms: int | None = None
    acked_seq: int = 0
    last_progress_service_ms: int = 0
    last_progress_at_ms: int | None = None
    interrupt_id: str | None = None
    interrupt_stage: str | None = None
    interrupt_by: str | None = None
    interrupt_reason: str | None = None
    interrupt_force: bool = False
    interrupt_at_ms: int | None = None
    cause: Cause | None = None
    error: str | None = None
    exit_code: int | None = None
    signal: str | int | None = None
    data: Json = field(default_factory=dict)
    late_final: bool = False

    @property
    def active(self) -> bool:
        return self.status in ACTIVE

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL


@dataclass(frozen=True, slots=True)
class Command:
    command_id: str
    session_id: str
    execution_id: str
    kind: CommandKind
    payload: Json
    state: Literal["pending", "received", "done", "rejected", "withdrawn"] = "pending"


@dataclass(frozen=True, slots=True)
class Approval:
    approval_id: str
    session_id: str
    execution_id: str
    title: str
    options: tuple[str, ...]
    data: Json
    created_at_ms: int
    expires_at_ms: int | None
    state: Literal["open", "resolved", "expired", "cancelled"] = "open"
    decision: str | None = None
    note: str | None = None
    resolved_by: str | None = None
    resolved_at_ms: int | None = None
    resolved_seed: str | None = None  # the request that resolved it: a repeat of that request is no second decision


@dataclass(frozen=True, slots=True)
class View:
    """Every row that a decision may stand on, read inside the decision's own write transaction.

    executions: all that are not terminal, and those that the request names. approvals: the open ones and the named one.
    command: the one that the request names. deadline_due: when the swept deadline is due, None if the row is gone.
    door_open: the gateway that a Connect names is alive. connection_used: its connection_id owned a session before.
    """

    session: Session | None
    executions: Mapping[str, Execution]
    approvals: Mapping[str, Approval]
    command: Command | None
    deadline_due: int | None
    service_ms: int
    wall_ms: int
    next_epoch: int
    next_ordinal: int
    policy: Policy
    door_open: bool = True
    connection_used: bool = False

    @property
    def active(self) -> Execution | None:
        return next((e for e in self.executions.values() if e.active), None)

    @property
    def queued(self) -> tuple[Execution, ...]:
        return tuple(sorted((e for e in self.executions.values() if e.status == "queued"), key=lambda e: e.ordinal))

    def limits_of(self, execution: Execution | None = None) -> Limits:
        session = self.session.limits if self.session else {}
        return self.policy.limits.over(session, execution.limits if execution else {})
