"""The judge of histories: what wrappers, agents, subscribers and operators saw, held against what the store says.

It knows the promises (DESIGN §3) and nothing of how they are kept: no law, no store, no gateway, no clock is imported.
The format of a history is docs/history.md; `holdfast check` is the door.
"""

from actors.history.court import CODES, Anomaly
from actors.history.judge import check
from actors.history.reading import Observation, Unreadable, content_hash, parse, read

__all__ = ["CODES", "Anomaly", "Observation", "Unreadable", "check", "content_hash", "parse", "read"]
