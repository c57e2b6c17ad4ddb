"""A device is let in: a one-time code, a request, an operator's decision, a claim; each once, and no secret at rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.law.nodes import requests as nq
from actors.protocol.errors import HoldfastError
from actors.protocol.ids import ulid
from actors.protocol.node_resources import EnrolmentResource
from actors.store.contract import Claimed, NewEnrolment
from tests.node_world import NodeWorld


@pytest.fixture
def world(tmp_path: Path) -> Iterator[NodeWorld]:
    made = NodeWorld(tmp_path)
    yield made
    made.close()


def code(world: NodeWorld, name: str = "code", node_id: str | None = None, seconds: float = 600) -> int:
    return world.store.make_enrolment_code(name, node_id, seconds, "tok_op")


def ask(world: NodeWorld, enrolment_id: str = "enr_1", **fields: Any) -> dict[str, Any]:
    wanted = {"code_hash": "code", "claim_hash": "claim", "node_id": "n", "commands": ("a.b",)} | fields
    return world.store.enrol(NewEnrolment(enrolment_id=enrolment_id, **wanted))


def refused(call: Any) -> str:
    with pytest.raises(HoldfastError) as error:
        call()
    return error.value.code


def test_the_whole_way_in(world: NodeWorld) -> None:
    assert code(world) == world.now_ms + 600_000
    made = ask(world, name="Ada")
    EnrolmentResource.model_validate(made)
    assert made["state"] == "pending"
    assert world.store.claim_enrolment("enr_1", "claim", "tok_n", "secret") == Claimed("pending", "n")
    assert world.store.decide_enrolment("enr_1", True, ("a.*",), "tok_op")["state"] == "approved"
    assert (world.node()["name"], world.node()["allow"]) == ("Ada", ["a.*"])
    assert world.store.claim_enrolment("enr_1", "claim", "tok_n", "secret") == Claimed("approved", "n", True)
    token = world.store.token("secret")
    assert token is not None and (token.scope, token.node_id) == ("node", "n")
    assert world.store.claim_enrolment("enr_1", "claim", "tok_x", "other") == Claimed("approved", "n")
    assert world.store.token("other") is None
    noted = [a["action"] for a in world.store.audit(None, 50, None).items if a["action"].startswith("enrol")]
    assert noted == ["enrolment.approve", "enrolment.ask", "enrolment.code"]


def test_a_decision_is_made_once(world: NodeWorld) -> None:
    code(world)
    ask(world)
    world.store.decide_enrolment("enr_1", False, None, "tok_a")
    with pytest.raises(HoldfastError) as error:
        world.store.decide_enrolment("enr_1", True, None, "tok_b")
    assert error.value.code == "already_resolved"
    assert (error.value.extra["winner"]["decision"], error.value.extra["winner"]["resolved_by"]) == (
        "rejected",
        "tok_a",
    )
    assert world.store.claim_enrolment("enr_1", "claim", "tok_n", "secret") == Claimed("rejected", "n")
    assert world.store.token("secret") is None and refused(world.node) == "node_not_found"
    audited = world.store.audit(None, 1, None).items[0]
    assert (audited["action"], audited["by"], audited["outcome"]) == ("enrolment.approve", "tok_b", "already_resolved")


def test_a_code_is_good_once_for_one_device_and_for_a_while(world: NodeWorld) -> None:
    assert refused(lambda: ask(world)) == "bad_enrolment_code"
    code(world, node_id="m")
    assert refused(lambda: ask(world)) == "bad_enrolment_code"
    assert ask(world, node_id="m")["node_id"] == "m"
    assert refused(lambda: ask(world, "enr_2", node_id="m", claim_hash="thief")) == "bad_enrolment_code"
    code(world, "short", seconds=10)
    world.now_ms += 10_000
    assert refused(lambda: ask(world, "enr_3", code_hash="short")) == "bad_enrolment_code"
    assert len(world.store.enrolments(None, 50, None).items) == 1


def test_a_request_that_lost_its_answer_is_the_same_enrolment(world: NodeWorld) -> None:
    code(world)
    assert ask(world)["enrolment_id"] == ask(world, "enr_2")["enrolment_id"] == "enr_1"


def test_a_taken_id_needs_a_code_that_names_it(world: NodeWorld) -> None:
    world.make("n", allow=("a",))
    code(world)
    assert refused(lambda: ask(world)) == "node_exists"
    assert ask(world, node_id="fresh")["node_id"] == "fresh"  # the code was not used up
    code(world, "named", node_id="n")
    ask(world, "enr_2", code_hash="named", claim_hash="claim2")
    world.store.decide_enrolment("enr_2", True, None, "tok_op")
    assert world.node()["allow"] == ["a"]


def test_a_claim_of_another_is_no_enrolment_at_all(world: NodeWorld) -> None:
    code(world)
    ask(world)
    world.store.decide_enrolment("enr_1", True, None, "tok_op")
    assert refused(lambda: world.store.claim_enrolment("enr_1", "thief", "t", "s")) == "enrolment_not_found"
    assert refused(lambda: world.store.claim_enrolment("enr_9", "claim", "t", "s")) == "enrolment_not_found"
    assert refused(lambda: world.store.decide_enrolment("enr_9", True, None, None)) == "enrolment_not_found"


def test_an_old_approval_lets_nobody_into_a_node_that_was_forgotten(world: NodeWorld) -> None:
    code(world)
    ask(world)
    world.store.decide_enrolment("enr_1", True, None, "tok_op")
    world.do(nq.ForgetNode(node_id="n", seed=ulid()))
    assert world.store.claim_enrolment("enr_1", "claim", "tok_n", "secret") == Claimed("approved", "n")
    assert world.store.token("secret") is None
    world.make("n")  # the id has another life: the approval was of the one before
    assert world.store.claim_enrolment("enr_1", "claim", "tok_n", "secret") == Claimed("approved", "n")
    assert world.store.token("secret") is None


def test_of_two_who_ask_for_one_free_id_the_second_is_not_let_in_as_the_first(world: NodeWorld) -> None:
    for k in (1, 2):
        code(world, f"code{k}")
        ask(world, f"enr_{k}", code_hash=f"code{k}", claim_hash=f"claim{k}")
    world.store.decide_enrolment("enr_1", True, None, "tok_op")
    assert refused(lambda: world.store.decide_enrolment("enr_2", True, ("*",), "tok_op")) == "node_exists"
    assert world.node()["allow"] is None
    assert world.store.claim_enrolment("enr_2", "claim2", "tok_n", "secret") == Claimed("pending", "n")
    assert world.store.decide_enrolment("enr_2", False, None, "tok_op")["state"] == "rejected"


def test_the_list_is_by_state_newest_first_and_paged(world: NodeWorld) -> None:
    for k in range(4):
        code(world, f"code{k}")
        ask(world, f"enr_{k}", code_hash=f"code{k}", node_id=f"n{k}")
    world.store.decide_enrolment("enr_1", False, None, None)
    page = world.store.enrolments("pending", 2, None)
    rest = world.store.enrolments("pending", 2, page.next_cursor)
    assert [e["enrolment_id"] for e in page.items + rest.items] == ["enr_3", "enr_2", "enr_0"]


def test_what_is_old_goes_by_retention(world: NodeWorld) -> None:
    code(world)
    ask(world)
    world.now_ms += 40 * 86_400_000
    while world.store.janitor(90 * 86_400_000):
        pass
    assert world.store.enrolments(None, 9, None).items == ()
    assert world.store._c.execute("select count(*) from enrolment_codes").fetchone()[0] == 0
