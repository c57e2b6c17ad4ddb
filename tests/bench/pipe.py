"""The yardstick of B12: a command's output shown, kept on the disk, and stored durably elsewhere; and nothing else.

A thread reads the pipe, writes a file (synced every 4 MiB, as the shim's segments are) and shows what it read; the loop
sends what the file has to the committing relay, as JSON text in frames of 512 KiB, four on their way at most. It ends
when all is acknowledged. It has no records, no numbers, no start, no end, nothing that survives it, and nobody may come
back. `python -m tests.bench.pipe URL FILE COMMAND…`
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

READ_BYTES, SYNC_BYTES, FRAME_BYTES, IN_FLIGHT = 256 << 10, 4 << 20, 512 << 10, 4


def keep(pipe: int, path: Path, grown: Callable[[int], None]) -> None:
    """Until the pipe ends; then it has grown by 0."""
    unsynced = 0
    with path.open("wb", buffering=0) as file:
        while data := os.read(pipe, READ_BYTES):
            file.write(data)
            unsynced += len(data)
            if unsynced >= SYNC_BYTES:
                os.fdatasync(file.fileno())
                unsynced = 0
            sys.stdout.buffer.write(data)
            grown(len(data))
        os.fdatasync(file.fileno())
    sys.stdout.buffer.flush()
    grown(0)


async def run(url: str, path: Path, argv: list[str]) -> int:
    import aiohttp

    loop = asyncio.get_running_loop()
    sizes: asyncio.Queue[int] = asyncio.Queue()  # a number for each read of the command's output
    path.touch()
    async with aiohttp.ClientSession() as http, http.ws_connect(url, compress=0, max_msg_size=0) as ws:
        child = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert child.stdout is not None

        def grown(size: int) -> None:
            loop.call_soon_threadsafe(sizes.put_nowait, size)

        keeper = threading.Thread(target=keep, args=(child.stdout.fileno(), path, grown))
        keeper.start()
        sent = acked = ready = 0
        over = False
        with path.open("rb") as file:
            while True:
                while not sizes.empty() or not (ready or over):
                    size = await sizes.get()
                    ready, over = ready + size, over or not size
                if not ready:
                    break
                while sent - acked >= IN_FLIGHT:
                    acked = (await ws.receive_json())["seq"]
                data = file.read(min(ready, FRAME_BYTES))
                ready -= len(data)
                await ws.send_str(json.dumps(data.decode()))
                sent += 1
        while acked < sent:
            acked = (await ws.receive_json())["seq"]
        keeper.join()
        return child.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(run(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])))
