"""B9: what a tick of the reaper costs when a hundred deadlines are due, among a thousand sessions and among a million.

The real reaper over the real store (synchronous=FULL) in this process, without sockets; its clock is walked. The
crowd are copies of one real session, each with a running execution and a deadline that is not due yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from actors.law import requests as rq
from actors.law.effects import Connected
from actors.law.model import Limits, Policy
from actors.mailbox import Mailbox, NoActors
from actors.objects import object_store
from actors.protocol.ids import ulid
from actors.reaper import Reaper
from actors.store.contract import Store
from actors.store.sqlite import SqliteStore
from actors.store.worker import StoreWorker
from tests.bench.figures import Benchmark, Figures, Target
from tests.bench.harness import Bench

SESSIONS_FEW, SESSIONS_MANY, DUE = 1000, 1_000_000, 100
GRACE_S = 30.0
POLICY = Policy(
    limits=Limits(pending_s=180, stale_s=1e8, grace_s=GRACE_S, hung_s=None, max_runtime_s=None, interrupt_s=20)
)


def measure(bench: Bench) -> Iterator[Figures]:
    many = max(20_000, round(SESSIONS_MANY * bench.scale))
    with contextlib.ExitStack() as stack:
        few = stack.enter_context(_town(bench, SESSIONS_FEW))
        crowded = stack.enter_context(_town(bench, many))
        for town in (few, crowded):
            town.tick()  # once without meaning: caches
        for _ in bench.each_run():
            small, large = few.tick(), crowded.tick()
            yield {
                "tick ms, 1,000 sessions": small,
                f"tick ms, {many:,} sessions": large,
                "of the small one": large / small,
            }


@contextlib.contextmanager
def _town(bench: Bench, sessions: int) -> Iterator[Town]:
    bench.say(f"a store with {sessions:,} sessions")
    town = Town(bench.folder / f"town-{sessions}", sessions)
    try:
        yield town
    finally:
        town.close()


class Town:
    def __init__(self, folder: Path, sessions: int) -> None:
        self.now_ms, self.path = 1_700_000_000_000, folder / "holdfast.db"
        store = self._open(synchronous="OFF")
        store.register_gateway("gw_1", 1, 1, "http://127.0.0.1:1")
        store.tick("gw_1")
        self._hire(store, "s0")
        _copy(store._c, sessions)
        assert store._c.execute("select count(*) from deadlines").fetchone()[0] >= sessions
        store._c.execute("pragma wal_checkpoint(truncate)")
        self._store, self._folder, self._wave = store, folder, 0

    def _open(self, synchronous: str = "FULL", checkpoints: bool = False) -> SqliteStore:
        return SqliteStore.open(
            self.path, POLICY, wall=lambda: self.now_ms, synchronous=synchronous, checkpoints=checkpoints
        )

    def _hire(self, store: SqliteStore, sid: str) -> None:
        """A session whose wrapper is connected and whose execution runs."""
        for made in (
            rq.CreateSession(session_id=sid, seed=ulid()),
            rq.Submit(session_id=sid, seed=ulid(), execution_id="e1"),
        ):
            store.transact(made)
        connection = f"con_{sid}"
        connected = store.transact(
            rq.Connect(
                session_id=sid,
                seed=ulid(),
                connection_id=connection,
                gateway_id="gw_1",
                wrapper_id="w_1",
                instance_id="i_1",
                attempt=1,
            )
        ).answer
        assert isinstance(connected, Connected)
        framed = {"connection_id": connection, "epoch": connected.epoch, "instance_id": "i_1"}
        store.transact(rq.Started(session_id=sid, seed=ulid(), **framed, execution_id="e1", seq=1, pid=1))

    def tick(self) -> float:
        """Milliseconds of a tick in which DUE graces end."""
        self._wave += 1
        names = [f"due-{self._wave}-{k}" for k in range(DUE)]
        for sid in names:
            self._hire(self._store, sid)
            self._store.transact(rq.Closed(session_id=sid, seed=ulid(), connection_id=f"con_{sid}", code=1006))
        for _ in range(round(GRACE_S) + 1):
            self.now_ms += 1000
            self._store.tick("gw_1")
        took_ms, changed = asyncio.run(self._swept())
        assert changed == DUE, f"{changed} of {DUE} deadlines fired"
        return took_ms

    async def _swept(self) -> tuple[float, int]:
        def broken(error: BaseException) -> None:
            raise error

        worker = StoreWorker(lambda: self._open(checkpoints=True), readers=1, on_broken=broken)
        await worker.start()
        reaper = Reaper(
            worker,
            Mailbox(worker.perform, NoActors()),
            incarnation="r",
            pid=1,
            pid_started=1,
            tick_s=1.0,
            retention_s=90 * 86400,
            on_outcome=lambda outcome: None,
            objects=object_store(None),
        )
        await worker.read(Store.reaper_age_ms)  # the readers' first look at the file is not the tick's
        began = time.perf_counter()
        changed = await reaper.tick()
        took_ms = (time.perf_counter() - began) * 1000
        await worker.close()
        return took_ms, changed

    def close(self) -> None:
        self._store.close()


def _copy(c: Any, sessions: int) -> None:
    """s0 again and again, under other names; its deadlines are moved far away."""
    c.execute("begin immediate")
    c.execute("create temp table n (n integer primary key)")
    c.execute(
        "insert into n with recursive up(n) as (select 1 union all select n + 1 from up where n < ?) select n from up",
        (sessions - 1,),
    )
    for table, key in (("sessions", "id"), ("executions", "session_id"), ("deadlines", "session_id")):
        columns = [row[1] for row in c.execute(f"pragma table_info({table})").fetchall()]
        far = "due_ms + 86400000 * 365", "retry_ms + 86400000 * 365"
        chosen = ["'copy-' || n.n" if name == key else name for name in columns]
        if table == "deadlines":
            chosen = [
                {"due_ms": far[0], "retry_ms": far[1]}.get(name, text)
                for name, text in zip(columns, chosen, strict=True)
            ]
        c.execute(f"insert into {table} select {', '.join(chosen)} from {table}, n where {table}.{key} = 's0'")
    c.execute("drop table n")
    c.execute("commit")


BENCHMARK = Benchmark(
    "B9",
    "reaper tick: 1,000,000 sessions in the store, 100 due",
    measure,
    (Target("of the small one", "≤", 1.5),),
    "with what is due, and with the logarithm of the sessions",
)
