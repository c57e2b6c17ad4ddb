"""Real work survives real kills: the main promise, from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from tests.conftest import eventually
from tests.e2e.service import Service, alive, started_below

LINES = "for i in $(seq 1 {n}); do echo line $i; sleep {pause}; done; exit 7"


def lines_of(text: str) -> list[int]:
    return [int(line.split()[1]) for line in text.splitlines()]


def check_exact(service: Service, sid: str, eid: str, n: int) -> None:
    numbers = lines_of(service.output(sid, eid))
    counted = Counter(numbers)
    assert [i for i in range(1, n + 1) if counted[i] != 1] == [], "each once"
    assert numbers == list(range(1, n + 1)), "in order"
    ends = service.terminals(sid, eid)
    assert len(ends) == 1 and ends[0]["data"]["exit_code"] == 7
    of_it = [e for e in service.events(sid) if e["execution_id"] == eid]
    assert of_it[-1] == ends[0]
    assert sum(e["type"] == "execution.started" for e in of_it) == 1, "the command ran once"


def test_two_thousand_lines_through_six_kills(service: Service) -> None:
    """The gateway three times, the wrapper twice, the session actor once, all -9, while the agent talks."""
    n = 2000
    service.create("lines")
    marker = service.folder / "ran"
    script = f"echo ran >> {marker}; " + LINES.format(n=n, pause=0.01)
    wrapper = service.wrapper("lines", ["bash", "-c", script])
    service.connected("lines")
    service.submit("lines", "e1")
    service.wait("lines", "e1", ["running"])
    eventually(lambda: service.actor_pid("lines"), 30, what="the session's actor is awake")

    def said(k: int) -> None:
        eventually(lambda: service.session("lines")["last_seq"] > k, 60, what=f"{k} events are stored")

    said(40)
    service.kill_gateway()
    said(90)
    wrapper.again()
    said(140)
    actor = service.actor_pid("lines")
    assert actor is not None
    os.kill(actor, signal.SIGKILL)
    said(190)
    service.kill_gateway()
    said(240)
    wrapper.again()
    said(290)
    service.kill_gateway()
    done = service.wait("lines", "e1", ["completed", "failed", "interrupted"], within=120)
    assert done["outcome"]["exit_code"] == 7 and done["status"] == "failed"
    check_exact(service, "lines", "e1", n)
    assert marker.read_text() == "ran\n"


def test_holdfast_run_through_gateway_kills(service: Service) -> None:
    n = 600
    env = service.env | {"HOLDFAST_URL": service.url, "HOLDFAST_TOKEN": service.token}
    argv = ["bash", "-c", LINES.format(n=n, pause=0.01)]
    command = [sys.executable, "-m", "actors", "run", "--session", "run-kills", "--", *argv]
    child = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    killer = threading.Thread(target=lambda: [_pause_until(service, 30 * k) for k in (1, 3)])
    killer.start()
    out, err = child.communicate(timeout=120)
    killer.join(60)
    assert child.returncode == 7, err
    assert lines_of(out) == list(range(1, n + 1)), "what the terminal shows is the agent's own output"
    (execution,) = service.patient("GET", "/v1/sessions/run-kills/executions")["items"]
    check_exact(service, "run-kills", execution["execution_id"], n)


def _pause_until(service: Service, events: int) -> None:
    def reached() -> bool:
        try:
            status, session = service.http("GET", "/v1/sessions/run-kills")
        except OSError:
            return False
        return status == 200 and session["last_seq"] > events

    eventually(reached, 60)
    service.kill_gateway()


def test_a_stopped_wrapper_is_failed_once_and_told_to_abort(service: Service) -> None:
    """SIGSTOP beyond pong deadline and grace; then SIGCONT: abort, the child ends, a late final changes nothing."""
    service.create("stopped", limits={"grace_s": 3})
    wrapper = service.wrapper("stopped", ["bash", "-c", "while true; do echo tick; sleep 0.1; done"])
    service.connected("stopped")
    service.submit("stopped", "e1")
    service.wait("stopped", "e1", ["running"])
    agent = agent_of(service, "stopped", "e1")
    wrapper.signal(signal.SIGSTOP)
    failed = service.wait("stopped", "e1", ["failed"], within=30)
    assert failed["outcome"]["cause"] == "disconnected"
    assert alive(agent), "nobody could tell it yet"
    wrapper.signal(signal.SIGCONT)
    eventually(lambda: not alive(agent), 40, what="the aborted agent ends")
    service.connected("stopped")
    assert len(service.terminals("stopped", "e1")) == 1
    disconnected = [e for e in service.events("stopped") if e["type"] == "wrapper.disconnected"]
    assert disconnected and {"reason", "ws_close_code", "error", "fatal"} <= set(disconnected[0]["data"])
    of_it = [e for e in service.events("stopped") if e["execution_id"] == "e1"]
    assert of_it[-1]["type"] == "execution.failed"
    # The same wrapper works on.
    service.submit("stopped", "e2")
    service.wait("stopped", "e2", ["running"])
    service.patient("POST", "/v1/sessions/stopped/interrupt", {"force": True})
    service.wait("stopped", "e2", ["interrupted"])


def agent_of(service: Service, sid: str, eid: str) -> int:
    started = [e for e in service.events(sid) if e["type"] == "execution.started" and e["execution_id"] == eid]
    return int(started[0]["data"]["pid"])


def test_back_within_grace_the_agent_never_notices(service: Service) -> None:
    service.create("grace", limits={"grace_s": 30})
    wrapper = service.wrapper("grace", ["bash", "-c", LINES.format(n=300, pause=0.02)])
    service.connected("grace")
    service.submit("grace", "e1")
    eventually(lambda: service.session("grace")["last_seq"] > 30, 30)
    wrapper.kill()
    eventually(lambda: service.session("grace")["link"]["state"] == "grace", 10)
    assert service.status("grace", "e1") == "running"
    wrapper.start()
    service.wait("grace", "e1", ["failed"], within=60)
    check_exact(service, "grace", "e1", 300)
    assert "wrapper.resumed" in [e["type"] for e in service.events("grace")]


def test_not_back_within_grace_it_is_failed_once(service: Service) -> None:
    service.create("gone", limits={"grace_s": 2})
    wrapper = service.wrapper("gone", ["sleep", "300"])
    service.connected("gone")
    service.submit("gone", "e1")
    service.wait("gone", "e1", ["running"])
    wrapper.kill()
    failed = service.wait("gone", "e1", ["failed"], within=15)
    assert failed["outcome"]["cause"] == "disconnected"
    types = Counter(e["type"] for e in service.events("gone"))
    assert types["execution.failed"] == 1 and types["wrapper.disconnected"] == 1


@pytest.mark.parametrize("stubborn", [False, True])
def test_an_interrupt_ends_a_child_and_its_whole_group(service: Service, stubborn: bool) -> None:
    sid = f"int-{stubborn}"
    service.create(sid, limits={"interrupt_s": 6})
    trap = "trap '' INT TERM; " if stubborn else ""
    service.wrapper(
        sid, ["bash", "-c", f"{trap}(while true; do echo x; sleep 0.2; done) & wait; while true; do sleep 1; done"]
    )
    service.connected(sid)
    service.submit(sid, "e1")
    service.wait(sid, "e1", ["running"])
    agent = agent_of(service, sid, "e1")
    first = service.patient("POST", f"/v1/sessions/{sid}/interrupt", {"reason": "enough"})
    again = service.patient("POST", f"/v1/sessions/{sid}/interrupt", {})
    assert first["interrupt_id"] == again["interrupt_id"]
    service.wait(sid, "e1", ["interrupted"], within=20)
    eventually(lambda: not alive(agent), 20)
    assert len(service.terminals(sid, "e1")) == 1
    types = [e["type"] for e in service.events(sid)]
    assert "interrupt.requested" in types and "interrupt.delivered" in types
    if stubborn:
        steps = [e["data"]["signal"] for e in service.events(sid) if e["type"] == "agent.signalled"]
        assert steps[0] == "SIGINT" and steps[-1] == "SIGKILL", steps


def test_an_interrupt_for_a_wrapper_that_is_away_waits_for_it(service: Service) -> None:
    service.create("away", limits={"grace_s": 30, "interrupt_s": 10})
    wrapper = service.wrapper("away", ["sh", "-c", "echo up; exec sleep 300"])
    service.connected("away")
    service.submit("away", "e1")
    # Not just `running`: a wrapper killed while it opens the gate fails the execution, as it should.
    eventually(lambda: service.output("away") == "up\n", 30)
    wrapper.kill()
    eventually(lambda: service.session("away")["link"]["state"] == "grace", 10)
    service.patient("POST", "/v1/sessions/away/interrupt", {})
    assert service.status("away", "e1") == "running"
    wrapper.start()
    done = service.wait("away", "e1", ["interrupted"], within=25)
    assert done["interrupt"]["stage"] in ("delivered", "acknowledged")


def test_an_interrupt_at_the_moment_of_the_end_never_hits_the_next(service: Service) -> None:
    """E1 ends by itself while its interrupt is on the way; E2 goes on."""
    service.create("next")
    service.wrapper("next", ["bash", "-c", 'if [ "$HOLDFAST_INPUT" = quick ]; then sleep 0.3; else sleep 3; fi'])
    service.connected("next")
    for round_ in range(5):
        quick, slow = f"q{round_}", f"s{round_}"
        service.submit("next", quick, input="quick")
        service.submit("next", slow, input="slow")
        service.wait("next", quick, ["running", "completed"])
        time.sleep(0.25)  # paces the race: around the very moment at which the quick one ends
        service.patient("POST", "/v1/sessions/next/interrupt", {"execution_id": quick})
        service.wait("next", quick, ["completed", "interrupted"])
        assert service.wait("next", slow, ["completed"], within=20)["interrupt"] is None


def test_two_wrappers_the_newest_owns(service: Service) -> None:
    service.create("two")
    old = service.wrapper("two", ["bash", "-c", "while true; do echo old; sleep 0.05; done"], spool="two-old")
    service.connected("two")
    service.submit("two", "e1")
    service.wait("two", "e1", ["running"])
    agent = agent_of(service, "two", "e1")
    service.wrapper("two", ["bash", "-c", "echo new; sleep 1"], spool="two-new")
    failed = service.wait("two", "e1", ["failed"])
    assert failed["outcome"]["cause"] == "superseded"
    assert old.exit_code() != 0, "it is told 4001, ends its child and exits"
    eventually(lambda: not alive(agent), 10)
    at_end = len([e for e in service.events("two") if e["execution_id"] == "e1"])
    service.submit("two", "e2")
    service.wait("two", "e2", ["completed"])
    assert service.output("two", "e2") == "new\n"
    assert len([e for e in service.events("two") if e["execution_id"] == "e1"]) == at_end
    assert not started_below(service.folder / "spool-two-old")


def test_a_start_that_reaches_two_wrappers_runs_once(service: Service) -> None:
    """The old wrapper is frozen with the start in its socket; the new one takes over and runs it."""
    service.create("once")
    ran = service.folder / "once-ran"
    argv = ["bash", "-c", f"echo $$ >> {ran}; sleep 1"]
    old = service.wrapper("once", argv, spool="once-old")
    service.connected("once")
    old.signal(signal.SIGSTOP)
    service.submit("once", "e1")
    service.wrapper("once", argv, spool="once-new")
    service.wait("once", "e1", ["completed"], within=30)
    old.signal(signal.SIGCONT)
    assert old.exit_code() != 0
    assert len(ran.read_text().split()) == 1
    assert len(service.terminals("once", "e1")) == 1
