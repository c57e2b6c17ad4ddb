"""A decision about a node being written: collects effects and keeps the view in step. Local to one decision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from actors.law.effects import Answer, NodeWaits, Speech
from actors.law.nodes.answers import Frame
from actors.law.nodes.effects import (
    ArmNode,
    DisarmNode,
    InsertIntent,
    LogEvent,
    NodeDecision,
    NodeEffect,
    Post,
    SetIntent,
    SetInvocation,
    SetNotice,
    SetRole,
    SetTask,
    TakeNodeEpoch,
)
from actors.law.nodes.model import Intent, Invocation, NodeDeadlineKind, NodeView, Notice, Role, Task
from actors.protocol.node_codes import Role as RoleName


class NodeDraft:
    """node_id: whose roles, log, outbox and deadlines it writes to. A task's decision has its node's."""

    def __init__(self, view: NodeView, node_id: str) -> None:
        self.view, self.node_id = view, node_id
        self.roles = dict(view.roles)
        self.invocations = dict(view.invocations)
        self.tasks = dict(view.tasks)
        self.intents = dict(view.intents)
        self.notices = dict(view.notices)
        self.effects: list[NodeEffect] = []
        self._speech: list[Speech] = []

    # ------------------------------------------------------------ reading

    def service_after(self, seconds: float) -> int:
        return self.view.service_ms + round(seconds * 1000)

    def busy_tasks(self, but: str | None = None) -> list[Task]:
        """What occupies the recorder."""
        return [t for t in self.tasks.values() if t.node_id == self.node_id and t.busy and t.task_id != but]

    def order_of(self, task_id: str) -> str | None:
        """Which order owns it, as far as we know of the task."""
        task = self.tasks.get(task_id)
        return task.order_id if task is not None else None

    def connected(self, role: RoleName) -> Role | None:
        found = self.roles.get(role)
        return found if found is not None and found.connected else None

    # ------------------------------------------------------------ writing

    def do(self, *effects: NodeEffect) -> None:
        self.effects.extend(effects)

    def say(self, *speech: Speech) -> None:
        self._speech.extend(s for s in speech if s not in self._speech)

    def log(self, type: str, data: Any) -> None:
        if self.view.node is not None:
            self.do(LogEvent(self.node_id, type, data))

    def take_epoch(self) -> int:
        """A number that no session and no role ever had. One per decision."""
        self.do(TakeNodeEpoch(self.view.next_epoch))
        return self.view.next_epoch

    def set_role(self, name: RoleName, **changes: Any) -> Role:
        before = self.roles[name]
        after = self.roles[name] = replace(before, **changes)
        self.do(SetRole(self.node_id, name, before.connection_epoch, changes))
        return after

    def post(self, name: RoleName, frame: Frame, invocation_id: str | None = None) -> bool:
        """To whoever owns the role now; nobody: nothing. Whoever comes next gets what reconciliation finds."""
        role = self.connected(name)
        if role is None:
            return False
        self.do(Post(self.node_id, name, role.connection_epoch, frame, invocation_id))
        self.say(NodeWaits(self.node_id))
        return True

    def arm(self, kind: NodeDeadlineKind, key: str, after_s: float, *, keep: bool = False) -> None:
        self.do(ArmNode(self.node_id, kind, key, self.service_after(after_s), keep))

    def disarm(self, kind: NodeDeadlineKind, key: str) -> None:
        self.do(DisarmNode(self.node_id, kind, key))

    def set_invocation(self, invocation_id: str, **changes: Any) -> Invocation:
        before = self.invocations[invocation_id]
        after = self.invocations[invocation_id] = replace(before, **changes)
        self.do(SetInvocation(invocation_id, before.state, changes))
        return after

    def set_task(self, task_id: str, **changes: Any) -> Task:
        before = self.tasks[task_id]
        after = self.tasks[task_id] = replace(before, **changes)
        self.do(SetTask(task_id, before.status, changes))
        return after

    def set_notice(self, notice_id: str, **changes: Any) -> Notice:
        before = self.notices[notice_id]
        after = self.notices[notice_id] = replace(before, **changes)
        self.do(SetNotice(notice_id, before.sends, changes))
        return after

    def insert_intent(self, intent: Intent) -> None:
        self.intents[intent.task_id, intent.attempt] = intent
        self.do(InsertIntent(intent))

    def set_intent(self, task_id: str, attempt: int, **changes: Any) -> Intent:
        before = self.intents[task_id, attempt]
        after = self.intents[task_id, attempt] = replace(before, **changes)
        self.do(SetIntent(task_id, attempt, before.state, changes))
        return after

    def decide(self, answer: Answer) -> NodeDecision:
        return NodeDecision(answer, tuple(self.effects), tuple(self._speech))
