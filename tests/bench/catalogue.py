"""All benchmarks in their order. SOAK is long, and asked for by name."""

from __future__ import annotations

from typing import Final

from tests.bench import b01, b02, b03, b04, b05, b06, b07, b08, b09, b10, b11, b12, b13
from tests.bench.figures import Benchmark

ALL: Final[tuple[Benchmark, ...]] = tuple(
    module.BENCHMARK for module in (b01, b02, b03, b04, b05, b06, b07, b08, b09, b10, b11, b12)
)
SOAK: Final = b13.BENCHMARK
