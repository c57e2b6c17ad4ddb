"""A pytest plugin for the inside of a mutant's run: it sees to it that the copy is what is tested, and writes down who
failed, and when. Loaded by runner.py only (`-p tests.mutants.witness --witness FILE`).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOT_THE_COPY = 9  # an exit code that pytest itself never uses
_failed: list[tuple[str, str]] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--witness", type=Path, required=True)


def pytest_configure(config: pytest.Config) -> None:
    import actors
    import wrapper

    for package in (actors, wrapper):
        assert package.__file__ is not None
        if not Path(package.__file__).is_relative_to(Path.cwd()):
            pytest.exit(f"{package.__file__} is not of the copy in {Path.cwd()}", returncode=NOT_THE_COPY)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _failed.append((report.nodeid, report.when or "setup"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.getoption("--witness").write_text(json.dumps(_failed))
