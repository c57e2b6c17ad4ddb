"""What a session lives through, on the real law and the real store, under a clock that walks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from actors.law import requests as rq
from actors.law.effects import Acked, CloseSocket, Connected, Directed, Done, Fenced, Nacked, RefuseConnection
from actors.law.model import Limits
from actors.protocol.errors import HoldfastError, StorageBroken
from actors.protocol.ids import ulid
from actors.store.contract import Appended, AppendRefused, IdempotencyKey
from tests.world import LIMITS, World

TERMINAL = ("execution.completed", "execution.failed", "execution.interrupted")


def terminals(world: World, execution_id: str = "e1") -> list[str]:
    return [e["type"] for e in world.events() if e["execution_id"] == execution_id and e["type"] in TERMINAL]


# ---------------------------------------------------------------- a life


def test_a_whole_life_reads_as_a_story(world: World) -> None:
    world.running()
    assert world.append(world.item(2, 3)) == [Appended(first_seq=4, count=3, acked_seq=4)]
    assert world.final(5, exit_code=7, status="failed") == Acked(5)
    assert world.types() == [
        "wrapper.connected",
        "execution.pending",
        "execution.started",
        "output",
        "output",
        "output",
        "execution.failed",
    ]
    assert [e["seq"] for e in world.events()] == list(range(1, 8))
    assert [e["exec_seq"] for e in world.events()] == [None, None, 1, 2, 3, 4, 5]
    assert world.outcome()["exit_code"] == 7
    assert world.store.due(100) == []


def test_a_second_submit_waits_and_the_eleventh_waiting_is_refused(world: World) -> None:
    world.running()
    for i in range(10):
        assert world.submit(f"q{i}").body["status"] == "queued"  # type: ignore[index]
    assert world.refused(world.submit("q10")) == "queue_full"
    world.final(2)
    assert world.status("q0") == "pending" and world.status("q1") == "queued"
    assert world.commands() == [("start", "q0")]


def test_the_same_submit_again_is_the_same_execution(world: World) -> None:
    world.create()
    first, second = world.submit("e1", input="x"), world.submit("e1", input="x")
    assert first.body == second.body
    assert world.types() == ["execution.pending"]
    assert world.refused(world.submit("e1", input="y")) == "execution_mismatch"


def test_an_idempotency_key_has_one_effect_and_one_answer(world: World) -> None:
    world.create()
    key = IdempotencyKey("tok", "POST /x", "k1", "hash-a")
    first = world.do(rq.Submit(session_id="s", seed=ulid(), execution_id="e1"), key)
    again = world.do(rq.Submit(session_id="s", seed=ulid(), execution_id="e2"), key)
    assert again.replayed and again.body == first.body and again.status == 202
    other = world.do(rq.Submit(session_id="s", seed=ulid(), execution_id="e3"), replace(key, body_hash="hash-b"))
    assert world.refused(other) == "idempotency_mismatch"
    assert world.types() == ["execution.pending"]


def test_a_refusal_is_not_kept_under_its_key(world: World) -> None:
    key = IdempotencyKey("tok", "POST /x", "k1", "h")
    request = rq.Submit(session_id="s", seed=ulid(), execution_id="e1")
    assert world.refused(world.do(request, key)) == "session_not_found"
    world.create()
    assert world.do(request, key).status == 202


# ---------------------------------------------------------------- delivery


def test_a_range_applies_once_whatever_is_sent_again(world: World) -> None:
    world.running()
    results = world.append(
        world.item(2, 3), world.item(2, 3), world.item(3, 4), world.item(9), world.item(7), world.item(1)
    )
    assert results == [
        Appended(4, 3, 4),
        AppendRefused("duplicate", acked_seq=4),
        Appended(7, 2, 6, skipped=2),
        AppendRefused("gap", expected_seq=7, acked_seq=6),
        Appended(9, 1, 7),
        AppendRefused("duplicate", acked_seq=7),
    ]
    assert [e["exec_seq"] for e in world.events() if e["type"] == "output"] == [2, 3, 4, 5, 6, 7]


def test_one_refused_item_never_takes_its_group_with_it(world: World) -> None:
    world.running("e1", "s")
    world.running("e1", "t")
    ok = world.item(2, 2, connection="con_t")
    stale = replace(world.item(2), epoch=999)
    assert world.append(stale, ok, world.item(5), world.item(2)) == [
        AppendRefused("fenced", close_code=4009),
        Appended(4, 2, 3),
        AppendRefused("gap", expected_seq=2, acked_seq=1),
        Appended(4, 1, 2),
    ]
    assert world.store.session("s")["last_seq"] == 4


def test_nothing_is_stored_before_started_and_nothing_after_the_end(world: World) -> None:
    world.create()
    world.connect()
    world.submit()
    assert world.append(world.item(1)) == [AppendRefused("not_started", expected_seq=1)]
    assert world.append(world.item(1, execution_id="nope")) == [AppendRefused("unknown_execution")]
    world.started()
    world.append(world.item(2))
    world.fail()
    assert world.append(world.item(3)) == [AppendRefused("terminal", acked_seq=2)]
    assert world.append(world.item(2)) == [AppendRefused("duplicate", acked_seq=2)]
    assert world.types()[-1] == "execution.failed"


def test_a_gap_record_that_partly_stands_covers_the_rest(world: World) -> None:
    world.running()
    world.append(world.item(2, 3))
    gap = replace(
        world.item(3, 1), covers=8, events=(world.item(3).events[0]._replace(type="output.gap", data='{"from_seq":3}'),)
    )
    assert world.append(gap) == [Appended(7, 1, 10, skipped=2)]
    assert world.events()[-1]["data"] == {"from_seq": 5} and world.events()[-1]["exec_seq"] == 5
    assert world.append(world.item(11)) == [Appended(8, 1, 11)]


# ---------------------------------------------------------------- ownership


def test_the_newest_owns_and_the_old_one_is_told_to_go(world: World) -> None:
    world.running()
    taken = world.connect("con_2", wrapper="w_2", instance="i_2")
    assert CloseSocket("con_1", 4001, "another instance took over") in taken.speech
    assert world.append(world.item(2)) == [AppendRefused("fenced", close_code=4001)]
    assert world.final(2) == Fenced(4001, "another instance owns the session")
    before = world.events()
    assert world.closed("con_1").answer == Done(changed=False)
    assert world.events() == before and world.link() == "connected"


def test_another_wrapper_that_knows_nothing_supersedes(world: World) -> None:
    world.running()
    world.submit("e2")
    world.connect("con_2", wrapper="w_2", instance="i_2")
    assert world.outcome()["cause"] == "superseded" and terminals(world) == ["execution.failed"]
    assert world.status("e2") == "pending" and world.commands() == [("start", "e2")]
    assert "wrapper.superseded" in world.types()


def test_the_same_wrapper_that_knows_nothing_lost_it(world: World) -> None:
    world.running()
    world.closed()
    world.connect("con_2", instance="i_2")
    assert world.outcome()["cause"] == "lost"


def test_a_late_open_never_wins(world: World) -> None:
    world.running()
    world.connect("con_3", attempt=3, executions=(rq.Reported("e1", "running", 1, 1),))
    for attempt in (1, 2, 3):
        late = world.connect("con_late", attempt=attempt)
        assert late.answer == RefuseConnection(4009, "a later attempt of this instance was here")
    assert world.append(world.item(2, connection="con_3")) == [Appended(5, 1, 2)]


def test_the_same_connect_again_is_the_same_connection(world: World) -> None:
    world.create()
    request = rq.Connect(
        session_id="s", seed=ulid(), connection_id="c", gateway_id="gw_1", wrapper_id="w", instance_id="i", attempt=1
    )
    assert world.do(request).answer == world.do(request).answer
    assert world.types() == ["wrapper.connected"]


def test_stale_only_refuses_while_the_owner_was_seen(tmp_path) -> None:  # type: ignore[no-untyped-def]
    world = World(tmp_path, takeover="stale_only", takeover_threshold_s=20)
    world.create()
    world.connect()
    refused = world.connect("con_2", wrapper="w_2", instance="i_2")
    assert refused.answer == RefuseConnection(1013, "already_connected", 20.0)
    world.walk(19)
    assert isinstance(world.connect("con_2", wrapper="w_2", instance="i_2").answer, RefuseConnection)
    world.walk(2)
    assert isinstance(world.connect("con_2", wrapper="w_2", instance="i_2").answer, Connected)
    assert isinstance(world.connect("con_3", wrapper="w_2", instance="i_2", attempt=2).answer, Connected)


def test_a_recreated_session_never_meets_its_ghosts(world: World) -> None:
    world.running("e1", "s")
    world.running("e1", "t")
    epochs = {world.connections["con_1"][1], world.connections["con_t"][1]}
    assert len(epochs) == 2
    world.closed("con_1")
    assert world.append(world.item(2)) == [AppendRefused("fenced", close_code=1001)]


# ---------------------------------------------------------------- grace


def test_back_in_time_it_goes_on(world: World) -> None:
    world.running()
    world.append(world.item(2))
    world.closed(code=1006, error="connection reset")
    assert world.link() == "grace"
    world.walk(29)
    back = world.connect("con_2", attempt=2, executions=(rq.Reported("e1", "running", 1, 4),))
    assert isinstance(back.answer, Connected)
    assert back.answer.directives == (Directed("e1", "resume", 2),)
    world.walk(60)
    assert world.status() == "running"
    assert world.types()[-2:] == ["wrapper.disconnected", "wrapper.resumed"]


def test_not_back_in_time_it_fails_once(world: World) -> None:
    world.running()
    world.closed(code=1006, error="connection reset")
    world.walk(29)
    assert world.status() == "running"
    world.walk(2)
    assert world.outcome()["cause"] == "disconnected" and world.link() == "offline"
    failed = world.events()[-1]
    assert failed["data"]["ws_close_code"] == 1006 and failed["data"]["reason"] == "connection reset"
    world.walk(60)
    assert terminals(world) == ["execution.failed"]
    assert world.types().count("wrapper.disconnected") == 1
    cut = next(e for e in world.events() if e["type"] == "wrapper.disconnected")
    assert {"reason", "ws_close_code", "ws_close_reason", "error", "fatal"} <= set(cut["data"])


def test_grace_is_about_what_was_active_when_the_owner_was_lost(world: World) -> None:
    world.running()
    world.submit("e2")
    world.closed()
    world.fail("e1")
    assert world.status("e2") == "pending"
    world.walk(40)
    assert world.status("e2") == "pending" and world.link() == "offline"
    world.walk(150)
    assert world.outcome("e2")["cause"] == "never_started"


def test_an_outage_of_ours_shortens_nothing(world: World) -> None:
    world.running()
    world.closed()
    world.walk(10)
    world.now_ms += 3_600_000  # no door was open for an hour; nobody ticked
    world.walk(15)
    assert world.status() == "running"
    world.walk(6)
    assert world.outcome()["cause"] == "disconnected"


def test_a_clock_that_jumps_shortens_nothing(world: World) -> None:
    world.running()
    world.closed()
    for jump in (86_400_000, -86_400_000, 86_400_000):
        world.now_ms += jump
        world.walk(1)
    world.walk(15)
    assert world.status() == "running"
    world.walk(20)
    assert world.outcome()["cause"] == "disconnected"


def test_an_idle_session_has_no_grace(world: World) -> None:
    world.create()
    world.connect()
    world.closed()
    assert world.link() == "offline" and world.store.due(10) == []


# ---------------------------------------------------------------- deadlines


@pytest.mark.parametrize(
    ("limits", "walk_s", "cause"),
    [({"hung_s": 60}, 62, "hung"), ({"max_runtime_s": 50}, 52, "max_runtime"), ({}, 92, "stale")],
)
def test_each_cause_once(world: World, limits: dict[str, float], walk_s: int, cause: str) -> None:
    world.running(limits=limits)
    world.walk(walk_s - 4)
    assert world.status() == "running"
    world.walk(4)
    assert world.outcome()["cause"] == cause
    events = world.events()
    assert world.another_process().due(10) == []
    world.walk(100)
    assert world.events() == events


def test_stale_closes_the_socket_too_and_fences_it(world: World) -> None:
    world.running()
    world.walk(90, sweep=False)
    outcomes = world.sweep()
    assert [type(s).__name__ for o in outcomes for s in o.speech].count("CloseSocket") == 1
    assert world.link() == "offline"
    assert world.append(world.item(2)) == [AppendRefused("fenced", close_code=1001)]


def test_life_and_progress_are_two_clocks(world: World) -> None:
    world.running(limits={"hung_s": 100})
    for _ in range(9):
        world.walk(10)
        world.store.flush_seen([("s", "con_1", False)])
    assert world.status() == "running"
    world.walk(9)
    world.store.flush_seen([("s", "con_1", False)])
    world.walk(3)
    assert world.outcome()["cause"] == "hung"


def test_busy_is_progress(world: World) -> None:
    world.running(limits={"hung_s": 30})
    for _ in range(12):
        world.walk(20)
        world.store.flush_seen([("s", "con_1", True)])
    assert world.status() == "running"


def test_a_stale_flush_of_another_connection_is_not_life(world: World) -> None:
    world.running()
    world.walk(80)
    world.store.flush_seen([("s", "con_old", True)])
    world.walk(12)
    assert world.outcome()["cause"] == "stale"


def test_a_stale_flush_of_another_connection_is_not_progress(world: World) -> None:
    world.running(limits={"hung_s": 30})
    for _ in range(2):
        world.walk(10)
        world.store.flush_seen([("s", "con_1", False), ("s", "con_old", True)])
    world.walk(12)
    assert world.outcome()["cause"] == "hung"


def test_progress_is_of_what_runs(world: World) -> None:
    world.running()
    world.final(2)

    def progressed() -> int:
        return int(world.store.execution("s", "e1")["last_progress_at_ms"])

    before = progressed()
    world.walk(10)
    world.store.flush_seen([("s", "con_1", True)])
    assert progressed() == before


def test_never_started(world: World) -> None:
    world.create()
    world.submit()
    world.walk(179)
    assert world.status() == "pending"
    world.walk(3)
    assert world.outcome()["cause"] == "never_started" and world.commands() == []


def test_limits_execution_over_session_over_configuration(world: World) -> None:
    world.create(limits={"pending_s": 10, "grace_s": None})
    world.submit(limits={"pending_s": 20})
    world.walk(12)
    assert world.status() == "pending"
    world.walk(10)
    assert world.outcome()["cause"] == "never_started"
    assert world.store.session("s")["limits"]["grace_s"] is None


def test_an_unreadable_spool_fails_after_grace(world: World) -> None:
    world.running()
    world.submit("e2")
    world.closed()
    world.connect("con_2", wrapper="w_2", instance="i_2", spool_ok=False)
    world.walk(29)
    assert world.status() == "running" and world.commands() == []
    world.walk(3)
    assert world.outcome()["cause"] == "lost" and world.outcome()["data"] == {"detail": "spool_unreadable"}
    assert world.commands() == [("abort", "e1"), ("start", "e2")]  # whoever still runs e1 is told to end it


# ---------------------------------------------------------------- reconciliation


@pytest.mark.parametrize("state", ["received", "running", "final"])
@pytest.mark.parametrize("known", ["unknown", "pending", "running", "terminal"])
def test_every_line_of_the_reconciliation_table(world: World, state: str, known: str) -> None:
    world.create()
    world.connect()
    if known != "unknown":
        world.submit()
    if known in ("running", "terminal"):
        world.started()
        world.append(world.item(2, 2))
    if known == "terminal":
        world.fail()
    world.closed()
    report = rq.Reported("e1", state, 1, 5, {"status": "completed"})  # type: ignore[arg-type]
    answer = world.connect("con_2", attempt=2, executions=(report,)).answer
    assert isinstance(answer, Connected)
    (said,) = answer.directives
    wanted = {
        "unknown": {"received": "discard", "running": "abort", "final": "done"},
        "pending": {"received": "resume", "running": "resume", "final": "resume"},
        "running": {"received": "resume", "running": "resume", "final": "resume"},
        "terminal": {"received": "discard", "running": "abort", "final": "done"},
    }
    assert said.directive == wanted[known][state]
    assert said.acked_seq == {"unknown": 0, "pending": 0}.get(known, 3)
    late = [e for e in world.events() if e["type"] == "execution.late_final"]
    assert len(late) == (1 if (known, state) == ("terminal", "final") else 0)


def test_a_late_final_is_told_once_and_is_not_the_executions_event(world: World) -> None:
    world.running()
    world.fail()
    assert world.final(2) == Nacked("terminal", detail="operator")
    world.final(2)
    world.closed()
    world.connect("con_2", attempt=2, executions=(rq.Reported("e1", "final", 1, 2, {"status": "completed"}),))
    late = [e for e in world.events() if e["type"] == "execution.late_final"]
    assert [e["data"]["execution_id"] for e in late] == ["e1"] and late[0]["execution_id"] is None
    assert [e["type"] for e in world.events() if e["execution_id"] == "e1"][-1] == "execution.failed"
    assert world.status() == "failed"


@pytest.mark.parametrize(
    ("status", "told", "cause"),
    [
        ("failed", "agent_error", "agent_error"),
        ("failed", "start_failed", "start_failed"),
        ("failed", "operator", None),  # the service's own to say
        ("failed", ["agent_error"], None),
        ("completed", "agent_error", None),
    ],
)
def test_a_final_may_tell_its_own_causes_and_no_others(world: World, status: str, told: Any, cause: str | None) -> None:
    world.running()
    world.final(2, status=status, exit_code=None, data={"cause": told})
    assert (world.outcome()["cause"], world.outcome()["data"]) == (cause, {"cause": told})


def test_a_final_whose_ack_was_lost_is_done_and_not_late(world: World) -> None:
    world.running()
    assert world.final(2) == Acked(2)
    assert world.final(2) == Acked(2)
    world.closed()
    back = world.connect("con_2", attempt=2, executions=(rq.Reported("e1", "final", 1, 2, {}),)).answer
    assert isinstance(back, Connected) and back.directives[0].directive == "done"
    assert "execution.late_final" not in world.types()


def test_a_pending_start_goes_out_again_to_whoever_owns(world: World) -> None:
    world.create()
    world.connect()
    world.submit()
    (command,) = world.store.pending_commands("s", 0, 10)
    world.ack_command(command.command_id, "received")
    assert world.commands() == []
    world.connect("con_2", wrapper="w_2", instance="i_2")
    assert world.commands() == [("start", "e1")]


def test_a_spool_that_went_back_in_time_is_told(world: World) -> None:
    world.running()
    world.append(world.item(2, 5))
    world.closed()
    back = world.connect("con_2", attempt=2, executions=(rq.Reported("e1", "running", 1, 3),)).answer
    assert isinstance(back, Connected) and back.directives == (Directed("e1", "resume", 6),)
    assert world.types()[-1] == "output.rewound"


# ---------------------------------------------------------------- interrupts


@pytest.mark.parametrize("status", ["queued", "pending"])
def test_an_interrupt_before_the_start_ends_it_at_once(world: World, status: str) -> None:
    world.create()
    world.connect()
    world.submit("e0")
    if status == "queued":
        world.submit("e1")
        target = "e1"
    else:
        target = "e0"
    told = world.interrupt(target)
    assert told.status == 202 and told.body["execution"]["status"] == "interrupted"  # type: ignore[index]
    assert ("start", target) not in world.commands()
    assert world.started(target) == Nacked("terminal", detail="interrupted")


def test_an_interrupt_of_a_running_one_is_a_durable_command(world: World) -> None:
    world.running()
    first, second = world.interrupt(by="ann", reason="enough"), world.interrupt()
    assert first.body["interrupt_id"] == second.body["interrupt_id"]  # type: ignore[index]
    assert world.commands() == [("interrupt", "e1")]
    world.interrupt(force=True)
    assert world.commands() == [("interrupt", "e1"), ("interrupt", "e1")]
    (a, b) = world.store.pending_commands("s", 0, 10)
    assert not a.payload["force"] and b.payload["force"]
    world.ack_command(a.command_id, "received")
    world.ack_command(a.command_id, "done")
    assert world.types()[-3:] == ["interrupt.requested", "interrupt.delivered", "interrupt.acknowledged"]
    world.walk(25)
    assert world.status() == "interrupted" and world.outcome()["cause"] == "interrupt_timeout"


def test_an_interrupt_never_touches_the_next_execution(world: World) -> None:
    world.running()
    world.submit("e2")
    world.interrupt("e1")
    world.final(2)
    assert world.status("e1") == "completed" and world.status("e2") == "pending"
    assert world.commands() == [("start", "e2")]
    world.started("e2")
    world.walk(60)
    assert world.status("e2") == "running"
    assert world.store.execution("s", "e2")["interrupt"] is None
    late = world.interrupt("e1")
    assert late.status == 200 and late.body["execution"]["outcome"]["status"] == "completed"  # type: ignore[index]


def test_the_ladder_waits_for_an_owner_and_grace_bounds_it(world: World) -> None:
    world.running()
    world.closed()
    world.interrupt()
    world.walk(25)
    assert world.status() == "running"
    world.connect("con_2", attempt=2, executions=(rq.Reported("e1", "running", 1, 1),))
    assert world.commands() == [("interrupt", "e1")]
    world.walk(19)
    assert world.status() == "running"
    world.walk(3)
    assert world.outcome()["cause"] == "interrupt_timeout"


def test_a_rejected_interrupt_changes_nothing_and_the_ladder_ends_it(world: World) -> None:
    world.running()
    world.interrupt()
    (command,) = world.store.pending_commands("s", 0, 10)
    world.ack_command(command.command_id, "rejected", code="not_current")
    assert world.status() == "running"
    world.walk(22)
    assert world.status() == "interrupted"


def test_a_failure_after_an_accepted_interrupt_is_an_interruption(world: World) -> None:
    world.running()
    world.interrupt()
    world.closed()
    world.walk(32)
    assert world.status() == "interrupted" and world.outcome()["cause"] == "disconnected"


def test_nothing_to_interrupt(world: World) -> None:
    world.create()
    assert world.refused(world.interrupt()) == "nothing_to_interrupt"
    assert world.refused(world.interrupt("nope")) == "execution_not_found"


# ---------------------------------------------------------------- fail, approvals, delete


def test_who_loses_the_race_gets_the_recorded_outcome(world: World) -> None:
    world.running()
    first, second = world.fail(by="ann"), world.fail(by="bob")
    assert first.body["changed"] and not second.body["changed"]  # type: ignore[index]
    assert first.body["execution"] == second.body["execution"]  # type: ignore[index]
    assert terminals(world) == ["execution.failed"]
    assert world.commands() == [("abort", "e1")]


def test_approvals_are_decided_once(world: World) -> None:
    world.running()
    assert world.ask(2) == Acked(2) and world.ask(2) == Acked(2)
    ask = rq.ResolveApproval(session_id="s", seed=ulid(), approval_id="apr_1", decision="allow", by="ann")
    assert world.do(ask).status == 200 and world.do(ask).status == 200
    late = world.do(replace(ask, seed=ulid(), decision="deny", by="bob"))
    assert world.refused(late) == "already_resolved" and late.answer.extra["winner"]["resolved_by"] == "ann"  # type: ignore[union-attr]
    assert world.commands() == [("approval", "e1")]
    assert world.types().count("approval.resolved") == 1


def test_an_approval_stops_the_hung_clock_and_expires_by_the_wall(world: World) -> None:
    world.running(limits={"hung_s": 30, "stale_s": None})
    world.ask(2, expires_in_s=200)
    world.walk(190)
    assert world.status() == "running"
    world.walk(12)
    assert "approval.expired" in world.types() and world.status() == "running"
    world.walk(62)
    assert world.outcome()["cause"] == "hung"


def test_open_approvals_are_cancelled_before_the_terminal_event(world: World) -> None:
    world.running()
    world.ask(2)
    world.fail()
    assert world.types()[-2:] == ["approval.cancelled", "execution.failed"]
    assert world.store.approvals("s")[0]["state"] == "cancelled"


def test_a_deleted_session_is_a_tombstone(world: World) -> None:
    world.running()
    world.submit("e2")
    deleted = world.do(rq.DeleteSession(session_id="s", seed=ulid()))
    assert deleted.status == 204 and CloseSocket("con_1", 4000, "session deleted") in deleted.speech
    assert world.types()[-1] == "session.closed"
    assert world.do(rq.DeleteSession(session_id="s", seed=ulid())).status == 204
    assert world.refused(world.create()) == "session_deleted"
    assert world.refused(world.submit("e3")) == "session_deleted"
    assert world.connect("con_9", instance="i_9").answer == RefuseConnection(4000, "session deleted")
    assert world.append(world.item(2)) == [AppendRefused("fenced", close_code=4000)]
    with pytest.raises(HoldfastError, match="session_deleted"):
        world.store.session("s")
    assert world.store.due(10) == []
    world.walk(1)
    while world.store.janitor(0):
        assert True
    assert world.store.page("s", 0, 10).seqs == ()


def test_every_callback_gets_one_row(world: World) -> None:
    world.create(callback={"url": "https://example.test/hook"})
    world.connect()
    world.submit()
    world.started()
    world.fail()
    world.fail()
    rows = world.store._c.execute("select session_id, execution_id, state from callbacks").fetchall()
    assert rows == [("s", "e1", "due")]


def test_limits_are_plain() -> None:
    assert Limits(1, 2, 3, 4, 5, 6).over({"hung_s": None}, {"pending_s": 9}) == Limits(9, 2, 3, None, 5, 6)
    assert LIMITS.over({"unknown": 1}) == LIMITS  # type: ignore[dict-item]


# ---------------------------------------------------------------- what a reviewer broke, and now holds


def test_a_start_that_reached_two_wrappers_is_run_by_the_one_whose_started_was_applied(world: World) -> None:
    """W1 noted the start and lost its line; W2 got it again and runs it; W1 comes back before it heard of W2."""
    world.create()
    world.connect("con_1", wrapper="w_1", instance="i_1")
    world.submit()
    world.closed("con_1")
    world.connect("con_2", wrapper="w_2", instance="i_2")
    world.started(connection="con_2")
    world.append(world.item(2, 3, connection="con_2"))
    back = world.connect("con_3", wrapper="w_1", instance="i_1", attempt=2, executions=(rq.Reported("e1", "received"),))
    assert isinstance(back.answer, Connected)
    assert [d.directive for d in back.answer.directives] == ["discard"]
    assert world.outcome()["cause"] == "superseded" and terminals(world) == ["execution.failed"]


@pytest.mark.parametrize(("state", "directive"), [("running", "abort"), ("final", "done"), ("received", "discard")])
def test_what_runs_elsewhere_is_never_resumed_here(world: World, state: str, directive: str) -> None:
    world.running()
    report = rq.Reported("e1", state, 1, 9, {"status": "completed"})  # type: ignore[arg-type]
    answer = world.connect("con_2", wrapper="w_2", instance="i_2", executions=(report,)).answer
    assert isinstance(answer, Connected) and [d.directive for d in answer.directives] == [directive]
    assert world.outcome()["cause"] == "superseded"


def test_an_interrupt_asked_again_after_a_lost_answer_never_hits_the_next(world: World) -> None:
    world.running()
    world.submit("e2")
    request = rq.Interrupt(session_id="s", seed=ulid())
    first = world.do(request)
    world.final(2)
    world.started("e2")
    again = world.do(request)
    assert again.body == first.body and again.replayed
    assert world.store.execution("s", "e2")["interrupt"] is None


def test_input_asked_again_after_a_lost_answer_is_sent_once(world: World) -> None:
    world.running()
    request = rq.SendInput(session_id="s", seed=ulid(), execution_id="e1", input="more")
    assert world.do(request).body == world.do(request).body
    assert world.commands() == [("input", "e1")]


def test_a_winner_who_asks_again_is_still_the_winner(world: World) -> None:
    world.running()
    request = rq.Fail(session_id="s", seed=ulid(), execution_id="e1", error="x")
    assert world.do(request).body["changed"] and world.do(request).body["changed"]  # type: ignore[index]


def test_progress_stands_still_while_the_wrapper_is_away(world: World) -> None:
    world.running(limits={"hung_s": 10})
    world.closed()
    world.walk(25)
    world.connect("con_2", attempt=2, executions=(rq.Reported("e1", "running", 1, 1),))
    world.walk(8)
    assert world.status() == "running"
    world.walk(4)
    assert world.outcome()["cause"] == "hung"


def test_grace_switched_off_is_no_grace_and_not_for_ever(world: World) -> None:
    world.create(limits={"grace_s": None})
    world.connect()
    world.submit("e1")
    world.submit("e2")
    world.started()
    world.closed(code=1006)
    assert world.outcome()["cause"] == "disconnected" and world.link() == "offline"
    assert world.status("e2") == "pending"


def test_a_connect_through_a_dead_gateway_owns_nothing(world: World) -> None:
    world.running()
    world.store.register_gateway("gw_2", 2, 2, "http://127.0.0.1:2")
    late = world.connect("con_2", attempt=2, executions=(rq.Reported("e1", "running", 1, 1),))
    assert isinstance(late.answer, RefuseConnection) and late.answer.code == 1012
    assert world.store.session("s")["link"]["connection_id"] == "con_1"


def test_a_gateway_whose_place_another_has_taken_is_told_to_end(world: World) -> None:
    """Otherwise it goes on accepting sockets, and refuses every connect for ever."""
    world.store.register_gateway("gw_2", 2, 2, "http://127.0.0.1:2")
    before = world.store.service_ms_now()
    with pytest.raises(StorageBroken, match="gw_1"):
        world.store.tick("gw_1")
    assert world.store.service_ms_now() == before, "and time is not its own to move"
    world.store.tick("gw_2")


def test_an_old_connect_that_comes_again_never_takes_over(world: World) -> None:
    world.create()
    old = rq.Connect(
        session_id="s", seed=ulid(), connection_id="c1", gateway_id="gw_1", wrapper_id="w", instance_id="i1", attempt=1
    )
    world.do(old)
    world.connect("con_2", wrapper="w_2", instance="i_2")
    ghost = world.do(old)
    assert isinstance(ghost.answer, RefuseConnection) and ghost.speech == ()
    assert world.store.session("s")["link"]["connection_id"] == "con_2"


def test_a_spool_that_is_found_again_is_not_lost(world: World) -> None:
    world.running()
    world.closed()
    world.connect("con_2", wrapper="w_2", instance="i_2", spool_ok=False)
    world.connect("con_3", wrapper="w_1", instance="i_3", executions=(rq.Reported("e1", "running", 1, 1),))
    world.walk(40)
    assert world.status() == "running"


def test_a_clock_set_back_makes_no_dead_reaper_young(world: World) -> None:
    world.store.reaper_beat("r", 1, 1)
    world.now_ms -= 3_600_000
    age = world.store.reaper_age_ms()
    assert age is not None and age[0] > 5000
