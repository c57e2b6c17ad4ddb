"""One watched session's live tail, and the cursors that read it. Replay and live are one path (DESIGN §5).

A subscriber is a cursor. What stands right behind it comes from the ring if it is there, otherwise as a page from the
store; nothing is queued per subscriber, so a slow one costs no memory and slows nobody. A batch enters the ring only
if it continues it (`first == last + 1`): otherwise the ring starts anew and readers fetch the hole from the store.
Heads are hints. They may be early, late or lost; what a page says wins.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol

from actors.protocol.defaults import FEED_BYTES, FEED_EVENTS, FEED_GROUP_BYTES, PAGE_EVENTS
from actors.protocol.errors import HoldfastError
from actors.store.contract import Page, Spelled

# Reads ahead of their readers in the whole gateway, of FEED_BYTES each: a stalled reader keeps his until he is closed.
AHEAD_MAX: Final = 16
AHEAD_PAGES: Final = 4  # of one read: a thread's wake-up and the loop's cost as much as the pages
RIGHT_END: Final = 32  # entries that are quicker taken one by one from the ring's end
FLEETING_MAX: Final = 64  # ephemeral frames waiting for one subscriber; they are dropped first
CLOSING_TYPE: Final = "session.closed"  # the last event of a deleted session


class Entry(NamedTuple):
    seq: int
    type: str
    execution_id: str | None
    fragment: str


def _size(text: str) -> int:
    """Bytes on the wire."""
    return len(text) if text.isascii() else len(text.encode())


def entries_of(rows: Iterable[tuple[int, str, str | None, str]]) -> list[Entry]:
    """One for each row. (A named tuple's own constructor takes twice as long, and this is for every watched event.)"""
    new = tuple.__new__
    return [new(Entry, row) for row in rows]


# ---------------------------------------------------------------- what a subscriber is told


@dataclass(frozen=True, slots=True)
class Batch:
    """Stored events in order. frame: the ready-made frame, shared by all who stand at the same place, or spelled by
    the store for one who takes frames only; then there are no entries."""

    entries: Sequence[Entry]
    live: bool
    frame: bytes | None = None

    def encoded(self) -> bytes:
        return self.frame if self.frame is not None else join([e.fragment for e in self.entries], self.live)


@dataclass(frozen=True, slots=True)
class CaughtUp:
    seq: int


@dataclass(frozen=True, slots=True)
class Reset:
    """The cursor cannot be honoured; it goes on from first_seq."""

    reason: Literal["retention", "ahead", "restored"]
    first_seq: int
    last_seq: int
    stream_id: str


@dataclass(frozen=True, slots=True)
class Ephemeral:
    text: str


@dataclass(frozen=True, slots=True)
class Gone:
    """The session was deleted; nothing more will come."""


Step = Batch | CaughtUp | Reset | Ephemeral | Gone


def join(fragments: Sequence[str], live: bool) -> bytes:
    return _frame(",".join(fragments).encode(), live)


def _frame(joined: bytes, live: bool) -> bytes:
    return b'{"type":"events","events":[%b],"live":%b}' % (joined, b"true" if live else b"false")


class ReadPage(Protocol):
    def __call__(
        self, session_id: str, after_seq: int, types: tuple[str, ...], execution_id: str | None, /
    ) -> Awaitable[Page]: ...


class ReadSpelled(Protocol):
    def __call__(self, session_id: str, after_seq: int, pages: int, /) -> Awaitable[Sequence[Spelled]]:
        """So many, each behind the one before it; fewer if the log ends, one in any case."""
        ...


class Taker(Protocol):
    """Who is handed live frames on the spot, without a turn of its own."""

    def has_room(self, size: int, /) -> bool:
        """For a frame of so many bytes, and then it is not slow yet."""
        ...

    def send(self, frame: bytes, /) -> None: ...


@dataclass(slots=True)
class Slots:
    """How many of something bounded are left."""

    free: int

    def take(self) -> bool:
        if not self.free:
            return False
        self.free -= 1
        return True


# ---------------------------------------------------------------- the ring


class Feed:
    def __init__(
        self,
        session_id: str,
        read: ReadPage,
        spell: ReadSpelled,
        *,
        limit: int = FEED_EVENTS,
        limit_bytes: int = FEED_BYTES,
        limit_group: int = FEED_GROUP_BYTES,
        ahead: Slots | None = None,
    ) -> None:
        """ahead: shared by all feeds; without it every page is read when it is wanted."""
        self.session_id, self.read, self.spell = session_id, read, spell
        self.ahead = ahead or Slots(0)
        self.head = 0  # as far as is known, committed
        self.batches = 0  # published
        self.gone = False
        self.stream_id: str | None = None
        self.subscribers: dict[Subscription, None] = {}  # in order of arrival, as Door.sockets
        self.arriving = 0  # subscribers that still read their snapshot
        self._ring: deque[Entry] = deque()
        self._newest: Sequence[Entry] = ()  # the batch at the ring's end, as it was published
        self._bytes = 0
        self._limit, self._limit_bytes = limit, limit_bytes
        self._limit_group = max(limit_bytes, limit_group)
        self._group: int | None = None
        self._group_events = 0
        self._joined: dict[tuple[int, int], bytes] = {}

    def publish(self, entries: Sequence[Entry], group: int | None = None) -> None:
        """A committed batch, contiguous in itself. group: the same for all that readers get to see at once; whoever
        names one wakes them when it is told."""
        ring, last = self._ring, entries[-1].seq
        if ring and entries[0].seq != ring[-1].seq + 1:
            self._clear()
        self.batches += 1
        if self._joined:
            self._joined.clear()
        ring.extend(entries)
        self._newest = entries
        n = len(entries)
        self._bytes += sum([_size(e.fragment) for e in entries])
        # The newest group is kept whole, within a bound of its own: whoever follows live reads it from here, and not
        # from the store, which would cost more than all the rest of an event's way. (Between two batches of one group
        # nobody reads, unless a narrowed gap is told there.)
        if group is None or group != self._group:
            self._group, self._group_events = group, n
        else:
            self._group_events += n
        if len(ring) > self._limit or self._bytes > self._limit_bytes:
            self._trim(self._group_events)
        if group is None:
            self.advance(last)
        elif last > self.head:
            self.head = last

    def _trim(self, newest: int) -> None:
        """To the bounds of the tail; so many of the newest only to that of a group."""
        ring, size, keep = self._ring, self._bytes, max(self._limit, newest)
        while (n := len(ring)) > keep or (size > self._limit_bytes and (n > newest or size > self._limit_group)):
            size -= _size(ring.popleft().fragment)
        self._bytes = size
        if len(self._newest) > len(ring):
            self._newest = ()

    def shed(self) -> None:
        """What was kept of a long group for its live readers, if all have it. To be called now and then: a look at all
        of them at each one's rest would cost more than the group."""
        if self._bytes > self._limit_bytes and all(one.cursor >= self.head for one in self.subscribers):
            self._trim(0)
            self._joined.clear()

    def _clear(self) -> None:
        self._ring.clear()
        self._newest = ()
        self._bytes = 0
        self._joined.clear()

    def advance(self, last_seq: int) -> None:
        """Rows up to last_seq exist."""
        if last_seq > self.head:
            self.head = last_seq
            self.wake()

    def behind(self, last_seq: int) -> None:
        """A page says that the log ends here: a hint was early, or the log is another one."""
        self.head = last_seq
        if self._ring and self._ring[-1].seq > last_seq:
            self._clear()

    def close(self) -> None:
        """The session was deleted. One look more, for what was said last; a page says where it really ends."""
        if not self.gone:
            self.gone = True
            self.head += 1
        self.wake()

    def restored(self, stream_id: str, last_seq: int) -> None:
        """Another log stands there (a backup came back): every cursor has to look."""
        self.stream_id, self.head = stream_id, last_seq
        self._clear()
        self.wake()

    def wake(self) -> None:
        for subscriber in self.subscribers:
            subscriber.wake()
        self.shed()

    def ephemeral(self, execution_id: str, text: str) -> None:
        for subscriber in self.subscribers:
            subscriber.offer(execution_id, text)

    def after(self, cursor: int) -> Sequence[Entry]:
        """What the ring holds right behind the cursor, as much as a frame may hold; nothing if there is a hole."""
        found = self._after(cursor)
        return found if self._bytes <= self._limit_bytes else self._frameful(found)

    def _frameful(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Of a long group: one frame of all of it would be longer than a client takes."""
        size = 0
        for n, entry in enumerate(entries):
            size += _size(entry.fragment)
            if size > self._limit_bytes and n:  # one event is never too long
                return entries[:n]
        return entries

    def _after(self, cursor: int) -> Sequence[Entry]:
        ring, newest = self._ring, self._newest
        if newest and newest[0].seq == cursor + 1 and len(newest) <= len(ring):
            return newest  # who follows live, and is told of each batch
        if not ring or not ring[0].seq <= cursor + 1 <= (last := ring[-1].seq):
            return ()
        n = last - cursor
        if n < RIGHT_END:  # who follows live, several batches at once: they need not be looked for from the other end
            return [ring[k] for k in range(-n, 0)]
        return list(itertools.islice(ring, len(ring) - n, None))

    def shared(self, entries: Sequence[Entry]) -> bytes:
        """Joined once for everybody who stands at the same place. Forgotten with the next batch, so it is small."""
        key = (entries[0].seq, entries[-1].seq)
        frame = self._joined.get(key)
        if frame is None:
            frame = join([e.fragment for e in entries], True)
            if len(self._joined) < 4:
                self._joined[key] = frame
        return frame


# ---------------------------------------------------------------- a cursor


@dataclass(slots=True)
class _Asked:
    """Pages that were asked for, and what was known then."""

    after: int  # the next one is behind this
    head: int
    batches: int
    pages: asyncio.Future[Sequence[Page | Spelled]]
    slot: bool  # they were asked for ahead of their time
    told: int = 0  # of them


class Subscription:
    """`step()` gives what comes next, for ever. Cancelling a step loses nothing."""

    def __init__(
        self,
        feed: Feed,
        *,
        stream_id: str,
        first_seq: int,
        last_seq: int,
        after_seq: int | None = None,
        came_from: str | None = None,
        types: tuple[str, ...] = (),
        execution_id: str | None = None,
        as_frames: bool = False,
        on_close: Callable[[Subscription], None] = lambda _: None,
    ) -> None:
        """stream_id, first_seq, last_seq: of the snapshot. came_from: the stream that after_seq was counted in.
        as_frames: batches are wanted as frames only."""
        self.feed, self.types, self.execution_id = feed, types, execution_id
        self.stir = asyncio.Event()
        self.taker: Taker | None = None
        self._resting = False  # in a step that waits for something new
        self._failed: Exception | None = None
        self._wanted, self._kinds = stream_id, frozenset(types)
        self._spelled = as_frames and not types and execution_id is None
        self._fleeting: deque[str] = deque(maxlen=FLEETING_MAX)
        self._caught_up = self._over = False
        self._on_close = on_close
        self.cursor = last_seq if after_seq is None else after_seq
        self._target = last_seq  # caught up: beyond what stood when it came; a busy session has no quieter moment
        self._asked: _Asked | None = None
        self._ahead: _Asked | None = None  # what comes behind that
        self._reset: Reset | None = None
        if after_seq is not None:
            self._judge(stream_id, first_seq, last_seq, came_from)
        feed.subscribers[self] = None
        feed.advance(last_seq)  # the others may not have heard of it: after this no hint would be news to them

    def close(self) -> None:
        self.feed.subscribers.pop(self, None)
        self._put_away()
        self._on_close(self)

    def wake(self) -> None:
        """There may be something new."""
        try:
            if self.taker is not None and self._resting and not self.stir.is_set() and self._handed(self.taker):
                return
        except Exception as error:  # this reader's trouble, and not the next one's; its step tells
            self._failed = error
        self.stir.set()

    def _handed(self, taker: Taker) -> bool:
        """Who rests at the end of the stream is handed what is new on the spot, if there is room for it: for one event
        to one reader, a turn of its own is a twentieth of the gateway's CPU. False: it needs a turn."""
        feed = self.feed
        entries = feed.after(self.cursor)
        if not entries or feed.stream_id not in (None, self._wanted):
            return False
        frame: bytes | None
        if self._caught_up and not self._kinds and self.execution_id is None:
            frame = feed.shared(entries)
        else:
            batch = self._batch(entries)
            frame = batch.encoded() if batch is not None else None
        if frame is not None and not taker.has_room(len(frame)):
            return False
        self._pass(entries)
        if frame is not None:
            taker.send(frame)
        return self.cursor >= feed.head and not (self._over or feed.gone)

    def offer(self, execution_id: str, text: str) -> None:
        """Whoever is behind, or asked for certain types only, is spared."""
        at_the_end = self._caught_up and self.cursor >= self.feed.head
        if at_the_end and not self._kinds and self.execution_id in (None, execution_id):
            self._fleeting.append(text)
            self.stir.set()

    def _judge(self, stream_id: str, first_seq: int, last_seq: int, came_from: str | None) -> bool:
        """Whether the cursor can be honoured in this log; if not, a reset is due and it goes on from first_seq."""
        reason: Literal["retention", "ahead", "restored"] | None = None
        if came_from is not None and came_from != stream_id:
            reason = "restored"
        elif self.cursor > last_seq:
            reason = "ahead"
        elif self.cursor + 1 < first_seq:
            reason = "retention"
        if reason is None:
            return True
        self._reset = Reset(reason, first_seq, last_seq, stream_id)
        self._wanted, self.cursor, self._target = stream_id, first_seq - 1, last_seq
        return False

    async def step(self) -> Step:
        while True:
            if self._failed is not None:
                raise self._failed
            if self._reset is not None:
                told, self._reset = self._reset, None
                return told
            if not self._caught_up and (self.cursor >= self._target or not self._has_to_look()):
                self._caught_up = True
                return CaughtUp(self.cursor)
            if self._has_to_look():
                entries = self.feed.after(self.cursor)
                if entries:
                    batch = self._batch(entries)
                    self._pass(entries)
                else:
                    batch = await self._read()
                if batch is not None:
                    return batch
                continue
            if self._over or self.feed.gone:
                return Gone()
            if self._fleeting:
                return Ephemeral(self._fleeting.popleft())
            self.stir.clear()
            self._resting = True
            try:
                await self.stir.wait()
            finally:
                self._resting = False

    def _has_to_look(self) -> bool:
        if self._over:
            return False
        return self.cursor < self.feed.head or self.feed.stream_id not in (None, self._wanted)

    def _pass(self, entries: Sequence[Entry]) -> None:
        self.cursor = entries[-1].seq
        self._over |= entries[-1].type == CLOSING_TYPE

    def _batch(self, entries: Sequence[Entry]) -> Batch | None:
        """From the ring, by our filter."""
        if not self._kinds and self.execution_id is None:
            return Batch(entries, self._caught_up, self.feed.shared(entries) if self._caught_up else None)
        chosen = [
            e
            for e in entries
            if (not self._kinds or e.type in self._kinds)
            and (self.execution_id is None or e.execution_id == self.execution_id)
        ]
        return Batch(chosen, self._caught_up) if chosen else None

    def _ask(self, after: int, pages: int = 1, *, slot: bool = False) -> _Asked:
        feed = self.feed
        found: Awaitable[Sequence[Page | Spelled]]
        if self._spelled:
            found = feed.spell(feed.session_id, after, pages)
        else:
            found = self._one_page(feed.read(feed.session_id, after, self.types, self.execution_id))
        return _Asked(after, feed.head, feed.batches, asyncio.ensure_future(found), slot)

    @staticmethod
    async def _one_page(page: Awaitable[Page]) -> Sequence[Page]:
        return [await page]

    def _ask_ahead(self, after: int) -> None:
        """While these pages are sent. If there is no room for more, or the store has none, one is asked for when it is
        wanted."""
        if self.feed.ahead.take():
            try:
                self._ahead = self._ask(after, AHEAD_PAGES, slot=True)
            except HoldfastError:
                self.feed.ahead.free += 1

    def _put_away(self, *, all: bool = True) -> None:
        """What was asked for; or only the first of it, and the other is next."""
        gone = [asked for asked in ((self._asked, self._ahead) if all else (self._asked,)) if asked is not None]
        self._asked, self._ahead = None if all else self._ahead, None
        for asked in gone:
            self.feed.ahead.free += asked.slot
            if not asked.pages.cancel() and not asked.pages.cancelled():
                asked.pages.exception()  # looked at: asyncio complains of errors that nobody saw

    async def _read(self) -> Batch | None:
        """A page from the store, filtered there."""
        asked = self._asked
        if asked is None or asked.after != self.cursor:
            self._put_away()  # the ring was quicker, or the cursor jumped
            asked = self._asked = self._ask(self.cursor)
        try:
            pages = await asyncio.shield(asked.pages)
        except HoldfastError as error:
            if error.code not in ("session_not_found", "session_deleted"):
                raise
            self._over = True
            return None
        finally:
            if asked.pages.done() and (asked.pages.cancelled() or asked.pages.exception() is not None):
                self._put_away()
        page = pages[asked.told]
        if self._spelled and not asked.told and pages[-1].scanned_to < page.last_seq:
            self._ask_ahead(pages[-1].scanned_to)
        asked.told, asked.after = asked.told + 1, page.scanned_to
        if asked.told == len(pages):
            self._put_away(all=False)
        if page.last_seq < asked.head == self.feed.head and asked.batches == self.feed.batches:
            self.feed.behind(page.last_seq)  # unless something was committed since: then the page is the old one
        self.feed.advance(page.last_seq)
        if not self._judge(page.stream_id, page.first_seq, page.last_seq, self._wanted):
            return None
        self.cursor = max(self.cursor, page.scanned_to)
        if isinstance(page, Spelled):
            self._over |= page.last_type == CLOSING_TYPE
            return Batch((), self._caught_up, _frame(page.joined, self._caught_up)) if page.joined else None
        entries = entries_of(zip(page.seqs, page.types, page.execution_ids, page.fragments, strict=True))
        self._over |= bool(entries) and entries[-1].type == CLOSING_TYPE
        return Batch(entries, self._caught_up) if entries else None


PAGE_LIMIT: Final = PAGE_EVENTS
