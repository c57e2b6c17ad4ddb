"""An honest gateway in memory: numbering, acks, nacks and directives strictly by PROTOCOL §2; every frame is checked
against the protocol's own models, and whatever is wrong is a complaint that fails the test."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web
from pydantic import TypeAdapter, ValidationError

from actors.protocol.frames import FromWrapper

FRAME: TypeAdapter[Any] = TypeAdapter(FromWrapper)
TERMINAL = ("completed", "failed", "interrupted")


@dataclass
class Exe:
    execution_id: str
    status: str = "pending"
    acked: int = 0
    records: list[tuple[int, str, Any]] = field(default_factory=list)  # seq, kind, body
    final: dict[str, Any] | None = None
    late_final: dict[str, Any] | None = None
    waiting_for: int | None = None  # after `nack gap`: frames are dropped until this seq

    def output(self, stream: str = "stdout") -> bytes:
        import base64

        whole = []
        for _, kind, body in self.records:
            if kind == "event" and body["type"] == "output" and body["data"]["stream"] == stream:
                data = body["data"]
                whole.append(data["text"].encode("utf-8") if "text" in data else base64.b64decode(data["base64"]))
        return b"".join(whole)

    def events(self, type_: str) -> list[dict[str, Any]]:
        return [body for _, kind, body in self.records if kind == "event" and body["type"] == type_]

    def kinds(self) -> list[str]:
        return [kind for _, kind, _ in self.records]


class FakeGateway:
    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.executions: dict[str, Exe] = {}
        self.commands: list[dict[str, Any]] = []
        self.command_acks: list[tuple[str, str, str | None]] = []
        self.hellos: list[dict[str, Any]] = []
        self.frames: list[dict[str, Any]] = []
        self.heartbeats: list[dict[str, Any]] = []
        self.ephemeral: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        self.tokens: list[str | None] = []
        self.ws: web.WebSocketResponse | None = None
        self.ready = False
        self.dials = 0
        self.reject: web.Response | None = None  # answer upgrades with this
        self.accept = True  # False: cut at once
        self.ack = True  # False: commit, say nothing
        self.listen = asyncio.Event()
        self.listen.set()  # cleared: reads nothing
        self.refuse: dict[str, str] = {}  # kind or event type → nack code
        self.hold_started = False
        self.grace_s = 1.0
        self.window_bytes = 262144
        self.max_frame_bytes = 1 << 20
        self._n = 0
        self._runner: web.AppRunner | None = None
        self._port = 0

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get(f"/v1/sessions/{self.session_id}/ingest", self._ingest)
        self._runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def stop(self) -> None:
        await self.cut()
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    # ------------------------------------------------------------ the operator

    async def submit(self, execution_id: str, input: Any = None, limits: dict[str, Any] | None = None) -> Exe:
        exe = self.executions[execution_id] = Exe(execution_id)
        await self.command("start", execution_id, input=input, limits=limits or {})
        return exe

    async def command(self, kind: str, execution_id: str, **fields: Any) -> str:
        self._n += 1
        command_id = f"cmd_{self._n}"
        self.commands.append(
            {"type": "command", "command_id": command_id, "kind": kind, "execution_id": execution_id, **fields}
        )
        await self._flush_commands()
        return command_id

    async def interrupt(self, execution_id: str, **fields: Any) -> str:
        body = {"interrupt_id": "int_1", "reason": "enough", "force": False, "within_s": 20.0, **fields}
        return await self.command("interrupt", execution_id, **body)

    def acks_of(self, command_id: str) -> list[str]:
        return [status for one, status, _ in self.command_acks if one == command_id]

    async def cut(self) -> None:
        """Without a word, as a cable does."""
        if self.ws is not None and self.ws._req is not None and self.ws._req.transport is not None:
            self.ws._req.transport.abort()
        self.ws, self.ready = None, False

    async def close(self, code: int, reason: str = "") -> None:
        if self.ws is not None:
            await self.ws.close(code=code, message=reason.encode())

    # ------------------------------------------------------------ the door

    async def _ingest(self, request: web.Request) -> web.StreamResponse:
        self.dials += 1
        self.tokens.append(request.headers.get("Authorization"))
        if self.reject is not None:
            return self.reject.clone() if hasattr(self.reject, "clone") else self._problem(self.reject)
        if not self.accept:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        ws = web.WebSocketResponse(protocols=("holdfast.v1",), compress=False, max_msg_size=self.max_frame_bytes)
        await ws.prepare(request)
        self.ready = False
        async for message in ws:
            await self.listen.wait()
            if message.type is not WSMsgType.TEXT:
                self.complaints.append(f"a {message.type} frame")
                continue
            frame = json.loads(message.data)
            try:
                FRAME.validate_python(frame)
            except ValidationError as error:
                self.complaints.append(f"{frame}: {error}")
                continue
            self.frames.append(frame)
            await self._take(ws, frame)
        if self.ws is ws:
            self.ws, self.ready = None, False
        return ws

    @staticmethod
    def _problem(like: web.Response) -> web.Response:
        return web.Response(status=like.status, body=like.body, content_type=like.content_type)

    async def _say(self, ws: web.WebSocketResponse, frame: dict[str, Any]) -> None:
        try:
            await ws.send_str(json.dumps(frame))
        except ConnectionError:
            return

    async def _take(self, ws: web.WebSocketResponse, frame: dict[str, Any]) -> None:
        match frame["type"]:
            case "hello":
                self.hellos.append(frame)
                self.ws = ws
                await self._say(ws, self._hello_ack(frame))
            case "ready":
                self.ready = True
                await self._flush_commands()
            case "heartbeat":
                self.heartbeats.append(frame)
            case "ephemeral":
                self.ephemeral.append(frame)
            case "command_ack":
                self.command_acks.append((frame["command_id"], frame["status"], frame["code"]))
                self.commands = [one for one in self.commands if one["command_id"] != frame["command_id"]]
            case _:
                await self._record(ws, frame)

    async def _flush_commands(self) -> None:
        if self.ws is not None and self.ready:
            for command in list(self.commands):
                await self._say(self.ws, command)

    def _hello_ack(self, hello: dict[str, Any]) -> dict[str, Any]:
        directives = []
        for told in hello["executions"]:
            exe = self.executions.get(told["execution_id"])
            acked, reason = (exe.acked if exe else 0), None
            if told["state"] == "received":
                directive = "resume" if exe is not None and exe.status not in TERMINAL else "discard"
            elif exe is None:
                directive, reason = "abort", "unknown"
            elif exe.status not in TERMINAL:
                directive = "resume"
            elif told["state"] == "final":
                directive = "done"
                exe.late_final = told["final"]
            else:
                directive, reason = "abort", "it has ended"
            if exe is not None:
                exe.waiting_for = None
            directives.append(
                {"execution_id": told["execution_id"], "directive": directive, "acked_seq": acked, "reason": reason}
            )
        return {
            "type": "hello_ack",
            "connection_id": "con_1",
            "epoch": len(self.hellos),
            "session_id": self.session_id,
            "server_time_ms": 0,
            "heartbeat_interval_s": 0.5,
            "grace_s": self.grace_s,
            "max_frame_bytes": self.max_frame_bytes,
            "window_bytes": self.window_bytes,
            "executions": directives,
        }

    async def _record(self, ws: web.WebSocketResponse, frame: dict[str, Any]) -> None:
        exe = self.executions.get(frame["execution_id"])
        first = frame["seq"]

        async def nack(code: str, expected: int | None) -> None:
            body = {"type": "nack", "execution_id": frame["execution_id"], "code": code, "expected_seq": expected}
            await self._say(ws, {**body, "detail": None})

        if exe is None:
            return await nack("unknown_execution", None)
        records = self._split(frame)
        last = records[-1][0]
        if exe.status in TERMINAL and last > exe.acked:
            return await nack("terminal", exe.acked + 1)
        if last <= exe.acked:
            return await self._ack(ws, exe)
        if first > exe.acked + 1:
            if exe.waiting_for is None:
                exe.waiting_for = exe.acked + 1
                await nack("gap", exe.acked + 1)
            return None
        exe.waiting_for = None
        for _, kind, body in records:
            code = self.refuse.get(kind) or (kind == "event" and self.refuse.get(body["type"]))
            if code and not (kind == "final" and "data" not in body):
                return await nack(code, exe.acked + 1)
        if frame["type"] == "started" and self.hold_started:
            return None
        for seq, kind, body in records:
            if seq <= exe.acked:
                continue
            if exe.status == "pending":
                if kind != "started":
                    self.complaints.append(f"{kind} before started")
                exe.status = "running"
            elif kind == "started":
                self.complaints.append("started twice")
            exe.records.append((seq, kind, body))
            exe.acked = body["to_seq"] if kind == "gap" else seq
            if kind == "final":
                exe.status, exe.final = body["status"], body
        await self._ack(ws, exe)
        return None

    @staticmethod
    def _split(frame: dict[str, Any]) -> list[tuple[int, str, Any]]:
        if frame["type"] == "events":
            return [(frame["seq"] + n, "event", event) for n, event in enumerate(frame["events"])]
        return [(frame.get("to_seq", frame["seq"]), frame["type"], frame)]

    async def _ack(self, ws: web.WebSocketResponse, exe: Exe) -> None:
        if self.ack:
            await self._say(ws, {"type": "ack", "execution_id": exe.execution_id, "seq": exe.acked})
