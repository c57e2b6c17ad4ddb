"""What a due deadline of a node means. A sweep is a transition: it stands on the rows as they are now."""

from __future__ import annotations

from typing import assert_never

from actors.law.effects import Done
from actors.law.nodes import invocations, notices, uploads
from actors.law.nodes.answers import Upward
from actors.law.nodes.connect import sweep_grace
from actors.law.nodes.draft import NodeDraft
from actors.law.nodes.effects import NodeDecision
from actors.law.nodes.model import NodeView
from actors.law.nodes.requests import NodeSweep, TaskReport
from actors.law.nodes.shadow import report_upward, sweep_probe
from actors.law.requests import nth_id
from actors.protocol.defaults import TASK_RECONCILE_S


def sweep(view: NodeView, request: NodeSweep) -> NodeDecision:
    if view.node is None or view.deadline_due is None or view.service_ms < view.deadline_due:
        return NodeDecision(Done(changed=False))
    draft = NodeDraft(view, request.node_id)
    key = request.subject_key
    draft.disarm(request.kind, key)
    changed, upward = False, Upward()
    match request.kind:
        case "invocation" | "invocation_idle":
            changed = invocations.sweep(draft, key)
        case "grace":
            changed = sweep_grace(draft, key)
            upward = report_upward(draft, request.seed) if changed else upward
        case "probe":
            changed = sweep_probe(draft, key)
        case "upload_resend":
            told = uploads.sweep(draft, key)
            changed, upward = told is not None, told or upward
        case "task_reconcile":
            # It was said, and its task has not heard: said again, until the task's own transition takes the row away.
            draft.arm("task_reconcile", key, TASK_RECONCILE_S)
            report = TaskReport(
                task_id=key,
                order_id=draft.order_of(key),
                node_id=request.node_id,
                seed=nth_id("s", request.seed, 1)[2:],
            )
            changed, upward = True, Upward((report,))
        case "notice":
            changed = notices.take(draft, key)
        case _:
            assert_never(request.kind)
    return draft.decide(upward if upward.tasks or upward.verify else Done(changed=changed))
