"""What the wrapper stands on: clocks, randomness, its spool, its sockets, and the directories of its shims.

Each is a port with one real implementation, so that the same wrapper runs under a clock that walks when it is told to.
Nothing here decides anything.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from actors.protocol.ids import Mint, ulid
from wrapper import segments
from wrapper.connection import Dialer, ingest_url
from wrapper.drivers import driver
from wrapper.drivers.base import Driver
from wrapper.segments import Piece, Position
from wrapper.shimctl import Shim, Spec
from wrapper.spool import Spool


class Shims(Protocol):
    """The shims of one machine, each known by its directory. `start` may take a while; the others may not."""

    def names(self, runs: str) -> list[str]: ...
    def adopt(self, run_dir: str) -> Shim | None: ...
    def start(self, run_dir: str, spec: Spec, env: Mapping[str, str]) -> Shim: ...
    def opened(self, run_dir: str) -> bool: ...
    def read(self, run_dir: str, at: Position, limit: int) -> tuple[list[Piece], Position]: ...
    def forget(self, run_dir: str, before: int, named_from: int) -> None: ...
    def clear(self, run_dir: str) -> None: ...


class OnDisk:
    def names(self, runs: str) -> list[str]:
        return sorted(os.listdir(runs))

    def adopt(self, run_dir: str) -> Shim | None:
        return Shim.adopt(run_dir)

    def start(self, run_dir: str, spec: Spec, env: Mapping[str, str]) -> Shim:
        shutil.rmtree(run_dir, ignore_errors=True)
        return Shim.start(run_dir, spec, env)

    def opened(self, run_dir: str) -> bool:
        return os.path.exists(os.path.join(run_dir, "opened"))

    def read(self, run_dir: str, at: Position, limit: int) -> tuple[list[Piece], Position]:
        return segments.read(run_dir, at, limit)

    def forget(self, run_dir: str, before: int, named_from: int) -> None:
        segments.forget(run_dir, before, named_from)

    def clear(self, run_dir: str) -> None:
        shutil.rmtree(run_dir, ignore_errors=True)


def wall_ms() -> int:
    return int(time.time() * 1000)


def _dialer(url: str, session_id: str) -> Dialer:
    return Dialer(ingest_url(url, session_id))


@dataclass(frozen=True)
class Ports:
    clock: Callable[[], float] = time.monotonic
    wall_ms: Callable[[], int] = wall_ms
    uniform: Callable[[float, float], float] = random.uniform
    mint: Mint = ulid
    spool: Callable[..., Spool] = Spool
    dialer: Callable[[str, str], Dialer] = _dialer
    driver: Callable[[str], Driver] = driver
    shims: Shims = field(default_factory=OnDisk)
