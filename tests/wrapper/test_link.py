"""The pure half of the protocol: every answer in full, and nothing else said."""

from __future__ import annotations

import json
import random

import pytest

from actors.protocol.codes import CLOSE_CODES
from actors.protocol.defaults import WRAPPER_PING_S, WRAPPER_PONG_S
from wrapper.effects import (
    Abort,
    Acked,
    ConnectAt,
    Cut,
    Discard,
    Done,
    Known,
    Live,
    Obey,
    Refuse,
    Rewound,
    Send,
    Stop,
)
from wrapper.link import ACK_DEADLINE_S, FIRST_FRAME_BYTES, FRAMES_IN_FLIGHT, Link, Phase, Plan
from wrapper.packing import pack
from wrapper.records import Record


def make() -> Link:
    return Link("w_1", "i_1", "0", backoff_s=(1.0, 2.0, 4.0, 8.0))


def hello_ack(*directives: tuple[str, str, int], **fields: object) -> dict[str, object]:
    executions = [{"execution_id": e, "directive": d, "acked_seq": a, "reason": None} for e, d, a in directives]
    return {"type": "hello_ack", "heartbeat_interval_s": 10, "grace_s": 30, "executions": executions, **fields}


def live(*known: Known, **fields: object) -> Link:
    link = make()
    attempt = link.open()
    link.on_open(attempt, known, 0, 1, False)
    link.on_frame(attempt, hello_ack(*((k.execution_id, "resume", k.first_seq - 1) for k in known), **fields), 0.0)
    return link


def send_all(link: Link, size: int = 10) -> list[tuple[int, int]]:
    sent = []
    while (plan := link.plan()) is not None:
        assert link.on_sent(plan, plan.after_seq + 1, plan.after_seq + 1, size, 0.0)
        sent.append(plan.after_seq + 1)
    return sent


RUNNING = Known("exe_1", "running", 1, 5)


def test_hello_says_who_and_what_and_the_attempt_grows() -> None:
    link = make()
    attempt = link.open()
    (effect,) = link.on_open(attempt, [Known("exe_1", "final", 3, 9, {"status": "completed"})], 7, 100, True)
    assert isinstance(effect, Send)
    assert {key: effect.frame[key] for key in ("type", "protocol", "wrapper_id", "instance_id", "attempt")} == {
        "type": "hello",
        "protocol": 1,
        "wrapper_id": "w_1",
        "instance_id": "i_1",
        "attempt": 1,
    }
    assert effect.frame["spool"] == {"state": "unreadable", "bytes": 7, "limit_bytes": 100}
    assert effect.frame["executions"] == [
        {"execution_id": "exe_1", "state": "final", "first_seq": 3, "last_seq": 9, "final": {"status": "completed"}}
    ]
    assert link.on_close(attempt, None, "", 0.0) == [ConnectAt(1.0)]
    assert link.open() == 2


def test_directives_come_before_ready_and_nothing_is_sent_before_it() -> None:
    link = make()
    attempt = link.open()
    known = [Known(f"exe_{n}", "running", 1, 5) for n in range(4)]
    link.on_open(attempt, known, 0, 1, False)
    assert link.plan() is None
    frame = hello_ack(("exe_0", "resume", 2), ("exe_1", "abort", 5), ("exe_2", "discard", 0), ("exe_3", "done", 5))
    assert link.on_frame(attempt, frame, 0.0) == [
        Acked("exe_0", 2),
        Abort("exe_1", "told to abort at hello"),
        Discard("exe_2"),
        Done("exe_3"),
        Send({"type": "ready"}),
        Live(10.0, 30.0),
    ]
    plan = link.plan()
    assert plan is not None and (plan.execution_id, plan.after_seq) == ("exe_0", 2)


def test_a_directive_about_what_we_did_not_tell_is_ignored() -> None:
    link = make()
    attempt = link.open()
    link.on_open(attempt, [], 0, 1, False)
    assert link.on_frame(attempt, hello_ack(("exe_9", "abort", 0)), 0.0) == [Send({"type": "ready"}), Live(10.0, 30.0)]


def test_acks_are_cumulative_and_old_ones_say_nothing() -> None:
    link = live(RUNNING)
    assert send_all(link) == [1, 2, 3, 4, 5]
    assert link.in_flight() == 50
    assert link.on_frame(1, {"type": "ack", "execution_id": "exe_1", "seq": 3}, 0.0) == [Acked("exe_1", 3)]
    assert link.in_flight() == 20
    assert link.on_frame(1, {"type": "ack", "execution_id": "exe_1", "seq": 2}, 0.0) == []
    assert link.on_frame(1, {"type": "ack", "execution_id": "exe_2", "seq": 2}, 0.0) == []


def test_nack_gap_rewinds_the_cursor_to_what_is_expected() -> None:
    link = live(RUNNING)
    send_all(link)
    assert link.on_frame(1, {"type": "nack", "execution_id": "exe_1", "code": "gap", "expected_seq": 3}, 0.0) == []
    assert link.in_flight() == 0
    assert send_all(link) == [3, 4, 5]


@pytest.mark.parametrize("code", ["terminal", "unknown_execution"])
def test_nack_of_an_ended_execution_aborts_it_and_sends_no_more(code: str) -> None:
    link = live(RUNNING)
    send_all(link)
    assert link.on_frame(1, {"type": "nack", "execution_id": "exe_1", "code": code}, 0.0) == [
        Abort("exe_1", f"nack {code}")
    ]
    assert link.plan() is None and link.in_flight() == 0


def test_a_refused_frame_of_one_is_replaced_at_once() -> None:
    link = live(RUNNING)
    send_all(link)
    nack = {"type": "nack", "execution_id": "exe_1", "code": "too_large", "expected_seq": 2}
    assert link.on_frame(1, nack, 0.0) == [Refuse("exe_1", 2)]
    assert send_all(link) == [2, 3, 4, 5]


def test_a_refused_frame_of_many_is_taken_apart_until_the_culprit_is_alone() -> None:
    link = live(RUNNING)
    plan = link.plan()
    assert plan is not None and not plan.single and link.on_sent(plan, 1, 5, 50, 0.0)
    nack = {"type": "nack", "execution_id": "exe_1", "code": "invalid", "expected_seq": 1}
    assert link.on_frame(1, nack, 0.0) == []
    plan = link.plan()
    assert plan is not None and plan.single
    for good in (1, 2):
        assert send_all(link) == [good]  # one at a time
        link.on_frame(1, {"type": "ack", "execution_id": "exe_1", "seq": good}, 0.0)
    assert send_all(link) == [3]
    nack["expected_seq"] = 3
    assert link.on_frame(1, nack, 0.0) == [Refuse("exe_1", 3)]


def test_a_refusal_that_may_be_an_echo_gives_nothing_up_but_the_connection() -> None:
    link = live(RUNNING)
    plan = link.plan()
    assert plan is not None and link.on_sent(plan, 1, 5, 50, 0.0)
    link.on_frame(1, {"type": "nack", "execution_id": "exe_1", "code": "gap", "expected_seq": 1}, 0.0)
    plan = link.plan()
    assert plan is not None and link.on_sent(plan, 1, 1, 10, 0.0)
    nack = {"type": "nack", "execution_id": "exe_1", "code": "invalid", "expected_seq": 1}
    (effect,) = link.on_frame(1, nack, 0.0)
    assert isinstance(effect, Cut)


def test_a_record_that_is_refused_for_ever_stops_its_execution_until_the_next_connection() -> None:
    link = live(RUNNING)
    nack = {"type": "nack", "execution_id": "exe_1", "code": "invalid", "expected_seq": 1}
    for _ in range(3):
        send_all(link)
        assert link.on_frame(1, nack, 0.0) == [Refuse("exe_1", 1)]
    send_all(link)
    assert link.on_frame(1, nack, 0.0) == []
    assert link.plan() is None


def test_a_server_that_has_more_than_it_was_told_of_moves_the_numbering() -> None:
    link = make()
    attempt = link.open()
    link.on_open(attempt, [RUNNING], 0, 1, False)
    link.note("exe_1", 7)  # spooled between hello and its answer
    effects = link.on_frame(attempt, hello_ack(("exe_1", "resume", 800)), 0.0)
    assert effects == [Rewound("exe_1", 5, 800), Send({"type": "ready"}), Live(10.0, 30.0)]
    assert send_all(link) == [801, 802]


@pytest.mark.parametrize("acked", [5, 9])
def test_a_final_under_a_number_that_the_server_has_is_numbered_anew(acked: int) -> None:
    link = make()
    attempt = link.open()
    link.on_open(attempt, [Known("exe_1", "final", 1, 5, {"status": "completed"})], 0, 1, False)
    effects = link.on_frame(attempt, hello_ack(("exe_1", "resume", acked)), 0.0)
    assert effects[0] == Rewound("exe_1", 5, acked)
    assert send_all(link) == [acked + 1]


def test_a_server_that_forgot_gets_a_gap_for_what_is_gone() -> None:
    link = make()
    attempt = link.open()
    link.on_open(attempt, [Known("exe_1", "running", 501, 510)], 0, 1, False)
    effects = link.on_frame(attempt, hello_ack(("exe_1", "resume", 300)), 0.0)
    assert effects[0] == Acked("exe_1", 300)
    plan = link.plan()
    assert plan is not None and plan.after_seq == 300
    event = '{"type":"output","ts_ms":1,"data":{}}'
    gap, events = pack(plan, [Record(501, 501, "output", event)], 510, None)
    assert json.loads(gap.text) == {
        "type": "gap",
        "execution_id": "exe_1",
        "seq": 301,
        "to_seq": 500,
        "bytes": 0,
        "reason": "trimmed",
    }
    assert json.loads(events.text)["seq"] == 501
    assert link.on_sent(plan, gap.first, gap.last, gap.size, 0.0) and link.on_sent(plan, 501, 501, 1, 0.0)


def test_a_frame_is_a_quarter_of_a_window_so_that_each_hand_on_the_way_has_one() -> None:
    link = live(RUNNING, window_bytes=1000)
    for n in range(1, FRAMES_IN_FLIGHT + 1):
        plan = link.plan()
        assert plan is not None and plan.budget_bytes == 250
        assert link.on_sent(plan, n, n, 250, 0.0)
    assert link.plan() is None


def over_a_line(link: Link, bytes_per_s: float, turns: int) -> list[tuple[int, float, int]]:
    """A backlog over a line of this speed, a frame after the other: the size of each, the silence before its
    acknowledgement, and how much was in flight then."""
    now = free_at = 0.0
    waiting: list[tuple[int, int, float]] = []  # last, size, when its acknowledgement comes
    passed: list[tuple[int, float, int]] = []
    for _ in range(turns):
        while (plan := link.plan()) is not None:
            last, size = plan.after_seq + 1, plan.budget_bytes
            link.note("exe_1", last + 1)
            assert link.on_sent(plan, last, last, size, now)
            free_at = max(free_at, now) + size / bytes_per_s
            waiting.append((last, size, free_at + 0.005))
        last, size, at = waiting.pop(0)
        passed.append((size, at - now, link.in_flight()))
        now = at
        assert not link.on_tick(now - 0.001)
        link.on_frame(link.attempt, {"type": "ack", "execution_id": "exe_1", "seq": last}, now)
    return passed


@pytest.mark.parametrize("bytes_per_s", [7_000, 20_000, 100_000])
def test_on_a_slow_line_something_comes_back_before_it_counts_as_dead(bytes_per_s: int) -> None:
    passed = over_a_line(live(RUNNING), bytes_per_s, 40)
    assert max(silence for _, silence, _ in passed) < WRAPPER_PING_S + WRAPPER_PONG_S
    assert max(flying for _, _, flying in passed) <= FRAMES_IN_FLIGHT * FIRST_FRAME_BYTES, "a final waits behind it"


def test_frames_grow_to_a_quarter_of_a_window_while_answers_come_quickly_and_begin_small_on_a_new_connection() -> None:
    link = live(RUNNING)
    sizes = [size for size, _, _ in over_a_line(link, 50e6, 40)]
    assert sizes[0] == FIRST_FRAME_BYTES and sizes[-1] == link.window_bytes // FRAMES_IN_FLIGHT
    assert sizes == sorted(sizes)
    link.on_close(link.attempt, None, "", 1.0)
    attempt = link.open()
    link.on_open(attempt, (RUNNING,), 0, 1, False)
    link.on_frame(attempt, hello_ack(("exe_1", "resume", 0)), 1.0)
    plan = link.plan()
    assert plan is not None and plan.budget_bytes == FIRST_FRAME_BYTES


def test_small_frames_that_pass_quickly_do_not_make_large_ones() -> None:
    link = live(RUNNING)
    for seq in range(1, 5):
        plan = link.plan()
        assert plan is not None and link.on_sent(plan, seq, seq, 200, 0.0)
        link.on_frame(1, {"type": "ack", "execution_id": "exe_1", "seq": seq}, 0.01)
    assert link.frame_bytes == FIRST_FRAME_BYTES


def test_at_most_a_window_is_in_flight_but_a_larger_record_goes_alone() -> None:
    link = live(RUNNING, window_bytes=100)
    plan = link.plan()
    assert plan is not None and link.on_sent(plan, 1, 1, 40, 0.0)
    plan = link.plan()
    assert plan is not None and plan.budget_bytes == 100 // FRAMES_IN_FLIGHT
    assert not link.on_sent(plan, 2, 2, 70, 0.0)
    link.on_frame(1, {"type": "ack", "execution_id": "exe_1", "seq": 1}, 0.0)
    plan = link.plan()
    assert plan is not None and link.on_sent(plan, 2, 2, 600, 0.0)
    assert link.plan() is None


def test_records_of_an_older_execution_go_first() -> None:
    link = live(RUNNING, Known("exe_2", "received", 1, 1))
    first = link.plan()
    assert first is not None and first.execution_id == "exe_1"
    send_all(link)
    assert {e: c.sent_seq for e, c in link.cursors.items()} == {"exe_1": 5, "exe_2": 1}


# ---------------------------------------------------------------- ghosts


def test_a_late_open_never_installs_a_socket() -> None:
    link = make()
    first = link.open()
    link.on_close(first, None, "", 0.0)
    second = link.open()
    assert link.on_open(first, [RUNNING], 0, 1, False) == []
    assert link.phase is Phase.OPENING
    assert link.on_open(second, [RUNNING], 0, 1, False) != []
    assert link.on_open(second, [RUNNING], 0, 1, False) == []  # and only once


@pytest.mark.parametrize(
    "frame",
    [
        hello_ack(("exe_1", "abort", 0)),
        {"type": "ack", "execution_id": "exe_1", "seq": 3},
        {"type": "nack", "execution_id": "exe_1", "code": "terminal"},
        {"type": "command", "command_id": "cmd_1", "kind": "abort", "execution_id": "exe_1"},
    ],
)
def test_an_old_socket_is_a_ghost_whatever_it_says(frame: dict[str, object]) -> None:
    link = live(RUNNING)
    link.on_close(1, None, "", 0.0)
    attempt = link.open()
    link.on_open(attempt, [RUNNING], 0, 1, False)
    link.on_frame(attempt, hello_ack(("exe_1", "resume", 0)), 0.0)
    plan = link.plan()
    assert link.on_frame(1, frame, 0.0) == []
    assert link.on_close(1, 4001, "superseded", 0.0) == []
    assert link.phase is Phase.LIVE and link.plan() == plan


def test_a_frame_planned_for_an_old_connection_is_not_counted_on_the_new_one() -> None:
    link = live(RUNNING)
    plan = link.plan()
    assert plan is not None
    link.on_close(1, None, "", 0.0)
    link.on_open(link.open(), [RUNNING], 0, 1, False)
    link.on_frame(2, hello_ack(("exe_1", "resume", 0)), 0.0)
    assert not link.on_sent(plan, 1, 1, 10, 0.0)


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.OPENING, Phase.GREETING, Phase.STOPPED])
@pytest.mark.parametrize("type_", ["hello_ack", "ack", "nack", "command", "error", "snapshot", None])
def test_a_frame_out_of_its_phase_is_refused_by_silence(phase: Phase, type_: str | None) -> None:
    if (phase, type_) == (Phase.GREETING, "hello_ack"):
        return
    link = make()
    link.phase, link.attempt = phase, 1
    link.note("exe_1", 5)
    assert link.on_frame(1, {"type": type_, "execution_id": "exe_1", "seq": 2, "code": "terminal"}, 0.0) == []
    assert link.phase is phase and "exe_1" in link.cursors


def test_a_command_is_handed_over_as_it_came() -> None:
    command = {"type": "command", "command_id": "cmd_1", "kind": "start", "execution_id": "exe_1"}
    assert live().on_frame(1, command, 0.0) == [Obey(command)]


# ---------------------------------------------------------------- closes


@pytest.mark.parametrize("code", [*CLOSE_CODES, None, 1006, 4999])
def test_every_close_code_means_what_the_table_says(code: int | None) -> None:
    link = live(RUNNING)
    (effect,) = link.on_close(1, code, "why", 0.0)
    row = CLOSE_CODES.get(code) if code is not None else None
    if row is not None and row.reconnect == "no":
        assert effect == Stop(code, "why") and link.phase is Phase.STOPPED
    else:
        assert effect == ConnectAt(1.0) and link.phase is Phase.IDLE


@pytest.mark.parametrize("reason", ['{"retry_after_s":5}', "retry_after_s=5", "busy; retry_after_s: 5.0"])
def test_a_server_may_ask_for_patience(reason: str) -> None:
    assert live().on_close(1, 1013, reason, 10.0) == [ConnectAt(15.0)]


def test_but_not_for_absence() -> None:
    assert live().on_close(1, 1013, "retry_after_s=99999", 0.0) == [ConnectAt(300.0)]


def test_the_pause_doubles_to_its_cap_for_ever_and_starts_again_after_health() -> None:
    link = make()
    pauses = []
    for _ in range(6):
        (effect,) = link.on_close(link.open(), None, "", 0.0)
        assert isinstance(effect, ConnectAt)
        pauses.append(effect.at_s)
    assert pauses == [1, 2, 4, 8, 8, 8]
    attempt = link.open()
    link.on_open(attempt, [], 0, 1, False)
    link.on_frame(attempt, hello_ack(), 100.0)
    assert link.on_close(attempt, None, "", 129.0) == [ConnectAt(137.0)]  # 29 s are no health
    attempt = link.open()
    link.on_open(attempt, [], 0, 1, False)
    link.on_frame(attempt, hello_ack(), 200.0)
    assert link.on_close(attempt, None, "", 230.0) == [ConnectAt(231.0)]


def test_jitter_is_the_callers() -> None:
    link = Link("w_1", "i_1", "0", jitter=(0.5, 1.5))
    assert link.on_close(link.open(), None, "", 0.0) == [ConnectAt(0.5)]
    assert link.on_close(link.open(), None, "", 0.0) == [ConnectAt(3.0)]


def test_a_frame_too_big_makes_smaller_frames() -> None:
    link = live(RUNNING)
    before = link.max_frame_bytes
    link.on_close(1, 1009, "", 0.0)
    assert link.max_frame_bytes == before // 2


def test_a_record_too_big_for_the_smallest_frame_is_given_up() -> None:
    link = live(RUNNING)
    link.max_frame_bytes = 1000
    for size in (500, 900, 300):
        plan = link.plan()
        assert plan is not None and link.on_sent(plan, plan.after_seq + 1, plan.after_seq + 1, size, 0.0)
    assert link.on_close(1, 1009, "", 0.0) == [Refuse("exe_1", 2), ConnectAt(1.0)]


def test_no_acknowledgement_for_long_cuts_the_line_but_only_if_something_waits_for_one() -> None:
    link = live(RUNNING)
    assert link.on_tick(1000.0) == []
    plan = link.plan()
    assert plan is not None and link.on_sent(plan, 1, 1, 10, 1000.0)
    assert link.on_tick(1000.0 + ACK_DEADLINE_S) == []
    assert link.on_tick(1000.1 + ACK_DEADLINE_S) == [Cut("no acknowledgement in time")]


# ---------------------------------------------------------------- packing


EVENT = '{"type":"output","ts_ms":1,"data":{"n":%d}}'


def test_events_share_a_frame_and_control_records_stand_alone_in_order() -> None:
    rows = [
        Record(1, 1, "started", '{"pid":7}'),
        Record(2, 2, "output", EVENT % 2),
        Record(3, 3, "event", EVENT % 3),
        Record(4, 9, "gap", '{"bytes":5,"reason":"trimmed"}'),
        Record(10, 10, "output", EVENT % 10),
        Record(11, 11, "final", '{"status":"completed"}'),
    ]
    frames = [json.loads(frame.text) for frame in pack(Plan(1, "exe_1", 0, 10_000, False), rows, 11, None)]
    assert [(frame["type"], frame["seq"]) for frame in frames] == [
        ("started", 1), ("events", 2), ("gap", 4), ("events", 10), ("final", 11),
    ]  # fmt: skip
    assert len(frames[1]["events"]) == 2 and frames[2]["to_seq"] == 9 and frames[4]["status"] == "completed"


def test_a_gap_that_grew_behind_the_cursor_goes_on_after_it() -> None:
    (frame,) = pack(
        Plan(1, "exe_1", 60, 1000, False), [Record(41, 95, "gap", '{"bytes":5,"reason":"trimmed"}')], 95, None
    )
    assert (frame.first, frame.last) == (61, 95)


def test_a_server_that_forgot_everything_hears_started_again() -> None:
    frames = pack(Plan(1, "exe_1", 0, 1000, False), [Record(8, 8, "output", EVENT % 8)], 8, 4711)
    assert [(json.loads(f.text)["type"], f.first, f.last) for f in frames] == [
        ("started", 1, 1), ("gap", 2, 7), ("events", 8, 8),
    ]  # fmt: skip
    assert json.loads(frames[0].text)["pid"] == 4711


@pytest.mark.parametrize("seed", range(100))
def test_over_a_line_that_loses_cuts_and_refuses_every_record_arrives_once_in_order(seed: int) -> None:
    """The link against a strict model of the server, on a wire that is cut at random, for many seeds."""
    rng = random.Random(seed)
    link = make()
    body = EVENT % 0
    spool: dict[int, Record] = {}
    server_acked, applied, produced, bad = 0, [], 0, {rng.randint(2, 60) for _ in range(2)}
    now, waiting = 0.0, False
    wire: list[dict[str, object]] = []  # towards the server
    for _ in range(4000):
        now += 0.01
        if link.phase is Phase.IDLE:
            attempt = link.open()
            first = min(spool, default=produced + 1)
            link.on_open(attempt, [Known("exe_1", "running", first, produced)], 0, 1, False)
            wire.clear()
            waiting = False
            link.on_frame(attempt, hello_ack(("exe_1", "resume", server_acked), window_bytes=2000), now)
        dice = rng.random()
        if dice < 0.3 and produced < 80:
            produced += 1
            kind = "started" if produced == 1 else "output"
            spool[produced] = Record(produced, produced, kind, '{"pid":1}' if produced == 1 else body)
            link.note("exe_1", produced)
        elif dice < 0.6 and (plan := link.plan()) is not None:
            rows = [spool[seq] for seq in sorted(spool) if seq > plan.after_seq][: rng.randint(1, 9)]
            for frame in pack(plan, rows, produced, 1):
                if not link.on_sent(plan, frame.first, frame.last, frame.size, now):
                    break
                wire.append(json.loads(frame.text))
        elif dice < 0.97 and wire:
            frame = wire.pop(0)
            first_seq = int(str(frame["seq"]))
            seqs = list(range(first_seq, first_seq + len(frame.get("events", [1]))))  # type: ignore[arg-type]
            if frame["type"] == "gap":
                seqs = list(range(first_seq, int(str(frame["to_seq"])) + 1))
            answer: dict[str, object] | None = None
            if seqs[-1] <= server_acked:
                answer = {"type": "ack", "seq": server_acked}
            elif seqs[0] > server_acked + 1:
                answer = None if waiting else {"type": "nack", "code": "gap", "expected_seq": server_acked + 1}
                waiting = True
            elif frame["type"] == "events" and bad & set(seqs):
                answer = {"type": "nack", "code": "invalid", "expected_seq": server_acked + 1}
                waiting = False
            else:
                waiting = False
                applied += [(seq, frame["type"]) for seq in seqs if seq > server_acked]
                server_acked = seqs[-1]
                answer = {"type": "ack", "seq": server_acked}
            if answer is not None:
                for effect in link.on_frame(link.attempt, {**answer, "execution_id": "exe_1"}, now):
                    if isinstance(effect, Acked):
                        spool = {seq: row for seq, row in spool.items() if seq > effect.seq}
                    elif isinstance(effect, Refuse):
                        assert effect.seq in bad, "a good record was given up"
                        spool[effect.seq] = Record(effect.seq, effect.seq, "gap", '{"bytes":1,"reason":"refused"}')
                    elif isinstance(effect, Cut):
                        link.on_close(link.attempt, None, "", now)
                    else:
                        raise AssertionError(effect)
        elif dice > 0.99:
            link.on_close(link.attempt, None, "", now)
    assert produced == 80 and server_acked == 80
    assert [seq for seq, _ in applied] == list(range(1, 81))
    assert [seq for seq, kind in applied if kind == "gap"] == sorted(bad)
