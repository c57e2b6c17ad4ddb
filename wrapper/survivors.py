"""What stands in `runs/` at start and the spool does not account for: ended by the ladder, never run again.

That happens when a spool is unreadable or was restored from a backup. The directories are the better witness: an
execution that the spool calls `received` and whose gate was opened on disk did run, and is adopted as it is.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final

from wrapper.ports import Shims
from wrapper.runner import Call
from wrapper.spool import Spool
from wrapper.telemetry import Emit

LOOK_S: Final = 0.1
LADDER_S: Final = 20.0  # the shim's own ladder is over after 14


async def adopt(spool: Spool, call: Call, shims: Shims) -> list[str]:
    """Adopts what ran. Returns the directories that the spool does not name."""
    runs = os.path.join(spool.dir, "runs")
    names = shims.names(runs)
    kept: set[str] = set()
    for row in await call(spool.executions):
        if row.state == "received":
            ran = [
                name
                for name in names
                if name.rpartition(".")[0] == row.execution_id and shims.opened(os.path.join(runs, name))
            ]
            if ran:
                await call(spool.adopt, row.no, ran[-1])
                kept.add(ran[-1])
                continue
        if row.run_dir is not None:
            kept.add(row.run_dir)
    return [name for name in names if name not in kept]


async def end(spool: Spool, call: Call, emit: Emit, names: list[str], shims: Shims) -> None:
    """Ends what nobody knows, by the shim's own ladder."""
    await asyncio.gather(*(_end(spool, call, emit, name, shims) for name in names))


async def _end(spool: Spool, call: Call, emit: Emit, name: str, shims: Shims) -> None:
    path = os.path.join(spool.dir, "runs", name)
    shim = shims.adopt(path)
    if shim is not None:
        if shim.alive():
            emit("survivor.ending", run=name)
            shim.tell("end")
            deadline = asyncio.get_running_loop().time() + LADDER_S
            # Nobody rings here: this shim's bell has no listener.
            while shim.alive() and shim.report() is None and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S)
        shim.kill(shim=True, agent=True)
        if shim.opened() and await call(spool.get, name.rpartition(".")[0]) is None:
            await call(spool.bury, name.rpartition(".")[0])
        shim.close()
    shims.clear(path)
