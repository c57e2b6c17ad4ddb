"""B6: a thousand running sessions, the gateway is killed; how long until the last of them is in again, and is
anything lost. The wrappers here have no back-off: the service's way back is measured, not their patience."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

from tests.bench.figures import Benchmark, Figures, Target
from tests.bench.harness import Bench
from tests.e2e.service import Service, alive
from tests.each_event import each_event, readable

SESSIONS, RATE = 1000, 2.0


def measure(bench: Bench) -> Iterator[Figures]:
    count = max(40, round(SESSIONS * bench.scale))
    service = bench.service
    names = bench.fresh(count)
    runs: list[dict[str, float]] = []
    with bench.client("steady", names=names, rate=RATE) as crowd:
        crowd.ready()
        for _ in bench.each_run():
            with bench.client("accepted", relay=True, count=count) as bare:
                bare_s = bare.ready().ask("go")["seconds"]
            crowd.ask("back")
            pid, began = service.gateway_pid(), time.time()
            os.kill(pid, signal.SIGKILL)
            back_s = crowd.answer()["last"] - began
            assert not alive(pid)
            runs.append({"all resumed, s": back_s, "bare server, s": bare_s, "of the bare server": back_s / bare_s})
            time.sleep(max(1.0, 5.0 * bench.scale))
        ended = crowd.ask("end")
    judged = judge(service, ended["made"])
    for run in runs:
        yield run | judged


def judge(service: Service, made: dict[str, int]) -> dict[str, float]:
    """What was made (and acknowledged to the last record) against what stands in the log: none missing, none twice.

    Read from the file by the interpreter's own library, which is not the one that wrote it.
    """
    found: dict[str, Any] = {}
    with sqlite3.connect(f"file:{service.data}/holdfast.db?mode=ro", uri=True, timeout=30) as db:
        readable(db)
        asked = db.execute(
            f"select session_id, count(*), count(distinct exec_seq), max(exec_seq) from {each_event()} "
            "where execution_id = 'e1' and type = 'output' group by session_id"
        )
        found = {row[0]: row[1:] for row in asked}
    lost = repeated = 0
    for name, records in made.items():
        rows, distinct, _ = found.get(name, (0, 0, 0))
        lost += records - 1 - distinct  # the first record is `started`
        repeated += rows - distinct
    return {"records made": float(sum(made.values())), "lost": float(lost), "twice": float(repeated)}


BENCHMARK = Benchmark(
    "B6",
    "reconnect storm: 1,000 running sessions, gateway `kill -9`",
    measure,
    (Target("of the bare server", "≤", 5), Target("lost", "≤", 0), Target("twice", "≤", 0)),
    "with the sessions: a transition each, many to a commit",
)
