"""The tables, as sqlite-utils migrations: named steps, applied once, in order, never edited after a release.

Text ids everywhere; `n` columns are the order of creation; JSON is kept as text that we encoded ourselves.
"""

from __future__ import annotations

from typing import Any

from sqlite_utils import Migrations

migrations = Migrations("holdfast")


def _each(db: Any, script: str) -> None:
    """Statement by statement: executescript would commit the migration's own transaction."""
    for statement in script.split(";"):
        if statement.strip():
            db.conn.execute(statement)


@migrations()  # type: ignore[untyped-decorator]
def m001_foundation(db: Any) -> None:
    _each(
        db,
        """
        create table counters (name text primary key, value integer not null) without rowid;
        insert into counters values ('epoch', 0), ('ordinal', 0);

        -- DESIGN §2.7: one row, t_ms is service time, wall_ms when a live gateway last advanced it
        create table service_clock (
            id integer primary key check (id = 1), t_ms integer not null, wall_ms integer not null
        );
        insert into service_clock values (1, 0, 0);

        create table sessions (
            id text primary key, stream_id text not null, title text, labels text not null, limits text not null,
            callback text, created_at_ms integer not null, updated_at_ms integer not null,
            last_seq integer not null default 0, first_seq integer not null default 1,
            link text not null default 'offline', connection_id text, connection_epoch integer not null default 0,
            wrapper_id text, instance_id text, attempt integer not null default 0, gateway_id text,
            last_seen_service_ms integer not null default 0, last_seen_at_ms integer, grace_until_ms integer,
            grace_execution_id text, lost_code integer, lost_reason text, deleted_at_ms integer
        ) without rowid;
        create index sessions_activity on sessions (updated_at_ms desc, id) where deleted_at_ms is null;
        create index sessions_linked on sessions (gateway_id) where link = 'connected';
        create index sessions_gone on sessions (id) where deleted_at_ms is not null;

        create table executions (
            session_id text not null, id text not null, ordinal integer not null, status text not null,
            input text not null, limits text not null, callback text, created_at_ms integer not null,
            wrapper_id text, received_at_ms integer, started_at_ms integer, ended_at_ms integer,
            acked_seq integer not null default 0,
            last_progress_service_ms integer not null default 0, last_progress_at_ms integer,
            interrupt_id text, interrupt_stage text, interrupt_by text, interrupt_reason text,
            interrupt_force integer not null default 0, interrupt_at_ms integer,
            cause text, error text, exit_code integer, signal text, data text not null default '{}',
            late_final integer not null default 0, primary key (session_id, id)
        ) without rowid;
        create unique index executions_one_active on executions (session_id) where status in ('pending', 'running');
        create index executions_live on executions (session_id, ordinal)
            where status in ('queued', 'pending', 'running');
        create index executions_order on executions (session_id, ordinal);

        create table events (
            session_id text not null, seq integer not null, execution_id text, exec_seq integer, type text not null,
            ts_ms integer not null, stored_at_ms integer not null, data text not null, primary key (session_id, seq)
        ) without rowid;

        create table commands (
            n integer primary key autoincrement, id text not null unique, session_id text not null,
            execution_id text not null, kind text not null, payload text not null, state text not null,
            created_at_ms integer not null
        );
        create index commands_waiting on commands (session_id, n) where state = 'pending';
        create index commands_of on commands (session_id, execution_id);

        create table approvals (
            session_id text not null, id text not null, execution_id text not null, title text not null,
            options text not null, data text not null, created_at_ms integer not null, expires_at_ms integer,
            state text not null, decision text, note text, resolved_by text, resolved_at_ms integer, resolved_seed text,
            primary key (session_id, id)
        ) without rowid;
        create index approvals_open on approvals (session_id) where state = 'open';

        create table deadlines (
            session_id text not null, kind text not null, subject text not null, execution_id text,
            clock text not null, due_ms integer not null, retry_ms integer not null,
            primary key (session_id, kind, subject)
        ) without rowid;
        create index deadlines_due on deadlines (clock, retry_ms);
        create index deadlines_of on deadlines (session_id, execution_id);

        create table callbacks (
            n integer primary key autoincrement, session_id text not null, execution_id text not null,
            spec text not null, body text not null, state text not null default 'due',
            attempts integer not null default 0, next_at_ms integer not null, created_at_ms integer not null,
            unique (session_id, execution_id)
        );

        create table idempotency (
            token_id text not null, route text not null, key text not null, body_hash text not null,
            status integer not null, answer text, created_at_ms integer not null, primary key (token_id, route, key)
        ) without rowid;
        create index idempotency_age on idempotency (created_at_ms);

        create table gateways (
            id text primary key, pid integer not null, pid_started integer not null, url text not null,
            started_at_ms integer not null, seen_at_ms integer not null
        ) without rowid;
        create table actors (
            name text primary key, cluster text not null, incarnation text not null, pid integer not null,
            pid_started integer not null, since_ms integer not null
        ) without rowid;
        create table reaper (
            id integer primary key check (id = 1), incarnation text not null, pid integer not null,
            pid_started integer not null, beat_at_ms integer not null
        );
        create table connections (
            id text primary key, session_id text not null, epoch integer not null, at_ms integer not null
        ) without rowid;
        create index connections_age on connections (at_ms);
        create table tokens (
            id text primary key, secret_hash text not null unique, scope text not null, session_id text,
            expires_at_ms integer, created_at_ms integer not null, revoked_at_ms integer
        ) without rowid;
        """,
    )


@migrations()  # type: ignore[untyped-decorator]
def m002_operations(db: Any) -> None:
    """Webhook delivery, retention that costs by what is due, audit."""
    _each(
        db,
        """
        -- due → delivered | dead. A lease is a claim with an end: next_at_ms moves ahead, and a deliverer that died
        -- leaves a row that is due again. settled_at_ms is null while it is due.
        alter table callbacks add column id text;
        alter table callbacks add column lease text;
        alter table callbacks add column last_at_ms integer;
        alter table callbacks add column last_status integer;
        alter table callbacks add column last_error text;
        alter table callbacks add column settled_at_ms integer;
        update callbacks set id = 'whk_' || lower(hex(randomblob(16)));
        create unique index callbacks_id on callbacks (id);
        create index callbacks_by_state on callbacks (state, n);
        create index callbacks_due on callbacks (next_at_ms) where state = 'due';
        create index callbacks_settled on callbacks (settled_at_ms) where settled_at_ms is not null;

        -- No event of the session is older than this. 0: from before this column. -1: deleted, and none is left.
        -- Only birth and retention set it, so that an append never touches the index.
        alter table sessions add column oldest_at_ms integer not null default 0;
        create index sessions_oldest on sessions (oldest_at_ms) where deleted_at_ms is null;
        create index sessions_emptying on sessions (id) where deleted_at_ms is not null and oldest_at_ms >= 0;
        create index executions_ended on executions (ended_at_ms) where ended_at_ms is not null;
        create index commands_settled on commands (created_at_ms) where state in ('done', 'rejected', 'withdrawn');
        create index approvals_of on approvals (session_id, execution_id);

        create table audit (
            n integer primary key autoincrement, at_ms integer not null, by text, action text not null,
            session_id text, execution_id text, object_id text, outcome text not null
        );
        create index audit_of on audit (session_id, n);
        create index audit_age on audit (at_ms)
        """,
    )


@migrations()  # type: ignore[untyped-decorator]
def m003_tokens(db: Any) -> None:
    """What a token is bound to beside a session; and counts of what happened, for /metrics (tallies.py)."""
    _each(
        db,
        """
        alter table tokens add column node_id text;
        alter table tokens add column station_id text;
        create table tallies (
            name text not null, label text not null, value integer not null, primary key (name, label)
        ) without rowid;
        """,
    )


@migrations()  # type: ignore[untyped-decorator]
def m004_nodes(db: Any) -> None:
    """Nodes, their roles, log and outbox; invocations; tasks, upload intents, artifacts; enrolments.

    `deadlines.session_id` and `connections.session_id` hold `node/<id>` for a node: a session id has no slash.
    """
    _each(
        db,
        """
        create table nodes (
            id text primary key, name text, created_at_ms integer not null, made_by text not null,
            drained integer not null default 0, allow text, last_event_seq integer not null default 0,
            first_event_seq integer not null default 1
        ) without rowid;

        create table node_roles (
            node_id text not null, role text not null, link text not null, connection_id text,
            connection_epoch integer not null, instance_id text, attempt integer, gateway_id text,
            client text not null, commands text not null, capabilities text not null,
            last_seen_service_ms integer not null, last_seen_at_ms integer, grace_until_ms integer,
            presence_reason text not null, presence_at_ms integer not null,
            reported_state text, reported_task_id text, reported_attempt integer, reported_at_ms integer,
            reported_service_ms integer not null, synced integer not null,
            desired_state text, desired_task_id text, desired_attempt integer,
            lapsed_epoch integer not null, primary key (node_id, role)
        ) without rowid;
        create index node_roles_connected on node_roles (node_id) where link = 'connected';

        create table node_events (
            node_id text not null, seq integer not null, type text not null, ts_ms integer not null,
            data text not null, primary key (node_id, seq)
        ) without rowid;
        create index node_events_age on node_events (ts_ms);

        create table invocations (
            n integer primary key autoincrement, id text not null unique, node_id text not null, role text not null,
            command text not null, params text not null, by text, created_at_ms integer not null,
            timeout_s real not null, idle_timeout_s real, idempotency_key text, state text not null,
            connection_id text, due_service_ms integer, idle_due_service_ms integer, dispatched integer not null,
            dispatched_at_ms integer, progress_seq integer not null, progress text not null, progress_at_ms integer,
            progress_gaps integer not null, ok integer, payload text not null, error_code text, error_message text,
            error_node_code text, settled_at_ms integer
        );
        create index invocations_open on invocations (node_id, n) where state != 'settled';
        create index invocations_of on invocations (node_id, n);
        create index invocations_settled on invocations (settled_at_ms) where settled_at_ms is not null;

        create table node_outbox (
            n integer primary key autoincrement, node_id text not null, role text not null,
            connection_epoch integer not null, frame text not null, invocation_id text, fetched_seed text
        );
        create index node_outbox_of on node_outbox (node_id, role, n);

        create table tasks (
            n integer primary key autoincrement, id text not null unique, node_id text not null, params text not null,
            created_at_ms integer not null, made_by text not null, order_id text, batch_id text, status text not null,
            attempt integer not null, began integer not null, held_epoch integer not null, detail text,
            ready_at_ms integer, started_at_ms integer, paused_at_ms integer, finished_at_ms integer,
            uploaded_at_ms integer, completed_at_ms integer, cancelled_at_ms integer, failed_at_ms integer
        );
        create index tasks_of on tasks (node_id, n);
        create index tasks_busy on tasks (node_id) where status in ('ready', 'in_progress');
        create index tasks_by_status on tasks (status, n);

        create table upload_intents (
            task_id text not null, attempt integer not null, node_id text not null, state text not null,
            created_at_ms integer not null, tries integer not null, sends integer not null, object_key text,
            sha256 text, size integer, detail text, primary key (task_id, attempt)
        ) without rowid;
        create index upload_intents_open on upload_intents (node_id)
            where state in ('requested', 'accepted', 'uploaded');

        create table artifacts (
            task_id text primary key, node_id text not null, attempt integer not null, object_key text not null,
            sha256 text not null, size integer not null, verified integer not null, stored_at_ms integer not null
        ) without rowid;

        create table enrolment_codes (
            code_hash text primary key, node_id text, created_at_ms integer not null, expires_at_ms integer not null,
            used_by text
        ) without rowid;
        create index enrolment_codes_age on enrolment_codes (expires_at_ms);
        create table enrolments (
            id text primary key, claim_hash text not null, code_hash text not null, node_id text not null, name text,
            commands text not null, capabilities text not null, created_at_ms integer not null, state text not null,
            allow text, decided_at_ms integer, decided_by text, claimed_at_ms integer
        ) without rowid;
        create index enrolments_by_state on enrolments (state, id);
        create index enrolments_age on enrolments (created_at_ms);
        create index tokens_of_node on tokens (node_id) where node_id is not null
        """,
    )


@migrations()  # type: ignore[untyped-decorator]
def m005_orders(db: Any) -> None:
    """Orders, batches, their groups; what a task is for; notices to nodes; stations, their bindings, collectors."""
    _each(
        db,
        """
        create table orders (
            n integer primary key autoincrement, id text not null unique, name text, target_count integer not null,
            quota_policy text not null, created_at_ms integer not null, made_by text not null, status text not null,
            finalizations integer not null, started_at_ms integer, completed_at_ms integer, cancelled_at_ms integer
        );
        create index orders_by_status on orders (status, n);

        create table batches (
            n integer primary key autoincrement, id text not null unique, order_id text not null,
            station_id text not null, created_at_ms integer not null, made_by text not null, status text not null,
            started_at_ms integer, completed_at_ms integer, cancelled_at_ms integer, recalled_at_ms integer
        );
        create index batches_of_order on batches (order_id, n);
        create index batches_of_station on batches (station_id, n);
        create index batches_open_of_order on batches (order_id, status) where status in ('pending', 'active');
        create index batches_open_of_station on batches (station_id) where status in ('pending', 'active');

        -- In the order in which they were named. A version is kept as JSON: 2 and "2" are not the same.
        create table batch_groups (
            n integer primary key autoincrement, batch_id text not null, sop_id text not null,
            subscene_id text not null, sop_slug text, sop_version text, scene_name text, subscene_name text,
            params text not null, unique (batch_id, sop_id, subscene_id)
        );

        alter table tasks add column sop_id text;
        alter table tasks add column subscene_id text;
        -- Counting by status is a walk through these and never touches a row.
        create index tasks_of_order on tasks (order_id, status) where order_id is not null;
        create index tasks_of_batch on tasks (batch_id, sop_id, subscene_id, status, n) where batch_id is not null;

        create table order_notices (
            n integer primary key autoincrement, id text not null unique, order_id text not null,
            node_id text not null, cause text not null, tasks text not null, created_at_ms integer not null,
            sends integer not null, settled_at_ms integer
        );
        create unique index order_notices_once on order_notices (order_id, cause, node_id);
        create index order_notices_open on order_notices (node_id) where settled_at_ms is null;
        create index order_notices_settled on order_notices (settled_at_ms) where settled_at_ms is not null;

        create table collectors (
            n integer primary key autoincrement, id text not null unique, name text not null,
            created_at_ms integer not null, made_by text not null, operator_id text
        );
        create table stations (
            n integer primary key autoincrement, id text not null unique, name text,
            created_at_ms integer not null, made_by text not null, node_type_name text, capabilities text
        );
        create table station_bindings (
            station_id text not null, version integer not null, collector_id text not null, node_id text not null,
            bound_at_ms integer not null, ended_at_ms integer, by text, primary key (station_id, version)
        ) without rowid;
        create unique index station_bindings_now on station_bindings (station_id) where ended_at_ms is null;
        create unique index station_bindings_collector on station_bindings (collector_id) where ended_at_ms is null;
        create unique index station_bindings_node on station_bindings (node_id) where ended_at_ms is null
        """,
    )


@migrations()  # type: ignore[untyped-decorator]
def m006_runs(db: Any) -> None:
    """A row of `events` may stand for a run of them (ADR 11). What stood before is rows of one event, and stays so."""
    _each(
        db,
        """
        -- The words of a run, as the wire spells them, one event a line. By a number, because a row of a table without
        -- one is read whole wherever its key is compared.
        create table runs (id integer primary key, words text not null);
        -- run_length 0: one event, in columns. Else how many: `type` is the types among them, `data` is empty, and the
        -- other columns are those of the last, so that the key is where the run ends.
        alter table events add column run_id integer;
        alter table events add column run_length integer not null default 0;
        alter table events add column run_bytes integer not null default 0
        """,
    )


@migrations()  # type: ignore[untyped-decorator]
def m007_hot(db: Any) -> None:
    """What moves with each event, and the newest events themselves, stand apart (ADR 12)."""
    _each(
        db,
        """
        -- prior, head, ended: numbers in `fresh`. earlier_at_ms: progress_at_ms before the last append.
        create table hot (
            session_id text primary key, epoch integer not null, execution_id text not null, last_seq integer not null,
            acked_seq integer not null, progress_service_ms integer not null, progress_at_ms integer not null,
            earlier_at_ms integer not null, prior integer, head integer, ended integer, fresh integer not null,
            since_ms integer not null
        ) without rowid;
        -- As in `events`, in the order of all sessions. prior: the one before it in its session, null for the first.
        -- One that is in `events` by now stays until all that stand before it are, too.
        create table fresh (
            n integer primary key, prior integer, session_id text not null, seq integer not null,
            execution_id text not null, exec_seq integer not null, type text not null, ts_ms integer not null,
            stored_at_ms integer not null, data text not null
        )
        """,
    )
    for name, table, columns, session_id in (
        ("sessions_settled", "sessions", "link, connection_epoch, last_seq, deleted_at_ms", "id"),
        ("executions_settled", "executions", "status, acked_seq", "session_id"),
    ):
        db.conn.execute(
            f"create trigger {name} before update of {columns} on {table} "
            f"when exists (select 1 from hot where session_id = old.{session_id}) "
            "begin select raise(abort, 'settle the session first'); end"
        )
    _now(db)


def _now(db: Any) -> None:
    """The tables as if every session were settled. A migration that adds a column to one of them does this again."""
    of_session = "from hot where hot.session_id = sessions.id"
    of_execution = "from hot where hot.session_id = executions.session_id and hot.execution_id = executions.id"
    later = f"coalesce((select hot.progress_service_ms {of_execution}), -1)"
    instead = {
        "sessions": {"last_seq": f"coalesce((select hot.last_seq {of_session}), sessions.last_seq)"},
        "executions": {
            "acked_seq": f"coalesce((select hot.acked_seq {of_execution}), executions.acked_seq)",
            "last_progress_service_ms": f"max(executions.last_progress_service_ms, {later})",
            "last_progress_at_ms": f"iif({later} >= executions.last_progress_service_ms, "
            f"(select hot.progress_at_ms {of_execution}), executions.last_progress_at_ms)",
        },
    }
    for table, moved in instead.items():
        columns = [row[1] for row in db.conn.execute(f"pragma table_info({table})").fetchall()]
        shown = ", ".join(f"{moved[name]} as {name}" if name in moved else name for name in columns)
        db.conn.execute(f"drop view if exists {table}_now")
        db.conn.execute(f"create view {table}_now as select {shown} from {table}")
