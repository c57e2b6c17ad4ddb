"""The one door of the law: a view and a request in, a decision out. Every request type has its line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from actors.law import approvals, deadlines, execution, failure, ownership, requests, sessions
from actors.law.effects import Decision
from actors.law.model import View

TABLE: Final[dict[type[requests.Request], Callable[[View, Any], Decision]]] = {
    requests.CreateSession: sessions.create,
    requests.DeleteSession: sessions.delete,
    requests.Submit: execution.submit,
    requests.Interrupt: execution.interrupt,
    requests.SendInput: execution.send_input,
    requests.Fail: failure.fail,
    requests.ResolveApproval: approvals.resolve,
    requests.Connect: ownership.connect,
    requests.Closed: ownership.closed,
    requests.Started: execution.receive_started,
    requests.AskApproval: approvals.receive_approval,
    requests.Final: execution.receive_final,
    requests.AckCommand: execution.receive_command_ack,
    requests.Sweep: deadlines.sweep,
    requests.Restored: ownership.restored,
}


def decide(view: View, request: requests.Request) -> Decision:
    return TABLE[type(request)](view, request)
