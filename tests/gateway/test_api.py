from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from actors.gateway.auth import hash_of
from actors.protocol import resources
from actors.store.contract import Token
from tests.gateway.house import House, eventually, final, output


async def test_a_session_is_made_shown_listed_and_deleted(house: House) -> None:
    made = await house.call(
        "POST",
        "/v1/sessions",
        {"session_id": "a", "title": "Ä", "labels": {"k": "v"}, "limits": {"hung_s": None}},
        status=201,
    )
    resources.SessionResource.model_validate(made)
    assert made["limits"]["hung_s"] is None and made["link"]["state"] == "offline"
    minted = await house.call("POST", "/v1/sessions", {}, status=201)
    assert minted["session_id"].startswith("ses_")
    assert await house.call("GET", "/v1/sessions/a", token="reader") == made
    page = await house.call("GET", "/v1/sessions", params={"label": "k:v"})
    assert [s["session_id"] for s in page["items"]] == ["a"] and page["next_cursor"] is None
    await house.call("DELETE", "/v1/sessions/a", status=204)
    await house.call("DELETE", "/v1/sessions/a", status=204)
    assert (await house.call("POST", "/v1/sessions", {"session_id": "a"}, status=410))["code"] == "session_deleted"
    assert (await house.call("GET", "/v1/sessions/b", status=404))["code"] == "session_not_found"


async def test_lists_page_by_cursor(house: House) -> None:
    for i in range(5):
        await house.session(f"s{i}")
    seen, cursor = [], None
    while True:
        page = await house.call("GET", "/v1/sessions", params={"limit": 2, **({"cursor": cursor} if cursor else {})})
        seen += [s["session_id"] for s in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(seen) == [f"s{i}" for i in range(5)]
    assert (await house.call("GET", "/v1/sessions", params={"cursor": "?"}, status=400))["code"] == "bad_cursor"


async def test_an_execution_by_hand_from_submit_to_its_outcome(house: House) -> None:
    wrapper = await house.running()
    queued = await house.call("POST", "/v1/sessions/s/executions", {"input": {"n": 1}}, status=202)
    resources.ExecutionResource.model_validate(queued)
    assert queued["status"] == "queued" and queued["execution_id"].startswith("exe_")
    again = await house.call("POST", "/v1/sessions/s/executions", {"execution_id": "e"}, status=202)
    assert again["status"] == "running"
    mismatch = await house.call("POST", "/v1/sessions/s/executions", {"execution_id": "e", "input": 1}, status=409)
    assert mismatch["code"] == "execution_mismatch"
    await wrapper.say(final(2))
    await wrapper.acked(2)
    shown = await house.execution()
    assert shown["status"] == "completed" and shown["outcome"]["exit_code"] == 0
    page = await house.call("GET", "/v1/sessions/s/executions")
    assert [e["status"] for e in page["items"]] == ["pending", "completed"]
    assert (await house.call("POST", "/v1/sessions/s/executions/e/input", {"input": 1}, status=409))[
        "code"
    ] == "execution_terminal"
    failed = await house.call("POST", "/v1/sessions/s/executions/e/fail", {"error": "x"}, status=200)
    assert failed["changed"] is False and failed["execution"]["status"] == "completed"
    await wrapper.close()


async def test_an_interrupt_is_one_interrupt(house: House) -> None:
    await house.session()
    assert (await house.call("POST", "/v1/sessions/s/interrupt", {}, status=409))["code"] == "nothing_to_interrupt"
    wrapper = await house.wrapper()
    await house.submit()
    await house.call("POST", "/v1/sessions/s/interrupt", {"reason": "no"}, status=202)
    assert (await house.execution())["status"] == "interrupted"
    named = await house.call("POST", "/v1/sessions/s/interrupt", {"execution_id": "e"}, status=200)
    assert named["execution"]["outcome"]["status"] == "interrupted"
    await wrapper.close()


async def test_an_approval_is_decided_once(house: House) -> None:
    wrapper = await house.running()
    ask = {
        "type": "approval",
        "execution_id": "e",
        "seq": 2,
        "approval_id": "apr_1",
        "title": "rm?",
        "options": ["y", "n"],
    }
    await wrapper.say({**ask, "expires_in_s": 60, "data": {"path": "/"}})
    await wrapper.acked(2)
    (listed,) = (await house.call("GET", "/v1/sessions/s/approvals"))["items"]
    resources.ApprovalResource.model_validate(listed)
    won = await house.call("POST", "/v1/sessions/s/approvals/apr_1", {"decision": "n", "note": "never"}, status=200)
    assert won["decision"] == "n"
    lost = await house.call("POST", "/v1/sessions/s/approvals/apr_1", {"decision": "y"}, status=409)
    assert lost["code"] == "already_resolved"
    command = await wrapper.hear("command", kind="approval")
    assert (command["approval_id"], command["decision"], command["note"]) == ("apr_1", "n", "never")
    await wrapper.close()


async def test_events_page_forwards_and_backwards(house: House) -> None:
    wrapper = await house.running()
    await wrapper.say(output(2, *"abcdefghij"))
    await wrapper.acked(11)
    get = lambda **query: house.call("GET", "/v1/sessions/s/events", params=query, token="reader")  # noqa: E731
    page = await get(after_seq=0, limit=5)
    assert [e["seq"] for e in page["items"]] == [1, 2, 3, 4, 5]
    assert (page["next_after_seq"], page["first_seq"], page["last_seq"]) == (5, 1, 13)
    page = await get(after_seq=5, limit=500)
    assert page["next_after_seq"] == 13 and len(page["items"]) == 8
    page = await get(before_seq=5, limit=2)
    assert [e["seq"] for e in page["items"]] == [3, 4]
    page = await get(types="execution.started")
    assert [e["type"] for e in page["items"]] == ["execution.started"] and page["next_after_seq"] == 13
    resources.EventPage.model_validate(page)
    assert (await get(after_seq=13))["items"] == []
    await wrapper.close()


@pytest.mark.parametrize(
    "query",
    [
        "after_seq=-1",
        "after_seq=1e3",
        "after_seq=99999999999999999999",
        "limit=0",
        "limit=501",
        "types=A",
        "execution_id=!!",
        "execution_id=",
        "after_seq=",
        "before_seq=x",
    ],
)
async def test_a_bad_query_says_which_part(house: House, query: str) -> None:
    await house.session()
    told = await house.call("GET", f"/v1/sessions/s/events?{query}", status=400)
    assert query.split("=")[0] in told["detail"]


# ---------------------------------------------------------------- idempotency


async def test_the_same_key_and_body_have_one_effect_and_one_answer(house: House) -> None:
    key = {"Idempotency-Key": "k1"}
    first = await house.call("POST", "/v1/sessions", {"title": "x"}, headers=key, status=201)
    again = await house.call("POST", "/v1/sessions", {"title": "x"}, headers=key, status=201)
    assert again == first
    other = await house.call("POST", "/v1/sessions", {"title": "y"}, headers=key, status=422)
    assert other["code"] == "idempotency_mismatch"
    assert (await house.call("POST", "/v1/sessions", {"title": "x"}, headers=key, token="admin", status=201)) != first
    sid = first["session_id"]
    one = await house.call("POST", f"/v1/sessions/{sid}/executions", {"input": 1}, headers=key, status=202)
    two = await house.call("POST", f"/v1/sessions/{sid}/executions", {"input": 1}, headers=key, status=202)
    assert one == two
    assert len((await house.call("GET", f"/v1/sessions/{sid}/executions"))["items"]) == 1


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_a_key_has_a_sensible_length(house: House, key: str) -> None:
    await house.call("POST", "/v1/sessions", {}, headers={"Idempotency-Key": key}, status=400)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/elsewhere", 404, "not_found"),
        ("PUT", "/v1/sessions/s", 405, "method_not_allowed"),
        ("GET", "/v1/sessions/!!", 404, "session_not_found"),
        ("GET", "/v1/sessions/s/executions/none", 404, "execution_not_found"),
        ("GET", "/v1/sessions/s/executions/!!", 404, "execution_not_found"),
        ("POST", "/v1/sessions/s/approvals/none", 400, "bad_request"),
        ("GET", "/v1/sessions/s/ingest", 400, "bad_request"),
    ],
)
async def test_every_refusal_is_a_problem_document(
    house: House, method: str, path: str, status: int, code: str
) -> None:
    await house.session()
    told = await house.call(method, path, status=status)
    resources.Problem.model_validate(told)
    assert told["code"] == code and told["instance"] == path and told["status"] == status and told["hint"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "bad_json"),
        (b"[]", 400, "bad_json"),
        (b'{"input": NaN}', 400, "bad_json"),
        (b'{"input": 9007199254740993}', 400, "bad_json"),
        (b'{"input": 1180591620717411303424}', 400, "bad_json"),
        (b'{"input": ' + b"[" * 40 + b"]" * 40 + b"}", 400, "bad_json"),
        (b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "bad_json"),
        (b'{"input": "\\ud800"}', 400, "bad_json"),
        (b'{"execution_id": "not an id"}', 400, "bad_id"),
        (b'{"execution_id": 5}', 400, "bad_id"),
        (b'{"limits": {"grace_s": "30"}}', 400, "bad_request"),
        (b'{"limits": {"grace_s": -1}}', 400, "bad_request"),
        (b'{"input": "' + b"x" * (1 << 20) + b'"}', 413, "too_large"),
    ],
)
async def test_a_bad_body_is_refused_and_changes_nothing(house: House, body: bytes, status: int, code: str) -> None:
    await house.session()
    headers = {"Authorization": "Bearer t-operator", "Content-Type": "application/json"}
    async with house.client.post(
        f"{house.url}/v1/sessions/s/executions", data=io.BytesIO(body), headers=headers
    ) as response:
        told = await response.json(content_type="application/problem+json")
        assert (response.status, told["code"]) == (status, code), told
    assert (await house.call("GET", "/v1/sessions/s/executions"))["items"] == []


async def test_only_json_is_read(house: House) -> None:
    for headers in ({"Content-Type": "text/plain"}, {"Content-Type": "application/json", "Content-Encoding": "gzip"}):
        headers["Authorization"] = "Bearer t-operator"
        async with house.client.post(f"{house.url}/v1/sessions", data=b"{}", headers=headers) as response:
            assert response.status == 415 and response.content_type == "application/problem+json"


async def test_scopes(house: House) -> None:
    await house.session()
    await house.session("other")
    bound = Token("tok_bound", "operator", "s")
    await house.worker.write(lambda store: store.put_token(hash_of("t-bound"), bound))
    assert (await house.call("GET", "/v1/sessions/s", token=None, status=401))["code"] == "unauthenticated"
    assert (await house.call("GET", "/v1/sessions/s", token="wrong", status=401))["code"] == "unauthenticated"
    assert (await house.call("GET", "/v1/sessions/s", token="wrapper", status=403))["code"] == "forbidden"
    assert (await house.call("POST", "/v1/sessions", {}, token="reader", status=403))["code"] == "forbidden"
    await house.call("GET", "/v1/sessions/s", token="t-bound")
    assert (await house.call("GET", "/v1/sessions/other", token="t-bound", status=404))["code"] == "session_not_found"
    assert (await house.call("DELETE", "/v1/sessions/other", token="t-bound", status=404))[
        "code"
    ] == "session_not_found"
    await house.call("GET", "/v1/sessions", token="t-bound", status=403)
    await house.call("POST", "/v1/tickets", {"scope": "operator"}, token="reader", status=403)


async def test_a_foreign_origin_is_refused_and_a_listed_one_is_served(tmp_path: Path) -> None:
    house = await House(tmp_path, allowed_origins=("https://ui.example",)).open()
    foreign = {"Origin": "https://evil.example"}
    assert (await house.call("GET", "/v1/sessions", headers=foreign, status=403))["code"] == "origin_not_allowed"
    headers = {"Origin": "https://ui.example", "Authorization": "Bearer t-reader"}
    async with house.client.get(f"{house.url}/v1/sessions", headers=headers) as response:
        assert response.status == 200 and response.headers["Access-Control-Allow-Origin"] == "https://ui.example"
    async with house.client.options(f"{house.url}/v1/sessions", headers={"Origin": "https://ui.example"}) as response:
        assert response.status == 204 and "POST" in response.headers["Access-Control-Allow-Methods"]
    await house.close()


async def test_health_and_readiness(house: House) -> None:
    assert (await house.call("GET", "/healthz", token=None))["gateway_id"] == house.gateway.gateway_id
    await eventually(lambda: house.gateway.loops.ticked_at > 0)
    assert (await house.call("GET", "/readyz", token=None))["status"] == "ready"
    async with house.client.get(house.url + "/") as response:
        assert response.status == 200 and "Holdfast" in await response.text()


async def test_a_full_disk_is_a_503_that_may_be_tried_again(house: House) -> None:
    def fill(store: Any) -> None:
        pages = store._c.execute("pragma page_count").fetchone()[0]
        store._c.execute(f"pragma max_page_count = {pages}")

    await house.worker.write(fill)
    code = 0
    for _ in range(200):
        headers = {"Authorization": "Bearer t-operator"}
        async with house.client.post(
            f"{house.url}/v1/sessions", json={"title": "x" * 500}, headers=headers
        ) as response:
            code = response.status
            if code == 503:
                assert response.headers["Retry-After"]
                assert json.loads(await response.text())["code"] == "storage_unavailable"
                break
    assert code == 503
