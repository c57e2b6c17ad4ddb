"""A page as one text says what a page as rows says, and is bounded by numbers and by bytes."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.protocol.errors import HoldfastError
from actors.store import rows
from actors.store.compressed import make_known
from actors.store.locks import library
from tests.world import World

EVENT = "(?, ?, ?, ?, ?, ?, 0, ?, null, 0, 0)"
DATA = st.dictionaries(st.text(max_size=5), st.text() | st.integers(-(2**53), 2**53) | st.none(), max_size=3)
ROW = st.tuples(
    st.integers(1, 2**53),
    st.none() | st.from_regex(r"[A-Za-z0-9_.:-]{1,64}", fullmatch=True),
    st.none() | st.integers(1, 2**53),
    st.from_regex(r"[a-z][a-z0-9_]{0,9}(\.[a-z0-9_]{1,9})?", fullmatch=True),
    st.integers(0, 2**53),
    DATA.map(lambda data: json.dumps(data, ensure_ascii=False)),
)


@given(ROW)
def test_sqlite_spells_an_event_as_python_does(row: tuple[int, str | None, int | None, str, int, str]) -> None:
    columns = ("seq", "execution_id", "exec_seq", "type", "ts_ms", "data")
    given = ", ".join(f"? as {name}" for name in columns)
    connection = library().connect(":memory:")
    make_known(connection)
    spelled = connection.execute(f"select {rows.FRESH_FRAGMENT_SQL}, {rows.FRAGMENT_SQL} from (select {given})", row)
    assert spelled.fetchone() == (rows.fragment(*row),) * 2
    connection.close()


def filled(world: World, sizes: list[int]) -> None:
    """A session `s` whose log is these sizes of data, every third event the service's own."""
    world.create("s")
    world.store._c.execute("update sessions set last_seq = ?, first_seq = 1 where id = 's'", (len(sizes),))
    world.store._c.execute("delete from events where session_id = 's'")
    for seq, size in enumerate(sizes, 1):
        of = (None, None, "session.note") if seq % 3 == 0 else ("e1", seq, "output")
        data = json.dumps({"text": "x" * (size - len('{"text": ""}'))})
        world.store._c.execute(f"insert into events values {EVENT}", ("s", seq, *of, seq, data))


@pytest.mark.parametrize("after", [0, 1, 7, 19, 20, 25])
def test_a_page_as_one_text_is_the_page_as_rows(world: World, after: int) -> None:
    filled(world, [100] * 20)
    page, spelled = world.store.page("s", after, 8), world.store.spelled("s", after, 8)
    assert spelled.joined == ",".join(page.fragments).encode()
    assert (spelled.stream_id, spelled.first_seq, spelled.last_seq) == (page.stream_id, page.first_seq, page.last_seq)
    assert spelled.scanned_to == page.scanned_to
    assert spelled.last_type == (page.types[-1] if page.types else None)


def test_it_is_bounded_by_bytes_and_one_event_comes_in_any_case(world: World) -> None:
    filled(world, [100, 100, 100, 5000, 100, 100])
    after, steps = 0, []
    while after < 6:
        found = world.store.spelled("s", after, 500, max_bytes=250)
        seqs = [event["seq"] for event in json.loads(b"[%b]" % found.joined)]
        assert seqs == list(range(after + 1, found.scanned_to + 1))
        steps.append(len(seqs))
        after = found.scanned_to
    assert steps == [2, 1, 1, 2]


def test_pages_one_after_the_other_leave_nothing_out(world: World) -> None:
    filled(world, [100] * 23)
    cursors = [0]
    while (found := world.store.spelled("s", cursors[-1], 5)).joined:
        cursors.append(found.scanned_to)
    assert cursors == [0, 5, 10, 15, 20, 23] and found.scanned_to == 23
    assert all(b > a for a, b in itertools.pairwise(cursors))


def test_nobody_has_no_page(world: World) -> None:
    with pytest.raises(HoldfastError) as refused:
        world.store.spelled("nobody", 0, 5)
    assert refused.value.code == "session_not_found"
