"""What a wrapper's process asks of Python and of the C library."""

from __future__ import annotations

import platform
import subprocess

import pytest

from tests.wrapper.conftest import PYTHON, ROOT

FRAMES = """
import gc, resource, sys
from wrapper.process import HANDOVER_S, settle
if sys.argv[1] == "settled":
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    settle()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 500, "it touched what it gave back"
    assert sys.getswitchinterval() == HANDOVER_S and gc.get_freeze_count() > 1000
def frame():
    text = b"x" * (512 << 10)
    return bytearray(text) + text
for _ in range(10):
    frame()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    frame()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has ways of its own")
def test_frames_are_not_mapped_anew() -> None:
    def faults(how: str) -> int:
        done = subprocess.run([PYTHON, "-c", FRAMES, how], cwd=ROOT, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("as it is") > 10_000  # the control: each of the 100 costs hundreds
    assert faults("settled") < 2_000
