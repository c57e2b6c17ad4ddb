"""Commit first, speak second: what is told to wrappers and watchers stands in the store, and trouble stays where it is
(DESIGN §1, G1, G10, G12). The store is the real one; where it fails, SQLite itself refuses.
"""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

from actors.config import Settings
from actors.gateway.connection import Connection
from actors.gateway.door import Door
from actors.law.requests import Closed, Request
from actors.mailbox import Mailbox, NoActors
from actors.objects import object_store
from actors.protocol.errors import StorageUnavailable
from actors.protocol.ids import ulid
from actors.store.contract import IdempotencyKey, Outcome
from actors.store.worker import StoreWorker
from tests.gateway.house import House, eventually, output, texts
from tests.world import World


async def test_nothing_is_acknowledged_or_shown_before_its_commit(house: House) -> None:
    """The group fails at its commit. So whatever anybody heard of it was said too early."""
    wrapper, watcher = await house.running(), await house.watch()
    await watcher.hear("caught_up")
    head = (await house.events())[-1]["seq"]
    release = threading.Event()

    def hold_and_fill(store: Any) -> None:
        release.wait(30)
        pages = store._c.execute("pragma page_count").fetchone()[0]
        store._c.execute(f"pragma max_page_count = {pages}")

    held = asyncio.ensure_future(house.worker.write(hold_and_fill))
    try:
        await wrapper.say(output(2, *["x" * 2000] * 50))
        await eventually(lambda: house.worker.depth)
    finally:
        release.set()
        await held
    assert (await wrapper.closed())[0] == 1013
    assert [f["seq"] for f in wrapper.heard if f["type"] == "ack"] == [1]
    await house.worker.write(lambda store: store._c.execute("pragma max_page_count = 1000000").fetchone())
    shown = await watcher.stored(upto=head + 1)  # whatever the watcher was shown too early comes before this
    assert [e["type"] for e in shown] == ["wrapper.disconnected"]

    report = {"execution_id": "e", "state": "running", "first_seq": 1, "last_seq": 51, "final": None}
    again = await house.wrapper(attempt=2, executions=[report])
    assert again.hello_ack["executions"][0]["acked_seq"] == 1
    await again.say(output(2, "committed"))
    await again.acked(2)
    stored = await house.events(after_seq=head)
    shown += await watcher.stored(upto=stored[-1]["seq"])
    assert [(e["seq"], e["type"]) for e in shown] == [(e["seq"], e["type"]) for e in stored]
    assert texts(shown) == ["committed"]
    await again.close()


async def test_after_a_storage_error_nothing_more_is_acknowledged(house: House) -> None:
    """Two items of one group: the first commits, the second meets an error of SQLite in its savepoint."""
    wrapper = await house.running()
    release = threading.Event()

    def hold_and_break(store: Any) -> None:
        """The second item's event finds no place: a store that is not sound."""
        release.wait(30)
        store._c.execute(
            "create temp trigger stray before insert on fresh when new.exec_seq = 3 "
            "begin select raise(abort, 'no place'); end"
        )

    held = asyncio.ensure_future(house.worker.write(hold_and_break))
    gap = {"type": "gap", "execution_id": "e", "seq": 3, "to_seq": 4, "bytes": 9, "reason": "trimmed"}
    try:
        await wrapper.say(output(2, "a"), gap)
        await eventually(lambda: house.worker.depth == 2, what="two items wait for the writer")
    finally:
        release.set()
        await held
    assert (await wrapper.closed())[0] == 1013
    kinds = [f["type"] for f in wrapper.heard]
    assert "error" in kinds and "ack" not in kinds[kinds.index("error") :]
    await house.worker.write(lambda store: store._c.execute("drop trigger stray"))

    report = {"execution_id": "e", "state": "running", "first_seq": 2, "last_seq": 4, "final": None}
    again = await house.wrapper(attempt=2, executions=[report])
    assert again.hello_ack["executions"][0]["acked_seq"] == 2, "what stands is told in the next hello_ack"
    await again.close()


class Told:
    """A wire that keeps what is sent, or has come to an end of its own."""

    def __init__(self, *, torn: bool = False) -> None:
        self.torn, self.sent = torn, list[bytes]()

    def send(self, text: bytes) -> None:
        if self.torn:
            raise OSError("torn")
        self.sent.append(text)


async def test_a_connection_that_fails_after_a_group_keeps_no_other_from_its_acks(house: House) -> None:
    door = house.gateway.door
    wires = [Told(torn=True), Told()]
    for wire in wires:
        connection = Connection(door, wire, "s", None)  # type: ignore[arg-type]
        line = connection._line("e")
        line.committed(7)
        connection._owe("e", line)
        door.dirty[connection] = None
    door.after_group()
    assert wires[1].sent == [b'{"type":"ack","execution_id":"e","seq":7}']
    assert not door.dirty


async def test_what_is_done_at_the_end_of_a_turn_is_done_for_all_whatever_one_of_them_meets(house: House) -> None:
    done: list[str] = []

    def breaks() -> None:
        done.append("breaks")
        house.gateway.door.soon(lambda: done.append("next turn"))
        raise RuntimeError("planted")

    house.gateway.door.soon(breaks)
    house.gateway.door.soon(lambda: done.append("the other"))
    assert not done
    await asyncio.sleep(0)
    assert done == ["breaks", "the other"]
    await asyncio.sleep(0)
    assert done[2:] == ["next turn"]


async def test_a_close_that_a_failing_store_did_not_hear_is_told_again(world: World, tmp_path: Path) -> None:
    world.running()
    worker = StoreWorker(world.another_process, readers=1, on_broken=lambda error: None)
    await worker.start()
    failures: list[Exception] = [StorageUnavailable("full"), RuntimeError("a bug of ours")]

    async def local(request: Request, key: IdempotencyKey | None) -> Outcome:
        if failures:
            raise failures.pop()
        return await worker.perform(request, key)

    door = Door(
        Settings(port=0, data_dir=tmp_path),
        worker,
        Mailbox(local, NoActors()),
        object_store(None),
        gateway_id="gw_1",
        now=time.monotonic,
        wall_ms=lambda: world.now_ms,
    )
    door.report_closed(Closed(session_id="s", seed=ulid(), connection_id="con_1", code=1006, error="cut"))
    await door.settle(within_s=20)
    assert not failures and world.link() == "grace"
    assert world.types()[-1] == "wrapper.disconnected"
    await worker.close()
