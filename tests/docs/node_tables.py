"""The generated blocks about nodes: name → markdown, made from the tables of protocol/node_codes.py and law/nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from pydantic import BaseModel

from actors.law.nodes.actions import GATES
from actors.law.nodes.tasks import TRANSITIONS as TASK_STEPS
from actors.law.nodes.tasks import Step as TaskStep
from actors.law.nodes.uploads import TRANSITIONS as INTENT_STEPS
from actors.law.nodes.uploads import Step as IntentStep
from actors.protocol import node_codes as codes
from actors.protocol import node_frames as frames

Table = Callable[..., str]

TASK_WHY: Mapping[TaskStep, str] = {
    "ready": "the recorder reports `ready` with this task and attempt",
    "recording": "the recorder reports `recording` or `paused`",
    "finish": "an operator's `finish`: the upload intent is made in the same transaction",
    "evidence": "the uploader has told of this attempt's recording: it must have been finished",
    "kept": "the object was verified; the artifact is written in the same transaction",
    "lapse": "the grace of the recorder has expired, fenced by its epoch",
    "clear": "an operator's `clear`",
    "cancel": "an operator's `cancel`",
    "upload_failed": "the recording is lost, or was tried too often",
}
INTENT_WHY: Mapping[IntentStep, str] = {
    "accepted": "the device has noted it, or is at work",
    "uploaded": "the device says that it is done, and what it has put where",
    "failed": "a try of the device failed",
    "gave_up": "too many tries",
    "not_found": "the device has no such recording",
    "kept": "the object is there, with this size and digest; `upload_ack keep` is of the same transaction",
    "mismatch": "the object is not there, or is another",
    "discarded": "the task was cancelled or has failed, or is at a later attempt",
    "forgotten": "the device's list of recordings does not have it",
}


def diagram(steps: Mapping[tuple[Any, Any], Any], first: str, last: frozenset[str] | set[str]) -> str:
    lines = ["```mermaid", "stateDiagram-v2", "    direction LR", f"    [*] --> {first}"]
    arrows: dict[tuple[str, str], list[str]] = {}
    for (before, step), after in steps.items():
        arrows.setdefault((before, after), []).append(step)
    lines += [f"    {a} --> {b} : {' or '.join(taken)}" for (a, b), taken in arrows.items()]
    lines += [f"    {state} --> [*]" for state in sorted(last)]
    return "\n".join([*lines, "```"])


def steps(table: Table, graph: Mapping[tuple[Any, Any], Any], kinds: Any, why: Mapping[Any, str]) -> str:
    """One line per step: from where it leads where. Raises ValueError when words and steps differ."""
    if set(get_args(kinds)) != set(why):
        raise ValueError(f"words for {sorted(set(get_args(kinds)) ^ set(why))}")
    rows = []
    for step, because in why.items():
        moves: dict[str, list[str]] = {}
        for (before, taken), after in graph.items():
            if taken == step:
                moves.setdefault(after, []).append(f"`{before}`")
        rows.append((step, because, "; ".join(f"{', '.join(froms)} → `{to}`" for to, froms in moves.items())))
    return table(("step", "because", "moves"), rows)


def gates(table: Table) -> str:
    rows = []
    for action, means in codes.TASK_ACTIONS.items():
        gate = GATES.get(action)
        if gate is None:
            rows.append((f"`{action}`", means, "any that is not terminal", "–"))
            continue
        needs = []
        if gate.device:
            needs.append("connected, its state known" + (" and fresh" if gate.fresh else ""))
        if gate.reported is not None:
            needs.append("reports " + " or ".join(f"`{state}`" for state in sorted(gate.reported)))
        if gate.starts:
            needs.append("not drained, no other task")
        rows.append((f"`{action}`", means, f"`{gate.status}`", "; ".join(needs) or "–"))
    return table(("action", "does", "the task is", "the recorder is"), rows)


def named(table: Table, head: str, means: Mapping[Any, str]) -> str:
    return table((head, "means"), ((f"`{name}`", why) for name, why in means.items()))


def blocks(table: Table, frames_of: Callable[[tuple[type[BaseModel], ...]], str]) -> Mapping[str, Callable[[], str]]:
    members = lambda union: get_args(get_args(union)[0])  # noqa: E731
    return {
        "node-roles": lambda: named(table, "role", codes.ROLES),
        "presence-reasons": lambda: named(table, "reason", codes.PRESENCE_REASONS),
        "node-event-types": lambda: named(table, "type", codes.NODE_EVENT_TYPES),
        "invocation-states": lambda: named(table, "state", codes.INVOCATION_STATES),
        "invocation-errors": lambda: named(table, "code", codes.INVOCATION_ERRORS),
        "reported-states": lambda: named(table, "state", codes.REPORTED_STATES),
        "task-statuses": lambda: named(table, "status", codes.TASK_STATUSES),
        "task-actions": lambda: gates(table),
        "task-diagram": lambda: diagram(TASK_STEPS, "pending", codes.TASK_TERMINAL),
        "task-steps": lambda: steps(table, TASK_STEPS, TaskStep, TASK_WHY),
        "upload-statuses": lambda: named(table, "status", codes.UPLOAD_STATUSES),
        "intent-states": lambda: named(table, "state", codes.INTENT_STATES),
        "intent-diagram": lambda: diagram(
            INTENT_STEPS, "requested", set(codes.INTENT_STATES) - set(codes.INTENT_OPEN)
        ),
        "intent-steps": lambda: steps(table, INTENT_STEPS, IntentStep, INTENT_WHY),
        "frames-from-node": lambda: frames_of(members(frames.FromNode)),
        "frames-to-node": lambda: frames_of(members(frames.ToNode)),
    }
