"""The example unit file starts a command that exists, and is a unit file."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.docs.generate import ROOT
from tests.docs.test_commands import of_ours, run, there

UNIT = ROOT / "deploy" / "holdfast.service"


def unit() -> ConfigParser:
    parser = ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT, "utf-8")
    return parser


def test_the_unit_ends_cleanly_and_comes_back() -> None:
    service = unit()["Service"]
    assert service["Restart"] == "always" and service["User"] != "root"
    # `up` ends its own processes at SIGTERM; systemd's SIGKILL for the rest comes only after it.
    assert service["KillMode"] == "mixed" and float(service["TimeoutStopSec"]) > 10


def test_its_command_parses(tmp_path: Path) -> None:
    words = shlex.split(unit()["Service"]["ExecStart"])
    program = Path(words[0]).name
    if not there(program):
        pytest.skip(f"{program} has no command line yet")
    said = run([*of_ours([program, *words[1:]]), "--help"], tmp_path)
    assert said.returncode == 0, said.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_can_read_it(tmp_path: Path) -> None:
    """With a program and a user that exist here; what is checked is the file's grammar."""
    copy = tmp_path / "holdfast.service"
    words = shlex.split(unit()["Service"]["ExecStart"])
    me = pwd.getpwuid(os.getuid()).pw_name
    copy.write_text(UNIT.read_text("utf-8").replace(words[0], sys.executable).replace("User=holdfast", f"User={me}"))
    said = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60)
    assert [line for line in said.stderr.splitlines() if "holdfast.service:" in line] == []
