"""The command line of orders: what it costs, what it refuses before it asks, and a day's work by hand on a service."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from actors.http_client import Problem
from actors.operate_orders import wishes
from tests.runtime.conftest import ROOT, Up
from tests.runtime.test_cli import helps_at_once, nobody_is_there, offline

GROUPS = ("order", "batch", "station", "collector")


@pytest.mark.parametrize("argv", [("order",), ("order", "dispatch"), ("batch", "complete"), ("station", "update")])
def test_help_answers_at_once(argv: tuple[str, ...], tmp_path: Path) -> None:
    helps_at_once(*argv, home=tmp_path)


def test_the_commands_of_orders_are_imported_when_asked_for_and_nothing_heavy_then(tmp_path: Path) -> None:
    script = (
        "import sys, actors.cli as c\n"
        "assert not {'actors.cli_orders', 'actors.cli_stations'} & set(sys.modules)\n"
        f"assert all(c.cli.get_command(None, name).name == name for name in {GROUPS})\n"
        "print({'ray', 'aiohttp', 'pydantic', 'pysqlite3', 'wrapper'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, capture_output=True
    )
    assert done.stdout == "set()\n", done.stderr
    said = offline("--help", home=tmp_path).stdout
    assert all(f"\n  {group} " in said for group in GROUPS)


def test_a_shell_completes_what_is_imported_late(tmp_path: Path) -> None:
    def completed(words: str) -> set[str]:
        env = {"_HOLDFAST_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        done = subprocess.run(
            [sys.executable, "-c", "from actors.cli import cli; cli(prog_name='holdfast')"],
            env=os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)} | env,
            text=True,
            capture_output=True,
        )
        return {line.partition(",")[2] for line in done.stdout.splitlines()}

    assert completed("holdfast or") == {"order"}
    assert completed("holdfast order ") >= {"create", "dispatch", "adjust", "pause", "resume", "cancel", "notices"}
    assert completed("holdfast batch re") == {"recall"}
    assert completed("holdfast order list --status p") == {"paused"}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("order", "create", "0"), "0 is not in the range"),
        (("order", "create", "5", "--quota", "some"), "'some' is not one of"),
        (("order", "list", "--status", "lost"), "'lost' is not one of"),
        (("order", "update", "o"), "nothing to change"),
        (("order", "dispatch", "o", "s"), "no group"),
        (("order", "dispatch", "o", "s", "--group", "pick=3"), "is not SOP_ID/SUBSCENE_ID=QUANTITY"),
        (("order", "dispatch", "o", "s", "--group", "a/b/c=3"), "is not SOP_ID/SUBSCENE_ID=QUANTITY"),
        (("order", "dispatch", "o", "s", "--group", "a/b=-1"), "is not SOP_ID/SUBSCENE_ID=QUANTITY"),
        (("order", "adjust", "b", "--group", "a/b=many"), "is not SOP_ID/SUBSCENE_ID=QUANTITY"),
        (("order", "adjust", "b", "--groups", "[not json"), "--groups is not JSON"),
        (("order", "adjust", "b", "--groups", "{}"), "--groups is no list"),
        (("batch", "complete", "b", "a", "b", "0"), "0 is not in the range"),
        (("batch", "handoff", "b", "not an id", "b"), "is not an id"),
        (("station", "update", "s"), "nothing to change"),
        (("station", "create", "c", "n", "--capabilities", "{}"), "those of a --type"),
        (("station", "create", "c", "n", "--type", "arm", "--capabilities", "[]"), "not a JSON object"),
        (("station", "create", "c", "n", "--type", "arm", "--capabilities", "{"), "not JSON"),
        (("collector", "update", "c"), "nothing to change"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error_with_a_reason(argv: tuple[str, ...], words: str, tmp_path: Path) -> None:
    done = offline(*argv, home=tmp_path, HOLDFAST_TOKEN="x", HOLDFAST_URL="http://127.0.0.1:9")
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_nobody_there_is_5_and_says_what_to_do(tmp_path: Path) -> None:
    nobody_is_there(
        ("order", "list"), ("batch", "show", "b"), ("station", "list"), ("collector", "create", "Ada"), home=tmp_path
    )


def test_groups_of_options_and_of_json_are_one_list() -> None:
    one = {"sop_id": "a", "subscene_id": "b", "quantity": 1}
    two = {"sop_id": "a", "subscene_id": "c", "quantity": 2, "scene_name": "küche"}
    assert wishes([one], json.dumps([two])) == [one, two]
    assert wishes([one], None) == [one]


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("quota_exceeded", 400, 4),
        ("below_begun", 400, 4),
        ("target_below_assigned", 400, 4),
        ("too_few_pending", 400, 4),
        ("duplicate_group", 400, 2),
        ("order_paused", 409, 4),
        ("group_not_found", 404, 3),
        ("not_your_station", 403, 1),
    ],
)
def test_what_was_well_said_but_does_not_fit_what_there_is_is_a_conflict(code: str, status: int, expected: int) -> None:
    assert Problem({"code": code, "status": status}).exit_code == expected


def test_a_refusal_tells_its_numbers() -> None:
    body = {"code": "quota_exceeded", "status": 400, "detail": "d", "hint": "h", "requested": 12, "max_batch_target": 3}
    assert Problem(body).numbers() == "requested 12, max_batch_target 3"
    assert Problem({"code": "x", "status": 409, "task_ids": ["t"], "current_status": "paused"}).numbers() == (
        "current_status paused"
    )


# ---------------------------------------------------------------- on a service


class Hand:
    """Somebody at the command line."""

    def __init__(self, up: Up) -> None:
        self.up = up

    def json(self, *argv: str, stdin: str | None = None) -> Any:
        done = self.up.cli(*argv, "--json", stdin=stdin)
        assert done.returncode == 0, (argv, done.stderr)
        return json.loads(done.stdout)

    def said(self, *argv: str) -> str:
        done = self.up.cli(*argv)
        assert done.returncode == 0, (argv, done.stderr)
        return done.stdout

    def refused(self, code: int, words: str, *argv: str) -> str:
        done = self.up.cli(*argv)
        assert (done.returncode, done.stdout) == (code, "") and words in done.stderr, (argv, done)
        return done.stderr


@pytest.mark.ray
def test_an_order_by_hand(holdfast: Up) -> None:
    hand = Hand(holdfast)
    hand.json("node", "create", "hand-arm")
    assert hand.said("collector", "create", "Ada Löve", "hand-ada", "--operator-id", "op-7") == "hand-ada\n"
    kind = ("--type", "arm", "--capabilities", '{"requires_axon": false}')
    made = hand.json("station", "create", "hand-ada", "hand-arm", "hand-st", *kind)
    assert made["node_type"] == {"name": "arm", "capabilities": {"requires_axon": False}}
    assert hand.said("order", "create", "6", "hand-order", "--name", "dishes") == "hand-order\n"
    hand.refused(4, "order_exists", "order", "create", "6", "hand-order")
    hand.refused(3, "order_not_found", "order", "show", "nobody")

    wish = [{"sop_id": "pick", "subscene_id": "sink", "quantity": 2, "scene_name": "Küche", "sop_version": 3}]
    argv = ("order", "dispatch", "hand-order", "hand-st", "--batch-id", "hand-b", "--groups", "-")
    batch = hand.json(*argv, "-g", "pick/table=2", stdin=json.dumps(wish))
    assert {(g["sop_id"], g["subscene_id"]): g["quantity"] for g in batch["groups"]} == {
        ("pick", "sink"): 2,
        ("pick", "table"): 2,
    }
    told = hand.refused(4, "quota_exceeded", "order", "dispatch", "hand-order", "hand-st", "-g", "pick/sink=3")
    assert "requested 3" in told and "remaining_assignable 2" in told

    adjusted = hand.json("order", "adjust", "hand-b", "-g", "pick/table=3")
    assert (adjusted["added_count"], adjusted["removed_count"]) == (1, 0)
    assert "3 → 1" in hand.said("order", "adjust", "hand-b", "-g", "pick/table=1")

    hand.said("order", "pause", "hand-order")
    hand.refused(4, "order_paused", "batch", "complete", "hand-b", "pick", "sink")
    hand.said("order", "resume", "hand-order")
    done = hand.json("batch", "complete", "hand-b", "pick", "sink", "2", "--key", "k1")
    again = hand.json("batch", "complete", "hand-b", "pick", "sink", "2", "--key", "k1")
    assert done == again and (done["completed_count"], done["created_count"]) == (2, 0)
    hand.refused(4, "too_few_pending", "batch", "complete", "hand-b", "pick", "sink")
    hand.refused(4, "below_begun", "order", "adjust", "hand-b", "-g", "pick/sink=1")
    hand.refused(4, "has_begun", "batch", "delete", "hand-b")

    line = hand.said("batch", "handoff", "hand-b", "pick", "sink")
    assert line == (
        '{"sop_slug":"","sop_version":"3","scene_name":"Küche","subscene_name":"","collector_name":"Ada Löve",'
        '"collector_operator_id":"op-7","device_id":"hand-arm","device_type":"arm"}'
    )
    shown = hand.said("order", "show", "hand-order")
    assert "2/6" in shown and "hand-b" in shown and "in_progress" in shown
    assert "hand-st" in hand.said("batch", "list", "--order", "hand-order", "--status", "active")
    assert len(hand.json("task", "list", "--batch", "hand-b")["items"]) == 3
    assert "of order hand-order, batch hand-b: pick/sink" in hand.said("task", "show", done["tasks"][0]["task_id"])

    hand.refused(4, "station_busy", "station", "delete", "hand-st")
    hand.refused(4, "collector_bound", "collector", "delete", "hand-ada")
    assert hand.json("batch", "recall", "hand-b")["status"] == "recalled"
    hand.refused(4, "current_status recalled", "batch", "cancel", "hand-b")
    hand.json("collector", "create", "Bo", "hand-bo")
    assert hand.json("station", "update", "hand-st", "--collector", "hand-bo")["version"] == 2
    rows = hand.said("station", "bindings", "hand-st").splitlines()
    assert [row.split()[:2] for row in rows[1:]] == [["2", "hand-bo"], ["1", "hand-ada"]]
    assert hand.said("collector", "delete", "hand-ada") == "deleted hand-ada\n"

    assert hand.said("order", "cancel", "hand-order").count("cancelled") >= 1
    assert hand.said("order", "notices", "hand-order").startswith("NOTICE")
    hand.refused(4, "order_terminal", "order", "dispatch", "hand-order", "hand-st", "-g", "pick/sink=1")
    hand.said("order", "create", "1", "hand-gone")
    hand.said("order", "delete", "hand-gone")
    hand.refused(3, "order_not_found", "order", "delete", "hand-gone")
    assert [o["order_id"] for o in hand.json("order", "list", "-q", "hand-")["items"]] == ["hand-order"]


@pytest.mark.ray
def test_the_handoff_is_byte_for_byte_into_a_pipe_and_ends_its_line_at_a_terminal(holdfast: Up) -> None:
    hand = Hand(holdfast)
    hand.json("node", "create", "tty-arm")
    hand.json("collector", "create", "Zoë", "tty-zoe")
    hand.json("station", "create", "tty-zoe", "tty-arm", "tty-st")
    hand.json("order", "create", "1", "tty-order")
    hand.json("order", "dispatch", "tty-order", "tty-st", "--batch-id", "tty-b", "-g", "a/b=1")
    path = "/v1/batches/tty-b/groups/a/b/handoff"
    env = holdfast.env | {"HOLDFAST_DATA_DIR": str(holdfast.data_dir), "HOME": str(holdfast.folder)}
    command = [sys.executable, "-P", "-m", "actors", "batch", "handoff", "tty-b", "a", "b"]
    piped = subprocess.run(command, env=env, capture_output=True, timeout=60, check=True).stdout
    assert (
        json.loads(piped) == holdfast.ask(path)[1] and piped.startswith(b'{"sop_slug":') and not piped.endswith(b"\n")
    )
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, env=env, stdout=theirs, stderr=subprocess.DEVNULL) as child:
        assert child.wait(60) == 0
    os.close(theirs)
    assert os.read(ours, 65536) == piped + b"\r\n"
    os.close(ours)
