"""What operators do to a task: config, begin, pause, resume, finish, cancel, clear; each through its gate.

A gate that is shut is a refusal with its reason, and changes nothing; but a device whose state is not known well
enough is asked for it, so that trying again helps.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from actors.law.effects import Refuse, Show
from actors.law.nodes import frames
from actors.law.nodes.draft import NodeDraft
from actors.law.nodes.effects import NodeDecision
from actors.law.nodes.model import Intent, NodeView, Role, Standing, Task
from actors.law.nodes.requests import TaskAction
from actors.law.nodes.shadow import expect_report, probe_now
from actors.law.nodes.tasks import step
from actors.law.nodes.uploads import discard, request_upload
from actors.protocol.defaults import FRESH_S
from actors.protocol.node_codes import ReportedState, TaskActionName, TaskStatus


class Gate(NamedTuple):
    """status: the task's. reported: what the recorder has to say of this very task (None: whatever it says; `idle`
    names no task). device: it takes a recorder that is connected and synced. fresh: and heard of lately."""

    status: TaskStatus
    reported: frozenset[ReportedState] | None
    desired: ReportedState
    device: bool = True
    fresh: bool = True
    starts: bool = False  # refused on a drained node, and while another task occupies the recorder


GATES: Final[dict[TaskActionName, Gate]] = {
    "config": Gate("pending", frozenset({"idle", "ready"}), "ready", fresh=False, starts=True),
    "begin": Gate("ready", frozenset({"ready"}), "recording", starts=True),
    "pause": Gate("in_progress", frozenset({"recording"}), "paused"),
    "resume": Gate("in_progress", frozenset({"paused"}), "recording"),
    "finish": Gate("in_progress", None, "idle"),
    "clear": Gate("ready", None, "idle", device=False),
}


def act(view: NodeView, request: TaskAction) -> NodeDecision:
    task = view.tasks.get(request.task_id)
    if task is None:
        return NodeDecision(Refuse("task_not_found"))
    if request.attempt not in (None, task.attempt):
        why = f"attempt {request.attempt} was asked, the task is at {task.attempt}"
        return NodeDecision(Refuse("attempt_mismatch", why, {"attempt": task.attempt}))
    if _again(task, request.action, view):
        return NodeDecision(Show("task", 202, changed=False))
    draft = NodeDraft(view, task.node_id)
    if request.action == "cancel":
        refusal = None if not task.terminal else _shut("task_terminal", task, f"the task is {task.status}")
    else:
        refusal = _order_gate(view.standing, task, request) or _gate(draft, task, GATES[request.action])
    if refusal is not None:
        return draft.decide(refusal)
    _carry_out(draft, task, request)
    return draft.decide(Show("task", 202))


def _again(task: Task, action: TaskActionName, view: NodeView) -> bool:
    """The same act, again: the same answer, and nothing happens."""
    if action == "cancel":
        return task.status == "cancelled"
    if action == "finish":
        return task.status in ("uploading", "completed")
    recorder = view.roles.get("recorder")
    if action == "config" and task.status == "ready" and recorder is not None:
        return recorder.connected and recorder.synced and _says(recorder, task, frozenset({"ready"}))
    return False


def _says(recorder: Role, task: Task, states: frozenset[ReportedState]) -> bool:
    said = recorder.reported
    if said is None or said.state not in states:
        return False
    return said.state == "idle" or (said.task_id == task.task_id and said.attempt in (None, task.attempt))


def _shut(reason: str, task: Task, detail: str) -> Refuse:
    return Refuse("task_conflict", detail, {"reason": reason, "current_status": task.status})


def _order_gate(standing: Standing | None, task: Task, request: TaskAction) -> Refuse | None:
    """Of a task that an order owns nothing new begins while the order is paused, or where its station is not."""
    if standing is None or not GATES[request.action].starts:
        return None
    if standing.order_status == "paused":
        return Refuse("order_paused", "", {"current_status": "paused"})
    if standing.bound_node_id != task.node_id:
        return _shut("station_unbound", task, "the task's station is not bound to its node now")
    return None


def _gate(draft: NodeDraft, task: Task, gate: Gate) -> Refuse | None:
    view, recorder = draft.view, draft.connected("recorder")
    if task.status != gate.status:
        return _shut(f"task_not_{gate.status}", task, f"the task is {task.status}, not {gate.status}")
    if not gate.device:
        return None
    if gate.starts and (view.node is None or view.node.drained):
        return _shut("node_drained", task, "the node is drained: it begins nothing new")
    if recorder is None:
        return _shut("recorder_not_connected", task, "the node's recorder is not connected")
    silent_ms = view.service_ms - recorder.reported_service_ms
    if not recorder.synced or (gate.fresh and silent_ms > FRESH_S * 1000):
        probe_now(draft, "recorder", in_doubt=False)
        return Refuse("state_unknown", f"the recorder's state is not known as of the last {FRESH_S:g} s")
    if gate.starts and (other := draft.busy_tasks(but=task.task_id)):
        return _shut("recorder_busy", task, f"the recorder is occupied by {other[0].task_id}")
    if gate.reported is not None and not _says(recorder, task, gate.reported):
        said = recorder.reported
        wanted = " or ".join(sorted(gate.reported))
        return _shut(f"device_not_{min(gate.reported)}", task, f"the recorder says {said and said.state}, not {wanted}")
    return None


def _carry_out(draft: NodeDraft, task: Task, request: TaskAction) -> None:
    action = request.action
    if action == "config" and task.began:
        # What was recorded under the old number is another attempt's: it is not mixed with what comes now.
        task = draft.set_task(task.task_id, attempt=task.attempt + 1, began=False)
    elif action == "clear":
        task = step(draft, task, "clear")
    elif action == "cancel":
        task = step(draft, task, "cancel", detail="cancelled by an operator")
        discard(draft, task)
    elif action == "finish":
        task = step(draft, task, "finish")
    _tell(draft, task, request)
    if action == "finish" and (task.task_id, task.attempt) not in draft.intents:
        draft.insert_intent(Intent(task.task_id, task.attempt, task.node_id, "requested", draft.view.wall_ms))
        request_upload(draft, task.task_id, task.attempt)


def _tell(draft: NodeDraft, task: Task, request: TaskAction) -> None:
    """Downward is a row of the outbox, never a call. A device that is away is told when it comes back and reports."""
    recorder = draft.roles.get("recorder")
    if recorder is None:
        return
    wanted: ReportedState = "idle" if request.action == "cancel" else GATES[request.action].desired
    if request.action == "cancel" and task.task_id not in (recorder.desired_task_id, recorder.reported_task_id):
        return  # it never heard of it
    draft.set_role("recorder", desired_state=wanted, desired_task_id=task.task_id, desired_attempt=task.attempt)
    if draft.post("recorder", frames.task(request.action, task, task.params if request.action == "config" else None)):
        expect_report(draft, "recorder")
    draft.log(
        "node.command",
        {
            "stage": "requested",
            "command": f"task.{request.action}",
            "role": "recorder",
            "task_id": task.task_id,
            "attempt": task.attempt,
            "by": request.by,
        },
    )
