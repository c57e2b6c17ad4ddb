"""How a device is let in: a one-time code from an operator, a request by the device, an operator's decision, a claim.

    (code) → pending → approved | rejected        approved: the first claim makes the token, and only the first
Pure; secrets are compared by their hashes where they are stored. A device that lost an answer asks again: the same
code, claim and node come to the same enrolment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from actors.law.effects import Refuse
from actors.law.nodes.model import Enrolment
from actors.protocol.node_codes import EnrolmentState

TRANSITIONS: Final[dict[tuple[EnrolmentState, str], EnrolmentState]] = {
    ("pending", "approve"): "approved",
    ("pending", "reject"): "rejected",
}


@dataclass(frozen=True, slots=True)
class Code:
    """node_id: the only one that it is good for. used_by: the enrolment that it went into."""

    node_id: str | None
    expires_at_ms: int
    used_by: str | None = None


def refuse_code(code: Code | None, node_id: str, taken: bool, now_ms: int) -> Refuse | None:
    """taken: there is a node with this id. A code that names it lets it in again, with a fresh token."""
    if code is None or code.used_by is not None or now_ms >= code.expires_at_ms:
        return Refuse("bad_enrolment_code")
    if code.node_id is not None and code.node_id != node_id:
        return Refuse("bad_enrolment_code")
    if taken and code.node_id is None:
        return Refuse("node_exists")  # the code is not used up
    return None


def resolve(
    e: Enrolment, approve: bool, allow: tuple[str, ...] | None, by: str | None, now_ms: int, *, taken: bool = False
) -> Enrolment | Refuse:
    """taken: there is a node with this id by now, and the code did not name it. Of two who asked for one free id with
    codes of their own, the second would be let in as the first; it can only be rejected."""
    state = TRANSITIONS.get((e.state, "approve" if approve else "reject"))
    if state is None:
        winner = {
            "state": "resolved",
            "decision": e.state,
            "resolved_by": e.decided_by,
            "resolved_at_ms": e.decided_at_ms,
        }
        return Refuse("already_resolved", f"it is {e.state}", {"winner": winner})
    if approve and taken:
        return Refuse(
            "node_exists", f"{e.node_id} is another device by now; reject this one, or make a code for that id"
        )
    return replace(e, state=state, allow=allow if approve else None, decided_at_ms=now_ms, decided_by=by)


def claim(e: Enrolment, now_ms: int) -> Enrolment | None:
    """None: there is no token to be had by this claim (not decided, rejected, or it was shown already)."""
    if e.state != "approved" or e.claimed_at_ms is not None:
        return None
    return replace(e, claimed_at_ms=now_ms)
