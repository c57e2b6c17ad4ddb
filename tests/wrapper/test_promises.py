"""What the wrapper keeps (a record until its ack, G2), and what it leaves alone (whatever was not named, G7)."""

from __future__ import annotations

from pathlib import Path

from tests.wrapper.conftest import Wrappers, agent, eventually, is_alive
from tests.wrapper.fake_gateway import FakeGateway


async def test_an_interrupt_of_one_that_waits_does_not_touch_the_one_that_runs(
    gateway: FakeGateway, wrappers: Wrappers, tmp_path: Path
) -> None:
    go_on = tmp_path / "go-on"
    wrappers.start("/bin/sh", "-c", f"echo up; while ! [ -e {go_on} ]; do sleep 0.02; done")
    runs, waits = [await gateway.submit(f"exe_{n}") for n in (1, 2)]
    await eventually(lambda: runs.output() and gateway.acks_of("cmd_2"))
    command = await gateway.interrupt("exe_2", within_s=1.0)
    await eventually(lambda: gateway.acks_of(command))
    assert gateway.command_acks[-1] == (command, "rejected", "not_current")
    go_on.touch()
    final = await eventually(lambda: runs.final)
    assert (final["status"], final["exit_code"]) == ("completed", 0)
    assert runs.events("agent.signalled") == []
    assert (await eventually(lambda: waits.final))["status"] == "completed"


async def test_what_was_sent_is_kept_until_it_is_acknowledged(
    gateway: FakeGateway, wrappers: Wrappers, tmp_path: Path
) -> None:
    go_on, end = tmp_path / "go-on", tmp_path / "end"
    until = "while ! [ -e {} ]; do sleep 0.02; done"
    wrappers.start("/bin/sh", "-c", f"{until.format(go_on)}; echo a; sleep 0.3; echo b; {until.format(end)}")
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.status == "running")
    gateway.ack = False
    go_on.touch()
    await eventually(lambda: exe.acked >= 3)  # the second was sent, so the first was sent long ago
    await gateway.cut()
    await eventually(lambda: len(gateway.hellos) == 2)
    (told,) = gateway.hellos[1]["executions"]
    assert (told["first_seq"], told["last_seq"]) == (2, 3)
    gateway.ack = True
    end.touch()
    await eventually(lambda: exe.final)
    assert exe.output() == b"a\nb\n"


async def test_a_command_that_ended_untold_is_not_run_again_from_a_spool_of_before_its_gate(
    gateway: FakeGateway, wrappers: Wrappers, tmp_path: Path
) -> None:
    gateway.hold_started = True
    ran, go = tmp_path / "ran", tmp_path / "go"
    argv = ("/bin/sh", "-c", f"echo x >> {ran}; while ! [ -e {go} ]; do sleep 0.02; done; echo done")
    process = wrappers.start(*argv)
    exe = await gateway.submit("exe_1")
    await eventually(lambda: any(frame["type"] == "started" for frame in gateway.frames))
    wrappers.kill(process)
    backup = {name: (wrappers.spool_dir / name).read_bytes() for name in ("spool.db", "spool.db-wal")}
    gateway.hold_started = False
    process = wrappers.start(*argv)
    await eventually(ran.exists)
    gateway.accept = False  # the server has `started`, and will not hear of the end
    await gateway.cut()
    go.touch()
    await eventually(lambda: "execution.ended" in wrappers.log.read_text())
    wrappers.kill(process)
    for name, data in backup.items():
        (wrappers.spool_dir / name).write_bytes(data)
    gateway.accept = True
    wrappers.start(*argv)
    final = await eventually(lambda: exe.final)
    assert ran.read_text() == "x\n"
    assert (final["status"], exe.output()) == ("completed", b"done\n")
    await eventually(lambda: not list((wrappers.spool_dir / "runs").iterdir()))  # told: no witness is needed any more


async def test_told_not_to_reconnect_with_a_full_spool_it_exits_and_the_next_wrapper_tells_the_rest(
    gateway: FakeGateway, wrappers: Wrappers, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    lines = "".join(f"{n:07}\n" for n in range(25_000))
    argv = agent(
        f"import time\nfor n in range(25_000): print(f'{{n:07}}')\nopen({str(said)!r}, 'x').close(); time.sleep(1000)"
    )
    process = wrappers.start(*argv, options=("--spool-limit", "65536"))
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.status == "running")
    gateway.ack = False
    await eventually(said.exists)  # in the shim's segments, by far not all of it in the spool
    (pid,) = wrappers.agents()
    await gateway.close(4001)
    await eventually(lambda: process.poll() is not None)
    assert process.returncode == 4
    assert not is_alive(pid)
    assert len(exe.output()) < len(lines)
    gateway.ack = True
    wrappers.start(*argv, options=("--spool-limit", "65536"))
    final = await eventually(lambda: exe.final)
    assert (final["status"], final["signal"], exe.output().decode()) == ("interrupted", "SIGINT", lines)
