"""`run_once` for `holdfast run`, and the command line: how fast it is, what it imports, what it says."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wrapper.conftest import PYTHON, ROOT, Wrappers, agent, eventually, is_alive
from tests.wrapper.fake_gateway import FakeGateway
from wrapper import VERSION, app, runner
from wrapper.connection import Closed, Dialer
from wrapper.embed import RunResult, run_once
from wrapper.spoolfile import SpoolLocked

HELD_S = 20.0  # longer than any machine takes for three lines of shell
ENV = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPATH": str(ROOT)}


async def once(gateway: FakeGateway, tmp_path: Path, *argv: str, **more: object) -> tuple[RunResult, bytes]:
    out = bytearray()
    result = await run_once(
        url=gateway.url,
        session_id="ses_1",
        token="secret",
        argv=argv,
        spool_dir=str(tmp_path / "spool"),
        execution_id="exe_1",
        on_output=lambda stream, data: out.extend(data if stream == "stdout" else b"<" + data + b">"),
        **more,  # type: ignore[arg-type]
    )
    return result, bytes(out)


async def test_run_once_mirrors_the_output_and_knows_the_end(gateway: FakeGateway, tmp_path: Path) -> None:
    await gateway.submit("exe_other")  # somebody else's: not taken, not acknowledged
    exe = await gateway.submit("exe_1")
    result, out = await once(gateway, tmp_path, "/bin/sh", "-c", "echo hi; echo no >&2; exit 3")
    assert (result.status, result.exit_code, result.acked, result.started, result.why) == (
        "failed",
        3,
        True,
        True,
        "once",
    )
    assert out == b"hi\n<no\n>"
    assert exe.output() == b"hi\n" and gateway.executions["exe_other"].status == "pending"
    assert gateway.acks_of("cmd_1") == []


async def test_nothing_is_held_back_for_more_once_the_command_has_ended(
    gateway: FakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its last output, for a fuller chunk, nor the acknowledgement of its end, for a fuller batch."""
    monkeypatch.setattr(runner, "CHUNK_S", HELD_S)
    monkeypatch.setattr(app, "ACK_BATCH_S", HELD_S)
    exe = await gateway.submit("exe_1")
    began = time.monotonic()
    result, out = await once(gateway, tmp_path, "/bin/sh", "-c", "echo hi; sleep 0.3; echo ho")
    assert time.monotonic() - began < HELD_S
    assert (result.exit_code, result.acked, out) == (0, True, b"hi\nho\n") and exe.output() == out


async def test_run_once_gives_up_waiting_for_the_ack_and_keeps_the_spool(gateway: FakeGateway, tmp_path: Path) -> None:
    exe = await gateway.submit("exe_1")

    async def gateway_goes() -> None:
        await eventually(lambda: exe.output())
        await gateway.stop()

    going = asyncio.create_task(gateway_goes())
    result, out = await once(gateway, tmp_path, "/bin/sh", "-c", "echo hi; sleep 0.5; echo ho", final_wait_s=0.3)
    await going
    assert (result.exit_code, result.acked, result.why) == (0, False, "not_acked")
    assert out == b"hi\nho\n"
    await gateway.start()
    result, out = await once(gateway, tmp_path, "/bin/false")  # the same spool: only the end is left to tell
    assert result.why == "once" and exe.final is not None and exe.final["status"] == "completed"
    assert exe.output() == b"hi\nho\n"


async def test_ctrl_c_in_run_once_is_the_ladder(gateway: FakeGateway, tmp_path: Path) -> None:
    exe = await gateway.submit("exe_1")

    async def ctrl_c() -> None:
        await eventually(lambda: exe.output())
        os.kill(os.getpid(), signal.SIGINT)

    pressing = asyncio.create_task(ctrl_c())
    result, _ = await once(gateway, tmp_path, *agent("import time; print('up'); time.sleep(1000)"))
    await pressing
    assert (result.status, result.acked) == ("interrupted", True) and result.why in ("interrupted", "once")
    assert exe.final is not None and exe.final["status"] == "interrupted"


STUBBORN = "import signal as s, time; [s.signal(n, s.SIG_IGN) for n in (1, 2, 15)]; print('up'); time.sleep(1000)"


async def test_the_third_ctrl_c_kills_what_ignores_the_first_two(gateway: FakeGateway, tmp_path: Path) -> None:
    exe = await gateway.submit("exe_1")
    heard: list[tuple[int, int, bool]] = []

    async def press() -> None:
        await eventually(lambda: exe.output())
        for n in range(3):
            os.kill(os.getpid(), signal.SIGINT)
            await eventually(lambda n=n: len(heard) == n + 1)  # type: ignore[misc]

    pressing = asyncio.create_task(press())
    result, _ = await once(gateway, tmp_path, *agent(STUBBORN), on_signal=lambda *told: heard.append(told))
    await pressing
    assert heard == [(2, 1, True), (2, 2, True), (2, 3, True)]
    assert (result.status, result.signal, result.stopped_by) == ("interrupted", "SIGKILL", signal.SIGINT)
    assert exe.final is not None and exe.final["signal"] == "SIGKILL"


@pytest.fixture
def hearing_hangups() -> Iterator[None]:
    """A suite that was itself started under nohup ignores them, and what it runs does too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hearing_hangups")
async def test_a_terminal_that_closes_is_one_word_to_end(gateway: FakeGateway, tmp_path: Path) -> None:
    exe = await gateway.submit("exe_1")
    heard: list[tuple[int, int, bool]] = []

    async def close() -> None:
        await eventually(lambda: exe.output())
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: heard)
        os.kill(os.getpid(), signal.SIGHUP)

    closing = asyncio.create_task(close())
    source = "import time; print('up'); time.sleep(1000)"
    result, _ = await once(gateway, tmp_path, *agent(source), on_signal=lambda *told: heard.append(told))
    await closing
    assert heard == [(1, 1, True)] and result.stopped_by == signal.SIGHUP
    assert exe.final is not None and exe.final["status"] == "interrupted"


async def test_what_run_once_left_is_delivered_by_a_wrapper_on_its_spool(
    gateway: FakeGateway, wrappers: Wrappers, tmp_path: Path
) -> None:
    exe = await gateway.submit("exe_1")

    async def gateway_goes() -> None:
        await eventually(lambda: exe.output())
        await gateway.stop()

    going = asyncio.create_task(gateway_goes())
    waits: list[float] = []
    argv = ("/bin/sh", "-c", "echo hi; sleep 0.5; echo ho")
    result, _ = await once(gateway, tmp_path, *argv, final_wait_s=1.2, on_waiting=waits.append)
    await going
    assert not result.acked and len(waits) == 1
    await gateway.start()
    wrappers.spool_dir = tmp_path / "spool"
    process = wrappers.start("true", options=("--once",))
    assert await asyncio.to_thread(process.wait, 30) == 0
    assert exe.output() == b"hi\nho\n" and exe.final is not None and exe.final["status"] == "completed"


@pytest.mark.parametrize(
    ("code", "exits", "says"),
    [(4000, 3, "the session was deleted; the end of its execution can never"), (4001, 4, "took the session over")],
)
async def test_told_to_go_it_says_why_even_when_quiet(
    gateway: FakeGateway, wrappers: Wrappers, code: int, exits: int, says: str
) -> None:
    process = wrappers.start(*agent("import time; print('up'); time.sleep(1000)"), options=("--once", "--quiet"))
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.output())
    await gateway.close(code, "")
    assert await asyncio.to_thread(process.wait, 30) == exits
    assert says in wrappers.log.read_text()


async def test_run_once_told_to_go_says_why(gateway: FakeGateway, tmp_path: Path) -> None:
    exe = await gateway.submit("exe_1")

    async def close() -> None:
        await eventually(lambda: exe.output())
        await gateway.close(4001, "another")

    closing = asyncio.create_task(close())
    result, _ = await once(gateway, tmp_path, *agent("import time; print('up'); time.sleep(1000)"))
    await closing
    assert (result.why, result.close_code, result.reason) == ("stopped", 4001, "another")
    assert (result.status, result.acked) == ("interrupted", False)


async def test_run_once_on_a_spool_in_use_says_so(gateway: FakeGateway, wrappers: Wrappers, tmp_path: Path) -> None:
    wrappers.start("/bin/true")
    await eventually(lambda: gateway.ready)
    with pytest.raises(SpoolLocked):
        await once(gateway, tmp_path, "/bin/true")


# ---------------------------------------------------------------- limits, end to end


async def test_a_full_spool_holds_the_agent_back_and_loses_nothing(
    gateway: FakeGateway, wrappers: Wrappers, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    source = (
        f"import os\nfor n in range(60): os.write(1, b'%02d' % n * 500_000); open({str(mark)!r}, 'w').write(str(n))"
    )
    wrappers.start(*agent(source), options=("--spool-limit", "2000000"))
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.status == "running")
    await gateway.stop()
    await eventually(lambda: len(list(wrappers.spool_dir.glob("runs/*/out.*"))) == 4)
    reached = await eventually(mark.read_text)  # (empty for the instant in which it is written anew)
    assert wrappers.agents() and int(reached) < 25  # 2 MB of spool, 16 MiB of segments, a pipe
    await gateway.start()
    await eventually(lambda: exe.final, within=60)
    assert exe.output() == b"".join(b"%02d" % n * 500_000 for n in range(60))


async def test_with_trim_the_agent_goes_on_and_the_log_says_what_is_missing(
    gateway: FakeGateway, wrappers: Wrappers
) -> None:
    source = "import os\nfor n in range(30): os.write(1, b'%02d' % n * 50_000)"
    wrappers.start(*agent(source), options=("--spool-limit", "1000000", "--spool-policy", "trim"))
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.status == "running")
    await gateway.stop()
    await eventually(lambda: not wrappers.agents())
    await gateway.start()
    await eventually(lambda: exe.final)
    gaps = [body for _, kind, body in exe.records if kind == "gap"]
    assert gaps and all(gap["reason"] == "trimmed" for gap in gaps)
    assert exe.output().endswith(b"29" * 50_000) and len(exe.output()) < 3_000_000
    at = 0
    for last, kind, body in exe.records:  # contiguous, with the gaps
        assert (body["seq"] if kind == "gap" else last) == at + 1
        at = last


async def test_on_a_full_disk_the_agent_waits_and_nothing_is_lost(
    gateway: FakeGateway, wrappers: Wrappers, tmp_path: Path
) -> None:
    mount = tmp_path / "disk"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(mount)], capture_output=True).returncode:
        pytest.skip("may not mount here")
    wrappers.spool_dir = mount / "spool"
    try:
        wrappers.start(*agent("import os\nfor n in range(30): os.write(1, b'%02d' % n * 250_000)\nos._exit(8)"))
        exe = await gateway.submit("exe_1")
        await eventually(lambda: exe.status == "running")
        await gateway.stop()
        await eventually(lambda: os.statvfs(mount).f_bavail * 4096 < 3_200_000)  # half of it is the spool's, to go on
        assert wrappers.agents()
        await gateway.start()
        final = await eventually(lambda: exe.final, within=60)
        assert final["exit_code"] == 8
        assert exe.output() == b"".join(b"%02d" % n * 250_000 for n in range(30))
    finally:
        wrappers.end()
        await eventually(lambda: subprocess.run(["umount", str(mount)], capture_output=True).returncode == 0)


# ---------------------------------------------------------------- the command line


def cpu_s(process: subprocess.Popen[bytes]) -> float:
    """Processor time, which a busy machine stretches far less than the clock's."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime


@pytest.mark.alone
def test_from_the_start_of_the_process_to_the_first_connect_it_is_quick(tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(60)
    took = []
    for n in range(4):
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        command = [PYTHON, "-m", "wrapper", "--url", url, "--session", "s", "--spool-dir", str(tmp_path / str(n)), "-q"]
        process = subprocess.Popen([*command, "--", "true"], cwd=ROOT, env=ENV)
        client, _ = listener.accept()
        process.kill()
        took.append(cpu_s(process))
        client.close()
    listener.close()
    assert min(took) < 0.6, took  # 0.21 s by the clock when nobody else works here


def test_help_is_quick_and_explains_the_signals() -> None:
    took = []
    for _ in range(3):
        process = subprocess.Popen([PYTHON, "-m", "wrapper", "--help"], cwd=ROOT, env=ENV, stdout=subprocess.PIPE)
        assert process.stdout is not None
        text = process.stdout.read().decode()
        process.stdout.close()
        took.append(cpu_s(process))
        assert process.returncode == 0 and "SIGTERM" in text and "--orphan-after" in text
    assert min(took) < 0.2, took  # 0.06 s


def test_it_never_meets_the_heavy_side() -> None:
    code = (
        "import sys, wrapper.cli, wrapper.app, wrapper.embed, wrapper.connection\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('ray', 'pydantic', 'pydantic_settings', 'aiohttp')"
        " or m.startswith('actors.') and not m.startswith('actors.protocol')]\n"
        "print(bad)"
    )
    done = subprocess.run([PYTHON, "-c", code], cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--session", "s", "--", "true"], "--url"),
        (["--url", "http://x", "--session", "no good", "--", "true"], "ids match"),
        (["--url", "http://x", "--session", "s"], "ARGV"),
        (["--url", "ftp://x", "--session", "s", "--", "true"], "is not a URL"),
        (["--url", "foo", "--session", "s", "--", "true"], "is not a URL"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(args: list[str], says: str) -> None:
    done = subprocess.run([PYTHON, "-m", "wrapper", *args], cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr


def test_the_version_is_the_projects() -> None:
    done = subprocess.run([PYTHON, "-m", "wrapper", "--version"], cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert done.stdout == f"holdfast-wrapper {VERSION}\n"
    assert re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)[1] == VERSION  # type: ignore[index]


async def test_the_token_comes_from_a_file_read_at_each_connect(
    gateway: FakeGateway, wrappers: Wrappers, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    wrappers.start("/bin/true", options=("--token-file", str(token)))
    await eventually(lambda: gateway.ready)
    token.write_text("second\n")
    await gateway.cut()
    await eventually(lambda: len(gateway.tokens) == 2)
    assert gateway.tokens == ["Bearer first", "Bearer second"]


async def test_a_token_file_that_is_being_replaced_costs_a_pause_and_not_the_agent(
    gateway: FakeGateway, wrappers: Wrappers, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    options = ("--token-file", str(token))
    process = wrappers.start(*agent("import time; print('up', flush=True); time.sleep(1000)"), options=options)
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.output())
    token.unlink()
    await gateway.cut()
    await eventually(lambda: b"cannot read the token" in wrappers.log.read_bytes())
    token.write_text("second\n")
    await eventually(lambda: gateway.tokens[-1:] == ["Bearer second"], 20)
    assert process.poll() is None and wrappers.agents()


async def test_an_agent_left_by_a_killed_wrapper_is_no_zombie_and_no_child_of_ours(
    gateway: FakeGateway, wrappers: Wrappers
) -> None:
    process = wrappers.start(*agent("import time; print('up'); time.sleep(1000)"))
    exe = await gateway.submit("exe_1")
    await eventually(lambda: exe.output())
    (pid,) = wrappers.agents()
    wrappers.kill(process)
    assert is_alive(pid)
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    grandparent = int(Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1])
    assert grandparent not in (process.pid, os.getpid())


async def test_a_refused_connection_is_told_once_and_in_the_systems_words() -> None:
    dialer = Dialer("http://127.0.0.1:9/v1/sessions/s/ingest")
    with pytest.raises(Closed) as told:
        await dialer.dial("secret")
    await dialer.close()
    assert told.value.reason == "cannot connect to 127.0.0.1:9: Connection refused"
