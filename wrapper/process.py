"""What a wrapper's process asks of Python and of the C library, once, when all is imported. No behaviour."""

from __future__ import annotations

import gc
import sys
from typing import Final

# The socket's thread and the spool's take turns; a turn of Python's usual 5 ms is as long as a frame takes to be made.
HANDOVER_S: Final = 0.0005
# glibc maps each large block anew, and 200 MB in frames of 512 KiB are 150,000 page faults, half a second of the
# kernel. A block that is freed says how large is not large: from here on frames come from the heap, which keeps twice
# as much. It is never touched, so it costs nothing itself; another C library takes no notice.
FRAMES_BYTES: Final = 16 << 20


def settle() -> None:
    sys.setswitchinterval(HANDOVER_S)
    gc.freeze()  # what was imported stays: the collector need not look at it again and again
    bytes(FRAMES_BYTES)
