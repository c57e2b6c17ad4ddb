"""Frames from a wrapper, checked strictly before anything of them is queued: one poison event may never fail a group.

`events` is the hot frame: checked here by hand, to the rules of protocol/frames.py (a test compares the two). Strict
is: UTF-8 without lone surrogates, no NaN or Infinity, integers up to 2^53, depth up to 32. Nothing here does I/O.

Two readers of the same text: orjson, which is fast and refuses almost everything bad; and, only for what it refuses
or cannot tell (a float of 2^63 and more may have been an integer), the standard library's, which is lenient and so
can say *which* record is bad. A record that we can name is refused alone; the wrapper puts a `gap` in its place.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn

import orjson
from pydantic import TypeAdapter, ValidationError

from actors.protocol import frames
from actors.protocol.codes import EVENT_TYPE_MAX, EVENT_TYPE_PATTERN, RESERVED_PREFIXES
from actors.protocol.defaults import EVENTS_PER_FRAME, MAX_JSON_DEPTH, MAX_SAFE_INTEGER
from actors.protocol.ids import valid_id
from actors.store.contract import EncodedEvent

# ---------------------------------------------------------------- what a frame can be


@dataclass(slots=True)
class Records:
    """A contiguous run of records of one execution. gap: one frame that stands for all of them."""

    execution_id: str
    first: int
    last: int
    events: list[EncodedEvent]
    size: int
    gap: frames.Gap | None = None
    tail: Bad | None = None  # the first bad record, right behind the good ones


@dataclass(slots=True)
class Bad:
    """A record that will never be stored: refused by its own number."""

    execution_id: str
    seq: int
    code: Literal["invalid", "too_large"]
    detail: str
    size: int = 0


@dataclass(slots=True)
class Control:
    """Waits until every earlier frame of its socket is settled."""

    frame: frames.Hello | frames.Started | frames.Approval | frames.Final | frames.CommandAck
    size: int


@dataclass(slots=True)
class Ready:
    size: int = 0


@dataclass(slots=True)
class Beat:
    busy: bool
    size: int = 0


@dataclass(slots=True)
class Fleeting:
    """An ephemeral frame, encoded for the stream as it goes on."""

    execution_id: str
    text: str
    size: int


@dataclass(slots=True)
class Wrong:
    """Not usable, and no record to refuse. fatal: the peer does not speak the protocol (4002)."""

    code: Literal["invalid_frame", "unknown_frame"]
    message: str
    fatal: bool = False
    size: int = 0


Item = Records | Bad | Control | Ready | Beat | Fleeting | Wrong

_CONTROL: Final[dict[str, TypeAdapter[Any]]] = {
    name: TypeAdapter(model)
    for name, model in (
        ("hello", frames.Hello),
        ("started", frames.Started),
        ("approval", frames.Approval),
        ("final", frames.Final),
        ("command_ack", frames.CommandAck),
        ("gap", frames.Gap),
    )
}
_NUMBERED: Final = frozenset({"events", "started", "approval", "gap", "final"})
_TYPE: Final = re.compile(EVENT_TYPE_PATTERN[:-1] + r"\Z")
# Names that passed before. Bounded, because a peer chooses them; a service has tens of them.
_KNOWN_TYPES_LIMIT: Final = 1024
_known_types: set[str] = set()
# Execution ids that passed before, so that the pattern is not matched for every frame of a busy one. 16,384 are 1.5 MB.
_KNOWN_IDS_LIMIT: Final = 16_384
_known_ids: set[str] = set()
_BIG_FLOAT: Final = float(1 << 63)
_AT_ONCE: Final = 64  # frames parsed together: so few that what they were is still in the cache when it is looked at
_WORD: Final = secrets.token_hex(8)
_BETWEEN: Final = b',"%b",' % _WORD.encode()


class _Refused(ValueError):
    """Why a value is not ours to store."""


class _Doubtful(Exception):
    """Only the text can tell whether this float was an integer."""


# ---------------------------------------------------------------- values


def _check(value: Any, room: int) -> None:
    """`room`: how many levels of nesting are left."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return
    if kind is int:
        if not -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
            raise _Refused("an integer beyond 2^53")
    elif kind is float:
        if not -_BIG_FLOAT < value < _BIG_FLOAT:
            raise _Doubtful
    else:
        if room <= 0:
            raise _Refused(f"nested deeper than {MAX_JSON_DEPTH}")
        for inner in value.values() if kind is dict else value:
            if type(inner) is not str:
                _check(inner, room - 1)


class _Unsayable:
    """What JSON for everybody cannot say, kept in its place by the lenient reader."""

    def __init__(self, why: str) -> None:
        self.why = why


def _integer(text: str) -> int | _Unsayable:
    # the length first: int() of a megabyte of digits is slow, and an error by itself
    if len(text) <= 17 and -MAX_SAFE_INTEGER <= (value := int(text)) <= MAX_SAFE_INTEGER:
        return value
    return _Unsayable("an integer beyond 2^53")


def lenient_loads(raw: bytes) -> Any:
    """Reads what is no JSON for everybody, to tell what is wrong with it. Raises ValueError, RecursionError."""
    text = raw.decode("utf-8", "surrogateescape")
    return json.loads(text, parse_int=_integer, parse_constant=lambda name: _Unsayable(f"{name} is not JSON"))


def _check_lenient(value: Any, room: int) -> None:
    if isinstance(value, _Unsayable):
        raise _Refused(value.why)
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Refused("text that is not UTF-8 (a lone surrogate)") from None
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _Refused("a number that is not finite")
    elif isinstance(value, (dict, list)):
        if room <= 0:
            raise _Refused(f"nested deeper than {MAX_JSON_DEPTH}")
        if isinstance(value, dict):
            for key in value:
                _check_lenient(key, 1)
        for inner in value.values() if isinstance(value, dict) else value:
            _check_lenient(inner, room - 1)


def strict_loads(raw: bytes, levels: int = MAX_JSON_DEPTH) -> Any:
    """A whole document (an HTTP body, a node's frame) to the same rules. Raises ValueError that says what is wrong."""
    try:
        value = orjson.loads(raw)
        _check(value, levels)
    except _Doubtful:
        try:
            value = lenient_loads(raw)
        except RecursionError:
            raise ValueError(f"nested deeper than {MAX_JSON_DEPTH}") from None
        _check_lenient(value, levels)
    return value


# ---------------------------------------------------------------- events


def _type_ok(name: str) -> bool:
    if len(name) > EVENT_TYPE_MAX or _TYPE.match(name) is None:
        return False
    if name.startswith(RESERVED_PREFIXES):
        return False
    if len(_known_types) < _KNOWN_TYPES_LIMIT:
        _known_types.add(name)
    return True


def _event(event: Any) -> EncodedEvent:
    """The way of nearly every event, in as few steps as it takes: what it does not let pass, `_judged` judges."""
    try:
        name, ts_ms, data = event["type"], event["ts_ms"], event["data"]
        if name in _known_types and type(ts_ms) is int and 0 <= ts_ms <= MAX_SAFE_INTEGER and type(data) is dict:
            for value in data.values():
                if type(value) is not str:
                    _check(value, MAX_JSON_DEPTH - 1)
            return _new(EncodedEvent, (name, ts_ms, orjson.dumps(data).decode()))
    except (KeyError, TypeError):  # no object, or without a member, or a type that is a list
        pass
    return _judged(event, lenient=False)


_new: Final = tuple.__new__  # a named tuple's own constructor takes twice as long


def _judged(event: Any, lenient: bool) -> EncodedEvent:
    if type(event) is not dict:
        raise _Refused("an event is an object")
    name = event.get("type")
    if type(name) is not str or not (name in _known_types or _type_ok(name)):
        raise _Refused("type is not a dotted lower-case name outside the reserved prefixes")
    ts_ms = event.get("ts_ms")
    if type(ts_ms) is not int or not 0 <= ts_ms <= MAX_SAFE_INTEGER:
        raise _Refused("ts_ms is not an integer of Unix milliseconds")
    data = event.get("data", _NOTHING)
    if type(data) is not dict:
        raise _Refused("data is not an object")
    if lenient:
        _check_lenient(data, MAX_JSON_DEPTH)
    else:
        for value in data.values():
            if type(value) is not str:
                _check(value, MAX_JSON_DEPTH - 1)
    return EncodedEvent(name, ts_ms, str(orjson.dumps(data), "utf-8"))


_NOTHING: Final[dict[str, Any]] = {}


def _id_ok(name: Any) -> bool:
    if type(name) is not str or not valid_id(name):
        return False
    if len(_known_ids) >= _KNOWN_IDS_LIMIT:
        _known_ids.clear()  # those at work now come back with their next frame
    _known_ids.add(name)
    return True


def _numbered(frame: dict[str, Any]) -> tuple[str, int] | None:
    eid, seq = frame.get("execution_id"), frame.get("seq")
    if type(seq) is int and 1 <= seq <= MAX_SAFE_INTEGER and type(eid) is str and (eid in _known_ids or _id_ok(eid)):
        return eid, seq
    return None


def _records(frame: dict[str, Any], size: int, lenient: bool) -> Item:
    head = _numbered(frame)
    if head is None:
        return Wrong("invalid_frame", "events needs execution_id and seq", size=size)
    eid, seq = head
    listed = frame.get("events")
    if type(listed) is not list or not listed or len(listed) > EVENTS_PER_FRAME:
        return Bad(eid, seq, "invalid", f"events is a list of 1 to {EVENTS_PER_FRAME}", size)
    if seq + len(listed) - 1 > MAX_SAFE_INTEGER:
        return Bad(eid, seq, "invalid", "seq beyond 2^53", size)
    good: list[EncodedEvent] = []
    try:
        for event in listed:  # one by one: what was good before a bad one is kept
            good.append(_judged(event, lenient) if lenient else _event(event))
    except _Refused as why:
        at = seq + len(good)
        bad = Bad(eid, at, "invalid", f"seq {at}: {why}", size)
        if not good:
            return bad
        bad.size = 0
        return Records(eid, seq, at - 1, good, size, tail=bad)
    return Records(eid, seq, seq + len(good) - 1, good, size)


def _fleeting(frame: dict[str, Any], size: int, lenient: bool) -> Item:
    eid, listed = frame.get("execution_id"), frame.get("events")
    if not valid_id(eid) or type(listed) is not list or not 0 < len(listed) <= EVENTS_PER_FRAME:
        return Wrong("invalid_frame", "ephemeral needs execution_id and events", size=size)
    try:
        events = [_judged(event, lenient) for event in listed]
    except _Refused as why:
        return Wrong("invalid_frame", f"ephemeral: {why}", size=size)
    shown = ",".join(f'{{"type":"{e.type}","ts_ms":{e.ts_ms},"data":{e.data}}}' for e in events)
    return Fleeting(str(eid), f'{{"type":"ephemeral","execution_id":"{eid}","events":[{shown}]}}', size)


# ---------------------------------------------------------------- frames


def decode(raw: bytes) -> Item:
    """One text frame. Never raises."""
    try:
        frame, lenient = orjson.loads(raw), False
    except orjson.JSONDecodeError as error:
        try:
            frame, lenient = lenient_loads(raw), True
        except (ValueError, RecursionError):
            return Wrong("invalid_frame", f"not JSON: {error}", fatal=True, size=len(raw))
    try:
        return _item(frame, len(raw), lenient)
    except _Doubtful:
        try:
            return _item(lenient_loads(raw), len(raw), True)
        except (ValueError, RecursionError):
            return Wrong("invalid_frame", f"nested deeper than {MAX_JSON_DEPTH}", fatal=True, size=len(raw))


def decode_all(raws: list[bytes]) -> list[Item]:
    """Text frames that were read together, in order: what `decode` says of each, but that what goes on where the frame
    before it ended is one Records with it. Never raises."""
    if len(raws) == 1:
        return [decode(raws[0])]
    items: list[Item] = []
    for at in range(0, len(raws), _AT_ONCE):
        _decode_some(raws[at : at + _AT_ONCE], items)
    return items


def _decode_some(raws: list[bytes], items: list[Item]) -> None:
    """Read as one array, with a word between each two frames that no peer knows: it stands alone in its places only if
    what is between the words is one value each, so a text that is no JSON by itself cannot pass for a part of it."""
    frames_: list[Any]
    try:
        found = orjson.loads(b"[%b]" % _BETWEEN.join(raws))
        frames_ = found[::2]
        if len(found) != 2 * len(raws) - 1 or found[1::2].count(_WORD) != len(raws) - 1:
            raise ValueError
    except ValueError:  # one of them is for the other reader
        items += [decode(raw) for raw in raws]
        return
    run: Records | None = None
    for raw, frame in zip(raws, frames_, strict=True):
        if run is not None and _goes_on(run, frame, len(raw)):
            continue
        try:
            item = _item(frame, len(raw), False)
        except _Doubtful:
            item = decode(raw)
        items.append(item)
        run = item if type(item) is Records and item.gap is None and item.tail is None else None


def _goes_on(run: Records, frame: Any, size: int) -> bool:
    """Adds to it a frame of the same execution that begins where it ends, if all of that is good; otherwise nothing."""
    try:
        seq, listed = frame["seq"], frame["events"]
        if (
            seq != run.last + 1
            or type(seq) is not int
            or frame["type"] != "events"
            or frame["execution_id"] != run.execution_id
            or type(listed) is not list
            or not 0 < len(listed) <= EVENTS_PER_FRAME - len(run.events)
            or seq > MAX_SAFE_INTEGER - EVENTS_PER_FRAME
        ):
            return False
        if len(listed) == 1:
            run.events.append(_event(listed[0]))
        else:
            run.events += [_event(event) for event in listed]
    except (KeyError, TypeError, _Refused, _Doubtful):  # judged by itself
        return False
    run.last = seq + len(listed) - 1
    run.size += size
    return True


def _item(frame: Any, size: int, lenient: bool) -> Item:
    if type(frame) is not dict:
        return Wrong("invalid_frame", "a frame is a JSON object", fatal=True, size=size)
    kind = frame.get("type")
    if kind == "events":
        return _records(frame, size, lenient)
    if kind == "heartbeat":
        return Beat(frame.get("busy") is True)
    if kind == "ephemeral":
        return _fleeting(frame, size, lenient)
    if kind == "ready":
        return Ready(size)
    if type(kind) is str and kind in _CONTROL:
        return _control(kind, frame, size, lenient)
    return Wrong("unknown_frame", f"type {str(kind)[:64]!r}", size=size)


def _control(kind: str, frame: dict[str, Any], size: int, lenient: bool) -> Item:
    try:
        # one level more than a value may have: the frame itself
        (_check_lenient if lenient else _check)(frame, MAX_JSON_DEPTH + 1)
        model = _CONTROL[kind].validate_python(frame)
        if kind == "gap":
            if model.to_seq < model.seq:
                _refuse("to_seq before seq")
            return Records(model.execution_id, model.seq, model.to_seq, [], size, gap=model)
        return Control(model, size)
    except ValidationError as error:
        detail = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
    except _Refused as why:
        detail = str(why)
    head = _numbered(frame) if kind in _NUMBERED else None
    if head is None:
        return Wrong("invalid_frame", f"{kind}: {detail}"[:500], size=size)
    return Bad(*head, "invalid", f"seq {head[1]}: {kind}: {detail}"[:500], size)


def _refuse(why: str) -> NoReturn:
    raise _Refused(why)


def hello_version(raw: bytes) -> int | None:
    """The protocol number of a hello of any version, so that a stranger can be told 4003 and not 4002."""
    try:
        frame = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    if type(frame) is dict and frame.get("type") == "hello" and type(frame.get("protocol")) is int:
        return int(frame["protocol"])
    return None
