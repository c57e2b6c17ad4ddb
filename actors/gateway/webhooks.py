"""Delivers callbacks: claims what is due, posts it, records what came of it. At least once, with a stable id.

A delivery is ours by a lease in the store. Falls between the post and the record: the lease ends, and it goes out
again with the same Idempotency-Key. Nothing of a secret, a header, a query or an answer's body is logged or kept.
"""

from __future__ import annotations

import asyncio
import email.utils
from collections import Counter
from collections.abc import Mapping
from typing import Final

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver

from actors import telemetry
from actors.gateway.door import Door
from actors.gateway.targets import NEVER_HEADERS, NotAllowed, Targets
from actors.law.webhooks import Again, Dead, Delivered, Verdict, envelope, judge, signature
from actors.protocol.defaults import WEBHOOK_TIMEOUT_S, WEBHOOKS_AT_ONCE, WEBHOOKS_AT_ONCE_PER_TARGET
from actors.protocol.errors import HoldfastError
from actors.protocol.ids import ulid
from actors.store.contract import ClaimedWebhook

CONTENT_TYPE: Final = "application/cloudevents+json"
READ_BUFFER_BYTES: Final = 2048  # aiohttp takes at most twice that off the socket; nothing of a body is looked at
STOP_S: Final = 1.0  # a receiver may take ten; a gateway that stops has not that long
SETTLE_TRIES_S: Final = (0.2, 1.0, 3.0)  # a store that is away for a moment should not make a receiver hear it twice


class Deliverer:
    """`turn()` starts everything that is due and returns when nothing is; what it started goes on behind it."""

    def __init__(
        self, door: Door, *, resolver: AbstractResolver | None = None, timeout_s: float = WEBHOOK_TIMEOUT_S
    ) -> None:
        self.door, self.targets = door, Targets(door.settings.webhook_allow)
        self._resolver, self._timeout_s = resolver, timeout_s
        self._busy: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    async def turn(self) -> None:
        worker = self.door.worker
        while await worker.read(lambda store: store.webhooks_due()):
            lease, room, busy = ulid(), WEBHOOKS_AT_ONCE - len(self._tasks), dict(self._busy)
            claimed: tuple[ClaimedWebhook, ...] = ()
            if room > 0:
                claimed = await worker.write(
                    lambda s, le=lease, r=room, b=busy: s.claim_webhooks(le, r, WEBHOOKS_AT_ONCE_PER_TARGET, b)  # type: ignore[misc]
                )
            for one in claimed:
                self._busy[one.url] += 1
                task = self.door.spawn(self._whole(one, lease))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            if not claimed:
                if not self._tasks:
                    return  # due, and somebody else's by now
                await asyncio.wait(set(self._tasks), return_when=asyncio.FIRST_COMPLETED)

    async def stop(self) -> None:
        """Those that are nearly told get a moment; the others go out again when their leases have ended."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=STOP_S)
        for task in (left := set(self._tasks)):
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=STOP_S)

    async def _whole(self, one: ClaimedWebhook, lease: str) -> None:
        try:
            status, verdict, error = await self.attempt(one)
            await self._settle(one, lease, verdict, status, error)
        finally:
            self._busy[one.url] -= 1
            if not self._busy[one.url]:
                del self._busy[one.url]

    async def _settle(
        self, one: ClaimedWebhook, lease: str, verdict: Verdict, status: int | None, error: str | None
    ) -> None:
        name = {Delivered: "delivered", Again: "retried", Dead: "dead"}[type(verdict)]
        telemetry.emit(f"webhook.{name}", webhook_id=one.webhook_id, status=status, error=error)
        for pause in (*SETTLE_TRIES_S, None):
            try:
                await self.door.worker.write(
                    lambda store: store.settle_webhook(one.webhook_id, lease, verdict, status, error)
                )
                return
            except HoldfastError as told:
                if pause is None or not told.retryable:  # the lease ends, and it goes out again
                    telemetry.emit("webhook.unsettled", webhook_id=one.webhook_id, code=told.code)
                    return
            await asyncio.sleep(pause)

    # ------------------------------------------------------------ one attempt

    async def attempt(self, one: ClaimedWebhook) -> tuple[int | None, Verdict, str | None]:
        """Posts once. Returns the status (None: no answer), what it means, and a short word about what went wrong."""
        body = orjson.dumps(envelope(one.webhook_id, one.body, one.created_at_ms))
        try:
            host = self.targets.check_url(one.url)
            async with asyncio.timeout(self._timeout_s):
                status, retry_after = await self._post(host, one, body)
        except (HoldfastError, NotAllowed) as error:
            return None, Dead(), _words(error)
        except TimeoutError:
            return None, judge(one.failed_before, None), f"no answer within {self._timeout_s:g} s"
        except (aiohttp.ClientError, OSError) as error:
            if (refused := _refusal(error)) is not None:
                return None, Dead(), _words(refused)
            return None, judge(one.failed_before, None), _words(error)
        except ValueError as error:  # a header or URL that was accepted and cannot be sent: never will be
            return None, Dead(), type(error).__name__
        verdict = judge(one.failed_before, status, retry_after_s(retry_after, self.door.wall_ms() / 1000))
        return status, verdict, None if isinstance(verdict, Delivered) else f"HTTP {status}"

    async def _post(self, host: str, one: ClaimedWebhook, body: bytes) -> tuple[int, str | None]:
        if self._resolver is None:
            self._resolver = aiohttp.ThreadedResolver()
        async with aiohttp.ClientSession(
            connector=self.targets.connector(host, self._resolver),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,  # a proxy would connect where we would not
            read_bufsize=READ_BUFFER_BYTES,
            skip_auto_headers=("Accept-Encoding",),
            timeout=aiohttp.ClientTimeout(total=None),
        ) as http:
            async with http.post(one.url, data=body, headers=self._headers(one, body), allow_redirects=False) as answer:
                status, after = answer.status, answer.headers.get("Retry-After")
                answer.close()  # whatever it has to say, it says to nobody
                return status, after

    def _headers(self, one: ClaimedWebhook, body: bytes) -> dict[str, str]:
        """The user's own, and ours over them."""
        ours = {
            "Content-Type": CONTENT_TYPE,
            "Idempotency-Key": one.webhook_id,
        }
        if one.secret:
            ours["Holdfast-Signature"] = signature(one.secret, self.door.wall_ms() // 1000, body)
        taken = {name.lower() for name in ours} | {"holdfast-signature"} | NEVER_HEADERS
        theirs = {name: value for name, value in one.headers.items() if name.lower() not in taken}
        return {"User-Agent": "holdfast-webhook", **theirs, **ours} if not _has_agent(theirs) else {**theirs, **ours}


def _has_agent(headers: Mapping[str, str]) -> bool:
    return any(name.lower() == "user-agent" for name in headers)


def retry_after_s(value: str | None, now_s: float) -> float | None:
    """Seconds or an HTTP date (RFC 9110 §10.2.3); anything else is nothing."""
    if not value:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value.strip()[:9])
    try:
        at = email.utils.parsedate_tz(value[:64])
        return None if at is None else max(0.0, email.utils.mktime_tz(at) - now_s)
    except (ValueError, OverflowError, OSError):
        return None


def _refusal(error: BaseException) -> NotAllowed | None:
    """The rule's own no, wherever aiohttp has wrapped it."""
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None or isinstance(seen, NotAllowed):
            return seen
        inner = getattr(seen, "os_error", None) or seen.__cause__ or seen.__context__
        if isinstance(seen, BaseExceptionGroup):
            inner = seen.exceptions[0]
        seen = inner
    return None


def _words(error: BaseException) -> str:
    """What may be shown: our own words, or the kind of error and the system's word for it. Never a URL."""
    if isinstance(error, HoldfastError):
        return f"{error.code}: {error.detail}"
    if isinstance(error, NotAllowed):
        return f"webhook_not_allowed: {error.strerror}"
    os_error = getattr(error, "os_error", None)
    return f"{type(error).__name__}: {os_error.strerror}" if os_error and os_error.strerror else type(error).__name__


__all__ = ["Deliverer", "retry_after_s"]
