"""Any order of anything that may be asked of the real store, by owners and by ghosts, through two processes.

The model is small and knows nothing of the law: what was ever seen in a stream stays there, numbers have no holes,
who was replaced never writes again, what has ended stays as it ended, who asks twice hears the same.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.law import requests as rq
from actors.law.effects import Connected, Fenced, Refuse, Show
from actors.protocol.errors import HoldfastError
from actors.protocol.ids import ulid
from actors.store.contract import Appended, AppendRefused, IdempotencyKey
from tests.fuzz.budget import budget
from tests.world import World

SESSIONS = ("s", "t")
EXECUTIONS = tuple(f"e{n}" for n in range(1, 15))
TERMINAL = {"completed", "failed", "interrupted"}
QUEUE_LIMIT = 10

sessions = st.sampled_from(SESSIONS)
executions = st.sampled_from(EXECUTIONS)
few = st.sampled_from(EXECUTIONS[:3])
picks = st.integers(0, 1 << 16)
seqs = st.integers(-2, 3)  # around what is expected


@cache
def template() -> Path:
    """A migrated, empty store; making one takes longer than a whole walk."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-store-"))
    World(folder).close()
    return folder / "holdfast.db"


class StoreMachine(RuleBasedStateMachine):
    @initialize()
    def born(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        shutil.copyfile(template(), self.folder / "holdfast.db")
        self.world = World(self.folder)
        self.other = self.world.another_process()
        self.seen: dict[str, dict[int, str]] = {s: {} for s in SESSIONS}
        self.ended: dict[tuple[str, str], dict[str, Any]] = {}
        self.acked: dict[tuple[str, str], int] = {}
        self.epochs: list[int] = []
        self.connections: list[str] = []
        self.owner: dict[str, str] = {}
        self.dead: set[str] = set()  # connections that were replaced, closed, or whose session is gone
        self.deleted: set[str] = set()
        self.created: set[str] = set()
        self.interrupts: dict[tuple[str, str], str] = {}
        self.answered: list[tuple[rq.Request, Any, IdempotencyKey | None]] = []
        self.commands: list[str] = []
        self.made = 0
        for sid in SESSIONS:
            self.create(sid, 0)
        self.to_work("s", "e1")

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                self.everything_ends()
            finally:
                self.other.close()
                self.world.close()
                shutil.rmtree(self.folder)

    # ------------------------------------------------------------ asking

    def ask(self, request: rq.Request, pick: int = 0, key: IdempotencyKey | None = None) -> Any:
        store = self.world.store if pick % 2 else self.other
        outcome = store.transact(request, key)
        if isinstance(outcome.answer, Show) and isinstance(request, rq.BY_OPERATORS):
            self.answered.append((request, outcome.body, key))
        return outcome.answer

    def connection(self, pick: int) -> str | None:
        """Mostly the last ones, but any that ever was."""
        return self.connections[-1 - pick % len(self.connections)] if self.connections else None

    def framed(self, connection: str) -> dict[str, Any]:
        return self.world._framed(connection)

    def expected(self, connection: str, eid: str) -> int:
        return self.acked.get((self.world.connections[connection][0], eid), 0) + 1

    def fenced(self, connection: str, answer: Any) -> None:
        """A ghost's frame is never taken."""
        if connection in self.dead:
            assert isinstance(answer, Fenced), (connection, answer)

    # ------------------------------------------------------------ operators

    @rule(sid=sessions, pick=picks)
    def create(self, sid: str, pick: int) -> None:
        answer = self.ask(rq.CreateSession(session_id=sid, seed=ulid()), pick)
        if sid in self.deleted:
            assert isinstance(answer, Refuse)
        else:
            self.created.add(sid)

    @rule(sid=sessions, eid=executions, text=st.sampled_from(["a", "b"]), pick=picks)
    def submit(self, sid: str, eid: str, text: str, pick: int) -> None:
        before = self.waiting(sid)
        known = self.status(sid, eid)
        answer = self.ask(rq.Submit(session_id=sid, seed=ulid(), execution_id=eid, input=text), pick)
        if sid in self.created and sid not in self.deleted and known is None:
            full = self.active(sid) is not None and before >= QUEUE_LIMIT
            assert isinstance(answer, Refuse) == full, (answer, before)
        if known is not None:
            assert self.waiting(sid) == before  # a repetition, or a mistake: nothing happens
            assert not (isinstance(answer, Show) and answer.changed)

    @rule(sid=sessions)
    def submit_one_too_many(self, sid: str) -> None:
        self.to_work(sid, "e1")
        for eid in EXECUTIONS:
            self.submit(sid, eid, "a", 0)

    @rule(sid=sessions, eid=st.none() | few, force=st.booleans(), pick=picks)
    def interrupt(self, sid: str, eid: str | None, force: bool, pick: int) -> None:
        answer = self.ask(rq.Interrupt(session_id=sid, seed=ulid(), execution_id=eid, force=force), pick)
        if isinstance(answer, Show) and answer.status == 202 and answer.execution_id is not None:
            shown = self.world.store.execution(sid, answer.execution_id)["interrupt"]
            assert (
                self.interrupts.setdefault((sid, answer.execution_id), shown["interrupt_id"]) == shown["interrupt_id"]
            )

    @rule(sid=sessions, eid=few, pick=picks)
    def fail(self, sid: str, eid: str, pick: int) -> None:
        self.ask(rq.Fail(session_id=sid, seed=ulid(), execution_id=eid, error="by hand"), pick)

    @rule(sid=sessions, eid=few, pick=picks)
    def send_input(self, sid: str, eid: str, pick: int) -> None:
        self.ask(rq.SendInput(session_id=sid, seed=ulid(), execution_id=eid, input="more"), pick)

    @rule(sid=sessions, n=st.integers(1, 4), decision=st.sampled_from(["allow", "deny", "else"]), pick=picks)
    def resolve(self, sid: str, n: int, decision: str, pick: int) -> None:
        self.ask(rq.ResolveApproval(session_id=sid, seed=ulid(), approval_id=f"apr_{n}", decision=decision), pick)

    @precondition(lambda self: self.made > 3)
    @rule(sid=sessions, pick=picks)
    def delete(self, sid: str, pick: int) -> None:
        if pick % 4 == 0 and sid in self.created:
            answer = self.ask(rq.DeleteSession(session_id=sid, seed=ulid()), pick)
            if not isinstance(answer, Refuse):
                self.deleted.add(sid)
                self.dead |= {c for c in self.connections if self.world.connections[c][0] == sid}
                self.owner.pop(sid, None)

    @precondition(lambda self: self.answered)
    @rule(pick=picks)
    def ask_again(self, pick: int) -> None:
        """The outcome was lost on the way: the same request once more, through the other process."""
        request, body, key = self.answered[-1 - pick % min(len(self.answered), 5)]
        before = {sid: self.head(sid) for sid in SESSIONS}
        again = (self.other if pick % 2 else self.world.store).transact(request, key)
        assert again.replayed and again.body == body
        assert {sid: self.head(sid) for sid in SESSIONS} == before

    @rule(sid=sessions, eid=few, text=st.sampled_from(["a", "b"]), n=st.integers(0, 1), pick=picks)
    def submit_with_key(self, sid: str, eid: str, text: str, n: int, pick: int) -> None:
        key = IdempotencyKey("tok", "submit", f"key{n}", f"{sid}{eid}{text}")
        kept = [(r, b) for r, b, k in self.answered if k is not None and k.key == key.key]
        before = {s: self.head(s) for s in SESSIONS}
        outcome = self.world.store.transact(rq.Submit(session_id=sid, seed=ulid(), execution_id=eid, input=text), key)
        if kept:
            same = [b for r, b in kept if (r.session_id, r.execution_id, r.input) == (sid, eid, text)]
            assert outcome.replayed and outcome.body == same[0] if same else isinstance(outcome.answer, Refuse)
            assert {s: self.head(s) for s in SESSIONS} == before
        elif isinstance(outcome.answer, Show):
            self.answered.append(
                (rq.Submit(session_id=sid, seed=ulid(), execution_id=eid, input=text), outcome.body, key)
            )

    # ------------------------------------------------------------ wrappers, and their ghosts

    @rule(sid=sessions, wrapper=st.sampled_from(["w_1", "w_1", "w_2"]), forgets=st.booleans(), pick=picks)
    def connect(self, sid: str, wrapper: str, forgets: bool, pick: int) -> None:
        self.made += 1
        name = f"con_{self.made}"
        known = (
            ()
            if forgets
            else tuple(
                rq.Reported(eid, "running", seq + 1, seq)
                for (s, eid), seq in self.acked.items()
                if s == sid and seq and self.status(sid, eid) == "running"
            )
        )
        outcome = self.world.connect(name, sid, wrapper=wrapper, instance=f"i_{self.made}", executions=known)
        if isinstance(outcome.answer, Connected):
            assert sid in self.created and sid not in self.deleted
            assert all(outcome.answer.epoch > epoch for epoch in self.epochs)
            self.epochs.append(outcome.answer.epoch)
            self.connections.append(name)
            if sid in self.owner:
                self.dead.add(self.owner[sid])
            self.owner[sid] = name

    @rule(sid=sessions, eid=executions)
    def to_work(self, sid: str, eid: str) -> None:
        """What most often happens, so that the rest has something to happen to."""
        if sid in self.living():
            if sid not in self.owner:
                self.connect(sid, "w_1", False, 0)
            if self.active(sid) is None:
                self.submit(sid, eid, "a", 0)
            if (active := self.active(sid)) is not None and sid in self.owner:
                self.ask(rq.Started(**self.framed(self.owner[sid]), execution_id=active, seq=1, pid=7))

    @rule(sid=sessions, n=st.integers(1, 5))
    def output(self, sid: str, n: int) -> None:
        if sid in self.owner and (eid := self.active(sid)) is not None:
            item = self.world.item(self.expected(self.owner[sid], eid), n, eid, self.owner[sid])
            (result,) = self.world.store.commit_group([item]).results
            assert isinstance(result, Appended) == (self.status(sid, eid) == "running"), result

    @rule(pick=picks)
    def close(self, pick: int) -> None:
        if (name := self.connection(pick)) is None:
            return
        sid = self.world.connections[name][0]
        before = self.head(sid)
        self.world.closed(name, code=1006)
        if name in self.dead:
            assert self.head(sid) == before  # a ghost's close is nothing at all
        self.dead.add(name)
        if self.owner.get(sid) == name:
            del self.owner[sid]

    @rule(eid=few, pick=picks, off=st.sampled_from([0, 0, 0, 1]))
    def start(self, eid: str, pick: int, off: int) -> None:
        if (name := self.connection(pick % 3)) is not None:
            eid = self.active(self.world.connections[name][0]) or eid if pick % 5 else eid
            answer = self.ask(rq.Started(**self.framed(name), execution_id=eid, seq=1 + off, pid=7), pick)
            self.fenced(name, answer)

    @rule(eid=few, pick=picks, off=seqs, n=st.integers(1, 4), others=st.booleans())
    def append(self, eid: str, pick: int, off: int, n: int, others: bool) -> None:
        if (name := self.connection(pick % 4)) is None:
            return
        sid = self.world.connections[name][0]
        eid = self.active(sid) or eid if pick % 5 else eid
        want = self.expected(name, eid)
        first = max(1, want + off)
        item = self.world.item(first, n, eid, name)
        jobs = [item, self.world.item(first + n, 1, eid, name)] if others else [item]
        for job, result in zip(jobs, self.world.store.commit_group(jobs).results, strict=True):
            if name in self.dead:
                assert isinstance(result, AppendRefused) and result.why == "fenced", result
            elif isinstance(result, Appended):
                last = job.first + job.covers - 1
                assert (result.acked_seq, result.count, result.skipped) == (last, last - want + 1, want - job.first)
                want = last + 1
            elif result.why == "gap":
                assert result.expected_seq == want < job.first
            elif result.why == "duplicate":
                assert job.first + job.covers - 1 <= result.acked_seq == want - 1

    @rule(sid=sessions, status=st.sampled_from(sorted(TERMINAL)))
    def ghosts_say_exactly_what_the_owner_might(self, sid: str, status: Any) -> None:
        """The right execution, the right number: only the connection is an old one."""
        self.to_work(sid, "e1")
        if (eid := self.active(sid)) is None or sid not in self.owner:
            return
        before = self.head(sid)
        for name in [name for name in self.connections if name in self.dead][-3:]:
            if self.world.connections[name][0] == sid:
                seq = self.expected(name, eid)
                (result,) = self.world.store.commit_group([self.world.item(seq, 1, eid, name)]).results
                assert isinstance(result, AppendRefused) and result.why == "fenced", result
                frame = rq.Final(**self.framed(name), execution_id=eid, seq=seq, status=status)
                assert isinstance(self.ask(frame), Fenced)
        assert self.head(sid) == before

    @rule(eid=few, pick=picks, off=seqs, n=st.integers(1, 4), expires=st.sampled_from([None, 5.0]))
    def approval(self, eid: str, pick: int, off: int, n: int, expires: float | None) -> None:
        if (name := self.connection(pick % 3)) is not None:
            eid = self.active(self.world.connections[name][0]) or eid
            seq = max(1, self.expected(name, eid) + (off if pick % 3 == 0 else 0))
            answer = self.ask(
                rq.AskApproval(
                    **self.framed(name),
                    execution_id=eid,
                    seq=seq,
                    approval_id=f"apr_{n}",
                    title="May I?",
                    options=("allow", "deny"),
                    expires_in_s=expires,
                )
            )
            self.fenced(name, answer)

    @rule(eid=few, pick=picks, off=seqs, status=st.sampled_from(sorted(TERMINAL)))
    def final(self, eid: str, pick: int, off: int, status: Any) -> None:
        if (name := self.connection(pick % 3)) is not None:
            eid = self.active(self.world.connections[name][0]) or eid if pick % 5 else eid
            seq = max(1, self.expected(name, eid) + (off if pick % 2 else 0))
            answer = self.ask(rq.Final(**self.framed(name), execution_id=eid, seq=seq, status=status), pick)
            self.fenced(name, answer)

    @rule(pick=picks, status=st.sampled_from(["received", "done", "rejected"]))
    def acknowledge(self, pick: int, status: Any) -> None:
        if (name := self.connection(pick % 3)) is None:
            return
        for sid in SESSIONS:
            self.commands += [c.command_id for c in self.world.store.pending_commands(sid, 0, 5)]
        if self.commands:
            command = self.commands[-1 - pick % min(8, len(self.commands))]
            answer = self.ask(rq.AckCommand(**self.framed(name), command_id=command, status=status), pick)
            self.fenced(name, answer)

    # ------------------------------------------------------------ time and processes

    @rule(seconds=st.sampled_from([1, 2, 25, 40, 100, 200]), alive=st.booleans())
    def time_passes(self, seconds: int, alive: bool) -> None:
        if alive:
            self.world.store.flush_seen([(sid, con, True) for sid, con in self.owner.items()])
        self.pass_by(seconds)

    def pass_by(self, seconds: int) -> None:
        for _ in range(0, seconds, 3):
            self.world.now_ms += 3000
            self.world.store.tick("gw_1")
            self.world.sweep()
        for sid, name in list(self.owner.items()):  # stale: given up by the server, and closed
            if self.world.link(sid) != "connected":
                self.dead.add(name)
                del self.owner[sid]

    @rule(
        sid=sessions, eid=few, kind=st.sampled_from(["pending_start", "stale", "grace", "hung", "ladder", "approval"])
    )
    def sweep_for_nothing(self, sid: str, eid: str, kind: Any) -> None:
        """Early, twice, or about something else: what is not due does not happen."""
        due = {(d.session_id, d.kind, d.subject) for d in self.world.store.due(100)}
        for subject in (eid, "1", "apr_1"):
            before = self.head(sid)
            self.ask(rq.Sweep(session_id=sid, seed=ulid(), kind=kind, subject=subject))
            assert self.head(sid) == before or (sid, kind, subject) in due

    @rule()
    def processes_end_and_come_back(self) -> None:
        self.other.close()
        self.world.store.close()
        self.world.store = self.world.another_process()
        self.other = self.world.another_process()

    # ------------------------------------------------------------ seeing

    def head(self, sid: str) -> int:
        try:
            return int(self.world.store.page(sid, 0, 1).last_seq)
        except HoldfastError:
            return -1

    def living(self) -> list[str]:
        return [s for s in SESSIONS if s in self.created and s not in self.deleted]

    def status(self, sid: str, eid: str) -> str | None:
        try:
            return str(self.world.store.execution(sid, eid)["status"])
        except HoldfastError:
            return None

    def waiting(self, sid: str) -> int:
        return int(self.world.store.session(sid)["queued"]) if sid in self.living() else 0

    def active(self, sid: str) -> str | None:
        found = self.world.store.session(sid)["active_execution"] if sid in self.living() else None
        return found["execution_id"] if found else None

    @invariant()
    def the_stream_only_grows_and_has_no_holes(self) -> None:
        for sid in self.living() if hasattr(self, "world") else ():
            page = self.world.store.page(sid, 0, 1 << 20, max_bytes=1 << 30)
            assert list(page.seqs) == list(range(1, page.last_seq + 1))
            now = dict(zip(page.seqs, page.fragments, strict=True))
            assert {seq: now.get(seq) for seq in self.seen[sid]} == self.seen[sid]
            self.seen[sid] = now

    @invariant()
    def every_execution_is_what_its_events_say(self) -> None:
        for sid in self.living() if hasattr(self, "world") else ():
            rows = self.world.store.executions(sid, 100, None).items
            assert sum(row["status"] in ("pending", "running") for row in rows) <= 1
            assert sum(row["status"] == "queued" for row in rows) <= QUEUE_LIMIT
            events = self.world.events(sid)
            for row in rows:
                self.judge(sid, row, [e for e in events if e["execution_id"] == row["execution_id"]])

    def judge(self, sid: str, row: dict[str, Any], events: list[dict[str, Any]]) -> None:
        key = (sid, row["execution_id"])
        assert row["acked_seq"] >= self.acked.get(key, 0)
        self.acked[key] = row["acked_seq"]
        numbered = [e["exec_seq"] for e in events if e["exec_seq"] is not None]
        assert numbered == list(range(1, row["acked_seq"] + 1)), (numbered, row)
        ends = [i for i, e in enumerate(events) if e["type"] in {f"execution.{status}" for status in TERMINAL}]
        assert len(ends) == (row["status"] in TERMINAL), (row, [e["type"] for e in events])
        if ends:
            assert events[ends[0]]["type"] == f"execution.{row['status']}"
            assert all(e["type"] == "execution.late_final" for e in events[ends[0] + 1 :])
            assert self.ended.setdefault(key, row["outcome"]) == row["outcome"]
        if key in self.interrupts:
            assert row["interrupt"]["interrupt_id"] == self.interrupts[key]

    def everything_ends(self) -> None:
        """G12: nobody is there any more; so after its deadlines nothing is active, and nothing waits."""
        for name in set(self.connections) - self.dead:
            self.world.closed(name, code=1006)
            self.dead.add(name)
        self.owner.clear()
        for _ in range(len(EXECUTIONS)):
            if not any(self.active(sid) for sid in self.living()):
                break
            self.pass_by(210)
        for sid in self.living():
            assert self.active(sid) is None and self.waiting(sid) == 0, self.world.store.session(sid)
        self.every_execution_is_what_its_events_say()


StoreMachine.TestCase.settings = budget(120, steps=40)
TestStore = StoreMachine.TestCase
