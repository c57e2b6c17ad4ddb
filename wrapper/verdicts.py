"""How an execution's end is told: from what the shim saw to the `final` frame's fields. Pure.

Exit code 0 is completed, another one or a signal is failed; once a ladder was begun it is interrupted, whatever the
agent made of it. What never ran, or whose witness is gone, says so in `data`.
"""

from __future__ import annotations

import errno
import signal as signals
from typing import Any

from wrapper.ladder import Ladder
from wrapper.shimctl import Exit

Final = dict[str, Any]


def of_exit(report: Exit, ladder: Ladder | None, command: str) -> Final:
    number = None if report.signal is None else _name(report.signal)
    final = _final("failed", report.exit_code, number)
    if report.kind == "gate_shut" and ladder is not None:
        return _final("interrupted", error=ladder.reason)
    if report.kind == "gate_shut":
        error = "the wrapper died while it opened the gate; the command never ran"
        return _final("failed", error=error, data={"cause": "start_failed"})
    if report.kind == "exec_failed":
        code, _, words = (report.error or "").partition(" ")
        missing = code.isdigit() and int(code) in (errno.ENOENT, errno.ENOTDIR)
        # The shell's numbers: 127 not found, 126 found and not runnable.
        error = f"cannot run {command}: {_without(words, command)}"
        return _final("failed", 127 if missing else 126, error=error, data={"cause": "start_failed"})
    if ladder is not None:
        final["status"] = "interrupted"
        final["error"] = None if ladder.kind == "interrupt" else ladder.reason
    elif report.orphaned:
        final["error"] = "no wrapper came back in time; the shim ended the agent"
        final["data"] = {"cause": "agent_error", "detail": "orphaned"}
    elif report.exit_code == 0:
        final["status"] = "completed"
    else:
        final["error"] = f"killed by {number}" if number else f"exit code {report.exit_code}"
    return final


def _without(words: str, command: str) -> str:
    """The kernel's words without the path that was tried last, unless it is another one than the command's."""
    reason, _, path = words.rpartition(": ")
    path = path.removeprefix("b'").removesuffix("'")  # a search along PATH is done in bytes
    mine = path == command or ("/" not in command and path.rpartition("/")[2] == command)
    return (reason if mine else f"{reason}: {path}") if reason else words


def of_shim_lost(ladder: Ladder | None) -> Final:
    error, data = "the shim between wrapper and agent is gone", {"cause": "agent_error", "detail": "shim_lost"}
    return _final("failed" if ladder is None else "interrupted", error=error, data=data)


def of_never_ran(ladder: Ladder | None, why: str) -> Final:
    if ladder is not None:
        return _final("interrupted", error=why)
    return _final("failed", error=why, data={"cause": "start_failed"})


def _final(
    status: str,
    exit_code: int | None = None,
    signal: str | None = None,
    error: str | None = None,
    data: dict[str, Any] | None = None,
) -> Final:
    return {"status": status, "exit_code": exit_code, "signal": signal, "error": error, "data": data or {}}


def _name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"SIG{number}"
