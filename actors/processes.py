"""Processes as the kernel knows them: a pid alone is not a process, a pid with its start time is.

Linux only, standard library only, imports nothing of ours: `up` and the runtime both stand on it. Nothing here is ever
ended by name; every signal goes to a pid whose identity was checked through a pidfd that pins it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)  # looked up before any fork: between fork and exec nothing may be loaded


def started_at(pid: int) -> int | None:
    """Clock ticks since boot at which the process started (/proc/<pid>/stat field 22); None: there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # the command name (field 2) may hold spaces and brackets: count from the last one
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def room_for_files(wanted: int) -> int:
    """Raises the limit of open files for this process and its children as far as it may go; returns what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return wanted if soft == resource.RLIM_INFINITY else soft


def alive(pid: int, started: int | None = None) -> bool:
    """Runs or is stopped; a zombie is not alive."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return False
    return fields[0] not in (b"Z", b"X") and (started is None or int(fields[19]) == started)


def end_exactly(pid: int, started: int, how: signal.Signals = signal.SIGKILL) -> bool:
    """Signals this very process, never one that got its pid later. False: it is gone already."""
    try:
        pidfd = os.pidfd_open(pid)  # pins the identity: what is compared below is what is signalled
    except OSError:
        return False
    try:
        if started_at(pid) != started:
            return False
        signal.pidfd_send_signal(pidfd, how)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)


def children_of(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def become_subreaper() -> None:
    """Orphans below us come to us, so that a sweep can reap what it ended (a zombie keeps Ray's workers waiting)."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(how: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """For Popen(preexec_fn=…): signalled when the parent *thread* that forked ends, so fork from the main thread."""
    parent = os.getpid()

    def preexec() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, how, 0, 0, 0)
        if os.getppid() != parent:  # the parent fell between fork and prctl: the signal will never come
            os._exit(1)

    return preexec


def reap() -> Iterator[tuple[int, int]]:
    """(pid, exit code; negative: the signal) of every child that has ended, our own and adopted ones."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, os.waitstatus_to_exitcode(status)


def belongs_to(pid: int, directory: str) -> bool:
    """Whether a process of ours is part of the Ray that lives in `directory`: Ray's binaries or our Python, with the
    directory in its arguments or files of it open. Environments cannot tell (Ray's titles overwrite them), and a
    stranger's `tail -f` of our logs must not match."""
    try:
        if os.stat(f"/proc/{pid}").st_uid != os.getuid():
            return False
        exe = os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")  # a package upgrade under a running service
        if exe != os.path.realpath(sys.executable) and "/ray/core/src/ray/" not in exe:
            return False
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            arguments = file.read().split(b"\0")
        inside = directory.encode()
        if any(word == inside or word.endswith(b"=" + inside) or inside + b"/" in word for word in arguments):
            return True
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):  # this one file was closed while we looked: the others still tell
                if os.readlink(f"/proc/{pid}/fd/{fd}").startswith(directory + "/"):
                    return True
    except OSError:  # gone while we looked
        return False
    return False


def sweep(directory: str, within_s: float = 10.0) -> int:
    """SIGKILLs everything that belongs to the directory, again and again until nothing is left; returns how many.
    Spares us and those above us (a test that reads our logs). Raises TimeoutError if something will not die."""
    spared = _self_and_above()
    ended: set[int] = set()
    deadline = time.monotonic() + within_s
    while True:
        left = [
            pid
            for name in os.listdir("/proc")
            if name.isdigit() and (pid := int(name)) not in spared and alive(pid) and belongs_to(pid, directory)
        ]
        if not left:
            return len(ended)
        for pid in left:
            started = started_at(pid)
            if started is not None and belongs_to(pid, directory):
                end_exactly(pid, started)
            ended.add(pid)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {left} do not end")
        for _ in reap():
            continue
        time.sleep(0.01)


def _self_and_above() -> set[int]:
    chain, pid = set(), os.getpid()
    while pid > 1:
        chain.add(pid)
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except OSError:
            break
    return chain
