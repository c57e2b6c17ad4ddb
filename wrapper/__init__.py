"""The light side of Holdfast: runs an agent's command for each execution and never loses what it said.

A wrapper speaks the protocol over one outgoing WebSocket, keeps every record in an on-disk spool until it is
acknowledged, and runs the agent through a shim that outlives it. It imports `actors.protocol` and nothing else of ours.
"""

VERSION = "0.1.0"  # of pyproject.toml; a test compares. Asking importlib.metadata costs 15 ms of a 300 ms start
