"""Touch the pages of a mapped file while the network for them is built.

The first touch of a page enters the kernel: for the 1.4 GB of DPT_Large 0.02 to 0.05 s, in the first pass or before.
A thread does it beside the building, but only where all of the file lies in the page cache; else it would read the disk
from the first page to the last, in the way of whoever needs a certain one. Linux 6.5 can tell (`cachestat`); elsewhere
each page is mapped when somebody needs it, as ever.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import threading
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import numpy as np

CACHESTAT = 451  # Linux's unistd.h, the same on all its 64-bit processors but Alpha
LEAST = 16 << 20  # bytes; a smaller file is mapped before a thread has started


class _CacheStat(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("cache", "dirty", "writeback", "evicted", "recently_evicted")]


def prefault(file: BinaryIO, content: np.ndarray) -> threading.Thread | None:
    """Start to touch the pages of `content`, which is the whole file, mapped; None where that is not worth it."""
    if content.size < LEAST or not lies_in_memory(file, content.size):
        return None
    # numpy lets others run meanwhile. Linux's own call for it, MADV_POPULATE_READ, keeps them from getting memory.
    thread = threading.Thread(target=content[::mmap.PAGESIZE].max, name="depthmap-prefault", daemon=True)
    thread.start()
    return thread


def lies_in_memory(file: BinaryIO, size: int) -> bool:
    """Are all of the file's `size` bytes in the page cache? False where the system does not tell."""
    if sys.platform != "linux" or sys.maxsize < 1 << 32:
        return False
    whole, found = (ctypes.c_uint64 * 2)(0, 0), _CacheStat()
    failed = ctypes.CDLL(None).syscall(CACHESTAT, file.fileno(), whole, ctypes.byref(found), 0)
    return not failed and found.cache * mmap.PAGESIZE >= size
