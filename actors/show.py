"""What the command line prints: data on stdout, for people or (`--json`) for programs; messages on stderr."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def say(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone; what is said to nobody is no reason to fail
        print(text, file=sys.stderr, flush=True)


def program(name: str = "holdfast") -> str:
    """How who started us can start us (or our other program) again from any directory: its path, quoted."""
    for ours in (sys.argv[0], sys.executable):
        if os.path.isfile(ours) and (path := Path(ours).with_name(name)).is_file():
            return shlex.quote(os.path.abspath(path))
    return f"{shlex.quote(sys.executable)} -m {'actors' if name == 'holdfast' else 'wrapper'}"


def data(value: Any, as_json: bool, human: str | None = None) -> None:
    print(json.dumps(value, ensure_ascii=False) if as_json or human is None else human, flush=True)


def table(rows: Sequence[Sequence[object]], head: Sequence[str]) -> str:
    cells = [list(head), *([printable(str("-" if cell is None else cell)) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def printable(text: str) -> str:
    """Event text is text, never a terminal's commands: escape sequences of a stranger stay visible characters."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "�" for c in text)


def ago(at_ms: int | None) -> str:
    if at_ms is None:
        return "-"
    seconds = max(0, int(time.time() - at_ms / 1000))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def session_row(session: Mapping[str, Any]) -> list[object]:
    execution = session["active_execution"] or session["last_execution"] or {}
    return [
        session["session_id"],
        session["link"]["state"],
        execution.get("status", "idle"),
        session["queued"],
        session["last_seq"],
        ago(session["updated_at_ms"]),
        (session["title"] or "")[:40],
    ]


SESSION_HEAD = ("SESSION", "LINK", "EXECUTION", "QUEUED", "LAST SEQ", "UPDATED", "TITLE")


def session(resource: Mapping[str, Any]) -> str:
    lines = [table([session_row(resource)], SESSION_HEAD)]
    for name in ("active_execution", "last_execution"):
        if resource[name]:
            lines.append(f"{name.replace('_', ' ')}: {execution(resource[name])}")
    if resource["labels"]:
        lines.append("labels: " + " ".join(f"{k}={v}" for k, v in sorted(resource["labels"].items())))
    return "\n".join(lines)


def execution(resource: Mapping[str, Any]) -> str:
    text = f"{resource['execution_id']} {resource['status']}"
    if outcome := resource["outcome"]:
        told = [
            f"{name} {outcome[name]}" for name in ("cause", "exit_code", "signal", "error") if outcome[name] is not None
        ]
        text += f" ({', '.join(told)})" if told else ""
    if resource["interrupt"]:
        text += f" [interrupt {resource['interrupt']['stage']}]"
    return printable(text)


EXECUTION_HEAD = ("EXECUTION", "STATUS", "CREATED", "ENDED", "CAUSE", "EXIT")


def execution_row(resource: Mapping[str, Any]) -> list[object]:
    outcome = resource["outcome"] or {}
    created, ended = ago(resource["created_at_ms"]), ago(resource["ended_at_ms"])
    exit_code = outcome.get("exit_code")
    return [resource["execution_id"], resource["status"], created, ended, outcome.get("cause"), exit_code]


WEBHOOK_HEAD = ("WEBHOOK", "STATE", "TRIES", "SESSION", "EXECUTION", "CREATED", "STATUS", "ERROR", "URL")


def webhook_row(resource: Mapping[str, Any]) -> list[object]:
    names = ("webhook_id", "state", "attempts", "session_id", "execution_id")
    told = [resource["last_status"], (resource["last_error"] or "-")[:40], resource["url"]]
    return [*(resource[name] for name in names), ago(resource["created_at_ms"]), *told]


AUDIT_HEAD = ("WHEN", "WHO", "ACTION", "SESSION", "EXECUTION", "OBJECT", "OUTCOME")


def audit_row(resource: Mapping[str, Any]) -> list[object]:
    names = ("by", "action", "session_id", "execution_id", "object_id", "outcome")
    return [ago(resource["at_ms"]), *(resource[name] for name in names)]


def facts(resource: Mapping[str, Any]) -> str:
    """One line per member."""
    width = max(map(len, resource))
    return "\n".join(printable(f"{k.ljust(width)}  {'-' if v is None else v}") for k, v in resource.items())


TOKEN_HEAD = ("TOKEN", "SCOPE", "FOR", "CREATED", "STATE")


def token_row(resource: Mapping[str, Any]) -> list[object]:
    bound = resource["session_id"] or resource["node_id"] or resource["station_id"]
    expires_at_ms = resource["expires_at_ms"]
    state = "holds"
    if expires_at_ms is not None:
        until = time.strftime("until %F %T Z", time.gmtime(expires_at_ms / 1000))
        state = "expired" if expires_at_ms <= time.time() * 1000 else until
    if resource["revoked_at_ms"] is not None:
        state = "revoked"
    return [resource["token_id"], resource["scope"], bound, ago(resource["created_at_ms"]), state]


def event(row: Mapping[str, Any], as_json: bool, *, lines_are_data: bool = True) -> None:
    """Output as it is, to the stream that it was written to; everything else as a line: on stdout, or (for `--wait`,
    whose data is the output alone) on stderr."""
    if as_json:
        print(json.dumps(row, ensure_ascii=False), flush=True)
        return
    if row["type"] == "output":
        stream = sys.stderr if row["data"].get("stream") == "stderr" else sys.stdout
        if "base64" in row["data"]:
            stream.flush()
            stream.buffer.write(base64.b64decode(row["data"]["base64"]))
        else:
            stream.write(str(row["data"].get("text", "")))
        stream.flush()
        return
    told = {k: v for k, v in row["data"].items() if isinstance(v, str | int | float | bool) and k != "execution_id"}
    words = " ".join(f"{name}={str(value)[:80]}" for name, value in list(told.items())[:6])
    line = printable(f"· {row['seq']} {row['type']} {row['execution_id'] or ''} {words}").rstrip()
    print(line, flush=True) if lines_are_data else say(line)
