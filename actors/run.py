"""`holdfast run -- ARGV`: one execution of one command, under a wrapper inside this process (PROTOCOL §6).

The execution's id is made here before anything is asked, so a repeat over a lost connection is the same execution, and
the wrapper takes only the `start` of that one. The command's exit code is ours; a final that nobody acknowledged keeps
its spool and says so with 5. The command is ours too: what ends us (Ctrl-C, SIGTERM, SIGHUP) ends it, by the ladder.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors import show
from actors.http_client import Client, Problem
from actors.protocol.codes import (
    CLOSE,
    ERRORS,
    EXIT_CONFLICT,
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_NOT_FOUND,
    EXIT_UNAVAILABLE,
)
from actors.protocol.ids import new_id
from wrapper.app import KILL_AFTER_S
from wrapper.embed import RunResult, run_once

EXIT_OF_CLOSE = {
    CLOSE["superseded"]: EXIT_CONFLICT,
    CLOSE["not_found"]: EXIT_NOT_FOUND,
    CLOSE["session_closed"]: EXIT_NOT_FOUND,
}
WORDS_OF_CLOSE = {
    CLOSE["superseded"]: "another wrapper took the session over",
    CLOSE["not_found"]: "there is no such session any more: the end can never be delivered",
    CLOSE["session_closed"]: "the session was deleted: the end can never be delivered",
}


async def run_command(
    client: Client,
    argv: Sequence[str],
    *,
    session_id: str | None,
    takeover: bool,
    title: str | None,
    final_wait_s: float,
    as_json: bool,
    token_file: str | None = None,
) -> int:
    """``token_file``: where the token came from, for what we tell people to type.

    Returns the exit code. Raises Problem (link_connected without takeover, and what the service says)."""
    session = await _session(client, session_id, takeover, title or " ".join(argv)[:200])
    session_id, execution_id = str(session["session_id"]), new_id("execution")
    await client.post(f"/v1/sessions/{session_id}/executions", {"execution_id": execution_id})
    show.say(f"holdfast: session {session_id}, execution {execution_id}")
    spool_dir = _spool_dir(execution_id)
    result = await run_once(
        url=client.url,
        session_id=session_id,
        token=client.token,
        argv=argv,
        spool_dir=str(spool_dir),
        execution_id=execution_id,
        on_output=_show_json if as_json else _show,
        final_wait_s=final_wait_s,
        on_signal=_on_signal,
        on_waiting=_on_waiting,
    )
    if as_json:
        ended = {"status": result.status, "exit_code": result.exit_code, "signal": result.signal, "acked": result.acked}
        show.data({"session_id": session_id, "execution_id": execution_id, **ended}, True)
    over = result.status is not None
    if result.acked or not result.started or (over and result.close_code in EXIT_OF_CLOSE):
        shutil.rmtree(spool_dir, ignore_errors=True)  # nothing in it that anybody could still be told
    token_words = "" if token_file is None else f" --token-file {shlex.quote(token_file)}"
    deliver = f"{show.program('holdfast-wrapper')} --url {shlex.quote(client.url)} --session {session_id}{token_words}"
    return _exit_code(result, spool_dir, f"{deliver} --spool-dir {shlex.quote(str(spool_dir))} --once -- true")


def _on_signal(number: int, count: int, running: bool) -> None:
    if not running:
        return
    name = signal.Signals(number).name
    if count == 1:
        again = "Ctrl-C again to force" if number == signal.SIGINT else "again to force"
        ladder = f"SIGINT → SIGTERM → SIGKILL within {KILL_AFTER_S:.0f} s"
        show.say(f"holdfast: {name}: ending it ({ladder}); {again}")
    elif count == 2:
        show.say("holdfast: by force: SIGTERM, SIGKILL after 1 s; once more kills it at once")
    else:
        show.say("holdfast: killed; leaving")


def _on_waiting(seconds: float) -> None:
    show.say(
        f"holdfast: it has ended; waiting up to {seconds:.0f} s for the service to acknowledge that (Ctrl-C leaves; "
        "nothing is lost)"
    )


def _spool_dir(execution_id: str) -> Path:
    path = Path(f"~/.local/state/holdfast/run/{execution_id}").expanduser()
    path.mkdir(parents=True, mode=0o700)
    return path


async def _session(client: Client, session_id: str | None, takeover: bool, title: str) -> dict[str, Any]:
    if session_id is None:
        made: dict[str, Any] = await client.post("/v1/sessions", {"session_id": new_id("session"), "title": title})
        return made
    try:
        found: dict[str, Any] = await client.get(f"/v1/sessions/{session_id}")
    except Problem as problem:
        if problem.code != "session_not_found":
            raise
        made = await client.post("/v1/sessions", {"session_id": session_id, "title": title})
        return made
    if found["link"]["state"] == "connected" and not takeover:
        row = ERRORS["link_connected"]
        detail = f"a wrapper is connected to {session_id}"
        raise Problem({"status": row.status, "code": row.code, "detail": detail, "hint": row.hint})
    return found


def _exit_code(result: RunResult, spool_dir: Path, deliver: str) -> int:
    if result.close_code in EXIT_OF_CLOSE and not result.acked:
        show.say(f"holdfast: {WORDS_OF_CLOSE[result.close_code]}")
        return EXIT_OF_CLOSE[result.close_code]
    if result.started and not result.acked:
        why = f" ({result.reason})" if result.reason and result.why != "not_acked" else ""
        show.say(f"holdfast: the end was not acknowledged{why}; its spool is kept: {spool_dir}")
        show.say(f"  When the service is there, deliver it: {deliver}")
    if result.stopped_by is not None:
        return 128 + result.stopped_by
    if result.why == "interrupted":
        return EXIT_INTERRUPTED
    if result.started and not result.acked:
        return EXIT_UNAVAILABLE
    if result.cause is not None and result.error:
        show.say(f"holdfast: {show.printable(result.error)}")
    if result.exit_code is not None:
        return result.exit_code
    if result.signal is not None:
        return 128 + _number(result.signal)
    if (result.error and result.cause is None) or (result.reason and not result.error):
        show.say(f"holdfast: {show.printable(result.error or result.reason)}")
    if result.status == "interrupted":
        return EXIT_INTERRUPTED
    return EXIT_FAILURE


def _number(name: str) -> int:
    try:
        return int(signal.Signals[name])
    except KeyError:
        return 0


def _show(stream: str, data: bytes) -> None:
    target = sys.stderr if stream == "stderr" else sys.stdout
    try:
        target.buffer.write(data)
        target.flush()
    except OSError:  # our reader left, or the terminal; the execution goes on, its output is in the session
        os.dup2(os.open(os.devnull, os.O_WRONLY), target.fileno())


def _show_json(stream: str, data: bytes) -> None:
    try:
        row = {"stream": stream, "text": data.decode()}
    except UnicodeDecodeError:
        row = {"stream": stream, "base64": base64.b64encode(data).decode()}
    _show("stdout", json.dumps(row, ensure_ascii=False).encode() + b"\n")
