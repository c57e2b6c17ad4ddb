"""`up` and its processes, by real signals: what ends, what comes back, and that nothing is left."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest

from actors import processes
from tests.conftest import eventually
from tests.runtime.conftest import Up

pytestmark = pytest.mark.ray
LASTING = ("gcs_server", "raylet", "ray::Gateway", "ray::Reaper")  # other workers come and go by themselves


def _lasting(up: Up) -> dict[str, int]:
    members = set(up.members())
    named = {p.pid: p.info["name"] for p in psutil.process_iter(["name"]) if p.pid in members}
    return {kind: pid for kind in LASTING for pid, name in named.items() if name.startswith(kind)}


def test_the_gateway_comes_back_on_the_same_port_after_kill_9(holdfast: Up) -> None:
    before = holdfast.gateway()
    began = time.monotonic()
    assert processes.end_exactly(*before)
    eventually(lambda: holdfast.new_gateway(before), 15, what="the gateway is back")
    print(f"gateway back after {time.monotonic() - began:.2f} s")


def test_a_frozen_gateway_is_noticed_and_healed(holdfast: Up) -> None:
    before = holdfast.gateway()
    began = time.monotonic()
    assert processes.end_exactly(*before, signal.SIGSTOP)
    eventually(lambda: holdfast.new_gateway(before), 15, what="the frozen gateway is replaced")
    print(f"frozen gateway replaced after {time.monotonic() - began:.2f} s")
    assert not processes.alive(*before)


def test_every_listener_is_on_loopback_and_secrets_are_ours_alone(holdfast: Up) -> None:
    assert holdfast.process is not None
    listening = [found for pid in [*holdfast.members(), holdfast.process.pid] for found in _listening(pid)]
    assert {name for name, _ in listening} >= {"gcs_server", "raylet"} and len(listening) >= 5, listening
    assert {ip for _, ip in listening} <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}, listening
    for path in (holdfast.ready_file, *(holdfast.data_dir / name for name in ("token", "ray-token", "ready.json"))):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(holdfast.ray_dir.stat().st_mode) == 0o700
    for pid in holdfast.members():
        assert holdfast.token.encode() not in _environment_and_arguments(pid)


def test_a_second_up_on_the_directory_is_refused_and_sweeps_nothing(holdfast: Up) -> None:
    lasting = _lasting(holdfast)
    done = holdfast.cli("up", "--data-dir", str(holdfast.data_dir), "--port", "0")
    assert done.returncode == 4
    assert holdfast.process is not None
    assert f"is in use by another `holdfast up` (pid {holdfast.process.pid})" in done.stderr
    assert len(lasting) == len(LASTING) and _lasting(holdfast) == lasting and holdfast.healthy()


def test_a_taken_port_is_refused_before_anything_starts(holdfast: Up, make_up: Callable[..., Up]) -> None:
    other = make_up()
    other.url = holdfast.url
    assert other.spawn().wait(20) == 5
    assert "cannot be used" in other.log.read_text() and other.members() == []


def test_an_idle_session_actor_leaves_and_is_woken_again(holdfast: Up) -> None:
    assert holdfast.ask("/v1/sessions", "POST", {"session_id": "sleepy"})[0] == 201
    assert holdfast.ask("/v1/sessions/sleepy/executions", "POST", {"execution_id": "a"})[0] == 202
    first = eventually(lambda: _actor_pid(holdfast, "sleepy"), 20, what="the actor is awake")
    assert holdfast.ask("/v1/sessions/sleepy/interrupt", "POST", {})[0] == 202  # an active execution keeps it awake
    eventually(lambda: _actor_pid(holdfast, "sleepy") is None, 20, what="it has said that it sleeps")
    eventually(lambda: not processes.alive(first), 10, what="its process is gone")
    assert holdfast.ask("/v1/sessions/sleepy/executions", "POST", {})[0] == 202
    assert eventually(lambda: _actor_pid(holdfast, "sleepy"), 20, what="awake again") != first


def test_a_frozen_session_actor_costs_one_caller_its_deadline_and_is_ended(holdfast: Up) -> None:
    assert holdfast.ask("/v1/sessions", "POST", {"session_id": "frozen"})[0] == 201
    assert holdfast.ask("/v1/sessions/frozen/executions", "POST", {"execution_id": "a"})[0] == 202
    pid = eventually(lambda: _actor_pid(holdfast, "frozen"), 20, what="the actor is awake")
    time.sleep(1.1)  # the gateway's belief is a second old at most
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    done = holdfast.cli("session", "send", "frozen", "x", "--execution-id", "b", "--json")
    took_s = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    assert 4 < took_s < 12
    eventually(lambda: not processes.alive(pid), 5, what="the frozen one is ended")
    assert holdfast.ask("/v1/sessions/frozen")[1]["queued"] == 1


@pytest.mark.parametrize("victim", ["gcs_server", "raylet"])
def test_a_head_process_that_dies_brings_a_new_head_on_the_same_port(make_up: Callable[..., Up], victim: str) -> None:
    up = make_up().start()
    assert up.ask("/v1/sessions", "POST", {"session_id": "kept"})[0] == 201
    before, members = up.gateway(), up.members()
    pid = _lasting(up)[victim]
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    eventually(lambda: up.new_gateway(before), 60, what="a new head is up")  # as long as any start may take
    print(f"after the death of {victim}: accepting again after {time.monotonic() - began:.2f} s")
    assert not set(members) & set(up.members()), "something of the old head lives"
    assert up.ask("/v1/sessions/kept")[0] == 200


def test_sigterm_leaves_no_process_and_no_directory(make_up: Callable[..., Up]) -> None:
    up = make_up().start()
    assert up.ask("/v1/sessions", "POST", {"session_id": "s"})[0] == 201
    assert up.ask("/v1/sessions/s/executions", "POST", {})[0] == 202
    eventually(lambda: _actor_pid(up, "s"), 20, what="the actor is awake")
    members = up.members()
    assert len(members) >= 6
    assert up.process is not None
    began = time.monotonic()
    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(15) == 0
    print(f"ended after {time.monotonic() - began:.2f} s")
    assert [pid for pid in members if processes.alive(pid)] == [] and up.members() == []
    assert not up.ray_dir.exists() and not up.ready_file.exists()


def test_after_sigkill_the_next_up_ends_what_was_left_and_goes_on(make_up: Callable[..., Up]) -> None:
    up = make_up().start()
    assert up.ask("/v1/sessions", "POST", {"session_id": "kept"})[0] == 201
    gateway = up.gateway()
    assert processes.end_exactly(*gateway, signal.SIGSTOP)  # it cannot even notice that its parent fell
    token, url = up.token, up.url
    assert up.process is not None
    up.process.kill()
    up.process.wait(5)
    up.ready_file.unlink()
    began = time.monotonic()
    up.start()
    print(f"up again after {time.monotonic() - began:.2f} s; {up.log.read_text().splitlines()[-4:]}")
    assert not processes.alive(*gateway)
    assert "left from before" in up.log.read_text()
    assert (up.token, up.url) == (token, url)
    assert up.ask("/v1/sessions/kept")[0] == 200


def _actor_pid(up: Up, session_id: str) -> int | None:
    from actors.config import Settings
    from actors.store.sqlite import SqliteStore

    settings = Settings(data_dir=up.data_dir)
    store = SqliteStore.open(settings.store_path, settings.policy())
    try:
        found = [row for row in store.actors_awake() if row.name == f"session/{session_id}"]
    finally:
        store.close()
    return found[0].pid if found and processes.alive(found[0].pid, found[0].pid_started) else None


def _listening(pid: int) -> list[tuple[str, str]]:
    """(process, address) of each socket that it listens on; of one that ended while we looked, nothing."""
    try:
        process = psutil.Process(pid)
        sockets = process.net_connections("inet")
        return [(process.name(), socket.laddr.ip) for socket in sockets if socket.status == psutil.CONN_LISTEN]
    except psutil.NoSuchProcess:
        return []


def _environment_and_arguments(pid: int) -> bytes:
    text = b""
    for name in ("environ", "cmdline"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                text += file.read()
        except OSError:  # it ended while we looked, and says nothing to anybody
            continue
    return text


def test_the_demo_takes_its_tour_and_loses_nothing(holdfast: Up) -> None:
    env = holdfast.env | {"HOME": str(holdfast.folder)}
    argv = [sys.executable, "-P", "-m", "actors", "demo", "--once"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("0 lost, 0 duplicated")
