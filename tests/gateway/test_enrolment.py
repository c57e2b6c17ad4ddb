"""A machine becomes a node: a one-time code, a decision, a token that is shown once."""

from __future__ import annotations

import asyncio

from tests.gateway.house import Frame, House


async def code_of(house: House, **body: object) -> str:
    made = await house.call("POST", "/v1/enrolment-codes", body, status=201)
    return str(made["code"])


async def ask(house: House, code: str, node_id: str = "n", status: int = 202, **more: object) -> Frame:
    body = {"code": code, "node_id": node_id, **more}
    told: Frame = await house.call("POST", "/v1/enrolments", body, token=None, status=status)
    return told


async def claim(house: House, made: Frame, status: int = 200, **change: str) -> Frame:
    path = f"/v1/enrolments/{made['enrolment_id']}/claim"
    told: Frame = await house.call("POST", path, {"claim": made["claim"], **change}, token=None, status=status)
    return told


async def test_a_machine_with_a_code_is_let_in_and_connects(house: House) -> None:
    made = await ask(house, await code_of(house), name="arm", commands=["echo"], capabilities={"gpu": False})
    assert made["state"] == "pending" and (await claim(house, made))["token"] is None
    listed = await house.call("GET", "/v1/enrolments", params={"state": "pending"})
    (waiting,) = listed["items"]
    assert (waiting["node_id"], waiting["name"], waiting["commands"]) == ("n", "arm", ["echo"])
    path = f"/v1/enrolments/{made['enrolment_id']}"
    decided = await house.call("POST", path, {"decision": "approve", "allow": ["echo"]}, status=200)
    assert (decided["state"], decided["decided_by"]) == ("approved", "tok_operator")
    second = await house.call("POST", path, {"decision": "reject"}, status=409)
    assert second["code"] == "already_resolved"
    claimed = await claim(house, made)
    assert claimed["state"] == "approved" and claimed["token"].startswith("hft_")
    assert (await claim(house, made))["token"] is None, "shown once"
    socket = await house.node(token=claimed["token"], commands=["echo", "rm"])
    node = await house.shown()
    assert (node["name"], node["commands"], node["denied_commands"]) == ("arm", ["echo"], ["rm"])
    await socket.close()


async def test_whoever_is_not_let_in_is_told_and_gets_nothing(house: House) -> None:
    made = await ask(house, await code_of(house))
    await house.call("POST", f"/v1/enrolments/{made['enrolment_id']}", {"decision": "reject"}, status=200)
    assert await claim(house, made) == {"state": "rejected", "node_id": "n", "token": None}
    assert (await house.call("GET", "/v1/nodes"))["items"] == []


async def test_a_code_is_for_once_for_one_and_for_a_while(house: House) -> None:
    code = await code_of(house)
    await ask(house, code)
    assert (await ask(house, code, "another", status=403))["code"] == "bad_enrolment_code"
    bound = await code_of(house, node_id="mine")
    assert (await ask(house, bound, "other", status=403))["code"] == "bad_enrolment_code"
    await ask(house, bound, "mine")
    short = await code_of(house, expires_in_s=0.05)
    await asyncio.sleep(0.1)
    assert (await ask(house, short, "late", status=403))["code"] == "bad_enrolment_code"
    assert (await ask(house, "AAAAA-BBBBB-CCCCC-DDDDD", "x", status=403))["code"] == "bad_enrolment_code"
    await house.call("POST", "/v1/enrolment-codes", {"expires_in_s": 3601}, status=400)


async def test_a_repeat_with_the_devices_own_claim_is_the_same_enrolment(house: House) -> None:
    code, secret = await code_of(house), "c" * 43
    first = await ask(house, code, claim=secret)
    assert await ask(house, code, claim=secret) == first
    assert (await ask(house, code, claim="d" * 43, status=403))["code"] == "bad_enrolment_code"


async def test_a_claim_of_somebody_else_learns_nothing(house: House) -> None:
    made = await ask(house, await code_of(house))
    stranger = await claim(house, made, status=404, claim="x" * 43)
    unknown = await claim(house, {**made, "enrolment_id": "enr_none"}, status=404)
    assert stranger["code"] == unknown["code"] == "enrolment_not_found"
    assert stranger["detail"] == unknown["detail"]


async def test_who_may_not_decide_may_not_see(house: House) -> None:
    made = await ask(house, await code_of(house))
    for scope in ("reader", "wrapper"):
        await house.call("GET", "/v1/enrolments", token=scope, status=403)
        await house.call("POST", "/v1/enrolment-codes", {}, token=scope, status=403)
        path = f"/v1/enrolments/{made['enrolment_id']}"
        await house.call("POST", path, {"decision": "approve"}, token=scope, status=403)


async def test_no_secret_of_an_enrolment_stands_in_the_store(house: House) -> None:
    code = await code_of(house)
    made = await ask(house, code)
    await house.call("POST", f"/v1/enrolments/{made['enrolment_id']}", {"decision": "approve"}, status=200)
    token = (await claim(house, made))["token"]
    held = b"".join(p.read_bytes() for p in house.settings.data_dir.glob("holdfast.db*"))
    assert made["enrolment_id"].encode() in held, "the rows are in what was read"
    for secret in (code, made["claim"], token):
        assert secret.encode() not in held
