"""Made-up scenes: `render(seed)` gives a photo-like picture and its exact depth, the same every time.

A scene is a list of shapes, materials and lights (`stage.py`, traced by `raytrace.py`) put together by one of the
composers below, seen through a camera of random height, pitch, roll and field of view, and then spoilt as cameras
do (`lens.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from scripts.scenes import raytrace
from scripts.scenes.handheld import closeup
from scripts.scenes.indoors import corridor, room, tabletop
from scripts.scenes.lens import photograph
from scripts.scenes.mixed import jumble, portrait
from scripts.scenes.nearby import nearby
from scripts.scenes.outdoors import fields, landmark, street, wildlife
from scripts.scenes.shade import shade
from scripts.scenes.stage import Scene
from scripts.scenes.texture import height_at


@dataclass(frozen=True)
class Picture:
    """A rendered scene: rgb uint8 H×W×3; depth float32 H×W, metres along the axis, 0 where there is only sky."""

    rgb: np.ndarray
    depth: np.ndarray
    kind: str


COMPOSERS = (
    (room, 0.34), (corridor, 0.06), (tabletop, 0.11), (portrait, 0.10), (street, 0.12),
    (fields, 0.09), (wildlife, 0.06), (landmark, 0.04), (jumble, 0.08),
)  # fmt: skip


# Of these kinds only a share is used, so that rooms, streets and open land prevail as they do among photos.
SHARES = {"tabletop": 0.6, "portrait": 0.6, "wildlife": 0.6, "landmark": 0.5, "jumble": 0.3}
CLOSE = 500_000_000  # of each thousand million seeds, those from here on are close views of rooms
NEARBY = 750_000_000  # of each thousand million seeds, those from here on are nearby views


def is_used(seed: int) -> bool:
    """Whether the scene of a seed belongs to the collection, for training and for judging alike."""
    kind = _composer(seed, np.random.default_rng(seed)).__name__
    return np.random.default_rng([seed, 1]).random() < SHARES.get(kind, 1.0)


def _composer(seed: int, rng: np.random.Generator):
    if seed % (2 * CLOSE) >= CLOSE:
        return nearby if seed % (2 * CLOSE) >= NEARBY else closeup
    chances = np.array([p for _, p in COMPOSERS])
    return COMPOSERS[int(rng.choice(len(chances), p=chances / chances.sum()))][0]


def compose(seed: int) -> tuple[Scene, str]:
    """The scene of a seed, and the name of its composer."""
    s = Scene(np.random.default_rng(seed))
    composer = _composer(seed, s.rng)
    composer(s)
    s.roll = s.rng.normal() * 0.03 if s.chance(0.7) else s.rng.normal() * 0.12
    return s, composer.__name__


def camera_turn(pitch: float, roll: float) -> np.ndarray:
    """Camera-to-world rotation (3×3); positive pitch looks up."""
    cp, sp, cr, sr = math.cos(pitch), math.sin(pitch), math.cos(roll), math.sin(roll)
    tilt = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    return tilt @ np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])


class Rows(NamedTuple):
    """A scene and its camera as numbers, see `raytrace.py`; float64."""

    shapes: np.ndarray
    materials: np.ndarray
    lights: np.ndarray
    air: np.ndarray
    ground: np.ndarray
    eye: np.ndarray
    turn: np.ndarray
    focal: float


ROWS = Rows((-1, 20), (-1, 19), (-1, raytrace.LIGHT), (raytrace.AIR,), (5,), (3,), (3, 3), ())  # shapes; -1: any number


def rows(s: Scene, height: int, width: int) -> Rows:
    eye = np.array(s.eye, np.float64)
    eye[1] += height_at(0.0, 0.0, s.ground)
    return Rows(np.array(s.shapes, np.float64), np.array(s.materials, np.float64),
                np.array(s.lights, np.float64).reshape(-1, raytrace.LIGHT),
                s.air.astype(np.float64), s.ground.astype(np.float64), eye,
                camera_turn(s.pitch, s.roll), 0.5 * max(height, width) / math.tan(math.radians(s.view) / 2))


def draw(s: Scene, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Linear colour (H×W×3 float32) and z-depth in metres (H×W float32, 0 for sky) of a scene."""
    shapes, materials, lights, air, ground, eye, turn, focal = rows(s, height, width)
    depth, owner = raytrace.trace(shapes, materials, eye, turn, focal, height, width, ground)
    colour = shade(depth, owner, shapes, materials, lights, air, eye, turn, focal, ground)
    return colour, np.where(owner < 0, np.float32(0), depth)


def render(seed: int, height: int = 256, width: int = 256, draw: Callable = draw) -> Picture:
    """The photo-like picture and depth of a seed; equal seeds give equal pictures."""
    s, kind = compose(seed)
    colour, depth = draw(s, height, width)
    return Picture(photograph(colour, depth, s.rng), depth, kind)
