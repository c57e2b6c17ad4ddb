"""What every driver shares: the shape of a driver, and bytes → `output` events without losing or changing one byte."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from actors.protocol.defaults import CHUNK_BYTES
from wrapper.segments import Piece

Kind = Literal["output", "event", "approval"]


@dataclass(frozen=True, slots=True)
class Item:
    """One record to be. `body` is JSON: the whole event, or the fields of an approval frame."""

    kind: Kind
    body: str
    approval_id: str | None = None
    ref: str | None = None  # JSON of the agent's own name for the approval


@dataclass(slots=True)
class Fed:
    state: dict[str, str]
    items: list[Item] = field(default_factory=list)
    ephemeral: list[dict[str, Any]] = field(default_factory=list)
    busy: bool | None = None


class Driver(Protocol):
    name: str
    keeps_stdin: bool  # the default of --stdin

    def feed(self, state: Mapping[str, str], pieces: Iterable[Piece], *, end: bool) -> Fed:
        """`end`: nothing will follow, hold nothing back."""

    def encode_input(self, value: Any, *, keep: bool) -> bytes:
        """An input for stdin; with `keep`, framed so that the agent can tell where it ends."""

    def encode_decision(self, approval_id: str, ref: str | None, decision: str, note: str | None) -> bytes: ...


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


# What JSON escapes, the backslash first. To look for each of them in 16 KiB takes a third of looking at each character.
_ESCAPES: Final = tuple((bytes([code]), dumps(chr(code))[1:-1].encode()) for code in (0x5C, 0x22, *range(0x20)))


def output(stream: str, ts_ms: int, chunk: bytes) -> str:
    """An `output` event of these bytes, word for word as `event` writes it: text if all of it is UTF-8, else base64."""
    escaped = chunk
    for raw, instead in _ESCAPES:
        if raw in escaped:
            escaped = escaped.replace(raw, instead)
    try:
        return f'{{"type":"output","ts_ms":{ts_ms},"data":{{"stream":"{stream}","text":"{escaped.decode("utf-8")}"}}}}'
    except UnicodeDecodeError:
        return event("output", ts_ms, {"stream": stream, "base64": base64.b64encode(chunk).decode("ascii")})


def event(kind: str, ts_ms: int, data: Mapping[str, Any]) -> str:
    return dumps({"type": kind, "ts_ms": ts_ms, "data": data})


def input_text(value: Any) -> str:
    """A string is itself, no input is nothing, anything else its JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else dumps(value)


def incomplete_suffix(data: bytes) -> int:
    """How many of the last bytes (0…3) begin a UTF-8 character that is not there yet."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        need = 2 if 0xC2 <= byte < 0xE0 else 3 if 0xE0 <= byte < 0xF0 else 4 if 0xF0 <= byte < 0xF5 else 1
        return back if need > back else 0
    return 0


class Output:
    """Collects the bytes of both streams and gives them out as `output` events of at most CHUNK_BYTES.

    A chunk is text if all of it is UTF-8, else base64: binary output makes few events, not thousands. A character
    cut by a chunk's end moves to the next one; the at most three bytes held back are the state.
    """

    HELD: Final = ("stdout", "stderr")

    def __init__(self, state: Mapping[str, str]) -> None:
        self.held = {stream: bytes.fromhex(state.get(stream, "")) for stream in self.HELD}
        self.items: list[Item] = []
        self._run: list[bytes] = []
        self._stream = ""
        self._ts_ms = 0

    def add(self, stream: str, ts_ms: int, data: bytes) -> None:
        if stream != self._stream or not self._run:
            self.flush()
            self._stream, self._ts_ms = stream, ts_ms
        self._run.append(data)

    def flush(self, *, end: bool = False) -> None:
        """Everything added so far becomes events; with `end` the held bytes too."""
        if self._run:
            self._emit(self._stream, self._ts_ms, b"".join(self._run), end=False)
            self._run = []
        if end:
            for stream in self.HELD:
                self._emit(stream, self._ts_ms, b"", end=True)

    def state(self) -> dict[str, str]:
        return {stream: data.hex() for stream, data in self.held.items() if data}

    def _emit(self, stream: str, ts_ms: int, data: bytes, *, end: bool) -> None:
        data = self.held[stream] + data
        at = 0
        while at < len(data):
            chunk = data[at : at + CHUNK_BYTES]
            last = at + len(chunk) == len(data)
            tail = 0 if last and end else incomplete_suffix(chunk)
            chunk = chunk[: len(chunk) - tail]
            if not chunk:
                break
            at += len(chunk)
            self.items.append(Item("output", output(stream, ts_ms, chunk)))
        self.held[stream] = data[at:]
