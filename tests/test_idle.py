"""Who works in idle time hides nothing: what fails there fails, each is run once, and nothing hangs on its life."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
HOOKS = (
    "from tests.idle import (pytest_collection_finish, pytest_collection_modifyitems, pytest_configure, "
    "pytest_pyfunc_call, pytest_runtest_logreport, pytest_runtest_protocol)\n"
)
STORY = """
import os, time
from pathlib import Path

import pytest

RAN = Path(os.environ["RAN"])
timeless = pytest.mark.timeless

def ran(name):
    with RAN.open("a") as file:
        file.write(f"{name} {os.nice(0)}\\n")

def begun_in_idle_time():
    end = time.monotonic() + 30
    while "last" not in RAN.read_text() if RAN.exists() else True:
        assert time.monotonic() < end
        time.sleep(0.01)

@pytest.mark.parametrize("n", range(2))
def test_real_time(n):
    begun_in_idle_time()
"""


def told(folder: Path, story: str, *arguments: str) -> tuple[dict[str, int], str, list[str]]:
    """pytest's counts, all that it said, and who ran at which priority."""
    (folder / "conftest.py").write_text(HOOKS)
    plugins = "-p no:schemathesis -p no:hypothesispytest -p no:asyncio"  # not wanted here, and slow to begin
    (folder / "pytest.ini").write_text(f"[pytest]\nmarkers = timeless: computes\naddopts = {plugins}\n")
    (folder / "test_story.py").write_text(STORY + story)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--basetemp", str(folder / "tmp"), *arguments],
        cwd=folder,
        env=env | {"PYTHONPATH": str(HERE), "RAN": str(folder / "ran")},
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    counts = {what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)}
    return counts, done.stdout + done.stderr, (folder / "ran").read_text().splitlines()


OUTCOMES = """
@timeless
def test_passes():
    ran("passes")

@timeless
def test_fails():
    ran("fails")
    assert "one" == "two", "planted"

@timeless
def test_skips():
    ran("skips")
    pytest.skip("no such disk here")

@pytest.fixture
def broken():
    yield
    assert os.nice(0) != 19, "planted at the end"

@timeless
def test_ends_badly(broken):
    ran("last")
"""


def test_what_fails_in_idle_time_fails_and_each_is_run_once_at_the_lowest_priority(tmp_path: Path) -> None:
    counts, said, ran = told(tmp_path, OUTCOMES, "-n", "2", "--dist", "loadgroup")
    assert counts == {"passed": 3, "failed": 2, "skipped": 1}, said
    assert "AssertionError: planted" in said and "planted at the end" in said
    assert ran == ["passes 19", "fails 19", "skips 19", "last 19"]


FALLS = """
@timeless
def test_kills_whoever_works_in_idle_time():
    ran("last")
    if os.nice(0) == 19:
        os.kill(os.getpid(), 9)

@timeless
def test_comes_after_it():
    ran("after")
"""


def test_what_was_not_done_in_idle_time_is_done_by_the_workers(tmp_path: Path) -> None:
    counts, said, ran = told(tmp_path, FALLS, "-n", "2", "--dist", "loadgroup")
    assert counts == {"passed": 4}, said
    mine = str(os.nice(0))
    assert ran[0] == "last 19" and sorted(ran[1:]) == [f"after {mine}", f"last {mine}"]


def test_without_workers_nobody_else_does_anything(tmp_path: Path) -> None:
    counts, said, ran = told(tmp_path, FALLS, "-k", "after")
    assert counts == {"passed": 1} and ran == [f"after {os.nice(0)}"], said
