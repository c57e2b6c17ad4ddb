"""Work orders from outside: many phones at once, keys that are repeated, and whoever decides killed in the middle.

What must hold whatever happens: nothing is completed twice, nothing beyond what there is, every answer adds up by
itself and all of them together, and no caller waits for another for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from actors.protocol.codes import EXIT_UNAVAILABLE
from tests.e2e.floor import (
    Caller,
    check_batch,
    check_completed,
    check_notices,
    check_order,
    dispatch,
    group,
    make_order,
    make_station,
)
from tests.e2e.service import Service, alive

CLIENTS, EACH = 20, 25


async def many(service: Service, tokens: list[str], work: Callable[[int, Caller], Any]) -> list[Caller]:
    """As many callers as tokens, all at once; each of them does its work."""
    async with contextlib.AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(Caller(service, token)) for token in tokens]
        await asyncio.gather(*(work(n, caller) for n, caller in enumerate(callers)))
        return callers


def timings(callers: list[Caller]) -> str:
    took = sorted(one for caller in callers for one in caller.took_s)
    p50, p99 = took[len(took) // 2], took[int(len(took) * 0.99)]
    return f"{len(took)} answers, p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms, max {took[-1] * 1000:.0f} ms"


# ---------------------------------------------------------------- five hundred at once


@pytest.mark.parametrize("end", ["the group runs dry", "the order is full"])
def test_five_hundred_completions_by_twenty_clients_never_over_complete_and_each_answer_adds_up(
    service: Service, end: str
) -> None:
    """Quantities of 1 to 3, about a thousand in all, on a group of 700."""
    name, target = ("dry", 1000) if end == "the group runs dry" else ("full", 700)
    station = make_station(service, name)
    make_order(service, name, target)
    others = [] if end == "the order is full" else [group(200, "other", "one")]
    dispatch(service, name, f"{name}-b", station, *others, group(700))
    chance = random.Random(5)
    wanted = [[chance.randint(1, 3) for _ in range(EACH)] for _ in range(CLIENTS)]
    told: list[tuple[int, int, Any]] = []

    async def work(n: int, phone: Caller) -> None:
        for quantity in wanted[n]:
            status, answer = await phone.complete(f"{name}-b", quantity)
            told.append((quantity, status, answer))

    began = time.monotonic()
    phones = asyncio.run(many(service, [station.token] * CLIENTS, work))
    print(f"{end}: {timings(phones)}, {500 / (time.monotonic() - began):.0f}/s")
    assert len(told) == CLIENTS * EACH and sum(phone.repeats for phone in phones) == 0

    # In the order in which they were decided, each continues the one before: no answer saw another half done.
    done = sorted(((q, a) for q, status, a in told if status == 200), key=lambda one: one[1]["group"]["completed"])
    so_far = 0
    for quantity, answer in done:
        check_completed(answer, quantity)
        so_far += quantity
        assert answer["group"]["completed"] == so_far and answer["group"]["pending"] == 700 - so_far
    completed_in_order = [task["task_id"] for _, answer in done for task in answer["tasks"]]
    assert len(set(completed_in_order)) == so_far <= 700

    # Oldest first: exactly the first so many of the group, in this order.
    listed = service_tasks(service, f"{name}-b")
    oldest = [task["task_id"] for task in listed if task["group"]["sop_id"] == "pick"]
    assert completed_in_order == oldest[:so_far]

    refused = [(quantity, status, a) for quantity, status, a in told if status != 200]
    order = service.patient("GET", f"/v1/orders/{name}")
    check_order(order)
    assert order["completed_count"] == so_far
    if end == "the order is full":
        assert so_far == 700 and (order["status"], order["completed_count"]) == ("completed", 700)
        final = Counter((status, a["code"]) for _, status, a in refused)
        assert set(final) <= {(409, "batch_terminal"), (400, "too_few_pending")}
        assert final[409, "batch_terminal"] > 0
        assert all(a["current_status"] == "completed" for _, status, a in refused if status == 409)
        assert service._row("select finalizations from orders where id = ?", name)[0] == 1
    else:
        assert all((status, a["code"]) == (400, "too_few_pending") for _, status, a in refused) and refused
        assert all(a["requested"] == quantity > a["pending"] for quantity, _, a in refused)
        assert order["status"] == "in_progress"
        assert min(quantity for quantity, _, _ in refused) > 700 - so_far, "refused, though there were enough"


def service_tasks(service: Service, batch_id: str) -> list[Any]:
    """Oldest first."""

    async def read() -> list[Any]:
        async with Caller(service) as caller:
            return await caller.all(f"/v1/tasks?batch_id={batch_id}")

    return asyncio.run(read())[::-1]


# ---------------------------------------------------------------- the same key


def test_a_key_that_twenty_phones_send_at_once_completes_once_and_all_get_one_answer(service: Service) -> None:
    station = make_station(service, "key")
    make_order(service, "key", 40)
    dispatch(service, "key", "key-b", station, group(40))
    told: dict[str, list[tuple[int, Any]]] = {f"k{n}": [] for n in range(8)}

    async def work(n: int, phone: Caller) -> None:
        keys = list(told)
        random.Random(n).shuffle(keys)
        for key in keys:
            told[key].append(await phone.complete("key-b", 2, key=key))

    asyncio.run(many(service, [station.token] * CLIENTS, work))
    for answers in told.values():
        assert len(answers) == CLIENTS and all(one == answers[0] for one in answers)
        assert answers[0][0] == 200
        check_completed(answers[0][1], 2)
    assert service.patient("GET", "/v1/batches/key-b")["completed_count"] == 2 * len(told)

    async def another_body() -> tuple[int, Any]:
        async with Caller(service, station.token) as phone:
            return await phone.complete("key-b", 3, key="k0")

    status, problem = asyncio.run(another_body())
    assert (status, problem["code"]) == (422, "idempotency_mismatch")


def test_a_phone_that_never_heard_its_answer_asks_again_and_completes_once(service: Service) -> None:
    """It sends the request and is gone before a byte of the answer: the request may have been carried out, or not."""
    station = make_station(service, "deaf")
    make_order(service, "deaf", 50)
    dispatch(service, "deaf", "deaf-b", station, group(50))
    host, _, port = service.url.removeprefix("http://").rpartition(":")
    body = b'{"sop_id":"pick","subscene_id":"sink","quantity":1}'
    for n in range(20):
        head = (
            "POST /v1/batches/deaf-b/complete-tasks HTTP/1.1\r\n"
            f"Host: {host}:{port}\r\nAuthorization: Bearer {station.token}\r\nIdempotency-Key: deaf-{n}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection((host, int(port)), timeout=5) as line:
            line.sendall(head.encode() + body[: None if n % 2 else len(body) // 2])

    async def again() -> list[tuple[int, Any]]:
        async with Caller(service, station.token) as phone:
            return [await phone.complete("deaf-b", 1, key=f"deaf-{n}") for n in range(20) for _ in range(2)]

    told = asyncio.run(again())
    assert all(status == 200 for status, _ in told)
    assert [first == second for first, second in zip(told[::2], told[1::2], strict=True)] == [True] * 20
    assert service.patient("GET", "/v1/batches/deaf-b")["completed_count"] == 20
    assert len({answer["tasks"][0]["task_id"] for _, answer in told}) == 20


# ---------------------------------------------------------------- whoever decides, killed midway


def test_order_actor_node_actor_and_gateway_killed_midway_complete_nothing_twice_and_lose_nothing(
    service: Service,
) -> None:
    """Twenty phones go on for as long as it takes to kill everybody, each as often as said, in the middle of it."""
    station = make_station(service, "fell")
    order, node = "order/fell", f"node/{station.node_id}"
    times = {order: 2, node: 2, "gateway": 2}
    make_order(service, "fell", 1001)  # never completed: no phone is ever told that the batch has ended
    dispatch(service, "fell", "fell-b", station, group(1000))
    told: dict[str, tuple[int, Any]] = {}
    killed: Counter[str] = Counter()
    over = asyncio.Event()

    async def work(n: int, phone: Caller) -> None:
        """Its share of what there is; and then, for as long as somebody is still to be killed, the same keys again."""
        for k in itertools.count():
            key = f"fell-{n}-{k % (1000 // CLIENTS)}"
            answer = await phone.complete("fell-b", key=key)
            assert told.setdefault(key, answer) == answer, "one key, one answer"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), 0.3)  # the rate of somebody who works, so that it lasts
            if over.is_set():
                return

    async def kill(name: str) -> None:
        """Each time that it is awake."""
        while killed[name] < times[name]:
            pid = await asyncio.to_thread(service.pid_of_actor, name)
            if pid is None:
                await asyncio.sleep(0.05)
                continue
            os.kill(pid, signal.SIGKILL)
            killed[name] += 1
            while alive(pid):
                await asyncio.sleep(0.01)

    async def kill_the_gateway() -> None:
        while killed["gateway"] < times["gateway"]:
            await asyncio.sleep(1.0)  # between the falls there is work
            await asyncio.to_thread(service.kill_gateway, 60)
            killed["gateway"] += 1

    async def keep_the_node_awake() -> None:
        """What is asked of a node wakes its actor, also if nobody is there to carry it out."""
        async with Caller(service) as operator:
            while not over.is_set():
                await operator.ask("POST", f"/v1/nodes/{station.node_id}/invoke", {"command": "echo"})
                await asyncio.sleep(0.2)

    async def story() -> list[Caller]:
        working = asyncio.create_task(many(service, [station.token] * CLIENTS, work))
        waking = asyncio.create_task(keep_the_node_awake())
        async with asyncio.timeout(120):
            await asyncio.gather(kill(order), kill(node), kill_the_gateway())
        midway = not working.done()
        over.set()
        await waking
        phones = await working
        assert midway, "the last kill was in the middle of the work"
        return phones

    phones = asyncio.run(story())
    repeats = sum(phone.repeats for phone in phones)
    print(f"killed {dict(killed)}; {timings(phones)}; {repeats} requests repeated")
    assert repeats > 0, "some request was lost with the one who had it"
    assert all(status == 200 for status, _ in told.values())
    batch = service.patient("GET", "/v1/batches/fell-b")
    check_batch(batch)
    assert batch["completed_count"] == len(told)
    assert len({answer["tasks"][0]["task_id"] for _, answer in told.values()}) == len(told), "a task for each key"
    shown = service.patient("GET", "/v1/orders/fell")
    check_order(shown)
    assert (shown["status"], shown["completed_count"]) == ("in_progress", len(told))
    assert service.patient("GET", "/v1/orders/fell/notices")["items"] == []


def test_a_phone_that_stops_or_dies_on_the_way_completes_each_key_once(service: Service) -> None:
    """`holdfast batch complete` as an external device: its processes stopped and killed anywhere, the gateway too."""
    station = make_station(service, "phone")
    make_order(service, "phone", 8)
    dispatch(service, "phone", "phone-b", station, group(8))
    env = service.env | {"HOLDFAST_URL": service.url, "HOLDFAST_TOKEN": station.token}

    def start(key: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "actors", "batch", "complete", "phone-b", "pick", "sink", "--key", key, "--json"]
        return subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    fates = ["kill", "stop", "kill", "gateway", "kill", "stop", "kill", "kill"]
    for n, fate in enumerate(fates):
        with start(f"phone-{n}") as child:
            time.sleep(0.15 * n)  # where it is by then is anybody's guess: from its first import to its last byte
            if fate == "gateway":
                service.kill_gateway(within=60)
            elif child.poll() is None:
                child.send_signal(signal.SIGKILL if fate == "kill" else signal.SIGSTOP)
                if fate == "stop":
                    time.sleep(0.5)
                    child.send_signal(signal.SIGCONT)
            said, err = child.communicate(timeout=60)
            first = child.returncode
        with start(f"phone-{n}") as child:
            again, err = child.communicate(timeout=60)
            assert child.returncode == 0, err
        # 5: it found nobody there for longer than a person waits, and says so; the repeat is for that.
        assert first in {"kill": (0, -signal.SIGKILL), "stop": (0,), "gateway": (0, EXIT_UNAVAILABLE)}[fate], err
        assert first != 0 or said == again, "the repeat has the first one's answer"
        assert service.patient("GET", "/v1/batches/phone-b")["completed_count"] == n + 1
    order = service.patient("GET", "/v1/orders/phone")
    check_order(order)
    assert order["status"] == "completed"
    assert service.patient("GET", "/v1/batches/phone-b")["status"] == "completed"
    check_notices(service.patient("GET", "/v1/orders/phone/notices")["items"])
