"""The service's end of PROTOCOL §4 in memory, for the device side's tests: every frame is checked against the
protocol's own models, and what is wrong is a complaint that fails the test.

`Door` is only a door: the test says each frame itself. `Collector` is a small honest service behind it: one task, from
`config` to the acknowledged upload, told again and again until the device's own words show that it was done.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web
from pydantic import TypeAdapter, ValidationError

from actors.protocol.node_frames import FromNode

FRAME: TypeAdapter[Any] = TypeAdapter(FromNode)


class Door:
    def __init__(self, node_id: str = "dev") -> None:
        self.node_id = node_id
        self.hellos: list[dict[str, Any]] = []
        self.frames: list[dict[str, Any]] = []
        self.results: dict[str, dict[str, Any]] = {}
        self.complaints: list[str] = []
        self.tokens: list[str | None] = []
        self.sockets: dict[str, web.WebSocketResponse] = {}
        self.directives: list[dict[str, Any]] = []
        self.refuse: web.Response | None = None
        self._n = 0
        self._port = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get(f"/v1/nodes/{self.node_id}/connect", self._connect)
        self.add_routes(app)
        self._runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def stop(self) -> None:
        for role in list(self.sockets):
            self.cut(role)
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    # ------------------------------------------------------------ what the test does

    def cut(self, role: str) -> None:
        ws = self.sockets.pop(role, None)
        if ws is not None and ws._req is not None and ws._req.transport is not None:
            ws._req.transport.abort()

    async def close(self, role: str, code: int, reason: str = "") -> None:
        await self.sockets.pop(role).close(code=code, message=reason.encode())

    async def say(self, role: str, frame: dict[str, Any]) -> None:
        ws = self.sockets.get(role)
        if ws is not None:
            try:
                await ws.send_str(json.dumps(frame))
            except ConnectionError:
                return

    async def invoke(self, role: str, invocation_id: str, command: str, params: Any = None, **more: Any) -> None:
        frame = {"type": "invoke", "invocation_id": invocation_id, "command": command, "params": params}
        await self.say(role, {**frame, "within_s": 30.0, "idempotency_key": invocation_id, **more})

    def of_type(self, name: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["type"] == name]

    def states(self) -> list[str]:
        return [frame["reported"]["state"] for frame in self.of_type("state")]

    # ------------------------------------------------------------ the door

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        self.tokens.append(request.headers.get("Authorization"))
        if self.refuse is not None:
            return web.Response(status=self.refuse.status, content_type="application/problem+json", text="{}")
        role = request.query["role"]
        ws = web.WebSocketResponse(protocols=("holdfast.v1",), compress=False, max_msg_size=1 << 20)
        await ws.prepare(request)
        async for message in ws:
            if message.type is not WSMsgType.TEXT:
                self.complaints.append(f"a {message.type} frame")
                continue
            frame = json.loads(message.data)
            try:
                FRAME.validate_python(frame)
            except ValidationError as error:
                self.complaints.append(f"{frame}: {error}")
                continue
            if frame["type"] == "hello":
                await self._welcome(ws, role, frame)
            else:
                self.frames.append(frame)
                if frame["type"] == "invoke_result":
                    self.results[frame["invocation_id"]] = frame
            await self.on_frame(role, frame)
        if self.sockets.get(role) is ws:
            del self.sockets[role]
        self.on_gone(ws)
        return ws

    def add_routes(self, app: web.Application) -> None:
        """For those who are more than a door."""

    def on_gone(self, ws: web.WebSocketResponse) -> None: ...

    async def _welcome(self, ws: web.WebSocketResponse, role: str, hello: dict[str, Any]) -> None:
        self._n += 1
        self.hellos.append({**hello, "role": role})
        self.sockets[role] = ws
        ack = {
            "type": "hello_ack",
            "connection_id": f"con_{self._n}",
            "epoch": self._n,
            "node_id": self.node_id,
            "role": role,
            "server_time_ms": 0,
            "heartbeat_interval_s": 0.2,
            "max_frame_bytes": 1 << 20,
            "directives": self.directives,
        }
        await ws.send_str(json.dumps(ack))

    async def on_frame(self, role: str, frame: dict[str, Any]) -> None:
        """For Collector."""


class Collector(Door):
    """One task with a recording, and what a service knows of it. Acknowledges only what it has verified and written
    down; checks that the device never throws away a recording before that."""

    def __init__(self, objects: Path, node_id: str = "dev") -> None:
        super().__init__(node_id)
        self.objects = objects
        self.phase = "config"  # → begin → finish → upload → done
        self.artifacts: list[dict[str, Any]] = []
        self.mismatches = 0
        self.not_found = 0
        self.completes = 0
        self.cancelled = False  # what comes now is discarded
        self.recorded_s = 0.05
        self._pacing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await super().start()
        self._pacing = asyncio.create_task(self._pace())

    async def stop(self) -> None:
        assert self._pacing is not None
        self._pacing.cancel()
        await asyncio.gather(self._pacing, return_exceptions=True)
        await super().stop()

    async def _pace(self) -> None:
        """Level-triggered: whatever is wanted now is said now, and again."""
        while True:
            await asyncio.sleep(0.1)
            if self.phase == "upload":
                await self.say("transfer", {"type": "upload_request", "task_id": "t1", "attempt": 1})
            elif self.phase != "done":
                order = {"type": "task", "action": self.phase, "task_id": "t1", "attempt": 1, "params": None}
                await self.say("recorder", order)

    async def on_frame(self, role: str, frame: dict[str, Any]) -> None:
        reported = frame.get("reported") or {}
        holds = reported.get("task_id") == "t1"
        match reported.get("state"):
            case "ready" if holds and self.phase == "config":
                self.phase = "begin"
            case "recording" if holds and self.phase in ("config", "begin"):
                await asyncio.sleep(self.recorded_s)
                self.phase = "finish"
            case "idle" if self.phase == "finish":
                self.phase = "upload"
        for row in [frame] if frame["type"] == "upload" else frame.get("uploads") or []:
            await self._on_upload(row)

    async def _on_upload(self, row: dict[str, Any]) -> None:
        if row["status"] == "not_found":
            self.not_found += 1
        if row["status"] != "uploaded":
            return
        self.completes += 1
        if not self.cancelled and not self.artifacts:
            data = (self.objects / row["object_key"]).read_bytes()
            if (hashlib.sha256(data).hexdigest(), len(data)) != (row["sha256"], row["size"]):
                self.mismatches += 1
                return
            self.artifacts.append(row)
        self.phase = "done"
        disposition = "discard" if self.cancelled else "keep"
        ack = {"type": "upload_ack", "task_id": row["task_id"], "attempt": row["attempt"], "disposition": disposition}
        await self.say("transfer", ack)
