"""A wrapper that kills itself with SIGKILL at its Nth spool call: `crashing.py N before|after URL SPOOL ARGV…`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from wrapper.app import Settings, Wrapper


class Crashing(Wrapper):
    def __init__(self, settings: Settings, at: int, after: bool) -> None:
        self.left, self.after = at, after
        super().__init__(settings)

    async def once_call(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.left -= 1
        if self.left == 0 and not self.after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = await super().once_call(fn, *args, **kwargs)
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


def main() -> None:
    at, when, url, spool_dir, *argv = sys.argv[1:]
    settings = Settings(url=url, session_id="ses_1", argv=tuple(argv), spool_dir=spool_dir, once=True)

    async def run() -> None:
        await Crashing(settings, int(at), when == "after").run()

    asyncio.run(run())


if __name__ == "__main__":
    main()
