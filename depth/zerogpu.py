"""Spaces that lend a GPU for each call (ZeroGPU); elsewhere everything here is plain.

The program itself has no GPU there: a lent one belongs to a process that is forked for the call and kept for
a while. So nothing is loaded here; that process loads the network at its first picture, from weights that
are on the disk already. What goes there and comes back is pickled.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from cache.errors import DepthmapError
from depth import estimator
from depth.models import DEFAULT, Model, find

if TYPE_CHECKING:
    from depth.depthmap import DepthMap

F = TypeVar("F", bound=Callable)
LENT = os.environ.get("SPACES_ZERO_GPU", "").lower() in {"1", "t", "true"}  # as the package itself reads it


def on_gpu(function: F, *, seconds: int = 60) -> F:
    """The function, borrowing a GPU for at most `seconds` a call where ZeroGPU lends one; generators too.

    It must be applied at import time, to a function of a module: ZeroGPU looks for them when the app starts.
    """
    if not LENT:
        return function
    import spaces

    return spaces.GPU(function, duration=seconds)


def shared(name: str = DEFAULT, *, progress: Callable | None = None) -> estimator.MiDaSDepthEstimator | Borrower:
    """What `estimator.shared` gives; where GPUs are lent, its stand-in."""
    return Borrower(find(name)) if LENT else estimator.shared(name, progress=progress)


class Borrower:
    """Predicts as an estimator does; each picture borrows a GPU."""

    def __init__(self, model: Model):
        self.model = model

    def predict(self, image: estimator.Picture) -> DepthMap:
        """As `MiDaSDepthEstimator.predict`."""
        answer = _borrowed(self.model.name, image)
        if isinstance(answer, DepthmapError):
            raise answer
        return answer


def _answer(name: str, image: estimator.Picture) -> DepthMap | DepthmapError:
    """In the process with the GPU. An error goes back as an answer: a raised one would lose its words on the way."""
    try:
        return estimator.shared(name).predict(image)
    except DepthmapError as error:
        return error


_borrowed = on_gpu(_answer)
