"""Runs executions, strictly one after another, each through its shim.

Order that must not change: the launch is spooled → the shim forks the child behind its gate → who it is, and
`started`, are spooled → `started` is acknowledged → the gate is *recorded* open → the shim is told. A wrapper that
comes after a crash adopts what was opened, and launches again only what certainly never was. Output becomes records
in the same transaction that moves the read position. One loop per execution looks at everything that may be due;
whoever changes something only rings the bell.
"""

from __future__ import annotations

import asyncio
import os
import signal as signals
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from actors.protocol.defaults import CHUNK_S, INTERRUPT_S, QUEUE_LIMIT
from wrapper import ladder as law
from wrapper import verdicts
from wrapper.drivers.base import Driver, event
from wrapper.ladder import Ladder
from wrapper.ports import Ports
from wrapper.segments import Piece
from wrapper.shimctl import Shim, Spec
from wrapper.spool import Execution, Spool
from wrapper.spoolfile import SpoolFull
from wrapper.telemetry import Emit
from wrapper.waiting import rung

P = ParamSpec("P")
T = TypeVar("T")

ENV_BYTES: Final = 96 << 10  # the kernel takes 128 KiB per variable; a larger input comes on stdin and in a file only
LAUNCHES: Final = 5  # shims that die before the gate opens: the machine cannot run it
GLANCE_S: Final = 0.01  # while output is held back: of a command that has ended nothing more comes, so nobody waits
IDLE_S: Final = 0.5  # nothing rang for this long: look all the same, a bell may have been lost
CHECK_IN_S: Final = 5.0
FROZEN_S: Final = 5.0  # after SIGKILL, a shim that says nothing for this long is frozen: end both by hand
STALLS: Final = 10  # looks at IDLE_S for output that the shim says is there and is not
SHOWN_BYTES: Final = 256 << 10  # in one write to whoever watches: a slow one holds the loop no longer than that
SHIM_WAIT_S: Final = 10.0  # from fork to its facts: milliseconds, or a disk at its end
SECRETS: Final = ("HOLDFAST_TOKEN", "HOLDFAST_TOKEN_FILE")  # the wrapper's own; no business of the agent


def _joined(pieces: Sequence[Piece]) -> Iterator[tuple[str, bytes]]:
    """Neighbours of one stream together: a terminal's or a file's write costs as much for a line as for a thousand."""
    run: list[bytes] = []
    size = 0
    for nth, piece in enumerate(pieces):
        run.append(piece.data)
        size += len(piece.data)
        last = nth + 1 == len(pieces) or pieces[nth + 1].stream != piece.stream
        if last or size >= SHOWN_BYTES:
            yield piece.stream, b"".join(run)
            run, size = [], 0


class Call(Protocol):
    """Runs a spool method in the spool's thread, and again until the disk has room."""

    def __call__(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True)
class Job:
    """What to run: from the command line only; a server can never hand an argv."""

    argv: tuple[str, ...]
    session_id: str
    driver: Driver
    keep_stdin: bool
    orphan_after_s: float
    cwd: str = field(default_factory=os.getcwd)
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


class Hooks(Protocol):
    def on_records(self, execution_id: str, last_seq: int) -> None: ...
    def on_ephemeral(self, execution_id: str, events: list[dict[str, Any]]) -> None: ...
    def on_output(self, stream: str, data: bytes) -> None: ...
    def on_carried_out(self, command_ids: list[str]) -> None: ...
    def on_ended(self, execution_id: str, final: dict[str, Any] | None) -> None: ...


class Run:
    """The execution at hand, in memory; the spool has everything that must survive."""

    def __init__(self, row: Execution) -> None:
        self.no, self.execution_id, self.row = row.no, row.execution_id, row
        self.opened = row.state == "running"
        self.acked_seq = 0  # of this process: after a restart the gate waits for the server's word again
        self.ladder = row.ladder
        self.dropped = row.dropped is not None
        self.at, self.driver_state = row.at, row.driver_state
        self.bell = asyncio.Event()
        self.busy = False
        self.shim: Shim | None = None
        self.shim_gone = False
        self.pumped_at = self.checked_at = 0.0
        self.killed_at: float | None = None
        self.blocked = self.moved = False
        self.stalls = self.failures = 0
        self.ending = False  # its end is being written: no interrupt can reach it any more

    def refresh(self, row: Execution) -> None:
        self.row = row
        self.opened = row.state == "running"
        self.ladder = self.ladder or row.ladder
        self.dropped = self.dropped or row.dropped is not None


class Runner:
    def __init__(
        self, spool: Spool, call: Call, once: Call, job: Job, hooks: Hooks, emit: Emit, ports: Ports | None = None
    ) -> None:
        """``call`` waits for room on a full disk; ``once`` raises SpoolFull, for what must not wait."""
        self.spool, self.call, self.once, self.job, self.hooks, self.emit = spool, call, once, job, hooks, emit
        ports = ports or Ports()
        self.shims, self._clock, self.wall_ms = ports.shims, ports.clock, ports.wall_ms
        self.current: Run | None = None
        self.detached = False  # leave the agent to its shim and go
        self.closing = False  # end with the execution at hand
        self.forsaken = False  # nothing that we send is acknowledged any more: a full spool stays full
        self.more = asyncio.Event()
        self.idle = asyncio.Event()  # nothing at hand
        self.idle.set()
        self.left = asyncio.Event()
        # What the server acknowledged while another execution was at hand: one that waits may have been told of
        # already at hello, and nobody says it twice. As many as the queue of one session.
        self.heard: dict[str, int] = {}

    # ------------------------------------------------------------ what others do to it

    def ring(self) -> None:
        if self.current is not None:
            self.current.bell.set()

    def on_acked(self, execution_id: str, seq: int) -> None:
        if self.current is not None and self.current.execution_id == execution_id:
            self.current.acked_seq = max(self.current.acked_seq, seq)
        else:
            self.heard[execution_id] = max(self.heard.pop(execution_id, 0), seq)
            if len(self.heard) > QUEUE_LIMIT + 1:
                del self.heard[next(iter(self.heard))]
        self.ring()  # also for the room that it made in the spool

    def close_after(self, *, forsaken: bool = False) -> None:
        self.closing = True
        self.forsaken = self.forsaken or forsaken
        self.more.set()
        self.ring()

    def detach(self) -> None:
        self.detached = True
        self.left.set()
        self.more.set()
        self.ring()

    def end_by(self, run: Run, new: Ladder) -> Ladder:
        """The ladder that results; the caller spools it, then hands it to `began`."""
        return new if run.ladder is None else law.upgrade(run.ladder, new, self.wall_ms())

    def began(self, run: Run, ladder: Ladder) -> None:
        # A rung may have been climbed while it was spooled: never back.
        run.ladder = ladder if run.ladder is None else law.upgrade(run.ladder, ladder, self.wall_ms())
        run.bell.set()

    def kill(self, run: Run) -> None:
        """The whole group of the agent, now; a shim that lives reports it like any other end."""
        if run.shim is not None:
            run.shim.kill(shim=False, agent=True)
        run.bell.set()

    # ------------------------------------------------------------ the loops

    async def run(self) -> None:
        while not (self.detached or self.closing):
            rows = await self.call(self.spool.executions)
            row = next((row for row in rows if row.state != "final" or row.dropped), None)
            if row is None or self.spool.unreadable:
                self.more.clear()
                if not (self.detached or self.closing):
                    await self.more.wait()
                continue
            self.current = Run(row)
            self.current.acked_seq = self.heard.pop(row.execution_id, 0)
            self.idle.clear()
            try:
                # Again, now that every command finds it as the current one: it may have been buried meanwhile.
                row = await self.call(self.spool.get, row.execution_id)
                if row is not None:
                    self.current.refresh(row)
                    await self._one(self.current)
            finally:
                self._let_go(self.current)
                self.current = None
                self.idle.set()

    def _let_go(self, run: Run) -> None:
        if run.shim is not None:
            asyncio.get_running_loop().remove_reader(run.shim.wake)
            run.shim.close()
            run.shim = None

    async def _one(self, run: Run) -> None:
        if run.row.state == "final":
            return await self._bury(run)
        if run.opened:
            self._attach(run, self.shims.adopt(self._path(run.row.run_dir)))
            if run.shim is not None:
                # Recorded as open; whoever recorded it may have died before it said so. Twice opens once.
                run.shim.tell("open")
                await self._give_again(run, run.shim)
        elif not await self._launch(run):
            return None
        while not self.detached:
            run.bell.clear()
            await self._gate(run)
            await self._pump(run)
            await self._climb(run)
            if await self._over(run):
                return None
            self._check_in(run)
            self._listen(run)
            await rung(run.bell, self._patience(run))
        return None

    def _patience(self, run: Run) -> float:
        rung = None if run.ladder is None else law.wait_s(run.ladder, self.wall_ms())
        return IDLE_S if rung is None else min(IDLE_S, rung + 0.001)

    def _path(self, run_dir: str | None) -> str:
        return os.path.join(self.spool.dir, "runs", run_dir or "none")

    def _attach(self, run: Run, shim: Shim | None) -> None:
        run.shim, run.shim_gone = shim, shim is None
        if shim is None:
            return

        if shim.facts() is not None and not shim.alive():
            run.shim_gone = True
        shim.tell(".")

    def _listen(self, run: Run) -> None:
        """For one knock of the shim, before each wait. Not while it is being read anyway: a shim knocks with every
        write, and a knock that nobody listened for is still in the pipe."""
        shim = run.shim
        if shim is None or run.shim_gone:
            return
        loop = asyncio.get_running_loop()

        def heard() -> None:
            loop.remove_reader(shim.wake)
            if not shim.drain_wake():
                run.shim_gone = True  # its end of the bell is closed
            run.bell.set()

        loop.add_reader(shim.wake, heard)

    # ------------------------------------------------------------ launch and gate

    async def _launch(self, run: Run) -> bool:
        """A child behind the gate. False: it is over already, or never will be."""
        while True:
            old = self.shims.adopt(self._path(run.row.run_dir)) if run.row.run_dir else None
            if old is not None:
                if old.opened():
                    # The spool is older than the truth (restored from a backup): it ran. Adopt, never run again.
                    await self.call(self.spool.open_gate, run.no)
                    run.opened = True
                    self._attach(run, old)
                    return True
                # Never opened, and nobody else can open it: we hold the lock, and its directory goes now.
                old.tell("shut")
                old.kill(shim=True, agent=False)
                old.close()
                self.shims.clear(self._path(run.row.run_dir))
            if run.ladder is not None or run.dropped or run.failures >= LAUNCHES:
                await self._never_ran(run, "ended before it began" if run.ladder else "its shim would not start")
                return False
            run_dir = f"{run.execution_id}.{run.row.launches}"
            data = self.job.driver.encode_input(run.row.input, keep=self.job.keep_stdin)
            if not await self.call(self.spool.launching, run.no, run_dir, len(data)):
                return False
            run.row = run.row._replace(run_dir=run_dir, launches=run.row.launches + 1)
            path = self._path(run_dir)
            spec = Spec(self.job.argv, self.job.cwd, self.job.orphan_after_s, data, not self.job.keep_stdin)
            try:
                shim = await asyncio.to_thread(self.shims.start, path, spec, self._env(run, path))
            except OSError as error:
                run.failures += 1
                self.emit("shim.failed", execution_id=run.execution_id, error=error)
                await asyncio.sleep(IDLE_S)
                continue
            self._attach(run, shim)
            facts = await self._facts(run, shim)
            if facts is not None:
                last = await self.call(self.spool.launched, run.no, facts.agent_pid, facts._asdict())
                if not run.dropped:
                    self.hooks.on_records(run.execution_id, last)
                return True
            run.failures += 1
            self.emit("shim.failed", execution_id=run.execution_id, error="it did not introduce its child")
            self._let_go(run)

    async def _facts(self, run: Run, shim: Shim) -> Any:
        deadline = self._clock() + SHIM_WAIT_S
        while (facts := shim.facts()) is None and self._clock() < deadline:
            run.bell.clear()
            self._listen(run)
            await rung(run.bell, 0.05)
        return facts

    def _env(self, run: Run, path: str) -> dict[str, str]:
        env = {key: value for key, value in self.job.env.items() if key not in SECRETS}
        env["HOLDFAST_EXECUTION_ID"] = run.execution_id
        env["HOLDFAST_SESSION_ID"] = self.job.session_id
        env["HOLDFAST_INPUT_FILE"] = os.path.join(path, "input")
        env.pop("HOLDFAST_INPUT", None)
        data = self.job.driver.encode_input(run.row.input, keep=False)
        if len(data) <= ENV_BYTES and b"\0" not in data:
            env["HOLDFAST_INPUT"] = data.decode("utf-8")
        return env

    async def _gate(self, run: Run) -> None:
        if run.opened or run.acked_seq < 1 or run.ladder is not None or run.dropped or run.shim is None:
            return
        if run.shim_gone:
            return
        # Recorded first: killed between the two lines, the next wrapper finds a shut gate and reports start_failed.
        await self.call(self.spool.open_gate, run.no)
        run.opened = True
        run.shim.tell("open")
        self.emit("execution.running", execution_id=run.execution_id)

    async def _give_again(self, run: Run, shim: Shim) -> None:
        """Adopted: repeat every input at its own place; what is there already is the same bytes."""
        for at, data in await self.call(self.spool.inputs, run.execution_id):
            shim.give(at, data)

    def give(self, run: Run, at: int, data: bytes) -> None:
        if run.shim is not None and not run.shim_gone:
            run.shim.give(at, data)

    # ------------------------------------------------------------ output

    async def _pump(self, run: Run) -> None:
        """Segments → records, at most every CHUNK_S, so that a chatty agent makes chunks and not letters."""
        if run.shim is None or not run.opened:
            return
        while (pause := run.pumped_at + CHUNK_S - self._clock()) > 0 and run.shim.report() is None:  # noqa: ASYNC110 - a file
            await asyncio.sleep(min(pause, GLANCE_S))
        more, run.moved = True, False
        while more and not self.detached:
            more = await self._pump_once(run)
        run.pumped_at = self._clock()

    async def _pump_once(self, run: Run) -> bool:
        """True if there may be more."""
        path = self._path(run.row.run_dir)
        dropped = run.dropped

        def work() -> tuple[list[Piece], list[dict[str, Any]], bool | None, int] | None:
            if not self.spool.room():
                return None  # back-pressure: unread segments stop the shim, the shim's full pipes stop the agent
            pieces, at = self.shims.read(path, run.at, self.spool.batch_bytes())
            if not pieces and at == run.at:
                return [], [], None, 0
            fed = self.job.driver.feed(run.driver_state, pieces, end=False)
            last = self.spool.append(run.no, [] if dropped else fed.items, at, fed.state)
            if at.segment > run.at.segment:
                self.shims.forget(path, at.segment, self.spool.named_from(run.no, at.segment))
            run.at, run.driver_state = at, fed.state
            return pieces, fed.ephemeral, fed.busy, last

        try:
            done = await self.once(work)
        except SpoolFull:
            done = None
        run.blocked = done is None
        if done is None:
            return False
        pieces, ephemeral, busy, last = done
        run.busy = run.busy if busy is None else busy
        if last and not dropped:
            self.hooks.on_records(run.execution_id, last)
        if ephemeral and not dropped:
            self.hooks.on_ephemeral(run.execution_id, ephemeral)
        for stream, data in _joined(pieces):
            self.hooks.on_output(stream, data)
            await asyncio.sleep(0)  # whoever reads it may be slow; the socket is heard in between
        run.moved = run.moved or bool(pieces)
        return bool(pieces)

    # ------------------------------------------------------------ the ladder

    async def _climb(self, run: Run) -> None:
        if run.ladder is None or run.shim is None or not run.opened:
            return
        run.ladder = law.anchored(run.ladder, self.wall_ms())
        while (rung := law.climb(run.ladder, self.wall_ms())) is not None:
            ladder, name = rung
            body = None
            if not run.dropped:
                body = event("agent.signalled", self.wall_ms(), {"signal": name, "step": ladder.step})
            # Recorded, then done: a step is never repeated after a crash, but for the last, which harms nobody twice.
            try:
                last = await self.once(self.spool.climb, run.no, ladder, body)
            except SpoolFull:
                body, last = None, 0  # a full disk may cost the event, not the ladder
            # An upgrade may have come while that was written; its force is not lost.
            run.ladder = law.upgrade(ladder, run.ladder, self.wall_ms()) if run.ladder.force else ladder
            run.shim.tell(f"sig {int(signals.Signals[name])}")
            self.emit("agent.signalled", execution_id=run.execution_id, signal=name)
            if body is not None:
                self.hooks.on_records(run.execution_id, last)
        if run.ladder.step >= len(law.SIGNALS):
            now = self._clock()
            if run.killed_at is None:
                run.killed_at = now
                run.shim.tell(f"sig {int(signals.SIGKILL)}")
            elif now - run.killed_at > FROZEN_S and run.shim.report() is None and not run.blocked:
                run.shim.kill(shim=True, agent=True)
                run.shim_gone = True

    # ------------------------------------------------------------ the end

    async def _over(self, run: Run) -> bool:
        """True once the execution's end is spooled."""
        if not run.opened:
            if run.ladder is not None or run.dropped:
                self._shut(run)
                await self._never_ran(run, "ended before it began")
                return True
            if run.shim_gone or (run.shim is not None and run.shim.report() is not None):
                run.failures += 1
                self._let_go(run)  # it died behind its gate: nothing ran, so another may
                return not await self._launch(run)
            return False
        report = run.shim.report() if run.shim is not None else None
        if self.forsaken and run.blocked and self._powerless(run, ended=report is not None):
            if run.shim is not None:
                run.shim.kill(shim=False, agent=True)
            self.emit("output.left", execution_id=run.execution_id, reason="the spool is full; its segments keep it")
            return True  # for the next wrapper of this spool, as after a crash
        if report is not None:
            final = verdicts.of_exit(report, run.ladder, self.job.argv[0])
            if (report.segment, report.offset) > (run.at.segment, run.at.offset) and report.kind != "gate_shut":
                if run.moved:
                    run.bell.set()  # more to drain
                run.stalls = 0 if run.moved or run.blocked else run.stalls + 1
                if run.stalls < STALLS:
                    return False
                final["data"]["output"] = "incomplete"  # somebody took segments away
            return await self._finish(run, final)
        if run.shim_gone or (run.shim is not None and not run.shim.alive()):
            if run.shim is not None and run.shim.report() is not None:
                return False  # it reported between our two looks
            while await self._pump_once(run):
                continue  # what it wrote between our last look and its death
            if run.blocked:
                return False
            if run.shim is not None:
                run.shim.kill(shim=False, agent=True)
            return await self._finish(run, verdicts.of_shim_lost(run.ladder))
        return False

    def _powerless(self, run: Run, *, ended: bool) -> bool:
        """The ladder has nothing left to do. A shim with full segments reports no end before somebody reads them."""
        if ended or run.shim is None or run.shim_gone or not run.shim.alive():
            return True
        return run.killed_at is not None and self._clock() - run.killed_at > FROZEN_S

    def _shut(self, run: Run) -> None:
        if run.shim is not None:
            run.shim.tell("shut")

    async def _never_ran(self, run: Run, why: str) -> None:
        """Its end before its gate opened: `started` (if it has not been said) and the final."""
        if run.dropped:
            return await self._bury(run)
        await self.call(self.spool.launched, run.no, run.row.agent_pid, {})
        await self._finish(run, verdicts.of_never_ran(run.ladder, why))
        return None

    async def _finish(self, run: Run, final: dict[str, Any]) -> bool:
        run.ending = True
        commands = await self.call(self.spool.carried_out, run.execution_id)
        if commands:
            self.hooks.on_carried_out(commands)  # before the final is there to be sent: the terminal event comes last
        if run.dropped:
            await self._bury(run, told=True)
            return True
        fed = self.job.driver.feed(run.driver_state, (), end=True)
        last = await self.call(self.spool.finish, run.no, fed.items, final)
        if run.dropped:  # aborted while that was written
            await self._bury(run, told=True)
            return True
        # Its directory stays until the final is acknowledged. A spool restored from a backup may call this execution
        # `received` again, and the server, who has not heard of its end, would let it begin: `opened` is the witness.
        self._let_go(run)
        why = final["error"] if final["data"].get("cause") == "start_failed" else None
        self.emit("execution.ended", execution_id=run.execution_id, status=final["status"], error=why)
        self.hooks.on_records(run.execution_id, last)
        self.hooks.on_ended(run.execution_id, final)
        return True

    async def _bury(self, run: Run, *, told: bool = False) -> None:
        run.ending = True
        if not told:
            self.hooks.on_carried_out(await self.call(self.spool.carried_out, run.execution_id))
        await self.call(self.spool.bury, run.execution_id)
        self._clear_away(run)
        self.hooks.on_ended(run.execution_id, None)

    def _clear_away(self, run: Run) -> None:
        self._let_go(run)
        self.clear(run.row.run_dir)

    def clear(self, run_dir: str | None) -> None:
        """The server knows that it is over, or nobody wants to know."""
        if run_dir is not None:
            self.shims.clear(self._path(run_dir))

    def _check_in(self, run: Run) -> None:
        now = self._clock()
        if run.shim is not None and now - run.checked_at >= min(CHECK_IN_S, self.job.orphan_after_s / 4):
            run.checked_at = now
            run.shim.tell(".")

    def stop_ladder(self, reason: str, *, force: bool = False) -> Ladder:
        return law.begin("stop", self.wall_ms(), INTERRUPT_S, force=force, reason=reason)
