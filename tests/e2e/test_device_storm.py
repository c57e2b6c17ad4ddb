"""A fleet of devices through a storm: killed, frozen beyond their grace, cut, lying, while gateway and actors die too.

Somebody drives each task to its end by looking at its status alone, as an operator would. What must hold at the end of
every storm: every task is completed, once; its artifact is what the device recorded; no device has anything left that
it was not told to delete. The storm is seeded: the same seed sends the same misfortunes.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import eventually
from tests.e2e.devices import Fake
from tests.e2e.service import Service

DEVICES, TASKS, STORM_S = 4, 4, 45.0
FAULTS = (
    "accepted=die", "object=die", "uploaded=die", "said@2=die", "ack@2=die", "obeyed@3=die", "finish@2=die",
    "request=drop", "uploaded@2=drop", "said@3=drop", "ack@3=drop", "obeyed@5=drop", "begin@3=drop",
    "uploaded@3=twice", "object@2=corrupt", "begin@2=unknown", "config@3=skip", "request@4=skip", "order@6=delay:2",
)  # fmt: skip
NEXT = {"pending": "config", "ready": "begin", "in_progress": "finish"}


class Storm:
    def __init__(self, service: Service, seed: int) -> None:
        self.service, self.random = service, random.Random(seed)
        self.devices = [Fake(service, f"storm-{n}") for n in range(DEVICES)]
        self.scripts = [self.random.sample(FAULTS, 6) for _ in self.devices]
        self.locks = [threading.Lock() for _ in self.devices]  # one hand on a device's process at a time
        self.over = threading.Event()
        self.did: Counter[str] = Counter()

    # ------------------------------------------------------------ the misfortunes

    def keep_alive(self, n: int) -> None:
        """As a supervisor on the device would; its folder remembers which faults it had."""
        while not self.over.wait(0.3):
            with self.locks[n]:
                child = self.devices[n].child
                if child is None or child.poll() is not None:
                    assert child is None or child.returncode == -signal.SIGKILL, self.devices[n].log.read_text()[-3000:]
                    self.did["started"] += 1
                    self.devices[n].start(*self.scripts[n])

    def blow(self) -> None:
        end = time.monotonic() + STORM_S
        while time.monotonic() < end and not self.over.is_set():
            what = self.random.choices(("kill", "freeze", "freeze long", "actor", "gateway"), (5, 3, 2, 3, 1))[0]
            n = self.random.randrange(DEVICES)
            self.did[what] += 1
            if what == "gateway":
                self.service.kill_gateway(within=60)  # how fast is another test's question
            elif what == "actor":
                pid = self.service.pid_of_actor(f"node/storm-{n}")
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
            else:
                with self.locks[n]:
                    child = self.devices[n].child
                    if child is not None and child.poll() is None:
                        child.send_signal(signal.SIGKILL if what == "kill" else signal.SIGSTOP)
                        if what != "kill":
                            time.sleep(9.0 if what == "freeze long" else 1.5)  # the freeze itself
                            child.send_signal(signal.SIGCONT)
            self.over.wait(self.random.uniform(0.1, 0.8))

    # ------------------------------------------------------------ the operator

    def drive(self, n: int) -> None:
        for k in range(TASKS):
            tid = f"storm-{n}-{k}"
            key = {"Idempotency-Key": tid}
            self.service.patient("POST", f"/v1/nodes/storm-{n}/tasks", {"task_id": tid}, within=60, headers=key)
            end = time.monotonic() + 150
            while (task := self.service.patient("GET", f"/v1/tasks/{tid}", within=60))["status"] != "completed":
                assert task["status"] not in ("failed", "cancelled"), task
                assert time.monotonic() < end, (task, self.service.patient("GET", f"/v1/nodes/storm-{n}"))
                action = NEXT.get(task["status"])
                if action is not None:
                    try:
                        status, answer = self.service.http("POST", f"/v1/tasks/{tid}/{action}", {})
                    except OSError:
                        status, answer = 0, None  # the gateway is being killed
                    assert status in (0, 202, 409, 503), answer
                time.sleep(0.2)


@pytest.mark.parametrize("seed", [1])
def test_every_task_is_completed_once_whatever_falls(tmp_path: Path, seed: int) -> None:
    (tmp_path / "objects").mkdir()
    service = Service(
        tmp_path,
        heartbeat_s=1,
        server_ping_s=2,
        server_pong_s=2,
        grace_s=4,
        objects_dir=tmp_path / "objects",
    ).start()
    storm = Storm(service, seed)
    for device in storm.devices:
        service.patient("POST", "/v1/nodes", {"node_id": device.node_id})
    try:
        with ThreadPoolExecutor(2 * DEVICES + 1) as pool:
            alive = [pool.submit(storm.keep_alive, n) for n in range(DEVICES)]
            storming = pool.submit(storm.blow)
            try:
                for driven in [pool.submit(storm.drive, n) for n in range(DEVICES)]:
                    driven.result()
                for device in storm.devices:
                    eventually(lambda device=device: left_over(device) == [], 60, every=0.2, what="all is let go")
            finally:
                storm.over.set()
            storming.result()
            for one in alive:
                one.result()
        print(f"storm {seed}: {dict(storm.did)}")
        for n, device in enumerate(storm.devices):
            for k in range(TASKS):
                check(service, device, f"storm-{n}-{k}")
    finally:
        for device in storm.devices:
            device.end()
        service.end()


def left_over(device: Fake) -> list[object]:
    """Recordings that nobody has told it to delete, and their files."""
    try:
        rows = device._rows("select * from recordings where state not in ('kept', 'discarded')")
    except sqlite3.OperationalError:
        return ["it has not begun"]
    return [*rows, *(device.folder / "recordings").iterdir()]


def check(service: Service, device: Fake, task_id: str) -> None:
    task = device.task(task_id)
    artifact = task["artifact"]
    stored = (service.folder / "objects" / artifact["object_key"]).read_bytes()
    assert (hashlib.sha256(stored).hexdigest(), len(stored)) == (artifact["sha256"], artifact["size"])
    assert stored.startswith(b"%s %d frame" % (task_id.encode(), task["attempt"])), "of the attempt that counts"
    assert int(service._row("select count(*) from artifacts where task_id = ?", task_id)[0]) == 1
    assert int(service._row("select count(*) from deadlines where subject = ?", task_id)[0]) == 0
