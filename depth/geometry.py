"""From relative inverse depth to space: distances, surface normals, points.

MiDaS answers inverse depth up to an unknown scale and shift: distance = 1 / (a · value + b). Two known
distances give `a` and `b` (`calibrated`); without them `guessed` takes numbers that look right. The
camera is a pinhole with square pixels and its axis through the picture's centre; its field of view is
not in the picture and has to be given or guessed.

Space has x to the right, y up and z towards the viewer, the camera at the origin: what glTF uses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cache.errors import UsageError
from depth.render import checked

FOV = 55.0  # degrees across the longer side: a phone's or a camera's usual lens
FAR = 3.0  # a guessed scene's farthest point: so many times as far as its nearest; deeper ones look like funnels
FARTHEST = 1000.0  # times the nearest distance; "infinitely far" becomes this, in whatever unit
ALIKE = 0.005  # of the map's range: two values that differ by less decide nothing but noise
Point = tuple[int, int, float]  # row, column, distance


@dataclass(frozen=True)
class Calibration:
    """distance = 1 / (a · value + b), `a` not negative."""

    a: float
    b: float


def guessed(values: ArrayLike, far: float = FAR) -> Calibration:
    """The nearest value at distance 1, the farthest at `far`; a constant map at distance 1."""
    depth = checked(values)
    low, high = float(depth.min()), float(depth.max())
    if not high > low:
        return Calibration(0.0, 1.0)
    a = (1 - 1 / far) / (high - low)
    return Calibration(a, 1 - a * high)


def calibrated(values: ArrayLike, first: Point, second: Point) -> Calibration:
    """The calibration through two pixels of known distance, each `(row, column, distance)`.

    Distances come out in the unit they were given in. They are as good as the map is affine: expect
    some percent near the two points, more away from them, and little beyond the farther one. Choose
    one point near and one far. Raises UsageError for points that do not decide it.
    """
    depth = checked(values)
    (value_1, distance_1), (value_2, distance_2) = (_measured(depth, point) for point in (first, second))
    alike = abs(value_1 - value_2) <= ALIKE * float(np.ptp(depth))
    if alike or distance_1 == distance_2:
        raise UsageError("Two equal points do not calibrate a map.", expected="one nearer and one farther point",
                         got=f"the same {'value' if alike else 'distance'} twice",
                         next_step="Choose points at clearly different distances.")
    a = (1 / distance_1 - 1 / distance_2) / (value_1 - value_2)
    if a < 0:
        raise UsageError("The two distances contradict the map.", got="the larger distance for the nearer point",
                         next_step="Swap the distances, or choose other points.")
    return Calibration(a, 1 / distance_1 - a * value_1)


def distances(values: ArrayLike, calibration: Calibration, farthest: float | None = None) -> np.ndarray:
    """Distance along the camera's axis, float32 `H×W`; nothing is farther than `farthest`.

    None takes `FARTHEST` times the nearest distance. Raises UsageError if even the nearest value would lie
    beyond infinity.

    >>> distances([[1.0, 0.25, 0.0]], Calibration(1, 0), farthest=100).tolist()
    [[1.0, 4.0, 100.0]]
    """
    inverse = calibration.a * checked(values).astype(np.float64) + calibration.b
    if not inverse.max() > 0:
        raise UsageError("This calibration puts everything beyond infinity.", got=calibration,
                         expected="a · value + b above 0 for the nearest value")
    limit = FARTHEST / inverse.max() if farthest is None else farthest
    return (1 / np.maximum(inverse, 1 / limit)).astype(np.float32)


def normals(values: ArrayLike, calibration: Calibration | None = None, fov: float = FOV) -> np.ndarray:
    """Unit vectors that stand on the surface and look towards the camera, float32 `H×W×3`.

    On a plane inverse distance w is linear in the pixels: with (x, y) from the centre, y downwards, and
    focal length f, the plane's normal is along (f ∂w/∂x, f ∂w/∂y, w - x ∂w/∂x - y ∂w/∂y). So planes come out
    exact, whatever their slant.
    """
    depth = checked(values)
    calibration = calibration or guessed(depth)
    inverse = calibration.a * depth.astype(np.float64) + calibration.b
    f = focal_length(depth.shape, fov)
    x, y = _from_centre(depth.shape)
    down, right = (_slope(inverse, axis) for axis in (0, 1))
    away = inverse - x * right - y * down
    vectors = np.stack([-f * right, f * down, away], axis=-1)  # towards the camera, y turned upwards
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    facing = np.broadcast_to((0.0, 0.0, 1.0), vectors.shape)
    return np.where(length > 0, vectors / np.where(length > 0, length, 1), facing).astype(np.float32)


def normal_colors(vectors: np.ndarray) -> np.ndarray:
    """Normals as the usual colours, uint8: -1..1 → 0..255; red right, green up, blue towards the viewer.

    >>> normal_colors(np.array([[[0.0, 0.0, 1.0]]])).tolist()
    [[[128, 128, 255]]]
    """
    return np.floor((np.asarray(vectors) + 1) * 127.5 + 0.5).astype(np.uint8)


def positions(distance: np.ndarray, fov: float = FOV) -> np.ndarray:
    """Where each pixel lies in space, float32 `H×W×3`, from distances along the camera's axis."""
    f = focal_length(distance.shape, fov)
    x, y = _from_centre(distance.shape)
    return np.stack([x / f * distance, -y / f * distance, -distance], axis=-1).astype(np.float32)


def focal_length(size: tuple[int, int], fov: float) -> float:
    """In pixels, for a field of view in degrees across the longer side of `(H, W)`.

    >>> round(focal_length((480, 640), 90))
    320
    """
    if not 1 <= fov <= 170:
        raise UsageError("This field of view is not possible.", expected="1 to 170 degrees", got=fov)
    return max(size) / 2 / math.tan(math.radians(fov) / 2)


def _measured(depth: np.ndarray, point: Point) -> tuple[float, float]:
    """The map's value at the point, and the distance given for it."""
    row, column, distance = point
    if not (0 <= row < depth.shape[0] and 0 <= column < depth.shape[1]):
        raise UsageError("This point is outside the picture.", got=f"row {row}, column {column}",
                         expected=f"row below {depth.shape[0]}, column below {depth.shape[1]}")
    if not (math.isfinite(distance) and distance > 0):
        raise UsageError("This is not a distance.", expected="a number above 0", got=distance)
    return float(depth[int(row), int(column)]), float(distance)


def _from_centre(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Columns (1×W) and rows (H×1) counted from the picture's centre."""
    height, width = size
    return (np.arange(width) - (width - 1) / 2)[None, :], (np.arange(height) - (height - 1) / 2)[:, None]


def _slope(field: np.ndarray, axis: int) -> np.ndarray:
    """Central differences, one-sided at the border; zero along an axis of one pixel."""
    return np.gradient(field, axis=axis) if field.shape[axis] > 1 else np.zeros_like(field)
