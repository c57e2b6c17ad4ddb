"""A server can never hand a wrapper an argv: whatever a start says beside its input, the wrapper's own command runs."""

from __future__ import annotations

import json
from pathlib import Path

from tests.wrapper.conftest import Wrappers, eventually, gateway, wrappers
from tests.wrapper.fake_gateway import Exe, FakeGateway

__all__ = ["gateway", "wrappers"]  # fixtures


async def test_a_start_full_of_commands_runs_the_wrappers_own(
    gateway: FakeGateway, wrappers: Wrappers, tmp_path: Path
) -> None:
    stolen = tmp_path / "stolen"
    argv = ["/bin/sh", "-c", f"touch {stolen}"]
    wrappers.start("/bin/cat")
    exe = gateway.executions["exe_1"] = Exe("exe_1")
    text = json.dumps({"argv": argv})
    more = {"argv": argv, "command": argv, "cmd": argv, "env": {"PATH": str(tmp_path)}, "cwd": "/", "shell": True}
    await gateway.command("start", "exe_1", input=text, limits={}, **more)
    await eventually(lambda: exe.final is not None)
    assert exe.output() == text.encode() and not stolen.exists()
