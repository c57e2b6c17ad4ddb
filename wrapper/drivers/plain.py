"""Any command: what it prints is output, what it is given is its stdin, byte for byte."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from wrapper.drivers.base import Fed, Output, dumps, input_text
from wrapper.segments import Piece


class PlainDriver:
    name = "plain"
    keeps_stdin = False

    def feed(self, state: Mapping[str, str], pieces: Iterable[Piece], *, end: bool) -> Fed:
        output = Output(state, refers=True)
        for piece in pieces:
            output.add(*piece)
        output.flush(end=end)
        return Fed(output.state(), output.items)

    def encode_input(self, value: Any, *, keep: bool) -> bytes:
        """Exactly the text if stdin is closed after it; a line, if more may follow."""
        data = input_text(value).encode("utf-8", "replace")
        return data + b"\n" if keep and not data.endswith(b"\n") else data

    def encode_decision(self, approval_id: str, ref: str | None, decision: str, note: str | None) -> bytes:
        line = {"type": "approval", "approval_id": approval_id, "decision": decision, "note": note}
        return dumps(line).encode("utf-8", "replace") + b"\n"
