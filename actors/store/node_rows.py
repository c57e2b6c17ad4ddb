"""Between the rows of nodes and the law's values: which columns there are, and how each is written. Runs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Generic, TypeVar

from actors.law.nodes.model import Artifact, Enrolment, Intent, Invocation, Node, OutboxRow, Role, Task
from actors.store.rows import dumps, loads

T = TypeVar("T")
# A JSON column is never NULL unless None means "not there" (_NULLABLE): a null payload is the text `null`.
_JSON = frozenset(
    {"client", "commands", "capabilities", "params", "progress", "payload", "frame", "allow", "tasks", "sop_version"}
)
_NULLABLE = frozenset({"allow", "sop_version", "capabilities"})
_TUPLES = frozenset({"commands", "allow", "tasks"})
_FLAGS = frozenset({"drained", "synced", "began", "dispatched", "ok", "verified"})


@dataclass(frozen=True)
class Table(Generic[T]):
    """A dataclass and its table; `names` has the attributes whose column is called otherwise."""

    name: str
    kind: type[T]
    names: Mapping[str, str]

    @cached_property
    def attributes(self) -> tuple[str, ...]:
        return tuple(f.name for f in fields(self.kind))  # type: ignore[arg-type]

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.names.get(a, a) for a in self.attributes)

    def select(self, rest: str) -> str:
        return f"select {', '.join(self.columns)} from {self.name} {rest}"

    @cached_property
    def insert(self) -> str:
        return f"insert into {self.name} ({', '.join(self.columns)}) values ({', '.join('?' * len(self.columns))})"

    def values(self, item: T) -> list[Any]:
        return [stored(a, getattr(item, a)) for a in self.attributes]

    def read(self, row: tuple[Any, ...]) -> T:
        values = list(row)
        for i, attribute in self._encoded:
            values[i] = value(attribute, values[i])
        return self.kind(*values)

    @cached_property
    def _encoded(self) -> tuple[tuple[int, str], ...]:
        """The columns that are not what the law reads."""
        return tuple((i, a) for i, a in enumerate(self.attributes) if a in _JSON or a in _FLAGS)

    def update(self, changes: Mapping[str, Any], where: str) -> tuple[str, list[Any]]:
        """The caller appends the parameters of `where`."""
        columns = [self.names.get(a, a) for a in changes]
        sql = f"update {self.name} set {', '.join(f'{c} = ?' for c in columns)} where {where}"
        return sql, [stored(a, v) for a, v in changes.items()]


def stored(attribute: str, value: Any) -> Any:
    if attribute in _JSON:
        if value is None and attribute in _NULLABLE:
            return None
        return dumps(dict(value) if isinstance(value, Mapping) else list(value) if isinstance(value, tuple) else value)
    return int(value) if isinstance(value, bool) else value


def value(attribute: str, stored: Any) -> Any:
    if attribute in _JSON:
        if stored is None:
            return None
        found = loads(stored)
        return tuple(tuple(x) if isinstance(x, list) else x for x in found) if attribute in _TUPLES else found
    if attribute in _FLAGS and stored is not None:
        return bool(stored)
    return stored


NODES = Table("nodes", Node, {"node_id": "id"})
ROLES = Table("node_roles", Role, {})
INVOCATIONS = Table("invocations", Invocation, {"invocation_id": "id"})
OUTBOX = Table("node_outbox", OutboxRow, {})
TASKS = Table("tasks", Task, {"task_id": "id"})
INTENTS = Table("upload_intents", Intent, {})
ARTIFACTS = Table("artifacts", Artifact, {})
ENROLMENTS = Table("enrolments", Enrolment, {"enrolment_id": "id"})
