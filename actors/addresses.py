"""Where the service is and where its token lies, for clients. Imports nothing heavy: it is asked before aiohttp is."""

from __future__ import annotations

import json
from pathlib import Path

from actors.protocol.defaults import PORT

DEFAULT_DATA_DIR = "~/.local/share/holdfast"


def find_url(url: str | None, data_dir: str | None) -> str:
    """Given, or what `up` on the data directory last announced, or the default door."""
    if url:
        return url.rstrip("/")
    ready = Path(data_dir or DEFAULT_DATA_DIR).expanduser() / "ready.json"
    try:
        return str(json.loads(ready.read_text())["url"])
    except (OSError, ValueError, KeyError):
        return f"http://127.0.0.1:{PORT}"


def token_path(token_file: str | None, data_dir: str | None) -> Path:
    return Path(token_file) if token_file else Path(data_dir or DEFAULT_DATA_DIR).expanduser() / "token"
