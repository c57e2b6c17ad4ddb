"""A wrapper under a supervisor, as systemd would hold it: what falls is started again, but for who was told to go.

It is the real `holdfast-wrapper`, started as a user starts it; only its --url leads through a Link.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.e2e.service import ROOT, alive, children_of, started_below

SUPERSEDED = 4  # exit code: another wrapper owns the session
AGAIN_S = 0.5
AGENT = Path(__file__).with_name("agent.py")


class Keeper:
    """exits: what the wrapper ended with, by code (signals negative)."""

    def __init__(
        self, session_id: str, url: str, token_file: Path, spool: Path, histories: Path, env: dict[str, str]
    ) -> None:
        self.session_id, self.spool, self.env = session_id, spool, env
        self.log = histories.parent / f"{spool.name}.log"
        self.argv = [sys.executable, "-m", "wrapper", "--url", url, "--session", session_id]
        self.argv += ["--token-file", str(token_file), "--spool-dir", str(spool), "--"]
        self.argv += [sys.executable, "-I", "-S", str(AGENT), str(histories)]
        self.child: subprocess.Popen[bytes] | None = None
        self.exits: Counter[int] = Counter()
        self.dismissed = False  # told 4001: the session is somebody else's
        self.not_before = 0.0
        self.stopping = False

    @property
    def pid(self) -> int | None:
        return self.child.pid if self.child is not None and self.child.poll() is None else None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                self.argv,
                env={**self.env, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def keep(self) -> None:
        while not self.stopping:
            if self.child is None and not self.dismissed and time.monotonic() >= self.not_before:
                self.start()
            elif self.child is not None and (code := self.child.poll()) is not None:
                self.exits[code] += 1
                self.dismissed = code == SUPERSEDED
                self.child, self.not_before = None, max(self.not_before, time.monotonic() + AGAIN_S)
            await asyncio.sleep(0.05)

    def kill(self, away_s: float = 0.0) -> bool:
        return self._end(signal.SIGKILL, away_s)

    def upgrade(self) -> bool:
        """SIGTERM: it leaves its agent with the shim, and comes again."""
        return self._end(signal.SIGTERM, 0.0)

    def _end(self, number: signal.Signals, away_s: float) -> bool:
        if (pid := self.pid) is None:
            return False
        self.not_before = time.monotonic() + away_s
        os.kill(pid, number)
        return True

    def agent_pid(self) -> int | None:
        """The agent of the running execution, behind its opened gate."""
        ours = started_below(self.spool)  # wrapper and shims; the agent itself only has pipes
        return next((pid for shim in ours for pid in children_of(shim) if is_running(pid, AGENT)), None)

    def shim_pid(self) -> int | None:
        agent = self.agent_pid()
        if agent is None:
            return None
        try:
            with open(f"/proc/{agent}/stat", "rb") as stat:
                parent = int(stat.read().rpartition(b")")[2].split()[1])
        except OSError:
            return None
        return parent if parent > 1 and parent in started_below(self.spool) else None

    async def end(self) -> None:
        """The wrapper, its shims and their agents; all of them are ours, by the spool that they have open."""
        self.stopping = True
        if (pid := self.pid) is not None:
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + 10
            while self.pid is not None and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
            if self.child is not None and self.child.poll() is None:
                self.child.kill()
                self.child.wait(10)
        for pid in started_below(self.spool):
            try:
                os.killpg(os.getpgid(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue


def is_running(pid: int, program: Path) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as cmdline:
            return str(program).encode() in cmdline.read().split(b"\0")[:6] and alive(pid)
    except OSError:
        return False
