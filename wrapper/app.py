"""The wrapper, put together: one spool, one runner, one link, one socket at a time.

All spool work happens in one thread, in order. One sender reads the spool by the link's cursor, so live output never
overtakes replay. Acknowledgements are gathered and forgotten in batches; a command is obeyed in a task of its own, so
that the socket is always read. What ends it: a close that says "do not come back", `--once` fulfilled, a signal.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar

from actors.protocol.codes import CLOSE
from actors.protocol.defaults import (
    EVENTS_PER_FRAME,
    HELLO_TIMEOUT_S,
    INTERRUPT_S,
    ORPHAN_AFTER_S,
    SPOOL_LIMIT_BYTES,
)
from actors.protocol.ids import new_id
from wrapper import VERSION, survivors
from wrapper import effects as law
from wrapper.commands import Commands
from wrapper.connection import Closed, Socket
from wrapper.ladder import SHARES
from wrapper.link import Link, Phase
from wrapper.packing import pack
from wrapper.ports import Ports
from wrapper.runner import Job, Runner
from wrapper.spooldb import Policy
from wrapper.spoolfile import SpoolFull
from wrapper.telemetry import Emit, silent
from wrapper.waiting import rung

P = ParamSpec("P")
T = TypeVar("T")

FULL_RETRY_S: Final = 0.5
ACK_BATCH_S: Final = 0.02  # acknowledgements forgotten together: one fsync for many
TICK_S: Final = 0.5
HEAL_MARGIN_S: Final = 2.0  # on top of the server's grace, after an unreadable spool
EPHEMERAL_QUEUE: Final = 100  # frames; what nobody takes in time was not worth keeping
COMMAND_QUEUE: Final = 1000  # the server sends the rest again
STEP_S: Final = 2.0  # what the runner may take for the step at hand when the wrapper ends
LAST_WORDS_S: Final = 10.0  # after Ctrl-C, for the final's acknowledgement
KILL_AFTER_S: Final = INTERRUPT_S * SHARES[2]  # from the first Ctrl-C to SIGKILL, if nothing helps
KILLED_S: Final = 2.0  # after the third Ctrl-C, for the end of what was killed to be written down and told


@dataclass(frozen=True)
class Settings:
    url: str
    session_id: str
    argv: tuple[str, ...]
    spool_dir: str
    token: Callable[[], str] = lambda: ""  # read at each connect: a token may be renewed; raises OSError meanwhile
    once: bool = False
    events: str = "plain"
    keep_stdin: bool | None = None  # None: as the driver likes it
    spool_limit_bytes: int = SPOOL_LIMIT_BYTES
    spool_policy: Policy = "block"
    orphan_after_s: float = ORPHAN_AFTER_S
    only_execution: str | None = None
    backoff_s: Sequence[float] | None = None
    on_output: Callable[[str, bytes], None] | None = None


@dataclass(frozen=True)
class Ended:
    """why: once, stopped (told not to come back), detached (SIGTERM), interrupted (SIGINT)."""

    why: str
    close_code: int | None = None
    reason: str = ""


class Wrapper:
    def __init__(self, settings: Settings, emit: Emit = silent, ports: Ports | None = None) -> None:
        """Opens the spool. Raises SpoolError."""
        self.settings, self.emit = settings, emit
        self.ports = ports = ports or Ports()
        self._clock = ports.clock
        self.spool = ports.spool(
            settings.spool_dir,
            settings.session_id,
            limit_bytes=settings.spool_limit_bytes,
            policy=settings.spool_policy,
        )
        speaks = ports.driver(settings.events)
        keep = speaks.keeps_stdin if settings.keep_stdin is None else settings.keep_stdin
        job = Job(settings.argv, settings.session_id, speaks, keep, settings.orphan_after_s)
        jitter = [ports.uniform(0.8, 1.2) for _ in range(16)]
        backoff = {} if settings.backoff_s is None else {"backoff_s": settings.backoff_s}
        instance_id = new_id("instance", ports.mint)
        self.link = Link(self.spool.wrapper_id, instance_id, VERSION, jitter=jitter, **backoff)
        self.runner = Runner(self.spool, self.call, self.once_call, job, self, emit, ports)
        self.commands = Commands(self.spool, self.call, self.runner, self._say, emit, self._accepts)
        self.dialer = ports.dialer(settings.url, settings.session_id)
        self.final: dict[str, Any] | None = None  # of the last execution that ended here
        self.final_acked = False
        self.started = asyncio.Event()
        self.final_spooled = asyncio.Event()
        self._told = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "spool")
        self._socket: Socket | None = None
        self._urgent: deque[str] = deque()
        self._ephemeral: deque[str] = deque(maxlen=EPHEMERAL_QUEUE)
        self._bell = asyncio.Event()  # something to send
        self._sending = asyncio.Lock()
        self._acks: dict[str, int] = {}
        self._ack_bell = asyncio.Event()
        self._no_batch = asyncio.Event()  # an end is acknowledged: whoever waits for that does not wait for others
        self._inbox: asyncio.Queue[Any] = asyncio.Queue(COMMAND_QUEUE)
        self._heartbeat_s = self._grace_s = 0.0
        self._was_live = asyncio.Event()
        self._ending: asyncio.Future[Ended] | None = None
        self._the_one = settings.only_execution
        self._signals = 0

    # ------------------------------------------------------------ the spool's thread

    async def once_call(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: fn(*args, **kwargs))

    async def call(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        while True:
            try:
                return await self.once_call(fn, *args, **kwargs)
            except SpoolFull as error:
                self.emit("spool.full", error=error)
                await asyncio.sleep(FULL_RETRY_S)  # nothing is acknowledged meanwhile, and nothing is lost

    # ------------------------------------------------------------ life

    async def run(self) -> Ended:
        """Until something ends it. Raises SpoolBroken; the agent then stays with its shim."""
        self._ending = asyncio.get_running_loop().create_future()
        strays = await survivors.adopt(self.spool, self.call, self.ports.shims)
        if self.settings.once and self._the_one is None:
            self._the_one = next((row.execution_id for row in await self.call(self.spool.executions)), None)
        work = asyncio.create_task(self._work(strays))
        jobs: list[Coroutine[Any, Any, None]] = [self._stay_connected(), self._obey(), self._forget()]
        tasks = [work, *(asyncio.create_task(job) for job in jobs)]
        watch: list[asyncio.Future[Any]] = [self._ending, *tasks]
        try:
            await asyncio.wait(watch, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done() and not self._ending.done():
                    task.result()
            return await self._ending
        finally:
            self.runner.detach()
            # The runner finishes its step: a gate that is recorded open is told to open, or the command never runs.
            await asyncio.wait([work], timeout=STEP_S)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.dialer.close()
            await asyncio.to_thread(self._thread.shutdown)
            self.spool.close()

    def end(self, ended: Ended) -> None:
        if self._ending is not None and not self._ending.done():
            self._ending.set_result(ended)

    async def _work(self, strays: list[str]) -> None:
        if strays:
            await survivors.end(self.spool, self.call, self.emit, strays, self.ports.shims)
        if self.spool.unreadable:
            # "Nothing new starts": the server ends after its grace what we know nothing of; then we are a new wrapper.
            self.emit("spool.unreadable", moved_aside=self.spool.dir)
            await self._was_live.wait()
            await asyncio.sleep(self._grace_s + HEAL_MARGIN_S)
            await self.call(self.spool.readable_again)
            await self._cut("the spool is usable again")
        await self.runner.run()
        await self.runner.left.wait()  # closing: whoever asked for it says when it is over

    def terminate(self) -> None:
        """SIGTERM: an upgrade. The agent stays with its shim, for the next wrapper to adopt."""
        self.end(Ended("detached"))

    def interrupt(self) -> None:
        """SIGINT: first the ladder, then by force; the third kills the group at once and leaves; none is left alive."""
        self._signals += 1
        run = self.runner.current
        if run is None:
            self.end(Ended("interrupted"))
            return
        self._begin_stop("the wrapper was interrupted", force=self._signals > 1)
        if self._signals == 1:
            self.emit("wrapper.interrupted", kills_within_s=round(KILL_AFTER_S), again="by force")
            self._last_words = asyncio.create_task(self._until_quiet(Ended("interrupted"), LAST_WORDS_S))
        if self._signals >= 3:
            self.runner.kill(run)
            if self._signals > 3:
                self.end(Ended("interrupted"))
            else:
                self._leaving = asyncio.create_task(self._leave(KILLED_S))

    async def _leave(self, within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s):
                await self._until_quiet(Ended("interrupted"), within_s)
        except TimeoutError:
            self.end(Ended("interrupted"))

    def _begin_stop(self, reason: str, *, force: bool = False, forsaken: bool = False) -> None:
        self.runner.close_after(forsaken=forsaken)
        run = self.runner.current
        if run is not None and not run.ending:
            self.runner.began(run, self.runner.end_by(run, self.runner.stop_ladder(reason, force=force)))

    async def _until_quiet(self, ended: Ended, acked_within_s: float) -> None:
        """Until the child has ended, and its final is acknowledged or the time for that is over."""
        await self.runner.idle.wait()
        if self.final is not None and not self.final_acked:
            self._told.clear()
            if not await rung(self._told, acked_within_s):
                self.emit("final.kept", reason="not acknowledged in time; the spool keeps it")
        self.end(ended)

    # ------------------------------------------------------------ what the runner says

    def on_records(self, execution_id: str, last_seq: int) -> None:
        self.link.note(execution_id, last_seq)
        self.started.set()
        self._bell.set()

    def on_ephemeral(self, execution_id: str, events: list[dict[str, Any]]) -> None:
        if self.link.phase is not Phase.LIVE:
            return
        for at in range(0, len(events), EVENTS_PER_FRAME):
            frame = {"type": "ephemeral", "execution_id": execution_id, "events": events[at : at + EVENTS_PER_FRAME]}
            self._ephemeral.append(_text(frame))
        self._bell.set()

    def on_output(self, stream: str, data: bytes) -> None:
        if self.settings.on_output is not None:
            self.settings.on_output(stream, data)

    def on_carried_out(self, command_ids: list[str]) -> None:
        for command_id in command_ids:
            self.commands.answer(command_id, "done")

    def on_ended(self, execution_id: str, final: dict[str, Any] | None) -> None:
        """``final`` None: aborted, nobody wants to hear it."""
        self.final = final
        self.final_acked = final is None
        self.final_spooled.set()
        if final is None:
            self.link.forget(execution_id)
            self._settled(execution_id)

    def _settled(self, execution_id: str) -> None:
        """Its final is acknowledged, or nobody wants it."""
        self.final_acked = True
        self._told.set()
        if self.settings.once and execution_id == self._the_one:
            self.end(Ended("once"))

    def _accepts(self, execution_id: str) -> bool:
        if self.spool.unreadable or self.runner.closing:
            return False
        if self.settings.only_execution is not None:
            return execution_id == self.settings.only_execution
        if self.settings.once:
            self._the_one = self._the_one or execution_id
            return execution_id == self._the_one
        return True

    # ------------------------------------------------------------ connections

    async def _stay_connected(self) -> None:
        while True:
            attempt = self.link.open()
            code, reason = None, ""
            try:
                self.emit("connection.opening", attempt=attempt)
                try:
                    token = self.settings.token()
                except OSError as error:
                    raise Closed(None, f"cannot read the token: {error}") from error
                socket = await self.dialer.dial(token)
                await self._converse(attempt, socket)
            except Closed as closed:
                code, reason = closed.code, closed.reason
            self._socket = None
            for effect in self.link.on_close(attempt, code, reason, self._clock()):
                if isinstance(effect, law.Refuse):
                    await self.call(self.spool.refuse, effect.execution_id, effect.seq)
                elif isinstance(effect, law.Stop):
                    self.emit("connection.stopped", code=effect.code, reason=effect.reason)
                    self._begin_stop(f"told not to reconnect: {effect.reason}", forsaken=True)
                    await self._until_quiet(Ended("stopped", effect.code, effect.reason), 0.0)
                    return
                elif isinstance(effect, law.ConnectAt):
                    pause = max(0.0, effect.at_s - self._clock())
                    self.emit("connection.lost", code=code, reason=reason, retry_in_s=round(pause, 1))
                    await asyncio.sleep(pause)

    async def _converse(self, attempt: int, socket: Socket) -> None:
        """From hello to the end of this socket. Raises Closed."""
        known = await self.call(self.spool.known)
        hello = self.link.on_open(attempt, known, self.spool.bytes, self.spool.limit_bytes, self.spool.unreadable)
        self._urgent.clear()
        self._ephemeral.clear()
        self._socket = socket
        parts = [
            self._listen(attempt, socket, hello),
            self._send(socket),
            self._tick(attempt, socket),
            socket.stay_alive(),
        ]
        tasks = [asyncio.create_task(part) for part in parts]
        closing = (CLOSE["going_away"], "")
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:  # in this order, if several have ended: what the peer said comes first
                if task.done():
                    task.result()
        except Closed as closed:
            closing = (CLOSE["going_away"], closed.reason)
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.shield(socket.close(*closing))

    async def _listen(self, attempt: int, socket: Socket, hello: Sequence[law.Effect]) -> None:
        for effect in hello:
            await self._apply(effect, socket)
        while True:
            frame = await socket.receive()
            if frame.get("type") == "error":
                self.emit("server.error", code=frame.get("code"), message=frame.get("message"))
            for effect in self.link.on_frame(attempt, frame, self._clock()):
                if isinstance(effect, law.Acked):  # nearly all of them, and nothing that waits
                    self._take_ack(effect)
                    continue
                # Shielded: a socket that falls in the middle must not leave an abort half done.
                await asyncio.shield(self._apply(effect, socket))
            self._bell.set()

    async def _apply(self, effect: law.Effect, socket: Socket) -> None:
        match effect:
            case law.Send(frame):
                await socket.send(_text(frame))
            case law.Acked():
                self._take_ack(effect)
            case law.Rewound(execution_id, told, acked):
                async with self._sending:
                    last = await self.call(self.spool.rewound, execution_id, told, acked)
                    self.link.note(execution_id, last)
                self.emit("spool.rewound", execution_id=execution_id, told_seq=told, acked_seq=acked)
                row = await self.call(self.spool.get, execution_id)
                if row is not None and row.state == "received":
                    # More was acknowledged than a shut gate can have said: it ran in a life that this spool does not
                    # remember. It may not run again (G13).
                    await self.commands.abort(execution_id, "it ran before")
                else:
                    self.runner.on_acked(execution_id, acked)
            case law.Abort(execution_id, reason):
                self.emit("execution.aborted", execution_id=execution_id, reason=reason)
                if not await self.commands.abort(execution_id, reason):
                    self._settled(execution_id)
            case law.Discard(execution_id):
                row = await self.call(self.spool.get, execution_id)
                if row is not None and row.state == "received":
                    self.link.forget(execution_id)
                    await self.commands.abort(execution_id, "discarded at hello")
            case law.Done(execution_id):
                row = await self.call(self.spool.get, execution_id)
                if row is not None and row.state == "final":
                    await self.call(self.spool.bury, execution_id)
                    self.runner.clear(row.run_dir)
                    self._settled(execution_id)
            case law.Refuse(execution_id, seq):
                self.emit("record.refused", execution_id=execution_id, seq=seq)
                await self.call(self.spool.refuse, execution_id, seq)
            case law.Obey(command):
                if not self._inbox.full():
                    self._inbox.put_nowait(command)
            case law.Live(heartbeat_s, grace_s):
                await self._on_live(heartbeat_s, grace_s)
            case law.Cut(reason):
                raise Closed(None, reason)
            case law.ConnectAt() | law.Stop():
                raise AssertionError(effect)  # answers to on_close only

    def _take_ack(self, ack: law.Acked) -> None:
        self._acks[ack.execution_id] = ack.seq
        self._ack_bell.set()
        cursor = self.link.cursors.get(ack.execution_id)
        if self.final is not None and not self.final_acked and cursor is not None and ack.seq >= cursor.last_seq:
            self._no_batch.set()
        self.runner.on_acked(ack.execution_id, ack.seq)

    async def _on_live(self, heartbeat_s: float, grace_s: float) -> None:
        self._heartbeat_s, self._grace_s = heartbeat_s, grace_s
        self._was_live.set()
        self.emit("connection.live", attempt=self.link.attempt)
        # `done` is sent once and acknowledged by nobody: say it again for what is not over, before its final.
        for row in await self.call(self.spool.known):
            if row.state == "final":
                self.on_carried_out(await self.call(self.spool.carried_out, row.execution_id))
        self._bell.set()

    def _say(self, frame: dict[str, Any]) -> None:
        """A command's answer: before any record that is spooled later. Not live: the server will ask again."""
        if self.link.phase is Phase.LIVE:
            self._urgent.append(_text(frame))
            self._bell.set()

    async def _send(self, socket: Socket) -> None:
        while True:
            self._bell.clear()
            if self.link.phase is Phase.LIVE:
                while self._urgent:
                    await socket.send(self._urgent.popleft())
                sent = await self._send_records(socket)
                while self._ephemeral:
                    await socket.send(self._ephemeral.popleft())
                if sent:
                    continue
            await rung(self._bell, TICK_S)

    async def _send_records(self, socket: Socket) -> bool:
        async with self._sending:
            plan = self.link.plan()
            if plan is None:
                return False
            rows = await self.call(
                self.spool.read, plan.execution_id, plan.after_seq, plan.budget_bytes, EVENTS_PER_FRAME
            )
            pid, cursor = None, self.link.cursors.get(plan.execution_id)
            if cursor is None:
                return True
            if plan.after_seq == 0 and (not rows or rows[0].seq > 1):
                row = await self.call(self.spool.get, plan.execution_id)
                pid = None if row is None else row.agent_pid
            sent = False
            for frame in pack(plan, rows, cursor.last_seq, pid):
                if not self.link.on_sent(plan, frame.first, frame.last, frame.size, self._clock()):
                    break
                await socket.send(frame.text)
                sent = True
            return sent

    async def _tick(self, attempt: int, socket: Socket) -> None:
        """Heartbeats, and the deadlines of hello and of acknowledgements."""
        opened = beat = self._clock()
        while True:
            await asyncio.sleep(TICK_S)
            now = self._clock()
            if self.link.phase is Phase.GREETING and now - opened > HELLO_TIMEOUT_S:
                raise Closed(None, "no hello_ack in time")
            for effect in self.link.on_tick(now):
                await self._apply(effect, socket)
            if self.link.phase is Phase.LIVE and now - beat >= self._heartbeat_s:
                beat = now
                run = self.runner.current
                current = run.execution_id if run is not None and run.opened else None
                busy = run is not None and run.busy
                await socket.send(_text({"type": "heartbeat", "execution_id": current, "busy": busy}))

    async def _cut(self, reason: str) -> None:
        if self._socket is not None:
            self.emit("connection.cut", reason=reason)
            await self._socket.close(CLOSE["going_away"], reason)

    # ------------------------------------------------------------ behind the socket

    async def _obey(self) -> None:
        while True:
            await self.commands.obey(await self._inbox.get())

    async def _forget(self) -> None:
        while True:
            await self._ack_bell.wait()
            self._ack_bell.clear()
            self._no_batch.clear()
            acks, self._acks = self._acks, {}
            for execution_id, seq in acks.items():
                over = await self.call(self.spool.acked, execution_id, seq)
                self.runner.on_acked(execution_id, seq)  # once more: there is room now
                if over:
                    row = await self.call(self.spool.get, execution_id)
                    await self.call(self.spool.bury, execution_id)
                    self.runner.clear(None if row is None else row.run_dir)
                    self.link.forget(execution_id)
                    self._settled(execution_id)
            await rung(self._no_batch, ACK_BATCH_S)


def _text(frame: Any) -> str:
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":"))
