"""Invocations on the real store: durable, in order, one outcome each, and `dispatched` known for every failure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.law.effects import Done, InvocationSettled, NodeWaits
from actors.law.nodes import requests as nq
from actors.law.nodes.answers import Fetched, Ignored
from actors.protocol.defaults import INVOCATIONS_MAX, INVOKE_PAYLOAD_BYTES
from actors.protocol.errors import HoldfastError
from actors.protocol.ids import ulid
from actors.store.contract import IdempotencyKey
from tests.node_world import NodeWorld


@pytest.fixture
def world(tmp_path: Path) -> Iterator[NodeWorld]:
    made = NodeWorld(tmp_path)
    made.plug()
    yield made
    made.close()


def outcome_of(world: NodeWorld, invocation_id: str) -> tuple[str | None, bool]:
    """The error's code (None: ok) and whether it may have been executed."""
    shown = world.store.invocation(invocation_id)
    assert shown["state"] == "settled", shown
    if shown["error"] is None:
        return None, shown["dispatched"]
    assert shown["error"]["dispatched"] == shown["dispatched"]
    return shown["error"]["code"], shown["dispatched"]


def test_it_is_a_row_before_it_is_a_frame_and_settles_once(world: NodeWorld) -> None:
    made = world.invoke(params={"a": 1}, idempotency_key="k-1")
    iid = made["invocation_id"]
    assert (made["state"], made["dispatched"], made["connection_id"]) == ("pending", False, "con_1")
    assert NodeWaits("n") in world.spoken
    frame = {
        "type": "invoke",
        "invocation_id": iid,
        "command": "device.info",
        "params": {"a": 1},
        "within_s": 30.0,
        "idempotency_key": "k-1",
    }
    assert world.fetch() == [frame] and world.fetch() == []
    assert world.store.invocation(iid)["state"] == "dispatched"
    assert world.result(iid, payload={"b": 2}).answer == Done(changed=True)
    assert InvocationSettled(iid) in world.spoken
    assert world.result(iid, payload={"b": 3}).answer == Ignored(iid)
    assert world.store.invocation(iid)["payload"] == {"b": 2} and world.armed() == []


def test_frames_go_out_in_the_order_of_creation_page_by_page(world: NodeWorld) -> None:
    made = [world.invoke()["invocation_id"] for _ in range(5)]
    first = world.do(nq.NodeFetch(**world.framed("con_1"), limit=2)).answer
    assert isinstance(first, Fetched) and first.more
    rest = [f["invocation_id"] for f in world.fetch(limit=2)] + [f["invocation_id"] for f in world.fetch(limit=2)]
    assert [f["invocation_id"] for f in first.frames] + rest == made


def test_a_repeated_fetch_has_the_same_frames_and_dispatches_nothing_anew(world: NodeWorld) -> None:
    made = world.invoke()
    request = nq.NodeFetch(**world.framed("con_1"), limit=9)
    first = world.do(request).answer
    later = world.invoke()
    again = world.do(request).answer
    assert isinstance(first, Fetched) and isinstance(again, Fetched)
    assert [f["invocation_id"] for f in first.frames] == [f["invocation_id"] for f in again.frames]
    assert [f["invocation_id"] for f in first.frames] == [made["invocation_id"]] and again.more
    assert world.store.invocation(later["invocation_id"])["dispatched"] is False
    assert [f["invocation_id"] for f in world.fetch()] == [later["invocation_id"]]
    assert world.store._c.execute("select count(*) from node_outbox").fetchone()[0] == 1  # the last fetch's own


def test_each_refusal_is_stored_and_certainly_unsent(world: NodeWorld) -> None:
    refused = {
        "NOT_CONNECTED": world.invoke(role="recorder"),
        "NOT_ALLOWED": world.invoke("other"),
        "ROUTE_CHANGED": world.invoke(expected_connection_id="con_0"),
    }
    for code, shown in refused.items():
        assert outcome_of(world, shown["invocation_id"]) == (code, False)
    assert world.fetch() == [] and world.armed() == []
    assert world.invoke(expected_connection_id="con_1")["state"] == "pending"
    unknown = world.do(nq.Invoke(node_id="m", seed=ulid(), invocation_id="inv_x", command="c"))
    assert world.refused(unknown) == "node_not_found"
    with pytest.raises(HoldfastError, match="invocation_not_found"):
        world.store.invocation("inv_x")


def test_the_list_is_looked_at_again_at_dispatch(world: NodeWorld) -> None:
    made = world.invoke()
    world.do(nq.ChangeNode(node_id="n", seed=ulid(), allow=()))
    assert world.fetch() == [] and world.fetch() == []
    assert outcome_of(world, made["invocation_id"]) == ("NOT_ALLOWED", False)


def test_replacement_settles_at_once_with_the_dispatched_bit(world: NodeWorld) -> None:
    sent, unsent = world.invoke(), world.invoke()
    world.fetch(limit=1)
    world.plug("con_2", instance="i_2")
    assert outcome_of(world, sent["invocation_id"]) == ("DISCONNECTED", True)
    assert outcome_of(world, unsent["invocation_id"]) == ("DISCONNECTED", False)
    assert world.fetch("con_2") == [] and world.armed() == []


def test_a_close_settles_only_its_own(world: NodeWorld) -> None:
    world.plug("rec", role="recorder", reported="idle", commands=("cam.snap",))
    here, there = world.invoke(), world.invoke("cam.snap", role="recorder")
    world.fetch()
    world.fetch("rec")
    world.unplug("con_1", code=1006)
    assert outcome_of(world, here["invocation_id"]) == ("DISCONNECTED", True)
    assert world.store.invocation(there["invocation_id"])["state"] == "dispatched"


def test_a_frame_before_the_close_counts_and_one_after_it_does_not(world: NodeWorld) -> None:
    first, second = world.invoke(), world.invoke()
    world.fetch()
    world.result(first["invocation_id"], payload=1)
    world.unplug()
    world.result(second["invocation_id"], payload=2)
    assert outcome_of(world, first["invocation_id"]) == (None, True)
    assert outcome_of(world, second["invocation_id"]) == ("DISCONNECTED", True)


def test_a_result_for_anothers_invocation_is_ignored(world: NodeWorld) -> None:
    world.plug("con_m", "m", instance="i_m")
    mine = world.invoke()
    world.fetch()
    assert world.result(mine["invocation_id"], "con_m").answer == Ignored(mine["invocation_id"])
    assert world.store.invocation(mine["invocation_id"])["state"] == "dispatched"
    unsent = world.invoke()
    assert world.result(unsent["invocation_id"]).answer == Ignored(unsent["invocation_id"])
    assert world.store.invocation(unsent["invocation_id"])["state"] == "pending"


@pytest.mark.parametrize("fetched", [True, False])
def test_a_deadline_is_kept_by_the_clock(world: NodeWorld, fetched: bool) -> None:
    made = world.invoke(timeout_s=5)
    if fetched:
        world.fetch()
    world.walk(4)
    assert world.store.invocation(made["invocation_id"])["state"] != "settled"
    world.walk(2)
    assert outcome_of(world, made["invocation_id"]) == ("TIMEOUT", fetched)
    cancels = [{"type": "invoke_cancel", "invocation_id": made["invocation_id"]}] if fetched else []
    assert world.fetch() == cancels and world.armed() == []


def test_a_result_past_its_time_is_late_even_if_no_sweep_came(world: NodeWorld) -> None:
    made = world.invoke(timeout_s=5)
    world.fetch()
    world.walk(6, sweep=False)
    answer = world.result(made["invocation_id"], payload="late").answer
    assert answer == Ignored(made["invocation_id"], changed=True)
    assert outcome_of(world, made["invocation_id"]) == ("TIMEOUT", True)
    assert world.store.invocation(made["invocation_id"])["payload"] is None


def test_an_outage_of_ours_shortens_nobodys_time(world: NodeWorld) -> None:
    made = world.invoke(timeout_s=30)
    world.fetch()
    world.now_ms += 3_600_000  # no door was open for an hour: one step of service time at most
    world.walk(1)
    assert world.store.invocation(made["invocation_id"])["state"] == "dispatched"


def test_no_deadline_is_no_deadline(world: NodeWorld) -> None:
    made = world.invoke(timeout_s=0)
    assert world.fetch()[0]["within_s"] is None and world.armed() == []
    world.walk(600)
    assert world.store.invocation(made["invocation_id"])["state"] == "dispatched"


def test_progress_is_in_order_and_holds_the_idle_deadline_off(world: NodeWorld) -> None:
    iid = world.invoke(timeout_s=0, idle_timeout_s=5)["invocation_id"]
    world.fetch()
    for seq in (1, 2, 3):
        world.walk(4)
        assert world.progress(iid, seq, payload={"n": seq}).answer == Done(changed=True)
    assert world.progress(iid, 2, payload={"n": "again"}).answer == Ignored(iid)
    assert world.progress(iid, 5, payload={"n": "hole"}).answer == Ignored(iid)
    shown = world.store.invocation(iid)["progress"]
    assert (shown["seq"], shown["payload"]) == (3, {"n": 3})
    gaps = world.store._c.execute("select progress_gaps from invocations where id = ?", (iid,)).fetchone()[0]
    assert gaps == 1
    world.walk(6)
    assert outcome_of(world, iid) == ("IDLE_TIMEOUT", True)
    assert world.fetch() == [{"type": "invoke_cancel", "invocation_id": iid}]
    assert world.progress(iid, 4).answer == Ignored(iid)


def test_cancel_has_one_outcome_however_often(world: NodeWorld) -> None:
    sent, unsent, done = (world.invoke()["invocation_id"] for _ in range(3))
    world.cancel(unsent)
    world.fetch()
    world.result(done, payload=1)
    first, again = world.cancel(sent), world.cancel(sent)
    assert first.body == again.body and first.status == 200
    assert (outcome_of(world, sent), outcome_of(world, unsent)) == (("CANCELLED", True), ("CANCELLED", False))
    kept = world.cancel(done)
    assert kept.body is not None and kept.body["ok"] is True
    assert world.fetch() == [{"type": "invoke_cancel", "invocation_id": sent}]
    assert world.result(sent).answer == Ignored(sent)
    assert world.refused(world.cancel("inv_x")) == "invocation_not_found"
    assert world.refused(world.cancel(sent, node_id="m")) == "invocation_not_found"


def test_too_large_a_payload_is_refused_and_nothing_of_it_is_stored(world: NodeWorld) -> None:
    iid = world.invoke()["invocation_id"]
    world.fetch()
    big = "x" * (INVOKE_PAYLOAD_BYTES + 1)
    assert world.refused(world.progress(iid, 1, payload=big)) == "too_large"
    assert world.progress(iid, 1, payload="small").answer == Done(changed=True)
    world.result(iid, payload=big)
    shown = world.store.invocation(iid)
    assert (shown["error"]["code"], shown["payload"]) == ("NODE_ERROR", None)
    assert "too large" in shown["error"]["message"]


def test_what_has_settled_leaves_nothing_behind(world: NodeWorld) -> None:
    done, unsent = (world.invoke(timeout_s=60, idle_timeout_s=30)["invocation_id"] for _ in range(2))
    world.cancel(unsent)
    waiting = world.store._c.execute("select invocation_id from node_outbox").fetchall()
    assert waiting == [(done,)], "what was never sent waits no more"
    world.fetch()
    largest = "x" * (INVOKE_PAYLOAD_BYTES - 2)  # and its quotes
    assert world.result(done, payload=largest).answer == Done(changed=True)
    assert world.store.invocation(done)["payload"] == largest
    assert world.armed() == []


def test_a_node_that_failed_is_quoted(world: NodeWorld) -> None:
    iid = world.invoke()["invocation_id"]
    world.fetch()
    world.result(iid, ok=False, error={"code": "E_DOOR", "message": "the door is shut"}, payload={"door": 3})
    shown = world.store.invocation(iid)
    assert shown["error"] == {
        "code": "NODE_ERROR",
        "message": "the door is shut",
        "dispatched": True,
        "node_code": "E_DOOR",
    }
    assert shown["payload"] == {"door": 3}


def test_an_idempotency_key_is_one_invocation(world: NodeWorld) -> None:
    key = IdempotencyKey("tok", "POST /invoke", "k", "hash")

    def ask() -> dict[str, object]:
        request = nq.Invoke(node_id="n", seed=ulid(), invocation_id=f"inv_{ulid()}", command="device.info")
        body = world.do(request, key).body
        assert body is not None
        return body

    assert ask()["invocation_id"] == ask()["invocation_id"]
    assert len(world.fetch()) == 1 and len(world.store.invocations("n", 50, None).items) == 1


def test_a_node_holds_a_bounded_number(world: NodeWorld) -> None:
    made = [world.invoke() for _ in range(INVOCATIONS_MAX)]
    over = world.invoke()
    assert (over["error"]["code"], over["error"]["dispatched"]) == ("UNAVAILABLE", False)
    world.cancel(made[0]["invocation_id"])
    assert world.invoke()["state"] == "pending"


def test_the_list_is_newest_first_and_paged(world: NodeWorld) -> None:
    made = [world.invoke()["invocation_id"] for _ in range(5)]
    page = world.store.invocations("n", 3, None)
    rest = world.store.invocations("n", 3, page.next_cursor)
    assert [i["invocation_id"] for i in page.items + rest.items] == made[::-1] and rest.next_cursor is None


def test_a_node_that_waits_is_found_by_who_looks(world: NodeWorld) -> None:
    n, nodes = world.store.nodes_with_outbox(0)
    assert nodes == []
    world.invoke()
    newest, nodes = world.store.nodes_with_outbox(n)
    assert nodes == ["n"] and world.store.nodes_with_outbox(newest) == (newest, [])
    world.fetch()
    assert world.store.nodes_with_outbox(0) == (newest, [])
