"""One wrapper's connection: its frames in the order received, its acknowledgements, its commands.

The lane holds frames that were read and not settled. Data frames go to the writer as they come; a control frame waits
until every earlier frame of the socket is committed or refused, and later frames wait for its answer (DESIGN §1,
Order). Nothing is acknowledged before its commit, and nothing at all after a storage error (G10).
The reader (ingest.py) never stops reading: a peer that sends far beyond its window breaks the protocol instead.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from typing import Any, Final

import orjson

from actors import telemetry
from actors.gateway.control import answer_of, request_of
from actors.gateway.decode import Bad, Beat, Control, Fleeting, Item, Ready, Records, Wrong
from actors.gateway.door import Door
from actors.gateway.lines import Drop, InFlight, Line, Verdict
from actors.gateway.peer import Peer, reason_of
from actors.gateway.wire import Wire
from actors.law.delivery import Again, Apply, Gap
from actors.law.effects import Acked, Connected, Fenced, Nacked, RefuseConnection
from actors.law.requests import Closed
from actors.protocol import frames
from actors.protocol.codes import CLOSE
from actors.protocol.defaults import EVENTS_PER_FRAME
from actors.protocol.errors import HoldfastError
from actors.store.contract import Appended, AppendItem, AppendRefused, EncodedEvent

# Windows held unsettled before a peer is told off: it may count its window otherwise, not ignore it. With the two
# frames beside them 6 MiB a connection, which is what a peer that reads no acknowledgement can make us hold.
LANE_WINDOWS: Final = 2
LANE_FRAMES: Final = 40_000  # the same by number, for the smallest frames
LINES_MAX: Final = 64  # executions remembered per connection; a forgotten one costs a question to the store
COMMANDS_PAGE: Final = 50


class Connection(Peer):
    kind = "ingest"

    def __init__(self, door: Door, wire: Wire, session_id: str, token_hash: str | None) -> None:
        super().__init__(door, wire, session_id, "", token_hash)
        self.session_id = session_id
        self.hello: frames.Hello | None = None
        self.lines: dict[str, Line] = {}
        self.sent_n = 0  # the newest command that went out here
        self._lane: deque[Item] = deque()
        self._held = 0  # bytes in the lane and in flight
        self._in_flight = 0  # items at the writer
        self._controlling = False
        self._owed: list[tuple[str, Line]] = []
        settings = door.settings
        self._held_max = LANE_WINDOWS * settings.window_bytes + 2 * settings.max_frame_bytes

    # ------------------------------------------------------------ frames in

    def take(self, item: Item) -> None:
        """Called by the reader for each frame, in order."""
        self.take_all([item])

    def take_all(self, items: list[Item]) -> None:
        """What follows each other seamlessly becomes one item of the group."""
        if sum([self._put(item) for item in items]):
            self._pump()

    def _put(self, item: Item) -> bool:
        """Into the lane; False: there is nothing new in it."""
        if self.over:
            return False
        self.seen = self._frame_came = True
        if type(item) is not Records:
            if isinstance(item, Beat):
                self.progressed |= item.busy
                return False
            if isinstance(item, Fleeting) and self._held > self._held_max // 2:
                return False  # ephemeral is dropped first
        lane = self._lane
        lane.append(item)
        self._held += item.size
        if self._held > self._held_max or len(lane) > LANE_FRAMES:
            telemetry.emit("ingest.window_ignored", session_id=self.session_id, held_bytes=self._held)
            self.say_error("invalid_frame", "far more than window_bytes in flight")
            self.end(CLOSE["protocol_error"], "window ignored")
            return False
        return True

    def _pump(self) -> None:
        lane = self._lane
        while lane and not self._controlling and not self.over:
            item = lane[0]
            if type(item) is Records:
                if not self._queue_records(item):
                    break
            elif isinstance(item, Fleeting):
                self._drop_head()
                self.door.hub.ephemeral(self.session_id, item.execution_id, item.text)
            elif isinstance(item, Ready):
                self._drop_head()
                self.ready = True
                self.commands_wait()
            elif self._in_flight:
                break  # everything else waits for what is in flight
            elif isinstance(item, Control):
                self._controlling = True
                self.door.spawn(self._control(item))
            elif isinstance(item, Bad):
                self._drop_head()
                self._refuse_record(item)
            else:
                assert isinstance(item, Wrong)
                self._drop_head()
                self.say_error(item.code, item.message)
                if item.fatal:
                    self.end(CLOSE["protocol_error"], item.message)
        self.settled()

    def _drop_head(self) -> None:
        self._held -= self._lane.popleft().size

    # ------------------------------------------------------------ the data path

    def _line(self, execution_id: str) -> Line:
        line = self.lines.get(execution_id)
        if line is None:
            if len(self.lines) >= LINES_MAX:
                quiet = (e for e, known in self.lines.items() if not known.owed and known.queued in (None, known.acked))
                self.lines.pop(next(quiet, next(iter(self.lines))))
            line = self.lines[execution_id] = Line()
        return line

    def _queue_records(self, head: Records) -> bool:
        """The head of the lane goes to the writer, with what follows it seamlessly. False: it has to wait."""
        line = self.lines.get(head.execution_id) or self._line(head.execution_id)
        first, skip = head.first, 0
        verdict: Verdict | None = None
        if not line.follows(first):
            verdict = line.take(first, head.last)
            if isinstance(verdict, Apply):
                first, skip = verdict.first, verdict.skip
            elif isinstance(verdict, Gap) and self._in_flight:
                return False  # what is in flight may still be refused: only then it is known what is expected
        self._lane.popleft()
        if head.tail is not None:
            self._lane.appendleft(head.tail)
        if isinstance(verdict, (Again, Drop, InFlight, Gap)):
            self._held -= head.size
            if isinstance(verdict, Again):
                self._owe(head.execution_id, line)
                self.flush_acks()
            elif isinstance(verdict, Gap):
                self._nack(head.execution_id, line, Nacked("gap", verdict.expected))
            return True
        events, last, size = head.events, head.last, head.size
        if head.gap is not None:
            events = [self._gap_event(head.gap, first)]
        else:
            if skip:
                events = events[skip:]
            if head.tail is None and self._lane:
                last, size = self._coalesce(head.execution_id, events, last, size)
        line.sent(last)
        self._in_flight += 1
        self._idle.clear()
        item = AppendItem(
            self.session_id,
            self.connection_id,
            self.epoch,
            head.execution_id,
            first,
            last - first + 1,
            tuple(events),
            self.hello.instance_id if self.hello else "",
        )
        self.door.worker.append(
            item, functools.partial(self._settled, item, line, line.generation, size, time.monotonic())
        )
        return True

    def _coalesce(self, execution_id: str, events: list[EncodedEvent], last: int, size: int) -> tuple[int, int]:
        lane = self._lane
        while lane:
            after = lane[0]
            if (
                not isinstance(after, Records)
                or after.execution_id != execution_id
                or after.first != last + 1
                or after.gap is not None
                or after.tail is not None
                or len(events) + len(after.events) > EVENTS_PER_FRAME
            ):
                break
            lane.popleft()
            events += after.events
            last, size = after.last, size + after.size
        return last, size

    def _gap_event(self, gap: frames.Gap, first: int) -> EncodedEvent:
        data = {"from_seq": first, "to_seq": gap.to_seq, "bytes": gap.bytes, "reason": gap.reason}
        return EncodedEvent("output.gap", self.door.wall_ms(), orjson.dumps(data).decode())

    def _settled(self, item: AppendItem, line: Line, generation: int, size: int, asked_at: float, result: Any) -> None:
        """The writer's answer, on the loop, after the commit. Must not raise: the others of its group come after it."""
        self._in_flight -= 1
        self._held -= size
        self.door.dirty[self] = None
        if isinstance(result, Appended):
            self.door.counts.settled(result.count, asked_at)
            line.committed(result.acked_seq)
            self._owe(item.execution_id, line)
            self.door.hub.publish(item, result)
        elif isinstance(result, AppendRefused):
            if result.why == "fenced":
                self.end(result.close_code, "another connection owns the session")
            elif generation == line.generation:  # else: it was sent before a refusal that said it all
                self._append_refused(item, line, result)
        else:
            self.storage_failed(result)

    def _append_refused(self, item: AppendItem, line: Line, refused: AppendRefused) -> None:
        eid = item.execution_id
        if refused.why == "duplicate":
            line.committed(refused.acked_seq)
            self._owe(eid, line)
        elif refused.why == "gap":
            self._nack(eid, line, Nacked("gap", refused.expected_seq))
        elif refused.why == "not_started":
            code, why = ("invalid", "`started` must be the first record") if item.first == 1 else ("gap", None)
            self._nack(eid, line, Nacked(code, 1, why))  # type: ignore[arg-type]
        else:
            assert refused.why in ("terminal", "unknown_execution")
            self._nack(eid, line, Nacked(refused.why))

    def _refuse_record(self, bad: Bad) -> None:
        line = self._line(bad.execution_id)
        known = line.queued is not None
        verdict = line.take(bad.seq, bad.seq)
        if isinstance(verdict, Again):
            self._owe(bad.execution_id, line)
            self.flush_acks()
        elif isinstance(verdict, Gap):
            self._nack(bad.execution_id, line, Nacked("gap", verdict.expected))
        elif not isinstance(verdict, (Drop, InFlight)):
            self._nack(bad.execution_id, line, Nacked(bad.code, bad.seq, bad.detail), sure=known)

    def after_group(self) -> None:
        self.flush_acks()
        if self._lane:
            self._pump()
        else:
            self.settled()

    # ------------------------------------------------------------ acknowledgements

    def _owe(self, execution_id: str, line: Line) -> None:
        if not line.owed:
            line.owed = True
            self._owed.append((execution_id, line))

    def flush_acks(self) -> None:
        if self.over:
            self._owed.clear()  # fenced, or the store failed: what stands is told in the next hello_ack
        for execution_id, line in self._owed:
            line.owed = False
            self.wire.send(b'{"type":"ack","execution_id":"%b","seq":%d}' % (execution_id.encode(), line.acked))
        self._owed.clear()

    def _nack(self, execution_id: str, line: Line, answer: Nacked, *, sure: bool = True) -> None:
        self.flush_acks()  # what stands is said first
        if self.over:
            return
        if answer.code in ("terminal", "unknown_execution"):
            line.end(answer.code)
        else:
            line.refused(answer.expected_seq, sure=sure)
        self.say(
            {
                "type": "nack",
                "execution_id": execution_id,
                "code": answer.code,
                "expected_seq": answer.expected_seq,
                "detail": answer.detail,
            }
        )
        telemetry.emit("ingest.nacked", session_id=self.session_id, execution_id=execution_id, code=answer.code)

    # ------------------------------------------------------------ control frames

    async def _control(self, item: Control) -> None:
        try:
            await self._decide(item)
        except HoldfastError as error:
            self.storage_failed(error)
        except Exception as error:
            telemetry.emit("ingest.control_failed", session_id=self.session_id, error=repr(error))
            self.storage_failed(HoldfastError("internal"))
        finally:
            if self._lane and self._lane[0] is item:
                self._drop_head()
            self._controlling = False
            self._pump()

    async def _decide(self, item: Control) -> None:
        frame = item.frame
        if isinstance(frame, frames.Hello):
            if self.hello is not None:
                self.say_error("invalid_frame", "hello comes once")
                self.end(CLOSE["protocol_error"], "a second hello")
                return
            await self._connect(frame)
            return
        if self.hello is None:
            self.end(CLOSE["protocol_error"], "hello first")
            return
        line = None
        if not isinstance(frame, frames.CommandAck):
            line = self._line(frame.execution_id)
            if not line.awaits(frame.seq):
                return
        request = request_of(
            frame, self.session_id, self.connection_id, self.epoch, self.hello.instance_id, seed=self.door.mint()
        )
        outcome = await self.door.perform(request)
        answer = answer_of(outcome)
        if isinstance(answer, Fenced):
            self.end(answer.code, answer.reason)
        elif line is None or isinstance(frame, frames.CommandAck):
            return
        elif isinstance(answer, Acked):
            line.begin()
            line.committed(answer.seq)
            self._owe(frame.execution_id, line)
            self.flush_acks()
        elif isinstance(answer, Nacked):
            self._nack(frame.execution_id, line, answer)
        else:
            self.say_error("invalid_frame", f"{frame.type}: {answer.detail or answer.code}")

    async def _connect(self, hello: frames.Hello) -> None:
        if hello.protocol != 1:
            self.end(CLOSE["version_not_supported"], "this service speaks protocol 1")
            return
        self.asked = True
        self.hello = hello
        request = request_of(
            hello,
            self.session_id,
            self.connection_id,
            0,
            hello.instance_id,
            self.door.gateway_id,
            seed=self.door.mint(),
        )
        outcome = await self.door.perform(request)
        answer = outcome.answer
        if isinstance(answer, RefuseConnection):
            self.asked = False  # known: this connection never owned anything
            self.end(answer.code, reason_of(answer.reason, answer.retry_after_s))
            return
        assert isinstance(answer, Connected), answer
        self.epoch = answer.epoch
        self.door.counts.reconnects += hello.attempt > 1
        for told in answer.directives:
            if told.directive == "resume" and len(self.lines) < LINES_MAX:
                self.lines[told.execution_id] = Line(told.acked_seq)
        settings = self.door.settings
        self.say(
            {
                "type": "hello_ack",
                "connection_id": self.connection_id,
                "epoch": answer.epoch,
                "session_id": self.session_id,
                "server_time_ms": self.door.wall_ms(),
                "heartbeat_interval_s": settings.heartbeat_s,
                "grace_s": answer.grace_s,
                "max_frame_bytes": settings.max_frame_bytes,
                "window_bytes": settings.window_bytes,
                "executions": [
                    {
                        "execution_id": d.execution_id,
                        "directive": d.directive,
                        "acked_seq": d.acked_seq,
                        "reason": d.reason,
                    }
                    for d in answer.directives
                ],
            }
        )
        telemetry.emit("ingest.connected", session_id=self.session_id, connection_id=self.connection_id)

    # ------------------------------------------------------------ commands

    async def fetch_page(self) -> bool:
        """In order of creation."""
        rows = await self.door.worker.read(
            lambda store: store.pending_commands(self.session_id, self.sent_n, COMMANDS_PAGE)
        )
        for row in rows:
            if self.over:
                return False
            self.sent_n = row.n
            head = {"type": "command", "command_id": row.command_id, "kind": row.kind}
            self.say({**row.payload, **head, "execution_id": row.execution_id})
        return len(rows) == COMMANDS_PAGE

    # ------------------------------------------------------------ life and end

    @property
    def busy(self) -> bool:
        return bool(self._lane or self._in_flight or self._controlling)

    def forget_frames(self) -> None:
        self._held -= sum(item.size for item in self._lane)
        self._lane.clear()

    def closed(self, code: int | None, reason: str, error: str) -> Closed:
        return Closed(
            session_id=self.session_id,
            seed=self.door.mint(),
            connection_id=self.connection_id,
            code=code,
            close_reason=reason[:500],
            error=error[:500],
        )

    async def look_at_silence(self) -> None:
        """Its execution's staleness is the reaper's; an idle connection's is ours. The same look finds a socket that
        lost its session in another process and, being silent, never met the fence."""
        try:
            session = await self.door.worker.read(lambda store: store.session(self.session_id))
            if session["link"]["connection_id"] != self.connection_id or session["link"]["state"] != "connected":
                own = session["link"]["instance_id"] == (self.hello.instance_id if self.hello else None)
                gone = session["link"]["state"] != "connected"
                code = "going_away" if gone else "fenced" if own else "superseded"
                self.end(CLOSE[code], "this connection does not own the session")
            elif session["active_execution"] is None:
                self.end(CLOSE["going_away"], "no frame for too long", drain=True)
        except HoldfastError as error:
            if error.code in ("session_deleted", "session_not_found"):
                self.end(CLOSE["session_closed"], "session deleted")
