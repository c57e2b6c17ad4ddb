"""The shim with real processes: what it promises, it promises about processes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.wrapper.conftest import agent, is_alive, kill_hard, wait_for
from wrapper import segments
from wrapper.segments import Position
from wrapper.shim import QUIET_S
from wrapper.shimctl import Exit, Shim, Spec, _ended

Start = Callable[..., Shim]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    shims: list[str] = []

    def start_(*argv: str, **spec: object) -> Shim:
        run_dir = str(tmp_path / f"run{len(shims)}")
        fields: dict[str, object] = {"orphan_after_s": 60.0, "input": b"", "in_eof": True, **spec}
        shim = Shim.start(run_dir, Spec(argv, str(tmp_path), **fields), os.environ)  # type: ignore[arg-type]
        shims.append(run_dir)
        wait_for(shim.facts)
        return shim

    yield start_
    for run_dir in shims:
        shim = Shim.adopt(run_dir)
        if shim is not None:
            shim.kill(shim=True, agent=True)
            shim.close()


def ended(shim: Shim, within: float = 20.0) -> Exit:
    report: Exit = wait_for(shim.report, within)
    return report


def said(shim: Shim) -> tuple[bytes, bytes]:
    at, out, err = Position(0, 0), b"", b""
    while True:
        pieces, at = segments.read(shim.dir, at)
        if not pieces:
            return out, err
        out += b"".join(piece.data for piece in pieces if piece.stream == "stdout")
        err += b"".join(piece.data for piece in pieces if piece.stream == "stderr")


def test_nothing_runs_before_the_gate_opens_and_then_once(start: Start, tmp_path: Path) -> None:
    shim = start("/bin/sh", "-c", "echo x >> ran; echo out; echo err >&2; exit 7")
    facts = shim.facts()
    assert facts is not None and is_alive(facts.agent_pid)
    assert os.getpgid(facts.agent_pid) == facts.agent_pid != os.getpgid(facts.shim_pid)
    assert not (tmp_path / "ran").exists() and not shim.opened()
    shim.tell("open")
    shim.tell("open")
    report = ended(shim)
    assert (report.kind, report.exit_code, report.signal) == ("exit", 7, None)
    assert said(shim) == (b"out\n", b"err\n")
    assert (tmp_path / "ran").read_text() == "x\n" and shim.opened()
    wait_for(lambda: not shim.alive())


@pytest.mark.parametrize("how", ["shut", "hang up", "signal", "the shim is killed", "the child is killed"])
def test_a_gate_that_is_not_opened_never_opens(start: Start, tmp_path: Path, how: str) -> None:
    shim = start("/bin/sh", "-c", "echo x >> ran")
    facts = shim.facts()
    assert facts is not None
    match how:
        case "shut":
            shim.tell("shut")
        case "hang up":
            shim.close()
        case "signal":
            shim.tell("sig 2")
        case "the shim is killed":
            kill_hard(facts.shim_pid)
        case "the child is killed":
            kill_hard(facts.agent_pid)
    wait_for(lambda: not is_alive(facts.shim_pid) and not is_alive(facts.agent_pid))
    again = Shim.adopt(shim.dir)
    assert again is not None
    again.tell("open")
    report = again.report()
    assert report is None if how == "the shim is killed" else report is not None and report.kind == "gate_shut"
    assert not (tmp_path / "ran").exists() and not again.opened()
    again.close()


def test_it_outlives_its_wrapper_and_the_next_one_adopts_it(start: Start) -> None:
    shim = start("/bin/sh", "-c", "read a; echo got $a", in_eof=False)
    facts = shim.facts()
    shim.tell("open")
    wait_for(shim.opened)
    shim.close()
    again = Shim.adopt(shim.dir)
    assert again is not None and again.facts() == facts and again.alive()
    again.give(0, b"hello\n")
    assert ended(again).exit_code == 0
    assert said(again) == (b"got hello\n", b"")
    again.close()


def test_the_terminals_end_is_not_its_end(start: Start) -> None:
    shim = start("/bin/sh", "-c", "read a; exit 3", in_eof=False)
    facts = shim.facts()
    assert facts is not None
    shim.tell("open")
    wait_for(shim.opened)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        os.kill(facts.shim_pid, number)
    shim.give(0, b"\n")
    assert ended(shim).exit_code == 3


def test_stdin_is_what_was_given_each_byte_once(start: Start) -> None:
    data = os.urandom(300_000)
    shim = start("/bin/cat", input=data, in_eof=False)
    shim.tell("open")
    wait_for(lambda: said(shim)[0] == data)
    shim.give(len(data), b"more")
    shim.give(len(data), b"more")  # again, as after a crash
    shim.tell("eof")
    assert ended(shim).exit_code == 0
    assert said(shim)[0] == data + b"more"


def test_an_agent_that_does_not_read_its_stdin_does_no_harm(start: Start) -> None:
    shim = start("/bin/sh", "-c", "exec <&-; echo fine", input=b"x" * 500_000)
    shim.tell("open")
    assert ended(shim).exit_code == 0
    assert said(shim)[0] == b"fine\n"


def test_a_command_that_cannot_be_run_is_told_apart_from_one_that_fails(start: Start) -> None:
    shim = start("/no/such/thing")
    shim.tell("open")
    report = ended(shim)
    assert report.kind == "exec_failed" and report.error == "2 No such file or directory: /no/such/thing"


def test_unread_segments_make_the_agent_wait_and_nothing_is_lost(start: Start, tmp_path: Path) -> None:
    source = "import os\nfor n in range(800): os.write(1, bytes([n % 256]) * 10000); open('n', 'w').write(str(n))"
    shim = start(*agent(source), segment_bytes=500_000, max_segments=3)
    shim.tell("open")

    def progress() -> int:
        text = (tmp_path / "n").read_text() if (tmp_path / "n").exists() else ""
        return int(text or 0)

    size = lambda: sum(file.stat().st_size for file in Path(shim.dir).glob("out.*"))  # noqa: E731
    wait_for(lambda: size() > 1_500_000)
    held = progress()
    assert held < 300  # three segments, one more read, a pipe of 1 MiB
    at, whole = Position(0, 0), b""
    while (report := shim.report()) is None or at < (report.segment, report.offset):
        pieces, at = segments.read(shim.dir, at)
        whole += b"".join(piece.data for piece in pieces)
        segments.forget(shim.dir, at.segment)
        assert size() < 2_500_000
    assert whole == b"".join(bytes([n % 256]) * 10000 for n in range(800))
    assert len(list(Path(shim.dir).glob("out.*"))) == 1


def test_a_child_deaf_to_everything_else_is_killed_with_its_whole_group(start: Start, tmp_path: Path) -> None:
    source = (
        "import os, signal, time\n"
        "[signal.signal(s, signal.SIG_IGN) for s in (2, 15)]\n"
        "pid = os.fork()\n"
        "open(f'pid{min(pid, 1)}', 'w').write(str(os.getpid()))\n"
        "print('deaf'); time.sleep(1000)"
    )
    shim = start(*agent(source))
    shim.tell("open")
    wait_for(lambda: said(shim)[0].count(b"deaf") == 2)
    pids = [int((tmp_path / name).read_text()) for name in ("pid0", "pid1")]
    shim.tell("sig 2")
    shim.tell("sig 15")
    shim.tell("sig 9")
    assert (report := ended(shim)).signal == 9 and report.exit_code is None
    wait_for(lambda: not any(map(is_alive, pids)))


def test_a_stopped_agent_hears_the_ladder_too(start: Start) -> None:
    shim = start(*agent("print('up')\nimport time; time.sleep(1000)"))
    shim.tell("open")
    wait_for(lambda: said(shim)[0])
    facts = shim.facts()
    assert facts is not None
    os.kill(facts.agent_pid, signal.SIGSTOP)
    shim.tell("sig 15")
    assert ended(shim).signal == 15


def test_without_a_wrapper_it_ends_the_agent_by_the_ladder(start: Start) -> None:
    source = "import signal, time\nsignal.signal(2, lambda *_: print('INT'))\nprint('up')\nwhile 1: time.sleep(1)"
    shim = start(*agent(source), orphan_after_s=0.5, ladder_s=(0.0, 0.3, 0.6))
    shim.tell("open")
    wait_for(lambda: said(shim)[0])
    for _ in range(20):  # checking in keeps it alive: well beyond half a second in all
        shim.tell(".")
        os.sched_yield()
    shim.close()
    report = ended(shim)
    assert report.orphaned and report.signal == 15
    assert said(shim)[0] == b"up\nINT\n"


def test_a_frozen_wrapper_is_a_silent_one(start: Start) -> None:
    shim = start("/bin/sleep", "1000", orphan_after_s=0.3, ladder_s=(0.0, 0.1, 0.2))
    shim.tell("open")
    assert ended(shim).orphaned  # the control pipe was open all the time, and nobody spoke


def test_a_stray_that_holds_the_pipe_does_not_hold_the_end(start: Start) -> None:
    shim = start("/bin/sh", "-c", "sleep 30 & echo done; exit 4")
    shim.tell("open")
    assert ended(shim, within=10).exit_code == 4
    assert said(shim)[0] == b"done\n"


def test_the_agent_gets_its_environment_directory_and_mask(start: Start, tmp_path: Path) -> None:
    shim = start("/bin/sh", "-c", "umask; pwd; ls -l /proc/$$/fd | grep -c ^l; trap", in_eof=True)
    shim.tell("open")
    assert ended(shim).exit_code == 0
    mask, cwd, fds = said(shim)[0].decode().split("\n")[:3]
    before = os.umask(0o022)
    os.umask(before)
    assert int(mask, 8) == before and cwd == str(tmp_path)
    assert int(fds) <= 4  # stdin, stdout, stderr, and the shell's own
    assert stat.S_IMODE(os.stat(shim.dir).st_mode) == 0o700


def test_it_is_small(start: Start) -> None:
    shim = start("/bin/sleep", "1000")
    facts = shim.facts()
    assert facts is not None
    status = Path(f"/proc/{facts.shim_pid}/status").read_text()
    assert int(status.split("RssAnon:")[1].split()[0]) < 12_000  # KiB


@pytest.mark.parametrize("reserve", [0, 1_000_000])
def test_a_full_disk_makes_the_agent_wait_and_loses_nothing(tmp_path: Path, reserve: int) -> None:
    import subprocess

    mount = tmp_path / "disk"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)], capture_output=True).returncode:
        pytest.skip("may not mount here")
    try:
        source = "import os\nfor n in range(300): os.write(1, bytes([n % 256]) * 9973)\nos._exit(6)"
        spec = Spec(
            agent(source),
            str(tmp_path),
            60.0,
            b"",
            True,
            segment_bytes=1 << 18,
            max_segments=16,
            disk_reserve_bytes=reserve,
        )
        shim = Shim.start(str(mount / "run"), spec, os.environ)
        wait_for(shim.facts)
        shim.tell("open")
        disk = lambda: os.statvfs(mount).f_bavail  # noqa: E731
        wait_for(lambda: disk() <= reserve // 4096)
        assert disk() >= (reserve - 300_000) // 4096  # one read more than it saw room for
        at, whole = Position(0, 0), b""
        while (report := shim.report()) is None or at < (report.segment, report.offset):
            pieces, at = segments.read(shim.dir, at)
            whole += b"".join(piece.data for piece in pieces)
            segments.forget(shim.dir, at.segment)
        assert whole == b"".join(bytes([n % 256]) * 9973 for n in range(300))
        assert report.exit_code == 6
        wait_for(lambda: not shim.alive())
        shim.close()
    finally:
        wait_for(lambda: subprocess.run(["umount", str(mount)], capture_output=True).returncode == 0)


def test_what_an_agent_said_last_before_it_ended_on_a_full_disk_is_not_lost(tmp_path: Path) -> None:
    """The disk stays full for longer than a pipe may be quiet; found by the nemesis (23 lines of 60 lost)."""
    import subprocess

    mount, go = tmp_path / "disk", tmp_path / "go"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], capture_output=True).returncode:
        pytest.skip("may not mount here")
    try:
        source = (
            f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
            "os.write(1, b'a' * 1000)\ntime.sleep(0.2)\nos.write(1, b'b' * 30_000)\nos._exit(3)"
        )
        spec = Spec(agent(source), str(tmp_path), 60.0, b"", True, disk_reserve_bytes=0)
        shim = Shim.start(str(mount / "run"), spec, os.environ)
        facts = wait_for(shim.facts)
        shim.tell("open")
        ballast = mount / "ballast"
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError):
            while True:
                file.write(b"x" * 4096)
        go.touch()
        wait_for(lambda: not Path(f"/proc/{facts.agent_pid}").exists())
        end = time.monotonic() + 3 * QUIET_S
        while time.monotonic() < end:
            assert shim.report() is None
            time.sleep(0.05)
        ballast.unlink()
        report = wait_for(shim.report)
        pieces, at = segments.read(shim.dir, Position(0, 0))
        assert b"".join(piece.data for piece in pieces) == b"a" * 1000 + b"b" * 30_000
        assert (at, report.exit_code) == (Position(report.segment, report.offset), 3)
        wait_for(lambda: not shim.alive())
        shim.close()
    finally:
        wait_for(lambda: subprocess.run(["umount", str(mount)], capture_output=True).returncode == 0)


def test_the_end_of_a_process_is_noticed_when_it_comes_and_not_at_the_next_look() -> None:
    """Popen.wait with a timeout would look 63 ms after the start and 113 ms after it."""
    took_s = []
    for _ in range(5):
        process = subprocess.Popen(["sleep", "0.07"])
        began = time.monotonic()
        assert _ended(process, 10.0) == 0
        took_s.append(time.monotonic() - began)
    assert min(took_s) < 0.1


def test_who_does_not_end_in_time_is_killed() -> None:
    process = subprocess.Popen(["sleep", "60"])
    with pytest.raises(subprocess.TimeoutExpired):
        _ended(process, 0.05)
    assert process.wait(10) == -signal.SIGKILL
