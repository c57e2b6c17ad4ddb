"""The commands in the documents exist: every one parses with its options, and those marked `sh tested` run."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.generate import ROOT
from tests.docs.reading import Command, our_commands, shell_lines, text_of

MODULES = {"holdfast": "actors", "holdfast-wrapper": "wrapper"}
WITHIN_S = 60.0


def run(argv: list[str], cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    env |= {"PYTHONPATH": str(ROOT), "COLUMNS": "200", **environ}
    return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=WITHIN_S)


def there(program: str) -> bool:
    return importlib.util.find_spec(f"{MODULES[program]}.cli") is not None


def of_ours(words: list[str]) -> list[str]:
    """`holdfast …` as it runs from this checkout, without an installation."""
    return [sys.executable, "-m", MODULES[words[0]], *words[1:]]


def named_once() -> list[Command]:
    return list({command.line: command for command in our_commands()}.values())


@pytest.mark.parametrize("command", named_once(), ids=lambda command: command.line[:60])
def test_a_documented_command_parses(command: Command, tmp_path: Path) -> None:
    words = command.words()
    if not there(words[0]):
        pytest.skip(f"{words[0]} has no command line yet")
    said = run([*of_ours(words), "--help"], tmp_path)
    assert said.returncode == 0, f"{command}\n{said.stderr}"
    options = [word.partition("=")[0] for word in words[1:] if word.startswith("--")]
    assert [option for option in options if option not in said.stdout] == [], str(command)


@pytest.mark.parametrize("command", [c for c in shell_lines() if c.run], ids=lambda command: command.line[:60])
def test_a_documented_command_runs(command: Command, tmp_path: Path) -> None:
    words = command.words()
    assert words[0] in MODULES, "only our own programs are run here"
    if not there(words[0]):
        pytest.skip(f"{words[0]} has no command line yet")
    said = run(of_ours(words), tmp_path, HOME=str(tmp_path))
    assert said.returncode == 0, f"{command}\n{said.stdout}\n{said.stderr}"


@pytest.mark.parametrize(
    ("program", "document"), [("holdfast-wrapper", "docs/wrapper.md"), ("holdfast", "docs/operations.md")]
)
def test_every_option_and_command_of_the_help_is_documented(program: str, document: str, tmp_path: Path) -> None:
    if not there(program):
        pytest.skip(f"{program} has no command line yet")
    text = text_of(ROOT / document)
    said = run([*of_ours([program]), "--help"], tmp_path)
    assert said.returncode == 0, said.stderr
    lines = [line.strip() for line in said.stdout.splitlines()]
    options = {word.rstrip(",") for line in lines if line.startswith("-") for word in line.split() if word[:2] == "--"}
    commands: set[str] = set()
    if "Commands:" in lines:
        below = said.stdout.partition("Commands:\n")[2].splitlines()
        commands = {line.split()[0] for line in below if line.startswith("  ") and not line.startswith("   ")}
    missing = [name for name in sorted(options) if f"`{name}" not in text]
    missing += [name for name in sorted(commands) if f"`{program} {name}" not in text]
    assert missing == [], f"{document} does not name them"
