"""The operator's commands that are more than one request: send and wait, follow, fail the active one."""

from __future__ import annotations

import sys
from typing import Any

from actors import show
from actors.http_client import Client
from actors.protocol.codes import EXIT_CONFLICT, EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK, TERMINAL
from actors.protocol.ids import new_id

EXIT_OF_STATUS = {"completed": EXIT_OK, "failed": EXIT_FAILURE, "interrupted": EXIT_INTERRUPTED}


def read_text(text: str | None) -> str | None:
    return sys.stdin.read() if text == "-" else text


async def send(
    client: Client, session_id: str, text: str | None, *, execution_id: str | None, wait: bool, as_json: bool
) -> int:
    """The id is made here, before the first try: a repeat over a lost connection is the same execution."""
    execution_id = execution_id or new_id("execution")
    after_seq = (await client.get(f"/v1/sessions/{session_id}"))["last_seq"] if wait else 0
    body: dict[str, Any] = {"execution_id": execution_id, "input": read_text(text)}
    made = await client.post(f"/v1/sessions/{session_id}/executions", body)
    if not wait:
        show.data(made, as_json, show.execution(made))
        return EXIT_OK
    if made["status"] in TERMINAL:  # a repeat of an execution that has ended: its output is in the past
        after_seq = 0
    async for frame in client.follow(session_id, after_seq=after_seq, execution_id=execution_id, say=show.say):
        for row in frame["events"] if frame["type"] == "events" else ():
            show.event(row, as_json, lines_are_data=False)
            if row["type"] in ("execution.completed", "execution.failed", "execution.interrupted"):
                return EXIT_OF_STATUS[row["type"].removeprefix("execution.")]
    show.say("holdfast: the session was closed")
    return EXIT_FAILURE


async def tail(
    client: Client,
    session_id: str,
    *,
    after_seq: int | None,
    types: str | None,
    execution_id: str | None,
    until_caught_up: bool,
    as_json: bool,
) -> int:
    frames = client.follow(session_id, after_seq=after_seq, types=types, execution_id=execution_id, say=show.say)
    async for frame in frames:
        kind = frame["type"]
        if kind == "events":
            for row in frame["events"]:
                show.event(row, as_json)
        elif kind == "reset":
            show.say(
                f"holdfast: the cursor could not be honoured ({frame['reason']}); on from seq {frame['first_seq']}"
            )
        elif kind == "ephemeral" and as_json:
            show.data(frame, True)
        elif kind == "caught_up" and until_caught_up:
            return EXIT_OK
    show.say("holdfast: the session was closed")
    return EXIT_OK


async def fail(client: Client, session_id: str, execution_id: str | None, *, error: str, as_json: bool) -> int:
    if execution_id is None:
        active = (await client.get(f"/v1/sessions/{session_id}"))["active_execution"]
        if active is None:
            show.say(f"holdfast: no execution is active in {session_id}; name one")
            return EXIT_CONFLICT
        execution_id = str(active["execution_id"])
    told = await client.post(f"/v1/sessions/{session_id}/executions/{execution_id}/fail", {"error": error})
    changed = "" if told["changed"] else "  (it had ended before; nothing was changed)"
    show.data(told, as_json, show.execution(told["execution"]) + changed)
    return EXIT_OK
