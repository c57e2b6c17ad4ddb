"""What every driver shares: the shape of a driver, and bytes → `output` events without losing or changing one byte."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Literal, Protocol

from actors.protocol.defaults import CHUNK_BYTES
from wrapper.segments import Extent, Piece, Position, Source

Kind = Literal["output", "event", "approval"]
# A record of this many bytes, in no more places than this, is named where it stands and not stored again. Smaller or
# scattered, the name would cost as much as the bytes, and a sync of the segment more than both.
REFER_BYTES: Final = 4096
REFER_PLACES: Final = 8


@dataclass(frozen=True, slots=True)
class Item:
    """One record to be. `body` is JSON: the whole event, or the fields of an approval frame."""

    kind: Kind
    body: str
    approval_id: str | None = None
    ref: str | None = None  # JSON of the agent's own name for the approval
    source: Source | None = None  # of an output: where its bytes stand; then there is no body here


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
    fast = _fast_dumps()
    if fast is not None and len(chunk) >= FAST_BYTES:
        try:
            text = chunk.decode("utf-8")
        except UnicodeDecodeError:
            text = None
        if text is not None:
            spelled: bytes = fast({"type": "output", "ts_ms": ts_ms, "data": {"stream": stream, "text": text}})
            return spelled.decode("utf-8")
    return plainly(stream, ts_ms, chunk)


FAST_BYTES: Final = 1024  # shorter ones are spelled in a microsecond anyway


@cache
def _fast_dumps() -> Callable[[Any], bytes] | None:
    """orjson's, where somebody has it: the service's machine, so mostly `holdfast run`. A wrapper needs none, and does
    not wait for its import before the first word."""
    try:
        import orjson
    except ImportError:
        return None
    return orjson.dumps


def plainly(stream: str, ts_ms: int, chunk: bytes) -> str:
    """The same by the standard library."""
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
    cut by a chunk's end moves to the next one; the at most three bytes held back are the state. With ``refers`` a
    chunk that is worth it is given out by its place in the segments.
    """

    HELD: Final = ("stdout", "stderr")

    def __init__(self, state: Mapping[str, str], *, refers: bool = False) -> None:
        self._refers = refers
        self.held = {stream: bytes.fromhex(state.get(stream, "")) for stream in self.HELD}
        self.items: list[Item] = []
        self._run: list[tuple[bytes, Position | None]] = []
        self._stream = ""
        self._ts_ms = 0

    def add(self, stream: str, ts_ms: int, data: bytes, at: Position | None = None) -> None:
        if stream != self._stream or not self._run:
            self.flush()
            self._stream, self._ts_ms = stream, ts_ms
        self._run.append((data, at))

    def flush(self, *, end: bool = False) -> None:
        """Everything added so far becomes events; with `end` the held bytes too."""
        if self._run:
            self._emit(self._stream, self._ts_ms, self._run, end=False)
            self._run = []
        if end:
            for stream in self.HELD:
                self._emit(stream, self._ts_ms, (), end=True)

    def state(self) -> dict[str, str]:
        return {stream: data.hex() for stream, data in self.held.items() if data}

    def _emit(self, stream: str, ts_ms: int, run: Sequence[tuple[bytes, Position | None]], *, end: bool) -> None:
        held = self.held[stream]
        parts = [held, *(piece for piece, _ in run)] if held else [piece for piece, _ in run]
        data = b"".join(parts)  # (a single one is not copied)
        places = _Places(len(held), run)
        at = 0
        while at < len(data):
            stop = min(at + CHUNK_BYTES, len(data))
            if not (end and stop == len(data)):
                stop -= incomplete_suffix(data[max(at, stop - 3) : stop])
            if stop == at:
                break
            extents = places.of(at, stop) if self._refers and stop - at >= REFER_BYTES else ()
            if extents:
                source = Source(ts_ms, stream, held if at == 0 else b"", extents)
                self.items.append(Item("output", "", source=source))
            else:
                self.items.append(Item("output", output(stream, ts_ms, data[at:stop])))
            at = stop
        self.held[stream] = data[at:]


class _Places:
    """Where in the segments a part of joined pieces stands. Asked for one part after the other."""

    def __init__(self, held: int, run: Sequence[tuple[bytes, Position | None]]) -> None:
        """``held``: bytes before the first piece, which stand nowhere."""
        self._run, self._held = run, held
        self._nth, self._begins = 0, held  # the piece at hand, and where it begins in the joined ones

    def of(self, begin: int, end: int) -> tuple[Extent, ...]:
        """Empty if they are too many, or if a piece has no place."""
        begin = max(begin, self._held)
        found: list[Extent] = []
        while begin < end:
            data, at = self._run[self._nth]
            ends = self._begins + len(data)
            if begin >= ends:
                self._nth, self._begins = self._nth + 1, ends
                continue
            if at is None or len(found) == REFER_PLACES:
                return ()
            length = min(end, ends) - begin
            found.append(Extent(at.segment, at.offset + begin - self._begins, length))
            begin += length
        return tuple(found)
