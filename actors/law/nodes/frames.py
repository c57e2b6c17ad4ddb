"""The frames that decisions send to a node (protocol/node_frames.py has the models; a test holds the two together)."""

from __future__ import annotations

from actors.law.model import Json
from actors.law.nodes.answers import Frame
from actors.law.nodes.model import Invocation, Task
from actors.protocol.codes import ERRORS
from actors.protocol.node_codes import Disposition, TaskActionName


def invoke(invocation: Invocation, service_ms: int) -> Frame:
    """within_s: what is left of its time at this moment."""
    due = invocation.due_service_ms
    return {
        "type": "invoke",
        "invocation_id": invocation.invocation_id,
        "command": invocation.command,
        "params": invocation.params,
        "within_s": None if due is None else max(0.0, (due - service_ms) / 1000),
        "idempotency_key": invocation.idempotency_key or invocation.invocation_id,
    }


def invoke_cancel(invocation_id: str) -> Frame:
    return {"type": "invoke_cancel", "invocation_id": invocation_id}


def task(action: TaskActionName, task: Task, params: Json = None) -> Frame:
    return task_named(action, task.task_id, task.attempt, params)


def task_named(action: TaskActionName, task_id: str, attempt: int, params: Json = None) -> Frame:
    return {"type": "task", "action": action, "task_id": task_id, "attempt": attempt, "params": params}


def probe() -> Frame:
    return {"type": "probe"}


def upload_request(task_id: str, attempt: int) -> Frame:
    return {"type": "upload_request", "task_id": task_id, "attempt": attempt}


def upload_ack(task_id: str, attempt: int, disposition: Disposition) -> Frame:
    return {"type": "upload_ack", "task_id": task_id, "attempt": attempt, "disposition": disposition}


def foreign_task(task_id: str) -> Frame:
    return {"type": "error", "code": "foreign_task", "message": f"{task_id}: {ERRORS['foreign_task'].title}"}
