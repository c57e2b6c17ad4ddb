"""What may stand behind `--url`: asked of people by both command lines, so judged in one place."""

from __future__ import annotations

from urllib.parse import urlsplit


def is_service_url(text: str) -> bool:
    """http or https, a host, and at most a port and a path."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        return False
