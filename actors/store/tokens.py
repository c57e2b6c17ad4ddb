"""Tokens at rest: who may come in, known by the hash of the secret alone. The secret itself never gets here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from actors.law.audit import Act
from actors.store.contract import ListPage, Token
from actors.store.reads import _decode_cursor, _encode_cursor

# A dead token is listed for a month, for whoever asks what it was; then its row goes, with the next token that is made.
DEAD_KEEP_MS: Final = 30 * 86_400_000
_SHOWN: Final = (
    "token_id",
    "scope",
    "session_id",
    "node_id",
    "station_id",
    "created_at_ms",
    "expires_at_ms",
    "revoked_at_ms",
)


class Tokens:
    """Mixed into the store: needs `_c`, `wall_ms()` and `note()`."""

    _c: Any
    wall_ms: Callable[[], int]
    note: Callable[[Act, int], None]

    def token(self, secret_hash: str) -> Token | None:
        row = self._c.execute(
            "select id, scope, session_id, expires_at_ms, node_id, station_id from tokens "
            "where secret_hash = ? and revoked_at_ms is null",
            (secret_hash,),
        ).fetchone()
        if row is None or (row[3] is not None and row[3] <= self.wall_ms()):
            return None
        return Token(*row)

    def tokens(self, limit: int, cursor: str | None) -> ListPage:
        """Newest first. Their ids sort by time, but for the one of `up`, which comes last or first and stays there."""
        before = _decode_cursor(cursor, 1, (str,))[0] if cursor else "~"
        found = self._c.execute(
            "select id, scope, session_id, node_id, station_id, created_at_ms, expires_at_ms, revoked_at_ms "
            "from tokens where id < ? order by id desc limit ?",
            (before, limit + 1),
        ).fetchall()
        items = tuple(dict(zip(_SHOWN, row, strict=True)) for row in found[:limit])
        return ListPage(items, _encode_cursor(found[limit - 1][0]) if len(found) > limit else None)

    def _put_token(self, secret_hash: str, token: Token, by: str | None) -> None:
        """Noted if anything changes: `up` puts its own at every start, and mostly nothing does."""
        now = self.wall_ms()
        before = self._c.execute(
            "select secret_hash, scope, revoked_at_ms from tokens where id = ?", (token.token_id,)
        ).fetchone()
        if before != (secret_hash, token.scope, None):
            self.note(Act("token.create", by, object_id=token.token_id), now)
        self._c.execute(
            "delete from tokens where coalesce(revoked_at_ms, expires_at_ms) < ?",
            (now - DEAD_KEEP_MS,),
        )
        self._c.execute(
            "insert into tokens "
            "(id, secret_hash, scope, session_id, node_id, station_id, expires_at_ms, created_at_ms) "
            "values (?, ?, ?, ?, ?, ?, ?, ?) on conflict (id) do update set "
            "secret_hash = excluded.secret_hash, scope = excluded.scope, revoked_at_ms = null",
            (
                token.token_id,
                secret_hash,
                token.scope,
                token.session_id,
                token.node_id,
                token.station_id,
                token.expires_at_ms,
                now,
            ),
        )

    def _revoke_token(self, token_id: str, by: str | None) -> str | None:
        """The hash of its secret; None: there is no such token."""
        now = self.wall_ms()
        row = self._c.execute("select secret_hash, revoked_at_ms from tokens where id = ?", (token_id,)).fetchone()
        outcome = "token_not_found" if row is None else "ok" if row[1] is None else "unchanged"
        if outcome == "ok":
            self._c.execute("update tokens set revoked_at_ms = ? where id = ?", (now, token_id))
        self.note(Act("token.revoke", by, object_id=token_id, outcome=outcome), now)
        return None if row is None else str(row[0])
