"""What a browser may be made to do: tickets that work once, Origins that are compared whole."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.gateway.auth import own_origins
from tests.gateway.house import TOKENS, House
from tests.security.conftest import Open

GOOD = "https://good.example"


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


async def ticket(house: House, token: str = "reader", **body: Any) -> str:
    made = await house.call("POST", "/v1/tickets", body, token=token, status=201)
    return str(made["ticket"])


async def sse(house: House, path: str) -> int:
    async with house.client.get(house.url + path) as response:
        return response.status


async def test_a_ticket_works_once_even_for_two_at_the_same_moment(house: House) -> None:
    await house.session()
    path = f"/v1/sessions/s/stream?ticket={await ticket(house, session_id='s')}"
    sockets = await asyncio.gather(*(house.socket(path, None) for _ in range(5)))
    first = [await s.ws.receive(timeout=5) for s in sockets]
    assert sorted(m.data if isinstance(m.data, int) else 0 for m in first) == [0, 4401, 4401, 4401, 4401]
    for socket in sockets:
        await socket.close()
    assert await sse(house, path) == 401


async def test_a_ticket_dies_after_thirty_seconds(open_house: Open) -> None:
    clock = Clock()
    house = await open_house({"clock": clock})
    await house.session()
    early, late = await ticket(house, session_id="s"), await ticket(house, session_id="s")
    clock.at += 29.9
    assert await sse(house, f"/v1/sessions/s/stream?ticket={early}") == 200
    clock.at += 0.1
    assert await sse(house, f"/v1/sessions/s/stream?ticket={late}") == 401


async def test_a_ticket_is_of_its_session_and_no_stronger_than_its_token(house: House) -> None:
    await house.session()
    await house.session("other")
    assert await sse(house, f"/v1/sessions/other/stream?ticket={await ticket(house, session_id='s')}") == 404
    assert await sse(house, f"/v1/stream?ticket={await ticket(house, session_id='s')}") == 403
    assert await sse(house, f"/v1/stream?ticket={await ticket(house)}") == 200
    await house.call("POST", "/v1/tickets", {"scope": "operator"}, token="reader", status=403)
    await house.call("POST", "/v1/tickets", {"scope": "admin"}, token="admin", status=400)
    await house.call("POST", "/v1/tickets", {}, token="wrapper", status=403)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_ticket_opens_nothing_but_streams(house: House, method: str) -> None:
    await house.session()
    for scope, path in (
        ("operator", "/v1/sessions/s"),
        ("operator", "/v1/sessions/s/interrupt"),
        ("operator", "/v1/sessions/s/events"),
        ("operator", "/v1/tickets"),
        ("reader", "/v1/me"),
        ("reader", "/metrics"),
    ):
        made = await ticket(house, "admin", scope=scope)
        for headers in ({}, {"Authorization": f"Bearer {made}"}):
            async with house.client.request(
                method, f"{house.url}{path}?ticket={made}", json={}, headers=headers
            ) as response:
                assert response.status in (401, 404, 405), path  # 404, 405: no such route with this method
    made = await ticket(house, "admin", scope="operator", session_id="s")
    assert (await (await house.socket(f"/v1/sessions/s/ingest?ticket={made}", None)).closed())[0] == 4401


# ---------------------------------------------------------------- Origins

BAD = (
    "null",
    "https://evil.example",
    "https://good.example.evil",
    "https://evilgood.example",
    "https://evil-good.example",
    "https://good.example:443",
    "https://good.example:8443",
    "http://good.example",
    "HTTPS://GOOD.EXAMPLE",
    "https://Good.example",
    "https://good.example/",
    "https://good.example.",
    "https://evil@good.example",
    "https://good.example@evil.example",
    "https://good.example evil.example",
    "https://good.example, https://evil.example",
    "file://",
    "",
)


@pytest.mark.parametrize("origin", BAD)
async def test_an_origin_that_is_not_listed_word_for_word_is_refused_everywhere(open_house: Open, origin: str) -> None:
    house = await open_house(allowed_origins=(GOOD,))
    await house.session()
    headers = {"Origin": origin, "Authorization": f"Bearer {TOKENS['admin']}"}
    for method, path in (
        ("GET", "/v1/sessions/s"),
        ("GET", "/v1/sessions/s/stream"),
        ("POST", "/v1/sessions"),
        ("DELETE", "/v1/sessions/s"),
        ("GET", "/metrics"),
        ("OPTIONS", "/v1/sessions"),
    ):
        async with house.client.request(method, house.url + path, headers=headers) as response:
            assert response.status == 403, (method, path)
            assert (await response.json())["code"] == "origin_not_allowed"
            assert not [name for name in response.headers if name.startswith("Access-Control")]
    for path in ("/v1/sessions/s/stream", "/v1/stream", "/v1/sessions/s/ingest"):
        socket = await house.client.ws_connect(house.url + path, headers=headers)
        assert (await socket.receive(timeout=5)).data == 4403, path
    await house.call("GET", "/v1/sessions/s")  # it still stands


async def test_a_listed_origin_and_no_origin_at_all_are_served(open_house: Open) -> None:
    house = await open_house(allowed_origins=(GOOD,))
    await house.session()
    for origin in (GOOD, None):
        headers = {"Authorization": f"Bearer {TOKENS['reader']}"} | ({"Origin": origin} if origin else {})
        async with house.client.get(f"{house.url}/v1/sessions/s", headers=headers) as response:
            assert response.status == 200 and response.headers.get("Access-Control-Allow-Origin") == origin
            assert (response.headers.get("Vary") == "Origin") == (origin is not None)
        socket = await house.client.ws_connect(f"{house.url}/v1/sessions/s/stream", headers=headers)
        assert (await socket.receive_json(timeout=5))["type"] == "snapshot"
        await socket.close()


async def test_two_origins_are_none_of_ours(open_house: Open) -> None:
    house = await open_house(allowed_origins=(GOOD,))
    headers = [("Origin", GOOD), ("Origin", "https://evil.example"), ("Authorization", f"Bearer {TOKENS['reader']}")]
    async with house.client.get(f"{house.url}/v1/sessions", headers=headers) as response:
        assert response.status == 403


async def test_our_own_page_is_ours_and_a_name_rebound_to_us_is_not(house: House) -> None:
    """DNS rebinding: evil.example resolves to 127.0.0.1, and the browser says evil.example in Host and Origin."""
    port = house.url.rpartition(":")[2]
    bearer = {"Authorization": f"Bearer {TOKENS['reader']}"}
    for ours in (house.url, f"http://localhost:{port}"):
        async with house.client.get(f"{house.url}/v1/sessions", headers=bearer | {"Origin": ours}) as response:
            assert response.status == 200
    rebound = {"Host": f"evil.example:{port}", "Origin": f"http://evil.example:{port}"}
    async with house.client.get(f"{house.url}/v1/sessions", headers=bearer | rebound) as response:
        assert response.status == 403


def test_own_origins() -> None:
    loopback = {"http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1"}
    assert own_origins("http://127.0.0.1:1") == own_origins("http://[::1]:1") == loopback
    assert own_origins("http://10.0.0.1:1") == {"http://10.0.0.1:1"}


@pytest.mark.parametrize("wrong", ["*", "null", "good.example", "https://good.example/", "https://*.example"])
def test_an_allow_list_entry_that_is_no_origin_is_refused_at_start(wrong: str) -> None:
    from actors.config import ConfigError, load

    with pytest.raises(ConfigError):
        load({"allowed_origins": wrong}, environ={})
