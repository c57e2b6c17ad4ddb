"""One health check of the gateway, as a little machine on a non-blocking socket: no thread, no waiting, one deadline.

A thread would forbid `up` to fork safely, and a blocking client's timeout counts per read, not for the whole answer.
"""

from __future__ import annotations

import contextlib
import socket

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - a door that listens everywhere is asked on loopback


class Probe:
    """`GET /healthz`. Feed it with `step` whenever its socket moves or the deadline comes."""

    def __init__(self, host: str, port: int, deadline: float) -> None:
        self.deadline = deadline
        self.answer = b""
        self.wants_write = True
        self.request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        host = _ANY.get(host, host)
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError, OSError):  # a refusal shows at the first send
            self.socket.connect((host, port))

    def fileno(self) -> int:
        return self.socket.fileno()

    def step(self, now: float) -> bool | None:
        """None: not known yet. True: it answered 200. False: refused, cut, another answer, or too late."""
        try:
            if self.wants_write:
                self.request = self.request[self.socket.send(self.request) :]
                self.wants_write = bool(self.request)
            else:
                chunk = self.socket.recv(256)
                self.answer += chunk
                status = self.answer.split(b" ", 2)
                if len(status) == 3:
                    return status[1] == b"200"
                if not chunk:
                    return False
        except BlockingIOError:
            pass  # nothing moved: only the deadline counts
        except OSError:
            return False
        return False if now >= self.deadline else None

    def close(self) -> None:
        self.socket.close()
