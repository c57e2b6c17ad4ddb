"""Names of things. An id says what it names by its prefix; a foreign id only has to match ID_PATTERN."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import NewType

SessionId = NewType("SessionId", str)
ExecutionId = NewType("ExecutionId", str)
CommandId = NewType("CommandId", str)
InterruptId = NewType("InterruptId", str)
ApprovalId = NewType("ApprovalId", str)
ConnectionId = NewType("ConnectionId", str)
WrapperId = NewType("WrapperId", str)
InstanceId = NewType("InstanceId", str)
GatewayId = NewType("GatewayId", str)
NodeId = NewType("NodeId", str)
InvocationId = NewType("InvocationId", str)
TaskId = NewType("TaskId", str)
OrderId = NewType("OrderId", str)
BatchId = NewType("BatchId", str)
StationId = NewType("StationId", str)
CollectorId = NewType("CollectorId", str)
NoticeId = NewType("NoticeId", str)

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
_ID = re.compile(ID_PATTERN[:-1] + r"\Z")

PREFIXES = {
    "session": "ses",
    "execution": "exe",
    "command": "cmd",
    "interrupt": "int",
    "approval": "apr",
    "invocation": "inv",
    "connection": "con",
    "wrapper": "w",
    "instance": "i",
    "gateway": "gw",
    "stream": "str",
    "token": "tok",
    "webhook": "whk",
    "node": "nod",
    "task": "tsk",
    "enrolment": "enr",
    "enrolment_code": "enc",
    "order": "ord",
    "batch": "bat",
    "station": "sta",
    "collector": "col",
    "notice": "ntc",
}

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def ulid(now_ms: int | None = None) -> str:
    """26 lower-case characters: 48 bits of Unix milliseconds, 80 bits of randomness; sorts by time."""
    value = ((int(time.time() * 1000) if now_ms is None else now_ms) << 80) | int.from_bytes(os.urandom(10), "big")
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


Mint = Callable[[], str]  # makes ULIDs; a port, so that a simulated world can be repeated to the letter


def new_id(kind: str, mint: Mint = ulid) -> str:
    """A fresh id of a kind of PREFIXES, for example ``new_id("execution")`` → ``exe_01j…``."""
    return f"{PREFIXES[kind]}_{mint()}"


def valid_id(text: object) -> bool:
    return isinstance(text, str) and _ID.match(text) is not None
