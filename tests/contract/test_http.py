"""Every route of the table, against the live service: every answer that it declares, and every problem code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from actors.gateway.auth import hash_of
from actors.gateway.door import SOCKETS_MAX
from actors.gateway.entrance import Entrance
from actors.gateway.routes import ROUTES, SSE, Route
from actors.mailbox import NoActors
from actors.protocol.codes import ERRORS
from actors.protocol.defaults import MAX_BODY_BYTES
from actors.protocol.errors import HoldfastError
from actors.store.contract import Token
from tests.contract.judge import CALLBACKS, Case, Judge, ask
from tests.contract.order_scene import GOOD_ORDERS, PROVOKED_ORDERS, TAGS, Change, orders_in
from tests.gateway.house import TOKENS, House, Socket, eventually, hello, node_hello

OF: dict[str, Route] = {route.operation_id: route for route in ROUTES}
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}

# A valid request of every route. Session `s` runs `e` and asks `apr_1`; `old` has ended in `t`; `q` waits behind `e`;
# `whk_1` is the callback of `old`, `tok_spare` a token that nobody uses. Node `n` is connected as `node`, and as a
# `recorder` that has not said its state; `inv_1` has settled, `task` waits, `enr_1` asks, `spare-code` is a code.
GOOD: dict[str, Case] = {
    "api_create_session": Case("/v1/sessions", {"title": "new", "labels": {"a": "b"}, "limits": {"hung_s": None}}),
    "api_list_sessions": Case("/v1/sessions", query={"label": "k:v", "limit": "1", "q": "s"}),
    "api_show_session": Case("/v1/sessions/s"),
    "api_delete_session": Case("/v1/sessions/spare"),
    "api_submit": Case("/v1/sessions/s/executions", {"input": {"n": 1}}),
    "api_list_executions": Case("/v1/sessions/s/executions", query={"limit": "1"}),
    "api_show_execution": Case("/v1/sessions/s/executions/e"),
    "api_fail": Case("/v1/sessions/s/executions/e/fail", {"error": "by hand"}),
    "api_send_input": Case("/v1/sessions/s/executions/e/input", {"input": "more"}),
    "api_interrupt": Case("/v1/sessions/s/interrupt", {"reason": "enough"}),
    "api_events": Case("/v1/sessions/s/events", query={"types": "execution.started,output", "execution_id": "e"}),
    "streams_session": Case("/v1/sessions/s/stream", query={"after_seq": "0"}),
    "streams_fleet": Case("/v1/stream"),
    "ingest_handle": Case("/v1/sessions/s/ingest", headers=UPGRADE),
    "api_list_approvals": Case("/v1/sessions/s/approvals"),
    "api_resolve_approval": Case("/v1/sessions/s/approvals/apr_1", {"decision": "y", "note": "ok"}),
    "nodes_create": Case("/v1/nodes", {"name": "new", "allow": ["device.*"]}),
    "nodes_list": Case("/v1/nodes", query={"connected": "true", "role": "node", "limit": "1", "q": "n"}),
    "nodes_show": Case("/v1/nodes/n"),
    "nodes_change": Case("/v1/nodes/n", {"name": "renamed", "allow": None}),
    "nodes_forget": Case("/v1/nodes/spare"),
    "nodes_events": Case("/v1/nodes/n/events", query={"after_seq": "0", "limit": "1"}),
    "node_sockets_handle": Case("/v1/nodes/n/connect", query={"role": "transfer"}, headers=UPGRADE),
    "nodes_invoke": Case("/v1/nodes/n/invoke", {"command": "echo", "role": "transfer"}),
    "nodes_list_invocations": Case("/v1/nodes/n/invocations", query={"limit": "1"}),
    "nodes_show_invocation": Case("/v1/invocations/inv_1"),
    "nodes_cancel": Case("/v1/invocations/inv_1/cancel"),
    "tasks_create": Case("/v1/nodes/n/tasks", {"params": {"scene": 7}}),
    "tasks_list": Case("/v1/tasks", query={"node_id": "n", "status": "pending", "limit": "1"}),
    "tasks_show": Case("/v1/tasks/task"),
    "tasks_act": Case("/v1/tasks/task/cancel", {"attempt": 1}),
    **GOOD_ORDERS,
    "enrolments_make_code": Case("/v1/enrolment-codes", {"expires_in_s": 60}),
    "enrolments_enrol": Case("/v1/enrolments", {"code": "spare-code", "node_id": "new", "claim": "c" * 43}, token=None),
    "enrolments_list": Case("/v1/enrolments", query={"state": "pending", "limit": "1"}),
    "enrolments_decide": Case("/v1/enrolments/enr_1", {"decision": "approve"}),
    "enrolments_claim": Case("/v1/enrolments/enr_1/claim", {"claim": "d" * 43}, token=None),
    "operations_list_webhooks": Case("/v1/webhooks", query={"session_id": "t", "state": "due", "limit": "1"}),
    "operations_show_webhook": Case("/v1/webhooks/whk_1"),
    "operations_replay": Case("/v1/webhooks/whk_1/replay"),
    "operations_audit": Case("/v1/audit", query={"session_id": "s", "limit": "1"}),
    "api_ticket": Case("/v1/tickets", {"session_id": "s", "scope": "reader"}),
    "tokens_me": Case("/v1/me"),
    "tokens_create": Case("/v1/tokens", {"scope": "reader", "session_id": "s"}),
    "tokens_list": Case("/v1/tokens", query={"limit": "1"}),
    "tokens_revoke": Case("/v1/tokens/tok_spare"),
    "metrics_show": Case("/metrics"),
    "pages_health": Case("/healthz", token=None),
    "pages_ready": Case("/readyz", token=None),
    "pages_openapi": Case("/openapi.json", token=None),
    "pages_asyncapi": Case("/asyncapi.json", token=None),
    "pages_docs": Case("/docs", token=None),
    "pages_home": Case("/", token=None),
}
# Where a route has more than one good answer: what else has to be asked.
ALSO: dict[tuple[str, int], Case] = {
    ("api_interrupt", 200): Case("/v1/sessions/t/interrupt", {"execution_id": "old"}),
    ("nodes_invoke", 202): Case("/v1/nodes/n/invoke", {"command": "echo", "wait": False}),
    ("streams_session", 101): Case("/v1/sessions/s/stream", headers=UPGRADE),
    ("streams_fleet", 101): Case("/v1/stream", headers=UPGRADE),
}


class Scene:
    """The live service with something going on in it."""

    def __init__(self, house: House, judge: Judge, wrapper: Socket) -> None:
        self.house, self.judge, self.wrapper = house, judge, wrapper

    @staticmethod
    async def _nodes(house: House) -> None:
        await house.node("n")
        await house.node("n", "recorder")
        await house.call("POST", "/v1/nodes", {"node_id": "spare"}, status=201)
        await house.call("POST", "/v1/nodes/n/invoke", {"command": "echo", "role": "transfer"}, status=200)
        await house.call("POST", "/v1/nodes/n/tasks", {"task_id": "task"}, status=201)
        for code in ("spare-code", "used-code"):
            hashed = hash_of(code)
            await house.worker.write(lambda store, h=hashed: store.make_enrolment_code(h, None, 600.0, None))
        await house.call(
            "POST", "/v1/enrolments", {"code": "used-code", "node_id": "asks", "claim": "d" * 43}, token=None
        )
        for named in ("update invocations set id = 'inv_1'", "update enrolments set id = 'enr_1'"):
            await house.worker.write(lambda store, q=named: store._alone(lambda: store._c.execute(q)))  # type: ignore[misc]

    @classmethod
    async def of(cls, house: House, *, orders: bool = True) -> Scene:
        wrapper = await house.running(wrapper_id="w_1")
        question = {"type": "approval", "execution_id": "e", "seq": 2, "approval_id": "apr_1", "title": "?"}
        await wrapper.say({**question, "options": ["y", "n"], "data": {"path": "/"}})
        await wrapper.acked(2)
        await house.submit("s", "q")
        for name in ("t", "spare", "gone", "idle"):
            await house.session(name, labels={"k": "v"})
        await house.submit("t", "old", callback={"url": f"http://{CALLBACKS[0]}/", "secret": "s"})
        await house.call("POST", "/v1/sessions/t/interrupt", {})
        await house.worker.write(
            lambda store: store._alone(lambda: store._c.execute("update callbacks set id = 'whk_1'"))  # type: ignore[attr-defined]
        )
        await house.call("DELETE", "/v1/sessions/gone")
        await cls._nodes(house)
        if orders:
            await orders_in(house)
        await house.worker.write(lambda store: store.put_token(hash_of("t-of-t"), Token("tok_t", "admin", "t")))
        await house.worker.write(lambda store: store.put_token(hash_of("t-spare"), Token("tok_spare", "reader")))
        await eventually(lambda: house.gateway.loops.ticked_at > 0)
        return cls(house, await Judge.of(house), wrapper)


@pytest.fixture
async def scene(house: House) -> AsyncIterator[Scene]:
    made = await Scene.of(house)
    yield made
    await made.wrapper.close()


# ---------------------------------------------------------------- good answers


def test_every_route_has_a_valid_request() -> None:
    assert GOOD.keys() == OF.keys()


@pytest.mark.parametrize("name", OF)
async def test_every_declared_answer_is_given(scene: Scene, name: str) -> None:
    route = OF[name]
    given = {(await scene.judge.ask(scene.house, route, GOOD[name])).status}
    given |= {(await scene.judge.ask(scene.house, route, c)).status for (n, _), c in ALSO.items() if n == name}
    assert given == set(route.answers)


async def test_a_null_has_its_place_in_every_shape(house: House) -> None:
    """The same answers where next to nothing is set: schemas that forbid null are found here."""
    judge = await Judge.of(house)
    await judge.ask(house, OF["api_create_session"], Case("/v1/sessions", {"session_id": "s"}))
    await judge.ask(house, OF["api_submit"], Case("/v1/sessions/s/executions", {"execution_id": "e"}))
    for name in ("api_show_session", "api_list_sessions", "api_show_execution", "api_list_approvals"):
        await judge.ask(house, OF[name], GOOD[name].but(query={}))
    await judge.ask(house, OF["api_fail"], Case("/v1/sessions/s/executions/e/fail", {"error": "x"}))
    told = await judge.ask(house, OF["api_interrupt"], Case("/v1/sessions/s/interrupt", {"execution_id": "e"}))
    assert told.status == 200 and told.body["interrupt_id"] is None


async def test_every_page_of_a_list_is_a_page(scene: Scene) -> None:
    for name in ("api_list_sessions", "api_list_executions", "operations_audit", "tokens_list"):
        query = {"limit": "1"}
        first = await scene.judge.ask(scene.house, OF[name], GOOD[name].but(query=query))
        second = await scene.judge.ask(
            scene.house, OF[name], GOOD[name].but(query={**query, "cursor": first.body["next_cursor"]})
        )
        assert first.body["items"] != second.body["items"]


# ---------------------------------------------------------------- problems

Provoke = Callable[[Scene, Route, Case], Awaitable[Case]]


def _plain(change: Callable[[Route, Case], Case]) -> Provoke:
    async def made(scene: Scene, route: Route, case: Case) -> Case:
        return change(route, case)

    return made


def _elsewhere(case: Case, of: int, name: str) -> Case:
    parts = case.path.split("/")
    parts[of] = name
    return case.but(path="/".join(parts))


def _bad_request(route: Route, case: Case) -> Case:
    if route.socket in ("ingest", "node"):
        return case.but(headers={})
    if route.operation_id == "tasks_create":  # its body takes any JSON but for its ids
        return case.but(headers={"Idempotency-Key": "x" * 256})
    if route.operation_id == "streams_fleet":
        return case.but(headers={**UPGRADE, "Sec-WebSocket-Version": "12"})
    if route.body is None:
        name = next((p.name for p in route.params if p.schema.get("type") == "integer"), None)
        return case.but(query={name: "x"}) if name else case.but(headers={"Idempotency-Key": "x" * 256})
    wrong = {name: {"not": "this"} for name in route.body.model_fields if not name.endswith("_id") and name != "input"}
    return case.but(body=wrong)


def _of_orders(provoked: Change) -> Provoke:
    async def made(scene: Scene, route: Route, case: Case) -> Case:
        return await provoked(scene.house, route.operation_id, case)

    return made


def _bad_id(route: Route, case: Case) -> Case:
    if route.body is None:
        return case.but(query={next(p.name for p in route.params if p.name.endswith("_id")): "!!"})
    if route.operation_id == "batches_adjust":
        return case.but(body={"groups": [{"sop_id": "!!", "subscene_id": "sub", "quantity": 1}]})
    return case.but(body={**case.body, next(n for n in route.body.model_fields if n.endswith("_id")): "!!\n"})


def _not_found(route: Route, case: Case) -> Case:
    if "sid" not in route.path_params:
        return case.but(token="t-of-t", query={"session_id": "s"} if route.body is None else {})
    return _elsewhere(case, 3, "nosuch")


def _deleted(route: Route, case: Case) -> Case:
    return case.but(body={"session_id": "gone"}) if route.path == "/v1/sessions" else _elsewhere(case, 3, "gone")


def _no_execution(route: Route, case: Case) -> Case:
    if "eid" in route.path_params:
        return _elsewhere(case, 5, "nosuch")
    return case.but(body={"execution_id": "nosuch"})


async def _mismatch(scene: Scene, route: Route, case: Case) -> Case:
    keyed = case.but(headers={"Idempotency-Key": "k"})
    assert (await scene.judge.ask(scene.house, route, keyed)).status < 300
    return keyed.but(body={**(case.body or {}), "another": "body"})


async def _full(scene: Scene, route: Route, case: Case) -> Case:
    for _ in range(9):  # with `q`: ten
        await scene.judge.ask(scene.house, route, case)
    return case


async def _ended(scene: Scene, route: Route, case: Case) -> Case:
    return case.but(path="/v1/sessions/t/executions/old/input")


def _no_node(route: Route, case: Case) -> Case:
    """Forgotten and unknown are the same to DELETE, and an invocation outlives its node: there, an id that is none."""
    if route.tag == "stations":
        return case.but(body={**case.body, "node_id": "nosuch"})
    name = "!!" if route.operation_id in ("nodes_forget", "nodes_list_invocations") else "nosuch"
    return _elsewhere(case, 3, name)


async def _decided(scene: Scene, route: Route, case: Case) -> Case:
    assert (await scene.judge.ask(scene.house, route, case)).status == 200
    return case


async def _taken(scene: Scene, route: Route, case: Case) -> Case:
    """By a body that names it; or, where a device asks for an id, by another that got it meanwhile."""
    if route.operation_id != "enrolments_decide":
        return case.but(body={**(case.body or {}), "node_id": "n"})
    await scene.house.call("POST", "/v1/nodes", {"node_id": "asks"}, status=201)
    return case


class Idle:
    """Somebody on a socket, who says nothing."""

    token_hash = None
    kind = "stream"

    def tend(self) -> None: ...
    def end(self, code: int, reason: str = "", *, drain: bool = False) -> None: ...


async def _crowd(scene: Scene, route: Route, case: Case) -> Case:
    """Where sockets stay: as many as there may be. Elsewhere: more connections of one address than it may have."""
    gateway = scene.house.gateway
    if SSE in route.answers.values():
        gateway.door.sockets.update((Idle(), None) for _ in range(SOCKETS_MAX))
        return case
    _limited(scene)
    entrance = gateway._runner.server if gateway._runner else None
    assert isinstance(entrance, Entrance)
    entrance._most = 0
    for visitor in entrance.connections:
        visitor.surplus = True
    return _in_http(route, case)


async def _rushed(scene: Scene, route: Route, case: Case) -> Case:
    _limited(scene, requests_per_s=0.01)  # a bucket without room for one
    return _in_http(route, case)


def _in_http(route: Route, case: Case) -> Case:
    """What a socket is told by a close code, a request without an upgrade is told in HTTP."""
    return case.but(headers={}) if route.socket in ("ingest", "node") else case


def _limited(scene: Scene, **settings: Any) -> None:
    limits = scene.house.gateway.door.limits
    limits._settings = limits._settings.model_copy(update={"limit_loopback": True, **settings})


async def _closing(scene: Scene, route: Route, case: Case) -> Case:
    scene.house.gateway.door.accepting = False
    return case


PROVOKED: dict[str, Provoke] = {
    "bad_request": _plain(_bad_request),
    "bad_id": _plain(_bad_id),
    "bad_json": _plain(lambda route, case: case.but(raw=b'{"n": NaN}')),
    "bad_cursor": _plain(lambda route, case: case.but(query={"cursor": "?"})),
    "unauthenticated": _plain(lambda route, case: case.but(token=None)),
    "forbidden": _plain(lambda route, case: case.but(token="wrapper")),
    "origin_not_allowed": _plain(lambda route, case: case.but(headers={"Origin": "https://evil.example"})),
    "session_not_found": _plain(_not_found),
    "session_deleted": _plain(_deleted),
    "execution_not_found": _plain(_no_execution),
    "approval_not_found": _plain(lambda route, case: _elsewhere(case, 5, "nosuch")),
    "node_not_found": _plain(_no_node),
    "node_exists": _taken,
    "invocation_not_found": _plain(lambda route, case: _elsewhere(case, 3, "nosuch")),
    "task_not_found": _plain(lambda route, case: _elsewhere(case, 3, "nosuch")),
    "task_exists": _plain(lambda route, case: case.but(body={"task_id": "task"})),
    "task_conflict": _plain(lambda route, case: _elsewhere(case, 4, "begin")),
    "attempt_mismatch": _plain(lambda route, case: case.but(body={"attempt": 7})),
    "state_unknown": _plain(lambda route, case: _elsewhere(case, 4, "config")),
    "not_found": _plain(lambda route, case: _elsewhere(case, 4, "dance")),
    "enrolment_not_found": _plain(lambda route, case: _elsewhere(case, 3, "nosuch")),
    "bad_enrolment_code": _plain(lambda route, case: case.but(body={**case.body, "code": "used-code", "node_id": "x"})),
    "webhook_not_found": _plain(lambda route, case: _elsewhere(case, 3, "nosuch")),
    "webhook_not_allowed": _plain(lambda route, case: case.but(body={"callback": {"url": "http://169.254.169.254/"}})),
    "session_exists": _plain(lambda route, case: case.but(body={"session_id": "s"})),
    "execution_mismatch": _plain(lambda route, case: case.but(body={"execution_id": "e", "input": "another"})),
    "already_resolved": _decided,
    "nothing_to_interrupt": _plain(lambda route, case: _elsewhere(case, 3, "idle")),
    "not_running": _plain(lambda route, case: _elsewhere(case, 5, "q")),
    "execution_terminal": _ended,
    "too_large": _plain(lambda route, case: case.but(raw=b'{"x":"' + b"x" * MAX_BODY_BYTES + b'"}')),
    "unsupported_media_type": _plain(lambda route, case: case.but(headers={"Content-Encoding": "gzip"})),
    "request_timeout": _plain(lambda route, case: case.but(stalls=True)),
    "rate_limited": _rushed,
    "token_not_found": _plain(lambda route, case: _elsewhere(case, 3, "nosuch")),
    "idempotency_mismatch": _mismatch,
    "queue_full": _full,
    "too_many_connections": _crowd,
    "unavailable": _closing,
    **{code: _of_orders(provoked) for code, provoked in PROVOKED_ORDERS.items()},
}
OF_ALL = {"internal", "storage_unavailable"}  # further down: the whole service has to be ill
# further down: there is no route to declare them
NOT_OF_A_ROUTE = {"method_not_allowed", "headers_too_large"}
# Codes that HTTP does not know, and why.
ELSEWHERE = {
    "unknown_frame": "on sockets",
    "invalid_frame": "on sockets",
    "bad_hello": "on sockets",
    "hello_timeout": "on sockets",
    "already_connected": "on sockets",
    "link_connected": "of `holdfast run`",
    "unknown_role": "on sockets",
    "foreign_task": "on sockets",
}
EVERY = [(route.operation_id, code) for route in ROUTES for code in sorted(route.problems() - OF_ALL)]


def test_every_code_of_http_is_provoked() -> None:
    declared = set().union(*(route.problems() for route in ROUTES))
    assert declared - OF_ALL == PROVOKED.keys()
    assert declared | NOT_OF_A_ROUTE | ELSEWHERE.keys() == ERRORS.keys()
    assert not declared & ELSEWHERE.keys()


@pytest.mark.parametrize("name", OF)
async def test_every_declared_code_is_given(tmp_path: Path, name: str) -> None:
    """Each code of a route in a scene of its own kind: what one leaves behind must not help the next."""
    route = OF[name]
    codes = sorted(route.problems() - OF_ALL)
    spoiling = {"queue_full", "too_many_connections", "unavailable", "already_resolved", "idempotency_mismatch"}
    spoiling |= {"request_timeout", "node_exists"}
    last = [c for c in codes if c == "rate_limited"]  # after it nothing else is given
    groups = [[c for c in codes if c not in {*spoiling, *last}] + last, *([c] for c in codes if c in spoiling)]
    for n, group in enumerate(g for g in groups if g):
        house = await House(tmp_path / str(n), webhook_allow=CALLBACKS).open(
            **({"request_timeout_s": 0.5} if group == ["request_timeout"] else {})
        )
        touched = group != ["request_timeout"]  # that one is given before anybody looks for anything
        scene = await Scene.of(house, orders=touched and route.tag in TAGS | {"tasks"})
        for code in group:
            case = await PROVOKED[code](scene, route, GOOD[name])
            told = await scene.judge.ask(house, route, case)
            assert (told.code, told.status) == (code, ERRORS[code].status), (name, code, told)
            assert told.body["instance"] == case.path and told.body["hint"] == ERRORS[code].hint
        house.gateway.door.sockets = {s: None for s in house.gateway.door.sockets if not isinstance(s, Idle)}
        await scene.wrapper.close()
        await house.close()


async def test_a_decided_approval_names_the_winner(scene: Scene) -> None:
    route, case = OF["api_resolve_approval"], GOOD["api_resolve_approval"]
    await scene.judge.ask(scene.house, route, case)
    told = await scene.judge.ask(scene.house, route, case)
    assert told.body["winner"]["decision"] == "y" and told.body["winner"]["resolved_by"] == "tok_admin"


async def test_a_store_that_is_behind_is_a_503_everywhere(scene: Scene) -> None:
    gate = threading.Event()
    worker = scene.house.worker
    held = [asyncio.ensure_future(worker.read(lambda store: gate.wait(60))) for _ in range(2)]
    waiting: list[Awaitable[Any]] = []
    with pytest.raises(HoldfastError):
        while True:
            waiting.append(worker.read(lambda store: None))
    try:
        for name, route in OF.items():
            if "storage_unavailable" in route.problems() and route.scopes is not None:
                told = await scene.judge.ask(scene.house, route, GOOD[name].but(token="nobody knows it"))
                assert (told.status, told.code) == (503, "storage_unavailable"), name
    finally:
        gate.set()
        await asyncio.gather(*held, *waiting, return_exceptions=True)


async def test_a_store_that_takes_nothing_is_a_503_where_no_token_is_asked_for(scene: Scene) -> None:
    open_ones = [n for n, r in OF.items() if r.scopes is None and "storage_unavailable" in r.problems()]
    assert open_ones == ["enrolments_enrol", "enrolments_claim"]
    scene.house.worker._closing = True
    for name in open_ones:
        told = await scene.judge.ask(scene.house, OF[name], GOOD[name])
        assert (told.status, told.code) == (503, "storage_unavailable"), name
    scene.house.worker._closing = False
    for name in open_ones:
        assert (await scene.judge.ask(scene.house, OF[name], GOOD[name])).status < 300


async def test_our_own_mistake_is_a_problem_document_too(scene: Scene) -> None:
    class Mistaken(NoActors):
        def awake(self, session_id: str) -> bool:
            raise RuntimeError("a mistake of ours")

    scene.house.gateway.door.mailbox.port = Mistaken()
    told = await scene.judge.ask(scene.house, OF["api_submit"], GOOD["api_submit"])
    assert (told.status, told.code) == (500, "internal")
    assert "mistake of ours" not in str(told.body)
    scene.house.gateway.door.mailbox.port = NoActors()


async def test_what_is_no_route_is_a_problem_document(scene: Scene) -> None:
    for path in ("/v1/nothing", "/elsewhere", "/v1/sessions/s/", "/docs/"):
        told = await ask(scene.house, "GET", Case(path))
        assert (told.status, told.code, told.content_type) == (404, "not_found", "application/problem+json")
    for route in ROUTES:
        declared = {m.upper() for m in scene.judge.openapi["paths"][route.path]}
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - declared:
            told = await ask(scene.house, method, GOOD[route.operation_id])
            assert (told.status, told.code) == (405, "method_not_allowed"), (method, route.path)
            assert set(told.headers["Allow"].split(",")) - {"HEAD"} == declared


async def test_a_body_of_another_type_is_refused_wherever_a_body_is_read(scene: Scene) -> None:
    for name, route in OF.items():
        if route.body is not None:
            case = GOOD[name].but(headers={"Content-Type": "text/plain"})
            told = await scene.judge.ask(scene.house, route, case)
            assert (told.status, told.code) == (415, "unsupported_media_type"), name


async def test_headers_that_are_too_large_are_a_problem_document(scene: Scene) -> None:
    for path in ("/v1/sessions", "/healthz", "/v1/nothing"):
        told = await ask(scene.house, "GET", Case(path, headers={"X-Long": "x" * 9000}))
        assert (told.status, told.code, told.content_type) == (431, "headers_too_large", "application/problem+json")


# ---------------------------------------------------------------- scopes


@pytest.mark.parametrize("name", [route.operation_id for route in ROUTES if route.socket not in ("ingest", "node")])
async def test_a_route_is_open_to_the_scopes_that_it_declares_and_to_no_other(scene: Scene, name: str) -> None:
    route = OF[name]
    assert sorted(route.scopes or ()) == scene.judge.operation(route).get("x-scopes", [])
    for scope in sorted(TOKENS):
        told = await scene.judge.ask(scene.house, route, GOOD[name].but(token=scope))
        refused = told.status in (401, 403)
        assert refused == (route.scopes is not None and scope not in route.scopes), (scope, told)


async def test_ingest_is_open_to_the_scopes_that_it_declares(scene: Scene) -> None:
    for scope in sorted(TOKENS):
        socket = await scene.house.ingest("idle", token=scope)
        await socket.say(hello(protocol=99))
        code, _ = await socket.closed()
        assert code == (4003 if scope in (OF["ingest_handle"].scopes or ()) else 4403), scope


async def test_a_node_s_socket_is_open_to_the_scopes_that_it_declares(scene: Scene) -> None:
    secrets = {**TOKENS, "node": await scene.house.node_token("n")}
    for scope, secret in sorted(secrets.items()):
        socket = await scene.house.socket("/v1/nodes/n/connect", secret)
        await socket.say(node_hello(protocol=99))
        code, _ = await socket.closed()
        assert code == (4003 if scope in (OF["node_sockets_handle"].scopes or ()) else 4403), scope
