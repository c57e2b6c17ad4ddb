"""The documents are whole, say what the tables say, and cover everything that the door opens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any, get_args

import pytest
from aiohttp import web
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from actors.gateway.documents import page
from actors.gateway.documents.asyncapi import SOCKETS, asyncapi
from actors.gateway.documents.openapi import openapi
from actors.gateway.routes import ROUTES
from actors.protocol import codes, frames, node_codes, node_frames, words
from actors.protocol.payloads import PAYLOADS
from tests.contract.judge import Case, Judge, ask
from tests.gateway.house import House

HTTP, WS = openapi(), asyncapi()


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for one in node:
            yield from references(one)


def resolved(document: Any, reference: str) -> Any:
    for step in reference.removeprefix("#/").split("/"):
        document = document[step]
    return document


# ---------------------------------------------------------------- they cannot drift


def undocumented(app: web.Application, document: dict[str, Any]) -> set[tuple[str, str]]:
    """What the router answers and the document does not know, and the other way round. HEAD goes with its GET."""
    opened = {(r.method, r.resource.canonical) for r in app.router.routes() if r.resource and r.method != "HEAD"}
    declared = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    return opened ^ declared


async def test_the_router_and_the_document_are_the_same(house: House) -> None:
    judge = await Judge.of(house)
    runner = house.gateway._runner
    assert runner is not None
    app = runner.app
    assert undocumented(app, judge.openapi) == set()
    assert judge.openapi == HTTP and judge.asyncapi == WS


async def test_a_route_without_a_document_is_found() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    for route in ROUTES:
        app.router.add_route(route.method, route.path, handler)
    assert undocumented(app, HTTP) == set()
    app.router.add_post("/v1/smuggled", handler)
    assert undocumented(app, HTTP) == {("POST", "/v1/smuggled")}


def test_every_socket_has_its_route_and_its_channel() -> None:
    assert {r.socket for r in ROUTES if 101 in r.answers} == set(WS["channels"]) == set(SOCKETS)
    for route in ROUTES:
        if route.socket:
            assert WS["channels"][route.socket]["address"] == route.path


# ---------------------------------------------------------------- OpenAPI


@pytest.mark.parametrize("document", [HTTP, WS], ids=["openapi", "asyncapi"])
def test_every_reference_leads_somewhere_and_every_schema_is_one(document: dict[str, Any]) -> None:
    for reference in references(document):
        assert resolved(document, reference)
    for name, schema in document["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert re.fullmatch(r"[A-Za-z]+", name)
    used = set(references(document))
    spare = {n for n in document["components"]["schemas"] if f"#/components/schemas/{n}" not in used}
    assert spare <= {"JsonValue"}


def test_every_operation_says_who_what_and_what_comes_of_it() -> None:
    operations = [(path, o) for path, methods in HTTP["paths"].items() for o in methods.values()]
    assert len({o["operationId"] for _, o in operations}) == len(operations) == len(ROUTES)
    tags = {tag["name"] for tag in HTTP["tags"]}
    for path, operation in operations:
        named = [p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"]
        assert named == re.findall(r"{(\w+)}", path)
        assert set(operation["tags"]) <= tags and operation["summary"]
        assert bool(operation["security"]) == ("x-scopes" in operation)
        assert any(status[0] in "12" for status in operation["responses"])


def test_the_error_table_is_the_error_table() -> None:
    assert {c: row["status"] for c, row in HTTP["x-error-codes"].items()} == {
        c: row.status for c, row in codes.ERRORS.items()
    }


# ---------------------------------------------------------------- AsyncAPI


def names_of(union: Any) -> set[str]:
    found: set[str] = set()
    for one in get_args(union) or (union,):
        if isinstance(one, type) and issubclass(one, BaseModel):
            found.add(one.__name__)
        elif not isinstance(one, type) and get_args(one):
            found |= names_of(one)
    return found


def test_every_frame_of_the_protocol_is_a_message_of_its_socket() -> None:
    def said(operation: str) -> set[str]:
        return {link["$ref"].rsplit("/", 1)[-1] for link in WS["operations"][operation]["messages"]}

    assert said("ingest_receive") == names_of(frames.FromWrapper)
    assert said("ingest_send") == names_of(frames.ToWrapper)
    assert said("stream_send") == names_of(frames.StreamFrame)
    assert said("fleet_send") == {"FleetSessions"}
    assert said("node_receive") == names_of(node_frames.FromNode)
    assert said("node_send") == names_of(node_frames.ToNode)
    assert names_of(node_frames.Directive) < said("node_send")
    every = {
        name
        for name, model in [*vars(frames).items(), *vars(node_frames).items()]
        if isinstance(model, type) and issubclass(model, frames.Frame) and "type" in model.model_fields
    }
    assert every - {"Event", "LogLine"} == set(WS["components"]["messages"])


def test_the_close_codes_are_the_one_table() -> None:
    assert [row["code"] for row in WS["x-close-codes"]] == list(codes.CLOSE_CODES)
    for channel in WS["channels"].values():
        assert set(channel["x-close-codes"]) <= set(codes.CLOSE_CODES)
    assert set(words.CLOSE_WHEN) == set(codes.CLOSE_CODES)
    assert set(words.RECONNECT) == set(get_args(codes.Reconnect))
    assert set(words.COMMANDS) == set(get_args(codes.CommandKind))


def test_every_event_type_and_every_cause_is_there() -> None:
    assert WS["x-event-types"].keys() == codes.EVENT_TYPES.keys() == PAYLOADS.keys()
    assert WS["x-causes"] == codes.CAUSES
    assert WS["x-node-event-types"].keys() == node_codes.NODE_EVENT_TYPES.keys()


# ---------------------------------------------------------------- the pages


class Reader(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag != "meta":
            self.open.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "action", "srcset", "data"):
                self.links.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("path", ["/docs", "/"])
async def test_a_page_asks_nobody_for_anything_and_runs_nothing(house: House, path: str) -> None:
    told = await ask(house, "GET", Case(path, token=None))
    read = Reader(told.body)
    assert read.open == []
    assert not read.tags & {"script", "img", "link", "iframe", "object", "form", "svg", "base"}
    assert not {a for a in read.attributes if a.startswith("on") or a == "style"}
    assert "@import" not in told.body and "url(" not in told.body
    assert all(link.startswith(("#", "/")) and not link.startswith("//") for link in read.links)
    served = set(HTTP["paths"])
    assert {link for link in read.links if link.startswith("/")} <= served
    policy = told.headers["Content-Security-Policy"]
    assert (
        policy == page.POLICY and policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy
    )
    assert told.headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_has_everything_that_the_documents_have() -> None:
    read = Reader(page.docs(HTTP, WS))
    assert len(set(read.ids)) == len(read.ids)
    assert {link[1:] for link in read.links if link.startswith("#")} <= set(read.ids)
    wanted = {route.operation_id for route in ROUTES}
    wanted |= {f"socket-{name}" for name in SOCKETS} | {f"frame-{name}" for name in WS["components"]["messages"]}
    wanted |= {f"error-{code}" for code in codes.ERRORS} | {f"close-{code}" for code in codes.CLOSE_CODES}
    assert wanted <= set(read.ids)
    for name in (*codes.EVENT_TYPES, *codes.CAUSES):
        assert f"<code>{name}</code>" in page.docs(HTTP, WS)


def test_what_a_document_says_is_text_and_never_markup() -> None:
    evil = "<script>alert(1)</script>"
    bad = {**HTTP, "info": {**HTTP["info"], "description": evil}}
    assert evil not in page.docs(bad, WS) and "&lt;script&gt;" in page.docs(bad, WS)
