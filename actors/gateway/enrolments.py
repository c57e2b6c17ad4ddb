"""How a machine that has nothing but a one-time code becomes a node: it asks with the code, an operator decides, it
claims its token.

The code and the claim are secrets: they come in bodies, stand in the store as hashes, and are shown once. Neither is
in a URL, in a log, or in an answer that can be asked for again.
"""

from __future__ import annotations

import secrets
from typing import Final, get_args

from aiohttp import web

from actors import telemetry
from actors.gateway.auth import MAY_OPERATE, hash_of, new_secret
from actors.gateway.problems import answer
from actors.gateway.query import Query
from actors.gateway.room import Room, id_of
from actors.protocol import ids
from actors.protocol import node_resources as resources
from actors.protocol.defaults import ENROLMENT_CODE_S
from actors.protocol.node_codes import EnrolmentState
from actors.store.contract import NewEnrolment

NO_STORE: Final = {"Cache-Control": "no-store"}
# Read off a screen and typed at the device: Crockford's letters, without those that look alike.
CODE_LETTERS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
CODE_GROUPS: Final = (5, 5, 5, 5)  # 100 bits: nobody guesses one while it is valid


def new_code() -> str:
    return "-".join("".join(secrets.choice(CODE_LETTERS) for _ in range(n)) for n in CODE_GROUPS)


class EnrolmentApi(Room):
    async def make_code(self, request: web.Request) -> web.Response:
        """No Idempotency-Key: to repeat the answer, the code would have to be kept."""
        caller = (await self.authority.caller(request)).need(MAY_OPERATE)
        _, body = await self.body(request, resources.EnrolmentCodeRequest)
        code, node_id, within_s = new_code(), body.node_id, body.expires_in_s or ENROLMENT_CODE_S
        hashed = hash_of(code)
        until_ms = await self.door.worker.write(
            lambda store: store.make_enrolment_code(hashed, node_id, float(within_s), caller.name)
        )
        telemetry.emit("enrolment.code_made", node_id=node_id, by=caller.name)
        return answer({"code": code, "node_id": node_id, "expires_at_ms": until_ms}, 201, NO_STORE)

    async def enrol(self, request: web.Request) -> web.Response:
        """Anybody with a code; rates per address hold for it as for everything (entrance.py)."""
        _, body = await self.body(request, resources.EnrolmentRequest)
        claim = body.claim or new_secret()
        wanted = NewEnrolment(
            enrolment_id=ids.new_id("enrolment"),
            code_hash=hash_of(body.code.strip()),
            claim_hash=hash_of(claim),
            node_id=body.node_id,
            name=body.name,
            commands=tuple(body.commands),
            capabilities=body.capabilities,
        )
        made = await self.door.worker.write(lambda store: store.enrol(wanted))
        telemetry.emit("enrolment.asked", enrolment_id=made["enrolment_id"], node_id=body.node_id)
        told = {"enrolment_id": made["enrolment_id"], "claim": claim, "state": made["state"]}
        return answer(told, 202, NO_STORE)

    async def list(self, request: web.Request) -> web.Response:
        (await self.authority.caller(request)).need(MAY_OPERATE)
        query = Query(request)
        state = query.one_of("state", get_args(EnrolmentState))
        limit, cursor = query.limit(), query.text("cursor", 500)
        page = await self.door.worker.read(lambda store: store.enrolments(state, limit, cursor))
        return answer({"items": page.items, "next_cursor": page.next_cursor})

    async def decide(self, request: web.Request) -> web.Response:
        caller = (await self.authority.caller(request)).need(MAY_OPERATE)
        eid = id_of(request, "enrolment_id")
        _, body = await self.body(request, resources.EnrolmentDecision)
        allow = None if body.allow is None else tuple(body.allow)
        decided = await self.door.worker.write(
            lambda store: store.decide_enrolment(eid, body.decision == "approve", allow, caller.name)
        )
        telemetry.emit("enrolment.decided", enrolment_id=eid, decision=body.decision, by=caller.name)
        return answer(decided)

    async def claim(self, request: web.Request) -> web.Response:
        """The device asks until somebody has decided. The token is made by the first claim after the approval, and
        shown in its answer alone: whoever loses that answer enrols again."""
        eid = id_of(request, "enrolment_id")
        _, body = await self.body(request, resources.EnrolmentClaim)
        secret, token_id, claim_hash = new_secret(), ids.new_id("token"), hash_of(body.claim)
        secret_hash = hash_of(secret)
        claimed = await self.door.worker.write(
            lambda store: store.claim_enrolment(eid, claim_hash, token_id, secret_hash)
        )
        told = {"state": claimed.state, "node_id": claimed.node_id, "token": secret if claimed.token_made else None}
        if claimed.token_made:
            telemetry.emit("token.created", token_id=token_id, scope="node", by=eid)
        return answer(told, headers=NO_STORE)
