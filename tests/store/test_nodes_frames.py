"""The frames that decisions send are those that the models of the protocol describe, and the other way round."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from actors.protocol import node_frames as nf
from actors.protocol.codes import ERRORS
from actors.protocol.node_codes import INVOCATION_ERRORS, PRESENCE_REASONS, ROLES, TASK_ACTIONS, InvocationError
from tests.node_world import NodeWorld

DIRECTIVE: TypeAdapter[Any] = TypeAdapter(nf.Directive)
UPLOADED = {"task_id": "t", "attempt": 1, "status": "uploaded", "object_key": "k", "sha256": "ab" * 32, "size": 0}
FROM_NODE: TypeAdapter[Any] = TypeAdapter(nf.FromNode)


def test_everything_that_is_sent_is_a_frame_of_the_protocol(tmp_path: Path) -> None:
    world = NodeWorld(tmp_path)
    world.device()
    world.task(params={"take": 1})
    for action, says in (
        ("config", "ready"),
        ("clear", "idle"),
        ("config", "ready"),
        ("begin", "recording"),
        ("pause", "paused"),
        ("resume", "recording"),
        ("finish", "idle"),
    ):
        assert world.act(action).status == 202
        world.say(says if says == "idle" else (says, "t", 1))
    world.upload("uploaded")
    world.say(("recording", "foreign", 1))
    world.task("u")
    world.say(("recording", "u", 1))
    world.act("cancel", "u")
    world.plug()
    made = world.invoke(timeout_s=0, params=[1])
    world.fetch()
    world.cancel(made["invocation_id"])
    for connection in ("con_1", "tra", "rec"):
        world.fetch(connection)
    world.plug("rec2", role="recorder", instance="i_2")
    seen = set()
    for frame in [f for frames in world.sent.values() for f in frames]:
        model = DIRECTIVE.validate_python(frame)
        assert model.model_dump() == frame  # no field that the model does not know
        seen.add(frame["type"] if frame["type"] != "task" else frame["action"])
    world.close()
    assert seen == {"invoke", "invoke_cancel", "probe", "upload_request", "upload_ack", "error", *TASK_ACTIONS}


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "hello", "protocol": 1, "instance_id": "i_1"},
        {"type": "hello", "protocol": 1, "instance_id": "i_1", "attempt": 2, "commands": ["a.b"], "uploads": []},
        {"type": "hello", "protocol": 1, "instance_id": "i", "uploads": [UPLOADED]},
        {"type": "invoke_result", "invocation_id": "inv_1", "ok": False, "error": {"message": "no"}},
        {"type": "invoke_progress", "invocation_id": "inv_1", "seq": 1, "payload": 5},
        {"type": "state", "reported": {"state": "recording", "task_id": "t", "attempt": 1}},
        {"type": "upload", **UPLOADED},
        {"type": "event", "event": {"type": "door.open", "data": {}}},
        {"type": "heartbeat"},
    ],
)
def test_what_a_node_may_say(frame: dict[str, Any]) -> None:
    FROM_NODE.validate_python({**frame, "unknown": "ignored"})


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "state", "reported": {"state": "recording"}},
        {"type": "state", "reported": {"state": "dreaming"}},
        {"type": "upload", "task_id": "t", "attempt": 1, "status": "uploaded"},
        {"type": "upload", "task_id": "t", "attempt": 0, "status": "failed"},
        {"type": "upload", **UPLOADED, "sha256": "AB"},
        {"type": "hello", "protocol": 1, "instance_id": "i_1", "commands": ["rm -rf"]},
        {"type": "hello", "protocol": 1, "instance_id": "i_1", "commands": ["a"] * 257},
        {"type": "invoke_result", "invocation_id": "inv_1", "ok": 1},
        {"type": "invoke_progress", "invocation_id": "inv_1", "seq": 0},
    ],
)
def test_what_it_may_not_say(frame: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FROM_NODE.validate_python(frame)


def test_the_tables_are_closed() -> None:
    assert set(get_args(InvocationError)) == set(INVOCATION_ERRORS)
    assert all(meaning for table in (ROLES, TASK_ACTIONS, PRESENCE_REASONS) for meaning in table.values())
    assert {"unknown_role", "foreign_task", "task_conflict", "state_unknown", "attempt_mismatch"} <= set(ERRORS)
