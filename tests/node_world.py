"""A node's world for tests: the real law and the real SQLite store, beside the sessions of tests/world.py.

It carries what is to be carried upward, as the gateway and the reaper do, unless it is told to die before.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.law.effects import Refuse
from actors.law.nodes import requests as nq
from actors.law.nodes.answers import Fetched, NodeConnected, upward_of
from actors.law.nodes.model import Reported, UploadReport
from actors.law.requests import Request
from actors.law.sweeps import sweep_of
from actors.objects import Verdict
from actors.protocol.ids import ulid
from actors.protocol.node_codes import HOLDING
from actors.store.contract import IdempotencyKey, Outcome
from tests.world import World

SHA = "ab" * 32


class NodeWorld(World):
    """verify: what looking at an uploaded object comes to."""

    def __init__(self, folder: Path, *, verify: Callable[[UploadReport], Verdict] | None = None, **policy: Any) -> None:
        super().__init__(folder, **policy)
        self.verify = verify or (lambda told: Verdict(True))
        self.carries = True
        self.spoken: list[Any] = []
        self.held: dict[str, tuple[str, str, int, str]] = {}  # connection → node, role, epoch, instance
        self.sent: dict[str, list[dict[str, Any]]] = {}  # connection → every frame that was written to it

    # ------------------------------------------------------------ asking

    def do(self, request: Request, key: IdempotencyKey | None = None) -> Outcome:
        outcome = super().do(request, key)
        self.spoken += outcome.speech
        if self.carries:
            self.carry(outcome)
        return outcome

    def carry(self, outcome: Outcome) -> None:
        upward = upward_of(outcome.answer)
        for report in upward.tasks:
            super().do(report)
        for told in upward.verify:
            self.look(told, outcome.session_id.removeprefix("node/"))

    def look(self, told: UploadReport, node_id: str) -> Outcome:
        verdict = self.verify(told)
        assert told.object_key is not None and told.sha256 is not None and told.size is not None
        return super().do(
            nq.UploadVerified(
                seed=ulid(),
                task_id=told.task_id,
                node_id=node_id,
                attempt=told.attempt,
                object_key=told.object_key,
                sha256=told.sha256,
                size=told.size,
                ok=verdict.ok,
                verified=verdict.verified,
                detail=verdict.detail,
            )
        )

    def sweep(self) -> list[Outcome]:
        return [self.do(sweep_of(d.session_id, d.kind, d.subject, ulid())) for d in self.store.due(1000)]

    def make(self, node_id: str = "n", **fields: Any) -> Outcome:
        return self.do(nq.CreateNode(node_id=node_id, seed=ulid(), **fields))

    def plug(
        self,
        connection: str = "con_1",
        node_id: str = "n",
        role: Any = "node",
        *,
        instance: str = "i_1",
        gateway: str = "gw_1",
        reported: Any = None,
        commands: tuple[str, ...] = ("device.info",),
        **fields: Any,
    ) -> Outcome:
        """A role connects. reported: a state, or (state, task, attempt)."""
        outcome = self.do(
            nq.NodeConnect(
                node_id=node_id,
                seed=ulid(),
                role=role,
                connection_id=connection,
                gateway_id=gateway,
                instance_id=instance,
                commands=commands,
                reported=said(reported) if reported is not None else None,
                **{"may_create": True, **fields},
            )
        )
        if isinstance(outcome.answer, NodeConnected):
            self.held[connection] = (node_id, role, outcome.answer.epoch, instance)
            self.sent[connection] = list(outcome.answer.directives)
        return outcome

    def framed(self, connection: str) -> dict[str, Any]:
        node_id, role, epoch, instance = self.held[connection]
        return {
            "node_id": node_id,
            "seed": ulid(),
            "role": role,
            "connection_id": connection,
            "epoch": epoch,
            "instance_id": instance,
        }

    def unplug(self, connection: str = "con_1", **fields: Any) -> Outcome:
        node_id, role, _, _ = self.held[connection]
        return self.do(nq.NodeClosed(node_id=node_id, seed=ulid(), role=role, connection_id=connection, **fields))

    def fetch(self, connection: str = "con_1", limit: int = 64) -> list[dict[str, Any]]:
        """What the gateway writes now; all of it stands in `sent`."""
        answer = self.do(nq.NodeFetch(**self.framed(connection), limit=limit)).answer
        assert isinstance(answer, Fetched), answer
        self.sent[connection] += answer.frames
        return list(answer.frames)

    def invoke(self, command: str = "device.info", node_id: str = "n", **fields: Any) -> dict[str, Any]:
        iid = fields.pop("invocation_id", f"inv_{ulid()}")
        outcome = self.do(nq.Invoke(node_id=node_id, seed=ulid(), invocation_id=iid, command=command, **fields))
        assert outcome.body is not None, outcome.answer
        return outcome.body

    def result(self, invocation_id: str, connection: str = "con_1", **fields: Any) -> Outcome:
        return self.do(
            nq.InvokeResult(**self.framed(connection), invocation_id=invocation_id, **{"ok": True, **fields})
        )

    def progress(self, invocation_id: str, seq: int, connection: str = "con_1", **fields: Any) -> Outcome:
        return self.do(nq.InvokeProgress(**self.framed(connection), invocation_id=invocation_id, seq=seq, **fields))

    def cancel(self, invocation_id: str, node_id: str = "n") -> Outcome:
        return self.do(nq.CancelInvocation(node_id=node_id, seed=ulid(), invocation_id=invocation_id))

    def say(self, reported: Any, connection: str = "rec") -> Outcome:
        return self.do(nq.NodeState(**self.framed(connection), reported=said(reported)))

    def upload(
        self, status: Any, connection: str = "tra", task_id: str = "t", attempt: int = 1, **fields: Any
    ) -> Outcome:
        return self.do(nq.NodeUpload(**self.framed(connection), report=told(status, task_id, attempt, **fields)))

    def task(self, task_id: str = "t", node_id: str = "n", **fields: Any) -> Outcome:
        return self.do(nq.CreateTask(task_id=task_id, node_id=node_id, seed=ulid(), **fields))

    def act(self, action: Any, task_id: str = "t", **fields: Any) -> Outcome:
        return self.do(nq.TaskAction(task_id=task_id, seed=ulid(), action=action, **fields))

    # ------------------------------------------------------------ whole stories

    def device(self, **fields: Any) -> None:
        """A node `n` with an idle recorder `rec` and an uploader `tra`."""
        self.plug("rec", role="recorder", reported="idle", **fields)
        self.plug("tra", role="transfer", uploads=(), **fields)

    def ready(self) -> None:
        self.device()
        self.task()
        self.act("config")
        self.say(("ready", "t", 1))

    def recording(self) -> None:
        self.ready()
        self.act("begin")
        self.say(("recording", "t", 1))

    def uploading(self) -> None:
        """Finished; the device has accepted the upload."""
        self.recording()
        self.act("finish")
        self.say("idle")
        self.upload("accepted")

    # ------------------------------------------------------------ seeing

    def node(self, node_id: str = "n") -> dict[str, Any]:
        return self.store.node(node_id)

    def role(self, role: str = "node", node_id: str = "n") -> dict[str, Any]:
        return dict(self.store.node(node_id)["roles"][role])

    def shown(self, task_id: str = "t") -> dict[str, Any]:
        return self.store.task(task_id)

    def task_status(self, task_id: str = "t") -> str:
        return str(self.store.task(task_id)["status"])

    def log(self, node_id: str = "n") -> list[str]:
        return [e["type"] for e in self.store.node_events(node_id, 0, 100_000).items]

    def armed(self) -> list[tuple[str, str]]:
        rows = self.store._c.execute("select kind, subject from deadlines order by kind, subject").fetchall()
        return [(r[0], r[1]) for r in rows]

    def refusal(self, outcome: Outcome) -> tuple[str, str | None]:
        assert isinstance(outcome.answer, Refuse), outcome.answer
        return outcome.answer.code, outcome.answer.extra.get("reason")


def said(reported: Any) -> Reported:
    return Reported(reported) if isinstance(reported, str) else Reported(*reported)


def told(status: Any, task_id: str = "t", attempt: int = 1, **fields: Any) -> UploadReport:
    """An upload report; `uploaded` comes with an object unless it says another."""
    if status == "uploaded":
        fields = {"object_key": f"{task_id}/{attempt}", "sha256": SHA, "size": 7, **fields}
    return UploadReport(task_id, attempt, status, **fields)


__all__ = ["HOLDING", "NodeWorld", "said", "told"]
