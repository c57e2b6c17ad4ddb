"""The order's own actor: where it lives, who is asked for what, and that it and a node's never wait for each other."""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from actors.config import Settings
from actors.law.effects import Done
from actors.law.nodes import requests as nodes
from actors.law.orders import requests as orders
from actors.law.requests import Request
from actors.mailbox import Mailbox
from actors.node import NodeActor
from actors.order import OrderActor
from actors.protocol.codes import SUBPROTOCOL
from actors.protocol.defaults import CONTROL_DEADLINE_S
from actors.protocol.ids import ulid
from actors.runtime import placement_name
from actors.session import SessionActor
from actors.store.contract import IdempotencyKey, Outcome
from tests.gateway.house import Frame, Socket, eventually, node_hello, result
from tests.runtime.conftest import Up
from tests.runtime.test_node_actor import actor_pid

SHARED = Settings(session_placement="shared:3")


def test_an_order_has_an_actor_of_its_own_or_a_place_in_a_cell_and_stations_have_none() -> None:
    assert placement_name("order/dishes", Settings()) == "order/dishes"
    assert placement_name("order/dishes", SHARED) == "session-cell/0"  # sha256, the same in every process and version
    for subject in ("station/s", "collector/c", "task/t"):
        assert placement_name(subject, Settings()) is None and placement_name(subject, SHARED) is None


class Everybody:
    """An ActorPort whose actors are all awake; it notes who is asked for what."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def awake(self, subject: str) -> bool:
        return placement_name(subject, Settings()) is not None

    async def call(self, request: Request, key: IdempotencyKey | None, within_s: float) -> Outcome:
        self.asked.append((request.addressee, type(request).__name__))
        return Outcome(request.addressee, Done(changed=True), (), 0)

    def wake(self, subject: str) -> None: ...

    def end_frozen(self, subject: str) -> None: ...


def seeded(made: Callable[..., Request], **fields: Any) -> Request:
    return made(seed=ulid(), **fields)


# Of an order's task: reports upward and operators' actions. Of a node: what the order has for it, by a request.
ASKED = [
    ("order/o", seeded(orders.CreateOrder, order_id="o", target_count=1)),
    ("order/o", seeded(orders.DispatchBatch, order_id="o", batch_id="b", station_id="s", groups=())),
    ("order/o", seeded(orders.CompleteTasks, order_id="o", batch_id="b", sop_id="p", subscene_id="q")),
    ("order/o", seeded(nodes.TaskReport, task_id="t", order_id="o", node_id="n")),
    ("order/o", seeded(nodes.TaskAction, task_id="t", order_id="o", action="cancel")),
    ("node/n", seeded(nodes.TakeNotice, node_id="n", notice_id="x")),
    ("node/n", seeded(nodes.NodeSweep, node_id="n", kind="notice", subject_key="x")),
    (None, seeded(nodes.TaskReport, task_id="t", node_id="n")),
    (None, seeded(orders.ChangeStation, station_id="s", name="x")),
    (None, seeded(orders.DeleteCollector, collector_id="c")),
]


@pytest.mark.parametrize(("actor", "request_"), ASKED, ids=lambda one: type(one).__name__)
async def test_each_request_goes_to_the_actor_of_its_order_or_node_or_is_decided_by_who_asks(
    actor: str | None, request_: Request
) -> None:
    here: list[Request] = []

    async def local(request: Request, key: IdempotencyKey | None) -> Outcome:
        here.append(request)
        return Outcome(request.addressee, Done(changed=True), (), 0)

    port = Everybody()
    await Mailbox(local, port).perform(request_, wake=True)
    if actor is None:
        assert here == [request_] and port.asked == []
    else:
        assert here == [] and port.asked == [(actor, type(request_).__name__)]


@pytest.mark.parametrize("shell", [SessionActor, NodeActor, OrderActor])
def test_an_actor_is_given_nothing_that_it_could_call_another_with(shell: type[SessionActor]) -> None:
    """No mailbox, no port, no handle, nobody to tell: so no two of them can wait for each other. (The import contract
    says it too.)"""
    assert list(inspect.signature(shell.__init__).parameters)[1:] == [
        "worker",
        "row",
        "hibernate_after_s",
        "clock",
    ]


# ---------------------------------------------------------------- on a service


class Recorder:
    """A device that obeys at once and says so; the test is its hands."""

    def __init__(self, socket: Socket) -> None:
        self.socket, self.state = socket, {"state": "idle"}
        self.orders: Counter[str] = Counter()

    async def run(self) -> None:
        while True:
            message = await self.socket.ws.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                return
            await self.obey(message.json())

    async def obey(self, frame: Frame) -> None:
        if frame["type"] == "invoke":
            await self.socket.say(result(frame, "here"))
        elif frame["type"] == "task":
            self.orders[frame["action"]] += 1
            task = {"task_id": frame["task_id"], "attempt": frame["attempt"]}
            if frame["action"] == "config":
                self.state = {"state": "ready", **task}
            elif frame["action"] == "begin" and self.state == {"state": "ready", **task}:
                self.state = {"state": "recording", **task}
            elif frame["action"] in ("cancel", "clear") and self.state.get("task_id") == frame["task_id"]:
                self.state = {"state": "idle"}
            await self.report()

    async def report(self) -> None:
        await self.socket.say({"type": "state", "reported": self.state})


class Hall:
    """One order, one station, one recorder; and everybody who asks something of them."""

    def __init__(self, up: Up, http: aiohttp.ClientSession, name: str) -> None:
        self.up, self.http, self.name, self.node_id = up, http, name, f"{name}-node"
        self.slowest: dict[str, float] = {}
        self.answers: Counter[tuple[str, int, str]] = Counter()

    async def ask(self, what: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        began = time.monotonic()
        headers = {"Idempotency-Key": ulid()} if method == "POST" else {}
        async with self.http.request(method, self.up.url + path, json=body, headers=headers) as answer:
            told = await answer.json(content_type=None) if answer.status != 204 else None
        self.slowest[what] = max(self.slowest.get(what, 0.0), time.monotonic() - began)
        self.answers[what, answer.status, told["code"] if answer.status >= 400 else ""] += 1
        return answer.status, told

    async def made(self, path: str, **body: Any) -> Any:
        status, told = await self.ask("make", "POST", path, body)
        assert status == 201, told
        return told

    async def open(self) -> Recorder:
        await self.made("/v1/nodes", node_id=self.node_id)
        await self.made("/v1/collectors", collector_id=f"{self.name}-c", name="C")
        bound = {"station_id": f"{self.name}-s", "collector_id": f"{self.name}-c", "node_id": self.node_id}
        await self.made("/v1/stations", **bound)
        await self.made("/v1/orders", order_id=self.name, target_count=5000)
        path = f"{self.up.url}/v1/nodes/{self.node_id}/connect?role=recorder"
        socket = Socket(await self.http.ws_connect(path, protocols=(SUBPROTOCOL,)))
        await socket.say(node_hello(reported={"state": "idle"}))
        await socket.hear("hello_ack")
        return Recorder(socket)

    async def dispatch(self, batch_id: str, quantity: int) -> Any:
        wish = {"sop_id": "a", "subscene_id": "b", "quantity": quantity}
        body = {"batch_id": batch_id, "station_id": f"{self.name}-s", "groups": [wish]}
        return await self.made(f"/v1/orders/{self.name}/batches", **body)

    async def awake(self) -> tuple[int | None, int | None]:
        """Both actors, asked until they are."""

        async def there() -> tuple[int | None, int | None] | None:
            await self.ask(
                "invoke", "POST", f"/v1/nodes/{self.node_id}/invoke", {"command": "echo", "role": "recorder"}
            )
            await self.ask("change", "PATCH", f"/v1/orders/{self.name}", {"name": ulid()})
            pids = actor_pid(self.up, f"order/{self.name}"), actor_pid(self.up, f"node/{self.node_id}")
            return pids if all(pids) else None

        found: tuple[int | None, int | None] = await eventually(there, 60, "both actors are awake")
        return found


async def until(over: asyncio.Event, work: Callable[[], Awaitable[Any]]) -> None:
    while not over.is_set():
        await work()


@pytest.mark.ray
async def test_an_order_actor_and_a_node_actor_in_a_storm_never_wait_for_each_other(holdfast: Up) -> None:
    """Reports go up, cancels and notices go down, all at once, through both actors. If either waited for the other, the
    two would stand still until CONTROL_DEADLINE_S ends one of them as frozen."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {holdfast.token}"}) as http:
        hall = Hall(holdfast, http, "cycle")
        recorder = await hall.open()
        listening = asyncio.create_task(recorder.run())
        await hall.dispatch("cycle-long", 900)
        before = await hall.awake()
        await asyncio.sleep(1.1)  # the gateway's belief about who is awake is a second old at most
        hall.slowest.clear()
        over, chance, batches = asyncio.Event(), random.Random(3), iter(range(10_000))

        async def complete() -> None:
            body = {"sop_id": "a", "subscene_id": "b", "quantity": 1}
            await hall.ask("complete", "POST", "/v1/batches/cycle-long/complete-tasks", body)

        async def record_and_take_back() -> None:
            """A batch whose task the device holds when its batch, or the task itself, is cancelled from above."""
            batch_id = f"cycle-{next(batches)}"
            await hall.dispatch(batch_id, 2)
            _, page = await hall.ask("list", "GET", f"/v1/tasks?batch_id={batch_id}")
            task_id = page["items"][0]["task_id"]
            for action in ("config", *["begin"] * 5):  # until the device has said that it is ready
                status, _ = await hall.ask("act", "POST", f"/v1/tasks/{task_id}/{action}", {})
                if (action, status) == ("begin", 202):
                    break
            how = chance.choice(("cancel", "recall", "task"))
            if how == "cancel":
                await hall.ask("cancel", "PATCH", f"/v1/batches/{batch_id}", {"status": "cancelled"})
            elif how == "recall":
                await hall.ask("recall", "POST", f"/v1/batches/{batch_id}/recall")
            else:
                await hall.ask("act", "POST", f"/v1/tasks/{task_id}/cancel", {})

        async def report() -> None:
            await recorder.report()
            await asyncio.sleep(0.1)  # a device that talks ten times a second

        async def invoke() -> None:
            await hall.ask(
                "invoke", "POST", f"/v1/nodes/{hall.node_id}/invoke", {"command": "echo", "role": "recorder"}
            )

        storm = [
            asyncio.create_task(until(over, work))
            for work in (complete, complete, record_and_take_back, record_and_take_back, report, invoke)
        ]
        await asyncio.sleep(8.0)  # the storm itself: longer than the deadline by which a standstill is noticed
        over.set()
        await asyncio.wait_for(asyncio.gather(*storm), 2 * CONTROL_DEADLINE_S)
        print({what: f"{s * 1000:.0f} ms" for what, s in hall.slowest.items()}, dict(hall.answers), recorder.orders)

        assert max(hall.slowest.values()) < CONTROL_DEADLINE_S, hall.slowest
        now = actor_pid(holdfast, f"order/{hall.name}"), actor_pid(holdfast, f"node/{hall.node_id}")
        assert now == before, "nobody was ended as frozen"
        said = Counter({what: n for (what, status, _), n in hall.answers.items() if status < 300})
        assert said["complete"] > 20 and said["act"] > 5 and said["invoke"] > 20 and recorder.orders["config"] > 5
        assert not [one for one in hall.answers if one[1] >= 500], hall.answers
        assert recorder.orders["cancel"] > 0, "what was cancelled above was told below"

        async def settled() -> bool:
            _, page = await hall.ask("notices", "GET", f"/v1/orders/{hall.name}/notices?limit=100")
            assert page["items"], "a batch whose task was on the device was cancelled or recalled"
            return all(one["settled_at_ms"] is not None for one in page["items"])

        await eventually(settled, 20, "the device has let go of everything")
        await recorder.socket.close()
        await asyncio.wait_for(listening, 5)


@pytest.mark.ray
async def test_the_actor_of_an_order_comes_with_work_and_leaves_when_nobody_asks(holdfast: Up) -> None:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {holdfast.token}"}) as http:
        hall = Hall(holdfast, http, "sleepy")
        recorder = await hall.open()
        listening = asyncio.create_task(recorder.run())
        await hall.dispatch("sleepy-b", 3)
        await hall.awake()
        await eventually(lambda: actor_pid(holdfast, "order/sleepy") is None, 30, "it has said that it sleeps")
        body = {"sop_id": "a", "subscene_id": "b", "quantity": 3}
        status, told = await hall.ask("complete", "POST", "/v1/batches/sleepy-b/complete-tasks", body)
        assert (status, told["completed_count"], told["batch"]["status"]) == (200, 3, "completed")
        await recorder.socket.close()
        await asyncio.wait_for(listening, 5)
