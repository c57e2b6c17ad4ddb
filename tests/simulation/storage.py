"""The real store on SQLite in memory, one connection for all simulated processes, and the real worker without threads.

A transaction runs whole inside one step, as SQLite serializes writers. A crash is before it (it never ran) or after it
(it is committed and nobody was told). Errors come at a statement of our choice, and the real code rolls back.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.law.model import Policy
from actors.protocol.errors import StorageUnavailable
from actors.store.locks import library
from actors.store.sqlite import SqliteStore
from actors.store.worker import READ_QUEUE, StoreWorker
from tests.each_event import readable
from tests.simulation.kernel import US, Kernel, Process, _answer

if TYPE_CHECKING:
    from tests.simulation.invariants import Watchman

sqlite = library()
FULL = 13
# What no transaction may ever do, said where every statement passes. In a temporary table, so that a rollback of the
# statement takes the accusation with it.
GUARDS = """
create temp table violated (guarantee text, what text);
create temp trigger events_stay before update on main.events
  begin insert into violated values ('G1', 'an event was changed: ' || old.session_id || ' ' || old.seq); end;
create temp trigger events_are_kept before delete on main.events
  when (select deleted_at_ms from main.sessions where id = old.session_id) is null
  begin insert into violated values ('G1', 'an event was deleted: ' || old.session_id || ' ' || old.seq); end;
create temp trigger words_stay before update on main.runs
  begin insert into violated values ('G1', 'the words of run ' || old.id || ' were changed'); end;
create temp trigger words_are_kept before delete on main.runs
  when exists (select 1 from main.events e join main.sessions s on s.id = e.session_id
    where e.run_id = old.id and s.deleted_at_ms is null)
  begin insert into violated values ('G1', 'the words of run ' || old.id || ' were deleted'); end;
create temp trigger fresh_stay before update on main.fresh
  begin insert into violated values ('G1', 'an event was changed: ' || old.session_id || ' ' || old.seq); end;
create temp trigger fresh_are_kept before delete on main.fresh
  when exists (select 1 from main.hot h where h.session_id = old.session_id and old.seq > h.last_seq - h.fresh)
  begin insert into violated values ('G1', 'an event was deleted: ' || old.session_id || ' ' || old.seq); end;
create temp trigger hot_marks_grow before update on main.hot
  when new.acked_seq < old.acked_seq or new.last_seq < old.last_seq
  begin insert into violated values ('G1', 'the numbers of ' || old.session_id || ' fell'); end;
create temp trigger terminal_is_absorbing before update of status on main.executions
  when old.status in ('completed', 'failed', 'interrupted') and new.status is not old.status
  begin insert into violated values ('G4', old.id || ' went from ' || old.status || ' to ' || new.status); end;
create temp trigger interrupts_stay before update of interrupt_id on main.executions
  when old.interrupt_id is not null and new.interrupt_id is not old.interrupt_id
  begin insert into violated values ('G7', 'the interrupt of ' || old.id || ' was lost'); end;
create temp trigger force_stays before update of interrupt_force on main.executions
  when old.interrupt_force and not new.interrupt_force
  begin insert into violated values ('G7', 'the force of the interrupt of ' || old.id || ' was lost'); end;
create temp trigger marks_grow before update of acked_seq on main.executions when new.acked_seq < old.acked_seq
  begin insert into violated values ('G1', 'acked_seq of ' || old.id || ' fell'); end;
create temp trigger heads_grow before update of last_seq on main.sessions when new.last_seq < old.last_seq
  begin insert into violated values ('G1', 'last_seq of ' || old.id || ' fell'); end;
create temp trigger epochs_grow before update of connection_epoch on main.sessions
  when new.connection_epoch < old.connection_epoch
  begin insert into violated values ('G6', 'the epoch of ' || old.id || ' fell'); end;
create temp trigger service_time_stays before update of t_ms on main.service_clock
  when new.t_ms < old.t_ms or new.t_ms > old.t_ms + 3000
  begin insert into violated values ('G8', 'service time went from ' || old.t_ms || ' to ' || new.t_ms); end;
"""

_template: Any = None


def _blank() -> Any:
    """A migrated, empty store, made once in this process."""
    global _template
    if _template is None:
        _template = sqlite.connect(":memory:", isolation_level=None, check_same_thread=False)
        store = SqliteStore(Path("memory"), _template, _Turn(), None, lambda: 0, False)  # type: ignore[arg-type]
        store._migrate()
    return _template


class _Turn:
    """WriteTurn of a world in which writers are serialized by the scheduler."""

    def begin(self, connection: Any, error: type[Exception], give_up_s: float = 0, on_blocked: Any = None) -> None:
        connection.execute("begin immediate")

    def ended(self) -> None:
        return

    def exclusively(self, work: Callable[[], object]) -> None:
        work()

    def close(self) -> None:
        return


class Disk:
    """The database that survives every process of the service."""

    def __init__(self, kernel: Kernel, policy: Policy, made: type[SimStore]) -> None:
        self.kernel, self.policy, self._made = kernel, policy, made
        self.wall_offset_us = 0
        self.commits = 0  # by anybody
        self.connection: Any = None
        self._copy: Any = None
        self.load(_blank())

    def load(self, source: Any) -> None:
        self.connection = sqlite.connect(
            ":memory:", isolation_level=None, check_same_thread=False, factory=_Connection, cached_statements=512
        )
        source.backup(self.connection)
        self.connection.executescript(GUARDS)
        readable(self.connection)

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + (self.kernel.now + self.wall_offset_us) // 1000

    def store(self, process: str) -> SimStore:
        return self._made(self, process)

    def take_copy(self) -> None:
        self._copy = sqlite.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.connection.backup(self._copy)

    @property
    def has_copy(self) -> bool:
        return self._copy is not None

    def go_back(self) -> None:
        assert self._copy is not None
        self.load(self._copy)


class _Connection(sqlite.Connection):  # type: ignore[misc]
    """Has a __dict__, so that a fault can stand in front of `execute` for one statement, and costs nothing else."""


class SimStore(SqliteStore):
    """The real statements. Each process has one, and may not outlive a restored backup."""

    def __init__(self, disk: Disk, process: str) -> None:
        super().__init__(Path("memory"), disk.connection, _Turn(), disk.policy, disk.wall_ms, False)  # type: ignore[arg-type]
        self._disk, self._process = disk, process
        self._seen_commits = -1
        self._own = 0

    def _alone(self, work: Callable[[], Any]) -> Any:
        result = super()._alone(work)
        self._disk.commits += 1
        self._own += 1
        return result

    def changed(self) -> bool:
        """Whether *another* connection has committed: here the connection is one, so it is counted by hand."""
        others = self._disk.commits - self._own
        moved, self._seen_commits = others != self._seen_commits, others
        return moved

    def close(self) -> None:
        return

    def fail_at(self, statement: int, rolled_back: bool) -> None:
        """The disk is full at the n-th statement from now, once; SQLite may have rolled back by itself."""
        c, left = self._c, statement
        plain = type(c).execute

        def execute(sql: str, *args: Any) -> Any:
            nonlocal left
            left -= sql == "begin immediate" or left < statement  # a transaction that only reads needs no room
            if left > 0 or sql.startswith(("rollback", "release")):
                return plain(c, sql, *args)
            del c.execute
            if rolled_back and c.in_transaction:
                plain(c, "rollback")
            error = sqlite.OperationalError("database or disk is full")
            error.sqlite_errorcode, error.sqlite_errorname = FULL, "SQLITE_FULL"
            raise error

        c.execute = execute

    def mended(self) -> None:
        self._c.__dict__.pop("execute", None)


class SimWorker(StoreWorker):
    """The real worker: its queue, its groups, its errors, its telling. Only the threads are the scheduler's."""

    def __init__(self, process: Process, disk: Disk, watchman: Watchman) -> None:
        super().__init__(lambda: disk.store(process.name), readers=0, on_broken=self._broke)
        self.process, self.disk, self.watchman = process, disk, watchman
        self.kernel = process.kernel
        self.store = disk.store(process.name)
        self._loop = process
        self._busy = False
        self.doom: str | None = None  # before or after the next commit, this process ends
        self.fail_next: list[tuple[int, bool]] = []  # statement, rolled back by SQLite; 0: somebody holds the lock
        self.reads_fail = 0
        self.slow_until = 0  # the disk takes its time

    def _broke(self, error: BaseException) -> None:
        self.kernel.said(self.process.name, f"! the storage broke: {error}")
        self.process.crash()

    async def start(self) -> None:
        return

    async def close(self) -> None:
        return

    def _put(self, job: Any, done: Any) -> None:
        super()._put(job, done)
        if not self._busy and self._jobs:
            self._busy = True
            self.kernel.after(self._latency(), self._work)

    def _work(self) -> None:
        process = self.process
        if not process.alive:
            self.kernel.steps -= 1
            return
        if process.frozen:  # its thread is, too; it holds no lock, because a transaction is one step
            process.kernel.after(US // 5, self._work)
            self.kernel.steps -= 1
            return
        if not self._jobs:
            self._busy = False
            return
        if self.doom == "before":
            self.doom = None
            self.kernel.said(process.name, "! dies before its commit")
            process.crash()
            return
        results = self._commit(self._take())
        if self.doom == "after":
            self.doom = None
            self.kernel.said(process.name, "! dies after its commit, and tells nobody")
            process.crash()
            return
        rng = self.kernel.rng.random()
        if rng < 0.06:
            self.kernel.after(int(rng * 2 * US), self._tell_later, results)
        else:
            self._settle(results)
            self._go_on()

    def _tell_later(self, results: Any) -> None:
        if self.process.alive:
            self._settle(results)
            self._go_on()

    def _go_on(self) -> None:
        self._busy = bool(self._jobs)
        if self._busy:
            self.kernel.after(self._latency(), self._work)

    def _latency(self) -> int:
        if self.slow_until > self.kernel.now and not self.kernel.calm:
            return int(US * self.kernel.rng.random())
        return self.kernel.latency(300, US // 2, 0.03)

    def _commit(self, batch: list[Any]) -> list[Any]:
        watchman = self.watchman
        fault = self.fail_next.pop(0) if self.fail_next else None
        if fault is not None and fault[0] == 0:
            error = StorageUnavailable("SQLITE_BUSY: database is locked")
            self._count(error)
            watchman.storage_failed(self.process, batch)
            return [(done, error) for _, done in batch]
        before = watchman.before_commit(batch)
        if fault is not None:
            self.store.fail_at(*fault)
        failed_before = self.storage_errors["unavailable"]
        results = self._run(self.store, batch)
        self.store.mended()
        if self.storage_errors["unavailable"] != failed_before:
            watchman.storage_failed(self.process, batch)
        watchman.after_commit(self.process, batch, [result for _, result in results], before)
        return results

    async def read(self, fn: Callable[[Any], Any]) -> Any:
        if len(self._reads.queue) >= READ_QUEUE:
            raise StorageUnavailable("too many reads are waiting")
        future = self.process.create_future()
        slow = self.kernel.rng.random()
        if slow < 0.02:
            self.kernel.after(int(slow * 5 * US), self._read_now, fn, future)
        else:
            self._read_now(fn, future)
        return await future

    def _read_now(self, fn: Callable[[Any], Any], future: Any) -> None:
        if not self.process.alive:
            return
        result = error = None
        try:
            if self.reads_fail:
                self.reads_fail -= 1
                raise StorageUnavailable("SQLITE_BUSY: database is locked")
            result = fn(self.store)
        except Exception as raised:
            error = self._ours(raised)
        if self.process.alive:
            self.process.call_soon(_answer, future, result, error)
