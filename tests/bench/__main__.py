"""`python -m tests.bench [B1 B3 …] [--quick] [--runs N] [--json FILE]`: measures, prints a table, says what was met.

Without names: B1 to B12, about half an hour. B13 is half an hour of its own: `python -m tests.bench B13 --minutes 30`.
`--write FILE` measures nothing: it puts the tables and the plot of a FILE made by --json into docs/.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.bench import proc, written
from tests.bench.catalogue import ALL, SOAK
from tests.bench.figures import Benchmark, Result, document, machine
from tests.bench.harness import Bench

QUICK_RUNS, QUICK_SCALE = 1, 0.04
RUNS = 5


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="B1 …", help="which; all but the soak if none is named")
    parser.add_argument("--quick", action="store_true", help="one run of a small part of the work: does it work?")
    parser.add_argument("--runs", type=int, help=f"of each; default {RUNS}")
    parser.add_argument("--json", type=Path, help="also write everything there")
    parser.add_argument("--minutes", type=float, default=30.0, help="of B13")
    parser.add_argument("--switch-s", type=float, help="try another sys.setswitchinterval in the service; not for docs")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the results of FILE into docs/, and leave")
    asked = parser.parse_args()
    if asked.write:
        written.write(json.loads(asked.write.read_text()))
        return 0
    known = {b.name: b for b in (*ALL, SOAK)}
    if unknown := [name for name in asked.names if name not in known]:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(known)}")
    if asked.runs is not None and asked.runs < 1:
        parser.error("--runs: at least 1")
    if asked.minutes <= 0:
        parser.error("--minutes: more than 0")
    chosen = [known[name] for name in asked.names] or (list(known.values()) if asked.quick else list(ALL))
    proc.open_files()
    facts = machine()
    print(", ".join(f"{name} {value}" for name, value in facts.items() if name != "argv"), flush=True)
    results, began = [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hf-bench-") as folder:
        bench = Bench(
            Path(folder),
            asked.runs or (QUICK_RUNS if asked.quick else RUNS),
            QUICK_SCALE if asked.quick else 1.0,
            minutes=0.15 if asked.quick else asked.minutes,
            switch_s=asked.switch_s,
        )
        try:
            for benchmark in chosen:
                results.append(_one(bench, benchmark))
                print("\n".join(results[-1].lines()), flush=True)
                if asked.json:  # after each: a long run that is interrupted keeps what it has
                    asked.json.write_text(json.dumps(document(results, quick=asked.quick, runs=bench.runs), indent=1))
        finally:
            bench.end()
    missed = [f"{r.name}: {t['says']}" for r in results for t in r.targets if not t["met"]]
    met = sum(t["met"] for r in results for t in r.targets)
    print(f"{met} targets met, {len(missed)} missed, {time.monotonic() - began:.0f} s", *missed, sep="\n  ")
    return 0


def _one(bench: Bench, benchmark: Benchmark) -> Result:
    print(f"     {benchmark.name} {benchmark.work}", file=sys.stderr, flush=True)
    bench.as_delivered()
    began = time.monotonic()
    runs = list(benchmark.measure(bench))
    return Result.of(benchmark, runs, time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main())
