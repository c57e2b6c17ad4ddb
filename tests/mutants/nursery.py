"""A process in which everything is imported that no mutant touches; each run of a mutant's tests is a fork of it.

Started by runner.py only, as a script, in a copy of the tree: reads a line of JSON for each run, says the child's pid,
and then how it ended. Importing the libraries and the language anew for each mutant took longer than its tests.
It imports nothing of ours but `actors.protocol`, and no pytest plugin (pytest wants to import those itself).
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from contextlib import suppress
from pathlib import Path

LIBRARIES = (
    "pytest",
    "asyncio",
    "concurrent.futures.thread",
    "sqlite3",
    "pysqlite3.dbapi2",
    "sqlite_utils",
    "orjson",
    "pydantic",
    "pydantic_settings",
    "pydantic_settings.sources",
    "aiohttp",
    "aiohttp.web",
    "aiohttp.test_utils",
    "click",
    "prometheus_client",
)
UNTOUCHED = "actors/protocol"  # of the copy; for a mutant in there the runner begins with another nursery


def main() -> None:
    here = Path.cwd()
    sys.path.insert(0, str(here))
    for name in LIBRARIES:
        with suppress(ImportError):  # one that is not there is not needed, or its test will say so
            importlib.import_module(name)
    for file in sorted((here / UNTOUCHED).glob("*.py")):
        importlib.import_module(f"actors.protocol.{file.stem}".removesuffix(".__init__"))
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        asked = json.loads(line)
        if (pid := os.fork()) == 0:
            _live(asked["arguments"], asked["env"], asked["output"])
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _live(arguments: list[str], env: dict[str, str], output: str) -> None:
    """The child: a session of its own, so that whatever it starts can be ended with it."""
    code = 70
    try:
        os.setsid()
        said = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for there, here in ((nothing, 0), (said, 1), (said, 2)):
            os.dup2(there, here)
        os.environ.clear()
        os.environ.update(env)
        sys.argv = ["pytest", *arguments]
        import pytest

        code = int(pytest.main(arguments))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)  # never back into the loop of the nursery


if __name__ == "__main__":
    main()
