"""A session's birth and end. A deleted session stays as a tombstone: its id is never used again."""

from __future__ import annotations

from actors.law.draft import Draft
from actors.law.effects import Decision, InsertSession, Refuse, Show
from actors.law.failure import fail_execution
from actors.law.model import Session, View
from actors.law.ownership import release_owner
from actors.law.requests import CreateSession, DeleteSession, nth_id
from actors.protocol.codes import CLOSE


def create(view: View, request: CreateSession) -> Decision:
    if view.session is not None:
        if view.session.deleted_at_ms is not None:
            return Decision(Refuse("session_deleted"))
        if view.session.stream_id != nth_id("str", request.seed, 0):  # else: the same request, again
            return Decision(Refuse("session_exists"))
        return Decision(Show("session", 201, changed=False))
    session = Session(
        session_id=request.session_id,
        stream_id=nth_id("str", request.seed, 0),
        title=request.title,
        labels=request.labels,
        created_at_ms=view.wall_ms,
        updated_at_ms=view.wall_ms,
        last_seq=0,
        first_seq=1,
        limits=request.limits,
        callback=request.callback,
    )
    return Decision(Show("session", 201), (InsertSession(session),))


def delete(view: View, request: DeleteSession) -> Decision:
    if view.session is None:
        return Decision(Refuse("session_not_found"))
    if view.session.deleted_at_ms is not None:
        return Decision(Show("nothing", 204, changed=False))
    draft = Draft(view, request.seed)
    for execution in list(draft.executions.values()):
        # Nothing is promoted behind it: the session ends.
        fail_execution(draft, execution.execution_id, "operator", "the session was deleted", by=request.by)
    draft.append("session.closed", {"by": request.by})
    release_owner(draft, CLOSE["session_closed"], "session deleted")
    draft.set_session(deleted_at_ms=view.wall_ms)
    return draft.decide(Show("nothing", 204))
