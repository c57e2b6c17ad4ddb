"""The mailbox: an actor that is away, dead or frozen costs its caller a moment, and never the answer."""

from __future__ import annotations

import asyncio

import pytest

from actors.law import effects as fx
from actors.law.requests import CreateSession, Request
from actors.mailbox import Asleep, Mailbox, OutcomeUnknown
from actors.protocol.errors import StorageUnavailable
from actors.protocol.ids import ulid
from actors.store.contract import IdempotencyKey, Outcome

REQUEST = CreateSession(session_id="s", seed=ulid())
BY_THE_ACTOR = Outcome("s", fx.Done(changed=True), (), 1, 200, None)
DIRECTLY = Outcome("s", fx.Done(changed=True), (), 2, 200, None)


class Port:
    """An actor as the runtime would show it: what it answers, or how it fails to."""

    def __init__(self, answer: Outcome | Exception | None, *, awake: bool = True) -> None:
        self._answer, self._awake = answer, awake
        self.woken: list[str] = []
        self.ended: list[str] = []
        self.asked = 0

    def awake(self, session_id: str) -> bool:
        return self._awake

    async def call(self, request: Request, key: IdempotencyKey | None, within_s: float) -> Outcome:
        self.asked += 1
        if self._answer is None:
            async with asyncio.timeout(within_s):
                await asyncio.Event().wait()
        if isinstance(self._answer, Exception):
            raise self._answer
        assert self._answer is not None
        return self._answer

    def wake(self, session_id: str) -> None:
        self.woken.append(session_id)

    def end_frozen(self, session_id: str) -> None:
        self.ended.append(session_id)


async def ask(port: Port, *, wake: bool = False) -> tuple[Outcome, int]:
    """The outcome, and how often it was decided without the actor."""
    direct = 0

    async def local(request: Request, key: IdempotencyKey | None) -> Outcome:
        nonlocal direct
        direct += 1
        assert request is REQUEST
        return DIRECTLY

    outcome = await Mailbox(local, port, deadline_s=0.05).perform(REQUEST, wake=wake)
    return outcome, direct


async def test_an_actor_that_is_awake_decides_alone() -> None:
    port = Port(BY_THE_ACTOR)
    assert await ask(port) == (BY_THE_ACTOR, 0)
    assert (port.asked, port.woken, port.ended) == (1, [], [])


@pytest.mark.parametrize("trouble", [Asleep("s"), OutcomeUnknown("s")], ids=["asleep", "died"])
async def test_an_actor_that_is_not_there_costs_nothing_but_the_question(trouble: Exception) -> None:
    """That it is awake is a hint. The same request, decided again, has the same effect."""
    port = Port(trouble)
    assert await ask(port) == (DIRECTLY, 1)
    assert (port.asked, port.woken, port.ended) == (1, [], [])


async def test_a_frozen_actor_costs_its_deadline_once_and_is_ended() -> None:
    port = Port(None)
    assert await ask(port) == (DIRECTLY, 1)
    assert (port.asked, port.ended) == (1, ["s"])


async def test_what_the_store_refuses_the_actor_is_not_tried_again_elsewhere() -> None:
    port = Port(StorageUnavailable("full"))
    with pytest.raises(StorageUnavailable):
        await ask(port)


@pytest.mark.parametrize("wake", [True, False])
async def test_a_sleeping_session_is_decided_at_once_and_woken_only_for_operators(wake: bool) -> None:
    port = Port(BY_THE_ACTOR, awake=False)
    assert await ask(port, wake=wake) == (DIRECTLY, 1)
    assert (port.asked, port.woken) == (0, ["s"] if wake else [])
