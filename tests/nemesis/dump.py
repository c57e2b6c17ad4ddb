"""The store's own word at the end, as lines of history. Reads the file as it lies there, after everything has ended."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from tests.each_event import each_event, readable
from tests.nemesis.record import Recorder


def dump(database: Path, recorder: Recorder, defaults: dict[str, float | None], *, settled: bool) -> None:
    """``defaults``: the configured limits, for what neither execution nor session says."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10) as db:
        db.row_factory = sqlite3.Row
        readable(db)
        for row in db.execute(f"select * from {each_event()} order by session_id, seq"):
            recorder.say(
                "stored",
                session=row["session_id"],
                seq=row["seq"],
                execution=row["execution_id"],
                exec_seq=row["exec_seq"],
                type=row["type"],
                data=json.loads(row["data"]),
                at_ms=row["stored_at_ms"],
            )
        limits: dict[str, dict[str, Any]] = {}
        for row in db.execute("select * from sessions_now where deleted_at_ms is null"):
            limits[row["id"]] = defaults | said(row["limits"])
            names = ("link", "first_seq", "last_seq", "stream_id")
            recorder.say("session", session=row["id"], **{name: row[name] for name in names})
        for row in db.execute("select * from executions_now order by session_id, ordinal"):
            outcome = {name: row[name] for name in ("status", "cause", "error", "exit_code")}
            outcome["signal"] = None if row["signal"] is None else json.loads(row["signal"])
            over = row["status"] in ("completed", "failed", "interrupted")
            recorder.say(
                "execution",
                session=row["session_id"],
                execution=row["id"],
                status=row["status"],
                acked_seq=row["acked_seq"],
                interrupt_id=row["interrupt_id"],
                outcome=outcome | {"data": json.loads(row["data"])} if over else None,
                limits=limits[row["session_id"]] | said(row["limits"]),
            )
        (service_ms,) = db.execute("select t_ms from service_clock").fetchone()
        for row in db.execute("select * from deadlines where clock = 'service' and due_ms < ?", (service_ms,)):
            overdue = (service_ms - row["due_ms"]) / 1000
            recorder.say("deadline", session=row["session_id"], kind=row["kind"], overdue_s=overdue)
    recorder.say("end", settled=settled)


def said(limits: str) -> dict[str, Any]:
    return dict(json.loads(limits))
