"""`holdfast node prove`: the live proof that a late close of an old connection changes nothing.

Each round connects a second time under the same node id, lets the old socket linger unread, and closes it late, with no
closing handshake. Rounds differ in who the newcomer is (another instance, or a later attempt of the same one) and in
whether the old socket is closed before the invocation or after it. In the latter, the old one first sends a result of
its own for the newcomer's invocation. All the while somebody asks whether the node is connected, as fast as answers
come. At the end the owner itself goes, and that must be seen: else the proof could not fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from actors.http_client import Client
from actors.protocol.codes import CLOSE, PROTOCOL_VERSION
from actors.protocol.ids import new_id
from wrapper.connection import Closed, Dialer, Socket, node_url

COMMANDS: Final = ("device.info", "echo")
ANSWER_S: Final = 15.0  # for one frame or one answer; three control deadlines
WATCH_S: Final = 0.02
WATCH_PATIENCE_S: Final = 30.0  # a door that is shut is no evidence about the node; one that stays shut is a failure


class Peer:
    """One connection of the node, whose frames and silences are ours to choose. Raises Closed, TimeoutError."""

    def __init__(
        self, url: str, node_id: str, name: str, instance_id: str, attempt: int, answer_s: float = ANSWER_S
    ) -> None:
        self.name, self.instance_id, self.attempt, self.answer_s = name, instance_id, attempt, answer_s
        self.requests = 0
        self.ignored: set[str] = set()
        self.connection_id = ""
        self.close_code: int | None = None
        self.hold = asyncio.Event()  # answers wait for it
        self.hold.set()
        self.asked = asyncio.Event()
        self._dialer = Dialer(node_url(url, node_id, "node"))
        self._socket: Socket | None = None
        self._reader: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._heard = asyncio.Condition()

    async def connect(self, token: str) -> None:
        self._socket = await self._dialer.dial(token)
        hello = {
            "type": "hello",
            "protocol": PROTOCOL_VERSION,
            "instance_id": self.instance_id,
            "attempt": self.attempt,
            "client": {"name": "holdfast-prove", "version": ""},
            "commands": list(COMMANDS),
            "capabilities": {},
        }
        await self.say(hello)
        async with asyncio.timeout(self.answer_s):
            while (frame := await self._socket.receive()).get("type") != "hello_ack":
                continue
        self.connection_id = str(frame["connection_id"])
        self._beating = asyncio.create_task(self._beat(float(frame["heartbeat_interval_s"])))
        self.listen()

    async def say(self, frame: dict[str, Any]) -> None:
        assert self._socket is not None
        await self._socket.send(json.dumps(frame))

    def listen(self) -> None:
        self._reader = asyncio.create_task(self._read())

    async def linger(self) -> None:
        """Reads no more: whatever comes, a close too, stays in the socket's buffer."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def close_late(self) -> None:
        """Reads what it was sent while it lingered, and is gone without a closing handshake."""
        self.listen()
        assert self._reader is not None
        await asyncio.wait([self._reader], timeout=self.answer_s)
        await self.end()

    async def _beat(self, every_s: float) -> None:
        """A slow host may not make the proof's own silence the reason for an end."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.say({"type": "heartbeat"})
            except Closed:
                return  # the reader says how

    async def end(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        if self._socket is not None:
            self._socket.cut()
        await self.linger()
        await self._dialer.close()

    async def hears_ignored(self, invocation_id: str) -> bool:
        try:
            async with asyncio.timeout(self.answer_s), self._heard:
                await self._heard.wait_for(lambda: invocation_id in self.ignored)
        except TimeoutError:
            return False
        return True

    async def answer(self, invocation_id: str) -> None:
        payload = {"handled_by": self.name, "connection_id": self.connection_id}
        await self.say({"type": "invoke_result", "invocation_id": invocation_id, "ok": True, "payload": payload})

    async def _read(self) -> None:
        assert self._socket is not None
        try:
            while True:
                frame = await self._socket.receive()
                if frame.get("type") == "invoke":
                    self.requests += 1
                    self.asked.set()
                    await self.hold.wait()
                    await self.answer(str(frame["invocation_id"]))
                elif frame.get("type") == "ignored":
                    async with self._heard:
                        self.ignored.add(str(frame["invocation_id"]))
                        self._heard.notify_all()
        except Closed as closed:
            self.close_code = closed.code


@dataclass
class Round:
    """One connect over an old connection: what was seen, and which of it should not have been."""

    number: int
    newcomer: str
    closed: str
    facts: dict[str, Any] = field(default_factory=dict)
    violated: list[str] = field(default_factory=list)

    def note(self, name: str, value: Any, expected: Any) -> None:
        self.facts[name] = value
        if value != expected:
            self.violated.append(f"{name} is {value!r}, not {expected!r}")

    def resource(self) -> dict[str, Any]:
        told = {"round": self.number, "newcomer": self.newcomer, "old_closed": self.closed}
        return {**told, **self.facts, "violated": self.violated}

    def line(self) -> str:
        facts = " ".join(f"{name}={_word(value)}" for name, value in self.facts.items())
        verdict = "ok" if not self.violated else "VIOLATED: " + "; ".join(self.violated)
        return f"{self.number:>3}  newcomer={self.newcomer} old_closed={self.closed} {facts}  {verdict}"


@dataclass
class Proof:
    rounds: list[Round] = field(default_factory=list)
    looked: int = 0
    looked_disconnected: int = 0
    violated: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return not self.violated and not any(one.violated for one in self.rounds)

    def note(self, name: str, value: Any, expected: Any) -> None:
        self.facts[name] = value
        if value != expected:
            self.violated.append(f"{name} is {value!r}, not {expected!r}")


Midway = Callable[[int], Awaitable[None]]


async def _nothing(number: int) -> None:
    return


async def prove(
    client: Client,
    node_id: str,
    token: str,
    *,
    times: int,
    say: Callable[[Round], None] = lambda one: None,
    midway: Midway = _nothing,
    answer_s: float = ANSWER_S,
) -> Proof:
    """midway: called between the newcomer's connect and the old one's close, with the round's number.

    answer_s: how long an answer may take before it counts as none. Raises Problem, Closed and TimeoutError when there
    is no service to prove anything about, or a node that may not be asked.
    """
    proof = Proof()
    past = await _past(client, node_id)
    old = Peer(client.url, node_id, "first", new_id("instance"), 1, answer_s)
    await old.connect(token)
    watching = asyncio.create_task(_watch(client, node_id, proof))
    try:
        await _may_be_asked(client, node_id)
        for number in range(1, times + 1):
            if watching.done():
                watching.result()
            same = number % 2 == 0
            instance_id, attempt = (old.instance_id, old.attempt + 1) if same else (new_id("instance"), 1)
            new = Peer(client.url, node_id, f"new-{number}", instance_id, attempt, answer_s)
            one = Round(
                number,
                "later attempt" if same else "other instance",
                "before the invocation" if number % 4 in (1, 2) else "after it",
            )
            try:
                await _round(client, node_id, token, one, old, new, midway)
            finally:
                await old.end()
            old = new
            proof.rounds.append(one)
            say(one)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await _the_whole_log(client, node_id, proof, times, past)
        proof.note("connected_whenever_asked", proof.looked_disconnected == 0 and proof.looked > 0, True)
        await old.end()
        proof.note("and_when_the_owner_goes_it_is_seen", await _seen_to_go(client, node_id, answer_s), True)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await old.end()
    return proof


async def _round(client: Client, node_id: str, token: str, one: Round, old: Peer, new: Peer, midway: Midway) -> None:
    before = await client.get(f"/v1/nodes/{node_id}")
    after_seq = (await client.get(f"/v1/nodes/{node_id}/events", {"limit": 1}))["last_seq"]
    one.note("before.connected", before["connected"], True)
    old_requests = old.requests
    await old.linger()
    await new.connect(token)
    await midway(one.number)
    after = await client.get(f"/v1/nodes/{node_id}")
    one.note("after_reconnect.connected", after["connected"], True)
    one.note("after_reconnect.owner_is_new", after["roles"]["node"]["connection_id"] == new.connection_id, True)
    if one.closed == "before the invocation":
        await old.close_late()
        invoked = await _invoke(client, node_id, new)
    else:
        invoked = await _invoke(client, node_id, new, ghost=old)
        await old.close_late()
    later = await client.get(f"/v1/nodes/{node_id}")
    one.note("after_old_close.connected", later["connected"], True)
    one.note("commands", sorted(later["commands"]), sorted(COMMANDS))
    one.note("presence.reason", later["presence"]["reason"], "connect")
    one.note("handled_by_new", (invoked.get("payload") or {}).get("handled_by") == new.name, True)
    one.note("requests.old", old.requests - old_requests, 0)
    one.note("requests.new", new.requests, 1)
    expected = CLOSE["fenced" if new.instance_id == old.instance_id else "superseded"]
    one.note("old_close_code", old.close_code, expected)
    await new.answer(invoked["invocation_id"])  # once more: it is settled
    one.note("late_result_ignored", await new.hears_ignored(invoked["invocation_id"]), True)
    stored = await client.get(f"/v1/invocations/{invoked['invocation_id']}")
    one.note("stored_outcome_unchanged", stored["payload"] == invoked.get("payload"), True)
    log = await client.get(f"/v1/nodes/{node_id}/events", {"after_seq": after_seq, "limit": 100})
    said = Counter(row["type"] for row in log["items"])
    for name in ("superseded", "connected", "disconnected"):
        one.note(f"events.{name}", said[f"node.{name}"], 0 if name == "disconnected" else 1)


async def _invoke(client: Client, node_id: str, new: Peer, ghost: Peer | None = None) -> dict[str, Any]:
    """``ghost``: answers first, from the old socket, for the newcomer's invocation."""
    if ghost is not None:
        new.hold.clear()
    body = {"command": "device.info", "timeout_s": new.answer_s}
    asking = asyncio.create_task(client.post(f"/v1/nodes/{node_id}/invoke", body, within_s=2 * new.answer_s))
    try:
        if ghost is not None:
            asked = asyncio.create_task(new.asked.wait())
            await asyncio.wait([asked, asking], timeout=new.answer_s, return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
            with contextlib.suppress(Closed):  # a socket that the service has already shut cannot even lie
                for row in (await client.get(f"/v1/nodes/{node_id}/invocations", {"limit": 1}))["items"]:
                    await ghost.answer(row["invocation_id"])
        new.hold.set()
        invoked: dict[str, Any] = await asking
        return invoked
    finally:
        new.hold.set()
        asking.cancel()


async def _watch(client: Client, node_id: str, proof: Proof) -> None:
    from actors.http_client import Problem

    loop = asyncio.get_running_loop()
    answered = loop.time()
    while True:
        try:
            proof.looked_disconnected += not (await client.get(f"/v1/nodes/{node_id}"))["connected"]
            proof.looked += 1
            answered = loop.time()
        except Problem as problem:
            if problem.status not in (0, 429, 503) or loop.time() - answered > WATCH_PATIENCE_S:
                raise
        await asyncio.sleep(WATCH_S)


@dataclass(frozen=True)
class Past:
    """What the node's log has of before the proof, and whether our first connect takes it over from somebody."""

    last_seq: int = 0
    owned: bool = False


async def _past(client: Client, node_id: str) -> Past:
    from actors.http_client import Problem

    try:
        node = await client.get(f"/v1/nodes/{node_id}")
        log = await client.get(f"/v1/nodes/{node_id}/events", {"limit": 1})
    except Problem as problem:
        if problem.status != 404:
            raise
        return Past()  # our first connect makes it
    return Past(int(log["last_seq"]), node["roles"].get("node", {}).get("state") == "connected")


async def _may_be_asked(client: Client, node_id: str) -> None:
    """A node that is drained, or a list that leaves our commands out, says nothing about late closes."""
    from actors.http_client import Problem

    node = await client.get(f"/v1/nodes/{node_id}")
    missing = sorted(set(COMMANDS) & set(node.get("denied_commands", ())))
    if node.get("drained"):
        why, hint = f"{node_id} is drained", f"Take it back into service: `holdfast node drain {node_id} --off`."
    elif missing:
        why = f"{node_id} may not be asked {' and '.join(missing)}"
        hint = "Let `node_commands` of the service and `holdfast node allow` have them, for as long as it takes."
    else:
        return
    raise Problem({"status": 409, "code": "not_provable", "detail": why, "hint": hint})


async def _the_whole_log(client: Client, node_id: str, proof: Proof, times: int, past: Past) -> None:
    said: Counter[str] = Counter()
    after_seq = past.last_seq
    while True:
        page = await client.get(f"/v1/nodes/{node_id}/events", {"after_seq": after_seq, "limit": 100})
        said.update(row["type"] for row in page["items"])
        if not page["items"]:
            break
        after_seq = page["next_after_seq"]
    proof.note("log.connected", said["node.connected"], times + 1)
    proof.note("log.superseded", said["node.superseded"], times + past.owned)
    proof.note("log.disconnected", said["node.disconnected"], 0)


async def _seen_to_go(client: Client, node_id: str, within_s: float) -> bool:
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while loop.time() < end:
        now = await client.get(f"/v1/nodes/{node_id}")
        if not now["connected"] and now["presence"]["reason"] == "disconnect":
            return True
        await asyncio.sleep(WATCH_S)
    return False


async def prove_and_say(client: Client, *, times: int, node_id: str | None, as_json: bool) -> int:
    """On a node of its own, forgotten afterwards, or on one that was named. The exit code."""
    from actors import show
    from actors.protocol.codes import EXIT_FAILURE, EXIT_OK

    mine = node_id is None
    node_id = node_id or new_id("node").replace("nod_", "prove-")
    if mine:
        await client.post("/v1/nodes", {"node_id": node_id, "name": "holdfast node prove"})

    def say(one: Round) -> None:
        show.data(one.resource(), as_json, show.printable(one.line()))

    try:
        proof = await prove(client, node_id, client.token, times=times, say=say)
    except (Closed, TimeoutError) as error:
        show.say(f"holdfast: {node_id} could not connect: {str(error) or 'no answer in time'}")
        return EXIT_FAILURE
    finally:
        if mine:
            await client.delete(f"/v1/nodes/{node_id}")
    facts = {"node_id": node_id, "rounds": len(proof.rounds), "asked": proof.looked, **proof.facts}
    violations = [*proof.violated, *(f"round {one.number}: {v}" for one in proof.rounds for v in one.violated)]
    words = " ".join(f"{name}={_word(value)}" for name, value in facts.items())
    verdict = "LIVE_PROOF_PASS" if proof.holds else f"LIVE_PROOF_FAIL ({len(violations)} violations)"
    show.data({**facts, "holds": proof.holds, "violated": violations}, as_json, f"{verdict}  {words}")
    return EXIT_OK if proof.holds else EXIT_FAILURE


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
