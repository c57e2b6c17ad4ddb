"""One way to wait for an event with a deadline."""

from __future__ import annotations

import asyncio


async def rung(event: asyncio.Event, within_s: float) -> bool:
    """True if it was set in time. Not `asyncio.wait_for`: until Python 3.12 that swallows a cancellation which comes
    in the same tick as the event, and a task that was told to end goes on for ever."""
    try:
        async with asyncio.timeout(within_s):
            return await event.wait()
    except TimeoutError:
        return False
