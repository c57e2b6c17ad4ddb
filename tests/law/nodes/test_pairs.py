"""Every (state, event) pair of invocations, tasks and intents: what it becomes, or that nothing was changed."""

from __future__ import annotations

import pickle
from itertools import product
from typing import Any

import pytest

from actors.law.effects import Fenced, Refuse
from actors.law.nodes import actions, invocations, tasks, uploads
from actors.law.nodes import effects as fx
from actors.law.nodes import requests as rq
from actors.law.nodes.decide import TABLE, decide
from actors.law.nodes.model import OutboxRow, Reported, UploadReport
from actors.law.requests import Request
from actors.protocol.node_codes import (
    INTENT_OPEN,
    INTENT_STATES,
    INVOCATION_STATES,
    REPORTED_STATES,
    TASK_ACTIONS,
    TASK_STATUSES,
    TASK_TERMINAL,
    UPLOAD_STATUSES,
)
from tests.law.nodes.scene import SEED, SERVICE_MS, intent, invocation, recorder, role, task, view

N: dict[str, Any] = {"node_id": "n", "seed": SEED}
F: dict[str, Any] = {**N, "role": "node", "connection_id": "con_1", "epoch": 7, "instance_id": "i_1"}
T: dict[str, Any] = {"task_id": "t", "seed": SEED}


def moved(decision: Any, kind: type, column: str) -> list[str]:
    return [e.changes[column] for e in decision.effects if isinstance(e, kind) and column in e.changes]


# ---------------------------------------------------------------- invocations

INVOCATION_PAIRS: dict[str, tuple[Any, dict[str, str], dict[str, Any]]] = {
    # event: request, {before: after}, changes of the invocation
    "fetched": (rq.NodeFetch(**F, limit=9), {"pending": "dispatched"}, {}),
    "fetched too late": (rq.NodeFetch(**F, limit=9), {"pending": "settled"}, {"due_service_ms": SERVICE_MS}),
    "result": (rq.InvokeResult(**F, invocation_id="inv", ok=True), {"dispatched": "settled"}, {}),
    "failure": (rq.InvokeResult(**F, invocation_id="inv", ok=False), {"dispatched": "settled"}, {}),
    "late result": (
        rq.InvokeResult(**F, invocation_id="inv", ok=True),
        {"dispatched": "settled"},
        {"due_service_ms": SERVICE_MS},
    ),
    "result of another connection's": (
        rq.InvokeResult(**F, invocation_id="inv", ok=True),
        {},
        {"connection_id": "con_0"},
    ),
    "result of another node's": (rq.InvokeResult(**F, invocation_id="inv", ok=True), {}, {"node_id": "m"}),
    "unknown result": (rq.InvokeResult(**F, invocation_id="inv_x", ok=True), {}, {}),
    "progress": (rq.InvokeProgress(**F, invocation_id="inv", seq=1), {}, {}),
    "late progress": (
        rq.InvokeProgress(**F, invocation_id="inv", seq=1),
        {"dispatched": "settled"},
        {"idle_due_service_ms": SERVICE_MS},
    ),
    "cancel": (
        rq.CancelInvocation(**N, invocation_id="inv"),
        {"pending": "settled", "dispatched": "settled"},
        {},
    ),
    "timeout": (
        rq.NodeSweep(**N, kind="invocation", subject_key="inv"),
        {"pending": "settled", "dispatched": "settled"},
        {"due_service_ms": SERVICE_MS},
    ),
    "idle timeout": (
        rq.NodeSweep(**N, kind="invocation_idle", subject_key="inv"),
        {"pending": "settled", "dispatched": "settled"},
        {"idle_due_service_ms": SERVICE_MS},
    ),
    "a deadline that moved on": (rq.NodeSweep(**N, kind="invocation_idle", subject_key="inv"), {}, {}),
    "closed": (
        rq.NodeClosed(**N, role="node", connection_id="con_1"),
        {"pending": "settled", "dispatched": "settled"},
        {},
    ),
    "closed late by another": (rq.NodeClosed(**N, role="node", connection_id="con_0"), {}, {}),
    "replaced": (
        rq.NodeConnect(**N, role="node", connection_id="con_2", gateway_id="gw_1", instance_id="i_2"),
        {"pending": "settled", "dispatched": "settled"},
        {},
    ),
    "forgotten": (rq.ForgetNode(**N), {"pending": "settled", "dispatched": "settled"}, {}),
    "invoked again": (rq.Invoke(**N, invocation_id="inv", command="device.info"), {}, {}),
}


@pytest.mark.parametrize("state", INVOCATION_STATES)
@pytest.mark.parametrize("name", INVOCATION_PAIRS)
def test_invocation_pair(name: str, state: str) -> None:
    request, table, changes = INVOCATION_PAIRS[name]
    before = invocation(state, **changes)
    waiting = (OutboxRow(1, "n", "node", 7, {}, "inv"),) if state == "pending" else ()
    decision = decide(view(role(), before, outbox=waiting), request)
    expected = [table[state]] if state in table else []
    assert moved(decision, fx.SetInvocation, "state") == expected
    if state == "settled":  # absorbing: not a column of it moves
        assert not [e for e in decision.effects if isinstance(e, fx.SetInvocation)]
    dispatched = [e.changes.get("dispatched") for e in decision.effects if isinstance(e, fx.SetInvocation)]
    assert False not in dispatched  # what may have been executed is never called unsent


def test_every_change_of_an_invocation_is_in_its_graph() -> None:
    graph = {(before, after) for (before, _), after in invocations.TRANSITIONS.items()} | {("pending", "settled")}
    assert {(b, a) for _, table, _ in INVOCATION_PAIRS.values() for b, a in table.items()} == graph
    assert not any(before == "settled" for before, _ in graph)


# ---------------------------------------------------------------- reports of a recorder


@pytest.mark.parametrize(("status", "state"), list(product(TASK_STATUSES, REPORTED_STATES)))
def test_a_report_means_what_the_table_says(status: Any, state: Any) -> None:
    names = state in ("ready", "recording", "paused")
    told = recorder(state, "t" if names else None, 1 if names else None, synced=state != "unknown")
    decision = decide(view(told, task(status)), rq.TaskReport(**T, node_id="n"))
    means = tasks.REPORTS.get((status, state), "nothing")
    pulls = {"ready": "ready", "recording": "in_progress"}.get(means)
    assert moved(decision, fx.SetTask, "status") == ([pulls] if pulls else [])
    posted = [e.frame.get("action") for e in decision.effects if isinstance(e, fx.Post)]
    assert posted == {"finish": ["finish"], "clear": ["clear"], "unwanted": ["cancel"]}.get(means, [])
    if status in TASK_TERMINAL:
        assert not [e for e in decision.effects if isinstance(e, fx.SetTask)]


@pytest.mark.parametrize("state", ["ready", "recording", "paused"])
def test_another_attempt_and_a_foreign_task_are_told_to_cancel(state: Any) -> None:
    for status in TASK_STATUSES:
        decision = decide(view(recorder(state, "t", 2), task(status, attempt=3)), rq.TaskReport(**T, node_id="n"))
        (posted,) = [e.frame for e in decision.effects if isinstance(e, fx.Post)]
        assert (posted["action"], posted["attempt"]) == ("cancel", 2)
        assert not [e for e in decision.effects if isinstance(e, fx.SetTask)]
    for there in ([], [task("ready", node_id="m")]):
        decision = decide(view(recorder(state, "t", 2), *there), rq.TaskReport(**T, node_id="n"))
        posted = [e.frame["type"] for e in decision.effects if isinstance(e, fx.Post)]
        assert posted == ["error", "task"]
        assert not [e for e in decision.effects if isinstance(e, fx.SetTask)]


@pytest.mark.parametrize("link", ["grace", "offline"])
def test_what_a_lost_recorder_said_pulls_nothing(link: Any) -> None:
    gone = recorder("recording", "t", 1, link=link, synced=False)
    decision = decide(view(gone, task("pending")), rq.TaskReport(**T, node_id="n"))
    assert not [e for e in decision.effects if isinstance(e, fx.SetTask)]


@pytest.mark.parametrize("status", TASK_STATUSES)
@pytest.mark.parametrize(("lapsed", "held", "gives_back"), [(0, 7, False), (7, 7, False), (9, 7, True), (9, 12, False)])
def test_only_a_lapse_that_came_after_the_last_confirmation_gives_a_task_back(
    status: Any, lapsed: int, held: int, gives_back: bool
) -> None:
    gone = recorder(link="offline", synced=False, lapsed_epoch=lapsed)
    decision = decide(view(gone, task(status, held_epoch=held)), rq.TaskReport(**T, node_id="n"))
    expected = ["pending"] if gives_back and status in ("ready", "in_progress") else []
    assert moved(decision, fx.SetTask, "status") == expected


# ---------------------------------------------------------------- what operators do

OPEN_GATES = {  # action: (status, what the recorder says) in which it passes, and what the task becomes
    "config": ("pending", ("idle",), None),
    "begin": ("ready", ("ready", "t", 1), None),
    "pause": ("in_progress", ("recording", "t", 1), None),
    "resume": ("in_progress", ("paused", "t", 1), None),
    "finish": ("in_progress", ("recording", "t", 1), "uploading"),
    "clear": ("ready", ("ready", "t", 1), "pending"),
}
SAYS = [("idle",), ("ready", "t", 1), ("recording", "t", 1), ("paused", "t", 1), ("ready", "u", 1), ("ready", "t", 2)]


def test_every_action_has_a_gate() -> None:
    assert set(actions.GATES) | {"cancel"} == set(TASK_ACTIONS) == set(OPEN_GATES) | {"cancel"}


@pytest.mark.parametrize(("action", "status", "says"), list(product(OPEN_GATES, TASK_STATUSES, SAYS)))
def test_action_pair(action: Any, status: Any, says: Any) -> None:
    decision = decide(view(recorder(*says), task(status)), rq.TaskAction(**T, action=action))
    open_status, open_says, becomes = OPEN_GATES[action]
    gate = actions.GATES[action]
    fits = gate.reported is None or says == open_says or (action == "config" and says == ("ready", "t", 1))
    changes = [e for e in decision.effects if isinstance(e, fx.SetTask)]
    if status == open_status and fits:
        assert not isinstance(decision.answer, Refuse)
        assert moved(decision, fx.SetTask, "status") == ([becomes] if becomes else [])
        assert [e.frame["action"] for e in decision.effects if isinstance(e, fx.Post)] == [action]
    else:
        again = (action == "finish" and status in ("uploading", "completed")) or (
            action == "config" and status == "ready" and says == ("ready", "t", 1)
        )
        assert isinstance(decision.answer, Refuse) != again
        assert changes == [] and not [e for e in decision.effects if isinstance(e, fx.Post)]


@pytest.mark.parametrize("status", TASK_STATUSES)
def test_cancel_pair(status: Any) -> None:
    decision = decide(view(recorder(), task(status), intent()), rq.TaskAction(**T, action="cancel"))
    if status in TASK_TERMINAL:
        assert decision.effects == () and isinstance(decision.answer, Refuse) == (status != "cancelled")
    else:
        assert moved(decision, fx.SetTask, "status") == ["cancelled"]
        assert moved(decision, fx.SetIntent, "state") == ["discarded"]


# ---------------------------------------------------------------- intents

INTENT_PAIRS: dict[str, dict[str, str]] = {
    "accepted": {"requested": "accepted"},
    "progress": {"requested": "accepted"},
    "uploaded": {"requested": "uploaded", "accepted": "uploaded", "uploaded": "uploaded"},
    "failed": {"requested": "requested", "accepted": "requested"},
    "not_found": {"requested": "not_found", "accepted": "not_found"},
}


def told(status: Any, attempt: int = 1) -> UploadReport:
    stored = {"object_key": "k", "sha256": "ab" * 32, "size": 7} if status == "uploaded" else {}
    return UploadReport("t", attempt, status, **stored)


def upload(status: Any, attempt: int = 1) -> rq.NodeUpload:
    return rq.NodeUpload(**{**F, "role": "transfer"}, report=told(status, attempt))


@pytest.mark.parametrize(("status", "state"), list(product(UPLOAD_STATUSES, INTENT_STATES)))
def test_upload_pair(status: Any, state: Any) -> None:
    decision = decide(view(role("transfer"), task("uploading"), intent(state)), upload(status))
    becomes = INTENT_PAIRS[status].get(state)
    assert moved(decision, fx.SetIntent, "state") == ([becomes] if becomes else [])
    if becomes:
        assert becomes in {after for (before, _), after in uploads.TRANSITIONS.items() if before == state}


@pytest.mark.parametrize(
    ("status", "ended"), list(product(UPLOAD_STATUSES, ["completed", "external", "failed", "cancelled", "older"]))
)
def test_a_recording_that_nobody_waits_for_is_acknowledged_and_changes_nothing(status: Any, ended: str) -> None:
    what = {
        "older": task("uploading", attempt=2),
        "external": task("completed", uploaded_at_ms=None),  # not stored by us: a recording of it is a surplus
    }.get(ended) or task(ended)
    decision = decide(view(role("transfer"), what), upload(status))
    acks = [e.frame["disposition"] for e in decision.effects if isinstance(e, fx.Post)]
    assert acks == ([] if status == "not_found" else ["keep" if ended == "completed" else "discard"])
    assert not [e for e in decision.effects if isinstance(e, fx.SetTask | fx.SetIntent | fx.InsertIntent)]


@pytest.mark.parametrize("status", UPLOAD_STATUSES)
def test_what_is_not_ours_is_never_acknowledged(status: Any) -> None:
    for what in ([], [task("uploading", node_id="m")], [task("uploading", attempt=1)]):
        attempt = 2 if what and what[0].node_id == "n" else 1
        decision = decide(view(role("transfer"), *what), upload(status, attempt))
        assert isinstance(decision.answer, Refuse) and decision.answer.code == "foreign_task"
        assert not [e for e in decision.effects if not isinstance(e, fx.SetRole)]


@pytest.mark.parametrize(("status", "state", "ok"), list(product(TASK_STATUSES, INTENT_STATES, [True, False])))
def test_verification_pair(status: Any, state: Any, ok: bool) -> None:
    request = rq.UploadVerified(
        **T, node_id="n", attempt=1, object_key="k", sha256="ab" * 32, size=7, ok=ok, detail="looked"
    )
    decision = decide(view(role("transfer"), task(status), intent(state)), request)
    acks = [e.frame.get("disposition") for e in decision.effects if isinstance(e, fx.Post)]
    kept = [e for e in decision.effects if isinstance(e, fx.InsertArtifact)]
    if status in ("cancelled", "failed"):
        assert (acks, kept) == (["discard"], [])
        assert moved(decision, fx.SetIntent, "state") == (["discarded"] if state in INTENT_OPEN else [])
    elif status == "completed":
        assert (acks, kept) == (["keep"], []) and len(decision.effects) == 1
    elif state != "uploaded":
        assert decision.effects == ()
    elif ok:
        assert (acks, len(kept)) == (["keep"], 1)
        assert moved(decision, fx.SetTask, "status") == ["completed"]
        assert moved(decision, fx.SetIntent, "state") == ["kept"]
    else:
        assert (kept, moved(decision, fx.SetTask, "status")) == ([], [])
        assert moved(decision, fx.SetIntent, "state") == ["requested"]


def test_the_graphs_end() -> None:
    assert not any(before in TASK_TERMINAL for before, _ in tasks.TRANSITIONS)
    assert all(before in INTENT_OPEN for before, _ in uploads.TRANSITIONS)


# ---------------------------------------------------------------- all of them


def test_every_request_has_its_line() -> None:
    bases = {rq.NodeRequest, rq.TaskRequest, rq.NodeFramed, Request}
    concrete = {c for c in vars(rq).values() if isinstance(c, type) and issubclass(c, Request)}
    assert concrete - bases == set(TABLE)


def test_what_was_not_given_stays_so_on_its_way_to_an_actor() -> None:
    request = rq.ChangeNode(**N, name=None)
    travelled = pickle.loads(pickle.dumps(request))
    assert travelled == request and travelled.allow is rq.UNSET and travelled.name is None


FRAMED = [
    rq.NodeFetch(**F, limit=9),
    rq.InvokeResult(**F, invocation_id="inv", ok=True),
    rq.InvokeProgress(**F, invocation_id="inv", seq=1),
    rq.NodeState(**F, reported=Reported("idle")),
    rq.NodeUpload(**F, report=told("accepted")),
    rq.NodeEvent(**F, type="door.open"),
]


@pytest.mark.parametrize("frame", FRAMED, ids=lambda f: type(f).__name__)
@pytest.mark.parametrize(
    ("owner", "code"),
    [
        ({"connection_id": "con_2", "connection_epoch": 8, "instance_id": "i_2"}, 4001),
        ({"connection_id": "con_2", "connection_epoch": 8, "instance_id": "i_1"}, 4009),
        ({"connection_epoch": 9}, 4009),  # the same connection id, another epoch
        ({"link": "grace"}, 1001),
        ({"link": "offline"}, 1001),
        (None, 4004),
    ],
)
def test_a_frame_of_anybody_but_the_owner_changes_nothing(frame: Any, owner: Any, code: int) -> None:
    roles = [] if owner is None else [role(**owner)]
    decision = decide(view(*roles, invocation("dispatched"), task(), intent()), frame)
    assert isinstance(decision.answer, Fenced) and decision.answer.code == code
    assert decision.effects == () and decision.speech == ()
    forgotten = decide(view(invocation("dispatched"), there=False), frame)
    assert isinstance(forgotten.answer, Fenced) and forgotten.answer.code == 4004


def test_every_frame_kind_was_tried() -> None:
    framed = {c for c in TABLE if issubclass(c, rq.NodeFramed)}
    assert {type(f) for f in FRAMED} == framed
