"""A copy of a living store, and what is different in one that comes back."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from actors.backup import BackupError, backup, restore
from actors.config import Settings
from actors.law import requests as rq
from actors.law.effects import Connected
from actors.protocol.ids import ulid
from actors.store import backup as store_backup
from actors.store.contract import AppendRefused
from actors.store.sqlite import SqliteStore
from tests.world import World


def settings(folder: Path) -> Settings:
    return Settings(data_dir=folder)


def back(world: World, folder: Path) -> World:
    """The world as it is after a restore, at the same moment, with its connections as they believe to be."""
    backup(settings(world.path.parent), folder / "copy")
    restore(folder / "copy", settings(folder / "new"), wall_ms=lambda: world.now_ms)
    other = World.__new__(World)
    other.now_ms, other.path, other.policy = world.now_ms, folder / "new" / "holdfast.db", world.policy
    other.store = SqliteStore.open(other.path, other.policy, wall=lambda: other.now_ms, synchronous="OFF")
    other.connections = dict(world.connections)
    other.store.register_gateway("gw_1", 1, 1, "http://127.0.0.1:1")
    other.store.tick("gw_1")
    return other


@pytest.fixture
def old(tmp_path: Path) -> Any:
    (tmp_path / "old").mkdir()
    made = World(tmp_path / "old")
    yield made
    made.close()


def test_writers_go_on_during_a_copy_and_the_copy_is_one_moment(old: World, tmp_path: Path) -> None:
    old.running()
    for first in range(2, 10_002, 1000):
        old.append(old.item(first, 1000, text="x" * 900))
    head = old.events()[-1]["seq"]
    seen: list[int] = []

    def meanwhile(done: int, total: int) -> None:
        seen.append(done)
        old.append(old.item(10_001 + len(seen), 1))  # raises if it may not write

    copied = store_backup.copy(old.path, tmp_path / "copy.db", meanwhile)
    assert len(seen) > 2 and seen == sorted(seen)  # it never had to begin anew
    assert copied.sessions == 1
    made = SqliteStore.open(tmp_path / "copy.db", old.policy)
    page = made.page("s", head - 1, 10)
    assert (page.last_seq, page.seqs) == (head, (head,))
    made.close()


def test_nothing_of_the_old_log_is_said_again(old: World, tmp_path: Path) -> None:
    old.running()
    old.append(old.item(2, 5))
    before = old.store.session("s")
    new = back(old, tmp_path)
    after = new.store.session("s")
    assert after["stream_id"] != before["stream_id"]
    assert after["link"]["state"] == "grace"
    assert after["link"]["epoch"] > before["link"]["epoch"] + 10**9 - 1
    assert after["active_execution"]["status"] == "running"
    (refused,) = new.append(new.item(7))  # the connection of then is a ghost
    assert isinstance(refused, AppendRefused) and refused.why == "fenced"
    event = new.events()[-1]
    assert event["type"] == "wrapper.disconnected"
    assert event["data"]["reason"] == "the store was restored from a backup"
    new.close()


def test_a_wrapper_that_comes_back_in_grace_goes_on_and_one_that_does_not_fails_it(old: World, tmp_path: Path) -> None:
    old.running("e1", "s")
    old.running("e1", "t")
    old.closed("con_t")  # was in grace already, and nearly over
    old.walk(29)
    new = back(old, tmp_path)
    new.walk(25)
    assert (new.status("e1", "s"), new.status("e1", "t")) == ("running", "running")
    outcome = new.connect("con_2", "s", attempt=2, executions=(rq.Reported("e1", "running", 50, 60),))
    assert isinstance(outcome.answer, Connected)
    assert [(d.directive, d.acked_seq) for d in outcome.answer.directives] == [("resume", 1)]
    new.walk(10)
    assert (new.status("e1", "s"), new.status("e1", "t")) == ("running", "failed")
    assert new.outcome("e1", "t")["cause"] == "disconnected"
    new.close()


def test_what_waited_for_its_first_wrapper_still_waits(old: World, tmp_path: Path) -> None:
    old.create()
    old.submit()
    new = back(old, tmp_path)
    assert new.link() == "offline"
    new.walk(170)
    assert new.status() == "pending"
    new.walk(15)
    assert new.outcome()["cause"] == "never_started"
    new.close()


def test_epochs_of_two_restores_of_one_backup_never_meet_those_of_the_old_life(old: World, tmp_path: Path) -> None:
    for n in range(3):
        old.create(f"s{n}")
        old.connect(f"con_{n}", f"s{n}")
    new = back(old, tmp_path)
    epochs = [new.store.session(f"s{n}")["link"]["epoch"] for n in range(3)]
    assert len(set(epochs)) == 3
    for n in range(3):
        old.connect(f"con_x{n}", f"s{n}", attempt=2)
    ours = {old.store.session(f"s{n}")["link"]["epoch"] for n in range(3)}
    assert min(epochs) > max(ours)
    new.close()


def test_a_webhook_that_was_on_its_way_goes_out_again_under_its_id(old: World, tmp_path: Path) -> None:
    old.running(callback={"url": "http://x.test/"})
    old.fail()
    (claimed,) = old.store.claim_webhooks("l", 9, 9, {})
    new = back(old, tmp_path)
    assert [c.webhook_id for c in new.store.claim_webhooks("m", 9, 9, {})] == [claimed.webhook_id]
    new.close()


def test_a_backup_is_a_directory_of_our_own_without_the_token(old: World, tmp_path: Path) -> None:
    folder = old.path.parent
    (folder / "token").write_text("t0k3n\n")
    (folder / "holdfast.toml").write_text("grace_s = 40\n")
    made = backup(settings(folder), tmp_path / "a")
    assert made["files"] == ["holdfast.db", "holdfast.toml"]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["backup.json", "holdfast.db", "holdfast.toml"]
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "a").iterdir()} == {0o600}
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    assert "token" in backup(settings(folder), tmp_path / "b", with_token=True)["files"]
    with pytest.raises(BackupError, match="there already") as refused:
        backup(settings(folder), tmp_path / "a")
    assert refused.value.exit_code == 4
    with pytest.raises(BackupError, match="there is no") as refused:
        backup(settings(tmp_path / "nowhere"), tmp_path / "c")
    assert refused.value.exit_code == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "old"]  # nothing half done is left


def test_a_restore_is_alone_and_deletes_nothing(old: World, tmp_path: Path) -> None:
    old.create("first")
    folder = settings(old.path.parent)
    backup(folder, tmp_path / "copy", with_token=False)
    old.create("second")
    old.close()
    old.store = old.another_process()  # for the fixture
    (folder.data_dir / "token").write_text("t0k3n\n")
    for name in ("up.lock", "gateway.lock"):
        fd = os.open(folder.data_dir / name, os.O_RDWR | os.O_CREAT)
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(BackupError, match="in use") as refused:
            restore(tmp_path / "copy", folder, force=True)
        assert refused.value.exit_code == 4
        os.close(fd)
    with pytest.raises(BackupError, match="--force") as refused:
        restore(tmp_path / "copy", folder)
    assert refused.value.exit_code == 4
    done = restore(tmp_path / "copy", folder, force=True)
    aside = Path(done["moved_aside"])
    assert (folder.data_dir / "token").read_text() == "t0k3n\n"
    then = SqliteStore.open(aside / "holdfast.db", old.policy)
    now = SqliteStore.open(folder.store_path, old.policy)
    assert len(then.heads(["first", "second"])) == 2 and list(now.heads(["first", "second"])) == ["first"]
    assert now.audit(None, 10, None).items[0]["action"] == "store.restore"
    then.close()
    now.close()
    assert not list(folder.data_dir.glob(".restore-*"))


def test_a_backup_that_is_not_sound_is_refused_and_nothing_is_changed(old: World, tmp_path: Path) -> None:
    old.running()
    old.append(old.item(2, 2000))
    backup(settings(old.path.parent), tmp_path / "copy")
    raw = bytearray((tmp_path / "copy" / "holdfast.db").read_bytes())
    raw[8192 : len(raw) // 2] = b"\xff" * (len(raw) // 2 - 8192)
    (tmp_path / "copy" / "holdfast.db").write_bytes(raw)
    with pytest.raises(BackupError, match="not sound") as refused:
        restore(tmp_path / "copy", settings(tmp_path / "new"))
    assert refused.value.exit_code == 1
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["gateway.lock", "up.lock"]
    (tmp_path / "copy" / "backup.json").write_text(json.dumps({"format": 9}))
    with pytest.raises(BackupError, match="format 9"):
        restore(tmp_path / "copy", settings(tmp_path / "new"))
    with pytest.raises(BackupError, match="is no backup"):
        restore(tmp_path, settings(tmp_path / "new"))


def test_a_session_that_was_deleted_stays_a_tombstone(old: World, tmp_path: Path) -> None:
    old.create()
    old.do(rq.DeleteSession(session_id="s", seed=ulid()))
    new = back(old, tmp_path)
    assert new.refused(new.create()) == "session_deleted"
    new.close()
