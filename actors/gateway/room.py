"""What every room of handlers does alike: read a body, ask through the mailbox, show what the transaction rendered.

Every change is a transition whose effect and whose Idempotency-Key row are one transaction; what goes out is what was
rendered inside it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import Final, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from actors.gateway.auth import Authority, Caller
from actors.gateway.decode import strict_loads
from actors.gateway.door import Door
from actors.gateway.problems import answer
from actors.gateway.query import KEY_PATTERN
from actors.law.effects import Refuse
from actors.law.requests import Request
from actors.protocol import ids
from actors.protocol.defaults import REQUEST_TIMEOUT_S
from actors.protocol.errors import HoldfastError
from actors.store.contract import IdempotencyKey, ListPage, Outcome

B = TypeVar("B", bound=BaseModel)
_KEY: Final = re.compile(KEY_PATTERN[:-1] + r"\Z")
TEXT_OF_ID: Final = {
    "sid": "session_not_found",
    "eid": "execution_not_found",
    "aid": "approval_not_found",
    "nid": "node_not_found",
    "iid": "invocation_not_found",
    "task_id": "task_not_found",
    "enrolment_id": "enrolment_not_found",
    "oid": "order_not_found",
    "bid": "batch_not_found",
    "station_id": "station_not_found",
    "collector_id": "collector_not_found",
    "sop_id": "group_not_found",
    "subscene_id": "group_not_found",
}


class Room:
    def __init__(self, door: Door, authority: Authority, *, body_timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self.door, self.authority, self.body_timeout_s = door, authority, body_timeout_s

    async def body(self, request: web.Request, model: type[B]) -> tuple[bytes, B]:
        return await read_body(request, model, self.body_timeout_s)

    async def nothing(self, request: web.Request) -> bytes:
        """The body of a route that takes none, for its hash: a repeat with another body is a mistake all the same."""
        return await read_raw(request, self.body_timeout_s)

    async def perform(
        self, request: web.Request, caller: Caller, raw: bytes, asked: Request, *, wake: bool = True
    ) -> web.Response:
        return shown(await self.decided(request, caller, raw, asked, wake=wake))

    async def decided(
        self, request: web.Request, caller: Caller, raw: bytes, asked: Request, *, wake: bool = True
    ) -> Outcome:
        """Raises what was refused."""
        outcome = await self.door.perform(asked, key_of(request, caller, hashlib.sha256(raw).hexdigest()), wake=wake)
        if isinstance(outcome.answer, Refuse):
            raise HoldfastError(outcome.answer.code, outcome.answer.detail, **outcome.answer.extra)
        return outcome


def shown(outcome: Outcome) -> web.Response:
    headers = {"Idempotent-Replayed": "true"} if outcome.replayed else None
    if outcome.body is None:
        return web.Response(status=outcome.status, headers=headers)
    return answer(outcome.body, outcome.status, headers)


def page_of(page: ListPage) -> web.Response:
    return answer({"items": page.items, "next_cursor": page.next_cursor})


def key_of(request: web.Request, caller: Caller, body_hash: str) -> IdempotencyKey | None:
    key = request.headers.get("Idempotency-Key")
    if key is None or request.method != "POST":
        return None
    if not _KEY.match(key):
        raise HoldfastError("bad_request", "Idempotency-Key is 1 to 255 printable ASCII characters")
    return IdempotencyKey(caller.token.token_id, f"{request.method} {request.path}", key, body_hash)


async def read_raw(request: web.Request, within_s: float) -> bytes:
    try:
        async with asyncio.timeout(within_s):
            return await request.read()
    except TimeoutError:
        raise HoldfastError("request_timeout", f"the body was not complete within {within_s:g} s") from None


async def read_body(request: web.Request, model: type[B], within_s: float = REQUEST_TIMEOUT_S) -> tuple[bytes, B]:
    """The body as it was sent (canonical, for its hash) and as checked."""
    raw = await read_raw(request, within_s)
    if raw and request.content_type not in ("application/json", "application/octet-stream"):
        raise HoldfastError("unsupported_media_type", f"not {request.content_type[:80]!r}")
    try:
        value = strict_loads(raw) if raw else {}
    except ValueError as error:
        raise HoldfastError("bad_json", str(error)[:300]) from None
    if not isinstance(value, dict):
        raise HoldfastError("bad_json", "the body is a JSON object")
    try:
        checked = model.model_validate(value)
    except ValidationError as error:
        told = [f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors()[:5]]
        about_ids = all(e["loc"] and str(e["loc"][-1]).endswith("_id") for e in error.errors())
        code = "bad_id" if about_ids else "bad_request"
        raise HoldfastError(code, "; ".join(told)) from None
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS), checked


def id_of(request: web.Request, name: str) -> str:
    value = request.match_info[name]
    if not ids.valid_id(value):
        raise HoldfastError(TEXT_OF_ID[name], f"{value[:80]!r} is not an id")
    return value
