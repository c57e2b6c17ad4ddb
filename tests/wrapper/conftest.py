"""Waiting on facts, real processes that are always ended, and an honest gateway."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.wrapper.fake_gateway import FakeGateway
from wrapper.shim import start_time
from wrapper.shimctl import Shim

ROOT = Path(__file__).parents[2]
PYTHON = sys.executable


def wait_for(fact: Callable[[], Any], within: float = 20.0) -> Any:
    """The fact's first true value; an AssertionError that shows the last one when the deadline passes."""
    deadline = time.monotonic() + within
    while not (value := fact()):
        assert time.monotonic() < deadline, f"not within {within} s: {fact} is {value!r}"
        time.sleep(0.005)
    return value


async def eventually(fact: Callable[[], Any], within: float = 20.0) -> Any:
    deadline = time.monotonic() + within
    while not (value := fact()):
        assert time.monotonic() < deadline, f"not within {within} s: {fact} is {value!r}"
        await asyncio.sleep(0.005)
    return value


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    fake = FakeGateway("ses_1")
    await fake.start()
    yield fake
    await fake.stop()
    assert not fake.complaints, fake.complaints


class Wrappers:
    """Starts `python -m wrapper` processes on one spool; ends them, and the shims they left, at the end."""

    def __init__(self, spool_dir: Path, url: str) -> None:
        self.spool_dir, self.url = spool_dir, url
        self.processes: list[subprocess.Popen[bytes]] = []
        self.log = spool_dir.parent / "wrapper.log"

    def start(
        self, *argv: str, options: tuple[str, ...] = (), env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        command = [PYTHON, "-m", "wrapper", "--url", self.url, "--session", "ses_1", "--spool-dir", str(self.spool_dir)]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [*command, *options, "--", *argv],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "HOLDFAST_TOKEN": "secret", **(env or {})},
                stderr=log,
            )
        self.processes.append(process)
        return process

    def start_crashing(self, at: int, when: str, *argv: str) -> subprocess.Popen[bytes]:
        command = [PYTHON, "-m", "tests.wrapper.crashing", str(at), when, self.url, str(self.spool_dir), *argv]
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=log)
        self.processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()

    def agents(self) -> list[int]:
        """Pids of agents whose shims stand in this spool and which are alive."""
        found = []
        for run in (self.spool_dir / "runs").glob("*"):
            shim = Shim.adopt(str(run))
            if shim is None:
                continue
            facts = shim.facts()
            if facts is not None and start_time(facts.agent_pid) == facts.agent_start:
                found.append(facts.agent_pid)
            shim.close()
        return found

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                self.kill(process)
        for run in (self.spool_dir / "runs").glob("*"):
            shim = Shim.adopt(str(run))
            if shim is not None:
                shim.kill(shim=True, agent=True)
                shim.close()


@pytest.fixture
def wrappers(tmp_path: Path, gateway: FakeGateway) -> Iterator[Wrappers]:
    it = Wrappers(tmp_path / "spool", gateway.url)
    yield it
    it.end()
    if it.log.exists():
        print(it.log.read_text())  # pytest shows it when the test has failed


def agent(source: str) -> tuple[str, ...]:
    """A small agent, as fast to start as Python gets."""
    return (PYTHON, "-I", "-S", "-u", "-c", source)


def is_alive(pid: int) -> bool:
    return start_time(pid) is not None


def kill_hard(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
