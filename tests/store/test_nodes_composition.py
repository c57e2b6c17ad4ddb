"""Law, store and model devices together, seeded: every kind of loss, repeat and ghost, and what must hold all the same.

The device is a small honest program with a disk: it records, uploads, and deletes a recording only when it was told to.
Between the two stands a line that loses, doubles and delays; gateways die before and after each commit. At every step
the invariants of the store are checked, and in the end, with a good line, everything has to come to rest.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from actors.law.effects import CloseSocket, Fenced, RefuseConnection, Speech
from actors.law.nodes import requests as nq
from actors.law.nodes.answers import Fetched, Ignored, NodeConnected, upward_of
from actors.law.nodes.model import Reported, UploadReport
from actors.law.requests import Request
from actors.law.sweeps import sweep_of
from actors.protocol.ids import ulid
from actors.protocol.node_codes import INTENT_OPEN, TASK_ACTIONS, TASK_TERMINAL
from tests.node_world import SHA, NodeWorld

STEPS = 250


@dataclass
class Recording:
    """On the device's disk until an acknowledgement."""

    status: str = "recorded"  # recorded, accepted, uploaded


@dataclass
class Device:
    """One device with a recorder and an uploader."""

    node_id: str
    state: Reported = field(default_factory=lambda: Reported("idle"))
    disk: dict[tuple[str, int], Recording] = field(default_factory=dict)
    kept: set[tuple[str, int]] = field(default_factory=set)  # deleted because it was acknowledged with keep
    dropped: set[tuple[str, int]] = field(default_factory=set)  # deleted because it was cancelled or discarded
    executed: list[str] = field(default_factory=list)  # invocations that it carried out

    def hear(self, frame: dict[str, Any]) -> list[Any]:
        """What it answers to a frame: reports, uploads, results."""
        match frame["type"]:
            case "task":
                self._task(frame)
                return [self.state]
            case "probe":
                return [self.state]
            case "upload_request":
                return [self._asked(frame)]
            case "upload_ack":
                key = (frame["task_id"], frame["attempt"])
                if self.disk.pop(key, None) is not None:
                    (self.kept if frame["disposition"] == "keep" else self.dropped).add(key)
                return []
            case "invoke":
                self.executed.append(frame["invocation_id"])
                return [("result", frame["invocation_id"])]
        return []

    def _task(self, frame: dict[str, Any]) -> None:
        key = (frame["task_id"], frame["attempt"])
        holds = (self.state.task_id, self.state.attempt) == key
        match frame["action"]:
            case "config" if self.state.state in ("idle", "ready"):
                self.state = Reported("ready", *key)
            case "begin" if holds and self.state.state == "ready":
                self.state = Reported("recording", *key)
            case "pause" if holds and self.state.state == "recording":
                self.state = Reported("paused", *key)
            case "resume" if holds and self.state.state == "paused":
                self.state = Reported("recording", *key)
            case "finish" if holds and self.state.state in ("recording", "paused"):
                self.disk[key] = Recording()
                self.state = Reported("idle")
            case "cancel" | "clear" if holds:
                self.state = Reported("idle")

    def _asked(self, frame: dict[str, Any]) -> UploadReport:
        key = (frame["task_id"], frame["attempt"])
        found = self.disk.get(key)
        if found is None:
            return UploadReport(*key, "not_found")
        if found.status == "recorded":
            found.status = "accepted"
        return row(key, found)

    def uploads(self) -> tuple[UploadReport, ...]:
        return tuple(row(key, r) for key, r in self.disk.items() if r.status != "recorded")

    def work(self, rng: random.Random) -> list[UploadReport]:
        """An upload goes on by itself."""
        out = []
        for key, recording in list(self.disk.items()):
            if recording.status == "accepted" and rng.random() < 0.5:
                recording.status = "uploaded"
            if recording.status == "uploaded":
                out.append(row(key, recording))  # again and again, until it is acknowledged
        return out


def row(key: tuple[str, int], r: Recording) -> UploadReport:
    if r.status == "uploaded":
        return UploadReport(*key, "uploaded", f"{key[0]}/{key[1]}", SHA, 7)
    return UploadReport(*key, "accepted")


class Chaos:
    """The world between operators and devices."""

    def __init__(self, world: NodeWorld, seed: int) -> None:
        self.world, self.rng = world, random.Random(seed)
        self.devices = {n: Device(n) for n in ("n0", "n1")}
        self.now: dict[tuple[str, str], str] = {}  # (node, role) → the device's present connection
        self.ghosts: list[Request] = []  # frames and closes that are still on the way
        self.asked: dict[str, str] = {}  # invocation → node
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.moments: dict[tuple[str, str], int] = {}
        self.ended: dict[str, str] = {}
        self.external: set[str] = set()  # tasks that were done by other devices than these
        self.counter = 0
        self.losses = True

    # ------------------------------------------------------------ the line

    def ask(self, request: Request) -> Any:
        """Through a gateway that may die before the commit, after it, or ask twice."""
        fate = self.rng.random() if self.losses else 1.0
        if fate < 0.04:
            return None  # died before
        outcome = self.world.store.transact(request)
        for speech in outcome.speech:
            self.hear_speech(speech)
        if fate < 0.08:
            again = self.world.store.transact(request)  # the answer was lost, or the actor missed its deadline
            if isinstance(outcome.answer, NodeConnected | Fetched):
                assert again.answer == outcome.answer or isinstance(again.answer, Fenced)
        if fate < 0.14:
            return outcome.answer if isinstance(outcome.answer, NodeConnected | Fetched) else None
        self._carry(request, outcome)
        return outcome.answer

    def _carry(self, request: Request, outcome: Any) -> None:
        upward = upward_of(outcome.answer)
        for report in upward.tasks:
            if self.losses and self.rng.random() < 0.1:
                self.ghosts.append(report)
            else:
                self.world.store.transact(report)
        for told in upward.verify:
            if not self.losses or self.rng.random() < 0.9:
                self._verify(told, outcome.session_id.removeprefix("node/"))

    def _verify(self, told: UploadReport, node_id: str) -> None:
        assert told.object_key and told.sha256 and told.size is not None
        ok = not self.losses or self.rng.random() < 0.9
        request = nq.UploadVerified(
            seed=ulid(),
            task_id=told.task_id,
            node_id=node_id,
            attempt=told.attempt,
            object_key=told.object_key,
            sha256=told.sha256,
            size=told.size,
            ok=ok,
        )
        self.world.store.transact(request)
        if self.losses and self.rng.random() < 0.1:
            self.ghosts.append(request)

    def hear_speech(self, speech: Speech) -> None:
        if isinstance(speech, CloseSocket):
            self._cut(speech.connection_id)

    def _cut(self, connection: str) -> None:
        for key, present in list(self.now.items()):
            if present == connection:
                del self.now[key]

    # ------------------------------------------------------------ the device's side

    def connect(self, node_id: str, role: Any) -> None:
        self.counter += 1
        device, connection = self.devices[node_id], f"con_{self.counter}"
        hello = nq.NodeConnect(
            node_id=node_id,
            seed=ulid(),
            role=role,
            connection_id=connection,
            gateway_id="gw_1",
            instance_id=f"i_{node_id}",
            attempt=self.counter,
            commands=("do",),
            reported=device.state if role == "recorder" and self.rng.random() < 0.8 else None,
            uploads=device.uploads() if role == "transfer" and self.rng.random() < 0.8 else None,
            may_create=True,
        )
        if self.losses and self.rng.random() < 0.1:
            self.ghosts.append(hello)
        answer = self.ask(hello)
        if isinstance(answer, RefuseConnection) or not isinstance(answer, NodeConnected):
            return
        if (old := self.now.get((node_id, role))) is not None:
            self.ghosts.append(self._closed(node_id, role, old))
        self.now[node_id, role] = connection
        self.world.held[connection] = (node_id, role, answer.epoch, f"i_{node_id}")
        self.hear(node_id, role, connection, answer.directives)

    def _closed(self, node_id: str, role: Any, connection: str) -> nq.NodeClosed:
        return nq.NodeClosed(node_id=node_id, seed=ulid(), role=role, connection_id=connection, code=1006)

    def drop(self, node_id: str, role: Any) -> None:
        connection = self.now.pop((node_id, role), None)
        if connection is not None:
            self.ghosts.append(self._closed(node_id, role, connection))

    def hear(self, node_id: str, role: str, connection: str, frames: tuple[dict[str, Any], ...]) -> None:
        for frame in frames:
            if self.losses and self.rng.random() < 0.1:
                continue  # written to a dead socket
            for said in self.devices[node_id].hear(frame):
                self.say(node_id, role, connection, said)

    def say(self, node_id: str, role: str, connection: str, said: Any) -> None:
        if connection not in self.world.held:
            return
        framed, request = self.world.framed(connection), None
        if isinstance(said, Reported):
            request = nq.NodeState(**framed, reported=said)
        elif isinstance(said, UploadReport):
            request = nq.NodeUpload(**framed, report=said)
        else:
            request = nq.InvokeResult(**framed, invocation_id=said[1], ok=True, payload={"by": connection})
        if self.losses and self.rng.random() < 0.1:
            self.ghosts.append(request)  # delayed, for as long as it takes
            return
        answer = self.ask(request)
        assert answer is None or not isinstance(answer, Ignored) or isinstance(said, tuple)

    def fetch(self, node_id: str, role: str) -> None:
        connection = self.now.get((node_id, role))
        if connection is None:
            return
        answer = self.ask(nq.NodeFetch(**self.world.framed(connection), limit=self.rng.choice((1, 64))))
        if isinstance(answer, Fetched):
            self.hear(node_id, role, connection, answer.frames)

    # ------------------------------------------------------------ one step of anything

    def step(self) -> None:
        rng, node_id = self.rng, self.rng.choice(list(self.devices))
        role = rng.choice(("node", "recorder", "transfer"))
        moves: list[tuple[int, Callable[[], None]]] = [
            (3, lambda: self.connect(node_id, role)),
            (4, lambda: self.come_back(node_id)),
            (2, lambda: self.drop(node_id, role)),
            (14, lambda: self.fetch(node_id, role)),
            (8, lambda: self.report(node_id)),
            (8, lambda: self.upload(node_id)),
            (5, lambda: self.ghost()),
            (16, lambda: self.operate(node_id)),
            (5, lambda: self.invoke(node_id)),
            (1, lambda: self.reboot(node_id)),
            (2, lambda: self.tunnel(node_id)),
            (5, lambda: self.pass_time(rng.choice((1, 1, 3, 10, 40)))),
        ]
        weights, does = zip(*moves, strict=True)
        rng.choices(does, weights)[0]()
        self.check()

    def come_back(self, node_id: str) -> None:
        for role in ("node", "recorder", "transfer"):
            if (node_id, role) not in self.now:
                self.connect(node_id, role)

    def report(self, node_id: str) -> None:
        if (connection := self.now.get((node_id, "recorder"))) is not None:
            self.say(node_id, "recorder", connection, self.devices[node_id].state)

    def upload(self, node_id: str) -> None:
        if (connection := self.now.get((node_id, "transfer"))) is not None:
            for told in self.devices[node_id].work(self.rng):
                self.say(node_id, "transfer", connection, told)

    def reboot(self, node_id: str) -> None:
        """Power is lost: what was being recorded is gone, what is on the disk is not."""
        self.devices[node_id].state = Reported("idle")
        for role in ("node", "recorder", "transfer"):
            self.drop(node_id, role)

    def tunnel(self, node_id: str) -> None:
        """Out of reach for longer than any grace; the device goes on with what it does, or has lost power."""
        if self.rng.random() < 0.5:
            self.reboot(node_id)
        self.drop(node_id, "recorder")
        while self.ghosts and self.rng.random() < 0.9:
            self.ghost()
        self.pass_time(35)

    def ghost(self) -> None:
        if self.ghosts:
            self.world.store.transact(self.ghosts.pop(self.rng.randrange(len(self.ghosts))))

    def operate(self, node_id: str) -> None:
        """Mostly what fits, and now and then anything at all."""
        rng, tasks = self.rng, self.tasks(node_id)
        if not tasks or (len(tasks) < 3 and rng.random() < 0.1):
            self.counter += 1
            if self.world.store._c.execute("select 1 from nodes where id = ?", (node_id,)).fetchone():
                self.ask(nq.CreateTask(task_id=f"t{self.counter}", node_id=node_id, seed=ulid()))
            return
        task_id, status = rng.choice(tasks)
        fitting = {
            "pending": ("config",),
            "ready": ("begin", "begin", "begin", "begin", "clear"),
            "in_progress": ("finish", "finish", "finish", "pause", "resume"),
        }
        action = rng.choice(fitting.get(status, ("finish",)))
        if rng.random() < 0.1:
            action = rng.choice(list(TASK_ACTIONS))
        self.report(node_id)
        self.ask(nq.TaskAction(task_id=task_id, seed=ulid(), action=action))
        if rng.random() < 0.8:
            self.fetch(node_id, "recorder")

    def tasks(self, node_id: str) -> list[tuple[str, str]]:
        rows = self.world.store._c.execute(
            "select id, status from tasks where node_id = ? and status not in ('completed', 'failed')", (node_id,)
        )
        found = [(r[0], r[1]) for r in rows.fetchall()]
        return [t for t in found if t[1] in ("ready", "in_progress")] or found

    def invoke(self, node_id: str) -> None:
        if self.rng.random() < 0.2 and self.asked:
            iid = self.rng.choice(list(self.asked))
            self.ask(nq.CancelInvocation(node_id=self.asked[iid], seed=ulid(), invocation_id=iid))
            return
        self.counter += 1
        iid = f"inv_{self.counter}"
        if self.world.store._c.execute("select 1 from nodes where id = ?", (node_id,)).fetchone():
            self.asked[iid] = node_id
            self.ask(
                nq.Invoke(
                    node_id=node_id,
                    seed=ulid(),
                    invocation_id=iid,
                    command="do",
                    timeout_s=self.rng.choice((0.0, 5.0, 30.0)) if self.losses else 5.0,
                )
            )

    def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.world.now_ms += 1000
            self.world.store.tick("gw_1")
            for d in self.world.store.due(1000):
                self.ask(sweep_of(d.session_id, d.kind, d.subject, ulid()))

    # ------------------------------------------------------------ what must hold

    def check(self) -> None:
        c = self.world.store._c
        for device in self.devices.values():
            for key in device.kept:
                # Commit first, acknowledge second: what the device deleted is ours.
                stored = c.execute("select attempt from artifacts where task_id = ?", (key[0],)).fetchone()
                assert stored == (key[1],), key
            for task_id, attempt in device.dropped:
                status, at = c.execute("select status, attempt from tasks where id = ?", (task_id,)).fetchone()
                unwanted = status in ("cancelled", "failed") or task_id in self.external or at > attempt
                assert unwanted, (task_id, attempt, status, at)
        kept = dict(c.execute("select task_id, attempt from artifacts").fetchall())
        for row_ in c.execute(
            "select id, status, attempt, ready_at_ms, started_at_ms, paused_at_ms, finished_at_ms, uploaded_at_ms, "
            "completed_at_ms, cancelled_at_ms, failed_at_ms from tasks"
        ).fetchall():
            task_id, status, attempt, *moments = row_
            assert (status == "completed") == (task_id in kept or task_id in self.external)
            for k, moment in enumerate(moments):
                if moment is not None:  # set once
                    assert self.moments.setdefault((task_id, str(k)), moment) == moment
            if status in TASK_TERMINAL:
                assert self.ended.setdefault(task_id, status) == status
                open_ = c.execute(
                    "select count(*) from upload_intents where task_id = ? and state in ('requested', "
                    "'accepted', 'uploaded')",
                    (task_id,),
                ).fetchone()[0]
                settled = c.execute(
                    "select count(*) from deadlines where kind = 'upload_resend' and subject = ?",
                    (f"{task_id}:{attempt}",),
                ).fetchone()[0]
                assert open_ == 0 or settled, (task_id, "an intent of an ended task that nobody will look at")
        busy = c.execute(
            "select count(*) from tasks t where status in ('ready', 'in_progress') and not exists "
            "(select 1 from node_roles r where r.node_id = t.node_id and r.role = 'recorder')"
        ).fetchone()
        assert busy == (0,)
        self._check_invocations()
        owners = c.execute("select count(*), count(distinct connection_epoch) from node_roles").fetchone()
        assert owners[0] == owners[1]
        for node_id, role, epoch in c.execute("select node_id, role, connection_epoch from node_outbox").fetchall():
            held = c.execute(
                "select link, connection_epoch from node_roles where node_id = ? and role = ?", (node_id, role)
            ).fetchone()
            assert held == ("connected", epoch)  # nothing waits for a connection that is gone

    def _check_invocations(self) -> None:
        c = self.world.store._c
        executed = {iid: d.node_id for d in self.devices.values() for iid in d.executed}
        for iid in self.asked:
            row_ = c.execute(
                "select state, dispatched, ok, error_code, connection_id, node_id from invocations where id = ?", (iid,)
            ).fetchone()
            if row_ is None:
                continue
            state, dispatched, ok, code, connection, node_id = row_
            if iid in executed:
                assert dispatched == 1 and executed[iid] == node_id  # unsent is certain
            if state == "settled":
                assert (ok == 1) == (code is None)
                assert self.outcomes.setdefault(iid, {"row": row_})["row"] == row_  # one outcome, for ever
                if ok:
                    assert iid in executed
            else:
                owner = c.execute(
                    "select connection_id from node_roles where node_id = ? and role = 'node' and link = 'connected'",
                    (node_id,),
                ).fetchone()
                assert owner == (connection,)  # what waits, waits on the present owner
        for d in self.devices.values():
            assert len(set(d.executed)) == len(d.executed)  # a frame of one fetch was written once

    # ------------------------------------------------------------ with a good line, everything comes to rest

    def settle(self) -> None:
        self.losses = False
        while self.ghosts:
            self.ghost()
            self.check()
        for node_id in self.devices:
            for role in ("node", "recorder", "transfer"):
                self.connect(node_id, role)
        for _ in range(130):
            self.pass_time(1)
            for node_id in self.devices:
                self.report(node_id)
                self.upload(node_id)
                for role in ("node", "recorder", "transfer"):
                    self.fetch(node_id, role)
            self.check()
        c = self.world.store._c
        states = {r[0] for r in c.execute("select distinct state from upload_intents").fetchall()}
        assert not states & INTENT_OPEN, states
        assert c.execute("select count(*) from tasks where status = 'uploading'").fetchone() == (0,)
        assert c.execute("select count(*) from invocations where state != 'settled' and timeout_s > 0").fetchone() == (
            0,
        )
        assert c.execute("select count(*) from deadlines where kind != 'invocation'").fetchone() == (0,)
        for device in self.devices.values():
            for key, recording in device.disk.items():
                # What is left on the disk nobody wants; of what we wanted, nothing was lost and nothing is on the way.
                status, attempt, detail = c.execute(
                    "select status, attempt, detail from tasks where id = ?", (key[0],)
                ).fetchone()
                unwanted = status == "cancelled" or detail in ("upload_failed", "object_mismatch") or attempt > key[1]
                unwanted = unwanted or key[0] in self.external
                assert recording.status == "recorded" and unwanted, (key, recording, status, attempt, detail)
            self._device_and_task_agree(device)

    def _device_and_task_agree(self, device: Device) -> None:
        said = device.state
        if said.state == "idle":
            return
        status, attempt = self.world.store._c.execute(
            "select status, attempt from tasks where id = ?", (said.task_id,)
        ).fetchone()
        expected = {"ready": "ready", "recording": "in_progress", "paused": "in_progress"}[said.state]
        assert (status, attempt) == (expected, said.attempt)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_lost_doubled_or_late(tmp_path: Path, seed: int) -> None:
    world = NodeWorld(tmp_path)
    world.carries = False
    chaos = Chaos(world, seed)
    for _ in range(STEPS):
        chaos.step()
    chaos.settle()
    world.close()
