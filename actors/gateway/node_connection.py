"""One role of a node, on one socket: its frames in the order received, each decided before the next; what waits for it.

Every frame is a transition, fenced by connection and epoch inside its own transaction. What goes down is a row first:
a fetch marks it, commits, and only then is a byte written, so `dispatched: false` is a certainty. A node's frames have
no acknowledgement (a result is repeated by nobody), so a store that is away is waited for, for a while.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final, assert_never

from actors import telemetry
from actors.gateway.decode import Beat, Wrong
from actors.gateway.door import Door
from actors.gateway.node_decode import Item, Said
from actors.gateway.peer import RETRY_AFTER_S, Peer, reason_of
from actors.gateway.wire import Wire
from actors.law.effects import Fenced, Refuse, RefuseConnection
from actors.law.nodes import requests as rq
from actors.law.nodes.answers import Fetched, Ignored, NodeConnected
from actors.law.nodes.model import Reported, UploadReport
from actors.law.requests import Request
from actors.protocol import node_frames as frames
from actors.protocol.codes import CLOSE
from actors.protocol.defaults import NODE_OUTBOX_PAGE
from actors.protocol.errors import HoldfastError
from actors.protocol.node_codes import Role
from actors.store.contract import Outcome

# Frames read and not decided yet. A device says a few a second and each takes milliseconds: one that is so far ahead
# of us is told to come back slower, and so is everybody while the store does not answer.
LANE_FRAMES: Final = 1000
LANE_BYTES: Final = 4 << 20
STORE_PATIENCE_S: Final = 15.0  # three busy writers' worth; then the device comes again and says what it knows


class NodeConnection(Peer):
    kind = "node"

    def __init__(
        self, door: Door, wire: Wire, node_id: str, role: Role, token_hash: str | None, *, may_create: bool
    ) -> None:
        super().__init__(door, wire, rq.NODE + node_id, role, token_hash)
        self.node_id, self._may_create = node_id, may_create
        self.role: Role = role
        self.hello: frames.NodeHello | None = None
        self._lane: deque[Said | Wrong] = deque()
        self._held = 0  # bytes in the lane
        self._working = False

    # ------------------------------------------------------------ frames in

    def take(self, item: Item) -> None:
        if self.over:
            return
        self.heard()
        if isinstance(item, Beat):
            return
        self._lane.append(item)
        self._held += item.size
        if len(self._lane) > LANE_FRAMES or self._held > LANE_BYTES:
            telemetry.emit("node.lane_full", node_id=self.node_id, frames=len(self._lane))
            self.say_error("rate_limited", "far more frames than can be decided")
            self.end(CLOSE["rate_limited"], reason_of("too many frames", RETRY_AFTER_S))
        elif not self._working:
            self._working = True
            self.door.spawn(self._work())

    async def _work(self) -> None:
        try:
            while self._lane and not self.over:
                item = self._lane.popleft()
                self._held -= item.size
                await self._settle(item)
        except HoldfastError as error:
            self.storage_failed(error)
        except Exception as error:
            telemetry.emit("node.frame_failed", node_id=self.node_id, error=repr(error))
            self.storage_failed(HoldfastError("internal"))
        finally:
            self._working = False
            self.settled()

    async def _settle(self, item: Said | Wrong) -> None:
        if isinstance(item, Wrong):
            self.say_error(item.code, item.message)
            if item.fatal:
                self.end(CLOSE["protocol_error"], item.message[:100])
            return
        frame = item.frame
        if isinstance(frame, frames.NodeHello):
            if self.hello is not None:
                self.say_error("invalid_frame", "hello comes once")
                self.end(CLOSE["protocol_error"], "a second hello")
                return
            await self._connect(frame)
            return
        outcome = await self._decided(self._request(frame))
        answer = outcome.answer
        if isinstance(answer, Fenced):
            self.end(answer.code, answer.reason)
            return
        if isinstance(answer, Ignored):
            self.say({"type": "ignored", "invocation_id": answer.invocation_id})
        elif isinstance(answer, Refuse):
            code = "invalid_frame" if answer.code == "bad_request" else answer.code  # its name on sockets
            self.say_error(code, answer.detail)

    async def _decided(self, request: Request) -> Outcome:
        """Asked again while the store is away: after its error nothing has happened. Raises HoldfastError."""
        until = self.door.clock() + STORE_PATIENCE_S
        while True:
            try:
                return await self.door.perform(request)
            except HoldfastError as error:
                if not error.retryable or self.door.clock() > until or self.over:
                    raise
            await asyncio.sleep(RETRY_AFTER_S)

    def _request(self, frame: Any) -> Request:
        mine: dict[str, Any] = {
            "node_id": self.node_id,
            "seed": self.door.mint(),
            "role": self.role,
            "connection_id": self.connection_id,
            "epoch": self.epoch,
            "instance_id": self.hello.instance_id if self.hello else "",
        }
        match frame:
            case frames.InvokeResult():
                error = frame.error.model_dump() if frame.error else None
                return rq.InvokeResult(
                    **mine, invocation_id=frame.invocation_id, ok=frame.ok, payload=frame.payload, error=error
                )
            case frames.InvokeProgress():
                return rq.InvokeProgress(
                    **mine, invocation_id=frame.invocation_id, seq=frame.seq, payload=frame.payload
                )
            case frames.State():
                return rq.NodeState(**mine, reported=_reported(frame.reported))
            case frames.Upload():
                return rq.NodeUpload(**mine, report=_upload(frame))
            case frames.NodeLogEvent():
                return rq.NodeEvent(**mine, type=frame.event.type, data=frame.event.data)
            case _:
                assert_never(frame)

    # ------------------------------------------------------------ hello

    async def _connect(self, hello: frames.NodeHello) -> None:
        self.asked = True
        self.hello = hello
        outcome = await self._decided(
            rq.NodeConnect(
                node_id=self.node_id,
                seed=self.door.mint(),
                role=self.role,
                connection_id=self.connection_id,
                gateway_id=self.door.gateway_id,
                instance_id=hello.instance_id,
                attempt=hello.attempt,
                commands=tuple(hello.commands),
                capabilities=hello.capabilities,
                client=hello.client.model_dump(),
                reported=_reported(hello.reported) if hello.reported else None,
                uploads=None if hello.uploads is None else tuple(_upload(row) for row in hello.uploads),
                may_create=self._may_create,
                token_hash=self.token_hash,
            )
        )
        answer = outcome.answer
        if isinstance(answer, RefuseConnection):
            self.asked = False  # known: this connection never owned anything
            self.end(answer.code, reason_of(answer.reason, answer.retry_after_s))
            return
        assert isinstance(answer, NodeConnected), answer
        self.epoch = answer.epoch
        self.door.counts.reconnects += (hello.attempt or 1) > 1
        self.say(
            {
                "type": "hello_ack",
                "connection_id": self.connection_id,
                "epoch": answer.epoch,
                "node_id": self.node_id,
                "role": self.role,
                "server_time_ms": self.door.wall_ms(),
                "heartbeat_interval_s": self.door.settings.heartbeat_s,
                "max_frame_bytes": self.door.settings.max_frame_bytes,
                "directives": list(answer.directives),
            }
        )
        telemetry.emit(
            "node.connected", node_id=self.node_id, role=self.role, connection_id=self.connection_id, epoch=self.epoch
        )
        self.ready = True
        self.commands_wait()
        await self.door.carrier.carry(outcome)

    # ------------------------------------------------------------ what goes down

    async def fetch_page(self) -> bool:
        request = rq.NodeFetch(
            node_id=self.node_id,
            seed=self.door.mint(),
            role=self.role,
            connection_id=self.connection_id,
            epoch=self.epoch,
            instance_id=self.hello.instance_id if self.hello else "",
            limit=NODE_OUTBOX_PAGE,
        )
        # Not by way of the actor: its answer may get lost, and here the answer is what must go out.
        outcome = await self.door.worker.perform(request)
        answer = outcome.answer
        if isinstance(answer, Fenced):
            self.end(answer.code, answer.reason)
            return False
        assert isinstance(answer, Fetched), answer
        for frame in answer.frames:
            self.say(frame)
        self.door.speak(outcome)
        return answer.more

    # ------------------------------------------------------------ life and end

    @property
    def busy(self) -> bool:
        return bool(self._lane or self._working)

    def forget_frames(self) -> None:
        self._lane.clear()
        self._held = 0

    def closed(self, code: int | None, reason: str, error: str) -> Request:
        return rq.NodeClosed(
            node_id=self.node_id,
            seed=self.door.mint(),
            role=self.role,
            connection_id=self.connection_id,
            code=code,
            close_reason=reason[:500],
            error=error[:500],
            timed_out=self.wire.cut_because == "ping timeout",
        )

    async def look_at_silence(self) -> None:
        """Its process answers pings and says nothing: the connection is given up (DESIGN §2.7), or was lost before."""
        try:
            node = await self.door.worker.read(lambda store: store.node(self.node_id))
        except HoldfastError as error:
            if error.code == "node_not_found":
                self.end(CLOSE["not_found"], "no such node")
            return
        owner = node["roles"].get(self.role)
        if owner is not None and owner["state"] == "connected" and owner["connection_id"] != self.connection_id:
            own = owner["instance_id"] == (self.hello.instance_id if self.hello else None)
            self.end(CLOSE["fenced" if own else "superseded"], "this connection does not own the role")
        else:
            self.end(CLOSE["going_away"], "no frame for too long", drain=True)


def _reported(said: frames.NodeReported) -> Reported:
    return Reported(said.state, said.task_id, said.attempt)


def _upload(row: frames.UploadRow) -> UploadReport:
    return UploadReport(row.task_id, row.attempt, row.status, row.object_key, row.sha256, row.size, row.detail)
