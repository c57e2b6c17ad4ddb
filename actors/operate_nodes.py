"""The commands about nodes that are more than one request: invoke and wait, follow a log, join, be a fake device."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from actors import show, show_nodes
from actors.http_client import Client, Problem
from actors.protocol.codes import (
    CLOSE,
    EXIT_CONFLICT,
    EXIT_FAILURE,
    EXIT_NOT_FOUND,
    EXIT_OK,
    EXIT_UNAVAILABLE,
)
from actors.protocol.defaults import INVOKE_TIMEOUT_S
from actors.protocol.ids import ulid

MARGIN_S: Final = 15.0  # beyond the deadline that the service itself keeps
UNBOUNDED_S: Final = 60.0  # the service answers a wait without a deadline after this; then we ask again
BACK_WITHIN_S: Final = 30.0  # a gateway that dies is back in seconds; whoever waits for an outcome waits for that too
ASK_EVERY_S: Final = 0.5
ASK_JOIN_S: Final = 2.0  # a person has to decide

# Of what was certainly not executed: 5 is "try again", 4 is "look first". Whatever may have been executed is a 1.
EXIT_OF_ERROR: Final = {
    "NOT_CONNECTED": EXIT_UNAVAILABLE,
    "UNAVAILABLE": EXIT_UNAVAILABLE,
    "DISCONNECTED": EXIT_UNAVAILABLE,
    "TIMEOUT": EXIT_UNAVAILABLE,
    "IDLE_TIMEOUT": EXIT_UNAVAILABLE,
    "ROUTE_CHANGED": EXIT_CONFLICT,
}


def read_json(text: str | None, what: str) -> Any:
    """Raises Problem (usage)."""
    if text is None:
        return None
    try:
        return json.loads(sys.stdin.read() if text == "-" else text)
    except ValueError as error:
        detail = f"{what} is not JSON: {error}"
        raise Problem(
            {"status": 400, "code": "bad_json", "detail": detail, "hint": """Quote it: '{"s": 1}'."""}
        ) from None


async def invoke(
    client: Client,
    node_id: str,
    command: str,
    params: str | None,
    *,
    role: str | None,
    timeout_s: float | None,
    idle_timeout_s: float | None,
    expected_connection_id: str | None,
    key: str | None,
    wait: bool,
    as_json: bool,
    back_within_s: float = BACK_WITHIN_S,
) -> int:
    """The key is made here, before the first try: a gateway that dies while we wait is asked again for the same
    invocation, never for a second one."""
    body = {
        "command": command,
        "params": read_json(params, "PARAMS"),
        "role": role,
        "timeout_s": timeout_s,
        "idle_timeout_s": idle_timeout_s,
        "expected_connection_id": expected_connection_id,
    }
    body = {name: value for name, value in body.items() if value is not None} | {"wait": wait}
    within_s = (INVOKE_TIMEOUT_S if timeout_s is None else timeout_s or UNBOUNDED_S) + MARGIN_S
    key = key or ulid()
    try:
        told = await client.post(
            f"/v1/nodes/{node_id}/invoke", body, key=key, within_s=within_s, back_within_s=back_within_s
        )
    except Problem as problem:
        if not problem.unknown:
            raise
        show.say(f"holdfast: {problem.detail}; it may have been executed. The same with --key {key} is no second one")
        return EXIT_FAILURE
    if wait:
        try:
            told = await settled(client, told, back_within_s)
        except Problem as problem:
            iid = told["invocation_id"]
            show.say(f"holdfast: {problem.detail}; it may have been executed. See `holdfast invocation show {iid}`")
            return EXIT_FAILURE
    tell(told, as_json)
    return exit_code(told) if told["ok"] is False else EXIT_OK


async def settled(client: Client, invocation: dict[str, Any], back_within_s: float) -> dict[str, Any]:
    """Waits on when the service has given up waiting: what the invocation's own deadline bounds needs none here. A
    service that is away meanwhile is waited for, for a while."""
    loop = asyncio.get_running_loop()
    answered = loop.time()
    while invocation["state"] != "settled":
        await asyncio.sleep(ASK_EVERY_S)
        try:
            invocation = await client.get(f"/v1/invocations/{invocation['invocation_id']}")
            answered = loop.time()
        except Problem as problem:
            if problem.status not in (0, 429, 503) or loop.time() - answered > back_within_s:
                raise
    return invocation


def tell(invocation: dict[str, Any], as_json: bool) -> None:
    """The payload is the data; an error is a message, and stdout stays empty for it."""
    if as_json or invocation["ok"]:
        show.data(invocation, as_json, json.dumps(invocation["payload"], ensure_ascii=False))
    elif invocation["ok"] is None:
        show.data(invocation, False, f"{invocation['invocation_id']} {invocation['state']}")
    else:
        error = invocation["error"]
        safe = "it may have been executed" if error["dispatched"] else "it was certainly not executed"
        words = f"{invocation['invocation_id']} {error['code']}: {error['message']} ({safe})"
        show.say(f"holdfast: {show.printable(words)}")


def exit_code(invocation: dict[str, Any]) -> int:
    error = invocation["error"]
    return EXIT_FAILURE if error["dispatched"] else EXIT_OF_ERROR.get(str(error["code"]), EXIT_FAILURE)


async def events(
    client: Client, node_id: str, *, after_seq: int | None, limit: int, follow: bool, as_json: bool
) -> int:
    """A node's log, oldest first; after_seq None: the last `limit` of it."""
    path = f"/v1/nodes/{node_id}/events"
    if after_seq is None:
        after_seq = max(0, (await client.get(path, {"limit": 1}))["last_seq"] - limit)
    left, down = limit, False
    while follow or left > 0:
        try:
            page = await client.get(path, {"after_seq": after_seq, "limit": 100 if follow else min(100, left)})
        except Problem as problem:
            if not follow or problem.status not in (0, 429, 503):
                raise
            if not down:
                show.say(f"holdfast: {problem.detail}; trying again")
            down = True
            await asyncio.sleep(ASK_EVERY_S)
            continue
        if follow and page["last_seq"] < after_seq:
            show.say(f"holdfast: {node_id} was forgotten and is here anew; its log begins again")
            after_seq = 0
            continue
        down = False
        for row in page["items"]:
            show.data(row, as_json, show_nodes.log_line(row))
            after_seq = int(row["seq"])
        left -= len(page["items"])
        if not page["items"]:
            if not follow:
                break
            await asyncio.sleep(ASK_EVERY_S)
    return EXIT_OK


# -------------------------------------------------------------------- enrolment, from the device's side


async def join(
    client: Client, node_id: str, code: str, token_file: Path, *, name: str | None, commands: Sequence[str], wait: bool
) -> int:
    """Asks to be let in and waits for somebody's decision; the token goes to the file, and nowhere else.

    The claim is written down before it is sent: a device that dies while it waits asks on with it, in its next life.
    """
    pending = token_file.with_name(token_file.name + ".claim")
    claim = json.loads(pending.read_text()) if pending.exists() else {}
    if not code and (claim.get("node_id") != node_id or "enrolment_id" not in claim):
        detail = "no enrolment code: HOLDFAST_ENROLMENT_CODE is not set, and stdin has none"
        raise Problem({"status": 400, "code": "no_code", "detail": detail, "hint": "`holdfast node enrol` makes one."})
    if claim.get("node_id") != node_id:
        claim = {"node_id": node_id, "claim": ulid() + ulid()}
        write_secret(pending, json.dumps(claim))
    if "enrolment_id" not in claim:
        body: dict[str, Any] = {"code": code, "node_id": node_id, "commands": list(commands), "claim": claim["claim"]}
        made = await client.post("/v1/enrolments", body | ({"name": name} if name else {}))
        claim["enrolment_id"] = made["enrolment_id"]
        write_secret(pending, json.dumps(claim))
    show.say(f"holdfast: {claim['enrolment_id']} waits for an operator: holdfast node approve {claim['enrolment_id']}")
    while True:
        try:
            told = await client.post(f"/v1/enrolments/{claim['enrolment_id']}/claim", {"claim": claim["claim"]})
        except Problem as problem:
            if problem.status == 404:  # nobody remembers that we asked: ask anew, with a fresh code
                pending.unlink()
            raise
        if told["state"] == "approved" and told.get("token"):
            write_secret(token_file, told["token"])
            pending.unlink()
            show.say(f"holdfast: {node_id} was let in; its token is in {token_file}")
            return EXIT_OK
        if told["state"] != "pending":
            pending.unlink()
            how = "was rejected" if told["state"] == "rejected" else "was let in before, and its token was given out"
            show.say(f"holdfast: {node_id} {how}")
            return EXIT_CONFLICT
        if not wait:
            return EXIT_UNAVAILABLE
        await asyncio.sleep(ASK_JOIN_S)


def write_secret(path: Path, text: str) -> None:
    """All or nothing, readable by us alone from its first byte."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd, part = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(fd, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


# -------------------------------------------------------------------- the fake device


EXIT_OF_CLOSE: Final = {
    CLOSE["superseded"]: EXIT_CONFLICT,
    CLOSE["not_found"]: EXIT_NOT_FOUND,
    CLOSE["session_closed"]: EXIT_NOT_FOUND,
}


def fake(settings: Any, *, as_json: bool) -> int:
    """Runs wrapper.fakedevice until a signal, or until it is told not to come back. Raises SpoolError."""
    from wrapper.fakedevice import FakeDevice, to_lines

    def to_stderr(name: str, **fields: object) -> None:
        words = " ".join(f"{key}={value}" for key, value in fields.items() if value is not None)
        show.say(f"holdfast: {name} {words}".rstrip())

    async def serve() -> int:
        device = FakeDevice(settings, to_lines if as_json else to_stderr)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, device.leave)
        ended = await device.run()
        if ended.why == "left":
            return EXIT_OK
        show.say(f"holdfast: told not to come back: {ended.close_code} {ended.reason}")
        return EXIT_OF_CLOSE.get(ended.close_code or 0, EXIT_FAILURE)

    return asyncio.run(serve())
