"""Tasks from the device's side: gates, reports that pull, grace and its fenced rollback, probes, attempts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.law.effects import Show
from actors.law.nodes import requests as nq
from actors.law.nodes.answers import upward_of
from actors.protocol.errors import HoldfastError
from actors.protocol.ids import ulid
from actors.store.contract import TaskFilter
from tests.node_world import NodeWorld
from tests.world import LIMITS


@pytest.fixture
def world(tmp_path: Path) -> Iterator[NodeWorld]:
    made = NodeWorld(tmp_path)
    yield made
    made.close()


def actions(frames: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    return [(f["action"], f["task_id"], f["attempt"]) for f in frames if f["type"] == "task"]


def moments(world: NodeWorld) -> dict[str, int]:
    return {k: v for k, v in world.shown().items() if k.endswith("_at_ms") and v is not None}


def test_a_whole_life_with_every_moment_set_once(world: NodeWorld) -> None:
    world.device()
    world.task(params={"take": 1})
    assert world.act("config").status == 202 and world.task_status() == "pending"
    world.walk(1)
    world.say(("ready", "t", 1))
    assert world.task_status() == "ready"
    world.walk(1)
    world.act("begin")
    world.say(("recording", "t", 1))
    world.walk(1)
    world.act("pause")
    world.say(("paused", "t", 1))
    world.walk(1)
    world.act("resume")
    world.say(("recording", "t", 1))
    once = moments(world)
    world.walk(1)
    world.act("pause")
    world.say(("paused", "t", 1))
    assert moments(world) == once and world.task_status() == "in_progress"
    world.act("finish")
    assert world.task_status() == "uploading" and world.shown()["upload"]["state"] == "requested"
    told = [action for action, _, _ in actions(world.fetch("rec"))]
    assert told == ["config", "begin", "pause", "resume", "pause", "finish"]
    assert world.fetch("tra") == [{"type": "upload_request", "task_id": "t", "attempt": 1}]
    assert [once[k] - 1_700_000_000_000 for k in ("ready_at_ms", "started_at_ms", "paused_at_ms")] == [
        1000,
        2000,
        3000,
    ]


def test_a_moment_is_of_the_first_time_also_in_another_attempt(world: NodeWorld) -> None:
    world.ready()
    once = moments(world)
    world.walk(1)
    world.act("clear")
    world.say("idle")
    world.act("config")
    world.say(("ready", "t", 1))
    assert world.task_status() == "ready" and moments(world) == once
    world.act("begin")
    world.say(("recording", "t", 1))
    once = moments(world)
    world.unplug("rec")
    world.walk(31)
    assert world.task_status() == "pending"
    world.plug("rec2", role="recorder", instance="i_2", reported="idle")
    world.act("config")
    world.say(("ready", "t", 2), "rec2")
    world.act("begin")
    world.say(("recording", "t", 2), "rec2")
    assert (world.task_status(), world.shown()["attempt"]) == ("in_progress", 2)
    assert moments(world) == once and {"ready_at_ms", "started_at_ms"} < once.keys()


def test_params_go_with_config(world: NodeWorld) -> None:
    world.device()
    world.task(params={"take": 1})
    world.act("config")
    assert [f["params"] for f in world.fetch("rec")] == [{"take": 1}]


def test_idle_concludes_nothing(world: NodeWorld) -> None:
    world.recording()
    world.say("idle")
    assert world.task_status() == "in_progress"


def test_recording_pulls_from_pending_as_well(world: NodeWorld) -> None:
    world.device()
    world.task()
    world.say(("recording", "t", 1))
    shown = world.shown()
    assert (shown["status"], shown["ready_at_ms"]) == ("in_progress", None)


@pytest.mark.parametrize(
    ("story", "action", "refusal"),
    [
        ("nothing", "config", ("task_conflict", "recorder_not_connected")),
        ("idle", "begin", ("task_conflict", "task_not_ready")),
        ("error", "config", ("task_conflict", "device_not_idle")),
        ("other", "config", ("task_conflict", "recorder_busy")),
        ("drained", "config", ("task_conflict", "node_drained")),
        ("unknown", "config", ("state_unknown", None)),
        ("ready", "pause", ("task_conflict", "task_not_in_progress")),
        ("recording", "resume", ("task_conflict", "device_not_paused")),
        ("recording", "clear", ("task_conflict", "task_not_ready")),
        ("completed", "cancel", ("task_conflict", "task_terminal")),
    ],
)
def test_a_shut_gate_says_why_and_changes_nothing(world: NodeWorld, story: str, action: str, refusal: Any) -> None:
    {
        "nothing": lambda: (world.make(), world.task()),
        "idle": lambda: (world.device(), world.task()),
        "error": lambda: (world.device(), world.task(), world.say("error")),
        "other": lambda: (world.ready(), world.task("u"), world.say("idle")),
        "drained": lambda: (
            world.device(),
            world.task(),
            world.do(nq.ChangeNode(node_id="n", seed=ulid(), drained=True)),
        ),
        "unknown": lambda: (world.device(), world.task(), world.say("unknown")),
        "ready": world.ready,
        "recording": world.recording,
        "completed": lambda: (world.uploading(), world.upload("uploaded")),
    }[story]()
    task_id = "u" if story == "other" else "t"
    world.store._c.execute("delete from node_outbox")
    before = world.shown(task_id)
    assert world.refusal(world.act(action, task_id)) == refusal
    assert world.shown(task_id) == before
    if world.node()["connected"]:
        probes = [{"type": "probe"}] if refusal[0] == "state_unknown" else []
        assert world.fetch("rec") == probes


def test_begin_needs_news_of_the_last_15_seconds(world: NodeWorld) -> None:
    world.ready()
    world.fetch("rec")
    world.walk(14, sweep=False)
    world.say(("ready", "t", 1))
    world.walk(16, sweep=False)
    assert world.refusal(world.act("begin")) == ("state_unknown", None)
    assert world.fetch("rec") == [{"type": "probe"}] and world.task_status() == "ready"
    world.say(("ready", "t", 1))
    world.walk(15, sweep=False)
    assert world.act("begin").status == 202  # of fifteen seconds ago, to the second


def test_a_device_that_repeats_its_doubt_is_asked_all_the_same(world: NodeWorld) -> None:
    world.device()
    for _ in range(4):
        world.say("unknown")
        world.walk(2)
    assert world.fetch("rec") == [{"type": "probe"}], "five seconds after the first, not after the last"


def test_news_that_a_task_has_not_heard_is_told_until_it_has(world: NodeWorld) -> None:
    """Whoever carries it upward dies each time; it is said every five seconds by the deadline of the first decision."""
    world.device()
    world.task()
    world.act("config")
    world.carries = False
    world.say(("ready", "t", 1))
    reports = 0
    for _ in range(16):
        world.walk(1, sweep=False)
        reports += sum(len(upward_of(outcome.answer).tasks) for outcome in world.sweep())
    assert reports == 3 and world.task_status() == "pending"
    world.carries = True
    world.walk(5)
    assert world.task_status() == "ready" and world.armed() == []


def test_news_of_an_older_connection_is_no_news(world: NodeWorld) -> None:
    world.ready()
    world.plug("rec2", role="recorder", instance="i_2")
    assert world.sent["rec2"] == [{"type": "probe"}] and world.role("recorder")["synced"] is False
    assert world.refusal(world.act("begin")) == ("state_unknown", None)
    world.say(("ready", "t", 1), "rec2")
    assert world.role("recorder")["synced"] is True and world.act("begin").status == 202


def test_unknown_is_asked_again_until_it_is_known_and_never_fails_anything(world: NodeWorld) -> None:
    world.recording()
    world.fetch("rec")
    world.say("unknown")
    assert world.role("recorder")["synced"] is False
    for _ in range(3):
        world.walk(5)
        assert world.fetch("rec") == [{"type": "probe"}]
        world.say("unknown")
    assert world.task_status() == "in_progress"
    world.say(("recording", "t", 1))
    world.walk(30)
    assert world.fetch("rec") == [] and world.role("recorder")["synced"] is True


def test_silence_after_a_command_puts_the_state_in_doubt(world: NodeWorld) -> None:
    world.ready()
    world.act("begin")
    world.fetch("rec")
    world.walk(9)
    assert world.role("recorder")["synced"] is True
    world.walk(2)
    assert world.role("recorder")["synced"] is False and world.fetch("rec") == [{"type": "probe"}]
    assert world.role("recorder")["desired"] == {"state": "recording", "task_id": "t", "attempt": 1}
    world.say(("recording", "t", 1))
    assert world.task_status() == "in_progress" and world.armed() == []


# ---------------------------------------------------------------- two-way reconciliation


@pytest.mark.parametrize("story", ["cancelled", "completed", "foreign", "another node's", "another attempt"])
def test_a_recording_that_is_not_wanted_is_cancelled(world: NodeWorld, story: str) -> None:
    world.device()
    attempt, errors = 1, []
    if story == "foreign":
        errors = ["foreign_task"]
    elif story == "another node's":
        world.make("m")
        world.task(node_id="m")
        errors = ["foreign_task"]
    else:
        world.task()
    if story == "cancelled":
        world.act("cancel")
    elif story == "completed":
        world.upload("uploaded")
    elif story == "another attempt":
        attempt = 4
    before = world.shown() if story != "foreign" else None
    world.say(("recording", "t", attempt))
    frames = world.fetch("rec")
    assert [f["code"] for f in frames if f["type"] == "error"] == errors
    assert actions(frames) == [("cancel", "t", attempt)]
    if before is None:
        with pytest.raises(HoldfastError, match="task_not_found"):
            world.shown()
    else:
        assert world.shown() == before
    assert world.armed() == []


def test_a_finish_that_was_lost_is_said_again(world: NodeWorld) -> None:
    world.recording()
    world.act("finish")
    world.fetch("rec")
    world.plug("rec2", role="recorder", instance="i_2", reported=("recording", "t", 1))
    assert actions(world.fetch("rec2")) == [("finish", "t", 1)] and world.task_status() == "uploading"


def test_a_device_that_is_set_up_anew_for_what_it_has_recorded_is_cleared(world: NodeWorld) -> None:
    world.uploading()
    world.fetch("rec")
    world.say(("ready", "t", 1))
    assert actions(world.fetch("rec")) == [("clear", "t", 1)] and world.task_status() == "uploading"
    world.upload("not_found")  # and it does not keep a lost recording waiting
    assert world.shown()["detail"] == "recording_lost"


def test_a_report_that_crossed_a_clear_does_not_bring_the_task_back(world: NodeWorld) -> None:
    world.ready()
    world.act("clear")
    world.fetch("rec")
    world.say(("ready", "t", 1))  # on its way when we said clear
    assert world.task_status() == "pending" and actions(world.fetch("rec")) == [("clear", "t", 1)]
    world.say("idle")
    world.act("config")
    world.say(("ready", "t", 1))
    assert world.task_status() == "ready"


# ---------------------------------------------------------------- grace


def test_a_blip_changes_nothing(world: NodeWorld) -> None:
    world.recording()
    world.unplug("rec", code=1006)
    assert world.role("recorder")["state"] == "grace" and world.task_status() == "in_progress"
    world.walk(29)
    world.plug("rec2", role="recorder", reported=("recording", "t", 1))
    world.walk(60)
    assert world.task_status() == "in_progress" and world.log().count("node.disconnected") == 1
    last = [e for e in world.store.node_events("n", 0, 99).items if e["type"] == "node.connected"][-1]
    assert last["data"]["resumed"] is True


@pytest.mark.parametrize("story", ["ready", "recording"])
def test_grace_gives_the_task_back_once(world: NodeWorld, story: str) -> None:
    getattr(world, story)()
    world.unplug("rec", code=1006)
    world.walk(29)
    assert world.task_status() != "pending"
    world.walk(2)
    assert world.task_status() == "pending" and world.role("recorder")["state"] == "offline"
    assert world.armed() == []


def test_a_recorder_that_was_in_doubt_when_it_was_lost_still_has_its_grace(world: NodeWorld) -> None:
    """What it said last is not what it was doing: its task stands in progress, and only grace may give it back."""
    world.recording()
    world.say("unknown")
    world.unplug("rec", code=1006)
    assert world.role("recorder")["state"] == "grace" and world.task_status() == "in_progress"
    world.walk(31)
    assert world.role("recorder")["state"] == "offline" and world.task_status() == "pending"


def test_a_sweep_that_comes_before_its_time_changes_nothing(world: NodeWorld) -> None:
    """Whoever asks for it has seen a deadline that was due once, and has moved since."""
    world.recording()
    world.unplug("rec")
    armed = world.armed()
    world.walk(29)
    for kind, key in armed:
        world.do(nq.NodeSweep(node_id="n", seed=ulid(), kind=kind, subject_key=key))
    assert world.role("recorder")["state"] == "grace" and world.task_status() == "in_progress"
    assert world.armed() == armed


def test_without_grace_the_task_is_given_back_at_once(tmp_path: Path) -> None:
    world = NodeWorld(tmp_path, limits=replace(LIMITS, grace_s=None))
    world.recording()
    world.unplug("rec")
    gone = world.role("recorder")
    assert (gone["state"], gone["synced"]) == ("offline", False) and world.task_status() == "pending"
    world.close()


def test_a_recorder_without_work_needs_no_grace(world: NodeWorld) -> None:
    world.device()
    world.task()
    world.unplug("rec")
    assert world.role("recorder")["state"] == "offline" and world.armed() == []


def test_uploading_is_never_given_back_and_losing_the_uploader_touches_no_task(world: NodeWorld) -> None:
    world.recording()
    world.unplug("tra")
    world.walk(120)
    world.say(("recording", "t", 1))
    assert world.task_status() == "in_progress"
    world.act("finish")
    world.unplug("rec")
    world.walk(120)
    assert world.task_status() == "uploading"


def test_who_comes_back_after_grace_goes_on_where_the_device_is(world: NodeWorld) -> None:
    world.recording()
    world.unplug("rec")
    world.walk(31)
    world.plug("rec2", role="recorder", reported=("recording", "t", 1))
    shown = world.shown()
    assert (shown["status"], shown["attempt"]) == ("in_progress", 1)


def test_a_second_recording_is_another_attempt(world: NodeWorld) -> None:
    world.recording()
    world.unplug("rec")
    world.walk(31)
    world.plug("rec2", role="recorder", reported="idle", instance="i_2")
    assert world.act("config").status == 202
    assert actions(world.fetch("rec2")) == [("config", "t", 2)] and world.shown()["attempt"] == 2
    world.act("config")
    assert world.shown()["attempt"] == 2  # it has not begun since
    world.say(("recording", "t", 1), "rec2")  # the old one: not mixed with the new
    assert actions(world.fetch("rec2")) == [("config", "t", 2), ("cancel", "t", 1)]
    assert world.task_status() == "pending"
    world.say(("ready", "t", 2), "rec2")
    assert world.task_status() == "ready"


def test_a_finish_of_the_same_attempt_is_one_and_of_an_older_one_refused(world: NodeWorld) -> None:
    world.recording()
    first = world.act("finish", attempt=1)
    again = world.act("finish", attempt=1)
    assert isinstance(again.answer, Show) and not again.answer.changed and again.body == first.body
    assert actions(world.fetch("rec")).count(("finish", "t", 1)) == 1
    world.store._c.execute("update tasks set attempt = 2")
    refused = world.act("finish", attempt=1)
    assert world.refused(refused) == "attempt_mismatch"


# ---------------------------------------------------------------- crashes between the two transitions


def test_a_report_that_never_reached_its_task_is_looked_at_again(world: NodeWorld) -> None:
    world.device()
    world.task()
    world.carries = False
    outcome = world.say(("recording", "t", 1))
    assert [r.task_id for r in upward_of(outcome.answer).tasks] == ["t"]
    assert world.task_status() == "pending"  # whoever asked died here
    world.carries = True
    world.walk(6)
    assert world.task_status() == "in_progress" and world.armed() == []


def test_a_rollback_that_never_reached_its_task_is_made_good(world: NodeWorld) -> None:
    world.recording()
    world.unplug("rec")
    world.carries = False
    world.walk(31)
    assert world.task_status() == "in_progress" and ("task_reconcile", "t") in world.armed()
    world.carries = True
    world.walk(6)
    assert world.task_status() == "pending" and world.armed() == []


def test_a_late_rollback_does_not_touch_what_was_confirmed_since(world: NodeWorld) -> None:
    """The ghost: a rollback decided before the device came back, carried after."""
    world.recording()
    world.unplug("rec")
    world.carries = False
    world.walk(30)
    ghost = nq.TaskReport(task_id="t", node_id="n", seed=ulid())
    outcome = world.plug("rec2", role="recorder", reported=("recording", "t", 1))
    assert [r.task_id for r in upward_of(outcome.answer).tasks] == ["t"]
    world.do(ghost)
    assert world.task_status() == "in_progress"
    world.do(ghost)
    world.carries = True
    world.walk(60)
    assert world.task_status() == "in_progress" and moments(world)["started_at_ms"] == 1_700_000_000_000


def test_a_report_doubled_or_reordered_comes_to_what_the_rows_say(world: NodeWorld) -> None:
    world.device()
    world.task()
    world.carries = False
    first = upward_of(world.say(("ready", "t", 1)).answer).tasks
    second = upward_of(world.say(("recording", "t", 1)).answer).tasks
    for report in (*second, *first, *second, *first):
        world.do(report)
    assert world.task_status() == "in_progress"


# ---------------------------------------------------------------- the record


def test_tasks_are_made_once_and_listed(world: NodeWorld) -> None:
    world.make()
    request = nq.CreateTask(task_id="t1", node_id="n", seed=ulid())
    assert world.do(request).status == world.do(request).status == 201
    assert world.refused(world.task("t1")) == "task_exists"
    assert world.refused(world.task("t9", "m")) == "node_not_found"
    assert world.refused(world.act("config", "t9")) == "task_not_found"
    for name in ("t2", "t3"):
        world.task(name)
    world.act("cancel", "t2")

    def ids(**wanted: Any) -> list[str]:
        return [t["task_id"] for t in world.store.tasks(TaskFilter(**wanted)).items]

    assert ids() == ["t3", "t2", "t1"] and ids(status="cancelled") == ["t2"] and ids(node_id="m") == []
    page = world.store.tasks(TaskFilter(limit=2))
    assert [t["task_id"] for t in world.store.tasks(TaskFilter(cursor=page.next_cursor)).items] == ["t1"]


def test_nothing_is_posted_to_a_role_that_nobody_owns(world: NodeWorld) -> None:
    """Its epoch will never be connected again: such a row would be fetched by none, and lie there for ever."""
    world.ready()
    world.fetch("rec")
    world.unplug("rec")
    assert world.act("cancel").status == 202
    assert world.store._c.execute("select count(*) from node_outbox where fetched_seed is null").fetchone() == (0,)
    assert world.role("recorder")["desired"]["state"] == "idle", "it is told when it comes back"


def test_a_cancelled_task_that_no_device_heard_of_bothers_none(world: NodeWorld) -> None:
    world.device()
    world.task()
    world.act("cancel")
    assert world.fetch("rec") == [] and world.act("cancel").status == 202
    world.task("u")
    world.act("config", "u")
    world.act("cancel", "u")
    assert actions(world.fetch("rec")) == [("config", "u", 1), ("cancel", "u", 1)]
