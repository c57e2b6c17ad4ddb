"""The README keeps its word: two commands, thirteen guarantees, and only tests that exist."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from tests.docs.generate import ROOT
from tests.docs.reading import shell_lines, text_of

DEMO = "python3 -m venv .venv && .venv/bin/pip install -q -e '.[server]' && .venv/bin/holdfast demo"
TESTS = (
    "python3 -m venv .venv && .venv/bin/pip install -q -e '.[dev]' && .venv/bin/python -m pytest -n 2 --dist loadgroup"
)


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def names_of_tests() -> set[str]:
    here = (re.findall(r"^\s*(?:async )?def (test_\w+)", text_of(path), re.M) for path in ROOT.glob("tests/**/*.py"))
    return {name for names in here for name in names}


def rows() -> dict[str, str]:
    return dict(re.findall(r"^\| \*\*(G\d+)\*\* \|(.*)\|$", text_of(ROOT / "README.md"), re.M))


def test_the_two_commands_are_one_line_each() -> None:
    lines = [command.line for command in shell_lines() if command.document == "README.md"]
    assert lines[:2] == [DEMO, TESTS]


def test_what_the_two_commands_install_exists() -> None:
    project = pyproject()["project"]
    assert {"server", "dev"} <= set(project["optional-dependencies"])
    assert {"holdfast", "holdfast-wrapper"} <= set(project["scripts"])
    assert project["requires-python"].startswith(">=3.11")


def test_every_guarantee_has_its_line() -> None:
    assert list(rows()) == [f"G{n}" for n in range(1, 14)]


def test_every_test_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", text_of(ROOT / "README.md")))
    assert named, "the table names tests"
    assert sorted(named - names_of_tests()) == []


def test_every_test_file_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"`(tests/[\w/]+(?:\.py)?)`", text_of(ROOT / "README.md")))
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_the_license_is_the_one_that_the_project_says() -> None:
    assert pyproject()["project"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License\n" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


def test_the_changelog_has_an_open_chapter() -> None:
    text = text_of(ROOT / "CHANGELOG.md")
    assert "## [Unreleased]" in text or f"## [{pyproject()['project']['version']}]" in text
