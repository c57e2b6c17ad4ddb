"""The generated blocks about nodes: closed tables with their meanings, graphs from their TRANSITIONS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel

from actors.law.nodes import actions, enrolment, invocations, tasks, uploads
from actors.protocol import node_codes as codes
from actors.protocol import node_frames as frames

Table = Callable[[Iterable[str], Iterable[Iterable[Any]]], str]

MEANINGS: Mapping[str, str] = {
    "nothing": "–",
    "ready": "→ `ready`",
    "recording": "→ `in_progress`",
    "paused": "accords; the first pause is noted",
    "confirm": "accords",
    "finish": "`task finish` goes out again",
    "clear": "`task clear` goes out",
    "unwanted": "`task cancel` goes out",
}
OTHERS = (("foreign", "no task of this node"), ("unwanted", "another attempt of it"))


def diagram(graph: Mapping[tuple[Any, Any], Any], first: str) -> str:
    arrows: dict[tuple[str, str], list[str]] = {}
    for (before, step), after in graph.items():
        arrows.setdefault((before, after), []).append(step)
    ends = sorted({after for after in graph.values()} - {before for before, _ in graph})
    lines = ["```mermaid", "stateDiagram-v2", "    direction LR", f"    [*] --> {first}"]
    lines += [f"    {before} --> {after} : {', '.join(steps)}" for (before, after), steps in arrows.items()]
    lines += [f"    {state} --> [*]" for state in ends]
    return "\n".join([*lines, "```"])


def reports(table: Table) -> str:
    states = [s for s in codes.REPORTED_STATES if s in codes.HOLDING]
    rows: list[tuple[str, ...]] = [
        (f"`{status}`", *(MEANINGS[tasks.REPORTS.get((status, state), "nothing")] for state in states))
        for status in codes.TASK_STATUSES
    ]
    rows += [
        (who, *(["`task cancel`" + (", `error`" if what == "foreign" else "")] * len(states))) for what, who in OTHERS
    ]
    return table(("the task is", *(f"the recorder reports `{s}`" for s in states)), rows)


def gates(table: Table) -> str:
    rows: list[tuple[str, str, str, str, str]] = []
    for action, gate in actions.GATES.items():
        says = " or ".join(f"`{s}`" for s in sorted(gate.reported)) if gate.reported is not None else "anything"
        needs = ["connected, state known"] if gate.device else ["–"]
        needs += ["heard of lately"] if gate.fresh and gate.device else []
        needs += ["not drained, no other task on it"] if gate.starts else []
        rows.append((f"`{action}`", f"`{gate.status}`", says, ", ".join(needs), codes.TASK_ACTIONS[action]))
    rows.append(("`cancel`", "any that has not ended", "anything", "–", codes.TASK_ACTIONS["cancel"]))
    return table(("action", "the task is", "the recorder reports", "the recorder is", "asks the device to"), rows)


def _meanings(table: Table, head: str, said: Mapping[Any, str]) -> str:
    return table((head, "means"), ((f"`{name}`", means) for name, means in said.items()))


def blocks(table: Table, shown: Callable[[Iterable[type[BaseModel]]], str]) -> Mapping[str, Callable[[], str]]:
    """table and shown: how the other documents write theirs."""
    return {
        "node-roles": lambda: _meanings(table, "role", codes.ROLES),
        "node-presence": lambda: _meanings(table, "reason", codes.PRESENCE_REASONS),
        "node-events": lambda: _meanings(table, "type", codes.NODE_EVENT_TYPES),
        "node-invocation-states": lambda: _meanings(table, "state", codes.INVOCATION_STATES),
        "node-invocation-errors": lambda: _meanings(table, "code", codes.INVOCATION_ERRORS),
        "node-reported-states": lambda: _meanings(table, "state", codes.REPORTED_STATES),
        "node-task-statuses": lambda: _meanings(table, "status", codes.TASK_STATUSES),
        "node-upload-statuses": lambda: _meanings(table, "status", codes.UPLOAD_STATUSES),
        "node-intent-states": lambda: _meanings(table, "state", codes.INTENT_STATES),
        "node-reports": lambda: reports(table),
        "node-gates": lambda: gates(table),
        "node-invocation-diagram": lambda: diagram(invocations.TRANSITIONS, "pending"),
        "node-task-diagram": lambda: diagram(tasks.TRANSITIONS, "pending"),
        "node-intent-diagram": lambda: diagram(uploads.TRANSITIONS, "requested"),
        "node-enrolment-diagram": lambda: diagram(enrolment.TRANSITIONS, "pending"),
        "frames-from-node": lambda: shown(get_args(get_args(frames.FromNode)[0])),
        "frames-to-node": lambda: shown(get_args(get_args(frames.ToNode)[0])),
    }
