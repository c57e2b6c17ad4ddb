"""The truth in one SQLite file: WAL, synchronous=FULL, one writing connection per process, fair to the others.

Open, read, decide, write, commit, speak. A group is one transaction and one fsync; each job in it has a savepoint, so
that one poisoned item never takes the others with it. Full disk or busy: rolled back, nothing acknowledged, try again.
I/O error, corruption or a failed fsync: StorageBroken, and the process exits; an fsync is never tried twice.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from actors.law.model import Policy
from actors.law.requests import Request
from actors.protocol.defaults import SERVICE_STEP_MAX_S
from actors.protocol.errors import HoldfastError, StorageBroken, StorageError
from actors.store import rows
from actors.store.append import Appends
from actors.store.compressed import Compressor, make_known
from actors.store.contract import (
    ActorRow,
    Appended,
    AppendItem,
    AppendRefused,
    DueDeadline,
    GroupResult,
    IdempotencyKey,
    Keyed,
    Outcome,
    Token,
)
from actors.store.enrolments import Enrolments
from actors.store.folder import make_folder
from actors.store.locks import WriteTurn, library, process_started, translate, write_lock_holder
from actors.store.order_reads import OrderReads
from actors.store.replay import Replay
from actors.store.retention import Retention
from actors.store.schema import migrations
from actors.store.tallies import Meters
from actors.store.tokens import Tokens
from actors.store.webhooks import Webhooks

T = TypeVar("T")

# 16 MiB of log. A page that changes again and again goes into the file once for all of that: 400 sessions of 20 events
# a second waited 54 ms (p50) with the 1,000 pages that are SQLite's own, and 15 to 28 with these.
CHECKPOINT_PAGES = 4000
_SEEN = "(select value->>0 as sid, value->>1 as con from json_each(:seen)) as seen"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class SqliteStore(Webhooks, Retention, OrderReads, Replay, Enrolments, Appends, Tokens, Meters):
    """One connection. Not for two threads at once; open one per thread (worker.py does)."""

    def __init__(
        self, path: Path, connection: Any, turn: WriteTurn, policy: Policy, wall: Callable[[], int], guards: bool
    ) -> None:
        self._path, self._c, self._turn, self.policy, self._wall = path, connection, turn, policy, wall
        self._on_blocked = self._end_frozen_holder if guards else None
        self._sqlite = library()
        self._compressor, self._frames = Compressor(), {}
        make_known(connection)

    @classmethod
    def open(
        cls,
        path: Path,
        policy: Policy,
        *,
        checkpoints: bool = False,
        guards: bool = False,
        wall: Callable[[], int] = now_ms,
        synchronous: str = "FULL",
        connect: Callable[..., Any] | None = None,
    ) -> SqliteStore:
        """Opens or creates the file and migrates it.

        checkpoints and guards: only the gateway's writer says True (DESIGN §4). It alone checkpoints, and it ends a
        process of ours that froze inside its transaction and so blocks every writer.
        connect: another `sqlite3.connect`, for a disk that can be cut off; its errors are the library's.

        Errors: RuntimeError (the library is too old), StorageUnavailable, StorageBroken.
        """
        sqlite = library()
        make_folder(path.parent)
        connection = (connect or sqlite.connect)(str(path), timeout=0, isolation_level=None, check_same_thread=False)
        turn = WriteTurn(path.with_name("want.lock"))
        store = cls(path, connection, turn, policy, wall, guards)
        try:
            store._prepare(checkpoints, synchronous)
        except sqlite.Error as error:
            connection.close()
            raise translate(error) or error from error
        return store

    def _prepare(self, checkpoints: bool, synchronous: str) -> None:
        c = self._c
        # A new file's switch to WAL needs the file alone for a moment: wait for it, once, at birth.
        c.execute("pragma busy_timeout = 5000")
        if c.execute("pragma journal_mode").fetchone()[0] != "wal":
            c.execute("pragma journal_mode = wal")
        c.execute("pragma busy_timeout = 0")
        c.execute(f"pragma synchronous = {synchronous}")
        c.execute("pragma cache_size = -16384")
        c.execute("pragma temp_store = memory")
        c.execute(f"pragma wal_autocheckpoint = {CHECKPOINT_PAGES if checkpoints else 0}")
        names = {r[0] for r in c.execute("select name from sqlite_master where type = 'table'").fetchall()}
        if "sessions" not in names or len(migrations._migrations) > self._applied():
            self._migrate()

    def _applied(self) -> int:
        return int(self._c.execute("select count(*) from _sqlite_migrations").fetchone()[0])

    def _migrate(self) -> None:
        """One process migrates at a time: the others wait for its exclusive lock on the side file."""
        from sqlite_utils import Database

        self._turn.exclusively(lambda: migrations.apply(Database(self._c)))

    # ------------------------------------------------------------ transactions

    def _alone(self, work: Callable[[], T]) -> T:
        """One write transaction around `work`."""
        self._begin()
        try:
            result = work()
            self._c.execute("commit")
        except BaseException as error:
            self._rollback()
            raise self._ours(error) from error
        self._turn.ended()
        return result

    def _begin(self) -> None:
        self._turn.begin(self._c, self._sqlite.OperationalError, on_blocked=self._on_blocked)

    def _end_frozen_holder(self) -> bool:
        """Whoever holds the write lock for seconds is frozen. Only an actor or reaper that registered is ended."""
        pid = write_lock_holder(self._path)
        known = {(row.pid, row.pid_started) for row in self.actors_awake()}
        known |= set(self._c.execute("select pid, pid_started from reaper").fetchall())
        if pid is None or pid == os.getpid() or (pid, process_started(pid)) not in known:
            return False
        os.kill(pid, signal.SIGKILL)
        return True

    def _rollback(self) -> None:
        if self._c.in_transaction:
            self._c.execute("rollback")

    def _ours(self, error: BaseException) -> BaseException:
        if isinstance(error, self._sqlite.Error):
            return translate(error) or error
        return error

    def transact(self, request: Request, key: IdempotencyKey | None = None) -> Outcome:
        return self._alone(lambda: self.decide_in_transaction(request, key))

    def commit_group(self, jobs: Sequence[Request | Keyed | AppendItem]) -> GroupResult:
        with self.compressed(jobs):
            if items := _strangers(jobs):
                try:
                    return self._alone(lambda: self._whole(items))
                except _NotAllOfThem:
                    pass  # each by itself, in a savepoint of its own, shows which
            return self._alone(lambda: self._group(jobs))

    def _whole(self, items: Sequence[AppendItem]) -> GroupResult:
        """Most groups, and all of them as long as nobody is refused. The transaction is their savepoint: SQLite's own
        would copy every page that is touched, and its two statements are two hand-overs of the interpreter."""
        wall, service = self.wall_ms(), self.service_ms_now()
        try:
            done = self.append_together(items, wall, service)
        except Exception as error:
            if isinstance(self._ours(error), StorageError) or not self._c.in_transaction:
                raise
            done = None  # one of them is poisoned
        if done is None:
            raise _NotAllOfThem
        return GroupResult(tuple(done), wall)

    def _group(self, jobs: Sequence[Request | Keyed | AppendItem]) -> GroupResult:
        wall, service = self.wall_ms(), self.service_ms_now()
        results: list[Any] = []
        for items, job in _neighbours(jobs):
            if items:
                together = self._together(items, wall, service) if len(items) > 1 else None
                results += together or [self._job(item, wall, service) for item in items]
            if job is not None:
                results.append(self._job(job, wall, service))
        return GroupResult(tuple(results), wall)

    def _together(self, items: Sequence[AppendItem], wall: int, service: int) -> list[Appended] | None:
        c = self._c
        c.execute("savepoint together")
        try:
            done = self.append_together(items, wall, service)
        except Exception as error:
            if isinstance(self._ours(error), StorageError) or not c.in_transaction:
                raise  # the whole group: nothing of it happened
            done = None  # one of them is poisoned: alone, each shows which
        if done is None:
            c.execute("rollback to together")
        c.execute("release together")
        return done

    def _job(self, job: Request | Keyed | AppendItem, wall: int, service: int) -> Any:
        """One job in a savepoint of its own: its result, or the error that it alone met."""
        c = self._c
        c.execute("savepoint item")
        try:
            result: Any
            if isinstance(job, AppendItem):
                result = self.append_in_transaction(job, wall, service)
            elif isinstance(job, Keyed):
                result = self.decide_in_transaction(job.request, job.key)
            else:
                result = self.decide_in_transaction(job, None)
            if isinstance(result, AppendRefused):
                c.execute("rollback to item")
        except Exception as error:
            storage = self._ours(error)
            if isinstance(storage, StorageError) or not c.in_transaction:
                raise  # the whole group: nothing of it happened
            c.execute("rollback to item")
            result = storage if isinstance(storage, HoldfastError) else _internal(storage)
        c.execute("release item")
        return result

    def wall_ms(self) -> int:
        return self._wall()

    # ------------------------------------------------------------ clocks and registries

    def tick(self, gateway_id: str) -> int:
        return self._alone(lambda: self._tick(gateway_id))

    def _tick(self, gateway_id: str) -> int:
        now, step = self.wall_ms(), round(SERVICE_STEP_MAX_S * 1000)
        row = self._c.execute(
            "update service_clock set t_ms = t_ms + min(max(? - wall_ms, 0), ?), wall_ms = ? returning t_ms",
            (now, step, now),
        ).fetchall()
        if not self._c.execute("update gateways set seen_at_ms = ? where id = ?", (now, gateway_id)).rowcount:
            # Another process has taken our place, and ours would never be given back: every connect is refused, for
            # "this gateway is gone". (The data directory's lock should not let it come to this.)
            raise StorageBroken(f"gateway {gateway_id} is not registered any more")
        return int(row[0][0])

    def register_gateway(self, gateway_id: str, pid: int, pid_started: int, url: str) -> list[tuple[str, str]]:
        return self._alone(lambda: self._register_gateway(gateway_id, pid, pid_started, url))

    def _register_gateway(self, gateway_id: str, pid: int, pid_started: int, url: str) -> list[tuple[str, str]]:
        c, now = self._c, self.wall_ms()
        # A SQLite deployment has exactly one door (the data directory's lock): whoever else stands here is dead.
        c.execute("delete from gateways where id != ?", (gateway_id,))
        c.execute(
            "insert or replace into gateways values (?, ?, ?, ?, ?, ?)", (gateway_id, pid, pid_started, url, now, now)
        )
        found = c.execute(
            "select id, connection_id from sessions where link = 'connected' and gateway_id is not ?", (gateway_id,)
        ).fetchall()
        return [(r[0], r[1]) for r in found]

    def unregister_gateway(self, gateway_id: str) -> None:
        self._alone(lambda: self._c.execute("delete from gateways where id = ?", (gateway_id,)))

    def flush_seen(self, seen: Sequence[tuple[str, str, bool]]) -> None:
        def work() -> None:
            clocks = {"service": self.service_ms_now(), "wall": self.wall_ms()}
            # One statement for all (ADR 8): a statement for each held the writer for 30 ms at 400 of a busy gateway.
            self._c.execute(
                "update sessions set last_seen_service_ms = :service, last_seen_at_ms = :wall "
                f"from {_SEEN} where id = seen.sid and connection_id = seen.con and link = 'connected'",
                clocks | {"seen": rows.dumps([(sid, con) for sid, con, _ in seen])},
            )
            self._c.execute(
                "update executions set last_progress_service_ms = :service, last_progress_at_ms = :wall "
                f"from {_SEEN} join sessions as s on s.id = seen.sid and s.connection_id = seen.con "
                "where session_id = seen.sid and status = 'running' and s.link = 'connected'",
                clocks | {"seen": rows.dumps([(sid, con) for sid, con, progress in seen if progress])},
            )

        if seen:
            self._alone(work)

    def flush_node_seen(self, seen: Sequence[tuple[str, str, str]]) -> None:
        def work() -> None:
            self._c.execute(
                "update node_roles set last_seen_service_ms = :service, last_seen_at_ms = :wall "
                "from (select value->>0 as nid, value->>1 as role, value->>2 as con from json_each(:seen)) as seen "
                "where node_id = seen.nid and node_roles.role = seen.role and connection_id = seen.con "
                "and link = 'connected'",
                {"service": self.service_ms_now(), "wall": self.wall_ms(), "seen": rows.dumps(seen)},
            )

        if seen:
            self._alone(work)

    def retry_later(self, deadline: DueDeadline, after_s: float) -> None:
        def work() -> None:
            self._c.execute(
                "update deadlines set retry_ms = ? where session_id = ? and kind = ? and subject = ? and due_ms = ?",
                (
                    (self.wall_ms() if deadline.kind == "approval" else self.service_ms_now()) + round(after_s * 1000),
                    deadline.session_id,
                    deadline.kind,
                    deadline.subject,
                    deadline.due_ms,
                ),
            )

        self._alone(work)

    def reaper_beat(self, incarnation: str, pid: int, pid_started: int) -> None:
        self._alone(
            lambda: self._c.execute(
                "insert or replace into reaper values (1, ?, ?, ?, ?)", (incarnation, pid, pid_started, self.wall_ms())
            )
        )

    def register_actor(self, row: ActorRow) -> None:
        self._alone(
            lambda: self._c.execute(
                "insert or replace into actors values (?, ?, ?, ?, ?, ?)",
                (row.name, row.cluster, row.incarnation, row.pid, row.pid_started, self.wall_ms()),
            )
        )

    def forget_actor(self, name: str, incarnation: str) -> bool:
        return self._alone(
            lambda: bool(
                self._c.execute("delete from actors where name = ? and incarnation = ?", (name, incarnation)).rowcount
            )
        )

    def put_token(self, secret_hash: str, token: Token, by: str | None = None) -> None:
        self._alone(lambda: self._put_token(secret_hash, token, by))

    def revoke_token(self, token_id: str, by: str | None = None) -> str:
        found = self._alone(lambda: self._revoke_token(token_id, by))
        if found is None:  # said after the commit: the refusal is in the audit
            raise HoldfastError("token_not_found")
        return found

    def close(self) -> None:
        self._c.close()
        self._turn.close()


Jobs = Sequence[Request | Keyed | AppendItem]


class _NotAllOfThem(Exception):
    """Somebody is refused; nothing was written."""


def _strangers(jobs: Jobs) -> list[AppendItem] | None:
    """The jobs, if they are appends of as many sessions and nothing else."""
    items = [job for job in jobs if isinstance(job, AppendItem)]
    return items if len({item.session_id for item in items}) == len(jobs) else None


def _neighbours(jobs: Jobs) -> Iterator[tuple[list[AppendItem], Request | Keyed | None]]:
    """Runs of items of different sessions, and what stands behind each; the order of the jobs is kept."""
    run: list[AppendItem] = []
    sessions: set[str] = set()
    for job in jobs:
        if isinstance(job, AppendItem) and job.session_id not in sessions:
            run.append(job)
            sessions.add(job.session_id)
        else:
            yield run, None if isinstance(job, AppendItem) else job
            run = [job] if isinstance(job, AppendItem) else []
            sessions = {item.session_id for item in run}
    if run:
        yield run, None


def _internal(error: BaseException) -> HoldfastError:
    return HoldfastError("internal", f"{type(error).__name__}: {error}")


__all__ = ["SqliteStore", "StorageBroken", "now_ms"]
