"""The store's threads: one group for all who wait, order kept, errors told to those whom they concern."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from actors.law import requests as rq
from actors.law.effects import Connected
from actors.protocol.errors import HoldfastError, StorageBroken, StorageUnavailable
from actors.protocol.ids import ulid
from actors.store.contract import Appended, AppendItem, AppendRefused, EncodedEvent
from actors.store.sqlite import SqliteStore
from actors.store.worker import StoreWorker
from tests.world import World


@pytest.fixture
async def worker(world: World):  # type: ignore[no-untyped-def]
    made = StoreWorker(world.another_process, on_broken=lambda e: None)
    await made.start()
    yield made
    await made.close()


async def running(worker: StoreWorker, sid: str) -> int:
    await worker.perform(rq.CreateSession(session_id=sid, seed=ulid()))
    await worker.perform(rq.Submit(session_id=sid, seed=ulid(), execution_id="e1"))
    outcome = await worker.perform(
        rq.Connect(
            session_id=sid,
            seed=ulid(),
            connection_id=f"c_{sid}",
            gateway_id="gw_1",
            wrapper_id="w",
            instance_id="i",
            attempt=1,
        )
    )
    assert isinstance(outcome.answer, Connected)
    epoch = outcome.answer.epoch
    await worker.perform(
        rq.Started(session_id=sid, seed=ulid(), connection_id=f"c_{sid}", epoch=epoch, execution_id="e1", seq=1)
    )
    return epoch


def item(sid: str, epoch: int, seq: int, n: int = 1) -> AppendItem:
    return AppendItem(sid, f"c_{sid}", epoch, "e1", seq, n, (EncodedEvent("output", 1, "{}"),) * n)


async def test_one_group_serves_everybody_and_results_come_in_order(worker: StoreWorker) -> None:
    epochs = {f"s{i}": await running(worker, f"s{i}") for i in range(20)}
    told: list[Any] = []
    groups: list[int] = []
    worker.after_group = lambda: groups.append(len(told))
    before = worker.groups
    for k in range(50):
        for sid, epoch in epochs.items():
            worker.append(item(sid, epoch, 2 + k), lambda r, s=sid: told.append((s, r)))
    while len(told) < 1000:
        await asyncio.sleep(0)
    assert all(isinstance(r, Appended) for _, r in told)
    assert [r.acked_seq for s, r in told if s == "s3"] == list(range(2, 52))
    assert worker.groups - before < 200, "many items, few commits"
    assert groups[-1] == 1000 and groups == sorted(groups)


async def test_transitions_and_appends_keep_their_order(worker: StoreWorker) -> None:
    epoch = await running(worker, "s")
    told: list[Any] = []
    worker.append(item("s", epoch, 2, 500), told.append)
    final = worker.perform(
        rq.Final(
            session_id="s",
            seed=ulid(),
            connection_id="c_s",
            epoch=epoch,
            execution_id="e1",
            seq=502,
            status="completed",
        )
    )
    task = asyncio.ensure_future(final)
    await asyncio.sleep(0)
    worker.append(item("s", epoch, 503), told.append)
    await task
    while len(told) < 2:
        await asyncio.sleep(0)
    assert isinstance(told[0], Appended) and told[1] == AppendRefused("terminal", acked_seq=502)
    page = await worker.read(lambda store: store.page("s", 0, 1000))
    assert page.types[-1] == "execution.completed" and len(page.seqs) == 504


async def test_a_transition_of_ours_that_breaks_takes_nobody_with_it(worker: StoreWorker) -> None:
    epoch = await running(worker, "s")
    bad = rq.Submit(session_id="s", seed=ulid(), execution_id="e9", input=float("nan"))  # cannot be encoded
    told: list[Any] = []
    broken = asyncio.ensure_future(worker.perform(bad))
    await asyncio.sleep(0)
    worker.append(item("s", epoch, 2), told.append)
    with pytest.raises(Exception, match="internal"):
        await broken
    while not told:
        await asyncio.sleep(0)
    assert isinstance(told[0], Appended)


class Faulty(SqliteStore):
    """The real store with a disk that fails when it is told to."""

    fault: Exception | None = None

    def commit_group(self, jobs: Any) -> Any:
        if Faulty.fault is not None:
            raise Faulty.fault
        return super().commit_group(jobs)


async def test_a_full_disk_acknowledges_nothing_and_goes_on_afterwards(world: World) -> None:
    worker = StoreWorker(lambda: Faulty.open(world.path, world.policy), readers=1, on_broken=lambda e: None)
    await worker.start()
    epoch = await running(worker, "s")
    Faulty.fault = StorageUnavailable("full")
    try:
        told: list[Any] = []
        worker.append(item("s", epoch, 2), told.append)
        with pytest.raises(StorageUnavailable):
            await worker.perform(rq.Submit(session_id="s", seed=ulid(), execution_id="e2"))
        assert [type(r) for r in told] == [StorageUnavailable]
    finally:
        Faulty.fault = None
    worker.append(item("s", epoch, 2), told.append)
    while len(told) < 2:
        await asyncio.sleep(0)
    assert told[1] == Appended(4, 1, 2)
    await worker.close()


async def test_a_broken_disk_is_told_to_whoever_ends_the_process(world: World) -> None:
    broken: list[BaseException] = []
    worker = StoreWorker(lambda: Faulty.open(world.path, world.policy), readers=1, on_broken=broken.append)
    await worker.start()
    Faulty.fault = StorageBroken("fsync failed")
    try:
        with pytest.raises(StorageBroken):
            await worker.perform(rq.CreateSession(session_id="s", seed=ulid()))
        assert [str(e) for e in broken] == ["internal: fsync failed"]
    finally:
        Faulty.fault = None
        await worker.close()


async def test_closing_commits_what_was_queued(world: World, tmp_path: Path) -> None:
    worker = StoreWorker(world.another_process, readers=1, on_broken=lambda e: None)
    await worker.start()
    epoch = await running(worker, "s")
    told: list[Any] = []
    for k in range(100):
        worker.append(item("s", epoch, 2 + k), told.append)
    await worker.close()
    assert int(world.store.execution("s", "e1")["acked_seq"]) == 101
    worker.append(item("s", epoch, 102), told.append)
    await asyncio.sleep(0)
    assert isinstance(told[-1], StorageUnavailable) or len(told) <= 101


async def test_an_error_that_nobody_foresaw_comes_as_one_of_ours_and_everybody_is_told(world: World) -> None:
    worker = StoreWorker(lambda: Faulty.open(world.path, world.policy), readers=1, on_broken=lambda e: None)
    await worker.start()
    epoch = await running(worker, "s")
    Faulty.fault = RuntimeError("out of nowhere")
    told: list[Any] = []

    def bad(result: Any) -> None:
        told.append(result)
        raise AttributeError("a bug in the answer's handling")

    worker.append(item("s", epoch, 2), bad)
    worker.append(item("s", epoch, 3), told.append)
    try:
        with pytest.raises(HoldfastError, match="out of nowhere"):
            await worker.perform(rq.Submit(session_id="s", seed=ulid(), execution_id="e2"))
    finally:
        Faulty.fault = None
    assert [r.code for r in told] == ["internal", "internal"]
    await worker.close()


async def test_a_reader_that_meets_a_broken_file_says_so(world: World) -> None:
    broken: list[BaseException] = []
    worker = StoreWorker(world.another_process, readers=1, on_broken=broken.append)
    await worker.start()

    def read(store: Any) -> None:
        raise store._sqlite.DatabaseError("database disk image is malformed")

    with pytest.raises(StorageBroken):
        await worker.read(read)
    assert len(broken) == 1
    await worker.close()


def test_a_frozen_sign_stops_nobody(world: World) -> None:
    """A process stopped between trying the sign and taking it down holds it exclusively."""
    fd = os.open(world.path.with_name("want.lock"), os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    writer = world.another_process()
    writer._begin()
    writer._c.execute("commit")
    other = world.another_process()
    writer._begin()
    began = time.monotonic()
    with pytest.raises(StorageUnavailable):
        other.transact(rq.CreateSession(session_id="x", seed=ulid()))
    assert time.monotonic() - began < 10
    writer._rollback()
    assert other.transact(rq.CreateSession(session_id="x", seed=ulid())).status == 201
    os.close(fd)


async def test_told_waits_for_the_group_that_the_writer_is_at(world: World) -> None:
    entered, goes_on = threading.Event(), threading.Event()

    def held() -> SqliteStore:
        store = world.another_process()
        commit = store.commit_group

        def slowly(jobs: Any) -> Any:
            done = commit(jobs)
            entered.set()
            assert goes_on.wait(10)
            return done

        store.commit_group = slowly  # type: ignore[method-assign]
        return store

    goes_on.set()
    worker = StoreWorker(held, on_broken=lambda e: None)
    await worker.start()
    epoch = await running(worker, "s")
    await asyncio.wait_for(worker.told(), 10)  # nothing is on its way
    entered.clear()
    goes_on.clear()
    order: list[str] = []
    worker.append(item("s", epoch, 2), lambda _: order.append("the group"))
    worker.after_group = lambda: order.append("what comes after it")
    assert await asyncio.to_thread(entered.wait, 10), "committed, and a read would find it"
    waits = [asyncio.create_task(worker.told()) for _ in range(2)]
    gives_up = asyncio.create_task(worker.told())
    await asyncio.sleep(0)
    gives_up.cancel()
    for one in waits:
        one.add_done_callback(lambda _: order.append("who waited"))
    goes_on.set()
    await asyncio.wait_for(asyncio.gather(*waits), 10)
    await asyncio.wait_for(worker.told(), 10)
    assert order == ["the group", "what comes after it", "who waited", "who waited"]
    await worker.close()


async def test_who_waits_for_a_group_hears_of_it_also_when_its_answers_fail(worker: StoreWorker) -> None:
    def fails() -> None:
        raise RuntimeError("a bug in what comes after a group")

    worker.after_group = fails
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)
    try:
        epoch = await running(worker, "s")
        worker.append(item("s", epoch, 2), lambda _: None)
        await worker.perform(rq.CreateSession(session_id="t", seed=ulid()))
        await asyncio.wait_for(worker.told(), 10)
    finally:
        loop.set_exception_handler(None)
