"""A scripted device: recorder, uploader and a few commands, behind the real client and over the real wire.

It keeps what a real one must keep (wrapper/recordings.py), so that it may be killed at any point and goes on where it
was; and it has misfortunes on demand (wrapper/faults.py). Its recordings are made-up bytes; its uploads are real files,
written to a folder that stands for the object store. It is for tests and demos: it works on its disk in the loop,
because it has nothing else to do meanwhile.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from actors.protocol.ids import new_id
from wrapper.faults import Fault, Faults
from wrapper.node import Call, CallFailed, Device, Node, NodeEnded, NodeSettings
from wrapper.recorder import obey
from wrapper.recordings import Recording, Recordings
from wrapper.telemetry import Emit, silent

REPORT_S: Final = 5.0  # three chances within the 15 s that commands call fresh
GROW_S: Final = 0.2
LINE: Final = b"%s %d frame %08d " + b"." * 64 + b"\n"
COMMANDS: Final = {
    "echo": "gives back its params",
    "device.info": "who answers: node, instance, connection, roles",
    "sleep": "params {s}: answers after that many seconds",
    "count": "params {n, every_s}: n progress reports, then an answer",
    "fail": "params {message}: fails",
    "never": "answers never",
}


@dataclass(frozen=True)
class FakeSettings:
    """``objects``: the folder that stands for the object store; None: keys and sums are told, nothing is stored."""

    url: str
    node_id: str
    roles: tuple[str, ...]
    folder: str
    token: Callable[[], str]
    objects: str | None = None
    faults: tuple[Fault, ...] = ()
    commands: tuple[str, ...] = tuple(COMMANDS)
    report_every_s: float = REPORT_S
    capabilities: Mapping[str, Any] = field(default_factory=lambda: {"fake": True})


class FakeDevice:
    def __init__(self, settings: FakeSettings, emit: Emit = silent) -> None:
        """Opens the folder. Raises SpoolLocked."""
        self.settings, self.emit = settings, emit
        self.recordings = Recordings(settings.folder)
        self.recorder = self.recordings.recorder()
        self.instance_id = new_id("instance")
        self.faults = Faults(settings.faults, self.recordings.passed)
        self.say_unknown = False  # the next report says that it does not know
        self.pump = asyncio.Event()  # something may be uploaded
        self.nodes: dict[str, Node] = {}
        for role in settings.roles:
            of_role = NodeSettings(
                settings.url,
                settings.node_id,
                role,
                settings.token,
                settings.commands,
                settings.capabilities,
                instance_id=self.instance_id,
                report_every_s=settings.report_every_s if role == "recorder" else None,
            )
            made = {"recorder": _Recorder, "transfer": _Transfer}.get(role, _Commands)(self, role)
            self.nodes[role] = Node(of_role, made, emit)

    async def run(self) -> NodeEnded:
        """Until one of its roles is told not to come back, or `leave`."""
        work: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {"recorder": self._record, "transfer": self._upload}
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(node.run()) for node in self.nodes.values()]
        tasks += [asyncio.create_task(does()) for role, does in work.items() if role in self.nodes]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            ended: NodeEnded = next(iter(done)).result()
            return ended
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.recordings.close()

    def leave(self) -> None:
        for node in self.nodes.values():
            node.leave()

    async def stumbles(self, role: str, point: str, also: str | None = None) -> str | None:
        """Lets happen what the script has here. `drop` and `skip`: end this step; else one of the point's own."""
        told = await self.faults.at(point, also)
        if told is not None:
            self.emit("fault", point=also or point, action=told)
        if told == "drop":
            self.nodes[role].cut()
        return told

    # ------------------------------------------------------------ the work that nobody asks for

    async def _record(self) -> None:
        n = 0
        while True:
            await asyncio.sleep(GROW_S)
            now = self.recorder
            if now.state == "recording" and now.task_id is not None:
                n += 1
                with self.recordings.path(now.task_id, now.attempt).open("ab") as file:
                    file.write(LINE % (now.task_id.encode(), now.attempt, n))

    async def _upload(self) -> None:
        """One at a time: whatever was asked for and is recorded; at the start too, without being asked again."""
        while True:
            for one in self.recordings.all():
                if one.wanted and one.state == "recorded":
                    await self._upload_one(one)
            await self.pump.wait()
            self.pump.clear()

    async def _upload_one(self, one: Recording) -> None:
        await self.say_upload(one, "progress", detail="0 %")
        source = self.recordings.path(one.task_id, one.attempt)
        data = source.read_bytes() if source.exists() else b""
        key = f"{self.settings.node_id}/{one.task_id}/{one.attempt}.bin"
        if self.settings.objects is not None:
            store(Path(self.settings.objects), key, data)
        here = await self.stumbles("transfer", "object")
        if here == "corrupt" and self.settings.objects is not None:
            store(Path(self.settings.objects), key, data + b"one line too many\n")
        if here in ("drop", "skip"):
            return
        self.recordings.uploaded(one.task_id, one.attempt, key, hashlib.sha256(data).hexdigest(), len(data))
        self.emit("upload.stored", task_id=one.task_id, attempt=one.attempt, bytes=len(data))
        await self.say_uploaded(one.task_id, one.attempt)

    def store_again(self, row: Recording) -> None:
        source = self.recordings.path(row.task_id, row.attempt)
        if self.settings.objects is not None and row.object_key is not None and source.exists():
            store(Path(self.settings.objects), row.object_key, source.read_bytes())

    async def say_uploaded(self, task_id: str, attempt: int) -> None:
        here = await self.stumbles("transfer", "uploaded")
        if here in ("drop", "skip"):
            return
        row = self.recordings.get(task_id, attempt)
        if row is None:
            return
        for _ in range(2 if here == "twice" else 1):
            await self.say_upload(row, "uploaded", object_key=row.object_key, sha256=row.sha256, size=row.size)
        await self.stumbles("transfer", "said")

    async def say_upload(self, one: Recording, status: str, **told: Any) -> None:
        frame = {"type": "upload", "task_id": one.task_id, "attempt": one.attempt, "status": status, **told}
        await self.nodes["transfer"].say(frame)


class _Commands(Device):
    """Any role: the commands of COMMANDS; one that was only declared gives back its params, like `echo`."""

    def __init__(self, fake: FakeDevice, role: str) -> None:
        self.fake, self.role = fake, role

    async def invoke(self, call: Call) -> Any:
        fake = self.fake
        if await fake.stumbles(self.role, "invoke") in ("drop", "skip"):
            await asyncio.Event().wait()
        if call.command not in fake.settings.commands:
            raise CallFailed(f"no such command: {call.command}")
        fake.recordings.ran(call.idempotency_key, call.command)
        params = call.params if isinstance(call.params, dict) else {}
        payload = await self._do(call, params)
        if await fake.stumbles(self.role, "result") in ("drop", "skip"):
            await asyncio.Event().wait()
        return payload

    async def _do(self, call: Call, params: Mapping[str, Any]) -> Any:
        match call.command:
            case "device.info":
                return {
                    "node_id": self.fake.settings.node_id,
                    "handled_by": self.fake.instance_id,
                    "connection_id": call.connection_id,
                    "roles": list(self.fake.nodes),
                    "idempotency_key": call.idempotency_key,
                }
            case "sleep":
                await asyncio.sleep(float(params.get("s", 1)))
                return {"slept_s": float(params.get("s", 1))}
            case "count":
                for n in range(1, int(params.get("n", 3)) + 1):
                    await asyncio.sleep(float(params.get("every_s", 0.1)))
                    await call.progress({"n": n})
                return {"counted": int(params.get("n", 3))}
            case "fail":
                raise CallFailed(str(params.get("message", "as asked")))
            case "never":
                await asyncio.Event().wait()
        return call.params


class _Recorder(_Commands):
    def reported(self) -> Mapping[str, Any]:
        return {"state": "unknown"} if self.fake.say_unknown else self.fake.recorder.reported()

    async def on_task(self, order: Mapping[str, Any]) -> None:
        fake = self.fake
        action, task_id, attempt = str(order.get("action")), str(order.get("task_id")), int(order.get("attempt") or 0)
        here = await fake.stumbles(self.role, "order", action)
        if here in ("drop", "skip"):
            return
        fake.recorder, deed = obey(fake.recorder, action, task_id, attempt)
        done = fake.recorder
        fake.recordings.obeyed(done, opens=deed == "open", keeps=deed == "keep", drops=deed == "drop")
        if deed == "open":
            fake.recordings.path(task_id, attempt).write_bytes(LINE % (task_id.encode(), attempt, 0))
        fake.emit("order", action=action, task_id=task_id, attempt=attempt, state=done.state, deed=deed)
        fake.pump.set()
        if await fake.stumbles(self.role, "obeyed") in ("drop", "skip"):
            return
        fake.say_unknown = here == "unknown"
        node = fake.nodes[self.role]
        await node.report()
        fake.say_unknown = False


class _Transfer(_Commands):
    def uploads(self) -> Sequence[Mapping[str, Any]]:
        told = []
        for one in self.fake.recordings.all():
            if one.open:
                status = "uploaded" if one.state == "uploaded" else "accepted"
                row: dict[str, Any] = {"task_id": one.task_id, "attempt": one.attempt, "status": status}
                if one.state == "uploaded":
                    row |= {"object_key": one.object_key, "sha256": one.sha256, "size": one.size}
                told.append(row)
        return told

    async def on_upload_request(self, task_id: str, attempt: int) -> None:
        fake = self.fake
        here = await fake.stumbles(self.role, "request")
        if here in ("drop", "skip"):
            return
        if here == "lose":
            fake.recordings.lost(task_id, attempt)
        row = fake.recordings.get(task_id, attempt)
        if here == "fail" and row is not None:
            await fake.say_upload(row, "failed", detail="as scripted")
            return
        if row is None or row.state == "discarded":
            await fake.say_upload(Recording(task_id, attempt, "discarded"), "not_found")
            return
        if row.state == "uploaded":
            fake.store_again(row)  # whoever asks again may have found something else there than what was told
        if row.state in ("uploaded", "kept"):
            await fake.say_uploaded(task_id, attempt)
            return
        fake.recordings.wanted(task_id, attempt)  # it may still be recording: then it follows when that is over
        if await fake.stumbles(self.role, "accepted") not in ("drop", "skip"):
            await fake.say_upload(row, "accepted")
        fake.pump.set()

    async def on_upload_ack(self, task_id: str, attempt: int, disposition: str) -> None:
        fake = self.fake
        row = fake.recordings.get(task_id, attempt)
        if await fake.stumbles(self.role, "ack") in ("drop", "skip") or row is None:
            return
        if disposition == "keep" and row.state != "uploaded":
            # Nothing of ours was uploaded, so nothing of ours may go; or it has gone, and this answers a repeat.
            fake.emit("upload.acknowledged_again", task_id=task_id, attempt=attempt, state=row.state)
            return
        fake.recordings.acknowledged(task_id, attempt, "kept" if disposition == "keep" else "discarded")
        fake.emit("upload.acknowledged", task_id=task_id, attempt=attempt, disposition=disposition)
        if await fake.stumbles(self.role, "acked") == "again":
            await fake.say_uploaded(task_id, attempt)


def store(root: Path, key: str, data: bytes) -> None:
    """All or nothing, and on disk before it is told: a reader never sees half an object."""
    target = root / key
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(target)


def to_lines(name: str, **fields: object) -> None:
    """One JSON object a line on stdout, for programs."""
    print(json.dumps({"event": name, **{k: v for k, v in fields.items() if v is not None}}), flush=True)
