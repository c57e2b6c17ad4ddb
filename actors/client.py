"""For programs inside the cluster: operate sessions over Ray, without HTTP.

    client = Client.connect(Path("~/.local/share/holdfast").expanduser())
    client.start_execution("robot-7", input="fetch the box")
    client.interrupt("robot-7", reason="enough")

Every call goes to the gateway actor, and from there to the session's actor while it is awake: the same decisions, the
same answers as over HTTP. A Ray error is an unknown outcome; the request is asked again until the deadline, which is
safe, because every request carries its own seed and has one effect and one answer. Calls block: in an async actor use
`asyncio.to_thread`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actors.law import requests as rq
from actors.law.effects import Refuse
from actors.protocol.codes import Cause
from actors.protocol.errors import Refused
from actors.protocol.ids import new_id, ulid

WITHIN_S = 10.0  # twice the control deadline: a dying gateway is back in half a second


class Client:
    """Errors of every method: Refused (with its code: session_not_found, queue_full, …), TimeoutError (unknown)."""

    def __init__(self, by: str | None = "ray", within_s: float = WITHIN_S) -> None:
        """by: who asks, for people and audit. This process must be connected to Holdfast's own cluster."""
        self.by, self.within_s = by, within_s

    @classmethod
    def connect(cls, data_dir: Path, by: str | None = "ray") -> Client:
        """Joins the cluster of the `up` on this data directory, and no other. Errors: ConnectionError."""
        from actors.up import short_dir_of

        mark = short_dir_of(data_dir) / "r" / "ray_current_cluster"
        if not mark.exists():
            raise ConnectionError(f"no `holdfast up` runs on {data_dir}")
        # Before Ray is imported: later it would be too late for its authentication, and for keeping to loopback.
        os.environ.update(
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN_PATH=str(data_dir / "ray-token"),
            RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
            RAY_USAGE_STATS_ENABLED="0",
        )
        from actors import runtime

        runtime.join(mark.read_text().strip())
        return cls(by)

    # ------------------------------------------------------------ operations

    def start_execution(
        self,
        session_id: str,
        input: Any = None,
        *,
        execution_id: str | None = None,
        limits: Mapping[str, float | None] | None = None,
    ) -> dict[str, Any]:
        """The execution, queued or pending. execution_id: minted if absent; repeated, it is the same execution."""
        return self._ask(
            rq.Submit(
                session_id=session_id,
                seed=ulid(),
                execution_id=execution_id or new_id("execution"),
                input=input,
                limits=limits or {},
                by=self.by,
            )
        )

    def interrupt(
        self, session_id: str, execution_id: str | None = None, *, reason: str | None = None, force: bool = False
    ) -> dict[str, Any]:
        """{interrupt_id, execution}. execution_id: the active one if absent."""
        return self._ask(
            rq.Interrupt(
                session_id=session_id,
                seed=ulid(),
                execution_id=execution_id,
                reason=reason,
                force=force,
                by=self.by,
            )
        )

    def fail_execution(
        self, session_id: str, execution_id: str, error: str, cause: Cause = "operator"
    ) -> dict[str, Any]:
        """{changed, execution}: idempotent; who comes second gets the recorded outcome and changed=False."""
        return self._ask(
            rq.Fail(
                session_id=session_id,
                seed=ulid(),
                execution_id=execution_id,
                cause=cause,
                error=error,
                by=self.by,
            )
        )

    def state(self, session_id: str) -> dict[str, Any]:
        """The session's resource, as GET /v1/sessions/{id} gives it."""
        from actors import runtime

        found: dict[str, Any] = runtime.ask_gateway("show", session_id, within_s=self.within_s)
        return found

    def _ask(self, request: rq.Request) -> dict[str, Any]:
        from actors import runtime

        outcome = runtime.ask_gateway("perform", request, within_s=self.within_s)
        if isinstance(outcome.answer, Refuse):
            raise Refused(outcome.answer.code, outcome.answer.detail, **outcome.answer.extra)
        body: dict[str, Any] = outcome.body
        return body
