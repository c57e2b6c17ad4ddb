"""What `up` asks of the kernel before anybody comes."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import resource
from actors import processes
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(processes.room_for_files({wanted}), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "then"),
    [
        (256, 1024, 20_500, (1024, 1024, 1024)),  # as far as it may go
        (256, 4096, 1000, (1000, 1000, 4096)),  # no further than it needs
        (2048, 4096, 1000, (2048, 2048, 4096)),  # never lowered
    ],
)
def test_the_limit_of_open_files_is_raised_to_what_is_wanted_or_allowed(
    soft: int, hard: int, wanted: int, then: tuple[int, int, int]
) -> None:
    code = CODE.format(soft=soft, hard=hard, wanted=wanted)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert tuple(map(int, said.stdout.split())) == then
