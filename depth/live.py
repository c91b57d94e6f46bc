"""Live depth: the newest frame wins, and no queue builds up behind a slow model.

A webcam gives frames faster than most machines can follow. Of the frames that wait, only the newest is
worth computing: an older one would show a moment that is gone, later and later. So one frame is being
worked on, at most one waits, and a newer one takes the place of that one.
"""

from __future__ import annotations

import base64
import binascii
import io
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np
from PIL import Image

from cache.errors import ImageError
from depth.images import open_rgb

F = TypeVar("F")
A = TypeVar("A")
MAX_SESSIONS = 256  # remembered at a time; a forgotten one simply starts anew
MAX_FRAME = 4_000_000  # letters of a frame's data URL
CONSTRAINTS = {"video": {"width": {"ideal": 640}, "height": {"ideal": 480}}}  # more would only be scaled down
# What browsers call the reasons for giving no camera (W3C, Media Capture and Streams), and what helps.
REFUSALS = {
    "NotAllowedError": "The camera was refused. Allow it for this page in the browser's address bar, then try again.",
    "NotFoundError": "There is no camera. Connect one, then try again.",
    "NotReadableError": "The camera is in use elsewhere. Close the other program, then try again.",
    "OverconstrainedError": "This camera gives no picture of a usable size. Choose another one.",
    "TypeError": "The browser gives cameras to safe pages only. Open it by https, or as localhost on its own machine.",
}
_JPEG = "data:image/jpeg;base64,"


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


def frame(url: str | None) -> np.ndarray:
    """One camera frame, RGB float32 `H×W×3` in 0..1, as browsers send it: a JPEG in a data URL. Raises ImageError."""
    if not isinstance(url, str) or not url.startswith(_JPEG) or len(url) > MAX_FRAME:
        raise ImageError("This is not a frame of a camera.", expected="a JPEG in a data URL")
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(url[len(_JPEG):], validate=True)), formats=("JPEG",))
    except (binascii.Error, OSError, ValueError) as error:
        raise ImageError("The camera's frame is damaged.", next_step="Start the camera again.") from error
    with picture:
        return open_rgb(picture)


def picture(pixels: np.ndarray) -> str:
    """uint8 `H×W×3` as a JPEG in a data URL."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    return _JPEG + base64.b64encode(file.getvalue()).decode()
