"""/openapi.json from the table of routes: every method, parameter, body, answer, problem code and security."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

from actors.gateway.documents import schemas
from actors.gateway.route import Answer, Text
from actors.gateway.routes import PATH_PARAMS, ROUTES, TAGS, TICKET, Param, Route
from actors.protocol import resources
from actors.protocol.codes import ERRORS, PROTOCOL_VERSION

INTRO: Final = (
    "The HTTP side of Holdfast, a durable-actor service for sessions. Times are integer Unix milliseconds (`_ms`), "
    "durations seconds (`_s`). Unknown fields are ignored; answers may grow fields. Errors are problem documents "
    "(RFC 9457) with a stable `code` and a `hint`. Sockets are described in /asyncapi.json."
)
SECURITY: Final[dict[str, Any]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "an opaque token of a scope; `x-scopes` of an operation says which may",
    },
    "ticket": {
        "type": "apiKey",
        "in": "query",
        "name": "ticket",
        "description": "for browsers, which cannot set a header on a socket; from POST /v1/tickets",
    },
}
STATUS: Final[dict[int, str]] = {101: "Switching protocols", 200: "OK", 201: "Made", 202: "Taken", 204: "Done"}


def openapi() -> dict[str, Any]:
    bodies = {r.body for r in ROUTES if r.body is not None}
    answers = {a for r in ROUTES for a in r.answers.values() if isinstance(a, type)} | {resources.Problem}
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Holdfast",
            "version": str(PROTOCOL_VERSION),
            "description": INTRO,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "this service"}],
        "tags": [{"name": name, "description": says} for name, says in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": schemas.components(_sorted(bodies), _sorted(answers)),
            "securitySchemes": SECURITY,
        },
        "x-error-codes": {
            code: {"status": row.status, "title": row.title, "retryable": row.retryable, "hint": row.hint}
            for code, row in ERRORS.items()
        },
    }


def _sorted(models: set[type[BaseModel]]) -> list[type[BaseModel]]:
    return sorted(models, key=lambda model: model.__name__)


def _operation(route: Route) -> dict[str, Any]:
    made: dict[str, Any] = {"operationId": route.operation_id, "tags": [route.tag], "summary": route.does}
    if route.more:
        made["description"] = route.more
    params = [_param(PATH_PARAMS[name], path=True) for name in route.path_params]
    # the ticket is a way to say who is asking: it stands under `security`
    params += [_param(param) for param in route.params if param is not TICKET]
    if params:
        made["parameters"] = params
    if route.body is not None:
        made["requestBody"] = {
            "required": any(info.is_required() for info in route.body.model_fields.values()),
            "content": {"application/json": {"schema": schemas.ref(route.body)}},
        }
    made["responses"] = _responses(route)
    if route.scopes is not None:
        made["security"] = [{"bearer": []}] + ([{"ticket": []}] if TICKET in route.params else [])
        made["x-scopes"] = sorted(route.scopes)
    else:
        made["security"] = []
    if route.socket is not None:
        made["x-channel"] = f"/asyncapi.json#/channels/{route.socket}"
    return made


def _param(param: Param, *, path: bool = False) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": param.name,
        "in": "path" if path else param.where,
        "required": path,
        "description": param.says,
        "schema": param.schema,
    }
    if param.many:
        made |= {"style": "form", "explode": param.many == "repeated"}
    return made


def _responses(route: Route) -> dict[str, Any]:
    made = {str(status): _answer(status, answer) for status, answer in sorted(route.answers.items())}
    by_status: dict[int, list[str]] = {}
    for code in sorted(route.problems()):
        by_status.setdefault(ERRORS[code].status, []).append(code)
    for status, codes in sorted(by_status.items()):
        made[str(status)] = _problem(status, codes)
    return made


def _answer(status: int, answer: Answer) -> dict[str, Any]:
    if answer is None:
        return {"description": STATUS[status]}
    if isinstance(answer, Text):
        schema: dict[str, Any] = {"type": "object"} if answer.content_type == "application/json" else {"type": "string"}
        return {"description": answer.says, "content": {answer.content_type: {"schema": schema}}}
    said = " ".join((answer.__doc__ or "").split()) if answer.__doc__ else ""
    return {
        "description": said or STATUS[status],
        "content": {"application/json": {"schema": schemas.ref(answer)}},
    }


def _problem(status: int, codes: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "description": "; ".join(f"`{code}`: {ERRORS[code].title}" for code in codes),
        "content": {"application/problem+json": {"schema": schemas.problem(codes)}},
    }
    if status in (429, 503):
        made["headers"] = {"Retry-After": {"description": "seconds to wait", "schema": {"type": "integer"}}}
    if status == 401:
        made["headers"] = {"WWW-Authenticate": {"schema": {"const": "Bearer"}}}
    return made
