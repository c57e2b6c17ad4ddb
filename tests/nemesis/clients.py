"""Those who watch and those who command, each with a history of its own. They never give up, and never pretend."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import aiohttp

from actors.history import content_hash
from tests.nemesis.record import Recorder

ANSWER_S = 8.0  # past it an operator says "unknown"
SILENT_S = 12.0  # a stream that says nothing for so long, not even a ping of the server, is opened again
ENDS = ("completed", "failed", "interrupted")


class Subscriber:
    """A stream with a cursor, opened again after every loss."""

    def __init__(self, recorder: Recorder, session_id: str, url: Callable[[], str], token: Callable[[], str]) -> None:
        self.recorder, self.session_id, self.url, self.token = recorder, session_id, url, token
        self.cursor, self.stream_id, self.opens = 0, "", 0

    async def run(self) -> None:
        async with aiohttp.ClientSession() as http:
            while True:
                try:
                    await self._follow(http)
                except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
                    pass  # whatever it was: the cursor brings it back
                await asyncio.sleep(0.2)

    async def _follow(self, http: aiohttp.ClientSession) -> None:
        query = f"after_seq={self.cursor}" + (f"&stream_id={self.stream_id}" if self.stream_id else "")
        url = f"{self.url()}/v1/sessions/{self.session_id}/stream?{query}"
        headers = {"Authorization": f"Bearer {self.token()}"}
        async with asyncio.timeout(ANSWER_S):
            ws = await http.ws_connect(url, headers=headers, heartbeat=SILENT_S, max_msg_size=0)
        try:
            self.opens += 1
            self.recorder.say(
                "opened", session=self.session_id, after_seq=self.cursor, stream_id=self.stream_id or None
            )
            async for message in ws:
                if message.type is aiohttp.WSMsgType.TEXT:
                    self._on(json.loads(message.data))
        finally:
            await ws.close()

    def _on(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "snapshot":
            self.stream_id = frame["session"]["stream_id"]
        elif frame["type"] == "events":
            events = [[e["seq"], content_hash(e["type"], e["data"])] for e in frame["events"]]
            self.recorder.say("delivered", session=self.session_id, stream_id=self.stream_id, events=events)
            self.cursor = events[-1][0]
        elif frame["type"] == "reset":
            self.stream_id, self.cursor = frame["stream_id"], frame["first_seq"] - 1
            self.recorder.say("reset", session=self.session_id, first_seq=frame["first_seq"], stream_id=self.stream_id)


class Operator:
    """Submits, interrupts, fails and looks, by the seed; what it asks again has the same ids."""

    def __init__(
        self,
        recorder: Recorder,
        session_id: str,
        seed: str,
        url: Callable[[], str],
        token: Callable[[], str],
    ) -> None:
        self.recorder, self.session_id, self.url, self.token = recorder, session_id, url, token
        self.random = random.Random(seed)
        self.stopping = False
        self.submitted: list[str] = []
        self.waits = False
        self.questions = 0
        self.done = 0

    async def run(self) -> None:
        """Until `stopping`; every execution was then submitted for certain."""
        async with aiohttp.ClientSession() as http:
            while not self.stopping:
                eid = f"e{len(self.submitted)}"
                self.submitted.append(eid)
                await self._surely(http, "submit", eid, "", {"execution_id": eid, "input": self._work()})
                await self._meddle(http, eid)
                await self._until_over(http, eid)

    def _work(self) -> str:
        r = self.random
        return json.dumps(
            {
                "lines": r.choice((5, 20, 60, 150, 300)),
                "pause_s": r.choice((0.01, 0.03, 0.06)),
                "width": r.choice((8, 80, 400)),
                "code": r.choice((0, 0, 0, 7)),
                "deaf": r.random() < 0.2,
            }
        )

    async def _meddle(self, http: aiohttp.ClientSession, eid: str) -> None:
        r = self.random
        what = r.choices(("nothing", "interrupt", "fail", "force"), (6, 3, 1, 1))[0]
        if what == "nothing":
            return
        await asyncio.sleep(r.uniform(0.0, 4.0))  # paces the race with the agent's own end; any order is allowed
        for _ in range(r.choice((1, 2, 3))):
            if what == "fail":
                await self.ask(http, "fail", eid, f"/{eid}/fail", {"error": "by the operator"})
            else:
                body = {"execution_id": eid, "reason": "enough", "force": what == "force"}
                await self.ask(http, "interrupt", eid, "/../interrupt", body)

    async def _surely(self, http: aiohttp.ClientSession, op: str, eid: str, path: str, body: Any) -> None:
        while await self.ask(http, op, eid, path, body) not in (200, 202):
            await asyncio.sleep(0.3)

    async def _until_over(self, http: aiohttp.ClientSession, eid: str) -> None:
        """Sometimes it does not wait: then the next one is queued behind. Never twice on end: a queue of ten, each
        with its whole limit, would outlast the peace."""
        self.waits = not self.waits or self.random.random() < 0.5
        while self.waits and not self.stopping:
            if await self.ask(http, "read", eid, f"/{eid}", None) in ENDS:
                return
            await asyncio.sleep(0.5)
        await asyncio.sleep(0.5)

    async def ask(self, http: aiohttp.ClientSession, op: str, eid: str, path: str, body: Any) -> int | str | None:
        """The status, or for `read` the execution's; None: nobody knows."""
        self.questions += 1
        number = f"{self.session_id}-{self.questions}"
        self.recorder.say("asked", id=number, op=op, session=self.session_id, execution=eid)
        base = f"{self.url()}/v1/sessions/{self.session_id}"
        url = f"{base}/interrupt" if op == "interrupt" else f"{base}/executions{path}"
        headers = {"Authorization": f"Bearer {self.token()}"}
        try:
            async with asyncio.timeout(ANSWER_S):
                async with http.request("GET" if body is None else "POST", url, json=body, headers=headers) as answer:
                    told, status = await answer.json(content_type=None), answer.status
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            self.recorder.say("unknown", id=number, error=type(error).__name__)
            return None
        if not isinstance(told, dict) or status >= 300:
            self.recorder.say("answered", id=number, status=status, code=(told or {}).get("code"))
            return status
        execution = told.get("execution") or (told if "execution_id" in told else None)
        kept = execution and {k: execution[k] for k in ("execution_id", "status", "outcome")}
        more = {k: told[k] for k in ("interrupt_id", "changed") if k in told}
        self.recorder.say("answered", id=number, status=status, execution=kept, **more)
        self.done += 1
        return execution["status"] if op == "read" and execution else status
