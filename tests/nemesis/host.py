"""What this host allows, asked once by doing it: mounting a small disk, injecting by strace, faking a clock."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

FAKETIME = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
)


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


def faketime_library() -> str | None:
    """LIBFAKETIME names another place."""
    named = os.environ.get("LIBFAKETIME")
    return next((path for path in (*([named] if named else []), *FAKETIME) if Path(path).exists()), None)


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
        tracer.kill()
        tracer.communicate()
    return "" if attached and felt else "strace may not attach here (ptrace is forbidden)"


def inject_eio(pid: int, log: Path | None = None) -> subprocess.Popen[bytes]:
    """From now on every fsync of the process fails with EIO, until the tracer is killed."""
    command = ["strace", "-f", "-p", str(pid), "-e", "trace=fsync,fdatasync", "-o", str(log or "/dev/null")]
    command += ["-e", "inject=fsync,fdatasync:error=EIO"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


class Clock:
    """The wall clock of some processes, as libfaketime shows it to them; the monotonic one stays true."""

    def __init__(self, folder: Path, name: str, library: str) -> None:
        self.file, self.library = folder / f"clock-{name}", library
        self.step(0)

    def step(self, offset_s: int) -> None:
        temporary = self.file.with_suffix(".new")
        temporary.write_text(f"{offset_s:+d}\n")
        os.replace(temporary, self.file)

    @property
    def env(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": self.library,
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_NO_CACHE": "0",
        }
