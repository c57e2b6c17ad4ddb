"""Each decision stands on rows that its own transaction has read, and is whole or nothing (G5, G6, G8, G10)."""

from __future__ import annotations

import resource

import pytest

from actors.law import requests as rq
from actors.law.effects import Acked, Done
from actors.protocol.errors import HoldfastError, StorageBroken
from actors.protocol.ids import ulid
from actors.store.contract import Appended, AppendRefused, Outcome
from tests.world import World


def test_what_a_fenced_connection_still_had_at_the_writer_is_refused(world: World) -> None:
    world.running()
    world.create("other")
    late = world.item(2)
    world.connect("con_2", instance="i_2", executions=(rq.Reported("e1", "running", 1, 1),))
    before = world.events()
    assert world.append(late) == [AppendRefused("fenced", close_code=4001)]
    assert world.events() == before
    assert world.append(world.item(2, connection="con_2")) == [Appended(before[-1]["seq"] + 1, 1, 2)]


def test_an_actor_sees_what_the_gateway_committed_behind_its_back(world: World) -> None:
    """acked_seq and last_seq move on the data path; the final that follows is judged by the rows of now."""
    world.running()
    actor = world.another_process()
    session_id, epoch, instance = world.connections["con_1"]
    framed = {"session_id": session_id, "connection_id": "con_1", "epoch": epoch, "instance_id": instance}
    ask = rq.AskApproval(**framed, seed=ulid(), execution_id="e1", seq=2, approval_id="a", title="?", options=("yes",))
    assert actor.transact(ask).answer == Acked(2)
    assert world.append(world.item(3, 4)) == [Appended(world.events()[-1]["seq"] - 3, 4, 6)]
    final = rq.Final(**framed, seed=ulid(), execution_id="e1", seq=7, status="completed", exit_code=0)
    assert actor.transact(final).answer == Acked(7)
    actor.close()
    assert world.types()[-1] == "execution.completed"
    assert [e["seq"] for e in world.events()] == list(range(1, len(world.events()) + 1))


def test_a_second_incarnation_sees_what_the_first_has_done(world: World) -> None:
    world.running()
    first, second = world.another_process(), world.another_process()
    try:
        for incarnation in (first, second):
            assert incarnation.transact(rq.Interrupt(session_id="s", seed=ulid(), execution_id="e1")).status == 202
        ended = first.transact(rq.Fail(session_id="s", seed=ulid(), execution_id="e1"))
        late = second.transact(rq.Fail(session_id="s", seed=ulid(), execution_id="e1"))
        assert (changed(ended), changed(late)) == (True, False)
        assert ended.body is not None and late.body is not None
        assert late.body["execution"] == ended.body["execution"]
    finally:
        first.close()
        second.close()
    assert world.types().count("execution.interrupted") == world.types().count("interrupt.requested") == 1


def changed(outcome: Outcome) -> bool:
    assert outcome.body is not None
    return bool(outcome.body["changed"])


def test_of_a_decision_that_breaks_nothing_stays_and_its_group_goes_on(world: World) -> None:
    """A row stands where the decision's last statement writes: what it had written before is undone with it."""
    world.create("s")
    world.create("t")
    stray = "insert into events values ('s', 1, null, null, 'stray', 0, 0, '{}', null, 0, 0)"
    world.store._c.execute(stray)
    broken, fine = world.store.commit_group(
        [
            rq.Submit(session_id="s", seed=ulid(), execution_id="e1"),
            rq.Submit(session_id="t", seed=ulid(), execution_id="e1"),
        ]
    ).results
    assert isinstance(broken, HoldfastError) and broken.code == "internal"
    assert isinstance(fine, Outcome) and fine.status == 202
    with pytest.raises(HoldfastError, match="execution_not_found"):
        world.status("e1", "s")
    assert world.commands("s") == [] and world.commands("t") == [("start", "e1")]
    assert world.store._c.execute("select session_id from deadlines").fetchall() == [("t",)]
    world.store._c.execute("delete from events where type = 'stray'")
    assert world.submit("e1", "s").status == 202


def test_a_commit_that_fails_is_an_error_and_leaves_nothing(world: World) -> None:
    """The file may not grow: everything goes well in memory, and the write at the commit fails."""
    world.running()
    before = world.events()
    wal = world.path.with_name(world.path.name + "-wal").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (wal, hard))
    try:
        with pytest.raises(StorageBroken):
            world.append(world.item(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    again = world.another_process()
    assert len(again.page("s", 0, 100).seqs) == len(before)
    again.close()


# ---------------------------------------------------------------- time


def grace(world: World) -> tuple[str, int]:
    """The grace deadline's subject, and when it is due."""
    (found,) = world.store._c.execute("select subject, due_ms from deadlines where kind = 'grace'").fetchall()
    return str(found[0]), int(found[1])


def test_a_sweep_after_an_outage_counts_only_the_time_that_ticks_have_confirmed(world: World) -> None:
    """The wall says that an hour has passed; no door was open, so for the peer not a second has."""
    world.running()
    world.closed()
    subject, due = grace(world)
    world.walk(29)
    world.now_ms += 3_600_000
    sweep = rq.Sweep(session_id="s", seed=ulid(), kind="grace", subject=subject)
    assert world.do(sweep).answer == Done(changed=False)
    assert world.status() == "running" and grace(world) == (subject, due)


def test_a_deadline_fires_at_its_very_millisecond_and_not_before(world: World) -> None:
    world.running()
    world.closed()
    _, due = grace(world)
    world.walk(29)
    assert (world.store.service_ms(), world.status()) == (due - 1000, "running")
    world.now_ms += 999
    world.store.tick("gw_1")
    world.sweep()
    assert (world.store.service_ms(), world.status()) == (due - 1, "running")
    world.now_ms += 1
    world.store.tick("gw_1")
    world.sweep()
    assert (world.store.service_ms(), world.status()) == (due, "failed")
    assert world.outcome()["cause"] == "disconnected"


def test_a_failed_sweep_is_tried_later_and_its_deadline_does_not_move(world: World) -> None:
    world.running()
    world.closed()
    _, due = grace(world)
    world.walk(30, sweep=False)
    (deadline,) = world.store.due(10)
    world.store.retry_later(deadline, 2.0)
    assert world.store.due(10) == [] and grace(world)[1] == due == deadline.due_ms
    world.walk(2, sweep=False)
    assert world.store.due(10) == [deadline]
    world.sweep()
    assert world.outcome()["cause"] == "disconnected"
