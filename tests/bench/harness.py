"""The workshop: a real `holdfast up` on a folder of its own, the bare relay, client processes, and progress lines.

There is no bench mode: the service validates, fences, deduplicates and syncs as it always does. Whatever a benchmark
starts is ended by pid when it leaves, and everything is bounded in count and time.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from actors.up import free_port
from tests.conftest import eventually
from tests.e2e.service import ROOT, Service

ENV = os.environ | {"PYTHONPATH": str(ROOT)}
CLIENT_S = 600.0  # the longest that a client process may take for its answer


class Child:
    """A client process: says `ready`, begins at the word, answers one line of JSON for each that it is asked for."""

    def __init__(self, kind: str, options: dict[str, Any]) -> None:
        self.kind = kind
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.clients", kind],
            env=ENV,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.say(json.dumps(options))  # not on the command line: ten thousand names, and a token

    @property
    def pid(self) -> int:
        return self.process.pid

    def ready(self) -> Child:
        assert self._line() == "ready", f"the client {self.kind} did not come up"
        return self

    def say(self, word: str = "go") -> Child:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self

    def answer(self) -> Any:
        return json.loads(self._line())

    def ask(self, word: str) -> Any:
        return self.say(word).answer()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()  # its own timeouts end it; then this is empty
        assert line, f"the client {self.kind} ended with {self.process.wait(10)} before it answered"
        return line.rstrip("\n")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class Bench:
    """runs: of each benchmark. scale: 1.0 is the whole work, less is for a look."""

    def __init__(
        self, folder: Path, runs: int, scale: float, *, minutes: float = 30.0, switch_s: float | None = None
    ) -> None:
        """switch_s: the service's processes hand the interpreter over after so long, instead of their 0.5 ms."""
        self.folder, self.runs, self.scale, self.minutes = folder, runs, scale, minutes
        self._switch_s = switch_s
        self._services: dict[tuple[tuple[str, Any], ...], Service] = {}
        self._settings: dict[str, Any] = {}
        self._bare: dict[str, tuple[subprocess.Popen[bytes], int]] = {}
        self._names = 0
        self._quiet_until = 0.0

    # ------------------------------------------------------------ what there is to talk to

    @property
    def service(self) -> Service:
        """The one asked for last; of itself, the one with the settings as they are delivered."""
        return self.service_with(**self._settings)

    def as_delivered(self) -> None:
        self._settings = {}

    def service_with(self, **settings: Any) -> Service:
        """One `up` for each way to set it; only one lives at a time, because another one's pulse would be measured."""
        self._settings = settings
        wanted = tuple(sorted(settings.items()))
        if wanted not in self._services:
            self.end_services()
            folder = self.folder / f"service-{self._names}"
            self._names += 1
            folder.mkdir()
            self.say("starting a service")
            service = Service(folder, as_delivered=True, **settings)
            if self._switch_s is not None:  # Python runs this file in every process that can see it
                (folder / "site").mkdir()
                text = (
                    f"import sys\n\nsys.setswitchinterval({self._switch_s})\nsys.setswitchinterval = lambda _: None\n"
                )
                (folder / "site" / "sitecustomize.py").write_text(text)
                service.env["PYTHONPATH"] = f"{ROOT}{os.pathsep}{folder / 'site'}"
            self._services[wanted] = service  # also if it does not come up: it is ours to end
            service.start()
        return self._services[wanted]

    def end_services(self) -> None:
        for service in self._services.values():
            service.end()
        self._services.clear()

    @property
    def relay(self) -> str:
        return self.bare("relay")

    def bare(self, module: str) -> str:
        """The yardstick of this module's name."""
        if module not in self._bare:
            port = free_port("127.0.0.1")
            argv = [sys.executable, "-m", f"tests.bench.{module}", str(port), str(self.folder / f"{module}.db")]
            self._bare[module] = subprocess.Popen(argv, env=ENV), port
            eventually(lambda: _listens(port), 10, what=f"the {module} listens")
        return f"http://127.0.0.1:{self._bare[module][1]}"

    def end_bare(self, module: str) -> None:
        """It has no pulse, but a file that grows."""
        process, _ = self._bare.pop(module)
        process.terminate()
        process.wait(10)
        for path in self.folder.glob(f"{module}.db*"):
            path.unlink()

    def fresh(self, n: int) -> list[str]:
        """Names of sessions that nobody used."""
        self._names += n
        return [f"b{self._names - i}" for i in range(n)]

    # ------------------------------------------------------------ clients

    @contextlib.contextmanager
    def client(self, kind: str, *, relay: bool | str = False, **options: Any) -> Iterator[Child]:
        """relay: to the bare relay instead of the service, or to the yardstick of that name."""
        if relay:
            where = {"relay": self.bare("relay" if relay is True else relay), "token": ""}
        else:
            where = {"base": self.service.url, "token": self.service.token}
        child = Child(kind, where | options)
        try:
            yield child
        finally:
            child.end()

    def together(self, *wanted: tuple[str, dict[str, Any]], relay: bool | str = False) -> list[Any]:
        """Clients that begin at the same moment; their answers, in order."""
        with contextlib.ExitStack() as stack:
            children = [stack.enter_context(self.client(kind, relay=relay, **options)) for kind, options in wanted]
            for child in children:
                child.ready()
            for child in children:
                child.say()
            return [child.answer() for child in children]

    # ------------------------------------------------------------ telling

    def say(self, what: str, *, every_s: float = 0.0) -> None:
        """A line for whoever waits, on stderr; with every_s not more often than that."""
        if (now := time.monotonic()) >= self._quiet_until or not every_s:
            self._quiet_until = now + every_s
            print(f"       … {what}", file=sys.stderr, flush=True)

    def each_run(self) -> Iterator[int]:
        for run in range(self.runs):
            self.say(f"run {run + 1} of {self.runs}")
            yield run

    def end(self) -> None:
        self.end_services()
        for module in list(self._bare):
            self.end_bare(module)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
