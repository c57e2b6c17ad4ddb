"""The fake device as a real process, killed at every point that it has, against a service that only tells it what is
still wanted: in the end one artifact, verified, and a recording that was deleted after its acknowledgement, not before.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actors.protocol.node_codes import ROLES
from tests.wrapper.conftest import ROOT, eventually
from tests.wrapper.fake_nodes import Collector
from wrapper.faults import ORDERS, POINTS
from wrapper.recordings import Recording, Recordings

OF_UPLOADS = ("request", "accepted", "object", "uploaded", "said", "ack", "acked")
OF_RECORDING = ("config", "begin", "finish", "obeyed@1", "obeyed@2", "obeyed@3")


class Fakes:
    """`holdfast node fake` on one folder, again and again."""

    def __init__(self, folder: Path, collector: Collector) -> None:
        self.folder, self.collector = folder, collector
        self.log = folder.parent / "fake.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str, roles: tuple[str, ...] = ("recorder", "transfer")) -> Fakes:
        command = [sys.executable, "-m", "actors", "node", "fake", "dev", "--url", self.collector.url, "--json"]
        command += ["--folder", str(self.folder), "--objects", str(self.collector.objects), "--report-every", "0.2"]
        for role in roles:
            command += ["--role", role]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *options],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "HOLDFAST_TOKEN": "secret"},
                stdout=log,
                stderr=log,
            )
        return self

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    async def exit_code(self) -> int:
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, 20)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()

    def said(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def row(self) -> Recording | None:
        """Read beside the living device, like an operator would."""
        with sqlite3.connect(f"file:{self.folder}/device.db?mode=ro", uri=True) as db:
            found = db.execute("SELECT task_id, attempt, state, wanted FROM recordings").fetchone()
        return None if found is None else Recording(*found[:3], bool(found[3]))


@pytest.fixture
async def collector(tmp_path: Path) -> AsyncIterator[Collector]:
    (tmp_path / "objects").mkdir()
    made = Collector(tmp_path / "objects")
    await made.start()
    yield made
    await made.stop()
    assert not made.complaints, made.complaints


@pytest.fixture
def fakes(tmp_path: Path, collector: Collector) -> Any:
    it = Fakes(tmp_path / "dev", collector)
    yield it
    it.end()
    print(it.log.read_text() if it.log.exists() else "")


async def settled(fakes: Fakes, collector: Collector) -> None:
    await eventually(lambda: collector.phase == "done" or not fakes.running, 30)
    await eventually(lambda: fakes.row() == Recording("t1", 1, "kept", True))
    assert len(collector.artifacts) == 1
    await eventually(lambda: not (fakes.folder / "recordings" / "t1.1").exists())  # after its row says so


@pytest.mark.parametrize("point", [*OF_RECORDING, *OF_UPLOADS])
async def test_killed_at_any_point_it_goes_on_where_it_was(fakes: Fakes, collector: Collector, point: str) -> None:
    fakes.start("--fault", f"{point}=die")
    assert await fakes.exit_code() == -signal.SIGKILL, "the point was reached"
    fakes.start("--fault", f"{point}=die")  # the same script: passes are counted over its lives
    await settled(fakes, collector)
    assert fakes.running and (collector.mismatches, collector.not_found) == (0, 0)


@pytest.mark.parametrize("point", [*OF_RECORDING, *OF_UPLOADS])
async def test_cut_at_any_point_it_comes_back_and_goes_on(fakes: Fakes, collector: Collector, point: str) -> None:
    fakes.start("--fault", f"{point}=drop")
    await settled(fakes, collector)
    await eventually(lambda: len(fakes.said("fault")) == 1 and len(fakes.said("node.opening")) == 3)
    assert (collector.mismatches, collector.not_found) == (0, 0)


async def test_a_device_without_misfortunes_says_each_thing_once(fakes: Fakes, collector: Collector) -> None:
    fakes.start()
    await settled(fakes, collector)
    assert collector.completes == 1 and fakes.said("fault") == []
    (artifact,) = collector.artifacts
    data = (collector.objects / artifact["object_key"]).read_bytes()
    assert len(data) == artifact["size"] and data.startswith(b"t1 1 frame 00000000")


async def test_without_a_role_named_it_has_every_role_so_that_whoever_invokes_need_name_none(
    fakes: Fakes, collector: Collector
) -> None:
    fakes.start(roles=())
    await eventually(lambda: set(collector.sockets) == set(ROLES))
    await collector.invoke("node", "inv_1", "device.info")
    await eventually(lambda: "inv_1" in collector.results)
    assert collector.results["inv_1"]["ok"] is True


async def test_a_complete_that_is_told_twice_is_told_twice(fakes: Fakes, collector: Collector) -> None:
    fakes.start("--fault", "uploaded=twice")
    await settled(fakes, collector)
    assert collector.completes == 2


async def test_an_object_that_is_not_what_is_told_of_it_is_never_taken(fakes: Fakes, collector: Collector) -> None:
    fakes.start("--fault", "object=corrupt")
    """And asked for again, it is stored again, from the recording that was never acknowledged."""
    await eventually(lambda: collector.mismatches == 1)
    await settled(fakes, collector)
    assert collector.completes == 2 and collector.mismatches == 1


async def test_a_lost_recording_is_said_to_be_lost(fakes: Fakes, collector: Collector) -> None:
    fakes.start("--fault", "request=lose")
    await eventually(lambda: collector.not_found)
    assert fakes.row() is None and collector.completes == 0


async def test_what_nobody_wants_is_deleted_when_told_so(fakes: Fakes, collector: Collector) -> None:
    collector.cancelled = True
    fakes.start()
    await eventually(lambda: collector.phase == "done", 30)
    await eventually(lambda: fakes.row() == Recording("t1", 1, "discarded", True))
    await eventually(lambda: not (fakes.folder / "recordings" / "t1.1").exists())
    assert collector.artifacts == []


async def test_a_kept_recording_is_told_again_when_asked_again(fakes: Fakes, collector: Collector) -> None:
    """A service that was restored from a backup asks for what it already had."""
    fakes.start()
    await settled(fakes, collector)
    collector.phase = "upload"
    await eventually(lambda: collector.completes == 2)
    assert collector.not_found == 0 and len(collector.artifacts) == 1


async def test_unknown_is_said_once_and_a_probe_brings_the_truth(fakes: Fakes, collector: Collector) -> None:
    collector.recorded_s = 0.5
    fakes.start("--fault", "begin=unknown", "--report-every", "60")
    await eventually(lambda: "unknown" in collector.states(), 20)
    at = collector.states().index("unknown")
    await collector.say("recorder", {"type": "probe"})
    await eventually(lambda: len(collector.states()) > at + 1)
    assert collector.states()[at + 1] == "recording"
    await settled(fakes, collector)


async def test_a_stopped_device_keeps_its_socket_and_says_nothing(fakes: Fakes, collector: Collector) -> None:
    fakes.start("--fault", "begin=stop")
    assert fakes.process is not None
    stat = Path(f"/proc/{fakes.process.pid}/stat")
    await eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", 20)
    frames = len(collector.frames)
    await asyncio.sleep(0.5)  # five of the collector's reminders
    assert len(collector.frames) == frames and set(collector.sockets) == {"recorder", "transfer"}
    fakes.process.send_signal(signal.SIGCONT)
    await settled(fakes, collector)


async def test_its_commands_answer_and_each_run_is_noted(fakes: Fakes, collector: Collector, tmp_path: Path) -> None:
    fakes.start("--command", "wave", roles=("node",))
    await eventually(lambda: collector.hellos, 20)
    assert "wave" in collector.hellos[0]["commands"]
    asked = {
        "i_echo": ("echo", {"a": 1}),
        "i_wave": ("wave", [1]),
        "i_count": ("count", {"n": 2, "every_s": 0}),
        "i_fail": ("fail", {"message": "as told"}),
        "i_sleep": ("sleep", {"s": 0}),
        "i_info": ("device.info", None),
        "i_none": ("dance", None),
    }
    for name, (command, params) in asked.items():
        await collector.invoke("node", name, command, params)
    await eventually(lambda: len(collector.results) == len(asked))
    results = collector.results
    assert results["i_echo"]["payload"] == {"a": 1} and results["i_wave"]["payload"] == [1]
    assert results["i_count"]["payload"] == {"counted": 2} and len(collector.of_type("invoke_progress")) == 2
    assert results["i_fail"]["error"]["message"] == "as told" and results["i_none"]["ok"] is False
    assert results["i_info"]["payload"]["node_id"] == "dev"
    assert fakes.process is not None
    fakes.process.terminate()
    assert await fakes.exit_code() == 0
    rows = Recordings(str(fakes.folder))
    assert sorted(rows.runs()) == sorted((name, command) for name, (command, _) in asked.items() if name != "i_none")
    rows.close()


async def test_superseded_it_exits_with_4(fakes: Fakes, collector: Collector) -> None:
    fakes.start(roles=("node",))
    await eventually(lambda: collector.hellos, 20)
    await collector.close("node", 4001, "superseded")
    assert await fakes.exit_code() == 4


async def test_a_second_device_on_the_same_folder_exits_with_4(fakes: Fakes, collector: Collector) -> None:
    fakes.start(roles=("node",))
    await eventually(lambda: collector.hellos, 20)
    second = Fakes(fakes.folder, collector).start(roles=("node",))
    try:
        assert await second.exit_code() == 4
    finally:
        second.end()
    assert "in use by another device" in second.log.read_text()


def test_every_point_of_a_recording_and_an_upload_was_killed_at() -> None:
    killed = {point.partition("@")[0] for point in (*OF_RECORDING, *OF_UPLOADS)}
    assert set(POINTS) - {"order", "invoke", "result"} <= killed and killed - set(POINTS) <= set(ORDERS)
