"""Retention, audit and restore as people meet them at the door; the last with a real wrapper and its agent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actors.backup import backup, restore
from actors.mailbox import Mailbox, NoActors
from actors.objects import object_store
from actors.protocol.resources import AuditResource
from actors.reaper import Reaper
from tests.gateway.house import TOKENS, House, eventually, output, texts
from tests.gateway.receiver import Clock, TimedHouse
from tests.wrapper.conftest import Wrappers, agent

DAY_S = 86400.0


@pytest.fixture
async def timed(tmp_path: Path) -> AsyncIterator[TimedHouse]:
    clock = Clock()
    it = TimedHouse(tmp_path, clock)
    await it.open(wall=clock)
    yield it
    await it.close()


def reaper(house: House, retention_s: float) -> Reaper:
    return Reaper(
        house.worker,
        Mailbox(house.worker.perform, NoActors()),
        incarnation="i",
        pid=os.getpid(),
        pid_started=0,
        tick_s=1.0,
        retention_s=retention_s,
        on_outcome=lambda outcome: None,
        objects=object_store(None),
    )


async def test_a_cursor_below_what_is_kept_is_reset_and_goes_on_from_there(timed: TimedHouse) -> None:
    wrapper = await timed.running()
    for first in range(2, 2502, 500):
        await wrapper.say(output(first, *(f"old {n}" for n in range(500))))
    await wrapper.hear("ack", seq=2501)
    timed.clock.walk(2 * DAY_S)
    await wrapper.say(output(2502, "new"))
    await wrapper.hear("ack", seq=2502)
    watcher = await timed.watch(after_seq=3)
    assert (await watcher.hear("events"))["events"][0]["seq"] == 4
    sweeper = reaper(timed, DAY_S)

    async def only_the_new_one_is_left() -> Any:
        await sweeper.tick()  # as many chunks as its share of the second allows
        shown = await timed.call("GET", "/v1/sessions/s")
        return shown["first_seq"] == shown["last_seq"] and shown

    shown = await eventually(only_the_new_one_is_left)
    page = await timed.call("GET", "/v1/sessions/s/events", params={"after_seq": 0})
    assert texts(page["items"]) == ["new"] and page["first_seq"] == shown["first_seq"]
    late = await timed.watch(after_seq=3, stream_id=shown["stream_id"])
    reset = await late.hear("reset")
    assert reset == {
        "type": "reset",
        "reason": "retention",
        "first_seq": shown["first_seq"],
        "last_seq": shown["last_seq"],
        "stream_id": shown["stream_id"],
    }
    events = (await late.hear("events"))["events"]
    assert [e["seq"] for e in events] == [shown["first_seq"]] and texts(events) == ["new"]
    await late.hear("caught_up")
    tip = await timed.watch(after_seq=shown["last_seq"])  # a cursor at the end is honoured as before
    await tip.hear("caught_up")
    assert not [f for f in tip.heard if f["type"] == "reset"]
    await wrapper.say(output(2503, "on"))
    assert texts((await tip.hear("events"))["events"]) == ["on"]
    for socket in (watcher, late, tip, wrapper):
        await socket.close()


async def test_the_audit_is_for_admins_and_in_pages(house: House) -> None:
    await house.session("s")
    await house.submit("s", "e")
    await house.submit("s", "e")
    await house.call("POST", "/v1/sessions/s/executions/no/fail", {"error": "x"}, status=404)
    await house.call("DELETE", "/v1/sessions/s", token="admin")
    first = await house.call("GET", "/v1/audit", token="admin", params={"limit": 2, "session_id": "s"})
    cursor = first["next_cursor"]
    second = await house.call("GET", "/v1/audit", token="admin", params={"cursor": cursor, "session_id": "s"})
    items = [*first["items"], *second["items"]]
    for item in items:
        AuditResource.model_validate(item)
    assert [(a["by"], a["action"], a["outcome"]) for a in items] == [
        ("tok_admin", "session.delete", "ok"),
        ("tok_operator", "execution.fail", "execution_not_found"),
        ("tok_operator", "execution.submit", "unchanged"),
        ("tok_operator", "execution.submit", "ok"),
        ("tok_operator", "session.create", "ok"),
    ]
    assert (await house.call("GET", "/v1/audit", token="admin", params={"session_id": "other"}))["items"] == []
    for scope, status in (("operator", 403), ("reader", 403), ("wrapper", 403), (None, 401)):
        await house.call("GET", "/v1/audit", token=scope, status=status)


def holdfast(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    keep = {k: v for k, v in os.environ.items() if not k.startswith("HOLDFAST_")}
    return subprocess.run(
        [sys.executable, "-m", "actors", *argv],
        env={**keep, "PYTHONPATH": str(root), **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


async def test_the_command_line_of_all_of_it(timed: TimedHouse, tmp_path: Path) -> None:
    import asyncio

    webhook_id = await timed.ended("s", "http://127.0.0.1:1/nobody?secret=x", secret="s3cret")
    where = {"HOLDFAST_URL": timed.url, "HOLDFAST_TOKEN": TOKENS["admin"]}

    async def run(*argv: str, code: int = 0, **env: str) -> Any:
        said = await asyncio.to_thread(lambda: holdfast(*argv, **env))
        assert said.returncode == code, (argv, said.stdout, said.stderr)
        assert "s3cret" not in said.stdout + said.stderr and "secret=x" not in said.stdout
        return json.loads(said.stdout) if "--json" in argv and code == 0 else said.stdout + said.stderr

    listed = await run("webhook", "list", "--session-id", "s", "--json", **where)
    assert [w["webhook_id"] for w in listed["items"]] == [webhook_id]
    assert webhook_id in await run("webhook", "list", "--state", "due", **where)
    assert "127.0.0.1:1/nobody" in await run("webhook", "show", webhook_id, **where)
    assert (await run("webhook", "replay", webhook_id, "--json", **where))["state"] == "due"
    assert "webhook_not_found" in await run("webhook", "show", "whk_no", code=3, **where)
    acts = await run("audit", "list", "--json", **where)
    assert acts["items"][0]["action"] == "webhook.replay"
    assert "execution.fail" in await run("audit", "list", "--session-id", "s", **where)
    copy, data = str(tmp_path / "copy"), str(timed.settings.data_dir)
    made = await run("backup", copy, "--data-dir", data, "--json")
    assert made["sessions"] == 1 and made["files"] == ["holdfast.db"]
    assert "is there already" in await run("backup", copy, "--data-dir", data, code=4)
    done = await run("restore", copy, "--data-dir", str(tmp_path / "new"), "--json")
    assert done["sessions"] == 1 and done["moved_aside"] is None
    assert "--force" in await run("restore", copy, "--data-dir", str(tmp_path / "new"), code=4)


async def test_after_a_restore_a_wrapper_whose_spool_is_ahead_comes_back_and_the_log_says_what_is_missing(
    tmp_path: Path,
) -> None:
    """Acknowledged after the backup, so the spool has forgotten it: an explicit gap, and the agent never notices."""
    house = await House(tmp_path / "old").open()
    await house.session("ses_1")
    go = tmp_path / "go"
    script = (
        "import os, time\n"
        "for n in range(400):\n"
        f"    while n >= 100 and not os.path.exists({str(go)!r} + str(n // 100)): time.sleep(0.01)\n"
        "    print('line', n, flush=True)\n"
    )
    wrappers = Wrappers(tmp_path / "spool", house.url)
    wrappers.start(*agent(script), env={"HOLDFAST_TOKEN": TOKENS["wrapper"]})
    await house.submit("ses_1", "exe_1")

    async def lines(h: House) -> list[str]:
        return "".join(texts(await h.events("ses_1"))).splitlines()

    async def has(h: House, n: int) -> bool:
        return (await lines(h))[-1:] == [f"line {n}"]

    await eventually(lambda: has(house, 99), within=30)
    backup(house.settings, tmp_path / "copy")
    before = await house.call("GET", "/v1/sessions/ses_1")
    watcher = await house.watch("ses_1", after_seq=0)
    (go.parent / "go1").touch()
    await eventually(lambda: has(house, 199))
    acked = (await house.execution("ses_1", "exe_1"))["acked_seq"]
    forgotten = before["active_execution"]["acked_seq"]
    assert acked > forgotten
    cursor = (await house.call("GET", "/v1/sessions/ses_1"))["last_seq"]
    port = house.gateway.url.rpartition(":")[2]
    await watcher.close()
    await house.close()
    (go.parent / "go2").touch()  # said while nobody was there: in the spool

    restored = restore(tmp_path / "copy", house.settings.model_copy(update={"data_dir": tmp_path / "new"}))
    assert restored["sessions"] == 1
    again = await House(tmp_path / "new", port=int(port)).open()
    late = await again.watch("ses_1", after_seq=cursor, stream_id=before["stream_id"])
    assert (await late.hear("reset"))["reason"] == "restored"
    await eventually(lambda: has(again, 299), within=30)
    (go.parent / "go3").touch()

    async def over() -> bool:
        return bool((await again.execution("ses_1", "exe_1"))["status"] == "completed")

    await eventually(over, within=30)
    events = await again.events("ses_1")
    (gap,) = [e for e in events if e["type"] == "output.gap"]
    assert gap["data"] == {"from_seq": forgotten + 1, "to_seq": acked, "bytes": 0, "reason": "trimmed"}
    assert await lines(again) == [f"line {n}" for n in (*range(100), *range(200, 400))]
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    assert "wrapper.resumed" in [e["type"] for e in events]
    assert len([e for e in events if e["type"].startswith("execution.comp")]) == 1
    await late.close()
    wrappers.end()
    await again.close()


async def test_after_a_restore_a_start_that_the_store_has_forgotten_is_told_again_and_runs_once(tmp_path: Path) -> None:
    house = await House(tmp_path / "old").open()
    await house.session("ses_1")
    await house.submit("ses_1", "exe_1")
    backup(house.settings, tmp_path / "copy")  # before any wrapper came
    go, runs = tmp_path / "go", tmp_path / "runs"
    script = (
        f"import os, time\nopen({str(runs)!r}, 'a').write('x')\nprint('early', flush=True)\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\nprint('late', flush=True)\n"
    )
    wrappers = Wrappers(tmp_path / "spool", house.url)
    wrappers.start(*agent(script), env={"HOLDFAST_TOKEN": TOKENS["wrapper"]})

    async def said(h: House, words: list[str]) -> bool:
        return "".join(texts(await h.events("ses_1"))).split() == words

    await eventually(lambda: said(house, ["early"]), within=30)
    port = house.gateway.url.rpartition(":")[2]
    await house.close()
    restore(tmp_path / "copy", house.settings.model_copy(update={"data_dir": tmp_path / "new"}))
    again = await House(tmp_path / "new", port=int(port)).open()

    async def running() -> bool:
        return bool((await again.execution("ses_1", "exe_1"))["status"] == "running")

    await eventually(running, within=30)
    go.touch()
    await eventually(lambda: said(again, ["late"]))

    async def over() -> bool:
        return bool((await again.execution("ses_1", "exe_1"))["status"] == "completed")

    await eventually(over)
    (gap,) = [e for e in await again.events("ses_1") if e["type"] == "output.gap"]
    assert gap["data"] == {"from_seq": 2, "to_seq": 2, "bytes": 0, "reason": "trimmed"}
    assert runs.read_text() == "x"
    wrappers.end()
    await again.close()
