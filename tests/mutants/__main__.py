"""`python -m tests.mutants [WORD …]`: plants every mutant (or those whose name has a word), two at a time, and tells.

`--write` puts the table of the catalogue into docs/proof.md and runs nothing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.mutants import table
from tests.mutants.catalogue import CATALOGUE
from tests.mutants.runner import AT_ONCE, Bench, Verdict


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--write", action="store_true", help="write the table into docs/proof.md")
    parser.add_argument("--show", action="store_true", help="show the output of what was not killed")
    asked = parser.parse_args()
    if asked.write:
        table.write()
        return 0
    chosen = [m for m in CATALOGUE if not asked.words or any(word in m.name for word in asked.words)]
    began = time.monotonic()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), AT_ONCE)
        runs = [("no mutant at all", "–", bench.submit(None))] if not asked.words else []
        runs += [(mutant.name, mutant.breaks, bench.submit(mutant)) for mutant in chosen]
        for name, breaks, future in runs:
            verdict = future.result()
            wrong += bool(verdict.why)
            print(f"{verdict.took_s:5.1f} s  {breaks:4} {name}\n               {told(verdict)}", flush=True)
            if verdict.why and asked.show:
                print(verdict.output)
        bench.close()
    print(f"{len(chosen)} mutants, {wrong} not as it should be, {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


def told(verdict: Verdict) -> str:
    if verdict.why:
        return f"NOT KILLED: {verdict.why}"
    failed = sorted({node.partition("[")[0] for node in verdict.failed})
    return f"killed by {', '.join(failed)}" if failed else "all pass"


if __name__ == "__main__":
    raise SystemExit(main())
