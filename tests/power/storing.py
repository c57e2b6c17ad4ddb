"""Work for the real store while a scribe looks on: everything that a gateway, an actor and a reaper ask of it.

A seeded walk. Two connections as in life: the gateway's, which alone checkpoints, and an actor's. Now and then a
reader keeps the checkpoint from finishing, the store is closed and opened, the clock walks and deadlines fire.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from actors.law import requests as rq
from actors.law.effects import Acked, Connected, Show
from actors.law.webhooks import Again, Delivered
from actors.protocol.errors import HoldfastError
from actors.store.contract import (
    ActorRow,
    Appended,
    AppendItem,
    AppendRefused,
    EncodedEvent,
    SessionFilter,
    Token,
)
from actors.store.locks import library
from actors.store.sqlite import SqliteStore
from tests.power.dbapi import connector, content
from tests.power.told import Fact, of_append
from tests.power.vfs import Scribe
from tests.world import World

SESSIONS = 4
# The product's is 1,000 pages; a short run needs more of the interesting moments, and long ones get both.
CHECKPOINT_PAGES = 90
DAY_MS = 86_400_000
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


class Storing(World):
    """A world whose disk is watched, and a walk through it."""

    def __init__(self, folder: Path, scribe: Scribe, seed: int, *, synchronous: str = "FULL", **controls: Any) -> None:
        self.scribe, self.rng, self.synchronous = scribe, random.Random(seed), synchronous
        self.connect_with = connector(scribe, library(), **controls)
        self.born = not (folder / "holdfast.db").exists()
        super().__init__(folder)
        if not self.born:  # it came back from a cut: time has passed meanwhile
            self.now_ms += 100_000_000
        self.actor = self.open()
        self.sessions: list[str] = []
        self.deleted: set[str] = set()
        self.made = self.minted = 0
        self.ends: set[tuple[str, str]] = set()
        self.seqs: dict[tuple[str, str], int] = {}  # (session, execution) → acked_seq, while it runs
        self.pending: dict[str, str] = {}
        self.owner: dict[str, str] = {}
        self.lives = random.Random(seed).getrandbits(32)  # ids of one run never meet those of another
        scribe.mark("ready", content(self.store._c.execute))

    def open(self, *, gateway: bool = False) -> SqliteStore:
        return SqliteStore.open(
            self.path,
            self.policy,
            checkpoints=gateway,
            wall=lambda: self.now_ms,
            synchronous=self.synchronous,
            connect=self.connect_with,
        )

    def another_process(self) -> SqliteStore:
        store = self.open(gateway=True)
        store._c.execute(f"pragma wal_autocheckpoint = {CHECKPOINT_PAGES}")
        return store

    def close(self) -> None:
        self.actor.close()
        super().close()

    # ------------------------------------------------------------ the walk

    def walk_on(self, steps: int) -> None:
        moves = [
            (34, self.append_some),
            (8, self.submit_one),
            (8, self.start_one),
            (6, self.connect_one),
            (5, self.finish_one),
            (4, self.interrupt_one),
            (4, self.approval),
            (4, self.acknowledge_commands),
            (4, self.time_passes),
            (2, self.close_one),
            (2, self.create_one),
            (2, self.send_input),
            (2, self.webhooks_go_out),
            (2, self.registers),
            (2, self.retention),
            (1, self.delete_one),
            (1, self.fail_one),
            (1, self.reopen),
            (2, self.checkpoint_beside_a_reader),
        ]
        weights = [w for w, _ in moves]
        for _ in range(SESSIONS):
            self.create_one()
        for _ in range(steps):
            self.now_ms += self.rng.randint(1, 400)
            (_, move) = self.rng.choices(moves, weights)[0]
            move()

    def seed(self) -> str:
        """Like a ULID, but the same in every run of the same seed, so that a failing cut can be looked at again."""
        self.minted += 1
        return "01" + "".join(self.rng.choices(_CROCKFORD, k=16)) + f"{self.minted:08d}"

    def tell(self, facts: list[Fact]) -> None:
        self.scribe.mark("told", facts)

    def ask(self, request: rq.Request, *, direct: bool | None = None) -> Any:  # type: ignore[override]
        """Through the gateway's connection or the actor's; and what was heard is noted."""
        store = self.store if (self.rng.random() < 0.6 if direct is None else direct) else self.actor
        outcome = store.transact(request)
        facts: list[Fact] = []
        if isinstance(outcome.answer, Show):
            facts.append(("answered", request, outcome.body))
        for (sid, eid), _ in list(self.seqs.items()):
            if sid == request.session_id and sid not in self.deleted:
                status = store.execution(sid, eid)["status"]
                if status not in ("running", "pending"):
                    del self.seqs[sid, eid]
                    self.ends.add((sid, eid))
                    facts.append(("ended", sid, eid, status))
        self.tell(facts)
        return outcome

    def some(self) -> str | None:
        living = [s for s in self.sessions if s not in self.deleted]
        return self.rng.choice(living) if living else None

    def running_one(self) -> tuple[str, str] | None:
        found = [key for key in self.seqs if key[0] in self.owner]
        return self.rng.choice(found) if found else None

    def create_one(self) -> None:
        if len(self.sessions) - len(self.deleted) >= SESSIONS:
            return
        sid = f"s{self.lives:x}_{len(self.sessions)}"
        self.ask(rq.CreateSession(session_id=sid, seed=self.seed(), title="t" * self.rng.randint(0, 300)))
        self.sessions.append(sid)
        self.connect_one(sid)

    def connect_one(self, sid: str | None = None) -> None:
        if (sid := sid or self.some()) is None:
            return
        self.made += 1
        con = f"con_{self.lives:x}_{self.made}"
        known = tuple(rq.Reported(eid, "running", seq + 1, seq) for (s, eid), seq in self.seqs.items() if s == sid)
        wrapper = "w_other" if self.rng.random() < 0.1 else "w_1"
        outcome = self.ask(
            rq.Connect(
                session_id=sid,
                seed=self.seed(),
                connection_id=con,
                gateway_id="gw_1",
                wrapper_id=wrapper,
                instance_id=f"i_{self.made}",
                attempt=1,
                executions=known,
            )
        )
        if isinstance(outcome.answer, Connected):
            self.connections[con] = (sid, outcome.answer.epoch, f"i_{self.made}")
            self.owner[sid] = con

    def close_one(self) -> None:
        sid = self.some()
        if sid in self.owner:
            self.ask(rq.Closed(session_id=sid, seed=self.seed(), connection_id=self.owner.pop(sid), code=1006))

    def submit_one(self) -> None:
        if (sid := self.some()) is None:
            return
        self.made += 1
        eid = f"e{self.made}"
        limits = {"hung_s": 5.0} if self.rng.random() < 0.2 else {}
        callback = {"url": "http://127.0.0.1:9/hook"} if self.rng.random() < 0.6 else None
        text = {"prompt": "p" * self.rng.randint(0, 6000)}
        self.ask(
            rq.Submit(session_id=sid, seed=self.seed(), execution_id=eid, input=text, limits=limits, callback=callback)
        )

    def active(self, sid: str) -> str | None:
        active = self.store.session(sid)["active_execution"]
        return active["execution_id"] if active else None

    def start_one(self) -> None:
        for sid in [s for s in self.sessions if s in self.owner and s not in self.deleted]:
            eid = self.active(sid)
            if eid is None or (sid, eid) in self.seqs:
                continue
            request = rq.Started(**self._framed(self.owner[sid]), execution_id=eid, seq=1, pid=7)
            if self.ask(request).answer == Acked(1):
                self.seqs[sid, eid] = 1
            return

    def items(self) -> list[AppendItem]:
        made: dict[tuple[str, str], AppendItem] = {}
        for _ in range(self.rng.randint(1, 4)):
            if (key := self.running_one()) is None or key in made:
                continue
            sid, eid = key
            _, epoch, instance = self.connections[self.owner[sid]]
            n = self.rng.choice((1, 1, 2, 5, 20))
            first = self.seqs[key] + 1 - (self.rng.randint(0, 1) if self.seqs[key] > 1 else 0)
            kinds = self.rng.choice(((20, 200), (20, 200, 3000)))  # short ones stand in runs
            sizes = [self.rng.choice(kinds) for _ in range(n)]
            events = tuple(
                EncodedEvent("output", self.now_ms, json.dumps({"text": f"{eid} {first + i} {'x' * size}"}))
                for i, size in enumerate(sizes)
            )
            if first > self.seqs[key] or n > 1:
                made[key] = AppendItem(sid, self.owner[sid], epoch, eid, first, n, events, instance)
        return list(made.values())

    def append_some(self, *, or_start: bool = True) -> None:
        items = self.items()
        if not items:
            return self.start_one() if or_start else None
        done = self.store.commit_group(items)
        facts = []
        for item, result in zip(items, done.results, strict=True):
            assert isinstance(result, Appended | AppendRefused), result
            facts += of_append(item, result)
            if hasattr(result, "skipped"):
                self.seqs[item.session_id, item.execution_id] = result.acked_seq
        self.tell(facts)

    def finish_one(self) -> None:
        if (key := self.running_one()) is None:
            return
        sid, eid = key
        status = self.rng.choice(("completed", "failed", "interrupted"))
        self.ask(
            rq.Final(
                **self._framed(self.owner[sid]), execution_id=eid, seq=self.seqs[key] + 1, status=status, exit_code=3
            )
        )

    def approval(self) -> None:
        if (key := self.running_one()) is None:
            return
        sid, eid = key
        open_ = [a for a in self.store.approvals(sid) if a["state"] == "open"]
        if open_ and self.rng.random() < 0.6:
            self.ask(
                rq.ResolveApproval(
                    session_id=sid, seed=self.seed(), approval_id=open_[0]["approval_id"], decision="allow"
                )
            )
            return
        self.made += 1
        seq = self.seqs[key] + 1
        asked = rq.AskApproval(
            **self._framed(self.owner[sid]), execution_id=eid, seq=seq, approval_id=f"apr_{self.made}",
            title="May I?", options=("allow", "deny"), expires_in_s=self.rng.choice((None, 3.0)),
        )  # fmt: skip
        if self.ask(asked).answer == Acked(seq) and key in self.seqs:
            self.seqs[key] = seq

    def interrupt_one(self) -> None:
        if (sid := self.some()) is not None:
            self.ask(rq.Interrupt(session_id=sid, seed=self.seed(), by="op", force=self.rng.random() < 0.3))

    def send_input(self) -> None:
        if (key := self.running_one()) is not None:
            self.ask(rq.SendInput(session_id=key[0], seed=self.seed(), execution_id=key[1], input={"more": self.made}))

    def fail_one(self) -> None:
        if (key := self.running_one()) is not None:
            self.ask(rq.Fail(session_id=key[0], seed=self.seed(), execution_id=key[1], error="by hand"))

    def acknowledge_commands(self) -> None:
        for sid in list(self.owner):
            if sid in self.deleted:
                continue
            for command in self.store.pending_commands(sid, 0, 2):
                status = self.rng.choice(("received", "done", "rejected"))
                framed = self._framed(self.owner[sid])
                self.ask(rq.AckCommand(**framed, command_id=command.command_id, status=status))

    def delete_one(self) -> None:
        sid = self.some()
        if sid is None or self.rng.random() < 0.5:
            return
        self.deleted.add(sid)
        self.store.transact(rq.DeleteSession(session_id=sid, seed=self.seed()))
        self.owner.pop(sid, None)
        self.seqs = {k: v for k, v in self.seqs.items() if k[0] != sid}
        self.tell([("deleted", sid)])
        self.create_one()

    # ------------------------------------------------------------ the service's own

    def time_passes(self) -> None:
        for _ in range(self.rng.randint(1, 12)):
            self.now_ms += 1000
            self.store.tick("gw_1")
        alive = [(sid, con, self.rng.random() < 0.5) for sid, con in self.owner.items() if self.rng.random() < 0.8]
        self.store.flush_seen(alive)
        self.tell([])
        for due in self.store.due(4):
            if self.rng.random() < 0.3:
                self.store.retry_later(due, 2.0)
                self.tell([])
            else:
                self.ask(rq.Sweep(session_id=due.session_id, seed=self.seed(), kind=due.kind, subject=due.subject))

    def webhooks_go_out(self) -> None:
        for hook in self.store.claim_webhooks("lease", 2, 4, {}):
            again = self.rng.random() < 0.5
            self.store.settle_webhook(
                hook.webhook_id, "lease", Again(1.0) if again else Delivered(), 500 if again else 204, None
            )
        self.tell([])

    def registers(self) -> None:
        self.made += 1
        self.store.put_token(f"hash{self.lives}{self.made}", Token(f"tok_{self.lives:x}_{self.made}", "operator"), "op")
        self.actor.register_actor(ActorRow(f"session/{self.made % 5}", "c", f"inc{self.made}", 1, 1))
        self.actor.reaper_beat(f"inc{self.made}", 1, 1)
        if self.rng.random() < 0.3:
            self.store.revoke_token(f"tok_{self.lives:x}_{self.made}", "op")
        self.tell([])

    def retention(self) -> None:
        self.store.janitor(self.rng.choice((2_000, 20_000, DAY_MS)), DAY_MS)
        living = {row["session_id"]: row["first_seq"] for row in self.store.sessions(SessionFilter(limit=500)).items}
        facts: list[Fact] = [("first", sid, seq) for sid, seq in living.items()]
        self.ends = {key for key in self.ends if key[0] in living and self._is_there(*key)}
        self.tell([*facts, ("kept", frozenset(self.ends))])

    def _is_there(self, sid: str, eid: str) -> bool:
        try:
            return bool(self.store.execution(sid, eid))
        except HoldfastError:  # execution_not_found: it went with its age
            return False

    def checkpoint_beside_a_reader(self) -> None:
        """A reader in the middle of its page: the checkpoint cannot finish, and the log goes on growing behind it."""
        reader = self.actor._c.apsw
        reader.execute("begin")
        reader.execute("select count(*) from events").fetchall()
        for _ in range(self.rng.randint(1, 4)):
            self.append_some(or_start=False)  # by the gateway's connection; the actor's is busy reading
        reader.execute("rollback")
        if self.rng.random() < 0.3:
            self.store._c.apsw.wal_checkpoint(mode=self.rng.randrange(4))  # as an operator's tool would

    def reopen(self) -> None:
        """All connections close (SQLite checkpoints and deletes its log), and all open again."""
        self.close()
        self.store = self.another_process()
        self.actor = self.open()


def record(folder: Path, seed: int, steps: int, *, obeys_sync: bool = True, **controls: Any) -> Scribe:
    """One life of a store, watched. It ends without a close, as lives end that a power cut ends."""
    scribe = Scribe(folder, obeys_sync=obeys_sync)
    Storing(folder, scribe, seed, **controls).walk_on(steps)
    return scribe.stop()
