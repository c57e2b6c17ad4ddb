"""Every answer that is not a success is a problem document (RFC 9457), whoever made it: us, aiohttp, or a mistake."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
from aiohttp import web

from actors import telemetry
from actors.protocol.errors import HoldfastError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_OF_STATUS: Final = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
}
RETRY_AFTER_S: Final = 1
CLOSES: Final = frozenset({408, 431})  # what would come next on this connection is not to be trusted


def answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json", headers=headers)


def problem(error: HoldfastError, instance: str | None = None) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status in (429, 503):
        headers["Retry-After"] = str(math.ceil(error.extra.get("retry_after_s", RETRY_AFTER_S)))
    body = orjson.dumps(error.problem(instance))
    made = web.Response(body=body, status=error.status, content_type="application/problem+json", headers=headers)
    if error.status in CLOSES:
        made.force_close()
    return made


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except HoldfastError as error:
        return problem(error, request.path)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        code = _OF_STATUS.get(error.status, "bad_request" if error.status < 500 else "internal")
        made = problem(HoldfastError(code), request.path)
        if "Allow" in error.headers:
            made.headers["Allow"] = error.headers["Allow"]
        return made
    except ConnectionError:
        raise  # the client left; there is nobody to answer
    except Exception as error:
        telemetry.emit("gateway.request_failed", route=request.path, error=repr(error))
        return problem(HoldfastError("internal"), request.path)
