"""The worked example of docs/orders.md: every command in its order, by a shell, against a real door and a real device.

A block ```sh example``` is executed; `exit N` says how each of its lines ends (default 0), `background` that it runs
until the end. A block ```text``` behind it is what its last line prints, where `…` stands for anything. What depends on
the device is asked again until it is so: lines about a task while they exit with 4, `show` until it prints that.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.docs.generate import ROOT
from tests.docs.reading import FENCE, text_of
from tests.gateway.house import TOKENS, House

WITHIN_S = 60.0
CONFLICT = 4


@dataclass
class Step:
    lines: list[str]
    exit_code: int = 0
    background: bool = False
    prints: str | None = None


def steps_of(text: str) -> Iterator[Step]:
    last: Step | None = None
    for fence in FENCE.finditer(text):
        words = fence["info"].split()
        if words[:2] == ["sh", "example"]:
            if last is not None:
                yield last
            exit_code = int(words[words.index("exit") + 1]) if "exit" in words else 0
            last = Step(fence["body"].strip().splitlines(), exit_code, "background" in words)
        elif words == ["text"] and last is not None:
            last.prints = fence["body"].strip()
    if last is not None:
        yield last


def printed(wanted: str, said: str) -> bool:
    """Line by line, whatever the widths of columns; `…` is anything."""
    pattern = r"\s*\n\s*".join(
        r"\s+".join(map(re.escape, line.split())) for line in wanted.splitlines() if line.strip()
    )
    plain = "\n".join(line for line in said.splitlines() if line.strip())
    return re.fullmatch(pattern.replace("…", r".+?"), plain.strip()) is not None


class Shell:
    """One directory, one service, and `holdfast` as it runs from this checkout."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.task_id = folder, ""
        tools = folder / "bin"
        tools.mkdir()
        (tools / "holdfast").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m actors "$@"\n')
        (tools / "holdfast").chmod(0o755)
        plain = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
        self.environ = plain | {"PYTHONPATH": str(ROOT), "PATH": f"{tools}:{os.environ['PATH']}", "COLUMNS": "200"}
        (folder / "token").write_text(TOKENS["admin"])
        self.environ |= {"HOLDFAST_URL": url, "HOLDFAST_TOKEN_FILE": str(folder / "token"), "HOME": str(folder)}

    async def begin(self, line: str) -> asyncio.subprocess.Process:
        line = line.replace("TASK_ID", self.task_id)
        return await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", f"exec {line}" if line.startswith("holdfast") else line),
            cwd=self.folder,
            env=self.environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, line: str) -> tuple[int, str, str]:
        process = await self.begin(line)
        said, told = await asyncio.wait_for(process.communicate(), WITHIN_S)
        assert process.returncode is not None
        return process.returncode, said.decode(), told.decode()

    @asynccontextmanager
    async def running(self, line: str) -> AsyncIterator[None]:
        process = await self.begin(line)
        drained = asyncio.ensure_future(process.communicate())
        yield
        assert process.returncode is None, (await drained)[1].decode()
        process.send_signal(signal.SIGTERM)
        _, told = await asyncio.wait_for(drained, WITHIN_S)
        assert process.returncode == 0, told.decode()

    async def step(self, line: str, exit_code: int, prints: str | None) -> None:
        until = asyncio.get_running_loop().time() + WITHIN_S
        waits = line.startswith("holdfast task ")
        while True:
            code, said, told = await self.run(line)
            over = asyncio.get_running_loop().time() > until
            if code == exit_code and (prints is None or printed(prints, said)):
                break
            again = (waits and code == CONFLICT) or (prints is not None and " show " in line and code == 0)
            assert again and not over, f"$ {line}\nexit {code}, not {exit_code}\n{said}\n{told}"
        if line.startswith("holdfast task list"):
            self.task_id = said.splitlines()[-1].split()[0]  # newest first: the last is the oldest


async def test_the_worked_example_of_work_orders(tmp_path: Path) -> None:
    steps = list(steps_of(text_of(ROOT / "docs/orders.md")))
    assert len(steps) > 5 and sum(step.prints is not None for step in steps) >= 5
    (objects := tmp_path / "objects").mkdir()
    house = await House(tmp_path / "data", objects_dir=objects).open()
    shell = Shell(tmp_path, house.url)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(house.close)
        for step in steps:
            if step.background:
                (line,) = step.lines
                await stack.enter_async_context(shell.running(line))
                continue
            for line in step.lines:
                last = line is step.lines[-1]
                await shell.step(line, step.exit_code, step.prints if last else None)


def test_what_is_printed_is_compared_word_by_word() -> None:
    wanted = "A    B  C\nx  …    1\n\nend"
    assert printed(wanted, "A B  C\nx   3s ago  1\nend\n")
    assert not printed(wanted, "A B  C\nx   3s ago  2\nend\n")
    assert not printed(wanted, "A B  C\nx   3s ago  1\nend\nand more\n")
