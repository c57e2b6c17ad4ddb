"""Nodes from outside: the live proof, callers that wait while we kill things, devices that freeze."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.http_client import Client
from actors.prove import prove
from tests.conftest import eventually
from tests.e2e.devices import Fake
from tests.e2e.service import Service, alive

MakeFake = Callable[..., Fake]


@pytest.fixture
def fake(service: Service) -> Iterator[MakeFake]:
    """Makes devices; ends them."""
    made: list[Fake] = []

    def make(node_id: str, *roles: str) -> Fake:
        made.append(Fake(service, node_id, roles or ("node",)))
        return made[-1]

    yield make
    for one in made:
        one.end()
        if one.log.exists():
            print(one.log.read_text()[-4000:])  # pytest shows it when the test has failed


def invoking(service: Service, *arguments: str) -> subprocess.Popen[str]:
    """`holdfast node invoke … --json` as a waiting caller."""
    env = service.env | {"HOLDFAST_URL": service.url, "HOLDFAST_TOKEN": service.token}
    return subprocess.Popen(
        [sys.executable, "-m", "actors", "node", "invoke", *arguments, "--json"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def dispatched(service: Service, node_id: str) -> dict[str, Any]:
    """The newest invocation, once it is out."""

    def fact() -> Any:
        items = service.patient("GET", f"/v1/nodes/{node_id}/invocations")["items"]
        return items[0] if items and items[0]["state"] == "dispatched" else None

    found: dict[str, Any] = eventually(fact, 20, every=0.05, what="it is dispatched")
    return found


# ---------------------------------------------------------------- the live proof


def test_the_live_proof_holds_fifty_times_over(service: Service) -> None:
    began = time.monotonic()
    done = service.run("node", "prove", "--times", "50", "--json")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    *rounds, verdict = map(json.loads, done.stdout.splitlines())
    assert verdict["holds"] and verdict["violated"] == [] and len(rounds) == verdict["rounds"] == 50
    assert all(one["violated"] == [] and one["requests.old"] == 0 and one["requests.new"] == 1 for one in rounds)
    assert {one["old_close_code"] for one in rounds} == {4001, 4009}
    assert (verdict["log.connected"], verdict["log.superseded"], verdict["log.disconnected"]) == (51, 50, 0)
    print(f"50 rounds in {time.monotonic() - began:.1f} s, asked {verdict['asked']} times, always connected")
    assert service.http("GET", f"/v1/nodes/{verdict['node_id']}")[0] == 404, "the proof's own node is forgotten"


def test_the_live_proof_holds_with_the_node_actor_killed_midway(service: Service) -> None:
    node_id, killed = "proven", list[int]()
    service.patient("POST", "/v1/nodes", {"node_id": node_id})

    def awake() -> int | None:
        """What is asked of a node wakes its actor, also if it is of a role that nobody has."""
        service.patient("POST", f"/v1/nodes/{node_id}/invoke", {"command": "echo", "role": "transfer"})
        return service.pid_of_actor(f"node/{node_id}")

    async def kill_the_actor(number: int) -> None:
        pid = await asyncio.to_thread(eventually, awake, 20, every=0.1)
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    async def story() -> None:
        async with Client(service.url, service.token, patience_s=15) as client:
            proof = await prove(client, node_id, service.token, times=12, midway=kill_the_actor)
        assert proof.holds, (proof.violated, [one.violated for one in proof.rounds if one.violated])

    asyncio.run(story())
    assert len(set(killed)) == 12, "another one in each round"
    eventually(lambda: not any(alive(pid) for pid in killed), 10)


# ---------------------------------------------------------------- callers that wait


def test_a_caller_who_waits_through_the_death_of_the_gateway_gets_the_stored_outcome(
    service: Service, fake: MakeFake
) -> None:
    device = fake("gwdeath").start().connected()
    with invoking(service, "gwdeath", "sleep", '{"s": 30}', "--timeout", "60", "--key", "k1") as caller:
        out = dispatched(service, "gwdeath")
        service.kill_gateway()
        said, err = caller.communicate(timeout=60)
    told = json.loads(said)
    assert caller.returncode == 1, err
    assert (told["invocation_id"], told["ok"]) == (out["invocation_id"], False)
    assert told["error"]["code"] == "UNAVAILABLE" and told["error"]["dispatched"] is True
    assert service.patient("GET", f"/v1/invocations/{out['invocation_id']}")["error"] == told["error"]
    device.connected()
    assert device.runs("sleep") == 1, "the repeated request is the same invocation"
    again = service.run("node", "invoke", "gwdeath", "device.info", "--json")
    assert again.returncode == 0 and json.loads(again.stdout)["payload"]["node_id"] == "gwdeath"


def test_a_caller_who_waits_through_the_death_of_the_node_actor_gets_the_result(
    service: Service, fake: MakeFake
) -> None:
    device = fake("actordeath").start().connected()
    with invoking(service, "actordeath", "sleep", '{"s": 3}') as caller:
        dispatched(service, "actordeath")
        pid = eventually(lambda: service.pid_of_actor("node/actordeath"), 20)
        os.kill(pid, signal.SIGKILL)
        said, err = caller.communicate(timeout=60)
    assert caller.returncode == 0, err
    assert json.loads(said)["payload"] == {"slept_s": 3.0} and device.runs("sleep") == 1


def test_a_device_that_dies_at_work_settles_its_call_at_once(service: Service, fake: MakeFake) -> None:
    device = fake("dies").start().connected()
    with invoking(service, "dies", "never", "--timeout", "60") as caller:
        dispatched(service, "dies")
        device.end()
        began = time.monotonic()
        said, _ = caller.communicate(timeout=30)
    told = json.loads(said)
    assert caller.returncode == 1 and time.monotonic() - began < 10
    assert (told["error"]["code"], told["error"]["dispatched"]) == ("DISCONNECTED", True)
    refused = service.run("node", "invoke", "dies", "device.info", "--json")
    assert refused.returncode == 5
    error = json.loads(refused.stdout)["error"]
    assert (error["code"], error["dispatched"]) == ("NOT_CONNECTED", False)


def test_a_newcomer_settles_the_old_ones_calls_and_the_old_one_leaves(service: Service, fake: MakeFake) -> None:
    old = fake("twice").start().connected()
    with invoking(service, "twice", "never", "--timeout", "60") as caller:
        out = dispatched(service, "twice")
        new = fake("twice")
        new.folder = service.folder / "device-twice-new"  # another machine under the same id
        new.start()
        said, _ = caller.communicate(timeout=30)
    assert json.loads(said)["error"]["code"] == "DISCONNECTED"
    assert old.exit_code() == 4, "told that it is superseded, it does not come back"
    node = new.connected().node()
    assert node["connected"] and node["presence"]["reason"] == "connect"
    assert node["roles"]["node"]["connection_id"] != out["connection_id"]
    assert new.log_types().count("node.disconnected") == 0 and "node.superseded" in new.log_types()


def test_progress_keeps_a_call_alive_and_cancel_ends_it(service: Service, fake: MakeFake) -> None:
    device = fake("progress").start().connected()
    done = service.run(
        "node", "invoke", "progress", "count", '{"n": 4, "every_s": 0.7}', "--idle-timeout", "2", "--json"
    )
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["payload"] == {"counted": 4} and told["progress"]["seq"] == 4
    silent = service.run("node", "invoke", "progress", "never", "--idle-timeout", "1", "--json")
    assert silent.returncode == 1 and json.loads(silent.stdout)["error"]["code"] == "IDLE_TIMEOUT"
    started = service.run("node", "invoke", "progress", "never", "--no-wait", "--json")
    iid = json.loads(started.stdout)["invocation_id"]
    assert started.returncode == 0
    eventually(lambda: device.runs("never") == 2, 10)
    cancelled = service.run("invocation", "cancel", iid, "--json")
    assert cancelled.returncode == 0 and json.loads(cancelled.stdout)["error"]["code"] == "CANCELLED"
    assert service.run("invocation", "cancel", iid).returncode == 0, "again: the same answer"


# ---------------------------------------------------------------- presence


def test_a_frozen_device_is_off_within_forty_seconds_and_comes_back(tmp_path: Path) -> None:
    """With the pings that everybody has by default: SIGSTOP, so the socket stays open and nobody answers."""
    service = Service(tmp_path).start()
    device = Fake(service, "frozen", ("node", "recorder"))
    try:
        device.start().connected()
        device.signal(signal.SIGSTOP)
        began = time.monotonic()
        eventually(lambda: not device.node()["connected"], 40, every=0.2, what="the frozen device is off")
        print(f"off after {time.monotonic() - began:.1f} s")
        assert device.node()["presence"]["reason"] == "timeout"
        device.signal(signal.SIGCONT)
        device.connected(60)
        assert device.node()["presence"]["reason"] == "connect"
    finally:
        device.end()
        service.end()


def test_under_stale_only_a_newcomer_waits_until_the_owner_was_silent_for_the_threshold(tmp_path: Path) -> None:
    service = Service(tmp_path, heartbeat_s=1, takeover="stale_only", takeover_threshold_s=4).start()
    old, new = Fake(service, "stale"), Fake(service, "stale")
    new.folder, new.log = tmp_path / "newcomer", tmp_path / "newcomer.log"
    try:
        owner = old.start().connected().node_role("recorder")["connection_id"]
        new.start()
        eventually(lambda: new.log.exists() and new.log.read_text().count('"node.lost"') >= 4, 30, what="it is refused")
        assert old.node_role("recorder")["connection_id"] == owner and "node.superseded" not in old.log_types()
        old.signal(signal.SIGSTOP)
        eventually(
            lambda: old.node_role("recorder")["connection_id"] not in (owner, None), 20, what="the newcomer owns"
        )
        assert old.log_types().count("node.disconnected") == 0, "before the frozen one missed its pong"
        old.signal(signal.SIGCONT)
        assert old.exit_code(30) == 4
        assert new.connected().node()["presence"]["reason"] == "connect"
    finally:
        old.end()
        new.end()
        service.end()


def test_a_revoked_token_ends_the_device_that_holds_it(service: Service, fake: MakeFake) -> None:
    device = fake("revoked").start().connected()
    service.patient("DELETE", f"/v1/tokens/{device.token_id}")
    assert device.exit_code(15) == 1
    eventually(lambda: not device.node()["connected"], 10)


# ---------------------------------------------------------------- the registry by its command line


def test_a_new_device_is_let_in_by_code_and_approval_and_forgotten_with_its_token(
    service: Service, fake: MakeFake
) -> None:
    code = service.run("node", "enrol", "newcomer").stdout.strip()
    saved = service.folder / "newcomer.token"
    env = service.env | {"HOLDFAST_ENROLMENT_CODE": code, "HOLDFAST_URL": service.url}
    join = [sys.executable, "-m", "actors", "node", "join", "newcomer", "--save", str(saved), "--command", "wave"]
    with subprocess.Popen(join, env=env, stderr=subprocess.PIPE, text=True) as joining:

        def asked() -> Any:
            items = json.loads(service.run("node", "enrolments", "--state", "pending", "--json").stdout)["items"]
            return [one for one in items if one["node_id"] == "newcomer"]

        (enrolment,) = eventually(asked, 20, every=0.2)
        assert enrolment["commands"] == ["wave"] and not saved.exists()
        approve = ("node", "approve", enrolment["enrolment_id"])
        assert service.run(*approve, "--allow", "device.*").returncode == 0
        assert service.run(*approve).returncode == 4, "exactly once"
        _, err = joining.communicate(timeout=30)
    assert joining.returncode == 0, err
    assert saved.stat().st_mode & 0o777 == 0o600 and code not in err and saved.read_text().strip() not in err
    again = subprocess.run([*join, "--no-wait"], env=env, capture_output=True, text=True)
    assert again.returncode != 0 and "code" in again.stderr, "a code is good for one device, once"
    device = fake("newcomer")
    device.token_file = saved
    device.start().connected()
    told = json.loads(service.run("node", "show", "newcomer", "--json").stdout)
    assert told["commands"] == ["device.info"] and "echo" in told["denied_commands"]
    refused = service.run("node", "invoke", "newcomer", "echo", "1")
    assert refused.returncode == 1 and "NOT_ALLOWED" in refused.stderr and "certainly not executed" in refused.stderr
    assert service.run("node", "forget", "newcomer").returncode == 0
    assert device.exit_code(20) == 3
    assert device.start().exit_code(20) == 1, "its token went with it"
    assert service.run("node", "show", "newcomer").returncode == 3


def test_a_drained_node_takes_nothing_new_and_what_runs_goes_on(service: Service, fake: MakeFake) -> None:
    fake("drained").start().connected()
    with invoking(service, "drained", "sleep", '{"s": 3}') as running:
        dispatched(service, "drained")
        assert service.run("node", "drain", "drained").returncode == 0
        refused = service.run("node", "invoke", "drained", "echo", "--json")
        assert refused.returncode == 5 and json.loads(refused.stdout)["error"]["dispatched"] is False
        said, _ = running.communicate(timeout=30)
    assert running.returncode == 0 and json.loads(said)["ok"]
    assert service.run("node", "drain", "drained", "--off").returncode == 0
    assert service.run("node", "invoke", "drained", "echo", '{"a": 1}').stdout == '{"a": 1}\n'


def test_the_list_has_connected_ones_first_and_filters(service: Service, fake: MakeFake) -> None:
    for name in ("aaa-listed", "zzz-listed"):
        service.patient("POST", "/v1/nodes", {"node_id": name})
    fake("zzz-listed").start().connected()
    assert service.run("node", "rename", "zzz-listed", "the last").returncode == 0

    def listed(*filters: str) -> list[str]:
        items = json.loads(service.run("node", "list", "--json", *filters).stdout)["items"]
        return [one["node_id"] for one in items]

    assert listed("-q", "-listed") == ["zzz-listed", "aaa-listed"]
    assert listed("-q", "-listed", "--offline") == ["aaa-listed"]
    assert listed("-q", "the last", "--connected") == ["zzz-listed"]
    assert listed("-q", "-listed", "--role", "recorder") == []
