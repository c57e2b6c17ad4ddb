"""An agent that speaks in lines of JSON on stdout; every other line is plain output, so nothing is ever lost.

  {"type":"tool.call","data":{…}}                    an event; without `data` the other members are the data
  {"type":"approval","title":"…","options":[…],"expires_in_s":600,"data":{…},"id":…}      an approval; the decision
                                                     comes back on stdin: {"type":"approval","id":…,"decision":…, …}
  {"type":"ephemeral","events":[{"type":…,"data":…}]}   shown to whoever watches, never stored
  {"type":"heartbeat","busy":true}                   a tool is at work: progress without output
  inputs on an open stdin: {"type":"input","input":…}

A line that is not such an object, breaks the protocol's limits, or uses a reserved type is plain output.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from actors.protocol.codes import EVENT_TYPE_MAX, EVENT_TYPE_PATTERN, RESERVED_PREFIXES
from actors.protocol.defaults import EVENTS_PER_FRAME, MAX_JSON_DEPTH, MAX_SAFE_INTEGER
from actors.protocol.ids import Mint, new_id, ulid
from wrapper.drivers.base import Fed, Item, Output, dumps, event, input_text
from wrapper.segments import Piece

LINE_BYTES: Final = 256 << 10  # an event must fit a frame beside others; a longer line is output
DEPTH: Final = MAX_JSON_DEPTH - 4  # the frame around an event: object, list, object, data
_TYPE: Final = re.compile(EVENT_TYPE_PATTERN.rstrip("$") + r"\Z")
OURS: Final = frozenset({"output", "approval", "ephemeral", "heartbeat"})


class _NotForUs(Exception):
    """This line is plain output."""


class JsonlDriver:
    name = "jsonl"
    keeps_stdin = True

    def __init__(self, mint: Mint = ulid) -> None:
        self._mint = mint

    def feed(self, state: Mapping[str, str], pieces: Iterable[Piece], *, end: bool) -> Fed:
        output = Output(state)
        fed = Fed({}, output.items)
        held = bytes.fromhex(state.get("line", ""))  # a line that may become an event: it began with `{`
        inside = "inside" in state  # in the middle of a line of plain output
        ts_ms = 0
        for stream, ts_ms, data, _ in pieces:
            if stream != "stdout":
                output.add(stream, ts_ms, data)
                continue
            data, held = held + data, b""
            while data:
                line, newline, rest = data.partition(b"\n")
                if inside or not data.startswith(b"{"):
                    output.add(stream, ts_ms, line + newline)
                    inside = not newline
                elif newline:
                    try:
                        self._line(line, ts_ms, output, fed)
                    except (_NotForUs, ValueError, RecursionError):
                        output.add(stream, ts_ms, line + newline)
                elif len(line) > LINE_BYTES:
                    output.add(stream, ts_ms, line)
                    inside = True
                else:
                    held = line
                data = rest
        if held and end:
            output.add("stdout", ts_ms, held)
            held = b""
        output.flush(end=end)
        fed.state = output.state()
        if held:
            fed.state["line"] = held.hex()
        if inside and not end:
            fed.state["inside"] = "1"
        return fed

    def _line(self, line: bytes, ts_ms: int, output: Output, fed: Fed) -> None:
        if len(line) > LINE_BYTES:
            raise _NotForUs
        body = json.loads(line.decode("utf-8"), parse_constant=_refuse)
        kind = body.get("type")
        _check(body, DEPTH)
        if kind == "approval":
            item = _approval(body, self._mint)
        elif kind == "ephemeral":
            fed.ephemeral.extend(_ephemeral(body, ts_ms))
            return
        elif kind == "heartbeat":
            if not isinstance(body.get("busy", False), bool):
                raise _NotForUs
            fed.busy = body.get("busy", False)
            return
        else:
            item = Item("event", event(*_event(body, ts_ms)))
        output.flush()
        output.items.append(item)

    def encode_input(self, value: Any, *, keep: bool) -> bytes:
        if not keep:
            return input_text(value).encode("utf-8", "replace")
        return dumps({"type": "input", "input": value}).encode("utf-8", "replace") + b"\n"

    def encode_decision(self, approval_id: str, ref: str | None, decision: str, note: str | None) -> bytes:
        line: dict[str, Any] = {"type": "approval"}
        if ref is not None:
            line["id"] = json.loads(ref)
        line |= {"approval_id": approval_id, "decision": decision, "note": note}
        return dumps(line).encode("utf-8", "replace") + b"\n"


def _refuse(constant: str) -> None:
    raise _NotForUs  # NaN and Infinity are not JSON


def _check(value: Any, depth: int) -> None:
    """The gateway decodes strictly; what it would refuse is plain output here rather than a refused record there."""
    if isinstance(value, str):
        value.encode("utf-8")  # a lone surrogate (written as an escape) raises ValueError
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if abs(value) > MAX_SAFE_INTEGER:
            raise _NotForUs
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _NotForUs
    elif depth == 0:
        raise _NotForUs
    elif isinstance(value, dict):
        for key, member in value.items():
            _check(key, 1)
            _check(member, depth - 1)
    else:
        for member in value:
            _check(member, depth - 1)


def _event(body: Any, ts_ms: int) -> tuple[str, int, dict[str, Any]]:
    if not isinstance(body, dict):
        raise _NotForUs
    kind = body.get("type")
    if not isinstance(kind, str) or len(kind) > EVENT_TYPE_MAX or not _TYPE.match(kind):
        raise _NotForUs
    if kind in OURS or kind.startswith(RESERVED_PREFIXES):
        raise _NotForUs
    data = body["data"] if "data" in body else {k: v for k, v in body.items() if k not in ("type", "ts_ms")}
    if not isinstance(data, dict):
        raise _NotForUs
    return kind, ts_ms, data


def _ephemeral(body: dict[str, Any], ts_ms: int) -> list[dict[str, Any]]:
    events = body.get("events")
    if not isinstance(events, list) or not 0 < len(events) <= EVENTS_PER_FRAME:
        raise _NotForUs
    return [dict(zip(("type", "ts_ms", "data"), _event(one, ts_ms), strict=True)) for one in events]


def _approval(body: dict[str, Any], mint: Mint) -> Item:
    title, options = body.get("title"), body.get("options", ["allow", "deny"])
    expires, data = body.get("expires_in_s"), body.get("data", {})
    good = (
        isinstance(title, str)
        and len(title) <= 1000
        and isinstance(options, list)
        and 1 <= len(options) <= 32
        and all(isinstance(one, str) and len(one) <= 200 for one in options)
        and (
            expires is None or (isinstance(expires, (int, float)) and expires is not True and 0 < expires <= 30 * 86400)
        )
        and isinstance(data, dict)
    )
    if not good:
        raise _NotForUs
    # Our own id: an agent that calls each of its questions "1" must not meet the answer to another session's.
    approval_id = new_id("approval", mint)
    fields = {"approval_id": approval_id, "title": title, "options": options, "expires_in_s": expires, "data": data}
    return Item("approval", dumps(fields), approval_id, dumps(body["id"]) if "id" in body else None)
