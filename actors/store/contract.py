"""What a store promises. One contract, one suite of tests, every implementation.

A *transition* is the only way to decide: open the write transaction, read the View, `law.decide`, perform the effects,
commit; what the decision wants spoken comes back in the Outcome and is spoken by the caller, after the commit.
An *append* is the data path: one item of a group, fenced inside its statements, in a savepoint of its own.
A *page* is one short read; no read transaction outlives the call.

All calls block and belong on a store thread, never on an event loop. Errors: StorageUnavailable (rolled back, nothing
happened, try again), StorageBroken (the process must exit).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from actors.law.effects import Answer, Speech
from actors.law.model import DeadlineKind
from actors.law.nodes.model import NodeDeadlineKind
from actors.law.requests import Request
from actors.law.webhooks import Verdict


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """Scoped by token and route; `body_hash` tells a repeat from a mistake."""

    token_id: str
    route: str
    key: str
    body_hash: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a committed transition came to. `body`/`status`: an operator's answer, rendered inside the transaction.

    session_id: the subject of the request: a session's id, `node/<id>`, `order/<id>` …
    """

    session_id: str
    answer: Answer
    speech: tuple[Speech, ...]
    last_seq: int
    status: int = 200
    body: dict[str, Any] | None = None
    replayed: bool = False


class EncodedEvent(NamedTuple):
    """An event checked and encoded before it is queued: `data` is a JSON object as one line of text, `type` a plain
    name.

    A tuple, because it is made once per event: a frozen dataclass costs three times as much.
    """

    type: str
    ts_ms: int
    data: str


@dataclass(slots=True)  # one for each frame: frozen, it takes four times as long to make
class AppendItem:
    """A contiguous run of one execution's records: exec_seq `first` … `first + covers - 1`.

    `events` has one event per record, or (a gap) one event that covers them all. size: bytes on the wire, for windows.
    """

    session_id: str
    connection_id: str
    epoch: int
    execution_id: str
    first: int
    covers: int
    events: tuple[EncodedEvent, ...]
    instance_id: str = ""  # of the connection's hello; tells how to close it when it is fenced


@dataclass(slots=True)  # one for each frame: frozen, it takes four times as long to make
class Appended:
    """Committed: events stand at seq `first_seq` …; acked_seq is the execution's new high-water mark."""

    first_seq: int
    count: int
    acked_seq: int
    skipped: int = 0  # leading records that stood already
    words: Sequence[str] = field(default=(), compare=False)  # of each event on the stream, if the store spelled them


@dataclass(frozen=True, slots=True)
class AppendRefused:
    """Nothing of this item was written; the others of its group are untouched.

    why: fenced (another owner: close_code says how to close), terminal, gap (expected_seq), duplicate (acked_seq: ack
    it again), not_started (status is pending: `started` must come first), unknown_execution.
    """

    why: Literal["fenced", "terminal", "gap", "duplicate", "not_started", "unknown_execution"]
    expected_seq: int = 0
    acked_seq: int = 0
    close_code: int = 0


AppendResult = Appended | AppendRefused


@dataclass(frozen=True, slots=True)
class Page:
    """Rows and first_seq of one read. `fragments[i]` is the i-th event as a JSON object text, ready for the wire."""

    stream_id: str
    first_seq: int
    last_seq: int
    seqs: tuple[int, ...]
    types: tuple[str, ...]
    execution_ids: tuple[str | None, ...]
    fragments: tuple[str, ...]
    scanned_to: int  # every event up to here was looked at (filters may have left it out)


@dataclass(frozen=True, slots=True)
class Spelled:
    """A page as one text: its events as JSON objects, joined by commas; b"" if there are none. No filters."""

    stream_id: str
    first_seq: int
    last_seq: int
    last_type: str | None  # of the last event in it
    joined: bytes
    scanned_to: int


@dataclass(frozen=True, slots=True)
class DueDeadline:
    """session_id: whose it is, a session's id or `node/<id>`; law/sweeps.py makes the request of it."""

    session_id: str
    kind: DeadlineKind | NodeDeadlineKind
    subject: str
    due_ms: int


@dataclass(frozen=True, slots=True)
class PendingCommand:
    n: int  # the order of creation, over all sessions
    command_id: str
    session_id: str
    execution_id: str
    kind: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ActorRow:
    """An actor that says it is awake. Found dead or frozen: forget it, by its incarnation."""

    name: str
    cluster: str
    incarnation: str
    pid: int
    pid_started: int  # clock ticks since boot, /proc/<pid>/stat field 22: a pid alone is not a process


@dataclass(frozen=True, slots=True)
class Token:
    token_id: str
    scope: str
    session_id: str | None = None
    expires_at_ms: int | None = None
    node_id: str | None = None
    station_id: str | None = None


@dataclass(frozen=True, slots=True)
class ClaimedWebhook:
    """A delivery that is ours until the lease ends. failed_before: attempts since it was made or replayed."""

    webhook_id: str
    url: str = field(repr=False)
    body: dict[str, Any] = field(repr=False)
    created_at_ms: int
    failed_before: int
    headers: dict[str, str] = field(repr=False)
    secret: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class SessionFilter:
    state: str | None = None  # status of the active or last execution, or "idle"
    link: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    q: str | None = None
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class NodeFilter:
    """role: has been connected in it. q: in the id or the name."""

    connected: bool | None = None
    role: str | None = None
    q: str | None = None
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """station_id: of tasks in its batches."""

    node_id: str | None = None
    status: str | None = None
    order_id: str | None = None
    batch_id: str | None = None
    station_id: str | None = None
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class OrderFilter:
    """q: in the id or the name."""

    status: str | None = None
    q: str | None = None
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class BatchFilter:
    order_id: str | None = None
    station_id: str | None = None
    status: str | None = None
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class StationFilter:
    """Of the present binding."""

    collector_id: str | None = None
    node_id: str | None = None
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class NodeLog:
    """A page of a node's own log, oldest first. items: `{seq, type, ts_ms, data}`."""

    items: tuple[dict[str, Any], ...]
    first_seq: int
    last_seq: int


@dataclass(frozen=True, slots=True)
class NewEnrolment:
    """Hashes only: neither the code nor the claim gets here."""

    enrolment_id: str
    code_hash: str
    claim_hash: str
    node_id: str
    name: str | None = None
    commands: tuple[str, ...] = ()
    capabilities: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claimed:
    """token_made: this very claim put the token; its secret is the caller's to show, once."""

    state: str
    node_id: str
    token_made: bool = False


@dataclass(frozen=True, slots=True)
class ListPage:
    items: tuple[dict[str, Any], ...]
    next_cursor: str | None = None


Job = Request | AppendItem


@dataclass(frozen=True, slots=True)
class Keyed:
    """A transition with an idempotency key, as a job of a group."""

    request: Request
    key: IdempotencyKey


@dataclass(frozen=True, slots=True)
class GroupResult:
    """One result per job, in order: an Outcome, an AppendResult, or the HoldfastError that this job alone met."""

    results: tuple[Any, ...]
    committed_at_ms: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


class Store(Protocol):
    # -- writes (the caller's one writer thread) --
    def transact(self, request: Request, key: IdempotencyKey | None = None) -> Outcome: ...
    def commit_group(self, jobs: Sequence[Request | Keyed | AppendItem]) -> GroupResult:
        """All jobs in one transaction, each in its own savepoint, one fsync. Raises StorageUnavailable for the whole
        group (nothing happened) or StorageBroken."""

    def tick(self, gateway_id: str) -> int:
        """Advances service time (DESIGN §2.7) and the gateway's own row; returns the service time in ms. Raises
        StorageBroken if the row is gone: another gateway has opened, and this one lets nobody in any more."""

    def register_gateway(self, gateway_id: str, pid: int, pid_started: int, url: str) -> list[tuple[str, str]]:
        """A new door opens; returns (session_id, connection_id) of every connection that a dead gateway still holds."""

    def unregister_gateway(self, gateway_id: str) -> None: ...
    def flush_seen(self, seen: Sequence[tuple[str, str, bool]]) -> None:
        """(session_id, connection_id, progress): any frame is life; progress only if the heartbeat said busy."""

    def retry_later(self, deadline: DueDeadline, after_s: float) -> None: ...
    def reaper_beat(self, incarnation: str, pid: int, pid_started: int) -> None: ...
    def register_actor(self, row: ActorRow) -> None: ...
    def forget_actor(self, name: str, incarnation: str) -> bool: ...
    def put_token(self, secret_hash: str, token: Token, by: str | None = None) -> None: ...
    def janitor(self, retention_ms: int, audit_ms: int = ...) -> int:
        """Deletes at most one chunk (RETENTION_CHUNK) of what is old; returns how much of it was used, rows looked at
        included. Call again while it is full."""

    def claim_webhooks(
        self, lease: str, limit: int, per_target: int, busy: Mapping[str, int]
    ) -> tuple[ClaimedWebhook, ...]:
        """Due callbacks, ours for WEBHOOK_LEASE_S. busy: url → how many of it are on their way already."""

    def settle_webhook(
        self, webhook_id: str, lease: str, verdict: Verdict, status: int | None, error: str | None
    ) -> bool: ...
    def replay_webhook(
        self, webhook_id: str, by: str, key: IdempotencyKey | None = None
    ) -> tuple[dict[str, Any], bool]: ...
    def flush_node_seen(self, seen: Sequence[tuple[str, str, str]]) -> None:
        """(node_id, role, connection_id): any frame is life."""

    def make_enrolment_code(self, code_hash: str, node_id: str | None, expires_in_s: float, by: str | None) -> int:
        """Returns expires_at_ms."""

    def enrol(self, wanted: NewEnrolment) -> dict[str, Any]:
        """The resource; again with the same code, claim and node: the same. Errors: bad_enrolment_code."""

    def decide_enrolment(
        self, enrolment_id: str, approve: bool, allow: tuple[str, ...] | None, by: str | None
    ) -> dict[str, Any]:
        """Exactly once; an approval makes the node, if there is none. Errors: enrolment_not_found, already_resolved."""

    def claim_enrolment(self, enrolment_id: str, claim_hash: str, token_id: str, secret_hash: str) -> Claimed:
        """Errors: enrolment_not_found (also for a claim that is not its own)."""

    def revoke_token(self, token_id: str, by: str | None = None) -> str:
        """Returns the hash of its secret, so that its sockets can be found; again: the same. Error: token_not_found."""

    # -- reads (any thread with its own reader) --
    def session(self, session_id: str) -> dict[str, Any]:
        """The resource. Errors: session_not_found, session_deleted."""

    def sessions(self, wanted: SessionFilter) -> ListPage: ...
    def counts(self) -> dict[str, int]:
        """How many sessions there are, by link, and how many executions live, by status: for the fleet view."""

    def execution(self, session_id: str, execution_id: str) -> dict[str, Any]: ...
    def executions(self, session_id: str, limit: int, cursor: str | None) -> ListPage: ...
    def approvals(self, session_id: str) -> list[dict[str, Any]]: ...
    def page(
        self,
        session_id: str,
        after_seq: int,
        limit: int,
        *,
        before_seq: int | None = None,
        types: tuple[str, ...] = (),
        execution_id: str | None = None,
        max_bytes: int = 1 << 20,
    ) -> Page: ...
    def spelled(self, session_id: str, after_seq: int, limit: int, *, max_bytes: int = 1 << 20) -> Spelled: ...
    def heads(self, session_ids: Sequence[str]) -> dict[str, tuple[int, str]]:
        """session_id → (last_seq, stream_id); a deleted session is absent."""

    def pending_commands(self, session_id: str, after_n: int, limit: int) -> list[PendingCommand]: ...
    def sessions_with_commands(self, after_n: int) -> tuple[int, list[str]]:
        """Sessions with commands created after n; and the newest n."""

    def node(self, node_id: str) -> dict[str, Any]:
        """The resource. Errors: node_not_found."""

    def nodes(self, wanted: NodeFilter) -> ListPage:
        """Connected first, then by id."""

    def node_events(self, node_id: str, after_seq: int, limit: int) -> NodeLog:
        """Errors: node_not_found."""

    def nodes_with_outbox(self, after_n: int) -> tuple[int, list[str]]:
        """Nodes with frames that were posted after n and not fetched; and the newest n."""

    def lost_node_roles(self, gateway_id: str) -> list[tuple[str, str, str]]:
        """(node_id, role, connection_id) of every connected role that another gateway holds: after register_gateway,
        that gateway is dead, and each wants a NodeClosed(gateway_lost=True)."""

    def invocation(self, invocation_id: str) -> dict[str, Any]:
        """Errors: invocation_not_found."""

    def invocations(self, node_id: str, limit: int, cursor: str | None) -> ListPage:
        """Newest first; of a forgotten node, too, until retention takes them."""

    def task(self, task_id: str) -> dict[str, Any]:
        """Errors: task_not_found."""

    def tasks(self, wanted: TaskFilter) -> ListPage:
        """Newest first."""

    def order(self, order_id: str) -> dict[str, Any]:
        """The resource. Errors: order_not_found."""

    def orders(self, wanted: OrderFilter) -> ListPage:
        """Newest first."""

    def notices(self, order_id: str, limit: int, cursor: str | None) -> ListPage:
        """What devices were told, newest first. Errors: order_not_found."""

    def batch(self, batch_id: str) -> dict[str, Any]:
        """Errors: batch_not_found."""

    def batches(self, wanted: BatchFilter) -> ListPage:
        """Newest first."""

    def handoff(self, batch_id: str, sop_id: str, subscene_id: str) -> str:
        """The one line for an external device, byte for byte. Errors: batch_not_found, group_not_found."""

    def station(self, station_id: str) -> dict[str, Any]:
        """Errors: station_not_found."""

    def stations(self, wanted: StationFilter) -> ListPage:
        """Newest first."""

    def bindings(self, station_id: str, limit: int, cursor: str | None) -> ListPage:
        """Versions, newest first. Errors: station_not_found."""

    def me_of_station(self, station_id: str) -> dict[str, Any]:
        """station, collector, node and node_type of a collector's token. Errors: station_not_found."""

    def collector(self, collector_id: str) -> dict[str, Any]:
        """Errors: collector_not_found."""

    def collectors(self, limit: int, cursor: str | None) -> ListPage:
        """Newest first."""

    def enrolments(self, state: str | None, limit: int, cursor: str | None) -> ListPage:
        """Newest first."""

    def due(self, limit: int) -> list[DueDeadline]: ...
    def service_ms(self) -> int:
        """As stored by the last tick."""

    def actors_awake(self) -> list[ActorRow]: ...
    def reaper_age_ms(self) -> tuple[int, int, int] | None:
        """(ms since the reaper's last beat, its pid, its pid_started); None if there never was one."""

    def token(self, secret_hash: str) -> Token | None: ...
    def webhooks_due(self) -> bool: ...
    def webhooks(self, state: str | None, session_id: str | None, limit: int, cursor: str | None) -> ListPage: ...
    def webhook(self, webhook_id: str) -> dict[str, Any]:
        """Errors: webhook_not_found."""

    def audit(self, session_id: str | None, limit: int, cursor: str | None) -> ListPage: ...
    def tokens(self, limit: int, cursor: str | None) -> ListPage:
        """Resources, newest first, never a secret nor its hash."""

    def meters(self) -> dict[str, Any]:
        """What /metrics shows of the store, from one read; see tallies.py."""

    def changed(self) -> bool:
        """Whether another connection may have committed since the last call (PRAGMA data_version)."""

    def close(self) -> None: ...
