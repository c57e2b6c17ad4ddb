"""What a decision read must still hold when it is performed: the same transaction read it a moment ago."""

from __future__ import annotations

from typing import Any

from actors.protocol.errors import HoldfastError


class BrokenExpectation(HoldfastError):
    """A row was not what the decision read: a bug of ours. Nothing of the transition stays."""

    def __init__(self, detail: str = "", code: str = "internal") -> None:
        super().__init__(code, detail)

    def __reduce__(self) -> tuple[Any, ...]:
        return (BrokenExpectation, (self.detail,))


def expect(held: bool, otherwise: str) -> None:
    if not held:
        raise BrokenExpectation(otherwise)
