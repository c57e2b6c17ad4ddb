"""Records that name their bytes in the shim's segments: word for word what a body would have said, for as long as it
is needed, and never in silence when somebody took the segments away (ADR 10)."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.wrapper.test_spool import reopened, running
from wrapper import segments, spoolfile
from wrapper.drivers import driver
from wrapper.drivers.base import REFER_BYTES, REFER_PLACES, Item
from wrapper.ladder import begin
from wrapper.segments import Extent, Piece, Position, Source
from wrapper.shim import STDERR, STDOUT, segment_name
from wrapper.spool import Spool

Said = tuple[int, bytes]  # of a stream


class Shelf:
    """A spool with one running execution, and the segments of its shim."""

    def __init__(self, folder: Path, **how: object) -> None:
        self.spool = Spool(str(folder), "ses_1", **how)  # type: ignore[arg-type]
        self.no = running(self.spool)
        self.run = folder / "runs" / "exe_1.0"
        self.run.mkdir(parents=True)
        self.at, self.state, self.segment = Position(0, 0), dict[str, str](), 0
        self.bodies: list[str] = []  # what the records would say if nothing were named

    def write(self, *pieces: Said, roll: bool = False) -> None:
        """What the shim does; `roll`: a new segment first."""
        self.segment += roll
        with (self.run / segment_name(self.segment)).open("ab") as file:
            for stream, data in pieces:
                file.write(bytes([stream]) + (5).to_bytes(8, "big") + len(data).to_bytes(4, "big") + data)

    def take(self, limit: int = segments.BATCH_BYTES) -> list[Item]:
        """What the runner does with it."""
        pieces, at = segments.read(str(self.run), self.at, limit)
        fed = driver("plain").feed(self.state, pieces, end=False)
        placeless = [piece._replace(at=None) for piece in pieces]
        self.bodies += [item.body for item in driver("plain").feed(self.state, placeless, end=False).items]
        self.spool.append(self.no, fed.items, at, fed.state)
        segments.forget(str(self.run), at.segment, self.spool.named_from(self.no, at.segment))
        self.at, self.state = at, fed.state
        return fed.items

    def reopen(self) -> None:
        self.spool = reopened(self.spool)

    def rows(self, after: int = 1) -> list[tuple[int, int, str, str]]:
        return [tuple(record) for record in self.spool.read("exe_1", after, 1 << 30, 10_000)]  # type: ignore[misc]

    def stored(self) -> list[str]:
        return [row[0] for row in self.spool._all("SELECT body FROM records WHERE seq > 1 ORDER BY seq")]

    def files(self) -> list[str]:
        return sorted(os.listdir(self.run))


def big(letter: str, size: int = 40_000) -> Said:
    return STDOUT, (letter * 79 + "\n").encode() * (size // 80)


def bodies(pieces: Sequence[Said]) -> list[str]:
    """What the records would say if nothing were named."""
    named = [Piece("stdout" if stream == STDOUT else "stderr", 5, data) for stream, data in pieces]
    return [item.body for item in driver("plain").feed({}, named, end=False).items]


def test_what_is_named_is_said_word_for_word_as_what_is_held(tmp_path: Path) -> None:
    rng = random.Random(3)
    shelf = Shelf(tmp_path)
    for n in range(60):
        size = rng.choice((1, 30, 3000, 5000, 16_384, 60_000))
        text = "".join(rng.choices('ab€\n\\"\x01🍌', k=size)).encode() if n % 5 else rng.randbytes(size)
        cut = rng.randrange(len(text))  # in the middle of a character, now and then
        stream = STDERR if n % 7 == 0 else STDOUT
        shelf.write((stream, text[:cut]), roll=n % 6 == 5)
        if n % 3:
            shelf.take()
        shelf.write((stream, text[cut:]))
    shelf.take()
    stored = shelf.stored()
    named = [text for text in stored if text.startswith("@")]
    assert len(named) > 50 and any("," in text for text in named) and any(not text.endswith(" ") for text in named)
    for _ in range(2):
        assert [body for _, _, _, body in shelf.rows()] == shelf.bodies
        shelf.reopen()


def test_small_and_scattered_output_is_held(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.write((STDOUT, b"a" * (REFER_BYTES - 1)))
    shelf.write(*[(STDERR, b"b" * 700)] * (REFER_PLACES + 1))
    shelf.take()
    assert [text[0] for text in shelf.stored()] == ["{", "{"]
    shelf.write(*[(STDERR, b"b" * 700)] * REFER_PLACES)
    shelf.take()
    assert [text[0] for text in shelf.stored()] == ["{", "{", "@"]


def test_only_the_plain_dialect_names(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.write(big("a"))
    pieces, _ = segments.read(str(shelf.run), Position(0, 0))
    fed = driver("jsonl").feed({}, pieces, end=False)
    assert fed.items and all(item.source is None for item in fed.items)


def test_a_source_is_its_text_and_back() -> None:
    one = Source(7, "stderr", b"\xe2\x82", (Extent(3, 13, 4096), Extent(4, 13, 1)))
    assert Source.from_text(one.to_text()) == one and one.length == 4099
    bare = Source(7, "stdout", b"", (Extent(0, 13, 5000),))
    assert Source.from_text(bare.to_text()) == bare


def test_a_segment_stays_until_the_last_record_in_it_is_acknowledged_also_through_a_restart(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.write(big("a"))
    shelf.write(big("b"), roll=True)
    shelf.write(big("c"), roll=True)
    first = len(bodies([big("a")]))
    shelf.take()
    # Read, so the shim need not wait for it; and kept, under a name that it does not count.
    assert shelf.files() == ["out.00000002", "taken.00000000", "taken.00000001"]
    before = shelf.rows()
    shelf.spool.acked("exe_1", first)  # all but the last of the first segment (record 1 is `started`)
    assert shelf.files() == ["out.00000002", "taken.00000000", "taken.00000001"]
    shelf.reopen()
    shelf.spool.acked("exe_1", first + 1)
    assert shelf.files() == ["out.00000002", "taken.00000001"]
    assert shelf.rows() == before[first:]
    shelf.spool.acked("exe_1", 1000)
    assert shelf.files() == ["out.00000002"]  # it is being written still
    assert shelf.spool.bytes == 0


def test_a_record_over_two_segments_needs_both(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.write((STDOUT, b"a" * 5000))
    shelf.write((STDOUT, b"b" * 5000), roll=True)
    shelf.write((STDERR, b"c"), roll=True)
    shelf.take()
    assert len(shelf.stored()[0].split(" ")[0].split(",")) == 2
    assert shelf.files() == ["out.00000002", "taken.00000000", "taken.00000001"]
    assert json.loads(shelf.rows()[0][3])["data"]["text"] == "a" * 5000 + "b" * 5000


def test_what_stays_behind_after_a_kill_goes_with_the_next_segment(tmp_path: Path) -> None:
    """Killed between the commit and the renaming: the next wrapper finds both names, and does what was left undone."""
    shelf = Shelf(tmp_path)
    shelf.write(big("a"))
    shelf.write((STDOUT, b"b"), roll=True)
    pieces, at = segments.read(str(shelf.run), Position(0, 0))
    fed = driver("plain").feed({}, pieces, end=False)
    shelf.spool.append(shelf.no, fed.items, at, fed.state)
    before = shelf.rows()
    shelf.reopen()
    assert shelf.files() == ["out.00000000", "out.00000001"] and shelf.rows() == before
    shelf.at, shelf.state = at, fed.state
    shelf.write((STDOUT, b"c"), roll=True)
    shelf.take()
    assert shelf.files() == ["out.00000002", "taken.00000000", "taken.00000001"]
    assert shelf.rows()[: len(before)] == before


@pytest.mark.parametrize("how", ["a segment", "all of it", "half of one"])
def test_output_that_somebody_took_away_becomes_a_gap_and_the_numbers_stay(tmp_path: Path, how: str) -> None:
    shelf = Shelf(tmp_path)
    shelf.write(big("a"))
    shelf.write(big("b"), roll=True)
    items = shelf.take()
    whole = shelf.rows()
    shelf.reopen()
    match how:
        case "a segment":
            (shelf.run / "taken.00000000").unlink()
        case "all of it":
            shutil.rmtree(shelf.run)
        case "half of one":
            os.truncate(shelf.run / "taken.00000000", 20_000)
    rows = shelf.rows()
    assert [row[:2] for row in rows] == [row[:2] for row in whole]
    lost = [row for row in rows if row[2] == "gap"]
    assert lost and all(row in whole for row in rows if row[2] != "gap")
    assert len(lost) == {"a segment": 3, "all of it": len(items), "half of one": 2}[how]
    sources = [items[row[0] - 2].source for row in lost]
    assert [json.loads(row[3]) for row in lost] == [
        {"bytes": source.length, "reason": "trimmed"} for source in sources if source is not None
    ]
    shelf.spool.acked("exe_1", 1000)
    assert shelf.spool.bytes == 0


def test_trimmed_output_gives_its_segments_back_and_says_how_much_it_was(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, limit_bytes=300_000, policy="trim")
    said = 0
    for n in range(20):
        shelf.write(big("abcdefghij"[n % 10]), roll=n > 0)
        said += 40_000
        assert shelf.spool.room()
        shelf.take()
    rows = shelf.rows()
    assert [row[2] for row in rows].count("gap") == 1 and rows[0][2] == "gap"
    kept = sum(len(json.loads(row[3])["data"]["text"]) for row in rows[1:])
    assert json.loads(rows[0][3]) == {"bytes": said - kept, "reason": "trimmed"}
    assert sum(os.path.getsize(shelf.run / name) for name in shelf.files()) < 300_000
    assert shelf.spool.bytes == reopened(shelf.spool).bytes <= 300_000
    shelf.spool.close()


def test_a_full_spool_counts_what_is_named(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, limit_bytes=100_000)
    shelf.write(big("a"))
    shelf.write(big("b"))
    assert shelf.spool.room()
    shelf.take()
    assert not shelf.spool.room()
    shelf.spool.acked("exe_1", 4)
    assert shelf.spool.room()


def test_a_refused_one_becomes_a_gap_and_a_rewound_one_is_said_under_its_new_number(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.write(big("a"))
    shelf.write((STDOUT, b"z"), roll=True)
    shelf.take()
    before = shelf.rows()
    assert len(before) == 3
    shelf.spool.refuse("exe_1", 2)
    assert shelf.rows()[0][2:] == (
        "gap",
        json.dumps({"bytes": 16_384 + 64, "reason": "refused"}, separators=(",", ":")),
    )
    assert shelf.spool.rewound("exe_1", 2, 800) == 802
    assert shelf.rows(800) == [(801, 801, *before[1][2:]), (802, 802, *before[2][2:])]
    shelf.spool.acked("exe_1", 801)
    assert shelf.files() == ["out.00000001", "taken.00000000"]
    shelf.spool.acked("exe_1", 802)
    assert shelf.files() == ["out.00000001"]


def test_what_nobody_wants_keeps_no_segment(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.write(big("a"))
    shelf.write(big("b"), roll=True)
    shelf.take()
    shelf.spool.drop(shelf.no, "terminal", begin("abort", 0, 20.0))
    assert shelf.files() == ["out.00000001"]


def test_the_bytes_are_synced_before_the_record_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment that cannot be synced ends the process, and nothing names it. (tests/power cuts the power.)"""
    shelf = Shelf(tmp_path)
    shelf.write(big("a"))

    def fails(fd: int) -> None:
        raise OSError(5, "the disk is ill")

    monkeypatch.setattr(os, "fdatasync", fails)
    with pytest.raises(spoolfile.SpoolBroken, match="could not be synced"):
        shelf.take()
    monkeypatch.undo()
    assert shelf.rows() == [] and shelf.spool.get("exe_1").at == Position(0, 0)  # type: ignore[union-attr]


def test_a_spool_of_before_is_read_as_it_is_and_no_older_wrapper_opens_it_after_the_first_name(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    held = Item("output", json.dumps({"type": "output", "ts_ms": 1, "data": {"stream": "stdout", "text": "old"}}))
    shelf.spool.append(shelf.no, [held], Position(0, 0), {})
    shelf.spool._db.execute("PRAGMA user_version = 1")
    shelf.reopen()
    assert shelf.rows() == [(2, 2, "output", held.body)] and not shelf.spool.unreadable
    version = lambda: shelf.spool._one("PRAGMA user_version")[0]  # noqa: E731
    shelf.spool.append(shelf.no, [held], Position(0, 0), {})
    assert version() == 1  # nothing that it could not read
    shelf.write(big("a"))
    shelf.take()
    assert version() == 2
    shelf.reopen()
    assert [row[3] for row in shelf.rows()] == [held.body, held.body, *bodies([big("a")])]


def test_the_schema_of_version_1_is_that_of_version_2(tmp_path: Path) -> None:
    """So a spool of 1 becomes one of 2 by its number alone; this is the table of 1."""
    old = sqlite3.connect(":memory:")
    old.execute(
        "CREATE TABLE records (no INTEGER NOT NULL, seq INTEGER NOT NULL, to_seq INTEGER NOT NULL, kind TEXT NOT NULL,"
        " bytes INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (no, seq))"
    )
    new = Spool(str(tmp_path), "ses_1")
    columns = lambda db: [tuple(row) for row in db.execute("PRAGMA table_info(records)")]  # noqa: E731
    assert columns(old) == columns(new._db)
    old.close()
    new.close()


def test_a_spool_that_is_put_aside_takes_along_what_its_records_name(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.write(big("a"))
    shelf.write(big("b"), roll=True)
    shelf.take()
    shelf.spool.close()
    (tmp_path / "spool.db").write_bytes(b"rubbish" * 3000)
    spool = Spool(str(tmp_path), "ses_1")
    assert spool.unreadable
    shutil.rmtree(shelf.run)  # as survivors.end does
    (aside,) = tmp_path.glob("unreadable-*/exe_1.0")
    assert sorted(os.listdir(aside)) == ["out.00000001", "taken.00000000"]
    assert big("a")[1] in (aside / "taken.00000000").read_bytes()
    spool.close()
