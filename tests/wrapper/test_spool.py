"""The spool: nothing is forgotten before its time, nothing is torn, and it says so when it cannot be read."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wrapper.conftest import PYTHON, ROOT, wait_for
from wrapper.drivers.base import Item
from wrapper.ladder import begin
from wrapper.segments import Position
from wrapper.spool import Spool
from wrapper.spoolfile import SpoolBroken, SpoolError, SpoolFull, SpoolLocked

AT = Position(0, 0)


def output(text: str) -> Item:
    return Item("output", json.dumps({"type": "output", "ts_ms": 1, "data": {"stream": "stdout", "text": text}}))


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    it = Spool(str(tmp_path / "spool"), "ses_1")
    yield it
    it.close()


def reopened(spool: Spool) -> Spool:
    spool.close()
    spool.__init__(spool.dir, "ses_1", limit_bytes=spool.limit_bytes, policy=spool.policy)  # type: ignore[misc]
    return spool


def running(spool: Spool, execution_id: str = "exe_1") -> int:
    spool.receive_start(f"cmd_{execution_id}", execution_id, "in", {})
    row = spool.get(execution_id)
    assert row is not None
    spool.launching(row.no, f"{execution_id}.0", 2)
    spool.launched(row.no, 7, {})
    spool.open_gate(row.no)
    return row.no


def seqs(spool: Spool, execution_id: str = "exe_1") -> list[tuple[int, int, str]]:
    return [(row.seq, row.to_seq, row.kind) for row in spool.read(execution_id, 0, 1 << 30, 10000)]


def test_input_for_one_that_ended_meanwhile_has_no_place(spool: Spool) -> None:
    no = running(spool)
    assert spool.note_input("cmd_1", "exe_1", "input", no, b"more") == 2
    spool.finish(no, [], {"status": "completed", "exit_code": 0, "signal": None, "error": None, "data": {}})
    assert spool.note_input("cmd_2", "exe_1", "input", no, b"late") is None
    spool.bury("exe_1")
    assert spool.note_input("cmd_3", "exe_1", "input", no, b"later") is None
    assert spool.command("cmd_2") is None and spool.command("cmd_3") is None


def test_what_the_server_had_dropped_is_not_told_at_hello(spool: Spool) -> None:
    no = running(spool)
    assert [known.execution_id for known in spool.known()] == ["exe_1"]
    spool.drop(no, "unknown_execution", begin("abort", 0, 20.0))
    assert spool.known() == []
    assert reopened(spool).known() == []
    assert spool.remembers("exe_1")  # its child is still to be ended, and it never runs again


def test_everything_survives_a_reopening(spool: Spool) -> None:
    no = running(spool)
    spool.append(no, [output("a"), output("b")], Position(1, 26), {"stdout": "c3"})
    spool.climb(no, begin("interrupt", 5, 20.0))
    before, wrapper_id, size = spool.get("exe_1"), spool.wrapper_id, spool.bytes
    spool = reopened(spool)
    assert (spool.get("exe_1"), spool.wrapper_id, spool.bytes) == (before, wrapper_id, size)
    assert before is not None and (before.at, before.driver_state, before.state) == (
        Position(1, 26),
        {"stdout": "c3"},
        "running",
    )
    assert seqs(spool) == [(1, 1, "started"), (2, 2, "output"), (3, 3, "output")]


def test_a_start_is_new_only_once_even_after_its_end(spool: Spool) -> None:
    assert spool.receive_start("cmd_1", "exe_1", None, {})
    assert not spool.receive_start("cmd_2", "exe_1", None, {})
    spool.bury("exe_1")
    spool = reopened(spool)
    assert not spool.receive_start("cmd_3", "exe_1", None, {})
    assert spool.get("exe_1") is None and spool.ended("exe_1")
    command = spool.command("cmd_3")
    assert command is not None and command.status == "received"


def test_the_last_thousand_ends_are_remembered(spool: Spool) -> None:
    with spool._writing():  # a thousand fsyncs are not the point
        spool._db.executemany("INSERT INTO tombstones (execution_id) VALUES (?)", [(f"exe_{n}",) for n in range(1000)])
    spool.bury("exe_last")
    assert not spool.ended("exe_0") and spool.ended("exe_1") and spool.ended("exe_last")


def test_what_is_acknowledged_is_forgotten_and_a_final_that_is_ends_it(spool: Spool) -> None:
    no = running(spool)
    spool.append(no, [output("x")] * 1200, AT, {})
    assert not spool.acked("exe_1", 1100)
    assert [row[0] for row in seqs(spool)] == list(range(1101, 1202))
    last = spool.finish(no, [output("tail")], {"status": "completed", "exit_code": 0, "signal": None, "error": None})
    assert last == 1203
    assert not spool.acked("exe_1", 1202)
    assert spool.acked("exe_1", 1203)
    assert spool.bytes == 0


def test_reading_stays_within_its_budget_but_gives_at_least_one(spool: Spool) -> None:
    no = running(spool)
    spool.append(no, [output("x" * 1000)] * 10, AT, {})
    assert len(spool.read("exe_1", 1, 1, 100)) == 1
    assert len(spool.read("exe_1", 1, 3500, 100)) == 3
    assert len(spool.read("exe_1", 1, 1 << 20, 4)) == 4
    assert spool.read("exe_1", 11, 1 << 20, 100) == []


def test_a_refused_record_becomes_a_gap_and_a_refused_final_bare(spool: Spool) -> None:
    no = running(spool)
    spool.append(no, [output("a" * 100)], AT, {})
    final = {"status": "failed", "exit_code": 1, "signal": None, "error": "ü" * 2000, "data": {"much": "x"}}
    spool.finish(no, [], final)
    spool.refuse("exe_1", 2)
    spool.refuse("exe_1", 3)
    rows = spool.read("exe_1", 1, 1 << 20, 10)
    assert [(row.seq, row.kind) for row in rows] == [(2, "gap"), (3, "final")]
    bare = json.loads(rows[1].body)
    assert set(bare) == {"status", "exit_code", "signal", "error"} and len(bare["error"].encode()) <= 1024
    spool.refuse("exe_1", 3)
    assert json.loads(spool.read("exe_1", 2, 1, 1)[0].body)["error"] is None
    assert reopened(spool).bytes == spool._one("SELECT sum(bytes) FROM records")[0]


def test_a_spool_that_went_back_in_time_goes_on_behind_the_server(spool: Spool) -> None:
    no = running(spool)
    spool.append(no, [output("old"), output("new")], AT, {})
    spool.finish(no, [], {"status": "completed", "exit_code": 0, "signal": None, "error": None})
    assert spool.rewound("exe_1", 2, 800) == 802
    assert seqs(spool) == [(801, 801, "output"), (802, 802, "final")]
    row = spool.get("exe_1")
    assert row is not None and (row.acked_seq, row.last_seq) == (800, 802)
    assert spool.bytes == reopened(spool).bytes


# ---------------------------------------------------------------- limits


def test_a_full_spool_takes_no_output_but_still_the_end(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "spool"), "ses_1", limit_bytes=100_000)
    no = running(spool)
    while spool.room():
        spool.append(no, [output("x" * 5000)], AT, {})
    assert 70_000 < spool.bytes < 85_000
    spool.finish(no, [], {"status": "completed", "exit_code": 0, "signal": None, "error": None})
    assert not spool.room()
    spool.acked("exe_1", 8)
    assert spool.room()
    spool.close()


def test_trim_drops_the_oldest_output_only_and_says_so_in_one_gap(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "spool"), "ses_1", limit_bytes=100_000, policy="trim")
    no = running(spool)
    approval = Item("approval", '{"approval_id":"apr_1"}', "apr_1")
    lost = 0
    for n in range(60):
        assert spool.room()
        spool.append(no, [approval if n == 5 else output("x" * 5000)], AT, {})
    rows = spool.read("exe_1", 0, 1 << 30, 1000)
    assert rows[0].kind == "started"
    at = 0
    for row in rows:  # no holes, no overlaps
        assert row.seq == at + 1
        at = row.to_seq
        if row.kind == "gap":
            gap = json.loads(row.body)
            assert gap["reason"] == "trimmed"
            lost += gap["bytes"]
    kinds = [row.kind for row in rows]
    assert kinds[:4] == ["started", "gap", "approval", "gap"] and set(kinds[4:]) == {"output"}
    assert lost == (59 - len(kinds[4:])) * len(output("x" * 5000).body)
    assert spool.bytes == spool._one("SELECT sum(bytes) FROM records")[0] <= 100_000
    spool.close()


def test_a_frame_costs_as_much_before_a_long_backlog_as_before_a_short_one(spool: Spool) -> None:
    """To read what is sent next, and to forget what was acknowledged, in steps of SQLite's machine."""
    no = running(spool)
    steps: list[int] = []
    spool._db.set_progress_handler(lambda: steps.append(1), 10)

    def frame(after: int) -> int:
        steps.clear()
        assert len(spool.read("exe_1", after, 26_000, 1000)) == 5
        spool.acked("exe_1", after + 5)
        return len(steps)

    spool.append(no, [output("x" * 5000)] * 20, AT, {})
    spool.acked("exe_1", 1)
    short = frame(1)
    spool.append(no, [output("x" * 5000)] * 2000, AT, {})
    assert frame(6) <= short + 5
    spool._db.set_progress_handler(None, 0)


def test_a_spool_that_was_drained_gives_the_disk_back(spool: Spool) -> None:
    no = running(spool)
    for _ in range(30):
        spool.append(no, [output("x" * 1_000_000)], AT, {})
    for seq in range(2, 32):
        spool.acked("exe_1", seq)
    reopened(spool)
    assert os.path.getsize(Path(spool.dir) / "spool.db") < 8_000_000


# ---------------------------------------------------------------- commands


def test_inputs_have_their_place(spool: Spool) -> None:
    no = running(spool)
    assert spool.note_input("cmd_1", "exe_1", "input", no, b"abc") == 2
    assert spool.note_input("cmd_2", "exe_1", "input", no, b"d") == 5
    assert reopened(spool).inputs("exe_1") == [(2, b"abc"), (5, b"d")]


def test_interrupts_are_done_when_it_has_ended_but_never_the_rejected_ones(spool: Spool) -> None:
    no = running(spool)
    spool.note_ladder("cmd_1", "exe_1", "interrupt", no, begin("interrupt", 0, 20.0))
    spool.note("cmd_2", "exe_1", "interrupt", "rejected", "not_current")
    assert spool.carried_out("exe_1") == ["cmd_1"]
    command = spool.command("cmd_2")
    assert command is not None and (command.status, command.code) == ("rejected", "not_current")


# ---------------------------------------------------------------- the file


def test_one_wrapper_per_spool(spool: Spool) -> None:
    with pytest.raises(SpoolLocked, match=f"in use by another wrapper \\(pid {os.getpid()}\\)"):
        Spool(spool.dir, "ses_1")


def test_one_session_per_spool(spool: Spool) -> None:
    spool.close()
    with pytest.raises(SpoolError, match="is the spool of session ses_1, not of ses_2"):
        Spool(spool.dir, "ses_2")
    spool.__init__(spool.dir, "ses_1")  # type: ignore[misc]


def spoil(path: Path, how: str) -> None:
    match how:
        case "rubbish":
            path.write_bytes(b"rubbish" * 3000)
        case "truncated":
            path.write_bytes(path.read_bytes()[:5000])
        case "bits":
            data = bytearray(path.read_bytes())
            for at in range(4096, len(data), 64):
                data[at] ^= 0x55
            path.write_bytes(data)
        case "foreign":
            path.unlink()
            db = sqlite3.connect(path)
            db.execute("CREATE TABLE other (x)")
            db.commit()
            db.close()
        case "marker":
            (path.parent / "broken").write_text("seen at run time")


@pytest.mark.parametrize("how", ["rubbish", "truncated", "bits", "foreign", "marker"])
def test_an_unreadable_spool_is_put_aside_and_remembered_until_it_is_settled(spool: Spool, how: str) -> None:
    running(spool)
    old = spool.wrapper_id
    spool.close()
    spoil(Path(spool.dir) / "spool.db", how)
    spool.__init__(spool.dir, "ses_1")  # type: ignore[misc]
    assert spool.unreadable and spool.wrapper_id != old and spool.executions() == []
    assert list(Path(spool.dir).glob("unreadable-*/spool.db"))
    assert reopened(spool).unreadable  # a restart does not make it readable
    spool.readable_again()
    assert not reopened(spool).unreadable


def test_a_spool_of_the_future_is_not_touched(spool: Spool) -> None:
    spool._db.execute("PRAGMA user_version = 99")
    spool.close()
    with pytest.raises(SpoolError, match="newer holdfast-wrapper"):
        Spool(spool.dir, "ses_1")
    db = sqlite3.connect(Path(spool.dir) / "spool.db")
    db.execute("PRAGMA user_version = 1")
    db.close()
    spool.__init__(spool.dir, "ses_1")  # type: ignore[misc]
    assert not spool.unreadable


WRITER = """
import sys
from wrapper.spool import Spool
from wrapper.drivers.base import Item
from wrapper.segments import Position
spool = Spool(sys.argv[1], "ses_1")
row = spool.get("exe_1")
if row is None:
    spool.receive_start("cmd_1", "exe_1", None, {})
    row = spool.get("exe_1")
no, at = row.no, row.at.offset
while True:
    at += 1
    last = spool.append(no, [Item("output", str(at)), Item("event", str(-at))], Position(0, at), {})
    print("w", at, last, flush=True)
    if at % 3 == 0:
        spool.acked("exe_1", last - 4)
        print("a", last - 4, last - 4, flush=True)
"""


def test_killed_at_random_instants_nothing_that_was_written_is_lost_or_torn(tmp_path: Path) -> None:
    rng = random.Random(7)
    directory = str(tmp_path / "spool")
    written = acked = 0
    for _ in range(12):
        process = subprocess.Popen(
            [PYTHON, "-c", WRITER, directory],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert process.stdout is not None
        for _ in range(rng.randint(1, 60)):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read()
        process.wait()
        process.stdout.close()
        for line in rest.decode().splitlines():
            words = line.split()
            if len(words) == 3 and words[0] == "w":
                written = max(written, int(words[1]))
            elif len(words) == 3:
                acked = max(acked, int(words[1]))
        spool = Spool(directory, "ses_1")
        row = spool.get("exe_1")
        assert row is not None and row.at.offset >= written and row.acked_seq >= acked
        assert row.last_seq == 2 * row.at.offset  # the position and the records moved together
        records = spool.read("exe_1", row.acked_seq, 1 << 30, 1 << 20)
        assert [record.seq for record in records] == list(range(row.acked_seq + 1, row.last_seq + 1))
        assert all(abs(int(record.body)) == (record.seq + 1) // 2 for record in records)
        spool.close()
        written = row.at.offset


# ---------------------------------------------------------------- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(mount)], capture_output=True)
    if done.returncode:
        pytest.skip("may not mount here")
    yield mount
    gc.collect()  # a spool that a failing test left open
    wait_for(lambda: subprocess.run(["umount", str(mount)], capture_output=True).returncode == 0)


def test_on_a_full_disk_it_says_so_loses_nothing_and_goes_on(small_disk: Path) -> None:
    spool = Spool(str(small_disk / "spool"), "ses_1")
    no = running(spool)
    n = 0
    with pytest.raises(SpoolFull):
        while True:
            spool.append(no, [output("x" * 50_000)], Position(0, n + 1), {})
            n += 1
    row = spool.get("exe_1")
    assert row is not None and (row.at.offset, row.last_seq) == (n, n + 1)
    assert len(seqs(spool)) == n + 1
    assert not spool.room()
    spool = reopened(spool)
    assert len(seqs(spool)) == n + 1 and not spool.unreadable
    spool.close()


def test_with_the_reserve_kept_a_backlog_can_always_be_acknowledged(small_disk: Path) -> None:
    spool = Spool(str(small_disk / "spool"), "ses_1")
    no = running(spool)
    for _ in range(3):
        n = 0
        while spool.room():
            spool.append(no, [output("x" * 50_000)], AT, {})
            n += 1
        assert n > 20
        row = spool.get("exe_1")
        assert row is not None
        spool.acked("exe_1", row.last_seq)
    spool.close()


def test_an_input_output_error_ends_the_process_rather_than_the_truth(spool: Spool) -> None:
    spool._db.execute("PRAGMA query_only = 1")  # the nearest to a broken disk that SQLite does on request
    with pytest.raises(SpoolBroken):
        running(spool)
