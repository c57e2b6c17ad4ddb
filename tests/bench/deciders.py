"""Client processes that time decisions: a hello and its answer, an interrupt until the wrapper has it, a bare Ray call;
and how long a wrapper takes from its first instruction to its first word.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.bench.peers import begin, create, enter, http_of, quantiles, ready, submit, tell, until, word

REST_S = 0.01


async def control(o: dict[str, Any]) -> None:
    """One session, `n` hellos and `n` interrupts, each of an execution of its own. Milliseconds.

    Each is timed alone: the end of the connection before is a decision too, and must not stand before it in the queue.
    """
    sid, base = o["name"], o["base"]
    attempts = itertools.count(1)
    async with http_of(o) as http:
        await create(http, base, sid)
        await submit(http, base, sid, "e0")
        ws, _ = await enter(http, base, sid, next(attempts))
        await begin(ws, "e0")
        ready()
        await word()
        hellos, interrupts = [], []
        for _ in range(o["n"]):
            await ws.close()
            await _left(http, f"{base}/v1/sessions/{sid}")
            known = [{"execution_id": "e0", "state": "running", "first_seq": 1, "last_seq": 1}]
            ws, hello_ack = await enter(http, base, sid, next(attempts), known)
            hellos.append(hello_ack["took_ms"])
        for k in range(o["n"]):
            eid = f"e{k}"
            if k:
                await submit(http, base, sid, eid)
                await begin(ws, eid)
            began = time.perf_counter()
            asked = asyncio.create_task(_interrupt(http, f"{base}/v1/sessions/{sid}/interrupt", eid))
            while (command := await until(ws, "command"))["kind"] != "interrupt":
                await _done(ws, command)
            interrupts.append((time.perf_counter() - began) * 1000)
            await asked
            await _done(ws, command)
            final = {"type": "final", "execution_id": eid, "seq": 2, "status": "interrupted", "exit_code": None}
            await ws.send_json(final)
            while (await until(ws, "ack"))["seq"] != 2:
                continue
        tell({"hello": quantiles(hellos)["p50"], "interrupt": quantiles(interrupts)["p50"]})


async def _left(http: Any, url: str) -> None:
    """Until the end of the session's connection is decided."""
    async with asyncio.timeout(30):
        while True:
            async with http.get(url) as answer:
                if (await answer.json())["link"]["state"] != "connected":
                    return


async def _interrupt(http: Any, url: str, execution_id: str) -> None:
    async with http.post(url, json={"execution_id": execution_id}) as answer:
        assert answer.status == 202, await answer.text()


async def _done(ws: Any, command: dict[str, Any]) -> None:
    await ws.send_json({"type": "command_ack", "command_id": command["command_id"], "status": "done"})


async def ray_calls(o: dict[str, Any]) -> None:
    """n calls of an empty method, one after the other, in the service's own cluster; then a tenth as many, each after
    a rest, as a decision has it. Milliseconds."""
    from actors.client import Client

    Client.connect(Path(o["data_dir"]))
    import ray

    class Empty:
        async def nothing(self) -> None:
            return None

    actor = ray.remote(Empty).options(num_cpus=0).remote()
    ray.get(actor.nothing.remote())
    ready()
    await word()

    def calls(n: int, rest_s: float) -> float:
        took = []
        for _ in range(n):
            time.sleep(rest_s)
            began = time.perf_counter()
            ray.get(actor.nothing.remote())
            took.append((time.perf_counter() - began) * 1000)
        return quantiles(took)["p50"]

    answer = {"p50": calls(o["n"], 0.0), "rested": calls(o["n"] // 10, REST_S)}
    ray.kill(actor)
    tell(answer)


async def first_word(o: dict[str, Any]) -> None:
    """n wrappers, one after the other: seconds from the start of the process to the hello at a bare server."""
    heard: asyncio.Queue[tuple[float, str]] = asyncio.Queue()

    async def ingest(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=("holdfast.v1",))
        await ws.prepare(request)
        heard.put_nowait((time.perf_counter(), (await ws.receive_str())))
        await ws.close(code=4000)  # session closed: the wrapper leaves
        return ws

    app = web.Application()
    app.router.add_get("/v1/sessions/{sid}/ingest", ingest)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    ready()
    await word()
    took, bare = [], []
    for k in range(o["n"]):
        began = time.perf_counter()
        await (await asyncio.create_subprocess_exec(sys.executable, "-c", "pass")).wait()
        bare.append(time.perf_counter() - began)
        spool = str(Path(o["folder"]) / f"first-word-{k}")
        began = time.perf_counter()
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "wrapper", "--url", url, "--session", "s", "--spool-dir", spool, "--", "true"),
            stderr=asyncio.subprocess.DEVNULL,
        )
        at, said = await asyncio.wait_for(heard.get(), 30)
        assert json.loads(said)["type"] == "hello"
        took.append(at - began)
        try:
            await asyncio.wait_for(child.wait(), 10)
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
    await runner.cleanup()
    tell({"wrapper": quantiles(took)["p50"], "python": quantiles(bare)["p50"]})


KINDS = {"control": control, "ray_calls": ray_calls, "first_word": first_word}
