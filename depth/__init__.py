"""Image in, depth map out, with the MiDaS networks.

    >>> from depth import MiDaSDepthEstimator                       # doctest: +SKIP
    >>> depth = MiDaSDepthEstimator("DPT_Large").predict("photo.jpg")  # doctest: +SKIP

Importing this package imports neither torch nor gradio; the first use does.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from depth import meta_kernels

if TYPE_CHECKING:
    from depth.depthmap import DepthMap
    from depth.estimator import MiDaSDepthEstimator

__all__ = ["DepthMap", "MiDaSDepthEstimator"]
_HOMES = {"DepthMap": "depth.depthmap", "MiDaSDepthEstimator": "depth.estimator"}

meta_kernels.wait()  # when torch is imported; it does not import it

# Read when torch is loaded. torch's threads wait for each other by spinning, which on a machine that does other work
# too costs whole time slices: on two busy cores a picture took 6 to 40 times as long, and 7 times the processor time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str):
    """Import a public name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
