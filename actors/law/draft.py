"""A decision being written: collects effects and keeps the view in step, so that later steps of the same decision
(end one execution, promote the next) reason over what the earlier ones will have done. Local to one decision.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from actors.law.effects import (
    Answer,
    Append,
    Arm,
    Decision,
    Effect,
    Enqueue,
    InsertExecution,
    SetExecution,
    SetSession,
    Speech,
    TakeEpoch,
)
from actors.law.model import Command, DeadlineKind, Execution, Json, Session, View
from actors.law.requests import nth_id
from actors.protocol.codes import CommandKind


class Draft:
    def __init__(self, view: View, seed: str) -> None:
        assert view.session is not None, "a draft stands on a session"
        self.view = view
        self.session: Session = view.session
        self.executions: dict[str, Execution] = dict(view.executions)
        self.seed = seed
        self._minted = 0
        self._effects: list[Effect] = []
        self._speech: list[Speech] = []

    # ------------------------------------------------------------ reading

    @property
    def active(self) -> Execution | None:
        return next((e for e in self.executions.values() if e.active), None)

    @property
    def queued(self) -> list[Execution]:
        return sorted((e for e in self.executions.values() if e.status == "queued"), key=lambda e: e.ordinal)

    def service_after(self, seconds: float) -> int:
        return self.view.service_ms + round(seconds * 1000)

    def limits(self, execution: Execution | None = None) -> Any:
        return self.view.limits_of(execution)

    # ------------------------------------------------------------ writing

    def mint(self, prefix: str) -> str:
        """Ids come from the request's seed: the same request decides to the same ids."""
        made = nth_id(prefix, self.seed, self._minted)
        self._minted += 1
        return made

    def do(self, *effects: Effect) -> None:
        self._effects.extend(effects)

    def say(self, *speech: Speech) -> None:
        self._speech.extend(speech)

    def append(self, type: str, data: Json, execution_id: str | None = None, exec_seq: int | None = None) -> None:
        self.do(Append(type, data, execution_id, exec_seq))

    def set_session(self, **changes: Any) -> None:
        self.session = replace(self.session, **changes)
        self.do(SetSession(changes))

    def take_epoch(self) -> int:
        """Every change of owner gets a number that no session ever had (DESIGN §1, the append fence)."""
        epoch = self.view.next_epoch
        if self.session.connection_epoch != epoch:
            self.do(TakeEpoch(epoch))
            self.set_session(connection_epoch=epoch)
        return epoch

    def insert(self, execution: Execution) -> None:
        self.executions[execution.execution_id] = execution
        self.do(InsertExecution(execution))

    def set_execution(self, execution_id: str, **changes: Any) -> Execution:
        before = self.executions[execution_id]
        after = self.executions[execution_id] = replace(before, **changes)
        self.do(SetExecution(execution_id, before.status, changes))
        return after

    def enqueue(self, kind: CommandKind, execution_id: str, payload: Json) -> str:
        command_id = self.mint("cmd")
        self.do(Enqueue(Command(command_id, self.session.session_id, execution_id, kind, payload)))
        return command_id

    def arm(
        self, kind: DeadlineKind, subject: str, due_ms: int, execution_id: str | None = None, *, keep: bool = False
    ) -> None:
        self.do(Arm(kind, subject, due_ms, execution_id, keep))

    def decide(self, answer: Answer) -> Decision:
        return Decision(answer, tuple(self._effects), tuple(self._speech))
