"""The court: gathers the observations by subject, and keeps each anomaly that a rule finds, with its evidence.

An anomaly is a broken promise that the evidence itself shows; what is only suspicious is none. So an unknown answer is
never held against anybody, and what nobody observed is not judged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from actors.history.reading import Observation

CODES: Final[Mapping[str, str]] = {
    "lost": "what a subscriber was given, or an agent said before its own end, is not in the store",
    "duplicate": "the same record, line or event stands or was delivered twice",
    "reorder": "records, lines or events stand or were delivered in another order than they were made",
    "gap": "a number is missing where the stream must be contiguous",
    "altered": "a stored record, or a line of output, is not what was sent at its place",
    "needless_reset": "a subscriber lost its place by a reset, and the place stands",
    "divergence": "two readers were given different contents at one position of one stream",
    "ack_without_row": "a record was acknowledged and stands nowhere",
    "submit_lost": "a submit was accepted, and its execution stands nowhere",
    "two_terminals": "an execution has more than one terminal event",
    "after_terminal": "something of an execution stands behind its terminal event",
    "outcome_disagrees": "answers, the execution's row and its terminal event tell different ends",
    "epoch_overlap": "a connection acted on a session that it did not own, or two owned it at once",
    "interrupt_lost": "an interrupt was accepted and stands nowhere",
    "interrupt_misapplied": "an interrupt hit an execution that nobody had interrupted",
    "interrupt_doubled": "one execution has two interrupts",
    "early_reap": "a deadline ended an execution before its time",
    "missing_reap": "a deadline is over and nothing ended what it watched",
    "stuck_running": "an execution is active and nothing will ever end it",
    "ran_twice": "the agent's command was executed more than once for one execution",
}
TERMINAL: Final = ("execution.completed", "execution.failed", "execution.interrupted")
EVIDENCE_MAX: Final = 8  # lines per anomaly; more is not read by anybody


@dataclass(frozen=True)
class Anomaly:
    code: str
    sentence: str
    evidence: tuple[Observation, ...]

    def as_dict(self) -> dict[str, Any]:
        lines = [{"source": o.source, "line": dict(o.said)} for o in self.evidence]
        return {"code": self.code, "sentence": self.sentence, "evidence": lines}


@dataclass
class Case:
    """One execution."""

    rows: list[Observation] = field(default_factory=list)  # stored, by seq
    row: Observation | None = None  # `execution` of the dump
    by_what: dict[str, list[Observation]] = field(default_factory=lambda: defaultdict(list))
    answers: list[tuple[Observation, Observation]] = field(default_factory=list)  # (asked, answered)
    sent: dict[int, list[tuple[str | None, Observation]]] = field(default_factory=lambda: defaultdict(list))  # by seq

    @property
    def terminals(self) -> list[Observation]:
        return [r for r in self.rows if r["type"] in TERMINAL]

    @property
    def outcome(self) -> Mapping[str, Any]:
        return (self.row.get("outcome") if self.row else None) or {}


@dataclass
class Court:
    observations: list[Observation]
    rows: dict[str, list[Observation]] = field(default_factory=lambda: defaultdict(list))  # by session, by seq
    sessions: dict[str, Observation] = field(default_factory=dict)
    cases: dict[tuple[str, str], Case] = field(default_factory=lambda: defaultdict(Case))
    by_what: dict[str, list[Observation]] = field(default_factory=lambda: defaultdict(list))
    found: list[Anomaly] = field(default_factory=list)

    def flag(self, code: str, sentence: str, *evidence: Observation | None) -> None:
        assert code in CODES
        self.found.append(Anomaly(code, sentence, tuple(o for o in evidence if o is not None)[:EVIDENCE_MAX]))

    def gather(self) -> None:
        asked: dict[str, Observation] = {}
        for o in self.observations:
            self.by_what[o.what].append(o)
            if o.what == "asked":
                asked[o["id"]] = o
            elif o.what == "answered" and o["id"] in asked:
                question = asked[o["id"]]
                told = (o.get("execution") or {}).get("execution_id") or question.get("execution")
                if told:
                    self.cases[question["session"], told].answers.append((question, o))
            elif o.what == "session":
                self.sessions[o["session"]] = o
            elif o.what == "execution":
                self.cases[o.of].row = o
            elif o.what == "stored":
                self.rows[o["session"]].append(o)
            elif "session" in o.said and o.get("execution"):
                case = self.cases[o.of]
                case.by_what[o.what].append(o)
                if o.what == "sent":
                    for i, digest in enumerate(o["hashes"]):
                        case.sent[o["seq"] + i].append((digest, o))
        for rows in self.rows.values():
            rows.sort(key=lambda r: r["seq"])
            for r in rows:
                if r.get("execution"):
                    self.cases[r.of].rows.append(r)
