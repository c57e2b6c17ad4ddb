"""Items of different sessions are tried together; what one of them meets is still its own (G1, G6, G10)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.law import requests as rq
from actors.store.append import LONG_BYTES, TEXT_BYTES
from actors.store.contract import Appended, AppendItem, AppendRefused, AppendResult, EncodedEvent
from tests.world import World

SESSIONS = ("a", "b", "c")


@pytest.fixture
def three(tmp_path: Path) -> Iterator[World]:
    """Three sessions, each with a running execution e1; `started` stands at seq 4 of each."""
    world = World(tmp_path)
    for session_id in SESSIONS:
        world.running("e1", session_id)
    yield world
    world.close()


def item(world: World, session_id: str, first: int, n: int = 1) -> AppendItem:
    return world.item(first, n, connection=f"con_{session_id}")


def stood(world: World) -> dict[str, int]:
    return {s: len(world.events(s)) for s in SESSIONS}


def test_all_that_fit_are_written_as_if_each_were_alone(three: World) -> None:
    before = stood(three)
    results = three.append(*(item(three, s, 2, n) for s, n in zip(SESSIONS, (1, 4, 2), strict=True)))
    alone: list[AppendResult] = []
    for s, n in zip(SESSIONS, (1, 4, 2), strict=True):
        alone += three.append(item(three, s, 2 + n, n))
    assert results == [Appended(before[s] + 1, n, 1 + n) for s, n in zip(SESSIONS, (1, 4, 2), strict=True)]
    assert alone == [Appended(before[s] + 1 + n, n, 1 + 2 * n) for s, n in zip(SESSIONS, (1, 4, 2), strict=True)]
    for s in SESSIONS:
        seqs = [(e["seq"], e["exec_seq"]) for e in three.events(s) if e["type"] == "output"]
        assert seqs == [(before[s] + 1 + i, 2 + i) for i in range(len(seqs))]
        assert {tuple(sorted(e)) for e in three.events(s)} == {
            ("data", "exec_seq", "execution_id", "seq", "ts_ms", "type")
        }


def test_one_that_is_fenced_is_refused_alone_and_its_neighbours_stand(three: World) -> None:
    late = item(three, "b", 2)
    three.connect("con_b2", "b", instance="i_2", executions=(rq.Reported("e1", "running", 1, 1),))
    before = stood(three)
    a, b, c = three.append(item(three, "a", 2), late, item(three, "c", 2, 3))
    assert (a, b, c) == (
        Appended(before["a"] + 1, 1, 2),
        AppendRefused("fenced", close_code=4001),
        Appended(before["c"] + 1, 3, 4),
    )
    assert stood(three) == {"a": before["a"] + 1, "b": before["b"], "c": before["c"] + 3}


def test_one_that_stands_already_is_a_duplicate_and_its_neighbours_stand(three: World) -> None:
    three.append(item(three, "c", 2, 3))
    before = stood(three)
    a, b, c = three.append(item(three, "a", 2), item(three, "b", 3), item(three, "c", 2, 3))
    assert (a, b, c) == (
        Appended(before["a"] + 1, 1, 2),
        AppendRefused("gap", expected_seq=2, acked_seq=1),
        AppendRefused("duplicate", acked_seq=4),
    )
    assert stood(three) == {"a": before["a"] + 1, "b": before["b"], "c": before["c"]}


def test_items_of_one_session_in_one_group_keep_their_order(three: World) -> None:
    before = stood(three)
    results = three.append(item(three, "a", 2), item(three, "b", 2), item(three, "a", 3), item(three, "a", 4))
    assert [r.acked_seq for r in results] == [2, 2, 3, 4]
    assert [e["exec_seq"] for e in three.events("a")][before["a"] :] == [2, 3, 4]


def test_decisions_between_items_are_made_in_the_order_of_the_group(three: World) -> None:
    session_id, epoch, instance = three.connections["con_a"]
    final = rq.Final(
        session_id=session_id,
        seed="01hzzzzzzzzzzzzzzzzzzzzzzz",
        connection_id="con_a",
        epoch=epoch,
        instance_id=instance,
        execution_id="e1",
        seq=3,
        status="completed",
    )
    group = three.store.commit_group([item(three, "a", 2), item(three, "b", 2), final, item(three, "c", 2)])
    assert [type(r).__name__ for r in group.results] == ["Appended", "Appended", "Outcome", "Appended"]
    assert three.types("a")[-2:] == ["output", "execution.completed"]


@pytest.mark.parametrize("long", [1, 4 * LONG_BYTES])
def test_whatever_a_text_may_hold_is_stored_word_for_word(three: World, long: int) -> None:
    """The rows travel to SQLite as one JSON text, long ones as parameters: nothing of it is touched."""
    said = (
        '{"text":"\\u0000 \\"quoted\\" \\\\ zß水🍌\\u2028 </script>"}',
        '{"text":"' + "水🍌" * long + '"}',
        '{"n":-9007199254740991,"x":1e-300,"y":null}',
        "{}",
    )
    events = tuple(EncodedEvent("a.b_c", 1_700_000_000_000 + n, data) for n, data in enumerate(said))
    items = []
    for s in ("a", "b"):
        session_id, epoch, instance = three.connections[f"con_{s}"]
        items.append(AppendItem(session_id, f"con_{s}", epoch, "e1", 2, 4, events, instance))
    three.append(*items)
    for s in ("a", "b"):
        fragments = three.store.page(s, 0, 100).fragments[-4:]
        assert [f.partition('"data":')[2] for f in fragments] == [data + "}" for data in said]
        assert [e["ts_ms"] for e in three.events(s)[-4:]] == [1_700_000_000_000 + n for n in range(4)]


def test_more_than_one_text_of_rows_is_whole(three: World) -> None:
    n = 2 * TEXT_BYTES // 100_000 + 1
    events = tuple(EncodedEvent("output", 1, '{"text":"' + "x" * 100_000 + '"}') for _ in range(n))
    items = []
    for s in SESSIONS:
        session_id, epoch, instance = three.connections[f"con_{s}"]
        items.append(AppendItem(session_id, f"con_{s}", epoch, "e1", 2, n, events, instance))
    assert [r.acked_seq for r in three.append(*items)] == [n + 1] * 3
    assert [e["exec_seq"] for e in three.events("c")][-n:] == list(range(2, n + 2))


def test_an_append_moves_its_session_up_the_list_to_the_second_alone_or_together(three: World) -> None:
    def active() -> dict[str, int]:
        return {s: three.store.session(s)["updated_at_ms"] for s in SESSIONS}

    before = active()
    three.now_ms += 5_300
    second = three.now_ms - three.now_ms % 1000
    three.append(item(three, "a", 2))
    assert active() == before | {"a": second}
    three.append(item(three, "b", 2), item(three, "a", 3))
    assert active() == before | {"a": second, "b": second}
    three.now_ms += 1_000
    three.append(item(three, "a", 4), item(three, "c", 2))
    assert active() == {"a": second + 1_000, "b": second, "c": second + 1_000}


def test_an_append_never_moves_its_session_down_the_list(three: World) -> None:
    three.now_ms += 5_000 - three.now_ms % 1000
    three.append(item(three, "a", 2))
    three.now_ms += 1_300
    three.interrupt("e1", "a")
    told = three.store.session("a")["updated_at_ms"]
    three.now_ms += 10
    three.append(item(three, "a", 3))
    assert told == three.now_ms - 10 and three.store.session("a")["updated_at_ms"] == told
