"""The outbox of callbacks in SQL: claim with a lease that ends, record what came of it, show, replay.

A claim moves next_at_ms ahead and notes whose it is: two deliverers never hold the same row, and one that died leaves
a row that is due again. What was delivered is delivered, whoever says so; a failure counts only from the holder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from actors.law.audit import Act
from actors.law.webhooks import Again, Delivered, Verdict, event_type
from actors.protocol.defaults import WEBHOOK_LEASE_S
from actors.protocol.errors import HoldfastError
from actors.store import rows
from actors.store.contract import ClaimedWebhook, IdempotencyKey, ListPage
from actors.store.reads import Reads, _decode_cursor, _encode_cursor

T = TypeVar("T")

LOOK_AT = 200  # due rows looked at per claim; those of a target with no place left are skipped in SQL
ERROR_MAX = 300
_SHOWN = (
    "n, id, session_id, execution_id, spec, body, state, attempts, next_at_ms, created_at_ms, last_at_ms, last_status, "
    "last_error, settled_at_ms"
)


class Webhooks(Reads):
    """Mixed into the store."""

    def _alone(self, work: Callable[[], T]) -> T:
        raise NotImplementedError

    # ------------------------------------------------------------ delivery

    def webhooks_due(self) -> bool:
        row = self._c.execute(
            "select 1 from callbacks indexed by callbacks_due where state = 'due' and next_at_ms <= ? limit 1",
            (self.wall_ms(),),
        ).fetchone()
        return row is not None

    def claim_webhooks(
        self, lease: str, limit: int, per_target: int, busy: Mapping[str, int]
    ) -> tuple[ClaimedWebhook, ...]:
        return self._alone(lambda: self._claim(lease, limit, per_target, busy))

    def _claim(self, lease: str, limit: int, per_target: int, busy: Mapping[str, int]) -> tuple[ClaimedWebhook, ...]:
        now, taken = self.wall_ms(), dict(busy)
        full = [target for target, n in busy.items() if n >= per_target]
        found = self._c.execute(
            "select n, id, spec, body, created_at_ms, attempts from callbacks indexed by callbacks_due "
            "where state = 'due' and next_at_ms <= ? "
            f"and json_extract(spec, '$.url') not in ({', '.join('?' * len(full))}) order by next_at_ms, n limit ?",
            (now, *full, LOOK_AT),
        ).fetchall()
        claimed: list[ClaimedWebhook] = []
        for n, webhook_id, spec_text, body, created_at_ms, attempts in found:
            spec = rows.loads(spec_text)
            if len(claimed) == limit:
                break
            if taken.get(spec["url"], 0) >= per_target:
                continue
            taken[spec["url"]] = taken.get(spec["url"], 0) + 1
            self._c.execute(
                "update callbacks set lease = ?, next_at_ms = ? where n = ?",
                (lease, now + round(WEBHOOK_LEASE_S * 1000), n),
            )
            headers, secret = spec.get("headers") or {}, spec.get("secret")
            claimed.append(
                ClaimedWebhook(webhook_id, spec["url"], rows.loads(body), created_at_ms, attempts, headers, secret)
            )
        return tuple(claimed)

    def settle_webhook(
        self, webhook_id: str, lease: str, verdict: Verdict, status: int | None, error: str | None
    ) -> bool:
        """What came of one attempt. False: the row was another's by then, and nothing was changed."""

        def work() -> bool:
            now = self.wall_ms()
            where, values = "id = ? and state = 'due'", [webhook_id]
            state, next_at_ms, settled = "dead", now, now if not isinstance(verdict, Again) else None
            if isinstance(verdict, Delivered):
                state = "delivered"
            else:
                where, values = where + " and lease = ?", [*values, lease]
            if isinstance(verdict, Again):
                state, next_at_ms = "due", now + round(verdict.after_s * 1000)
            done = self._c.execute(
                "update callbacks set state = ?, next_at_ms = ?, settled_at_ms = ?, attempts = attempts + 1, "
                f"lease = null, last_at_ms = ?, last_status = ?, last_error = ? where {where}",
                (state, next_at_ms, settled, now, status, error[:ERROR_MAX] if error else None, *values),
            )
            return bool(done.rowcount)

        return self._alone(work)

    # ------------------------------------------------------------ for operators

    def webhooks(self, state: str | None, session_id: str | None, limit: int, cursor: str | None) -> ListPage:
        """Newest first."""
        before = _decode_cursor(cursor, 1)[0] if cursor else 1 << 62
        where, values = ["n < ?"], [before]
        for name, value in (("state", state), ("session_id", session_id)):
            if value is not None:
                where.append(f"{name} = ?")
                values.append(value)
        found = self._c.execute(
            f"select {_SHOWN} from callbacks where {' and '.join(where)} order by n desc limit ?", [*values, limit + 1]
        ).fetchall()
        more = len(found) > limit
        return ListPage(tuple(_shown(r) for r in found[:limit]), _encode_cursor(found[limit - 1][0]) if more else None)

    def webhook(self, webhook_id: str) -> dict[str, Any]:
        """Errors: webhook_not_found."""
        row = self._c.execute(f"select {_SHOWN} from callbacks where id = ?", (webhook_id,)).fetchone()
        if row is None:
            raise HoldfastError("webhook_not_found")
        return _shown(row)

    def replay_webhook(
        self, webhook_id: str, by: str, key: IdempotencyKey | None = None
    ) -> tuple[dict[str, Any], bool]:
        """Due now, whatever became of it, with the same id; returns the resource, and whether it is a stored answer.

        One that is on its way at this moment stays with its deliverer. Errors: webhook_not_found, idempotency_mismatch.
        """
        return self._alone(lambda: self._replay(webhook_id, by, key))

    def _replay(self, webhook_id: str, by: str, key: IdempotencyKey | None) -> tuple[dict[str, Any], bool]:
        if key is not None and (stored := self.stored_answer(key)) is not None:
            return stored[1], True
        c, now, shown = self._c, self.wall_ms(), self.webhook(webhook_id)
        c.execute(
            "update callbacks set state = 'due', attempts = 0, settled_at_ms = null, "
            "next_at_ms = case when lease is not null and state = 'due' then next_at_ms else ? end where id = ?",
            (now, webhook_id),
        )
        self.note(Act("webhook.replay", by, shown["session_id"], shown["execution_id"], webhook_id), now)
        shown = self.webhook(webhook_id)
        if key is not None:
            self.keep_answer(key, 202, shown, now)
        return shown, False

    # ------------------------------------------------------------ audit

    def audit(self, session_id: str | None, limit: int, cursor: str | None) -> ListPage:
        """Newest first."""
        before = _decode_cursor(cursor, 1)[0] if cursor else 1 << 62
        names = ("audit_id", "at_ms", "by", "action", "session_id", "execution_id", "object_id", "outcome")
        where, values = ("session_id = ? and n < ?", [session_id, before]) if session_id else ("n < ?", [before])
        found = self._c.execute(
            "select n, at_ms, by, action, session_id, execution_id, object_id, outcome from audit "
            f"where {where} order by n desc limit ?",
            [*values, limit + 1],
        ).fetchall()
        items = tuple(dict(zip(names, row, strict=True)) for row in found[:limit])
        return ListPage(items, _encode_cursor(found[limit - 1][0]) if len(found) > limit else None)


def _shown(row: tuple[Any, ...]) -> dict[str, Any]:
    """protocol.resources.WebhookResource: never the secret, never the headers, never a query."""
    _, wid, sid, eid, spec_text, body, state, attempts, next_at, created, last_at, status, error, settled = row
    spec = rows.loads(spec_text)
    parts = urlsplit(spec["url"])
    return {
        "webhook_id": wid,
        "session_id": sid,
        "execution_id": eid,
        "type": event_type(rows.loads(body)),
        "state": state,
        "url": f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}",
        "signed": bool(spec.get("secret")),
        "attempts": attempts,
        "created_at_ms": created,
        "next_attempt_at_ms": next_at if state == "due" else None,
        "last_attempt_at_ms": last_at,
        "last_status": status,
        "last_error": error,
        "settled_at_ms": settled,
    }
