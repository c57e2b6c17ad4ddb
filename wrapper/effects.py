"""What the link's machine asks its shell to do: frozen values, named as imperatives or as facts to act on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Known:
    """One execution as the spool knows it, in the words of hello."""

    execution_id: str
    state: str
    first_seq: int
    last_seq: int
    final: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Send:
    frame: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Acked:
    execution_id: str
    seq: int


@dataclass(frozen=True, slots=True)
class Rewound:
    """The server has more than we told it of; what came after ``told_seq`` goes on at ``acked_seq`` + 1."""

    execution_id: str
    told_seq: int
    acked_seq: int


@dataclass(frozen=True, slots=True)
class Abort:
    execution_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Discard:
    execution_id: str


@dataclass(frozen=True, slots=True)
class Done:
    execution_id: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """This record will never be taken: put a gap (or a bare final) in its place."""

    execution_id: str
    seq: int


@dataclass(frozen=True, slots=True)
class Obey:
    command: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Live:
    """Ready: commands may come, records may go."""

    heartbeat_s: float
    grace_s: float


@dataclass(frozen=True, slots=True)
class Cut:
    """Close this socket and come back."""

    reason: str


@dataclass(frozen=True, slots=True)
class ConnectAt:
    at_s: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Do not come back: end the child by the ladder and exit."""

    code: int | None
    reason: str


Effect = Send | Acked | Rewound | Abort | Discard | Done | Refuse | Obey | Live | Cut | ConnectAt | Stop
