"""A GPU for the time of a call, on Spaces that lend one (ZeroGPU); elsewhere a plain call."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable)


def on_gpu(function: F, *, seconds: int = 60) -> F:
    """The function, borrowing a GPU for at most `seconds` a call where ZeroGPU lends one; generators too.

    It must be applied at import time, to a function of a module: ZeroGPU looks for them when the app starts.
    """
    if not os.environ.get("SPACES_ZERO_GPU"):
        return function
    import spaces

    return spaces.GPU(function, duration=seconds)
