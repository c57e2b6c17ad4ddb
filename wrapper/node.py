"""A node's side of PROTOCOL §4: keeps one role of a node connected, for ever, and runs the commands it offers.

    node = Node(NodeSettings(url, "robot-7", token=lambda: secret, commands=("fetch",)), Robot())
    await node.run()

What a `Device` may rely on, and what this never does:
- task orders, upload requests and acknowledgements come one at a time, in the order sent; the socket is read meanwhile;
- a call belongs to the connection it came on: when that is gone, nobody will hear its answer, and it is cancelled;
- nothing is buffered for a connection that is not there: what a device knows is told anew in every hello. Whatever must
  survive is the device's to write down before it says so (wrapper/recordings.py shows how).
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from actors.protocol.codes import CLOSE, PROTOCOL_VERSION
from actors.protocol.defaults import BACKOFF_S, HEARTBEAT_S, HELLO_TIMEOUT_S, INVOKE_PAYLOAD_BYTES
from actors.protocol.ids import new_id
from wrapper import VERSION
from wrapper.backoff import Backoff
from wrapper.connection import Closed, Dialer, Socket, node_url
from wrapper.telemetry import Emit, silent

CALLS_AT_ONCE: Final = 64  # a device that is asked more at once says so, rather than run out of memory
ORDERS_WAITING: Final = 1000  # every one of them is sent again by the service; a device this far behind is stuck
ERROR_MAX: Final = 1000  # characters of an error's message


class CallFailed(Exception):
    """The command ran and failed, or cannot run; the sentence goes to the caller as NODE_ERROR."""


@dataclass(frozen=True)
class NodeSettings:
    url: str
    node_id: str
    role: str = "node"
    token: Callable[[], str] = lambda: ""  # read at each connect; raises OSError while it is being replaced
    commands: tuple[str, ...] = ()
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    instance_id: str | None = None  # None: minted; the roles of one process share one
    report_every_s: float | None = None  # say `state` this often; None: only when it changes
    backoff_s: Sequence[float] = BACKOFF_S


@dataclass(frozen=True)
class Call:
    """One invocation. `idempotency_key` is the caller's own, or the invocation's id: the same key is the same wish."""

    invocation_id: str
    command: str
    params: Any
    within_s: float
    idempotency_key: str
    connection_id: str
    progress: Callable[[Any], Any]  # await it; numbered in order. Raises CallFailed: not JSON, or too large


class Device:
    """What a node is made of. Every default is honest about being nothing: no commands, no state, no uploads."""

    async def invoke(self, call: Call) -> Any:
        """The result, as JSON. Raises CallFailed."""
        raise CallFailed(f"no such command: {call.command}")

    def reported(self) -> Mapping[str, Any] | None:
        """{state, task_id?, attempt?} as it is now; None: this role has no state."""
        return None

    def uploads(self) -> Sequence[Mapping[str, Any]] | None:
        """Every upload that is not acknowledged, as in an `upload` frame. None is "I do not say"; () is "none"."""
        return None

    async def on_live(self) -> None:
        """Connected, and the directives of the hello_ack are on their way."""

    async def on_task(self, order: Mapping[str, Any]) -> None:
        """{action, task_id, attempt, params}"""

    async def on_upload_request(self, task_id: str, attempt: int) -> None: ...

    async def on_upload_ack(self, task_id: str, attempt: int, disposition: str) -> None: ...


@dataclass(frozen=True)
class NodeEnded:
    """why: stopped (told not to come back; code and reason), or left (we were asked to end)."""

    why: str
    close_code: int | None = None
    reason: str = ""


class Node:
    def __init__(self, settings: NodeSettings, device: Device, emit: Emit = silent) -> None:
        self.settings, self.device, self.emit = settings, device, emit
        self.instance_id = settings.instance_id or new_id("instance")
        self.attempt = 0
        self.connection_id: str | None = None  # of the connection that is live now
        self._dialer = Dialer(node_url(settings.url, settings.node_id, settings.role))
        jitter = [random.uniform(0.8, 1.2) for _ in range(16)]
        self._backoff = Backoff(settings.backoff_s, jitter)
        self._socket: Socket | None = None
        self._calls: dict[str, asyncio.Task[None]] = {}
        self._orders: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue(ORDERS_WAITING)
        self._leave = asyncio.Event()

    # ------------------------------------------------------------ life

    async def run(self) -> NodeEnded:
        """Until it is told not to come back, or `leave`."""
        working = asyncio.create_task(self._work())
        connected = asyncio.create_task(self._stay_connected())
        leaving = asyncio.create_task(self._leave.wait())
        tasks: list[asyncio.Task[Any]] = [working, connected, leaving]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()  # a device that fails is a bug of the device: nobody goes on as if nothing were
            return connected.result() if connected.done() else NodeEnded("left")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._dialer.close()

    def leave(self) -> None:
        self._leave.set()

    async def say(self, frame: Mapping[str, Any]) -> bool:
        """False: there is nobody to say it to; the next hello will tell."""
        socket = self._socket
        if socket is None or self.connection_id is None:
            return False
        try:
            await socket.send(_text(frame))
        except Closed:
            return False  # its reader finds out too, and reconnects
        return True

    async def report(self) -> None:
        reported = self.device.reported()
        if reported is not None:
            await self.say({"type": "state", "reported": dict(reported)})

    def cut(self) -> None:
        """Without a word, as a cable does; it comes back by itself."""
        if self._socket is not None:
            self._socket.cut()

    # ------------------------------------------------------------ connections

    async def _stay_connected(self) -> NodeEnded:
        while True:
            self.attempt += 1
            try:
                self.emit("node.opening", role=self.settings.role, attempt=self.attempt)
                try:
                    token = self.settings.token()
                except OSError as error:
                    raise Closed(None, f"cannot read the token: {error}") from error
                await self._converse(await self._dialer.dial(token))
            except Closed as closed:
                code, reason = closed.code, closed.reason
            pause = self._backoff.on_close(code, reason, time.monotonic())
            if pause is None:
                self.emit("node.stopped", role=self.settings.role, code=code, reason=reason)
                return NodeEnded("stopped", code, reason)
            self.emit("node.lost", role=self.settings.role, code=code, reason=reason, retry_in_s=round(pause, 1))
            await asyncio.sleep(pause)

    async def _converse(self, socket: Socket) -> None:
        """From hello to the end of this socket. Raises Closed, always."""
        self._socket = socket
        tasks = [asyncio.create_task(part) for part in (self._listen(socket), socket.stay_alive())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._socket = self.connection_id = None
            tasks += self._calls.values()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._calls.clear()
            while not self._orders.empty():
                self._orders.get_nowait()  # of a connection that is gone; whatever still holds is sent again
            await asyncio.shield(socket.close(CLOSE["going_away"]))

    async def _listen(self, socket: Socket) -> None:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                await socket.send(_text(self._hello()))
                while (frame := await socket.receive()).get("type") != "hello_ack":
                    self._heard(frame)
        except TimeoutError as error:
            raise Closed(None, "no hello_ack in time") from error
        self.connection_id = str(frame.get("connection_id"))
        self._backoff.on_live(time.monotonic())
        self.emit("node.live", role=self.settings.role, connection_id=self.connection_id, epoch=frame.get("epoch"))
        beating = asyncio.create_task(self._beat(socket, float(frame.get("heartbeat_interval_s") or HEARTBEAT_S)))
        try:
            self._order({"type": "live"})
            for directive in frame.get("directives") or ():
                await self._take(directive)
            while True:
                await self._take(await socket.receive())
        finally:
            beating.cancel()

    def _hello(self) -> dict[str, Any]:
        reported, uploads = self.device.reported(), self.device.uploads()
        return {
            "type": "hello",
            "protocol": PROTOCOL_VERSION,
            "instance_id": self.instance_id,
            "attempt": self.attempt,
            "client": {"name": "holdfast-node", "version": VERSION},
            "commands": list(self.settings.commands),
            "capabilities": dict(self.settings.capabilities),
            **({} if reported is None else {"reported": dict(reported)}),
            **({} if uploads is None else {"uploads": [dict(one) for one in uploads]}),
        }

    async def _beat(self, socket: Socket, every_s: float) -> None:
        """Life, and for a role with a state its freshness: commands that need a recent report are refused without."""
        report_s = self.settings.report_every_s
        every_s = every_s if report_s is None else min(every_s, report_s)
        while True:
            await asyncio.sleep(every_s)
            reported = None if report_s is None else self.device.reported()
            frame = {"type": "heartbeat"} if reported is None else {"type": "state", "reported": dict(reported)}
            try:
                await socket.send(_text(frame))
            except Closed:
                return

    # ------------------------------------------------------------ frames

    async def _take(self, frame: Mapping[str, Any]) -> None:
        match frame.get("type"):
            case "invoke":
                await self._invoked(frame)
            case "invoke_cancel":
                call = self._calls.get(str(frame.get("invocation_id")))
                if call is not None:
                    call.cancel()
            case "probe":
                await self.report()
            case "task" | "upload_request" | "upload_ack":
                self._order(frame)
            case _:
                self._heard(frame)

    def _heard(self, frame: Mapping[str, Any]) -> None:
        """What asks for nothing: `ignored`, `error`, and frames of a later version."""
        if frame.get("type") == "error":
            self.emit("server.error", code=frame.get("code"), message=frame.get("message"))
        elif frame.get("type") == "ignored":
            self.emit("result.ignored", invocation_id=frame.get("invocation_id"))

    def _order(self, frame: Mapping[str, Any]) -> None:
        try:
            self._orders.put_nowait(frame)
        except asyncio.QueueFull as error:
            raise Closed(None, "more orders than the device takes") from error

    async def _work(self) -> None:
        """The device's orders, one at a time, behind the socket's back."""
        while True:
            frame = await self._orders.get()
            match frame["type"]:
                case "live":
                    await self.device.on_live()
                case "task":
                    await self.device.on_task(frame)
                case "upload_request":
                    await self.device.on_upload_request(str(frame["task_id"]), int(frame["attempt"]))
                case "upload_ack":
                    disposition = str(frame["disposition"])
                    await self.device.on_upload_ack(str(frame["task_id"]), int(frame["attempt"]), disposition)

    # ------------------------------------------------------------ calls

    async def _invoked(self, frame: Mapping[str, Any]) -> None:
        invocation_id = str(frame.get("invocation_id"))
        if invocation_id in self._calls:
            return  # the same wish, already at work
        if len(self._calls) >= CALLS_AT_ONCE:
            await self._failed(invocation_id, f"busy: {CALLS_AT_ONCE} calls are at work")
            return
        seq = 0

        async def progress(payload: Any) -> None:
            nonlocal seq
            frame = {"type": "invoke_progress", "invocation_id": invocation_id, "payload": _sayable(payload)}
            seq += 1
            await self.say({**frame, "seq": seq})

        call = Call(
            invocation_id=invocation_id,
            command=str(frame.get("command")),
            params=frame.get("params"),
            within_s=float(frame.get("within_s") or 0.0),
            idempotency_key=str(frame.get("idempotency_key") or invocation_id),
            connection_id=str(self.connection_id),
            progress=progress,
        )
        task = self._calls[invocation_id] = asyncio.create_task(self._call(call))
        task.add_done_callback(lambda _: self._calls.pop(invocation_id, None))

    async def _call(self, call: Call) -> None:
        try:
            payload = _sayable(await self.device.invoke(call))
        except CallFailed as failed:
            await self._failed(call.invocation_id, str(failed))
        except Exception as error:  # a command that breaks is that caller's error, not the end of the node
            self.emit("call.broke", invocation_id=call.invocation_id, error=type(error).__name__)
            await self._failed(call.invocation_id, f"{type(error).__name__}: {error}")
        else:
            done = {"type": "invoke_result", "invocation_id": call.invocation_id, "ok": True, "payload": payload}
            await self.say(done)

    async def _failed(self, invocation_id: str, why: str) -> None:
        # A message may quote a file's name, and that may be no text at all.
        message = (why or "failed")[:ERROR_MAX].encode("utf-8", "backslashreplace").decode()[:ERROR_MAX]
        error = {"message": message}
        await self.say({"type": "invoke_result", "invocation_id": invocation_id, "ok": False, "error": error})


def _sayable(payload: Any) -> Any:
    """The same. Raises CallFailed: it is no JSON, or more than a node may say at once."""
    try:
        text = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise CallFailed(f"not JSON: {error}") from error
    if len(text) > INVOKE_PAYLOAD_BYTES:
        raise CallFailed(f"payload too large: above {INVOKE_PAYLOAD_BYTES} bytes")
    return payload


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
