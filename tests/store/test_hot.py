"""What an append moves stands apart until somebody decides: nobody can tell, nothing is lost, and it is bounded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.law import requests as rq
from actors.protocol.errors import HoldfastError
from actors.protocol.ids import ulid
from actors.store import append, hot, reads
from actors.store.append import LONG_BYTES
from actors.store.contract import Appended, AppendItem, AppendRefused, AppendResult, SessionFilter
from actors.store.expect import BrokenExpectation
from actors.store.hot import FRESH_EVENTS, FRESH_KEEP_MS, FRESH_MOST, FRESH_SPAN_MS, PACK_PACE
from actors.store.locks import library
from actors.store.sqlite import SqliteStore
from tests.each_event import each_event
from tests.store.test_runs import DAY_MS, Told, lengths, said, words_kept
from tests.world import World


def rows_of(world: World, table: str) -> int:
    return int(world.store._c.execute(f"select count(*) from {table}").fetchone()[0])


def test_short_events_that_come_one_by_one_become_a_run(world: World) -> None:
    told = Told(world)
    before = lengths(world)
    for n in range(FRESH_EVENTS - 1):
        told.append(said("output", n))
    assert lengths(world) == before and rows_of(world, "fresh") == FRESH_EVENTS - 1
    told.append(said("note", 99))
    assert lengths(world) == [*before, FRESH_EVENTS]
    told.append(said("output", 100))
    assert lengths(world) == [*before, FRESH_EVENTS] and words_kept(world) == 1
    assert [e["seq"] for e in world.events()] == list(range(1, told.head + 1))
    assert world.store.spelled("s", told.first, 500).joined.decode() == ",".join(e[3] for e in told.events[:-1])
    assert world.store.spelled("s", told.head - 1, 500).joined.decode() == told.events[-1][3]


@pytest.mark.parametrize("behind", ["several", "long", "own"])
def test_whatever_comes_behind_them_keeps_its_place(world: World, behind: str) -> None:
    told = Told(world)
    told.append(said("output", 1))
    told.append(said("note", 2))
    if behind == "own":
        told.own()
    else:
        told.append(*(said("output", n, "x" * (LONG_BYTES if behind == "long" else 1)) for n in range(9)))
    told.append(said("output", 3))
    found = world.store.page("s", told.first, 500)
    assert list(zip(found.seqs, found.types, found.execution_ids, found.fragments, strict=True)) == told.events


def test_reads_show_what_an_append_has_moved(world: World) -> None:
    told = Told(world)
    world.now_ms += 5000
    world.store.tick("gw_1")
    told.append(said("output", 1), said("output", 2))
    assert rows_of(world, "hot") == 1
    assert world.store.session("s")["last_seq"] == told.head
    (listed,) = world.store.sessions(SessionFilter()).items
    assert listed["last_seq"] == told.head
    assert world.store.heads(["s"])["s"][0] == told.head
    shown = world.store.execution("s", "e1")
    assert shown["acked_seq"] == told.acked and shown["last_progress_at_ms"] == world.now_ms
    assert world.store.executions("s", 10, None).items[0] == shown
    world.store.settle("s")
    assert rows_of(world, "hot") == 0
    assert world.store.execution("s", "e1") == shown and world.store.session("s")["last_seq"] == told.head


def test_the_heads_of_many_are_read_in_parts_without_those_that_are_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "HEADS_PART", 2)
    for k in range(5):
        world.do(rq.CreateSession(session_id=f"s{k}", seed=ulid()))
    world.do(rq.DeleteSession(session_id="s3", seed=ulid()))
    of = {k: world.store.session(f"s{k}") for k in (0, 1, 2, 4)}
    assert world.store.heads([f"s{k}" for k in range(6)]) == {
        f"s{k}": (one["last_seq"], one["stream_id"]) for k, one in of.items()
    }
    assert world.store.heads([]) == {}


def test_a_decision_of_another_process_is_about_what_stands_now(world: World) -> None:
    told = Told(world)
    told.append(said("output", 1))
    other = world.another_process()
    outcome = other.transact(rq.Interrupt(session_id="s", seed=ulid(), execution_id="e1"))
    other.close()
    assert outcome.last_seq == told.head + 1, "its event stands behind the one that was fresh"
    assert rows_of(world, "hot") == 0
    (done,) = world.append(world.item(told.acked + 1))
    assert isinstance(done, Appended) and done.first_seq == told.head + 2
    assert [e["seq"] for e in world.events()] == list(range(1, told.head + 3))


def test_who_forgets_to_settle_is_refused(world: World) -> None:
    Told(world).append(said("output", 1))
    for statement in (
        "update sessions set link = 'offline'",
        "update sessions set last_seq = 1",
        "update sessions set connection_epoch = 9",
        "update sessions set deleted_at_ms = 1",
        "update executions set status = 'failed'",
        "update executions set acked_seq = 1",
    ):
        with pytest.raises(library().IntegrityError, match="settle the session first"):
            world.store._c.execute(statement)
    world.store.settle("s")
    world.store._c.execute("update sessions set link = 'offline'")


def test_numbers_that_find_no_row_are_an_error(world: World) -> None:
    Told(world).append(said("output", 1))
    world.store._c.execute("delete from executions")
    with pytest.raises(BrokenExpectation):
        world.store._alone(lambda: world.store.settle("s"))
    assert rows_of(world, "hot") == 1


def test_a_fenced_item_finds_no_warm_place(world: World) -> None:
    """The row in `hot` knows the epoch and the execution it was made for."""
    told = Told(world)
    told.append(said("output", 1))
    late = world.item(told.acked + 1)
    world.connect("con_2", instance="i_2", executions=(rq.Reported("e1", "running", 1, told.acked),))
    told.own()
    assert world.append(late) == [AppendRefused("fenced", close_code=4001)]
    (done,) = world.append(world.item(told.acked + 1, connection="con_2"))
    assert isinstance(done, Appended)
    fits = world.item(told.acked + 2)
    assert world.append(fits) == [AppendRefused("fenced", close_code=4001)], "also where only the epoch is not its own"
    other = world.item(told.acked + 2, execution_id="e2", connection="con_2")
    assert world.append(other) == [AppendRefused("unknown_execution")]


def test_what_comes_behind_the_end_of_its_connection_finds_no_place(world: World) -> None:
    told = Told(world)
    told.append(said("output", 1))
    late = world.item(told.acked + 1)
    world.closed("con_1")
    (refused,) = world.append(late)
    assert isinstance(refused, AppendRefused) and refused.why == "fenced"
    assert rows_of(world, "hot") == 0


def test_progress_of_a_heartbeat_is_not_undone(world: World) -> None:
    told = Told(world)
    told.append(said("output", 1))
    world.now_ms += 7000
    world.store.tick("gw_1")
    world.store.flush_seen([("s", "con_1", True)])
    later = world.now_ms
    assert world.store.execution("s", "e1")["last_progress_at_ms"] == later
    world.store.settle("s")
    assert world.store.execution("s", "e1")["last_progress_at_ms"] == later


def test_a_run_is_of_one_minute_so_that_retention_is_exact(world: World) -> None:
    told = Told(world)
    for n in range(3):
        told.append(said("output", n))
        world.now_ms += FRESH_SPAN_MS // 2
        world.store.tick("gw_1")
    world.now_ms += FRESH_SPAN_MS
    told.append(said("output", 3))
    world.store.settle("s")
    assert lengths(world)[-2:] == [3, 1]
    world.now_ms += DAY_MS - FRESH_SPAN_MS
    world.store.tick("gw_1")
    world.store.janitor(DAY_MS)
    assert world.store.page("s", 0, 10).first_seq == told.head


def test_a_run_is_as_young_as_the_youngest_of_it(world: World) -> None:
    """A clock that was set back by less than a run may last: retention takes none of them too early."""
    told = Told(world)
    for ahead in (0, 55_000, -54_000):
        world.now_ms += ahead
        told.append(said("output", ahead))
    world.store.settle("s")
    assert lengths(world)[-1] == 3
    world.now_ms += DAY_MS + 54_000 - 1000  # the second one is not a day old yet
    world.store.tick("gw_1")
    world.store.janitor(DAY_MS)
    assert world.store.page("s", 0, 10).seqs[-3:] == (told.head - 2, told.head - 1, told.head)


def test_an_append_behind_a_heartbeat_is_activity(world: World) -> None:
    told = Told(world)
    told.append(said("output", 1))
    world.now_ms += 100_000 - world.now_ms % 1000
    world.store.tick("gw_1")
    world.store.settle("s")
    world.store.flush_seen([("s", "con_1", True)])
    world.now_ms += 300
    told.append(said("output", 2))
    assert world.store.session("s")["updated_at_ms"] == world.now_ms - 300


def test_a_clock_that_was_set_back_ends_a_run(world: World) -> None:
    told = Told(world)
    told.append(said("output", 1))
    world.now_ms -= 3_600_000
    told.append(said("output", 2))
    world.store.settle("s")
    assert lengths(world)[-2:] == [1, 1]


def crowd(world: World, n: int) -> list[str]:
    names = [f"s{k}" for k in range(n)]
    for name in names:
        world.running("e1", name)
    return names


def whole(world: World, names: list[str], upto: int) -> None:
    for name in names:
        found = [e["exec_seq"] for e in world.events(name) if e["type"] == "output"]
        assert found == list(range(2, upto)), name


@pytest.mark.parametrize(("n", "each"), [(3, 1), (60, 7), (100, 1), (340, 1), (400, 1), (500, 1), (600, 1)])
def test_sessions_that_are_full_together_are_packed_a_few_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch, n: int, each: int
) -> None:
    """A group takes little more from `fresh` than twice what it brings, a sweep of what is too long included, and
    nobody waits for ever."""
    monkeypatch.setattr(hot, "FRESH_ROWS", 4096)  # a quarter, and so the runs and the rounds: what matters is n of it
    monkeypatch.setattr(hot, "FRESH_EVENTS", 8)
    monkeypatch.setattr(append, "FRESH_EVENTS", 8)
    monkeypatch.setattr(append, "FRESH_MOST", 16)
    names = crowd(world, n)
    packed, longest, most, upto = 0, 0, 0, 2
    for _ in range(2 + 48 // each):
        for begin in range(0, n, 40):  # as a group finds them: some of all, one behind the other
            part = names[begin : begin + 40]
            world.append(*(world.item(upto, each, connection=f"con_{name}") for name in part))
            total = world.store._c.execute("select coalesce(sum(run_length), 0) from events").fetchone()[0]
            brought, swept = len(part) * each, (len(part) * each + hot.SWEEP_ROWS) * 5 // 4
            assert total - packed <= 2 * 8 + PACK_PACE * (brought + swept), "a run beside each of the two"
            packed = total
            longest = max(longest, world.store._c.execute("select max(fresh) from hot").fetchone()[0])
            most = max(most, rows_of(world, "fresh"))
        upto += each
    assert longest < 16, "none had to be packed beyond what a group takes"
    assert packed >= n * (upto - 2 - 16), "and none is forgotten"
    assert most <= 4096 * 5 // 4, "and it stays about as long as it may be"
    whole(world, names, upto)


@pytest.mark.parametrize("n", [250, 1200])
def test_of_a_great_crowd_each_has_few_and_they_go_as_fast_as_others_come(
    world: World, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    """More sessions than can ever be full: only the sweep packs. Of 1,200 not each has even one."""
    monkeypatch.setattr(hot, "FRESH_ROWS", 512)
    names = crowd(world, n)
    most = 0
    for upto in range(2, 8):
        for begin in range(0, n, 40):
            part = names[begin : begin + 40]
            world.append(*(world.item(upto, connection=f"con_{name}") for name in part))
            most = max(most, rows_of(world, "fresh"))
    assert most <= 512 + 2 * hot.SWEEP_ROWS + 40
    whole(world, names[:: n // 100], 8)


def test_who_has_waited_longest_is_packed_whatever_a_group_brings(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot, "PACK_PACE", 0)  # one a group, so that most have to wait
    names = crowd(world, 40)
    upto = 2
    for _ in range(FRESH_MOST + 8):
        world.append(*(world.item(upto, connection=f"con_{name}") for name in names))
        upto += 1
        assert world.store._c.execute("select max(fresh) from hot").fetchone()[0] < FRESH_MOST
    whole(world, names, upto)


def test_the_fullest_are_packed_first() -> None:
    full = [(33, "a", 1), (60, "b", 2), (FRESH_MOST, "c", 3), (FRESH_MOST + 1, "d", 4), (40, "e", 5)]
    names = [session_id for _, session_id, _ in append._at_once(full, 1)]
    assert names == ["d", "c"], "one beside a single event, and those that may not wait"
    assert [one[1] for one in append._at_once(full, 3 * FRESH_EVENTS)] == ["d", "c", "b"]


@pytest.mark.parametrize(("n", "each"), [(60, 1), (60, 7), (400, 1)])
def test_what_is_fresh_is_bounded_and_the_oldest_goes_first(
    world: World, monkeypatch: pytest.MonkeyPatch, n: int, each: int
) -> None:
    monkeypatch.setattr(hot, "FRESH_ROWS", 100)
    names = crowd(world, n)
    most = 0
    for k in range(2, 2 + 30 * each, each):
        done = world.append(*(world.item(k, each, connection=f"con_{name}") for name in names))
        assert all(isinstance(one, Appended) for one in done)
        most = max(most, rows_of(world, "fresh"))
    assert most <= 100 + hot.SWEEP_ROWS + n * each
    whole(world, names, 2 + 30 * each)


def test_a_sweep_and_the_end_of_a_wait_in_one_group(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on its way into `events` is not taken by the sweep; nobody is refused, and no group is done twice."""
    monkeypatch.setattr(hot, "FRESH_ROWS", 100)
    names = crowd(world, 41)
    alone: list[str] = []
    one_by_one = type(world.store).append_in_transaction

    def counted(store: SqliteStore, item: AppendItem, wall_ms: int, service_ms: int) -> AppendResult:
        alone.append(item.session_id)
        return one_by_one(store, item, wall_ms, service_ms)

    monkeypatch.setattr(type(world.store), "append_in_transaction", counted)
    for k in range(2, 100):
        world.append(*(world.item(k, connection=f"con_{name}") for name in names))
        if k % 5 == 0:
            world.now_ms += FRESH_SPAN_MS + 1000
    assert alone == []
    whole(world, names, 100)


def test_one_that_waited_too_long_ends_in_the_very_sweep(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One alone: the number of its new event calls for the sweep, and its old one is the oldest of all."""
    monkeypatch.setattr(hot, "FRESH_ROWS", 100)
    for name in ("old", "other"):
        world.running("e1", name)
    world.append(world.item(2, connection="con_old"))
    for k in range(2, hot.SWEEP_ROWS):
        world.append(world.item(k, connection="con_other"))
    assert rows_of(world, "fresh") == hot.SWEEP_ROWS - 1
    world.now_ms += FRESH_SPAN_MS + 1000
    (done,) = world.append(world.item(3, connection="con_old"))
    assert isinstance(done, Appended) and rows_of(world, "fresh") == 100
    whole(world, ["old"], 4)
    whole(world, ["other"], hot.SWEEP_ROWS)


def test_a_sweep_while_some_wait_loses_none(world: World) -> None:
    told = Told(world)
    for n in range(5):
        told.append(said("output", n))
    assert world.store.sweep_fresh(3, older_than_ms=world.now_ms + 1) == 3
    assert rows_of(world, "fresh") == 2 and lengths(world)[-1] == 5, "all of its session went, and three of the rows"
    told.append(said("output", 5))
    assert [e["exec_seq"] for e in world.events() if e["type"] == "output"] == list(range(2, 8))
    found = world.store._c.execute(f"select seq from {each_event()} order by seq").fetchall()
    assert [row[0] for row in found] == list(range(1, told.head + 1))


def test_the_janitor_leaves_nothing_fresh_that_is_old(world: World) -> None:
    """Also what its session lost long ago: the words of a deleted session are gone."""
    told = Told(world)
    told.append(said("output", 1, "secret"))
    world.do(rq.DeleteSession(session_id="s", seed=ulid()))
    world.running("e1", "t")
    world.append(world.item(2, connection="con_t"))
    assert rows_of(world, "fresh") == 2
    world.now_ms += FRESH_KEEP_MS + 1000
    world.store.tick("gw_1")
    world.store.janitor(10 * DAY_MS)
    assert rows_of(world, "fresh") == 0
    assert [e["exec_seq"] for e in world.events("t") if e["type"] == "output"] == [2]
    (done,) = world.append(world.item(3, connection="con_t"))
    assert isinstance(done, Appended)
    for table, column in (("runs", "words"), ("fresh", "data")):
        assert world.store._c.execute(f"select 1 from {table} where {column} like '%secret%'").fetchall() == []


def test_a_chain_with_a_hole_is_an_error_and_not_a_shorter_log(world: World) -> None:
    told = Told(world)
    for n in range(3):
        told.append(said("output", n))
    ((second,),) = world.store._c.execute("select n from fresh where seq = ?", (told.head - 1,)).fetchall()
    world.store._c.execute("delete from fresh where n = ?", (second,))
    with pytest.raises(HoldfastError) as raised:
        world.interrupt("e1")
    assert raised.value.code == "internal"
    assert rows_of(world, "hot") == 1, "nothing was written"
    for read in (world.store.page, world.store.spelled):
        with pytest.raises(BrokenExpectation):
            read("s", told.first, 10)


def test_a_chain_with_a_hole_holds_up_nobody_else(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot, "FRESH_ROWS", 100)
    told = Told(world)
    for n in range(3):
        told.append(said("output", n))
    world.store._c.execute("delete from fresh where seq = ? and session_id = 's'", (told.head - 1,))
    names = crowd(world, 60)
    for k in range(2, 40):
        done = world.append(*(world.item(k, connection=f"con_{name}") for name in names))
        assert all(isinstance(one, Appended) for one in done)
    world.now_ms += FRESH_KEEP_MS + 1000
    world.store.tick("gw_1")
    world.store.janitor(10 * DAY_MS)
    whole(world, names, 40)
    left = world.store._c.execute("select seq from fresh where session_id = 's'").fetchall()
    assert [row[0] for row in left] == [told.head - 2, told.head], "what is left of it is kept for whoever mends it"


def test_many_sessions_share_a_page_where_each_had_three(world: World) -> None:
    """The point of it all: what a commit writes. 100 sessions of one event each, whose logs have pages of their own."""
    names = crowd(world, 100)
    for name in names:
        world.append(world.item(2, 8, connection=f"con_{name}", text="x" * 600))
    wal = world.path.with_name(world.path.name + "-wal")
    for k in range(10, 13):
        world.store._c.execute("pragma wal_checkpoint(truncate)")
        world.append(*(world.item(k, connection=f"con_{name}") for name in names))
    written = wal.stat().st_size // (4096 + 24)
    assert written < len(names) / 2, f"{written} pages for {len(names)} events"


STEPS = st.lists(
    st.tuples(st.just("append"), st.sampled_from([1, 1, 1, 2, 7, 8, 101]))
    | st.tuples(st.sampled_from(["own", "settle", "janitor", "sweep", "other"]), st.just(0))
    | st.tuples(st.just("walk"), st.sampled_from([1, 30, 61, 700])),
    min_size=1,
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, data=st.data())
def test_whatever_happens_between_appends_the_log_is_what_was_told(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], data: st.DataObject
) -> None:
    world = World(tmp_path_factory.mktemp("hot"))
    told = Told(world)
    other = world.another_process()
    for what, n in steps:
        if what == "append":
            told.append(
                *(said(("output", "note")[k % 2], k, "y" * data.draw(st.sampled_from([1, 900]))) for k in range(n))
            )
        elif what == "own":
            told.own()
        elif what == "settle":
            world.store._alone(lambda: world.store.settle("s"))
        elif what == "janitor":
            world.store.janitor(10 * DAY_MS)
        elif what == "sweep":
            world.store._alone(lambda: world.store.sweep_fresh(3, older_than_ms=world.now_ms + 1))
        elif what == "other":
            for back in (-3, 0, 1):
                at_the_end = other.spelled("s", told.head - back, 10)
                assert at_the_end.scanned_to == told.head and bool(at_the_end.joined) == (back == 1)
        else:
            world.now_ms += n * 1000
            world.store.tick("gw_1")
    page = other.page("s", told.first, 1 << 20, max_bytes=1 << 30)
    assert list(zip(page.seqs, page.types, page.execution_ids, page.fragments, strict=True)) == told.events
    found = other._c.execute(f"select seq, data from {each_event('seq > ' + str(told.first))} order by seq").fetchall()
    assert [row[0] for row in found] == [event[0] for event in told.events]
    assert [json.loads(row[1]) for row in found] == [json.loads(event[3])["data"] for event in told.events]
    other.close()
    world.close()


def test_the_rows_of_now_are_found_by_their_keys(tmp_path: Path) -> None:
    """A view must not cost a walk through the table."""
    world = World(tmp_path)
    for sql in (
        "select last_seq from sessions_now where id = 's'",
        "select id from sessions_now s where deleted_at_ms is null order by s.updated_at_ms desc, s.id desc limit 9",
        "select acked_seq, last_progress_at_ms from executions_now where session_id = 's' and id = 'e'",
    ):
        plan = [row[3] for row in world.store._c.execute(f"explain query plan {sql}").fetchall()]
        walked = [step for step in plan if step.startswith("SCAN") and "sessions_activity" not in step]
        assert not walked and "USE TEMP B-TREE FOR ORDER BY" not in plan, plan
    world.close()
