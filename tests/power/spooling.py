"""Work for the real spool while a scribe looks on: what a wrapper does with it, in the order in which it relies on it.

Each promise is noted the moment the spool's method returned, for that is when the wrapper acts on it: it says
`received`, opens the gate, sends the record. What may go is noted *before* the call that lets it go, for the server's
word was there before.

A part of the output is named where it stands in a segment, and not stored again (ADR 10): then the segment is on the
disk of this house too, and what is relied on is the body that is made from it.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.power.cuts import Knows, Verdict
from tests.power.dbapi import connector, content
from tests.power.told import Fact, differences
from tests.power.vfs import Scribe
from tests.power.watching import watched
from wrapper import segments
from wrapper.drivers.base import Item, output
from wrapper.ladder import begin
from wrapper.segments import Extent, Position, Source
from wrapper.shim import fsync_dir, segment_name
from wrapper.spool import Spool
from wrapper.spoolfile import LOG_PAGES, SCARCE_LOG_PAGES, SpoolError

LIMIT_BYTES = {"block": 400_000, "trim": 40_000}
SESSION = "ses_1"
ORDER = ("received", "running", "final")


@dataclass(slots=True)
class Promised:
    """What the wrapper relied on. Hears the facts in the order in which they were told."""

    wrapper_id: str = ""
    states: dict[str, str] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    commands: dict[str, str] = field(default_factory=dict)
    records: dict[str, dict[int, tuple[str, str]]] = field(default_factory=dict)
    inputs: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    pieces: dict[str, int] = field(default_factory=dict)  # execution → how much of the shim's output was taken in
    rewound: set[str] = field(default_factory=set)
    trimming: bool = False

    def hear(self, facts: list[Fact]) -> None:
        for fact in facts:
            match fact:
                case ("wrapper", name):
                    self.wrapper_id = name
                case ("state", eid, state):
                    self.states[eid] = state
                case ("command", cid, status):
                    self.commands[cid] = status
                case ("record", eid, seq, kind, body):
                    self.records.setdefault(eid, {})[seq] = (kind, body)
                case ("acked", eid, seq):
                    rows = self.records.get(eid, {})
                    self.records[eid] = {k: v for k, v in rows.items() if k > seq}
                case ("may_change", eid, seq):
                    self.records.get(eid, {}).pop(seq, None)
                case ("rewound", eid):
                    self.records.pop(eid, None)
                    self.rewound.add(eid)
                case ("over", eid):  # from here on it may be gone
                    self.records.pop(eid, None)
                    self.inputs.pop(eid, None)
                    self.states.pop(eid, None)
                    self.pieces.pop(eid, None)
                    self.ended.discard(eid)
                case ("ended", eid):
                    self.ended.add(eid)
                case ("input", eid, at, data):
                    self.inputs.setdefault(eid, []).append((at, data))
                case ("pieces", eid, n):
                    self.pieces[eid] = n
                case ("trims",):
                    self.trimming = True
                case _:
                    raise AssertionError(fact)


class Careless(Spool):
    """The control: it trusts that what it names will be there."""

    def _make_durable(self, no: int, named: Sequence[int]) -> None:
        return


class Spooling:
    def __init__(
        self,
        folder: Path,
        scribe: Scribe,
        seed: int,
        *,
        full: bool = True,
        policy: str = "block",
        careless: bool = False,
    ) -> None:
        """full False: the control, whose spool does not sync its log."""
        self.folder, self.scribe, self.rng, self.policy = folder, scribe, random.Random(seed), policy
        self.kind = Careless if careless else Spool
        self.segments: dict[str, int] = {}  # execution → the segment that its shim writes
        # More checkpoints in a short run; the statement is otherwise the product's.
        swaps = {
            f"PRAGMA wal_autocheckpoint={pages}": "PRAGMA wal_autocheckpoint=30"
            for pages in (LOG_PAGES, SCARCE_LOG_PAGES)
        }
        if not full:
            swaps["PRAGMA synchronous=FULL"] = "PRAGMA synchronous=NORMAL"
        self.connect = connector(scribe, sqlite3, lambda sql: swaps.get(sql, sql))
        self.spool = self.open()
        self.made = 0
        self.life = f"{random.Random(seed).getrandbits(24):x}"
        self.pieces = {row.execution_id: int(row.driver_state.get("n", 0)) for row in self.spool.executions()}
        self.tell([("wrapper", self.spool.wrapper_id)] + ([("trims",)] if policy == "trim" else []))
        scribe.mark("ready", content(self.spool._db.execute))

    def open(self) -> Spool:
        return self.kind(
            str(self.folder), SESSION, limit_bytes=LIMIT_BYTES[self.policy], policy=self.policy, connect=self.connect
        )

    def tell(self, facts: list[Fact]) -> None:
        self.scribe.mark("told", facts)

    def walk_on(self, steps: int) -> None:
        moves = [
            (30, self.output),
            (12, self.acknowledged),
            (6, self.receive),
            (6, self.launch),
            (6, self.gate),
            (4, self.finish),
            (3, self.input),
            (3, self.signal),
            (2, self.refuse),
            (2, self.drop),
            (1, self.rewind),
            (1, self.again),
            (1, self.give_back),
        ]
        weights = [w for w, _ in moves]
        for _ in range(steps):
            self.rng.choices(moves, weights)[0][1]()

    def one(self, *states: str) -> str | None:
        rows = [r for r in self.spool.executions() if r.state in states and r.dropped is None]
        return self.rng.choice(rows).execution_id if rows else None

    def receive(self) -> None:
        if len(self.spool.executions()) > 3:
            return
        self.made += 1
        eid, cid = f"exe_{self.life}_{self.made}", f"cmd_{self.life}_{self.made}"
        self.spool.receive_start(cid, eid, {"prompt": "p" * self.rng.randint(0, 5000)}, {"hung_s": 1})
        self.tell([("command", cid, "received"), ("state", eid, "received")])

    def launch(self) -> None:
        if (eid := self.one("received")) is None:
            return
        row = self.spool.get(eid)
        self.spool.launching(row.no, f"{eid}.{row.launches}", 2)
        self.tell([])
        runs = self.folder / "runs"
        (runs / f"{eid}.{row.launches}").mkdir(exist_ok=True)
        fsync_dir(str(runs))  # as shimctl does
        if row.last_seq == 0:
            self.pieces[eid] = 0
        pid = self.rng.randint(2, 99999)
        self.tell([("may_change", eid, 1)])
        last = self.spool.launched(row.no, pid, {"agent_pid": pid})
        sent = [("record", eid, 1, "started", json.dumps({"pid": pid}, separators=(",", ":")))] if last == 1 else []
        self.tell(sent)

    def gate(self) -> None:
        if (eid := self.one("received")) is None:
            return
        row = self.spool.get(eid)
        if row.run_dir is None or row.last_seq == 0:
            return
        self.tell([("acked", eid, 1)])
        self.spool.acked(eid, 1)
        self.tell([])
        self.spool.open_gate(row.no)
        self.tell([("state", eid, "running"), ("pieces", eid, self.pieces.setdefault(eid, 0))])

    def output(self) -> None:
        if (eid := self.one("running")) is None:
            return self.launch() if self.one("received") else self.receive()
        if not self.spool.room():
            self.tell([])
            return self.acknowledged()
        self.tell([])
        row = self.spool.get(eid)
        run = self.folder / "runs" / row.run_dir
        if eid not in self.segments or self.rng.random() < 0.2:  # a full one, or a shim of another life
            there = [int(path.name[-8:]) for path in run.glob("*.*")]
            self.segments[eid] = max(there, default=-1) + 1
        n = self.rng.choice((1, 1, 2, 8))
        items = []
        for i in range(n):
            text = f"{eid} {self.pieces[eid] + i} " + "x" * self.rng.choice((10, 300, 5000))
            if self.rng.random() < 0.1:
                self.made += 1
                apr = f"apr_{self.life}_{self.made}"
                items.append(Item("approval", json.dumps({"approval_id": apr, "text": text}), apr, "ref"))
            elif self.rng.random() < 0.5:
                items.append(Item("output", "", source=self.shim_says(run, eid, text.encode())))
            else:
                items.append(Item("output", json.dumps({"type": "output", "data": {"text": text}})))
        self.pieces[eid] += n
        at = Position(self.segments[eid], self.pieces[eid] % 50)
        last = self.spool.append(row.no, items, at, {"n": str(self.pieces[eid])})
        segments.forget(str(run), at.segment, self.spool.named_from(row.no, at.segment))
        self.tell(
            [
                *(("record", eid, last - n + 1 + i, item.kind, body_of(item, run)) for i, item in enumerate(items)),
                ("pieces", eid, self.pieces[eid]),
            ]
        )

    def shim_says(self, run: Path, eid: str, text: bytes) -> Source:
        """Bytes in a segment, synced by nobody yet."""
        with (run / segment_name(self.segments[eid])).open("ab") as file:
            at = file.tell()
            file.write(text)
        half = len(text) // 2
        extents = (Extent(self.segments[eid], at, half), Extent(self.segments[eid], at + half, len(text) - half))
        return Source(5, "stdout", self.rng.choice((b"", "ö".encode())), extents)

    def acknowledged(self) -> None:
        if (eid := self.one("running", "final")) is None:
            return
        row = self.spool.get(eid)
        seq = row.last_seq if self.rng.random() < 0.3 else self.rng.randint(row.acked_seq, row.last_seq)
        self.tell([("acked", eid, seq)])
        over = self.spool.acked(eid, seq)
        self.tell([])
        if over:
            self.bury(eid)

    def bury(self, eid: str) -> None:
        self.tell([("over", eid)])
        self.spool.bury(eid)
        self.tell([("ended", eid)])
        self.pieces.pop(eid, None)

    def finish(self) -> None:
        if (eid := self.one("running")) is None:
            return
        for cid in self.spool.carried_out(eid):
            self.tell([("command", cid, "done")])
        final = {"status": "completed", "exit_code": 0, "signal": None, "error": None, "data": {"tail": "y" * 200}}
        last = self.spool.finish(self.spool.get(eid).no, [], final)
        self.tell([("state", eid, "final"), ("record", eid, last, "final", json.dumps(final, separators=(",", ":")))])

    def input(self) -> None:
        if (eid := self.one("running")) is None:
            return
        self.made += 1
        cid, data = f"cmd_{self.life}_{self.made}", self.rng.randbytes(self.rng.randint(1, 3000))
        at = self.spool.note_input(cid, eid, "input", self.spool.get(eid).no, data)
        self.tell([("command", cid, "done"), ("input", eid, at, data)])

    def signal(self) -> None:
        if (eid := self.one("running")) is None:
            return
        self.made += 1
        cid, no = f"cmd_{self.life}_{self.made}", self.spool.get(eid).no
        if self.rng.random() < 0.3:
            self.spool.note(cid, eid, "interrupt", "rejected", "not_current")
            return self.tell([("command", cid, "rejected")])
        self.spool.note_ladder(cid, eid, "interrupt", no, begin("interrupt", 5, 20.0))
        self.tell([("command", cid, "received")])

    def refuse(self) -> None:
        if (eid := self.one("running", "final")) is None:
            return
        row = self.spool.get(eid)
        if row.acked_seq < row.last_seq:
            seq = self.rng.randint(row.acked_seq + 1, row.last_seq)
            self.tell([("may_change", eid, seq)])
            self.spool.refuse(eid, seq)
            self.tell([])

    def drop(self) -> None:
        if (eid := self.one("running", "final")) is None or self.rng.random() < 0.5:
            return
        row = self.spool.get(eid)
        self.tell([("over", eid)])
        self.spool.drop(row.no, "nobody wants it", begin("abort", 5, 20.0))
        self.tell([])
        if self.rng.random() < 0.7:
            self.bury(eid)

    def rewind(self) -> None:
        if (eid := self.one("running")) is None:
            return
        row = self.spool.get(eid)
        self.tell([("rewound", eid)])
        self.spool.rewound(eid, row.acked_seq, row.last_seq + self.rng.randint(1, 500))
        self.tell([])

    def again(self) -> None:
        """The wrapper ends and comes back."""
        self.spool.close()
        self.spool = self.open()

    def give_back(self) -> None:
        """What the spool says where the disk is scarce, or a backlog of megabytes was drained (records._tidy)."""
        self.spool._db.executescript("PRAGMA incremental_vacuum(64)")
        if self.rng.random() < 0.5:
            self.spool._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def record(folder: Path, seed: int, steps: int, *, obeys_sync: bool = True, **controls: object) -> Scribe:
    scribe = Scribe(folder, obeys_sync=obeys_sync)
    with watched(scribe):
        Spooling(folder, scribe, seed, **controls).walk_on(steps)  # type: ignore[arg-type]
    return scribe.stop()


def body_of(item: Item, run: Path) -> str:
    """What will be sent for it."""
    if item.source is None:
        return item.body
    reader = segments.Reader(str(run))
    data = reader.fetch(item.source.extents)
    reader.close()
    assert data is not None
    return output(item.source.stream, item.source.ts_ms, item.source.held + data)


def judge_spool(folder: Path, knows: Knows, rng: random.Random) -> Verdict:
    opened: list[sqlite3.Connection] = []

    def connect(*args: object, **how: object) -> sqlite3.Connection:
        opened.append(sqlite3.connect(*args, **how))  # type: ignore[call-overload]
        return opened[-1]

    try:
        spool = Spool(str(folder), SESSION, connect=connect)
    except (SpoolError, sqlite3.Error) as error:
        return Verdict(corrupt=True, wrong=(f"it does not open: {error!r}",))
    try:
        if spool.unreadable:
            return Verdict(corrupt=True, wrong=("it was put aside as unreadable",))
        return _spooled(spool, opened[-1], knows, rng)
    except (SpoolError, sqlite3.Error) as error:
        return Verdict(corrupt=True, wrong=(f"it cannot be read: {error!r}",))
    finally:
        spool.close()


def _spooled(spool: Spool, c: sqlite3.Connection, knows: Knows, rng: random.Random) -> Verdict:
    said = [row[0] for row in c.execute("pragma integrity_check(3)").fetchall()]
    if said != ["ok"]:
        return Verdict(corrupt=True, wrong=(f"integrity_check: {'; '.join(said)}",))
    if not knows.ready:
        return Verdict(wrong=("a new spool is not empty",) if spool.executions() else ())
    found = content(c.execute)
    wrong = differences(found, [knows.stands] + ([knows.under_way] if knows.under_way is not None else []))
    told: Promised = knows.told  # type: ignore[assignment]
    lost, broken = broken_promises(spool, told)
    wrong += broken
    if not wrong and rng.random() < 0.1:
        wrong += _goes_on(spool, told)
    return Verdict(lost=lost, wrong=tuple(wrong))


def broken_promises(spool: Spool, told: Promised) -> tuple[int, list[str]]:
    lost, wrong = 0, []
    if spool.wrapper_id != told.wrapper_id:
        wrong.append("it is another wrapper now")
    for eid in told.ended:
        if not spool.ended(eid):
            wrong.append(f"the tombstone of {eid} is lost: it could run again")
    for cid, status in told.commands.items():
        command = spool.command(cid)
        if command is None:
            wrong.append(f"command {cid} was answered `{status}` and is not known")
        elif command.status != status and (status != "received" or command.status != "done"):
            wrong.append(f"command {cid} was answered `{status}` and stands as {command.status}")
    for eid, state in told.states.items():
        row = spool.get(eid)
        if row is None:
            wrong.append(f"{eid} was {state} and is not known")
            continue
        if ORDER.index(row.state) < ORDER.index(state):
            wrong.append(f"{eid} was {state} and went back to {row.state}")
        taken = int(row.driver_state.get("n", 0)) if row.state == "running" else None
        if taken is not None and taken < told.pieces.get(eid, 0):
            wrong.append(f"{eid}: {told.pieces[eid]} pieces of output were taken in, now {taken}: they come twice")
        if taken is not None and eid not in told.rewound and row.last_seq != taken + 1 and row.ladder is None:
            wrong.append(f"{eid}: {row.last_seq} records of {taken} pieces: position and records came apart")
    for eid, wanted in told.records.items():
        rows = {r.seq: (r.kind, r.body) for r in spool.read(eid, 0, 1 << 30, 1 << 20)}
        spans = [(r.seq, r.to_seq) for r in spool.read(eid, 0, 1 << 30, 1 << 20) if r.kind == "gap"]
        for seq, record in wanted.items():
            trimmed = told.trimming and record[0] == "output" and any(a <= seq <= b for a, b in spans)
            if rows.get(seq) != record and not trimmed:
                lost += 1
                wrong.append(
                    f"{eid}: record {seq} ({record[0]}) was relied on and is {'other' if seq in rows else 'gone'}"
                )
    for eid, inputs in told.inputs.items():
        if not set(inputs) <= set(spool.inputs(eid)):
            wrong.append(f"{eid}: an input that was answered `done` is lost")
    return lost, wrong


def _goes_on(spool: Spool, told: Promised) -> list[str]:
    """A start that comes again after the power came back never runs what ended, nor what is known."""
    wrong = [
        f"{eid} ended, and a late start of it was taken as new"
        for eid in list(told.ended)[:1]
        if spool.receive_start("cmd_late", eid, None, {})
    ]
    if not spool.receive_start("cmd_new", "exe_new", None, {}):
        wrong.append("a new start is not taken")
    return wrong
