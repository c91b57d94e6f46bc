"""Two eyes' views from one picture and its depth: red-cyan anaglyph and side by side.

Each pixel moves sideways by half its disparity, `strength · W · (nearness - screen)` pixels, to the right
in the left eye's view and to the left in the right eye's. Nearness is 0 for the farthest and 1 for the
nearest value; what lies at `screen` does not move and appears at the distance of the screen. Near pixels
cover far ones; what nobody saw is filled from the farther side, since it lies behind the nearer one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cache.errors import UsageError
from depth.render import matching, unit

STRENGTH = 0.03  # of the picture's width
SCREEN = 0.5
MAX_STRENGTH = 0.2


def stereo_pair(rgb: np.ndarray, values: ArrayLike, strength: float = STRENGTH, screen: float = SCREEN,
                fill: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """The left and the right eye's view, uint8 `H×W×3`, from RGB `H×W×3` in 0..1.

    `fill` False leaves holes black. A constant map gives the picture itself twice. Raises UsageError for
    a strength outside 0..`MAX_STRENGTH` and for sizes that differ.
    """
    depth = matching(rgb, values)
    if not 0 <= strength <= MAX_STRENGTH:
        raise UsageError("This strength is out of range.", expected=f"0..{MAX_STRENGTH}", got=strength)
    picture = np.round(rgb * 255).astype(np.uint8)
    low, high = float(depth.min()), float(depth.max())
    if not high > low:
        return picture, picture
    nearness = unit(depth, low, high)
    half = strength * depth.shape[1] * (nearness - screen) / 2  # pixels
    return _moved(picture, nearness, half, fill), _moved(picture, nearness, -half, fill)


def anaglyph(rgb: np.ndarray, values: ArrayLike, strength: float = STRENGTH, screen: float = SCREEN,
             fill: bool = True) -> np.ndarray:
    """For red-cyan glasses, uint8 `H×W×3`: red from the left eye's view, green and blue from the right's."""
    left, right = stereo_pair(rgb, values, strength, screen, fill)
    return np.concatenate([left[..., :1], right[..., 1:]], axis=-1)


def side_by_side(rgb: np.ndarray, values: ArrayLike, strength: float = STRENGTH, screen: float = SCREEN,
                 fill: bool = True) -> np.ndarray:
    """The left view, then the right one, uint8 `H×2W×3`: for parallel viewing and VR headsets."""
    return np.concatenate(stereo_pair(rgb, values, strength, screen, fill), axis=1)


def _moved(picture: np.ndarray, nearness: np.ndarray, shift: np.ndarray, fill: bool) -> np.ndarray:
    """Every pixel `shift` columns to the right. Works row by row, so memory stays small."""
    view = np.zeros_like(picture)
    for row, (colours, near, columns) in enumerate(zip(picture, nearness, shift, strict=True)):
        source = _sources(near, columns)
        if fill:
            source = _filled(source, near)
        view[row] = np.where(source[:, None] >= 0, colours[source], 0)
    return view


def _sources(near: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """For each column of a moved row the column it comes from, -1 where nothing arrives."""
    width = len(near)
    order = np.argsort(near, kind="stable")  # the nearest is written last and stays
    target = np.round(order + shift[order]).astype(np.int64)
    inside = (target >= 0) & (target < width)
    source = np.full(width, -1)
    source[target[inside]] = order[inside]
    return source


def _filled(source: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Holes take the source of the nearest filled column left or right, whichever is farther away."""
    width = len(source)
    columns = np.arange(width)
    known = source >= 0
    if not known.any():
        return columns
    left = np.maximum.accumulate(np.where(known, columns, -1))
    right = np.minimum.accumulate(np.where(known, columns, width)[::-1])[::-1]
    left, right = np.where(left < 0, right, left), np.where(right == width, left, right)
    behind = near[source[left]] <= near[source[right]]
    return np.where(behind, source[left], source[right])
