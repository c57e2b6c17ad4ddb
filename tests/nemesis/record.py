"""Writes histories: one file per client, a line at a time, on the monotonic clock that a host's processes share."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


class Recorder:
    def __init__(self, folder: Path, who: str) -> None:
        self.who, self.path = who, folder / f"{who}.jsonl"
        self._file = self.path.open("a", buffering=1, encoding="utf-8")

    def say(self, what: str, **fields: Any) -> None:
        line = {"who": self.who, "at": round(time.monotonic(), 6), "what": what, **fields}
        self._file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")

    def close(self) -> None:
        self._file.close()
