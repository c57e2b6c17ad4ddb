"""The shim: a few megabytes between the wrapper and the agent, one per execution. Standard library only.

Run as `python -I -S shim.py DIR`. Its rules:
- ARGV is exec'd at most once. The child is forked at once but waits behind a gate; `open` releases it, and `opened`
  is on the disk before that. The wrapper's death before `open`, `shut`, or our own death let the child leave unexec'd.
- It outlives the wrapper: double-forked, in its own session, deaf to the terminal. Any wrapper may take over by
  opening `control`; one that stays silent for `orphan_after_s` is gone, and the agent is ended by the ladder.
- stdout and stderr go to `out.NNNNNNNN`, small framed records in the order read, so that one offset says everything.
  At most `max_segments` unconsumed ones: then it stops reading the pipes, and the agent waits.
- `exit.json` comes last, after all output, and is the only thing that says the agent has ended.

Files in DIR. From the wrapper: spec.json, input (stdin, append-only), control and wake (FIFOs). From the shim:
shim.json (pids, start times, before the gate), opened, out.*, exit.json, shim.log. Control lines: `.` (still here),
`open`, `shut`, `sig N`, `end` (the whole ladder), `in TOTAL` (so much of `input` is valid), `eof` (then close stdin).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import sys
import time
from typing import Any, Final

HEADER_BYTES: Final = 13  # stream 1, ts_ms 8, length 4, big-endian
STDOUT: Final = 1
STDERR: Final = 2
PIPE_BYTES: Final = 1 << 20  # the most that the kernel gives anybody: the agent seldom waits for us
READ_BYTES: Final = 256 << 10  # small beside a segment, which it may exceed, and beside the reserve on the disk
# While output flows, a look that found this little is followed by a rest: what gathers meanwhile costs one look, one
# write and one knock. The wrapper holds output back for 50 ms anyway, and in 2 ms no agent fills the rest of a pipe
# (of a small pipe, if there is no large one, a full one is no little).
LITTLE_BYTES: Final = 64 << 10
REST_S: Final = 0.002
RETRY_S: Final = 0.05  # while blocked by a full disk or unconsumed segments: nobody tells us when that ends
QUIET_S: Final = 0.5  # the agent is dead; a stray that holds the pipe and says nothing for this long has nothing to say
STRAY_S: Final = 5.0  # and one that never stops is cut off here
STRAY_BYTES: Final = 4 << 20  # two pipes at the kernel's largest, twice: what may still come from a dead agent
DEAF_TO: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ)
EXIT_ROOM: Final = 2048  # exit.json is allocated at the start, so that a full disk cannot swallow the exit status


def segment_name(index: int) -> str:
    return f"out.{index:08d}"


def start_time(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat, in clock ticks since boot; None when there is no such process (or a zombie)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def boot_id() -> str:
    """A start time means something only within one boot."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "unknown"


def fsync_dir(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(path: str, data: bytes) -> None:
    """All or nothing, also through a power loss: temporary file, fsync, rename, fsync of the directory."""
    fd = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(path + ".tmp", path)
    fsync_dir(os.path.dirname(path) or ".")


class Shim:
    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.poll = select.poll()
        self.control = os.open("control", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        # Both ends of `wake` are ours, so a write never fails for want of a reader; the wrapper sees our death as EOF.
        self.wake_fd = os.open("wake", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.said = b""
        self.checked_in = time.monotonic()
        self.agent = 0
        self.pipes: dict[int, int] = {}  # fd → stream
        self.stdin = self.gate = self.failure = -1
        self.in_total, self.in_offset, self.in_eof = int(spec["in_total"]), 0, bool(spec["in_eof"])
        self.in_buffer = b""
        self.opened = self.opening = self.shut = self.signalled = self.orphaned = False
        self.status: tuple[int | None, int | None] | None = None  # exit code, signal
        self.died_at = self.heard_at = 0.0
        self.stray_bytes = 0
        self.low = self.segment = 0
        self.size = 0
        self.out = os.open(segment_name(0), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.pending = b""  # what a full disk has not taken yet; until it is empty nothing more is read
        self.ladder: list[tuple[float, int]] = []
        self.signals, self.signals_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    # ------------------------------------------------------------ birth

    def fork(self) -> None:
        in_r, in_w = os.pipe2(os.O_CLOEXEC)
        out_r, out_w = os.pipe2(os.O_CLOEXEC)
        err_r, err_w = os.pipe2(os.O_CLOEXEC)
        gate_r, gate_w = os.pipe2(os.O_CLOEXEC)
        fail_r, fail_w = os.pipe2(os.O_CLOEXEC)
        self.agent = os.fork()
        if self.agent == 0:
            code = 127
            try:
                os.setsid()  # its own group: the ladder's signals reach all of it and nothing else
                for fd in (in_w, out_r, err_r, gate_w, fail_r, self.control, self.wake_fd):
                    os.close(fd)
                for target, fd in enumerate((in_r, out_w, err_w)):
                    os.dup2(fd, target)
                os.umask(self.spec["umask"])
                for number in (*DEAF_TO, signal.SIGTERM, signal.SIGCHLD):
                    signal.signal(number, signal.SIG_DFL)
                if os.read(gate_r, 1) != b"1":
                    os._exit(0)  # the gate is shut for ever
                os.chdir(self.spec["cwd"])
                os.execvpe(self.spec["argv"][0], self.spec["argv"], os.environ)  # noqa: S606
            except OSError as error:
                os.write(fail_w, f"{error.errno} {error.strerror}: {error.filename}".encode())
            except BaseException as error:
                os.write(fail_w, f"0 {error!r}".encode())
            finally:
                os._exit(code)
        for fd in (in_r, out_w, err_w, gate_r, fail_w):
            os.close(fd)
        self.stdin, self.gate, self.failure = in_w, gate_w, fail_r
        self.pipes = {out_r: STDOUT, err_r: STDERR}
        for fd in self.pipes:
            with contextlib.suppress(OSError):  # a user has a limit for all pipes together; then as they come
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        for fd in (in_w, out_r, err_r, fail_r):
            os.set_blocking(fd, False)

    def introduce(self) -> None:
        with open("exit.json.tmp", "wb") as file:
            file.write(b" " * EXIT_ROOM)
            file.flush()
            os.fsync(file.fileno())
        facts = {
            "shim_pid": os.getpid(),
            "shim_start": start_time(os.getpid()),
            "agent_pid": self.agent,
            "agent_start": start_time(self.agent),
            "boot_id": boot_id(),
        }
        write_durably("shim.json", json.dumps(facts).encode())
        self.wake()

    # ------------------------------------------------------------ the loop

    def run(self) -> None:
        self.fork()
        self.introduce()
        while not (self.shut or self.finished()):
            self.turn()
        self.report()

    def turn(self) -> None:
        fds = [(self.control, select.POLLIN), (self.signals, select.POLLIN)]
        blocked = self.blocked()
        if not blocked:
            fds += [(fd, select.POLLIN) for fd in self.pipes]
        if self.stdin >= 0 and self.feedable():
            fds.append((self.stdin, select.POLLOUT))
        elif self.stdin >= 0 and self.opened and self.in_eof and self.in_offset >= self.in_total:
            self.close_stdin()
        for fd, mask in fds:
            self.poll.register(fd, mask)
        try:
            ready = dict(self.poll.poll(self.patience(blocked) * 1000))
        finally:
            for fd, _ in fds:
                self.poll.unregister(fd)
        if self.signals in ready:
            os.read(self.signals, 512)
        if self.control in ready:
            self.listen()
        if self.opening and not self.opened:
            self.open_gate()
        if self.pending:
            self.flush()
            # While the disk was full nothing could be heard: a dead agent's pipe may still hold its last words.
            self.died_at = self.heard_at = time.monotonic()
        before, found = self.heard_at, 0
        for fd in [fd for fd in self.pipes if fd in ready]:
            if self.pending:
                break  # the disk is full: leave the rest in the pipe
            found += self.read(fd)
        if 0 < found < LITTLE_BYTES and self.heard_at - before < 2 * REST_S:
            time.sleep(REST_S)
        if self.stdin in ready:
            self.feed()
        self.reap()
        self.climb()

    def patience(self, blocked: bool) -> float:
        """How long nothing can happen that no descriptor would tell us of."""
        now = time.monotonic()
        waits = [self.checked_in + self.spec["orphan_after_s"] - now] if not self.orphaned else [60.0]
        if blocked or self.pending or (self.opening and not self.opened):
            waits.append(RETRY_S)
        if self.ladder:
            waits.append(self.ladder[0][0] - now)
        if self.status is not None:
            waits.append(QUIET_S / 4)
        return max(0.0, min(waits))

    def blocked(self) -> bool:
        """Back-pressure. A dead agent's pipes are drained beyond the limit: what is left in them is bounded."""
        if self.pending:
            return True
        if self.status is not None:
            return False
        disk = os.statvfs(".")
        if disk.f_bavail * disk.f_frsize < min(self.spec["disk_reserve_bytes"], disk.f_blocks * disk.f_frsize // 2):
            # The rest is the spool's: without room it could not even forget, and nobody would go on. What we hold
            # ourselves comes back when it is acknowledged, but only a whole segment does.
            if self.size:
                with contextlib.suppress(OSError):
                    self.roll()
                    self.wake()
            return True
        if self.size < self.spec["segment_bytes"]:
            return False
        while self.low < self.segment and not os.path.exists(segment_name(self.low)):
            self.low += 1
        return self.segment - self.low + 1 >= int(self.spec["max_segments"])

    def read(self, fd: int) -> int:
        """How many bytes it was."""
        try:
            if self.size >= self.spec["segment_bytes"]:
                self.roll()
        except OSError:
            time.sleep(RETRY_S)  # no room for another file: the data stays in the pipe
            return 0
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            os.close(fd)
            del self.pipes[fd]
            return 0
        self.heard_at = time.monotonic()
        if self.status is not None:
            self.stray_bytes += len(data)
        stamp = int(time.time() * 1000)
        header = bytes([self.pipes[fd]]) + stamp.to_bytes(8, "big") + len(data).to_bytes(4, "big")
        try:
            n = os.writev(self.out, (header, data))
        except OSError:
            n = 0
        if n < len(header) + len(data):
            self.pending = (header + data)[n:]
        self.size += n
        self.wake()
        return len(data)

    def roll(self) -> None:
        fd = os.open(segment_name(self.segment + 1), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.close(self.out)
        self.out, self.segment, self.size = fd, self.segment + 1, 0

    def flush(self) -> None:
        try:
            n = os.write(self.out, self.pending)
        except OSError:
            return  # full disk: the record waits here, the agent waits in its pipe, the loop retries
        self.pending, self.size = self.pending[n:], self.size + n
        self.wake()

    def wake(self) -> None:
        try:
            os.write(self.wake_fd, b".")
        except BlockingIOError:
            return  # 64 KiB of knocking that nobody has read: it will be read

    # ------------------------------------------------------------ the wrapper speaks

    def listen(self) -> None:
        try:
            data = os.read(self.control, 65536)
        except BlockingIOError:
            return
        if not data:
            # No writer: the wrapper is gone. A fresh reader stops the hang-up from being reported for ever; it is
            # opened before the old one is closed, so nothing that a next wrapper writes meanwhile is lost.
            fresh = os.open("control", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.close(self.control)
            self.control = fresh
            if not self.opening:
                self.shut = True  # "the gate … shuts on the wrapper's death before it opened"
            return
        self.checked_in = time.monotonic()
        *lines, self.said = (self.said + data).split(b"\n")
        for line in lines:
            verb, _, rest = line.decode("ascii", "replace").partition(" ")
            if verb == "open":
                self.opening = True
            elif verb == "shut" and not self.opening:
                self.shut = True
            elif verb == "sig":
                self.kill(int(rest))
            elif verb == "end":
                self.end()
            elif verb == "in":
                self.in_total = max(self.in_total, int(rest))
            elif verb == "eof":
                self.in_eof = True

    def open_gate(self) -> None:
        try:
            os.close(os.open("opened", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            fsync_dir(".")
        except OSError:
            return  # full disk: not before it is written down
        self.opened = True
        try:
            os.write(self.gate, b"1")
        except BrokenPipeError:
            return  # somebody killed the waiting child; reap() tells
        os.close(self.gate)

    def feedable(self) -> bool:
        return self.opened and (bool(self.in_buffer) or self.in_offset < self.in_total)

    def feed(self) -> None:
        if not self.in_buffer:
            with open("input", "rb") as file:
                file.seek(self.in_offset)
                self.in_buffer = file.read(min(READ_BYTES, self.in_total - self.in_offset))
        try:
            n = os.write(self.stdin, self.in_buffer)
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.close_stdin()  # the agent does not read its stdin; that is its business
            return
        self.in_buffer, self.in_offset = self.in_buffer[n:], self.in_offset + n

    def close_stdin(self) -> None:
        os.close(self.stdin)
        self.stdin = -1

    # ------------------------------------------------------------ the end

    def kill(self, number: int) -> None:
        """To the whole group. The agent is our child and not yet reaped, so its pid cannot be somebody else's."""
        if self.status is not None:
            return
        self.signalled = True
        if not self.opening:
            self.shut = True  # it has not begun: then it never will
            return
        try:
            os.killpg(self.agent, number)
            os.killpg(self.agent, signal.SIGCONT)  # a stopped agent hears nothing until it goes on
        except ProcessLookupError:
            return

    def end(self) -> None:
        if not self.ladder and not self.orphaned:
            now = time.monotonic()
            after = self.spec["ladder_s"]
            steps = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
            self.ladder = [(now + wait, int(number)) for wait, number in zip(after, steps, strict=True)]
            self.orphaned = True

    def climb(self) -> None:
        now = time.monotonic()
        if now - self.checked_in > self.spec["orphan_after_s"]:
            self.end()
        while self.ladder and self.ladder[0][0] <= now:
            self.kill(self.ladder.pop(0)[1])

    def reap(self) -> None:
        if self.status is not None:
            return
        end = os.waitid(os.P_PID, self.agent, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if end is None:
            return
        if self.signalled:
            # Ended by the ladder: nothing of its group survives. It is still a zombie, so its group id is still ours.
            try:
                os.killpg(self.agent, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                self.signalled = True
        os.waitpid(self.agent, 0)
        self.status = (end.si_status, None) if end.si_code == os.CLD_EXITED else (None, end.si_status)
        self.died_at = self.heard_at = time.monotonic()

    def finished(self) -> bool:
        if self.status is None or self.pending:
            return False
        now = time.monotonic()
        return (
            not self.pipes
            or now - self.heard_at >= QUIET_S
            or now - self.died_at >= STRAY_S
            or self.stray_bytes >= STRAY_BYTES
        )

    def report(self) -> None:
        kind, error = "exit", ""
        if not self.opened:
            kind = "gate_shut"
        else:
            try:
                error = os.read(self.failure, 4096).decode("utf-8", "replace")
            except BlockingIOError:
                error = ""
            if error:
                kind = "exec_failed"
        code, number = self.status or (None, None)
        body = {
            "kind": kind,
            "exit_code": code,
            "signal": number,
            "error": error or None,
            "orphaned": self.orphaned,
            "segment": self.segment,
            "offset": self.size,
            "ended_at_ms": int(time.time() * 1000),
        }
        while True:  # a full disk has no deadline: the exit status is kept until it can be written
            try:
                self.sync_output()  # output first: exit.json says that all of it is there
                with open("exit.json.tmp", "r+b") as file:
                    file.write(json.dumps(body).encode())
                    file.flush()
                    os.fsync(file.fileno())
                os.rename("exit.json.tmp", "exit.json")
                fsync_dir(".")
                break
            except FileNotFoundError:
                break  # the directory was taken away under us: nobody is interested any more
            except OSError:
                time.sleep(RETRY_S)
        self.wake()

    def sync_output(self) -> None:
        """Every segment that is not consumed, not only the last; and their names."""
        for index in range(self.low, self.segment):
            try:
                fd = os.open(segment_name(index), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        os.fsync(self.out)
        fsync_dir(".")


def main() -> None:
    os.chdir(sys.argv[1])
    if os.fork():
        os._exit(0)  # the wrapper waits for this one only; the shim belongs to init from here on
    for number in DEAF_TO:
        signal.signal(number, signal.SIG_IGN)
    with open("spec.json", "rb") as file:
        spec = json.load(file)
    spec["umask"] = os.umask(0o077)  # ours are private; the agent keeps what it was given
    shim = Shim(spec)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: shim.end())  # the machine goes down: the agent gets its ladder
    signal.set_wakeup_fd(shim.signals_w, warn_on_full_buffer=False)
    shim.run()


if __name__ == "__main__":
    main()
