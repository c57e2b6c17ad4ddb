"""One real `holdfast up` per test session (`holdfast`), and a maker of short-lived ones (`make_up`).

Every process that is ended here was started here, or is named by the data directory of a service started here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors import processes
from actors.up import short_dir_of
from tests.conftest import eventually

ROOT = Path(__file__).resolve().parents[2]


class Up:
    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder, self.data_dir, self.ready_file = folder, folder / "data", folder / "ready.json"
        self.ray_dir = short_dir_of(self.data_dir)
        self.log = folder / "up.log"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
        self.env |= {"PYTHONPATH": str(ROOT)} | {f"HOLDFAST_{k.upper()}": str(v) for k, v in settings.items()}
        self.process: subprocess.Popen[bytes] | None = None
        self.url = self.token = ""

    def spawn(self) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-P", "-m", "actors", "up", "--data-dir", str(self.data_dir)]
        argv += ["--port", self.url.rpartition(":")[2] or "0", "--ready-file", str(self.ready_file)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, env=self.env, cwd=self.folder, stdout=log, stderr=log)
        return self.process

    def start(self) -> Up:
        process = self.spawn()
        eventually(lambda: self.ready_file.exists() or process.poll() is not None, 60, what="up is ready")
        assert process.poll() is None, self.log.read_text()[-3000:]
        ready = json.loads(self.ready_file.read_text())
        assert ready["pid"] == process.pid
        self.url, self.token = ready["url"], ready["token"]
        return self

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)

    def ask(self, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"null")

    def healthy(self) -> bool:
        try:
            return self.ask("/healthz")[0] == 200
        except OSError:
            return False

    def gateway(self) -> tuple[int, int]:
        told = json.loads((self.data_dir / "gateway.json").read_text())
        return told["pid"], told["pid_started"]

    def new_gateway(self, before: tuple[int, int]) -> bool:
        return self.gateway() != before and self.healthy()

    def members(self) -> list[int]:
        """Every living process of this service's Ray."""
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        inside = str(self.ray_dir / "r")
        return [
            pid for pid in pids if pid != os.getpid() and processes.alive(pid) and processes.belongs_to(pid, inside)
        ]

    def cli(self, *argv: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        env = self.env | {"HOLDFAST_DATA_DIR": str(self.data_dir), "HOME": str(self.folder)}
        command = [sys.executable, "-P", "-m", "actors", *argv]
        return subprocess.run(command, env=env, input=stdin, text=True, capture_output=True, timeout=60, check=False)


@pytest.fixture(scope="session")
def shared_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    up = Up(tmp_path_factory.mktemp("shared"), hibernate_after_s=2).start()
    yield up
    up.end()


@pytest.fixture
def holdfast(shared_up: Up) -> Up:
    """The shared service, healthy."""
    assert shared_up.process is not None
    assert shared_up.process.poll() is None, shared_up.log.read_text()[-3000:]
    eventually(shared_up.healthy, 15, what="the gateway answers")
    return shared_up


@pytest.fixture
def make_up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    made: list[Up] = []

    def make(**settings: Any) -> Up:
        made.append(Up(tmp_path, **settings))
        return made[-1]

    yield make
    for up in made:
        up.end()
