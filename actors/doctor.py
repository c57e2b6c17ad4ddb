"""`holdfast doctor`: what is installed and what is reachable, one line each, and what to do about what is not."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from actors import show
from actors.addresses import DEFAULT_DATA_DIR, find_url
from actors.http_client import Client, Problem, find_token
from actors.protocol.codes import EXIT_FAILURE, EXIT_OK, EXIT_UNAVAILABLE

SQLITE_MINIMUM = (3, 51, 3)  # older ones have the WAL-reset corruption bug


class Finding(NamedTuple):
    what: str
    ok: bool
    told: str
    local: bool = True  # false: about the running service, not about this machine


def examine(url: str | None, token: str | None, token_file: str | None, data_dir: str | None, as_json: bool) -> int:
    findings = [*_installed(), *_data(Path(data_dir or DEFAULT_DATA_DIR).expanduser())]
    findings += asyncio.run(_reachable(url, token, token_file, data_dir))
    rows = [(finding.what, "ok" if finding.ok else "PROBLEM", finding.told) for finding in findings]
    human = show.table(rows, ("WHAT", "", "FOUND"))
    show.data({"findings": [{"what": f.what, "ok": f.ok, "found": f.told} for f in findings]}, as_json, human)
    if any(not finding.ok and finding.local for finding in findings):
        return EXIT_FAILURE
    return EXIT_OK if all(finding.ok for finding in findings) else EXIT_UNAVAILABLE


def _installed() -> Iterator[Finding]:
    yield Finding("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for package, wanted in (("ray", "2.60."), ("aiohttp", ""), ("sqlite-utils", ""), ("orjson", ""), ("uvloop", "")):
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(
                package, package == "uvloop", "not installed: pip install '.[server]', in the clone of Holdfast"
            )
            continue
        fits = version.startswith(wanted)
        yield Finding(package, fits, version if fits else f"{version}, but {wanted}x was measured and is needed")
    try:
        from pysqlite3 import dbapi2 as sqlite
    except ImportError:
        import sqlite3 as sqlite
    version = sqlite.sqlite_version
    fits = tuple(int(part) for part in version.split(".")) >= SQLITE_MINIMUM
    yield Finding("sqlite", fits, version if fits else f"{version} can corrupt a shared WAL: pip install pysqlite3")


def _data(data_dir: Path) -> Iterator[Finding]:
    if not data_dir.exists():
        yield Finding("data directory", True, f"{data_dir} (not there yet; `holdfast up` makes it)")
        return
    writable = os.access(data_dir, os.W_OK | os.X_OK)
    free = os.statvfs(data_dir)
    free_mb = free.f_bavail * free.f_frsize >> 20
    told = f"{data_dir}, {free_mb} MiB free" if writable else f"{data_dir} is not writable"
    yield Finding("data directory", writable and free_mb > 100, told)
    token = data_dir / "token"
    if token.exists():
        mode = stat.S_IMODE(token.stat().st_mode)
        yield Finding("token file", mode & 0o077 == 0, f"{token}, mode {mode:04o}")


async def _reachable(
    asked_url: str | None, token: str | None, token_file: str | None, data_dir: str | None
) -> list[Finding]:
    found: list[Finding] = []
    url = find_url(asked_url, data_dir)
    try:
        async with Client(url, find_token(token, token_file, data_dir, asked_url), patience_s=0.5) as client:
            for what, path in (
                ("gateway", "/healthz"),
                ("store and Ray", "/readyz"),
                ("token", "/v1/sessions?limit=1"),
            ):
                await client.get(path)
                found.append(Finding(what, True, url + path.partition("?")[0], local=False))
    except Problem as problem:
        what = "token" if problem.status == 401 else "service"
        found.append(Finding(what, False, f"{problem.detail}  {problem.hint}", local=False))
    return found
