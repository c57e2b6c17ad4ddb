"""What the kernel says of processes: seconds of CPU, memory that is theirs alone, open files. Reads /proc only."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User and system time since it began."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def memory(pid: int) -> int:
    """Bytes that would come back if it ended: private pages, resident."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))


def files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def below(pid: int) -> list[int]:
    """It and everything that it started."""
    found = [pid]
    for parent in found:
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                found += [int(p) for p in Path(f"/proc/{parent}/task/{task}/children").read_text().split()]
        except OSError:
            continue
    return found


@dataclass(frozen=True, slots=True)
class Machine:
    """Jiffies of all cores since boot."""

    busy: int
    total: int
    at: float

    @classmethod
    def now(cls) -> Machine:
        fields = [int(v) for v in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        idle = fields[3] + fields[4]  # and waiting for the disk
        return cls(sum(fields) - idle, sum(fields), time.monotonic())

    def busy_until(self, later: Machine) -> float:
        """Share of all cores that worked in between, in percent."""
        return 100 * (later.busy - self.busy) / max(1, later.total - self.total)


def open_files() -> int:
    """Raises this process's soft limit to the hard one; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
