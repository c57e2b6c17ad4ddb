"""Long events are kept compressed where that pays (ADR 13): Zstandard, one frame an event, with its own checksum.

A row's `data` is text as it came, or a frame (a blob). Whoever reads the column asks for `rows.DATA_SQL`; the function
that it names is made known to each connection here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from backports import zstd  # the standard library's `compression.zstd` of Python 3.14

# A row of `events` that is longer has pages of its own (SQLite keeps a quarter of a page of such a row with its
# neighbours), so that below it nothing is saved; and of 0.5 KiB of JSON a frame leaves six tenths.
COMPRESS_BYTES: Final = 1024
# Of its bytes an event has to lose so many: base64, which is how JSON has what is compressed or encrypted already,
# loses a quarter, for as much work as anything else.
WORTH: Final = 1 / 3
# JSON around source text in pieces of 16 KiB: a third of the bytes is left, and level 3 leaves a twentieth less of it.
LEVEL: Final = 1
_OPTIONS: Final[dict[int, int]] = {
    zstd.CompressionParameter.compression_level: LEVEL,
    zstd.CompressionParameter.checksum_flag: 1,  # bits that the disk has turned are found, and not shown
}


Kept = tuple[str | bytes, int]  # as the column holds it, and how many bytes it has lost; 0: it stands there as it is


class Compressor:
    """Not for two threads at once."""

    def __init__(self) -> None:
        self._zstd = zstd.ZstdCompressor(options=_OPTIONS)

    def frames(self, events: Iterable[str]) -> Iterator[Kept]:
        """The events of one item. After one that was not worth it no other is tried: what an agent says at once is most
        often of one kind."""
        pays = True
        for data in events:
            if not pays or len(data) < COMPRESS_BYTES:
                yield data, 0
                continue
            encoded = data.encode()
            frame = self._zstd.compress(encoded, zstd.ZstdCompressor.FLUSH_FRAME)
            lost = len(encoded) - len(frame)
            pays = lost >= WORTH * len(encoded)
            yield (frame, lost) if pays else (data, 0)


def plain(frame: bytes) -> str:
    """Errors: ZstdError, if it is not a whole frame with its checksum. To SQLite that is an error of the statement."""
    return zstd.decompress(frame).decode()


def make_known(connection: Any) -> None:
    """To SQL, as plain(frame)."""
    connection.create_function("plain", 1, plain, deterministic=True)
