"""The little of Python's sqlite3 that the product uses, over an apsw connection. The statements are the product's.

Every row is fetched at once, so that no statement stays open; errors are the classes of the given module, with the
code that the product asks for. Before each commit the scribe hears what the database will hold after it, and after
it that it returned: between the two a power cut may leave either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import apsw

from tests.power.vfs import Scribe

Hashes = dict[str, tuple[int, int]]  # table → (rows, hash of all of them)

_OPERATIONAL = {
    apsw.SQLITE_BUSY,
    apsw.SQLITE_LOCKED,
    apsw.SQLITE_FULL,
    apsw.SQLITE_IOERR,
    apsw.SQLITE_CANTOPEN,
    apsw.SQLITE_READONLY,
    apsw.SQLITE_ERROR,
}


def content(execute: Callable[[str], Any]) -> Hashes:
    """Everything that a database holds, table by table."""
    names = [
        r[0] for r in execute("select name from sqlite_master where type = 'table' and name not like 'sqlite_stat%'")
    ]
    found = {}
    for name in names:
        rows = list(execute(f'select * from "{name}"'))
        found[name] = (len(rows), hash(tuple(map(tuple, rows))))
    return found


class Cursor:
    def __init__(self, rows: list[Any], rowcount: int, lastrowid: int, description: Any) -> None:
        self._rows, self.rowcount, self.lastrowid, self.description = iter(rows), rowcount, lastrowid, description

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows

    def close(self) -> None:
        """Everything was fetched already."""


class Connection:
    """connect(path, **anything) of sqlite3, bound to a scribe by `connector`."""

    def __init__(self, path: str, scribe: Scribe, module: Any, instead: Callable[[str], str]) -> None:
        self.scribe, self.module, self.instead = scribe, module, instead
        self.apsw = apsw.Connection(path, vfs=scribe.name)

    @property
    def in_transaction(self) -> bool:
        return self.apsw.in_transaction

    def execute(self, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> Cursor:
        sql = self.instead(sql)
        if sql.strip().rstrip(";").lower() in ("commit", "end"):
            return self._commit(sql)
        given = values if isinstance(values, Mapping) else tuple(values)  # by name, or by place
        return self._run(lambda c: c.execute(sql, given), _verb(sql))

    def executemany(self, sql: str, values: Iterable[Sequence[Any]]) -> Cursor:
        before = self.apsw.total_changes()
        done = self._run(lambda c: c.executemany(sql, [tuple(v) for v in values]), _verb(sql))
        done.rowcount = self.apsw.total_changes() - before
        return done

    def executescript(self, sql: str) -> Cursor:
        return self._run(lambda c: c.execute(self.instead(sql)), "")

    def create_function(self, name: str, narg: int, made: Callable[..., Any], *, deterministic: bool) -> None:
        self.apsw.create_scalar_function(name, made, narg, deterministic=deterministic)

    def commit(self) -> None:
        if self.in_transaction:
            self._commit("commit")

    def rollback(self) -> None:
        if self.in_transaction:
            self.execute("rollback")

    def close(self) -> None:
        try:
            self.apsw.close()
        except apsw.Error as error:
            raise self._translated(error) from error

    def _commit(self, sql: str) -> Cursor:
        self.scribe.mark("committing", content(self.apsw.execute))
        done = self._run(lambda c: c.execute(sql), "")
        self.scribe.mark("committed")
        return done

    def _run(self, work: Callable[[apsw.Cursor], Any], verb: str) -> Cursor:
        cursor = self.apsw.cursor()
        columns: list[str] = []
        # called before the first row, and also when there is none, as the description of sqlite3 is
        cursor.exec_trace = lambda c, *_: columns.extend(name for name, _ in c.get_description()) or True
        try:
            work(cursor)
            rows = cursor.fetchall()
        except apsw.Error as error:
            raise self._translated(error) from error
        changed = self.apsw.changes() if verb in ("insert", "update", "delete", "replace") else -1
        return Cursor(rows, changed, self.apsw.last_insert_rowid(), [(name, *[None] * 6) for name in columns] or None)

    def _translated(self, error: apsw.Error) -> Exception:
        code = getattr(error, "extendedresult", apsw.SQLITE_ERROR)
        primary = code & 0xFF
        kind = self.module.DatabaseError
        if primary == apsw.SQLITE_CONSTRAINT:
            kind = self.module.IntegrityError
        elif primary in _OPERATIONAL:
            kind = self.module.OperationalError
        made: Exception = kind(str(error))
        made.sqlite_errorcode = code  # type: ignore[attr-defined]
        made.sqlite_errorname = type(error).__name__  # type: ignore[attr-defined]
        return made


def _verb(sql: str) -> str:
    return sql.split(None, 1)[0].lower() if sql.strip() else ""


def connector(scribe: Scribe, module: Any, instead: Callable[[str], str] = str) -> Callable[..., Any]:
    """`instead`: another statement in the place of one of the product's, for controls that must fail."""

    def connect(path: str, **_: Any) -> Connection:
        return Connection(path, scribe, module, instead)

    return connect
