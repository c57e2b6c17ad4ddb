"""A node's door: who may hold a role of it. The socket itself is sockets.py, its frames are node_connection.py."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from actors.gateway.auth import MAY_CONNECT
from actors.gateway.entrance import check_entry
from actors.gateway.node_connection import NodeConnection
from actors.gateway.node_decode import Said, decode
from actors.gateway.sockets import PeerSockets
from actors.gateway.wire import Wire
from actors.protocol import ids, node_frames
from actors.protocol.errors import HoldfastError
from actors.protocol.node_codes import ROLES

DEFAULT_ROLE: Final = "node"


class NodeSockets(PeerSockets):
    async def admit(self, request: web.Request, wire: Wire) -> NodeConnection:
        nid = request.match_info["nid"]
        check_entry(request, self.door.limits)
        caller = await self.authority.caller(request)
        caller.need(MAY_CONNECT)
        if not ids.valid_id(nid):
            raise HoldfastError("node_not_found")
        caller.need_node(MAY_CONNECT, nid)
        role = request.query.get("role", DEFAULT_ROLE)
        if role not in ROLES:
            raise HoldfastError("unknown_role")
        self.door.room(caller.token_hash, request.remote)
        # Whoever minted a token of this very node, and every admin, has vouched for it: its first connect makes it.
        return NodeConnection(self.door, wire, nid, role, caller.token_hash, may_create=True)

    def decode(self, raw: bytes) -> Any:
        return decode(raw)

    def is_hello(self, item: Any) -> bool:
        return isinstance(item, Said) and isinstance(item.frame, node_frames.NodeHello)
