"""Live depth: the newest frame wins, and no queue builds up behind a slow model.

A webcam gives frames faster than most machines can follow. Of the frames that wait, only the newest is
worth computing: an older one would show a moment that is gone, later and later. So one frame is being
worked on, at most one waits, and a newer one takes the place of that one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Generic, TypeVar

F = TypeVar("F")
A = TypeVar("A")
MAX_SESSIONS = 256  # remembered at a time; a forgotten one simply starts anew


class LatestFrame(Generic[F]):
    """One camera's frames, from any number of threads. Use either `newest` (a handler that is called for each
    frame) or `put` and `take` (a camera thread and a worker thread)."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: F | None = None
        self.offered = 0  # frames that `newest` was called with, so far
        self._busy = False
        self._closed = False

    def newest(self, frame: F, work: Callable[[F], A]) -> A | None:
        """`work(frame)`, one at a time; None, without working, if a newer frame came while this one waited."""
        with self._changed:
            self.offered += 1
            mine = self.offered
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._busy or self.offered != mine or self._closed)
            if self.offered != mine or self._closed:
                return None
            self._busy = True
        try:
            return work(frame)
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def put(self, frame: F) -> None:
        """Offer a frame; one that nobody has taken yet is forgotten."""
        with self._changed:
            self._waiting = frame
            self._changed.notify_all()

    def take(self, timeout: float | None = None) -> F | None:
        """The newest frame not taken before, waited for; None after `timeout` seconds or once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._closed, timeout)
            frame, self._waiting = self._waiting, None
            return frame

    def close(self) -> None:
        """Let everybody who waits go, with None."""
        with self._changed:
            self._closed, self._waiting = True, None
            self._changed.notify_all()


@lru_cache(maxsize=MAX_SESSIONS)
def camera(session: str) -> LatestFrame:
    """The frames of one visitor: one camera must not overtake another's frames."""
    return LatestFrame()
