"""Schemathesis against the live service, from its own document: whatever it invents gets a declared answer."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from actors.gateway.routes import ROUTES
from tests.contract.order_scene import orders_in
from tests.gateway.house import House, eventually

HERE = Path(__file__).parent
ASK = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"), "run"]


async def test_schemathesis_finds_nothing(house: House, tmp_path: Path) -> None:
    await eventually(lambda: house.gateway.loops.ticked_at > 0)
    wrapper = await house.running()
    ask = {"type": "approval", "execution_id": "e", "seq": 2, "approval_id": "apr_1", "title": "?", "options": ["y"]}
    await wrapper.say(ask)
    await wrapper.acked(2)
    await house.call("POST", "/v1/nodes", {"node_id": "n"})
    await orders_in(house)
    asking = await asyncio.create_subprocess_exec(
        *ASK,
        f"{house.url}/openapi.json",
        "--header=Authorization: Bearer t-admin",
        "--phases=examples,coverage,fuzzing,stateful",
        "--checks=all",
        "--no-color",
        cwd=tmp_path,
        env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(asking.communicate(), 270)
    text = said.decode()
    assert asking.returncode == 0, text[-20_000:]
    (tested,) = re.findall(r"Tested: (\d+)", text)
    # without those that never end, and without the document that it was given
    assert int(tested) == sum(r.socket is None and r.path != "/openapi.json" for r in ROUTES), text
    (generated,) = re.findall(r"(\d+) generated", text)
    assert int(generated) > 500, text
    await wrapper.close()
