"""A machine with a wrapper on it: its spool (real statements, in memory), its shims and agents (modelled), its process.

The shim model keeps the rules that wrapper/shim.py states at its top: the gate opens once, `opened` is on the disk
before the agent is exec'd, the wrapper's death before `open` shuts it, it outlives its wrapper, an agent that nobody
asks for is ended after `orphan_after_s`. The agent is a script drawn from the seed; how often it was exec'd is counted
over all machines, because that is what G13 is about.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from tests.simulation.kernel import US, Process
from wrapper import spoolfile
from wrapper.segments import Piece, Position
from wrapper.shimctl import Exit, Facts, Spec
from wrapper.spool import Spool

if TYPE_CHECKING:
    from tests.simulation.world import World

ORPHAN_AFTER_S = 25.0
PIECE_BYTES = 40  # of a segment's offset: any number that grows
ROOMY = (1 << 40, 1 << 39)

_spool_template: sqlite3.Connection | None = None


def _blank_spool() -> sqlite3.Connection:
    global _spool_template
    if _spool_template is None:
        _spool_template = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        for statement in spoolfile.SCHEMA.strip().split(";\n"):
            _spool_template.execute(statement)
        _spool_template.execute(f"PRAGMA user_version = {spoolfile.SCHEMA_VERSION}")
    return _spool_template


class SimSpool(Spool):
    """The real spool over a database of the host, which outlives it."""

    def __init__(self, host: Host, session_id: str, limit_bytes: int, policy: Any) -> None:
        self.host = host
        self.dir, self.limit_bytes, self.policy = host.name, limit_bytes, policy
        self.reserve_bytes = min(4096, limit_bytes // 4)
        self._db = host.database(session_id)
        self.bytes = self._one("SELECT coalesce(sum(bytes), 0) FROM records")[0]
        self.wrapper_id = self.meta("wrapper_id")
        self.unreadable = self.meta("unreadable") == "1"

    def close(self) -> None:
        return

    def _disk(self) -> tuple[int, int]:
        return (1 << 40, 0) if self.host.disk_full else ROOMY

    def _tidy(self) -> None:
        return  # an in-memory database has no pages to give back

    def _writing(self) -> Any:
        if self.host.disk_full and self.host.world.kernel.rng.random() < 0.5:
            raise spoolfile.SpoolFull("no room")
        return super()._writing()


class Host:
    """One machine: what on it outlives the wrapper's process."""

    def __init__(self, world: World, name: str, session_id: str) -> None:
        self.world, self.name, self.session_id = world, name, session_id
        self.db: sqlite3.Connection | None = None
        self.copy: sqlite3.Connection | None = None
        self.shims: dict[str, ShimProcess] = {}
        self.process: Process | None = None
        self.wrapper: Any = None
        self.born = 0
        self.disk_full = False
        self.wall_offset_us = 0
        self.wanted = True  # somebody starts it again when it falls
        self.ended: Any = None  # how the last wrapper ended by itself

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + (self.world.kernel.now + self.wall_offset_us) // 1000

    # ------------------------------------------------------------ the spool's file

    def database(self, session_id: str) -> sqlite3.Connection:
        if self.db is None:
            self.db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=256)
            _blank_spool().backup(self.db)
            rows = [("wrapper_id", f"w_{self.world.kernel.mint()}"), ("session_id", session_id), ("unreadable", "0")]
            self.db.executemany("INSERT INTO meta VALUES (?, ?)", rows)
        return self.db

    def take_copy(self) -> None:
        if self.db is not None:
            self.copy = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            self.db.backup(self.copy)

    def go_back(self) -> None:
        """The spool is restored from its backup; the shims' directories are as they are."""
        assert self.copy is not None
        self.db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=256)
        self.copy.backup(self.db)

    # ------------------------------------------------------------ Shims, as wrapper/ports.py has them

    def names(self, runs: str) -> list[str]:
        return sorted(self.shims)

    def adopt(self, run_dir: str) -> ShimHandle | None:
        shim = self.shims.get(PurePosixPath(run_dir).name)
        return None if shim is None else ShimHandle(self, shim)

    def start(self, run_dir: str, spec: Spec, env: Mapping[str, str]) -> ShimHandle:
        name = PurePosixPath(run_dir).name
        self.clear(run_dir)
        if self.world.kernel.rng.random() < self.world.odds.shim_start_fails:
            raise OSError("fork: no resources")
        shim = self.shims[name] = ShimProcess(self, name, env["HOLDFAST_EXECUTION_ID"], spec.orphan_after_s)
        shim.feed(0, spec.input)
        handle = ShimHandle(self, shim)
        shim.born()
        return handle

    def opened(self, run_dir: str) -> bool:
        shim = self.shims.get(PurePosixPath(run_dir).name)
        return shim is not None and shim.opened

    def read(self, run_dir: str, at: Position, limit: int) -> tuple[list[Piece], Position]:
        shim = self.shims.get(PurePosixPath(run_dir).name)
        if shim is None:
            return [], at
        begin = at.offset // PIECE_BYTES
        pieces = shim.pieces[begin : begin + 64]
        return list(pieces), Position(at.segment, at.offset + PIECE_BYTES * len(pieces))

    def forget(self, run_dir: str, before: int, named_from: int) -> None:
        return

    def clear(self, run_dir: str) -> None:
        shim = self.shims.pop(PurePosixPath(run_dir).name, None)
        if shim is not None:
            shim.abandoned()


class Wake:
    """The shim's bell, as a descriptor that a loop can watch."""

    def __init__(self, shim: ShimProcess) -> None:
        self.shim = shim
        self.process: Process | None = None

    def listen(self, process: Process) -> None:
        self.process = process
        if self.shim.rang or not self.shim.alive:
            self.ring()

    def ring(self) -> None:
        if self.process is not None:
            self.process.readable(self)


class ShimHandle:
    """wrapper.shimctl.Shim over the model."""

    def __init__(self, host: Host, shim: ShimProcess) -> None:
        self.shim, self.dir = shim, shim.name
        self.wake = Wake(shim)
        self.open_end = True
        shim.holders.append(self)
        process = host.process
        assert process is not None
        process.on_death.append(self._died)

    def _died(self) -> None:
        if self.open_end:
            self.close()

    def facts(self) -> Facts | None:
        return self.shim.facts

    def report(self) -> Exit | None:
        return self.shim.exit

    def opened(self) -> bool:
        return self.shim.opened

    def alive(self) -> bool:
        return self.shim.alive

    def tell(self, line: str) -> bool:
        self.shim.told(line)
        return True

    def give(self, offset: int, data: bytes) -> None:
        self.shim.feed(offset, data)
        self.tell(f"in {offset + len(data)}")

    def drain_wake(self) -> bool:
        self.shim.rang = False
        return self.shim.alive

    def kill(self, *, shim: bool, agent: bool) -> None:
        if agent:
            self.shim.agent_dies(None, 9)
        if shim:
            self.shim.dies()

    def close(self) -> None:
        if self.open_end:
            self.open_end = False
            self.shim.holders.remove(self)
            if not self.shim.holders:
                self.shim.hang_up()


class ShimProcess:
    """One shim and its agent. Control lines arrive after a moment, in order, also from a wrapper that died since."""

    def __init__(self, host: Host, name: str, execution_id: str, orphan_after_s: float) -> None:
        self.host, self.name, self.execution_id = host, name, execution_id
        self.world, self.kernel = host.world, host.world.kernel
        self.orphan_after_s = orphan_after_s
        self.holders: list[ShimHandle] = []
        self.facts: Facts | None = None
        self.exit: Exit | None = None
        self.alive, self.opening, self.opened, self.shut = True, False, False, False
        self.agent_runs = self.orphaned = self.signalled = False
        self.pieces: list[Piece] = []
        self.input = b""
        self.rang = False
        self.heard_at = self.kernel.now
        self.lines_at = 0
        self.script: Script | None = None
        self.gone = False  # its directory was taken away

    def _soon(self, us: int, fn: Callable[..., None], *args: Any) -> None:
        self.kernel.after(self.kernel.latency(us, 2 * US, 0.004), fn, *args)

    def ring(self) -> None:
        self.rang = True
        for holder in list(self.holders):
            holder.wake.ring()

    def born(self) -> None:
        self._soon(2000, self._introduce)

    def _introduce(self) -> None:
        if not self.alive:
            return
        number = self.world.next_pid()
        self.facts = Facts(number, 1, number + 1, 1, "boot")
        self.ring()
        if not self.holders:
            self.hang_up()
        self.kernel.after(int(self.orphan_after_s * US), self._look_for_wrapper)

    # ------------------------------------------------------------ control

    def told(self, line: str) -> None:
        if self.alive:
            at = max(self.kernel.now + self.kernel.latency(150, US // 2, 0.004), self.lines_at)
            self.lines_at = at
            self.kernel.at(at, self._listen, line)

    def _listen(self, line: str) -> None:
        if not self.alive:
            return
        self.heard_at = self.kernel.now
        verb, _, rest = line.partition(" ")
        if verb == "open" and not self.shut:
            self._open()
        elif verb == "shut" and not self.opening:
            self._gate_shuts()
        elif verb == "sig":
            self._signal(int(rest))
        elif verb == "end":
            self._end()
        elif verb == "in" and self.agent_runs and self.script is not None:
            self.script.hears(self.input[: int(rest)])

    def hang_up(self) -> None:
        """No wrapper holds our end any more; noticed after what was said before it."""
        at = max(self.kernel.now + 100, self.lines_at)
        self.kernel.at(at, self._hung_up)

    def _hung_up(self) -> None:
        if self.alive and not self.holders and not self.opening:
            self._gate_shuts()

    def _open(self) -> None:
        if self.opening:
            return
        self.opening = True
        self._soon(300, self._exec)

    def _exec(self) -> None:
        if not self.alive or self.shut:
            return
        self.opened = True  # on the disk; then the gate
        self.agent_runs = True
        self.script = Script(self)
        self.world.watchman.agent_runs(self.host, self.execution_id)
        self.script.begin()

    def _gate_shuts(self) -> None:
        self.shut = True
        self._report("gate_shut", None, None)

    def feed(self, offset: int, data: bytes) -> None:
        self.input = self.input[:offset].ljust(offset, b"\0") + data

    # ------------------------------------------------------------ the agent's life

    def says(self, line: bytes) -> None:
        if self.agent_runs and self.alive:
            self.pieces.append(Piece("stdout", self.host.wall_ms(), line))
            self.ring()

    def _signal(self, number: int) -> None:
        if self.exit is not None:
            return
        self.signalled = True
        if not self.opening:
            self._gate_shuts()
            return
        self.world.watchman.agent_signalled(self.host, self.execution_id, number)
        if self.script is not None:
            self.script.signalled(number)

    def agent_dies(self, code: int | None, signal: int | None) -> None:
        if not self.agent_runs:
            return
        self.agent_runs = False
        if self.alive:
            self._soon(500, self._report, "exit", code, signal)

    def _report(self, kind: str, code: int | None, signal: int | None) -> None:
        if not self.alive or self.exit is not None:
            return
        offset = PIECE_BYTES * len(self.pieces)
        self.exit = Exit(kind, code, signal, None, self.orphaned, 0, offset, self.host.wall_ms())
        self.alive = False
        self.ring()

    def dies(self) -> None:
        """kill -9 of the shim: a waiting child leaves unexec'd, a running one goes on alone until it is ended."""
        if self.alive:
            self.alive = False
            self.shut = not self.opened
            self.ring()

    def abandoned(self) -> None:
        """The directory is gone. Whoever still runs in it is nobody's any more."""
        self.gone = True
        if self.alive and not self.opening:
            self.shut = True
            self.alive = False

    def _look_for_wrapper(self) -> None:
        if not self.alive:
            return
        silent = self.kernel.now - self.heard_at
        if silent >= int(self.orphan_after_s * US):
            self._end()
        else:
            self.kernel.after(int(self.orphan_after_s * US) - silent, self._look_for_wrapper)

    def _end(self) -> None:
        if self.orphaned or self.exit is not None:
            return
        self.orphaned = True
        for after_s, number in ((0, 2), (1, 15), (2, 9)):
            self.kernel.after(int(after_s * US), self._signal, number)


class Script:
    """What the agent does: drawn from the seed and the execution, the same whenever and wherever it is exec'd."""

    def __init__(self, shim: ShimProcess) -> None:
        self.shim, self.kernel = shim, shim.kernel
        rng = self.rng = shim.world.rng_of(shim.execution_id)
        self.lines = rng.choice((0, 1, 4, 12, 40, 120))
        self.pause_us = int(rng.choice((2_000, 20_000, 80_000, 250_000, 900_000)))
        self.fat = rng.random() < 0.04  # bursts that a slow subscriber cannot take
        self.deaf_to = rng.choice(((), (), (2,), (2, 15)))
        self.exit_code = rng.choice((0, 0, 0, 1))
        self.asks_at = rng.randrange(self.lines) if self.lines and rng.random() < 0.3 else -1
        self.forever = rng.random() < 0.12
        self.waiting = False
        self.said = 0
        self.heard = 0

    def begin(self) -> None:
        self.kernel.after(int(self.rng.random() * 20_000), self._go)

    def _go(self) -> None:
        shim = self.shim
        if not shim.agent_runs or self.waiting:
            return
        if not shim.alive and self.rng.random() < 0.5:  # its pipes are broken
            shim.agent_runs = False
            return
        if self.kernel.calm or (self.said >= self.lines and not self.forever):
            shim.agent_dies(self.exit_code, None)
            return
        if self.said == self.asks_at:
            self.asks_at, self.waiting = -1, True
            expires = {} if self.rng.random() < 0.5 else {"expires_in_s": 3}
            self._say({"type": "approval", "title": "May I?", "id": self.said, **expires})
            return
        if self.fat and self.said % 4 == 3:
            self._say({"type": "big", "n": self.said, "fill": "x" * 40_000})
        elif self.said < 400:
            self._say({"type": "line", "n": self.said})
        self.said += 1
        pause_us = self.pause_us if self.said < self.lines else 700_000
        self.kernel.after(int(pause_us * (0.5 + self.rng.random())), self._go)

    def _say(self, what: dict[str, Any]) -> None:
        self.shim.says(json.dumps(what).encode() + b"\n")

    def hears(self, data: bytes) -> None:
        lines = data.count(b"\n")
        if self.waiting and b'"type":"approval"' in data[self.heard :]:
            self.waiting = False
            self.kernel.after(1000, self._go)
        self.heard = len(data) if lines else self.heard

    def signalled(self, number: int) -> None:
        if number == 9 or number not in self.deaf_to:
            self.kernel.after(int(self.rng.random() * 50_000), self.shim.agent_dies, None, number)
