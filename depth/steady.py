"""Steady depth over the frames of a clip.

Each frame's relative depth has a scale and an offset of its own, which is what flickers. Every frame is
therefore brought to centre 0 and width 1, averaged with its past there, and given back a centre and a
width that change as slowly. Nothing is fed back into the alignment: aligning to the last *output*
instead would flatten a long clip, a little with each frame.
"""

from __future__ import annotations

import numpy as np

SAMPLES = 65_536  # values that are enough for a frame's centre and width
CUT = 0.4  # correlation with the past below this is another scene
FLAT = 1e-6  # a width below this share of the values is a constant map


class Steady:
    """An exponential average of aligned frames; `strength` 0 keeps each frame, 0.9 leaves a tenth of it.

    State is one frame, however long the clip. Not thread-safe: frames come in order.
    """

    def __init__(self, strength: float):
        self._keep = strength
        self._past: tuple[np.ndarray, float, float] | None = None  # aligned map, centre, width

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """The next frame, steadied: float32 `H×W` in the units of the values given."""
        if not self._keep:
            return values
        centre, width = _centre_and_width(values)
        aligned = (values - np.float32(centre)) / np.float32(width)
        if self._past is not None and self._past[0].shape == aligned.shape and _alike(self._past[0], aligned):
            past, past_centre, past_width = self._past
            aligned = self._mix(past, aligned)
            centre, width = self._mix(past_centre, centre), self._mix(past_width, width)
        self._past = aligned, centre, width
        return (aligned * width + centre).astype(np.float32)

    def _mix(self, past, new):
        return self._keep * past + (1 - self._keep) * new


def _centre_and_width(values: np.ndarray) -> tuple[float, float]:
    """Median and mean distance from it; both ignore a few wild pixels. The width of a flat map is 1."""
    sample = values.ravel()[:: max(1, values.size // SAMPLES)]
    centre = float(np.median(sample))
    width = float(np.abs(sample - centre).mean())
    return centre, width if width > FLAT * max(abs(centre), FLAT) else 1.0


def _alike(past: np.ndarray, new: np.ndarray) -> bool:
    """Whether two maps show the same scene. A flat one tells nothing, and averaging it does no harm."""
    step = max(1, past.size // SAMPLES)
    one, two = past.ravel()[::step], new.ravel()[::step]
    one, two = one - one.mean(), two - two.mean()
    norm = float(np.linalg.norm(one) * np.linalg.norm(two))
    return norm == 0 or float(one @ two) / norm >= CUT
