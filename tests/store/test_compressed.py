"""Long events are compressed in the store where that pays: whatever is asked of the log, nobody can tell."""

from __future__ import annotations

import base64
import json
import random
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.protocol.errors import HoldfastError
from actors.store.compressed import COMPRESS_BYTES, Compressor, plain
from actors.store.contract import Appended, AppendItem, EncodedEvent
from actors.store.locks import library
from tests.each_event import each_event, readable
from tests.world import World

PROSE = "".join(f"step {n} of a job: loss {1 / (n + 1):.6f}, näher am Ziel ✓\n" for n in range(4000))
NOISE = base64.b64encode(random.Random(7).randbytes(60_000)).decode()
SMALL_AND_LARGE = [40, COMPRESS_BYTES - 100, COMPRESS_BYTES, 4096, 16_384, 100_000]


def said(text: str, n: int = 0) -> EncodedEvent:
    return EncodedEvent("output", 1_700_000_000_000 + n, json.dumps({"n": n, "text": text}, ensure_ascii=False))


def append(world: World, *events: EncodedEvent) -> None:
    """To the session `s`, behind what it has said."""
    session_id, epoch, instance = world.connections["con_1"]
    first = world.store.execution("s", "e1")["acked_seq"] + 1
    world.append(AppendItem(session_id, "con_1", epoch, "e1", first, len(events), events, instance))


def stored(world: World) -> list[str | bytes]:
    """The rows of what was said, as they lie there."""
    found = world.store._c.execute("select data from events where type = 'output' and run_length = 0 order by seq")
    return [row[0] for row in found.fetchall()]


def read(world: World, after: int = 0) -> list[str]:
    page = world.store.page("s", after, 1000, max_bytes=1 << 30)
    spelled = []
    while after < page.last_seq:  # the newest short ones are a page of their own
        found = world.store.spelled("s", after, 1000, max_bytes=1 << 30)
        spelled.append(found.joined.decode())
        after = found.scanned_to
    assert ",".join(spelled) == ",".join(page.fragments), "one text, and rows: the same"
    return [text for text in page.fragments if '"type":"output"' in text]


@pytest.mark.parametrize("size", [4096, 16_384, 100_000])
def test_what_gets_smaller_is_kept_small_and_read_word_for_word(world: World, size: int) -> None:
    world.running()
    events = [said(PROSE[n * 1000 : n * 1000 + size], n) for n in range(3)]
    append(world, *events)
    kept = stored(world)
    assert all(isinstance(data, bytes) for data in kept)
    assert sum(map(len, kept)) < sum(len(e.data.encode()) for e in events) / 3
    for text, event in zip(read(world), events, strict=True):
        assert text.endswith(f'"data":{event.data}}}')


def test_what_does_not_get_smaller_stays_as_it_is_and_nothing_else_of_its_item_is_tried(world: World) -> None:
    world.running()
    append(world, said(PROSE[:9000]), said(NOISE[:9000]), said(PROSE[:9000]))
    append(world, said(PROSE[:9000]))
    assert [type(data) for data in stored(world)] == [bytes, str, str, bytes]
    assert [json.loads(text)["data"]["text"][:5] for text in read(world)] == [
        PROSE[:5],
        NOISE[:5],
        PROSE[:5],
        PROSE[:5],
    ]


def test_short_ones_between_are_left_alone_and_hinder_nobody(world: World) -> None:
    world.running()
    append(world, said("x"), said(PROSE[:9000]), said("y"), said(PROSE[:9000]))
    assert [type(data) for data in stored(world)] == [str, bytes, str, bytes]


def test_a_page_is_bounded_by_what_is_sent_not_by_what_is_kept(world: World) -> None:
    """A hundredth of it is kept: a page of what is kept would be a hundred times too long for its reader."""
    world.running()
    append(world, *(said("x" * 100_000, n) for n in range(20)))
    assert sum(map(len, stored(world))) < 20 * 1000
    first = world.store.page("s", 0, 1).last_seq - 20
    limit = 1_000_000
    page, spelled = (
        world.store.page("s", first, 100, max_bytes=limit),
        world.store.spelled("s", first, 100, max_bytes=limit),
    )
    assert len(page.fragments) == spelled.scanned_to - first == 9
    assert spelled.joined.decode() == ",".join(page.fragments)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(SMALL_AND_LARGE), st.booleans()), min_size=1, max_size=12),
        min_size=1,
        max_size=4,
    )
)
def test_runs_rows_and_frames_stand_in_one_log_and_each_event_in_its_place(
    items: Sequence[Sequence[tuple[int, bool]]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        try:
            world.running()
            told, n = [], 0
            for item in items:
                events = []
                for size, noise in item:
                    events.append(said((NOISE if noise else PROSE)[n : n + size], n))
                    n += 1
                append(world, *events)
                told += [event.data for event in events]
            head = world.store.page("s", 0, 1).last_seq
            for after in {0, head - n, head - n // 2, head - 1}:
                texts = read(world, after)
                assert [text.split('"data":', 1)[1][:-1] for text in texts] == told[len(told) - len(texts) :]
            assert len(read(world, head - n)) == n
        finally:
            world.close()


@settings(deadline=None)
@given(st.text(min_size=COMPRESS_BYTES, max_size=3 * COMPRESS_BYTES))
def test_any_text_comes_back(text: str) -> None:
    encoded = json.dumps(text, ensure_ascii=False)
    ((kept, lost),) = Compressor().frames([encoded])
    assert (plain(kept) if isinstance(kept, bytes) else kept) == encoded
    assert len(kept if isinstance(kept, bytes) else kept.encode()) + lost == len(encoded.encode())


def test_bits_that_turned_on_the_disk_are_an_error_and_never_shown(world: World) -> None:
    world.running()
    append(world, said(PROSE[:16_000]))
    (frame,) = stored(world)
    assert isinstance(frame, bytes)
    for at in range(5, len(frame), 97):
        turned = bytearray(frame)
        turned[at] ^= 4
        world.store._c.execute("update events set data = ? where type = 'output'", (bytes(turned),))
        for asked in (world.store.page, world.store.spelled):
            with pytest.raises(library().OperationalError, match="user-defined function"):
                asked("s", 0, 100)


def test_the_interpreters_own_library_reads_what_ours_wrote(world: World) -> None:
    world.running()
    events = [said(PROSE[n : n + 16_000], n) for n in range(3)]
    append(world, *events)
    with sqlite3.connect(world.path) as judge:
        readable(judge)
        found = judge.execute(f"select data from {each_event()} where type = 'output' order by seq").fetchall()
    judge.close()
    assert [row[0] for row in found] == [event.data for event in events]


def test_text_that_no_utf8_spells_is_refused_and_takes_nobody_along(world: World) -> None:
    """The wire lets none in; the rule of a group is older than that."""
    made = []
    for s in "ab":
        world.running("e1", s)
        sid, epoch, instance = world.connections[f"con_{s}"]
        text = PROSE[:9000] + ("\ud800" if s == "a" else "")
        made.append(AppendItem(sid, f"con_{s}", epoch, "e1", 2, 1, (said(text),), instance))
    poisoned, done = world.store.commit_group(made).results
    assert isinstance(poisoned, HoldfastError) and isinstance(done, Appended)
    assert [type(data) for data in stored(world)] == [bytes]
