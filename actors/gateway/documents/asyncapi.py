"""/asyncapi.json: every socket with its frames in both directions, its close codes, and every event's payload."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, get_args

from pydantic import BaseModel

from actors.gateway.documents import schemas
from actors.gateway.documents.openapi import SECURITY
from actors.gateway.routes import PATH_PARAMS, ROUTES, TICKET, Route
from actors.protocol import frames, node_frames
from actors.protocol.codes import CAUSES, CLOSE, CLOSE_CODES, EVENT_TYPES, PROTOCOL_VERSION, SUBPROTOCOL
from actors.protocol.node_codes import NODE_EVENT_TYPES
from actors.protocol.node_payloads import NODE_PAYLOADS
from actors.protocol.payloads import PAYLOADS
from actors.protocol.words import CLOSE_WHEN, COMMANDS, RECONNECT

Model = type[BaseModel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Socket:
    """says: frames that we send. hears: frames that we take. closes: the names of the codes that it may end with."""

    title: str
    text: str
    says: tuple[Model, ...]
    hears: tuple[Model, ...] = ()
    closes: tuple[str, ...]


def _members(union: Any) -> tuple[Model, ...]:
    """The models of a union, through Annotated and inner unions, in their order."""
    if isinstance(union, type):
        return (union,)
    inner = get_args(union)
    if hasattr(union, "__metadata__"):
        inner = (union.__origin__,)
    return tuple(model for one in inner for model in _members(one))


SOCKETS: Final[dict[str, Socket]] = {
    "ingest": Socket(
        title="The wrapper's socket",
        text=f"Subprotocol `{SUBPROTOCOL}`; one JSON object per text frame. The first frame is `hello`, within 10 s.",
        hears=_members(frames.FromWrapper),
        says=_members(frames.ToWrapper),
        closes=tuple(row.name for row in CLOSE_CODES.values() if row.name != "slow_consumer"),
    ),
    "stream": Socket(
        title="A session's stream",
        text="`snapshot` first, then `events`; `caught_up` once. What a watcher says is not listened to. As SSE the "
        "same: `event:` is the type, `id:` the `seq` of a stored event and of nothing else.",
        says=_members(frames.StreamFrame),
        closes=(
            "normal",
            "frame_too_big",
            "service_restart",
            "try_again_later",
            "session_closed",
            "protocol_error",
            "not_found",
            "slow_consumer",
            "not_authenticated",
            "not_allowed",
            "rate_limited",
        ),
    ),
    "node": Socket(
        title="A node's socket",
        text=f"Subprotocol `{SUBPROTOCOL}`; one JSON object per text frame, one socket per role. The first frame is "
        "`hello`, within 10 s.",
        hears=_members(node_frames.FromNode),
        says=_members(node_frames.ToNode),
        closes=tuple(row.name for row in CLOSE_CODES.values() if row.name not in ("slow_consumer", "session_closed")),
    ),
    "fleet": Socket(
        title="The fleet",
        text="The newest page of sessions first, then what changed, at most four times a second.",
        says=(frames.FleetSessions,),
        closes=(
            "normal",
            "frame_too_big",
            "service_restart",
            "try_again_later",
            "slow_consumer",
            "not_authenticated",
            "not_allowed",
            "rate_limited",
        ),
    ),
}


def asyncapi() -> dict[str, Any]:
    said = {model for socket in SOCKETS.values() for model in socket.says} | set(PAYLOADS.values())
    said |= set(NODE_PAYLOADS.values())
    heard = {model for socket in SOCKETS.values() for model in socket.hears}
    by_name = lambda model: model.__name__  # noqa: E731
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Holdfast sockets",
            "version": str(PROTOCOL_VERSION),
            "description": "The frames of Holdfast's WebSockets. Unknown fields are ignored; an unknown frame type "
            "gets `error` with the code `unknown_frame`, and the socket stays. HTTP is described in /openapi.json.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"here": {"host": "localhost:8420", "protocol": "ws", "description": "this service"}},
        "channels": {name: _channel(name, socket) for name, socket in SOCKETS.items()},
        "operations": _operations(),
        "components": {
            "messages": {message_name(m): _message(m) for m in sorted(said | heard, key=by_name) if _is_frame(m)},
            "schemas": schemas.components(sorted(heard, key=by_name), sorted(said, key=by_name)),
            "securitySchemes": {
                "bearer": SECURITY["bearer"],
                "ticket": {"type": "httpApiKey", **{k: v for k, v in SECURITY["ticket"].items() if k != "type"}},
            },
        },
        "x-close-codes": [
            {"code": row.code, "name": row.name, "when": CLOSE_WHEN[row.code], "reconnect": RECONNECT[row.reconnect]}
            for row in CLOSE_CODES.values()
        ],
        "x-event-types": {
            kind: {"when": when, "data": schemas.ref(PAYLOADS[kind])} for kind, when in EVENT_TYPES.items()
        },
        "x-node-event-types": {
            kind: {"when": when, "data": schemas.ref(NODE_PAYLOADS[kind])} for kind, when in NODE_EVENT_TYPES.items()
        },
        "x-causes": dict(CAUSES),
    }


def route_of(socket: str) -> Route:
    (found,) = (route for route in ROUTES if route.socket == socket)
    return found


def _is_frame(model: Model) -> bool:
    return issubclass(model, frames.Frame)


def frame_name(model: Model) -> str:
    """What the frame calls itself: its `type`, and a command's kind."""
    fields = model.model_fields
    (name,) = get_args(fields["type"].annotation)
    return f"{name} {get_args(fields['kind'].annotation)[0]}" if "kind" in fields else str(name)


def message_name(model: Model) -> str:
    return model.__name__


def _message(model: Model) -> dict[str, Any]:
    name = frame_name(model)
    made = {"name": name, "title": name, "contentType": "application/json", "payload": schemas.ref(model)}
    if "kind" in model.model_fields:
        made["summary"] = COMMANDS[name.split()[1]]
    return made


def _channel(name: str, socket: Socket) -> dict[str, Any]:
    route = route_of(name)
    made: dict[str, Any] = {
        "address": route.path,
        "title": socket.title,
        "description": socket.text,
        "messages": {
            message_name(m): {"$ref": f"#/components/messages/{message_name(m)}"} for m in (*socket.hears, *socket.says)
        },
        "x-close-codes": sorted(CLOSE[name] for name in socket.closes),
    }
    if route.path_params:
        made["parameters"] = {p: {"description": PATH_PARAMS[p].says} for p in route.path_params}
    binding: dict[str, Any] = {"method": "GET", "bindingVersion": "0.1.0"}
    if route.params:
        listed = {p.name: p.schema | {"description": p.says} for p in route.params if p.where == "query"}
        binding["query"] = {"type": "object", "properties": listed}
    return made | {"bindings": {"ws": binding}}


def _operations() -> dict[str, Any]:
    """Seen from this service, as AsyncAPI 3 wants it: `receive` is what it takes, `send` what it says."""
    made: dict[str, Any] = {}
    for name, socket in SOCKETS.items():
        security = [{"$ref": "#/components/securitySchemes/bearer"}]
        if TICKET in route_of(name).params:
            security.append({"$ref": "#/components/securitySchemes/ticket"})
        for action, models in (("receive", socket.hears), ("send", socket.says)):
            if models:
                made[f"{name}_{action}"] = {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{name}"},
                    "title": f"{socket.title}: {'from the peer' if action == 'receive' else 'from Holdfast'}",
                    "security": security,
                    "messages": [{"$ref": f"#/channels/{name}/messages/{message_name(m)}"} for m in models],
                }
    return made
