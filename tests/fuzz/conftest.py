"""`--hypothesis-profile=deep` for a long run with fresh randomness; without it the same short run every time."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("deep", deadline=None)
