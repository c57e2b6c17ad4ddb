"""Feeds and cursors over a log in memory that answers pages as a store does."""

from __future__ import annotations

import asyncio
import gc
import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from actors.gateway import hub as hub_module
from actors.gateway.feed import AHEAD_PAGES, Batch, CaughtUp, Entry, Ephemeral, Feed, Gone, Reset, Slots, Subscription
from actors.gateway.hub import Hub, pages_behind
from actors.protocol.defaults import FEED_BYTES, PAGE_EVENTS
from actors.protocol.errors import HoldfastError
from actors.store.contract import Appended, AppendItem, EncodedEvent, Page, Spelled
from tests.world import World


class Log:
    """The committed truth. `page` answers at most four rows, so that replay takes several."""

    as_frames = False  # how its readers take it; every test here runs both ways

    def __init__(self, upto: int = 0) -> None:
        self.rows = [entry(n) for n in range(1, upto + 1)]
        self.stream_id, self.first_seq, self.reads = "str_1", 1, 0
        self.deleted = False

    def grow(self, n: int) -> list[Entry]:
        start = len(self.rows) + 1
        self.rows += [entry(k) for k in range(start, start + n)]
        return self.rows[-n:]

    async def page(self, session_id: str, after: int, types: tuple[str, ...], execution_id: str | None) -> Page:
        self.reads += 1
        if self.deleted:
            raise HoldfastError("session_deleted")
        await asyncio.sleep(0)
        last = len(self.rows)
        found = [r for r in self.rows if r.seq > after and r.seq >= self.first_seq and (not types or r.type in types)]
        part, full = found[:4], len(found) > 4
        return Page(
            self.stream_id,
            self.first_seq,
            last,
            tuple(r.seq for r in part),
            tuple(r.type for r in part),
            tuple(r.execution_id for r in part),
            tuple(r.fragment for r in part),
            part[-1].seq if full else last,
        )

    async def spell(self, session_id: str, after: int, pages: int = 1) -> list[Spelled]:
        found: list[Spelled] = []
        while len(found) < pages and (not found or after < found[-1].last_seq):
            page = await self.page(session_id, after, (), None)
            head, joined = (page.stream_id, page.first_seq, page.last_seq), ",".join(page.fragments).encode()
            found.append(Spelled(*head, page.types[-1] if page.types else None, joined, page.scanned_to))
            after = page.scanned_to
        return found

    def feed(self, *, ahead: int = 2, **more: Any) -> Feed:
        return Feed("s", self.page, self.spell, ahead=Slots(ahead), **more)


@pytest.fixture(autouse=True, params=[False, True], ids=["as rows", "as frames"])
def _taken_both_ways(request: pytest.FixtureRequest) -> None:
    Log.as_frames = request.param


def entry(n: int) -> Entry:
    return Entry(n, "even" if n % 2 == 0 else "odd", "e", f'{{"seq":{n}}}')


def subscribe(feed: Feed, log: Log, **wanted: Any) -> Subscription:
    feed.stream_id = log.stream_id
    snapshot = {"stream_id": log.stream_id, "first_seq": log.first_seq, "last_seq": len(log.rows)}
    return Subscription(feed, **snapshot, **{"as_frames": log.as_frames, **wanted})  # type: ignore[arg-type]


TURNS = 500  # of the loop: no step over a log in memory needs a tenth of them, however slow the machine is


async def taken(subscription: Subscription) -> Any:
    """The next step; None: nothing came. Turns are counted and not time, because nothing here has a clock."""
    step = asyncio.ensure_future(subscription.step())
    for _ in range(TURNS):
        if step.done():
            return step.result()
        await asyncio.sleep(0)
    step.cancel()
    await asyncio.wait({step})
    return None


async def told(subscription: Subscription, n: int) -> list[Any]:
    steps = [await taken(subscription) for _ in range(n)]
    assert None not in steps, steps
    return steps


async def idle(subscription: Subscription) -> bool:
    return await taken(subscription) is None


def seqs(steps: list[Any]) -> list[int]:
    """Of what a subscriber gets to see: the frame, and the entries if there are any."""
    seen = []
    for batch in (s for s in steps if isinstance(s, Batch)):
        seen += [e["seq"] for e in json.loads(batch.encoded())["events"] if e]
        assert not batch.entries or [e.seq for e in batch.entries] == seen[-len(batch.entries) :]
    return seen


async def test_the_ring_serves_who_stands_in_it_and_the_store_serves_the_rest() -> None:
    log = Log(10)
    feed = log.feed()
    late, now = subscribe(feed, log, after_seq=0), subscribe(feed, log)
    assert await told(now, 1) == [CaughtUp(10)]
    assert seqs(steps := await told(late, 4)) == list(range(1, 11)) and steps[-1] == CaughtUp(10)
    reads = log.reads
    feed.publish(log.grow(3))
    one, two = await told(now, 1), await told(late, 1)
    assert seqs(one) == seqs(two) == [11, 12, 13] and log.reads == reads
    assert one[0].encoded() is two[0].encoded(), "joined once"
    assert one[0].encoded() == b'{"type":"events","events":[{"seq":11},{"seq":12},{"seq":13}],"live":true}'


@pytest.mark.parametrize("limit_bytes", [1 << 20, 30, 5])
async def test_behind_a_cursor_stands_exactly_what_comes_next_or_nothing(limit_bytes: int) -> None:
    """Whether it is the newest batch as it was published, a part of it, several, or has left the ring."""
    log = Log()
    feed = log.feed(limit=6, limit_bytes=limit_bytes)
    for n in (1, 3, 2, 1, 4, 7):
        feed.publish(log.grow(n))
        kept = [e.seq for e in feed._ring]
        for cursor in range(len(log.rows) + 2):
            wanted = [seq for seq in kept if seq > cursor] if cursor + 1 in kept else []
            assert [e.seq for e in feed.after(cursor)] == wanted, (kept, cursor)
    feed.behind(3)
    assert not feed.after(3)


async def test_a_batch_that_does_not_continue_the_ring_sends_readers_to_the_store() -> None:
    log = Log(2)
    feed = log.feed()
    cursor = subscribe(feed, log)
    await told(cursor, 1)
    feed.publish(log.grow(2))
    log.grow(3)  # another process's rows, of which nobody told
    feed.publish(log.grow(1))
    assert seqs(await told(cursor, 2)) == [3, 4, 5, 6, 7, 8][:6]
    assert await idle(cursor)


async def test_the_ring_is_bounded_by_number_and_by_bytes() -> None:
    log = Log()
    feed = log.feed(limit=5, limit_bytes=31)
    feed.publish(log.grow(100))
    assert [e.seq for e in feed.after(97)] == [98, 99, 100] and feed.after(96) == ()


async def test_what_is_published_in_one_group_stands_in_the_ring_until_the_next_however_much_it_is() -> None:
    """Nobody can read between two batches of a group: who follows live would go to the store for all but the last."""
    log = Log(1)
    feed = log.feed(limit=5)
    cursor = subscribe(feed, log)
    await told(cursor, 1)
    for _ in range(8):
        feed.publish(log.grow(4), group=1)
    reads = log.reads
    assert seqs(await told(cursor, 1)) == list(range(2, 34)) and log.reads == reads
    feed.publish(log.grow(2), group=2)
    assert len(feed.after(30)) == 5 and feed.after(29) == (), "then it is trimmed to what it may hold"


def held(feed: Feed) -> int:
    """Bytes, counted and not believed."""
    assert feed._bytes == sum(len(e.fragment.encode()) for e in feed._ring)
    return feed._bytes


def whole(steps: list[Any]) -> list[int]:
    assert all(step.live and len(step.encoded()) <= 50 + 50 for step in steps), "no frame is longer than the tail"
    return seqs(steps)


async def all_up_to(last: int, subscription: Subscription) -> list[Any]:
    steps: list[Any] = []
    while subscription.cursor < last:
        steps += await told(subscription, 1)
    return steps


@pytest.mark.parametrize("batches", [1, 8])
async def test_a_group_longer_than_the_tail_is_kept_until_its_live_readers_have_it(batches: int) -> None:
    log = Log(1)
    feed = log.feed(limit=5, limit_bytes=50, limit_group=400)
    quick, late = subscribe(feed, log), subscribe(feed, log)
    await told(quick, 1)
    await told(late, 1)
    for _ in range(batches):
        feed.publish(log.grow(32 // batches), group=1)
    reads = log.reads
    assert 50 < held(feed) <= 400
    feed.wake()
    assert whole(await all_up_to(33, quick)) == list(range(2, 34)) and await idle(quick)
    feed.shed()
    assert held(feed) > 50, "one of them has not had it"
    assert whole(await all_up_to(33, late)) == list(range(2, 34)) and log.reads == reads
    feed.shed()
    assert held(feed) <= 50 and [e.seq for e in feed.after(28)] == [29, 30, 31, 32, 33] and feed.after(27) == ()
    assert not feed._joined, "nor are its frames"


async def test_a_group_is_not_kept_for_a_reader_who_has_left() -> None:
    log = Log(1)
    feed = log.feed(limit=5, limit_bytes=50, limit_group=400)
    quick, stalled = subscribe(feed, log), subscribe(feed, log)
    feed.publish(log.grow(32), group=1)
    feed.wake()
    await all_up_to(33, quick)
    feed.shed()
    assert held(feed) > 50
    stalled.close()
    feed.shed()
    assert held(feed) <= 50


async def test_a_frame_of_a_long_group_is_counted_in_bytes_and_not_in_characters() -> None:
    log = Log(1)
    feed = log.feed(limit=5, limit_bytes=100, limit_group=1000)
    cursor = subscribe(feed, log)
    await told(cursor, 1)
    log.rows += [Entry(n, "output", "e", f'{{"seq":{n},"t":"{"水" * 10}"}}') for n in range(2, 12)]
    feed.publish(log.rows[1:], group=1)
    assert 100 < held(feed) <= 1000
    steps = await all_up_to(11, cursor)
    assert seqs(steps) == list(range(2, 12)) and all(len(step.encoded()) < 100 + 50 for step in steps)


async def test_the_hub_sheds_what_nobody_needs_any_more() -> None:
    class Nothing:
        async def read(self, fn: Any) -> dict[str, Any]:
            return {}

    log = Log(1)
    hub = Hub(Nothing(), asyncio.ensure_future)  # type: ignore[arg-type]
    feed = hub.feeds["s"] = log.feed(limit=5, limit_bytes=50, limit_group=400)
    cursor = subscribe(feed, log)
    feed.publish(log.grow(32), group=1)
    feed.wake()
    await all_up_to(33, cursor)
    assert held(feed) > 50
    hub.shed()
    assert held(feed) <= 50


@pytest.mark.parametrize("ours", [True, False])
async def test_a_look_finds_what_others_wrote_and_leaves_to_the_group_what_is_of_our_own(ours: bool) -> None:
    """A head may be read after its commit and before the loop is told of it: whoever is woken by the look would read
    from the store what comes a moment later by itself."""
    log = Log(1)

    class Worker:
        async def read(self, fn: Any) -> dict[str, Any]:
            return {"s": (len(log.rows), log.stream_id)}

        async def told(self) -> None:
            if ours:
                feed.publish(committed, group=1)
                feed.wake()

    hub = Hub(Worker(), asyncio.ensure_future)  # type: ignore[arg-type]
    feed = hub.feeds["s"] = log.feed()
    feed.stream_id = log.stream_id
    cursor = subscribe(feed, log)
    await all_up_to(1, cursor)
    committed, reads = log.grow(3), log.reads
    await hub.look()
    assert seqs(await all_up_to(4, cursor)) == [2, 3, 4]
    assert log.reads == reads + (0 if ours else 1)


class Stuck:
    """A worker whose writer hangs: its reads go on."""

    def __init__(self, heads: dict[str, Any]) -> None:
        self.heads, self.asked = heads, asyncio.Event()

    async def read(self, fn: Any) -> dict[str, Any]:
        return self.heads

    async def told(self) -> None:
        self.asked.set()
        await asyncio.Event().wait()


async def test_a_look_does_not_wait_for_a_writer_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "TOLD_S", 0.01)
    log = Log(1)
    hub = Hub(Stuck({"s": (4, log.stream_id)}), asyncio.ensure_future)  # type: ignore[arg-type]
    feed = hub.feeds["s"] = log.feed()
    feed.stream_id = log.stream_id
    cursor = subscribe(feed, log)
    await all_up_to(1, cursor)
    log.grow(3)
    await asyncio.wait_for(hub.look(), 10)
    assert seqs(await all_up_to(4, cursor)) == [2, 3, 4]


async def test_what_a_look_found_is_for_those_feeds_only_that_stood_then() -> None:
    """A session that is gone, or another log, is told at once; and what was read before a feed was made says nothing
    to it."""
    stuck = Stuck({"new": (9, "str_1"), "other": (3, "str_2"), "same": (1, "str_1")})
    hub = Hub(stuck, asyncio.ensure_future)  # type: ignore[arg-type]
    feeds = {name: Log(1).feed() for name in ("gone", "new", "other", "same")}
    for name, feed in feeds.items():
        hub.feeds[name] = feed
        feed.stream_id = "str_1"
        feed.advance(1)
    looking = asyncio.create_task(hub.look())
    await asyncio.wait_for(stuck.asked.wait(), 10)
    assert feeds["gone"].gone and feeds["other"].stream_id == "str_2" and feeds["other"].head == 3
    assert feeds["new"].head == 1 and not feeds["same"].gone
    later = hub.feeds["new"] = Log(1).feed()
    again = hub.feeds["gone"] = Log(1).feed()
    await asyncio.wait_for(looking, 10)
    assert later.head == 0 and not again.gone and feeds["new"].head == 1


async def test_a_group_has_its_bound_too_and_only_the_newest_is_one() -> None:
    log = Log(1)
    feed = log.feed(limit=5, limit_bytes=50, limit_group=100)
    stalled = subscribe(feed, log)
    for group in range(1, 4):
        for _ in range(8):
            feed.publish(log.grow(4), group=group)
            assert held(feed) <= 100
        feed.wake()
        assert held(feed) > 50, "the stalled one may come for it"
    feed.publish(log.grow(1), group=4)
    assert held(feed) <= 50, "what it is kept for is the newest group"
    heard = await all_up_to(len(log.rows), stalled)
    assert seqs(heard) == list(range(2, len(log.rows) + 1)), "and from the store it has all the rest"


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"after_seq": 11}, "ahead"),
        ({"after_seq": 1}, "retention"),
        ({"after_seq": 5, "came_from": "str_0"}, "restored"),
    ],
)
async def test_a_cursor_that_cannot_be_honoured_is_reset_and_goes_on_from_the_first(
    wanted: dict[str, Any], reason: str
) -> None:
    log = Log(10)
    log.first_seq = 4
    cursor = subscribe(log.feed(), log, **wanted)
    steps = await told(cursor, 4)
    assert steps[0] == Reset(reason, 4, 10, "str_1")  # type: ignore[arg-type]
    assert seqs(steps) == [4, 5, 6, 7, 8, 9, 10] and steps[-1] == CaughtUp(10)


@pytest.mark.parametrize("after", [3, 10])
async def test_a_cursor_at_the_edge_needs_no_reset(after: int) -> None:
    log = Log(10)
    log.first_seq = 4
    cursor = subscribe(log.feed(), log, after_seq=after)
    steps = await told(cursor, 3 if after == 3 else 1)
    assert seqs(steps) == list(range(after + 1, 11)) and steps[-1] == CaughtUp(10)


async def test_another_log_in_its_place_resets_everybody_even_those_who_wait() -> None:
    log = Log(10)
    feed = log.feed()
    cursors = [subscribe(feed, log), subscribe(feed, log)]
    for cursor in cursors:
        await told(cursor, 1)
    del log.rows[5:]
    log.stream_id = "str_2"
    feed.restored("str_2", 5)
    for cursor in cursors:
        steps = await told(cursor, 3)
        assert steps[0] == Reset("restored", 1, 5, "str_2") and seqs(steps) == [1, 2, 3, 4, 5]
        assert await idle(cursor)


async def test_a_hint_of_rows_that_are_not_there_does_no_harm() -> None:
    log = Log(3)
    feed = log.feed()
    cursor = subscribe(feed, log)
    await told(cursor, 1)
    feed.advance(50)
    assert await idle(cursor)
    feed.publish(log.grow(1))
    assert seqs(await told(cursor, 1)) == [4]


async def test_a_page_that_was_overtaken_by_a_commit_does_not_hide_it() -> None:
    log = Log(3)
    feed = log.feed()
    cursor = subscribe(feed, log)
    await told(cursor, 1)
    feed.advance(9)  # a hint from elsewhere; its rows come only after the page was read
    page, spelled = await log.page("s", 3, (), None), await log.spell("s", 3)

    async def overtaken(answer: Any) -> Any:
        feed.read, feed.spell = log.page, log.spell
        feed.publish(log.grow(6))
        return answer

    feed.read, feed.spell = lambda *_: overtaken(page), lambda *_: overtaken(spelled)
    assert seqs(await told(cursor, 1)) == [4, 5, 6, 7, 8, 9]


async def test_pages_are_read_ahead_while_there_is_room_and_their_room_comes_back() -> None:
    log = Log(4 * (1 + 2 * AHEAD_PAGES))
    feed = log.feed(ahead=2)
    one, other = (subscribe(feed, log, after_seq=0, as_frames=True) for _ in range(2))
    await told(one, 1)
    for _ in range(AHEAD_PAGES):
        await asyncio.sleep(0)
    assert log.reads == 1 + AHEAD_PAGES and feed.ahead.free == 1, "one to begin with, and more while it is sent"
    assert seqs(await told(one, 1)) == [5, 6, 7, 8] and feed.ahead.free == 0, "those behind, while these are sent"
    for _ in range(AHEAD_PAGES):
        await asyncio.sleep(0)
    assert log.reads == 1 + 2 * AHEAD_PAGES
    assert seqs(await told(one, AHEAD_PAGES - 1)) == list(range(9, 5 + 4 * AHEAD_PAGES))
    assert log.reads == 1 + 2 * AHEAD_PAGES and feed.ahead.free == 1, "what was told makes room"
    assert seqs(await told(other, 1)) == [1, 2, 3, 4] and feed.ahead.free == 0
    one.close()
    assert feed.ahead.free == 1
    left = list(range(5, len(log.rows) + 1))
    assert seqs(await told(other, 2 * AHEAD_PAGES)) == left and feed.ahead.free == 2, "at the end nothing is ahead"


def test_several_pages_of_one_read_follow_each_other_and_are_bounded_together(world: World) -> None:
    world.running()
    for k in range(6):
        world.append(world.item(2 + k * 250, 250))
    pages = pages_behind(world.store, "s", 0, 4)
    said = [event["seq"] for page in pages for event in json.loads(b"[%b]" % page.joined)]
    assert said == list(range(1, pages[-1].last_seq + 1)) and len(pages) == 4, "to the end, and not beyond it"
    assert len(pages_behind(world.store, "s", 0, 2)) == 2
    assert pages_behind(world.store, "s", pages[-1].last_seq, 4)[0].joined == b""
    big = FEED_BYTES // 5
    for k in range(20):
        world.append(world.item(1502 + k, 1, text="x" * big))
    pages = pages_behind(world.store, "s", pages[-1].last_seq, PAGE_EVENTS)
    assert FEED_BYTES - big < sum(len(page.joined) for page in pages) < FEED_BYTES + 2 * big


async def test_what_was_read_ahead_is_put_away_when_the_ring_was_quicker() -> None:
    log = Log(20)
    feed = log.feed(ahead=1)
    cursor = subscribe(feed, log, after_seq=0, as_frames=True)
    assert seqs(await told(cursor, 1)) == [1, 2, 3, 4]
    feed.publish(log.rows[4:20])
    feed.publish(log.grow(2))
    assert seqs(await told(cursor, 2)) == list(range(5, 23))
    del log.rows[12:]  # a restored backup: what was read ahead belongs to the other log
    log.stream_id = "str_2"
    feed.restored("str_2", 12)
    steps = await told(cursor, 4)
    assert steps[0] == Reset("restored", 1, 12, "str_2") and seqs(steps) == list(range(1, 13))
    cursor.close()
    assert feed.ahead.free == 1


async def test_a_page_ahead_that_fails_is_an_error_of_its_reader_only() -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))
    log = Log(20)

    async def spell(session_id: str, after: int, pages: int) -> list[Spelled]:
        log.deleted |= after > 0  # it goes while its first page is sent
        return await log.spell(session_id, after, pages)

    feed = Feed("s", log.page, spell, ahead=Slots(1))
    cursor, leaves = (subscribe(feed, log, after_seq=0, as_frames=True) for _ in range(2))
    await told(leaves, 1)
    await asyncio.sleep(0)
    leaves.close()  # with the error that nobody will look at
    assert await told(cursor, 2) == [CaughtUp(0), Gone()] and feed.ahead.free == 1
    gc.collect()
    assert not complaints


async def test_whoever_has_read_the_closing_event_needs_no_hint_of_it() -> None:
    log = Log(3)
    cursor = subscribe(log.feed(), log, after_seq=0)
    log.rows.append(Entry(4, "session.closed", None, '{"seq":4}'))
    steps = await told(cursor, 3)
    assert seqs(steps) == [1, 2, 3, 4] and steps[-1] == Gone()


async def test_filters_move_the_cursor_over_what_they_leave_out() -> None:
    log = Log(10)
    feed = log.feed()
    cursor = subscribe(feed, log, after_seq=0, types=("even",))
    steps = await told(cursor, 3)
    assert seqs(steps) == [2, 4, 6, 8, 10] and steps[-1] == CaughtUp(10)
    feed.publish(log.grow(1))
    assert await idle(cursor) and cursor.cursor == 11
    feed.publish(log.grow(1))
    assert seqs(await told(cursor, 1)) == [12]


async def test_caught_up_comes_once_even_if_the_session_never_rests() -> None:
    log = Log(10)
    feed = log.feed()
    cursor = subscribe(feed, log, after_seq=0)
    steps = []
    for _ in range(12):
        feed.publish(log.grow(5))
        steps += await told(cursor, 1)
    assert [type(s) for s in steps].count(CaughtUp) == 1
    assert seqs(steps) == list(range(1, len(seqs(steps)) + 1))
    assert all(
        s.live == (i > steps.index(next(x for x in steps if isinstance(x, CaughtUp))))
        for i, s in enumerate(steps)
        if isinstance(s, Batch)
    )


async def test_ephemeral_frames_reach_only_who_is_at_the_end_and_are_bounded() -> None:
    log = Log(10)
    feed = log.feed()
    at_end, behind = subscribe(feed, log), subscribe(feed, log, after_seq=0)
    await told(at_end, 1)
    for i in range(1000):
        feed.ephemeral("e", str(i))
    assert [s.text for s in await told(at_end, 64)] == [str(i) for i in range(936, 1000)]
    assert await idle(at_end)
    assert not any(isinstance(s, Ephemeral) for s in await told(behind, 4)) and await idle(behind)


async def test_a_deleted_session_tells_the_rest_and_ends() -> None:
    log = Log(3)
    feed = log.feed()
    cursors = [subscribe(feed, log), subscribe(feed, log)]
    for cursor in cursors:
        await told(cursor, 1)
    log.rows.append(Entry(4, "session.closed", None, '{"seq":4}'))
    feed.close()
    for cursor in cursors:
        steps = await told(cursor, 2)
        assert seqs(steps) == [4] and steps[-1] == Gone()
    log.deleted = True
    assert await told(subscribe(feed, log, after_seq=0), 2) == [CaughtUp(0), Gone()]


async def test_what_the_store_skipped_of_an_item_is_not_published_again() -> None:
    hub = Hub(None, asyncio.ensure_future)  # type: ignore[arg-type]
    feed = hub.feeds["s"] = Log().feed()
    events = tuple(EncodedEvent("output", n, "{}") for n in (2, 3, 4))
    item = AppendItem("s", "c", 1, "e", 2, 3, events)
    hub.publish(item, Appended(first_seq=10, count=2, acked_seq=4, skipped=1))
    published = [json.loads(e.fragment) for e in feed.after(9)]
    assert [(p["seq"], p["exec_seq"], p["ts_ms"]) for p in published] == [(10, 3, 3), (11, 4, 4)]


class Hand:
    """Takes live frames on the spot, when it has room."""

    def __init__(self, room: Callable[[int], bool] = lambda size: True) -> None:
        self.has_room, self.seen = room, list[int]()

    def send(self, frame: bytes) -> None:
        self.seen += [e["seq"] for e in json.loads(frame)["events"]]


async def resting(log: Log, feed: Feed, hand: Hand, **wanted: Any) -> tuple[Subscription, asyncio.Task[Any]]:
    """A reader with a taker, at the end of the log, and its step that waits for more."""
    cursor = subscribe(feed, log, **wanted)
    cursor.taker = hand
    await told(cursor, 1)
    step = asyncio.ensure_future(cursor.step())
    await asyncio.sleep(0)
    return cursor, step


async def test_who_rests_at_the_end_is_handed_what_is_new_once_a_group_and_without_a_turn() -> None:
    log = Log(3)
    feed, hand = log.feed(), Hand()
    cursor, step = await resting(log, feed, hand)
    feed.publish(log.grow(2), group=1)
    feed.publish(log.grow(1), group=1)
    assert not hand.seen
    feed.wake()
    assert hand.seen == [4, 5, 6] and cursor.cursor == 6
    await asyncio.sleep(0)
    assert not step.done() and not log.reads
    step.cancel()


async def test_who_has_no_room_stands_before_a_hole_or_has_something_waiting_takes_a_turn() -> None:
    log = Log(3)
    feed, hand = log.feed(), Hand(lambda size: False)
    _, step = await resting(log, feed, hand)
    feed.publish(log.grow(1))
    assert seqs([await step]) == [4] and not hand.seen

    hand = Hand()
    cursor, step = await resting(log, feed, hand)
    log.grow(2)  # committed elsewhere
    feed.publish(log.grow(1))
    assert seqs([await step]) == [5, 6, 7] and not hand.seen

    step = asyncio.ensure_future(cursor.step())
    await asyncio.sleep(0)
    feed.ephemeral("e", "soon")
    feed.publish(log.grow(1))  # it has a turn coming, and takes this then
    assert not hand.seen and seqs([await step]) == [8]
    assert await told(cursor, 1) == [Ephemeral("soon")]

    step = asyncio.ensure_future(cursor.step())
    await asyncio.sleep(0)
    feed.publish(log.grow(1), group=1)
    log.grow(1)
    feed.advance(10)  # by a hint: it is not in the ring
    assert hand.seen == [9] and seqs([await asyncio.wait_for(step, 10)]) == [10]


async def test_handed_frames_are_filtered_and_end_where_the_session_ends() -> None:
    log = Log(3)
    feed, hand = log.feed(), Hand()
    _, step = await resting(log, feed, hand, types=("even", "session.closed"))
    feed.publish(log.grow(3))
    feed.publish(log.grow(1))
    assert hand.seen == [4, 6] and not step.done()
    log.rows.append(Entry(8, "session.closed", None, '{"seq":8}'))
    feed.publish(log.rows[-1:])
    assert hand.seen == [4, 6, 8] and await asyncio.wait_for(step, 10) == Gone()


async def test_a_reader_that_cannot_be_handed_anything_is_told_so_and_takes_nobody_with_it() -> None:
    log = Log(3)
    feed, hand = log.feed(), Hand()

    def breaks(size: int) -> bool:
        raise RuntimeError("planted")

    cursor, step = await resting(log, feed, Hand(breaks))
    _, other = await resting(log, feed, hand)
    feed.publish(log.grow(1))
    assert hand.seen == [4] and not other.done()
    with pytest.raises(RuntimeError, match="planted"):
        await step
    assert cursor.cursor == 3, "nothing was passed over"
    other.cancel()


@pytest.mark.parametrize("handed", [False, True])
@pytest.mark.parametrize("seed", range(50))
async def test_readers_of_any_speed_see_every_event_once_and_in_order(seed: int, handed: bool) -> None:
    dice = random.Random(seed)
    log = Log(dice.randint(0, 20))
    feed = log.feed(limit=dice.randint(1, 12))
    readers = [(start := dice.randint(0, len(log.rows)), subscribe(feed, log, after_seq=start)) for _ in range(5)]
    hands = [Hand(lambda size: dice.random() < 0.7) for _ in readers]
    seen = [hand.seen for hand in hands]
    for (_, reader), hand in zip(readers, hands, strict=True):
        reader.taker = hand if handed else None

    async def read(i: int) -> None:
        while len(seen[i]) <= 200:  # more would be repeats
            step = await readers[i][1].step()
            seen[i] += seqs([step])
            for _ in range(dice.randint(0, i * 3)):
                await asyncio.sleep(0)

    async def write() -> None:
        while len(log.rows) < 200:
            rows = log.grow(min(dice.randint(1, 7), 200 - len(log.rows)))
            match dice.randint(0, 4):
                case 0 | 1:
                    feed.publish(rows)
                case 4:
                    feed.publish(rows, group=len(log.rows))
                    feed.wake()
                case 2:
                    feed.advance(rows[-1].seq)
            for _ in range(dice.randint(0, 4)):
                await asyncio.sleep(0)
        feed.advance(200)

    async with asyncio.timeout(10):
        reading = [asyncio.ensure_future(read(i)) for i in range(5)]
        await write()
        while any(start + len(got) < 200 for (start, _), got in zip(readers, seen, strict=True)):
            await asyncio.sleep(0)
        for task in reading:
            task.cancel()
    for (start, _), got in zip(readers, seen, strict=True):
        assert got == list(range(start + 1, 201))


async def test_who_arrives_and_sees_more_than_the_others_heard_of_wakes_them() -> None:
    log = Log(3)
    feed = log.feed()
    waits = subscribe(feed, log)
    await told(waits, 1)
    reading = asyncio.ensure_future(waits.step())
    await asyncio.sleep(0)
    log.grow(1)  # by an actor, whose hint was lost
    subscribe(feed, log)
    feed.advance(4)  # what the hub's look finds a moment later is no news any more
    assert seqs([await asyncio.wait_for(reading, 10)]) == [4]


class Snapshots:
    """A worker whose reads end when and how the test says."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[Any]] = []

    def read(self, _: Any) -> asyncio.Future[Any]:
        self.waiting.append(asyncio.get_running_loop().create_future())
        return self.waiting[-1]


def snapshot(last_seq: int, stream_id: str = "str_1") -> dict[str, Any]:
    return {"stream_id": stream_id, "first_seq": 1, "last_seq": last_seq}


async def arrive(hub: Hub) -> asyncio.Task[Any]:
    came = asyncio.create_task(hub.watch("s", after_seq=None, came_from=None, types=(), execution_id=None))
    await asyncio.sleep(0)
    return came


async def test_a_watcher_that_fails_to_arrive_does_not_take_the_feed_from_those_who_do() -> None:
    worker = Snapshots()
    hub = Hub(worker, asyncio.ensure_future)  # type: ignore[arg-type]
    fails, first = await arrive(hub), await arrive(hub)
    worker.waiting[0].set_exception(HoldfastError("storage_unavailable"))
    with pytest.raises(HoldfastError):
        await fails
    second = await arrive(hub)
    for reading in worker.waiting[1:]:
        reading.set_result(snapshot(3))
    watching = [(await came)[1] for came in (first, second)]
    assert {id(subscription.feed) for subscription in watching} == {id(hub.feeds["s"])}
    for subscription in watching:
        subscription.close()
    assert not hub.feeds


async def test_who_arrives_and_finds_another_log_wakes_the_others() -> None:
    worker = Snapshots()
    hub = Hub(worker, asyncio.ensure_future)  # type: ignore[arg-type]
    came = await arrive(hub)
    worker.waiting.pop().set_result(snapshot(9))
    _, waits = await came
    assert await told(waits, 1) == [CaughtUp(9)]
    reading = asyncio.ensure_future(waits.step())
    came = await arrive(hub)
    worker.waiting.pop().set_result(snapshot(5, "str_2"))
    await came
    async with asyncio.timeout(10):
        while not worker.waiting:  # the one that waits reads a page
            await asyncio.sleep(0)
    worker.waiting.pop().set_result(Page("str_2", 1, 5, (), (), (), (), 5))
    assert await asyncio.wait_for(reading, 10) == Reset("restored", 1, 5, "str_2")
