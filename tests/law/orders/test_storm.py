"""Ten thousand seeded games of everybody at once over one order: dispatch, adjust, external completion, recall, cancel,
pause, targets, deletion, and what devices do meanwhile. After every transaction the rules hold, a refusal has changed
nothing, and what was answered is what happened: judged from the rows before, not by the law's own words.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from actors.law.effects import Refuse, Show
from actors.law.nodes.model import Task
from actors.law.nodes.tasks import TRANSITIONS
from actors.law.orders import requests as oq
from actors.law.orders.quota import counted
from actors.protocol.codes import ERRORS
from tests.law.orders.memory import Memory, unbegun

GAMES, STEPS = 10_000, 24
DEVICE_STEPS = tuple(sorted({taken for _, taken in TRANSITIONS} - {"external"}))
NODES = {"st1": "n1", "st2": "n2", "st3": "n3"}


class Game:
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.memory = Memory(stations=dict(NODES))
        self.game, self.steps, self.made = seed, 0, 0
        self.finalized = self.reopened = 0

    def play(self) -> None:
        policy: Any = self.chance.choice(("rows", "live"))
        target = self.chance.randint(2, 9)
        self.memory.do(oq.CreateOrder(order_id="o", seed=self._ulid(), target_count=target, quota_policy=policy))
        self.act(self._dispatch())
        for _ in range(STEPS):
            if "o" not in self.memory.orders:
                return
            if self.chance.random() < 0.5:
                self.act(self._request())
            else:
                self.device()

    # ------------------------------------------------------------ who does what

    def _request(self) -> oq.OrderRequest:
        asked = (
            (self._dispatch, 10),
            (self._adjust, 20),
            (self._complete, 40),
            (self._target, 14),
            (self._status, 8),
            (lambda: oq.RecallBatch(**self._batch()), 3),
            (lambda: oq.ChangeBatch(**self._batch()), 3),
            (lambda: oq.DeleteBatch(**self._batch()), 3),
            (lambda: oq.DeleteOrder(order_id="o", seed=self._ulid()), 1),
        )
        return self.chance.choices([make for make, _ in asked], [often for _, often in asked])[0]()

    def _ulid(self) -> str:
        """A fresh one for each request, so that no two make the same ids; the same game, the same ones."""
        self.steps += 1
        return f"{self.game:016d}{self.steps:06d}0000"

    def _batch(self) -> dict[str, Any]:
        known = list(self.memory.batches) or ["none"]
        return {"order_id": "o", "batch_id": self.chance.choice(known), "seed": self._ulid()}

    def _wish(self, least: int, sop: str) -> oq.GroupWish:
        return oq.GroupWish(sop_id=sop, subscene_id="sub", quantity=self.chance.randint(least, 5))

    def _wishes(self, least: int) -> tuple[oq.GroupWish, ...]:
        sops = self.chance.sample(["pour", "cut", "fold"], self.chance.randint(1, 2))
        return tuple(self._wish(least, sop) for sop in sops)

    def _dispatch(self) -> oq.OrderRequest:
        self.made += 1
        station = self.chance.choice(sorted(NODES))
        wishes = self._wishes(1)
        return oq.DispatchBatch(
            order_id="o", batch_id=f"b{self.made}", seed=self._ulid(), station_id=station, groups=wishes
        )

    def _adjust(self) -> oq.OrderRequest:
        return oq.AdjustBatch(**self._batch(), groups=self._wishes(0))

    def _complete(self) -> oq.OrderRequest:
        """Mostly of a group that there is."""
        batch = self._batch()
        there = [key.sop_id for of, key in self.memory.groups if of == batch["batch_id"]]
        stations = [None, *NODES, "gone"]
        return oq.CompleteTasks(
            **batch,
            sop_id=self.chance.choice([*there, *there, "pour"]),
            subscene_id="sub",
            quantity=self.chance.randint(0, 4),
            station_id=self.chance.choices(stations, (9, 1, 1, 1, 1))[0],
        )

    def _target(self) -> oq.OrderRequest:
        done = sum(t.status == "completed" for t in self.memory.tasks.values())
        wanted = self.chance.choice((done, done + 1, self.chance.randint(1, 14)))
        return oq.ChangeOrder(order_id="o", seed=self._ulid(), target_count=wanted)

    def _status(self) -> oq.OrderRequest:
        wanted: Any = self.chance.choices(("paused", "in_progress", "cancelled"), (4, 8, 1))[0]
        return oq.ChangeOrder(order_id="o", seed=self._ulid(), status=wanted)

    def device(self) -> None:
        """A recorder or an uploader does something of what the graph allows; or hears of a task that waits."""
        memory = self.memory
        tasks = [t for t in memory.tasks.values() if not t.terminal]
        if not tasks:
            return
        task = self.chance.choice(tasks)
        steps = [taken for taken in DEVICE_STEPS if (task.status, taken) in TRANSITIONS]
        if task.status == "pending" and self.chance.random() < 0.5:
            memory.tell(task.task_id)
            return
        before = dict(memory.tasks)
        taken: Any = self.chance.choice(steps)
        runs = memory.orders["o"].open
        after_it = {**before, task.task_id: _with(task, TRANSITIONS[task.status, taken])}
        memory.move(task.task_id, taken, self._ulid())
        self.judge_end(runs, after_it)
        memory.check()

    # ------------------------------------------------------------ judging

    def act(self, request: oq.OrderRequest) -> None:
        memory = self.memory
        before, rows = dict(memory.tasks), memory.rows()
        order = memory.orders["o"]
        answer = memory.do(request)
        memory.check()
        if isinstance(answer, Refuse):
            assert answer.code in ERRORS and memory.rows() == rows, "a refusal changes nothing"
            self.judge_numbers(request, answer, before)
            return
        assert isinstance(answer, Show)
        if isinstance(request, oq.CompleteTasks):
            self.judge_completion(request, before)
        elif isinstance(request, oq.AdjustBatch):
            self.judge_adjustment(request, answer, before)
        if "o" not in memory.orders:
            return
        after = memory.orders["o"]
        if order.status == "completed" and after.status != "completed":
            self.reopened += 1
            assert isinstance(request, oq.ChangeOrder) and after.target_count > order.target_count
        done = {t.task_id for t in memory.tasks.values() if t.status == "completed"}
        moved = {k: _with(t, "completed") if k in done else t for k, t in before.items() if k in memory.tasks}
        self.judge_end(order.open, moved)
        if isinstance(request, oq.ChangeOrder) and after.status == "cancelled" != order.status:
            self.judge_notices("cancelled", moved, ("pending", "ready", "in_progress", "uploading"))

    def judge_end(self, ran: bool, moved: dict[str, Task]) -> None:
        """Completed by this transaction: once, with one notice per device that held something of it."""
        order = self.memory.orders["o"]
        if ran and order.status == "completed":
            self.finalized += 1
            self.judge_notices(f"completed:{self.finalized}", moved, ("pending", "ready", "in_progress"))
        assert order.finalizations == self.finalized and self.finalized - self.reopened in (0, 1)
        assert (self.finalized > self.reopened) == (order.status == "completed")
        causes = [cause for _, cause, _ in self.memory.notices if cause.startswith("completed")]
        assert all(int(cause.split(":")[1]) <= self.finalized for cause in causes)

    def judge_notices(self, cause: str, moved: dict[str, Task], ended: tuple[str, ...]) -> None:
        """moved: the tasks as they were when the end came."""
        expected: dict[str, set[str]] = {}
        for task in moved.values():
            if task.status in ended and (task.busy or task.task_id in self.memory.told):
                expected.setdefault(task.node_id, set()).add(task.task_id)
        told = {
            node: {task_id for task_id, _ in notice.tasks}
            for (_, why, node), notice in self.memory.notices.items()
            if why == cause
        }
        assert told == expected, "exactly one notice per affected device, with exactly its tasks"

    def judge_completion(self, request: oq.CompleteTasks, before: dict[str, Task]) -> None:
        now = self.memory.tasks
        done = [k for k, t in before.items() if t.status != "completed" and now[k].status == "completed"]
        waiting = [k for k, t in before.items() if t.status == "pending" and _at(t, request.batch_id, request.sop_id)]
        assert done == waiting[: request.quantity] and len(done) == request.quantity, "so many, the oldest"
        assert now.keys() == before.keys(), "nothing is created"

    def judge_adjustment(self, request: oq.AdjustBatch, answer: Show, before: dict[str, Task]) -> None:
        now, policy = self.memory.tasks, self.memory.orders["o"].quota_policy
        assert len(now) - len(before) == answer.data["added"] - answer.data["removed"]
        for wish in request.groups:
            mine = [t for t in now.values() if _at(t, request.batch_id, wish.sop_id)]
            live = [t for t in mine if policy == "rows" or t.status not in ("failed", "cancelled")]
            assert len(live) == wish.quantity, "the group has what was asked for"
        named = {wish.sop_id for wish in request.groups}
        for task_id, task in before.items():
            if task_id in now:
                continue
            assert unbegun(task) and task.batch_id == request.batch_id and task.sop_id in named
            newer = [k for k, t in before.items() if k > task_id and unbegun(t) and t.status == task.status]
            assert not [k for k in newer if k in now and _at(before[k], request.batch_id, task.sop_id or "")], "newest"

    def judge_numbers(self, request: oq.OrderRequest, answer: Refuse, before: dict[str, Task]) -> None:
        order = self.memory.orders["o"]
        statuses = [t.status for t in before.values()]
        counts: Any = {status: statuses.count(status) for status in statuses}
        extra = answer.extra
        if answer.code == "quota_exceeded":
            left = max(0, order.target_count - counted(order.quota_policy, counts))
            assert (extra["remaining_assignable"], extra["task_count"]) == (left, len(before))
            assert extra["requested"] > extra.get("max_batch_target", left)
        elif answer.code == "too_few_pending":
            assert isinstance(request, oq.CompleteTasks) and extra["requested"] == request.quantity > extra["pending"]
        elif answer.code == "target_below_assigned":
            assert extra["min_target"] == counted(order.quota_policy, counts)
        elif answer.code == "has_begun":
            scope = [t for t in before.values() if t.batch_id == getattr(request, "batch_id", t.batch_id)]
            assert extra["begun_count"] == sum(not unbegun(t) for t in scope) > 0


def _at(task: Task, batch_id: str, sop_id: str) -> bool:
    return (task.batch_id, task.sop_id) == (batch_id, sop_id)


def _with(task: Task, status: Any) -> Task:
    return replace(task, status=status)


@pytest.mark.parametrize("part", range(10))
def test_whatever_happens_at_once_the_rules_hold(part: int) -> None:
    size = GAMES // 10
    ended = {"finalized": 0, "reopened": 0, "notices": 0}
    for seed in range(part * size, (part + 1) * size):
        game = Game(seed)
        try:
            game.play()
        except AssertionError as error:
            raise AssertionError(f"game {seed}, step {game.steps}: {error}") from error
        ended["finalized"] += game.finalized
        ended["reopened"] += game.reopened
        ended["notices"] += len(game.memory.notices)
    # A storm that never got there would prove nothing.
    assert min(ended.values()) > size // 50, ended
