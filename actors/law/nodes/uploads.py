"""Upload intents: we want the recording of an attempt, durably, until the device has brought it and may delete it.

    requested → accepted → uploaded → kept | discarded | failed | not_found
TRANSITIONS is the graph. Commit first, acknowledge second: `upload_ack` is an outbox row of the transaction that
stored what it acknowledges. A device is never told to delete what we do not know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, Literal

from actors.law.effects import Done, Refuse
from actors.law.nodes import frames
from actors.law.nodes.answers import Frame, Upward
from actors.law.nodes.draft import NodeDraft
from actors.law.nodes.effects import InsertArtifact, NodeDecision
from actors.law.nodes.fence import fence
from actors.law.nodes.model import Artifact, Intent, NodeView, Task, UploadReport, upload_key
from actors.law.nodes.requests import NodeConnect, NodeUpload, UploadVerified
from actors.law.nodes.shadow import report_upward
from actors.law.nodes.tasks import step, uploads_say
from actors.protocol.defaults import UPLOAD_RESEND_S, UPLOAD_TRIES
from actors.protocol.node_codes import Disposition, IntentState

Step = Literal["accepted", "uploaded", "failed", "gave_up", "not_found", "kept", "mismatch", "discarded", "forgotten"]
TRANSITIONS: Final[dict[tuple[IntentState, Step], IntentState]] = {
    ("requested", "accepted"): "accepted",
    ("requested", "uploaded"): "uploaded",
    ("requested", "failed"): "requested",
    ("requested", "gave_up"): "failed",
    ("requested", "not_found"): "not_found",
    ("requested", "discarded"): "discarded",
    ("accepted", "uploaded"): "uploaded",
    ("accepted", "failed"): "requested",
    ("accepted", "gave_up"): "failed",
    ("accepted", "not_found"): "not_found",
    ("accepted", "discarded"): "discarded",
    ("accepted", "forgotten"): "requested",
    ("uploaded", "uploaded"): "uploaded",
    ("uploaded", "kept"): "kept",
    ("uploaded", "mismatch"): "requested",
    ("uploaded", "gave_up"): "failed",
    ("uploaded", "discarded"): "discarded",
}


def resend_after_s(sends: int) -> float:
    """10, 20, 40, 60, 60, …: after the n-th request."""
    return UPLOAD_RESEND_S[min(max(sends, 1), len(UPLOAD_RESEND_S)) - 1]


def _move(draft: NodeDraft, intent: Intent, taken: Step, **changes: object) -> Intent:
    return draft.set_intent(intent.task_id, intent.attempt, state=TRANSITIONS[intent.state, taken], **changes)


def request_upload(draft: NodeDraft, task_id: str, attempt: int, send: Callable[[Frame], None] | None = None) -> None:
    """Once more, if the uploader is there; and again after a while, until there is evidence. Away: it is asked when
    it comes back."""
    if draft.connected("transfer") is None:
        return
    intent = draft.intents[task_id, attempt]
    frame = frames.upload_request(task_id, attempt)
    if send is None:
        draft.post("transfer", frame)
    else:
        send(frame)
    sends = draft.set_intent(task_id, attempt, sends=intent.sends + 1).sends
    draft.arm("upload_resend", intent.key, resend_after_s(sends))


def discard(draft: NodeDraft, task: Task) -> None:
    """Nobody wants its recordings any more. The device hears it when it next tells of them."""
    for intent in list(draft.intents.values()):
        if intent.task_id == task.task_id and intent.open:
            _close(draft, intent, "discarded")


def _close(draft: NodeDraft, intent: Intent, taken: Step, **changes: object) -> None:
    _move(draft, intent, taken, **changes)
    draft.disarm("upload_resend", intent.key)


# ---------------------------------------------------------------- what the device tells


def receive_upload(view: NodeView, frame: NodeUpload) -> NodeDecision:
    if fenced := fence(view, frame):
        return NodeDecision(fenced)
    if frame.role != "transfer":
        return NodeDecision(Refuse("bad_request", "uploads are told by the role transfer"))
    draft = NodeDraft(view, frame.node_id)
    draft.set_role("transfer", last_seen_service_ms=view.service_ms, last_seen_at_ms=view.wall_ms)
    if _foreign(draft, frame.report):
        return draft.decide(Refuse("foreign_task", f"{frame.report.task_id} is no task of this node"))
    verify = take_report(draft, frame.report, lambda out: _post(draft, out))
    upward = report_upward(draft, frame.seed, news(draft, (frame.report.task_id,)))
    if upward.tasks or verify:
        return draft.decide(Upward(upward.tasks, verify))
    return draft.decide(Done(changed=True))


def _post(draft: NodeDraft, out: Frame) -> None:
    draft.post("transfer", out)


def _foreign(draft: NodeDraft, told: UploadReport) -> bool:
    """No task of this node, or an attempt that was never begun: not ours to judge, and certainly not to delete."""
    task = draft.tasks.get(told.task_id)
    return task is None or task.node_id != draft.node_id or told.attempt > task.attempt


def news(draft: NodeDraft, task_ids: tuple[str, ...]) -> tuple[str, ...]:
    """Those whose intent says something that their status does not."""
    told = [task for tid in dict.fromkeys(task_ids) if (task := draft.tasks.get(tid)) and task.node_id == draft.node_id]
    return tuple(t.task_id for t in told if uploads_say(t, draft.intents.get((t.task_id, t.attempt))) is not None)


def take_report(draft: NodeDraft, told: UploadReport, send: Callable[[Frame], None]) -> tuple[UploadReport, ...]:
    """One recording of a task of this node. Returns what is to be verified."""
    task = draft.tasks[told.task_id]
    ended = _unwanted(task) or told.attempt < task.attempt
    if ended or task.status == "completed":
        if told.status != "not_found":
            disposition: Disposition = "discard" if ended else "keep"
            send(frames.upload_ack(told.task_id, told.attempt, disposition))
        return ()
    intent = draft.intents.get((told.task_id, told.attempt))
    match told.status:
        case "accepted" | "progress":
            _take_accepted(draft, told, intent)
        case "uploaded":
            return _take_uploaded(draft, told, intent)
        case "failed":
            _take_failed(draft, told, intent)
        case "not_found":
            if intent is not None and "not_found" in _steps(intent) and not _may_be_recording(draft, told):
                _close(draft, intent, "not_found", detail=told.detail)
    return ()


def _unwanted(task: Task) -> bool:
    """No recording of it is wanted: it ended without one, or was completed without ours (by an external device)."""
    return task.status in ("cancelled", "failed") or (task.status == "completed" and task.uploaded_at_ms is None)


def _may_be_recording(draft: NodeDraft, told: UploadReport) -> bool:
    """Our `finish` and our `upload_request` travel on two sockets: until the recorder says that it holds the attempt no
    more, "not found" may only mean "not finished yet". Then nothing is concluded, and it is asked again. A recorder
    that is gone beyond its grace is not waited for.
    """
    recorder = draft.roles.get("recorder")
    if recorder is None or recorder.link == "offline":
        return False
    if not recorder.connected or not recorder.synced:
        return True
    said = recorder.reported
    holds = said is not None and said.state in ("recording", "paused") and said.task_id == told.task_id
    return holds and said is not None and said.attempt in (None, told.attempt)


def _steps(intent: Intent) -> set[Step]:
    return {taken for state, taken in TRANSITIONS if state == intent.state}


def _fresh(draft: NodeDraft, told: UploadReport) -> Intent:
    """The device began by itself: what we would have wanted stands before it is judged."""
    task = draft.tasks[told.task_id]
    intent = Intent(told.task_id, told.attempt, task.node_id, "requested", draft.view.wall_ms)
    draft.insert_intent(intent)
    return intent


def _take_accepted(draft: NodeDraft, told: UploadReport, intent: Intent | None) -> None:
    intent = intent or _fresh(draft, told)
    if intent.state == "requested":
        _move(draft, intent, "accepted", sends=0)
    if intent.state in ("requested", "accepted"):
        # Evidence. If it falls silent, it is asked again.
        draft.arm("upload_resend", intent.key, UPLOAD_RESEND_S[-1])


def _take_uploaded(draft: NodeDraft, told: UploadReport, intent: Intent | None) -> tuple[UploadReport, ...]:
    intent = intent or _fresh(draft, told)
    if "uploaded" not in _steps(intent):
        return ()
    _move(draft, intent, "uploaded", object_key=told.object_key, sha256=told.sha256, size=told.size, sends=0)
    draft.arm("upload_resend", intent.key, UPLOAD_RESEND_S[0])
    return (replace(told, order_id=draft.order_of(told.task_id)),)


def _take_failed(draft: NodeDraft, told: UploadReport, intent: Intent | None) -> None:
    intent = intent or _fresh(draft, told)
    if "failed" not in _steps(intent):
        return
    tries, detail = intent.tries + 1, told.detail or "upload_failed"
    if tries >= UPLOAD_TRIES:
        _close(draft, intent, "gave_up", tries=tries, detail=detail)
        return
    _move(draft, intent, "failed", tries=tries, detail=detail)
    draft.arm("upload_resend", intent.key, resend_after_s(tries))


# ---------------------------------------------------------------- reconciliation at hello


def reconcile(draft: NodeDraft, hello: NodeConnect, send: Callable[[Frame], None]) -> tuple[UploadReport, ...]:
    """Intents × the device's rows × task states. Returns what is to be verified."""
    verify: list[UploadReport] = []
    for told in hello.uploads or ():
        if _foreign(draft, told):
            send(frames.foreign_task(told.task_id))
        else:
            verify += take_report(draft, told, send)
    mentioned = {(told.task_id, told.attempt) for told in hello.uploads or ()}
    for intent in list(draft.intents.values()):
        task = draft.tasks.get(intent.task_id)
        if not intent.open or intent.node_id != draft.node_id or (intent.task_id, intent.attempt) in mentioned:
            continue
        if task is None or task.terminal or task.attempt != intent.attempt:
            _close(draft, intent, "discarded")
        elif intent.state == "uploaded":
            verify.append(_stored(draft, intent))
            draft.arm("upload_resend", intent.key, UPLOAD_RESEND_S[0])
        elif hello.uploads is None:
            # It did not say what it has: nothing is concluded, and it is asked after a while.
            draft.arm("upload_resend", intent.key, UPLOAD_RESEND_S[0])
        else:
            if intent.state == "accepted":
                _move(draft, intent, "forgotten")
            request_upload(draft, intent.task_id, intent.attempt, send)
    return tuple(verify)


def _stored(draft: NodeDraft, intent: Intent) -> UploadReport:
    return UploadReport(
        intent.task_id,
        intent.attempt,
        "uploaded",
        intent.object_key,
        intent.sha256,
        intent.size,
        order_id=draft.order_of(intent.task_id),
    )


def sweep(draft: NodeDraft, key: str) -> Upward | None:
    """`upload_resend` came due: verify what was told, or ask again. None: nothing is wanted any more."""
    intent = next((i for i in draft.intents.values() if i.key == key), None)
    if intent is None or not intent.open:
        return None
    task = draft.tasks.get(intent.task_id)
    if task is None or task.terminal or task.attempt != intent.attempt:
        _close(draft, intent, "discarded")
        return None
    if intent.state == "uploaded":
        sends = draft.set_intent(intent.task_id, intent.attempt, sends=intent.sends + 1).sends
        draft.arm("upload_resend", key, resend_after_s(sends))
        return Upward(verify=(_stored(draft, intent),))
    request_upload(draft, intent.task_id, intent.attempt)
    return Upward()


# ---------------------------------------------------------------- the object was looked at


def verified(view: NodeView, request: UploadVerified) -> NodeDecision:
    task = view.tasks.get(request.task_id)
    intent = view.intents.get((request.task_id, request.attempt))
    draft = NodeDraft(view, request.node_id)
    if task is None or task.node_id != request.node_id or request.attempt > task.attempt:
        return NodeDecision(Done(changed=False))
    if _unwanted(task) or request.attempt < task.attempt:
        if intent is not None and intent.open:
            _close(draft, intent, "discarded")
        _acknowledge(draft, request, "discard")
        return draft.decide(Done(changed=False))
    if task.status == "completed":
        _acknowledge(draft, request, "keep")
        return draft.decide(Done(changed=False))
    if intent is None or intent.state != "uploaded" or not _same(intent, request):
        return NodeDecision(Done(changed=False))  # it has told another one since; that is looked at by itself
    if not request.ok:
        _mismatch(draft, task, intent, request)
        return draft.decide(Done(changed=True))
    _keep(draft, task, intent, request)
    return draft.decide(Done(changed=True))


def _same(intent: Intent, request: UploadVerified) -> bool:
    return (intent.object_key, intent.sha256, intent.size) == (request.object_key, request.sha256, request.size)


def _acknowledge(draft: NodeDraft, request: UploadVerified, disposition: Disposition) -> None:
    draft.post("transfer", frames.upload_ack(request.task_id, request.attempt, disposition))


def _keep(draft: NodeDraft, task: Task, intent: Intent, request: UploadVerified) -> None:
    """Task, artifact, intent and acknowledgement in one transaction: whatever dies now, the device hears it once the
    rest stands, and hears it again as often as it asks."""
    now = draft.view.wall_ms
    step(draft, task, "kept", uploaded_at_ms=task.uploaded_at_ms or now, detail=request.detail)
    draft.do(
        InsertArtifact(
            Artifact(
                task.task_id,
                task.node_id,
                intent.attempt,
                request.object_key,
                request.sha256,
                request.size,
                request.verified,
                now,
            )
        )
    )
    _close(draft, intent, "kept")
    _acknowledge(draft, request, "keep")


def _mismatch(draft: NodeDraft, task: Task, intent: Intent, request: UploadVerified) -> None:
    tries = intent.tries + 1
    if tries >= UPLOAD_TRIES:
        _close(draft, intent, "gave_up", tries=tries, detail=request.detail)
        step(draft, task, "upload_failed", detail="object_mismatch")
        return
    _move(draft, intent, "mismatch", tries=tries, detail=request.detail)
    request_upload(draft, task.task_id, intent.attempt)


__all__ = ["receive_upload", "reconcile", "sweep", "take_report", "upload_key", "verified"]
