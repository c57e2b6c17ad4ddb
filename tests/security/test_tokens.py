"""Tokens: opaque, shown once, hashed at rest, bound, mortal, and revocable down to the live socket."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from actors.gateway.auth import hash_of
from actors.store.contract import Token
from tests.gateway.house import TOKENS, House, eventually, hello, output
from tests.security.conftest import Open


async def make(house: House, scope: str, **bound: Any) -> dict[str, Any]:
    made: dict[str, Any] = await house.call("POST", "/v1/tokens", {"scope": scope, **bound}, token="admin", status=201)
    return made


async def test_a_secret_is_shown_once_and_stands_nowhere(house: House) -> None:
    made = await make(house, "reader", session_id="s", expires_at_ms=9_999_999_999_999)
    secret = made.pop("token")
    assert len(secret.removeprefix("hft_")) >= 43, "256 bits, base64"
    token_id = made.pop("token_id")
    assert made == {
        "scope": "reader",
        "session_id": "s",
        "node_id": None,
        "station_id": None,
        "expires_at_ms": 9_999_999_999_999,
    }
    listed = await house.call("GET", "/v1/tokens", token="admin")
    (row,) = [t for t in listed["items"] if t["token_id"] == token_id]
    assert (
        row.items() >= made.items()
        and row["revoked_at_ms"] is None
        and abs(row["created_at_ms"] / 1000 - time.time()) < 60
    )
    assert set(row) == {"token_id", "created_at_ms", "revoked_at_ms", *made}
    # Nothing of it at rest: neither in the store's file nor in its log.
    await house.gateway.loops.tick()
    for path in house.settings.data_dir.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path


async def test_two_secrets_are_never_alike_and_the_answer_is_not_to_be_kept(house: House) -> None:
    key = {"Idempotency-Key": "k", "Authorization": f"Bearer {TOKENS['admin']}"}
    secrets = set()
    for _ in range(3):
        async with house.client.post(f"{house.url}/v1/tokens", json={"scope": "node"}, headers=key) as response:
            assert response.status == 201 and response.headers["Cache-Control"] == "no-store"
            secrets.add((await response.json())["token"])
    assert len(secrets) == 3


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"scope": "god"},
        {"scope": "admin", "session_id": "s"},
        {"scope": "node", "session_id": "s"},
        {"scope": "reader", "node_id": "n"},
        {"scope": "collector", "node_id": "n"},
        {"scope": "reader", "expires_at_ms": 1},
        {"scope": "reader", "expires_at_ms": -1},
        {"scope": "reader", "expires_at_ms": "soon"},
    ],
)
async def test_a_token_that_makes_no_sense_is_refused(house: House, body: dict[str, Any]) -> None:
    before = await house.call("GET", "/v1/tokens", token="admin")
    assert (await house.call("POST", "/v1/tokens", body, token="admin", status=400))["code"] == "bad_request"
    assert await house.call("GET", "/v1/tokens", token="admin") == before


async def test_the_list_goes_page_by_page_newest_first(house: House) -> None:
    made = [(await make(house, "reader"))["token_id"] for _ in range(5)]
    seen: list[str] = []
    cursor = None
    while True:
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = await house.call("GET", "/v1/tokens", token="admin", params=params)
        assert len(page["items"]) <= 2
        seen += [t["token_id"] for t in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert sorted(set(seen)) == sorted(seen) and {*made, "tok_admin"} <= set(seen)
    assert [t for t in seen if t in made] == sorted(made, reverse=True)
    for bad in ("x", "bnVsbA", "WzFd"):  # not base64 of a list of one text
        await house.call("GET", "/v1/tokens", token="admin", params={"cursor": bad}, status=400)


async def test_me_tells_who_one_is(house: House) -> None:
    made = await make(house, "collector", station_id="st_1")
    me = await house.call("GET", "/v1/me", token=made.pop("token"))
    assert me == made | dict.fromkeys(("station", "collector", "node", "node_type")), "there is no such station"
    assert (await house.call("GET", "/v1/me", token="admin"))["scope"] == "admin"


async def test_a_token_expires_by_itself_and_its_socket_with_it(house: House) -> None:
    await house.session()
    until = int(time.time() * 1000) + 1500
    made = await make(house, "reader", expires_at_ms=until)
    watcher = await house.watch(token=made["token"])
    await watcher.hear("caught_up")
    assert (await watcher.closed(1.5 + 5.0))[0] == 4401
    assert time.time() * 1000 >= until
    await house.call("GET", "/v1/me", token=made["token"], status=401)


async def test_a_revoked_token_is_out_at_once_with_all_its_sockets_and_nobody_elses(house: House) -> None:
    await house.session()
    made, other = await make(house, "operator"), await make(house, "operator")
    ticket = (await house.call("POST", "/v1/tickets", {"session_id": "s"}, token=made["token"], status=201))["ticket"]
    unused = (await house.call("POST", "/v1/tickets", {"session_id": "s"}, token=made["token"], status=201))["ticket"]
    sockets = [
        await house.watch(token=made["token"]),
        await house.socket(f"/v1/sessions/s/stream?ticket={ticket}", None),
        await house.socket("/v1/stream", made["token"]),
    ]
    wrapper = await house.ingest(token=made["token"])
    await wrapper.say(hello())
    await wrapper.hear("hello_ack")
    staying = await house.watch(token=other["token"])
    sse = await house.client.get(
        f"{house.url}/v1/sessions/s/stream", headers={"Authorization": f"Bearer {made['token']}"}
    )
    await sse.content.readline()
    await house.call("DELETE", f"/v1/tokens/{made['token_id']}", token="admin", status=204)
    began = time.monotonic()
    assert [(await s.closed(5))[0] for s in [*sockets, wrapper]] == [4401] * 4
    await asyncio.wait_for(sse.content.read(), 5)  # to its end
    assert time.monotonic() - began < 5
    await house.call("GET", "/v1/me", token=made["token"], status=401)
    by_ticket = await house.socket(f"/v1/sessions/s/stream?ticket={unused}", None)
    assert (await by_ticket.ws.receive(timeout=5)).data == 4401, "refused, not let in and closed later"
    await house.session("t")  # somebody else's socket lives on
    assert (await staying.hear("caught_up"))["seq"] >= 0 and not staying.ws.closed
    await staying.close()
    again = await house.call("DELETE", f"/v1/tokens/{made['token_id']}", token="admin", status=204)
    assert again is None
    await house.call("DELETE", "/v1/tokens/tok_nobody", token="admin", status=404)


async def test_a_revocation_in_another_process_is_found_within_five_seconds(house: House) -> None:
    """The row alone changes, as when somebody else wrote it: the loop finds it, for sockets and for requests."""
    running = await house.running()
    made = await make(house, "reader")
    watcher = await house.watch(token=made["token"])
    await watcher.hear("caught_up")
    began = time.monotonic()
    await house.worker.write(lambda store: store.revoke_token(made["token_id"]))
    assert (await watcher.closed(5.0))[0] == 4401

    async def out() -> bool:
        headers = {"Authorization": f"Bearer {made['token']}"}
        async with house.client.get(f"{house.url}/v1/me", headers=headers) as response:
            return response.status == 401

    await eventually(out, 5.0 - (time.monotonic() - began))
    await running.say(output(2, "unharmed"))
    await running.acked(2)
    await running.close()


async def test_up_makes_its_own_token_hold_again(house: House) -> None:
    """What `up` does at each start with the token in the data directory: its owner cannot lock himself out."""
    from actors.gateway.auth import hash_of
    from actors.store.contract import Token

    admin = Token("tok_admin", "admin")
    await house.call("DELETE", "/v1/tokens/tok_admin", token="admin", status=204)
    await house.call("GET", "/v1/me", token="admin", status=401)
    await house.worker.write(lambda store: store.put_token(hash_of(TOKENS["admin"]), admin))
    house.gateway.authority.forget(hash_of(TOKENS["admin"]))
    await house.call("GET", "/v1/me", token="admin")


async def test_dead_tokens_do_not_pile_up(open_house: Open) -> None:
    house = await open_house()
    old = await make(house, "reader")
    await house.call("DELETE", f"/v1/tokens/{old['token_id']}", token="admin", status=204)
    month_ago = int((time.time() - 31 * 86400) * 1000)
    sql = "update tokens set revoked_at_ms = ? where id = ?"
    await house.worker.write(lambda store: store._c.execute(sql, (month_ago, old["token_id"])).rowcount)
    await make(house, "reader")
    listed = await house.call("GET", "/v1/tokens", token="admin")
    assert old["token_id"] not in [t["token_id"] for t in listed["items"]]


async def test_what_is_done_to_tokens_is_in_the_audit_refusals_too_and_never_the_secret(house: House) -> None:
    made = await house.call("POST", "/v1/tokens", {"scope": "reader"}, token="admin", status=201)
    token_id, secret = made["token_id"], made["token"]
    await house.call("POST", "/v1/tokens", {"scope": "reader"}, token="operator", status=403)
    for _ in range(2):
        await house.call("DELETE", f"/v1/tokens/{token_id}", token="admin", status=204)
    await house.call("DELETE", "/v1/tokens/nosuch", token="admin", status=404)
    page = await house.call("GET", "/v1/audit", token="admin", params={"limit": 4})
    assert [(a["by"], a["action"], a["object_id"], a["outcome"]) for a in page["items"]] == [
        ("tok_admin", "token.revoke", "nosuch", "token_not_found"),
        ("tok_admin", "token.revoke", token_id, "unchanged"),
        ("tok_admin", "token.revoke", token_id, "ok"),
        ("tok_admin", "token.create", token_id, "ok"),
    ]
    assert secret not in str(page) and hash_of(secret) not in str(page)


async def test_a_token_that_is_put_again_unchanged_is_no_act_and_one_that_holds_again_is(house: House) -> None:
    put = lambda store: store.put_token(hash_of("own"), Token("tok_own", "admin"))  # noqa: E731
    for _ in range(2):
        await house.worker.write(put)
    await house.worker.write(lambda store: store.revoke_token("tok_own"))
    await house.worker.write(put)
    page = await house.call("GET", "/v1/audit", token="admin", params={"limit": 500})
    acts = [(a["by"], a["action"]) for a in page["items"] if a["object_id"] == "tok_own"]
    assert acts == [(None, "token.create"), (None, "token.revoke"), (None, "token.create")]
