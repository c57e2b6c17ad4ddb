"""One turn of the reaper: everything that is due gets its own transition, and one failure is one failure (G8)."""

from __future__ import annotations

from actors.law.requests import Request
from actors.mailbox import Mailbox, NoActors
from actors.protocol.errors import StorageUnavailable
from actors.reaper import sweep_due
from actors.store.contract import IdempotencyKey, Outcome
from actors.store.worker import StoreWorker
from tests.world import World


async def test_a_sweep_that_fails_keeps_no_other_from_its_turn_and_is_tried_again(world: World) -> None:
    for session_id in ("s1", "s2", "s3"):
        world.running("e1", session_id)
        world.closed(f"con_{session_id}")
    world.walk(30, sweep=False)
    worker = StoreWorker(world.another_process, readers=1, on_broken=lambda error: None)
    await worker.start()
    failing = {"s2"}

    async def local(request: Request, key: IdempotencyKey | None) -> Outcome:
        if request.session_id in failing:
            raise StorageUnavailable("full")
        return await worker.perform(request, key)

    mailbox = Mailbox(local, NoActors())
    assert await sweep_due(worker, mailbox.perform) == 2
    assert [world.status("e1", sid) for sid in ("s1", "s2", "s3")] == ["failed", "running", "failed"]
    assert await sweep_due(worker, mailbox.perform) == 0, "it waits for its retry"
    failing.clear()
    world.walk(2, sweep=False)
    assert await sweep_due(worker, mailbox.perform) == 1
    assert world.outcome("e1", "s2")["cause"] == "disconnected"
    await worker.close()
