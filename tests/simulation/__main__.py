"""`python -m tests.simulation`: one seed and its story, or as many seeds as there is patience for.

python -m tests.simulation --seed 17              replays it; if it fails: shrinks it and prints it as a conversation
python -m tests.simulation --seed 17 --story      the conversation, failed or not
python -m tests.simulation --seeds 1000000 --jobs 2 [--from N]      millions, with progress; exit 1 at a failure
python -m tests.simulation --seeds 200 --quiet    says only what failed
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator

from tests.simulation import plan, story
from tests.simulation.blocks import block, whole
from tests.simulation.kernel import quiet_collector
from tests.simulation.run import STEPS, run

BATCH = 25  # seeds handed to a worker at a time


def main() -> int:
    asked = _arguments()
    quiet_collector()
    if asked.seed is not None:
        return _one(asked)
    return _many(asked)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, help="replay one seed")
    parser.add_argument("--story", action="store_true", help="print the conversation, failed or not")
    parser.add_argument("--shrink-s", type=float, default=20.0, help="how long to look for a smaller story")
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first of them")
    parser.add_argument("--steps", type=int, default=STEPS, help="at least so many in each run")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first failure")
    parser.add_argument("--quiet", action="store_true", help="say only what failed")
    return parser.parse_args()


def _one(asked: argparse.Namespace) -> int:
    made = plan.make(asked.seed)
    result = run(made, story=asked.story, steps=asked.steps)
    if result.violation is None:
        if asked.story:
            print(story.told(result))
        print(result)
        return 0
    small = story.shrink(made, result, asked.steps, asked.shrink_s)
    print(story.told(run(small.plan, story=True, steps=asked.steps)))
    left, all_ = len(small.plan.happenings), len(made.happenings)
    print(f"seed {asked.seed}: {result.violation}")
    print(f"shrunk to {left} of {all_} happenings in {small.tries} tries: {small.violation}")
    return 1


def _many(asked: argparse.Namespace) -> int:
    began, done, steps, failed = time.monotonic(), 0, 0, []
    parts = [
        (at, min(at + BATCH, asked.first + asked.seeds), asked.steps)
        for at in range(asked.first, asked.first + asked.seeds, BATCH)
    ]
    told_at = began
    for number, taken, said in _results(parts, asked.jobs):
        done, steps = done + 1, steps + taken
        if said is not None:
            failed.append(number)
            print(f"seed {number}: {said}", flush=True)
            if not asked.keep_going:
                break
        if not asked.quiet and time.monotonic() - told_at >= 5.0:
            told_at = time.monotonic()
            rate = done / (told_at - began)
            left = (asked.seeds - done) / rate
            print(f"{done}/{asked.seeds} seeds, {steps} steps, {rate:.0f} seeds/s, {left:.0f} s to go", file=sys.stderr)
    if not asked.quiet or failed:
        took = time.monotonic() - began
        print(f"{done} seeds, {steps} steps, {len(failed)} failed, {took:.1f} s")
    if failed:
        print(f"its story: python -m tests.simulation --seed {failed[0]}")
    return 1 if failed else 0


def _results(parts: list[tuple[int, int, int]], jobs: int) -> Iterator[tuple[int, int, str | None]]:
    if jobs <= 1:
        for part in parts:
            yield from block(*part)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=quiet_collector) as pool:
        for found in pool.imap_unordered(whole, parts):
            yield from found


if __name__ == "__main__":
    sys.exit(main())
