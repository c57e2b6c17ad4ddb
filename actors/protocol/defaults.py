"""Every number that Holdfast starts with, and why it is that number. Seconds unless the name says otherwise.

Both sides import the constants; docs/configuration.md is made from REASONS and a test holds them together.
"""

from __future__ import annotations

from typing import Final

TICK_S: Final = 1.0
HEARTBEAT_S: Final = 10.0
SERVER_PING_S: Final = 15.0
SERVER_PONG_S: Final = 10.0
WRAPPER_PING_S: Final = 5.0
WRAPPER_PONG_S: Final = 5.0
STALE_S: Final = 90.0
PENDING_S: Final = 180.0
GRACE_S: Final = 30.0
INTERRUPT_S: Final = 20.0
BACKOFF_S: Final = (1.0, 2.0, 4.0, 8.0)
BACKOFF_RESET_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 10.0
HELLO_TIMEOUT_S: Final = 10.0
REQUEST_TIMEOUT_S: Final = 20.0
CONTROL_DEADLINE_S: Final = 5.0
ORPHAN_AFTER_S: Final = 600.0
HIBERNATE_AFTER_S: Final = 60.0
ACTORS_PER_CORE: Final = 4
RETENTION_S: Final = 90 * 86400.0
AUDIT_RETENTION_S: Final = 365 * 86400.0
WEBHOOK_TIMEOUT_S: Final = 10.0
WEBHOOK_RETRY_S: Final = (60.0, 120.0, 240.0, 480.0)
WEBHOOK_RETRY_AFTER_MAX_S: Final = 3600.0
WEBHOOK_LEASE_S: Final = 30.0
LAST_SEEN_FLUSH_S: Final = 3.0
SERVICE_STEP_MAX_S: Final = 3.0
IDEMPOTENCY_KEEP_S: Final = 86400.0
FINAL_WAIT_S: Final = 60.0
INVOKE_TIMEOUT_S: Final = 30.0
INVOKE_TIMEOUT_MAX_S: Final = 86400.0
FRESH_S: Final = 15.0
REPORT_WITHIN_S: Final = 10.0
PROBE_S: Final = 5.0
UPLOAD_RESEND_S: Final = (10.0, 20.0, 40.0, 60.0)
TASK_RECONCILE_S: Final = 5.0
ENROLMENT_CODE_S: Final = 600.0
ENROLMENT_CODE_MAX_S: Final = 3600.0
ENROLMENT_KEEP_S: Final = 30 * 86400.0
NOTICE_S: Final = 2.0

QUEUE_LIMIT: Final = 10
TOMBSTONES: Final = 1000
MAX_FRAME_BYTES: Final = 1 << 20
WINDOW_BYTES: Final = 2 << 20
MAX_BODY_BYTES: Final = 1 << 20
MAX_JSON_DEPTH: Final = 32
MAX_SAFE_INTEGER: Final = 1 << 53
EVENTS_PER_FRAME: Final = 1000
SPOOL_LIMIT_BYTES: Final = 1 << 30
SPOOL_RESERVE_BYTES: Final = 4 << 20
CHUNK_BYTES: Final = 16 << 10
CHUNK_S: Final = 0.05
FEED_EVENTS: Final = 256
FEED_BYTES: Final = 1 << 20
FEED_GROUP_BYTES: Final = 4 << 20
PAGE_EVENTS: Final = 500
SLOW_CONSUMER_S: Final = 30.0
RETENTION_CHUNK: Final = 1000
WEBHOOKS_AT_ONCE: Final = 16
WEBHOOKS_AT_ONCE_PER_TARGET: Final = 4
REQUESTS_PER_S: Final = 1000.0
FRAMES_PER_S: Final = 5000.0
BYTES_PER_S: Final = 64 << 20
CONNECTIONS_PER_TOKEN: Final = 10_000
CONNECTIONS_PER_ADDRESS: Final = 10_000
NODE_COMMANDS_MAX: Final = 256
NODE_UPLOADS_MAX: Final = 1000
INVOKE_PAYLOAD_BYTES: Final = 256 << 10
INVOCATIONS_MAX: Final = 256
NODE_OUTBOX_PAGE: Final = 64
NODE_EVENTS_KEPT: Final = 10_000
UPLOAD_TRIES: Final = 5
BATCH_TASKS_MAX: Final = 1000
TARGET_MAX: Final = 100_000
PORT: Final = 8420

REASONS: Final[dict[str, str]] = {
    "TICK_S": "the grain of service time; a deadline fires within two of them",
    "HEARTBEAT_S": "nine chances within STALE_S",
    "SERVER_PING_S": "half-open sockets are found within ping + pong = 25 s",
    "SERVER_PONG_S": "a frozen peer is given up after it; long enough for a loaded host to be scheduled",
    "WRAPPER_PING_S": "the wrapper notices a dead gateway within ping + pong = 10 s, well inside GRACE_S",
    "WRAPPER_PONG_S": "see WRAPPER_PING_S",
    "STALE_S": "nine missed heartbeats: the process is there, its loop is not",
    "PENDING_S": "a sandbox may take minutes to boot; longer, and nobody believes that it will",
    "GRACE_S": "at least max(ping + pong of the wrapper, backoff cap) + connect timeout + margin = 10 + 10 + 10; checked at start",
    "INTERRUPT_S": "the wrapper's own ladder (SIGINT, SIGTERM, SIGKILL) fits in it, with a reconnect's margin",
    "BACKOFF_S": "doubling from 1 s, capped at 8 s so that a restarted service has its fleet back within one cap; with jitter, for ever",
    "BACKOFF_RESET_S": "a connection that held this long was healthy; the next loss starts at 1 s again",
    "CONNECT_TIMEOUT_S": "TCP, TLS and upgrade on a bad line; longer is a dead peer",
    "HELLO_TIMEOUT_S": "an unauthenticated socket may cost us no more than this",
    "REQUEST_TIMEOUT_S": "headers, and then a body of 1 MiB, at 50 KiB/s on a bad line; no longer for who dribbles",
    "CONTROL_DEADLINE_S": "the measured worst of a healthy actor is 2 ms awake and 0.5 s cold; at 5 s it is frozen",
    "ORPHAN_AFTER_S": "an agent without a wrapper is ended after ten minutes: time for an upgrade, not for a zombie",
    "HIBERNATE_AFTER_S": "an idle actor costs 63 MiB and 0.8 % of a core; waking costs 0.36 s and is off the caller's path",
    "ACTORS_PER_CORE": "session actors awake at once, unless `actors_max` says how many: each is 63 MiB and, idle, 0.8 % of a core by a timer of Ray's; past it decisions are made where they are asked for",
    "RETENTION_S": "90 days of events",
    "AUDIT_RETENTION_S": "a year: who asks what happened asks late, and the rows are few and small",
    "WEBHOOK_TIMEOUT_S": "a receiver that needs longer should take the event first and work afterwards",
    "WEBHOOK_RETRY_S": "a deployment of the receiver fits in it; after the last one the delivery is dead, and `replay` is by hand",
    "WEBHOOK_RETRY_AFTER_MAX_S": "a receiver may ask for patience, not for absence",
    "WEBHOOK_LEASE_S": "three timeouts: whoever claimed a delivery and has not told its end by then is gone, and it goes out again",
    "LAST_SEEN_FLUSH_S": "a transaction for each hundred live connections, or twenty for thousands; small against STALE_S",
    "SERVICE_STEP_MAX_S": "a tick that comes late adds at most this: an outage or a clock jump shortens nobody's deadline",
    "IDEMPOTENCY_KEEP_S": "a client that retries after a day is a new client",
    "FINAL_WAIT_S": "`holdfast run` waits this long for the final's acknowledgement before it exits with 5 and keeps the spool",
    "INVOKE_TIMEOUT_S": "longer than any command that a person waits for; a caller with more patience says so",
    "INVOKE_TIMEOUT_MAX_S": "a day; beyond it a task is meant, not an invocation. 0 is no deadline at all",
    "FRESH_S": "three reports of a device that reports every 5 s: a command that stands on older news stands on nothing",
    "REPORT_WITHIN_S": "a device answers a task command by its state; silent this long, its state is not known any more",
    "PROBE_S": "a device that owes its state is asked again this often: one small frame",
    "UPLOAD_RESEND_S": "doubling; the last one for ever, because a recording is worth asking for and the frame is small",
    "TASK_RECONCILE_S": "a report that never reached its task (a crash in between) is looked at again after this",
    "ENROLMENT_CODE_S": "ten minutes: somebody reads it off a screen and types it at the device",
    "ENROLMENT_CODE_MAX_S": "an hour; a code that lives longer is a password",
    "ENROLMENT_KEEP_S": "who was let in, for a month; the audit keeps it longer",
    "NOTICE_S": "a notice is carried to its node at once; whoever should have done it and died is made good after this",
    "QUEUE_LIMIT": "executions waiting behind the active one; more is a caller that does not read answers (429)",
    "TOMBSTONES": "ended executions that a wrapper remembers, so that a late start is refused; a hundred full queues of them",
    "MAX_FRAME_BYTES": "one WebSocket message; bounds a socket's memory",
    "WINDOW_BYTES": "unacknowledged bytes in flight per connection: four frames of 512 KiB, one on its way, one read, one committed, one acknowledged; and the gateway's memory bound for a peer",
    "MAX_BODY_BYTES": "one HTTP body; an input is text, not a file",
    "MAX_JSON_DEPTH": "deep enough for people, too shallow to overflow a parser",
    "MAX_SAFE_INTEGER": "what every JSON reader can represent (2^53)",
    "EVENTS_PER_FRAME": "bounds the work of one append item",
    "SPOOL_LIMIT_BYTES": "1 GiB of disk per wrapper; then the agent waits",
    "SPOOL_RESERVE_BYTES": "kept free inside the limit for control and final records",
    "CHUNK_BYTES": "one output record; a page of terminal, well below a frame",
    "CHUNK_S": "output is held back at most this long to fill a chunk: below what people notice",
    "FEED_EVENTS": "live tail kept per watched session; a subscriber further behind reads pages",
    "FEED_BYTES": "the same in bytes",
    "FEED_GROUP_BYTES": "what was committed together is kept beyond FEED_BYTES until its live readers have it: a window of 2 MiB, which is up to twice as long in the words of the stream",
    "PAGE_EVENTS": "rows per replay read: one short read transaction, under 5 ms",
    "SLOW_CONSUMER_S": "a subscriber whose socket takes nothing for this long is closed with 4008; its cursor brings it back",
    "RETENTION_CHUNK": "rows deleted per transaction, so that deleting never holds the write lock long; a session that is looked at counts as fifteen",
    "WEBHOOKS_AT_ONCE": "deliveries in flight; each holds one socket for at most WEBHOOK_TIMEOUT_S",
    "WEBHOOKS_AT_ONCE_PER_TARGET": "one slow receiver may not take every place",
    "REQUESTS_PER_S": "per token and per address, twice that in a burst; what one gateway can answer at all. 0: off",
    "FRAMES_PER_S": "per socket, twice that in a burst; a frame holds up to EVENTS_PER_FRAME events. 0: off",
    "BYTES_PER_S": "per socket, twice that in a burst; beyond what one disk takes. 0: off",
    "CONNECTIONS_PER_TOKEN": "sockets and streams of one token: half a gateway, for a fleet that shares one",
    "CONNECTIONS_PER_ADDRESS": "TCP connections of one address: the same, for a fleet behind one NAT",
    "NODE_COMMANDS_MAX": "commands that one role may declare; a device with more should group them",
    "NODE_UPLOADS_MAX": "recordings in one hello; a device tells the rest by `upload` frames",
    "INVOKE_PAYLOAD_BYTES": "a result or a progress is an answer, not a file; files are uploads",
    "INVOCATIONS_MAX": "unsettled invocations of one node; more is a caller that does not read answers",
    "NODE_OUTBOX_PAGE": "frames fetched at once for one connection, so that one transaction stays short",
    "NODE_EVENTS_KEPT": "a node's own log, newest first; a device that talks all day may not fill the disk",
    "UPLOAD_TRIES": "an upload that failed this often fails the sixth time too: a person should look",
    "BATCH_TASKS_MAX": "tasks of one batch, and completions by one call: what one transaction writes in some 40 ms",
    "TARGET_MAX": "tasks of one order: it is counted anew at each completion: 7 ms at this size, and half a second to end it",
    "PORT": "Holdfast's door",
}
