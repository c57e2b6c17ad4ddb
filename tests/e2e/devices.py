"""`holdfast node fake` beside a real service: a device that may be killed, frozen and started again on its folder."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from tests.conftest import eventually
from tests.e2e.service import Service


class Fake:
    """With a token of its own, for this node alone."""

    def __init__(self, service: Service, node_id: str, roles: Sequence[str] = ("recorder", "transfer")) -> None:
        self.service, self.node_id, self.roles = service, node_id, roles
        self.folder = service.folder / f"device-{node_id}"
        self.log = service.folder / f"device-{node_id}.log"
        made = service.patient("POST", "/v1/tokens", {"scope": "node", "node_id": node_id})
        self.token_id = made["token_id"]
        self.token_file = service.folder / f"device-{node_id}.token"
        self.token_file.write_text(made["token"])
        self.child: subprocess.Popen[bytes] | None = None

    def start(self, *faults: str, options: Sequence[str] = ()) -> Fake:
        command = [sys.executable, "-m", "actors", "node", "fake", self.node_id, "--url", self.service.url, "--json"]
        command += ["--token-file", str(self.token_file), "--folder", str(self.folder)]
        command += ["--objects", str(self.service.folder / "objects"), "--report-every", "1", *options]
        for role in self.roles:
            command += ["--role", role]
        for fault in faults:
            command += ["--fault", fault]
        env = {name: value for name, value in self.service.env.items() if name != "HOLDFAST_TOKEN"}
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    def signal(self, what: signal.Signals) -> None:
        assert self.child is not None
        os.kill(self.child.pid, what)

    def exit_code(self, within: float = 30) -> int:
        assert self.child is not None
        return self.child.wait(within)

    def died(self) -> None:
        assert self.exit_code() == -signal.SIGKILL, self.log.read_text()[-2000:]

    def end(self) -> None:
        if self.child is not None and self.child.poll() is None:
            self.child.kill()
            self.child.wait(10)

    # ------------------------------------------------------------ what it knows

    def _rows(self, sql: str, *values: Any) -> list[Any]:
        with sqlite3.connect(f"file:{self.folder}/device.db?mode=ro", uri=True, timeout=5) as db:
            return db.execute(sql, values).fetchall()

    def recording(self, task_id: str, attempt: int = 1) -> str | None:
        """The state of its row."""
        rows = self._rows("select state from recordings where task_id = ? and attempt = ?", task_id, attempt)
        return str(rows[0][0]) if rows else None

    def has_file(self, task_id: str, attempt: int = 1) -> bool:
        return (self.folder / "recordings" / f"{task_id}.{attempt}").exists()

    def runs(self, command: str) -> int:
        return int(self._rows("select count(*) from ran where command = ?", command)[0][0])

    # ------------------------------------------------------------ what the service knows

    def node(self) -> Any:
        return self.service.patient("GET", f"/v1/nodes/{self.node_id}")

    def connected(self, within: float = 30) -> Fake:
        """Every role of it, over a connection that it has now."""
        eventually(
            lambda: all(self.node_role(role).get("state") == "connected" for role in self.roles),
            within,
            every=0.1,
            what=f"{self.node_id} is connected",
        )
        return self

    def node_role(self, role: str) -> dict[str, Any]:
        status, node = self.service.http("GET", f"/v1/nodes/{self.node_id}")
        found: dict[str, Any] = node["roles"].get(role, {}) if status == 200 else {}
        return found

    def log_types(self) -> list[str]:
        return [
            row["type"] for row in self.service.patient("GET", f"/v1/nodes/{self.node_id}/events?limit=500")["items"]
        ]

    # ------------------------------------------------------------ tasks

    def task(self, task_id: str) -> Any:
        return self.service.patient("GET", f"/v1/tasks/{task_id}")

    def until(self, task_id: str, *statuses: str, within: float = 40) -> Any:
        def fact() -> Any:
            task = self.task(task_id)
            return task if task["status"] in statuses else None

        return eventually(fact, within, every=0.1, what=f"{task_id} is {statuses}: {self.task(task_id)}")

    def act(self, task_id: str, action: str, within: float = 20) -> Any:
        """Asked again while the service says that it does not know the device's state yet (409, retryable)."""

        def fact() -> Any:
            try:
                status, answer = self.service.http("POST", f"/v1/tasks/{task_id}/{action}", {})
            except OSError:
                return None
            return answer if status == 202 else None

        return eventually(fact, within, every=0.2, what=f"{action} {task_id}: {self.task(task_id)} {self.node()}")

    def record(self, task_id: str) -> None:
        """Create, config, begin; the recorder says that it records."""
        self.service.patient("POST", f"/v1/nodes/{self.node_id}/tasks", {"task_id": task_id, "params": {"sop": "a"}})
        self.act(task_id, "config")
        self.until(task_id, "ready")
        self.act(task_id, "begin")
        self.until(task_id, "in_progress")
