"""`holdfast top`: the fleet as a table that renews itself. It reads what anybody may read, and keeps nothing.

On a terminal the table is drawn in place; into a pipe, or with --once, it is printed once.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections import Counter
from typing import Any

from actors import show
from actors.http_client import Client, Problem

HOME_AND_CLEAR = "\x1b[H\x1b[J"


async def top(client: Client, *, interval_s: float, once: bool) -> None:
    """For ever, or once. A service that is away is said in place, and asked again."""
    drawn = sys.stdout.isatty() and not once
    while True:
        rows = shutil.get_terminal_size().lines - 4 if drawn else 200  # a screen; into a pipe, a page
        try:
            listed = await client.listed("/v1/sessions", {}, max(5, rows))
            text = page(listed)
        except Problem as problem:
            if not drawn:
                raise
            text = f"holdfast: {problem.detail}; trying again"
        print((HOME_AND_CLEAR if drawn else "") + text, flush=True)
        if not drawn:
            return
        await asyncio.sleep(interval_s)


def page(sessions: list[dict[str, Any]]) -> str:
    rows = [show.session_row(session) for session in sessions]
    links, states = Counter(str(row[1]) for row in rows), Counter(str(row[2]) for row in rows)
    summary = "  ".join(f"{n} {name}" for name, n in (*links.most_common(), *states.most_common()))
    return f"{len(rows)} sessions shown, newest activity first   {summary}\n" + show.table(rows, show.SESSION_HEAD)
