"""Orders, stations, law, store and model devices together, seeded: everybody at once, and every kind of loss.

To the storms of nodes (test_nodes_composition.py) come operators who dispatch, adjust, recall, cancel, pause and move
targets, collectors whose phones try again, stations that are bound elsewhere, and words to devices that get lost. The
rules hold after every transaction; in the end, with a good line, every device has dropped what it was to drop.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.law.effects import NodeNoticed, Refuse, Show, Speech
from actors.law.nodes import requests as nq
from actors.law.orders import requests as oq
from actors.protocol.ids import ulid
from actors.store.contract import IdempotencyKey, TaskFilter
from tests.order_world import OrderWorld, wish
from tests.store.test_nodes_composition import Chaos

STEPS = 200


class Orders(Chaos):
    world: OrderWorld

    def __init__(self, world: OrderWorld, seed: int) -> None:
        super().__init__(world, seed)
        self.orders: list[str] = []
        self.batches: list[tuple[str, str]] = []  # order, batch
        self.finalized: dict[str, int] = {}
        for k, node_id in enumerate(self.devices):
            world.station(f"st{k}", f"col{k}", node_id)
        self.another_order()

    # ------------------------------------------------------------ who does what

    def step(self) -> None:
        chance = self.rng.random()
        if chance < 0.65:
            super().step()
            return
        if chance < 0.75:
            self.good_hour(self.rng.choice(list(self.devices)))
            return
        moves: list[tuple[int, Callable[[], Any]]] = [
            (24, self.dispatch),
            (14, self.adjust),
            (14, self.complete),
            (14, self.target),
            (6, self.pause),
            (3, lambda: self.ask(oq.RecallBatch(**self.of_batch()))),
            (2, lambda: self.ask(oq.ChangeBatch(**self.of_batch()))),
            (2, lambda: self.ask(oq.ChangeOrder(order_id=self.orders[-1], seed=ulid(), status="cancelled"))),
            (6, self.another_order),
            (2, self.rebind),
            (1, lambda: self.ask(oq.DeleteBatch(**self.of_batch()))),
        ]
        weights, does = zip(*moves, strict=True)
        self.rng.choices(does, weights)[0]()
        self.check()

    def good_hour(self, node_id: str) -> None:
        """Somebody stands by the device and gets something done, as far as the line lets them."""
        self.come_back(node_id)
        for _ in range(6):
            self.operate(node_id)
            self.fetch(node_id, "recorder")
            self.report(node_id)
            self.fetch(node_id, "transfer")
            self.upload(node_id)
            self.check()

    def hear_speech(self, speech: Speech) -> None:
        """The word is carried at once, late, or never: then the deadline does it."""
        super().hear_speech(speech)
        if isinstance(speech, NodeNoticed):
            take = nq.TakeNotice(node_id=speech.node_id, notice_id=speech.notice_id, seed=ulid())
            fate = self.rng.random()
            if fate < 0.6:
                self.ask(take)
            elif fate < 0.8:
                self.ghosts.append(take)

    def tasks(self, node_id: str) -> list[tuple[str, str]]:
        """Operators look at what is open, and of that mostly at what has begun."""
        return [t for t in super().tasks(node_id) if t[1] != "cancelled"]

    def another_order(self) -> None:
        """When the last one has ended."""
        if self.orders and self.world.store.order(self.orders[-1])["status"] not in ("completed", "cancelled"):
            return
        self.counter += 1
        self.orders.append(f"o{self.counter}")
        policy: Any = self.rng.choice(("rows", "live"))
        target = self.rng.randint(3, 9)
        request = oq.CreateOrder(order_id=self.orders[-1], seed=ulid(), target_count=target, quota_policy=policy)
        self.world.store.transact(request)

    def of_batch(self) -> dict[str, Any]:
        order_id, batch_id = self.rng.choice(self.batches[-4:]) if self.batches else (self.orders[-1], "none")
        return {"order_id": order_id, "batch_id": batch_id, "seed": ulid()}

    def dispatch(self) -> None:
        self.counter += 1
        order_id, batch_id = self.rng.choice(self.orders[-2:]), f"b{self.counter}"
        sops = self.rng.sample(["pour", "cut"], self.rng.randint(1, 2))
        wishes = tuple(wish(self.rng.randint(1, 3), sop) for sop in sops)
        station = self.rng.choice(("st0", "st1"))
        self.ask(oq.DispatchBatch(order_id=order_id, batch_id=batch_id, seed=ulid(), station_id=station, groups=wishes))
        if self.world.store._c.execute("select 1 from batches where id = ?", (batch_id,)).fetchone():
            self.batches.append((order_id, batch_id))

    def adjust(self) -> None:
        self.ask(oq.AdjustBatch(**self.of_batch(), groups=(wish(self.rng.randint(0, 4), self.sop()),)))

    def sop(self) -> str:
        return self.rng.choice(("pour", "cut"))

    def complete(self) -> None:
        """A phone that does not hear the answer asks again, with the same key and another seed."""
        batch, quantity, key = self.of_batch(), self.rng.randint(1, 2), IdempotencyKey("phone", "complete", ulid(), "h")
        sop, body = self.sop(), None
        for _ in range(self.rng.choice((1, 1, 2, 3))):
            request = oq.CompleteTasks(**{**batch, "seed": ulid()}, sop_id=sop, subscene_id="sub", quantity=quantity)
            outcome = self.world.store.transact(request, key)
            for speech in outcome.speech:
                self.hear_speech(speech)
            if isinstance(outcome.answer, Refuse):
                return
            assert isinstance(outcome.answer, Show) and outcome.body is not None
            assert body is None or (outcome.body == body and outcome.replayed and not outcome.speech)
            if body is None:
                done = {task["task_id"] for task in outcome.body["tasks"]}
                assert len(done) == quantity and not done & self.external
                self.external |= done
            body = outcome.body

    def target(self) -> None:
        order_id = self.rng.choice(self.orders[-2:])
        done = len(self.world.store.tasks(TaskFilter(order_id=order_id, status="completed")).items)
        wanted = self.rng.choice((done, self.rng.randint(3, 12), self.rng.randint(3, 12)))
        self.ask(oq.ChangeOrder(order_id=order_id, seed=ulid(), target_count=wanted))

    def pause(self) -> None:
        wanted: Any = self.rng.choice(("paused", "in_progress", "in_progress", "in_progress"))
        self.ask(oq.ChangeOrder(order_id=self.rng.choice(self.orders[-2:]), seed=ulid(), status=wanted))

    def rebind(self) -> None:
        station, node_id = self.rng.choice(("st0", "st1")), self.rng.choice(list(self.devices))
        collector = self.rng.choice(("col0", "col1"))
        self.ask(oq.ChangeStation(station_id=station, seed=ulid(), collector_id=collector, node_id=node_id))

    def ghost(self) -> None:
        """Frames of one socket are applied in the order received (DESIGN §1): what is late is of one that is gone."""
        here = set(self.now.values())
        late = [g for g in self.ghosts if not (isinstance(g, nq.NodeFramed) and g.connection_id in here)]
        if late:
            chosen = self.rng.choice(late)
            self.ghosts.remove(chosen)
            self.world.store.transact(chosen)
        elif self.ghosts and not self.losses:
            self.ghosts.clear()  # written on sockets that live: long since overtaken, and dropped with them

    # ------------------------------------------------------------ what must hold

    def check(self) -> None:
        super().check()
        self.world.check()
        c = self.world.store._c
        for order_id, times in c.execute("select id, finalizations from orders").fetchall():
            assert times - self.finalized.get(order_id, 0) in (0, 1), "completed once by one transaction"
            self.finalized[order_id] = times

    def settle(self) -> None:
        super().settle()
        c = self.world.store._c
        assert c.execute("select count(*) from order_notices where settled_at_ms is null").fetchone() == (0,)
        for order_id in self.orders:
            self.world.check_shown(order_id)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_everybody_does_at_once_and_whatever_is_lost(tmp_path: Path, seed: int) -> None:
    world = OrderWorld(tmp_path)
    world.carries, world.deaf = False, True
    chaos = Orders(world, seed)
    for _ in range(STEPS):
        chaos.step()
    chaos.settle()
    world.close()
