"""The closed tables of nodes: roles, reported states, invocation errors, task statuses and actions, upload states.

One table each, here and nowhere else, each name with what it means; docs/protocol.md is made from them.
"""

from __future__ import annotations

from typing import Final, Literal

# ---------------------------------------------------------------- roles and presence

Role = Literal["node", "recorder", "transfer"]
ROLES: Final[dict[Role, str]] = {
    "node": "a machine with commands to offer",
    "recorder": "carries out tasks; its reported state is checked before commands that need it",
    "transfer": "uploads what was recorded",
}
# The roles whose reported state we hold tasks against: asked again until they say it.
SHADOWED: Final[frozenset[Role]] = frozenset({"recorder"})

ReportedState = Literal["idle", "ready", "recording", "paused", "uploading", "error", "unknown"]
REPORTED_STATES: Final[dict[ReportedState, str]] = {
    "idle": "nothing to do",
    "ready": "configured for a task, not recording yet",
    "recording": "recording a task",
    "paused": "recording a task, paused",
    "uploading": "busy with an upload",
    "error": "not able to work; a person should look",
    "unknown": "it cannot tell: it is asked again, nothing is concluded",
}
# Reports that name a task on the device.
HOLDING: Final[frozenset[ReportedState]] = frozenset({"ready", "recording", "paused"})

PresenceReason = Literal["never", "connect", "disconnect", "timeout", "gateway_lost"]
PRESENCE_REASONS: Final[dict[PresenceReason, str]] = {
    "never": "it was never here",
    "connect": "a role of it is connected",
    "disconnect": "its last connection was closed",
    "timeout": "its last connection did not answer pings",
    "gateway_lost": "the gateway that held its last connection died",
}

NODE_RESERVED_PREFIXES: Final = ("node.",)
NODE_EVENT_TYPES: Final[dict[str, str]] = {
    "node.connected": "a connection owns a role",
    "node.disconnected": "the owner of a role is gone; role, connection_id, reason, ws_close_code, ws_close_reason",
    "node.superseded": "another connection took a role over",
    "node.state": "what a role reports has changed",
    "node.command": "an invocation or a task command was accepted, or an invocation has settled",
}

# ---------------------------------------------------------------- invocations

InvocationState = Literal["pending", "dispatched", "settled"]
INVOCATION_STATES: Final[dict[InvocationState, str]] = {
    "pending": "a durable row; not a byte of it was sent",
    "dispatched": "it may have been sent: the node may have executed it",
    "settled": "terminal: ok, or one of the invocation errors",
}
InvocationError = Literal[
    "NOT_CONNECTED",
    "UNAVAILABLE",
    "TIMEOUT",
    "IDLE_TIMEOUT",
    "DISCONNECTED",
    "ROUTE_CHANGED",
    "CANCELLED",
    "NOT_ALLOWED",
    "NODE_ERROR",
]
INVOCATION_ERRORS: Final[dict[InvocationError, str]] = {
    "NOT_CONNECTED": "the role is not connected; nothing was sent",
    "UNAVAILABLE": "the node is drained, forgotten or too busy, or the gateway that held its connection died",
    "TIMEOUT": "no result within timeout_s",
    "IDLE_TIMEOUT": "no progress within idle_timeout_s",
    "DISCONNECTED": "the connection that it was sent on is gone",
    "ROUTE_CHANGED": "the role is owned by another connection than the caller expected; nothing was sent",
    "CANCELLED": "somebody cancelled it",
    "NOT_ALLOWED": "the node does not declare the command, or it may not be used; nothing was sent",
    "NODE_ERROR": "the node executed it and failed, or its result was not valid",
}

# ---------------------------------------------------------------- tasks

TaskStatus = Literal["pending", "ready", "in_progress", "uploading", "completed", "failed", "cancelled"]
TASK_STATUSES: Final[dict[TaskStatus, str]] = {
    "pending": "waits for a recorder",
    "ready": "the recorder is configured for it",
    "in_progress": "the recorder records it",
    "uploading": "recorded; the recording is on its way",
    "completed": "terminal: the recording is stored",
    "failed": "terminal: see detail",
    "cancelled": "terminal: an operator ended it",
}
TASK_TERMINAL: Final[frozenset[TaskStatus]] = frozenset({"completed", "failed", "cancelled"})
TASK_BUSY: Final[frozenset[TaskStatus]] = frozenset({"ready", "in_progress"})  # they occupy the recorder

TaskActionName = Literal["config", "begin", "pause", "resume", "finish", "cancel", "clear"]
TASK_ACTIONS: Final[dict[TaskActionName, str]] = {
    "config": "prepare for the task; the report `ready` answers it",
    "begin": "start recording",
    "pause": "pause the recording",
    "resume": "go on recording",
    "finish": "end the recording and keep it for upload",
    "cancel": "end the task and drop what was recorded",
    "clear": "forget the configured task; back to idle",
}

# ---------------------------------------------------------------- uploads

UploadStatus = Literal["accepted", "progress", "uploaded", "failed", "not_found"]
UPLOAD_STATUSES: Final[dict[UploadStatus, str]] = {
    "accepted": "noted durably; it will be uploaded",
    "progress": "under way",
    "uploaded": "done; object_key, sha256 and size say what and where; kept on the device until `upload_ack`",
    "failed": "this try failed; it is asked again, a few times",
    "not_found": "the device has no such recording",
}
IntentState = Literal["requested", "accepted", "uploaded", "kept", "discarded", "failed", "not_found"]
INTENT_STATES: Final[dict[IntentState, str]] = {
    "requested": "asked for again and again until the device gives evidence",
    "accepted": "the device works on it",
    "uploaded": "the device says that it is done; the object is being verified",
    "kept": "terminal: verified and recorded; every repeat is acknowledged with `keep`",
    "discarded": "terminal: nobody wants it any more; every repeat is acknowledged with `discard`",
    "failed": "terminal: too many tries",
    "not_found": "terminal: the device has no such recording",
}
INTENT_OPEN: Final[frozenset[IntentState]] = frozenset({"requested", "accepted", "uploaded"})
Disposition = Literal["keep", "discard"]

EnrolmentState = Literal["pending", "approved", "rejected"]
