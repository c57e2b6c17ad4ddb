"""Any order of anything that a wrapper does with its spool, with restarts between, against a model in a few dicts."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.fuzz.budget import budget
from wrapper.drivers.base import Item
from wrapper.ladder import begin
from wrapper.segments import Position
from wrapper.spool import Spool
from wrapper.spoolfile import SpoolLocked

LIMIT_BYTES = 20_000
numbers = st.integers(1, 4)
picks = st.integers(0, 1000)


@dataclass
class Known:
    """One execution, as it has to be remembered. records: seq → kind, body; a gap stands at the end of its range."""

    state: str = "received"
    acked: int = 0
    last: int = 0
    taken: int = 0
    records: dict[int, tuple[str, str]] = field(default_factory=dict)
    inputs: list[tuple[int, bytes]] = field(default_factory=list)
    ladder: bool = False


class SpoolMachine(RuleBasedStateMachine):
    @initialize(policy=st.sampled_from(["block", "trim"]))
    def born(self, policy: str) -> None:
        self.folder, self.policy = Path(tempfile.mkdtemp(prefix="fuzz-")), policy
        self.spool = self.open()
        self.known: dict[str, Known] = {}
        self.over: set[str] = set()
        self.commands: dict[str, str] = {}
        self.made = 0
        for n in (1, 2):
            self.receive(n)
            self.run(n)

    def open(self) -> Spool:
        return Spool(str(self.folder), "ses_1", limit_bytes=LIMIT_BYTES, policy=self.policy)  # type: ignore[arg-type]

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            self.spool.close()
            shutil.rmtree(self.folder)

    def command(self) -> str:
        self.made += 1
        return f"cmd_{self.made}"

    def no(self, eid: str) -> int:
        row = self.spool.get(eid)
        assert row is not None
        return row.no

    # ------------------------------------------------------------ what a wrapper does

    @rule(n=numbers)
    def receive(self, n: int) -> None:
        eid, cid = f"exe_{n}", self.command()
        new = self.spool.receive_start(cid, eid, {"n": n}, {})
        assert new == (eid not in self.known and eid not in self.over)
        self.commands[cid] = "received"
        if new:
            self.known[eid] = Known()

    @rule(n=numbers)
    def run(self, n: int) -> None:
        known = self.known.get(eid := f"exe_{n}")
        if known is None or known.state != "received":
            return
        assert self.spool.launching(self.no(eid), f"{eid}.0", 2)
        assert self.spool.launched(self.no(eid), n, {}) == max(known.last, 1)
        if known.last == 0:
            known.last = 1
            known.records[1] = ("started", json.dumps({"pid": n}, separators=(",", ":")))
        self.spool.open_gate(self.no(eid))
        known.state = "running"

    @rule(n=numbers, sizes=st.lists(st.sampled_from([5, 50, 1500]), max_size=5))
    def append(self, n: int, sizes: list[int]) -> None:
        known = self.known.get(eid := f"exe_{n}")
        if known is None or known.state != "running":
            return
        if not self.spool.room():
            assert self.policy == "block" or not any(k == "output" for k, _ in known.records.values())
        self.look_at_trimmed()
        items = [Item("output", f"{eid}/{known.taken + i} " + "x" * size) for i, size in enumerate(sizes)]
        known.taken += len(items)
        last = self.spool.append(self.no(eid), items, Position(1, known.taken), {"n": str(known.taken)})
        for i, item in enumerate(items):
            known.records[known.last + 1 + i] = (item.kind, item.body)
        known.last += len(items)
        assert last == known.last

    def look_at_trimmed(self) -> None:
        """Room was made: outputs, and only outputs, may have become gaps."""
        for eid, known in self.known.items():
            for record in self.spool.read(eid, 0, 1 << 30, 10_000):
                if record.kind == "gap" and known.records.get(record.to_seq, ("", ""))[1] != record.body:
                    assert self.policy == "trim"
                    for seq in range(record.seq, record.to_seq + 1):
                        assert known.records.pop(seq, ("gap", ""))[0] in ("output", "gap")
                    known.records[record.to_seq] = ("gap", record.body)

    @rule(n=numbers, pick=picks)
    def acknowledge(self, n: int, pick: int) -> None:
        known = self.known.get(eid := f"exe_{n}")
        seq = pick % (known.last + 1) if known else pick
        over = self.spool.acked(eid, seq)
        assert over == (known is not None and known.state == "final" and seq >= known.last)
        if known is not None:
            known.acked = max(known.acked, seq)
            known.records = {to: record for to, record in known.records.items() if to > seq}
            if over:
                self.bury(n)

    @rule(n=numbers)
    def finish(self, n: int) -> None:
        known = self.known.get(eid := f"exe_{n}")
        if known is None or known.state != "running":
            return
        final = {"status": "completed", "exit_code": 0, "signal": None, "error": None}
        known.last = self.spool.finish(self.no(eid), [], final)
        known.records[known.last] = ("final", json.dumps(final, separators=(",", ":")))
        known.state = "final"

    @rule(n=numbers)
    def bury(self, n: int) -> None:
        eid = f"exe_{n}"
        if eid in self.known and self.known[eid].state == "final":
            self.spool.bury(eid)
            del self.known[eid]
            self.over.add(eid)

    @rule(n=numbers, data=st.binary(max_size=20))
    def send_input(self, n: int, data: bytes) -> None:
        known = self.known.get(eid := f"exe_{n}")
        if known is not None and known.state == "running":
            cid = self.command()
            at = self.spool.note_input(cid, eid, "input", self.no(eid), data)
            assert at == 2 + sum(len(earlier) for _, earlier in known.inputs)
            known.inputs.append((at, data))
            self.commands[cid] = "done"

    @rule(n=numbers)
    def interrupt(self, n: int) -> None:
        if (eid := f"exe_{n}") in self.known:
            cid = self.command()
            self.spool.note_ladder(cid, eid, "interrupt", self.no(eid), begin("interrupt", 5, 20.0))
            self.commands[cid], self.known[eid].ladder = "received", True

    @rule(n=numbers, pick=picks)
    def refuse(self, n: int, pick: int) -> None:
        known = self.known.get(eid := f"exe_{n}")
        outputs = [seq for seq, (kind, _) in known.records.items() if kind == "output"] if known else []
        if outputs and known is not None:
            seq = outputs[pick % len(outputs)]
            size = len(known.records[seq][1]) + 64
            self.spool.refuse(eid, seq)
            known.records[seq] = ("gap", json.dumps({"bytes": size, "reason": "refused"}, separators=(",", ":")))

    @rule()
    def restart(self) -> None:
        wrapper_id, size = self.spool.wrapper_id, self.spool.bytes
        try:
            self.open()
        except SpoolLocked:
            self.spool.close()
        self.spool = self.open()
        assert (self.spool.wrapper_id, self.spool.bytes, self.spool.unreadable) == (wrapper_id, size, False)

    # ------------------------------------------------------------ what has to be true

    @invariant()
    def it_remembers_exactly_that(self) -> None:
        if not hasattr(self, "spool"):
            return
        assert {row.execution_id for row in self.spool.executions()} == set(self.known)
        assert all(self.spool.ended(eid) for eid in self.over)
        assert not any(self.spool.ended(eid) for eid in self.known)
        for eid, known in self.known.items():
            row = self.spool.get(eid)
            assert row is not None
            assert (row.state, row.acked_seq, row.last_seq) == (known.state, known.acked, known.last)
            assert row.at.offset == known.taken and (row.ladder is not None) == known.ladder
            records = self.spool.read(eid, 0, 1 << 30, 10_000)
            assert {r.to_seq: (r.kind, r.body) for r in records} == known.records
            ends = [known.acked] + [r.to_seq for r in records]
            assert all(r.seq <= end + 1 <= r.to_seq for r, end in zip(records, ends, strict=False))  # no holes
            assert ends[-1] == known.last
            assert self.spool.inputs(eid) == known.inputs
        for cid, status in self.commands.items():
            command = self.spool.command(cid)
            assert command is not None and command.status == status
        assert self.spool.bytes == self.spool._one("SELECT coalesce(sum(bytes), 0) FROM records")[0]


SpoolMachine.TestCase.settings = budget(60, steps=30)
TestSpool = SpoolMachine.TestCase
