"""Memory that the layers of a network use one after the other, kept for the next pass and given back when none comes.

glibc returns each large buffer to the system as soon as it is freed, and the next layer's comes as new pages:
fifty thousand page faults in a pass of DPT_Large, a twentieth of its time. So from the first pass on it keeps
them, and they go back when no pass has run for a second. Where the C library is another one, or somebody has
tuned it, nothing is changed.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
BUFFER, KEPT = 128 << 20, 256 << 20  # bytes
IDLE = 1.0  # seconds


class _Passes:
    """How many run now, and when the last one has ended."""

    def __init__(self) -> None:
        self._lock, self._running, self._timer = threading.Lock(), 0, None

    def begin(self) -> None:
        with self._lock:
            self._running += 1
            if self._timer is not None:
                self._timer.cancel()

    def end(self, libc: ctypes.CDLL) -> None:
        with self._lock:
            self._running -= 1
            if not self._running:
                self._timer = threading.Timer(IDLE, self._give_back, [libc])
                self._timer.daemon = True
                self._timer.start()

    def _give_back(self, libc: ctypes.CDLL) -> None:
        with self._lock:
            idle = not self._running
        if idle:
            libc.malloc_trim(0)


_passes = _Passes()


@contextmanager
def buffers_kept() -> Iterator[None]:
    """Around a pass: what it frees is there for its next layers and for the next pass."""
    libc = _tuned_libc()
    if libc is None:
        yield
        return
    _passes.begin()
    try:
        yield
    finally:
        _passes.end(libc)


@lru_cache(maxsize=1)
def _tuned_libc() -> ctypes.CDLL | None:
    """glibc, which from now on keeps freed buffers of up to `BUFFER` until it has `KEPT` of them."""
    if any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, BUFFER)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)
        return libc
    except (OSError, AttributeError):
        return None
