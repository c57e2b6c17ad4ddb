"""Enrolment at rest: one-time codes, who asked to be let in, who decided. Secrets get here as hashes only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from actors.law.audit import Act
from actors.law.effects import Refuse
from actors.law.nodes import enrolment as law
from actors.law.nodes import render
from actors.law.nodes.model import Enrolment, Node
from actors.protocol.errors import HoldfastError
from actors.store import node_rows as rows
from actors.store.contract import Claimed, ListPage, NewEnrolment, Token
from actors.store.reads import _decode_cursor, _encode_cursor

T = TypeVar("T")
_ENROLMENT = rows.ENROLMENTS.select("where id = ?")


class Enrolments:
    """Mixed into the store: needs `_c`, `wall_ms()`, `note()`, `_alone()` and `_put_token()`."""

    _c: Any
    wall_ms: Callable[[], int]
    note: Callable[[Act, int], None]
    _put_token: Callable[[str, Token, str | None], None]

    def _alone(self, work: Callable[[], T]) -> T:
        raise NotImplementedError

    def make_enrolment_code(self, code_hash: str, node_id: str | None, expires_in_s: float, by: str | None) -> int:
        def work() -> int:
            now = self.wall_ms()
            expires = now + round(expires_in_s * 1000)
            self._c.execute("insert into enrolment_codes values (?, ?, ?, ?, null)", (code_hash, node_id, now, expires))
            self.note(Act("enrolment.code", by, object_id=node_id), now)
            return expires

        return self._alone(work)

    def enrol(self, wanted: NewEnrolment) -> dict[str, Any]:
        return self._alone(lambda: self._enrol(wanted))

    def _enrol(self, wanted: NewEnrolment) -> dict[str, Any]:
        c, now = self._c, self.wall_ms()
        before = c.execute(
            rows.ENROLMENTS.select("where code_hash = ? and claim_hash = ? and node_id = ?"),
            (wanted.code_hash, wanted.claim_hash, wanted.node_id),
        ).fetchone()
        if before is not None:  # asked again after a lost answer
            return render.enrolment(rows.ENROLMENTS.read(before))
        found = c.execute(
            "select node_id, expires_at_ms, used_by from enrolment_codes where code_hash = ?", (wanted.code_hash,)
        ).fetchone()
        taken = c.execute("select 1 from nodes where id = ?", (wanted.node_id,)).fetchone() is not None
        _raise(law.refuse_code(law.Code(*found) if found else None, wanted.node_id, taken, now))
        made = Enrolment(
            wanted.enrolment_id, wanted.node_id, wanted.name, wanted.commands, dict(wanted.capabilities), now
        )
        columns = ", ".join((*rows.ENROLMENTS.columns, "claim_hash", "code_hash"))
        marks = ", ".join("?" * (len(rows.ENROLMENTS.columns) + 2))
        c.execute(
            f"insert into enrolments ({columns}) values ({marks})",
            [*rows.ENROLMENTS.values(made), wanted.claim_hash, wanted.code_hash],
        )
        c.execute("update enrolment_codes set used_by = ? where code_hash = ?", (made.enrolment_id, wanted.code_hash))
        self.note(Act("enrolment.ask", None, object_id=made.enrolment_id), now)
        return render.enrolment(made)

    def decide_enrolment(
        self, enrolment_id: str, approve: bool, allow: tuple[str, ...] | None, by: str | None
    ) -> dict[str, Any]:
        answer = self._alone(lambda: self._decide_enrolment(enrolment_id, approve, allow, by))
        if isinstance(answer, Refuse):  # said after the commit: the refusal is in the audit
            _raise(answer)
            raise AssertionError("it was a refusal")
        return render.enrolment(answer)

    def _decide_enrolment(
        self, enrolment_id: str, approve: bool, allow: tuple[str, ...] | None, by: str | None
    ) -> Enrolment | Refuse:
        now, action = self.wall_ms(), "enrolment.approve" if approve else "enrolment.reject"
        row = self._c.execute(_ENROLMENT, (enrolment_id,)).fetchone()
        known = rows.ENROLMENTS.read(row) if row else None
        answer = (
            Refuse("enrolment_not_found")
            if known is None
            else law.resolve(known, approve, allow, by, now, taken=self._taken(known))
        )
        outcome = answer.code if isinstance(answer, Refuse) else "ok"
        self.note(Act(action, by, object_id=enrolment_id, outcome=outcome), now)
        if isinstance(answer, Enrolment):
            self._set_enrolment(answer, ("state", "allow", "decided_at_ms", "decided_by"))
            if approve:
                self._let_in(answer, now)
        return answer

    def _taken(self, e: Enrolment) -> bool:
        """By another device, as far as its code says; a code that went by retention names nobody."""
        there = self._c.execute("select 1 from nodes where id = ?", (e.node_id,)).fetchone()
        named = self._c.execute(
            "select 1 from enrolment_codes where used_by = ? and node_id = ?", (e.enrolment_id, e.node_id)
        ).fetchone()
        return there is not None and named is None

    def _let_in(self, e: Enrolment, now: int) -> None:
        known = self._c.execute("select 1 from nodes where id = ?", (e.node_id,)).fetchone()
        if known is None:
            node = Node(e.node_id, e.name, now, e.enrolment_id, allow=e.allow)
            self._c.execute(rows.NODES.insert, rows.NODES.values(node))
        elif e.allow is not None:
            self._c.execute("update nodes set allow = ? where id = ?", (rows.stored("allow", e.allow), e.node_id))

    def claim_enrolment(self, enrolment_id: str, claim_hash: str, token_id: str, secret_hash: str) -> Claimed:
        return self._alone(lambda: self._claim_enrolment(enrolment_id, claim_hash, token_id, secret_hash))

    def _claim_enrolment(self, enrolment_id: str, claim_hash: str, token_id: str, secret_hash: str) -> Claimed:
        row = self._c.execute(
            rows.ENROLMENTS.select("where id = ? and claim_hash = ?"), (enrolment_id, claim_hash)
        ).fetchone()
        if row is None:
            raise HoldfastError("enrolment_not_found")
        known, now = rows.ENROLMENTS.read(row), self.wall_ms()
        there = self._c.execute("select 1 from nodes where id = ?", (known.node_id,)).fetchone()
        claimed = law.claim(known, now) if there else None  # forgotten since: nobody is let in by an old approval
        if claimed is None:
            return Claimed(known.state, known.node_id)
        self._set_enrolment(claimed, ("claimed_at_ms",))
        self._put_token(secret_hash, Token(token_id, "node", node_id=known.node_id), known.decided_by)
        return Claimed(claimed.state, claimed.node_id, token_made=True)

    def _set_enrolment(self, e: Enrolment, attributes: tuple[str, ...]) -> None:
        sql, values = rows.ENROLMENTS.update({a: getattr(e, a) for a in attributes}, "id = ?")
        self._c.execute(sql, [*values, e.enrolment_id])

    def enrolments(self, state: str | None, limit: int, cursor: str | None) -> ListPage:
        """Newest first: their ids sort by time."""
        before = _decode_cursor(cursor, 1, (str,))[0] if cursor else "~"
        where, values = ("state = ? and id < ?", [state, before]) if state else ("id < ?", [before])
        found = self._c.execute(
            rows.ENROLMENTS.select(f"where {where} order by id desc limit ?"), [*values, limit + 1]
        ).fetchall()
        items = [rows.ENROLMENTS.read(row) for row in found]
        more = len(items) > limit
        return ListPage(
            tuple(render.enrolment(e) for e in items[:limit]),
            _encode_cursor(items[limit - 1].enrolment_id) if more else None,
        )


def _raise(refusal: Refuse | None) -> None:
    if refusal is not None:
        raise HoldfastError(refusal.code, refusal.detail, **refusal.extra)
