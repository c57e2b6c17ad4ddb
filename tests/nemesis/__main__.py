"""`python -m tests.nemesis --faults 2000 --seed N`: the same run as in CI, as long and as hard as wanted.

The plan is a function of the seed and the other arguments; a failure prints the command that repeats it.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.nemesis.run import Run


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.nemesis", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--every", type=float, default=1.5, help="seconds between two faults, on average")
    parser.add_argument("--sessions", type=int, default=5)
    parser.add_argument("--longest", type=float, default=120.0, help="of a SIGSTOP, or of bad weather, in seconds")
    parser.add_argument("--heads", type=int, help="faults that take the head down  [default: one in 25]")
    parser.add_argument("--clocks", default="wrappers", help="whose clocks are stepped: wrappers,service")
    parser.add_argument("--folder", type=Path, help="for histories and logs; kept  [default: kept on failure]")
    parser.add_argument("--quiet", action="store_true", help="no line for each fault")
    return parser.parse_args(argv)


def main() -> int:
    a = arguments()
    folder = a.folder or Path(tempfile.mkdtemp(prefix="nemesis-"))
    folder.mkdir(parents=True, exist_ok=True)
    began, n = time.monotonic(), 0

    def say(text: str) -> None:
        nonlocal n
        n += 1
        if not a.quiet or n % 50 == 0:
            print(f"[{time.monotonic() - began:7.1f}] {n}/{a.faults} {text}", flush=True)

    within = a.faults * a.every
    run = Run(
        folder,
        a.seed,
        faults=a.faults,
        within_s=within,
        sessions=a.sessions,
        longest_s=a.longest,
        heads=a.heads if a.heads is not None else max(4, a.faults // 25),
        clocks=[name for name in a.clocks.split(",") if name],
        disk_mb=48 + int(within / 10),
        say=say,
    )
    report = asyncio.run(run.run())
    print(report.text())
    if report.clean and a.folder is None:
        shutil.rmtree(folder)
    if not report.clean:
        print("again:", "python -m tests.nemesis", *sys.argv[1:], *(() if "--seed" in sys.argv else ("--seed", "1")))
        print(f"judge again: holdfast check {folder}/histories/*.jsonl")
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main())
