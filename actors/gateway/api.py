"""The HTTP handlers of PROTOCOL §1 for sessions (routes.py has the table of routes): check the request, ask through
the mailbox, show the answer.

Every change is a transition whose effect and whose Idempotency-Key row are one transaction; what goes out is what was
rendered inside it. Reads are short. Who may not see a session is told that there is none.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from actors.gateway.auth import MAY_OPERATE, MAY_READ, Authority, Caller
from actors.gateway.door import Door
from actors.gateway.problems import answer
from actors.gateway.query import Query
from actors.gateway.room import Room, id_of
from actors.gateway.targets import Targets
from actors.law import requests
from actors.protocol import ids, resources
from actors.protocol.defaults import REQUEST_TIMEOUT_S
from actors.protocol.errors import HoldfastError
from actors.store.contract import SessionFilter


class Api(Room):
    def __init__(self, door: Door, authority: Authority, *, body_timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        super().__init__(door, authority, body_timeout_s=body_timeout_s)
        self._targets = Targets(door.settings.webhook_allow)

    # ------------------------------------------------------------ sessions

    async def create_session(self, request: web.Request) -> web.Response:
        caller = (await self.authority.caller(request)).need(MAY_OPERATE)
        raw, body = await self.body(request, resources.CreateSession)
        return await self.perform(
            request,
            caller,
            raw,
            requests.CreateSession(
                session_id=body.session_id or ids.new_id("session"),
                seed=ids.ulid(),
                title=body.title,
                labels=body.labels,
                limits=_limits(body.limits),
                callback=self._callback(body.callback),
                by=caller.name,
            ),
            wake=False,  # nothing to decide yet; its first execution wakes the actor
        )

    async def list_sessions(self, request: web.Request) -> web.Response:
        caller = await self.authority.caller(request)
        query = Query(request)
        wanted = SessionFilter(
            state=query.state(),
            link=query.one_of("link", ("connected", "grace", "offline")),
            labels=query.labels(),
            q=query.text("q"),
            limit=query.limit(),
            cursor=query.text("cursor", 500),
        )
        caller.need(MAY_READ)
        page = await self.door.worker.read(lambda store: store.sessions(wanted))
        return answer({"items": page.items, "next_cursor": page.next_cursor})

    async def show_session(self, request: web.Request) -> web.Response:
        sid = await self._reader(request)
        return answer(await self.door.worker.read(lambda store: store.session(sid)))

    async def delete_session(self, request: web.Request) -> web.Response:
        caller, sid = await self._operator(request)
        made = await self.perform(
            request, caller, b"", requests.DeleteSession(session_id=sid, seed=ids.ulid(), by=caller.name)
        )
        self.door.hub.gone(sid)
        return made

    # ------------------------------------------------------------ executions

    async def submit(self, request: web.Request) -> web.Response:
        caller, sid = await self._operator(request)
        raw, body = await self.body(request, resources.SubmitExecution)
        return await self.perform(
            request,
            caller,
            raw,
            requests.Submit(
                session_id=sid,
                seed=ids.ulid(),
                execution_id=body.execution_id or ids.new_id("execution"),
                input=body.input,
                limits=_limits(body.limits),
                callback=self._callback(body.callback),
                by=caller.name,
            ),
        )

    async def list_executions(self, request: web.Request) -> web.Response:
        sid = await self._reader(request)
        query = Query(request)
        limit, cursor = query.limit(), query.text("cursor", 500)
        page = await self.door.worker.read(lambda store: store.executions(sid, limit, cursor))
        return answer({"items": page.items, "next_cursor": page.next_cursor})

    async def show_execution(self, request: web.Request) -> web.Response:
        sid = await self._reader(request)
        eid = id_of(request, "eid")
        return answer(await self.door.worker.read(lambda store: store.execution(sid, eid)))

    async def fail(self, request: web.Request) -> web.Response:
        caller, sid = await self._operator(request)
        raw, body = await self.body(request, resources.FailRequest)
        asked = requests.Fail(
            session_id=sid,
            seed=ids.ulid(),
            execution_id=id_of(request, "eid"),
            cause=body.cause,
            error=body.error,
            by=caller.name,
        )
        return await self.perform(request, caller, raw, asked)

    async def send_input(self, request: web.Request) -> web.Response:
        caller, sid = await self._operator(request)
        raw, body = await self.body(request, resources.InputRequest)
        asked = requests.SendInput(
            session_id=sid, seed=ids.ulid(), execution_id=id_of(request, "eid"), input=body.input, by=caller.name
        )
        return await self.perform(request, caller, raw, asked)

    async def interrupt(self, request: web.Request) -> web.Response:
        caller, sid = await self._operator(request)
        raw, body = await self.body(request, resources.InterruptRequest)
        asked = requests.Interrupt(
            session_id=sid,
            seed=ids.ulid(),
            execution_id=body.execution_id,
            reason=body.reason,
            force=body.force,
            by=caller.name,
        )
        return await self.perform(request, caller, raw, asked)

    # ------------------------------------------------------------ events and approvals

    async def events(self, request: web.Request) -> web.Response:
        sid = await self._reader(request)
        query = Query(request)
        after, before = query.integer("after_seq"), query.integer("before_seq")
        if after is not None and before is not None and before <= after + 1:
            raise HoldfastError("bad_request", f"nothing stands between after_seq={after} and before_seq={before}")
        limit, types, execution_id = query.page_limit(), query.types(), query.id("execution_id")

        def read(store: Any) -> Any:
            store.session(sid)  # a deleted session has no events, though its rows may stand for a while
            return store.page(sid, after or 0, limit, before_seq=before, types=types, execution_id=execution_id)

        page = await self.door.worker.read(read)
        text = '{{"items":[{}],"next_after_seq":{},"first_seq":{},"last_seq":{}}}'.format(
            ",".join(page.fragments),
            (page.seqs[-1] if page.seqs else after or 0) if before is not None else max(page.scanned_to, after or 0),
            page.first_seq,
            page.last_seq,
        )
        return web.Response(body=text.encode(), content_type="application/json")

    async def list_approvals(self, request: web.Request) -> web.Response:
        sid = await self._reader(request)
        items = await self.door.worker.read(lambda store: store.approvals(sid))
        return answer({"items": items, "next_cursor": None})

    async def resolve_approval(self, request: web.Request) -> web.Response:
        caller, sid = await self._operator(request)
        raw, body = await self.body(request, resources.ResolveApproval)
        asked = requests.ResolveApproval(
            session_id=sid,
            seed=ids.ulid(),
            approval_id=id_of(request, "aid"),
            decision=body.decision,
            note=body.note,
            by=caller.name,
        )
        return await self.perform(request, caller, raw, asked)

    async def ticket(self, request: web.Request) -> web.Response:
        caller = await self.authority.caller(request)
        _, body = await self.body(request, resources.TicketRequest)
        allowed = MAY_OPERATE if body.scope == "operator" else MAY_READ
        caller.need(allowed, body.session_id or caller.token.session_id)
        secret, until_ms = self.authority.issue(caller, body.scope, body.session_id)
        return answer({"ticket": secret, "expires_at_ms": until_ms}, 201, {"Cache-Control": "no-store"})

    # ------------------------------------------------------------ shared

    async def _operator(self, request: web.Request) -> tuple[Caller, str]:
        caller = await self.authority.caller(request)
        sid = id_of(request, "sid")
        return caller.need(MAY_OPERATE, sid), sid

    async def _reader(self, request: web.Request) -> str:
        caller = await self.authority.caller(request)
        sid = id_of(request, "sid")
        caller.need(MAY_READ, sid)
        return sid

    def _callback(self, callback: resources.Callback | None) -> dict[str, Any] | None:
        """Raises webhook_not_allowed."""
        if callback is None:
            return None
        self._targets.check(callback.url, callback.headers)
        return callback.model_dump()


def _limits(limits: resources.Limits | None) -> dict[str, float | None]:
    """Null turns a limit off, absent inherits: so only what was said."""
    return limits.model_dump(exclude_unset=True) if limits is not None else {}
