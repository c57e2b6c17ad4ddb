"""Reads what a shim wrote: framed records in `out.NNNNNNNN`, from one position (segment, offset) on.

A position always stands between two records. A record that is still being written (or was torn when the shim died)
is left for later. A segment is over only when the next one exists: that is looked at *before* its end is read.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from wrapper.shim import HEADER_BYTES, STDOUT, segment_name

# One spool transaction's worth, and one fsync for it: bounds memory and the time that the spool is busy. With what the
# log holds until a checkpoint on a scarce disk (spoolfile), it fits what `room` leaves free.
BATCH_BYTES: Final = 512 << 10


class Position(NamedTuple):
    segment: int
    offset: int


class Piece(NamedTuple):
    stream: str
    ts_ms: int
    data: bytes


def read(run_dir: str, at: Position, limit: int = BATCH_BYTES) -> tuple[list[Piece], Position]:
    """At least one record if there is one, at most about ``limit`` bytes; and the position after them."""
    pieces: list[Piece] = []
    segment, offset = at
    while limit > 0:
        over = os.path.exists(os.path.join(run_dir, segment_name(segment + 1)))
        try:
            with open(os.path.join(run_dir, segment_name(segment)), "rb") as file:
                # Shorter than the position: a power cut took what was read already, and the shim with it.
                size_now = max(offset, os.fstat(file.fileno()).st_size)
                file.seek(offset)
                data = file.read(min(limit + 65536 + HEADER_BYTES, size_now - offset))
        except FileNotFoundError:
            break
        start = 0
        while limit > 0 and len(data) - start >= HEADER_BYTES:
            size = int.from_bytes(data[start + 9 : start + HEADER_BYTES], "big")
            body = start + HEADER_BYTES
            if len(data) - body < size:
                break
            stream = "stdout" if data[start] == STDOUT else "stderr"
            pieces.append(Piece(stream, int.from_bytes(data[start + 1 : start + 9], "big"), data[body : body + size]))
            start = body + size
            limit -= size + HEADER_BYTES
        offset += start
        if not over or offset < size_now:
            break
        segment, offset = segment + 1, 0
    return pieces, Position(segment, offset)


def forget(run_dir: str, before: int) -> None:
    """Deletes the consumed segments: room for the shim to go on."""
    for name in os.listdir(run_dir):
        if name.startswith("out.") and name[4:].isdigit() and int(name[4:]) < before:
            os.unlink(os.path.join(run_dir, name))
