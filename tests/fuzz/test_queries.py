"""Cursors, query parameters, close reasons and urls under anything that a stranger may write into them."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import example, given
from hypothesis import strategies as st

from actors.gateway.query import LABELS_MAX, LIST_LIMIT_MAX, TYPES_MAX, Query
from actors.protocol.errors import HoldfastError
from actors.protocol.ids import valid_id
from actors.protocol.urls import is_service_url
from actors.store.contract import SessionFilter
from actors.store.sqlite import SqliteStore
from tests.fuzz.budget import budget
from tests.world import World


@pytest.fixture(scope="module")
def store() -> Iterator[SqliteStore]:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    world = World(folder)
    for n in range(4):
        world.create(f"s{n}")
        for m in range(3):
            world.submit(f"e{m}", f"s{n}", callback={"url": "http://127.0.0.1:9/x"})
            world.fail(f"e{m}", f"s{n}")
    yield world.store
    world.close()
    shutil.rmtree(folder)


Lister = Callable[[SqliteStore, str | None], Any]
LISTS: tuple[Lister, ...] = (
    lambda store, cursor: store.sessions(SessionFilter(limit=2, cursor=cursor)),
    lambda store, cursor: store.executions("s1", 2, cursor),
    lambda store, cursor: store.webhooks(None, None, 2, cursor),
    lambda store, cursor: store.audit(None, 2, cursor),
    lambda store, cursor: store.tokens(2, cursor),
)

odd = st.sampled_from(
    ["[]", "{}", "[1]", "[1e400]", "[NaN]", f"[{2**63}]", f"[{-(2**63) - 1}]", f"[{10**40}]", '["\\ud800"]', "[true]",
     '[1,"\\ud800"]', '[1,"\\u0000"]', f'[{2**70},"a"]', '[null,"a"]', "[" * 5000, "1" * 5000, '[1,2,3]', '[[1],"a"]']
)  # fmt: skip
numbers = st.integers() | st.integers(-(2**66), 2**66)
spelled = st.one_of(
    odd,
    st.builds(lambda a: json.dumps([a]), numbers),
    st.builds(lambda a, b: json.dumps([a, b]), numbers | st.text(max_size=5), numbers | st.text(max_size=5)),
)
cursors = st.one_of(
    st.text(max_size=30),
    st.text("ABCabc019-_=", max_size=40),
    spelled.map(lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")),
)


@given(st.sampled_from(range(len(LISTS))), cursors)
@budget(500)
def test_any_cursor_is_a_page_or_a_bad_cursor(store: SqliteStore, which: int, cursor: str) -> None:
    page, refused = None, None
    try:
        page = LISTS[which](store, cursor)
    except HoldfastError as error:
        refused = error.code
    assert refused == "bad_cursor" if page is None else len(page.items) <= 2
    assert not store._c.in_transaction  # a refusal leaves nothing open


@given(st.sampled_from(range(len(LISTS) - 1)), st.integers(0, 60), st.characters(max_codepoint=127))
@budget(200)
def test_a_cursor_of_ours_leads_on_and_one_that_was_touched_never_repeats_itself(
    store: SqliteStore, which: int, at: int, char: str
) -> None:
    first = LISTS[which](store, None)
    cursor = first.next_cursor
    assert cursor is not None
    seen = [json.dumps(item) for item in first.items]
    while cursor is not None:
        page = LISTS[which](store, cursor)
        seen += [json.dumps(item) for item in page.items]
        cursor = page.next_cursor
    assert len(set(seen)) == len(seen)
    touched = list(first.next_cursor)
    touched[at % len(touched)] = char
    with contextlib.suppress(HoldfastError):
        LISTS[which](store, "".join(touched))


# ---------------------------------------------------------------- query parameters

NAMES = ("limit", "after_seq", "execution_id", "state", "types", "label", "cursor", "q")
bits = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "0", "1", "500", "501", "-1", "1.0", "１", "9" * 17, "9007199254740993", "a.b,c", "a,,b",
                     "k:v", ":", "k:", "A", "x" * 300, "idle", "running", "a\n", "%00", ",".join(["a"] * 60)]),
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(NAMES), bits), max_size=6))
@example([("limit", "²")])
@example([("label", f"k{n}:v") for n in range(LABELS_MAX + 1)])
@budget(400)
def test_any_query_is_read_or_refused_by_name(pairs: list[tuple[str, str]]) -> None:
    url = "/v1/x?" + "&".join(f"{name}={quote(value, errors='replace')}" for name, value in pairs)
    query = Query(make_mocked_request("GET", url))
    for read in (
        lambda: query.integer("after_seq"), query.limit, query.page_limit, lambda: query.id("execution_id"),
        query.state, query.types, query.labels, lambda: query.text("q"), lambda: query.text("cursor", 1000),
    ):  # fmt: skip
        found, refused = None, None
        try:
            found = read()
        except HoldfastError as error:
            refused = error
        assert refused is None or (refused.code in ("bad_request", "bad_id") and refused.detail.encode())
        match found:
            case int():
                assert 0 <= found <= 2**53
            case tuple():
                assert len(found) <= max(TYPES_MAX, LABELS_MAX)
    with contextlib.suppress(HoldfastError):
        assert 1 <= query.limit() <= LIST_LIMIT_MAX
    with contextlib.suppress(HoldfastError):
        assert (wanted := query.id("execution_id")) is None or valid_id(wanted)


@given(st.text(max_size=40) | st.builds(lambda a, b: f"http://{a}:{b}", st.text(max_size=10), st.text(max_size=6)))
@example("http://[::1")
@example("http://a:99999999999")
@budget(200)
def test_any_text_is_a_service_url_or_it_is_not(text: str) -> None:
    assert is_service_url(text) in (True, False)
