"""A client that says bytes: what no honest library would send, and what is answered to it."""

from __future__ import annotations

import asyncio
import base64
import os
import struct
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from tests.gateway.house import TOKENS, House


class Raw:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, house: House) -> Raw:
        where = urlsplit(house.url)
        return cls(*await asyncio.open_connection(where.hostname, where.port))

    @property
    def address(self) -> Any:
        return self.writer.get_extra_info("sockname")

    async def say(self, *lines: str | bytes) -> None:
        for line in lines:
            self.writer.write(line if isinstance(line, bytes) else line.encode("latin-1") + b"\r\n")
        await self.writer.drain()

    async def head(self, within: float = 10) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(within):
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = text.strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in rest)
        return int(first.split()[1]), headers

    async def answer(self, within: float = 10) -> tuple[int, dict[str, str], bytes]:
        status, headers = await self.head(within)
        return status, headers, await self.reader.readexactly(int(headers.get("content-length", 0)))

    async def ended(self, within: float) -> float:
        """Reads until the other side is gone; returns how long that took."""
        began = time.monotonic()
        async with asyncio.timeout(within):
            try:
                while await self.reader.read(65536):
                    continue
            except ConnectionError:
                pass
        return time.monotonic() - began

    async def upgrade(self, path: str, token: str | None = "wrapper", **headers: str) -> Raw:
        key = base64.b64encode(os.urandom(16)).decode()
        bearer = [f"Authorization: Bearer {TOKENS.get(token, token)}"] if token else []
        await self.say(
            f"GET {path} HTTP/1.1",
            "Host: x",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            *bearer,
            *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
            "",
        )
        return self

    def frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False) -> bytes:
        head = bytes([(fin << 7) | (rsv1 << 6) | opcode])
        n = len(payload)
        if n < 126:
            head += bytes([0x80 | n])
        elif n < 1 << 16:
            head += bytes([0x80 | 126]) + struct.pack("!H", n)
        else:
            head += bytes([0x80 | 127]) + struct.pack("!Q", n)
        return head + bytes(4) + payload  # a mask of zeros leaves the payload as it is

    async def closed(self, within: float = 10) -> int | None:
        """The close code that comes, whatever comes before it; None: cut without one."""
        async with asyncio.timeout(within):
            try:
                while True:
                    first, second = await self.reader.readexactly(2)
                    n = second & 0x7F
                    if n >= 126:
                        n = int.from_bytes(await self.reader.readexactly(2 if n == 126 else 8), "big")
                    payload = await self.reader.readexactly(n)
                    if first & 0xF == 8:
                        return int.from_bytes(payload[:2], "big")
            except (asyncio.IncompleteReadError, ConnectionError):
                return None

    async def flood(self, data: bytes, times: int) -> int:
        """Sends until the other side stops us; how often that went."""
        for n in range(times):
            try:
                self.writer.write(data)
                await self.writer.drain()
            except ConnectionError:
                return n
        return times

    def close(self) -> None:
        self.writer.close()


def bearer(token: str = "operator") -> str:
    return f"Authorization: Bearer {TOKENS[token]}"


Lines = Sequence[str]
