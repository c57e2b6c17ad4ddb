"""Holds what the live service says against the documents that it gives of itself, fetched as a client would."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

from jsonschema import Draft202012Validator

from actors.gateway.routes import Route
from tests.gateway.house import TOKENS, House

Json = dict[str, Any]
CALLBACKS = ("hooks.invalid",)  # whom a contract test may name: nobody is there, so nothing leaves this machine


@dataclass(frozen=True)
class Case:
    """One request. raw: a body as bytes; otherwise `body` as JSON. stalls: a body that begins and never ends."""

    path: str
    body: Any = None
    raw: bytes | None = None
    token: str | None = "admin"
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    stalls: bool = False

    def but(self, **changes: Any) -> Case:
        return replace(self, **changes)


@dataclass(frozen=True)
class Told:
    status: int
    content_type: str
    body: Any
    headers: dict[str, str]

    @property
    def code(self) -> str | None:
        return self.body.get("code") if self.status >= 400 else None


class Judge:
    def __init__(self, openapi: Json, asyncapi: Json) -> None:
        self.openapi, self.asyncapi = openapi, asyncapi

    @classmethod
    async def of(cls, house: House) -> Judge:
        get = lambda path: house.call("GET", path, token=None)  # noqa: E731
        return cls(await get("/openapi.json"), await get("/asyncapi.json"))

    def operation(self, route: Route) -> Json:
        found: Json = self.openapi["paths"][route.path][route.method.lower()]
        return found

    async def ask(self, house: House, route: Route, case: Case) -> Told:
        """Asks, and judges the answer."""
        told = await ask(house, route.method, case)
        self.judge(route, told)
        return told

    def judge(self, route: Route, told: Told) -> None:
        what = f"{route.method} {route.path} → {told.status} {told.body!r}"[:600]
        response = self.operation(route)["responses"].get(str(told.status))
        assert response is not None, f"undeclared status: {what}"
        content = response.get("content")
        if not content:
            assert told.body is None, f"a body where none is declared: {what}"
            return
        assert told.content_type in content, f"undeclared content type {told.content_type}: {what}"
        if told.content_type.endswith("json"):
            wrong = invalid(self.openapi, content[told.content_type]["schema"], told.body)
            assert not wrong, f"{what}: {wrong}"
        model = route.answers.get(told.status)
        if isinstance(
            model, type
        ):  # published shapes are open, because they grow; the models know every field of today
            model.model_validate(told.body)
        for name in response.get("headers", {}):
            assert name in told.headers, f"no {name}: {what}"

    def frame(self, channel: str, frame: Json, action: str = "send") -> str:
        """The name of the message that this frame is. AssertionError if it is none, or not a valid one."""
        operation = self.asyncapi["operations"][f"{channel}_{action}"]
        messages = {link["$ref"].rsplit("/", 1)[-1] for link in operation["messages"]}
        called = f"{frame['type']} {frame['kind']}" if "kind" in frame else frame["type"]
        found = [m for m in messages if self.asyncapi["components"]["messages"][m]["name"] == called]
        assert len(found) == 1, f"{channel} does not {action} {called!r}"
        wrong = invalid(self.asyncapi, self.asyncapi["components"]["messages"][found[0]]["payload"], frame)
        assert not wrong, f"{called}: {wrong}"
        return found[0]


def invalid(document: Json, schema: Json, value: Any) -> list[str]:
    validator = Draft202012Validator({**schema, "components": document["components"]})
    return [f"{e.json_path}: {e.message[:200]}" for e in validator.iter_errors(value)]


async def _never_ending() -> AsyncIterator[bytes]:
    yield b"{"
    await asyncio.sleep(60)


async def ask(house: House, method: str, case: Case) -> Told:
    headers = dict(case.headers)
    if case.token is not None:
        headers["Authorization"] = f"Bearer {TOKENS.get(case.token, case.token)}"
    body = case.raw if case.raw is not None else None if case.body is None else json.dumps(case.body).encode()
    if body is not None:
        headers.setdefault("Content-Type", "application/json")
    url = house.url + case.path
    data: Any = _never_ending() if case.stalls else None if body is None else io.BytesIO(body)
    async with house.client.request(method, url, data=data, params=case.query, headers=headers) as response:
        kind = response.content_type if "Content-Type" in response.headers else ""
        if kind == "text/event-stream":
            said: Any = await response.content.readline()
        elif kind.endswith("json"):
            said = json.loads(await response.read())
        else:
            said = (await response.read()).decode() or None
        return Told(response.status, kind, said, dict(response.headers))
