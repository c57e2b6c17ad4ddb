"""Real processes, and secrets with names: none of them stands in a log, on a command line, or in a URL that is kept.

Also what can only be seen from outside: that `up` refuses a host beyond loopback, and the token commands.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from actors.up import short_dir_of
from tests.conftest import eventually
from tests.e2e.service import ROOT, Service, alive

# What may hold secrets and payloads: the store is for them, the token file is the token, spools are the agent's output.
MAY_HOLD = ("holdfast.db", "holdfast.db-wal", "holdfast.db-shm")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    made = Service(
        tmp_path_factory.mktemp("canary"),
        heartbeat_s=1,
        server_ping_s=2,
        server_pong_s=2,
        log_level="debug",
        webhook_allow="127.0.0.1",
    ).start()
    yield made
    made.end()


def files_below(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and path.name not in MAY_HOLD:
                yield path


def found_in(secrets: dict[str, str], paths: Iterator[Path], but: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """Where a secret stands; `but`: parts of paths in which it may."""
    found = []
    for path in paths:
        if any(part in str(path) for part in but):
            continue
        try:
            text = path.read_bytes()
        except OSError:  # a log that was rotated away meanwhile
            continue
        found += [(name, str(path)) for name, secret in secrets.items() if secret.encode() in text]
    return found


def command_lines() -> dict[int, bytes]:
    lines = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                lines[int(entry)] = Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:
                continue
    return lines


def raw(service: Service, *lines: str) -> None:
    where = urlsplit(service.url)
    with socket.create_connection((where.hostname, where.port), 5) as line:
        line.sendall("\r\n".join([*lines, "", ""]).encode())
        line.recv(4096)


@pytest.mark.ray
def test_canaries_appear_in_no_log_no_argv_and_no_kept_url(service: Service) -> None:
    canary = {
        name: f"CANARY-{name}-7f3a9c"
        for name in (
            "callback-secret",
            "callback-header",
            "callback-url",
            "input",
            "more-input",
            "title",
            "label",
            "reason",
            "error",
            "note",
            "key",
            "bad-token",
            "bad-header",
            "bad-line",
            "bad-body",
            "output",
        )
    }
    sid = "canaries"
    status, made = service.http("POST", "/v1/tokens", {"scope": "operator", "session_id": sid})
    assert status == 201
    secrets = canary | {"token": made["token"], "admin": service.token}
    callback = {
        "url": f"http://127.0.0.1:9/{canary['callback-url']}",
        "headers": {"X-Secret": canary["callback-header"]},
        "secret": canary["callback-secret"],
    }
    service.create(sid, title=canary["title"], labels={"l": canary["label"]}, callback=callback)
    service.wrapper(sid, ["bash", "-c", f"echo {canary['output']}-$((1+1)); cat; sleep 300"])
    service.connected(sid)
    key = {"Idempotency-Key": canary["key"]}
    body = {"execution_id": "e", "input": canary["input"]}
    assert service.http("POST", f"/v1/sessions/{sid}/executions", body, headers=key)[0] == 202
    service.wait(sid, "e", ["running"])
    service.patient("POST", f"/v1/sessions/{sid}/executions/e/input", {"input": canary["more-input"]})

    # tickets in URLs: one that opens a stream, one that is refused
    for n in range(2):
        status, told = service.http("POST", "/v1/tickets", {"session_id": sid}, token=made["token"])
        assert status == 201
        secrets[f"ticket-{n}"] = told["ticket"]
    url = f"{service.url}/v1/sessions/{sid}/stream?after_seq=0&ticket={secrets['ticket-0']}"
    with urllib.request.urlopen(url, timeout=10) as stream:
        assert stream.readline().startswith(b"retry")
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{service.url}/v1/me?ticket={secrets['ticket-1']}", timeout=10)

    # whatever makes somebody write down what he read
    assert service.http("GET", "/v1/me", token=canary["bad-token"])[0] == 401
    assert service.http("POST", "/v1/sessions", canary["bad-body"].encode())[0] == 400
    raw(service, "GET /v1/me HTTP/1.1", "Host: x", f"Authorization : Bearer {canary['bad-header']}")
    raw(service, canary["bad-line"])
    argv_secrets = {name: secret for name, secret in secrets.items() if name != "output"}  # the agent's own command
    while_running = command_lines()

    service.kill_gateway()
    service.connected(sid)
    service.patient("POST", f"/v1/sessions/{sid}/interrupt", {"reason": canary["reason"]}, headers=key | {"X": "1"})
    service.patient("POST", f"/v1/sessions/{sid}/executions/e/fail", {"error": canary["error"]})
    assert service.run("token", "list", "--json").returncode == 0
    delivery = eventually(  # tried, so that there is something about it to be logged
        lambda: [w for w in service.patient("GET", f"/v1/webhooks?session_id={sid}")["items"] if w["attempts"]], 30
    )
    told = json.dumps([delivery, service.patient("GET", "/v1/audit")])
    assert [name for name, secret in secrets.items() if secret in told] == ["callback-url"]  # a path is shown
    asked = urllib.request.Request(f"{service.url}/metrics", headers={"Authorization": f"Bearer {service.token}"})
    with urllib.request.urlopen(asked, timeout=10) as page:
        text = page.read().decode()
    assert "holdfast_sessions" in text and "canar" not in text.lower()

    secrets["ray"] = argv_secrets["ray"] = (service.data / "ray-token").read_text().strip()
    ray_dir = short_dir_of(service.data)
    assert any(path.suffix == ".err" for path in files_below(ray_dir)), "there are logs to look at"
    logs = [*files_below(service.data, ray_dir), service.log]
    assert any(b"token.created" in path.read_bytes() for path in logs if path.suffix == ".err"), "and they are ours"
    # the admin token and Ray's stand in their own files
    assert found_in(secrets, iter(logs), but=(f"{service.data}/token", f"{service.data}/ray-token")) == []
    for pid, line in (while_running | command_lines()).items():
        for name, secret in argv_secrets.items():
            assert secret.encode() not in line, (name, pid, line[:200])
    wrapper_log = [path for path in files_below(service.folder) if path.name.startswith("wrapper-spool")]
    assert wrapper_log and found_in({k: v for k, v in secrets.items() if k != "output"}, iter(wrapper_log)) == []
    answer = service.patient("GET", f"/v1/sessions/{sid}")
    assert canary["callback-secret"] not in json.dumps(answer) and canary["callback-header"] not in json.dumps(answer)


@pytest.mark.ray
def test_tokens_by_command_line(service: Service) -> None:
    service.create("mine")
    service.create("yours")
    done = service.run("token", "create", "reader", "--session", "mine", "--expires-in", "3600")
    secret = done.stdout.strip()
    assert done.returncode == 0 and secret.startswith("hft_") and secret not in done.stderr
    assert service.http("GET", "/v1/sessions/mine", token=secret)[0] == 200
    assert service.http("GET", "/v1/sessions/yours", token=secret)[0] == 404
    listed = service.run("token", "list", "--json")
    (row,) = [t for t in json.loads(listed.stdout)["items"] if t["session_id"] == "mine"]
    assert secret not in listed.stdout and row["scope"] == "reader"
    shown = service.run("token", "list")
    assert "until" in shown.stdout and row["token_id"] in shown.stdout and secret not in shown.stdout
    assert service.run("token", "revoke", row["token_id"]).returncode == 0
    eventually(lambda: service.http("GET", "/v1/me", token=secret)[0] == 401, 5)
    assert service.run("token", "revoke", "tok_nobody").returncode == 3
    assert service.run("token", "create", "admin", "--session", "mine").returncode == 2
    made = service.run("token", "create", "wrapper", "--json")
    assert json.loads(made.stdout)["scope"] == "wrapper"
    env = {"HOLDFAST_TOKEN": json.loads(made.stdout)["token"]}
    refused = subprocess.run(
        [sys.executable, "-m", "actors", "token", "list", "--url", service.url],
        env=service.env | env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 1 and "scope" in refused.stderr
    assert alive(service.gateway_pid())


@pytest.mark.ray
def test_ray_asks_for_its_own_token_and_listens_on_loopback(service: Service) -> None:
    environ = Path(f"/proc/{service.gateway_pid()}/environ").read_bytes().split(b"\0")
    assert b"RAY_AUTH_MODE=token" in environ
    assert not [pair for pair in environ if service.token.encode() in pair]
    secret_files = [service.data / "token", service.data / "ray-token"]
    assert [path.stat().st_mode & 0o777 for path in secret_files] == [0o600] * 2
    assert service.data.stat().st_mode & 0o777 == 0o700


# ---------------------------------------------------------------- the address


def holdfast(folder: Path, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    return subprocess.run(
        [sys.executable, "-m", "actors", *argv],
        env=clean | {"PYTHONPATH": str(ROOT), "HOME": str(folder)} | env,
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "::",
        "10.1.2.3",
        "example.org",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "0",
        "::ffff:10.0.0.1",
    ],
)
def test_a_host_beyond_loopback_is_refused_with_exit_code_2(tmp_path: Path, host: str) -> None:
    done = holdfast(tmp_path, "up", "--host", host, "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 2 and "loopback" in done.stderr and "--insecure" in done.stderr
    assert not (tmp_path / "data").exists(), "and nothing was begun"


def test_it_is_allowed_when_told_and_loopback_always(tmp_path: Path) -> None:
    show = ("config", "show", "--json", "--data-dir", str(tmp_path))
    told = holdfast(tmp_path, *show, HOLDFAST_HOST="0.0.0.0", HOLDFAST_INSECURE="1")
    assert told.returncode == 0 and json.loads(told.stdout)["host"]["value"] == "0.0.0.0"
    assert holdfast(tmp_path, *show, HOLDFAST_HOST="0.0.0.0").returncode == 2
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        assert holdfast(tmp_path, *show, HOLDFAST_HOST=host).returncode == 0
