"""The fake device's pure parts: the recorder's table, and the script of misfortunes."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from actors.protocol.node_codes import TASK_ACTIONS
from wrapper.faults import ORDERS, POINTS, Fault, Faults, parse
from wrapper.recorder import IDLE, TABLE, Recorder, RecorderState, obey
from wrapper.recordings import Recordings
from wrapper.spoolfile import SpoolLocked

STATES: tuple[RecorderState, ...] = ("idle", "ready", "recording", "paused")


def test_every_action_of_the_protocol_is_known() -> None:
    assert {action for _, action in TABLE} == set(TASK_ACTIONS) == set(ORDERS)


@pytest.mark.parametrize(("state", "action"), list(itertools.product(STATES, TASK_ACTIONS)))
def test_every_pair_of_state_and_action_is_defined(state: RecorderState, action: str) -> None:
    """In the table: as it says. Not in it, or about another task or attempt: nothing changes. Twice is as once."""
    now = Recorder(state, "t1", 2)
    then, deed = obey(now, action, "t1", 2)
    if (state, action) in TABLE:
        assert (then.state, deed) == TABLE[state, action]
    else:
        assert (then, deed) == (now, None)
    once, _ = obey(then, action, "t1", 2)
    assert once == then, "a repeated order changes nothing more"
    for other in (("t2", 2), ("t1", 3)):
        if action != "config":
            assert obey(now, action, *other) == (now, None)


def test_a_recording_is_opened_kept_and_dropped_exactly_where_it_should_be() -> None:
    deeds = {pair: deed for pair, (_, deed) in TABLE.items() if deed}
    assert deeds == {
        ("ready", "begin"): "open",
        ("recording", "finish"): "keep",
        ("paused", "finish"): "keep",
        ("recording", "cancel"): "drop",
        ("paused", "cancel"): "drop",
    }


def test_an_idle_recorder_names_no_task() -> None:
    assert Recorder("idle", "t1", 2).reported() == {"state": "idle"} == IDLE.reported()
    assert Recorder("paused", "t1", 2).reported() == {"state": "paused", "task_id": "t1", "attempt": 2}


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("uploaded=die", Fault("uploaded", "die")),
        ("said@2=drop", Fault("said", "drop", 2)),
        ("begin=delay:3", Fault("begin", "delay", 1, 3.0)),
        ("order@*=unknown", Fault("order", "unknown", None)),
        ("result=delay:0.25", Fault("result", "delay", 1, 0.25)),
    ],
)
def test_a_fault_is_read_as_written(text: str, fault: Fault) -> None:
    assert parse(text) == fault


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("uploaded", "POINT[@N]=ACTION"),
        ("nowhere=die", "there is no point 'nowhere'"),
        ("said=twice", "nothing called 'twice' can happen at 'said'"),
        ("said=die:3", "seconds belong to `delay`"),
        ("said=delay", "`delay` needs them"),
        ("said@0=die", "the first time is 1"),
        ("said=die; rm", "POINT[@N]=ACTION"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_with_what_there_is(text: str, why: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse(text)
    assert why in str(refused.value)


async def test_a_fault_happens_at_its_pass_and_passes_outlive_the_process(tmp_path: Path) -> None:
    kills: list[int] = []
    script = [parse("said@3=die"), parse("said=drop"), parse("begin=skip")]
    first = Recordings(str(tmp_path / "d"))
    assert await Faults(script, first.passed, kill=kills.append).at("said") == "drop"
    assert await Faults(script, first.passed, kill=kills.append).at("said") is None
    first.close()
    second = Recordings(str(tmp_path / "d"))
    faults = Faults(script, second.passed, kill=kills.append)
    assert await faults.at("said") is None and kills == [9]
    assert await faults.at("said") is None and kills == [9], "once"
    assert await faults.at("order", "config") is None
    assert await faults.at("order", "begin") == "skip"
    second.close()


async def test_a_delay_is_waited_out(tmp_path: Path) -> None:
    slept: list[float] = []

    async def sleep(s: float) -> None:
        slept.append(s)

    rows = Recordings(str(tmp_path / "d"))
    assert await Faults([parse("ack=delay:2.5")], rows.passed, sleep=sleep).at("ack") is None
    assert slept == [2.5]
    rows.close()


def test_every_point_says_when_it_is() -> None:
    assert all(when for when, _ in POINTS.values())


# ---------------------------------------------------------------- recordings


def test_rows_survive_and_files_go_only_after_their_row_says_so(tmp_path: Path) -> None:
    rows = Recordings(str(tmp_path))
    rows.obeyed(Recorder("recording", "t1", 1), opens=True)
    rows.path("t1", 1).write_bytes(b"frames")
    rows.obeyed(Recorder("idle", "t1", 1), keeps=True)
    rows.wanted("t1", 1)
    rows.uploaded("t1", 1, "dev/t1/1.bin", "0" * 64, 6)
    rows.close()
    again = Recordings(str(tmp_path))
    row = again.get("t1", 1)
    assert row is not None and row.open and row.state == "uploaded" and row.object_key == "dev/t1/1.bin"
    assert again.path("t1", 1).read_bytes() == b"frames"
    again.acknowledged("t1", 1, "kept")
    kept = again.get("t1", 1)
    assert kept is not None and kept.state == "kept" and not kept.open and kept.sha256 == "0" * 64
    assert not again.path("t1", 1).exists()
    again.close()


def test_a_file_that_a_crash_left_behind_its_row_is_removed_at_the_next_start(tmp_path: Path) -> None:
    rows = Recordings(str(tmp_path))
    for name in ("t1", "t2"):
        rows.obeyed(Recorder("recording", name, 1), opens=True)
        rows.path(name, 1).write_bytes(b"frames")
    rows.acknowledged("t1", 1, "discarded")
    rows.path("t1", 1).write_bytes(b"as if the crash had come before the unlink")
    rows.close()
    again = Recordings(str(tmp_path))
    assert not again.path("t1", 1).exists() and again.path("t2", 1).read_bytes() == b"frames"
    again.close()


def test_a_cancelled_recording_leaves_nothing(tmp_path: Path) -> None:
    rows = Recordings(str(tmp_path))
    rows.obeyed(Recorder("recording", "t1", 1), opens=True)
    rows.path("t1", 1).write_bytes(b"frames")
    rows.obeyed(Recorder("idle", "t1", 1), drops=True)
    assert rows.all() == [] and not rows.path("t1", 1).exists()
    assert rows.recorder() == Recorder("idle", "t1", 1)
    rows.close()


def test_one_folder_is_one_device(tmp_path: Path) -> None:
    rows = Recordings(str(tmp_path))
    with pytest.raises(SpoolLocked, match="another device"):
        Recordings(str(tmp_path))
    rows.close()
