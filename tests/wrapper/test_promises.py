"""What the wrapper keeps (a record until its ack, G2), and what it leaves alone (whatever was not named, G7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest

from tests.wrapper.conftest import Wrappers, agent, eventually, is_alive
from tests.wrapper.fake_gateway import FakeGateway
from wrapper.app import Settings, Wrapper
from wrapper.commands import Commands
from wrapper.runner import Run
from wrapper.telemetry import silent

P = ParamSpec("P")
T = TypeVar("T")


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
    go_on, more, end = (tmp_path / name for name in ("go-on", "more", "end"))
    until = "while ! [ -e {} ]; do sleep 0.02; done"
    wait, wait_more, wait_end = (until.format(file) for file in (go_on, more, end))
    wrappers.start("/bin/sh", "-c", f"{wait}; echo a; {wait_more}; echo b; {wait_end}")
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.status == "running")
    gateway.ack = False
    go_on.touch()
    await eventually(lambda: exe.acked >= 2)
    more.touch()
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


# ---------------------------------------------------------------- asked before the runner has taken up what runs


@pytest.fixture
async def just_born(tmp_path: Path) -> AsyncIterator[Wrapper]:
    """A wrapper over the spool of one that died while exe_1 ran; its runner has not looked yet."""
    wrapper = Wrapper(Settings("http://127.0.0.1:1", "ses_1", ("agent",), str(tmp_path / "spool"), events="jsonl"))
    wrapper.spool.receive_start("cmd_1", "exe_1", None, {})
    wrapper.spool.launching(1, "exe_1.0", 0)
    wrapper.spool.launched(1, 7, {})
    wrapper.spool.open_gate(1)
    yield wrapper
    wrapper._thread.shutdown()
    wrapper.spool.close()


ANSWER = {"command_id": "cmd_2", "execution_id": "exe_1", "kind": "approval", "approval_id": "apr_1", "decision": "yes"}


async def test_an_answer_that_comes_before_the_runner_waits_for_it(just_born: Wrapper) -> None:
    row = just_born.spool.get("exe_1")
    assert row is not None
    obeying = asyncio.create_task(just_born.commands.obey(ANSWER))
    done, _ = await asyncio.wait([obeying], timeout=0.3)
    assert not done
    just_born.runner.current = Run(row)
    await asyncio.wait_for(obeying, 5)
    known = just_born.spool.command("cmd_2")
    assert known is not None and known.status == "done"
    assert [b'"decision":"yes"' in data for _, data in just_born.spool.inputs("exe_1")] == [True]


async def test_an_answer_to_one_that_ends_before_the_runner_comes_to_it_is_rejected(just_born: Wrapper) -> None:
    obeying = asyncio.create_task(just_born.commands.obey(ANSWER))
    done, _ = await asyncio.wait([obeying], timeout=0.3)
    assert not done
    await just_born.call(just_born.spool.bury, "exe_1")
    await asyncio.wait_for(obeying, 5)
    known = just_born.spool.command("cmd_2")
    assert known is not None and (known.status, known.code) == ("rejected", "not_current")


async def test_an_answer_to_one_that_is_buried_while_the_disk_is_full_is_rejected(just_born: Wrapper) -> None:
    row = just_born.spool.get("exe_1")
    assert row is not None
    just_born.runner.current = Run(row)

    async def call(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if fn == just_born.spool.note_input:  # there is no room for it, and its execution ends meanwhile
            await just_born.call(just_born.spool.bury, "exe_1")
        return await just_born.call(fn, *args, **kwargs)

    said: list[dict[str, Any]] = []
    commands = Commands(just_born.spool, call, just_born.runner, said.append, silent, lambda _: True)
    await commands.obey(ANSWER)
    assert [(one["status"], one["code"]) for one in said] == [("rejected", "not_current")]
    known = just_born.spool.command("cmd_2")
    assert known is not None and known.status == "rejected"
