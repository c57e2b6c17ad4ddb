"""What the service's own processes live through: frozen, killed, restarted; and what is left of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import eventually
from tests.e2e.service import Service, alive, started_below
from tests.e2e.storm import Fleet
from tests.e2e.test_survival import LINES, check_exact


@pytest.mark.parametrize("who", ["session actor", "reaper", "gateway"])
def test_a_frozen_process_of_ours_is_replaced_under_load(service: Service, who: str) -> None:
    """SIGSTOP: Ray never notices. The service goes on within 15 s and nothing is lost."""
    sid = "frozen-" + who.replace(" ", "-")
    service.create(sid)
    service.wrapper(sid, ["bash", "-c", LINES.format(n=800, pause=0.02)])
    service.connected(sid)
    service.submit(sid, "e1")
    eventually(lambda: service.session(sid)["last_seq"] > 50, 30)
    pid = {
        "session actor": lambda: eventually(lambda: service.actor_pid(sid), 30),
        "reaper": service.reaper_pid,
        "gateway": service.gateway_pid,
    }[who]()
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    if who == "session actor":
        service.patient("POST", f"/v1/sessions/{sid}/executions/e1/input", {"input": "x"}, within=15)
    elif who == "reaper":
        service.create(sid + "-due", limits={"pending_s": 1})
        service.submit(sid + "-due", "e1")
        service.wait(sid + "-due", "e1", ["failed"], within=15)
    else:
        eventually(service.healthy, 15, what="a gateway answers")
    assert time.monotonic() - began < 15
    service.wait(sid, "e1", ["failed"], within=60)
    check_exact(service, sid, "e1", 800)
    eventually(lambda: not alive(pid), 30, what="the frozen one is ended")


def test_the_causes_and_a_race_with_the_operator(service: Service) -> None:
    service.create("causes")
    service.submit("causes", "never", limits={"pending_s": 1})
    assert service.wait("causes", "never", ["failed"])["outcome"]["cause"] == "never_started"
    service.wrapper("causes", ["sleep", "300"])
    service.connected("causes")
    for name, limits in (("hung", {"hung_s": 1}), ("max_runtime", {"max_runtime_s": 1})):
        service.submit("causes", name, limits=limits)
        assert service.wait("causes", name, ["failed"])["outcome"]["cause"] == name
    ends = Counter(e["execution_id"] for e in service.events("causes") if e["type"] == "execution.failed")
    assert ends == {"never": 1, "hung": 1, "max_runtime": 1}


def test_an_operators_fail_races_the_reaper(service: Service) -> None:
    """200 times, at the very tick at which never_started is due: one terminal event, and both see the same outcome."""
    names = [f"race{i}" for i in range(200)]

    def one(i: int) -> None:
        service.create(names[i], limits={"pending_s": 1})
        service.submit(names[i], "e1")
        time.sleep(0.7 + (i % 40) * 0.02)  # paces the race around the due time; the outcome is checked, not the time
        answer = service.patient("POST", f"/v1/sessions/{names[i]}/executions/e1/fail", {"error": "by hand"}, within=30)
        ended = service.wait(names[i], "e1", ["failed"])
        assert answer["execution"]["outcome"] == ended["outcome"]
        assert answer["changed"] == (ended["outcome"]["cause"] == "operator")
        assert len(service.terminals(names[i], "e1")) == 1

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(one, range(200)))


def test_up_killed_with_sixty_running_resumes_all_of_them(own_service: Service) -> None:
    """SIGKILL of `up`, an outage longer than everybody's grace, and `up` again: nobody is reaped for our absence.

    Six of the sixty are real wrappers with agents that talk all the while, the others speak the protocol by hand.
    """
    real, grace, n = 6, 12, 1200  # grace above the longest pause of a wrapper (8 s), as configuration demands
    own_service.start()

    async def story() -> None:
        fleet = Fleet(own_service, 0, running=54)
        await fleet.create(limits={"grace_s": grace})
        await fleet.connect_all()
        await asyncio.to_thread(start_real)
        first_life = [pid for pid in started_below(own_service.data) if pid != own_service.up.pid]  # type: ignore[union-attr]
        await asyncio.to_thread(outage)
        await fleet.all_back(60)
        await fleet.finish()
        assert [pid for pid in first_life if alive(pid)] == [], "no process of the first life remains"

    def start_real() -> None:
        for i in range(real):
            own_service.create(f"s{i}", limits={"grace_s": grace})
            own_service.wrapper(f"s{i}", ["bash", "-c", LINES.format(n=n, pause=0.03)])
        for i in range(real):
            own_service.connected(f"s{i}")
            own_service.submit(f"s{i}", "e1")
        for i in range(real):
            own_service.wait(f"s{i}", "e1", ["running"])

    def outage() -> None:
        assert own_service.up is not None
        own_service.up.kill()
        own_service.up.wait()
        time.sleep(grace + 2)  # the outage itself
        own_service.start()

    asyncio.run(story())
    for i in range(54):
        own_service.wait(f"run{i}", "e1", ["completed"])
        assert len(own_service.terminals(f"run{i}", "e1")) == 1
    for i in range(real):
        assert own_service.wait(f"s{i}", "e1", ["failed"], within=90)["outcome"]["exit_code"] == 7
        check_exact(own_service, f"s{i}", "e1", n)


def test_after_sigterm_nothing_is_left(own_service: Service) -> None:
    own_service.start()
    own_service.create("s")
    own_service.submit("s", "e1")
    eventually(lambda: own_service.actor_pid("s"), 30)
    ours = started_below(own_service.data)
    assert own_service.stop() == 0
    eventually(lambda: not [pid for pid in ours if alive(pid)], 5)


def test_idle_sessions_come_back_without_actors(own_service: Service) -> None:
    """Many idle connections and some running ones: the gateway dies, all are back, and no actor was started for it."""
    idle = 1000
    own_service.start()

    async def story() -> None:
        fleet = Fleet(own_service, idle, running=60)
        await fleet.create()
        await fleet.connect_all()
        before = own_service.actors_awake()
        took = await asyncio.to_thread(own_service.kill_gateway)
        seconds = await fleet.all_back(60)
        print(f"gateway back after {took:.2f} s, {idle + 60} sessions after {seconds:.2f} s more")
        assert own_service.actors_awake() <= max(before, 60)
        await fleet.finish()

    asyncio.run(story())
    for i in range(60):
        assert own_service.wait(f"run{i}", "e1", ["completed"])
        outputs = [e["data"]["n"] for e in own_service.events(f"run{i}") if e["type"] == "output"]
        assert outputs == list(range(1, len(outputs) + 1)) and len(outputs) >= 2


def test_run_keeps_its_spool_when_nobody_hears_the_end(own_service: Service) -> None:
    """`up` is gone for good: exit 5, and what was not delivered lies where the message says."""
    own_service.start()
    home = own_service.folder / "home"
    env = own_service.env | {"HOLDFAST_URL": own_service.url, "HOLDFAST_TOKEN": own_service.token, "HOME": str(home)}
    command = [sys.executable, "-m", "actors", "run", "--session", "kept", "--final-wait", "2", "--"]
    child = subprocess.Popen(
        [*command, "bash", "-c", "echo hello; sleep 2; exit 3"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    eventually(lambda: own_service.http("GET", "/v1/sessions/kept")[1].get("active_execution"), 20)
    eventually(lambda: own_service.session("kept")["active_execution"]["status"] == "running", 20)
    own_service.stop()
    out, err = child.communicate(timeout=60)
    assert child.returncode == 5, err
    assert out == "hello\n"
    (spool,) = (home / ".local/state/holdfast/run").iterdir()
    assert str(spool) in err


def test_run_refuses_a_session_that_is_in_use_unless_told(service: Service) -> None:
    service.create("used")
    old = service.wrapper("used", ["sleep", "300"])
    service.connected("used")
    refused = service.run("run", "--session", "used", "--", "true")
    assert refused.returncode == 4 and "--takeover" in refused.stderr
    assert service.run("run", "--session", "used", "--takeover", "--", "bash", "-c", "exit 6").returncode == 6
    assert old.exit_code() != 0
