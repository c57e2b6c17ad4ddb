"""Orders speak down to a node by notices: rows of an outbox that the node takes, says to its recorder again and again,
and settles when the recorder has been heard to hold none of their tasks any more.

An order never calls a node: its notice, a deadline `notice` and the word NodeNoticed are of its own transaction, and
whichever of them gets here first, twice is once.
"""

from __future__ import annotations

from collections.abc import Callable

from actors.law.effects import Done
from actors.law.nodes import frames
from actors.law.nodes.answers import Frame
from actors.law.nodes.draft import NodeDraft
from actors.law.nodes.effects import NodeDecision
from actors.law.nodes.model import NodeView, Notice, Role
from actors.law.nodes.requests import TakeNotice
from actors.protocol.defaults import REPORT_WITHIN_S, UPLOAD_RESEND_S
from actors.protocol.node_codes import HOLDING


def receive_notice(view: NodeView, request: TakeNotice) -> NodeDecision:
    """The first word only. It is often heard twice (an awake actor's answer, and its hint); saying it again to the
    device is the deadline's, and the next connect's."""
    draft = NodeDraft(view, request.node_id)
    notice = draft.notices.get(request.notice_id)
    if notice is not None and notice.sends:
        return draft.decide(Done(changed=False))
    return draft.decide(Done(changed=take(draft, request.notice_id)))


def take(draft: NodeDraft, notice_id: str, send: Callable[[Frame], None] | None = None) -> bool:
    """Said to the recorder, or settled. A recorder that is away hears it when it comes back; until then nothing is
    armed. send: how, if not by the outbox."""
    notice = draft.notices.get(notice_id)
    if notice is None:
        return False
    recorder = draft.roles.get("recorder")
    if recorder is None or not may_hold(recorder, notice):
        settle(draft, notice)
        return True
    if not recorder.connected:
        draft.disarm("notice", notice_id)
        return False
    _say(draft, recorder, notice, send)
    draft.set_notice(notice_id, sends=notice.sends + 1)
    draft.arm("notice", notice_id, UPLOAD_RESEND_S[min(notice.sends, len(UPLOAD_RESEND_S) - 1)])
    return True


def may_hold(recorder: Role, notice: Notice) -> bool:
    """Whether the device may still be at one of its tasks: by what it says, and by what it was last told. On a
    connection on which it has said nothing valid yet, it may."""
    theirs = {task_id for task_id, _ in notice.tasks}
    wanted, said = recorder.desired, recorder.reported
    if wanted is not None and wanted.state != "idle" and wanted.task_id in theirs:
        return True
    if said is None or said.state == "unknown" or (recorder.connected and not recorder.synced):
        return True
    return said.state in HOLDING and said.task_id in theirs


def _say(draft: NodeDraft, recorder: Role, notice: Notice, send: Callable[[Frame], None] | None) -> None:
    for task_id, attempt in notice.tasks:
        frame = frames.task_named("cancel", task_id, attempt)
        if send is None:
            draft.post("recorder", frame)
        else:
            send(frame)
    attempts = dict(notice.tasks)
    if recorder.desired_task_id in attempts:
        # Otherwise it was told of something else since, and that stands.
        draft.set_role("recorder", desired_state="idle")
    draft.arm("probe", recorder.key, REPORT_WITHIN_S, keep=True)


def heard(draft: NodeDraft) -> None:
    """The recorder has said its state: what it holds no more is settled."""
    recorder = draft.roles.get("recorder")
    if recorder is None or not recorder.synced:
        return
    for notice in list(draft.notices.values()):
        if not may_hold(recorder, notice):
            settle(draft, notice)


def come_back(draft: NodeDraft, send: Callable[[Frame], None]) -> None:
    """The recorder has connected: what is still open is said on this connection."""
    for notice_id in list(draft.notices):
        take(draft, notice_id, send)


def settle(draft: NodeDraft, notice: Notice) -> None:
    draft.set_notice(notice.notice_id, settled_at_ms=draft.view.wall_ms)
    draft.notices.pop(notice.notice_id)
    draft.disarm("notice", notice.notice_id)


def forgotten(draft: NodeDraft) -> None:
    """The node is forgotten: nobody is left to be told."""
    for notice in list(draft.notices.values()):
        settle(draft, notice)
