"""For `holdfast run`: one execution under a wrapper inside the caller's own event loop.

Takes only the `start` of the given execution, mirrors its output, ends it by the ladder on Ctrl-C, SIGTERM or SIGHUP
(a foreground command's agent does not outlive it; under nohup a SIGHUP stays ignored), and waits a limited time for
the final's acknowledgement. Whatever is not acknowledged by then stays in the spool.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from actors.protocol.defaults import FINAL_WAIT_S
from wrapper.app import Ended, Settings, Wrapper
from wrapper.process import settle
from wrapper.telemetry import Emit, silent

WAITING_S: Final = 1.0  # an acknowledgement takes milliseconds; after this somebody wonders


@dataclass(frozen=True)
class RunResult:
    """``status`` None: it has not ended (or never began). ``signal`` is a name, as on the wire."""

    status: str | None
    exit_code: int | None
    signal: str | None
    error: str | None
    acked: bool
    started: bool
    why: str  # once, stopped, detached, interrupted, not_acked
    close_code: int | None
    reason: str
    cause: str | None = None  # why it never ran, or what failed in its stead
    stopped_by: int | None = None  # the first signal that told us to end it


async def run_once(
    *,
    url: str,
    session_id: str,
    token: str,
    argv: Sequence[str],
    spool_dir: str,
    execution_id: str,
    on_output: Callable[[str, bytes], None],
    final_wait_s: float = FINAL_WAIT_S,
    events: str = "plain",
    keep_stdin: bool | None = None,
    emit: Emit = silent,
    on_signal: Callable[[int, int, bool], None] = lambda number, count, running: None,
    on_waiting: Callable[[float], None] = lambda seconds: None,
) -> RunResult:
    """``on_signal``: which one, the how manieth, and whether there is something to end. ``on_waiting``: the final is
    written and not acknowledged yet. Raises SpoolError (SpoolLocked: another wrapper uses ``spool_dir``)."""
    settings = Settings(
        url=url,
        session_id=session_id,
        argv=tuple(argv),
        spool_dir=spool_dir,
        token=lambda: token,
        once=True,
        events=events,
        keep_stdin=keep_stdin,
        only_execution=execution_id,
        on_output=on_output,
    )
    settle()
    wrapper = Wrapper(settings, emit)
    loop = asyncio.get_running_loop()
    handled = threading.current_thread() is threading.main_thread()
    came: list[int] = []

    def end_it(number: int) -> None:
        if came and number == signal.SIGHUP:
            return  # a terminal that closes says it more than once
        came.append(number)
        running = wrapper.runner.current is not None
        wrapper.interrupt()
        on_signal(number, len(came), running)

    numbers = [signal.SIGINT, signal.SIGTERM] if handled else []
    if handled and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, end_it, number)
    patience = asyncio.create_task(_patience(wrapper, final_wait_s, on_waiting))
    try:
        ended = await wrapper.run()
    finally:
        patience.cancel()
        for number in numbers:
            loop.remove_signal_handler(number)
    final: dict[str, Any] = wrapper.final or {}
    return RunResult(
        status=final.get("status"),
        exit_code=final.get("exit_code"),
        signal=final.get("signal"),
        error=final.get("error"),
        acked=wrapper.final is not None and wrapper.final_acked,
        started=wrapper.started.is_set(),
        why=ended.why,
        close_code=ended.close_code,
        reason=ended.reason,
        cause=(final.get("data") or {}).get("cause"),
        stopped_by=came[0] if came else None,
    )


async def _patience(wrapper: Wrapper, final_wait_s: float, on_waiting: Callable[[float], None]) -> None:
    await wrapper.final_spooled.wait()
    first = min(WAITING_S, final_wait_s)
    await asyncio.sleep(first)
    if final_wait_s > first:
        on_waiting(final_wait_s - first)
    await asyncio.sleep(final_wait_s - first)
    wrapper.end(Ended("not_acked", reason="the final was not acknowledged in time; the spool keeps it"))
