"""The power goes, at every write and at every sync; nothing that was acknowledged may be missing afterwards.

Seeds are fixed here, so CI is the same every day; `python -m tests.power` takes any number of others. The controls
are the same tests with one thing taken away, and must fail: otherwise the disk of this house would be too kind.
"""

from __future__ import annotations

import random

import pytest

from tests.power.cuts import Report
from tests.power.disk import EVERY_HOW, SECTOR, Disk, Drop, Make, Resize, Sync, SyncDir, Write
from tests.power.lives import SPOOL, STORE, TRIMMED, Kind, live

LIVES = ((STORE, 2, 4000), (SPOOL, 2, 1500), (TRIMMED, 1, 500))  # each the least number of cuts: over 5,000 in all

HELD = {
    "holdfast.db": {
        *("sessions", "executions", "events", "commands", "approvals", "deadlines", "callbacks", "idempotency"),
        *("tokens", "audit", "actors", "reaper", "connections", "tallies"),
    },
    "spool.db": {"executions", "records", "commands", "approvals", "tombstones"},
}


@pytest.mark.parametrize(("kind", "lives", "least"), LIVES, ids=[kind.name for kind, _, _ in LIVES])
def test_a_power_cut_at_any_write_or_sync_loses_nothing_that_was_acknowledged(
    kind: Kind, lives: int, least: int
) -> None:
    report = live(kind, 1, lives=lives)
    assert not report.wrong, "\n".join([str(report), *map(str, report.failures)])
    assert (report.lost, report.corrupt) == (0, 0)
    assert report.points == report.places  # every write, truncation, sync, creation and deletion, and the end
    assert report.cuts >= least
    assert report.held >= HELD[kind.file]  # the walk did all of it
    print(f"\n{kind.name}: {report}")


def control(kind: Kind, **without: object) -> Report:
    return live(kind, 1, lives=1, cuts=150, steps=40, **without)


def test_without_the_sync_of_each_commit_the_store_loses_acknowledged_events() -> None:
    report = control(STORE, synchronous="NORMAL")
    assert report.lost > 0 and report.wrong > 0
    assert report.corrupt == 0  # NORMAL keeps the file sound, and loses the end of it


def test_without_the_sync_of_each_commit_the_spool_loses_what_it_was_relied_on_for() -> None:
    report = control(SPOOL, full=False)
    assert report.lost > 0 and report.wrong > 0 and report.corrupt == 0


def test_without_the_sync_of_a_segment_the_spool_names_what_is_not_there() -> None:
    report = control(SPOOL, careless=True)
    assert report.lost > 0 and report.wrong > 0 and report.corrupt == 0


@pytest.mark.parametrize("kind", [STORE, SPOOL], ids=["store", "spool"])
def test_on_a_disk_that_lies_about_its_syncs_everything_is_lost(kind: Kind) -> None:
    report = control(kind, obeys_sync=False)
    assert report.lost > 0 and report.corrupt > 0


# ---------------------------------------------------------------- the disk of this house


def cuts_of(disk: Disk, n: int = 200) -> list[dict[str, bytes]]:
    return [disk.cut(EVERY_HOW[i % len(EVERY_HOW)], random.Random(i)).files for i in range(n)]


def disk_with(name: str, data: bytes) -> Disk:
    return Disk({name: data})


def test_what_was_synced_stands_and_what_was_not_stands_sector_by_sector_in_any_order() -> None:
    old, new = b"o" * (4 * SECTOR), b"n" * (3 * SECTOR)
    disk = disk_with("f", old)
    disk.do(Write(0, SECTOR, new))
    found = {image["f"] for image in cuts_of(disk)}
    sectors = [tuple(data[i * SECTOR] for i in range(4)) for data in found]
    assert all(data[:SECTOR] == b"o" * SECTOR for data in found)  # outside the write nothing moves
    assert {s[1:] for s in sectors} >= {tuple(b"ooo"), tuple(b"nnn"), tuple(b"nno"), tuple(b"oon"), tuple(b"ono")}
    assert any(len(set(data[SECTOR : 2 * SECTOR])) > 2 for data in found)  # rubbish in a sector that was under way
    disk.do(Sync(0))
    assert {image["f"] for image in cuts_of(disk)} == {old[:SECTOR] + new}


def test_a_length_follows_the_bytes_or_grows_without_them() -> None:
    disk = disk_with("f", b"")
    disk.do(Write(0, 0, b"a" * SECTOR))
    disk.do(Write(0, SECTOR, b"b" * SECTOR))
    found = {image["f"] for image in cuts_of(disk)}
    assert {b"", b"a" * SECTOR, bytes(SECTOR) + b"b" * SECTOR, bytes(2 * SECTOR)} <= found
    disk.do(Sync(0))
    disk.do(Resize(0, 0))
    assert {len(image["f"]) for image in cuts_of(disk)} == {0, 2 * SECTOR}


def test_names_are_only_as_durable_as_their_directory() -> None:
    disk = disk_with("old", b"1")
    disk.do(Make("new", 1))
    disk.do(Write(1, 0, b"2"))
    disk.do(Sync(1))
    disk.do(Drop("old"))
    assert {frozenset(image) for image in cuts_of(disk)} == {
        frozenset(names) for names in ((), ("old",), ("new",), ("old", "new"))
    }
    disk.do(SyncDir())
    assert cuts_of(disk, 20) == [{"new": b"2"}] * 20
