"""What the spool has said yes to is on the disk, and is kept until all of it is acknowledged (DESIGN §2.5)."""

from __future__ import annotations

from pathlib import Path

from tests.wrapper.test_spool import AT, output, running, seqs
from wrapper.spool import Spool

FULL = 2  # https://sqlite.org/pragma.html#pragma_synchronous


def test_every_commit_of_the_spool_is_on_the_disk(tmp_path: Path) -> None:
    for _ in ("new", "found again"):
        spool = Spool(str(tmp_path / "spool"), "ses_1")
        assert spool._one("PRAGMA synchronous")[0] == FULL
        assert spool._one("PRAGMA journal_mode")[0] == "wal"
        spool.close()


def test_a_full_spool_that_blocks_keeps_every_record_that_nobody_acknowledged(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "spool"), "ses_1", limit_bytes=100_000)
    no = running(spool)
    for _ in range(30):
        spool.append(no, [output("x" * 5000)], AT, {})
    assert not spool.room()
    assert seqs(spool) == [(1, 1, "started"), *((n, n, "output") for n in range(2, 32))]
    spool.acked("exe_1", 30)
    assert spool.room() and seqs(spool) == [(31, 31, "output")]
    spool.close()


def test_a_gap_that_is_acknowledged_in_part_is_kept(tmp_path: Path) -> None:
    """It grew behind the cursor: the server has heard of its first part only, and waits for the rest."""
    spool = Spool(str(tmp_path / "spool"), "ses_1", limit_bytes=100_000, policy="trim")
    no = running(spool)
    while len(rows := seqs(spool)) < 2 or rows[1][2] != "gap" or rows[1][1] < 5:
        assert spool.room()
        spool.append(no, [output("x" * 5000)], AT, {})
    spool.acked("exe_1", 3)
    kept = seqs(spool)
    assert kept == rows[1:] and kept[0] == (2, rows[1][1], "gap")
    spool.acked("exe_1", rows[1][1])
    assert seqs(spool) == rows[2:]
    spool.close()
