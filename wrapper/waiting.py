"""One way to wait for an event with a deadline, and how long a thread waits for another."""

from __future__ import annotations

import asyncio
from typing import Final

# The socket's thread and the spool's take turns; a turn of Python's usual 5 ms is as long as a frame takes to be made.
HANDOVER_S: Final = 0.0005


async def rung(event: asyncio.Event, within_s: float) -> bool:
    """True if it was set in time. Not `asyncio.wait_for`: until Python 3.12 that swallows a cancellation which comes
    in the same tick as the event, and a task that was told to end goes on for ever."""
    try:
        async with asyncio.timeout(within_s):
            return await event.wait()
    except TimeoutError:
        return False
