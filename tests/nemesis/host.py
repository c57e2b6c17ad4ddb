"""What this host allows, asked once by doing it: mounting a small disk, injecting by strace, faking a clock."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

CLOCKSTEP = Path(__file__).with_name("clockstep.c")


class Unable(Exception):
    """This host cannot do that; the message says why."""


FELT = 42
SYNCS = f"""
import os, sys
print(flush=True)
sys.stdin.readline()
try:
    os.fsync(os.open("/tmp", 0))
except OSError as error:
    sys.exit({FELT} if error.errno == 5 else 1)
"""


def may_mount(folder: Path) -> str:
    """Empty: yes. Else why not."""
    folder.mkdir(parents=True, exist_ok=True)
    refused = mount(folder, 1)
    if not refused:
        unmount(folder)
    return refused


def mount(folder: Path, megabytes: int) -> str:
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip() or f"mount says {done.returncode}"


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], check=True)


def may_inject() -> str:
    """Empty: strace is here, may attach to a process of ours, and its injection is felt there."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    with subprocess.Popen([sys.executable, "-c", SYNCS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdout.readline()
        tracer = inject_eio(child.pid)
        attached = tracer.stderr is not None and b"attached" in tracer.stderr.readline()
        child.stdin.write(b"\n")
        child.stdin.close()
        felt = child.wait(20) == FELT
        let_go(tracer)
    return "" if attached and felt else "strace may not attach here (ptrace is forbidden)"


def inject_eio(pid: int, log: Path | None = None) -> subprocess.Popen[bytes]:
    """From now on every fsync of the process fails with EIO, until `let_go`. stderr says "attached"."""
    command = ["strace", "-f", "-p", str(pid), "-e", "trace=fsync,fdatasync", "-o", str(log or "/dev/null")]
    command += ["-e", "inject=fsync,fdatasync:error=EIO"]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def let_go(tracer: subprocess.Popen[bytes]) -> None:
    """SIGKILL, to its whole group: one that is asked waits for a tracee that is frozen, and its own child may stay."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(tracer.pid, signal.SIGKILL)
    tracer.wait(10)
    if tracer.stderr is not None:
        tracer.stderr.close()


class Clock:
    """The wall clock of some processes, as clockstep.c shows it to them; the monotonic one stays true."""

    def __init__(self, folder: Path, name: str) -> None:
        """Raises Unable."""
        self.file, self.library = folder / f"clock-{name}", folder / f"clockstep-{name}.so"
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise Unable("no C compiler is installed")
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(self.library), str(CLOCKSTEP), "-ldl"]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode != 0:
            raise Unable(f"{CLOCKSTEP.name} does not compile: {made.stderr.strip()[:200]}")
        self.file.write_bytes(bytes(8))
        self.step(3600)
        shown = subprocess.run(
            [sys.executable, "-c", "import time; print(time.time()); time.sleep(0.001)"],
            env=os.environ | self.env,
            capture_output=True,
            text=True,
            check=False,
        )
        self.step(0)
        if shown.returncode != 0 or not 3590 < float(shown.stdout) - time.time() < 3610:
            raise Unable(f"a preloaded clock is not felt: {shown.stdout}{shown.stderr[-200:]}")

    def step(self, offset_s: float) -> None:
        """From now on the processes' wall clock is that far from the true one."""
        with self.file.open("r+b", buffering=0) as file:
            file.write(int(offset_s * 1e9).to_bytes(8, sys.byteorder, signed=True))

    @property
    def env(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "NEMESIS_CLOCK": str(self.file)}
