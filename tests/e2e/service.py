"""Drives Holdfast from outside: real processes, real signals, the public HTTP and command line; the server unimported.

What it asks of the inside (pids, to know whom to kill) it reads from where an operator would: the data directory.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.conftest import eventually

ROOT = Path(__file__).resolve().parents[2]
TERMINAL = ("execution.completed", "execution.failed", "execution.interrupted")


class Service:
    """`holdfast up` on a folder. settings: HOLDFAST_* without the prefix, lower-case."""

    def __init__(self, folder: Path, *, as_delivered: bool = False, **settings: Any) -> None:
        """Unless as delivered, as many actors may be awake as a story needs, on a machine of any size."""
        settings = settings if as_delivered else {"actors_max": 64} | settings
        self.folder, self.data = folder, folder / "data"
        self.ready_file, self.log = folder / "ready.json", folder / "up.log"
        self.env = os.environ | {"PYTHONPATH": str(ROOT), "HOLDFAST_ALLOW_SHORT_GRACE": "1"}
        self.env |= {f"HOLDFAST_{name.upper()}": str(value) for name, value in settings.items()}
        self.up: subprocess.Popen[bytes] | None = None
        self.url = self.token = ""
        self.wrappers: list[Wrapper] = []

    # ------------------------------------------------------------ life

    def start(self, within: float = 60) -> Service:
        self.ready_file.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.up = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "actors",
                    "up",
                    "--data-dir",
                    str(self.data),
                    "--port",
                    self.url.rpartition(":")[2] or "0",
                    "--ready-file",
                    str(self.ready_file),
                ],
                env=self.env,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        try:
            eventually(lambda: self.ready_file.exists() or self.up.poll() is not None, within, what="up is ready")
        except AssertionError:
            self.end()  # a fixture that never came to its yield ends nothing
            raise
        assert self.up.poll() is None, self.log.read_text()[-4000:]
        said = json.loads(self.ready_file.read_text())
        self.url, self.token = said["url"].rstrip("/"), said["token"]
        return self

    def stop(self) -> int:
        assert self.up is not None
        if self.up.poll() is None:
            self.up.send_signal(signal.SIGTERM)
        return self.up.wait(30)

    def end(self) -> None:
        """Whatever a test left: wrappers first, so that nobody reconnects into the end."""
        for wrapper in self.wrappers:
            wrapper.end()
        self.wrappers.clear()
        if self.up is not None:
            self.stop()

    # ------------------------------------------------------------ HTTP

    def http(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        request.add_header("Authorization", f"Bearer {self.token if token is None else token}")
        request.add_header("Content-Type", "application/json")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            text = error.read()
            return error.code, json.loads(text) if text else None

    def patient(self, method: str, path: str, body: Any = None, within: float = 30, **kw: Any) -> Any:
        """For the minutes in which we kill things: retries what is safe to repeat until it is answered."""

        def ask() -> tuple[int, Any] | None:
            try:
                status, answer = self.http(method, path, body, **kw)
            except OSError:
                return None
            return None if status in (429, 500, 503) else (status, answer)

        status, answer = eventually(ask, within, every=0.1, what=f"{method} {path}")
        assert status < 300, (status, answer)
        return answer

    def create(self, session_id: str, **fields: Any) -> Any:
        return self.patient("POST", "/v1/sessions", {"session_id": session_id, **fields})

    def submit(self, session_id: str, execution_id: str, **fields: Any) -> Any:
        return self.patient("POST", f"/v1/sessions/{session_id}/executions", {"execution_id": execution_id, **fields})

    def session(self, session_id: str) -> Any:
        return self.patient("GET", f"/v1/sessions/{session_id}")

    def execution(self, session_id: str, execution_id: str) -> Any:
        return self.patient("GET", f"/v1/sessions/{session_id}/executions/{execution_id}")

    def status(self, session_id: str, execution_id: str) -> str:
        return str(self.execution(session_id, execution_id)["status"])

    def events(self, session_id: str) -> list[dict[str, Any]]:
        """All of them, page by page; asserts what G3 says of every page."""
        found: list[dict[str, Any]] = []
        after = 0
        while True:
            page = self.patient("GET", f"/v1/sessions/{session_id}/events?after_seq={after}&limit=500")
            found += page["items"]
            if not page["items"]:
                break
            after = page["next_after_seq"]
        assert [e["seq"] for e in found] == list(range(1, len(found) + 1))
        return found

    def terminals(self, session_id: str, execution_id: str) -> list[dict[str, Any]]:
        return [e for e in self.events(session_id) if e["execution_id"] == execution_id and e["type"] in TERMINAL]

    def output(self, session_id: str, execution_id: str | None = None, stream: str = "stdout") -> str:
        import base64

        text = b""
        for e in self.events(session_id):
            if e["type"] == "output" and e["data"]["stream"] == stream and execution_id in (None, e["execution_id"]):
                data = e["data"]
                text += data["text"].encode() if "text" in data else base64.b64decode(data["base64"])
        return text.decode()

    def wait(self, session_id: str, execution_id: str, status: Sequence[str], within: float = 30) -> Any:
        def fact() -> Any:
            execution = self.execution(session_id, execution_id)
            return execution if execution["status"] in status else None

        return eventually(fact, within, every=0.1, what=f"{session_id}/{execution_id} is {status}")

    def connected(self, session_id: str, within: float = 30) -> None:
        eventually(
            lambda: self.session(session_id)["link"]["state"] == "connected", within, every=0.05, what="connected"
        )

    # ------------------------------------------------------------ whom to kill

    def _row(self, sql: str, *values: Any) -> Any:
        # The interpreter's own library is too old to write this file (schema.py says why); it only reads here.
        with sqlite3.connect(f"file:{self.data}/holdfast.db?mode=ro", uri=True, timeout=5) as db:
            return db.execute(sql, values).fetchone()

    def gateway_pid(self) -> int:
        return int(json.loads((self.data / "gateway.json").read_text())["pid"])

    def reaper_pid(self) -> int:
        return int(self._row("select pid from reaper")[0])

    def actor_pid(self, session_id: str) -> int | None:
        return self.pid_of_actor(f"session/{session_id}")

    def pid_of_actor(self, name: str) -> int | None:
        row = self._row("select pid from actors where name = ?", name)
        return int(row[0]) if row and alive(int(row[0])) else None

    def actors_awake(self) -> int:
        return int(self._row("select count(*) from actors")[0])

    def healthy(self) -> bool:
        try:
            return self.http("GET", "/healthz")[0] == 200
        except OSError:
            return False

    def kill_gateway(self, within: float = 15) -> float:
        """kill -9, and wait until another process answers; returns how long that took."""
        pid, began = self.gateway_pid(), time.monotonic()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not alive(pid), 5)
        eventually(lambda: self.healthy() and self.gateway_pid() != pid, within, what="another gateway answers")
        return time.monotonic() - began

    def wrapper(self, session_id: str, argv: Sequence[str], *options: str, spool: str | None = None) -> Wrapper:
        made = Wrapper(self, session_id, argv, options, self.folder / f"spool-{spool or session_id}")
        self.wrappers.append(made)
        return made.start()

    def run(self, *arguments: str, **kw: Any) -> subprocess.CompletedProcess[str]:
        """`holdfast …` to its end."""
        env = self.env | {"HOLDFAST_URL": self.url, "HOLDFAST_TOKEN": self.token}
        command = [sys.executable, "-m", "actors", *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False, **kw)


class Wrapper:
    """`holdfast-wrapper` on a spool; may be killed and started again."""

    def __init__(
        self, service: Service, session_id: str, argv: Sequence[str], options: Sequence[str], spool: Path
    ) -> None:
        self.service, self.session_id, self.argv, self.options, self.spool = service, session_id, argv, options, spool
        self.log = service.folder / f"wrapper-{spool.name}.log"
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> Wrapper:
        token = self.service.folder / "wrapper-token"
        token.write_text(self.service.token)
        token.chmod(0o600)
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "wrapper",
                    "--url",
                    self.service.url,
                    "--session",
                    self.session_id,
                    "--token-file",
                    str(token),
                    "--spool-dir",
                    str(self.spool),
                    *self.options,
                    "--",
                    *self.argv,
                ],
                env=self.service.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.service.folder,
                start_new_session=True,
            )
        return self

    @property
    def pid(self) -> int:
        assert self.child is not None
        return self.child.pid

    def signal(self, what: signal.Signals) -> None:
        os.kill(self.pid, what)

    def kill(self) -> None:
        assert self.child is not None
        self.child.kill()
        self.child.wait(10)

    def again(self) -> Wrapper:
        self.kill()
        return self.start()

    def exit_code(self, within: float = 30) -> int:
        assert self.child is not None
        return self.child.wait(within)

    def end(self) -> None:
        """The wrapper, its shims and their agents: all of them ours, found by the spool that they have open."""
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(signal.SIGCONT)
            self.child.kill()
            self.child.wait(10)
        for pid in started_below(self.spool):
            try:
                os.killpg(os.getpgid(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue


def alive(pid: int) -> bool:
    """A zombie is dead: only its parent does not know yet."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def started_below(folder: Path) -> list[int]:
    """Processes of this user with a file open below the folder, or with it on their command line."""
    found, needle = [], str(folder).encode()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as cmdline:
                ours = needle in cmdline.read()
            ours = ours or any(
                os.readlink(f"/proc/{entry}/fd/{fd}").startswith(str(folder)) for fd in os.listdir(f"/proc/{entry}/fd")
            )
        except OSError:
            continue
        if ours:
            found.append(int(entry))
    return found


def children_of(pid: int) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as stat:
                    if int(stat.read().rpartition(b")")[2].split()[1]) == pid:
                        found.append(int(entry))
            except OSError:
                continue
    return found
