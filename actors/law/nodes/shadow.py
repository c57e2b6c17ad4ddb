"""The shadow of a device: what it reports against what was asked of it, and how it is asked again.

A role is unsynced until a valid report came on its present connection. `unknown`, or silence after a command, makes it
unsynced and concludes nothing: the device is probed until it says its state, and is never failed by it.
"""

from __future__ import annotations

from typing import Any

from actors.law.effects import Done
from actors.law.nodes import frames, notices
from actors.law.nodes.answers import Upward
from actors.law.nodes.draft import NodeDraft
from actors.law.nodes.effects import NodeDecision
from actors.law.nodes.fence import fence
from actors.law.nodes.model import NodeView, Reported
from actors.law.nodes.requests import NodeState, TaskReport
from actors.law.nodes.tasks import judge, lapsed
from actors.law.requests import nth_id
from actors.protocol.defaults import PROBE_S, REPORT_WITHIN_S, TASK_RECONCILE_S
from actors.protocol.node_codes import SHADOWED
from actors.protocol.node_codes import Role as RoleName


def valid(reported: Reported | None) -> bool:
    return reported is not None and reported.state != "unknown"


def noted(draft: NodeDraft, reported: Reported) -> dict[str, Any]:
    """The columns of a report."""
    return {
        "reported_state": reported.state,
        "reported_task_id": reported.task_id,
        "reported_attempt": reported.attempt,
        "reported_at_ms": draft.view.wall_ms,
        "reported_service_ms": draft.view.service_ms,
        "synced": valid(reported),
    }


def log_state(draft: NodeDraft, role: RoleName, before: Reported | None, now: Reported) -> None:
    """Only what changed: a device repeats itself every few seconds."""
    if before != now:
        draft.log("node.state", {"role": role, "state": now.state, "task_id": now.task_id, "attempt": now.attempt})


def receive_state(view: NodeView, frame: NodeState) -> NodeDecision:
    if fenced := fence(view, frame):
        return NodeDecision(fenced)
    draft = NodeDraft(view, frame.node_id)
    before = draft.roles[frame.role]
    role = draft.set_role(
        frame.role,
        **noted(draft, frame.reported),
        last_seen_service_ms=view.service_ms,
        last_seen_at_ms=view.wall_ms,
    )
    log_state(draft, frame.role, before.reported, frame.reported)
    if frame.role in SHADOWED:
        if role.synced:
            draft.disarm("probe", role.key)
        else:  # asked again after a while, not at once: its answer would be the same
            draft.arm("probe", role.key, PROBE_S, keep=True)
    if frame.role == "recorder":
        notices.heard(draft)
    upward = report_upward(draft, frame.seed)
    return draft.decide(upward if upward.tasks else Done(changed=True))


def probe_now(draft: NodeDraft, name: RoleName, *, in_doubt: bool = True) -> None:
    """Asks for its state, and again every PROBE_S until it says it. in_doubt False: it is only old, so far."""
    role = draft.roles[name]
    if role.synced and in_doubt:
        role = draft.set_role(name, synced=False)
    draft.post(name, frames.probe())
    draft.arm("probe", role.key, PROBE_S)


def expect_report(draft: NodeDraft, name: RoleName) -> None:
    """A command went out: silence from now on puts the state in doubt."""
    draft.arm("probe", draft.roles[name].key, REPORT_WITHIN_S, keep=True)


def sweep_probe(draft: NodeDraft, key: str) -> bool:
    name, _, epoch = key.partition(":")
    role = next((r for r in draft.roles.values() if r.role == name), None)
    if role is None or not role.connected or str(role.connection_epoch) != epoch:
        return False
    probe_now(draft, role.role)
    return True


# ---------------------------------------------------------------- upward


def report_upward(draft: NodeDraft, seed: str, also: tuple[str, ...] = ()) -> Upward:
    """The tasks that the rows as they will stand have news for. A deadline says it again, should the asker die between
    this commit and the task's own."""
    recorder = draft.roles.get("recorder")
    wanted = dict.fromkeys(also)
    if recorder is not None and recorder.connected and recorder.synced:
        told = recorder.reported
        if (
            told is not None
            and told.task_id is not None
            and judge(draft.tasks.get(told.task_id), recorder) != "nothing"
        ):
            wanted[told.task_id] = None
    wanted |= dict.fromkeys(t.task_id for t in draft.busy_tasks() if lapsed(t, recorder))
    for task_id in wanted:
        draft.arm("task_reconcile", task_id, TASK_RECONCILE_S, keep=True)
    return Upward(
        tuple(
            TaskReport(
                task_id=task_id,
                order_id=draft.order_of(task_id),
                node_id=draft.node_id,
                seed=nth_id("s", seed, 1 + k)[2:],
            )
            for k, task_id in enumerate(wanted)
        )
    )
