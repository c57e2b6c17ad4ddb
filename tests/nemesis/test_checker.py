"""The judge judged: clean histories are clean, and each kind of anomaly, planted into one, is found by its name."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from actors.history import CODES, Unreadable, check, content_hash, parse
from tests.nemesis.clean import History, Line, observed

SEEDS = range(8)
Spoil = Callable[["Lines"], None]
PLANTED: dict[str, tuple[str, set[str], Spoil]] = {}  # name → (code, companions, how)


@cache
def made(seed: int) -> bytes:
    """As a copy to be had quickly, in which what was one object is one object again."""
    return pickle.dumps(History(seed).lines)


class Lines:
    """A history under the knife."""

    def __init__(self, seed: int) -> None:
        self.all: list[Line] = pickle.loads(made(seed))

    def of(self, what: str, **fields: Any) -> list[Line]:
        return [x for x in self.all if x["what"] == what and all(x.get(k) == v for k, v in fields.items())]

    def row(self, kind: str, nth: int = 0, **fields: Any) -> Line:
        return self.of("stored", type=kind, **fields)[nth]

    def ended(self, cause: str | None, status: str) -> Line:
        return next(x for x in self.of("execution", status=status) if x["outcome"]["cause"] == cause)

    def output(self) -> list[Line]:
        """Of an execution that came to its own end."""
        done = self.ended(None, "completed")
        return self.of("stored", type="output", session=done["session"], execution=done["execution"])

    def drop(self, line: Line) -> None:
        self.all.remove(line)

    def renumber(self, sid: str) -> None:
        """Positions are contiguous again, and readers saw just that: the anomaly is one of content, not of numbers."""
        rows = sorted(self.of("stored", session=sid), key=lambda r: r["seq"])
        for i, r in enumerate(rows, 1):
            r["seq"] = i
        for session in self.of("session", session=sid):
            session["last_seq"] = len(rows)
        for x in [x for x in self.all if x["what"] in ("opened", "delivered", "finished") and x["session"] == sid]:
            self.drop(x)

    def insert(self, after: Line, **changes: Any) -> Line:
        """A copy of a row behind another one, with the stream numbered anew."""
        made = {**copy.deepcopy(after), **changes, "seq": after["seq"] + 0.5}
        self.all.insert(self.all.index(after) + 1, made)
        self.renumber(after["session"])
        return made


def plants(code: str, *companions: str) -> Callable[[Spoil], Spoil]:
    def keep(spoil: Spoil) -> Spoil:
        PLANTED[spoil.__name__] = (code, set(companions), spoil)
        return spoil

    return keep


@plants("lost", "gap", "ack_without_row")
def a_delivered_event_vanishes(h: Lines) -> None:
    h.drop(h.output()[1])


@plants("lost")
def a_line_of_the_agent_never_comes(h: Lines) -> None:
    done = h.ended(None, "completed")
    of = {"session": done["session"], "execution": done["execution"]}
    last = h.of("wrote", **of)[-1]
    for what in ("writing", "wrote"):
        h.all.append({**last, "what": what, "text": "one more line\n", "at": last["at"] + 0.0001})


@plants("duplicate")
def a_record_stands_twice(h: Lines) -> None:
    row = h.output()[1]
    h.insert(row)


@plants("duplicate")
def a_line_is_sent_again_under_a_new_number(h: Lines) -> None:
    """The wrapper that resends under a new seq: every number is right, the line stands twice."""
    last = h.output()[-1]
    n = last["exec_seq"]
    of = {"session": last["session"], "execution": last["execution"]}
    for x in h.of("stored", **of):
        if (x["exec_seq"] or 0) > n:
            x["exec_seq"] += 1
    for x in h.of("sent", **of) + h.of("acked", **of):
        if x["seq"] > n:
            x["seq"] += 1
    sent = next(x for x in h.of("sent", **of) if x["seq"] == n)
    h.all.append({**sent, "seq": n + 1})
    h.insert(last, exec_seq=n + 1)


@plants("duplicate")
def a_subscriber_is_given_an_event_twice(h: Lines) -> None:
    line = h.of("delivered")[2]
    line["events"].append(line["events"][-1])


@plants("reorder", "altered", "gap", "ack_without_row", "epoch_overlap")
def two_records_change_places(h: Lines) -> None:
    a, b = h.output()[:2]
    a["exec_seq"], b["exec_seq"] = b["exec_seq"], a["exec_seq"]


@plants("reorder", "altered", "divergence", "epoch_overlap")
def the_lines_of_an_agent_change_places(h: Lines) -> None:
    a, b = h.output()[:2]
    a["data"], b["data"] = b["data"], a["data"]


@plants("reorder")
def a_subscriber_is_given_an_older_event_later(h: Lines) -> None:
    line = next(x for x in h.of("delivered") if len(x["events"]) > 1)
    line["events"][0], line["events"][1] = line["events"][1], line["events"][0]


@plants("gap")
def a_position_of_the_stream_is_empty(h: Lines) -> None:
    """Nobody was told of it, and no execution misses it."""
    sid = h.of("session")[0]["session"]
    for x in [x for x in h.all if x["what"] in ("opened", "delivered", "finished") and x["session"] == sid]:
        h.drop(x)
    h.drop(h.of("stored", session=sid, type="execution.pending")[-1])


@plants("gap")
def a_subscriber_misses_an_event(h: Lines) -> None:
    line = h.of("delivered")[1]
    del line["events"][0]


@plants("gap")
def a_subscriber_ends_before_the_stream(h: Lines) -> None:
    reader = h.of("finished")[0]
    h.drop([x for x in h.of("delivered", session=reader["session"]) if x["who"] == reader["who"]][-1])


@plants("gap", "ack_without_row", "lost")
def a_record_is_jumped_over(h: Lines) -> None:
    row = h.output()[1]
    h.drop(row)
    h.renumber(row["session"])


@plants("altered", "lost", "divergence")
def a_record_is_not_what_was_sent(h: Lines) -> None:
    h.output()[1]["data"]["text"] = "something else\n"


@plants("divergence")
def two_subscribers_are_given_different_events(h: Lines) -> None:
    line = h.of("delivered", who="reader-b")[1]
    line["events"][0][1] = content_hash("output", {"text": "forged"})


@plants("ack_without_row")
def the_last_record_is_acked_and_not_stored(h: Lines) -> None:
    """A service that acknowledges before its commit, and dies between the two."""
    done = h.ended(None, "completed")
    acked = h.of("acked", session=done["session"], execution=done["execution"])[-1]
    h.all.append({**acked, "seq": acked["seq"] + 1})


@plants("two_terminals", "after_terminal", "outcome_disagrees")
def an_execution_ends_twice(h: Lines) -> None:
    row = h.row("execution.completed")
    h.insert(row, type="execution.failed", exec_seq=None, data={**row["data"], "status": "failed", "cause": "hung"})


@plants("after_terminal")
def something_stands_behind_the_end(h: Lines) -> None:
    row = h.row("execution.completed")
    h.insert(row, type="approval.cancelled", exec_seq=None, data={"approval_id": "apr_1"})


@plants("duplicate")
def one_submit_begins_twice(h: Lines) -> None:
    h.insert(h.row("execution.pending"))


@plants("submit_lost")
def an_accepted_submit_stands_nowhere(h: Lines) -> None:
    """Answered before its commit, and the service died between the two: no wrapper and no reader ever heard of it."""
    asked = next(x for x in h.of("asked", op="submit") if any(a["id"] == x["id"] for a in h.of("answered")))
    answered = next(a for a in h.of("answered") if a["id"] == asked["id"])
    told = {**answered["execution"], "execution_id": "e_lost"}
    h.all += [{**asked, "id": "lost", "execution": "e_lost"}, {**answered, "id": "lost", "execution": told}]


@plants("submit_lost")
def nobody_knows_of_it_for_a_while(h: Lines) -> None:
    done = h.ended(None, "completed")
    read = next(x for x in h.of("asked", op="read") if x["execution"] == done["execution"])
    late = h.of("end")[0]["at"]
    h.all += [{**read, "id": "late", "at": late}, {"who": "operator", "at": late, "what": "answered", "id": "late"}]
    h.all[-1]["status"] = 404


@plants("outcome_disagrees")
def what_was_over_runs_again(h: Lines) -> None:
    """A read that goes back in time."""
    done = h.ended(None, "completed")
    read = next(x for x in h.of("asked", op="read") if x["execution"] == done["execution"])
    late = h.of("end")[0]["at"]
    shown = {"execution_id": done["execution"], "status": "running", "outcome": None}
    h.all += [{**read, "id": "late", "at": late}, {"who": "operator", "at": late, "what": "answered", "id": "late"}]
    h.all[-1] |= {"status": 200, "execution": shown}


def _reset(h: Lines, first_seq: int, stream_id: str | None = None) -> None:
    """In the place of a reader's last reopening, after it has read to the end."""
    done = h.of("finished")[0]
    last = [x for x in h.of("delivered", session=done["session"]) if x["who"] == done["who"]][-1]
    opened = {**last, "what": "opened", "after_seq": last["events"][-1][0], "stream_id": f"str_{done['session']}"}
    reset = {**opened, "what": "reset", "first_seq": first_seq, "stream_id": stream_id or opened["stream_id"]}
    h.all += [opened, reset, *([{**last}] if first_seq == last["events"][0][0] else [])]


@plants("needless_reset")
def a_subscriber_is_sent_back_over_what_it_has(h: Lines) -> None:
    done = h.of("finished")[0]
    last = [x for x in h.of("delivered", session=done["session"]) if x["who"] == done["who"]][-1]
    _reset(h, last["events"][0][0])


@plants("outcome_disagrees")
def an_answer_tells_another_end(h: Lines) -> None:
    answer = next(x for x in h.of("answered") if (x.get("execution") or {}).get("status") == "completed")
    answer["execution"] = copy.deepcopy(answer["execution"])
    answer["execution"]["outcome"]["exit_code"] = 3


@plants("outcome_disagrees")
def two_callers_ended_it(h: Lines) -> None:
    row = h.ended(None, "completed")
    fails = [x for x in h.of("answered") if "changed" in x and x["execution"]["outcome"] == row["outcome"]]
    again = next(x for x in h.of("asked") if x["id"] == fails[0]["id"])
    h.all += [{**again, "id": "other"}, {**fails[0], "id": "other", "changed": True}]
    fails[0]["changed"] = True


@plants("outcome_disagrees")
def the_row_tells_another_end_than_the_event(h: Lines) -> None:
    done = h.ended(None, "completed")
    done["outcome"] = {**done["outcome"], "exit_code": 9}
    for x in h.of("answered"):
        if (x.get("execution") or {}).get("execution_id") == done["execution"]:
            x["execution"] = None


@plants("epoch_overlap")
def an_epoch_is_given_twice(h: Lines) -> None:
    first = h.of("stored", type="wrapper.connected")[0]
    later = [x for x in h.of("stored") if x["type"] in ("wrapper.connected", "wrapper.resumed")][-1]
    for x in h.of("owned", connection=later["data"]["connection_id"]):
        x["epoch"] = first["data"]["epoch"]
    digest = content_hash(later["type"], later["data"])
    later["data"]["epoch"] = first["data"]["epoch"]
    _told_anew(h, later, digest)


@plants("epoch_overlap")
def a_fenced_line_wrote_a_record(h: Lines) -> None:
    row = h.output()[0]
    for x in h.of("sent", session=row["session"], execution=row["execution"], seq=row["exec_seq"]):
        x["connection"] = "con_ghost"


@plants("epoch_overlap")
def a_stale_close_took_the_owner_away(h: Lines) -> None:
    row = h.row("wrapper.connected")
    h.insert(row, type="wrapper.disconnected", data={"connection_id": "con_ghost", "reason": "late"})


def _told_anew(h: Lines, row: Line, before: str) -> None:
    """Readers were given what stands now."""
    for x in h.of("delivered", session=row["session"]):
        x["events"] = [[n, content_hash(row["type"], row["data"]) if d == before else d] for n, d in x["events"]]


@plants("interrupt_lost", "interrupt_misapplied")
def an_accepted_interrupt_stands_nowhere(h: Lines) -> None:
    row = h.row("interrupt.requested")
    h.of("execution", session=row["session"], execution=row["execution"])[0]["interrupt_id"] = None
    h.drop(row)
    h.renumber(row["session"])


@plants("interrupt_misapplied")
def an_interrupt_stands_on_the_next_execution(h: Lines) -> None:
    row = h.row("interrupt.requested")
    other = next(x for x in h.of("execution", session=row["session"]) if x["execution"] != row["execution"])
    first = h.of("stored", session=row["session"], execution=other["execution"])[0]
    h.drop(row)
    h.insert(first, **{**row, "execution": other["execution"], "exec_seq": None})


@plants("interrupt_misapplied")
def an_agent_that_nobody_interrupted_saw_the_signal(h: Lines) -> None:
    done = h.ended(None, "completed")
    exited = h.of("exited", session=done["session"], execution=done["execution"])[0]
    h.all.append({**exited, "what": "signalled", "signal": "SIGINT"})


@plants("interrupt_misapplied")
def it_was_interrupted_and_nobody_asked(h: Lines) -> None:
    ended = h.ended(None, "interrupted")
    of = {"session": ended["session"], "execution": ended["execution"]}
    ended["interrupt_id"] = None
    for x in h.of("stored", type="interrupt.requested", **of):
        h.drop(x)
    h.renumber(ended["session"])
    asked = {x["id"] for x in h.of("asked", op="interrupt", **of)}
    for x in [x for x in h.of("asked") + h.of("answered") if x["id"] in asked]:
        h.drop(x)


@plants("interrupt_doubled")
def an_interrupt_was_requested_twice(h: Lines) -> None:
    h.insert(h.row("interrupt.requested"))


@plants("interrupt_doubled", "interrupt_lost")
def a_second_interrupt_got_another_id(h: Lines) -> None:
    answers = [x for x in h.of("answered", status=202) if "interrupt_id" in x]
    answers[1]["interrupt_id"] = "int_other"


def _reaped(h: Lines) -> Line:
    """A terminal event that a deadline wrote."""
    return next(x for x in h.of("stored") if x["type"].startswith("execution.") and x["data"].get("cause"))


@plants("early_reap")
def a_deadline_fires_before_its_time(h: Lines) -> None:
    end = _reaped(h)
    before = [x for x in h.of("stored", session=end["session"]) if x["seq"] < end["seq"]][-1]
    end["at_ms"] = before["at_ms"] + 500


@plants("early_reap")
def a_present_owner_is_reaped_as_gone(h: Lines) -> None:
    row = next(x for x in h.of("execution") if x["outcome"]["cause"] not in (None, "disconnected"))
    of = {"session": row["session"], "execution": row["execution"]}
    end = next(x for x in h.of("stored", **of) if x["data"].get("cause"))
    digest = content_hash(end["type"], end["data"])
    end["data"]["cause"] = row["outcome"]["cause"] = "disconnected"
    _told_anew(h, end, digest)
    for x in h.of("answered"):
        if (x.get("execution") or {}).get("execution_id") == row["execution"]:
            x["execution"] = None


@plants("missing_reap")
def a_deadline_is_overdue_at_the_end(h: Lines) -> None:
    sid = h.of("session")[0]["session"]
    h.all.append({"who": "store", "at": 9999.0, "what": "deadline", "session": sid, "kind": "grace", "overdue_s": 31.0})


@plants("missing_reap")
def nobody_ended_what_was_left_alone(h: Lines) -> None:
    row = _left_running(h)
    h.of("session", session=row["session"])[0]["link"] = "grace"
    h.of("end")[0]["settled"] = False


@plants("stuck_running")
def it_runs_and_nobody_owns_its_session(h: Lines) -> None:
    row = _left_running(h)
    h.of("session", session=row["session"])[0]["link"] = "offline"
    h.of("end")[0]["settled"] = False


@plants("stuck_running")
def all_have_settled_but_one(h: Lines) -> None:
    _left_running(h)


def _left_running(h: Lines) -> Line:
    """The end of one that completed is taken away."""
    row = h.ended(None, "completed")
    of = {"session": row["session"], "execution": row["execution"]}
    terminal = h.row("execution.completed", **of)
    for x in h.of("acked", seq=terminal["exec_seq"], **of):
        h.drop(x)
    for x in [x for x in h.all if x["what"] in ("asked", "answered") and x.get("execution")]:
        eid = x["execution"] if isinstance(x["execution"], str) else x["execution"]["execution_id"]
        if eid == row["execution"]:
            h.drop(x)
    h.drop(terminal)
    h.renumber(row["session"])
    row |= {"status": "running", "outcome": None}
    return row


@plants("ran_twice")
def the_command_ran_again(h: Lines) -> None:
    h.all.append(copy.deepcopy(h.of("ran")[0]))


# -------------------------------------------------------------------- the tests


@pytest.mark.parametrize("seed", SEEDS)
def test_a_clean_history_is_clean(seed: int) -> None:
    lines = History(seed).lines
    assert len(lines) > 100
    assert check(observed(lines)) == []


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_anomaly_is_found_by_its_name(name: str) -> None:
    code, companions, spoil = PLANTED[name]
    for seed in SEEDS:
        history = Lines(seed)
        spoil(history)
        found = check(observed(history.all))
        codes = {a.code for a in found}
        assert code in codes, (name, seed, [a.sentence for a in found])
        assert codes <= {code} | companions, (name, seed, [(a.code, a.sentence) for a in found])
        assert all(a.evidence and a.sentence for a in found)


def test_every_kind_of_anomaly_is_planted() -> None:
    assert {code for code, _, _ in PLANTED.values()} == set(CODES)


def test_a_reset_over_what_is_gone_is_honest() -> None:
    """Of another stream, of a beginning that retention took, or for a cursor that nobody was given."""
    for seed in SEEDS:
        restored = Lines(seed)
        _reset(restored, 1, "str_restored")
        assert "needless_reset" not in {a.code for a in check(observed(restored.all))}
        ahead = Lines(seed)
        done = ahead.of("finished")[0]
        who = {"who": "reader-c", "at": done["at"], "session": done["session"], "stream_id": f"str_{done['session']}"}
        ahead.all += [{**who, "what": "opened", "after_seq": 3}, {**who, "what": "reset", "first_seq": 1}]
        assert check(observed(ahead.all)) == []


def test_an_unknown_answer_is_held_against_nobody() -> None:
    history = Lines(1)
    for answer in [x for x in history.of("answered")]:
        history.all[history.all.index(answer)] = {
            "who": "operator",
            "at": answer["at"],
            "what": "unknown",
            "id": answer["id"],
        }
    assert check(observed(history.all)) == []


def test_what_lay_in_the_pipe_of_a_killed_shim_is_excused() -> None:
    history = Lines(6)
    PLANTED["a_line_of_the_agent_never_comes"][2](history)
    assert {a.code for a in check(observed(history.all))} == {"lost"}
    done = history.ended(None, "completed")
    terminal = history.row("execution.completed", session=done["session"], execution=done["execution"])
    digest = content_hash(terminal["type"], terminal["data"])
    for outcome in (done["outcome"], terminal["data"]):
        outcome["data"] = {"cause": "agent_error", "detail": "shim_lost"}
    _told_anew(history, terminal, digest)
    for x in history.of("answered"):
        x.pop("execution", None)
    assert check(observed(history.all)) == []


def test_a_step_of_the_services_clock_excuses_early_by_the_wall() -> None:
    history = Lines(2)
    PLANTED["a_deadline_fires_before_its_time"][2](history)
    assert {a.code for a in check(observed(history.all))} == {"early_reap"}
    history.all.append({"who": "nemesis", "at": 1.0, "what": "fault", "fault": "clock", "target": "service"})
    assert check(observed(history.all)) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON"),
        ("[]", "not an object"),
        ('{"who":"a","at":"now","what":"quiet"}', "at (seconds)"),
        ('{"who":"a","at":1,"what":"heard"}', "nobody knows"),
        ('{"who":"a","at":1,"what":"acked","session":"s","execution":"e","seq":"1"}', "needs 'seq'"),
    ],
)
def test_what_is_no_history_is_refused_with_its_line(text: str, why: str) -> None:
    good = '{"who":"a","at":1,"what":"quiet"}'
    with pytest.raises(Unreadable) as refused:
        list(parse([good, "", text], "h.jsonl"))
    assert str(refused.value).startswith("h.jsonl:3: ") and why in str(refused.value)


def holdfast_check(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "actors", "check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_tells_by_its_exit_code(tmp_path: Path) -> None:
    clean, dirty, broken = (tmp_path / name for name in ("clean.jsonl", "dirty.jsonl", "broken.jsonl"))
    history = Lines(3)
    clean.write_text("".join(json.dumps(x) + "\n" for x in history.all))
    said = holdfast_check(str(clean))
    assert said.returncode == 0 and said.stdout.endswith("clean\n"), said
    PLANTED["the_command_ran_again"][2](history)
    dirty.write_text("".join(json.dumps(x) + "\n" for x in history.all))
    said = holdfast_check(str(dirty), "--json")
    told = json.loads(said.stdout)
    assert said.returncode == 1 and told["codes"] == {"ran_twice": 1}
    assert told["anomalies"][0]["evidence"][0]["source"].startswith(f"{dirty}:")
    shown = holdfast_check(str(dirty))
    assert "ran_twice: " in shown.stdout and str(dirty) in shown.stdout
    broken.write_text("nonsense\n")
    said = holdfast_check(str(clean), str(broken))
    assert said.returncode == 2 and f"{broken}:1: not JSON" in said.stderr and said.stdout == ""
    assert holdfast_check(str(tmp_path / "nowhere")).returncode == 2
    assert holdfast_check().returncode == 2


def test_several_files_are_one_history(tmp_path: Path) -> None:
    """Each client writes its own; what one promised, another one's file disproves."""
    history = Lines(4)
    PLANTED["the_last_record_is_acked_and_not_stored"][2](history)
    files = {}
    for line in history.all:
        files.setdefault(line["who"], []).append(json.dumps(line))
    for who, lines in files.items():
        (tmp_path / f"{who}.jsonl").write_text("\n".join(lines))
    said = holdfast_check("--json", *(str(path) for path in tmp_path.iterdir()))
    assert json.loads(said.stdout)["codes"] == {"ack_without_row": 1}
