"""What happened, told once: `emit("wrapper.disconnected", session_id=…)`. One subscriber picks words and levels.

Never payloads: fields are names, numbers and short reasons. Long text is cut, and names that carry secrets or people's
data are dropped even if somebody passes them by mistake.
"""

from __future__ import annotations

import json as jsonlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

Subscriber = Callable[[str, Mapping[str, Any]], None]

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
# Event → level; the longest matching dotted prefix counts, then the ending, then "info".
_LEVEL_OF = {
    "debug": "debug",
    "frame": "debug",
    "store.broken": "error",
    "store.unavailable": "warning",
    "wrapper.disconnected": "info",
    "actor.died": "warning",
    "actor.frozen": "warning",
    "gateway.unhealthy": "warning",
    "up.head_died": "warning",
}
_LEVEL_OF_ENDING = {
    "failed": "error",
    "crashed": "error",
    "broken": "error",
    "refused": "warning",
    "dropped": "warning",
    "dead": "warning",
}
_NEVER = frozenset(
    {"token", "secret", "authorization", "ticket", "input", "data", "payload", "argv", "headers", "text"}
)
_FIELD_MAX = 500  # characters: a reason fits, a payload does not


def level_of(event: str) -> str:
    parts = event.split(".")
    for n in range(len(parts), 0, -1):
        if level := _LEVEL_OF.get(".".join(parts[:n])):
            return level
    return _LEVEL_OF_ENDING.get(parts[-1], "info")


def _nothing(event: str, fields: Mapping[str, Any]) -> None:
    return None


_subscriber: Subscriber = _nothing


def emit(event: str, **fields: Any) -> None:
    """Says that something happened. Never raises into the caller: telling is not worth failing for."""
    try:
        _subscriber(event, {name: _short(value) for name, value in fields.items() if name not in _NEVER})
    except Exception as error:
        print(f"telemetry: {event}: {error!r}", file=sys.stderr)


def subscribe(subscriber: Subscriber) -> Subscriber:
    """Replaces the one subscriber; returns the one before, so that a test can put it back."""
    global _subscriber
    before, _subscriber = _subscriber, subscriber
    return before


def configure(level: str = "info", json: bool | None = None) -> None:
    """To stderr, from this level on: JSON lines or `time level event key=value` (structlog, if installed).

    json None: JSON unless stderr is a terminal, because then a program reads it.
    """
    floor = LEVELS[level]
    if json is None:
        json = not sys.stderr.isatty()
    render = _structlog_renderer(json) or (_json_line if json else _plain_line)

    def tell(event: str, fields: Mapping[str, Any]) -> None:
        word = level_of(event)
        if LEVELS[word] >= floor:
            print(render(word, event, fields), file=sys.stderr, flush=True)

    subscribe(tell)


Renderer = Callable[[str, str, Mapping[str, Any]], str]


def _structlog_renderer(json: bool) -> Renderer | None:
    try:
        import structlog
    except ImportError:
        return None
    last: Any
    if json:
        last = structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
    else:
        last = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)

    def render(word: str, event: str, fields: Mapping[str, Any]) -> str:
        # `event`, `level` and `timestamp` are structlog's own names; a field of that name must not overwrite them
        row = {f"_{k}" if k in ("event", "level", "timestamp") else k: v for k, v in fields.items()}
        return str(last(None, word, {"event": event, "level": word, "timestamp": _now(), **row}))

    return render


def _now() -> str:
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"


def _plain_line(word: str, event: str, fields: Mapping[str, Any]) -> str:
    pairs = " ".join(f"{name}={value}" for name, value in fields.items())
    return f"{_now()} {word:<7} {event} {pairs}".rstrip()


def _json_line(word: str, event: str, fields: Mapping[str, Any]) -> str:
    return jsonlib.dumps(
        {**fields, "timestamp": _now(), "level": word, "event": event}, default=str, ensure_ascii=False
    )


def _short(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else repr(value) if isinstance(value, BaseException) else str(value)
    return text if len(text) <= _FIELD_MAX else text[: _FIELD_MAX - 1] + "…"
