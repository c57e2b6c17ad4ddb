"""The spool's records: numbered per execution, sent by cursor, forgotten when acknowledged, limited in bytes.

A record that is here is a promise; what has to go before it was acknowledged (trimmed, refused) leaves an explicit
`gap` in its place, so that the numbers stay without holes.

An `output` record may name its bytes instead of holding them (segments.Source, in the place of the body). Then the
segment is synced before the record is committed, and deleted only after the last record that names it is forgotten.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from actors.protocol.defaults import SPOOL_RESERVE_BYTES
from wrapper import segments
from wrapper.drivers.base import Item, dumps, output
from wrapper.segments import MARK, Position, Source
from wrapper.spooldb import SpoolDb
from wrapper.spoolfile import LOG_PAGES, REFERENCES, SCARCE_LOG_PAGES, SpoolBroken, SpoolFull

ROW_BYTES: Final = 64  # what a row costs beside its body
CHUNK_ROWS: Final = 500  # rows deleted per transaction: a small write-ahead log, also when a backlog is acknowledged
CHUNK_BYTES: Final = 1 << 20  # and so many bytes: on a nearly full disk it must fit the reserve several times over
TRIM_ROWS: Final = 100
TIDY_PAGES: Final = 1024  # 4 MiB of free pages inside the file are kept for what comes next
SCARCE_PAGES: Final = 16
TIDY_STEP_PAGES: Final = 256
ERROR_BYTES: Final = 1024  # PROTOCOL §2.2: a bare final's error


class Record(NamedTuple):
    seq: int
    to_seq: int
    kind: str  # started, output, event, approval, gap, final
    body: str


def size_of(text: str) -> int:
    """Bytes of it in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8"))  # known already, where bytes are many


class Row(NamedTuple):
    """A record to be inserted. body: JSON, or the text of a Source."""

    kind: str
    body: str
    span: int
    bytes: int


def row_of(kind: str, body: str) -> Row:
    return Row(kind, body, 1, size_of(body) + ROW_BYTES)


def _row_of_item(item: Item) -> Row:
    if item.source is None:
        return row_of(item.kind, item.body)
    # What it holds on the disk, wherever that is: of this the limit is told.
    return Row(item.kind, item.source.to_text(), 1, item.source.length + ROW_BYTES)


class Records(SpoolDb):
    _short_log = False
    # Execution → segment → the last record that begins in it. None: to be asked of the rows. Records of one execution
    # stand in the order of the bytes that they name, so the first segment here is the first that is needed.
    _named: dict[int, dict[int, int]] | None = None
    _name_synced: tuple[int, int] = (0, -1)  # of which execution's segments the name is durable, up to which one

    def _last_seq(self, no: int) -> int:
        return int(self._one("SELECT last_seq FROM executions WHERE no = ?", no)[0])

    def _insert(self, no: int, rows: Iterable[Row]) -> int:
        seq = self._last_seq(no)
        values: list[tuple[int, int, int, str, int, str]] = []
        for kind, body, span, size in rows:
            values.append((no, seq + 1, seq + span, kind, size, body))
            seq += span
            self.bytes += size
        self._db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", values)
        self._db.execute("UPDATE executions SET last_seq = ? WHERE no = ?", (seq, no))
        return seq

    def append(self, no: int, items: Sequence[Item], at: Position, driver_state: dict[str, str]) -> int:
        """Records and the position that they were made from: both or neither. Returns last_seq."""
        named = sorted({extent.segment for item in items if item.source for extent in item.source.extents})
        if named:
            self._make_durable(no, named)
        with self._writing():
            if named and not self._refers:
                self._db.execute(f"PRAGMA user_version = {REFERENCES}")  # from here on no older wrapper may open it
            self._db.execute(
                "UPDATE executions SET segment = ?, offset = ?, driver_state = ? WHERE no = ?",
                (at.segment, at.offset, json.dumps(driver_state), no),
            )
            for item in items:
                if item.approval_id is not None:
                    self._db.execute("INSERT INTO approvals VALUES (?, ?, ?)", (item.approval_id, no, item.ref))
            last = self._insert(no, [_row_of_item(item) for item in items])
        if named:
            self._refers = True
            first = last - len(items) + 1
            for seq, item in enumerate(items, first):
                if item.source is not None and self._named is not None:
                    self._named.setdefault(no, {})[item.source.extents[0].segment] = seq
        return last

    def _make_durable(self, no: int, named: Sequence[int]) -> None:
        """The bytes before the records that name them: those are sent once they are committed."""
        try:
            # A name is durable with its directory; each segment's once.
            known = self._name_synced[0] == no and self._name_synced[1] >= named[-1]
            segments.sync(self._run_dir(no), named, names=not known)
            self._name_synced = (no, named[-1])
        except OSError as error:
            # Whatever it was: nobody knows what a failed fsync has kept, and it is never tried again.
            raise SpoolBroken(f"the output in {self.dir} could not be synced: {error}") from error

    def _run_dir(self, no: int) -> str:
        found = self._one("SELECT run_dir FROM executions WHERE no = ?", no)
        return self._path(None if found is None else found[0])

    def _path(self, run_dir: str | None) -> str:
        return os.path.join(self.dir, "runs", run_dir or "none")

    def finish(self, no: int, items: Sequence[Item], final: dict[str, Any]) -> int:
        """The last output and the final, in one. These items name nothing: what a driver held back is its own."""
        with self._writing():
            self._db.execute(
                "UPDATE executions SET state = 'final', final = ?, driver_state = '{}' WHERE no = ?",
                (json.dumps({k: final[k] for k in ("status", "exit_code", "signal", "error")}), no),
            )
            return self._insert(no, [*(row_of(i.kind, i.body) for i in items), row_of("final", dumps(final))])

    def read(self, execution_id: str, after_seq: int, budget: int, limit: int) -> list[Record]:
        """At least one record after ``after_seq`` if there is one; further ones within ``budget`` bytes."""
        found: list[Record] = []
        reader: segments.Reader | None = None
        try:
            # Row by row, and no further than the budget goes: a thousand rows of a backlog are 16 MiB.
            rows = self._db.execute(
                "SELECT r.seq, r.to_seq, r.kind, r.body, r.bytes, e.run_dir"
                " FROM records r JOIN executions e ON e.no = r.no"
                " WHERE e.execution_id = ? AND r.to_seq > ? ORDER BY r.seq LIMIT ?",
                (execution_id, after_seq, limit),
            )
            for seq, to_seq, kind, body, size, run_dir in rows:
                if found and size > budget:
                    break
                if body.startswith(MARK):
                    reader = reader or segments.Reader(self._path(run_dir))
                    kind, body = self._restored(reader, body)
                    size = size_of(body) + ROW_BYTES
                    if found and size > budget:
                        break
                budget -= size
                found.append(Record(seq, to_seq, kind, body))
            rows.close()
        except sqlite3.DatabaseError as error:
            raise self._verdict(error) from error
        finally:
            if reader is not None:
                reader.close()
        return found

    def _restored(self, reader: segments.Reader, text: str) -> tuple[str, str]:
        """Kind and body of a record that names its bytes. Somebody who took them away took the output: that is said."""
        source = Source.from_text(text)
        try:
            data = reader.fetch(source.extents)
        except OSError as error:
            raise SpoolBroken(f"the output in {self.dir} could not be read: {error}") from error
        if data is None:
            return "gap", dumps({"bytes": source.length, "reason": "trimmed"})
        return "output", output(source.stream, source.ts_ms, source.held + data)

    # ------------------------------------------------------------ the segments that records name

    def named_from(self, no: int, position: int) -> int:
        """The first segment of this execution that is needed; ``position``: the one that is read now."""
        return min(self._names().get(no) or (position,))

    def _names(self) -> dict[int, dict[int, int]]:
        if self._named is None:
            rows = self._all(
                "SELECT no, CAST(substr(body, 2, instr(body, ':') - 2) AS INTEGER), max(seq) FROM records"
                " WHERE kind = 'output' AND substr(body, 1, 1) = ? GROUP BY 1, 2",
                MARK,
            )
            self._named = {}
            for no, segment, seq in rows:
                self._named.setdefault(no, {})[segment] = seq
        return self._named

    def _release(self, no: int, up_to: int) -> None:
        """Records up to here are forgotten, durably: the segments that only they named can go."""
        named = self._names().get(no, {})
        over = [segment for segment, seq in named.items() if seq <= up_to]
        if not over:
            return
        for segment in over:
            del named[segment]
        if not named:
            del self._names()[no]
        found = self._one("SELECT segment FROM executions WHERE no = ?", no)
        if found is not None:
            with contextlib.suppress(FileNotFoundError):  # the whole directory may be gone
                segments.forget(self._run_dir(no), found[0], self.named_from(no, found[0]))

    def _roll_back(self) -> None:
        self._named = None
        super()._roll_back()

    def acked(self, execution_id: str, seq: int) -> bool:
        """Forgets what is acknowledged. True when that was the final: the execution is over."""
        row = self._one("SELECT no, state, last_seq FROM executions WHERE execution_id = ?", execution_id)
        if row is None:
            return False
        no, state, last_seq = row
        with self._writing():
            self._db.execute("UPDATE executions SET acked_seq = ? WHERE no = ? AND acked_seq < ?", (seq, no, seq))
            more = self._delete(no, seq)
        if more:
            self._forget(no, seq)
        else:
            self._release(no, seq)
        self._tidy()
        return bool(state == "final" and seq >= last_seq)

    def _tidy(self) -> None:
        """Gives room back to the disk, a step at a time: at once where it is scarce (the shim waits for it), else
        when it is worth the writing. Not having managed to is no harm."""
        scarce = self._scarce(*self._disk())
        pages = self._one("PRAGMA freelist_count")[0]
        if pages < (SCARCE_PAGES if scarce else TIDY_PAGES):
            return
        try:
            # A script, because each page that it frees is a row without columns, which execute() would stop at.
            self._db.executescript(f"PRAGMA incremental_vacuum({min(pages, TIDY_STEP_PAGES)})")
            if scarce:
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.DatabaseError as error:
            verdict = self._verdict(error)
            if not isinstance(verdict, SpoolFull):
                raise verdict from error

    def _forget(self, no: int, up_to: int) -> None:
        more = True
        while more:
            with self._writing():
                more = self._delete(no, up_to)
        self._release(no, up_to)

    def _delete(self, no: int, up_to: int) -> bool:
        """One chunk. True if there may be more."""
        rows = self._db.execute(
            # (seq <= to_seq: said for the index, or each acknowledgement would look at the whole backlog)
            "SELECT seq, bytes, substr(body, 1, 1) = ? FROM records"
            " WHERE no = ? AND seq <= ? AND to_seq <= ? ORDER BY seq LIMIT ?",
            (MARK, no, up_to, up_to, CHUNK_ROWS),
        ).fetchall()
        size = held = count = 0
        while count < len(rows) and held < CHUNK_BYTES:
            size += rows[count][1]
            held += ROW_BYTES if rows[count][2] else rows[count][1]  # what is only named does not go through the log
            count += 1
        if rows:
            self._db.execute(
                "DELETE FROM records WHERE no = ? AND seq BETWEEN ? AND ?", (no, rows[0][0], rows[count - 1][0])
            )
            self.bytes -= size
        return count < len(rows) or len(rows) == CHUNK_ROWS

    def rewound(self, execution_id: str, told_seq: int, acked_seq: int) -> int:
        """The server acknowledged more than we told it of: this spool went back in time. What came after
        ``told_seq`` (and a final, always) goes on at acked + 1; the rest is the server's already. Returns last_seq."""
        row = self._one("SELECT no FROM executions WHERE execution_id = ?", execution_id)
        if row is None:
            return acked_seq
        (no,) = row
        with self._writing():
            kept = self._db.execute(
                "SELECT seq, to_seq, kind, bytes, body FROM records WHERE no = ? AND (seq > ? OR kind = 'final')"
                " ORDER BY seq",
                (no, told_seq),
            ).fetchall()
            gone = self._one("SELECT coalesce(sum(bytes), 0) FROM records WHERE no = ?", no)[0]
            self._db.execute("DELETE FROM records WHERE no = ?", (no,))
            self.bytes -= gone
            self._db.execute(
                "UPDATE executions SET acked_seq = ?, last_seq = ? WHERE no = ?", (acked_seq, acked_seq, no)
            )
            self._named = None  # other numbers name them now
            return self._insert(no, [Row(kind, body, last - seq + 1, size) for seq, last, kind, size, body in kept])

    def refuse(self, execution_id: str, seq: int) -> None:
        """The server will never take this record: a `gap` in its place, or a final in its bare form."""
        row = self._one(
            "SELECT r.no, r.to_seq, r.kind, r.bytes, r.body FROM records r JOIN executions e ON e.no = r.no"
            " WHERE e.execution_id = ? AND r.seq = ?",
            execution_id,
            seq,
        )
        if row is None or row[2] == "gap":
            return
        no, _, kind, size, body = row
        if kind == "final":
            final = json.loads(body)
            cut = (final.get("error") or "").encode("utf-8", "replace")[:ERROR_BYTES].decode("utf-8", "ignore")
            bare = "data" not in final  # refused even so: then without a word
            body = dumps(
                {**{k: final[k] for k in ("status", "exit_code", "signal")}, "error": None if bare else cut or None}
            )
        else:
            kind, body = "gap", dumps({"bytes": size, "reason": "refused"})
        new = size_of(body) + ROW_BYTES
        with self._writing():
            self._db.execute(
                "UPDATE records SET kind = ?, bytes = ?, body = ? WHERE no = ? AND seq = ?", (kind, new, body, no, seq)
            )
            self.bytes += new - size

    # ------------------------------------------------------------ limits

    def _disk(self) -> tuple[int, int]:
        """Bytes of the disk: all of it, and those that are free for us."""
        disk = os.statvfs(self.dir)
        return disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize

    def _scarce(self, total: int, free: int) -> bool:
        """Whether the disk is nearly full. Then the log is kept short from here on."""
        scarce = free < min(4 * SPOOL_RESERVE_BYTES, total * 3 // 4)
        if scarce != self._short_log:
            self._all(f"PRAGMA wal_autocheckpoint={SCARCE_LOG_PAGES if scarce else LOG_PAGES}")
            self._short_log = scarce
        return scarce

    def batch_bytes(self) -> int:
        """How much output one transaction may take in; to be asked after `room`."""
        return segments.SCARCE_BATCH_BYTES if self._short_log else segments.BATCH_BYTES

    def room(self) -> bool:
        """May output be taken in? The reserve is for control and final records, on the disk as in the count."""
        if self.bytes + self.reserve_bytes > self.limit_bytes and not (self.policy == "trim" and self._trim()):
            return False
        total, free = self._disk()
        self._scarce(total, free)
        reserve = min(SPOOL_RESERVE_BYTES, total // 4)
        if free > reserve:
            return True
        # What was forgotten leaves room inside the file; only the write-ahead log needs the disk then.
        inside = self._one("PRAGMA freelist_count")[0] * self._one("PRAGMA page_size")[0]
        return bool(free > reserve // 2 and free + inside > reserve)

    def _trim(self) -> bool:
        """Drops the oldest output, a chunk at a time; an explicit gap stands for it. True if there is room then."""
        while self.bytes + self.reserve_bytes > self.limit_bytes:
            trimmed: dict[int, int] = {}
            with self._writing():
                rows = self._db.execute(
                    "SELECT no, seq, bytes FROM records WHERE kind = 'output' ORDER BY no, seq LIMIT ?",
                    (TRIM_ROWS,),
                ).fetchall()
                if not rows:
                    return False
                for no, seq, size in rows:
                    if self.bytes + self.reserve_bytes > self.limit_bytes:
                        self._trim_one(no, seq, size)
                        trimmed[no] = seq
            for no, seq in trimmed.items():
                self._release(no, seq)
        return True

    def _trim_one(self, no: int, seq: int, size: int) -> None:
        self._db.execute("DELETE FROM records WHERE no = ? AND seq = ?", (no, seq))
        self.bytes -= size
        before = self._db.execute(
            "SELECT seq, bytes, body FROM records WHERE no = ? AND to_seq = ? AND kind = 'gap'", (no, seq - 1)
        ).fetchone()
        lost = size - ROW_BYTES
        if before is not None and (gap := json.loads(before[2]))["reason"] == "trimmed":
            start, lost = before[0], lost + gap["bytes"]
            self._db.execute("DELETE FROM records WHERE no = ? AND seq = ?", (no, start))
            self.bytes -= before[1]
        else:
            start = seq
        body = dumps({"bytes": lost, "reason": "trimmed"})
        new = len(body) + ROW_BYTES
        self._db.execute("INSERT INTO records VALUES (?, ?, ?, 'gap', ?, ?)", (no, start, seq, new, body))
        self.bytes += new
