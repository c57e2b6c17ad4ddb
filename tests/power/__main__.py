"""`python -m tests.power --cuts 100000 --seed N`: as many power cuts as you have time for. Exit 1 if any did harm.

Every round is a new walk with the next seed; each round cuts two lives of the store, two of the spool and one of a
spool that trims at every write and sync. `--again store:7000:1234` looks at one cut of a report once more.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.power.cuts import Report
from tests.power.lives import KINDS, SPOOL, STORE, TRIMMED, live

ROUND = ((STORE, 2), (SPOOL, 2), (TRIMMED, 1))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.power", description=__doc__.splitlines()[0])
    parser.add_argument("--cuts", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="length of one life; the default is that of CI")
    parser.add_argument("--again", metavar="KIND:LIFE:PLACE", help="one cut of a report, with the same seed and steps")
    given = parser.parse_args()
    if given.again:
        name, life, place = given.again.split(":")
        seed, nth = divmod(int(life), 1000)
        report = live(KINDS[name], seed, lives=nth + 1, steps=given.steps, only=(nth, int(place)))
        print("\n".join([*map(str, report.failures), str(report)]))
        return bool(report.wrong)
    began, cpu = time.monotonic(), time.process_time()
    totals = {kind.name: Report() for kind, _ in ROUND}
    seed = given.seed
    while (done := sum(total.cuts for total in totals.values())) < given.cuts:
        for kind, lives in ROUND:
            report = live(kind, seed, lives=lives, steps=given.steps)
            for failure in report.failures:
                again = f"--again {kind.name}:{failure.seed}:{failure.at}"
                print(f"{kind.name}: {failure}\n  again     {again}", flush=True)
            totals[kind.name].add(report)
            done += report.cuts
            if sys.stderr.isatty():
                print(f"\r{done} of {given.cuts} cuts, seed {seed} ", end="", file=sys.stderr, flush=True)
        seed += 1
    if sys.stderr.isatty():
        print(file=sys.stderr)
    for name, total in totals.items():
        print(f"{name}: {total}")
    print(
        f"{done} cuts, seeds {given.seed} to {seed - 1}, {time.monotonic() - began:.0f} s "
        f"({time.process_time() - cpu:.0f} s of CPU)"
    )
    return int(any(total.wrong for total in totals.values()))


if __name__ == "__main__":
    sys.exit(main())
