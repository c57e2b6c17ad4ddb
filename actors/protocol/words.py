"""What the names of codes.py mean, in a sentence each: for docs/protocol.md, /asyncapi.json and /docs.

A test holds the names against codes.py; the meanings of causes, events and errors stand there, beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

RECONNECT: Final[Mapping[str, str]] = {
    "no": "no",
    "yes": "yes",
    "later": "yes, after `retry_after_s` if the reason has it",
    "smaller": "yes, with smaller frames",
    "cursor": "yes, with the cursor",
    "unless_newer_attempt": "only if that later attempt is gone",
}
CLOSE_WHEN: Final[Mapping[int, str]] = {
    1000: "an ordinary end",
    1001: "the door closes, or the connection was given up",
    1009: "a frame above `max_frame_bytes`",
    1012: "the service starts again",
    1013: "the store or the service cannot take it now",
    4000: "the session was deleted",
    4001: "another instance owns the session (a wrapper ends its child by the ladder and exits) or the node's role",
    4002: "no hello, a bad one, a frame that is not JSON, a window ignored, an unknown role, a bad query of a stream",
    4003: "a hello of another protocol version",
    4004: "no such session or node, or the node was forgotten",
    4008: "the subscriber took nothing for too long",
    4009: "a later attempt of the same instance owns the session or the role",
    4401: "the token is missing, unknown, expired or revoked",
    4403: "the token may not do that",
    4429: "too many connections or frames",
}
NACKS: Final[Mapping[str, str]] = {
    "gap": "it begins beyond `expected_seq`; later frames of this execution are dropped until that number comes",
    "terminal": "the execution has ended; nothing more of it is taken",
    "invalid": "the record `expected_seq` is not valid; send a `gap` in its place",
    "too_large": "the record `expected_seq` is too large; send a `gap` in its place",
    "unknown_execution": "no such execution is active in this session",
}
DIRECTIVES: Final[Mapping[str, str]] = {
    "resume": "go on from `acked_seq` + 1",
    "abort": "it has ended here: end the child by the ladder, send nothing more of it",
    "discard": "it was received and never started: forget it",
    "done": "its final is known: forget it",
}
COMMANDS: Final[Mapping[str, str]] = {
    "start": "run the wrapper's own command with this input; `input`, `limits`",
    "input": "a follow-up for a running execution; `input`",
    "interrupt": "end it by the ladder within `within_s`; `interrupt_id`, `reason`, `force`",
    "approval": "the decision about an approval; `approval_id`, `decision`, `note`",
    "abort": "it has ended here: end the child; `reason`",
}
GAPS: Final[Mapping[str, str]] = {
    "trimmed": "the spool was at its limit with policy `trim` and dropped old output",
    "refused": "Holdfast refused the record as invalid or too large",
}
