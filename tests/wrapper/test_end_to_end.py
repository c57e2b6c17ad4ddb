"""The wrapper as a process against an honest gateway: what comes out at the other end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
from aiohttp import web

from tests.wrapper.conftest import Wrappers, agent, eventually, is_alive
from tests.wrapper.fake_gateway import FakeGateway

START_FAILED = {"cause": "start_failed"}
PROBLEM = "application/problem+json"
FOREVER = agent("import time; print('up')\nwhile 1: time.sleep(1)")
DEAF = agent(
    "import signal,time,os; [signal.signal(s, signal.SIG_IGN) for s in (2, 15)]\n"
    "if os.fork() == 0: pass\n"
    "print('up')\nwhile 1: time.sleep(1)"
)


async def test_a_start_runs_the_command_once_and_its_output_and_final_arrive(
    gateway: FakeGateway, wrappers: Wrappers
) -> None:
    script = (
        "cat; echo; echo err >&2; echo [$HOLDFAST_TOKEN];"
        "echo $HOLDFAST_EXECUTION_ID $HOLDFAST_SESSION_ID $HOLDFAST_INPUT"
    )
    process = wrappers.start("/bin/sh", "-c", script, options=("--once",))
    exe = await gateway.submit("exe_1", "ünput")
    await eventually(lambda: process.poll() is not None)
    assert process.returncode == 0
    assert exe.output() == "ünput\n[]\nexe_1 ses_1 ünput\n".encode()
    assert exe.output("stderr") == b"err\n"
    assert exe.kinds()[0] == "started" and exe.kinds()[-1] == "final"
    assert [seq for seq, _, _ in exe.records] == list(range(1, len(exe.records) + 1))
    assert exe.final is not None and (exe.final["status"], exe.final["exit_code"]) == ("completed", 0)
    assert gateway.acks_of("cmd_1") == ["received"]
    assert gateway.tokens == ["Bearer secret"]
    assert list((wrappers.spool_dir / "runs").iterdir()) == []


async def test_executions_run_strictly_one_after_another_in_the_order_received(
    gateway: FakeGateway, wrappers: Wrappers, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    wrappers.start("/bin/sh", "-c", f"echo in $HOLDFAST_INPUT >> {log}; sleep 0.1; echo out $HOLDFAST_INPUT >> {log}")
    exes = [await gateway.submit(f"exe_{n}", str(n)) for n in range(3)]
    await eventually(lambda: all(exe.final for exe in exes))
    assert log.read_text().split("\n") == ["in 0", "out 0", "in 1", "out 1", "in 2", "out 2", ""]


@pytest.mark.parametrize(
    ("argv", "status", "exit_code", "signal_name", "error", "data"),
    [
        (("/bin/sh", "-c", "exit 3"), "failed", 3, None, "exit code 3", {}),
        (("/bin/sh", "-c", "kill -SEGV $$"), "failed", None, "SIGSEGV", "killed by SIGSEGV", {}),
        (("/no/such",), "failed", 127, None, "cannot run /no/such: No such file or directory", START_FAILED),
        (("no-such-one",), "failed", 127, None, "cannot run no-such-one: No such file or directory", START_FAILED),
        (("/etc/passwd",), "failed", 126, None, "cannot run /etc/passwd: Permission denied", START_FAILED),
    ],
)  # fmt: skip
async def test_how_a_command_ends_is_what_the_final_says(
    gateway: FakeGateway, wrappers: Wrappers, argv, status, exit_code, signal_name, error, data
) -> None:
    wrappers.start(*argv)
    exe = await gateway.submit("exe_1")
    final = await eventually(lambda: exe.final)
    got = (final["status"], final["exit_code"], final["signal"], final["error"], final["data"])
    assert got == (status, exit_code, signal_name, error, data)
    assert exe.kinds()[0] == "started"


async def test_the_gate_stays_shut_until_started_is_acknowledged(
    gateway: FakeGateway, wrappers: Wrappers, tmp_path: Path
) -> None:
    gateway.hold_started = True
    ran = tmp_path / "ran"
    process = wrappers.start("/bin/sh", "-c", f"echo x >> {ran}")
    exe = await gateway.submit("exe_1")
    await eventually(lambda: any(frame["type"] == "started" for frame in gateway.frames))
    # Whatever the runner does at `started` waits for the spool before this refusal does, and the shim has heard of it.
    refused = await gateway.command("input", "exe_1", input="x")
    await eventually(lambda: gateway.acks_of(refused) == ["rejected"])
    assert not ran.exists()
    wrappers.kill(process)
    await eventually(lambda: not wrappers.agents())  # its child has left through the gate, or done all that it does
    assert not ran.exists()
    gateway.hold_started = False
    wrappers.start("/bin/sh", "-c", f"echo x >> {ran}")
    await eventually(lambda: exe.final)
    assert ran.read_text() == "x\n"


async def test_a_started_that_is_acknowledged_on_the_next_connection_opens_the_gate(
    gateway: FakeGateway, wrappers: Wrappers, tmp_path: Path
) -> None:
    gateway.hold_started = True
    ran = tmp_path / "ran"
    wrappers.start("/bin/sh", "-c", f"echo x >> {ran}")
    exe = await gateway.submit("exe_1")
    await eventually(lambda: any(frame["type"] == "started" for frame in gateway.frames))
    gateway.hold_started = False
    await gateway.cut()
    await eventually(lambda: exe.final)
    assert ran.read_text() == "x\n"


async def test_a_start_that_ended_on_the_server_before_its_ack_is_never_run(
    gateway: FakeGateway, wrappers: Wrappers, tmp_path: Path
) -> None:
    gateway.hold_started = True
    ran = tmp_path / "ran"
    wrappers.start("/bin/sh", "-c", f"echo $HOLDFAST_EXECUTION_ID >> {ran}")
    exe = await gateway.submit("exe_1")
    await eventually(lambda: any(frame["type"] == "started" for frame in gateway.frames))
    exe.status = "failed"
    gateway.hold_started = False
    await gateway.cut()
    other = await gateway.submit("exe_2")
    await eventually(lambda: other.final)
    again = await gateway.command("start", "exe_1", input=None, limits={})
    await eventually(lambda: gateway.acks_of(again))
    third = await gateway.submit("exe_3")
    await eventually(lambda: third.final)
    assert ran.read_text() == "exe_2\nexe_3\n"


async def test_a_repeated_start_is_acknowledged_and_not_run_again(
    gateway: FakeGateway, wrappers: Wrappers, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    wrappers.start("/bin/sh", "-c", f"echo $HOLDFAST_EXECUTION_ID >> {ran}")
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.final)
    again = await gateway.command("start", "exe_1", input=None, limits={})
    await eventually(lambda: gateway.acks_of(again))
    other = await gateway.submit("exe_2")
    await eventually(lambda: other.final)
    assert ran.read_text() == "exe_1\nexe_2\n"


# ---------------------------------------------------------------- reconnects


async def test_cut_again_and_again_the_log_has_every_byte_once(gateway: FakeGateway, wrappers: Wrappers) -> None:
    lines = "".join(f"{n} äöü €{'x' * (n % 97)}\n" for n in range(20000))
    source = "for n in range(20000): print(n, 'äöü', '€' + 'x' * (n % 97))"
    wrappers.start(*agent(source), env={"PYTHONIOENCODING": "utf-8"})
    exe = await gateway.submit("exe_1")
    for round_ in range(3):
        await eventually(lambda n=round_: exe.final or (gateway.ready and exe.acked > n * 3))
        await gateway.cut()
    await eventually(lambda: exe.final, within=60)
    assert exe.output() == lines.encode()
    assert [hello["attempt"] for hello in gateway.hellos] == sorted({hello["attempt"] for hello in gateway.hellos})
    assert len({hello["instance_id"] for hello in gateway.hellos}) == 1


async def test_what_happens_while_the_gateway_is_away_is_told_when_it_is_back(
    gateway: FakeGateway, wrappers: Wrappers, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    wrappers.start("/bin/sh", "-c", f"echo before; while [ ! -e {go} ]; do sleep 0.02; done; echo after; exit 4")
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.output() == b"before\n")
    await gateway.stop()
    go.touch()
    await eventually(lambda: not wrappers.agents())
    await gateway.start()
    final = await eventually(lambda: exe.final)
    assert (final["status"], final["exit_code"]) == ("failed", 4)
    assert exe.output() == b"before\nafter\n"


async def test_lost_acks_lead_to_duplicates_that_the_server_skips(gateway: FakeGateway, wrappers: Wrappers) -> None:
    wrappers.start("/bin/sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.06; done; read x")
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.status == "running")
    gateway.ack = False
    await eventually(lambda: exe.final)
    assert exe.output() == b"1\n2\n3\n4\n5\n"
    gateway.ack = True
    await gateway.cut()
    other = await gateway.submit("exe_2")
    await eventually(lambda: other.final)
    assert exe.late_final is not None and exe.late_final["status"] == "failed"


async def test_a_final_that_came_too_late_is_reported_once_and_buried(gateway: FakeGateway, wrappers: Wrappers) -> None:
    wrappers.start("/bin/sh", "-c", "echo hi; sleep 0.2")
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.output() == b"hi\n")
    await gateway.stop()
    exe.status = "failed"
    await eventually(lambda: not wrappers.agents())
    await gateway.start()
    await eventually(lambda: exe.late_final)
    await gateway.cut()
    await eventually(lambda: gateway.ready)
    assert gateway.hellos[-1]["executions"] == []


async def test_at_most_a_window_is_in_flight(gateway: FakeGateway, wrappers: Wrappers) -> None:
    gateway.window_bytes = 64 << 10
    wrappers.start(*agent("import sys; sys.stdout.write('y' * 3_000_000)"))
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.status == "running")
    gateway.ack = False
    await eventually(lambda: len(gateway.heartbeats) >= 3)
    sent = sum(len(json.dumps(frame)) for frame in gateway.frames if frame["type"] == "events")
    assert 0 < sent <= 64 << 10
    gateway.ack = True
    await gateway.cut()
    await eventually(lambda: exe.final)
    assert exe.output() == b"y" * 3_000_000


# ---------------------------------------------------------------- refusals


async def test_a_refused_event_is_replaced_by_a_gap_and_nothing_else_is_lost(
    gateway: FakeGateway, wrappers: Wrappers
) -> None:
    gateway.refuse = {"bad.one": "invalid"}
    source = (
        "import json\n"
        "for n in range(20): print(json.dumps({'type': 'bad.one' if n == 7 else 'good.one', 'data': {'n': n}}))"
    )
    wrappers.start(*agent(source), options=("--events", "jsonl"))
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.final)
    assert [event["data"]["n"] for event in exe.events("good.one")] == [n for n in range(20) if n != 7]
    gaps = [body for _, kind, body in exe.records if kind == "gap"]
    assert [(gap["reason"], gap["seq"], gap["to_seq"]) for gap in gaps] == [("refused", 9, 9)]
    assert exe.acked == 22


async def test_a_refused_final_comes_again_in_its_bare_form(gateway: FakeGateway, wrappers: Wrappers) -> None:
    gateway.refuse = {"final": "too_large"}
    wrappers.start("/bin/sh", "-c", "exit 9")
    exe = await gateway.submit("exe_1")
    final = await eventually(lambda: exe.final)
    assert final["exit_code"] == 9 and "data" not in final


# ---------------------------------------------------------------- interrupts and aborts


async def test_an_interrupt_climbs_the_ladder_and_says_each_step(gateway: FakeGateway, wrappers: Wrappers) -> None:
    wrappers.start(*DEAF)
    exe = await gateway.submit("exe_1")
    await eventually(lambda: b"up" in exe.output())
    command = await gateway.interrupt("exe_1", within_s=2.0)
    final = await eventually(lambda: exe.final)
    assert (final["status"], final["signal"]) == ("interrupted", "SIGKILL")
    steps = [(event["data"]["signal"], event["data"]["step"]) for event in exe.events("agent.signalled")]
    assert steps == [("SIGINT", 1), ("SIGTERM", 2), ("SIGKILL", 3)]
    assert gateway.acks_of(command) == ["received", "done"]
    done = next(n for n, f in enumerate(gateway.frames) if f["type"] == "final")
    assert all(f["type"] != "command_ack" for f in gateway.frames[done:])


async def test_an_interrupt_that_is_heard_ends_it_with_the_first_step(gateway: FakeGateway, wrappers: Wrappers) -> None:
    wrappers.start(*agent("import time\ntry:\n  print('up'); time.sleep(60)\nexcept KeyboardInterrupt: print('bye')"))
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.output() == b"up\n")
    await gateway.interrupt("exe_1")
    final = await eventually(lambda: exe.final)
    assert (final["status"], final["exit_code"]) == ("interrupted", 0)
    assert exe.output() == b"up\nbye\n"
    assert len(exe.events("agent.signalled")) == 1


async def test_force_upgrades_a_ladder_that_is_being_climbed(gateway: FakeGateway, wrappers: Wrappers) -> None:
    wrappers.start(*DEAF)
    exe = await gateway.submit("exe_1")
    await eventually(lambda: b"up" in exe.output())
    await gateway.interrupt("exe_1", within_s=600.0)
    await eventually(lambda: exe.events("agent.signalled"))
    await gateway.interrupt("exe_1", within_s=600.0, force=True)
    final = await eventually(lambda: exe.final, within=10)
    assert final["status"] == "interrupted"


async def test_a_ladder_goes_on_after_the_wrapper_is_killed(gateway: FakeGateway, wrappers: Wrappers) -> None:
    process = wrappers.start(*DEAF)
    exe = await gateway.submit("exe_1")
    await eventually(lambda: b"up" in exe.output())
    command = await gateway.interrupt("exe_1", within_s=4.0)
    await eventually(lambda: exe.events("agent.signalled"))
    wrappers.kill(process)
    wrappers.start(*DEAF)
    final = await eventually(lambda: exe.final)
    assert final["status"] == "interrupted"
    steps = [event["data"]["step"] for event in exe.events("agent.signalled")]
    assert steps == [1, 2, 3]
    assert gateway.acks_of(command)[-1] == "done"


async def test_an_interrupt_of_something_else_is_rejected_and_touches_nothing(
    gateway: FakeGateway, wrappers: Wrappers
) -> None:
    wrappers.start(*FOREVER)
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.output())
    command = await gateway.interrupt("exe_other")
    await eventually(lambda: gateway.acks_of(command))
    assert gateway.command_acks[-1] == (command, "rejected", "not_current")
    assert exe.events("agent.signalled") == [] and wrappers.agents()


async def test_abort_ends_the_child_and_drops_what_it_says(gateway: FakeGateway, wrappers: Wrappers) -> None:
    wrappers.start(*FOREVER)
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.output())
    exe.status = "failed"
    command = await gateway.command("abort", "exe_1", reason="hung")
    await eventually(lambda: gateway.acks_of(command) == ["received", "done"])
    await eventually(lambda: not wrappers.agents())
    other = await gateway.submit("exe_2")
    await eventually(lambda: other.output())
    assert exe.final is None and exe.late_final is None


async def test_a_directive_to_abort_at_hello_ends_the_child(gateway: FakeGateway, wrappers: Wrappers) -> None:
    wrappers.start(*FOREVER)
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.output())
    exe.status = "failed"
    await gateway.cut()
    await eventually(lambda: not wrappers.agents())
    await eventually(lambda: gateway.ready)
    other = await gateway.submit("exe_2")
    await eventually(lambda: other.output())
    assert exe.final is None


async def test_nack_terminal_ends_the_child(gateway: FakeGateway, wrappers: Wrappers, tmp_path: Path) -> None:
    go = tmp_path / "go"
    wrappers.start("/bin/sh", "-c", f"echo up; while [ ! -e {go} ]; do sleep 0.02; done; echo more; exec sleep 100")
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.output())
    exe.status = "failed"
    go.touch()
    await eventually(lambda: not wrappers.agents())
    assert exe.output() == b"up\n"


# ---------------------------------------------------------------- input and approvals


async def test_input_and_decisions_reach_an_agent_that_keeps_its_stdin_open(
    gateway: FakeGateway, wrappers: Wrappers
) -> None:
    source = (
        "import sys, json\n"
        "say = lambda **o: print(json.dumps(o))\n"
        "say(type='got', data=json.loads(sys.stdin.readline()))\n"
        "say(type='approval', title='May I?', options=['yes', 'no'], id=7)\n"
        "say(type='got', data=json.loads(sys.stdin.readline()))\n"
        "say(type='ephemeral', events=[{'type': 'text.delta', 'data': {'t': 'x'}}])\n"
        "say(type='got', data=json.loads(sys.stdin.readline()))\n"
        "print('{not json'); say(type='session.closed', data={})\n"
    )
    wrappers.start(*agent(source), options=("--events", "jsonl"))
    exe = await gateway.submit("exe_1", {"do": "it"})
    await eventually(lambda: "approval" in exe.kinds())
    approval = next(body for _, kind, body in exe.records if kind == "approval")
    assert (approval["title"], approval["options"]) == ("May I?", ["yes", "no"])
    await gateway.command("approval", "exe_1", approval_id=approval["approval_id"], decision="yes", note=None)
    await eventually(lambda: gateway.ephemeral)
    command = await gateway.command("input", "exe_1", input="more")
    await eventually(lambda: exe.final)
    assert [event["data"] for event in exe.events("got")] == [
        {"type": "input", "input": {"do": "it"}},
        {"type": "approval", "id": 7, "approval_id": approval["approval_id"], "decision": "yes", "note": None},
        {"type": "input", "input": "more"},
    ]
    assert exe.output() == b'{not json\n{"type": "session.closed", "data": {}}\n'
    assert gateway.acks_of(command) == ["done"]


async def test_input_for_a_closed_stdin_is_rejected(gateway: FakeGateway, wrappers: Wrappers) -> None:
    wrappers.start(*FOREVER)
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.output())
    command = await gateway.command("input", "exe_1", input="more")
    await eventually(lambda: gateway.acks_of(command))
    assert gateway.command_acks[-1] == (command, "rejected", "stdin_closed")


async def test_a_large_input_comes_on_stdin_and_in_a_file(gateway: FakeGateway, wrappers: Wrappers) -> None:
    source = (
        "import os, sys\n"
        "data = sys.stdin.read()\n"
        "print(len(data), 'HOLDFAST_INPUT' in os.environ, open(os.environ['HOLDFAST_INPUT_FILE']).read() == data)"
    )
    wrappers.start(*agent(source))
    exe = await gateway.submit("exe_1", "i" * 700_000)
    await eventually(lambda: exe.final)
    assert exe.output() == b"700000 False True\n"


# ---------------------------------------------------------------- who may stay, who must go


@pytest.mark.parametrize(("code", "exit_code"), [(4000, 3), (4001, 4), (4002, 1), (4401, 1), (1000, 0)])
async def test_told_not_to_reconnect_it_ends_its_child_and_exits(
    gateway: FakeGateway, wrappers: Wrappers, code: int, exit_code: int
) -> None:
    process = wrappers.start(*FOREVER)
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.output())
    (pid,) = wrappers.agents()
    await gateway.close(code)
    await eventually(lambda: process.poll() is not None)
    assert process.returncode == exit_code
    assert not is_alive(pid)
    assert gateway.dials == 1


@pytest.mark.parametrize("code", [1001, 1012, 4009, 4429])
async def test_told_to_come_back_it_comes_back(gateway: FakeGateway, wrappers: Wrappers, code: int) -> None:
    wrappers.start(*FOREVER)
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.output())
    (pid,) = wrappers.agents()
    await gateway.close(code, '{"retry_after_s":0.1}')
    await eventually(lambda: gateway.dials == 2 and gateway.ready)
    assert is_alive(pid)
    assert gateway.hellos[-1]["executions"][0]["state"] == "running"


@pytest.mark.parametrize(
    ("status", "content_type", "exits"),
    [(401, PROBLEM, True), (404, PROBLEM, True), (404, "text/html", False), (503, PROBLEM, False)],
)
async def test_an_upgrade_refused_by_holdfast_is_final_one_refused_by_a_stranger_is_not(
    gateway: FakeGateway, wrappers: Wrappers, status: int, content_type: str, exits: bool
) -> None:
    gateway.reject = web.Response(status=status, body=b"{}", content_type=content_type)
    process = wrappers.start(*FOREVER)
    await eventually(lambda: process.poll() is not None or gateway.dials >= 2)
    assert (process.poll() is not None) == exits


async def test_once_with_sigterm_and_sigint(gateway: FakeGateway, wrappers: Wrappers) -> None:
    process = wrappers.start(*FOREVER)
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.output())
    (pid,) = wrappers.agents()
    process.send_signal(signal.SIGTERM)
    await eventually(lambda: process.poll() is not None)
    assert process.returncode == 0 and is_alive(pid)  # the agent goes on
    process = wrappers.start(*FOREVER)
    await eventually(lambda: gateway.ready)
    assert wrappers.agents() == [pid]  # adopted
    process.send_signal(signal.SIGINT)
    await eventually(lambda: process.poll() is not None)
    assert process.returncode == 130 and not is_alive(pid)
    assert exe.final is not None and exe.final["status"] == "interrupted"


async def test_two_wrappers_on_one_spool_the_second_is_refused_clearly(
    gateway: FakeGateway, wrappers: Wrappers
) -> None:
    first = wrappers.start(*FOREVER)
    await eventually(lambda: gateway.ready)
    second = wrappers.start(*FOREVER)
    await eventually(lambda: second.poll() is not None)
    assert second.returncode == 4
    assert f"in use by another wrapper (pid {first.pid})" in wrappers.log.read_text()
    assert first.poll() is None


async def test_a_peer_that_reads_nothing_is_noticed_and_left(gateway: FakeGateway, wrappers: Wrappers) -> None:
    wrappers.start(*FOREVER)
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.output())
    server = gateway.ws
    assert server is not None and server._req is not None and server._req.transport is not None
    server._req.transport.pause_reading()  # a frozen peer: the line is up, nobody is home
    await eventually(lambda: gateway.dials == 2 and gateway.ready, within=25)


# ---------------------------------------------------------------- crashes of the wrapper


async def test_killed_again_and_again_5_mb_arrive_without_a_lost_or_doubled_byte(
    gateway: FakeGateway, wrappers: Wrappers, tmp_path: Path
) -> None:
    data = os.urandom(1 << 20) + ("zß水🍌\n" * 90000).encode() + bytes(range(256)) * 4096 + b"tail" * (1 << 19)
    whole = tmp_path / "whole"
    whole.write_bytes(data)
    argv = agent(
        f"import os,time\nfd = os.open({str(whole)!r}, 0)\n"
        "while (d := os.read(fd, 40009)):\n"
        "  while d: d = d[os.write(1, d):]\n"
        "  time.sleep(0.01)\n"
        "os.write(2, b'end')\nos._exit(42)"
    )
    process = wrappers.start(*argv)
    exe = await gateway.submit("exe_1")
    for round_ in range(1, 7):
        await eventually(lambda n=round_: exe.final or len(exe.output()) > len(data) * n // 8)
        await eventually(lambda n=round_: len(gateway.hellos) == n)  # each of the seven gets to say who it is
        wrappers.kill(process)
        await asyncio.sleep(0.1 * (round_ % 3))  # sometimes the shim has been alone for a while
        process = wrappers.start(*argv)
    final = await eventually(lambda: exe.final, within=60)
    await eventually(lambda: len(gateway.hellos) == 7)
    assert len(data) > 5_000_000
    assert exe.output() == data and exe.output("stderr") == b"end"
    assert (final["status"], final["exit_code"]) == ("failed", 42)
    assert exe.kinds().count("started") == 1
    assert len({hello["wrapper_id"] for hello in gateway.hellos}) == 1
    assert len({hello["instance_id"] for hello in gateway.hellos}) == len(gateway.hellos) == 7


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(1, 19))
async def test_killed_at_any_spool_call_the_command_runs_at_most_once_and_one_final_comes(
    gateway: FakeGateway, wrappers: Wrappers, tmp_path: Path, at: int, when: str
) -> None:
    ran = tmp_path / "ran"
    argv = ("/bin/sh", "-c", f"echo x >> {ran}; echo out")
    await gateway.submit("exe_1")
    process = wrappers.start_crashing(at, when, *argv)
    await eventually(lambda: process.poll() is not None)
    exe = gateway.executions["exe_1"]
    last = wrappers.start(*argv, options=("--once",))
    final = await eventually(lambda: exe.final)
    if final["status"] == "completed":
        assert ran.read_text() == "x\n" and exe.output() == b"out\n"
    else:
        assert final["data"] == {"cause": "start_failed"}
        assert not ran.exists()
    if exe.acked and not gateway.executions["exe_1"].late_final:
        assert exe.kinds().count("started") == 1 and exe.kinds().count("final") == 1
    last.terminate()
    await eventually(lambda: last.poll() is not None)


async def test_an_agent_that_ended_while_no_wrapper_was_there_is_reported_by_the_next(
    gateway: FakeGateway, wrappers: Wrappers, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    argv = ("/bin/sh", "-c", f"echo up; while [ ! -e {go} ]; do sleep 0.02; done; echo down; exit 5")
    process = wrappers.start(*argv)
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.output())
    wrappers.kill(process)
    go.touch()
    await eventually(lambda: not wrappers.agents())
    wrappers.start(*argv)
    final = await eventually(lambda: exe.final)
    assert (final["exit_code"], exe.output()) == (5, b"up\ndown\n")


async def test_an_agent_whose_wrapper_never_comes_back_is_ended(gateway: FakeGateway, wrappers: Wrappers) -> None:
    process = wrappers.start(*FOREVER, options=("--orphan-after", "1"))
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.output())
    await eventually(lambda: len(gateway.heartbeats) > 4)  # longer than that: checking in keeps it alive
    assert wrappers.agents()
    wrappers.kill(process)
    await eventually(lambda: not wrappers.agents())
    wrappers.start(*FOREVER)
    final = await eventually(lambda: exe.final)
    assert (final["status"], final["data"]) == ("failed", {"cause": "agent_error", "detail": "orphaned"})


async def test_a_killed_shim_fails_the_execution_and_ends_the_agent(gateway: FakeGateway, wrappers: Wrappers) -> None:
    wrappers.start("/bin/sh", "-c", "trap '' PIPE; echo up; exec sleep 1000")
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.output())
    (pid,) = wrappers.agents()
    facts = json.loads(next(wrappers.spool_dir.glob("runs/*/shim.json")).read_text())
    os.kill(facts["shim_pid"], signal.SIGKILL)
    final = await eventually(lambda: exe.final)
    assert (final["status"], final["data"]) == ("failed", {"cause": "agent_error", "detail": "shim_lost"})
    assert not is_alive(pid)


async def test_a_frozen_shim_cannot_stop_the_ladder(gateway: FakeGateway, wrappers: Wrappers) -> None:
    wrappers.start(*FOREVER)
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.output())
    (pid,) = wrappers.agents()
    facts = json.loads(next(wrappers.spool_dir.glob("runs/*/shim.json")).read_text())
    os.kill(facts["shim_pid"], signal.SIGSTOP)
    await gateway.interrupt("exe_1", within_s=1.0)
    final = await eventually(lambda: exe.final)
    assert final["status"] == "interrupted"
    assert not is_alive(pid)


async def test_an_unreadable_spool_says_so_starts_nothing_and_heals(gateway: FakeGateway, wrappers: Wrappers) -> None:
    process = wrappers.start(*FOREVER)
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.output())
    (pid,) = wrappers.agents()
    wrappers.kill(process)
    for name in ("spool.db", "spool.db-wal"):  # the log alone would be enough to read everything
        (wrappers.spool_dir / name).write_bytes(b"rubbish" * 1000)
    gateway.grace_s = 0.3
    exe.status = "failed"
    wrappers.start(*FOREVER)
    await eventually(lambda: len(gateway.hellos) == 2 and gateway.ready)
    assert gateway.hellos[-1]["spool"]["state"] == "unreadable"
    assert gateway.hellos[-1]["wrapper_id"] != gateway.hellos[0]["wrapper_id"]
    other = await gateway.submit("exe_2")
    await eventually(lambda: not is_alive(pid))
    assert gateway.acks_of("cmd_2") == [] and other.status == "pending"
    await eventually(lambda: len(gateway.hellos) == 3)
    assert gateway.hellos[-1]["spool"]["state"] == "ok"
    await eventually(lambda: other.output())
    again = await gateway.command("start", "exe_1", input=None, limits={})  # its directory was witness enough
    await eventually(lambda: gateway.acks_of(again))
    assert exe.final is None and len(wrappers.agents()) == 1
    assert list(wrappers.spool_dir.glob("unreadable-*/spool.db"))


# ---------------------------------------------------------------- backups


async def test_a_spool_restored_from_a_backup_goes_on_after_what_the_server_has(
    gateway: FakeGateway, wrappers: Wrappers, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    argv = ("/bin/sh", "-c", f"echo 1; while [ ! -e {go} ]; do sleep 0.02; echo 2; done; echo 3; exit 7")
    process = wrappers.start(*argv)
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.acked > 2)
    wrappers.kill(process)
    backup = {name: (wrappers.spool_dir / name).read_bytes() for name in ("spool.db", "spool.db-wal")}
    process = wrappers.start(*argv)
    told = exe.acked
    await eventually(lambda: exe.acked > told + 20)
    wrappers.kill(process)
    for name, data in backup.items():
        (wrappers.spool_dir / name).write_bytes(data)
    wrappers.start(*argv)
    await eventually(lambda: len(gateway.hellos) == 3 and gateway.ready)
    go.touch()  # what comes after the rewind is told, whatever the numbers were
    final = await eventually(lambda: exe.final)
    assert final["exit_code"] == 7 and exe.output().endswith(b"3\n")
    assert [seq for seq, _, _ in exe.records] == list(range(1, exe.acked + 1))
    assert exe.kinds().count("started") == 1


async def test_a_spool_restored_to_before_the_gate_does_not_run_it_again(
    gateway: FakeGateway, wrappers: Wrappers, tmp_path: Path
) -> None:
    gateway.hold_started = True
    ran = tmp_path / "ran"
    argv = ("/bin/sh", "-c", f"echo x >> {ran}; exec sleep 1000")
    process = wrappers.start(*argv)
    await gateway.submit("exe_1")
    await eventually(lambda: any(frame["type"] == "started" for frame in gateway.frames))
    wrappers.kill(process)
    backup = {name: (wrappers.spool_dir / name).read_bytes() for name in ("spool.db", "spool.db-wal")}
    gateway.hold_started = False
    process = wrappers.start(*argv)
    await eventually(ran.exists)
    (pid,) = wrappers.agents()
    wrappers.kill(process)
    for name, data in backup.items():
        (wrappers.spool_dir / name).write_bytes(data)
    wrappers.start(*argv)
    await eventually(lambda: gateway.ready)
    await eventually(lambda: len(gateway.heartbeats) >= 2)
    assert wrappers.agents() == [pid] and ran.read_text() == "x\n"
    assert gateway.heartbeats[-1]["execution_id"] == "exe_1"


async def test_a_server_restored_from_a_backup_hears_of_the_gap(gateway: FakeGateway, wrappers: Wrappers) -> None:
    wrappers.start("/bin/sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done; exec sleep 1000")
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.output().endswith(b"5\n"))
    await gateway.cut()
    exe.acked, exe.records = 2, exe.records[:2]
    await eventually(lambda: gateway.ready)
    await gateway.interrupt("exe_1")
    await eventually(lambda: exe.final)
    assert exe.kinds()[:3] == ["started", "event", "gap"]


async def test_a_wrapper_whose_spool_is_gone_leaves_nothing_running_behind(
    gateway: FakeGateway, wrappers: Wrappers
) -> None:
    process = wrappers.start(*FOREVER)
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.output())
    (pid,) = wrappers.agents()
    wrappers.kill(process)
    for name in ("spool.db", "spool.db-wal"):
        (wrappers.spool_dir / name).unlink()
    exe.status = "failed"
    wrappers.start(*FOREVER)
    await eventually(lambda: not is_alive(pid))
    other = await gateway.submit("exe_2")
    await eventually(lambda: other.output())
