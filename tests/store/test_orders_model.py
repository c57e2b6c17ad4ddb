"""The model in memory and the real file play the same seeded games: after each move every row is the same, and so is
the answer. So what the storms of the law show of the model they show of the store."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from actors.law.effects import Refuse
from actors.law.nodes.effects import NodeDecision, SetTask
from actors.law.nodes.requests import TaskReport
from actors.law.nodes.tasks import stepped
from actors.law.orders import requests as oq
from actors.store import node_rows, order_rows
from tests.law.orders.memory import Memory
from tests.law.orders.test_storm import NODES, Game
from tests.order_world import OrderWorld


class Both(Memory):
    """Every transaction, on both."""

    def __init__(self, world: OrderWorld) -> None:
        super().__init__(stations=dict(NODES), wall_ms=world.now_ms)
        self.world = world

    def do(self, request: oq.OrderRequest) -> Any:
        answer = super().do(request)
        outcome = self.world.store.transact(request)
        assert outcome.answer == answer
        assert isinstance(answer, Refuse) or outcome.status in (200, 201, 204)
        self.compare()
        return answer

    def move(self, task_id: str, taken: Any, seed: str) -> None:
        """As a decision about the node would have moved it."""
        task = self.tasks[task_id]
        super().move(task_id, taken, seed)
        changes = {**stepped(task, taken, self.wall_ms), "began": taken == "recording"}
        moved: Any = NodeDecision(None, (SetTask(task_id, task.status, changes),))  # type: ignore[arg-type]
        request = TaskReport(task_id=task_id, node_id=task.node_id, seed=seed)
        store, view = self.world.store, SimpleNamespace(tasks={task_id: task})

        def transaction() -> None:
            store.do_node(moved.effects[0], self.wall_ms)
            store.follow_tasks(view, moved, request)  # type: ignore[arg-type]

        store._alone(transaction)
        self.compare()

    def tell(self, task_id: str) -> None:
        """A recorder's shadow names one task."""
        node_id = self.tasks[task_id].node_id
        others = {other for other in self.told if other in self.tasks and self.tasks[other].node_id != node_id}
        self.told = others | {task_id}
        self.world.store._c.execute(
            "update node_roles set desired_state = 'ready', desired_task_id = ?, desired_attempt = 1 "
            "where node_id = ? and role = 'recorder'",
            (task_id, node_id),
        )

    def compare(self) -> None:
        c = self.world.store._c

        def rows(table: Any) -> list[Any]:
            order = "" if table is order_rows.BINDINGS else "order by n"
            return list(map(table.read, c.execute(table.select(order)).fetchall()))

        assert rows(order_rows.ORDERS) == list(self.orders.values())
        assert rows(order_rows.BATCHES) == list(self.batches.values())
        assert rows(order_rows.GROUPS) == list(self.groups.values())
        assert rows(node_rows.TASKS) == list(self.tasks.values())
        assert rows(order_rows.NOTICES) == list(self.notices.values())


def test_the_model_is_the_store(tmp_path: Path) -> None:
    world = OrderWorld(tmp_path)
    for station_id, node_id in NODES.items():
        world.station(station_id, f"col_{station_id}", node_id)
        world.plug(f"rec_{node_id}", node_id, "recorder")
    c, finalized = world.store._c, 0
    for seed in range(60):
        for table in ("orders", "batches", "batch_groups", "tasks", "order_notices", "deadlines"):
            c.execute(f"delete from {table}")
        c.execute("update node_roles set desired_state = null, desired_task_id = null")
        game = Game(seed)
        game.memory = Both(world)
        game.play()
        finalized += game.finalized
    assert finalized > 3
    world.close()
