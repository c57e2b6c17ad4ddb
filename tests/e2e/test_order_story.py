"""Orders and devices joined: from dispatch through recording, upload and acknowledgement to a completed order.

Three devices carry out one order at once. One has its cable cut, one is frozen, one is killed: each first as a
recorder, in the middle of a recording, then as an uploader, with the object stored and not told. What must hold at the
end: every task is completed once, its artifact is what was recorded, nothing is left on a device, and the order was
completed once.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.conftest import eventually
from tests.e2e.devices import Fake
from tests.e2e.floor import Station, check_batch, check_order, dispatch, group, make_order, make_station
from tests.e2e.service import Service

MakeFake = Callable[..., Fake]
# As a recorder: the second order that it obeyed (it records, and has not said so). As an uploader: its second upload.
FATES = {
    "disconnected": ("obeyed@2=drop", "uploaded@2=drop"),
    "stopped": ("obeyed@2=stop", "uploaded@2=stop"),
    "killed": ("obeyed@2=die", "uploaded@2=die"),
}


@pytest.fixture
def fake(service: Service) -> Iterator[MakeFake]:
    made: list[Fake] = []

    def make(node_id: str, *roles: str) -> Fake:
        made.append(Fake(service, node_id, roles or ("recorder", "transfer")))
        return made[-1]

    yield make
    for one in made:
        if one.child is not None and one.child.poll() is None:
            one.signal(signal.SIGCONT)
        one.end()
        if one.log.exists():
            print(one.log.read_text()[-4000:])


def frozen(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] == b"T"
    except OSError:
        return False


@dataclass
class Nurse:
    """Looks after one device: starts it when it has died; thaws it when the service has noticed that it is gone."""

    device: Fake
    faults: tuple[str, ...]
    over: threading.Event = field(default_factory=threading.Event)
    deaths: int = 0
    freezes: int = 0

    def tend(self) -> None:
        self.device.start(*self.faults)
        while not self.over.wait(0.05):
            child = self.device.child
            assert child is not None
            if child.poll() is not None:
                self.device.died()
                self.deaths += 1
                self.device.start(*self.faults)
            elif frozen(child.pid):
                eventually(
                    lambda: self.device.node_role("recorder").get("state") != "connected", 30, what="it is missed"
                )
                self.freezes += 1
                os.kill(child.pid, signal.SIGCONT)


def record_all(device: Fake, batch_id: str) -> None:
    """As an operator does who sees nothing but statuses: whatever is open gets its next step, until nothing is."""
    step = {"pending": "config", "ready": "begin", "in_progress": "finish"}

    def fact() -> bool:
        tasks = device.service.patient("GET", f"/v1/tasks?batch_id={batch_id}")["items"]
        for task in sorted(tasks, key=lambda one: one["task_id"]):
            assert task["status"] not in ("failed", "cancelled"), task
            if (action := step.get(task["status"])) is not None:
                _tried(device.service, task["task_id"], action)
                return False
        return all(task["status"] == "completed" for task in tasks)

    eventually(fact, 90, every=0.2, what=f"{batch_id} is recorded")


def _tried(service: Service, task_id: str, action: str) -> None:
    try:
        status, told = service.http("POST", f"/v1/tasks/{task_id}/{action}", {})
    except OSError:
        return
    assert status in (202, 409, 503), told


def check_artifact(device: Fake, task: dict[str, Any]) -> None:
    artifact = task["artifact"]
    assert artifact is not None and artifact["verified"], task
    stored = (device.service.folder / "objects" / artifact["object_key"]).read_bytes()
    assert (hashlib.sha256(stored).hexdigest(), len(stored)) == (artifact["sha256"], artifact["size"])
    count = device.service._row("select count(*) from artifacts where task_id = ?", task["task_id"])[0]
    assert count == 1
    eventually(lambda: not device.has_file(task["task_id"], task["attempt"]), 30, what="the device let go of it")


def test_a_batch_is_recorded_uploaded_and_acknowledged_while_each_device_is_cut_off_stopped_and_killed(
    service: Service, fake: MakeFake
) -> None:
    make_order(service, "joined", 6)
    stations: dict[str, Station] = {}
    nurses: dict[str, Nurse] = {}
    for fate, faults in FATES.items():
        nurses[fate] = Nurse(fake(f"joined-{fate}-node"), faults)
        service.patient("POST", "/v1/nodes", {"node_id": f"joined-{fate}-node"})
        stations[fate] = make_station(service, f"joined-{fate}", f"joined-{fate}-node")
        dispatch(service, "joined", f"joined-{fate}", stations[fate], group(2))
    with ThreadPoolExecutor(2 * len(FATES)) as pool:
        tended = [pool.submit(nurse.tend) for nurse in nurses.values()]
        try:
            for nurse in nurses.values():
                eventually(lambda nurse=nurse: nurse.device.child is not None, 10)
                nurse.device.connected()
            driven = [pool.submit(record_all, nurses[fate].device, f"joined-{fate}") for fate in FATES]
            for one in driven:
                one.result()
            for fate, nurse in nurses.items():
                tasks = service.patient("GET", f"/v1/tasks?batch_id=joined-{fate}")["items"]
                assert len(tasks) == 2
                for task in tasks:
                    check_artifact(nurse.device, task)
        finally:
            for nurse in nurses.values():
                nurse.over.set()
        for one in tended:
            one.result()
    assert (nurses["killed"].deaths, nurses["stopped"].freezes) == (2, 2), nurses
    cut = nurses["disconnected"].device.log.read_text()
    assert cut.count('"event": "fault"') == 2 and nurses["disconnected"].deaths == 0

    order = service.patient("GET", "/v1/orders/joined")
    check_order(order)
    assert (order["status"], order["completed_count"], order["task_count"]) == ("completed", 6, 6)
    for fate in FATES:
        batch = service.patient("GET", f"/v1/batches/joined-{fate}")
        check_batch(batch)
        assert (batch["status"], batch["completed_count"]) == ("completed", 2)
    finalizations = service._row("select finalizations from orders where id = 'joined'")[0]
    assert finalizations == 1
    assert service.patient("GET", "/v1/orders/joined/notices")["items"] == [], "nobody held anything that was cancelled"


@pytest.mark.parametrize("falls", ["nobody", "the gateway"])
def test_devices_that_hold_tasks_of_an_order_that_ends_are_told_once_and_let_go(
    service: Service, fake: MakeFake, falls: str
) -> None:
    """The target is lowered to what is completed: the order ends, and the task that is being recorded is taken back,
    from a device that is connected and from one that is away and hears of it when it is back. If the gateway falls with
    the answer, whatever it had still to say to anybody is said all the same."""
    name = f"ends-{falls.rpartition(' ')[2]}"
    make_order(service, name, 10)
    there, away = (fake(f"{name}-{where}-node").start() for where in ("there", "away"))
    for device in (there, away):
        device.connected()
    stations = [make_station(service, f"{name}-{where}", f"{name}-{where}-node") for where in ("there", "away")]
    holding: list[str] = []
    for device, station in zip((there, away), stations, strict=True):
        batch_id = station.station_id + "-b"
        dispatch(service, name, batch_id, station, group(2))
        task_id = service.patient("GET", f"/v1/tasks?batch_id={batch_id}")["items"][0]["task_id"]
        for action, status in (("config", "ready"), ("begin", "in_progress")):
            device.act(task_id, action)
            device.until(task_id, status)
        holding.append(task_id)
    away.end()
    service.patient("POST", f"/v1/batches/{name}-there-st-b/complete-tasks", group(1), token=stations[0].token)
    status, told = service.http("PATCH", f"/v1/orders/{name}", {"target_count": 1})
    assert (status, told["status"], told["completed_count"]) == (200, "completed", 1)
    check_order(told)
    if falls == "the gateway":
        service.kill_gateway()
    assert [service.patient("GET", f"/v1/tasks/{tid}")["status"] for tid in holding] == ["cancelled"] * 2
    for station in stations:
        assert service.patient("GET", f"/v1/batches/{station.station_id}-b")["status"] == "completed"

    eventually(lambda: there.node_role("recorder")["reported"]["state"] == "idle", 20, what="it was told")
    eventually(lambda: not there.has_file(holding[0]), 10, what="what it recorded is dropped")

    def notices() -> dict[str, Any]:
        rows = service.patient("GET", f"/v1/orders/{name}/notices")["items"]
        assert len(rows) == 2 and {one["cause"] for one in rows} == {"completed:1"}
        return {one["node_id"]: one for one in rows}

    eventually(lambda: notices()[there.node_id]["settled"], 20, what="and has let go")
    assert not notices()[away.node_id]["settled"]
    away.start()
    eventually(lambda: notices()[away.node_id]["settled"], 30, what="who was away hears of it when it is back")
    eventually(lambda: not away.has_file(holding[1]), 10)
    assert service._row("select finalizations from orders where id = ?", name)[0] == 1


def test_what_is_being_uploaded_counts_when_its_batch_is_recalled_and_is_discarded_when_its_order_is_cancelled(
    service: Service, fake: MakeFake
) -> None:
    make_order(service, "late", 10)
    tasks: dict[str, list[str]] = {}
    devices = {name: fake(f"late-{name}-node").start("object=stop") for name in ("kept", "lost")}
    for name, device in devices.items():
        device.connected()
        dispatch(service, "late", f"late-{name}", make_station(service, f"late-{name}", device.node_id), group(2))
        items = service.patient("GET", f"/v1/tasks?batch_id=late-{name}")["items"]
        tasks[name] = [one["task_id"] for one in items]
        for action, status in (("config", "ready"), ("begin", "in_progress"), ("finish", "uploading")):
            device.act(tasks[name][0], action)
            device.until(tasks[name][0], status)
        assert device.child is not None
        eventually(lambda pid=device.child.pid: frozen(pid), 20, what="the object is stored, and nobody has been told")
    recalled = service.patient("POST", "/v1/batches/late-kept/recall", {})
    assert (recalled["status"], recalled["tasks"]["uploading"], recalled["tasks"]["cancelled"]) == ("recalled", 1, 1)
    devices["kept"].signal(signal.SIGCONT)
    kept = devices["kept"].until(tasks["kept"][0], "completed", "failed", "cancelled")
    assert kept["status"] == "completed"
    check_artifact(devices["kept"], kept)
    order = service.patient("GET", "/v1/orders/late")
    check_order(order)
    assert (order["status"], order["completed_count"]) == ("in_progress", 1)
    assert service.patient("GET", "/v1/batches/late-kept")["status"] == "recalled"

    ended = service.patient("PATCH", "/v1/orders/late", {"status": "cancelled"})
    check_order(ended)
    assert (ended["completed_count"], ended["tasks"]["cancelled"]) == (1, 3)
    assert service.patient("GET", "/v1/batches/late-lost")["status"] == "cancelled"
    lost = devices["lost"]
    lost.signal(signal.SIGCONT)
    eventually(lambda: lost.recording(tasks["lost"][0]) == "discarded", 30, what="it is not wanted any more")
    eventually(lambda: not lost.has_file(tasks["lost"][0]), 5)
    assert service.patient("GET", f"/v1/tasks/{tasks['lost'][0]}")["artifact"] is None
