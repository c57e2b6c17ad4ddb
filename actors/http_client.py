"""A client of the HTTP API for the command line: small, patient with a gateway that restarts, clear when it gives up.

A request that may be repeated is repeated over lost connections and 503 (every POST carries an Idempotency-Key, so that
a repeat has one effect); a refusal is never repeated. Errors become `Problem`: what happened, what to do next, and the
exit code of PROTOCOL §6.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Self

import aiohttp

from actors.addresses import token_path
from actors.protocol.codes import (
    CLOSE,
    CLOSE_CODES,
    EXIT_CONFLICT,
    EXIT_FAILURE,
    EXIT_NOT_FOUND,
    EXIT_UNAVAILABLE,
    EXIT_USAGE,
    SUBPROTOCOL,
    may_reconnect,
)
from actors.protocol.defaults import BACKOFF_RESET_S, BACKOFF_S, MAX_FRAME_BYTES
from actors.protocol.ids import ulid

REQUEST_S = 15.0
PATIENCE_S = (
    4.0  # a killed gateway is back in 0.5 s, Ray's head in 3 s; a person does not wait longer for "nobody there"
)
PING_S = 10.0
FIRST_S = 10.0  # to follow a stream at all; one that was there once is waited for without end
SAY_EVERY_S = 10.0  # of a connection that stays away
FRAME_MAX_BYTES = 4 * MAX_FRAME_BYTES  # a page of events: at most 1 MiB of rows, and their envelopes

_EXIT_OF_STATUS = {
    **dict.fromkeys((400, 405, 413, 415, 422), EXIT_USAGE),
    **dict.fromkeys((404, 410), EXIT_NOT_FOUND),
    409: EXIT_CONFLICT,
    **dict.fromkeys((429, 502, 503, 504), EXIT_UNAVAILABLE),
}
STATUS_OF_CLOSE = {
    CLOSE["protocol_error"]: 400,
    CLOSE["not_found"]: 404,
    CLOSE["session_closed"]: 410,
    CLOSE["not_authenticated"]: 401,
}
# Well said, but not with what there is: another day, or with other numbers.
_CONFLICTS = frozenset(
    {
        "idempotency_mismatch",
        "queue_full",
        "quota_exceeded",
        "target_below_assigned",
        "below_begun",
        "too_few_pending",
    }
)
_WORDS = frozenset({"type", "title", "status", "detail", "instance", "code", "hint"})


class Problem(Exception):
    """What the server refused, or that there is none. `body` is the problem+json, or one of our own making.

    unknown: the request reached somebody, and what became of it was never heard.
    """

    unknown = False

    def __init__(self, body: Mapping[str, Any]) -> None:
        self.body = dict(body)
        self.status = int(body.get("status", 0))
        self.code = str(body.get("code", "unknown"))
        self.detail = str(body.get("detail") or body.get("title") or f"HTTP {self.status}")
        self.hint = str(body.get("hint", ""))
        super().__init__(f"{self.code}: {self.detail}")

    def numbers(self) -> str:
        """What a refusal says beyond words: `requested 12, remaining_assignable 3`."""
        told = ((k, v) for k, v in self.body.items() if k not in _WORDS and isinstance(v, str | int | float))
        return ", ".join(f"{name} {v if isinstance(v, str) else json.dumps(v)}" for name, v in told)

    @property
    def exit_code(self) -> int:
        if self.code in _CONFLICTS:
            return EXIT_CONFLICT
        return EXIT_UNAVAILABLE if self.status == 0 else _EXIT_OF_STATUS.get(self.status, EXIT_FAILURE)


def unreachable(url: str, error: object) -> Problem:
    return Problem(
        {
            "status": 0,
            "code": "unreachable",
            "detail": f"nobody answers at {url} ({error})",
            "hint": "Start it with `holdfast up`, or say where it is: --url or HOLDFAST_URL.",
        }
    )


def find_token(token: str | None, token_file: str | None, data_dir: str | None, url: str | None = None) -> str:
    """Given, or from the file, or the admin token of the data directory. Raises Problem: with neither a token nor a
    URL nor an `up` that ever was, there is nothing to ask."""
    if token:
        return _usable(token, "HOLDFAST_TOKEN")
    path = token_path(token_file, data_dir)
    try:
        return _usable(path.read_text(errors="replace"), str(path))
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not token_file and not url:
            raise Problem(
                {
                    "status": 0,
                    "code": "unreachable",
                    "detail": "nothing is running: start it with `holdfast up`",
                    "hint": f"There is no {path}. If it runs elsewhere: --data-dir, or --url and --token-file.",
                }
            ) from error
        raise Problem(
            {
                "status": 401,
                "code": "no_token",
                "detail": f"no token: {path} cannot be read ({error.strerror})",
                "hint": "Give --token-file or HOLDFAST_TOKEN; `holdfast up` prints where its token is.",
            }
        ) from error


def _usable(text: str, source: str) -> str:
    """It goes into a header, which takes one line of plain text."""
    token = text.strip()
    if token and token.isascii() and token.isprintable():
        return token
    raise Problem(
        {
            "status": 401,
            "code": "no_token",
            "detail": f"{source} holds no token: " + ("not one line of plain text" if token else "it is empty"),
            "hint": "Give --token-file or HOLDFAST_TOKEN; `holdfast up` prints where its token is.",
        }
    )


class Client:
    def __init__(self, url: str, token: str, *, patience_s: float = PATIENCE_S) -> None:
        self.url, self.token, self._patience_s = url.rstrip("/"), token, patience_s
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=aiohttp.ClientTimeout(total=REQUEST_S, connect=5.0),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http is not None:
            await self._http.close()

    # ---------------------------------------------------------------- requests

    async def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        return await self._request("GET", path, params=params)

    async def get_text(self, path: str) -> str:
        """As it came: of what counts byte for byte."""
        return await self._asked("GET", path)

    async def post(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        within_s: float = REQUEST_S,
        back_within_s: float | None = None,
    ) -> Any:
        """key: the Idempotency-Key, if the caller has one to come back with. within_s: for what is answered late.
        back_within_s: how long a service that died under the request is waited for.  [default: our patience]"""
        return await self._request(
            "POST", path, body=body or {}, key=key, within_s=within_s, back_within_s=back_within_s
        )

    async def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return await self._request("PATCH", path, body=body)

    async def delete(self, path: str) -> Any:
        return await self._request("DELETE", path)

    async def listed(self, path: str, params: Mapping[str, Any], limit: int | None) -> list[dict[str, Any]]:
        """Items over as many pages as it takes; limit None: all."""
        items: list[dict[str, Any]] = []
        cursor: str | None = None
        while limit is None or len(items) < limit:
            asked = {**params, "limit": min(100, limit - len(items)) if limit is not None else 100}
            page = await self.get(path, asked | ({"cursor": cursor} if cursor else {}))
            items += page["items"]
            cursor = page["next_cursor"]
            if not cursor:
                break
        return items

    async def _request(self, method: str, path: str, **how: Any) -> Any:
        text = await self._asked(method, path, **how)
        return json.loads(text) if text else None

    async def _asked(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        key: str | None = None,
        within_s: float = REQUEST_S,
        back_within_s: float | None = None,
    ) -> str:
        """The answer's body. Raises Problem."""
        assert self._http is not None, "use `async with`"
        loop = asyncio.get_running_loop()
        began = loop.time()
        give_up = began + self._patience_s
        back_within_s = self._patience_s if back_within_s is None else back_within_s
        headers = {"Idempotency-Key": key or ulid()} if method == "POST" else {}
        timeout = aiohttp.ClientTimeout(total=within_s, connect=5.0)
        asked = [
            (name, str(one))
            for name, value in (params or {}).items()
            for one in (value if isinstance(value, list | tuple) else [value])
            if one is not None
        ]
        pause = 0.1
        unknown = False
        while True:
            try:
                async with self._http.request(
                    method, self.url + path, params=asked, json=body, headers=headers, timeout=timeout
                ) as answer:
                    text = await answer.text()
                    if answer.status < 400:
                        return text
                    problem = Problem(_for_people({"status": answer.status, **_object(text)}))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                problem = unreachable(self.url, _words(error))
                unknown = unknown or not isinstance(error, _NEVER_SENT)
                if _was_there(error):  # it died under us, perhaps long after we asked: patience begins now
                    give_up = max(give_up, min(loop.time(), began + within_s) + back_within_s)
            if problem.status not in (0, 503) or loop.time() + pause > give_up:
                problem.unknown = unknown and problem.status in (0, 503)  # any other answer is about this very request
                raise problem
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)

    # ---------------------------------------------------------------- the stream

    async def follow(
        self,
        session_id: str,
        *,
        after_seq: int | None = None,
        types: str | None = None,
        execution_id: str | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Frames of the stream for ever, over reconnects, without gap or repeat: the cursor is ours. ``say`` hears
        when the connection goes and comes.

        Ends when the session is closed. Raises Problem when coming back makes no sense, or it never was there.
        """
        assert self._http is not None, "use `async with`"
        loop = asyncio.get_running_loop()
        stream_id: str | None = None
        losses, seen_any, first = 0, False, loop.time()
        line = _Line(self.url, say)
        while True:
            query = {"after_seq": after_seq, "types": types, "execution_id": execution_id, "stream_id": stream_id}
            began, code, why = loop.time(), None, "closed"
            try:
                async with self._http.ws_connect(
                    f"{self.url}/v1/sessions/{session_id}/stream",
                    params={name: str(value) for name, value in query.items() if value is not None},
                    protocols=(SUBPROTOCOL,),
                    heartbeat=PING_S,
                    max_msg_size=FRAME_MAX_BYTES,
                ) as socket:
                    line.found()
                    async for message in socket:
                        if message.type is not aiohttp.WSMsgType.TEXT:
                            break
                        seen_any, frame = True, json.loads(message.data)
                        if frame["type"] == "snapshot":
                            stream_id = frame["session"]["stream_id"]
                            if after_seq is None:
                                after_seq = frame["session"]["last_seq"]
                        elif frame["type"] == "events" and frame["events"]:
                            after_seq = frame["events"][-1]["seq"]
                        elif frame["type"] == "caught_up":
                            after_seq = max(after_seq or 0, frame["seq"])
                        elif frame["type"] == "reset":
                            after_seq, stream_id = frame["first_seq"] - 1, frame["stream_id"]
                        yield frame
                    code = socket.close_code
            except aiohttp.WSServerHandshakeError as error:
                if error.status not in (429, 500, 502, 503, 504):
                    raise await self._why(session_id, error.status, f"HTTP {error.status}") from error
                why = f"HTTP {error.status}"
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                why = _words(error)
            if code == CLOSE["session_closed"] and seen_any:
                return
            if code is not None and not may_reconnect(code):
                name = CLOSE_CODES[code].name if code in CLOSE_CODES else "?"
                raise await self._why(session_id, STATUS_OF_CLOSE.get(code, 403), f"{code} {name}")
            losses = 0 if loop.time() - began > BACKOFF_RESET_S else losses + 1
            pause = BACKOFF_S[min(losses, len(BACKOFF_S)) - 1] * random.uniform(0.3, 1.0) if losses else 0.0
            if not seen_any:
                left = first + FIRST_S - loop.time()
                if left <= 0:
                    raise unreachable(self.url, why)
                pause = min(pause, left)
            line.lost(why if code is None else f"{why} with {code}", loop.time())
            await asyncio.sleep(pause)

    async def _why(self, session_id: str, status: int, refused_with: str) -> Problem:
        """A refused upgrade hides its body, a close its words: the plain request says why."""
        try:
            await self.get(f"/v1/sessions/{session_id}")
        except Problem as problem:
            return problem
        return Problem({"status": status, "code": "refused", "detail": f"the stream was refused with {refused_with}"})


_NEVER_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)


def _was_there(error: BaseException) -> bool:
    """Somebody took the connection and then went, which a service that restarts does."""
    lost = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientPayloadError)
    return isinstance(error, lost) and not isinstance(error, aiohttp.ClientConnectorError)


class _Line:
    """Says what becomes of a connection: once when it goes, at a bounded rate while it stays away, once when it is
    back."""

    def __init__(self, url: str, say: Callable[[str], None]) -> None:
        self.url, self.say = url, say
        self.was_there = self.down = False
        self.said_at = 0.0

    def lost(self, why: str, now: float) -> None:
        if self.down and now - self.said_at < SAY_EVERY_S:
            return
        what = "lost the connection to" if self.was_there and not self.down else "cannot reach"
        self.say(f"holdfast: {what} {self.url} ({why}); trying again")
        self.down, self.said_at = True, now

    def found(self) -> None:
        if self.down:
            self.say(f"holdfast: connected to {self.url}{' again' if self.was_there else ''}")
        self.was_there, self.down = True, False


def _words(error: Exception) -> str:
    """aiohttp's own words for a refused connection name the address twice, and its TLS settings."""
    below = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else None
    if below is None or below.errno is None:  # several addresses: it tells of each
        return str(below or error) or type(error).__name__
    return os.strerror(below.errno) if below.errno > 0 else below.strerror or str(below)


def _for_people(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The service's own words are for those who write headers; who types commands has a file."""
    if body.get("code") != "unauthenticated":
        return body
    hint = "Give the service's token: --token-file, HOLDFAST_TOKEN_FILE or HOLDFAST_TOKEN; `up` prints where it is."
    return {**body, "detail": "the service does not know this token", "hint": hint}


def _object(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except ValueError:
        return {"detail": text[:200]}
    return body if isinstance(body, dict) else {}
