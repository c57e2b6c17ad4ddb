"""Which request a due deadline becomes: by whose it is. The reaper asks this and decides nothing."""

from __future__ import annotations

from typing import cast

from actors.law.model import DeadlineKind
from actors.law.nodes.model import NodeDeadlineKind
from actors.law.nodes.requests import NODE, NodeSweep
from actors.law.requests import Request, Sweep


def sweep_of(subject: str, kind: DeadlineKind | NodeDeadlineKind, key: str, seed: str) -> Request:
    """subject: whose mailbox it is in; key: the deadline's own subject."""
    if subject.startswith(NODE):
        return NodeSweep(
            node_id=subject.removeprefix(NODE), seed=seed, kind=cast(NodeDeadlineKind, kind), subject_key=key
        )
    return Sweep(session_id=subject, seed=seed, kind=cast(DeadlineKind, kind), subject=key)
