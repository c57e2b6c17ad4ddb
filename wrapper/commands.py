"""What the server may ask: start, input, approval, interrupt, abort. Each is durable before it is acknowledged.

A command that comes again is answered from the spool and done once. A command about an execution that is not the one
at hand is `rejected`, `not_current`, and touches nothing. A server can start the configured command, never name one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from actors.protocol.defaults import INTERRUPT_S
from actors.protocol.ids import valid_id
from wrapper import ladder as law
from wrapper.runner import Call, Run, Runner
from wrapper.spool import Execution, Spool
from wrapper.survivors import LADDER_S
from wrapper.telemetry import Emit

WITHIN_MAX_S: Final = 3600.0
WITHIN_MIN_S: Final = 1.0  # less, and the rungs are one
OPENING_S: Final = 0.05  # an input may overtake the opening gate, or the runner at its birth, by milliseconds
TAKEN_UP_S: Final = LADDER_S + 10.0  # a runner begins when survivors are ended; later, it is not coming to this one

Say = Callable[[dict[str, Any]], None]


class Commands:
    def __init__(
        self, spool: Spool, call: Call, runner: Runner, say: Say, emit: Emit, accepts: Callable[[str], bool]
    ) -> None:
        """``accepts``: may this execution start here? (`--once`, `holdfast run`, an unreadable spool)"""
        self.spool, self.call, self.runner, self.emit, self.accepts = spool, call, runner, emit, accepts
        self._say = say

    def answer(self, command_id: str, status: str, code: str | None = None, detail: str | None = None) -> None:
        self._say({"type": "command_ack", "command_id": command_id, "status": status, "code": code, "detail": detail})

    async def obey(self, command: Mapping[str, Any]) -> None:
        command_id, execution_id, kind = (command.get(key) for key in ("command_id", "execution_id", "kind"))
        if not (isinstance(command_id, str) and isinstance(execution_id, str) and isinstance(kind, str)):
            return self.emit("command.unreadable")
        if not (valid_id(command_id) and valid_id(execution_id)):
            return self.emit("command.unreadable")
        known = await self.call(self.spool.command, command_id)
        if known is not None and not (kind == "interrupt" and known.status == "received" and command.get("force")):
            return self.answer(command_id, known.status, known.code, known.detail)
        self.emit("command.received", kind=kind, command_id=command_id, execution_id=execution_id)
        if kind == "start":
            return await self._start(command_id, execution_id, command)
        if kind == "abort":
            return await self._abort(command_id, execution_id, command)
        run, row = await self._at_hand(execution_id)
        if run is None or row is None or run.ending:
            return await self._reject(
                command_id, execution_id, kind, "not_current", "this execution is not running here"
            )
        match kind:
            case "interrupt":
                await self._interrupt(command_id, run, row, command)
            case "input" | "approval":
                await self._input(command_id, run, kind, command)
            case _:
                await self._reject(command_id, execution_id, kind, "unknown_kind", f"this wrapper knows no {kind}")

    async def _at_hand(self, execution_id: str) -> tuple[Run | None, Execution | None]:
        """The run that a command is for, and its row.

        A wrapper that was just born may be asked before its runner has taken up what runs. A refusal would be final,
        and the agent would wait for ever for an answer that somebody gave: the command waits for the runner instead.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + TAKEN_UP_S
        while True:
            row = await self.call(self.spool.get, execution_id)
            run = self._current(execution_id)
            if run is not None or row is None or not self._comes(row) or loop.time() >= until:
                return run, row
            await asyncio.sleep(OPENING_S)

    def _comes(self, row: Execution) -> bool:
        """Not at hand yet, and the runner is about to take it up; behind another one it only waits for its turn."""
        if row.dropped is not None or self.runner.closing:
            return False
        return row.state == "running" or (row.state == "received" and self.runner.current is None)

    def _current(self, execution_id: str) -> Run | None:
        run = self.runner.current
        return run if run is not None and run.execution_id == execution_id else None

    async def _reject(self, command_id: str, execution_id: str, kind: str, code: str, detail: str) -> None:
        await self.call(self.spool.note, command_id, execution_id, kind, "rejected", code, detail)
        self.answer(command_id, "rejected", code, detail)

    async def _start(self, command_id: str, execution_id: str, command: Mapping[str, Any]) -> None:
        again = await self.call(self.spool.remembers, execution_id)
        if not (again or self.accepts(execution_id)):
            return  # not ours to take: it stays on the server, unacknowledged
        limits = command.get("limits")
        limits = limits if isinstance(limits, dict) else {}
        await self.call(self.spool.receive_start, command_id, execution_id, command.get("input"), limits)
        self.answer(command_id, "received")
        self.runner.more.set()

    async def _interrupt(self, command_id: str, run: Run, row: Execution, command: Mapping[str, Any]) -> None:
        told = (command.get("within_s"), row.limits.get("interrupt_s"))
        within = next((one for one in told if isinstance(one, (int, float)) and one > 0), INTERRUPT_S)
        new = law.begin(
            "interrupt",
            self.runner.wall_ms(),
            min(max(float(within), WITHIN_MIN_S), WITHIN_MAX_S),
            force=bool(command.get("force")),
            reason=command.get("reason"),
            iid=command.get("interrupt_id"),
        )
        ladder = self.runner.end_by(run, new)
        await self.call(self.spool.note_ladder, command_id, run.execution_id, "interrupt", run.no, ladder)
        self.answer(command_id, "received")
        self.runner.began(run, ladder)

    async def _input(self, command_id: str, run: Run, kind: str, command: Mapping[str, Any]) -> None:
        job, execution_id = self.runner.job, run.execution_id
        if not job.keep_stdin:
            detail = "the agent's stdin was closed after its input; start the wrapper with --stdin keep"
            return await self._reject(command_id, execution_id, kind, "stdin_closed", detail)
        while not (run.opened or run.ending or run.ladder is not None):
            await asyncio.sleep(OPENING_S)
            if self._current(execution_id) is not run:
                break
        if run.ending or not run.opened:
            return await self._reject(command_id, execution_id, kind, "not_current", "this execution is ending")
        if kind == "input":
            data = job.driver.encode_input(command.get("input"), keep=True)
        else:
            approval_id, note = str(command.get("approval_id")), command.get("note")
            ref = await self.call(self.spool.approval_ref, approval_id)
            data = job.driver.encode_decision(approval_id, ref, str(command.get("decision")), note)
        at = await self.call(self.spool.note_input, command_id, execution_id, kind, run.no, data)
        if at is None:
            return await self._reject(command_id, execution_id, kind, "not_current", "this execution has ended")
        self.runner.give(run, at, data)
        self.answer(command_id, "done")

    async def _abort(self, command_id: str, execution_id: str, command: Mapping[str, Any]) -> None:
        await self.call(self.spool.note, command_id, execution_id, "abort", "received")
        self.answer(command_id, "received")
        if not await self.abort(execution_id, str(command.get("reason") or "aborted")):
            await self.call(self.spool.note, command_id, execution_id, "abort", "done")
            self.answer(command_id, "done")

    async def abort(self, execution_id: str, reason: str) -> bool:
        """The server's execution is over: end the child by the ladder, drop what it said. True: a child has to end."""
        row = await self.call(self.spool.get, execution_id)
        run = self._current(execution_id)
        if row is None:
            return False
        if run is None and row.state == "final":
            await self.call(self.spool.bury, execution_id)
            self.runner.clear(row.run_dir)
            return False
        if run is None:  # waiting for its turn: the runner ends it when it comes
            ladder = law.begin("abort", self.runner.wall_ms(), INTERRUPT_S, reason=reason)
            await self.call(self.spool.drop, row.no, reason, ladder)
            self.runner.more.set()
            return True
        run.dropped = True
        if run.ending:
            self.runner.ring()
            return False
        ladder = self.runner.end_by(run, law.begin("abort", self.runner.wall_ms(), INTERRUPT_S, reason=reason))
        await self.call(self.spool.drop, run.no, reason, ladder)
        self.runner.began(run, ladder)
        return True
