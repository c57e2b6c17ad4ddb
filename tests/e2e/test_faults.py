"""Bad input, silence and a full disk, against the real service: a clear code, nobody else harmed, nothing lost."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import eventually
from tests.e2e.service import Service, alive
from tests.e2e.test_survival import LINES, check_exact


@asynccontextmanager
async def socket(service: Service, sid: str, **hello: Any) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A wrapper by hand, past its hello."""
    headers = {"Authorization": f"Bearer {service.token}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        async with http.ws_connect(f"{service.url}/v1/sessions/{sid}/ingest", protocols=("holdfast.v1",)) as ws:
            frame = {"type": "hello", "protocol": 1, "wrapper_id": "w_1", "instance_id": "i_1", "attempt": 1}
            await ws.send_json({**frame, "executions": [], **hello})
            assert (await ws.receive_json(timeout=10))["type"] == "hello_ack"
            await ws.send_json({"type": "ready"})
            yield ws


async def frames(ws: aiohttp.ClientWebSocketResponse, until: str) -> list[dict[str, Any]]:
    """Frames up to and with the first of this type."""
    seen: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        async for message in ws:
            seen.append(json.loads(message.data))
            if seen[-1]["type"] == until:
                return seen
    raise AssertionError(f"closed with {ws.close_code} before {until}: {seen}")


def test_a_socket_that_answers_pings_and_says_nothing_is_stale_once(service: Service) -> None:
    service.create("silent", limits={"stale_s": 2})

    async def story() -> int | None:
        async with socket(service, "silent") as ws:
            await asyncio.to_thread(service.submit, "silent", "e1")
            await frames(ws, "command")
            await ws.send_json({"type": "started", "execution_id": "e1", "seq": 1, "pid": 1})
            await frames(ws, "ack")
            async with asyncio.timeout(20):
                async for _ in ws:  # aiohttp answers the pings; no frame of ours goes out
                    continue
            return ws.close_code

    assert asyncio.run(story()) == 1001
    failed = service.wait("silent", "e1", ["failed"])
    assert failed["outcome"]["cause"] == "stale"
    assert len(service.terminals("silent", "e1")) == 1
    assert service.session("silent")["link"]["state"] == "offline"


NONSENSE = [
    b"{",
    b"[]",
    b"\xff\xfe",
    b'"text"',
    b'{"type":"nonsense"}',
    b'{"type":"events"}',
    b'{"type":"events","execution_id":"e1","seq":2,"events":[{"type":"output","ts_ms":1,"data":{"t":"\\ud800"}}]}',
    b'{"type":"events","execution_id":"e1","seq":2,"events":[{"type":"output","ts_ms":1,"data":{"n":NaN}}]}',
    b'{"type":"events","execution_id":"e1","seq":2,"events":[{"type":"output","ts_ms":1,"data":{"n":1180591620717411303424}}]}',
    b'{"type":"events","execution_id":"e1","seq":2,"events":[{"type":"execution.completed","ts_ms":1,"data":{}}]}',
    b'{"type":"events","execution_id":"e1","seq":2,"events":[{"type":"output","ts_ms":"now","data":{}}]}',
    b'{"type":"events","execution_id":"e1","seq":99,"events":[{"type":"output","ts_ms":1,"data":{}}]}',
    b'{"type":"events","execution_id":"../e1","seq":2,"events":[{"type":"output","ts_ms":1,"data":{}}]}',
    b'{"type":"final","execution_id":"e1","seq":2,"status":"fine"}',
    b'{"type":"command_ack","command_id":7,"status":"done"}',
    b'{"type":"events","execution_id":"e1","seq":2,"events":[{"type":"output","ts_ms":1,"data":'
    + b'{"a":' * 60
    + b"1"
    + b"}" * 61
    + b"]}",
    b"x" * (3 << 20),
]


def test_nonsense_on_one_socket_harms_nobody_else(service: Service) -> None:
    """Every kind of bad frame, each on a socket of its own, while another session's agent talks in the same groups."""
    service.create("talker")
    service.wrapper("talker", ["bash", "-c", LINES.format(n=500, pause=0.01)])
    service.connected("talker")
    service.submit("talker", "e1")
    service.create("fool")

    async def fool(i: int, text: bytes) -> str:
        try:
            known = [{"execution_id": "e1", "state": "running", "first_seq": 1, "last_seq": 1}] if i else []
            async with socket(service, "fool", instance_id=f"i_{i}", executions=known) as ws:
                if not known:
                    await asyncio.to_thread(service.submit, "fool", "e1")
                started = {"type": "started", "execution_id": "e1", "seq": 1, "pid": 1}
                await ws.send_json(started)
                await frames(ws, "ack")
                await ws.send_frame(text, aiohttp.WSMsgType.TEXT)
                async with asyncio.timeout(10):
                    async for message in ws:
                        frame = json.loads(message.data)
                        if frame["type"] in ("nack", "error"):
                            return str(frame["code"])
                return f"closed {ws.close_code}"
        except (ConnectionError, aiohttp.ClientOSError):
            # The service had closed while we still wrote: what it said last went with the rest.
            return f"cut at {len(text) >> 20} MiB"

    async def story() -> list[str]:
        return [await fool(i, text) for i, text in enumerate(NONSENSE)]

    said = asyncio.run(story())
    closed = {"closed 1007", "closed 1009", "closed 4002", "cut at 3 MiB"}
    known = {"invalid", "gap", "invalid_frame", "unknown_frame"} | closed
    assert set(said) <= known, list(zip(said, NONSENSE, strict=True))
    assert not [e for e in service.events("fool") if e["type"] == "output"], "nothing of it was stored"
    assert service.status("fool", "e1") == "running"
    service.wait("talker", "e1", ["failed"], within=40)
    check_exact(service, "talker", "e1", 500)


def test_who_may_not_come_in_is_told_by_a_close_code(service: Service) -> None:
    async def code(sid: str, token: str, first: Any) -> int | None:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http:
            async with http.ws_connect(f"{service.url}/v1/sessions/{sid}/ingest", protocols=("holdfast.v1",)) as ws:
                if first is not None:
                    await ws.send_json(first)
                async with asyncio.timeout(20):
                    async for _ in ws:
                        continue
                return ws.close_code

    hello = {"type": "hello", "protocol": 1, "wrapper_id": "w", "instance_id": "i", "attempt": 1, "executions": []}
    service.create("doors")
    assert asyncio.run(code("doors", "wrong", hello)) == 4401
    assert asyncio.run(code("nowhere", service.token, hello)) == 4004
    assert asyncio.run(code("doors", service.token, {"type": "ready"})) == 4002
    assert asyncio.run(code("doors", service.token, {**hello, "protocol": 2})) == 4003
    assert asyncio.run(code("doors", service.token, {**hello, "wrapper_id": "no spaces"})) == 4002
    assert asyncio.run(code("doors", service.token, None)) == 4002  # the hello never comes: 10 s
    service.patient("DELETE", "/v1/sessions/doors")
    assert asyncio.run(code("doors", service.token, hello)) == 4000


# ---------------------------------------------------------------- disk full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"may not mount a tmpfs here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_of_the_service_acknowledges_nothing_and_goes_on_when_there_is_room(
    tmp_path: Path, small_disk: Path
) -> None:
    service = Service(tmp_path, heartbeat_s=1)
    service.data = small_disk
    service.start()
    try:
        service.create("full")
        service.wrapper("full", ["bash", "-c", LINES.format(n=1500, pause=0.01)])
        service.connected("full")
        service.submit("full", "e1")
        eventually(lambda: service.session("full")["last_seq"] > 20, 30)
        gateway = service.gateway_pid()
        ballast = small_disk / "ballast"
        fill(ballast)

        def refused() -> bool:
            status, answer = service.http("POST", "/v1/sessions", {"session_id": f"x{os.urandom(4).hex()}"})
            return status == 503 and answer["code"] == "storage_unavailable"

        eventually(refused, 20, every=0.1, what="a clear refusal")
        stored = service.session("full")["last_seq"]
        assert service.session("full")["last_seq"] - stored <= 3
        ballast.unlink()
        service.wait("full", "e1", ["failed"], within=90)
        check_exact(service, "full", "e1", 1500)
        assert alive(gateway), "a full disk does not end the process"
    finally:
        service.end()


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return


def test_a_full_disk_of_the_wrapper_makes_the_child_wait(service: Service, small_disk: Path) -> None:
    service.create("full-spool")
    wrapper = service.wrapper("full-spool", ["bash", "-c", LINES.format(n=600, pause=0.01)], spool="unused")
    wrapper.kill()
    wrapper.spool = small_disk / "spool"
    wrapper.start()
    service.connected("full-spool")
    service.submit("full-spool", "e1")
    eventually(lambda: service.session("full-spool")["last_seq"] > 10, 30)
    ballast = small_disk / "ballast"
    fill(ballast)
    mark = service.session("full-spool")["last_seq"]
    eventually(lambda: stands_still(service, mark), 20, every=0.5, what="the output stops")
    assert service.status("full-spool", "e1") == "running"
    ballast.unlink()
    service.wait("full-spool", "e1", ["failed"], within=60)
    check_exact(service, "full-spool", "e1", 600)
    wrapper.end()


def stands_still(service: Service, mark: int, _last: list[int] = [0]) -> bool:  # noqa: B006 - the point of it
    now = service.session("full-spool")["last_seq"]
    still, _last[0] = now == _last[0] and now >= mark, now
    return still


# ---------------------------------------------------------------- shared placement


def test_shared_cells_do_the_same_work_with_few_processes(tmp_path: Path) -> None:
    service = Service(tmp_path, heartbeat_s=1, session_placement="shared:2").start()
    try:
        for i in range(6):
            service.create(f"c{i}")
            # Fifteen seconds: on a full machine a cell is awake only after six or seven.
            service.wrapper(f"c{i}", ["bash", "-c", LINES.format(n=300, pause=0.05)])
        for i in range(6):
            service.connected(f"c{i}")
            service.submit(f"c{i}", "e1")
        eventually(lambda: service.actors_awake() >= 1, 30)
        pid = int(service._row("select pid from actors where name like 'session-cell/%'")[0])
        os.kill(pid, 9)
        interrupted = service.patient("POST", "/v1/sessions/c0/interrupt", {"reason": "through a dead cell"})
        assert interrupted["interrupt_id"].startswith("int_")
        service.wait("c0", "e1", ["interrupted"], within=30)
        for i in range(1, 6):
            service.wait(f"c{i}", "e1", ["failed"], within=60)
            check_exact(service, f"c{i}", "e1", 300)
        assert service.actors_awake() <= 2
    finally:
        service.end()


# ---------------------------------------------------------------- one buffer


def masked(text: bytes) -> bytes:
    """One client frame, masked with zeros: so that a thousand of them can be one write of one buffer."""
    n = len(text)
    length = bytes([0x80 | n]) if n < 126 else b"\xfe" + n.to_bytes(2, "big")
    return b"\x81" + length + b"\0\0\0\0" + text


def test_one_buffer_with_started_500_events_and_final_a_thousand_times(service: Service) -> None:
    """Everything of an execution in a single write: the events stand before the terminal event, always."""
    rounds = 1000
    service.create("burst")

    async def story() -> None:
        async with socket(service, "burst") as ws:
            transport = ws._response.connection.transport  # type: ignore[union-attr]
            path = f"{service.url}/v1/sessions/burst/executions"
            async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {service.token}"}) as http:
                for i in range(rounds):
                    async with http.post(path, json={"execution_id": f"b{i}"}) as answer:
                        assert answer.status == 202
                    transport.write(burst(f"b{i}", one_by_one=i % 10 == 0))  # type: ignore[union-attr]
                    async with asyncio.timeout(30):
                        async for message in ws:
                            frame = json.loads(message.data)
                            assert frame["type"] != "nack", frame
                            if frame["type"] == "ack" and frame["execution_id"] == f"b{i}" and frame["seq"] == 502:
                                break

    asyncio.run(story())
    of: dict[str, list[dict[str, Any]]] = {}
    for event in service.events("burst"):
        if event["exec_seq"] is not None:
            of.setdefault(event["execution_id"], []).append(event)
    assert len(of) == rounds
    for events in of.values():
        assert [e["exec_seq"] for e in events] == list(range(1, 503))
        assert events[0]["type"] == "execution.started" and events[-1]["type"] == "execution.completed"


def burst(eid: str, *, one_by_one: bool) -> bytes:
    step = 1 if one_by_one else 50
    said: list[dict[str, Any]] = [{"type": "started", "execution_id": eid, "seq": 1, "pid": 1}]
    for first in range(2, 502, step):
        events = [{"type": "output", "ts_ms": 1, "data": {"n": first + i}} for i in range(step)]
        said.append({"type": "events", "execution_id": eid, "seq": first, "events": events})
    said.append({"type": "final", "execution_id": eid, "seq": 502, "status": "completed"})
    return b"".join(masked(json.dumps(frame, separators=(",", ":")).encode()) for frame in said)
