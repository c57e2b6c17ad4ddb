"""Work orders over the real door: each command, each refusal with its numbers, lists, scopes, a phone that retries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.house import Frame
from tests.gateway.work import GROUP, Work

OTHER = {"sop_id": "fold", "subscene_id": "shelf"}


@pytest.fixture
async def work(tmp_path: Path) -> AsyncIterator[Work]:
    made = await Work(tmp_path).open()
    yield made
    await made.house.close()


def numbers(problem: Frame) -> dict[str, Any]:
    """What a refusal says beside what every problem document says."""
    every = {"type", "title", "status", "detail", "instance", "hint"}
    return {name: value for name, value in problem.items() if name not in every}


# ---------------------------------------------------------------- from dispatch to the end


async def test_an_order_goes_from_dispatch_to_its_end_and_every_count_adds_up(work: Work) -> None:
    order = await work.order(3, name="Fold")
    assert (order["status"], order["target_count"], order["remaining_assignable"]) == ("created", 3, 3)
    assert order["tasks"] == dict.fromkeys(order["tasks"], 0) and len(order["tasks"]) == 7
    batch = await work.batch(0, groups=[{**GROUP, "quantity": 2}, {**OTHER, "quantity": 1}])
    assert (batch["status"], batch["task_count"], batch["tasks"]["pending"]) == ("pending", 3, 3)
    assert [(g["subscene_id"], g["quantity"]) for g in batch["groups"]] == [("table", 2), ("shelf", 1)]
    tasks = await work.tasks(batch_id="b")
    assert [t["group"]["subscene_id"] for t in tasks] == ["table", "table", "shelf"]
    assert {(t["node_id"], t["order_id"], t["batch_id"], t["status"]) for t in tasks} == {("n", "o", "b", "pending")}

    told = await work.complete(2)
    assert (told["requested_count"], told["completed_count"], told["created_count"]) == (2, 2, 0)
    assert [t["task_id"] for t in told["tasks"]] == [t["task_id"] for t in tasks[:2]], "the oldest first"
    group = told["group"]
    assert (group["pending"], group["completed"], group["total"]) == (0, 2, 2)
    assert (told["batch"]["status"], told["batch"]["completed_count"]) == ("active", 2)
    assert ((await work.of_order())["status"], (await work.of_order())["started_at_ms"] is not None) == (
        "in_progress",
        True,
    )

    told = await work.complete(1, **OTHER)
    assert told["batch"]["status"] == "completed"
    order = await work.of_order()
    assert (order["status"], order["completed_count"], order["task_count"], order["remaining_assignable"]) == (
        *("completed", 3, 3),
        0,
    )
    assert order["completed_at_ms"] is not None and await work.notices() == [], "no device was set up for it"


async def test_whatever_is_too_much_is_refused_whole_with_the_numbers(work: Work) -> None:
    await work.order(5)
    await work.batch(2)
    path = "/v1/orders/o/batches"

    async def refused(groups: list[Frame], status: int = 400, at: str = path) -> dict[str, Any]:
        return numbers(await work.call("POST", at, {"station_id": "st", "groups": groups}, status=status))

    told = await refused([{**GROUP, "quantity": 2}, {**OTHER, "quantity": 2}])
    assert told["code"] == "quota_exceeded"
    wanted = {"requested": 4, "remaining_assignable": 3, "target_count": 5, "task_count": 2}
    assert wanted.items() <= told.items()
    told = await refused([{**GROUP, "quantity": 900}, {**OTHER, "quantity": 101}])
    assert told["code"] == "too_many_tasks" and {"requested": 1001, "max": 1000}.items() <= told.items()
    told = await refused([{**GROUP, "quantity": 1}, {**GROUP, "quantity": 1}])
    assert told == {"code": "duplicate_group", **GROUP}
    for wrong in ([{**GROUP, "quantity": 0}], [{**GROUP, "quantity": "1"}], [], [{"quantity": 1}]):
        assert (await refused(wrong))["code"] in ("bad_request", "bad_id")
    told = numbers(await work.call("POST", "/v1/batches/b/tasks", {"groups": [{**GROUP, "quantity": 6}]}, status=400))
    assert told["code"] == "quota_exceeded" and told["max_batch_target"] == 5
    assert (await work.of_order())["task_count"] == 2, "nothing of any of it"


async def test_an_adjustment_grows_and_shrinks_and_never_goes_below_what_has_begun(work: Work) -> None:
    await work.order(10)
    await work.batch(3)
    first = [t["task_id"] for t in await work.tasks(batch_id="b")]

    async def adjust(status: int = 200, **quantities: int) -> Frame:
        groups = [{"sop_id": "fold", "subscene_id": name, "quantity": n} for name, n in quantities.items()]
        told: Frame = await work.call("POST", "/v1/batches/b/tasks", {"groups": groups}, status=status)
        return told

    told = await adjust(table=5, shelf=2)
    assert (told["added_count"], told["removed_count"], told["batch"]["task_count"]) == (4, 0, 7)
    assert [(g["subscene_id"], g["previous_quantity"], g["quantity"]) for g in told["groups"]] == [
        ("table", 3, 5),
        ("shelf", 0, 2),
    ]
    await work.complete(2)
    told = await adjust(table=3)
    assert (told["added_count"], told["removed_count"]) == (0, 2)
    left = [t["task_id"] for t in await work.tasks(batch_id="b") if t["group"]["subscene_id"] == "table"]
    assert left == first, "the newest were taken away; the group that was not named stands"
    refused = numbers(await adjust(400, table=1))
    assert refused == {"code": "below_begun", **GROUP, "begun_count": 2}
    told = await adjust(table=2, shelf=0)
    assert (told["removed_count"], told["batch"]["task_count"]) == (3, 2)
    assert told["batch"]["completed_count"] == 2
    assert [t["task_id"] for t in await work.tasks(batch_id="b")] == first[:2]


async def test_a_completed_order_takes_no_more_but_gives_back_and_is_reopened_by_its_target(work: Work) -> None:
    await work.order(2)
    await work.batch(2)
    await work.complete(2)
    assert (await work.of_order())["status"] == "completed"
    for path, body in (
        ("/v1/orders/o/batches", {"station_id": "st", "groups": [{**GROUP, "quantity": 1}]}),
        ("/v1/batches/b/tasks", {"groups": [{**GROUP, "quantity": 3}]}),
    ):
        assert (await work.call("POST", path, body, status=409))["code"] == "order_completed"
    told = await work.call("POST", "/v1/batches/b/tasks", {"groups": [{**GROUP, "quantity": 2}]})
    assert (told["added_count"], told["removed_count"]) == (0, 0)
    refused = await work.call("PATCH", "/v1/orders/o", {"target_count": 1}, status=400)
    assert refused["code"] == "target_below_assigned" and refused["min_target"] == 2
    order = await work.call("PATCH", "/v1/orders/o", {"target_count": 4})
    assert (order["status"], order["remaining_assignable"]) == ("in_progress", 2)
    assert (await work.of_batch())["status"] == "completed", "batches stay as they are"
    await work.batch(2, "b2")
    await work.complete(1, "b2")
    order = await work.call("PATCH", "/v1/orders/o", {"target_count": 3})
    assert (order["status"], order["completed_count"], order["tasks"]["cancelled"]) == ("completed", 3, 1)
    assert (await work.of_batch("b2"))["status"] == "completed"


async def test_a_paused_order_begins_nothing_and_a_cancelled_one_refuses_everything(work: Work) -> None:
    await work.order(4)
    await work.batch(3)
    await work.connect()
    task_id = (await work.tasks(batch_id="b"))[0]["task_id"]
    order = await work.call("PATCH", "/v1/orders/o", {"status": "paused"})
    assert order["status"] == "paused"
    dispatch = {"station_id": "st", "groups": [{**GROUP, "quantity": 1}]}
    grow = {"groups": [{**GROUP, "quantity": 4}]}
    for path, body in (
        ("/v1/orders/o/batches", dispatch),
        ("/v1/batches/b/tasks", grow),
        ("/v1/batches/b/complete-tasks", GROUP),
        (f"/v1/tasks/{task_id}/config", {}),
    ):
        assert (await work.call("POST", path, body, status=409))["code"] == "order_paused", path
    order = await work.call("PATCH", "/v1/orders/o", {"status": "in_progress"})
    assert order["status"] == "in_progress"
    again = await work.call("PATCH", "/v1/orders/o", {"status": "in_progress"})
    assert again == order, "the same answer"
    order = await work.call("PATCH", "/v1/orders/o", {"status": "cancelled"})
    assert (order["status"], order["tasks"]["cancelled"]) == ("cancelled", 3)
    assert (await work.of_batch())["status"] == "cancelled"
    for method, path, body in (
        ("POST", "/v1/orders/o/batches", dispatch),
        ("PATCH", "/v1/orders/o", {"target_count": 9}),
        ("PATCH", "/v1/orders/o", {"status": "in_progress"}),
        ("POST", "/v1/batches/b/tasks", grow),
    ):
        told = numbers(await work.call(method, path, body, status=409))
        assert (told["code"], told["current_status"]) == ("order_terminal", "cancelled"), path
    told = numbers(await work.call("POST", "/v1/batches/b/complete-tasks", GROUP, status=409))
    assert told == {"code": "batch_terminal", "current_status": "cancelled"}
    again = await work.call("PATCH", "/v1/orders/o", {"status": "cancelled"})
    assert again == await work.of_order(), "cancelled again: the same answer"


async def test_a_batch_is_recalled_or_cancelled_once_and_again_is_the_same_answer(work: Work) -> None:
    await work.order(9)
    await work.batch(2)
    await work.batch(2, "b2")
    await work.complete(1)
    for _ in range(2):
        recalled = await work.call("POST", "/v1/batches/b/recall")
        assert (recalled["status"], recalled["tasks"]["cancelled"], recalled["completed_count"]) == ("recalled", 1, 1)
        cancelled = await work.call("PATCH", "/v1/batches/b2", {"status": "cancelled"})
        assert (cancelled["status"], cancelled["tasks"]["cancelled"]) == ("cancelled", 2)
    told = numbers(await work.call("PATCH", "/v1/batches/b", {"status": "cancelled"}, status=409))
    assert told == {"code": "batch_terminal", "current_status": "recalled"}
    told = numbers(await work.call("POST", "/v1/batches/b2/recall", status=409))
    assert told == {"code": "batch_terminal", "current_status": "cancelled"}
    await work.call("PATCH", "/v1/batches/b2", {"status": "pending"}, status=400)


@pytest.mark.parametrize(("policy", "left"), [("rows", 0), ("live", 2)])
async def test_the_quota_counts_what_its_policy_says(work: Work, policy: str, left: int) -> None:
    await work.order(3, quota_policy=policy)
    await work.batch(3)
    await work.complete(1)
    await work.call("POST", "/v1/batches/b/recall")
    order = await work.of_order()
    assert (order["remaining_assignable"], order["task_count"], order["quota_policy"]) == (left, 3, policy)
    body = {"station_id": "st", "groups": [{**GROUP, "quantity": 2}]}
    await work.call("POST", "/v1/orders/o/batches", body, status=201 if left else 400)


async def test_what_has_not_begun_can_be_deleted_and_what_has_is_history(work: Work) -> None:
    await work.order(4)
    await work.batch(2)
    await work.batch(2, "b2")
    await work.call("DELETE", "/v1/batches/b2", status=204)
    await work.call("GET", "/v1/batches/b2", status=404)
    assert (await work.of_order())["remaining_assignable"] == 2
    await work.complete(1)
    for path in ("/v1/batches/b", "/v1/orders/o"):
        told = numbers(await work.call("DELETE", path, status=409))
        assert told == {"code": "has_begun", "begun_count": 1}
    await work.order(4, "o2")
    await work.batch(2, "b3", "o2")
    await work.call("DELETE", "/v1/orders/o2", status=204)
    for path in ("/v1/orders/o2", "/v1/batches/b3", "/v1/orders/o2/batches", "/v1/orders/o2/notices"):
        await work.call("GET", path, status=404)
    await work.call("DELETE", "/v1/orders/o2", status=404)


# ---------------------------------------------------------------- external devices


async def test_the_same_key_from_a_phone_that_retries_completes_once(work: Work) -> None:
    await work.order(9)
    await work.batch(5)
    told = await asyncio.gather(*(work.complete(2, key="k") for _ in range(8)))
    assert all(one == told[0] for one in told), "one effect, one answer"
    assert (await work.of_order())["completed_count"] == 2
    await work.complete(3, key="k", status=422)
    await work.complete(3, key="k2")
    await work.complete(2, key="k")
    refused = numbers(await work.complete(1, key="k3", status=409))
    assert refused == {"code": "batch_terminal", "current_status": "completed"}


async def test_two_hundred_completions_by_twenty_phones_complete_exactly_what_there_is(work: Work) -> None:
    await work.order(150)
    await work.batch(150)

    async def phone(n: int) -> list[Frame]:
        told = []
        for k in range(10):
            path = "/v1/batches/b/complete-tasks"
            headers = {"Authorization": "Bearer t-st", "Idempotency-Key": f"{n}-{k}"}
            async with work.house.client.post(work.house.url + path, json=GROUP, headers=headers) as answer:
                told.append(await answer.json() | {"http": answer.status})
        return told

    answers = [one for told in await asyncio.gather(*(phone(n) for n in range(20))) for one in told]
    good = [one for one in answers if one["http"] == 200]
    assert len(good) == 150 and all(one["completed_count"] == 1 for one in good)
    assert {one["code"] for one in answers if one["http"] != 200} == {"batch_terminal"}
    assert sorted(one["batch"]["completed_count"] for one in good) == list(range(1, 151)), "each adds up by itself"
    assert all(one["group"]["pending"] + one["group"]["completed"] == 150 for one in good)
    assert len({one["tasks"][0]["task_id"] for one in good}) == 150, "no task twice"
    order = await work.of_order()
    assert (order["status"], order["completed_count"]) == ("completed", 150)


async def test_what_a_phone_is_refused_says_why(work: Work) -> None:
    await work.order(9)
    await work.batch(2)
    await work.station("st2", "bo", "n2")
    told = numbers(await work.complete(3, status=400))
    assert told["code"] == "too_few_pending" and {"requested": 3, "pending": 2}.items() <= told.items()
    assert (await work.complete(1, token="t-st2", status=403))["code"] == "not_your_station"
    assert (await work.complete(1, token=await work.phone(None), status=403))["code"] == "not_your_station"
    assert (await work.complete(1, token=await work.phone("gone"), status=404))["code"] == "station_not_found"
    assert (await work.complete(1, "nosuch", status=404))["code"] == "batch_not_found"
    assert (await work.complete(1, sop_id="nosuch", status=404))["code"] == "group_not_found"
    for quantity in (0, -1, 1001, "1", 1.5, True):
        assert (await work.complete(quantity, status=400))["code"] == "bad_request"  # type: ignore[arg-type]
    await work.complete(1, token="operator")
    await work.complete(1, token="reader", status=403)
    assert (await work.of_order())["completed_count"] == 1


async def test_the_handoff_is_one_line_byte_for_byte(work: Work) -> None:
    await work.order(9)
    names = {"sop_slug": "fold-towel", "sop_version": 2, "scene_name": 'Küche "3"', "subscene_name": "卓\\"}
    await work.batch(0, groups=[{**GROUP, "quantity": 1, **names}, {**OTHER, "quantity": 1}])
    await work.call("PATCH", "/v1/collectors/mira", {"name": "Mira Öz", "operator_id": "0042"})
    typed = {"name": "dual-arm", "capabilities": {"requires_axon": False}}
    await work.call("PATCH", "/v1/stations/st", {"node_type": typed})

    async def handoff(subscene: str, token: str = "t-st") -> bytes:
        path = f"/v1/batches/b/groups/fold/{subscene}/handoff"
        async with work.house.client.get(work.house.url + path, headers={"Authorization": f"Bearer {token}"}) as answer:
            assert (answer.status, answer.content_type) == (200, "application/json")
            return await answer.read()

    assert (
        await handoff("table")
        == (
            '{"sop_slug":"fold-towel","sop_version":"2","scene_name":"Küche \\"3\\"","subscene_name":"卓\\\\",'
            '"collector_name":"Mira Öz","collector_operator_id":"0042","device_id":"n","device_type":"dual-arm"}'
        ).encode()
    )
    assert (
        await handoff("shelf", "t-reader")
        == (
            '{"sop_slug":"","sop_version":"","scene_name":"","subscene_name":"",'
            '"collector_name":"Mira Öz","collector_operator_id":"0042","device_id":"n","device_type":"dual-arm"}'
        ).encode()
    )


# ---------------------------------------------------------------- who sees what


async def test_me_tells_a_collector_its_station_and_what_its_device_can_do(work: Work) -> None:
    async def me(token: str) -> Frame:
        found: Frame = await work.call("GET", "/v1/me", token=token)
        return found

    found = await me("t-st")
    assert (found["scope"], found["station_id"]) == ("collector", "st")
    assert (found["station"]["station_id"], found["collector"]["collector_id"]) == ("st", "mira")
    assert found["node"] == {"node_id": "n", "name": None, "connected": False}
    assert found["node_type"] == {"name": None, "capabilities": {"requires_axon": True}}
    await work.connect(capabilities={"arms": 2, "requires_axon": False})
    found = await me("t-st")
    assert found["node"]["connected"]
    assert found["node_type"] == {"name": None, "capabilities": {"arms": 2, "requires_axon": False}}
    await work.call("PATCH", "/v1/stations/st", {"node_type": {"name": "arm", "capabilities": {"grip": "soft"}}})
    assert (await me("t-st"))["node_type"] == {"name": "arm", "capabilities": {"grip": "soft", "requires_axon": True}}
    await work.phone("gone")
    for token in ("t-gone", await work.phone(None), "operator"):
        found = await me(token)
        assert [found[name] for name in ("station", "collector", "node", "node_type")] == [None] * 4, token


async def test_a_collector_finds_its_own_stations_work_and_nothing_else(work: Work) -> None:
    await work.station("st2", "bo", "n2")
    await work.order(9)
    await work.batch(1)
    await work.batch(1, "b2", station_id="st2")
    await work.call("POST", "/v1/nodes/n/tasks", {"task_id": "free"}, status=201)

    async def seen(path: str, token: str, **query: str) -> list[str]:
        page = await work.call("GET", path, token=token, params=query)
        return sorted(one.get("batch_id") or "" for one in page["items"])

    assert await seen("/v1/batches", "operator") == ["b", "b2"]
    assert await seen("/v1/tasks", "operator") == ["", "b", "b2"]
    for path in ("/v1/batches", "/v1/tasks"):
        assert await seen(path, "t-st") == ["b"]
        assert await seen(path, "t-st", order_id="o") == ["b"]
        assert await seen(path, await work.phone(None)) == []
    assert await seen("/v1/batches", "t-st", station_id="st2") == []
    assert await seen("/v1/batches", "t-st2", station_id="st2", status="pending") == ["b2"]
    await work.call("GET", "/v1/tasks/free", token="t-st", status=404)
    await work.call("GET", "/v1/batches/b2", token="t-st", status=404)
    await work.call("GET", "/v1/stations/st2", token="t-st", status=404)
    assert (await work.call("GET", "/v1/stations/st", token="t-st"))["open_batches"] == 1
    for path in ("/v1/orders", "/v1/orders/o", "/v1/stations", "/v1/collectors", "/v1/nodes"):
        await work.call("GET", path, token="t-st", status=403)


async def test_lists_are_filtered_and_every_page_follows_the_one_before(work: Work) -> None:
    for n in range(5):
        await work.order(9, f"o{n}", name=f"Order {'even' if n % 2 == 0 else 'odd'} 100%_{n}")
        await work.batch(2, f"b{n}", f"o{n}")
    await work.call("PATCH", "/v1/orders/o2", {"status": "cancelled"})
    await work.complete(1, "b4")

    async def walked(path: str, of: str, **query: str) -> list[str]:
        found: list[str] = []
        cursor: str | None = None
        while True:
            page = await work.call("GET", path, params={**query, "limit": "2"} | ({"cursor": cursor} if cursor else {}))
            assert len(page["items"]) <= 2
            found += [one[of] for one in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    assert await walked("/v1/orders", "order_id") == ["o4", "o3", "o2", "o1", "o0"]
    assert await walked("/v1/orders", "order_id", q="even") == ["o4", "o2", "o0"]
    assert await walked("/v1/orders", "order_id", q="100%_3") == ["o3"]
    assert await walked("/v1/orders", "order_id", status="created") == ["o3", "o1", "o0"]
    assert await walked("/v1/batches", "batch_id", station_id="st") == ["b4", "b3", "b2", "b1", "b0"]
    assert await walked("/v1/batches", "batch_id", status="cancelled") == ["b2"]
    assert await walked("/v1/batches", "batch_id", order_id="o3", status="pending") == ["b3"]
    assert await walked("/v1/orders/o1/batches", "batch_id") == ["b1"]
    assert await walked("/v1/tasks", "batch_id", order_id="o1") == ["b1", "b1"]
    assert await walked("/v1/tasks", "batch_id", status="completed", batch_id="b4") == ["b4"]
    assert len(await walked("/v1/tasks", "batch_id", node_id="n")) == 10
    for path in ("/v1/orders?status=open", "/v1/batches?status=created", "/v1/orders?limit=0", "/v1/batches?order_id="):
        await work.call("GET", path, status=400)
    await work.call("GET", "/v1/orders/nosuch/batches", status=404)


# ---------------------------------------------------------------- stations


async def test_a_new_binding_supersedes_the_one_before_wherever_it_was(work: Work) -> None:
    await work.station("st2", "bo", "n2")
    await work.order(9)
    await work.batch(2)
    changed = await work.call("PATCH", "/v1/stations/st", {"node_id": "n2"})
    assert (changed["collector_id"], changed["node_id"], changed["version"]) == ("mira", "n2", 2)
    assert {t["node_id"] for t in await work.tasks(batch_id="b")} == {"n2"}, "pending tasks follow"
    lost = await work.call("GET", "/v1/stations/st2")
    assert (lost["collector_id"], lost["node_id"]) == (None, None)
    body = {"station_id": "st2", "groups": [{**GROUP, "quantity": 1}]}
    assert (await work.call("POST", "/v1/orders/o/batches", body, status=409))["code"] == "station_not_bound"
    back = await work.call("PATCH", "/v1/stations/st", {"node_id": "n"})
    assert back["version"] == 3
    page = await work.call("GET", "/v1/stations/st/bindings")
    assert [(b["version"], b["node_id"], b["ended_at_ms"] is None) for b in page["items"]] == [
        (3, "n", True),
        (2, "n2", False),
        (1, "n", False),
    ]
    assert {b["by"] for b in page["items"]} == {"tok_operator"}
    again = await work.call("PATCH", "/v1/stations/st", {"node_id": "n", "collector_id": "mira"})
    assert again["version"] == 3, "the same pair is the same binding"
    for body, code in (({"node_id": "nosuch"}, "node_not_found"), ({"collector_id": "nosuch"}, "collector_not_found")):
        assert (await work.call("PATCH", "/v1/stations/st", body, status=404))["code"] == code
    listed = await work.call("GET", "/v1/stations", params={"collector_id": "mira"})
    assert [s["station_id"] for s in listed["items"]] == ["st"]


async def test_a_station_with_work_under_way_keeps_its_node(work: Work) -> None:
    await work.station("st2", "bo", "n2")
    await work.order(9)
    await work.batch(2)
    await work.connect()
    task_id = (await work.tasks(batch_id="b"))[0]["task_id"]
    await work.ready(task_id)
    takes = ("PATCH", "/v1/stations/st", {"node_id": "n2"}), ("PATCH", "/v1/stations/st2", {"node_id": "n"})
    for method, path, body in takes:
        told = numbers(await work.call(method, path, body, status=409))
        assert told == {"code": "station_busy", "task_ids": [task_id]}, path
    told = numbers(await work.call("DELETE", "/v1/stations/st", status=409))
    assert told["code"] == "station_busy" and told["open_batches"]
    assert (await work.call("DELETE", "/v1/collectors/mira", status=409))["station_id"] == "st"
    await work.call("PATCH", "/v1/batches/b", {"status": "cancelled"})
    await work.call("DELETE", "/v1/stations/st", status=204)
    await work.call("GET", "/v1/stations/st", status=404)
    await work.call("DELETE", "/v1/collectors/mira", status=204)
    await work.call("GET", "/v1/collectors/mira", status=404)
    assert (await work.complete(1, status=404))["code"] in ("station_not_found", "batch_terminal")


async def test_every_act_stands_in_the_audit_by_whom_and_on_what(work: Work) -> None:
    await work.order(3)
    await work.batch(2)
    await work.complete(1)
    await work.complete(9, status=400)
    await work.call("POST", "/v1/batches/b/recall")
    page = await work.call("GET", "/v1/audit", token="admin", params={"limit": 500})
    told = [(a["action"], a["by"], a["object_id"], a["outcome"]) for a in page["items"]]
    for wanted in (
        ("order.create", "tok_operator", "o", "ok"),
        ("batch.dispatch", "tok_operator", "b", "ok"),
        ("batch.complete", "tok_st", "b", "ok"),
        ("batch.complete", "tok_st", "b", "too_few_pending"),
        ("batch.recall", "tok_operator", "b", "ok"),
        ("station.create", "tok_operator", "st", "ok"),
        ("collector.create", "tok_operator", "mira", "ok"),
    ):
        assert wanted in told, (wanted, told)
