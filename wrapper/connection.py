"""One outgoing WebSocket: open it, read and write frames, notice when the peer is dead. No protocol in here.

Every wait has an end: connect 10 s, a write 10 s, a peer from which nothing comes for ping + pong = 10 s. What the
HTTP upgrade answers is translated into the same close codes that a socket would have said, but only when it is our
own service's answer (problem+json): a proxy's 404 is no word of Holdfast, and means "try again".
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from actors.protocol.codes import CLOSE, SUBPROTOCOL
from actors.protocol.defaults import CONNECT_TIMEOUT_S, MAX_FRAME_BYTES, WRAPPER_PING_S, WRAPPER_PONG_S

if TYPE_CHECKING:
    import aiohttp

WRITE_TIMEOUT_S: Final = 10.0  # "the server always reads": one that does not is gone
CLOSE_TIMEOUT_S: Final = 2.0
CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # where OpenSSL looks for them before it looks at its own place
MAX_MESSAGE_BYTES: Final = 4 * MAX_FRAME_BYTES  # a command carries an input of up to one body, escaped
HANDSHAKE: Final = {
    400: CLOSE["protocol_error"],
    401: CLOSE["not_authenticated"],
    403: CLOSE["not_allowed"],
    404: CLOSE["not_found"],
    410: CLOSE["session_closed"],
    429: CLOSE["rate_limited"],
    503: CLOSE["try_again_later"],
}


class Closed(Exception):
    """The connection is over, or never was. ``code`` None: nobody said why."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code, self.reason = code, reason


def ingest_url(base: str, session_id: str) -> str:
    return f"{base.rstrip('/')}/v1/sessions/{session_id}/ingest"


def node_url(base: str, node_id: str, role: str) -> str:
    return f"{base.rstrip('/')}/v1/nodes/{node_id}/connect?role={role}"


def import_aiohttp(base: str) -> None:
    """aiohttp reads the system's certificates when it is imported: 60 to 130 ms, a third of the time to our first word.
    Whoever dials this host over http:// needs none, and says so to OpenSSL; should it be sent on to https:// after all,
    it trusts nobody. To be called before there is another thread, which might look at the environment."""
    if not (is_local(base) and urlsplit(base).scheme == "http") or "aiohttp" in sys.modules:
        return
    kept = {name: os.environ.get(name) for name in CERTIFICATES}
    os.environ.update(dict.fromkeys(CERTIFICATES, os.devnull))
    try:
        import aiohttp  # noqa: F401
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def is_local(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")


class Dialer:
    """Makes sockets; holds the one HTTP session. aiohttp is imported at the first dial (it takes 150 ms)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session: aiohttp.ClientSession | None = None

    async def dial(self, token: str) -> Socket:
        """Raises Closed."""
        import aiohttp

        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                trust_env=not is_local(self.url)
            )  # a sandbox's proxy, but never to ourselves
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                ws = await self._session.ws_connect(
                    self.url,
                    protocols=(SUBPROTOCOL,),
                    headers=headers,
                    autoping=False,
                    compress=0,
                    max_msg_size=MAX_MESSAGE_BYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
                )
        except aiohttp.WSServerHandshakeError as error:
            raise _translated(error) from error
        except TimeoutError as error:
            raise Closed(None, "no answer within the connect timeout") from error
        except aiohttp.ClientConnectorError as error:
            raise Closed(None, f"cannot connect to {error.host}:{error.port}: {_words(error.os_error)}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Closed(None, f"cannot connect: {error}") from error
        return Socket(ws)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _words(error: OSError) -> str:
    """A refused connection in the system's words; asyncio's name the address once more."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)


def _translated(error: aiohttp.WSServerHandshakeError) -> Closed:
    kind = error.headers.get("Content-Type", "") if error.headers else ""
    after = error.headers.get("Retry-After", "") if error.headers else ""
    reason = f"HTTP {error.status}" + (f" retry_after_s={after}" if after.isdigit() else "")
    ours = kind.startswith("application/problem+json")
    return Closed(HANDSHAKE.get(error.status) if ours else None, reason)


class Socket:
    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self._ws = ws
        self._heard_at = asyncio.get_running_loop().time()

    async def send(self, text: str) -> None:
        """Raises Closed."""
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._ws.send_str(text)
        except TimeoutError as error:
            raise Closed(None, "the peer takes nothing any more") from error
        except (ConnectionError, RuntimeError) as error:
            raise Closed(self._ws.close_code, f"cannot write: {error}") from error

    async def receive(self) -> dict[str, Any]:
        """The next frame. Raises Closed."""
        from aiohttp import WSMsgType

        while True:
            message = await self._ws.receive()
            self._heard_at = asyncio.get_running_loop().time()
            match message.type:
                case WSMsgType.TEXT:
                    try:
                        frame = json.loads(message.data)
                    except ValueError:
                        continue  # nothing that we could answer; the server is Holdfast, not a stranger
                    if isinstance(frame, dict):
                        return frame
                case WSMsgType.PING:
                    with contextlib.suppress(ConnectionError, RuntimeError):
                        # A line that fell behind this ping: what is still to be read says how it ended.
                        await self._ws.pong(message.data)
                case WSMsgType.CLOSE:
                    raise Closed(message.data, message.extra or "")
                case WSMsgType.CLOSING | WSMsgType.CLOSED | WSMsgType.ERROR:
                    code = self._ws.close_code
                    # 1006 is nobody's word; 1009 or 1002 here is our own verdict about what the peer sent.
                    raise Closed(None if code in (1006, 1000) else code, f"connection lost ({message.data or code})")
                case _:
                    continue  # pongs are life, noted above; binary frames are not of this protocol

    async def stay_alive(self) -> None:
        """Pings for ever. Raises Closed when nothing has come for ping + pong: a half-open line, a frozen peer."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(WRAPPER_PING_S / 5)
            silent = loop.time() - self._heard_at
            if silent > WRAPPER_PING_S + WRAPPER_PONG_S:
                raise Closed(None, "no pong in time")
            if silent >= WRAPPER_PING_S:
                try:
                    async with asyncio.timeout(WRITE_TIMEOUT_S):
                        await self._ws.ping()
                except (ConnectionError, RuntimeError, TimeoutError) as error:
                    raise Closed(None, f"cannot ping: {error}") from error

    async def close(self, code: int = 1001, reason: str = "") -> None:
        try:
            await self._ws.close(code=code, message=reason.encode()[:120])
        except (ConnectionError, RuntimeError, TimeoutError):
            return  # it is closed, one way or another

    def cut(self) -> None:
        """Without a word, as a cable does: the peer sees 1006, and so do we."""
        line = self._ws.get_extra_info("socket")
        if line is not None:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
