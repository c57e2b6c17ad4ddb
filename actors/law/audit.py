"""What an operator did, as a line for the audit: who, what, on what, and how it came out. Never a payload, never a text
that somebody wrote: reasons, inputs and notes may hold anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from actors.law import requests
from actors.law.effects import Answer, Refuse, Show
from actors.law.nodes import requests as nodes
from actors.law.orders import requests as orders


@dataclass(frozen=True, slots=True)
class Act:
    """by: a token's id; None: a program inside the service. outcome: ok, unchanged, or the code of the refusal."""

    action: str
    by: str | None
    session_id: str | None = None
    execution_id: str | None = None
    object_id: str | None = None  # an approval, a token, a webhook, a node, an invocation, a task, an enrolment, …
    outcome: str = "ok"


ACTIONS: Final[dict[type[requests.Request], str]] = {
    requests.CreateSession: "session.create",
    requests.DeleteSession: "session.delete",
    requests.Submit: "execution.submit",
    requests.Interrupt: "execution.interrupt",
    requests.Fail: "execution.fail",
    requests.SendInput: "execution.input",
    requests.ResolveApproval: "approval.resolve",
    nodes.CreateNode: "node.create",
    nodes.ChangeNode: "node.change",
    nodes.ForgetNode: "node.forget",
    nodes.Invoke: "node.invoke",
    nodes.CancelInvocation: "invocation.cancel",
    nodes.CreateTask: "task.create",
    nodes.TaskAction: "task.action",
    orders.CreateOrder: "order.create",
    orders.ChangeOrder: "order.change",
    orders.DeleteOrder: "order.delete",
    orders.DispatchBatch: "batch.dispatch",
    orders.AdjustBatch: "batch.adjust",
    orders.ChangeBatch: "batch.change",
    orders.RecallBatch: "batch.recall",
    orders.DeleteBatch: "batch.delete",
    orders.CompleteTasks: "batch.complete",
    orders.CreateStation: "station.create",
    orders.ChangeStation: "station.change",
    orders.DeleteStation: "station.delete",
    orders.CreateCollector: "collector.create",
    orders.ChangeCollector: "collector.change",
    orders.DeleteCollector: "collector.delete",
}
# What the act was done to, by the first of these that the request has.
_OBJECTS: Final = (
    "approval_id",
    "invocation_id",
    "task_id",
    "batch_id",
    "order_id",
    "station_id",
    "node_id",
    "collector_id",
)


def act_of(request: requests.Request, answer: Answer) -> Act | None:
    """None: not an operator's doing (a frame, a sweep)."""
    action = ACTIONS.get(type(request))
    if action is None:
        return None
    execution_id = getattr(request, "execution_id", None)
    outcome = "ok"
    if isinstance(answer, Refuse):
        outcome = answer.code
    elif isinstance(answer, Show):
        execution_id = execution_id or answer.execution_id
        outcome = "ok" if answer.changed else "unchanged"
    return Act(
        action,
        getattr(request, "by", None),
        getattr(request, "session_id", None),
        execution_id,
        next((found for name in _OBJECTS if (found := getattr(request, name, None)) is not None), None),
        outcome,
    )
