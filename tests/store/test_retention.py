"""What is old goes: by the chunk, as a prefix, at a cost by what is due; under a clock that walks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from actors.law import requests as rq
from actors.law.nodes import requests as nq
from actors.law.webhooks import Again, Dead, Delivered
from actors.protocol.defaults import NODE_EVENTS_KEPT, RETENTION_CHUNK
from actors.protocol.ids import ulid
from actors.store import schema
from actors.store.retention import SESSION_ROWS
from tests.node_world import NodeWorld
from tests.world import World

DAY_MS = 86_400_000


def keep(world: World, days: float = 1.0) -> int:
    """Until nothing is left to do; returns how many transactions it took."""
    for n in range(1, 1000):
        if world.store.janitor(round(days * DAY_MS), 10 * DAY_MS) < RETENTION_CHUNK:
            return n
    raise AssertionError("it never ends")


def count(world: World, table: str) -> int:
    return int(world.store._c.execute(f"select count(*) from {table}").fetchone()[0])


def age(world: World, days: float) -> None:
    world.now_ms += round(days * DAY_MS)
    world.store.tick("gw_1")


def stands(world: World, session_id: str = "s") -> tuple[int, int, list[int]]:
    page = world.store.page(session_id, 0, 10_000, max_bytes=1 << 30)
    return page.first_seq, page.last_seq, list(page.seqs)


def test_events_go_as_a_prefix_and_first_seq_says_where_the_log_begins(world: World) -> None:
    world.running()
    world.append(world.item(2, 5))
    head = stands(world)[1]
    age(world, 0.6)
    world.append(world.item(7, 3))
    age(world, 0.6)
    assert keep(world) == 1
    assert stands(world) == (head + 1, head + 3, [head + 1, head + 2, head + 3])
    assert world.status() == "running"  # and it goes on where it was
    world.append(world.item(10, 1))
    assert stands(world)[1] == head + 4
    age(world, 2)
    keep(world)
    assert stands(world) == (head + 5, head + 4, [])
    world.append(world.item(11, 1))
    assert stands(world) == (head + 5, head + 5, [head + 5])


def test_a_chunk_at_a_time_and_a_reader_never_sees_half_of_one(world: World) -> None:
    world.running()
    for first in range(2, 3002, 500):
        world.append(world.item(first, 500))
    other = world.another_process()
    total = stands(world)[1]
    age(world, 2)
    steps = []
    while world.store.janitor(DAY_MS, 10 * DAY_MS) >= RETENTION_CHUNK:
        page = other.page("s", 0, 1)
        assert page.seqs[:1] in ((page.first_seq,), ())
        steps.append(page.first_seq)
    other.close()
    assert stands(world) == (total + 1, total, [])
    assert len(steps) == 3 and all(b - a <= RETENTION_CHUNK for a, b in zip([1, *steps], steps, strict=False))


def test_it_costs_by_what_is_due(world: World) -> None:
    """Statements are counted: a store of many sessions with nothing old is one look."""
    for n in range(300):
        world.create(f"s{n}")
        world.store.transact(rq.Submit(session_id=f"s{n}", seed=ulid(), execution_id="e"))
    said: list[str] = []
    world.store._c.set_trace_callback(said.append)
    assert world.store.janitor(DAY_MS, DAY_MS) == 0, "a crowd that has just come is nothing to look at"
    assert len(said) < 20, said
    world.now_ms += 2 * DAY_MS
    said.clear()
    assert world.store.janitor(DAY_MS, 9 * DAY_MS) >= RETENTION_CHUNK
    world.store._c.set_trace_callback(None)
    looked = sum(statement.startswith("update sessions set first_seq") for statement in said)
    assert 20 <= looked <= RETENTION_CHUNK // SESSION_ROWS, "the write lock is held for milliseconds, not for a crowd"
    keep(world)
    assert count(world, "events") == 0
    for table, column in (("sessions", "oldest_at_ms"), ("executions", "ended_at_ms"), ("callbacks", "settled_at_ms")):
        where = f"{column} < 5" + (" and deleted_at_ms is null" if table == "sessions" else "")
        plan = world.store._c.execute(f"explain query plan select 1 from {table} where {where} limit 1").fetchall()
        assert "INDEX" in plan[0][3] and "SCAN" not in plan[0][3], plan


def test_an_ended_execution_goes_with_what_belongs_to_it(world: World) -> None:
    world.running(callback={"url": "http://x.test/"})
    world.ask(2)
    world.final(3)
    world.submit("e2")
    assert (count(world, "executions"), count(world, "approvals"), count(world, "callbacks")) == (2, 1, 1)
    age(world, 2)
    keep(world)
    assert count(world, "executions") == 2  # its callback was not delivered yet
    (claimed,) = world.store.claim_webhooks("l", 9, 9, {})
    world.store.settle_webhook(claimed.webhook_id, "l", Delivered(), 200, None)
    keep(world)
    assert (count(world, "executions"), count(world, "approvals"), count(world, "callbacks")) == (1, 0, 0)
    assert world.status("e2") == "pending"
    assert [c for c in world.commands() if c[1] == "e1"] == []
    # its id may come again, and has a callback of its own
    world.submit("e1", callback={"url": "http://x.test/"})
    world.fail("e1")
    assert count(world, "callbacks") == 1


def test_settled_commands_of_a_long_execution_and_old_audit_go(world: World) -> None:
    world.running()
    (start,) = world.store._c.execute("select id from commands").fetchall()
    world.ack_command(start[0], "done")
    world.do(rq.SendInput(session_id="s", seed=ulid(), execution_id="e1", input="x"))
    age(world, 2)
    keep(world)
    assert world.commands() == [("input", "e1")]
    acts = count(world, "audit")
    assert acts > 0
    age(world, 9)
    keep(world)
    assert count(world, "audit") == 0


def test_a_deleted_session_is_looked_at_until_it_is_empty_and_never_again(world: World) -> None:
    world.running()
    world.append(world.item(2, 1500))
    world.do(rq.DeleteSession(session_id="s", seed=ulid()))
    assert keep(world, 100) == 2
    assert count(world, "events") == 0
    assert world.store._c.execute("select oldest_at_ms from sessions").fetchall() == [(-1,)]
    assert keep(world, 100) == 1


def test_a_crowd_of_deleted_sessions_is_emptied_in_chunks_of_milliseconds(world: World) -> None:
    for n in range(200):
        world.create(f"s{n}")
        world.do(rq.DeleteSession(session_id=f"s{n}", seed=ulid()))
    said: list[str] = []
    world.store._c.set_trace_callback(said.append)
    assert world.store.janitor(DAY_MS) >= RETENTION_CHUNK
    world.store._c.set_trace_callback(None)
    emptied = sum(statement.startswith("update sessions set oldest_at_ms = -1") for statement in said)
    assert 20 <= emptied <= RETENTION_CHUNK // SESSION_ROWS
    assert keep(world) < 20 and count(world, "events") == 0


@pytest.mark.parametrize("live", [True, False])
def test_a_store_of_the_first_version_is_brought_forward(tmp_path: Path, live: bool) -> None:
    world = World(tmp_path)
    world.close()
    (tmp_path / "holdfast.db").unlink()
    from actors.store.locks import library

    db = library().connect(str(tmp_path / "holdfast.db"), isolation_level=None)
    db.execute("pragma journal_mode = wal")
    first = schema.migrations._migrations[0]
    old = type(schema.migrations)("holdfast")
    old._migrations.append(first)
    old.apply(Database(db))
    db.execute(
        "insert into callbacks (session_id, execution_id, spec, body, next_at_ms, created_at_ms) "
        """values ('s', 'e', '{"url":"http://x.test/h"}', '{"outcome":{"status":"failed"}}', 1, 1)"""
    )
    if not live:
        db.close()
    world = World(tmp_path)
    (shown,) = world.store.webhooks(None, None, 10, None).items
    assert shown["webhook_id"].startswith("whk_") and shown["state"] == "due"
    assert [c.webhook_id for c in world.store.claim_webhooks("l", 9, 9, {})] == [shown["webhook_id"]]
    world.close()
    if live:
        db.close()


def test_the_audit_has_every_act_of_an_operator_and_nothing_else(world: World) -> None:
    canary = "canary-5150"
    by: dict[str, Any] = {"by": "tok_1"}
    world.do(rq.CreateSession(session_id="s", seed=ulid(), title=canary, **by))
    world.do(rq.CreateSession(session_id="s", seed=ulid(), **by))
    world.connect()
    world.submit("e1", input=canary, **by)
    world.submit("e1", input=canary, **by)
    world.started()
    world.do(rq.SendInput(session_id="s", seed=ulid(), execution_id="e1", input=canary, **by))
    world.ask(2)
    for decision in ("allow", "deny"):
        world.do(
            rq.ResolveApproval(session_id="s", seed=ulid(), approval_id="apr_1", decision=decision, note=canary, **by)
        )
    world.interrupt(reason=canary, **by)
    world.fail(**by)
    world.fail(**by)
    world.append(world.item(3))
    world.do(rq.DeleteSession(session_id="s", seed=ulid(), **by))
    world.do(rq.DeleteSession(session_id="no", seed=ulid(), **by))
    items = world.store.audit(None, 100, None).items[::-1]
    assert [(a["action"], a["execution_id"], a["object_id"], a["outcome"]) for a in items] == [
        ("session.create", None, None, "ok"),
        ("session.create", None, None, "session_exists"),
        ("execution.submit", "e1", None, "ok"),
        ("execution.submit", "e1", None, "unchanged"),
        ("execution.input", "e1", None, "ok"),
        ("approval.resolve", None, "apr_1", "ok"),
        ("approval.resolve", None, "apr_1", "already_resolved"),
        ("execution.interrupt", "e1", None, "ok"),
        ("execution.fail", "e1", None, "ok"),
        ("execution.fail", "e1", None, "unchanged"),
        ("session.delete", None, None, "ok"),
        ("session.delete", None, None, "session_not_found"),
    ]
    assert {a["by"] for a in items} == {"tok_1"}
    assert canary not in repr(items)
    page = world.store.audit("s", 3, None)
    rest = world.store.audit("s", 100, page.next_cursor)
    assert [*page.items, *rest.items] == list(items[:-1][::-1])


def test_an_act_and_its_row_are_one_transaction(world: World) -> None:
    world.create()
    before = count(world, "audit")
    world.store._c.execute("create trigger no before insert on audit begin select raise(abort, 'no'); end")
    with pytest.raises(Exception, match="no"):
        world.submit()
    world.store._c.execute("drop trigger no")
    assert count(world, "audit") == before and count(world, "executions") == 0


def test_a_failure_counts_only_from_who_holds_the_lease_and_a_delivery_from_anybody(world: World) -> None:
    world.running(callback={"url": "http://x.test/"})
    world.fail()
    (first,) = world.store.claim_webhooks("l1", 9, 9, {})
    assert world.store.claim_webhooks("l2", 9, 9, {}) == ()
    world.now_ms += 30_000
    assert world.store.claim_webhooks("l2", 9, 9, {}) == (first,)
    wid = first.webhook_id
    assert not world.store.settle_webhook(wid, "l1", Dead(), 400, "HTTP 400")
    assert not world.store.settle_webhook(wid, "l1", Again(60), None, "slow")
    shown = world.store.webhook(wid)
    assert (shown["state"], shown["attempts"], shown["last_error"]) == ("due", 0, None)
    assert world.store.settle_webhook(wid, "l1", Delivered(), 200, None)  # it was slow, and it did arrive
    assert not world.store.settle_webhook(wid, "l2", Dead(), 409, "HTTP 409")
    assert world.store.webhook(wid)["state"] == "delivered"


# ---------------------------------------------------------------- nodes


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[NodeWorld]:
    made = NodeWorld(tmp_path)
    made.plug()
    yield made
    made.close()


def logged(nodes: NodeWorld) -> tuple[list[int], int]:
    page = nodes.store.node_events("n", 0, 100_000)
    return [e["seq"] for e in page.items], page.first_seq


def own(nodes: NodeWorld, count: int) -> None:
    framed = nodes.framed("con_1")
    requests = [nq.NodeEvent(**framed | {"seed": ulid()}, type="door") for _ in range(count)]
    nodes.store.commit_group(requests)


def test_a_nodes_log_loses_what_is_old_and_says_where_it_begins(nodes: NodeWorld) -> None:
    own(nodes, 4)
    nodes.now_ms += 2 * DAY_MS
    own(nodes, 3)
    keep(nodes)
    assert logged(nodes) == ([6, 7, 8], 6)
    nodes.now_ms += 2 * DAY_MS
    keep(nodes)
    assert logged(nodes) == ([], 9)
    own(nodes, 1)
    assert logged(nodes) == ([9], 9)


def test_a_nodes_log_is_bounded_however_young(nodes: NodeWorld) -> None:
    own(nodes, NODE_EVENTS_KEPT + 1500)
    keep(nodes)
    seqs, first = logged(nodes)
    assert (len(seqs), seqs[0], first) == (NODE_EVENTS_KEPT, 1502, 1502)


def test_a_clock_that_was_set_back_does_not_stop_the_cutting(nodes: NodeWorld) -> None:
    nodes.now_ms += 5 * DAY_MS
    own(nodes, 1)
    nodes.now_ms -= 5 * DAY_MS
    own(nodes, 1)
    nodes.now_ms += 4 * DAY_MS
    keep(nodes)
    assert logged(nodes) == ([], 4)


def test_settled_invocations_go_and_open_ones_stay(nodes: NodeWorld) -> None:
    done, waiting = nodes.invoke(timeout_s=0)["invocation_id"], nodes.invoke(timeout_s=0)["invocation_id"]
    nodes.fetch(limit=1)
    nodes.result(done)
    nodes.now_ms += 2 * DAY_MS
    keep(nodes)
    assert [i["invocation_id"] for i in nodes.store.invocations("n", 9, None).items] == [waiting]
