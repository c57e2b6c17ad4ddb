"""Who owns a role, what presence says, and how nodes come and go: the law on the real store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.law.effects import CloseSocket, Done, Fenced, RefuseConnection
from actors.law.nodes import requests as nq
from actors.law.nodes.answers import NodeConnected
from actors.protocol.errors import HoldfastError
from actors.protocol.ids import ulid
from actors.protocol.node_payloads import NODE_PAYLOADS
from actors.protocol.node_resources import InvocationResource, NodeResource, TaskResource
from actors.store import backup
from actors.store.contract import NodeFilter, Token
from tests.node_world import NodeWorld


@pytest.fixture
def world(tmp_path: Path) -> Iterator[NodeWorld]:
    made = NodeWorld(tmp_path)
    yield made
    made.close()


def closes(world: NodeWorld) -> list[tuple[str, int]]:
    return [(s.connection_id, s.code) for s in world.spoken if isinstance(s, CloseSocket)]


def test_the_same_node_twice_and_the_old_socket_closed_late_fifty_times(world: NodeWorld) -> None:
    """The live proof, on rows: connected throughout, commands intact, the new one answers, nothing is disconnected."""
    world.plug("con_0", instance="i_0")
    for k in range(1, 51):
        old, new = f"con_{k - 1}", f"con_{k}"
        world.plug(new, instance=f"i_{k}")
        assert world.node()["connected"] and world.node()["commands"] == ["device.info"]
        assert isinstance(world.unplug(old, code=1006).answer, Done)
        made = world.invoke()
        assert (world.fetch(new)[0]["invocation_id"], world.sent[old]) == (made["invocation_id"], [])
        assert isinstance(world.result(made["invocation_id"], old, payload={"handled_by": "old"}).answer, Fenced)
        world.result(made["invocation_id"], new, payload={"handled_by": "new"})
        assert world.store.invocation(made["invocation_id"])["payload"] == {"handled_by": "new"}
        world.sent[new] = []
        node = world.node()
        assert node["presence"]["reason"] == "connect" and node["roles"]["node"]["connection_id"] == new
    assert "node.disconnected" not in world.log() and world.log().count("node.superseded") == 50
    assert closes(world) == [(f"con_{k}", 4001) for k in range(50)]


def test_a_late_close_is_nothing_at_all(world: NodeWorld) -> None:
    world.plug("con_1")
    world.plug("con_2", instance="i_2")
    world.spoken.clear()
    before = (world.node(), world.log(), world.armed())
    outcome = world.unplug("con_1", code=1006)
    assert outcome.answer == Done(changed=False) and world.spoken == []
    assert (world.node(), world.log(), world.armed()) == before


def test_two_attempts_of_one_instance_never_fight(world: NodeWorld) -> None:
    world.plug("con_2", attempt=2)
    late = world.plug("con_1", attempt=1).answer
    assert isinstance(late, RefuseConnection) and late.code == 4009
    same = world.plug("con_4", attempt=2).answer
    assert isinstance(same, RefuseConnection) and same.code == 4009
    assert world.role()["connection_id"] == "con_2"
    world.plug("con_3", attempt=3)
    assert closes(world) == [("con_2", 4009)]


def test_a_role_that_spoke_is_seen_and_the_other_is_not(world: NodeWorld) -> None:
    world.plug("con_1")
    world.plug("con_2", role="recorder")
    before = {role: world.role(role)["last_seen_at_ms"] for role in ("node", "recorder")}
    world.walk(10)
    world.store.flush_node_seen([("n", "recorder", "con_2"), ("n", "node", "con_2")])
    assert world.role("node")["last_seen_at_ms"] == before["node"]
    assert world.role("recorder")["last_seen_at_ms"] == before["recorder"] + 10_000
    world.store.flush_node_seen([("n", "node", "con_1")])
    assert world.role("recorder")["last_seen_at_ms"] == world.role("node")["last_seen_at_ms"]


def test_without_attempts_the_later_arrival_owns(world: NodeWorld) -> None:
    world.plug("con_1")
    world.plug("con_2")
    assert world.role()["connection_id"] == "con_2" and closes(world) == [("con_1", 4009)]


def test_stale_only_waits_for_a_silent_owner(tmp_path: Path) -> None:
    world = NodeWorld(tmp_path, takeover="stale_only", takeover_threshold_s=20.0)
    world.plug("con_1")
    world.walk(15)
    world.store.flush_node_seen([("n", "node", "con_1")])
    world.walk(19)
    early = world.plug("con_2", instance="i_2").answer
    assert isinstance(early, RefuseConnection) and (early.code, early.reason) == (1013, "already_connected")
    assert early.retry_after_s is not None and 0 < early.retry_after_s <= 2
    world.walk(2)
    assert isinstance(world.plug("con_3", instance="i_2").answer, NodeConnected)
    assert closes(world) == [("con_1", 4001)]
    world.close()


def test_an_unknown_role_is_a_protocol_error(world: NodeWorld) -> None:
    answer = world.plug(role="printer").answer
    assert answer == RefuseConnection(4002, "unknown_role")
    with pytest.raises(HoldfastError, match="node_not_found"):
        world.node()


def test_a_repeated_connect_is_the_same_connection_and_a_ghost_is_not(world: NodeWorld) -> None:
    hello = nq.NodeConnect(
        node_id="n",
        seed=ulid(),
        role="recorder",
        connection_id="con_1",
        gateway_id="gw_1",
        instance_id="i_1",
        may_create=True,
    )
    first, second = world.do(hello).answer, world.do(hello).answer
    assert first == second and isinstance(first, NodeConnected) and first.directives == ({"type": "probe"},)
    assert world.log() == ["node.connected"]
    world.plug("con_2", role="recorder", instance="i_2")
    ghost = world.do(hello).answer
    assert isinstance(ghost, RefuseConnection) and ghost.code == 1013
    assert world.role("recorder")["connection_id"] == "con_2"


def test_a_dead_gateways_connect_does_not_own(world: NodeWorld) -> None:
    answer = world.plug(gateway="gw_0").answer
    assert isinstance(answer, RefuseConnection) and answer.code == 1012


def test_presence_is_computed_from_connections_and_says_why(world: NodeWorld) -> None:
    world.make(name="Ada")
    assert world.node()["presence"] == {"reason": "never", "at_ms": world.now_ms}
    world.plug("con_1")
    world.plug("rec", role="recorder", reported="idle")
    world.unplug("con_1", code=1000)
    node = world.node()
    assert node["connected"] and node["presence"]["reason"] == "connect"  # a role is still here
    world.unplug("rec", timed_out=True, code=1006)
    node = world.node()
    assert (node["connected"], node["presence"]["reason"]) == (False, "timeout")
    world.plug("con_2")
    world.unplug("con_2", gateway_lost=True, code=1006)
    assert world.node()["presence"]["reason"] == "gateway_lost"
    gone = world.store.node_events("n", 0, 100).items[-1]
    assert gone["type"] == "node.disconnected" and gone["data"]["presence"] == "gateway_lost"


def test_roles_are_owned_apart(world: NodeWorld) -> None:
    world.device()
    world.plug("tra2", role="transfer", instance="i_2", uploads=())
    assert world.role("recorder")["connection_id"] == "rec"
    assert closes(world) == [("tra", 4001)]
    world.unplug("tra2")
    assert world.role("recorder")["state"] == "connected" and world.node()["connected"]


def test_a_dead_gateway_leaves_its_roles_to_the_next(world: NodeWorld) -> None:
    world.plug("con_1")
    waiting, sent = world.invoke(), world.invoke()
    world.store._c.execute("delete from node_outbox where invocation_id = ?", (waiting["invocation_id"],))
    world.fetch()
    world.store.register_gateway("gw_2", 2, 2, "http://127.0.0.1:2")
    assert world.store.lost_node_roles("gw_2") == [("n", "node", "con_1")]
    for node_id, role, connection in world.store.lost_node_roles("gw_2"):
        world.do(
            nq.NodeClosed(
                node_id=node_id, seed=ulid(), role=role, connection_id=connection, code=1006, gateway_lost=True
            )
        )
    told = [world.store.invocation(i["invocation_id"])["error"] for i in (waiting, sent)]
    assert [(e["code"], e["dispatched"]) for e in told] == [("UNAVAILABLE", False), ("UNAVAILABLE", True)]
    assert world.store.lost_node_roles("gw_2") == []


def test_commands_are_declared_and_allowed(tmp_path: Path) -> None:
    world = NodeWorld(tmp_path, node_commands=("device.*", "camera.snap"))
    world.plug(commands=("device.info", "device.reboot", "shell.run", "camera.snap", "camera.snap2"))
    assert world.node()["commands"] == ["device.info", "device.reboot", "camera.snap"]
    assert world.node()["denied_commands"] == ["shell.run", "camera.snap2"]
    world.do(nq.ChangeNode(node_id="n", seed=ulid(), allow=("device.info", "shell.*")))
    assert world.node()["commands"] == ["device.info"]
    assert world.invoke("shell.run")["error"]["code"] == "NOT_ALLOWED"
    assert world.invoke("device.undeclared")["error"]["code"] == "NOT_ALLOWED"
    assert world.invoke("device.info")["state"] == "pending"
    world.close()


def test_a_change_changes_what_is_given(world: NodeWorld) -> None:
    world.make(name="Ada", allow=("a.*",))
    outcome = world.do(nq.ChangeNode(node_id="n", seed=ulid(), name=None))
    assert outcome.body is not None and (outcome.body["name"], outcome.body["allow"]) == (None, ["a.*"])
    world.do(nq.ChangeNode(node_id="n", seed=ulid(), allow=None, drained=True))
    assert (world.node()["allow"], world.node()["drained"]) == (None, True)
    assert world.refused(world.do(nq.ChangeNode(node_id="m", seed=ulid(), name="x"))) == "node_not_found"


def test_making_a_node_is_idempotent_by_its_seed(world: NodeWorld) -> None:
    request = nq.CreateNode(node_id="n", seed=ulid())
    assert world.do(request).status == 201 and world.do(request).status == 201
    assert world.refused(world.make()) == "node_exists"


def test_a_token_bound_to_the_node_makes_it_and_another_does_not(world: NodeWorld) -> None:
    stranger = world.plug(may_create=False).answer
    assert isinstance(stranger, RefuseConnection) and stranger.code == 4004
    assert isinstance(world.plug("con_2").answer, NodeConnected)
    assert isinstance(world.plug("con_3", may_create=False).answer, NodeConnected)  # it is there now


def test_forgetting_closes_settles_revokes_and_removes(world: NodeWorld) -> None:
    world.recording()
    world.plug()
    world.store.put_token("hash", Token("tok_n", "node", node_id="n"))
    world.store.put_token("other", Token("tok_m", "node", node_id="m"))
    made, sent = world.invoke(), world.invoke()
    world.fetch(limit=1)
    outcome = world.do(nq.ForgetNode(node_id="n", seed=ulid(), by="tok_op"))
    assert outcome.status == 204
    assert set(closes(world)) == {("rec", 4004), ("tra", 4004), ("con_1", 4004)}
    told = [world.store.invocation(i["invocation_id"])["error"] for i in (made, sent)]
    assert [(e["code"], e["dispatched"]) for e in told] == [("UNAVAILABLE", True), ("UNAVAILABLE", False)]
    assert world.store.token("hash") is None and world.store.token("other") is not None
    assert world.task_status() == "pending" and world.armed() == []
    for table in ("nodes", "node_roles", "node_events", "node_outbox"):
        assert world.store._c.execute(f"select count(*) from {table}").fetchone()[0] == 0
    assert world.do(nq.ForgetNode(node_id="n", seed=ulid())).status == 204
    assert isinstance(world.say("idle").answer, Fenced)
    # the ghost of its old connection does not bring it back; the id may come again, and no epoch does
    ghost = world.plug("rec", role="recorder").answer
    assert isinstance(ghost, RefuseConnection) and ghost.code == 4004
    old = world.held["con_1"][2]
    world.plug("con_9")
    assert world.held["con_9"][2] > old and world.log() == ["node.connected"]


def test_a_drained_node_begins_nothing_and_ends_what_runs(world: NodeWorld) -> None:
    world.plug()
    running = world.invoke()
    world.fetch()
    world.do(nq.ChangeNode(node_id="n", seed=ulid(), drained=True))
    refused = world.invoke()
    assert (refused["error"]["code"], refused["error"]["dispatched"]) == ("UNAVAILABLE", False)
    assert world.store.invocation(refused["invocation_id"])["state"] == "settled"
    world.result(running["invocation_id"], payload=1)
    assert world.store.invocation(running["invocation_id"])["ok"] is True


def test_the_list_is_connected_first_and_paged(world: NodeWorld) -> None:
    for name in "abcdef":
        world.make(name, name=f"Node {name.upper()}")
    for name in "ce":
        world.plug(f"con_{name}", name)
    seen: list[str] = []
    cursor = None
    while True:
        page = world.store.nodes(NodeFilter(limit=2, cursor=cursor))
        seen += [n["node_id"] for n in page.items]
        if (cursor := page.next_cursor) is None:
            break
    assert seen == ["c", "e", "a", "b", "d", "f"]

    def ids(**wanted: Any) -> list[str]:
        return [n["node_id"] for n in world.store.nodes(NodeFilter(**wanted)).items]

    assert ids(connected=True) == ["c", "e"] and ids(connected=False) == ["a", "b", "d", "f"]
    assert ids(role="node") == ["c", "e"] and ids(role="recorder") == []
    assert ids(q="Node D") == ["d"] and ids(q="%") == []


def test_every_resource_and_every_event_has_its_declared_shape(world: NodeWorld) -> None:
    world.uploading()
    world.upload("uploaded")
    world.plug(client={"name": "x"}, capabilities={"gpu": True})
    world.plug("con_2", instance="i_2")
    made = world.invoke(by="tok", params={"a": [1]}, idle_timeout_s=3)
    world.fetch("con_2")
    world.progress(made["invocation_id"], 1, "con_2", payload={"at": 1})
    world.result(made["invocation_id"], "con_2", ok=False, error={"code": "E", "message": "no"})
    world.invoke("nothing")
    world.unplug("con_2", code=1006)
    NodeResource.model_validate(world.node())
    for i in world.store.invocations("n", 50, None).items:
        InvocationResource.model_validate(i)
    TaskResource.model_validate(world.shown())
    seen = set()
    for event in world.store.node_events("n", 0, 1000).items:
        NODE_PAYLOADS[event["type"]].model_validate(event["data"])
        seen.add(event["type"])
    assert seen == NODE_PAYLOADS.keys()


def test_a_log_of_its_own_is_kept_apart_from_ours(world: NodeWorld) -> None:
    world.plug()

    def line(type_: str, **data: Any) -> nq.NodeEvent:
        return nq.NodeEvent(**world.framed("con_1"), type=type_, data=data)

    opened = line("door.opened", by="cat")
    for _ in range(2):  # the actor that decided it died before it could say so: it is decided again
        world.do(opened)
    assert world.refused(world.do(line("node.connected"))) == "bad_request"
    assert world.refused(world.do(line("big", x="y" * 300_000))) == "too_large"
    page = world.store.node_events("n", 1, 10)
    assert [(e["seq"], e["type"], e["data"]) for e in page.items] == [(2, "door.opened", {"by": "cat"})]
    assert (page.first_seq, page.last_seq) == (1, 2)


def test_what_operators_did_is_in_the_audit(world: NodeWorld) -> None:
    world.make(by="tok_a")
    world.plug()
    made = world.invoke(by="tok_a")
    world.do(nq.CancelInvocation(node_id="n", seed=ulid(), invocation_id=made["invocation_id"], by="tok_b"))
    world.invoke("nothing", by="tok_a")
    world.do(nq.ForgetNode(node_id="n", seed=ulid(), by="tok_a"))
    rows = [(a["action"], a["by"], a["object_id"], a["outcome"]) for a in world.store.audit(None, 50, None).items]
    assert rows[-1] == ("node.create", "tok_a", "n", "ok") and rows[0] == ("node.forget", "tok_a", "n", "ok")
    assert ("invocation.cancel", "tok_b", made["invocation_id"], "ok") in rows


def test_a_restored_store_loses_every_connection_and_keeps_the_rest(tmp_path: Path) -> None:
    world = NodeWorld(tmp_path)
    world.recording()
    world.plug()
    sent = world.invoke()
    world.fetch()
    epoch = world.role()["epoch"]
    world.close()
    backup.come_back(world.path, world.policy, lambda: world.now_ms)
    world.store = world.another_process()
    world.store.register_gateway("gw_1", 1, 1, "http://127.0.0.1:1")
    world.store.register_gateway("gw_2", 2, 2, "http://127.0.0.1:2")
    for node_id, role, connection in world.store.lost_node_roles("gw_2"):
        world.do(nq.NodeClosed(node_id=node_id, seed=ulid(), role=role, connection_id=connection, gateway_lost=True))
    assert world.store.invocation(sent["invocation_id"])["error"]["code"] == "UNAVAILABLE"
    assert world.role("recorder")["state"] == "grace" and world.task_status() == "in_progress"
    assert isinstance(world.result(sent["invocation_id"]).answer, Fenced)
    world.plug("con_9", gateway="gw_2")
    assert world.role()["epoch"] > epoch + 1_000_000
    world.close()
