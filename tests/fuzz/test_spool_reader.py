"""A spool whose file somebody or something damaged, and a shim's segments of any bytes.

It is opened and says what it says, or it says that it is unreadable, or that it cannot be used; it never falls over,
and never makes up a record that was not there.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.budget import budget
from wrapper import segments
from wrapper.drivers.base import Item
from wrapper.ladder import begin
from wrapper.segments import Position
from wrapper.shim import HEADER_BYTES, segment_name
from wrapper.spool import Spool
from wrapper.spoolfile import SpoolError

BODIES = {f"body {n} " + "x" * 40 * n for n in range(12)}


@cache
def sample() -> bytes:
    """A spool in use, as one file."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-spool-"))
    spool = Spool(str(folder), "ses_1")
    for n in range(3):
        spool.receive_start(f"cmd_{n}", f"exe_{n}", {"n": n}, {"hung_s": 1})
        row = spool.get(f"exe_{n}")
        assert row is not None
        spool.launching(row.no, "run", 2)
        spool.launched(row.no, 7, {"a": 1})
        spool.open_gate(row.no)
        spool.append(
            row.no, [Item("output", body) for body in sorted(BODIES)[4 * n : 4 * n + 4]], Position(1, n), {"s": "x"}
        )
        spool.note_ladder(f"int_{n}", f"exe_{n}", "interrupt", row.no, begin("interrupt", 5, 20.0))
    spool.finish(3, [], {"status": "completed", "exit_code": 0, "signal": None, "error": None})
    spool.bury("exe_0")
    spool.close()
    data = (folder / "spool.db").read_bytes()
    shutil.rmtree(folder)
    return data


def use(folder: Path) -> None:
    """All that a wrapper does with it at its start and after it. Raises only SpoolError."""
    spool = Spool(str(folder), "ses_1")
    try:
        seen = spool.executions()
        assert not spool.unreadable or seen == []
        spool.known()
        for row in seen:
            assert row.state in ("received", "running", "final")
            for record in spool.read(row.execution_id, 0, 1 << 30, 1000):
                assert record.body in BODIES or record.kind != "output" or len(sample()) < 4096
            spool.inputs(row.execution_id)
            spool.carried_out(row.execution_id)
            spool.refuse(row.execution_id, 2)
            spool.acked(row.execution_id, 3)
        spool.receive_start("cmd_new", "exe_new", None, {})
        spool.bury("exe_new")
    finally:
        spool.close()


def used(files: dict[str, bytes]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        for name, data in files.items():
            (folder / name).write_bytes(data)
        tried(folder)
        tried(folder)  # the next start finds something that it can work with, or says why not
    finally:
        shutil.rmtree(folder)


def tried(folder: Path) -> None:
    with contextlib.suppress(SpoolError):  # a sentence for people; anything else is a wrapper that fell over
        use(folder)


@given(st.binary(max_size=300), st.binary(max_size=100) | st.none(), st.booleans())
@example(b"SQLite format 3\0" + bytes(84), None, False)
@example(b"", b"\x37\x7f\x06\x82" + bytes(28), False)
@budget(40)
def test_any_bytes_as_a_spool(data: bytes, log: bytes | None, padded: bool) -> None:
    data += bytes(4096 - len(data)) if padded else b""
    used({"spool.db": data} | ({"spool.db-wal": log} if log is not None else {}))


edits = st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=4)), min_size=1, max_size=3)


@given(edits, st.none() | st.integers(0, 1 << 20))
@budget(120)
def test_a_damaged_spool(changes: list[tuple[int, bytes]], cut: int | None) -> None:
    data = bytearray(sample())
    for at, put in changes:
        data[at % len(data) : at % len(data) + len(put)] = put
    used_without_inventing(bytes(data if cut is None else data[: cut % len(data)]))


def used_without_inventing(data: bytes) -> None:
    used({"spool.db": data})


VALUES = (
    "",
    "x",
    "{",
    "null",
    "[]",
    "1",
    '"x"',
    '{"a":1}',
    "NaN",
    "\ud800".encode("utf-8", "surrogatepass"),
    b"\xff",
    7,
)


@given(
    st.sampled_from(
        ["input", "limits", "driver_state", "ladder", "final", "state", "segment", "last_seq", "acked_seq"]
    ),
    st.sampled_from(VALUES),
)
@budget(80)
def test_a_spool_with_a_value_that_nobody_wrote(column: str, value: object) -> None:
    """The file is sound, and one value in it is not: nothing of SQLite's would notice."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        (folder / "spool.db").write_bytes(sample())
        db = sqlite3.connect(folder / "spool.db")
        db.execute(f"UPDATE executions SET {column} = ? WHERE no = 2", (value,))
        db.commit()
        db.close()
        tried(folder)
        tried(folder)  # the next start finds something that it can work with, or says why not
    finally:
        shutil.rmtree(folder)


# ---------------------------------------------------------------- segments


@pytest.fixture(scope="module")
def run_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        yield Path(name)


def framed(stream: int, ts_ms: int, data: bytes) -> bytes:
    return bytes([stream]) + ts_ms.to_bytes(8, "big") + len(data).to_bytes(4, "big") + data


pieces = st.builds(framed, st.sampled_from([1, 2]), st.integers(0, 1 << 40), st.binary(max_size=30))
files = st.lists(st.lists(pieces, max_size=4).map(b"".join) | st.binary(max_size=60), min_size=1, max_size=4)


@given(files, st.integers(0, 5), st.integers(0, 200), st.integers(1, 100))
@budget(200)
def test_any_bytes_as_segments_are_read_to_a_place_that_is_there(
    run_dir: Path, parts: list[bytes], segment: int, offset: int, limit: int
) -> None:
    for old in run_dir.iterdir():
        old.unlink()
    for index, data in enumerate(parts):
        (run_dir / segment_name(index)).write_bytes(data)
    at = Position(segment, offset)
    for _ in range(200):
        found, after = segments.read(str(run_dir), at, limit)
        assert after >= at
        whole = b"".join(parts)
        assert all(piece.data in whole for piece in found)
        if after == at:
            break
        assert after.offset <= len(parts[after.segment]) if after.segment < len(parts) else after.offset in (0, offset)
        at = after
    else:
        raise AssertionError("it never ends")
    assert HEADER_BYTES == 13


def test_a_segment_that_a_power_cut_made_shorter_than_what_was_read_is_over_and_no_error(run_dir: Path) -> None:
    """The spool's position is synced with every record; the segment that it was read from is not."""
    for old in run_dir.iterdir():
        old.unlink()
    (run_dir / segment_name(0)).write_bytes(framed(1, 5, b"first"))
    at = Position(0, 400)
    assert segments.read(str(run_dir), at) == ([], at)
    (run_dir / segment_name(1)).write_bytes(framed(1, 6, b"next"))
    found, after = segments.read(str(run_dir), at)
    assert [piece.data for piece in found] == [b"next"] and after == Position(1, 17)
