"""RFC 6455 framing, just enough to watch a line and to say a whole frame twice. Pure: bytes in, pieces out.

The upgrade's HTTP head comes first and is passed on as it is. Nothing is ever changed: a piece is what came, and what
was understood of it stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

TEXT = 1
HEAD_MAX = 64 << 10  # an upgrade that is longer is none; then nothing is understood any more, and all is passed on


@dataclass(frozen=True)
class Piece:
    raw: bytes
    text: bytes | None = None  # the payload, if this is one whole text frame


class Scanner:
    """One direction of one connection."""

    def __init__(self) -> None:
        self._buffer = b""
        self._in_frames = self._blind = False

    def feed(self, data: bytes) -> list[Piece]:
        if self._blind:
            return [Piece(data)]
        self._buffer += data
        found: list[Piece] = []
        if not self._in_frames:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return self._give_up() if len(self._buffer) > HEAD_MAX else []
            found.append(Piece(head + end))
            self._buffer = rest
            self._in_frames = b"upgrade: websocket" in head.lower()
            if not self._in_frames:
                return found + self._give_up()
        while (piece := self._one()) is not None:
            found.append(piece)
        return found

    def _give_up(self) -> list[Piece]:
        self._blind, rest, self._buffer = True, self._buffer, b""
        return [Piece(rest)] if rest else []

    def _one(self) -> Piece | None:
        b = self._buffer
        if len(b) < 2:
            return None
        fin, opcode, masked, n, at = b[0] & 0x80, b[0] & 0x0F, b[1] & 0x80, b[1] & 0x7F, 2
        if n >= 126:
            size = 2 if n == 126 else 8
            if len(b) < at + size:
                return None
            n, at = int.from_bytes(b[at : at + size], "big"), at + size
        start = at + (4 if masked else 0)
        if len(b) < start + n:
            return None
        raw, self._buffer = b[: start + n], b[start + n :]
        if not fin or opcode != TEXT:
            return Piece(raw)
        return Piece(raw, unmasked(raw[at:start], raw[start:]) if masked else raw[start:])


def unmasked(mask: bytes, payload: bytes) -> bytes:
    n = len(payload)
    key = (mask * (n // 4 + 1))[:n]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(n, "big") if n else b""
