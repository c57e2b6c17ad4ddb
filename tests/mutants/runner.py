"""Plants one mutant in a copy of the sources and runs the tests that must notice it, there and nowhere else.

Killed means: pytest ran (exit code 1), and every named test failed in its own body or its fixture's last look. An
import that fails, a fixture that cannot be set up, a test that was not found or a run that does not end is no kill.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutants.catalogue import CATALOGUE, Mutant
from tests.mutants.nursery import UNTOUCHED

ROOT: Final = Path(__file__).resolve().parents[2]
COPIED: Final = ("actors", "wrapper", "tests")
AT_ONCE: Final = 2  # the reference machine has two cores
LIMIT_S: Final = 60.0  # one mutant takes 2 to 4 s alone; this is for a machine that is busy with other things
CONTROL_LIMIT_S: Final = 240.0  # all the tests of the catalogue in one run
# Only what the tests of the catalogue use: the other plugins of the environment cost half of a run's time.
PLUGINS: Final = ("pytest_asyncio.plugin", "pytest_timeout", "tests.mutants.witness")


@dataclass(frozen=True, slots=True)
class Verdict:
    """failed: which tests failed. why: empty when it was killed as it should be; otherwise what is wrong."""

    failed: tuple[str, ...]
    why: str
    took_s: float
    output: str = ""


class Copy:
    """A tree of its own, for one run at a time."""

    def __init__(self, folder: Path) -> None:
        self.root, self.temporary = folder / "tree", folder / "tmp"
        self._nursery: subprocess.Popen[str] | None = None
        # With the bytecode, so that a run does not begin with compiling everything.
        for name in COPIED:
            shutil.copytree(ROOT / name, self.root / name)
        shutil.copy2(ROOT / "pyproject.toml", self.root)

    @contextmanager
    def planted(self, mutant: Mutant) -> Iterator[None]:
        path = self.root / mutant.file
        original, stat = path.read_text(), path.stat()
        if mutant.file.startswith(UNTOUCHED):
            self.close()
        path.write_text(mutate(mutant, original))
        # Bytecode is believed by time and size: both kinds must never look alike.
        os.utime(path, (stat.st_atime, stat.st_mtime + 3600))
        try:
            yield
        finally:
            path.write_text(original)
            os.utime(path, (stat.st_atime, stat.st_mtime))
            if mutant.file.startswith(UNTOUCHED):
                self.close()

    def run(self, tests: Iterable[str], limit_s: float) -> Verdict:
        """Runs these tests here. `why` tells of anything but: they ran to their end, and some failed or none did."""
        witness, said = self.temporary.with_name("witness.json"), self.temporary.with_name("output.txt")
        witness.unlink(missing_ok=True)
        arguments = ["-q", "--tb=line", "-p", "no:cacheprovider"]
        arguments += [word for plugin in PLUGINS for word in ("-p", plugin)]
        arguments += ["--witness", str(witness), "--basetemp", str(self.temporary), *tests]
        began = time.monotonic()
        code = self._born(arguments, said, limit_s)
        took_s = time.monotonic() - began
        output = said.read_text(errors="replace") if said.exists() else ""
        if code is None:
            return Verdict((), f"it did not end within {limit_s:g} s", took_s, output)
        if code not in (0, 1) or not witness.exists():
            return Verdict((), f"pytest exited with {code}", took_s, output)
        reports = json.loads(witness.read_text())
        unprepared = sorted(node for node, when in reports if when == "setup")
        why = f"could not be set up: {', '.join(unprepared)}" if unprepared else ""
        return Verdict(tuple(sorted({node for node, _ in reports})), why, took_s, output)

    def _born(self, arguments: list[str], said: Path, limit_s: float) -> int | None:
        """pytest's exit code; None: it did not end in time, and was ended."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "HOLDFAST_"))}
        env |= {"PYTHONPATH": str(self.root), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        if self._nursery is None:
            self._nursery = subprocess.Popen(
                [sys.executable, "-P", str(self.root / "tests" / "mutants" / "nursery.py")],
                cwd=self.root,
                env=env,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        nursery = self._nursery
        assert nursery.stdin is not None and nursery.stdout is not None
        nursery.stdin.write(json.dumps({"arguments": arguments, "env": env, "output": str(said)}) + "\n")
        nursery.stdin.flush()
        born = nursery.stdout.readline()
        assert born, f"the nursery ended with {nursery.wait(10)}"
        pid = int(born)
        late = threading.Event()

        def end() -> None:
            late.set()
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

        watch = threading.Timer(limit_s, end)
        watch.start()
        try:
            code = int(nursery.stdout.readline())
        finally:
            watch.cancel()
        return None if late.is_set() else code

    def close(self) -> None:
        if self._nursery is not None:
            self._nursery.communicate(timeout=10)  # it ends when nobody has anything to say to it
            self._nursery = None

    def judge(self, mutant: Mutant) -> Verdict:
        with self.planted(mutant):
            found = self.run(mutant.killers, LIMIT_S)
        silent = [killer for killer in mutant.killers if not any(is_of(node, killer) for node in found.failed)]
        why = found.why or (f"survived {', '.join(silent)}" if silent else "")
        return Verdict(found.failed, why, found.took_s, found.output)

    def control(self) -> Verdict:
        """Without a mutant: every test of the catalogue passes here, so that a failure is the mutant's doing."""
        found = self.run(sorted({killer for mutant in CATALOGUE for killer in mutant.killers}), CONTROL_LIMIT_S)
        why = found.why or (f"failed without a mutant: {', '.join(found.failed)}" if found.failed else "")
        return Verdict(found.failed, why, found.took_s, found.output)


def mutate(mutant: Mutant, source: str) -> str:
    """Raises ValueError when the old text does not stand there exactly once."""
    if (n := source.count(mutant.old)) != 1:
        raise ValueError(f"{mutant.name}: its text stands {n} times in {mutant.file}, not once")
    return source.replace(mutant.old, mutant.new)


def is_of(node: str, killer: str) -> bool:
    """Whether the node is this test, or one of its parameters."""
    return node == killer or node.startswith(killer + "[")


class Bench:
    """Copies, and as many runs at a time as there are copies."""

    def __init__(self, folder: Path, at_once: int) -> None:
        self._copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        self._all = [Copy(folder / f"copy-{k}") for k in range(at_once)]
        for copy in self._all:
            self._copies.put(copy)
        self._pool = ThreadPoolExecutor(at_once)

    def submit(self, mutant: Mutant | None) -> Future[Verdict]:
        """None: the control."""
        return self._pool.submit(self._run, mutant)

    def _run(self, mutant: Mutant | None) -> Verdict:
        copy = self._copies.get()
        try:
            return copy.control() if mutant is None else copy.judge(mutant)
        finally:
            self._copies.put(copy)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        for copy in self._all:
            copy.close()
