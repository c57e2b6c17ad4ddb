"""How much each fuzz test may spend: a fixed, derandomized handful in CI, a hundred times as much in a deep run."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

DEEP = 100


def budget(examples: int, steps: int = 50) -> settings:
    deep = settings.get_current_profile_name() == "deep"
    return settings(
        max_examples=examples * DEEP if deep else examples,
        stateful_step_count=steps,
        derandomize=not deep,
        deadline=None,  # a shared machine stalls
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        print_blob=deep,
    )
