"""Decisions about nodes and tasks in SQL: read the NodeView, perform the effects, in an open write transaction."""

from __future__ import annotations

from typing import Any

from actors.law.model import Policy
from actors.law.requests import Request
from actors.protocol.defaults import SERVICE_STEP_MAX_S
from actors.store.contract import Outcome


class NodeTransitions:
    """Mixed into the store: needs `_c` (a connection), `policy` and `wall_ms()`."""

    _c: Any
    policy: Policy

    def wall_ms(self) -> int:
        raise NotImplementedError

    def service_ms_now(self) -> int:
        """The stored service time, carried on to this moment as the next tick will carry it, at most one step."""
        t, wall = self._c.execute("select t_ms, wall_ms from service_clock").fetchone()
        return int(t + min(max(self.wall_ms() - wall, 0), round(SERVICE_STEP_MAX_S * 1000)))

    def node_transition(self, request: Request) -> Outcome:
        raise NotImplementedError
