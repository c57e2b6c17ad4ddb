"""A recorder as a pure machine: what it does with an order, as one closed table. No I/O, no clock.

Absence from the table is the refusal: nothing changes, and the device says its state again, which is all that the
service needs to know. An order repeated after it was obeyed falls into the same hole, so repeating is harmless.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

RecorderState = Literal["idle", "ready", "recording", "paused"]
Deed = Literal["open", "keep", "drop"]  # begin a recording, close it for upload, throw it away


@dataclass(frozen=True, slots=True)
class Recorder:
    """``task_id`` and ``attempt``: what it is or was last set up for."""

    state: RecorderState = "idle"
    task_id: str | None = None
    attempt: int = 0

    def reported(self) -> dict[str, object]:
        """The shadow's words; an idle recorder has no task."""
        if self.state == "idle":
            return {"state": "idle"}
        return {"state": self.state, "task_id": self.task_id, "attempt": self.attempt}


IDLE: Final = Recorder()

# (state, action) → (state, deed). `config` takes any task; every other action only the task and attempt it is set to.
TABLE: Final[dict[tuple[RecorderState, str], tuple[RecorderState, Deed | None]]] = {
    ("idle", "config"): ("ready", None),
    ("ready", "config"): ("ready", None),
    ("ready", "begin"): ("recording", "open"),
    ("ready", "clear"): ("idle", None),
    ("ready", "cancel"): ("idle", None),
    ("recording", "pause"): ("paused", None),
    ("recording", "finish"): ("idle", "keep"),
    ("recording", "cancel"): ("idle", "drop"),
    ("paused", "resume"): ("recording", None),
    ("paused", "finish"): ("idle", "keep"),
    ("paused", "cancel"): ("idle", "drop"),
}


def obey(recorder: Recorder, action: str, task_id: str, attempt: int) -> tuple[Recorder, Deed | None]:
    row = TABLE.get((recorder.state, action))
    if row is None:
        return recorder, None
    if action == "config":
        return Recorder(row[0], task_id, attempt), row[1]
    if (task_id, attempt) != (recorder.task_id, recorder.attempt):
        return recorder, None  # about a task that it does not hold
    return replace(recorder, state=row[0]), row[1]
