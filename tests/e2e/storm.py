"""A fleet of wrappers in one process: the protocol spoken by hand, so a thousand of them cost a thousand sockets."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import aiohttp

from tests.e2e.service import Service


class Fleet:
    """idle: connected, nothing to do. running: an execution each, with a record before and one after the storm."""

    def __init__(self, service: Service, idle: int, running: int) -> None:
        self.service = service
        self.names = [f"idle{i}" for i in range(idle)] + [f"run{i}" for i in range(running)]
        self.sockets: dict[str, aiohttp.ClientWebSocketResponse] = {}
        self.attempts = itertools.count(1)
        self.acked: dict[str, int] = {}
        self.http = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {service.token}"}, connector=aiohttp.TCPConnector(limit=0)
        )

    async def _each(self, names: list[str], work: Any, at_once: int = 100) -> None:
        slots = asyncio.Semaphore(at_once)

        async def one(name: str) -> None:
            async with slots:
                await work(name)

        await asyncio.gather(*(one(name) for name in names))

    async def create(self, **fields: Any) -> None:
        async def one(name: str) -> None:
            async with self.http.post(f"{self.service.url}/v1/sessions", json={"session_id": name, **fields}) as answer:
                assert answer.status == 201, await answer.text()

        await self._each(self.names, one, 32)

    async def connect_all(self) -> None:
        await self._each(self.names, self._connect)
        running = [n for n in self.names if n.startswith("run")]

        async def start(name: str) -> None:
            url = f"{self.service.url}/v1/sessions/{name}/executions"
            async with self.http.post(url, json={"execution_id": "e1"}) as answer:
                assert answer.status == 202, await answer.text()
            ws = self.sockets[name]
            await ws.send_json({"type": "started", "execution_id": "e1", "seq": 1, "pid": 1})
            await self._until_acked(name, 1)
            await self._output(name)

        await self._each(running, start, 32)

    async def _connect(self, name: str) -> None:
        url = f"{self.service.url}/v1/sessions/{name}/ingest"
        ws = await self.http.ws_connect(url, protocols=("holdfast.v1",), autoping=True, max_msg_size=0)
        known = [{"execution_id": "e1", "state": "running", "first_seq": 1, "last_seq": self.acked.get(name, 0)}]
        await ws.send_json(
            {
                "type": "hello",
                "protocol": 1,
                "wrapper_id": f"w_{name}",
                "instance_id": f"i_{name}",
                "attempt": next(self.attempts),
                "executions": known if name in self.acked else [],
            }
        )
        hello_ack = await ws.receive_json(timeout=30)
        assert hello_ack["type"] == "hello_ack", hello_ack
        if name in self.acked:
            assert [d["directive"] for d in hello_ack["executions"]] == ["resume"]
        await ws.send_json({"type": "ready"})
        self.sockets[name] = ws

    async def _until_acked(self, name: str, seq: int) -> None:
        async with asyncio.timeout(30):
            async for message in self.sockets[name]:
                frame = message.json()
                if frame["type"] == "ack" and frame["seq"] >= seq:
                    self.acked[name] = frame["seq"]
                    return
        raise AssertionError(f"{name}: the socket ended before the ack of {seq}")

    async def _output(self, name: str) -> None:
        seq = self.acked[name] + 1
        events = [{"type": "output", "ts_ms": 1, "data": {"n": seq - 1}}]
        await self.sockets[name].send_json({"type": "events", "execution_id": "e1", "seq": seq, "events": events})
        await self._until_acked(name, seq)

    async def all_back(self, within: float) -> float:
        """Every socket is gone; each connects again, until it is in. Returns the seconds that all of it took."""
        began = time.monotonic()

        async def back(name: str) -> None:
            await self.sockets[name].close()
            while True:
                try:
                    await self._connect(name)
                    return
                except (aiohttp.ClientError, TimeoutError, TypeError):
                    assert time.monotonic() - began < within, name
                    await asyncio.sleep(0.1)

        await self._each(self.names, back)
        return time.monotonic() - began

    async def finish(self) -> None:
        async def one(name: str) -> None:
            await self._output(name)
            frame = {"type": "final", "execution_id": "e1", "seq": self.acked[name] + 1, "status": "completed"}
            await self.sockets[name].send_json(frame)
            await self._until_acked(name, frame["seq"])  # type: ignore[arg-type]

        await self._each([n for n in self.names if n.startswith("run")], one)
        await self.http.close()
