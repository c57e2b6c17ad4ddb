"""The spool: all that a wrapper must remember, each change one durable transaction (WAL, synchronous=FULL).

Rules: a record is here before it is sent and until it is acknowledged. The position in the shim's segments moves in
the same transaction as the records made of them. A command is here before its `received`. An execution is unknown,
here, or a tombstone; it is never two of them. One thread uses it at a time. Every method raises SpoolFull (rolled
back, try again) or SpoolBroken (end the process).
"""

from __future__ import annotations

import json
import time
from typing import Any, Final, Literal, NamedTuple, get_args

from actors.protocol.defaults import MAX_SAFE_INTEGER, TOMBSTONES
from wrapper.drivers.base import dumps
from wrapper.effects import Known
from wrapper.ladder import Ladder
from wrapper.records import Records, row_of
from wrapper.segments import Position

State = Literal["received", "running", "final"]
COMMANDS_KEPT: Final = 1000  # for recognising a command that comes again


class Execution(NamedTuple):
    no: int
    execution_id: str
    state: State
    input: Any
    limits: dict[str, Any]
    acked_seq: int
    last_seq: int
    launches: int
    run_dir: str | None
    agent_pid: int | None
    at: Position
    driver_state: dict[str, str]
    stdin_len: int
    ladder: Ladder | None
    dropped: str | None
    final: dict[str, Any] | None


class Command(NamedTuple):
    command_id: str
    execution_id: str
    kind: str
    status: str
    code: str | None
    detail: str | None


_COLUMNS = (
    "no, execution_id, state, input, limits, acked_seq, last_seq, launches, run_dir, agent_pid, segment, offset,"
    " driver_state, stdin_len, ladder, dropped, final"
)


class Spool(Records):
    def look_through(self) -> None:
        for row in self.executions():
            numbers = (row.no, row.acked_seq, row.last_seq, row.launches, row.stdin_len, *row.at)
            if not all(isinstance(number, int) for number in numbers) or row.state not in get_args(State):
                raise ValueError(f"the row of {row.execution_id} is none of ours")
            if not isinstance(row.limits, dict) or not isinstance(row.driver_state, dict):
                raise ValueError(f"the row of {row.execution_id} is none of ours")
        self.known()

    def executions(self) -> list[Execution]:
        return [_execution(row) for row in self._all(f"SELECT {_COLUMNS} FROM executions ORDER BY no")]  # noqa: S608

    def get(self, execution_id: str) -> Execution | None:
        row = self._one(f"SELECT {_COLUMNS} FROM executions WHERE execution_id = ?", execution_id)  # noqa: S608
        return None if row is None else _execution(row)

    def known(self) -> list[Known]:
        """What a hello says of us. Nothing of what was dropped: its records are gone and its end will not be told, so
        a server that was restored, and has that execution anew, must not count on us for it."""
        rows = self._all(
            "SELECT execution_id, state, acked_seq + 1, last_seq, final FROM executions"
            " WHERE dropped IS NULL ORDER BY no"
        )
        return [Known(a, b, c, d, None if final is None else json.loads(final)) for a, b, c, d, final in rows]

    def ended(self, execution_id: str) -> bool:
        return self._one("SELECT 1 FROM tombstones WHERE execution_id = ?", execution_id) is not None

    def remembers(self, execution_id: str) -> bool:
        return self.ended(execution_id) or self.get(execution_id) is not None

    def receive_start(self, command_id: str, execution_id: str, value: Any, limits: dict[str, Any]) -> bool:
        """False for a repetition: known or ended. It is acknowledged all the same, and never run again."""
        with self._writing():
            new = not self.remembers(execution_id)
            if new:
                self._db.execute(
                    "INSERT INTO executions (execution_id, input, limits, received_at_ms) VALUES (?, ?, ?, ?)",
                    (execution_id, json.dumps(value), json.dumps(limits), _now_ms()),
                )
            self._note(command_id, execution_id, "start", "received")
        return new

    def launching(self, no: int, run_dir: str, stdin_len: int) -> bool:
        """False when it was buried meanwhile."""
        with self._writing():
            changed = self._db.execute(
                "UPDATE executions SET launches = launches + 1, run_dir = ?, segment = 0, offset = 0,"
                " driver_state = '{}', stdin_len = ?, agent_pid = NULL, facts = NULL WHERE no = ?",
                (run_dir, stdin_len, no),
            )
        return changed.rowcount == 1

    def adopt(self, no: int, run_dir: str) -> None:
        """The spool is older than the truth: a shim's directory shows that this one ran."""
        with self._writing():
            self._db.execute("UPDATE executions SET state = 'running', run_dir = ? WHERE no = ?", (run_dir, no))

    def launched(self, no: int, pid: int | None, facts: dict[str, Any]) -> int:
        """The child waits behind its gate: who it is, and `started` as record 1 (once). Returns last_seq."""
        body = dumps({"pid": pid})
        with self._writing():
            self._db.execute(
                "UPDATE executions SET agent_pid = ?, facts = ? WHERE no = ?", (pid, json.dumps(facts), no)
            )
            if self._last_seq(no) == 0:
                self._insert(no, [row_of("started", body)])
            else:
                self._db.execute("UPDATE records SET body = ? WHERE no = ? AND kind = 'started'", (body, no))
            return self._last_seq(no)

    def open_gate(self, no: int) -> None:
        """Recorded before the shim is told: from here on the command may have run."""
        with self._writing():
            self._db.execute("UPDATE executions SET state = 'running' WHERE no = ? AND state = 'received'", (no,))

    def climb(self, no: int, ladder: Ladder, body: str | None = None) -> int:
        with self._writing():
            self._db.execute("UPDATE executions SET ladder = ? WHERE no = ?", (ladder.to_json(), no))
            return self._insert(no, [row_of("event", body)] if body else [])

    def drop(self, no: int, reason: str, ladder: Ladder) -> None:
        """The server has no use for what it says any more; its child is still to be ended."""
        with self._writing():
            self._db.execute(
                "UPDATE executions SET dropped = ?, ladder = ? WHERE no = ?", (reason, ladder.to_json(), no)
            )
        self._forget(no, MAX_SAFE_INTEGER)

    def bury(self, execution_id: str) -> None:
        """Ended and done with: a tombstone, and nothing else."""
        row = self.get(execution_id)
        if row is not None:
            self._forget(row.no, MAX_SAFE_INTEGER)
        with self._writing():
            self._db.execute("DELETE FROM executions WHERE execution_id = ?", (execution_id,))
            self._db.execute(
                "INSERT OR IGNORE INTO tombstones (execution_id, ended_at_ms) VALUES (?, ?)", (execution_id, _now_ms())
            )
            self._db.execute("DELETE FROM tombstones WHERE n <= (SELECT max(n) FROM tombstones) - ?", (TOMBSTONES,))
            self._db.execute("UPDATE commands SET stdin = NULL WHERE execution_id = ?", (execution_id,))
            self._db.execute("DELETE FROM commands WHERE n <= (SELECT max(n) FROM commands) - ?", (COMMANDS_KEPT,))
            if row is not None:
                self._db.execute("DELETE FROM approvals WHERE no = ?", (row.no,))

    # ------------------------------------------------------------ commands

    def command(self, command_id: str) -> Command | None:
        row = self._one(
            "SELECT command_id, execution_id, kind, status, code, detail FROM commands WHERE command_id = ?", command_id
        )
        return None if row is None else Command(*row)

    def _note(
        self,
        command_id: str,
        execution_id: str,
        kind: str,
        status: str,
        code: str | None = None,
        detail: str | None = None,
    ) -> None:
        self._db.execute(
            "INSERT INTO commands (command_id, execution_id, kind, status, code, detail) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (command_id) DO UPDATE SET status = excluded.status, code = excluded.code",
            (command_id, execution_id, kind, status, code, detail),
        )

    def note(
        self,
        command_id: str,
        execution_id: str,
        kind: str,
        status: str,
        code: str | None = None,
        detail: str | None = None,
    ) -> None:
        with self._writing():
            self._note(command_id, execution_id, kind, status, code, detail)

    def note_ladder(self, command_id: str, execution_id: str, kind: str, no: int, ladder: Ladder) -> None:
        """An interrupt or abort and the ladder that it begins: both or neither."""
        with self._writing():
            self._note(command_id, execution_id, kind, "received")
            self._db.execute("UPDATE executions SET ladder = ? WHERE no = ?", (ladder.to_json(), no))

    def note_input(self, command_id: str, execution_id: str, kind: str, no: int, data: bytes) -> int | None:
        """More stdin, at a place that is settled here: delivering it twice is delivering it once. Returns the place;
        None when the execution ended, or was buried, while this waited."""
        with self._writing():
            row = self._one("SELECT stdin_len FROM executions WHERE no = ? AND state = 'running'", no)
            if row is None:
                return None
            at = int(row[0])
            self._note(command_id, execution_id, kind, "done")
            self._db.execute("UPDATE commands SET stdin_at = ?, stdin = ? WHERE command_id = ?", (at, data, command_id))
            self._db.execute("UPDATE executions SET stdin_len = ? WHERE no = ?", (at + len(data), no))
            return at

    def inputs(self, execution_id: str) -> list[tuple[int, bytes]]:
        sql = "SELECT stdin_at, stdin FROM commands WHERE execution_id = ? AND stdin IS NOT NULL ORDER BY n"
        return [(int(at), bytes(data)) for at, data in self._all(sql, execution_id)]

    def approval_ref(self, approval_id: str) -> str | None:
        row = self._one("SELECT ref FROM approvals WHERE approval_id = ?", approval_id)
        return None if row is None or row[0] is None else str(row[0])

    def carried_out(self, execution_id: str) -> list[str]:
        """The execution has ended: its interrupts and aborts are done. Returns their command ids."""
        where = "execution_id = ? AND kind IN ('interrupt', 'abort') AND status <> 'rejected'"
        with self._writing():
            self._db.execute(f"UPDATE commands SET status = 'done' WHERE {where}", (execution_id,))  # noqa: S608
        rows = self._all(f"SELECT command_id FROM commands WHERE {where} ORDER BY n", execution_id)  # noqa: S608
        return [str(row[0]) for row in rows]


def _now_ms() -> int:
    return int(time.time() * 1000)


def _execution(row: tuple[Any, ...]) -> Execution:
    (
        no,
        eid,
        state,
        value,
        limits,
        acked,
        last,
        launches,
        run_dir,
        pid,
        segment,
        offset,
        driver,
        stdin,
        ladder,
        dropped,
        final,
    ) = row
    return Execution(
        no, eid, state, json.loads(value), json.loads(limits), acked, last, launches, run_dir, pid,
        Position(segment, offset), json.loads(driver), stdin, Ladder.from_json(ladder), dropped,
        None if final is None else json.loads(final),
    )  # fmt: skip
