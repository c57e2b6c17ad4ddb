"""The `data` of every event that Holdfast writes, by type: what consumers may read, for ever. Payloads only grow.

tests/contract/golden pins the keys; the events of a wrapper (`output` and its own types) carry what the agent said.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from actors.protocol.codes import EVENT_TYPES, Cause, GapReason
from actors.protocol.fields import Count, Id, Seq


class Payload(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Nothing(Payload):
    pass


class By(Payload):
    by: str | None


class ExecutionStarted(Payload):
    pid: int | None


class Ended(Payload):
    """Of a terminal event. `fatal` stands there with a cause; the last three with the cause `disconnected`."""

    status: Literal["completed", "failed", "interrupted"]
    cause: Cause | None
    error: str | None
    exit_code: int | None
    signal: str | int | None
    data: dict[str, Any]
    interrupt_id: Id | None
    fatal: Literal[True] | None = None
    reason: str | None = None
    ws_close_code: int | None = None
    ws_close_reason: str | None = None


class LateFinal(Payload):
    execution_id: Id
    final: dict[str, Any] | None


class InterruptRequested(Payload):
    interrupt_id: Id
    by: str | None
    reason: str | None
    force: bool


class InterruptMoved(Payload):
    interrupt_id: Id


class WrapperHere(Payload):
    connection_id: Id
    epoch: Count
    wrapper_id: Id
    instance_id: Id
    attempt: Count
    client: dict[str, Any]


class WrapperGone(Payload):
    connection_id: Id
    reason: str
    ws_close_code: int | None
    ws_close_reason: str
    error: str | None  # null: it said goodbye
    fatal: Literal[False]


class WrapperSuperseded(Payload):
    wrapper_id: Id | None
    by: Id


class ApprovalAsked(Payload):
    approval_id: Id
    title: str
    options: list[str]
    expires_at_ms: Count | None
    data: dict[str, Any]


class ApprovalResolved(Payload):
    approval_id: Id
    decision: str
    note: str | None
    by: str | None


class ApprovalOver(Payload):
    approval_id: Id


class OutputGap(Payload):
    from_seq: Seq
    to_seq: Seq
    bytes: Count
    reason: GapReason


class OutputRewound(Payload):
    acked_seq: Count
    spool_last_seq: Count


PAYLOADS: Final[dict[str, type[Payload]]] = {
    "execution.queued": By,
    "execution.pending": Nothing,
    "execution.started": ExecutionStarted,
    "execution.completed": Ended,
    "execution.failed": Ended,
    "execution.interrupted": Ended,
    "execution.late_final": LateFinal,
    "interrupt.requested": InterruptRequested,
    "interrupt.delivered": InterruptMoved,
    "interrupt.acknowledged": InterruptMoved,
    "wrapper.connected": WrapperHere,
    "wrapper.disconnected": WrapperGone,
    "wrapper.resumed": WrapperHere,
    "wrapper.superseded": WrapperSuperseded,
    "approval.requested": ApprovalAsked,
    "approval.resolved": ApprovalResolved,
    "approval.expired": ApprovalOver,
    "approval.cancelled": ApprovalOver,
    "output.gap": OutputGap,
    "output.rewound": OutputRewound,
    "session.closed": By,
}
assert PAYLOADS.keys() == EVENT_TYPES.keys()
