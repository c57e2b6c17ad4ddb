"""Who is watched, and what is new. Everything here is a hint or a copy of committed rows; losing it all loses nothing.

A gateway publishes what it committed itself, hears hints for the rest, and once a second looks at the heads of what is
watched (DESIGN §5).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

from actors.gateway.feed import AHEAD_MAX, PAGE_LIMIT, Feed, Slots, Subscription, entries_of
from actors.gateway.fleet import Fleet
from actors.protocol.defaults import FEED_BYTES
from actors.protocol.errors import HoldfastError
from actors.store import rows
from actors.store.contract import Appended, AppendItem, Page, Spelled, Store
from actors.store.worker import StoreWorker

TOLD_S: Final = 0.25  # for the group on its way: tens of milliseconds. What others wrote does not wait for a stuck one
SUBSCRIBERS_MAX: Final = 1000  # per session; each costs a socket, and one loop wakes them all


class Hub:
    def __init__(self, worker: StoreWorker, spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]) -> None:
        self._worker = worker
        self.feeds: dict[str, Feed] = {}
        self.fleet = Fleet(worker, spawn)
        self._group = 0
        self._fresh: dict[Feed, None] = {}  # published in this group
        self._ahead = Slots(AHEAD_MAX)

    # ------------------------------------------------------------ what is new

    def publish(self, item: AppendItem, done: Appended) -> None:
        """A committed item of ours. Encoded once, and only if somebody watches."""
        session_id = item.session_id
        self.fleet.changed(session_id)
        feed = self.feeds.get(session_id)
        if feed is None:
            return
        events = item.events[len(item.events) - done.count :]
        is_gap = len(item.events) != item.covers
        if is_gap and done.skipped:
            feed.advance(done.first_seq)  # the store narrowed it: only the store knows its words
            return
        eid, first = item.execution_id, done.first_seq
        words = done.words or rows.fragments(first, eid, item.first + done.skipped, events)
        types = [event[0] for event in events]
        feed.publish(entries_of(zip(itertools.count(first), types, itertools.repeat(eid), words)), self._group)
        self._fresh[feed] = None

    def group_told(self) -> None:
        """What is published from here on belongs to the next group."""
        self._group += 1
        fresh, self._fresh = self._fresh, {}
        for feed in fresh:
            feed.wake()

    def advance(self, session_id: str, last_seq: int) -> None:
        self.fleet.changed(session_id)
        if feed := self.feeds.get(session_id):
            feed.advance(last_seq)

    def ephemeral(self, session_id: str, execution_id: str, text: str) -> None:
        if feed := self.feeds.get(session_id):
            feed.ephemeral(execution_id, text)

    def gone(self, session_id: str) -> None:
        self.fleet.changed(session_id)
        if feed := self.feeds.get(session_id):
            feed.close()

    def shed(self) -> None:
        for feed in self.feeds.values():
            feed.shed()

    async def look(self) -> None:
        """The heads of everything watched; what we were not told of is found here."""
        watched = list(self.feeds)
        if not watched:
            return
        heads = await self._worker.read(lambda store: store.heads(watched))
        further: list[tuple[Feed, int]] = []
        for session_id in watched:
            feed = self.feeds.get(session_id)
            if feed is None:
                continue
            head = heads.get(session_id)
            if head is None:
                feed.close()
            elif feed.stream_id is not None and head[1] != feed.stream_id:
                feed.restored(head[1], head[0])
            elif head[0] > feed.head:
                further.append((feed, head[0]))
        if not further:
            return
        # Our own rows among them are handed on in a moment. Whoever is woken before that reads them from the store: a
        # page for each session of that group, once a second, in the middle of the traffic.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TOLD_S):
                await self._worker.told()
        for feed, last_seq in further:
            if self.feeds.get(feed.session_id) is feed:
                feed.advance(last_seq)

    # ------------------------------------------------------------ who watches

    async def watch(
        self,
        session_id: str,
        *,
        after_seq: int | None,
        came_from: str | None,
        types: tuple[str, ...],
        execution_id: str | None,
        as_frames: bool = False,
    ) -> tuple[dict[str, Any], Subscription]:
        """The snapshot and the cursor. Raises session_not_found, session_deleted, too_many_connections."""
        feed = self.feeds.get(session_id)
        if feed is None:
            feed = self.feeds[session_id] = Feed(session_id, self._page, self._spelled, ahead=self._ahead)
        if len(feed.subscribers) >= SUBSCRIBERS_MAX:
            raise HoldfastError("too_many_connections", f"{SUBSCRIBERS_MAX} watch this session already")
        feed.arriving += 1  # it stays, and nobody makes a second one: only one of them would hear what is new
        try:
            # The feed stands before the snapshot is read: nothing that commits in between is missed.
            session = await self._worker.read(lambda store: store.session(session_id))
        except BaseException:
            feed.arriving -= 1
            self._leave(feed)
            raise
        feed.arriving -= 1
        if feed.stream_id not in (None, session["stream_id"]):
            feed.restored(session["stream_id"], session["last_seq"])  # `look` would find nothing new any more
        feed.stream_id = session["stream_id"]
        return session, Subscription(
            feed,
            stream_id=session["stream_id"],
            first_seq=session["first_seq"],
            last_seq=session["last_seq"],
            after_seq=after_seq,
            came_from=came_from,
            types=types,
            execution_id=execution_id,
            as_frames=as_frames,
            on_close=lambda subscription: self._leave(subscription.feed),
        )

    def _leave(self, feed: Feed) -> None:
        if not (feed.subscribers or feed.arriving) and self.feeds.get(feed.session_id) is feed:
            del self.feeds[feed.session_id]

    def _page(
        self, session_id: str, after_seq: int, types: tuple[str, ...], execution_id: str | None
    ) -> Awaitable[Page]:
        return self._worker.read(
            lambda store: store.page(
                session_id, after_seq, PAGE_LIMIT, types=types, execution_id=execution_id, max_bytes=FEED_BYTES
            )
        )

    def _spelled(self, session_id: str, after_seq: int, pages: int) -> Awaitable[Sequence[Spelled]]:
        return self._worker.read(lambda store: pages_behind(store, session_id, after_seq, pages))


def pages_behind(store: Store, session_id: str, after_seq: int, pages: int) -> list[Spelled]:
    """Each a short read of its own; FEED_BYTES in all, and at most one row beyond them."""
    found: list[Spelled] = []
    room = FEED_BYTES
    while len(found) < pages and room > 0:
        page = store.spelled(session_id, after_seq, PAGE_LIMIT, max_bytes=room)
        found.append(page)
        room -= len(page.joined)
        after_seq = page.scanned_to
        if after_seq >= page.last_seq:
            break
    return found
