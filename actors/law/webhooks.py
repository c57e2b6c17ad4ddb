"""Webhooks: what is told, and what an answer means. Pure; the sending is the gateway's (gateway/webhooks.py).

2xx → delivered      network error, 429, 5xx → again after 1, 2, 4, 8 minutes, then dead      everything else → dead
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from actors.protocol.defaults import WEBHOOK_RETRY_AFTER_MAX_S, WEBHOOK_RETRY_S


@dataclass(frozen=True, slots=True)
class Delivered:
    pass


@dataclass(frozen=True, slots=True)
class Again:
    after_s: float


@dataclass(frozen=True, slots=True)
class Dead:
    """Nobody tries again until an operator says `replay`."""


Verdict = Delivered | Again | Dead


def judge(failed_before: int, status: int | None, retry_after_s: float | None = None) -> Verdict:
    """What the answer to one attempt means. status None: there was none (network, timeout).

    A receiver may ask for more patience than our own pause, within a bound, but not for less.
    """
    if status is not None and 200 <= status < 300:
        return Delivered()
    worth_it = status is None or status == 429 or status >= 500
    if not worth_it or failed_before >= len(WEBHOOK_RETRY_S):
        return Dead()
    asked = min(max(retry_after_s or 0.0, 0.0), WEBHOOK_RETRY_AFTER_MAX_S)
    return Again(max(WEBHOOK_RETRY_S[failed_before], asked))


def envelope(webhook_id: str, body: Mapping[str, Any], at_ms: int) -> dict[str, Any]:
    """CloudEvents 1.0, structured mode. The same for every attempt, so that a receiver can tell a repeat."""
    session_id, execution_id = body["session_id"], body["execution_id"]
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return {
        "specversion": "1.0",
        "id": webhook_id,
        "source": f"/v1/sessions/{session_id}",
        "type": event_type(body),
        "subject": f"{session_id}/{execution_id}",
        "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": dict(body),
    }


def event_type(body: Mapping[str, Any]) -> str:
    return f"holdfast.execution.{body['outcome']['status']}"


def signature(secret: str, at_s: int, body: bytes) -> str:
    """`t=<unix seconds>,v1=<hex>`: HMAC-SHA256 of "<t>.<body>", so that nobody can play an old one again."""
    made = hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={made}"
