"""Recorder and transfer through every window of an upload: the device killed, cut, lying and late; the gateway killed.

What must hold in each: exactly one artifact or none, verified; the device's own copy is deleted only after the service
has the artifact (or nobody wants it); and the task ends where it should, once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import eventually
from tests.e2e.devices import Fake
from tests.e2e.service import Service

MakeFake = Callable[[str], Fake]


@pytest.fixture
def fake(service: Service) -> Iterator[MakeFake]:
    made: list[Fake] = []

    def make(node_id: str) -> Fake:
        made.append(Fake(service, node_id))
        return made[-1]

    yield make
    for one in made:
        one.end()
        if one.log.exists():
            print(one.log.read_text()[-6000:])


def completed(device: Fake, task_id: str, attempt: int = 1) -> None:
    """One artifact that is what it says, and a device that has let go of its copy."""
    task = device.until(task_id, "completed", "failed", "cancelled")
    assert task["status"] == "completed", task
    artifact = task["artifact"]
    assert artifact["verified"] and task["attempt"] == attempt
    stored = (device.service.folder / "objects" / artifact["object_key"]).read_bytes()
    assert (hashlib.sha256(stored).hexdigest(), len(stored)) == (artifact["sha256"], artifact["size"])
    assert artifacts(device.service, task_id) == 1
    eventually(lambda: device.recording(task_id, attempt) == "kept", 20, what="the device heard the acknowledgement")
    eventually(lambda: not device.has_file(task_id, attempt), 5)


def artifacts(service: Service, task_id: str) -> int:
    return int(service._row("select count(*) from artifacts where task_id = ?", task_id)[0])


# What has happened when the device dies: (the service has the artifact, the device has its file). None: either.
WINDOWS = {
    "request": (False, True),
    "accepted": (False, True),
    "object": (False, True),
    "uploaded": (False, True),
    "said": (None, True),
    "ack": (True, True),
    "acked": (True, False),
}


@pytest.mark.parametrize("point", WINDOWS)
def test_a_device_killed_in_a_window_of_its_upload_completes_it_in_its_next_life(
    service: Service, fake: MakeFake, point: str
) -> None:
    tid = f"window-{point}"
    device = fake(f"dev-{tid}").start(f"{point}=die").connected()
    device.record(tid)
    device.act(tid, "finish")
    device.died()
    has_artifact, has_file = WINDOWS[point]
    if has_artifact is not None:
        assert artifacts(service, tid) == has_artifact
    assert device.has_file(tid) is has_file
    device.start(f"{point}=die")
    completed(device, tid)


@pytest.mark.parametrize("point", ["request", "accepted", "uploaded", "said", "ack"])
def test_a_cable_cut_in_a_window_of_an_upload_changes_nothing(service: Service, fake: MakeFake, point: str) -> None:
    """The request, the evidence, the complete or the acknowledgement is lost; the next connect makes it good."""
    tid = f"cut-{point}"
    device = fake(f"dev-{tid}").start(f"{point}=drop").connected()
    device.record(tid)
    device.act(tid, "finish")
    completed(device, tid)


def test_a_complete_that_is_told_twice_makes_one_artifact(fake: MakeFake) -> None:
    device = fake("dev-twice").start("uploaded=twice").connected()
    device.record("twice")
    device.act("twice", "finish")
    completed(device, "twice")
    assert artifacts(device.service, "twice") == 1


def test_a_complete_that_is_told_after_its_acknowledgement_is_acknowledged_again_and_changes_nothing(
    fake: MakeFake,
) -> None:
    device = fake("dev-again").start("acked=again").connected()
    device.record("again")
    device.act("again", "finish")
    completed(device, "again")
    task = device.task("again")
    eventually(lambda: '"upload.acknowledged_again"' in device.log.read_text(), 20, what="the repeat is answered too")
    assert device.task("again") == task and artifacts(device.service, "again") == 1


def test_a_request_that_was_skipped_is_made_again(fake: MakeFake) -> None:
    """Written to a socket whose reader never noted it, which stays connected: after the first resend interval."""
    device = fake("dev-skipped").start("request=skip").connected()
    device.record("skipped")
    device.act("skipped", "finish")
    completed(device, "skipped")


def test_the_gateway_dies_between_the_commit_and_the_request(service: Service, fake: MakeFake) -> None:
    device = fake("dev-gw").start().connected()
    device.record("gw")
    device.act("gw", "finish")
    service.kill_gateway()
    completed(device, "gw")


def test_the_gateway_dies_between_the_complete_and_the_acknowledgement(service: Service, fake: MakeFake) -> None:
    device = fake("dev-gwack").start("ack=delay:2").connected()
    device.record("gwack")
    device.act("gwack", "finish")
    eventually(lambda: artifacts(service, "gwack") == 1, 20)
    service.kill_gateway()
    completed(device, "gwack")


def test_an_object_that_is_not_what_is_told_of_it_is_asked_for_again(fake: MakeFake) -> None:
    device = fake("dev-corrupt").start("object=corrupt").connected()
    device.record("corrupt")
    device.act("corrupt", "finish")
    completed(device, "corrupt")
    assert device.task("corrupt")["upload"]["tries"] >= 1


def test_a_lost_recording_fails_its_task(service: Service, fake: MakeFake) -> None:
    device = fake("dev-lost").start("request=lose").connected()
    device.record("lost")
    device.act("lost", "finish")
    task = device.until("lost", "failed")
    assert task["detail"] == "recording_lost" and task["upload"]["state"] == "not_found"
    assert artifacts(service, "lost") == 0


def test_an_upload_of_a_cancelled_task_is_discarded(service: Service, fake: MakeFake) -> None:
    device = fake("dev-cancelled").start("uploaded=die").connected()
    device.record("cancelled")
    device.act("cancelled", "finish")
    device.died()
    service.patient("POST", "/v1/tasks/cancelled/cancel", {})
    assert device.has_file("cancelled")
    device.start("uploaded=die").connected()
    eventually(lambda: device.recording("cancelled") == "discarded", 30)
    eventually(lambda: not device.has_file("cancelled"), 5)
    assert device.task("cancelled")["status"] == "cancelled" and artifacts(service, "cancelled") == 0


# ---------------------------------------------------------------- the recorder


def test_a_recorder_that_dies_while_recording_goes_on_where_it_was(fake: MakeFake) -> None:
    device = fake("dev-resumed").start("obeyed@2=die").connected()  # it records, and has not said so
    device.service.patient("POST", "/v1/nodes/dev-resumed/tasks", {"task_id": "resumed"})
    device.act("resumed", "config")
    device.until("resumed", "ready")
    device.act("resumed", "begin")
    device.died()
    device.start("obeyed@2=die").connected()
    device.until("resumed", "in_progress")
    device.act("resumed", "pause")
    eventually(lambda: device.node_role("recorder")["reported"]["state"] == "paused", 10)
    device.act("resumed", "resume")
    eventually(lambda: device.node_role("recorder")["reported"]["state"] == "recording", 10)
    device.act("resumed", "finish")
    completed(device, "resumed")


def test_unknown_is_no_failure_and_the_probe_brings_the_truth(fake: MakeFake) -> None:
    device = fake("dev-unknown").start("begin=unknown", options=("--report-every", "30")).connected()
    device.record("unknown")
    assert device.node_role("recorder")["synced"]
    device.act("unknown", "finish")
    completed(device, "unknown")


def test_a_grace_that_expires_gives_the_task_back_and_the_next_recording_is_another_attempt(tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    service = Service(tmp_path, heartbeat_s=1, grace_s=3, objects_dir=tmp_path / "objects").start()
    device = Fake(service, "dev-grace")
    try:
        device.start().connected()
        device.record("grace")
        device.end()
        eventually(lambda: device.node_role("recorder")["state"] == "grace", 10)
        assert device.task("grace")["status"] == "in_progress", "nothing is rolled back within the grace"
        task = device.until("grace", "pending")
        assert task["started_at_ms"] is not None and device.node_role("recorder")["state"] == "offline"
        device.folder = service.folder / "repaired"  # the disk was replaced: it knows of nothing
        device.start().connected()
        device.act("grace", "config")
        device.until("grace", "ready")
        device.act("grace", "begin")
        again = device.until("grace", "in_progress")
        assert again["attempt"] == 2 and again["started_at_ms"] == task["started_at_ms"], "times are set once"
        assert service.http("POST", "/v1/tasks/grace/finish", {"attempt": 1})[1]["code"] == "attempt_mismatch"
        device.act("grace", "finish")
        completed(device, "grace", 2)
    finally:
        device.end()
        service.end()


def test_a_device_that_still_records_after_the_grace_has_its_task_again(tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    service = Service(tmp_path, heartbeat_s=1, grace_s=3, objects_dir=tmp_path / "objects").start()
    device = Fake(service, "dev-late")
    try:
        device.start().connected()
        device.record("late")
        device.end()
        device.until("late", "pending")
        device.start().connected()
        assert device.until("late", "in_progress")["attempt"] == 1
        device.act("late", "finish")
        completed(device, "late")
    finally:
        device.end()
        service.end()


def test_what_it_records_of_a_task_that_was_cancelled_meanwhile_is_dropped(service: Service, fake: MakeFake) -> None:
    device = fake("dev-dropped").start().connected()
    device.record("dropped")
    device.end()
    service.patient("POST", "/v1/tasks/dropped/cancel", {})
    assert device.has_file("dropped")
    device.start().connected()
    eventually(lambda: not device.has_file("dropped"), 20)
    eventually(lambda: device.node_role("recorder")["reported"]["state"] == "idle", 10)
    assert device.task("dropped")["status"] == "cancelled"
