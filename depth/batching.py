"""Requests that arrive together run together, and nobody waits for company.

While the engine works, callers queue; when it is free, the first of them takes along those whose input
has the same size. A lone caller is served at once, so the wait is bounded by the passes before it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MOST_PIXELS = 4 * 384 * 512  # of network input in one pass: bounds its memory


@dataclass(eq=False)
class _Request:
    picture: np.ndarray  # 1, 3, h, w
    answer: np.ndarray | None = None  # h, w
    error: BaseException | None = None

    @property
    def done(self) -> bool:
        return self.answer is not None or self.error is not None


class Batcher:
    """Calls `run` (float32 `N×3×h×w` → `N×h×w`) from any number of threads, one pass at a time.

    `is_memory_error` tells whether an exception means that a pass needs too much memory: then the batch is
    halved and each half tried once more. Any other error of a pass reaches all whose pictures were in it.
    """

    def __init__(self, run: Callable[[np.ndarray], np.ndarray],
                 is_memory_error: Callable[[BaseException], bool] = lambda error: isinstance(error, MemoryError)):
        self._run, self._is_memory_error = run, is_memory_error
        self._waiting: list[_Request] = []
        self._guard = threading.Lock()
        self._turn = threading.Lock()

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """The depth `h×w` of one prepared picture `1×3×h×w`."""
        return self.all([picture])[0]

    def all(self, pictures: list[np.ndarray]) -> list[np.ndarray]:
        """The depths of several, in order; their sizes may differ."""
        requests = [_Request(picture) for picture in pictures]
        with self._guard:
            self._waiting += requests
        for request in requests:
            with self._turn:
                if not request.done:
                    self._serve(self._companions(request))
        for request in requests:
            if request.error is not None:
                raise request.error
        return [request.answer for request in requests]

    def _companions(self, first: _Request) -> list[_Request]:
        """The request and the oldest waiting ones of its size, taken from the queue."""
        shape = first.picture.shape
        most = max(1, MOST_PIXELS // (shape[2] * shape[3]))
        with self._guard:
            same = [one for one in self._waiting if one is not first and one.picture.shape == shape]
            taken = [first, *same[:most - 1]]
            self._waiting = [one for one in self._waiting if not any(one is other for other in taken)]
        return taken

    def _serve(self, requests: list[_Request]) -> None:
        try:
            answers = self._pass([request.picture for request in requests])
        except BaseException as error:
            for request in requests:
                request.error = error
            return
        for request, answer in zip(requests, answers, strict=True):
            request.answer = answer

    def _pass(self, pictures: list[np.ndarray]) -> list[np.ndarray]:
        try:
            return list(self._run(pictures[0] if len(pictures) == 1 else np.concatenate(pictures)))
        except Exception as error:
            if len(pictures) == 1 or not self._is_memory_error(error):
                raise
        half = len(pictures) // 2
        return [answer for part in (pictures[:half], pictures[half:]) for answer in self._run(np.concatenate(part))]
