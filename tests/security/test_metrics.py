"""/metrics: who may read it, what it shows, what it never shows; readiness; and logs that a program can read."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from actors import telemetry
from actors.gateway import metrics as page
from actors.law import requests as rq
from actors.law.effects import Append, Arm, Decision, Done
from actors.protocol.errors import StorageUnavailable
from actors.reaper import sweep_due
from actors.store.tallies import counts
from tests.docs import asked
from tests.gateway.house import TOKENS, House, eventually, final, hello, output, result
from tests.security.conftest import Open

ROOT = Path(__file__).resolve().parents[2]


async def scrape(house: House) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    house.gateway._metrics._read_at = float("-inf")  # the cache has a test of its own
    headers = {"Authorization": f"Bearer {TOKENS['reader']}"}
    async with house.client.get(f"{house.url}/metrics", headers=headers) as response:
        assert response.status == 200 and response.content_type == "text/plain"
        text = await response.text()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def at(found: dict[Any, float], name: str, **labels: str) -> float:
    return found[f"holdfast_{name}", frozenset(labels.items())]


async def test_the_numbers_are_those_of_what_happened(house: House) -> None:
    wrapper = await house.running("s")
    await wrapper.say(output(2, "a", "b", "c"), output(5, "d"))
    await wrapper.acked(5)
    await house.session("idle")
    watcher = await house.watch("s")
    await watcher.hear("caught_up")
    fleet = await house.socket("/v1/stream", "reader")
    sse = await house.client.get(
        f"{house.url}/v1/sessions/s/stream", headers={"Authorization": f"Bearer {TOKENS['reader']}"}
    )
    await sse.content.readline()
    await house.call("POST", "/v1/sessions/s/interrupt", {"execution_id": "e"}, status=202)
    found = await scrape(house)
    assert at(found, "sessions", state="connected") == 1 and at(found, "sessions", state="offline") == 1
    assert at(found, "executions", status="running") == 1 and at(found, "executions", status="queued") == 0
    assert at(found, "events_persisted_total", origin="wrapper") == 4
    control = len([e for e in await house.events("s") if e["exec_seq"] is None or e["type"] == "execution.started"])
    assert at(found, "events_persisted_total", origin="holdfast") == control
    assert at(found, "interrupts_total", outcome="requested") == 1
    kinds = {"ingest": 1, "stream": 1, "sse": 1, "fleet": 1, "fleet_sse": 0}
    assert {kind: at(found, "connections", kind=kind) for kind in kinds} == kinds
    assert at(found, "append_seconds_count") == at(found, "groups_total") > 0
    assert at(found, "group_events_sum") == 4 and at(found, "ack_seconds_count") > 0
    assert 0 < at(found, "ack_seconds_sum") < 60 and 0 < at(found, "append_seconds_sum") < 60
    assert at(found, "subscribers") == 2 and at(found, "writer_queue_jobs") == 0
    assert 0 <= at(found, "service_clock_age_seconds") < 30 and at(found, "tokens") == len(TOKENS)
    assert ("process_resident_memory_bytes", frozenset()) in found

    await wrapper.say(final(6, status="interrupted", exit_code=None, signal="SIGINT"))
    await wrapper.acked(6)
    await wrapper.close()
    await eventually(lambda: not house.gateway.door.connections)
    again = await house.wrapper("s", attempt=2)
    found = await scrape(house)
    assert at(found, "executions_ended_total", status="interrupted", cause="") == 1
    assert at(found, "interrupts_total", outcome="interrupted") == 1
    assert at(found, "reconnects_total") == 1 and at(found, "connections", kind="ingest") == 1
    for socket in (again, watcher, fleet):
        await socket.close()
    sse.close()


async def test_nodes_their_invocations_and_tasks_are_counted(house: House) -> None:
    node = await house.node("n")
    await house.node("n", "recorder", reported={"state": "idle"})
    await house.call("POST", "/v1/nodes", {"node_id": "spare"}, status=201)
    await house.call("POST", "/v1/nodes/n/tasks", {}, status=201)
    await house.invoke(role="transfer")  # nobody is there
    calling, held = house.invoke(), house.invoke(timeout_s=0)
    asked = [await node.hear("invoke"), await node.hear("invoke")]
    await node.say(result(asked[0], 1))
    await eventually(lambda: calling.done() or held.done())
    found = await scrape(house)
    assert at(found, "nodes") == 2 and at(found, "connections", kind="node") == 2
    roles = {role: at(found, "node_roles_connected", role=role) for role in ("node", "recorder", "transfer")}
    assert roles == {"node": 1, "recorder": 1, "transfer": 0}
    assert at(found, "invocations", state="dispatched") == 1 and at(found, "invocations", state="pending") == 0
    assert at(found, "invocations_awaited") == 1
    outcomes = {
        code: at(found, "invocations_settled_total", outcome=code) for code in ("ok", "NOT_CONNECTED", "TIMEOUT")
    }
    assert outcomes == {"ok": 1, "NOT_CONNECTED": 1, "TIMEOUT": 0}
    assert at(found, "tasks", status="pending") == 1 and at(found, "tasks", status="completed") == 0
    assert at(found, "node_events_total", type="node.connected") == 2
    await node.say(result(asked[1], 2))
    await asyncio.gather(calling, held)


async def test_a_subscriber_that_is_behind_shows(house: House) -> None:
    await house.session()
    watcher = await house.watch()
    await watcher.hear("caught_up")
    assert at(await scrape(house), "fanout_lag_events") == 0
    (subscription,) = house.gateway.door.hub.feeds["s"].subscribers
    house.gateway.door.hub.feeds["s"].head += 7  # committed elsewhere, and not delivered yet
    subscription.stir.clear()
    found = await scrape(house)
    assert at(found, "fanout_lag_events") == 7 and at(found, "subscribers_behind") == 1
    await watcher.close()


async def test_deadlines_that_fire_are_counted_by_kind_whoever_swept_them(house: House) -> None:
    await house.session(limits={"pending_s": 0.2})
    await house.submit()

    async def failed() -> bool:
        await sweep_due(house.worker, house.gateway.door.perform)
        return bool((await house.execution())["status"] == "failed")

    assert at(await scrape(house), "reaper_lag_seconds") >= 0
    await eventually(failed)
    found = await scrape(house)
    assert at(found, "deadlines_fired_total", kind="pending_start") == 1
    assert at(found, "executions_ended_total", status="failed", cause="never_started") == 1
    await sweep_due(house.worker, house.gateway.door.perform)
    assert at(await scrape(house), "deadlines_fired_total", kind="pending_start") == 1


def test_a_sweep_that_only_looked_and_armed_itself_anew_is_no_deadline_that_fired() -> None:
    sweep = rq.Sweep(**asked.ASK, kind="stale", subject="e1")
    view = asked.view("connected", "running")
    rearmed = Decision(Done(changed=True), (Arm("stale", "e1", 1, "e1"),))
    failed = Decision(Done(changed=True), (Append("execution.failed", {"cause": "stale"}, "e1"),))
    assert counts(view, sweep, rearmed) == {}
    assert counts(view, sweep, failed) == {
        ("deadlines_fired", "stale"): 1,
        ("executions_ended", "failed/stale"): 1,
        ("control_events", ""): 1,
    }


async def test_an_overdue_deadline_shows_as_the_reapers_lag(house: House) -> None:
    """Nobody sweeps here but the gateway itself, once a second; the row is made overdue by an hour."""
    await house.session()
    await house.submit()
    house.gateway.loops._tasks[-1].cancel()  # the gateway's own sweep
    sql = "update deadlines set retry_ms = retry_ms - 3600000 - 180000"
    await house.worker.write(lambda store: store._c.execute(sql).rowcount)
    assert 3500 < at(await scrape(house), "reaper_lag_seconds") < 3700


async def test_storage_errors_are_counted_and_the_page_still_answers(house: House) -> None:
    def full(store: Any) -> None:
        raise StorageUnavailable("disk full")

    for ask in (house.worker.write, house.worker.read):
        with pytest.raises(StorageUnavailable):
            await ask(full)
    found = await scrape(house)
    assert at(found, "storage_errors_total", kind="unavailable") == 2
    assert at(found, "storage_errors_total", kind="broken") == 0


async def test_the_store_is_asked_once_in_five_seconds(house: House) -> None:
    headers = {"Authorization": f"Bearer {TOKENS['reader']}"}

    async def sessions() -> str:
        async with house.client.get(f"{house.url}/metrics", headers=headers) as response:
            (line,) = re.findall(r'^holdfast_sessions\{state="offline"\} .*$', await response.text(), re.M)
            return str(line)

    before = await sessions()
    await house.session()
    assert await asyncio.gather(*(sessions() for _ in range(20))) == [before] * 20
    assert page.STORE_EVERY_S >= 5
    house.gateway._metrics._read_at -= page.STORE_EVERY_S
    assert await sessions() != before


async def test_no_name_of_anything_is_ever_a_label(open_house: Open) -> None:
    """A thousand sessions make no line more, and no id, token or address stands in the page."""
    house = await open_house()

    async def names() -> set[Any]:
        return set(await scrape(house))

    wrapper = await house.running("canary-session", "canary-execution")
    await wrapper.say(final(2, "canary-execution"))
    await wrapper.acked(2, "canary-execution")
    before = await names()
    for n in range(20):
        again = await house.running(f"canary-{n}", "canary-execution")
        await again.say(final(2, "canary-execution"))
        await again.acked(2, "canary-execution")
        await again.close()
    after = await names()
    assert after == before
    assert "canary" not in str(after) and "127.0.0.1" not in str(after)
    await wrapper.close()


async def test_metrics_are_open_on_loopback_only_when_told_and_only_by_our_own_name(open_house: Open) -> None:
    shut, opened = await open_house(), await open_house(metrics_open=True)
    for house, status in ((shut, 401), (opened, 200)):
        async with house.client.get(f"{house.url}/metrics") as response:
            assert response.status == status
    port = opened.url.rpartition(":")[2]
    for headers in (
        {"Host": f"evil.example:{port}"},  # a page of a name that was rebound to loopback says no Origin
        {"Authorization": "Bearer wrong"},
    ):
        async with opened.client.get(f"{opened.url}/metrics", headers=headers) as response:
            assert response.status == 401, headers
    async with opened.client.get(f"{opened.url}/metrics", headers={"Origin": "https://evil.example"}) as response:
        assert response.status == 403


# ---------------------------------------------------------------- readiness


async def test_ready_says_what_is_missing(house: House) -> None:
    await eventually(lambda: house.gateway.loops.ticked_at > 0)
    ready = await house.call("GET", "/readyz", token=None)
    assert (ready["store"], ready["actors"], ready["accepting"]) == (True, True, True)

    class Unreachable:
        def reachable(self) -> bool:
            return False

    port, house.gateway._pages.port = house.gateway._pages.port, Unreachable()  # type: ignore[assignment]
    told = await house.call("GET", "/readyz", token=None, status=503)
    assert (told["store"], told["actors"], told["code"]) == (True, False, "unavailable") and "actors" in told["detail"]
    house.gateway._pages.port = port

    for task in house.gateway.loops._tasks:  # nobody commits any more
        task.cancel()
    house.gateway.loops.ticked_at -= 6
    assert (await house.call("GET", "/readyz", token=None, status=503))["store"] is False
    await house.call("GET", "/healthz", token=None)  # alive all the same: nobody may kill it for the disk


# ---------------------------------------------------------------- logs

EMIT = """
from actors import telemetry
telemetry.configure({})
telemetry.emit('wrapper.disconnected', session_id='s', token='x')
"""


def test_logs_are_json_when_stderr_is_no_terminal() -> None:
    argv = [sys.executable, "-c", EMIT.format("'info'")]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    row = json.loads(done.stderr)
    assert row["event"] == "wrapper.disconnected" and row["level"] == "info" and row["session_id"] == "s"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["timestamp"]) and "token" not in row


def test_logs_are_for_people_on_a_terminal() -> None:
    parent, child = pty.openpty()
    subprocess.run([sys.executable, "-c", EMIT.format("'info'")], cwd=ROOT, stderr=child, check=True)
    os.close(child)
    text = os.read(parent, 65536).decode()
    os.close(parent)
    assert "wrapper.disconnected" in text and "session_id" in text
    with pytest.raises(ValueError):
        json.loads(text)


@pytest.mark.parametrize(("level", "told"), [("debug", True), ("info", True), ("warning", False), ("error", False)])
def test_log_level_says_from_where_on(level: str, told: bool, capsys: pytest.CaptureFixture[str]) -> None:
    before = telemetry.subscribe(lambda event, fields: None)
    try:
        telemetry.configure(level, json=True)
        telemetry.emit("wrapper.disconnected", session_id="s")
        telemetry.emit("store.broken")
    finally:
        telemetry.subscribe(before)
    lines = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["wrapper.disconnected", "store.broken"][0 if told else 1 :]


async def test_the_gateways_own_log_has_no_secret_and_no_payload(house: House) -> None:
    heard: list[str] = []
    before = telemetry.subscribe(lambda event, fields: heard.append(json.dumps([event, dict(fields)], default=str)))
    try:
        made = await house.call("POST", "/v1/tokens", {"scope": "operator"}, token="admin", status=201)
        await house.session(title="CANARY-title", labels={"l": "CANARY-label"})
        wrapper = await house.wrapper(client={"name": "CANARY", "version": "1", "capabilities": []})
        await house.submit(input={"x": "CANARY-input"})
        await wrapper.say({"type": "events", "execution_id": "e", "seq": 99, "events": [{"type": "CANARY"}]})
        await wrapper.hear("nack")
        await house.call("GET", "/v1/me", token="CANARY-token", status=401)
        await house.call("DELETE", f"/v1/tokens/{made['token_id']}", token="admin", status=204)
        await wrapper.close()
        bad = await house.ingest()
        await bad.say(hello(protocol="CANARY"))
        await bad.closed()
    finally:
        telemetry.subscribe(before)
    text = "\n".join(heard)
    assert "token.created" in text and "token.revoked" in text and made["token_id"] in text
    assert "CANARY" not in text and made["token"] not in text
