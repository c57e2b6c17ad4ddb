"""Every route and socket × every caller; and that what is refused has changed nothing."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from actors.gateway.auth import hash_of
from actors.store.contract import Token
from tests.gateway.house import House, eventually
from tests.security.callers import ALL, secret_of
from tests.security.conftest import Open
from tests.security.matrix import TABLE, G, Row, undecided

NOBODY_THERE = "hooks.invalid"  # what is told to it leaves this machine for nobody
NEUTRAL = ("last_seen_at_ms", "updated_at_ms")


def routes_of(house: House) -> set[tuple[str, str]]:
    runner = house.gateway._runner
    assert runner is not None
    return {(r.method, r.resource.canonical) for r in runner.app.router.routes() if r.resource is not None}


async def test_no_route_is_undecided(house: House) -> None:
    assert undecided(routes_of(house)) == set()


async def test_a_new_route_without_a_row_would_be_noticed(house: House) -> None:
    assert undecided(routes_of(house) | {("GET", "/v1/new")}) == {("GET", "/v1/new")}


class Cell:
    """One caller at one row: a session of its own, made ready, then asked once."""

    def __init__(self, house: House, row: Row, who: str, n: int) -> None:
        self.house, self.row, self.who, self.first_of_house = house, row, who, n == 0
        self.names = {"sid": f"s{n}", "eid": "e", "aid": "apr_1", "tid": f"tok-{n}", "wid": "whk-nosuch"}
        self.names |= {"nid": f"s{n}", "iid": "inv-nosuch", "task_id": f"t{n}", "action": "cancel"}
        self.names |= {"oid": f"o{n}", "bid": f"b{n}", "station_id": f"s{n}", "collector_id": f"c{n}"}
        self.names |= {"sop_id": "sop", "subscene_id": "sub"}
        self.wrapper: Any = None

    async def __aenter__(self) -> Cell:
        sid = self.names["sid"]
        if "running" in self.row.first:
            self.wrapper = await self.house.running(sid)
        else:
            await self.house.session(sid)
        if "approval" in self.row.first:
            asked = {"approval_id": "apr_1", "title": "?", "options": ["allow"], "expires_in_s": 600, "data": {}}
            await self.wrapper.say({"type": "approval", "execution_id": "e", "seq": 2, **asked})
            await self.wrapper.acked(2)
        if "webhook" in self.row.first:
            await self.house.submit(sid, "told", callback={"url": f"http://{NOBODY_THERE}/"})
            await self.house.call("POST", f"/v1/sessions/{sid}/executions/told/fail", {"error": "x"})
            page = await self.house.call("GET", "/v1/webhooks", params={"session_id": sid})
            self.names["wid"] = page["items"][0]["webhook_id"]
        if "node" in self.row.first:
            await self.house.call("POST", "/v1/nodes", {"node_id": self.names["nid"]}, status=201)
        if "invocation" in self.row.first:
            told = await self.house.call("POST", f"/v1/nodes/{self.names['nid']}/invoke", {"command": "echo"})
            self.names["iid"] = told["invocation_id"]
        if "task" in self.row.first:
            path = f"/v1/nodes/{self.names['nid']}/tasks"
            await self.house.call("POST", path, {"task_id": self.names["task_id"]}, status=201)
        await self._at_work()
        if "code" in self.row.first or "enrolment" in self.row.first:
            made = await self.house.call("POST", "/v1/enrolment-codes", {}, status=201)
            self.names["code"] = made["code"]
        if "enrolment" in self.row.first:
            asked = {"code": self.names["code"], "node_id": self.names["nid"]}
            made = await self.house.call("POST", "/v1/enrolments", asked, token=None, status=202)
            self.names |= {"enrolment_id": made["enrolment_id"], "claim": made["claim"]}
        if "token" in self.row.first:
            token = Token(self.names["tid"], "reader")
            await self.house.worker.write(lambda store: store.put_token(hash_of(token.token_id), token))
        return self

    async def _at_work(self) -> None:
        names, first = self.names, self.row.first
        if "collector" in first:
            made = {"collector_id": names["collector_id"], "name": "x"}
            await self.house.call("POST", "/v1/collectors", made, status=201)
        if "station" in first and self.first_of_house:
            for path, made in (
                ("/v1/nodes", {"node_id": "theirs"}),
                ("/v1/collectors", {"collector_id": "they", "name": "x"}),
                ("/v1/stations", {"station_id": "somebody-elses", "collector_id": "they", "node_id": "theirs"}),
            ):
                await self.house.call("POST", path, made, status=201)
        if "station" in first:
            bound = {name: names[name] for name in ("station_id", "collector_id")} | {"node_id": names["nid"]}
            await self.house.call("POST", "/v1/stations", bound, status=201)
        if "order" in first:
            await self.house.call("POST", "/v1/orders", {"order_id": names["oid"], "target_count": 9}, status=201)
        if "batch" in first:
            asked = {"batch_id": names["bid"], "station_id": names["station_id"], "groups": [{**G, "quantity": 2}]}
            await self.house.call("POST", f"/v1/orders/{names['oid']}/batches", asked, status=201)
            page = await self.house.call("GET", "/v1/tasks", params={"batch_id": names["bid"]})
            names["task_id"] = page["items"][0]["task_id"]

    async def __aexit__(self, *_: object) -> None:
        if self.wrapper is not None:
            await self.wrapper.close()

    def filled(self, text: str) -> str:
        for name, value in self.names.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    async def ask(self) -> int:
        secret = await secret_of(self.house, self.who, self.names["sid"])
        path = self.filled(self.row.path)
        if self.row.how == "socket":
            return await self._socket(path, secret)
        headers = {"Authorization": f"Bearer {secret}"} if secret is not None else {}
        body = None if self.row.body is None else json.loads(self.filled(json.dumps(self.row.body)))
        async with self.house.client.request(
            self.row.method, self.house.url + path, json=body, headers=headers
        ) as answer:
            if answer.status >= 400 and self.row.method != "HEAD":
                assert answer.content_type == "application/problem+json"
                assert set(await answer.json()) >= {"type", "title", "status", "detail", "code", "hint", "instance"}
            return answer.status

    async def _socket(self, path: str, secret: str | None) -> int:
        socket = await self.house.socket(path, secret)
        if "/ingest" in path or "/connect" in path:
            await socket.say({"type": "what"})  # whoever is let in is told that a hello must come first
        message = await socket.ws.receive(timeout=10)
        await socket.close()
        if message.type is aiohttp.WSMsgType.TEXT:
            return 0
        assert message.type is aiohttp.WSMsgType.CLOSE, message
        return int(message.data)

    async def facts(self) -> Any:
        """What stands in the store about this session, its token and its webhook (whose delivery goes on meanwhile, so
        of that: what was done to it)."""
        sid, eid, tid = self.names["sid"], self.names["eid"], self.names["tid"]
        session = await self.house.call("GET", f"/v1/sessions/{sid}")
        nodes = await self.house.call("GET", "/v1/nodes")
        tasks = await self.house.call("GET", "/v1/tasks")
        asked = await self.house.call("GET", "/v1/enrolments")
        codes = await self.house.worker.read(_enrolment_codes)
        work = [await self.house.call("GET", f"/v1/{kind}") for kind in ("orders", "batches", "stations", "collectors")]
        log = await self._of_node()
        events = await self.house.events(sid)
        approvals = await self.house.call("GET", f"/v1/sessions/{sid}/approvals")
        listed = (await self.house.worker.read(lambda s: s.tokens(500, None))).items
        tokens = [t for t in listed if t["token_id"] == tid]
        audit = (await self.house.worker.read(lambda s: s.audit(None, 500, None))).items
        acts = [a["action"] for a in audit if a["object_id"] in (tid, self.names["wid"])]
        for name in NEUTRAL:
            session.pop(name, None), session["link"].pop(name, None)
        if session["active_execution"]:
            session["active_execution"].pop("last_progress_at_ms")
        return session, [e["type"] for e in events], approvals, tokens, acts, eid, nodes, tasks, asked, codes, log, work

    async def _of_node(self) -> Any:
        if "node" not in self.row.first:
            return None
        nid = self.names["nid"]
        invocations = await self.house.call("GET", f"/v1/nodes/{nid}/invocations")
        return invocations, await self.house.log(nid)


def _enrolment_codes(store: Any) -> Any:
    return store._c.execute("select * from enrolment_codes order by code_hash").fetchall()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
async def test_every_caller_is_told_what_the_table_says(open_house: Open, row: Row) -> None:
    house = await open_house(webhook_allow=(NOBODY_THERE,))
    await eventually(lambda: house.gateway.loops.ticked_at > 0)  # for /readyz
    told, changed = {}, []
    for n, who in enumerate(ALL):
        async with Cell(house, row, who, n) as cell:
            before = None if row.method in ("GET", "HEAD") else await cell.facts()
            told[who] = await cell.ask()
            if before is not None and told[who] >= 400 and await cell.facts() != before:
                changed.append(who)
    assert told == {who: row.told(who) for who in ALL}
    assert changed == [], "refused, and yet something changed"


@pytest.mark.parametrize("row", [r for r in TABLE if r.of == "one" and r.may], ids=lambda row: row.name)
async def test_another_sessions_token_learns_nothing_of_whether_a_session_is_there(open_house: Open, row: Row) -> None:
    """A session that is there, one that never was, one that was deleted: word for word the same."""
    house = await open_house(webhook_allow=(NOBODY_THERE,))
    scope = next(iter(sorted(row.may - {"admin"})))
    answers = []
    for n, sid in enumerate(("there", "deleted", "unknown")):
        cell = Cell(house, row, f"other {scope}", n)
        cell.names["sid"] = sid
        if sid != "unknown":
            await cell.__aenter__()
        if sid == "deleted":
            await house.call("DELETE", "/v1/sessions/deleted", status=204)
        secret = await secret_of(house, cell.who, sid)
        answers.append(await _word_for_word(house, cell, secret))
        await cell.__aexit__()
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][0] in (404, 4004)


async def _word_for_word(house: House, cell: Cell, secret: str | None) -> tuple[Any, ...]:
    sid, path = cell.names["sid"], cell.filled(cell.row.path)
    if cell.row.how == "socket":
        socket = await house.socket(path, secret)
        return await socket.closed()
    headers = {"Authorization": f"Bearer {secret}"}
    body = None if cell.row.body is None else json.loads(cell.filled(json.dumps(cell.row.body)))
    async with house.client.request(cell.row.method, house.url + path, json=body, headers=headers) as answer:
        text = (await answer.text()).replace(f"/{sid}", "/ID").replace(cell.names["wid"], "ID")
        return answer.status, text, {k: v for k, v in answer.headers.items() if k not in ("Date", "Content-Length")}


async def test_the_body_is_that_of_an_unknown_id_for_everybody(house: House) -> None:
    """What a stranger to the session reads is what an operator reads of an id that never was."""
    await house.session("s")
    other = await secret_of(house, "other reader", "s")
    foreign = await house.call("GET", "/v1/sessions/s", token=other, status=404)
    unknown = await house.call("GET", "/v1/sessions/nope", token="operator", status=404)
    assert foreign | {"instance": ""} == unknown | {"instance": ""}


async def test_another_stations_collector_learns_nothing_of_whether_anything_is_there(house: House) -> None:
    """A station, a batch, a task, a handoff that are there, and ones that never were: word for word the same."""
    async with Cell(
        house, Row("GET", "", 200, first=("node", "collector", "station", "order", "batch")), "", 0
    ) as cell:
        other = await secret_of(house, "other collector", "s0")
        for path in ("/v1/stations/{station_id}", "/v1/batches/{bid}", "/v1/tasks/{task_id}"):
            unknown = path.partition("{")[0] + "never"
            told = [await house.call("GET", p, token=other, status=404) for p in (cell.filled(path), unknown)]
            assert told[0] | {"instance": ""} == told[1] | {"instance": ""}, path
        path = "/v1/batches/{bid}/groups/sop/sub/handoff"
        told = [await house.call("GET", p, token=other, status=404) for p in (cell.filled(path), path.format(bid="no"))]
        assert told[0] | {"instance": ""} == told[1] | {"instance": ""}
