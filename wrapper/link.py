"""The wrapper's half of the protocol as a pure machine: no I/O, no clock, no socket. `now` is passed in.

It is told what happened (an attempt opened, a frame came, a socket closed, records were spooled) and answers with
frozen effects for the shell to carry out, in order. Its rules:
- one attempt at a time: whatever an older attempt's socket still says is the voice of a ghost, and changes nothing;
- hello_ack's directives are applied before `ready`; records flow only after that, from one cursor per execution;
- at most `window_bytes` are sent and unacknowledged; a record is forgotten only when acknowledged;
- every (phase, frame) pair that is not named here is refused by silence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final

from actors.protocol.codes import CLOSE_CODES, PROTOCOL_VERSION
from actors.protocol.defaults import BACKOFF_S, HEARTBEAT_S, MAX_FRAME_BYTES, WINDOW_BYTES
from wrapper.backoff import Backoff
from wrapper.effects import (
    Abort,
    Acked,
    ConnectAt,
    Cut,
    Discard,
    Done,
    Effect,
    Known,
    Live,
    Obey,
    Refuse,
    Rewound,
    Send,
    Stop,
)

ACK_DEADLINE_S: Final = 30.0  # a peer that takes frames and acknowledges none for this long is as good as gone
SMALLEST_FRAME_BYTES: Final = 128 << 10  # above every output record, escaped at its worst
ENVELOPE_BYTES: Final = 512  # what a frame costs beside its records
# A frame must pass before the silence counts as a dead line (ping + pong, 10 s). So they begin small, which a line of
# 7 KB/s carries in time, and grow while an answer comes quickly; a new connection begins again.
FIRST_FRAME_BYTES: Final = 64 << 10
QUICK_S: Final = 0.5
# One on its way, one read, one committed, one acknowledged: none waits for another. Not more on a slow line either: a
# final or a heartbeat waits behind them, not behind a window.
FRAMES_IN_FLIGHT: Final = 4
STRIKES: Final = 3  # a record refused this often, replacements included, is left until the next connection


class Phase(Enum):
    IDLE = auto()  # between attempts
    OPENING = auto()
    GREETING = auto()  # hello is sent
    LIVE = auto()
    STOPPED = auto()  # told not to come back


# ---------------------------------------------------------------- state


@dataclass(slots=True)
class Cursor:
    last_seq: int = 0
    acked_seq: int = 0
    sent_seq: int = 0
    flight: deque[tuple[int, int, int]] = field(default_factory=deque)  # first, last, bytes of each frame
    ghosts: list[tuple[int, int, int]] = field(default_factory=list)  # sent before a rewind, perhaps still unanswered
    single_until: int = 0  # a frame of many was refused: one record at a time up to here, to find the culprit
    strikes: dict[int, int] = field(default_factory=dict)
    stuck: bool = False

    def rewind(self, seq: int, answered: tuple[int, int, int] | None = None) -> None:
        self.sent_seq = seq
        self.ghosts += [frame for frame in self.flight if frame != answered]
        self.flight.clear()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to read from the spool and send next."""

    attempt: int
    execution_id: str
    after_seq: int
    budget_bytes: int
    single: bool


class Link:
    def __init__(
        self,
        wrapper_id: str,
        instance_id: str,
        version: str,
        *,
        backoff_s: Sequence[float] = BACKOFF_S,
        jitter: Sequence[float] | None = None,
    ) -> None:
        """``jitter``: factors around 1, used in turn; randomness is the caller's."""
        self.phase = Phase.IDLE
        self.attempt = 0
        self.wrapper_id, self.instance_id, self.version = wrapper_id, instance_id, version
        self.cursors: dict[str, Cursor] = {}
        self.window_bytes = WINDOW_BYTES
        self.max_frame_bytes = MAX_FRAME_BYTES
        self.frame_bytes = FIRST_FRAME_BYTES  # as large as this line has shown to carry
        self._backoff = Backoff(backoff_s, jitter)
        self._progress_at = 0.0
        self._told: dict[str, Known] = {}

    # ------------------------------------------------------------ connections

    def open(self) -> int:
        """A new attempt; every older one is a ghost from here on."""
        assert self.phase is Phase.IDLE, self.phase
        self.attempt += 1
        self.phase = Phase.OPENING
        return self.attempt

    def on_open(
        self, attempt: int, known: Sequence[Known], spool_bytes: int, limit_bytes: int, unreadable: bool
    ) -> list[Effect]:
        if attempt != self.attempt or self.phase is not Phase.OPENING:
            return []  # a late open never installs a socket
        self.phase = Phase.GREETING
        self._told = {one.execution_id: one for one in known}
        executions = [
            {
                "execution_id": one.execution_id,
                "state": one.state,
                "first_seq": one.first_seq,
                "last_seq": one.last_seq,
                "final": None if one.final is None else dict(one.final),
            }
            for one in known
        ]
        hello = {
            "type": "hello",
            "protocol": PROTOCOL_VERSION,
            "wrapper_id": self.wrapper_id,
            "instance_id": self.instance_id,
            "attempt": self.attempt,
            "client": {
                "name": "holdfast-wrapper",
                "version": self.version,
                "capabilities": ["command", "interrupt", "input", "approval"],
            },
            "executions": executions,
            "spool": {"state": "unreadable" if unreadable else "ok", "bytes": spool_bytes, "limit_bytes": limit_bytes},
        }
        for one in known:
            cursor = self.cursors.setdefault(one.execution_id, Cursor())
            cursor.last_seq, cursor.acked_seq = max(cursor.last_seq, one.last_seq), one.first_seq - 1
        for cursor in self.cursors.values():
            cursor.rewind(cursor.acked_seq)
            cursor.ghosts.clear()
            cursor.strikes.clear()
            cursor.stuck = False
        return [Send(hello)]

    def on_close(self, attempt: int, code: int | None, reason: str, now: float) -> list[Effect]:
        if attempt != self.attempt or self.phase in (Phase.IDLE, Phase.STOPPED):
            return []
        row = CLOSE_CODES.get(code) if code is not None else None
        pause = self._backoff.on_close(code, reason, now)
        if pause is None:
            self.phase = Phase.STOPPED
            return [Stop(code, reason or (row.name if row else "closed"))]
        effects = self._smaller() if row is not None and row.reconnect == "smaller" else []
        self.phase = Phase.IDLE
        return [*effects, ConnectAt(now + pause)]

    def _smaller(self) -> list[Effect]:
        """A frame was too big for the socket: halve them; when they cannot be halved, give up the largest record."""
        if self.max_frame_bytes > SMALLEST_FRAME_BYTES:
            self.max_frame_bytes = max(SMALLEST_FRAME_BYTES, self.max_frame_bytes // 2)
            return []
        flights = [(size, e, first) for e, c in self.cursors.items() for first, last, size in c.flight if first == last]
        return [Refuse(execution_id, first) for _, execution_id, first in sorted(flights)[-1:]]

    # ------------------------------------------------------------ frames

    def on_frame(self, attempt: int, frame: Mapping[str, Any], now: float) -> list[Effect]:
        if attempt != self.attempt:
            return []
        match self.phase, frame.get("type"):
            case Phase.GREETING, "hello_ack":
                return self._on_hello_ack(frame, now)
            case Phase.LIVE, "ack":
                return self._on_ack(str(frame.get("execution_id")), _seq(frame.get("seq")), now)
            case Phase.LIVE, "nack":
                return self._on_nack(frame, now)
            case Phase.LIVE, "command":
                return [Obey(frame)]
            case _:
                return []  # an `error`, a frame that we do not know, or one out of its phase: nothing changes

    def _on_hello_ack(self, frame: Mapping[str, Any], now: float) -> list[Effect]:
        self.window_bytes = _seq(frame.get("window_bytes")) or WINDOW_BYTES
        self.max_frame_bytes = min(self.max_frame_bytes, _seq(frame.get("max_frame_bytes")) or MAX_FRAME_BYTES)
        effects: list[Effect] = []
        for one in frame.get("executions") or ():
            execution_id = str(one.get("execution_id"))
            if execution_id in self._told:
                effects += self._directive(execution_id, one, now)
        self.phase = Phase.LIVE
        self._progress_at = now
        self.frame_bytes = FIRST_FRAME_BYTES
        self._backoff.on_live(now)
        heartbeat_s = float(frame.get("heartbeat_interval_s") or HEARTBEAT_S)
        return [*effects, Send({"type": "ready"}), Live(heartbeat_s, float(frame.get("grace_s") or 0.0))]

    def _directive(self, execution_id: str, one: Mapping[str, Any], now: float) -> list[Effect]:
        acked, reason = _seq(one.get("acked_seq")), str(one.get("reason") or "told to abort at hello")
        match one.get("directive"):
            case "abort":
                self.forget(execution_id)
                return [Abort(execution_id, reason)]
            case "discard":
                # The shell discards only what was never launched; a running or final one stays (DESIGN §2.6).
                return [Discard(execution_id)]
            case "done":
                self.forget(execution_id)
                return [Done(execution_id)]
            case _:
                told = self._told[execution_id]
                # Told of a final and still it says `resume`: whatever it has under that number is not our final.
                final = told.state == "final" and acked >= told.last_seq
                effects = self._settle(execution_id, acked, told.last_seq, now, final=final)
                self.cursors[execution_id].rewind(acked)
                return effects

    def _on_ack(self, execution_id: str, seq: int, now: float) -> list[Effect]:
        cursor = self.cursors.get(execution_id)
        if cursor is None or seq <= cursor.acked_seq:
            return []
        self._pace(sum(size for _, last, size in cursor.flight if last <= seq), now - self._progress_at)
        return self._settle(execution_id, seq, cursor.last_seq, now)

    def _pace(self, size: int, took_s: float) -> None:
        """So many bytes were acknowledged so long after the progress before."""
        if took_s > QUICK_S:
            self.frame_bytes = max(FIRST_FRAME_BYTES, self.frame_bytes // 2)
        elif size >= self.frame_bytes // 2:  # small ones say nothing of what the line carries
            self.frame_bytes = min(2 * self.frame_bytes, max(FIRST_FRAME_BYTES, self.window_bytes // FRAMES_IN_FLIGHT))

    def _settle(self, execution_id: str, acked: int, told: int, now: float, *, final: bool = False) -> list[Effect]:
        """The server has everything up to ``acked``."""
        cursor = self.cursors.setdefault(execution_id, Cursor())
        self._progress_at = now
        if acked > told or final:
            cursor.last_seq = acked + (cursor.last_seq - told) + final
            cursor.acked_seq = acked
            cursor.rewind(acked)
            return [Rewound(execution_id, told, acked)]
        # Less than before (at hello) is a store restored from a backup: what we no longer have becomes a gap.
        cursor.acked_seq = acked
        while cursor.flight and cursor.flight[0][1] <= acked:
            cursor.flight.popleft()
        cursor.sent_seq = max(cursor.sent_seq, acked)
        cursor.ghosts = [frame for frame in cursor.ghosts if frame[1] > acked]
        cursor.strikes = {seq: n for seq, n in cursor.strikes.items() if seq > acked}
        return [Acked(execution_id, acked)]

    def _on_nack(self, frame: Mapping[str, Any], now: float) -> list[Effect]:
        execution_id, code = str(frame.get("execution_id")), frame.get("code")
        cursor = self.cursors.get(execution_id)
        if cursor is None:
            return []
        self._progress_at = now
        expected = _seq(frame.get("expected_seq")) or cursor.acked_seq + 1
        if code in ("terminal", "unknown_execution"):
            self.forget(execution_id)
            return [Abort(execution_id, f"nack {code}")]
        if code in ("invalid", "too_large"):
            return self._on_refusal(execution_id, cursor, expected)
        if expected > cursor.last_seq + 1:
            return self._settle(execution_id, expected - 1, cursor.last_seq, now)
        cursor.acked_seq = expected - 1
        cursor.rewind(expected - 1)
        return []

    def _on_refusal(self, execution_id: str, cursor: Cursor, expected: int) -> list[Effect]:
        frame = next((f for f in cursor.flight if f[0] <= expected <= f[1]), None)
        if frame is None:
            return []  # about something sent before a rewind; what was sent after it will be answered too
        first, last, _ = frame
        # A nack does not say which frame it is about. If one that was sent before a rewind may be meant, we would
        # give up a good record for another's fault.
        doubtful = any(f[0] <= expected <= f[1] for f in cursor.ghosts)
        if first != last:
            cursor.rewind(first - 1, None if doubtful else frame)
            cursor.single_until = max(cursor.single_until, last)
            return []
        if doubtful:
            cursor.single_until = max(cursor.single_until, last)
            return [Cut("a refusal that may be an echo: on a new connection there are none")]
        cursor.rewind(first - 1, frame)
        cursor.strikes[first] = cursor.strikes.get(first, 0) + 1
        if cursor.strikes[first] > STRIKES:
            cursor.stuck = True
            return []
        return [Refuse(execution_id, first)]

    # ------------------------------------------------------------ the sender

    def note(self, execution_id: str, last_seq: int) -> None:
        """Records up to ``last_seq`` are spooled."""
        cursor = self.cursors.setdefault(execution_id, Cursor())
        cursor.last_seq = max(cursor.last_seq, last_seq)

    def forget(self, execution_id: str) -> None:
        self.cursors.pop(execution_id, None)

    def in_flight(self) -> int:
        return sum(size for cursor in self.cursors.values() for _, _, size in cursor.flight)

    def plan(self) -> Plan | None:
        """The next read for the one sender; None: nothing to send, or the window is full."""
        if self.phase is not Phase.LIVE:
            return None
        flying = self.in_flight()
        frame = min(self.frame_bytes, self.window_bytes // FRAMES_IN_FLIGHT)
        room = min(self.window_bytes, FRAMES_IN_FLIGHT * self.frame_bytes) - flying
        if flying and room < frame:
            return None  # crumbs: wait for an ack rather than send many tiny frames
        budget = min(room, frame, self.max_frame_bytes - ENVELOPE_BYTES)
        for execution_id, cursor in self.cursors.items():
            if cursor.sent_seq < cursor.last_seq and not cursor.stuck:
                single = cursor.sent_seq < cursor.single_until
                if single and cursor.flight:
                    continue  # one at a time: then its answer is its own
                return Plan(self.attempt, execution_id, cursor.sent_seq, max(budget, 1), single)
        return None

    def on_sent(self, plan: Plan, first: int, last: int, size: int, now: float) -> bool:
        """Call just before a frame of this plan goes out. False: the world has moved on, do not send it."""
        cursor = self.cursors.get(plan.execution_id)
        stale = self.phase is not Phase.LIVE or plan.attempt != self.attempt
        if stale or cursor is None or first != cursor.sent_seq + 1:
            return False
        flying = self.in_flight()
        if flying and flying + size > self.window_bytes:
            return False
        if not flying:
            self._progress_at = now
        cursor.sent_seq = last
        cursor.flight.append((first, last, size))
        return True

    def on_tick(self, now: float) -> list[Effect]:
        if self.phase is Phase.LIVE and self.in_flight() and now - self._progress_at > ACK_DEADLINE_S:
            return [Cut("no acknowledgement in time")]
        return []


def _seq(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
