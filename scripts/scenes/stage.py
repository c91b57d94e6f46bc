"""A scene being put together: shapes, materials, lights, air, camera, and its own stream of random numbers."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass, field

import numpy as np

from scripts.scenes import raytrace
from scripts.scenes.raytrace import BALL, BOX, TUBE

PLAIN, CLOUDS, CHECKS, BRICKS, PLANKS, STRIPES, MARBLE, TILES = range(8)
TEXT, SPOTS, SPECKLE, GRADIENT, PICTURE, FACADE, STRANDS, ROAD = range(8, 16)
LEAVES, LATTICE, BLADES, BARS = 1, 2, 3, 4


@dataclass
class Scene:
    """What the composers fill: shapes, materials, lights, the air and the camera."""

    rng: np.random.Generator
    shapes: list = field(default_factory=list)
    materials: list = field(default_factory=list)
    lights: list = field(default_factory=list)
    air: np.ndarray = field(default_factory=lambda: np.zeros(raytrace.AIR, np.float32))
    ground: np.ndarray = field(default_factory=lambda: np.array([0, 10, 0, 0, 5], np.float32))
    eye: tuple = (0.0, 1.6, 0.0)
    pitch: float = 0.0
    roll: float = 0.0
    view: float = 60.0  # degrees across the picture's longer side

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.rng.random()

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def pick(self, *options):
        return options[int(self.rng.integers(len(options)))]

    def material(
        self, texture=PLAIN, colours=None, scale=1.0, spec=None, bump=None, emission=0.0, hole=(0, 1, 0)
    ) -> int:
        colours = colours or palette(self)
        spec = spec if spec is not None else (self.uniform(0.05, 0.6) if self.chance(0.3) else 0.0)
        bump = bump if bump is not None else (self.uniform(0.1, 0.8) if self.chance(0.25) else 0.0)
        row = [texture, scale, *colours[0], *colours[1], *colours[2], spec, self.uniform(6, 60), bump, emission]
        self.materials.append([*row, *hole, float(self.rng.integers(1 << 20))])
        return len(self.materials) - 1

    def put(self, kind, centre, half, material, turn=None, taper=1.0, casts=True) -> None:
        """Add a unit shape scaled to `half` metres, turned by a 3×3 matrix (its rows are the shape's axes)."""
        axes = turn if turn is not None else IDENTITY
        rows = [axes[i][j] / half[i] for i in range(3) for j in range(3)]
        radius = {BALL: max(half), BOX: math.hypot(*half)}.get(
            kind, math.hypot(max(half[0], half[2]) * max(1, taper), half[1])
        )
        self.shapes.append([*rows, *centre, *half, radius, kind, material, taper, float(casts)])

    def box(self, x, y, z, w, h, d, material, yaw=0.0, **more) -> None:
        """A box standing on height y with full width, height and depth, turned about its vertical axis."""
        self.put(BOX, (x, y + h / 2, z), (w / 2, h / 2, d / 2), material, turn_y(yaw) if yaw else None, **more)

    def tube(self, x, y, z, r, h, material, taper=1.0, **more) -> None:
        self.put(TUBE, (x, y + h / 2, z), (r, h / 2, r), material, None, taper, **more)

    def ball(self, x, y, z, rx, ry, rz, material, **more) -> None:
        self.put(BALL, (x, y, z), (rx, ry, rz), material, **more)

    def rod(self, a, b, r, material, taper=1.0) -> None:
        """A tube from point a to point b."""
        axis = [b[i] - a[i] for i in range(3)]
        length = math.hypot(*axis) or 1e-6
        up = [v / length for v in axis]
        side = (0.0, 0.0, 1.0) if abs(up[1]) > 0.9 else (0.0, 1.0, 0.0)
        x = cross(up, side)
        n = math.hypot(*x)
        x = [v / n for v in x]
        middle = [(a[i] + b[i]) / 2 for i in range(3)]
        self.put(TUBE, middle, (r, length / 2, r), material, (x, up, cross(x, up)), taper)


IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def cross(a, b):
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]


def turn_y(yaw: float):
    c, s = math.cos(yaw), math.sin(yaw)
    return ((c, 0.0, -s), (0.0, 1.0, 0.0), (s, 0.0, c))


def turn_any(s: Scene):
    """A random rotation, as three axes."""
    q, _ = np.linalg.qr(s.rng.normal(size=(3, 3)))
    return q.tolist()


def yaw_room(s: Scene, yaw, pivot) -> None:
    """Turn and shift everything so that the camera at `pivot` looks along `yaw`."""
    c, q = math.cos(yaw), math.sin(yaw)
    turn = np.array([[c, 0, -q], [0, 1, 0], [q, 0, c]])
    shapes = np.array(s.shapes, np.float64)
    shapes[:, 9:12] = (shapes[:, 9:12] - pivot) @ turn.T
    shapes[:, :9] = (shapes[:, :9].reshape(-1, 3, 3) @ turn.T).reshape(-1, 9)
    s.shapes = shapes.tolist()
    for light in s.lights:
        offset = np.array(pivot) if light[0] else 0
        light[1:4] = (turn @ (np.array(light[1:4]) - offset)).tolist()


def hsv(h: float, s: float, v: float) -> tuple[float, float, float]:
    """A colour in linear light."""
    return tuple(c**2.2 for c in colorsys.hsv_to_rgb(h % 1.0, min(1.0, max(0.0, s)), min(1.0, max(0.02, v))))


def palette(s: Scene, hue=None, sat=None, value=None, spread=0.08):
    """Three related colours; without a hue, anything from grey through pastel to vivid."""
    h = s.rng.random() if hue is None else hue + s.rng.normal() * spread * 0.5
    sat = s.rng.random() ** 2.5 * s.pick(0.5, 1.0) if sat is None else sat * s.uniform(0.6, 1.3)
    v = s.uniform(0.08, 1.0) if value is None else value * s.uniform(0.7, 1.2)
    wild = s.chance(0.15)
    step = 0.5 if wild else spread
    return (
        hsv(h, sat, v),
        hsv(h + s.rng.normal() * step, sat * s.uniform(0.5, 1.5), v * s.uniform(0.45, 1.3)),
        hsv(
            h + s.rng.normal() * step,
            sat * s.uniform(0.3, 1.5),
            s.uniform(0.05, 1.0) if wild else v * s.uniform(0.4, 1.6),
        ),
    )
