"""The wrapper's hand on a shim: start one, adopt one, tell it something, know whether it lives.

A shim is known by its directory, and its processes by pid *and* start time *and* boot: a pid alone is nobody.
Everything here is quick and non-blocking but `start`, which waits for the first of the double fork (about 20 ms).
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from actors.protocol.defaults import SPOOL_RESERVE_BYTES
from wrapper import shim as shim_program
from wrapper.shim import boot_id, fsync_dir, start_time, write_durably

SEGMENT_BYTES: Final = 4 << 20  # each costs a sync of its directory, and is deleted as a whole
DISK_RESERVE_BYTES: Final = 2 * SPOOL_RESERVE_BYTES  # output stops here, so that the spool's own reserve stays free
MAX_SEGMENTS: Final = 4  # 16 MiB between agent and spool; then the agent waits
ORPHAN_LADDER_S: Final = (0.0, 8.0, 14.0)  # the default ladder's rungs (ladder.SHARES of 20 s)
START_TIMEOUT_S: Final = 30.0  # a fork and an exec; longer is a machine that cannot start anything


class Facts(NamedTuple):
    """Who the shim and the agent are; written by the shim before the gate."""

    shim_pid: int
    shim_start: int
    agent_pid: int
    agent_start: int
    boot_id: str


class Exit(NamedTuple):
    """How it ended. kind: exit, exec_failed, gate_shut. The output ends at (segment, offset)."""

    kind: str
    exit_code: int | None
    signal: int | None
    error: str | None
    orphaned: bool
    segment: int
    offset: int
    ended_at_ms: int


class Spec(NamedTuple):
    argv: tuple[str, ...]
    cwd: str
    orphan_after_s: float
    input: bytes
    in_eof: bool
    segment_bytes: int = SEGMENT_BYTES
    max_segments: int = MAX_SEGMENTS
    disk_reserve_bytes: int = DISK_RESERVE_BYTES
    ladder_s: tuple[float, ...] = ORPHAN_LADDER_S


def alive(pid: int, start: int, boot: str) -> bool:
    return boot == boot_id() and start_time(pid) == start


def _read_json(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            body = json.load(file)
    except FileNotFoundError:
        return None
    return body if isinstance(body, dict) else None


class Shim:
    """One shim's directory, with the control FIFO held open: that we hold it is our sign of life."""

    def __init__(self, run_dir: str) -> None:
        self.dir = run_dir
        self._facts: Facts | None = None
        # Read and write, so that opening never fails; only the writing end counts for the shim's hang-up.
        self.control = os.open(os.path.join(run_dir, "control"), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.wake = os.open(os.path.join(run_dir, "wake"), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    @classmethod
    def start(cls, run_dir: str, spec: Spec, env: Mapping[str, str]) -> Shim:
        """A shim with its child behind the gate; `facts()` follows within milliseconds. Raises OSError."""
        os.makedirs(run_dir, mode=0o700)
        fsync_dir(os.path.dirname(run_dir))  # or a power cut takes the folder, and an exit status that is in it
        for name in ("control", "wake"):
            os.mkfifo(os.path.join(run_dir, name), 0o600)
        with open(os.path.join(run_dir, "input"), "wb") as file:
            file.write(spec.input)
            file.flush()
            os.fsync(file.fileno())
        body = {**spec._asdict(), "in_total": len(spec.input)}
        del body["input"]
        write_durably(os.path.join(run_dir, "spec.json"), json.dumps(body).encode())
        self = cls(run_dir)  # before the shim looks: a FIFO without a writer would read as our death
        log = os.open(os.path.join(run_dir, "shim.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            with subprocess.Popen(
                [sys.executable, "-I", "-S", shim_program.__file__, run_dir],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=dict(env),
                start_new_session=True,
            ) as first:
                if code := _ended(first, START_TIMEOUT_S):
                    raise subprocess.CalledProcessError(code, first.args)
        except subprocess.SubprocessError as error:
            self.close()
            raise OSError(f"the shim did not start: {error}") from error
        except OSError:
            self.close()
            raise
        finally:
            os.close(log)
        return self

    @classmethod
    def adopt(cls, run_dir: str) -> Shim | None:
        """None when there is no such directory: then there is no shim."""
        try:
            return cls(run_dir)
        except FileNotFoundError:
            return None

    def facts(self) -> Facts | None:
        if self._facts is None and (body := _read_json(os.path.join(self.dir, "shim.json"))) is not None:
            self._facts = Facts(**body)
        return self._facts

    def report(self) -> Exit | None:
        body = _read_json(os.path.join(self.dir, "exit.json"))
        return None if body is None else Exit(**body)

    def opened(self) -> bool:
        """The agent may have been exec'd: from here on it never may be again."""
        return os.path.exists(os.path.join(self.dir, "opened"))

    def alive(self) -> bool:
        facts = self.facts()
        return facts is not None and alive(facts.shim_pid, facts.shim_start, facts.boot_id)

    def tell(self, line: str) -> bool:
        """One line, atomically. False when the shim has not read for 64 KiB: it is frozen."""
        try:
            os.write(self.control, line.encode() + b"\n")
        except BlockingIOError:
            return False
        return True

    def give(self, offset: int, data: bytes) -> None:
        """Puts stdin at its offset (again, after a crash, it is the same bytes) and says how far it is valid."""
        with open(os.path.join(self.dir, "input"), "r+b") as file:
            file.seek(offset)
            file.write(data)
        self.tell(f"in {offset + len(data)}")

    def drain_wake(self) -> bool:
        """Empties the bell. False when the shim's end is closed: it is gone."""
        while True:
            try:
                if not os.read(self.wake, 65536):
                    return False
            except BlockingIOError:
                return True

    def kill(self, *, shim: bool, agent: bool) -> None:
        """The last resort, when the shim is frozen or gone: SIGKILL by verified identity, never by pid alone."""
        facts = self.facts()
        if facts is None:
            return
        if agent and alive(facts.agent_pid, facts.agent_start, facts.boot_id):
            _kill_group(facts.agent_pid)
        if shim and alive(facts.shim_pid, facts.shim_start, facts.boot_id):
            _kill(facts.shim_pid)

    def close(self) -> None:
        os.close(self.control)
        os.close(self.wake)


def _ended(process: subprocess.Popen[bytes], within_s: float) -> int:
    """Its exit code, as soon as there is one. (`Popen.wait` with a timeout looks again after up to 50 ms, which is
    longer than a shim takes to start.) Raises TimeoutExpired; then it is killed."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:  # a kernel before 5.3
        pidfd = -1
    try:
        if pidfd >= 0:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll(within_s * 1000)
            within_s = 0.0
        return process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    finally:
        if pidfd >= 0:
            os.close(pidfd)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        _kill(pid)  # not yet its own group: the child has not come as far as setsid


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
