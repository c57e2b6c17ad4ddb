"""`python -m tests.bench [--quick] [--only B1,B3] [--json FILE]`: runs what there is and prints a table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench import raw
from tests.conftest import eventually
from tests.e2e.service import ROOT, Service

ENV = os.environ | {"PYTHONPATH": str(ROOT)}


class Bench:
    def __init__(self, folder: Path, runs: int, scale: float) -> None:
        self.folder, self.runs, self.scale = folder, runs, scale
        self.service = Service(folder).start()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.relay_port = probe.getsockname()[1]
        self.relay = subprocess.Popen([sys.executable, "-m", "tests.bench.relay", str(self.relay_port)], env=ENV)
        eventually(self._relay_listens, 10)
        self.names = 0
        self.rows: list[dict[str, Any]] = []

    def _relay_listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.relay_port)) == 0

    def end(self) -> None:
        self.relay.terminate()
        self.relay.wait(10)
        self.service.end()

    def fresh(self, n: int) -> list[str]:
        self.names += n
        return [f"b{self.names - i}" for i in range(n)]

    def together(self, *wanted: tuple[str, dict[str, Any]], relay: bool = False) -> list[dict[str, Any]]:
        """Client processes that begin at the same moment; their answers, in order."""
        where = {"base": self.service.url, "token": self.service.token}
        if relay:
            where["relay"] = f"http://127.0.0.1:{self.relay_port}"
        children = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.bench.clients", kind, json.dumps(where | options)],
                env=ENV,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for kind, options in wanted
        ]
        for child in children:
            assert child.stdout is not None and child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        return [json.loads(child.communicate(timeout=300)[0]) for child in children]

    def report(self, name: str, work: str, figures: list[dict[str, float]], target: str) -> None:
        row: dict[str, Any] = {"bench": name, "work": work, "target": target}
        for key in figures[0]:
            values = [f[key] for f in figures]
            row[key] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
        self.rows.append(row)
        print(f"{name}  {work}   target: {target}", flush=True)
        for key in figures[0]:
            print("      {:<28} {median:>12,.2f}   ({min:,.2f} … {max:,.2f})".format(key, **row[key]), flush=True)


def b1(bench: Bench) -> None:
    total, figures = round(60_000 * bench.scale), []
    for _ in range(bench.runs):
        o = {"names": bench.fresh(1), "total": total, "per_frame": 1}
        (sent,) = bench.together(("send", o))
        alone = total / (sent["ended"] - sent["began"])
        o = {"names": bench.fresh(1), "total": total, "per_frame": 1}
        watched = _watched(bench, o)
        bare = bench.together(("watch", o), ("send", o), relay=True)
        relay = total / (bare[0]["ended"] - bare[1]["began"])
        figures.append({"acked/s, unwatched": alone, "ours/s": watched, "relay/s": relay, "ratio": watched / relay})
    bench.report("B1", "1 session, 1 event a frame, 1 subscriber", figures, "ratio ≥ 1.0")


def _watched(bench: Bench, o: dict[str, Any]) -> float:
    """The subscriber comes as soon as the session is there."""
    name = o["names"][0]
    bench.service.create(name)
    options = {**o, "after": 0}
    where = {"base": bench.service.url, "token": bench.service.token}
    watcher = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.clients", "watch", json.dumps(where | options)],
        env=ENV,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watcher.stdout is not None and watcher.stdin is not None and watcher.stdout.readline() == "ready\n"
    watcher.stdin.write("\n")
    watcher.stdin.flush()
    (sent,) = bench.together(("send", o))
    seen = json.loads(watcher.communicate(timeout=300)[0])
    return float(o["total"] / (seen["ended"] - sent["began"]))


def b2(bench: Bench) -> None:
    total, figures = round(6_000 * bench.scale), []
    for _ in range(bench.runs):
        names = bench.fresh(50)
        sent = bench.together(("send", {"names": names, "total": total, "per_frame": 20}))
        ours = 50 * total / (sent[0]["ended"] - sent[0]["began"])
        bare = raw.sqlite_rows_per_s(bench.folder, 1000)
        figures.append({"ours/s": ours, "raw SQLite rows/s": bare, "ratio": ours / bare})
    bench.report("B2", "50 sessions, 20 events a frame", figures, "ratio ≥ 0.25")


def b3(bench: Bench) -> None:
    figures = []
    for _ in range(bench.runs):
        o = {"names": bench.fresh(20), "rate": 20, "seconds": 10 * bench.scale}
        (ours,) = bench.together(("pace", o))
        (bare,) = bench.together(("pace", o), relay=True)
        sync = raw.fdatasync_ms(bench.folder)
        figures.append(
            {
                "p50 ms": ours["p50"],
                "p99 ms": ours["p99"],
                "relay p50 ms": bare["p50"],
                "fdatasync p50 ms": sync,
                "p50 ratio": ours["p50"] / (bare["p50"] + sync),
                "p99 / p50": ours["p99"] / ours["p50"],
            }
        )
    bench.report("B3", "20 sessions × 20 events/s, wrapper → durable → subscriber", figures, "p50 ≤ 2.5, p99/p50 ≤ 5")


def b4(bench: Bench) -> None:
    figures = []
    for _ in range(max(1, bench.runs // 3)):
        o = {"names": bench.fresh(400), "rate": 20, "seconds": 20 * bench.scale}
        (ours,) = bench.together(("pace", o))
        figures.append({"events/s": ours["n"] / o["seconds"], "p50 ms": ours["p50"], "p99 ms": ours["p99"]})
    bench.report("B4", "400 sessions × 20 events/s", figures, "sustained")


ALL: dict[str, Callable[[Bench], None]] = {"B1": b1, "B2": b2, "B3": b3, "B4": b4}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--quick", action="store_true", help="two runs of a tenth of the work")
    parser.add_argument("--only", default=",".join(ALL))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hf-bench-") as folder:
        print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}", flush=True)
        bench = Bench(Path(folder), 2 if options.quick else 5, 0.2 if options.quick else 1.0)
        began = time.monotonic()
        try:
            for name in options.only.split(","):
                ALL[name](bench)
        finally:
            bench.end()
        print(f"{time.monotonic() - began:.0f} s")
        if options.json:
            options.json.write_text(json.dumps(bench.rows, indent=1))


if __name__ == "__main__":
    main()
