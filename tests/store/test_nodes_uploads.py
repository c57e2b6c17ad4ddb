"""Upload intents through every window: whatever dies, one artifact, one advance, a true acknowledgement."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.law.effects import Fenced
from actors.law.nodes import requests as nq
from actors.law.nodes.answers import upward_of
from actors.objects import LocalDirectory, Unchecked, Verdict, object_store, sha256_of
from actors.protocol.defaults import UPLOAD_TRIES
from actors.protocol.ids import ulid
from tests.node_world import SHA, NodeWorld, told

REQUEST = {"type": "upload_request", "task_id": "t", "attempt": 1}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[NodeWorld]:
    made = NodeWorld(tmp_path)
    yield made
    made.close()


def acks(frames: list[dict[str, Any]]) -> list[str]:
    return [f["disposition"] for f in frames if f["type"] == "upload_ack"]


def requests(frames: list[dict[str, Any]]) -> int:
    return sum(f["type"] == "upload_request" for f in frames)


def artifacts(world: NodeWorld) -> int:
    return int(world.store._c.execute("select count(*) from artifacts").fetchone()[0])


def state(world: NodeWorld) -> tuple[str, str]:
    shown = world.shown()
    return shown["status"], shown["upload"]["state"]


def test_commit_first_acknowledge_second(world: NodeWorld) -> None:
    world.uploading()
    world.fetch("tra")
    world.upload("uploaded")
    assert state(world) == ("completed", "kept") and artifacts(world) == 1
    assert acks(world.fetch("tra")) == ["keep"] and world.armed() == []


def test_a_request_written_to_a_dead_socket_goes_out_again(world: NodeWorld) -> None:
    world.recording()
    world.act("finish")
    assert world.fetch("tra") == [REQUEST]  # and the line was dead
    world.unplug("tra", code=1006)
    world.walk(300)
    world.plug("tra2", role="transfer", uploads=())
    assert world.sent["tra2"] == [REQUEST] and state(world) == ("uploading", "requested")


def test_a_request_that_was_never_sent_goes_out_with_the_next_connection(world: NodeWorld) -> None:
    world.recording()
    world.unplug("tra")
    world.act("finish")  # committed; nobody to send it to
    world.plug("tra2", role="transfer", uploads=())
    assert world.sent["tra2"] == [REQUEST]


def test_without_evidence_it_is_asked_after_10_20_40_60_60_seconds(world: NodeWorld) -> None:
    world.recording()
    world.act("finish")
    begun, asked = world.now_ms, []
    world.fetch("tra")
    for _ in range(200):
        world.walk(1)
        if requests(world.fetch("tra")):
            asked.append((world.now_ms - begun) // 1000)
    assert asked == [10, 30, 70, 130, 190]


def test_nobody_is_asked_while_nobody_is_there(world: NodeWorld) -> None:
    world.recording()
    world.act("finish")
    world.unplug("tra")
    world.walk(600)
    assert not [k for k in world.armed() if k[0] == "upload_resend"]
    assert world.store._c.execute("select count(*) from node_outbox where role = 'transfer'").fetchone()[0] == 0


def test_evidence_stops_the_asking_until_it_falls_silent(world: NodeWorld) -> None:
    world.uploading()
    world.fetch("tra")
    for _ in range(4):
        world.walk(50)
        world.upload("progress")
    assert requests(world.fetch("tra")) == 0
    world.walk(61)
    assert requests(world.fetch("tra")) == 1 and state(world) == ("uploading", "accepted")


def test_complete_lost_the_device_says_it_again_at_hello(world: NodeWorld) -> None:
    world.uploading()
    world.unplug("tra")
    world.plug("tra2", role="transfer", uploads=(told("uploaded"),))
    assert state(world) == ("completed", "kept") and acks(world.fetch("tra2")) == ["keep"]


@pytest.mark.parametrize("again", ["frame", "hello"])
def test_ack_lost_the_duplicate_is_acknowledged_again_and_is_nothing_else(world: NodeWorld, again: str) -> None:
    world.uploading()
    world.upload("uploaded")
    world.fetch("tra")
    before, spoken = world.shown(), len(world.log())
    if again == "frame":
        world.upload("uploaded")
        assert acks(world.fetch("tra")) == ["keep"]
        assert len(world.log()) == spoken
    else:
        world.plug("tra2", role="transfer", instance="i_2", uploads=(told("uploaded"),))
        assert acks(world.sent["tra2"]) == ["keep"]
    assert world.shown() == before and artifacts(world) == 1


def test_a_crash_between_the_report_and_its_verification_is_made_good(world: NodeWorld) -> None:
    world.uploading()
    world.fetch("tra")
    world.carries = False
    outcome = world.upload("uploaded")
    assert [v.object_key for v in upward_of(outcome.answer).verify] == ["t/1"]
    assert state(world) == ("uploading", "uploaded") and world.fetch("tra") == []
    world.carries = True
    world.walk(11)
    assert state(world) == ("completed", "kept") and acks(world.fetch("tra")) == ["keep"]


def test_it_is_verified_even_if_the_device_is_gone_and_acknowledged_when_it_is_back(world: NodeWorld) -> None:
    world.uploading()
    world.carries = False
    world.upload("uploaded")
    world.unplug("tra")
    world.carries = True
    world.walk(11)
    assert state(world) == ("completed", "kept")
    world.plug("tra2", role="transfer", uploads=(told("uploaded"),))
    assert acks(world.sent["tra2"]) == ["keep"] and artifacts(world) == 1


def test_a_crash_after_the_commit_leaves_the_acknowledgement_in_the_outbox(world: NodeWorld) -> None:
    world.uploading()
    world.fetch("tra")
    world.upload("uploaded")
    world.store.close()
    world.store = world.another_process()
    assert acks(world.fetch("tra")) == ["keep"]


def test_two_verifications_of_one_upload_advance_once(world: NodeWorld) -> None:
    world.uploading()
    world.fetch("tra")
    world.carries = False
    first = upward_of(world.upload("uploaded").answer).verify
    second = upward_of(world.upload("uploaded").answer).verify
    for told_ in (*first, *second):
        world.look(told_, "n")
    assert artifacts(world) == 1 and acks(world.fetch("tra")) == ["keep", "keep"]
    assert state(world) == ("completed", "kept")


@pytest.mark.parametrize("story", ["pending", "ready", "in_progress", "uploading"])
def test_an_upload_completes_the_task_from_wherever_it_is(world: NodeWorld, story: str) -> None:
    if story == "pending":
        world.recording()
        world.unplug("rec")
        world.walk(31)
    else:
        {"ready": world.ready, "in_progress": world.recording, "uploading": world.uploading}[story]()
    assert world.task_status() == story
    world.upload("uploaded")
    assert state(world) == ("completed", "kept") and acks(world.fetch("tra"))[-1:] == ["keep"]


@pytest.mark.parametrize("story", ["ready", "recording"])
def test_evidence_pulls_the_task_to_uploading(world: NodeWorld, story: str) -> None:
    getattr(world, story)()
    world.upload("accepted")
    assert state(world) == ("uploading", "accepted")
    assert world.shown()["finished_at_ms"] is not None


@pytest.mark.parametrize("when", ["before", "while verifying"])
def test_a_cancelled_task_with_an_uploaded_file_is_acknowledged_with_discard(world: NodeWorld, when: str) -> None:
    world.uploading()
    world.fetch("tra")
    if when == "before":
        world.act("cancel")
        world.upload("uploaded")
    else:
        world.carries = False
        (report,) = upward_of(world.upload("uploaded").answer).verify
        world.act("cancel")
        world.look(report, "n")
    assert state(world) == ("cancelled", "discarded") and artifacts(world) == 0
    assert acks(world.fetch("tra")) == ["discard"]
    assert world.armed() == [("probe", "recorder:1")]  # the recorder was told, too, and owes its state


def test_an_older_attempt_is_discarded_and_a_later_one_unknown(world: NodeWorld) -> None:
    world.device()
    world.task()
    world.store._c.execute("update tasks set attempt = 2")
    world.upload("uploaded", attempt=1)
    assert acks(world.fetch("tra")) == ["discard"] and world.task_status() == "pending"
    assert world.refused(world.upload("uploaded", attempt=3)) == "foreign_task"


def test_what_we_do_not_know_is_never_acknowledged(world: NodeWorld) -> None:
    world.device()
    assert world.refused(world.upload("uploaded", task_id="x")) == "foreign_task"
    world.plug("tra2", role="transfer", instance="i_2", uploads=(told("uploaded", "x"),))
    assert [f["type"] for f in world.sent["tra2"]] == ["error"] and world.fetch("tra2") == []


def test_a_try_that_failed_counts_once_however_often_it_is_decided(world: NodeWorld) -> None:
    """The actor that decided it died before it could say so, and the gateway decides the same request again."""
    world.uploading()
    failed = nq.NodeUpload(**world.framed("tra"), report=told("failed"))
    for _ in range(UPLOAD_TRIES):
        world.do(failed)
    assert state(world) == ("uploading", "requested")
    for _ in range(UPLOAD_TRIES - 1):
        world.upload("failed")
    assert state(world) == ("failed", "failed")


def test_not_found_is_the_end(world: NodeWorld) -> None:
    world.uploading()
    world.upload("not_found")
    shown = world.shown()
    assert (shown["status"], shown["detail"], shown["upload"]["state"]) == ("failed", "recording_lost", "not_found")
    assert world.armed() == []
    world.upload("uploaded")
    assert acks(world.fetch("tra")) == ["discard"] and artifacts(world) == 0


def test_not_found_is_not_believed_while_the_recorder_may_still_be_at_it(world: NodeWorld) -> None:
    """`finish` and `upload_request` travel on two sockets: the uploader may be asked before the recording is closed."""
    world.recording()
    world.act("finish")
    world.fetch("tra")
    world.upload("not_found")  # the recorder has not heard `finish` yet
    assert state(world) == ("uploading", "requested")
    world.unplug("rec", code=1006)
    world.plug("rec2", role="recorder", instance="i_2")  # and it has not said what it does
    world.upload("not_found")
    assert state(world) == ("uploading", "requested")
    world.walk(11)
    assert requests(world.fetch("tra")) == 1
    world.say("idle", "rec2")
    world.upload("accepted")
    assert state(world) == ("uploading", "accepted")


def test_not_found_is_not_believed_while_the_recorder_cannot_tell(world: NodeWorld) -> None:
    world.recording()
    world.act("finish")
    world.say("unknown")
    world.upload("not_found")
    assert state(world) == ("uploading", "requested")
    world.unplug("rec", code=1006)  # lost while it was in doubt: it may be closing the file that nobody finds yet
    world.upload("not_found")
    assert world.role("recorder")["state"] == "grace" and state(world) == ("uploading", "requested")
    world.walk(31)
    world.upload("not_found")
    assert world.shown()["detail"] == "recording_lost"


def test_not_found_is_believed_once_the_recorder_is_gone_for_good(world: NodeWorld) -> None:
    world.recording()
    world.act("finish")
    world.unplug("rec")
    world.walk(29)
    world.upload("not_found")
    assert state(world) == ("uploading", "requested")
    world.walk(2)
    world.upload("not_found")
    assert world.shown()["detail"] == "recording_lost"


def test_an_absent_list_of_uploads_is_not_an_empty_one(world: NodeWorld) -> None:
    world.uploading()
    world.unplug("tra")
    world.plug("tra2", role="transfer", uploads=None)
    assert world.sent["tra2"] == [] and state(world) == ("uploading", "accepted")
    world.walk(11)
    assert requests(world.fetch("tra2")) == 1  # nothing was concluded; it is asked after a while
    world.unplug("tra2")
    world.plug("tra3", role="transfer", uploads=())
    assert world.sent["tra3"] == [REQUEST] and state(world) == ("uploading", "requested")


def test_the_list_at_hello_is_read_as_frames(world: NodeWorld) -> None:
    world.recording()
    world.unplug("tra")
    world.act("finish")
    world.plug("tra2", role="transfer", uploads=(told("accepted"),))
    assert world.sent["tra2"] == [] and state(world) == ("uploading", "accepted")


def test_failed_is_tried_again_and_not_for_ever(world: NodeWorld) -> None:
    world.uploading()
    world.fetch("tra")
    waits = []
    for _ in range(4):
        world.upload("failed", detail="no space")
        assert state(world) == ("uploading", "requested")
        begun = world.now_ms
        while not requests(world.fetch("tra")):
            world.walk(1)
        waits.append((world.now_ms - begun) // 1000)
    assert waits == [10, 20, 40, 60]
    world.upload("failed", detail="no space")
    shown = world.shown()
    assert (shown["status"], shown["detail"], shown["upload"]) == (
        "failed",
        "upload_failed",
        {"state": "failed", "attempt": 1, "tries": 5, "detail": "no space"},
    )
    assert world.armed() == []


def test_an_object_that_is_not_what_was_told_is_asked_for_again_and_not_for_ever(tmp_path: Path) -> None:
    world = NodeWorld(tmp_path, verify=lambda report: Verdict(False, "another sha256"))
    world.uploading()
    world.fetch("tra")
    for tries in range(1, 5):
        world.upload("uploaded")
        shown = world.shown()["upload"]
        assert (shown["state"], shown["tries"], shown["detail"]) == ("requested", tries, "another sha256")
        assert world.fetch("tra") == [REQUEST]
    world.upload("uploaded")
    shown = world.shown()
    assert (shown["status"], shown["detail"]) == ("failed", "object_mismatch")
    assert artifacts(world) == 0 and world.armed() == [] and acks(world.fetch("tra")) == []
    world.close()


def test_without_a_store_to_look_at_the_task_says_so(tmp_path: Path) -> None:
    world = NodeWorld(tmp_path, verify=lambda report: Verdict(True, "object_not_verified", verified=False))
    world.uploading()
    world.upload("uploaded")
    shown = world.shown()
    assert (shown["status"], shown["detail"], shown["artifact"]["verified"]) == (
        "completed",
        "object_not_verified",
        False,
    )
    world.close()


def test_a_report_from_a_superseded_uploader_is_fenced(world: NodeWorld) -> None:
    world.uploading()
    world.plug("tra2", role="transfer", instance="i_2", uploads=None)
    assert isinstance(world.upload("not_found", "tra").answer, Fenced)
    assert state(world) == ("uploading", "accepted")


def test_uploads_are_told_by_the_uploader(world: NodeWorld) -> None:
    world.uploading()
    assert world.refused(world.upload("not_found", "rec")) == "bad_request"
    assert state(world) == ("uploading", "accepted")


def test_a_forgotten_nodes_recording_is_still_wanted(world: NodeWorld) -> None:
    world.uploading()
    world.do(nq.ForgetNode(node_id="n", seed=ulid()))
    assert state(world) == ("uploading", "accepted") and world.armed() == []
    world.plug("tra2", role="transfer", uploads=())
    assert world.sent["tra2"] == [REQUEST]
    world.upload("uploaded", "tra2")
    assert state(world) == ("completed", "kept")


def test_what_a_forgotten_node_said_last_of_a_recording_is_not_lost_with_it(world: NodeWorld) -> None:
    """The gateway died between the node's transition and the task's, and the deadline that would say it again goes
    with the node: nobody else will ever tell that the recording is lost."""
    world.uploading()
    world.carries = False
    world.upload("not_found", "tra")
    assert state(world) == ("uploading", "not_found")
    world.do(nq.ForgetNode(node_id="n", seed=ulid()))
    assert state(world) == ("failed", "not_found")
    assert world.store.task("t")["detail"] == "recording_lost"


def test_a_verdict_about_another_object_than_the_last_one_told_is_none(world: NodeWorld) -> None:
    """Looking takes its time; meanwhile the device has stored it anew, under another key."""
    world.uploading()
    world.carries = False
    first, second = (told("uploaded", object_key=key) for key in ("first", "second"))
    for report in (first, second):
        world.do(nq.NodeUpload(**world.framed("tra"), report=report))
    world.look(first, "n")
    assert state(world) == ("uploading", "uploaded") and artifacts(world) == 0
    world.look(second, "n")
    assert state(world) == ("completed", "kept") and world.shown()["artifact"]["object_key"] == "second"


def test_an_object_that_cannot_be_looked_at_is_looked_at_again_and_again(world: NodeWorld) -> None:
    world.uploading()
    world.carries = False  # the store of objects is away: every look comes to nothing
    world.upload("uploaded")
    looks = 0
    for _ in range(120):
        world.walk(1, sweep=False)
        looks += sum(len(upward_of(outcome.answer).verify) for outcome in world.sweep())
    assert looks == 4, "after 10, 10, 20 and 40 seconds"
    assert state(world) == ("uploading", "uploaded")


# ---------------------------------------------------------------- looking at objects


async def look(root: Path, key: str, content: bytes = b"seven b", **told_: Any) -> Verdict:
    expected = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} | told_
    return await LocalDirectory(root).verify(key, **expected)


async def test_an_object_is_what_was_told_or_it_is_not(tmp_path: Path) -> None:
    root = tmp_path / "objects"
    (root / "t").mkdir(parents=True)
    (root / "t" / "1").write_bytes(b"seven b")
    assert await look(root, "t/1") == Verdict(True)
    assert await look(root, "t/1", size=8) == Verdict(False, "the object has 7 bytes, not 8")
    assert await look(root, "t/1", sha256=SHA) == Verdict(False, "the object has another sha256")
    assert await look(root, "t/2") == Verdict(False, "there is no such object")
    assert await look(root, "t") == Verdict(False, "there is no such object")


@pytest.mark.parametrize("key", ["../secret", "t/../../secret", "/etc/hostname", "link/secret", "", "a\0b", "..\\x"])
async def test_no_key_leads_out_of_the_store(tmp_path: Path, key: str) -> None:
    root = tmp_path / "objects"
    root.mkdir()
    (tmp_path / "secret").write_bytes(b"seven b")
    (root / "link").symlink_to(tmp_path)
    verdict = await look(root, key)
    assert (verdict.ok, verdict.detail) == (False, "the object key is not a path below the store")


@pytest.mark.parametrize("key", ["circle", "circle/1", "x" * 300, "t/" + "x" * 300, "pipe", "t/pipe/1"])
async def test_a_name_that_no_object_can_have_is_an_answer_and_not_an_error(tmp_path: Path, key: str) -> None:
    """An error would be asked again for ever, and the task would stand at `uploading` as long as the device says so."""
    root = tmp_path / "objects"
    (root / "t").mkdir(parents=True)
    (root / "circle").symlink_to("circle")
    for pipe in (root / "pipe", root / "t" / "pipe"):
        os.mkfifo(pipe)
    assert not (await look(root, key)).ok


async def test_what_is_still_being_written_to_is_read_as_far_as_was_told(tmp_path: Path) -> None:
    """Something that has no end is no file: it is looked at without being waited for, or read for ever."""
    root = tmp_path / "objects"
    root.mkdir()
    (root / "endless").symlink_to("/dev/zero")
    assert (await look(root, "endless")).detail == "the object key is not a path below the store"
    with open("/dev/zero", "rb") as zeroes:
        assert sha256_of(zeroes, 3) == hashlib.sha256(bytes(3)).hexdigest()


async def test_a_store_that_is_away_concludes_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await look(tmp_path / "unmounted", "t/1")


async def test_no_store_takes_the_devices_word_and_says_so() -> None:
    verdict = await object_store(None).verify("k", 1, SHA)
    assert isinstance(object_store(None), Unchecked) and verdict == Verdict(True, "object_not_verified", False)
