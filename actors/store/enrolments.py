"""Enrolment at rest: one-time codes, who asked to be let in, who decided. Secrets get here as hashes only."""

from __future__ import annotations

from typing import Any

from actors.store.contract import Claimed, ListPage, NewEnrolment


class Enrolments:
    """Mixed into the store."""

    def make_enrolment_code(self, code_hash: str, node_id: str | None, expires_in_s: float, by: str | None) -> int:
        raise NotImplementedError

    def enrol(self, wanted: NewEnrolment) -> dict[str, Any]:
        raise NotImplementedError

    def decide_enrolment(
        self, enrolment_id: str, approve: bool, allow: tuple[str, ...] | None, by: str | None
    ) -> dict[str, Any]:
        raise NotImplementedError

    def claim_enrolment(self, enrolment_id: str, claim_hash: str, token_id: str, secret_hash: str) -> Claimed:
        raise NotImplementedError

    def enrolments(self, state: str | None, limit: int, cursor: str | None) -> ListPage:
        raise NotImplementedError
