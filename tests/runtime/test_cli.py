"""The command line: exit codes, --json, and an answer to --help before anybody waits."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from actors.cli import LATER
from tests.runtime.conftest import ROOT, Up
from tests.wrapper.test_process import CERTIFICATE

HELP_S = 0.4  # of processor time, so that a busy machine does not count; the promise is 200 ms on a quiet one


def offline(*argv: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    command = [sys.executable, "-P", "-m", "actors", *argv]
    surroundings = clean | {"PYTHONPATH": str(ROOT), "HOME": str(home)} | env
    return subprocess.run(command, env=surroundings, text=True, capture_output=True, timeout=30, check=False)


def nobody_is_there(*commands: tuple[str, ...], home: Path) -> None:
    """Each of them is patient for four seconds, so they are patient together."""
    with ThreadPoolExecutor(len(commands)) as pool:
        asked = [
            pool.submit(offline, *argv, "--url", "http://127.0.0.1:9", home=home, HOLDFAST_TOKEN="x")
            for argv in commands
        ]
    for argv, done in zip(commands, (one.result() for one in asked), strict=True):
        assert done.returncode == 5 and "holdfast up" in done.stderr and done.stdout == "", (argv, done)


def helps_at_once(*argv: str, home: Path) -> None:
    before = os.times()
    done = offline(*argv, "--help", home=home)
    after = os.times()
    assert done.returncode == 0 and "Usage: holdfast" in done.stdout
    took_s = after.children_user + after.children_system - before.children_user - before.children_system
    assert took_s < HELP_S


@pytest.mark.parametrize("argv", [(), ("up",), ("run",), ("demo",), ("session",), ("session", "tail"), ("approval",)])
def test_help_answers_at_once(argv: tuple[str, ...], tmp_path: Path) -> None:
    helps_at_once(*argv, home=tmp_path)


@pytest.mark.parametrize(("url", "read"), [("http://127.0.0.1:9", "0"), ("https://127.0.0.1:9", "1")])
def test_who_asks_this_host_reads_no_certificates(url: str, read: str, tmp_path: Path) -> None:
    """SSL_CERT_FILE names one of ours: whether that was read shows in what aiohttp trusts by itself."""
    certificate = tmp_path / "certificate.pem"
    certificate.write_text(CERTIFICATE)
    script = (
        "import sys, actors.cli, actors.cli_base as b\n"
        "b.Where.run = lambda where, work: None\n"
        "actors.cli.main(['run', '--url', sys.argv[1], '--', 'true'])\n"
        "import aiohttp.connector as c; print(c._SSL_CONTEXT_VERIFIED.cert_store_stats()['x509'])"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT), "SSL_CERT_FILE": str(certificate), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script, url], env=env, text=True, capture_output=True, check=True)
    assert done.stdout.split() == [read]


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import importlib, sys, actors.cli as c; [importlib.import_module(m) for m in c.LATER.values()]\n"
        "print({'ray', 'aiohttp', 'pydantic', 'pysqlite3', 'wrapper'} & set(sys.modules))"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=env, text=True, capture_output=True, check=True)
    assert done.stdout == "set()\n"


def test_usage_and_configuration_errors_are_2(tmp_path: Path) -> None:
    assert offline("session", "show", "not an id", home=tmp_path).returncode == 2
    assert offline("nonsense", home=tmp_path).returncode == 2
    done = offline("config", "show", home=tmp_path, HOLDFAST_PROT="1")
    assert done.returncode == 2 and "did you mean HOLDFAST_PORT?" in done.stderr
    done = offline("up", "--host", "0.0.0.0", home=tmp_path)
    assert done.returncode == 2 and "--insecure" in done.stderr


def test_a_misspelt_command_is_answered_with_the_one_that_was_meant(tmp_path: Path) -> None:
    for wrong, meant in (("sesion", "session"), ("noed", "node"), ("dotcor", "doctor")):
        done = offline(wrong, home=tmp_path)
        assert done.returncode == 2 and "Did you mean" in done.stderr and f"'{meant}'" in done.stderr


@pytest.mark.parametrize("group", [(), *((name,) for name in sorted(LATER))])
def test_no_line_of_a_help_is_cut_off(group: tuple[str, ...], tmp_path: Path) -> None:
    said = offline(*group, "--help", home=tmp_path, COLUMNS="80").stdout
    assert "Commands:" in said and "..." not in said.partition("Commands:")[2]


@pytest.mark.parametrize("token", ["one\ntwo", "tok\x7fen", "tokén", " "])
def test_what_no_header_takes_is_no_token(token: str, tmp_path: Path) -> None:
    done = offline("session", "list", "--url", "http://127.0.0.1:9", home=tmp_path, HOLDFAST_TOKEN=token)
    assert done.returncode == 1 and "HOLDFAST_TOKEN holds no token" in done.stderr
    (tmp_path / "token").write_text(token)
    done = offline("session", "list", "--token-file", str(tmp_path / "token"), home=tmp_path)
    assert done.returncode == 1 and f"{tmp_path}/token holds no token" in done.stderr


def test_config_show_says_values_as_one_would_write_them(tmp_path: Path) -> None:
    done = offline("config", "show", home=tmp_path, HOLDFAST_NODE_COMMANDS="echo,device.*", HOLDFAST_TICK_S="0.5")
    said = dict(line.split()[:2] for line in done.stdout.splitlines())
    shown = [said[name] for name in ("node_commands", "tick_s", "grace_s", "hung_s", "insecure", "webhook_allow")]
    assert shown == ["echo,device.*", "0.5", "30", "off", "false", "-"]


def test_half_a_dump_does_not_look_like_a_clean_whole_one(tmp_path: Path) -> None:
    stored = {"who": "dump", "at": 1, "what": "stored", "session": "s", "seq": 1, "type": "t", "data": {}, "at_ms": 1}
    session = {"who": "dump", "at": 2, "what": "session", "session": "s", "link": "offline", "first_seq": 1}
    history = tmp_path / "history.jsonl"
    history.write_text(json.dumps(stored) + "\n")
    done = offline("check", str(history), home=tmp_path)
    assert done.returncode == 0 and "for want of a `session` line, in s" in done.stderr
    history.write_text(json.dumps(stored) + "\n" + json.dumps(session | {"last_seq": 1}) + "\n")
    done = offline("check", str(history), home=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 observations: clean\n", "")


def test_config_show_tells_where_each_value_came_from(tmp_path: Path) -> None:
    done = offline("config", "show", "--json", home=tmp_path, HOLDFAST_PORT="99")
    rows = json.loads(done.stdout)
    assert done.returncode == 0
    assert rows["port"] == {"value": 99, "from": "HOLDFAST_PORT"} and rows["tick_s"]["from"] == "default"


def test_nobody_there_is_5_and_says_what_to_do(tmp_path: Path) -> None:
    done = offline("session", "list", "--url", "http://127.0.0.1:9", home=tmp_path, HOLDFAST_TOKEN="x")
    assert done.returncode == 5 and "holdfast up" in done.stderr and done.stdout == ""
    assert "nobody answers at http://127.0.0.1:9 (Connection refused)" in done.stderr


def test_no_token_is_1_and_says_where_one_is(tmp_path: Path) -> None:
    done = offline("session", "list", "--url", "http://127.0.0.1:9", home=tmp_path)
    assert done.returncode == 1 and "--token-file" in done.stderr
    done = offline("session", "list", "--token-file", "not-there", home=tmp_path)
    assert done.returncode == 1 and done.stderr.count("not-there") == 1


@pytest.mark.parametrize("argv", [("session", "list"), ("run", "--", "true"), ("session", "tail", "s")])
def test_where_no_up_ever_was_it_is_5_and_says_so(argv: tuple[str, ...], tmp_path: Path) -> None:
    done = offline(*argv, home=tmp_path)
    assert done.returncode == 5 and "nothing is running: start it with `holdfast up`" in done.stderr


@pytest.mark.parametrize("url", ["ftp://x", "foo", "http://", "http://x:port", "http://[::1"])
def test_what_is_no_url_is_a_usage_error(url: str, tmp_path: Path) -> None:
    for done in (
        offline("session", "list", "--url", url, home=tmp_path, HOLDFAST_TOKEN="x"),
        offline("doctor", home=tmp_path, HOLDFAST_URL=url),
    ):
        assert done.returncode == 2 and "is not a URL" in done.stderr and "Traceback" not in done.stderr


def test_up_looks_at_its_paths_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for where in ("file", "file/below"):
        done = offline("up", "--data-dir", str(tmp_path / where), "--port", "0", home=tmp_path)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    data = tmp_path / "data"
    done = offline("up", "--data-dir", str(data), "--ready-file", str(tmp_path / "no/where"), home=tmp_path)
    assert done.returncode == 2 and "there is no directory" in done.stderr and not data.exists()


@pytest.mark.parametrize("command", ["up", "demo"])
def test_without_the_server_extra_one_line_says_what_to_install(command: str, tmp_path: Path) -> None:
    script = (
        "import importlib.util as u, sys; find = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'ray' else find(name, *more)\n"
        f"from actors.cli import main; main([{command!r}])"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=env, text=True, capture_output=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "needs the server extra: pip install '.[server]'" in done.stderr


def test_a_label_is_written_either_way(tmp_path: Path) -> None:
    from actors.cli_base import LABEL

    assert [LABEL.convert(text, None, None) for text in ("team=a", "team:a", "k=v:w", "k:v=w", "k=")] == [
        ("team", "a"),
        ("team", "a"),
        ("k", "v:w"),
        ("k", "v=w"),
        ("k", ""),
    ]
    assert offline("session", "list", "--label", "team", home=tmp_path).returncode == 2


async def test_a_stream_that_never_was_there_is_given_up_and_says_what_it_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from actors import http_client, operate

    monkeypatch.setattr(http_client, "FIRST_S", 0.3)
    async with http_client.Client("http://127.0.0.1:9", "x") as client:
        with pytest.raises(http_client.Problem) as raised:
            await operate.tail(
                client, "s", after_seq=0, types=None, execution_id=None, until_caught_up=False, as_json=False
            )
    assert raised.value.exit_code == 5
    assert capsys.readouterr().err.count("cannot reach http://127.0.0.1:9") == 1


def test_a_connection_that_goes_and_comes_is_told_at_a_bounded_rate() -> None:
    from actors.http_client import SAY_EVERY_S, _Line

    said: list[str] = []
    line = _Line("U", said.append)
    line.found()
    for now in (0.0, 1.0, 2.0, SAY_EVERY_S):
        line.lost("gone", now)
    line.found()
    line.found()
    assert [words.partition(": ")[2].split(" U")[0] for words in said] == [
        "lost the connection to",
        "cannot reach",
        "connected to",
    ]


def test_events_of_a_tail_are_data(capsys: pytest.CaptureFixture[str]) -> None:
    from actors import show

    row = {"seq": 1, "type": "execution.started", "execution_id": "e", "data": {"pid": 7}}
    show.event(row, False)
    show.event(row, False, lines_are_data=False)
    out, err = capsys.readouterr()
    assert out == err == "· 1 execution.started e pid=7\n"


@pytest.mark.ray
def test_sessions_by_hand(holdfast: Up) -> None:
    made = holdfast.cli("session", "create", "by-hand", "--title", "T", "--label", "team=a", "--json")
    assert made.returncode == 0 and json.loads(made.stdout)["labels"] == {"team": "a"}
    assert holdfast.cli("session", "create", "by-hand").returncode == 4
    assert holdfast.cli("session", "show", "nobody").returncode == 3
    sent = holdfast.cli("session", "send", "by-hand", "hello", "--execution-id", "e1", "--json")
    assert sent.returncode == 0 and json.loads(sent.stdout)["status"] == "pending"
    assert json.loads(holdfast.cli("session", "submit", "by-hand", "hello", "--execution-id", "e1", "--json").stdout)[
        "execution_id"
    ] == ("e1")
    listed = json.loads(holdfast.cli("session", "list", "--label", "team:a", "--json").stdout)["items"]
    assert [s["session_id"] for s in listed] == ["by-hand"]
    assert holdfast.cli("session", "interrupt", "by-hand", "--reason", "enough").returncode == 0
    shown = json.loads(holdfast.cli("execution", "show", "by-hand", "e1", "--json").stdout)
    assert shown["status"] == "interrupted"
    assert holdfast.cli("session", "interrupt", "by-hand").returncode == 4
    assert holdfast.cli("session", "fail", "by-hand").returncode == 4
    failed = json.loads(holdfast.cli("session", "fail", "by-hand", "e1", "--json").stdout)
    assert failed["changed"] is False and failed["execution"]["status"] == "interrupted"
    assert "interrupted" in holdfast.cli("execution", "list", "by-hand").stdout
    assert json.loads(holdfast.cli("approval", "list", "by-hand", "--json").stdout) == {"items": []}
    assert holdfast.cli("approval", "resolve", "by-hand", "apr_x", "allow").returncode == 3
    rows = holdfast.cli("session", "tail", "by-hand", "--after", "0", "--until-caught-up", "--json").stdout.splitlines()
    assert [json.loads(row)["seq"] for row in rows] == list(range(1, len(rows) + 1)) and len(rows) >= 2
    assert holdfast.cli("session", "delete", "by-hand").returncode == 0
    assert holdfast.cli("session", "delete", "by-hand").returncode == 0
    assert holdfast.cli("session", "show", "by-hand").returncode == 3


@pytest.mark.ray
def test_run_shows_the_output_and_exits_with_the_commands_code(holdfast: Up) -> None:
    done = holdfast.cli("run", "--session", "ran", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert "err\n" in done.stderr
    assert holdfast.cli("run", "--", "sh", "-c", "kill -9 $$").returncode == 137
    again = holdfast.cli("run", "--session", "ran", "--json", "--", "echo", "twice")
    lines = [json.loads(line) for line in again.stdout.splitlines()]
    missing = holdfast.cli("run", "--", "nonexistent-cmd")
    assert missing.returncode == 127
    assert "holdfast: cannot run nonexistent-cmd: No such file or directory\n" in missing.stderr
    assert again.returncode == 0 and lines[0] == {"stream": "stdout", "text": "twice\n"}
    assert lines[-1]["status"] == "completed" and lines[-1]["acked"] is True
    assert list((holdfast.folder / ".local/state/holdfast/run").iterdir()) == [], "acknowledged spools are removed"


@pytest.mark.ray
def test_much_output_is_kept_small_and_told_word_for_word(holdfast: Up) -> None:
    ran = holdfast.cli("run", "--session", "long", "--", "seq", "30000")
    tail = holdfast.cli("session", "tail", "long", "--after", "0", "--until-caught-up", "--json")
    told = [json.loads(line) for line in tail.stdout.splitlines()]
    said = "".join(event["data"]["text"] for event in told if event["type"] == "output")
    assert said == ran.stdout == "".join(f"{n}\n" for n in range(1, 30_001))
    with sqlite3.connect(f"file:{holdfast.data_dir}/holdfast.db?mode=ro", uri=True) as db:
        kept = db.execute("select sum(length(cast(data as blob))) from events where session_id = 'long'").fetchone()[0]
    db.close()
    assert kept < len(said) / 2


@pytest.mark.ray
def test_run_refuses_a_session_whose_wrapper_is_connected(holdfast: Up) -> None:
    env = holdfast.env | {"HOLDFAST_DATA_DIR": str(holdfast.data_dir), "HOME": str(holdfast.folder)}
    command = [sys.executable, "-P", "-m", "actors", "run", "--session", "taken", "--", "sh", "-c", "echo on; sleep 30"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as first:
        assert first.stdout is not None and first.stdout.readline() == b"on\n"
        refused = holdfast.cli("run", "--session", "taken", "--", "true")
        assert refused.returncode == 4 and "--takeover" in refused.stderr
        first.send_signal(2)
        assert first.wait(30) == 130
    gone = holdfast.cli("session", "tail", "nosuch")
    assert gone.returncode == 3 and "holdfast session list" in gone.stderr
    assert json.loads(holdfast.cli("session", "show", "taken", "--json").stdout)["active_execution"] is None


@pytest.mark.ray
def test_what_comes_next_is_said_beside_the_data(holdfast: Up) -> None:
    made = holdfast.cli("node", "enrol", "robot-7")
    assert made.returncode == 0 and len(made.stdout.split()) == 1
    assert "within 10 min" in made.stderr and f"node join robot-7 --url {holdfast.url}" in made.stderr
    quiet = holdfast.cli("node", "enrol", "robot-7", "--json")
    assert set(json.loads(quiet.stdout)) >= {"code", "expires_at_ms"} and quiet.stderr == ""
    made = holdfast.cli("token", "create", "node", "--node", "robot-7")
    assert made.returncode == 0 and made.stdout.startswith("hft_")
    assert made.stderr.startswith("holdfast: scope node, for robot-7 only; shown this once.")


@pytest.mark.ray
def test_doctor_finds_everything_well(holdfast: Up) -> None:
    done = holdfast.cli("doctor", "--json")
    assert done.returncode == 0, done.stdout
    assert all(finding["ok"] for finding in json.loads(done.stdout)["findings"])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_its_completion(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "actors", "completion", shell],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0 and "_HOLDFAST_COMPLETE" in done.stdout


@pytest.mark.ray
def test_top_shows_the_fleet_once_into_a_pipe(holdfast: Up) -> None:
    assert holdfast.ask("/v1/sessions", "POST", {"session_id": "in-top", "title": "look"})[0] == 201
    shown = holdfast.cli("top")
    assert shown.returncode == 0 and "in-top" in shown.stdout and "idle" in shown.stdout
    assert "\x1b" not in shown.stdout
