"""A bad line to the service: a loopback TCP proxy that cuts every connection after a few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


class BadLine:
    def __init__(self, host: str, port: int, cut_every_s: float = 3.0) -> None:
        self._to, self.cut_every_s = (host, port), cut_every_s
        self.cuts = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def heal(self) -> None:
        """From now on it is a good line."""
        self.cut_every_s = 3600.0

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._carry(reader, writer)
        finally:
            self._tasks.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._to)
        except OSError:
            writer.transport.abort()
            return
        pumps = [asyncio.create_task(_pump(reader, up_writer)), asyncio.create_task(_pump(up_reader, writer))]
        try:
            done, _ = await asyncio.wait(pumps, timeout=self.cut_every_s, return_when=asyncio.FIRST_COMPLETED)
            self.cuts += not done
        finally:
            await _end(pumps)
            for side in (writer, up_writer):
                side.transport.abort()  # no goodbye: that is what a bad line is like


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        return  # one side is gone: so is the line


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
