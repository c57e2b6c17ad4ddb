"""Two thousand worlds of at least a thousand steps each; in each of them every guarantee holds after every step.

Eight blocks, so that several processes can share them. A seed that fails: `python -m tests.simulation --seed N`.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.simulation import plan
from tests.simulation.blocks import block
from tests.simulation.kernel import quiet_collector
from tests.simulation.run import STEPS, run

BLOCKS, SEEDS = 8, 250
TWICE = (0, 1, 7, 42, 1_000_003)


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    quiet_collector()
    yield
    gc.unfreeze()
    gc.enable()


@pytest.mark.pure
@pytest.mark.timeout(1800)  # half a minute alone; on a machine that is shared by many, many minutes
@pytest.mark.parametrize("part", range(BLOCKS))
def test_no_guarantee_breaks_in_any_of_these_worlds(part: int) -> None:
    steps = 0
    for seed, taken, wrong in block(part * SEEDS, (part + 1) * SEEDS):
        assert wrong is None, f"seed {seed}: {wrong} (python -m tests.simulation --seed {seed})"
        assert taken >= STEPS
        steps += taken
    print(f"{SEEDS} seeds, {steps} steps")


def test_one_seed_is_one_run_bit_for_bit() -> None:
    for seed in TWICE:
        first, second = run(plan.make(seed)), run(plan.make(seed))
        assert (first.digest, first.steps, first.turns) == (second.digest, second.steps, second.turns)


def test_another_process_with_another_hash_seed_runs_the_same() -> None:
    here = [run(plan.make(seed)).digest for seed in TWICE]
    code = (
        "from tests.simulation import plan, run\n"
        f"for seed in reversed({TWICE!r}): print(seed, run.run(plan.make(seed)).digest)\n"
    )
    for hash_seed in ("1", "4242"):
        said = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        there = dict(line.split() for line in said)
        assert [there[str(seed)] for seed in TWICE] == here


def test_a_world_has_what_it_is_about() -> None:
    """Else nothing was tested: work was done, agents ran, watchers saw, processes fell and were born again."""
    sums: dict[str, int] = {}
    for seed in range(60):
        for name, n in run(plan.make(seed)).counts.items():
            sums[name] = sums.get(name, 0) + n
    assert sums["executions"] > 200 and sums["ended"] > 150 and sums["agent runs"] > 100, sums
    assert sums["shown to watchers"] > 1000 and sums["watcher connects"] > 120, sums
    assert sums["wrappers born"] > 150 and sums["gateways born"] > 90, sums


def test_two_processes_share_the_seeds() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seeds", "30", "--jobs", "2"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert said.stdout.startswith("30 seeds, ") and ", 0 failed, " in said.stdout, said.stdout + said.stderr
