"""A session's world for tests: the real law and the real SQLite store under a clock that walks when it is told to.

No mock of ours: the file is real (synchronous=OFF, because power cuts are tested elsewhere), the reaper's sweep is the
reaper's own request. Used by the store suite; the gateway and the processes have their own drivers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from actors.law import requests as rq
from actors.law.effects import Answer, Connected, Refuse
from actors.law.model import Limits, Policy
from actors.law.sweeps import sweep_of
from actors.protocol.ids import ulid
from actors.store.contract import AppendItem, AppendResult, EncodedEvent, IdempotencyKey, Outcome
from actors.store.sqlite import SqliteStore

LIMITS = Limits(pending_s=180, stale_s=90, grace_s=30, hung_s=None, max_runtime_s=None, interrupt_s=20)


class World:
    def __init__(self, folder: Path, **policy: Any) -> None:
        self.now_ms = 1_700_000_000_000
        self.path = folder / "holdfast.db"
        self.policy = Policy(**{"limits": LIMITS, **policy})
        self.store = self.another_process()
        self.store.register_gateway("gw_1", 1, 1, "http://127.0.0.1:1")
        self.store.tick("gw_1")
        self.connections: dict[str, tuple[str, int, str]] = {}

    def another_process(self) -> SqliteStore:
        return SqliteStore.open(self.path, self.policy, wall=lambda: self.now_ms, synchronous="OFF")

    def close(self) -> None:
        self.store.close()

    # ------------------------------------------------------------ time

    def walk(self, seconds: float, *, sweep: bool = True) -> None:
        """Second by second: the gateway's tick, then the reaper's."""
        for _ in range(round(seconds)):
            self.now_ms += 1000
            self.store.tick("gw_1")
            if sweep:
                self.sweep()

    def sweep(self) -> list[Outcome]:
        return [self.do(sweep_of(d.session_id, d.kind, d.subject, ulid())) for d in self.store.due(1000)]

    # ------------------------------------------------------------ asking

    def do(self, request: rq.Request, key: IdempotencyKey | None = None) -> Outcome:
        return self.store.transact(request, key)

    def create(self, session_id: str = "s", **fields: Any) -> Outcome:
        return self.do(rq.CreateSession(session_id=session_id, seed=ulid(), **fields))

    def submit(self, execution_id: str = "e1", session_id: str = "s", **fields: Any) -> Outcome:
        return self.do(rq.Submit(session_id=session_id, seed=ulid(), execution_id=execution_id, **fields))

    def interrupt(self, execution_id: str | None = None, session_id: str = "s", **fields: Any) -> Outcome:
        return self.do(rq.Interrupt(session_id=session_id, seed=ulid(), execution_id=execution_id, **fields))

    def fail(self, execution_id: str = "e1", session_id: str = "s", **fields: Any) -> Outcome:
        return self.do(
            rq.Fail(session_id=session_id, seed=ulid(), execution_id=execution_id, error="by hand", **fields)
        )

    def connect(
        self,
        connection: str = "con_1",
        session_id: str = "s",
        *,
        wrapper: str = "w_1",
        instance: str = "i_1",
        attempt: int = 1,
        executions: tuple[rq.Reported, ...] = (),
        **fields: Any,
    ) -> Outcome:
        outcome = self.do(
            rq.Connect(
                session_id=session_id,
                seed=ulid(),
                connection_id=connection,
                gateway_id="gw_1",
                wrapper_id=wrapper,
                instance_id=instance,
                attempt=attempt,
                executions=executions,
                **fields,
            )
        )
        if isinstance(outcome.answer, Connected):
            self.connections[connection] = (session_id, outcome.answer.epoch, instance)
        return outcome

    def closed(self, connection: str = "con_1", **fields: Any) -> Outcome:
        session_id = self.connections[connection][0]
        return self.do(rq.Closed(session_id=session_id, seed=ulid(), connection_id=connection, **fields))

    def _framed(self, connection: str) -> dict[str, Any]:
        session_id, epoch, instance = self.connections[connection]
        return {
            "session_id": session_id,
            "seed": ulid(),
            "connection_id": connection,
            "epoch": epoch,
            "instance_id": instance,
        }

    def started(self, execution_id: str = "e1", seq: int = 1, connection: str = "con_1") -> Answer:
        return self.do(rq.Started(**self._framed(connection), execution_id=execution_id, seq=seq, pid=42)).answer

    def final(self, seq: int, execution_id: str = "e1", connection: str = "con_1", **fields: Any) -> Answer:
        return self.do(
            rq.Final(
                **self._framed(connection),
                execution_id=execution_id,
                seq=seq,
                **{"status": "completed", "exit_code": 0, **fields},
            )
        ).answer

    def ask(self, seq: int, approval_id: str = "apr_1", execution_id: str = "e1", **fields: Any) -> Answer:
        return self.do(
            rq.AskApproval(
                **self._framed("con_1"),
                execution_id=execution_id,
                seq=seq,
                approval_id=approval_id,
                title="May I?",
                options=("allow", "deny"),
                **fields,
            )
        ).answer

    def ack_command(self, command_id: str, status: Any, connection: str = "con_1", **fields: Any) -> Answer:
        return self.do(rq.AckCommand(**self._framed(connection), command_id=command_id, status=status, **fields)).answer

    def item(
        self, first: int, n: int = 1, execution_id: str = "e1", connection: str = "con_1", text: str = "line"
    ) -> AppendItem:
        session_id, epoch, instance = self.connections[connection]
        events = tuple(
            EncodedEvent("output", self.now_ms, json.dumps({"stream": "stdout", "text": f"{text} {first + i}"}))
            for i in range(n)
        )
        return AppendItem(session_id, connection, epoch, execution_id, first, n, events, instance)

    def append(self, *items: AppendItem) -> list[AppendResult]:
        return list(self.store.commit_group(items).results)

    def running(self, execution_id: str = "e1", session_id: str = "s", **submit: Any) -> None:
        """A session with a connected wrapper and a running execution."""
        self.create(session_id)
        self.connect(f"con_{session_id}" if session_id != "s" else "con_1", session_id)
        self.submit(execution_id, session_id, **submit)
        self.started(execution_id, connection=f"con_{session_id}" if session_id != "s" else "con_1")

    # ------------------------------------------------------------ seeing

    def events(self, session_id: str = "s") -> list[dict[str, Any]]:
        return [json.loads(f) for f in self.store.page(session_id, 0, 100_000, max_bytes=1 << 30).fragments]

    def types(self, session_id: str = "s") -> list[str]:
        return [e["type"] for e in self.events(session_id)]

    def status(self, execution_id: str = "e1", session_id: str = "s") -> str:
        return str(self.store.execution(session_id, execution_id)["status"])

    def outcome(self, execution_id: str = "e1", session_id: str = "s") -> dict[str, Any]:
        return dict(self.store.execution(session_id, execution_id)["outcome"])

    def link(self, session_id: str = "s") -> str:
        return str(self.store.session(session_id)["link"]["state"])

    def commands(self, session_id: str = "s") -> list[tuple[str, str]]:
        return [(c.kind, c.execution_id) for c in self.store.pending_commands(session_id, 0, 100)]

    def refused(self, outcome: Outcome) -> str:
        assert isinstance(outcome.answer, Refuse), outcome.answer
        return outcome.answer.code
