"""A gateway with the real SQLite store in this process, and raw clients that say exactly what a test wants said."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from actors.config import Settings
from actors.gateway.auth import hash_of
from actors.gateway.service import Gateway
from actors.mailbox import ActorPort, Mailbox, NoActors
from actors.protocol.codes import SUBPROTOCOL
from actors.store.contract import Token
from actors.store.sqlite import SqliteStore
from actors.store.worker import StoreWorker

Frame = dict[str, Any]
TOKENS = {"admin": "t-admin", "operator": "t-operator", "reader": "t-reader", "wrapper": "t-wrapper"}


async def eventually(fact: Callable[[], Any], within: float = 10.0, what: str = "") -> Any:
    """Waits for an observable fact, plain or awaitable; returns its value."""
    end = time.monotonic() + within
    while True:
        value = fact()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert time.monotonic() < end, f"not within {within} s: {what or fact} (last: {value!r})"
        await asyncio.sleep(0.01)


class House:
    def __init__(self, folder: Path, **settings: Any) -> None:
        self.settings = Settings(**{"port": 0, "data_dir": folder, "allow_short_grace": True, **settings})
        self.options: dict[str, Any] = {}
        self.url = ""
        self.actors: ActorPort = NoActors()  # another may be set before `open`
        self.held: list[aiohttp.ClientWebSocketResponse] = []

    async def open(self, **options: Any) -> House:
        self.options = options
        self.worker = StoreWorker(self._store, on_broken=lambda error: None)
        await self.worker.start()
        for scope, secret in TOKENS.items():
            token = Token(f"tok_{scope}", scope)
            await self.worker.write(lambda store, s=secret, t=token: store.put_token(hash_of(s), t))
        self.gateway = Gateway(self.settings, self.worker, Mailbox(self.worker.perform, self.actors), **options)
        self.url = await self.gateway.start()
        self.client = aiohttp.ClientSession()
        return self

    def _store(self) -> SqliteStore:
        return SqliteStore.open(self.settings.store_path, self.settings.policy(), checkpoints=True, synchronous="OFF")

    async def close(self) -> None:
        await self.client.close()
        await self.gateway.stop()
        await self.worker.close()

    # ------------------------------------------------------------ HTTP

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = "operator",
        status: int | None = None,
        **more: Any,
    ) -> Any:
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {TOKENS.get(token, token)}"
        async with self.client.request(method, self.url + path, json=body, headers=headers, **more) as response:
            text = await response.text()
            answer = json.loads(text) if text else None
            if status is not None:
                assert response.status == status, (response.status, text)
            else:
                assert response.status < 300, (response.status, text)
            if response.status >= 400:
                assert response.content_type == "application/problem+json"
            return answer

    async def session(self, session_id: str = "s", **fields: Any) -> Frame:
        made: Frame = await self.call("POST", "/v1/sessions", {"session_id": session_id, **fields})
        return made

    async def submit(self, session_id: str = "s", execution_id: str = "e", **fields: Any) -> Frame:
        path = f"/v1/sessions/{session_id}/executions"
        made: Frame = await self.call("POST", path, {"execution_id": execution_id, **fields})
        return made

    async def events(self, session_id: str = "s", **query: Any) -> list[Frame]:
        page = await self.call("GET", f"/v1/sessions/{session_id}/events", params={"limit": 500, **query})
        return list(page["items"])

    async def execution(self, session_id: str = "s", execution_id: str = "e") -> Frame:
        found: Frame = await self.call("GET", f"/v1/sessions/{session_id}/executions/{execution_id}")
        return found

    # ------------------------------------------------------------ sockets

    async def socket(self, path: str, token: str | None = "wrapper", **more: Any) -> Socket:
        headers = {"Authorization": f"Bearer {TOKENS.get(token, token)}"} if token else {}
        ws = await self.client.ws_connect(
            self.url + path, headers=headers, protocols=(SUBPROTOCOL,), max_msg_size=0, autoping=True, **more
        )
        self.held.append(ws)  # one that nobody holds is closed by the garbage collector
        return Socket(ws)

    async def ingest(self, session_id: str = "s", token: str | None = "wrapper", **more: Any) -> Socket:
        return await self.socket(f"/v1/sessions/{session_id}/ingest", token, **more)

    async def wrapper(self, session_id: str = "s", *, ready: bool = True, **hello_fields: Any) -> Socket:
        """Connected, and its hello acknowledged."""
        socket = await self.ingest(session_id)
        await socket.say(hello(**hello_fields))
        socket.hello_ack = await socket.hear("hello_ack")
        if ready:
            await socket.say({"type": "ready"})
        return socket

    async def running(self, session_id: str = "s", execution_id: str = "e", **hello_fields: Any) -> Socket:
        """A session with a running execution and its wrapper; `started` is acknowledged."""
        await self.session(session_id)
        socket = await self.wrapper(session_id, **hello_fields)
        await self.submit(session_id, execution_id)
        await socket.hear("command")
        await socket.say(started(execution_id))
        assert (await socket.hear("ack"))["seq"] == 1
        return socket

    # ------------------------------------------------------------ nodes

    async def node_token(self, node_id: str = "n", secret: str | None = None) -> str:
        """The secret of a token for this node and no other."""
        secret = secret or f"t-{node_id}"
        token = Token(f"tok_{secret}", "node", node_id=node_id)
        await self.worker.write(lambda store: store.put_token(hash_of(secret), token))
        return secret

    async def node(self, node_id: str = "n", role: str = "node", *, token: str | None = None, **hello: Any) -> Socket:
        """Connected in a role, and its hello acknowledged."""
        secret = token or await self.node_token(node_id)
        socket = await self.socket(f"/v1/nodes/{node_id}/connect?role={role}", secret)
        await socket.say(node_hello(**hello))
        socket.hello_ack = await socket.hear("hello_ack")
        return socket

    async def shown(self, node_id: str = "n") -> Frame:
        found: Frame = await self.call("GET", f"/v1/nodes/{node_id}")
        return found

    def invoke(self, node_id: str = "n", command: str = "echo", **body: Any) -> asyncio.Task[Frame]:
        """Asked in the background: the caller waits, and the test plays the node."""
        headers = {"Idempotency-Key": body.pop("key")} if "key" in body else {}
        path = f"/v1/nodes/{node_id}/invoke"
        return asyncio.create_task(self.call("POST", path, {"command": command, **body}, headers=headers))

    async def invocation(self, invocation_id: str) -> Frame:
        found: Frame = await self.call("GET", f"/v1/invocations/{invocation_id}")
        return found

    async def log(self, node_id: str = "n") -> list[Frame]:
        page = await self.call("GET", f"/v1/nodes/{node_id}/events", params={"limit": 500})
        return list(page["items"])

    # ------------------------------------------------------------ watchers

    async def watch(self, session_id: str = "s", token: str = "reader", **query: Any) -> Socket:
        words = "&".join(f"{k}={v}" for k, v in query.items())
        return await self.socket(f"/v1/sessions/{session_id}/stream?{words}", token)


class Socket:
    """`hear` returns the next frame of a type; others that came before are kept in `heard`."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.heard: list[Frame] = []
        self.hello_ack: Frame = {}

    async def say(self, *frames: Frame | str | bytes) -> None:
        for frame in frames:
            if isinstance(frame, bytes):
                await self.ws.send_frame(frame, aiohttp.WSMsgType.TEXT)
            else:
                await self.ws.send_str(frame if isinstance(frame, str) else json.dumps(frame))

    async def next(self, within: float = 10.0) -> Frame:
        message = await self.ws.receive(timeout=within)
        assert message.type is aiohttp.WSMsgType.TEXT, (message, self.ws.close_code)
        frame: Frame = json.loads(message.data)
        self.heard.append(frame)
        return frame

    async def hear(self, kind_: str, within: float = 10.0, **wanted: Any) -> Frame:
        end = time.monotonic() + within
        while True:
            frame = await self.next(max(0.01, end - time.monotonic()))
            if frame["type"] == kind_ and all(frame.get(k) == v for k, v in wanted.items()):
                return frame

    async def acked(self, seq: int, execution_id: str = "e") -> None:
        while (await self.hear("ack", execution_id=execution_id))["seq"] < seq:
            continue

    async def closed(self, within: float = 10.0) -> tuple[int | None, str]:
        """The close code and reason; frames before it are kept."""
        end = time.monotonic() + within
        while True:
            message = await self.ws.receive(timeout=max(0.01, end - time.monotonic()))
            if message.type is aiohttp.WSMsgType.TEXT:
                self.heard.append(json.loads(message.data))
            elif message.type is aiohttp.WSMsgType.CLOSE:
                return message.data, message.extra or ""
            else:
                return self.ws.close_code, ""

    async def stored(self, upto: int, within: float = 10.0) -> list[Frame]:
        """A watcher's stored events up to seq."""
        found: list[Frame] = []
        while not found or found[-1]["seq"] < upto:
            found += (await self.hear("events", within))["events"]
        return found

    async def close(self, code: int = 1000, reason: bytes = b"") -> None:
        await self.ws.close(code=code, message=reason)


# ---------------------------------------------------------------- frames


def hello(**fields: Any) -> Frame:
    return {
        "type": "hello",
        "protocol": 1,
        "wrapper_id": "w_1",
        "instance_id": "i_1",
        "attempt": 1,
        "client": {"name": "test", "version": "0", "capabilities": []},
        "executions": [],
        "spool": {"state": "ok", "bytes": 0, "limit_bytes": 1},
        **fields,
    }


def node_hello(**fields: Any) -> Frame:
    return {
        "type": "hello",
        "protocol": 1,
        "instance_id": "i_1",
        "client": {"name": "test", "version": "0", "capabilities": []},
        "commands": ["echo", "device.info"],
        "capabilities": {},
        **fields,
    }


def result(invoke: Frame, payload: Any = None, **fields: Any) -> Frame:
    said = {"type": "invoke_result", "invocation_id": invoke["invocation_id"], "ok": True, "payload": payload}
    return {**said, **fields}


def started(execution_id: str = "e", seq: int = 1) -> Frame:
    return {"type": "started", "execution_id": execution_id, "seq": seq, "pid": 1}


def event(text: str = "x", type: str = "output") -> Frame:
    return {"type": type, "ts_ms": 1, "data": {"stream": "stdout", "text": text}}


def output(seq: int, *texts: str, execution_id: str = "e") -> Frame:
    return {"type": "events", "execution_id": execution_id, "seq": seq, "events": [event(t) for t in texts or ("x",)]}


def final(seq: int, execution_id: str = "e", **fields: Any) -> Frame:
    return {"type": "final", "execution_id": execution_id, "seq": seq, "status": "completed", "exit_code": 0, **fields}


def texts(events: list[Frame]) -> list[str]:
    return [e["data"]["text"] for e in events if e["type"] == "output"]
