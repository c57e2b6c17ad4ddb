"""The payload of every event that Holdfast writes is pinned: consumers read these keys, and payloads only grow.

A key that is new is added to golden/events.json (`python -m tests.contract.happenings`) and to protocol/payloads.py.
A key that is gone, or means something else, is a broken promise: mend the code, not the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from actors.gateway.documents.asyncapi import asyncapi
from actors.protocol.codes import CAUSES, EVENT_TYPES
from actors.protocol.payloads import PAYLOADS, Ended
from tests.contract.happenings import BY_CAUSE, BY_THE_GATEWAY, GOLDEN, OTHERS, every, last, of_cause, shown
from tests.contract.judge import invalid
from tests.gateway.house import House
from tests.world import World

PINNED = json.loads(GOLDEN.read_text("utf-8"))
CASES = [(kind, special) for kind, of in PINNED.items() for special in of]
ALWAYS = {"status", "cause", "error", "exit_code", "signal", "data", "interrupt_id"}


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[[], World]]:
    made: list[World] = []

    def one() -> World:
        (place := tmp_path / str(len(made))).mkdir()
        made.append(World(place))
        return made[-1]

    yield one
    for world in made:
        world.close()


def test_every_event_type_and_every_cause_is_pinned() -> None:
    assert PINNED.keys() == EVENT_TYPES.keys()
    assert BY_CAUSE.keys() == CAUSES.keys()
    causes = {data["cause"] for kind in ("execution.failed", "execution.interrupted") for data in PINNED[kind].values()}
    assert causes - {None} == CAUSES.keys()


@pytest.mark.parametrize("cause", CAUSES)
def test_the_terminal_payload_of_a_cause_is_pinned(world: World, cause: str) -> None:
    event = of_cause(world, cause)
    assert shown(event["data"]) == PINNED[event["type"]][f"cause {cause}"]
    assert event["execution_id"] == "e1" and event["exec_seq"] is None
    assert event == [e for e in world.events() if e["execution_id"] == "e1"][-1], "it is the last of its execution"
    outcome = world.outcome()
    assert {k: event["data"][k] for k in outcome} == outcome


@pytest.mark.parametrize(("kind", "special"), OTHERS)
def test_the_payload_of_an_event_is_pinned(world: World, kind: str, special: str) -> None:
    OTHERS[kind, special](world)
    assert shown(last(world, kind)["data"]) == PINNED[kind][special]


async def test_the_payload_of_a_gap_is_pinned(house: House) -> None:
    wrapper = await house.running()
    ((special, pinned),) = BY_THE_GATEWAY["output.gap"].items()
    await wrapper.say({"type": "gap", "execution_id": "e", "seq": 2, "to_seq": 9, "bytes": 700, "reason": "trimmed"})
    await wrapper.acked(9)
    (event,) = await house.events(types="output.gap")
    assert event["data"] == pinned == PINNED["output.gap"][special]
    await wrapper.close()


def test_nothing_is_pinned_that_does_not_happen(fresh: Callable[[], World]) -> None:
    assert every(fresh) == PINNED


@pytest.mark.parametrize(("kind", "special"), CASES)
def test_a_payload_is_what_the_document_says_of_its_type(kind: str, special: str) -> None:
    data = PINNED[kind][special]
    model = PAYLOADS[kind]
    made = model.model_validate(data)
    assert made.model_dump(mode="json", exclude_unset=True) == data
    document = asyncapi()
    assert invalid(document, document["x-event-types"][kind]["data"], data) == []
    missing = {name for name, info in model.model_fields.items() if info.is_required()} - data.keys()
    assert not missing


@pytest.mark.parametrize(("kind", "special"), [c for c in CASES if PAYLOADS[c[0]] is Ended])
def test_a_terminal_event_says_fatal_with_a_cause_and_why_the_line_was_cut(kind: str, special: str) -> None:
    data = PINNED[kind][special]
    wanted = set(ALWAYS)
    if data["cause"] is not None:
        wanted |= {"fatal"}
    if data["cause"] == "disconnected":
        wanted |= {"reason", "ws_close_code", "ws_close_reason"}
    assert data.keys() == wanted
    assert kind == f"execution.{data['status']}"


def test_a_key_that_is_gone_and_a_key_that_is_new_are_noticed() -> None:
    data = PINNED["execution.failed"]["cause stale"]
    with pytest.raises(ValidationError, match="interrupt_id"):
        Ended.model_validate({k: v for k, v in data.items() if k != "interrupt_id"})
    with pytest.raises(ValidationError, match="surprise"):
        Ended.model_validate({**data, "surprise": 1})
