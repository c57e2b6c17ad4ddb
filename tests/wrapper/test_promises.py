"""What the wrapper keeps (a record until its ack, G2), and what it leaves alone (whatever was not named, G7)."""

from __future__ import annotations

from pathlib import Path

from tests.wrapper.conftest import Wrappers, eventually
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
