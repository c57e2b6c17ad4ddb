"""Nodes over the real door and the real store: who owns a role, who is listed, and what a lost connection changes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from actors.protocol.codes import CLOSE
from tests.gateway.house import Frame, House, eventually, node_hello, result


def types(log: list[Frame]) -> list[str]:
    return [event["type"] for event in log]


async def offline(house: House, node_id: str = "n", role: str = "node") -> Frame:
    async def gone() -> Frame | None:
        node = await house.shown(node_id)
        return node if node["roles"][role]["state"] == "offline" else None

    found: Frame = await eventually(gone)
    return found


# ---------------------------------------------------------------- presence


async def test_a_first_connect_with_a_token_of_its_own_makes_the_node(house: House) -> None:
    socket = await house.node(capabilities={"gpu": True})
    node = await house.shown()
    role = node["roles"]["node"]
    assert node["connected"] and node["commands"] == ["echo", "device.info"] and node["capabilities"] == {"gpu": True}
    assert node["presence"]["reason"] == "connect"
    assert (role["state"], role["connection_id"]) == ("connected", socket.hello_ack["connection_id"])
    assert role["epoch"] == socket.hello_ack["epoch"] > 0
    assert (socket.hello_ack["node_id"], socket.hello_ack["role"]) == ("n", "node")
    await socket.close()
    node = await offline(house)
    assert not node["connected"] and node["presence"]["reason"] == "disconnect"
    assert types(await house.log()) == ["node.connected", "node.disconnected"]
    gone = (await house.log())[-1]["data"]
    assert gone["ws_close_code"] == 1000 and gone["connection_id"] == socket.hello_ack["connection_id"]


async def test_the_connected_stand_first_in_the_list(house: House) -> None:
    for name in ("a", "b", "c"):
        await house.call("POST", "/v1/nodes", {"node_id": name, "name": f"robot {name}"}, status=201)
    await house.node("b")
    first = await house.call("GET", "/v1/nodes", params={"limit": "2"})
    rest = await house.call("GET", "/v1/nodes", params={"limit": "2", "cursor": first["next_cursor"]})
    assert [n["node_id"] for n in first["items"] + rest["items"]] == ["b", "a", "c"]
    listed = await house.call("GET", "/v1/nodes", params={"connected": "true"})
    assert [n["node_id"] for n in listed["items"]] == ["b"]
    listed = await house.call("GET", "/v1/nodes", params={"q": "robot c"})
    assert [n["node_id"] for n in listed["items"]] == ["c"]
    listed = await house.call("GET", "/v1/nodes", params={"role": "recorder"})
    assert listed["items"] == []


async def test_the_same_node_twice_and_the_old_socket_closed_late(house: House) -> None:
    """The proof of the registry: still connected, commands intact, the new one handles, and no disconnect was said."""
    before = len(await house.log()) if (await house.node()) else 0
    for n in range(2, 12):
        old = await house.node(instance_id=f"i_{n}")
        new = await house.node(instance_id=f"i_{n}x")
        assert await old.closed() == (CLOSE["superseded"], "another instance took over")
        await old.close()  # late: after it was superseded
        calling = house.invoke(params={"n": n})
        asked = await new.hear("invoke")
        await new.say(result(asked, {"handled_by": "new", "n": asked["params"]["n"]}))
        told = await calling
        node = await house.shown()
        assert told["ok"] and told["payload"] == {"handled_by": "new", "n": n}
        assert node["connected"] and node["commands"] == ["echo", "device.info"]
        assert node["presence"]["reason"] == "connect"
        assert node["roles"]["node"]["connection_id"] == new.hello_ack["connection_id"]
        assert [f["type"] for f in old.heard] == ["hello_ack"], "the old one was asked nothing"
        assert [f["type"] for f in new.heard] == ["hello_ack", "invoke"]
    log = (await house.log())[before:]
    assert "node.disconnected" not in types(log)
    assert types(log).count("node.superseded") == 20 and types(log).count("node.connected") == 20


async def test_a_later_attempt_of_the_same_process_wins_and_an_earlier_one_never(house: House) -> None:
    secret = await house.node_token()
    first = await house.node(attempt=2)
    late = await house.socket("/v1/nodes/n/connect", secret)
    await late.say(node_hello(attempt=1))
    assert (await late.closed())[0] == CLOSE["fenced"]
    await house.node(attempt=3)
    assert (await first.closed())[0] == CLOSE["fenced"]


async def test_stale_only_refuses_while_the_owner_was_seen(tmp_path: Path) -> None:
    house = await House(tmp_path, takeover="stale_only", takeover_threshold_s=60.0).open()
    owner = await house.node(instance_id="i_1")
    newcomer = await house.socket("/v1/nodes/n/connect", "t-n")
    await newcomer.say(node_hello(instance_id="i_2"))
    code, reason = await newcomer.closed()
    assert code == CLOSE["try_again_later"] and "already_connected" in reason
    assert (await house.shown())["roles"]["node"]["connection_id"] == owner.hello_ack["connection_id"]
    await house.close()


async def test_two_roles_of_one_node_come_and_go_by_themselves(house: House) -> None:
    recorder = await house.node(role="recorder", reported={"state": "idle"})
    transfer = await house.node(role="transfer")
    node = await house.shown()
    assert {name: role["state"] for name, role in node["roles"].items()} == {
        "recorder": "connected",
        "transfer": "connected",
    }
    await transfer.close()
    node = await offline(house, role="transfer")
    assert node["connected"] and node["roles"]["recorder"]["state"] == "connected"
    await recorder.close()
    assert not (await offline(house, role="recorder"))["connected"]


async def test_a_silent_peer_that_answers_no_ping_is_off_and_the_presence_says_timeout(tmp_path: Path) -> None:
    house = await House(tmp_path, server_ping_s=0.2, server_pong_s=0.2).open()
    secret = await house.node_token()
    ws = await house.client.ws_connect(
        house.url + "/v1/nodes/n/connect", headers={"Authorization": f"Bearer {secret}"}, autoping=False
    )
    await ws.send_json(node_hello())
    await ws.receive()  # hello_ack; from here on it reads nothing
    node = await offline(house)
    assert node["presence"]["reason"] == "timeout"
    await ws.close()
    await house.close()


async def test_a_peer_that_answers_pings_and_says_nothing_is_given_up(tmp_path: Path) -> None:
    house = await House(tmp_path, stale_s=0.4, heartbeat_s=0.1).open()
    mute, alive = await house.node("mute"), await house.node("alive")
    closing = asyncio.create_task(mute.closed())

    async def beats() -> bool:
        await alive.say({"type": "heartbeat"})
        return closing.done()

    await eventually(beats)
    assert (await closing)[0] == CLOSE["going_away"]
    assert (await house.shown("alive"))["connected"]
    await house.close()


async def test_last_seen_moves_by_any_frame(house: House) -> None:
    socket = await house.node()
    before = (await house.shown())["roles"]["node"]["last_seen_at_ms"]

    async def moved() -> bool:
        await socket.say({"type": "heartbeat"})
        await asyncio.sleep(0.1)
        return bool((await house.shown())["roles"]["node"]["last_seen_at_ms"] > before)

    await eventually(moved)


# ---------------------------------------------------------------- who may come in


async def refused(house: House, path: str, token: str | None) -> tuple[int | None, str]:
    socket = await house.socket(path, token)
    return await socket.closed()


async def test_strangers_stay_outside_each_with_its_code(house: House) -> None:
    mine = await house.node_token("mine")
    unbound = "node-of-nothing"
    await house.worker.write(lambda store: _put(store, unbound))
    assert await refused(house, "/v1/nodes/mine/connect?role=chef", mine) == (4002, "unknown_role")
    assert await refused(house, "/v1/nodes/mine/connect?role=", mine) == (4002, "unknown_role")
    assert await refused(house, "/v1/nodes/other/connect", mine) == (4004, "node_not_found")
    assert await refused(house, "/v1/nodes/mine/connect", unbound) == (4004, "node_not_found")
    assert await refused(house, "/v1/nodes/!!/connect", "admin") == (4004, "node_not_found")
    for scope in ("operator", "reader", "wrapper"):
        assert await refused(house, "/v1/nodes/mine/connect", scope) == (4403, "forbidden")
    assert await refused(house, "/v1/nodes/mine/connect", "nobody's") == (4401, "unauthenticated")
    assert (await house.call("GET", "/v1/nodes"))["items"] == [], "nothing came into being"


def _put(store: Any, secret: str) -> None:
    from actors.gateway.auth import hash_of
    from actors.store.contract import Token

    store.put_token(hash_of(secret), Token(f"tok_{secret}", "node"))


async def test_a_revoked_token_ends_its_socket(house: House) -> None:
    made = await house.call("POST", "/v1/tokens", {"scope": "node", "node_id": "n"}, token="admin", status=201)
    socket = await house.node(token=made["token"])
    await house.call("DELETE", f"/v1/tokens/{made['token_id']}", token="admin", status=204)
    assert (await socket.closed())[0] == CLOSE["not_authenticated"]
    await offline(house)


@pytest.mark.parametrize(
    ("first", "code", "error"),
    [
        ({"type": "state", "reported": {"state": "idle"}}, 4002, "bad_hello"),
        (node_hello(protocol=2), 4003, None),
        (node_hello(instance_id="!!"), 4002, "bad_hello"),
        (node_hello(commands=["a b"]), 4002, "bad_hello"),
        (node_hello(commands=[f"c{n}" for n in range(257)]), 4002, "bad_hello"),
        (node_hello(reported={"state": "recording"}), 4002, "bad_hello"),
        (b'{"type":"hello"', 4002, "bad_hello"),
    ],
)
async def test_a_hello_that_is_none_is_refused(house: House, first: Any, code: int, error: str | None) -> None:
    socket = await house.socket("/v1/nodes/n/connect", await house.node_token())
    await socket.say(first)
    assert (await socket.closed())[0] == code
    assert [f["code"] for f in socket.heard if f["type"] == "error"] == ([error] if error else [])
    assert (await house.call("GET", "/v1/nodes"))["items"] == []


async def test_a_frame_that_is_not_valid_is_told_and_the_socket_stays(house: House) -> None:
    socket = await house.node()
    await socket.say({"type": "what"})
    assert (await socket.hear("error"))["code"] == "unknown_frame"
    await socket.say({"type": "state", "reported": {"state": "asleep"}})
    assert (await socket.hear("error"))["code"] == "invalid_frame"
    await socket.say(b'{"type":"event","event":{"type":"x","data":{"n":NaN}}}')
    assert (await socket.hear("error"))["code"] == "invalid_frame"
    await socket.say({"type": "event", "event": {"type": "node.connected", "data": {}}})
    assert (await socket.hear("error"))["code"] == "invalid_frame"
    await socket.say({"type": "event", "event": {"type": "battery", "data": {"level": 7}}})
    await eventually(lambda: _logged(house, "battery"))
    assert (await house.shown())["connected"]
    await socket.say(node_hello())
    assert (await socket.closed())[0] == CLOSE["protocol_error"]


async def _logged(house: House, kind: str) -> bool:
    return kind in types(await house.log())


async def test_what_is_no_text_and_no_json_ends_the_socket(house: House) -> None:
    socket = await house.node("a")
    await socket.ws.send_bytes(b"{}")
    assert (await socket.closed())[0] == CLOSE["protocol_error"]
    socket = await house.node("b")
    await socket.say(b"hello")
    assert (await socket.closed())[0] == CLOSE["protocol_error"]
    socket = await house.node("c")
    await socket.say(b'{"type":"x","y":"' + b"y" * (1 << 20) + b'"}')
    assert (await socket.closed())[0] == CLOSE["frame_too_big"]


# ---------------------------------------------------------------- rename, drain, allow, forget


async def test_a_node_is_renamed_drained_and_told_what_it_may(house: House) -> None:
    await house.node()
    changed = await house.call("PATCH", "/v1/nodes/n", {"name": "arm"}, status=200)
    assert (changed["name"], changed["drained"], changed["allow"]) == ("arm", False, None)
    changed = await house.call("PATCH", "/v1/nodes/n", {"drained": True}, status=200)
    assert (changed["name"], changed["drained"]) == ("arm", True)
    told = await house.invoke()
    assert (told["ok"], told["error"]["code"], told["error"]["dispatched"]) == (False, "UNAVAILABLE", False)
    changed = await house.call("PATCH", "/v1/nodes/n", {"drained": False, "allow": ["device.*"]}, status=200)
    assert (changed["commands"], changed["denied_commands"]) == (["device.info"], ["echo"])
    told = await house.invoke()
    assert (told["error"]["code"], told["error"]["dispatched"]) == ("NOT_ALLOWED", False)
    changed = await house.call("PATCH", "/v1/nodes/n", {"allow": None}, status=200)
    assert changed["commands"] == ["echo", "device.info"]
    assert await house.call("PATCH", "/v1/nodes/n", {}, status=200) == changed
    await house.call("PATCH", "/v1/nodes/nobody", {"name": "x"}, status=404)


async def test_the_services_own_list_holds_for_every_node(tmp_path: Path) -> None:
    house = await House(tmp_path, node_commands=("device.*",)).open()
    await house.node()
    node = await house.shown()
    assert (node["commands"], node["denied_commands"]) == (["device.info"], ["echo"])
    assert (await house.invoke())["error"]["code"] == "NOT_ALLOWED"
    await house.close()


async def test_a_forgotten_node_is_gone_with_its_sockets_and_its_tokens(house: House) -> None:
    made = await house.call("POST", "/v1/tokens", {"scope": "node", "node_id": "n"}, token="admin", status=201)
    socket = await house.node(token=made["token"])
    calling = house.invoke()
    await socket.hear("invoke")
    await house.call("DELETE", "/v1/nodes/n", status=204)
    told = await calling
    assert (told["error"]["code"], told["error"]["dispatched"]) == ("UNAVAILABLE", True)
    assert (await socket.closed())[0] == CLOSE["not_found"]
    assert await refused(house, "/v1/nodes/n/connect", made["token"]) == (4401, "unauthenticated")
    await house.call("GET", "/v1/nodes/n", status=404)
    await house.call("DELETE", "/v1/nodes/n", status=204)
    assert (await house.invocation(told["invocation_id"])) == told
    again = await house.node(token=await house.node_token("n", "another"))
    assert again.hello_ack["epoch"] > socket.hello_ack["epoch"]


async def test_a_hello_that_was_on_its_way_does_not_bring_a_forgotten_node_back(house: House) -> None:
    """Its socket was let in while its token held; between that and the hello there are ten seconds."""
    made = await house.call("POST", "/v1/tokens", {"scope": "node", "node_id": "n"}, token="admin", status=201)
    await house.node(token=made["token"])
    late = await house.socket("/v1/nodes/n/connect", made["token"])
    await house.call("DELETE", "/v1/nodes/n", status=204)
    await late.say(node_hello(instance_id="i_2"))
    assert (await late.closed())[0] == CLOSE["not_authenticated"]
    assert (await house.call("GET", "/v1/nodes"))["items"] == []


async def test_a_node_is_made_once(house: House) -> None:
    made = await house.call("POST", "/v1/nodes", {"node_id": "n", "name": "arm"}, status=201)
    assert (made["connected"], made["presence"]["reason"], made["roles"]) == (False, "never", {})
    await house.call("POST", "/v1/nodes", {"node_id": "n"}, status=409)
    other = await house.call("POST", "/v1/nodes", {}, headers={"Idempotency-Key": "k"}, status=201)
    again = await house.call("POST", "/v1/nodes", {}, headers={"Idempotency-Key": "k"}, status=201)
    assert other == again and other["node_id"].startswith("nod_")
