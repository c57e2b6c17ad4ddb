"""What an order's decision wants told to devices, taken to their nodes' mailboxes: in the background, and bounded.

Downward only: whoever decided for the order has its answer already, so an order never waits for a node (ADR 9). What
is said here is a hint. The notice is a row with a deadline of the node, so one that is dropped, or that nobody was
there to hear, is taken by the reaper's sweep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from actors.law.effects import NodeNoticed
from actors.law.nodes.requests import TakeNotice
from actors.law.requests import Request
from actors.protocol.errors import HoldfastError
from actors.protocol.ids import Mint, ulid
from actors.store.contract import Outcome
from actors.telemetry import emit

AT_ONCE: Final = 8  # a frozen node actor holds one of them for CONTROL_DEADLINE_S, the others go on
WAITING_MAX: Final = 1000  # said to a thousand devices at once; what comes beyond is taken by its deadline


class Notices:
    """perform: to a committed outcome, spoken."""

    def __init__(
        self,
        perform: Callable[[Request], Awaitable[Outcome]],
        spawn: Callable[[Coroutine[Any, Any, Any]], Any],
        mint: Mint = ulid,
    ) -> None:
        self._perform, self._spawn, self._mint = perform, spawn, mint
        self._waiting: set[tuple[str, str]] = set()
        self._turns = asyncio.Semaphore(AT_ONCE)

    def later(self, said: NodeNoticed) -> None:
        what = (said.node_id, said.notice_id)
        if what not in self._waiting and len(self._waiting) < WAITING_MAX:
            self._waiting.add(what)
            self._spawn(self._take(*what))

    async def _take(self, node_id: str, notice_id: str) -> None:
        try:
            async with self._turns:
                await self._perform(TakeNotice(node_id=node_id, notice_id=notice_id, seed=self._mint()))
        except HoldfastError as error:
            emit("notice.untaken", node_id=node_id, notice_id=notice_id, code=error.code)
        finally:
            self._waiting.discard((node_id, notice_id))
