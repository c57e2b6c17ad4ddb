"""A device that records and uploads, over the real door, with real files as objects. The test plays the device."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.house import Frame, House, Socket, eventually


@pytest.fixture
async def station(tmp_path: Path) -> AsyncIterator[Station]:
    made = await Station(tmp_path).open()
    yield made
    await made.house.close()


class Station:
    """A house with a node `n`, its two sockets, and the directory that its uploads go to."""

    def __init__(self, folder: Path) -> None:
        self.objects = folder / "objects"
        self.objects.mkdir()
        self.house = House(folder / "house", objects_dir=self.objects)

    async def open(self) -> Station:
        await self.house.open()
        self.recorder = await self.house.node(role="recorder", reported={"state": "idle"})
        self.transfer = await self.house.node(role="transfer", uploads=[])
        return self

    async def task(self, task_id: str = "t", **body: Any) -> Frame:
        made: Frame = await self.house.call("POST", "/v1/nodes/n/tasks", {"task_id": task_id, **body}, status=201)
        return made

    async def act(self, action: str, task_id: str = "t", status: int = 202, **body: Any) -> Frame:
        told: Frame = await self.house.call("POST", f"/v1/tasks/{task_id}/{action}", body, status=status)
        return told

    async def report(self, state: str, task_id: str | None = "t", attempt: int | None = 1) -> None:
        said = {"state": state} if task_id is None else {"state": state, "task_id": task_id, "attempt": attempt}
        await self.recorder.say({"type": "state", "reported": said})

    async def shown(self, task_id: str = "t") -> Frame:
        found: Frame = await self.house.call("GET", f"/v1/tasks/{task_id}")
        return found

    async def status(self, status: str, task_id: str = "t") -> Frame:
        async def reached() -> Frame | None:
            found = await self.shown(task_id)
            return found if found["status"] == status else None

        found: Frame = await eventually(reached, what=f"{task_id} {status}")
        return found

    async def recording(self, task_id: str = "t") -> None:
        await self.task(task_id)
        await self.act("config", task_id)
        await self.recorder.hear("task", action="config", task_id=task_id)
        await self.report("ready", task_id)
        await self.status("ready", task_id)
        await self.act("begin", task_id)
        await self.recorder.hear("task", action="begin", task_id=task_id)
        await self.report("recording", task_id)
        await self.status("in_progress", task_id)

    async def finished(self, task_id: str = "t") -> None:
        await self.recording(task_id)
        await self.act("finish", task_id)
        await self.recorder.hear("task", action="finish", task_id=task_id)
        assert (await self.transfer.hear("upload_request", task_id=task_id))["attempt"] == 1
        await self.report("idle", None)

    def stored(self, name: str = "t.bin", content: bytes = b"recording") -> Frame:
        """What the device says of an object that it has put there."""
        (self.objects / name).write_bytes(content)
        return {"object_key": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    async def upload(self, status: str, task_id: str = "t", attempt: int = 1, **fields: Any) -> None:
        await self.transfer.say({"type": "upload", "task_id": task_id, "attempt": attempt, "status": status, **fields})


async def no_more(socket: Socket, *but: str) -> None:
    before = len(socket.heard)
    await socket.say({"type": "ping-pong"})
    await socket.hear("error", code="unknown_frame")
    assert [f["type"] for f in socket.heard[before:-1]] == list(but)


async def test_a_task_is_recorded_uploaded_verified_and_acknowledged(station: Station) -> None:
    await station.finished()
    task = await station.shown()
    assert (task["status"], task["upload"]["state"], task["artifact"]) == ("uploading", "requested", None)
    await station.upload("accepted")
    await station.upload("progress")
    told = station.stored()
    await station.upload("uploaded", **told)
    ack = await station.transfer.hear("upload_ack")
    assert (ack["task_id"], ack["attempt"], ack["disposition"]) == ("t", 1, "keep")
    task = await station.shown()
    assert (task["status"], task["upload"]["state"], task["artifact"]["verified"]) == ("completed", "kept", True)
    assert task["artifact"]["sha256"] == told["sha256"]
    stamps = [task[f"{name}_at_ms"] for name in ("created", "ready", "started", "finished", "uploaded", "completed")]
    assert None not in stamps and stamps == sorted(stamps)
    await station.upload("uploaded", **told)
    assert (await station.transfer.hear("upload_ack"))["disposition"] == "keep"
    assert await station.shown() == task, "acknowledged again, and nothing else"


async def test_an_object_that_is_not_the_one_is_asked_for_again_and_in_the_end_the_task_fails(
    station: Station,
) -> None:
    await station.finished()
    right = station.stored()
    for wrong in (
        {**right, "size": 3},
        {**right, "sha256": "0" * 64},
        {**right, "object_key": "nothing/here"},
        {**right, "object_key": "../house/holdfast.db"},
    ):
        await station.upload("uploaded", **wrong)
        await station.transfer.hear("upload_request", within=30)
        assert (await station.shown())["status"] == "uploading"
    await station.upload("uploaded", **{**right, "object_key": "/etc/hostname"})
    task = await station.status("failed")
    assert "object_mismatch" in task["detail"] and task["artifact"] is None


async def test_without_a_directory_the_word_of_the_device_is_taken_and_the_task_says_so(tmp_path: Path) -> None:
    station = Station(tmp_path)
    station.house = House(tmp_path / "plain")
    await station.open()
    await station.finished()
    await station.upload("uploaded", object_key="k", size=1, sha256="a" * 64)
    await station.transfer.hear("upload_ack")
    task = await station.shown()
    assert (task["status"], task["artifact"]["verified"]) == ("completed", False)
    await station.house.close()


async def test_a_store_of_objects_that_is_away_concludes_nothing(station: Station) -> None:
    await station.finished()
    told = station.stored()
    away = station.objects.with_name("away")
    station.objects.rename(away)
    await station.upload("uploaded", **told)
    await no_more(station.transfer)
    assert (await station.shown())["status"] == "uploading"
    away.rename(station.objects)
    assert (await station.transfer.hear("upload_ack", within=60))["disposition"] == "keep"


async def test_a_cancelled_task_with_an_uploaded_file_is_acknowledged_with_discard(station: Station) -> None:
    await station.finished()
    await station.act("cancel")
    await station.upload("uploaded", **station.stored())
    assert (await station.transfer.hear("upload_ack"))["disposition"] == "discard"
    task = await station.shown()
    assert (task["status"], task["artifact"]) == ("cancelled", None)


async def test_what_is_not_ours_is_never_acknowledged(station: Station) -> None:
    await station.upload("uploaded", task_id="stranger", **station.stored())
    assert (await station.transfer.hear("error"))["code"] == "foreign_task"
    await no_more(station.transfer)
    await station.report("recording", "stranger")
    told = [await station.recorder.next(), await station.recorder.next()]
    by_type = {frame["type"]: frame for frame in told}
    assert by_type["error"]["code"] == "foreign_task"
    assert (by_type["task"]["action"], by_type["task"]["task_id"]) == ("cancel", "stranger")


async def test_a_recording_that_the_device_lost_fails_the_task(station: Station) -> None:
    await station.finished()
    await station.upload("not_found")
    task = await station.status("failed")
    assert (task["detail"], task["upload"]["state"]) == ("recording_lost", "not_found")


async def test_an_absent_list_of_uploads_is_not_an_empty_one(station: Station) -> None:
    await station.finished()
    await station.upload("accepted")
    await station.transfer.close()
    silent = await station.house.node(role="transfer", instance_id="i_2")
    assert silent.hello_ack["directives"] == []
    await no_more(silent)
    told = await station.house.node(role="transfer", instance_id="i_3", uploads=[])
    asked = [f for f in told.hello_ack["directives"] if f["type"] == "upload_request"]
    asked = asked or [await told.hear("upload_request")]
    assert (asked[0]["task_id"], asked[0]["attempt"]) == ("t", 1)


async def test_an_ack_that_was_lost_comes_with_the_next_hello(station: Station) -> None:
    await station.finished()
    told = station.stored()
    await station.upload("uploaded", **told)
    await station.transfer.hear("upload_ack")
    await station.transfer.close()
    row = {"task_id": "t", "attempt": 1, "status": "uploaded", **told}
    again = await station.house.node(role="transfer", instance_id="i_2", uploads=[row])
    acks = [f for f in again.hello_ack["directives"] if f["type"] == "upload_ack"]
    acks = acks or [await again.hear("upload_ack")]
    assert acks[0]["disposition"] == "keep"
    assert (await station.shown())["status"] == "completed"


async def test_the_loss_of_the_uploader_never_touches_a_recording(station: Station) -> None:
    await station.recording()
    await station.transfer.close()
    await eventually(lambda: _role(station, "transfer", "offline"))
    assert (await station.shown())["status"] == "in_progress"
    await no_more(station.recorder)


async def _role(station: Station, role: str, state: str) -> bool:
    return bool((await station.house.shown())["roles"][role]["state"] == state)


async def test_a_recorder_that_comes_back_in_time_goes_on(station: Station) -> None:
    await station.recording()
    await station.recorder.close()
    await eventually(lambda: _role(station, "recorder", "grace"))
    assert (await station.shown())["status"] == "in_progress"
    said = {"state": "recording", "task_id": "t", "attempt": 1}
    await station.house.node(role="recorder", instance_id="i_2", attempt=1, reported=said)
    assert await _role(station, "recorder", "connected")
    assert (await station.shown())["status"] == "in_progress"


async def test_the_grace_of_a_recorder_gives_its_task_back_and_the_next_recording_is_another_attempt(
    tmp_path: Path,
) -> None:
    station = Station(tmp_path)
    station.house = House(tmp_path / "short", grace_s=0.5, objects_dir=station.objects)
    await station.open()
    await station.recording()
    await station.recorder.close()
    task = await station.status("pending")
    assert task["started_at_ms"] is not None
    station.recorder = await station.house.node(role="recorder", instance_id="i_2", reported={"state": "idle"})
    await station.act("config")
    asked = await station.recorder.hear("task", action="config")
    assert (asked["attempt"], (await station.shown())["attempt"]) == (2, 2)
    await station.house.close()


async def test_commands_wait_for_the_right_state_and_say_what_is_missing(station: Station) -> None:
    await station.task()
    for action in ("begin", "pause", "resume", "finish"):
        told = await station.act(action, status=409)
        assert told["code"] in ("task_conflict", "state_unknown"), (action, told)
    await station.act("dance", status=404)
    await station.act("config", task_id="nobody", status=404)
    await station.recording("u")
    told = await station.act("config", status=409)
    assert told["code"] == "task_conflict"
    told = await station.act("finish", task_id="u", status=409, attempt=7)
    assert told["code"] == "attempt_mismatch"
    await station.act("pause", task_id="u")
    await station.recorder.hear("task", action="pause")
    await station.report("paused", "u")
    await eventually(lambda: _paused(station))
    await station.act("resume", task_id="u")
    await station.recorder.hear("task", action="resume")


async def _paused(station: Station) -> bool:
    return (await station.shown("u"))["paused_at_ms"] is not None


async def test_a_device_whose_state_is_unknown_is_asked_and_nothing_fails(station: Station) -> None:
    await station.recording()
    await station.report("unknown", None)
    assert (await station.recorder.hear("probe", within=20))["type"] == "probe"
    told = await station.act("finish", status=409)
    assert told["code"] == "state_unknown"
    assert (await station.shown())["status"] == "in_progress"
    assert not (await station.house.shown())["roles"]["recorder"]["synced"]
    await station.report("recording")
    await eventually(lambda: _synced(station))
    await station.act("finish")


async def _synced(station: Station) -> bool:
    return bool((await station.house.shown())["roles"]["recorder"]["synced"])


async def test_tasks_are_listed_by_node_and_status(station: Station) -> None:
    for task_id in ("a", "b", "c"):
        await station.task(task_id, params={"name": task_id})
    await station.act("cancel", "b")
    listed = await station.house.call("GET", "/v1/tasks", params={"node_id": "n", "status": "pending"})
    assert [t["task_id"] for t in listed["items"]] == ["c", "a"]
    assert listed["items"][0]["params"] == {"name": "c"}
    await station.house.call("POST", "/v1/nodes/n/tasks", {"task_id": "a"}, status=409)
    await station.house.call("POST", "/v1/nodes/nobody/tasks", {}, status=404)
