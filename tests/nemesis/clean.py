"""Clean histories, made from a seed: what every client of a healthy service would have recorded. Nothing is run.

A history is a list of lines (plain dictionaries); the planting functions of test_checker.py spoil them one by one.
"""

from __future__ import annotations

import json
import random
from typing import Any

from actors.history import Observation, content_hash, parse

Line = dict[str, Any]
LIMITS = {"pending_s": 60, "stale_s": 30, "grace_s": 5, "hung_s": 20, "max_runtime_s": 40, "interrupt_s": 8}
CAUSES = ("disconnected", "never_started", "max_runtime", "interrupt_timeout", "hung", "stale")


class History:
    """One session after the other, on one monotonic clock; wall time is the same clock plus an hour."""

    def __init__(self, seed: int, sessions: int = 2, executions: int = 4) -> None:
        self.random, self.lines, self.now, self.epoch, self.n = random.Random(seed), [], 10.0, 0, 0
        for i in range(sessions):
            Session(self, f"s{i}", executions)
        self.say("nemesis", "quiet")
        self.now += 30
        self.say("store", "end", settled=True)

    def say(self, who: str, what: str, **fields: Any) -> Line:
        self.now += self.random.uniform(0.001, 0.05)
        line: Line = {"who": who, "at": round(self.now, 4), "what": what, **fields}
        self.lines.append(line)
        return line


class Session:
    def __init__(self, history: History, sid: str, executions: int) -> None:
        self.h, self.sid, self.rows = history, sid, []
        self.connection: str | None = None
        self.dump: list[Line] = []
        self.connect()
        causes = self.h.random.sample(CAUSES, 2)
        for k in range(executions):
            kinds = ["completed", "interrupted", *causes]
            self.execution(f"e{k}", kinds[k] if k < len(kinds) else "completed")
        for reader in ("reader-a", "reader-b"):
            self.read(reader)
        self.h.lines += [{"who": "store", "at": self.h.now, "what": "stored", "session": sid, **r} for r in self.rows]
        self.h.lines += self.dump
        link = "connected" if self.connection else "offline"
        self.say("store", "session", link=link, first_seq=1, last_seq=len(self.rows), stream_id=f"str_{sid}")

    def say(self, who: str, what: str, **fields: Any) -> Line:
        return self.h.say(who, what, session=self.sid, **fields)

    def store(self, kind: str, data: Any, execution: str | None = None, exec_seq: int | None = None) -> None:
        self.h.now += 0.001
        row = {"seq": len(self.rows) + 1, "execution": execution, "exec_seq": exec_seq, "type": kind, "data": data}
        self.rows.append({**row, "at_ms": round(self.h.now * 1000) + 3_600_000})

    def connect(self, resumed: bool = False) -> None:
        self.h.epoch += 1
        self.h.n += 1
        self.connection = f"con_{self.h.n}"
        who = {"connection_id": self.connection, "epoch": self.h.epoch, "wrapper_id": f"w_{self.sid}"}
        self.store("wrapper.resumed" if resumed else "wrapper.connected", who)
        self.say(f"wrapper-{self.sid}", "owned", connection=self.connection, epoch=self.h.epoch)

    def disconnect(self) -> None:
        self.store("wrapper.disconnected", {"connection_id": self.connection, "reason": "cut"})
        self.connection = None

    def frame(self, eid: str, seq: int, events: list[tuple[str, Any]], *, kind: str | None = None) -> None:
        """Sent, stored, acknowledged; now and then twice on the wire, as after a lost acknowledgement."""
        for _ in range(self.h.random.choice((1, 1, 2))):
            hashes = [None] if kind else [content_hash(*e) for e in events]
            sent = {"execution": eid, "connection": self.connection, "seq": seq, "hashes": hashes}
            self.say(f"wrapper-{self.sid}", "sent", **sent)
        for i, (name, data) in enumerate(events):
            self.store(name, data, eid, seq + i)
        acked = {"execution": eid, "connection": self.connection, "seq": seq + len(events) - 1}
        self.say(f"wrapper-{self.sid}", "acked", **acked)

    def execution(self, eid: str, kind: str) -> None:
        if self.connection is None:
            self.connect()
        self.ask("submit", eid, 202, execution={"execution_id": eid, "status": "pending", "outcome": None})
        self.store("execution.pending", {}, eid)
        interrupt, acked, agent = None, 0, f"agent-{eid}"
        if kind == "never_started":
            self.h.now += LIMITS["pending_s"]
            self.end(eid, "failed", kind, acked)
            return
        self.frame(eid, 1, [("execution.started", {"pid": 7})], kind="started")
        self.say(agent, "ran", execution=eid)
        seq, lines = 2, self.h.random.randrange(3, 9)
        for n in range(lines):
            text = f"{eid} line {n}\n"
            self.say(agent, "writing", execution=eid, text=text)
            self.say(agent, "wrote", execution=eid, text=text)
            self.frame(eid, seq, [("output", {"stream": "stdout", "text": text})])
            seq += 1
            if n == lines // 2 and self.h.random.random() < 0.7:
                self.disconnect()
                self.h.now += LIMITS["grace_s"] / 2
                self.connect(resumed=True)
        acked = seq - 1
        if kind in ("interrupted", "interrupt_timeout"):
            self.h.n += 1
            interrupt = f"int_{self.h.n}"
            shown = {"execution_id": eid, "status": "running", "outcome": None}
            for _ in range(2):
                self.ask("interrupt", eid, 202, interrupt_id=interrupt, execution=shown)
            self.store("interrupt.requested", {"interrupt_id": interrupt, "force": False}, eid)
        if kind in ("completed", "interrupted"):
            if interrupt:
                self.say(agent, "signalled", execution=eid, signal="SIGINT")
            self.say(agent, "exited", execution=eid)
            self.end(eid, kind, None, acked, interrupt, seq)
            return
        if kind == "disconnected":
            self.disconnect()
        names = {"disconnected": "grace_s", "interrupt_timeout": "interrupt_s"}
        self.h.now += LIMITS[names.get(kind, f"{kind}_s")]
        self.end(eid, "interrupted" if interrupt else "failed", kind, acked, interrupt)

    def end(
        self,
        eid: str,
        status: str,
        cause: str | None,
        acked: int,
        interrupt: str | None = None,
        seq: int | None = None,
    ) -> None:
        code = 0 if status == "completed" else None
        data = {"status": status, "cause": cause, "error": None, "exit_code": code, "signal": None, "data": {}}
        if seq is not None:
            self.frame(eid, seq, [(f"execution.{status}", data)], kind="final")
            acked = seq
        else:
            self.store(f"execution.{status}", data, eid)
        shown = {"execution_id": eid, "status": status, "outcome": data}
        self.ask("fail", eid, 200, changed=False, execution=shown)
        self.ask("read", eid, 200, execution=shown)
        row = {"execution": eid, "status": status, "acked_seq": acked, "outcome": data, "interrupt_id": interrupt}
        self.dump.append(
            {
                "who": "store",
                "at": self.h.now,
                "what": "execution",
                "session": self.sid,
                **row,
                "limits": LIMITS,
            }
        )

    def ask(self, op: str, eid: str, status: int, **answer: Any) -> None:
        self.h.n += 1
        number = f"q{self.h.n}"
        self.say("operator", "asked", id=number, op=op, execution=eid)
        if self.h.random.random() < 0.1:
            self.say("operator", "unknown", id=number)
            self.h.n += 1
            number = f"q{self.h.n}"
            self.say("operator", "asked", id=number, op=op, execution=eid)
        self.h.say("operator", "answered", id=number, status=status, **answer)

    def read(self, reader: str) -> None:
        """In batches, with a reconnect between some of them."""
        at = 0
        while at < len(self.rows):
            if at == 0 or self.h.random.random() < 0.3:
                self.say(reader, "opened", after_seq=at, stream_id=f"str_{self.sid}")
            batch = self.rows[at : at + self.h.random.randrange(1, 6)]
            self.say(reader, "delivered", events=[[r["seq"], content_hash(r["type"], r["data"])] for r in batch])
            at += len(batch)
        self.say(reader, "finished")


def observed(lines: list[Line]) -> list[Observation]:
    """Through the text of a file, so that the format is what is judged."""
    return list(parse((json.dumps(line) for line in lines), "planted"))
