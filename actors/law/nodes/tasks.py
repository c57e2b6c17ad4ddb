"""The life of a task, and what operators and the recorder's reports do to it.

TRANSITIONS is the graph, REPORTS what a report means for each status; a pair that is absent changes nothing. Reports
are level-triggered: the decision stands on the rows as they are, so a report that comes late, twice or not at all is
made good by the next one, by a connect, or by the `task_reconcile` deadline.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from actors.law.effects import Done, Refuse, Show
from actors.law.nodes import frames
from actors.law.nodes.draft import NodeDraft
from actors.law.nodes.effects import InsertTask, NodeDecision
from actors.law.nodes.model import Intent, NodeView, Reported, Role, Task
from actors.law.nodes.requests import CreateTask, TaskReport
from actors.protocol.node_codes import HOLDING, ReportedState, TaskStatus

Step = Literal[
    "ready",
    "recording",
    "finish",
    "evidence",
    "kept",
    "lapse",
    "clear",
    "cancel",
    "upload_failed",
    "external",  # an external device did it, and its collector says so (law/orders/completion.py)
]
TRANSITIONS: Final[dict[tuple[TaskStatus, Step], TaskStatus]] = {
    ("pending", "ready"): "ready",
    ("pending", "recording"): "in_progress",
    ("pending", "evidence"): "uploading",
    ("pending", "kept"): "completed",
    ("pending", "upload_failed"): "failed",
    ("pending", "cancel"): "cancelled",
    ("pending", "external"): "completed",
    ("ready", "recording"): "in_progress",
    ("ready", "evidence"): "uploading",
    ("ready", "kept"): "completed",
    ("ready", "upload_failed"): "failed",
    ("ready", "clear"): "pending",
    ("ready", "lapse"): "pending",
    ("ready", "cancel"): "cancelled",
    ("in_progress", "finish"): "uploading",
    ("in_progress", "evidence"): "uploading",
    ("in_progress", "kept"): "completed",
    ("in_progress", "upload_failed"): "failed",
    ("in_progress", "lapse"): "pending",
    ("in_progress", "cancel"): "cancelled",
    ("uploading", "kept"): "completed",
    ("uploading", "upload_failed"): "failed",
    ("uploading", "cancel"): "cancelled",
}
# When a step is taken for the first time, its moment is written; never again.
MOMENTS: Final[dict[TaskStatus, str]] = {
    "ready": "ready_at_ms",
    "in_progress": "started_at_ms",
    "uploading": "finished_at_ms",
    "completed": "completed_at_ms",
    "cancelled": "cancelled_at_ms",
    "failed": "failed_at_ms",
}

Meaning = Literal[
    "nothing",  # it accords, or concludes nothing
    "ready",  # pulls the task to ready
    "recording",  # pulls the task to in progress
    "paused",  # it accords, and says when the recording was first paused
    "confirm",  # it accords, and takes the task back from a grace that has expired
    "finish",  # it was finished, and the device has not heard: said again
    "clear",  # it was cleared, or was recorded and set up anew: the device forgets it
    "unwanted",  # ended, or another attempt: the device is told to cancel
    "foreign",  # no task of this node: told to cancel, and why
]
REPORTS: Final[dict[tuple[TaskStatus, ReportedState], Meaning]] = {
    ("pending", "ready"): "ready",
    ("pending", "recording"): "recording",
    ("pending", "paused"): "recording",
    ("ready", "ready"): "confirm",
    ("ready", "recording"): "recording",
    ("ready", "paused"): "recording",
    ("in_progress", "recording"): "confirm",
    ("in_progress", "paused"): "paused",
    ("uploading", "ready"): "clear",
    ("uploading", "recording"): "finish",
    ("uploading", "paused"): "finish",
    ("completed", "ready"): "unwanted",
    ("completed", "recording"): "unwanted",
    ("completed", "paused"): "unwanted",
    ("failed", "ready"): "unwanted",
    ("failed", "recording"): "unwanted",
    ("failed", "paused"): "unwanted",
    ("cancelled", "ready"): "unwanted",
    ("cancelled", "recording"): "unwanted",
    ("cancelled", "paused"): "unwanted",
}


def judge(task: Task | None, role: Role) -> Meaning:
    """What the role's present report means for the task that it names (None: there is no such task of this node)."""
    said = role.reported
    if said is None or said.state not in HOLDING:
        return "nothing"
    if task is None or task.node_id != role.node_id:
        return "foreign"
    if said.attempt not in (None, task.attempt):
        return "unwanted"
    means = REPORTS.get((task.status, said.state), "nothing")
    if means == "ready" and _cleared(task, role):
        return "clear"
    if means == "paused" and task.paused_at_ms is not None:
        means = "confirm"
    if means == "confirm" and role.lapsed_epoch <= task.held_epoch:
        return "nothing"
    return means


def _cleared(task: Task, role: Role) -> bool:
    """A report of `ready` that crossed our `clear` on the way, or a `clear` that was lost."""
    wanted = role.desired
    return wanted is not None and (wanted.state, wanted.task_id, wanted.attempt) == ("idle", task.task_id, task.attempt)


def lapsed(task: Task, recorder: Role | None) -> bool:
    """A grace has expired since a report last confirmed the task there."""
    return task.busy and recorder is not None and recorder.lapsed_epoch > task.held_epoch


def uploads_say(task: Task, intent: Intent | None) -> Step | None:
    """What the intent of the present attempt means for the task."""
    if intent is None or task.terminal:
        return None
    if intent.state in ("failed", "not_found"):
        return "upload_failed"
    return "evidence" if intent.state in ("accepted", "uploaded") and task.status != "uploading" else None


def stepped(task: Task, taken: Step, wall_ms: int) -> dict[str, Any]:
    """One edge of the graph: the columns that change."""
    status = TRANSITIONS[task.status, taken]
    moment = MOMENTS.get(status)
    if moment is not None and getattr(task, moment) is None:
        return {"status": status, moment: wall_ms}
    return {"status": status}


def step(draft: NodeDraft, task: Task, taken: Step, **changes: Any) -> Task:
    return draft.set_task(task.task_id, **stepped(task, taken, draft.view.wall_ms), **changes)


# ---------------------------------------------------------------- asked


def create(view: NodeView, request: CreateTask) -> NodeDecision:
    if (known := view.tasks.get(request.task_id)) is not None:
        if known.made_by != request.seed:
            return NodeDecision(Refuse("task_exists"))
        return NodeDecision(Show("task", 201, changed=False))
    if view.node is None:
        return NodeDecision(Refuse("node_not_found"))
    task = Task(request.task_id, request.node_id, request.params, view.wall_ms, request.seed)
    return NodeDecision(Show("task", 201), (InsertTask(task),))


def report(view: NodeView, request: TaskReport) -> NodeDecision:
    """Look at what the node's rows say of the task, and follow them."""
    draft = NodeDraft(view, request.node_id)
    draft.disarm("task_reconcile", request.task_id)
    task = draft.tasks.get(request.task_id)
    ours = task if task is not None and task.node_id == request.node_id else None
    before = len(draft.effects)
    if ours is not None:
        ours = follow_uploads(draft, ours)
    recorder = draft.roles.get("recorder")
    told = recorder.reported if recorder is not None and recorder.connected and recorder.synced else None
    if recorder is not None and told is not None and told.task_id == request.task_id:
        _follow_report(draft, ours, recorder, told)
        ours = draft.tasks.get(request.task_id) if ours is not None else None
    if ours is not None and lapsed(ours, recorder):
        step(draft, ours, "lapse")
    return draft.decide(Done(changed=len(draft.effects) > before))


def follow_uploads(draft: NodeDraft, task: Task) -> Task:
    intent = draft.intents.get((task.task_id, task.attempt))
    taken = uploads_say(task, intent)
    if taken is None or intent is None:
        return task
    if taken == "upload_failed":
        return step(draft, task, taken, detail="recording_lost" if intent.state == "not_found" else "upload_failed")
    return step(draft, task, taken)


def _follow_report(draft: NodeDraft, task: Task | None, recorder: Role, said: Reported) -> None:
    means = judge(task, recorder)
    if means == "nothing":
        return
    assert said.task_id is not None
    if means in ("foreign", "unwanted") or task is None:
        attempt = said.attempt or (task.attempt if task is not None else 1)
        if means == "foreign":
            draft.post("recorder", frames.foreign_task(said.task_id))
        draft.post("recorder", frames.task_named("cancel", said.task_id, attempt))
    elif means in ("finish", "clear"):
        draft.post("recorder", frames.task(means, task))
    else:
        _pull(draft, task, means, recorder, said)


def _pull(draft: NodeDraft, task: Task, means: Meaning, recorder: Role, said: Reported) -> None:
    changes: dict[str, Any] = {"held_epoch": recorder.connection_epoch}
    if said.state == "paused" and task.paused_at_ms is None:
        changes["paused_at_ms"] = draft.view.wall_ms
    if means == "ready":
        step(draft, task, "ready", **changes)
    elif means == "recording":
        step(draft, task, "recording", began=True, **changes)
    else:  # confirm, paused: it stands where it stood
        draft.set_task(task.task_id, **changes)
