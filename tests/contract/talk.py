"""A socket whose every frame, in both directions, is held against the document and against its model."""

from __future__ import annotations

import json
from typing import Any

from actors.protocol import frames, node_frames
from tests.contract.judge import Judge
from tests.gateway.house import Frame, Socket


class Talk:
    def __init__(self, judge: Judge, channel: str, socket: Socket) -> None:
        self.judge, self.channel, self.socket = judge, channel, socket
        self.seen: set[str] = set()
        self._judged = 0

    def _note(self, frame: Frame, action: str) -> None:
        name = self.judge.frame(self.channel, frame, action)
        model = getattr(frames, name, None) or getattr(node_frames, name)
        assert model.model_validate_json(json.dumps(frame)).model_dump(mode="json", exclude_unset=True) == frame, name
        self.seen.add(name)

    async def say(self, *said: Frame) -> None:
        for frame in said:
            self._note(frame, "receive")
        await self.socket.say(*said)

    async def hear(self, kind_: str, **wanted: Any) -> Frame:
        found = await self.socket.hear(kind_, **wanted)
        for frame in self.socket.heard[self._judged :]:
            self._note(frame, "send")
        self._judged = len(self.socket.heard)
        return found

    async def acked(self, seq: int) -> None:
        while (await self.hear("ack", execution_id="e"))["seq"] < seq:
            continue
