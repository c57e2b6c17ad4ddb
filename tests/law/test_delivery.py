from __future__ import annotations

from actors.law.delivery import Again, Apply, Gap, cover


def test_every_range_against_every_mark() -> None:
    """Exhaustive for small numbers: what is applied is exactly what was missing, and nothing beyond a hole."""
    for acked in range(8):
        for first in range(1, 10):
            for last in range(first, 12):
                have, sent = set(range(1, acked + 1)), set(range(first, last + 1))
                result = cover(acked, first, last)
                if sent <= have:
                    assert result == Again()
                elif min(sent) > acked + 1:
                    assert result == Gap(acked + 1)
                else:
                    assert isinstance(result, Apply)
                    assert set(range(result.first, last + 1)) == sent - have
                    assert result.skip == len(sent & have)
