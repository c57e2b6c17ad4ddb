"""What is durable beside SQLite's own files: a spool put aside, a store moved aside for a backup, a shim's last word.

The story of every open, rename, deletion and fsync is cut at each of its points, as SQLite's is in test_power.py.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from actors import backup
from actors.config import Settings
from actors.protocol.errors import StorageError
from actors.store.locks import library
from actors.store.sqlite import SqliteStore
from tests.power.cuts import Knows, Report, Verdict, cut_everywhere, enough
from tests.power.dbapi import connector, content
from tests.power.disk import Mark, Sync, SyncDir
from tests.power.vfs import Scribe
from tests.power.watching import watched
from tests.world import World
from wrapper import segments
from wrapper.segments import Position
from wrapper.shim import segment_name
from wrapper.spool import Spool

ROOT = Path(__file__).parents[2]


class Heard:
    """The facts, one after another."""

    def __init__(self) -> None:
        self.facts: list[object] = []

    def hear(self, facts: list[object]) -> None:
        self.facts += facts


def cut(scribe: Scribe, judge: Callable[[Path, list[object]], list[str]], times: int = 8) -> Report:
    def judged(folder: Path, knows: Knows, rng: random.Random) -> Verdict:
        return Verdict(wrong=tuple(judge(folder, knows.told.facts)))  # type: ignore[attr-defined]

    scribe.stop()
    return cut_everywhere(
        scribe.first, scribe.log, judged, seed=1, cuts=times * enough(scribe.log), knows=Knows(told=Heard())
    )


def sound(report: Report) -> None:
    assert report.cuts > 50 and report.points == report.places
    assert not report.wrong, "\n".join([str(report), *map(str, report.failures)])


# ---------------------------------------------------------------- the spool's directory


def test_a_spool_that_could_not_be_read_is_never_taken_for_an_empty_one_and_the_new_one_is_kept(
    tmp_path: Path,
) -> None:
    Spool(str(tmp_path), "ses_1").close()
    (tmp_path / "spool.db").write_bytes(b"rubbish" * 3000)
    (tmp_path / "spool.db-wal").write_bytes(b"rubbish" * 3000)
    scribe = Scribe(tmp_path)
    with watched(scribe):
        spool = Spool(str(tmp_path), "ses_1", connect=connector(scribe, sqlite3))
        scribe.mark("told", [("unreadable", spool.wrapper_id)])
        spool.readable_again()
        scribe.mark("told", ["readable again"])
        spool.receive_start("cmd_1", "exe_1", None, {})
        scribe.mark("told", ["received"])

    def judge(folder: Path, told: list[object]) -> list[str]:
        spool = Spool(str(folder), "ses_1")
        try:
            wrong = []
            if not told and not spool.unreadable:
                wrong.append("an unreadable spool became an empty one")
            if told and told[0] != ("unreadable", spool.wrapper_id):
                wrong.append("the new spool was put aside")
            if "readable again" in told and spool.unreadable:
                wrong.append("it is unreadable again")
            if "received" in told and not spool.remembers("exe_1"):
                wrong.append("what was received after that is lost")
            return wrong
        finally:
            spool.close()

    sound(cut(scribe, judge))


def test_a_new_spool_is_there_with_its_directory(tmp_path: Path) -> None:
    scribe, where = Scribe(tmp_path), tmp_path / "state" / "spool"
    with watched(scribe):
        spool = Spool(str(where), "ses_1", connect=connector(scribe, sqlite3))
        spool.receive_start("cmd_1", "exe_1", None, {})
        scribe.mark("told", ["received"])

    def judge(folder: Path, told: list[object]) -> list[str]:
        spool = Spool(str(folder / "state" / "spool"), "ses_1")
        try:
            return ["it is lost"] if told and not spool.remembers("exe_1") else []
        finally:
            spool.close()

    sound(cut(scribe, judge))


# ---------------------------------------------------------------- the store's


def test_a_new_store_is_there_with_its_directory(tmp_path: Path) -> None:
    where = Path("state") / "data" / "holdfast.db"
    policy = World(tmp_path_of(tmp_path, "world")).policy
    scribe = Scribe(tmp_path)
    with watched(scribe):
        store = SqliteStore.open(tmp_path / where, policy, connect=connector(scribe, library()))
        store.register_gateway("gw_1", 1, 1, "http://x")
        scribe.mark("told", ["registered"])

    def judge(folder: Path, told: list[object]) -> list[str]:
        store = SqliteStore.open(folder / where, policy)
        try:
            return ["it is lost"] if told and not store.gateways() else []
        finally:
            store.close()

    sound(cut(scribe, judge, times=1))


def tmp_path_of(tmp_path: Path, name: str) -> Path:
    folder = tmp_path.with_name(f"{tmp_path.name}-{name}")
    folder.mkdir()
    return folder


def test_a_restore_leaves_the_old_store_or_the_new_one_and_never_a_mixture(tmp_path: Path) -> None:
    world = World(tmp_path_of(tmp_path, "world"))
    world.create("old")
    saved = tmp_path_of(tmp_path, "saved") / "backup"
    backup.backup(Settings(data_dir=world.path.parent), saved)
    world.create("new")
    for name in ("holdfast.db", "holdfast.db-wal"):  # as a cut leaves them: with a log that nobody has checkpointed
        shutil.copyfile(world.path.with_name(name), tmp_path / name)
    world.close()
    scribe = Scribe(tmp_path)
    with watched(scribe, sqlite_unseen=True):
        backup.restore(saved, Settings(data_dir=tmp_path), force=True)
        scribe.mark("told", ["restored"])

    def judge(folder: Path, told: list[object]) -> list[str]:
        if not (folder / "holdfast.db").exists():
            aside = list(folder.glob("replaced-*/holdfast.db")) + list(folder.glob(".restore-*/holdfast.db"))
            return ["restored, and gone"] if told else [] if aside else ["nothing is left of either"]
        try:
            store = SqliteStore.open(folder / "holdfast.db", world.policy)
        except StorageError as error:
            return [f"it does not open: {error}"]
        try:
            backup.store_backup.check(store._c)
            found = content(store._c.execute)
            sessions = set(store.heads(["old", "new"]))
            restored = any(row["action"] == "store.restore" for row in store.audit(None, 10, None).items)
        except (StorageError, library().Error) as error:
            return [f"it cannot be read: {error!r}"]
        finally:
            store.close()
        if sessions not in ({"old"}, {"old", "new"}):
            return [f"sessions {sessions}"]
        if told and not restored:
            return ["it was said to be restored, and is the old one"]
        if restored != (sessions == {"old"}):
            return [f"a mixture: {sessions}, restored {restored}, {found['sessions'][0]} rows"]
        return []

    sound(cut(scribe, judge, times=4))


# ---------------------------------------------------------------- the shim's

SHIM = """
import os, pickle, signal, sys
from pathlib import Path
from tests.power.vfs import Scribe
from tests.power.watching import watched
from wrapper import shim
from wrapper.shimctl import _read_json
folder, run = Path(sys.argv[1]), sys.argv[2]
os.chdir(run)
scribe = Scribe(folder)
with watched(scribe):
    spec = _read_json("spec.json")
    spec["umask"] = os.umask(0o077)
    it = shim.Shim(spec)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(it.signals_w, warn_on_full_buffer=False)
    it.run()
with open(sys.argv[3], "wb") as file:
    pickle.dump((scribe.first, scribe.log), file)
"""


def test_a_shims_last_word_is_true_all_the_output_that_it_speaks_of_is_there(tmp_path: Path) -> None:
    run = tmp_path / "exe_1.0"
    run.mkdir()
    for name in ("control", "wake"):
        os.mkfifo(run / name)
    (run / "input").write_bytes(b"")
    program = "import sys, time\nfor i in range(6):\n print('line', i, 'x' * 300, flush=True); time.sleep(0.05)"
    spec = {
        "argv": [sys.executable, "-c", program], "cwd": str(tmp_path), "orphan_after_s": 60, "in_eof": True,
        "in_total": 0, "segment_bytes": 200, "max_segments": 100, "disk_reserve_bytes": 0, "ladder_s": [0, 1, 2],
    }  # fmt: skip
    (run / "spec.json").write_text(json.dumps(spec))
    control = os.open(run / "control", os.O_RDWR | os.O_NONBLOCK)
    wake = os.open(run / "wake", os.O_RDONLY | os.O_NONBLOCK)
    story = tmp_path_of(tmp_path, "story") / "log"
    try:
        os.write(control, b"open\n")
        subprocess.run(
            [sys.executable, "-c", SHIM, str(tmp_path), str(run), str(story)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=60,
            check=True,
        )
    finally:
        os.close(control)
        os.close(wake)
    whole = b"".join(piece.data for piece in segments.read(str(run), Position(0, 0), 1 << 20)[0])
    assert whole.count(b"line") == 6 and (run / segment_name(2)).exists()
    scribe = Scribe(tmp_path)
    scribe.first, scribe.log = pickle.loads(story.read_bytes())
    scribe.log.append(Mark("told", ["ended"]))

    def judge(folder: Path, told: list[object]) -> list[str]:
        run = folder / "exe_1.0"
        if not (run / "exit.json").exists():
            return ["its exit is lost"] if told else []
        report = json.loads((run / "exit.json").read_text())
        pieces, at = segments.read(str(run), Position(0, 0), 1 << 20)
        if at != Position(report["segment"], report["offset"]) or b"".join(p.data for p in pieces) != whole:
            return [f"exit.json speaks of ({report['segment']}, {report['offset']}); the output ends at {tuple(at)}"]
        return []

    sound(cut(scribe, judge, times=8))


# ---------------------------------------------------------------- what the scribe repeats of SQLite's unix VFS


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace here")
def test_sqlite_syncs_the_directory_of_a_new_log_with_the_logs_first_sync(tmp_path: Path) -> None:
    """The scribe claims it (vfs.py); here are the system calls of the library that the product uses."""
    program = (
        "import sys; from actors.store.locks import library; c = library().connect(sys.argv[1], isolation_level=None);"
        "c.execute('pragma journal_mode = wal'); c.execute('pragma synchronous = FULL');"
        "c.execute('create table t (x)'); c.execute('insert into t values (1)')"
    )
    trace = tmp_path / "trace"
    done = subprocess.run(
        [
            "strace",
            "-f",
            "-y",
            "-e",
            "trace=fsync,fdatasync",
            "-o",
            trace,
            sys.executable,
            "-c",
            program,
            tmp_path / "a.db",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    if done.returncode and not trace.read_text().strip():
        pytest.skip("may not trace here")
    synced = [
        line.partition("<")[2].partition(">")[0].removeprefix(str(tmp_path)) for line in trace.open() if "<" in line
    ]
    synced = [name for name in synced if name in ("", "/a.db", "/a.db-wal", "/a.db-journal")]
    at = synced.index("/a.db-wal")
    assert synced[at + 1] == "" and "" not in synced[at + 2 :]
    scribe = Scribe(tmp_path_of(tmp_path, "scribe"))
    c = connector(scribe, library())(str(scribe.folder / "a.db"))
    for sql in ("pragma journal_mode = wal", "pragma synchronous = FULL", "create table t (x)"):
        c.execute(sql)
    c.execute("insert into t values (1)")
    names = {number: "/" + name for name, number in scribe._numbers.items()} | {1: "/a.db-journal"}
    ours = [names[op.file] if isinstance(op, Sync) else "" for op in scribe.log if isinstance(op, Sync | SyncDir)]
    c.close()
    assert ours[ours.index("/a.db-wal") :][:2] == synced[at : at + 2]
