"""Several short events of one item are a row: whatever is asked of the log, nobody can tell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlite_utils import Database

from actors.law import requests as rq
from actors.protocol.defaults import RETENTION_CHUNK
from actors.protocol.ids import ulid
from actors.store import rows, schema
from actors.store.append import FEW_EVENTS, LONG_BYTES
from actors.store.contract import AppendItem, AppendRefused, EncodedEvent
from actors.store.locks import library
from actors.store.rows import RUN_EVENTS
from tests.each_event import each_event
from tests.world import World

DAY_MS = 86_400_000


def said(type: str, n: int, text: str = "x") -> EncodedEvent:
    return EncodedEvent(type, 1_700_000_000_000 + n, json.dumps({"n": n, "text": text}))


class Told:
    """A session whose log is kept beside the store, event by event, as the live stream would say it."""

    def __init__(self, world: World, session_id: str = "s") -> None:
        self.world, self.sid, self.acked = world, session_id, 1
        world.running()
        self.first = self.head = world.store.page(session_id, 0, 1).last_seq
        self.events: list[tuple[int, str, str | None, str]] = []

    def append(self, *events: EncodedEvent) -> None:
        session_id, epoch, instance = self.world.connections["con_1"]
        (done,) = self.world.append(
            AppendItem(session_id, "con_1", epoch, "e1", self.acked + 1, len(events), events, instance)
        )
        words = rows.fragments(done.first_seq, "e1", self.acked + 1, events)
        short = sum(len(e.data) for e in events) < len(events) * LONG_BYTES
        assert list(done.words) == (words if len(events) >= FEW_EVENTS and short else []), "what the watchers are told"
        self.acked += len(events)
        self.events += [
            (seq, e.type, "e1", text) for seq, (e, text) in enumerate(zip(events, words, strict=True), done.first_seq)
        ]
        self.head = self.events[-1][0]

    def own(self) -> None:
        """One of the service's own, between."""
        self.world.do(rq.SendInput(session_id=self.sid, seed=ulid(), execution_id="e1", input="more"))
        head = self.world.store.page(self.sid, 0, 1).last_seq
        if head > self.head:
            page = self.world.store.page(self.sid, self.head, 10)
            self.events += list(zip(page.seqs, page.types, page.execution_ids, page.fragments, strict=True))
            self.head = head


def lengths(world: World, session_id: str = "s") -> list[int]:
    found = world.store._c.execute("select run_length from events where session_id = ? order by seq", (session_id,))
    return [row[0] for row in found.fetchall()]


def words_kept(world: World) -> int:
    return int(world.store._c.execute("select count(*) from runs").fetchone()[0])


TYPES = ("output", "output.line", "put", "note")
ITEMS = st.lists(
    st.tuples(
        st.sampled_from([1, 2, 7, 8, 20, RUN_EVENTS, RUN_EVENTS + 1]), st.lists(st.sampled_from(TYPES), min_size=1)
    )
    | st.just((0, ["own"])),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40, deadline=None)
@given(items=ITEMS, data=st.data())
def test_a_log_of_runs_reads_as_one_of_events(
    tmp_path_factory: pytest.TempPathFactory, items: list[tuple[int, list[str]]], data: st.DataObject
) -> None:
    world = World(tmp_path_factory.mktemp("runs"))
    told = Told(world)
    for n, types in items:
        if n:
            told.append(*(said(types[k % len(types)], k, "long" * (200 * (k % 7 == 6))) for k in range(n)))
        else:
            told.own()
    log = told.events
    for _ in range(8):
        after = data.draw(st.integers(told.first, told.head + 1))
        limit = data.draw(st.sampled_from([1, 2, 7, 50, 500]))
        types = data.draw(st.sampled_from([(), ("output",), ("put", "note"), ("gone",)]))
        eid = data.draw(st.sampled_from([None, None, "e1", "e2"]))
        before = data.draw(st.none() | st.integers(after, told.head + 2))
        wanted = [
            row
            for row in log
            if row[0] > after
            and (before is None or row[0] < before)
            and (not types or row[1] in types)
            and eid in (None, row[2])
        ]
        wanted = wanted[:limit] if before is None else wanted[-limit:]
        page = world.store.page("s", after, limit, before_seq=before, types=types, execution_id=eid)
        assert list(zip(page.seqs, page.types, page.execution_ids, page.fragments, strict=True)) == wanted
        if before is None:
            assert page.scanned_to == (wanted[-1][0] if len(wanted) == limit else told.head)
    cursor, spelled = data.draw(st.integers(told.first, told.head)), []
    begin = cursor
    while (found := world.store.spelled("s", cursor, data.draw(st.sampled_from([1, 7, 500])))).joined:
        spelled.append(found.joined)
        assert cursor < found.scanned_to
        cursor = found.scanned_to
        assert found.last_type == next(row[1] for row in log if row[0] == cursor)
    assert b",".join(spelled).decode() == ",".join(row[3] for row in log if row[0] > begin)
    world.close()


def test_a_page_begins_and_ends_anywhere_in_a_run(world: World) -> None:
    told = Told(world)
    for types in (("output",), ("note", "output"), ("output",)):
        told.append(*(said(types[k % len(types)], k) for k in range(FEW_EVENTS)))
    assert lengths(world)[-3:] == [FEW_EVENTS] * 3
    log = told.events
    for k in range(len(log) + 1):
        after = told.first + k
        assert world.store.spelled("s", after, 500).joined.decode() == ",".join(row[3] for row in log[k:])
        assert world.store.page("s", after, 4).fragments == tuple(row[3] for row in log[k : k + 4])
        before = world.store.page("s", told.first, 4, before_seq=after + 1)
        assert before.fragments == tuple(row[3] for row in log[max(0, k - 4) : k])
        notes = world.store.page("s", after, 500, types=("note",))
        assert notes.seqs == tuple(row[0] for row in log[k:] if row[1] == "note")


def test_short_events_of_one_item_are_rows_of_so_many_and_others_have_their_own(world: World) -> None:
    told = Told(world)
    before = len(lengths(world))
    told.append(*(said("output", n) for n in range(2 * RUN_EVENTS + 5)))
    told.append(*(said("output", n, "x" * LONG_BYTES) for n in range(3)))
    told.append(said("output", 1, "x" * LONG_BYTES))
    assert lengths(world)[before:] == [RUN_EVENTS, RUN_EVENTS, 5, 0, 0, 0, 0]
    assert words_kept(world) == 3


@pytest.mark.parametrize("n", [1, 2, 7, 31, 32, 33, 127, 128, 129, 300])
def test_so_many_long_events_at_once_are_all_there_and_each_in_its_place(world: World, n: int) -> None:
    """They are inserted a power of two at a time."""
    for s in "ab":
        world.running("e1", s)
    made = []
    for s in "ab":
        sid, epoch, instance = world.connections[f"con_{s}"]
        events = tuple(said("output" if k % 2 else "note", k, s * LONG_BYTES) for k in range(n))
        made.append(AppendItem(sid, f"con_{s}", epoch, "e1", 2, n, events, instance))
    firsts = [done.first_seq for done in world.append(*made)]
    for item, first in zip(made, firsts, strict=True):
        found = world.store._c.execute(
            "select seq, execution_id, exec_seq, type, ts_ms, data from events where session_id = ? and seq >= ? "
            "order by seq",
            (item.session_id, first),
        ).fetchall()
        assert found == [(first + k, "e1", 2 + k, *event) for k, event in enumerate(item.events)]


def test_items_of_a_group_have_their_own_words(world: World) -> None:
    """The words travel apart from their rows, and are told apart by number."""
    made: list[AppendItem] = []
    for s in "abc":
        world.running("e1", s)
    for s in "abc":
        sid, epoch, instance = world.connections[f"con_{s}"]
        events = tuple(said("output", n, s * (1 + n)) for n in range(9))
        made.append(AppendItem(sid, f"con_{s}", epoch, "e1", 2, 9, events, instance))
    for _ in range(2):
        world.append(*made)
        made = [AppendItem(i.session_id, i.connection_id, i.epoch, "e1", 11, 9, i.events, i.instance_id) for i in made]
    for s in "abc":
        texts = [e["data"]["text"] for e in world.events(s) if e["type"] == "output"]
        assert texts == [s * (1 + n) for n in range(9)] * 2
        assert lengths(world, s)[-2:] == [9, 9]


def test_a_refused_item_leaves_no_words(world: World) -> None:
    told = Told(world)
    events = tuple(said("output", n) for n in range(9))
    told.append(*events)
    session_id, epoch, instance = world.connections["con_1"]
    gap, known = world.append(
        AppendItem(session_id, "con_1", epoch, "e1", 19, 9, events, instance),
        AppendItem(session_id, "con_1", epoch, "e1", 2, 9, events, instance),
    )
    assert isinstance(gap, AppendRefused) and isinstance(known, AppendRefused)
    assert words_kept(world) == 1


def test_a_page_of_runs_is_bounded_by_bytes_and_one_row_comes_in_any_case(world: World) -> None:
    told = Told(world)
    for _ in range(4):
        told.append(*(said("output", n, "x" * 100) for n in range(20)))
    sizes = []
    cursor = told.first
    while (found := world.store.spelled("s", cursor, 500, max_bytes=9000)).joined:
        sizes.append(found.scanned_to - cursor)
        cursor = found.scanned_to
    assert sizes == [40, 40]
    assert world.store.spelled("s", told.first, 500, max_bytes=10).scanned_to == told.first + 20
    page = world.store.page("s", told.first, 500, max_bytes=1000)
    assert page.scanned_to == page.seqs[-1] and 1 < len(page.seqs) < 20


def test_retention_takes_a_run_whole_and_its_words_with_it(world: World) -> None:
    told = Told(world)
    told.append(*(said("output", n) for n in range(20)))
    world.now_ms += DAY_MS
    told.append(*(said("output", n) for n in range(30)))
    world.now_ms += DAY_MS // 2
    world.store.tick("gw_1")
    assert world.store.janitor(DAY_MS) < RETENTION_CHUNK
    page = world.store.page("s", 0, 500)
    assert (page.first_seq, page.last_seq) == (told.head - 29, told.head)
    assert page.seqs == tuple(range(told.head - 29, told.head + 1))
    assert words_kept(world) == 1
    world.now_ms += DAY_MS
    world.store.janitor(DAY_MS)
    assert words_kept(world) == 0 and lengths(world) == []


def test_a_run_that_does_not_fit_the_chunk_is_left_to_the_next(world: World) -> None:
    told = Told(world)
    for _ in range(RETENTION_CHUNK // RUN_EVENTS + 2):
        told.append(*(said("output", n) for n in range(RUN_EVENTS)))
    world.now_ms += 2 * DAY_MS
    world.store.tick("gw_1")
    steps, at = [], 1
    for _ in range(10):
        used = world.store.janitor(DAY_MS)
        first = world.store.page("s", 0, 1).first_seq
        steps.append(first - at)
        at = first
        if used < RETENTION_CHUNK:
            break
    assert sum(steps) == told.head and max(steps) <= RETENTION_CHUNK and words_kept(world) == 0


def test_a_deleted_session_takes_its_words_with_it(world: World) -> None:
    told = Told(world)
    told.append(*(said("output", n) for n in range(250)))
    world.do(rq.DeleteSession(session_id="s", seed=ulid()))
    while world.store.janitor(10 * DAY_MS) >= RETENTION_CHUNK:
        pass
    assert (lengths(world), words_kept(world)) == ([], 0)


def test_a_store_of_before_keeps_its_log_and_goes_on_in_runs(tmp_path: Path) -> None:
    db = library().connect(str(tmp_path / "holdfast.db"), isolation_level=None)
    db.execute("pragma journal_mode = wal")
    old = type(schema.migrations)("holdfast")
    old._migrations.extend([m for m in schema.migrations._migrations if m.name < "m006"])
    old.apply(Database(db))
    made = World(tmp_path / "made")
    Told(made).append(said("output", 1, "x" * LONG_BYTES))
    made.store.settle("s")
    known = made.events()
    for table in ("sessions", "executions", "events"):  # as the older version left them
        columns = ", ".join(r[1] for r in db.execute(f"pragma table_info({table})").fetchall())
        found = made.store._c.execute(f"select {columns} from {table}").fetchall()
        db.executemany(f"insert into {table} values ({', '.join('?' * (columns.count(',') + 1))})", found)
    db.close()
    world = World(tmp_path)
    assert world.events() == known
    world.connections = made.connections
    made.close()
    world.append(world.item(3, 9))
    assert [e["exec_seq"] for e in world.events()][-10:] == list(range(2, 12))
    assert world.events()[: len(known)] == known and lengths(world)[-1] == 9
    world.close()


def test_what_looks_like_a_type_inside_an_event_is_not_one() -> None:
    (text,) = rows.fragments(1, "e1", 1, [EncodedEvent("real", 1, json.dumps({"type": '"type":"fake"'}))])
    assert rows.type_of(text) == "real"


def _types(events: Sequence[str]) -> str:
    return rows.run([EncodedEvent(name, 1, "{}") for name in events], [])[0]


def test_a_run_says_its_types_once_and_the_last_ones_last() -> None:
    assert _types("aab") == " a b " and rows.last_type(_types("aab")) == "b"
    assert _types("aba") == " b a " and rows.last_type(_types("aba")) == "a"


def test_judges_who_read_the_file_see_each_event(world: World) -> None:
    told = Told(world)
    told.append(*(said("output", n) for n in range(3)))
    told.append(said("note", 1))
    found = world.store._c.execute(f"select seq, type, execution_id, data from {each_event()} order by seq").fetchall()
    assert [row[0] for row in found] == list(range(1, told.head + 1))
    assert [row[:3] for row in found][told.first :] == [row[:3] for row in told.events]
    assert [json.loads(row[3])["n"] for row in found[told.first :]] == [0, 1, 2, 1]
