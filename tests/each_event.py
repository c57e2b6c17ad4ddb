"""The log as rows of one event, for judges who read the file past the product.

Runs are taken apart (ADR 11), fresh events come too (ADR 12), long ones are uncompressed (ADR 13).

SQL that any SQLite with JSON understands, because some of them read with the interpreter's own library.
"""

from __future__ import annotations

from typing import Any

from backports import zstd

_COLUMNS = "session_id, seq, execution_id, exec_seq, type, ts_ms, stored_at_ms, data"
_SETTLED = _COLUMNS.replace("data", "iif(typeof(data) = 'blob', plain(data), data) as data")
_OF_WORDS = (
    "session_id, json_extract(value, '$.seq'), execution_id, json_extract(value, '$.exec_seq'), "
    "json_extract(value, '$.type'), json_extract(value, '$.ts_ms'), stored_at_ms, json_extract(value, '$.data')"
)


def readable(connection: Any) -> None:
    """Long events may be compressed (ADR 13): a judge's connection learns to read them, by the library itself."""
    connection.create_function("plain", 1, lambda frame: zstd.decompress(frame).decode())


def each_event(where: str = "true") -> str:
    """A subquery with the columns of `events`. where: which rows are looked at; a run's seq is that of its last."""
    # From the newest of each session back: what was packed long ago may still stand in `fresh`, and is not looked at.
    fresh = (
        "with recursive chain(n) as (select head from hot where head is not null union all "
        "select prior from chain join fresh using (n) where prior is not null) "
        f"select {_COLUMNS} from chain join fresh using (n)"
    )
    return (
        f"(select {_SETTLED} from events where run_length = 0 and {where} "
        f"union all select {_COLUMNS} from ({fresh}) where {where} union all select {_OF_WORDS} "
        f"from (select * from events join runs on runs.id = run_id where {where}), "
        "json_each('[' || replace(words, char(10), ',') || ']'))"
    )
