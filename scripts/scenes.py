"""Made-up scenes: `render(seed)` gives a photo-like picture and its exact depth, the same every time.

A scene is a list of shapes, materials and lights (`scripts/raytrace.py`) put together by one of the composers below,
seen through a camera of random height, pitch, roll and field of view, and then spoilt as cameras do (`scripts/lens.py`).
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass, field

import numpy as np

from scripts import raytrace
from scripts.lens import photograph
from scripts.raytrace import BALL, BOX, PLANE, TERRAIN, TUBE

PLAIN, CLOUDS, CHECKS, BRICKS, PLANKS, STRIPES, MARBLE, TILES = range(8)
TEXT, SPOTS, SPECKLE, GRADIENT, PICTURE, FACADE, STRANDS, ROAD = range(8, 16)
LEAVES, LATTICE, BLADES, BARS = 1, 2, 3, 4


@dataclass(frozen=True)
class Picture:
    """A rendered scene: rgb uint8 H×W×3; depth float32 H×W, metres along the axis, 0 where there is only sky."""

    rgb: np.ndarray
    depth: np.ndarray
    kind: str


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

    def material(self, texture=PLAIN, colours=None, scale=1.0, spec=None, bump=None, emission=0.0, hole=(0, 1, 0)) -> int:
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
        radius = {BALL: max(half), BOX: math.hypot(*half)}.get(kind, math.hypot(max(half[0], half[2]) * max(1, taper), half[1]))
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


# ---- colours ---------------------------------------------------------------------------------------------------------


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
        hsv(h + s.rng.normal() * step, sat * s.uniform(0.3, 1.5), s.uniform(0.05, 1.0) if wild else v * s.uniform(0.4, 1.6)),
    )


def wood(s: Scene):
    return s.material(PLANKS, palette(s, 0.075, 0.55, s.uniform(0.25, 0.9), 0.03), s.uniform(3, 9))


def cloth(s: Scene, scale=None):
    texture = s.pick(PLAIN, PLAIN, CLOUDS, STRIPES, CHECKS, SPOTS, SPECKLE)
    return s.material(texture, palette(s), scale or s.uniform(3, 20), spec=0.0)


def skin(s: Scene):
    return s.material(PLAIN, palette(s, 0.065, 0.45, s.uniform(0.3, 0.95), 0.02), 3, spec=s.uniform(0, 0.1))


def leaf(s: Scene):
    hue = s.pick(0.25, 0.27, 0.3, 0.22, 0.12, 0.05)
    hole = (LEAVES, s.uniform(4, 16), s.uniform(0.45, 0.75)) if s.chance(0.8) else (0, 1, 0)
    return s.material(SPECKLE, palette(s, hue, 0.6, s.uniform(0.2, 0.7)), s.uniform(1, 5), 0.0, 0.8, hole=hole)


def anything(s: Scene, scale=1.0):
    """Any texture at all: depth must not be guessed from it."""
    return s.material(int(s.rng.integers(15)), palette(s), scale * math.exp(s.uniform(-1.5, 2.2)))


def wall_paint(s: Scene):
    if s.chance(0.6):
        return s.material(s.pick(PLAIN, PLAIN, CLOUDS), palette(s, value=s.uniform(0.5, 1.0), sat=s.rng.random() ** 3 * 0.8, spread=0.02), s.uniform(0.3, 3), 0.0)
    texture = s.pick(BRICKS, STRIPES, TILES, PLANKS, SPOTS, CHECKS, MARBLE, GRADIENT, PICTURE)
    return s.material(texture, palette(s), s.uniform(0.8, 6))


def flooring(s: Scene):
    texture = s.pick(PLANKS, PLANKS, TILES, CHECKS, SPECKLE, SPECKLE, PLAIN, PLAIN, CLOUDS, MARBLE, PICTURE if s.chance(0.4) else PLANKS)
    hue = s.pick(0.07, 0.08, 0.1, None)
    return s.material(texture, palette(s, hue, None if hue is None else 0.4), s.uniform(0.8, 6), spec=s.uniform(0, 0.5) if s.chance(0.4) else 0.0)


# ---- things ----------------------------------------------------------------------------------------------------------


def person(s: Scene, x, y, z, tall=None, seated=False, yaw=None) -> None:
    """A person-like cluster standing (or seated) at x, z with the feet at height y."""
    tall = tall or s.uniform(1.4, 1.95)
    k = tall / 1.75
    yaw = s.uniform(0, 6.3) if yaw is None else yaw
    c, w = math.cos(yaw), math.sin(yaw)
    top, legs, flesh = cloth(s), cloth(s), skin(s)
    hair = s.material(STRANDS, palette(s, 0.07, 0.5, s.uniform(0.05, 0.7)), 3, 0.0)

    def at(a, b, h):
        return (x + (a * c + b * w) * k, y + h * k, z + (-a * w + b * c) * k)

    hip = 0.5 if seated else 0.88
    stride = s.uniform(-0.25, 0.25)
    for side in (-1, 1):
        if seated:
            s.rod(at(side * 0.1, 0, hip), at(side * 0.12, 0.45, hip), 0.09 * k, legs)
            s.rod(at(side * 0.12, 0.45, hip), at(side * 0.12, 0.45, 0), 0.065 * k, legs)
        else:
            s.rod(at(side * 0.11, side * stride, 0), at(side * 0.09, 0, hip), 0.085 * k, legs)
        elbow = at(side * s.uniform(0.24, 0.4), s.uniform(-0.05, 0.25), hip + s.uniform(0.1, 0.35))
        s.rod(at(side * 0.2, 0, hip + 0.52), elbow, 0.055 * k, top)
        s.rod(elbow, at(side * s.uniform(0.1, 0.45), s.uniform(0, 0.4), hip + s.uniform(-0.05, 0.4)), 0.045 * k, s.pick(flesh, top))
    fat = s.uniform(0.9, 1.4)
    s.put(BALL, at(0, 0, hip + 0.12), (0.19 * k * fat, 0.22 * k, 0.14 * k * fat), legs, turn_y(yaw))
    s.put(BALL, at(0, 0, hip + 0.36), (0.23 * k * fat, 0.31 * k, 0.14 * k * fat), top, turn_y(yaw))
    s.rod(at(0, 0, hip + 0.55), at(0, 0.02, hip + 0.7), 0.055 * k, flesh)
    s.put(BALL, at(0, 0.02, hip + 0.77), (0.085 * k, 0.125 * k, 0.1 * k), flesh, turn_y(yaw))
    s.put(BALL, at(0, -0.025, hip + 0.81), (0.095 * k, s.uniform(0.1, 0.13) * k, 0.1 * k), hair, turn_y(yaw))


def bust(s: Scene, x, y, z, k=1.0) -> None:
    """Head and shoulders close to the camera; (x, y, z) is the middle of the head."""
    flesh, top = skin(s), cloth(s)
    hair = s.material(STRANDS, palette(s, 0.07, 0.5, s.uniform(0.05, 0.7)), s.uniform(4, 12), 0.1)
    yaw = math.pi + s.uniform(-0.8, 0.8)
    c, w = math.cos(yaw), math.sin(yaw)

    def at(a, b, h):
        return (x + (a * c + b * w) * k, y + h * k, z + (-a * w + b * c) * k)

    turn = turn_y(yaw)
    s.put(BALL, at(0, 0, 0), (0.078 * k, 0.115 * k, 0.095 * k), flesh, turn)
    s.put(BALL, at(0, 0.05, -0.05), (0.055 * k, 0.07 * k, 0.06 * k), flesh, turn)
    s.put(BALL, at(0, 0.1, -0.015), (0.016 * k, 0.03 * k, 0.022 * k), flesh, turn)
    long_hair = s.chance(0.4)
    s.put(BALL, at(0, -0.03, 0.04), (0.09 * k, 0.1 * k, 0.1 * k), hair, turn)
    if long_hair:
        s.put(BALL, at(0, -0.06, -0.1), (0.12 * k, 0.2 * k, 0.07 * k), hair, turn)
    dark = s.material(PLAIN, palette(s, value=0.1), 3)
    for side in (-1, 1):
        s.put(BALL, at(side * 0.035, 0.083, 0.015), (0.016 * k, 0.009 * k, 0.012 * k), dark, turn)
        elbow = at(side * s.uniform(0.22, 0.3), 0.05, -0.75)
        s.rod(at(side * 0.2, 0, -0.3), elbow, 0.07 * k, top)
        s.rod(elbow, at(side * s.uniform(0.0, 0.35), s.uniform(0, 0.35), s.uniform(-1.2, -0.4)), 0.05 * k, s.pick(flesh, top))
    s.rod(at(0, -0.02, -0.05), at(0, -0.02, -0.22), 0.055 * k, flesh)
    s.put(BALL, at(0, -0.02, -0.33), (0.23 * k, 0.14 * k, 0.12 * k), top, turn)
    s.put(TUBE, at(0, -0.02, -0.85), (0.2 * k, 0.53 * k, 0.12 * k), top, turn, 1.05)


def creature(s: Scene, x, y, z, k=1.0) -> None:
    """The head of an animal or of something stranger, with its neck and body behind; k = 1 is a man's size."""
    texture = s.pick(STRANDS, SPOTS, SPOTS, CLOUDS, SPECKLE, PLANKS, MARBLE, PLAIN)
    fur = s.material(texture, palette(s, s.pick(0.08, 0.1, 0.06, None), s.uniform(0, 0.6), s.uniform(0.15, 0.95)), s.uniform(5, 30) / k, 0.0, s.uniform(0, 0.8))
    pale, dark = s.material(PLAIN, palette(s, 0.09, 0.2, 0.9), 5), s.material(PLAIN, palette(s, value=0.08), 5, 0.5)
    turn = turn_y(math.pi + s.uniform(-0.9, 0.9))

    def at(a, h, b):
        return [(x, y, z)[i] + k * (a * turn[0][i] + h * turn[1][i] + b * turn[2][i]) for i in range(3)]

    w, tall, snout = s.uniform(0.09, 0.14), s.uniform(0.1, 0.16), s.uniform(0.02, 0.14)
    s.put(BALL, at(0, 0, 0), (w * k, tall * k, 0.12 * k), fur, turn)
    s.put(BALL, at(0, -0.04, 0.07 + snout * 0.5), (w * 0.55 * k, 0.06 * k, (0.06 + snout * 0.5) * k), s.pick(fur, pale), turn)
    s.put(BALL, at(0, -0.02, 0.12 + snout), (0.025 * k, 0.018 * k, 0.018 * k), dark, turn)
    for side in (-1, 1):
        s.put(BALL, at(side * w * 0.5, 0.03, 0.105), (0.018 * k, 0.014 * k, 0.015 * k), dark, turn)
        s.put(BALL, at(side * w * 0.85, tall * 0.8, -0.02), (0.045 * k, s.uniform(0.03, 0.1) * k, 0.02 * k), fur, turn)
    if s.chance(0.4):
        mane = s.material(STRANDS, palette(s, 0.07, 0.6, s.uniform(0.2, 0.8)), s.uniform(4, 10) / k, 0.0, 0.6)
        s.put(BALL, at(0, -0.02, -0.08), (w * 1.7 * k, tall * 1.6 * k, 0.12 * k), mane, turn)
    s.rod(at(0, -0.05, -0.05), at(0, -0.45, -0.25), s.uniform(0.08, 0.13) * k, fur, 1.4)
    s.put(BALL, at(s.uniform(-0.1, 0.1), -0.6, -0.4), (s.uniform(0.2, 0.32) * k, 0.32 * k, s.uniform(0.3, 0.7) * k), s.pick(fur, fur, cloth(s)), turn)


def animal(s: Scene, x, y, z, k=1.0, yaw=None) -> None:
    """A four-legged cluster; k = 1 is about 0.8 m high."""
    texture = s.pick(STRANDS, SPOTS, PLAIN, STRIPES, CLOUDS, SPECKLE)
    fur = s.material(texture, palette(s, 0.08, s.uniform(0, 0.6), s.uniform(0.1, 0.95)), s.uniform(6, 25) / k, 0.0)
    yaw = s.uniform(0, 6.3) if yaw is None else yaw
    c, w = math.cos(yaw), math.sin(yaw)
    low = s.uniform(0.2, 0.6) if s.chance(0.3) else 1.0

    def at(a, b, h):
        return (x + (a * c + b * w) * k, y + h * k * low, z + (-a * w + b * c) * k)

    turn = turn_y(yaw)
    s.put(BALL, at(0, 0, 0.62), (0.17 * k, 0.19 * k, 0.5 * k), fur, turn)
    s.put(BALL, at(0, 0.3, 0.64), (0.18 * k, 0.22 * k, 0.22 * k), fur, turn)
    for a in (-0.11, 0.11):
        for b in (-0.35, 0.35):
            s.rod(at(a, b + s.uniform(-0.15, 0.15), 0), at(a, b, 0.6), 0.05 * k, fur, 1.3)
    nod = s.uniform(0.5, 1.05)
    s.rod(at(0, 0.4, 0.68), at(0, 0.62, nod), 0.1 * k, fur)
    s.put(BALL, at(0, 0.68, nod), (0.11 * k, 0.12 * k, 0.14 * k), fur, turn)
    s.put(BALL, at(0, 0.8, nod - 0.04), (0.06 * k, 0.06 * k, 0.1 * k), fur, turn)
    for a in (-0.08, 0.08):
        s.put(BALL, at(a, 0.64, nod + 0.12), (0.04 * k, 0.06 * k, 0.02 * k), fur, turn)
    if s.chance(0.3):  # a mane
        s.put(BALL, at(0, 0.56, nod), (0.2 * k, 0.24 * k, 0.16 * k), s.material(STRANDS, palette(s, 0.07, 0.6, 0.4), 6, 0), turn)
    s.rod(at(0, -0.48, 0.65), at(s.uniform(-0.2, 0.2), -0.85, s.uniform(0.2, 0.8)), 0.03 * k, fur)


def tree(s: Scene, x, y, z, k=None) -> None:
    k = k or math.exp(s.uniform(0.7, 2.2))
    bark = s.material(s.pick(CLOUDS, STRANDS, SPECKLE), palette(s, 0.08, 0.35, s.uniform(0.2, 0.6)), 3, 0.0, 0.6)
    trunk = k * s.uniform(0.15, 0.5)
    r = k * s.uniform(0.02, 0.05)
    green = leaf(s)
    s.tube(x, y - 0.3, z, r, trunk + 0.3 + k * 0.3, bark, 0.6)
    kind = s.rng.random()
    if kind < 0.25:  # conifer
        for n in range(3):
            h = y + trunk * 0.6 + n * k * 0.25
            s.tube(x, h, z, k * (0.3 - 0.07 * n), k * 0.4, green, 0.05)
    elif kind < 0.37:  # bare
        for _ in range(7):
            h = y + trunk * s.uniform(0.6, 1.3)
            tip = (x + k * s.uniform(-0.4, 0.4), h + k * s.uniform(0.1, 0.5), z + k * s.uniform(-0.4, 0.4))
            s.rod((x, h, z), tip, r * 0.4, bark, 0.3)
    else:
        for _ in range(int(s.rng.integers(2, 6))):
            q = k * s.uniform(0.15, 0.3)
            s.ball(x + k * s.uniform(-0.2, 0.2), y + trunk + k * s.uniform(0.1, 0.45), z + k * s.uniform(-0.2, 0.2), q, q * s.uniform(0.6, 1), q, green)


def bush(s: Scene, x, y, z, k) -> None:
    green = leaf(s)
    for _ in range(int(s.rng.integers(1, 4))):
        q = k * s.uniform(0.4, 0.8)
        s.ball(x + k * s.uniform(-0.5, 0.5), y + q * 0.5, z + k * s.uniform(-0.5, 0.5), q, q * s.uniform(0.5, 1), q, green)


def tuft(s: Scene, x, y, z, k) -> None:
    """Tall grass: thin upright sheets with gaps."""
    hole = (BLADES, s.uniform(25, 70) / max(k, 0.3), s.uniform(0.3, 0.65))
    green = s.material(STRANDS, palette(s, s.pick(0.14, 0.2, 0.27), 0.5, s.uniform(0.3, 0.8)), 2, 0.0, 0.0, hole=hole)
    for _ in range(2):
        s.box(x + s.uniform(-0.3, 0.3), y - 0.05, z + s.uniform(-0.3, 0.3), k * 2.5, k * s.uniform(0.4, 0.9), 0.01, green, s.uniform(-0.5, 0.5), casts=False)


def car(s: Scene, x, y, z, yaw=0.0, k=1.0) -> None:
    """A car, van or bus along its own z axis."""
    big = s.chance(0.25)
    w, length, tall = (2.5, s.uniform(7, 12), s.uniform(2.6, 3.4)) if big else (1.75, s.uniform(3.6, 4.8), s.uniform(1.35, 1.9))
    w, length, tall = w * k, length * k, tall * k
    paint = s.material(s.pick(PLAIN, PLAIN, GRADIENT, PICTURE), palette(s), s.uniform(0.3, 1), s.uniform(0.1, 0.8), 0)
    glass = s.material(PLAIN, palette(s, 0.58, 0.2, s.uniform(0.05, 0.5)), 1, 0.8, 0)
    tyre = s.material(PLAIN, palette(s, value=0.08, sat=0), 5)
    lamp = s.material(PLAIN, palette(s, s.pick(0.0, 0.12, 0.1), 0.5, 1.0), 1, emission=s.pick(0, 1.5))
    c, q = math.cos(yaw), math.sin(yaw)

    def at(a, b):
        return x + a * c + b * q, z - a * q + b * c

    base = 0.25 * k
    if big:
        s.box(x, y + base, z, w, tall - base, length, paint, yaw)
        s.box(x, y + tall * 0.5, z, w * 1.01, tall * 0.3, length * 0.93, glass, yaw, casts=False)
        s.box(x, y + tall * 0.45, z, w * 0.88, tall * 0.38, length * 1.005, glass, yaw, casts=False)
    else:
        s.box(x, y + base, z, w, tall * 0.42, length, paint, yaw)
        a, b = at(0, -length * s.uniform(0, 0.08))
        s.box(a, y + base + tall * 0.42, b, w * 0.9, tall * 0.27, length * 0.55, glass, yaw)
        s.box(a, y + base + tall * 0.67, b, w * 0.88, tall * 0.09, length * 0.48, paint, yaw)
    for side in (-1, 1):
        for end in (-0.32, 0.32):
            a, b = at(side * w * 0.46, end * length)
            r = base * (1.9 if big else 1.25)
            s.put(TUBE, (a, y + r, b), (r, w * 0.07, r), tyre, ((0, 1, 0), (c, 0, -q), (-q, 0, -c)))
        for end in (-1, 1):
            a, b = at(side * w * 0.36, end * length * 0.5)
            s.box(a, y + base + tall * 0.2, b, w * 0.14, tall * 0.09, 0.06, lamp, yaw, casts=False)


def clutter(s: Scene, x, y, z, k) -> None:
    """One small object of size k standing at height y."""
    m = anything(s, 0.5 / k)
    kind = int(s.rng.integers(9))
    yaw = s.uniform(0, 6.3)
    if kind == 0:
        s.box(x, y, z, k * s.uniform(0.4, 1.2), k * s.uniform(0.2, 1.3), k * s.uniform(0.3, 1), m, yaw)
    elif kind == 1:
        r = k * s.uniform(0.3, 0.5)
        s.ball(x, y + r, z, r, r, r, m)
    elif kind == 2:
        s.tube(x, y, z, k * s.uniform(0.15, 0.5), k * s.uniform(0.2, 1.2), m, s.uniform(0.5, 1.5))
    elif kind == 3:  # bottle
        r = k * s.uniform(0.13, 0.22)
        s.tube(x, y, z, r, k * 0.7, m)
        s.tube(x, y + k * 0.7, z, r, k * 0.15, m, 0.4)
        s.tube(x, y + k * 0.85, z, r * 0.4, k * 0.3, m)
    elif kind == 4:  # pile of books
        h = y
        for _ in range(int(s.rng.integers(1, 6))):
            t = k * s.uniform(0.06, 0.2)
            s.box(x, h, z, k * s.uniform(0.7, 1), t, k * s.uniform(0.5, 0.8), s.material(s.pick(PLAIN, TEXT), scale=4 / k), s.uniform(-0.5, 0.5) + yaw)
            h += t
    elif kind == 5:  # plant in a pot
        s.tube(x, y, z, k * 0.18, k * 0.35, m, 1.3)
        s.ball(x, y + k * 0.75, z, k * 0.35, k * 0.45, k * 0.35, leaf(s))
    elif kind == 6:  # lamp
        s.tube(x, y, z, k * 0.2, k * 0.05, m)
        s.tube(x, y, z, k * 0.03, k * 0.9, m)
        s.tube(x, y + k * 0.75, z, k * 0.35, k * 0.35, s.material(PLAIN, palette(s, 0.12, 0.2, 1), emission=s.pick(0, 1.2)), 0.6)
    elif kind == 7:  # figure
        person(s, x, y, z, k * s.uniform(0.8, 1.4))
    else:  # screen
        s.box(x, y, z, k * 0.3, k * 0.05, k * 0.2, m, yaw)
        s.box(x, y, z, k * 0.05, k * 0.3, k * 0.05, m, yaw)
        s.box(x, y + k * 0.2, z, k * 1.2, k * 0.7, k * 0.05, s.material(s.pick(PICTURE, TEXT, PLAIN), scale=3 / k, emission=s.pick(0, 0.5)), yaw)


def table(s: Scene, x, z, w, d, h, yaw=0.0, things=True) -> None:
    top = s.pick(wood(s), anything(s))
    leg = s.pick(top, s.material(PLAIN, palette(s, sat=0.1)))
    c, q = math.cos(yaw), math.sin(yaw)
    s.box(x, h - 0.04, z, w, s.uniform(0.02, 0.06), d, top, yaw)
    if s.chance(0.75):
        for a in (-0.45, 0.45):
            for b in (-0.45, 0.45):
                s.box(x + a * w * c + b * d * q, 0, z - a * w * q + b * d * c, 0.05, h - 0.04, 0.05, leg, yaw)
    else:
        s.tube(x, 0, z, 0.05, h - 0.04, leg)
        s.tube(x, 0, z, min(w, d) * 0.3, 0.04, leg)
    if things:
        for _ in range(int(s.rng.integers(0, 6))):
            a, b = s.uniform(-0.4, 0.4) * w, s.uniform(-0.4, 0.4) * d
            clutter(s, x + a * c + b * q, h + 0.01, z - a * q + b * c, s.uniform(0.1, 0.4))


def chair(s: Scene, x, z, yaw) -> None:
    seat, leg = cloth(s), s.pick(wood(s), s.material(PLAIN, palette(s, sat=0.1)))
    c, q = math.cos(yaw), math.sin(yaw)
    h, w = s.uniform(0.4, 0.5), s.uniform(0.38, 0.5)
    s.box(x, h - 0.05, z, w, 0.06, w, seat, yaw)
    back = s.uniform(0.35, 0.6)
    s.box(x - q * w * 0.47, h, z - c * w * 0.47, w, back, 0.04, s.pick(seat, leg), yaw)
    for a in (-0.45, 0.45):
        for b in (-0.45, 0.45):
            s.box(x + (a * c + b * q) * w, 0, z + (-a * q + b * c) * w, 0.04, h - 0.04, 0.04, leg, yaw)


def sofa(s: Scene, x, z, w, yaw) -> None:
    m = cloth(s)
    c, q = math.cos(yaw), math.sin(yaw)

    def at(a, b):
        return x + a * c + b * q, z - a * q + b * c

    s.box(x, 0.08, z, w, 0.35, 0.85, m, yaw)
    a, b = at(0, -0.36)
    s.box(a, 0.3, b, w, s.uniform(0.4, 0.6), 0.2, m, yaw)
    for side in (-1, 1):
        a, b = at(side * (w / 2 - 0.1), 0)
        s.box(a, 0.08, b, 0.2, 0.55, 0.85, m, yaw)
    for _ in range(int(s.rng.integers(0, 4))):
        a, b = at(s.uniform(-0.4, 0.4) * w, -0.15)
        s.put(BALL, (a, 0.6, b), (0.25, 0.2, 0.12), cloth(s), turn_y(yaw))


def bed(s: Scene, x, z, yaw) -> None:
    w, d, h = s.uniform(0.9, 1.9), 2.0, s.uniform(0.35, 0.6)
    c, q = math.cos(yaw), math.sin(yaw)
    s.box(x, 0.05, z, w, h * 0.5, d, wood(s), yaw)
    s.box(x, h * 0.5, z, w * 0.98, h * 0.5, d * 0.98, cloth(s, s.uniform(1, 6)), yaw)
    s.box(x + 0.2 * q, h * 0.6, z + 0.2 * c, w * 1.03, h * 0.45, d * 0.7, cloth(s, s.uniform(1, 6)), yaw)
    s.box(x - q * d * 0.5, 0, z - c * d * 0.5, w, s.uniform(0.6, 1.3), 0.08, s.pick(wood(s), cloth(s)), yaw)
    pillow = cloth(s)
    for a in (-0.25, 0.25):
        s.put(BALL, (x + a * w * c - 0.75 * q, h + 0.08, z - a * w * q - 0.75 * c), (0.3, 0.12, 0.2), pillow, turn_y(yaw))


def shelf(s: Scene, x, z, w, h, d, yaw, y=0.0) -> None:
    """An open shelf with things in it, its back at the far side of its own z axis."""
    m = s.pick(wood(s), s.material(PLAIN, palette(s, sat=0.1)))
    c, q = math.cos(yaw), math.sin(yaw)
    for side in (-1, 1):
        s.box(x + side * w / 2 * c, y, z - side * w / 2 * q, 0.03, h, d, m, yaw)
    s.box(x - q * d / 2, y, z - c * d / 2, w, h, 0.02, m, yaw)
    rows = int(s.rng.integers(2, 6))
    for n in range(rows + 1):
        s.box(x, y + n * h / rows, z, w, 0.03, d, m, yaw)
    for n in range(rows):
        a = -w / 2 + 0.05
        while a < w / 2 - 0.1:
            k = s.uniform(0.03, 0.25)
            if s.chance(0.7):
                px, pz = x + (a + k / 2) * c, z - (a + k / 2) * q
                s.box(px, y + n * h / rows + 0.02, pz, k * 0.9, h / rows * s.uniform(0.4, 0.85), d * s.uniform(0.5, 0.9), s.pick(anything(s, 3), s.material()), yaw)
            a += k + (s.uniform(0, 0.3) if s.chance(0.2) else 0.0)
            if len(s.shapes) > 130:
                return


def cabinet(s: Scene, x, z, w, h, d, yaw, y=0.0) -> None:
    """A closed box with doors that stand out a little, and knobs."""
    m = s.pick(wood(s), s.material(PLAIN, palette(s, sat=0.15)), anything(s))
    door = s.pick(m, wood(s), s.material())
    c, q = math.cos(yaw), math.sin(yaw)
    s.box(x, y, z, w, h, d, m, yaw)
    columns, rows = max(1, round(w / s.uniform(0.4, 0.7))), int(s.rng.integers(1, 4))
    for i in range(columns):
        for j in range(rows):
            a = (i + 0.5) / columns * w - w / 2
            px, pz = x + a * c + d / 2 * q, z - a * q + d / 2 * c
            s.box(px, y + (j + 0.04) * h / rows, pz, w / columns * 0.94, h / rows * 0.92, 0.04, door, yaw, casts=False)


def floor_things(s: Scene, x0, x1, z0, z1, count) -> None:
    for _ in range(count):
        clutter(s, s.uniform(x0, x1), 0.0, s.uniform(z0, z1), s.uniform(0.15, 0.8))


# ---- light -----------------------------------------------------------------------------------------------------------


def indoor_light(s: Scene, w, h, z0, z1) -> None:
    warm = s.uniform(0.0, 0.5)
    for _ in range(int(s.rng.integers(1, 3))):
        strength = s.uniform(0.5, 1.6)
        colour = (strength, strength * (1 - 0.3 * warm), strength * (1 - 0.7 * warm))
        s.lights.append([1, s.uniform(-w / 2, w / 2) * 0.9, h * s.uniform(0.6, 0.97), s.uniform(z0, z1), *colour, s.uniform(1.5, 6)])
    level = s.uniform(0.15, 0.6)
    tint = [level * s.uniform(0.8, 1.2) for _ in range(3)]
    s.air[16:19] = tint
    s.air[19:22] = [t * s.uniform(0.5, 0.9) for t in tint]
    s.air[22] = s.uniform(0.4, 1.0)
    s.air[4:7], s.air[7:10] = hsv(0.58, 0.2, 1), hsv(0.58, 0.5, 0.9)
    s.air[14] = 1.0


def outdoor_light(s: Scene, haze=None) -> None:
    """Sun or no sun, a sky, and haze in the colour of its horizon."""
    mood = s.rng.random()
    height = s.uniform(0.12, 1.2)
    angle = s.uniform(0, 6.3)
    sun = (math.cos(height) * math.sin(angle), math.sin(height), math.cos(height) * math.cos(angle))
    if mood < 0.45:  # clear or broken clouds
        horizon, zenith = hsv(0.57, s.uniform(0.05, 0.4), s.uniform(0.8, 1)), hsv(s.uniform(0.54, 0.63), s.uniform(0.3, 0.9), s.uniform(0.5, 1))
        light, ambient, clouds = s.uniform(0.8, 1.8), s.uniform(0.25, 0.6), s.uniform(0, 1) if s.chance(0.6) else 0.0
    elif mood < 0.75:  # overcast
        g = s.uniform(0.5, 1)
        horizon, zenith = hsv(0.6, s.uniform(0, 0.12), g), hsv(0.6, s.uniform(0, 0.2), g * s.uniform(0.7, 1.05))
        light, ambient, clouds = s.uniform(0, 0.25), s.uniform(0.5, 0.9), s.uniform(0, 1) if s.chance(0.6) else 0.0
    elif mood < 0.88:  # low sun
        horizon, zenith = hsv(s.uniform(0.0, 0.13), s.uniform(0.3, 0.8), 1), hsv(s.uniform(0.55, 0.75), s.uniform(0.1, 0.6), s.uniform(0.3, 0.8))
        light, ambient, clouds = s.uniform(0.3, 1.2), s.uniform(0.15, 0.4), s.uniform(0, 1)
    elif mood < 0.95:  # night
        horizon, zenith = hsv(0.65, 0.5, s.uniform(0.02, 0.3)), hsv(0.66, 0.6, s.uniform(0.01, 0.12))
        light, ambient, clouds = s.uniform(0, 0.2), s.uniform(0.05, 0.2), 0.0
        s.lights.append([1, s.uniform(-6, 6), s.uniform(3, 7), s.uniform(3, 25), 1.0, 0.8, 0.5, s.uniform(2, 8)])
    else:  # any colour at all
        horizon, zenith = palette(s)[0], palette(s)[0]
        light, ambient, clouds = s.uniform(0.2, 1.2), s.uniform(0.2, 0.6), s.uniform(0, 1)
    warm = s.uniform(0, 0.35)
    if light > 0.02:
        s.lights.append([0, *sun, light, light * (1 - 0.3 * warm), light * (1 - 0.8 * warm), 1])
    white = s.uniform(0.5, 1.1) * max(horizon)
    s.air[:] = [
        *horizon, haze if haze is not None else (math.exp(s.uniform(-6.5, -3)) if s.chance(0.6) else 0.0),
        *horizon, *zenith, white, white, white * s.uniform(0.9, 1.05), clouds, s.uniform(0.5, 2.5), float(s.rng.integers(1000)),
        *(ambient * (0.7 + 0.3 * z / max(max(zenith), 1e-3)) for z in zenith), *(ambient * s.uniform(0.3, 0.6) for _ in range(3)), s.uniform(0.4, 1),
    ]  # fmt: skip


# ---- composers -------------------------------------------------------------------------------------------------------


def room(s: Scene) -> None:
    """A furnished room seen from inside."""
    w, h, d = s.uniform(2.4, 7), s.uniform(2.2, 3.4), s.uniform(2.5, 9)
    back = s.uniform(0.1, 1.2)  # the camera stands this far before the wall behind it
    shell(s, w, h, -back, d)
    furnish(s, w, h, d)
    indoor_light(s, w, h, 0.2, d)
    yaw_room(s, s.uniform(-0.6, 0.6) if s.chance(0.7) else s.rng.normal() * 0.1, (s.uniform(-w * 0.35, w * 0.35), 0, 0))
    s.eye = (0, min(h - 0.3, s.uniform(0.5, 1.9) if s.chance(0.85) else s.uniform(1.8, 2.6)), 0)
    s.pitch = s.rng.normal() * 0.13 - 0.12 * (s.eye[1] - 0.9)
    s.view = s.uniform(45, 85)


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


def shell(s: Scene, w, h, z0, z1) -> None:
    """Floor, ceiling and walls as slabs, with openings: a doorway into a further room, windows, doors, pictures."""
    t = 0.1
    floor, paint = flooring(s), wall_paint(s)
    ceiling = s.material(s.pick(PLAIN, PLAIN, TILES, PLANKS), palette(s, sat=0.05, value=0.9), s.uniform(0.5, 2), 0.0)
    length, middle = z1 - z0, (z0 + z1) / 2
    beyond = s.uniform(2, 6) if s.chance(0.3) else 0.0
    s.box(0, -t, middle + beyond / 2, w + 2 * t, t, length + beyond + 2 * t, floor, casts=False)
    s.box(0, h, middle + beyond / 2, w + 2 * t, t, length + beyond + 2 * t, ceiling, casts=False)
    side = [s.pick(paint, paint, wall_paint(s)) for _ in range(3)]
    s.box(0, 0, z0 - t / 2, w, h, t, paint, casts=False)
    for k, x in ((0, -w / 2), (1, w / 2)):
        s.box(x + (t / 2 if k else -t / 2), 0, middle + beyond / 2, t, h, length + beyond, side[k], casts=False)
    if beyond:
        gap = s.uniform(0.7, max(0.8, w * 0.5))
        a = s.uniform(-w / 2 + gap / 2 + 0.1, w / 2 - gap / 2 - 0.1)
        left, right = a - gap / 2 + w / 2, w / 2 - a - gap / 2
        top = s.uniform(1.95, h)
        s.box(-w / 2 + left / 2, 0, z1 + t / 2, left, h, t, side[2], casts=False)
        s.box(w / 2 - right / 2, 0, z1 + t / 2, right, h, t, side[2], casts=False)
        s.box(a, top, z1 + t / 2, gap, h - top + 0.01, t, side[2], casts=False)
        s.box(0, 0, z1 + beyond, w, h, t, wall_paint(s), casts=False)
        floor_things(s, -w / 3, w / 3, z1 + 0.5, z1 + beyond - 0.3, 3)
    else:
        s.box(0, 0, z1 + t / 2, w, h, t, side[2], casts=False)
        hang(s, w, h, z1)
    for k in (-1, 1):
        for _ in range(int(s.rng.integers(0, 3))):
            wall_piece(s, k * (w / 2 - 0.02), s.uniform(z0 + 0.8, z1 - 0.8), k * math.pi / 2, h)
    if s.chance(0.25):  # beams or lamps on the ceiling
        m = s.pick(wood(s), s.material(PLAIN, palette(s, 0.12, 0.1, 1), emission=1.5))
        for n in range(int(s.rng.integers(1, 5))):
            s.box(s.pick(0, s.uniform(-w / 3, w / 3)), h - 0.1, 0.8 + n * 1.4, s.pick(w * 0.98, 0.6, 0.2), 0.1, 0.2, m, casts=False)
    if s.chance(0.4):  # skirting
        m = s.material(PLAIN, palette(s, sat=0.1))
        for x in (-w / 2, w / 2):
            s.box(x, 0, middle, 0.04, 0.12, length, m, casts=False)


def hang(s: Scene, w, h, z) -> None:
    """Pictures, windows or a door on the far wall."""
    x = -w / 2 + s.uniform(0.4, 1.2)
    while x < w / 2 - 0.5:
        wall_piece(s, x, z - 0.02, 0.0, h)
        x += s.uniform(1.2, 2.5)


def wall_piece(s: Scene, x, z, yaw, h) -> None:
    kind = s.rng.random()
    frame = s.pick(wood(s), s.material(PLAIN, palette(s, sat=0.1)))
    c, q = math.cos(yaw), math.sin(yaw)
    if kind < 0.35:  # picture
        a, b, y = s.uniform(0.3, 1.3), s.uniform(0.3, 1.0), s.uniform(1.1, 1.6)
        s.box(x, y, z, a + 0.08, b + 0.08, 0.05, frame, yaw, casts=False)
        s.box(x, y + 0.04, z, a, b, 0.06, s.material(s.pick(PICTURE, TEXT, CLOUDS, MARBLE), None, s.uniform(1, 4)), yaw, casts=False)
    elif kind < 0.7:  # window, bright; curtains
        a, b, y = s.uniform(0.6, 1.8), s.uniform(0.7, 1.5), s.uniform(0.5, 1.0)
        glow = s.uniform(0.6, 2.5) if s.chance(0.8) else 0.05
        pane = s.material(s.pick(GRADIENT, PLAIN, CLOUDS), (hsv(0.57, s.uniform(0, 0.3), 1), hsv(s.pick(0.3, 0.57), 0.3, 0.8), hsv(0, 0, 1)), 0.6, 0.3, 0, glow)
        s.box(x, y, z, a + 0.12, b + 0.12, 0.06, frame, yaw, casts=False)
        s.box(x, y + 0.06, z, a, b, 0.07, pane, yaw, casts=False)
        s.box(x, y + 0.06, z, 0.04, b, 0.1, frame, yaw, casts=False)
        s.box(x, y + b * 0.5, z, a, 0.04, 0.1, frame, yaw, casts=False)
        if s.chance(0.4):
            m = s.material(STRIPES, palette(s), s.uniform(6, 15), 0, 0)
            for side in (-1, 1):
                s.box(x + side * (a * 0.5 + 0.1) * c, 0.05, z - side * (a * 0.5 + 0.1) * q, 0.35, y + b + 0.2, 0.12, m, yaw, casts=False)
    elif kind < 0.9:  # door
        a, b = s.uniform(0.75, 1.0), min(h - 0.1, s.uniform(1.95, 2.2))
        s.box(x, 0, z, a + 0.14, b + 0.07, 0.08, frame, yaw, casts=False)
        s.box(x, 0, z, a, b, 0.1, s.pick(wood(s), s.material(PLAIN)), yaw, casts=False)
    else:
        s.box(x, s.uniform(1.2, 1.6), z, 0.9, s.uniform(0.2, 0.7), s.uniform(0.3, 0.7), anything(s), yaw)


def furnish(s: Scene, w, h, d) -> None:
    if s.chance(0.35):  # rug
        s.box(s.uniform(-w / 4, w / 4), 0, s.uniform(1.2, d * 0.8), s.uniform(1, 2.5), 0.02, s.uniform(1, 2), anything(s), s.uniform(-0.3, 0.3), casts=False)
    for _ in range(int(s.rng.integers(3, 11))):
        if len(s.shapes) > 150:
            break
        piece(s, w, h, d)
    floor_things(s, -w * 0.4, w * 0.4, 0.9, d - 0.3, int(s.rng.integers(0, 4)))
    if s.chance(0.3):
        for _ in range(int(s.rng.integers(1, 4))):
            person(s, s.uniform(-w * 0.4, w * 0.4), 0, s.uniform(1.2, d - 0.4), seated=s.chance(0.3))
    if s.chance(0.2):  # hanging lamp
        x, z, y = s.uniform(-w / 4, w / 4), s.uniform(1.3, d * 0.8), s.uniform(1.6, h - 0.4)
        s.tube(x, y, z, 0.01, h - y, s.material())
        s.tube(x, y, z, s.uniform(0.1, 0.3), 0.2, s.material(PLAIN, palette(s, 0.12, 0.3, 1), emission=1.3), 0.5)


def piece(s: Scene, w, h, d) -> None:
    """One piece of furniture, against a wall or free in the room."""
    place = s.rng.random()
    if place < 0.35:
        x, z, yaw, room_for = s.pick(-1, 1), s.uniform(0.8, d - 0.6), None, 1
    elif place < 0.7:
        x, z, yaw, room_for = s.uniform(-0.4, 0.4) * w, d, math.pi, 2
    else:
        x, z, yaw, room_for = s.uniform(-0.35, 0.35) * w, s.uniform(1.3, max(1.4, d - 0.8)), s.uniform(0, 6.3), 0

    def against(depth):
        if room_for == 1:
            return x * (w / 2 - depth / 2 - 0.02), z, -x * math.pi / 2
        if room_for == 2:
            return x, z - depth / 2 - 0.02, yaw
        return x, z, yaw

    kind = int(s.rng.integers(8))
    if kind == 0:
        px, pz, a = against(0.8)
        table(s, px, pz, s.uniform(0.6, 1.8), s.uniform(0.5, 0.9), s.uniform(0.4, 0.95), a)
    elif kind == 1:
        px, pz, a = against(0.5)
        chair(s, px, pz, s.uniform(0, 6.3))
    elif kind == 2:
        px, pz, a = against(0.9)
        sofa(s, px, pz, s.uniform(0.8, 2.3), a)
    elif kind == 3:
        px, pz, a = against(2.05)
        bed(s, px, pz, a)
    elif kind == 4 and len(s.shapes) < 100:
        px, pz, a = against(0.35)
        shelf(s, px, pz, s.uniform(0.5, 1.6), s.uniform(0.6, min(2.1, h - 0.1)), s.uniform(0.25, 0.4), a)
    elif kind == 5 or kind == 4:
        depth = s.uniform(0.35, 0.7)
        px, pz, a = against(depth)
        cabinet(s, px, pz, s.uniform(0.5, 2.2), s.uniform(0.5, min(2.2, h - 0.1)), depth, a)
    elif kind == 6:  # counter with a top, things and wall cupboards
        px, pz, a = against(0.6)
        width = s.uniform(1.2, 3)
        cabinet(s, px, pz, width, 0.86, 0.58, a)
        s.box(px, 0.86, pz, width + 0.04, 0.04, 0.64, anything(s), a)
        for _ in range(int(s.rng.integers(0, 5))):
            u = s.uniform(-0.45, 0.45) * width
            clutter(s, px + u * math.cos(a), 0.9, pz - u * math.sin(a), s.uniform(0.12, 0.45))
    else:
        px, pz, a = against(0.5)
        clutter(s, px, 0, pz, s.uniform(0.4, 1.5))


def corridor(s: Scene) -> None:
    """A long passage, hall or arcade."""
    w, h, d = s.uniform(1.2, 5), s.uniform(2.2, 4.5), s.uniform(6, 25)
    shell(s, w, h, -1.0, d)
    if s.chance(0.4):
        m, r = anything(s), s.uniform(0.1, 0.3)
        for n in range(int(s.rng.integers(2, 7))):
            for x in (-w * 0.36, w * 0.36):
                s.tube(x, 0, 1.8 + n * s.uniform(1.9, 2.2), r, h, m)
    floor_things(s, -w * 0.4, w * 0.4, 1.5, d - 0.5, int(s.rng.integers(0, 6)))
    if s.chance(0.35):
        stairs(s, s.uniform(-0.3, 0.3) * w, s.uniform(1.5, 4), s.uniform(0.4, 1) * w, int(s.rng.integers(4, 16)))
    for _ in range(int(s.rng.integers(0, 4))):
        person(s, s.uniform(-w * 0.35, w * 0.35), 0, s.uniform(1.5, d - 0.5))
    indoor_light(s, w, h, 0.5, d * 0.7)
    yaw_room(s, s.rng.normal() * 0.15, (s.uniform(-w * 0.25, w * 0.25), 0, 0))
    s.eye, s.pitch, s.view = (0, s.uniform(0.8, 1.9), 0), s.rng.normal() * 0.1 - 0.05, s.uniform(45, 85)


def tabletop(s: Scene) -> None:
    """Things on a table from close by."""
    h = 0.75
    background = s.rng.random()
    if background < 0.6:
        w, d = s.uniform(3, 6), s.uniform(1.5, 5)
        shell(s, w, 2.6, -1.5, d)
    else:
        s.put(PLANE, (0, 0, 0), (1, 1, 1), flooring(s), casts=False)
        s.box(0, -1, s.uniform(1.5, 4), 30, 20, 0.1, wall_paint(s), casts=False)
    z0, deep = 0.1, s.uniform(0.6, 1.4)
    s.box(0, h - 0.04, z0 + deep / 2, s.uniform(0.8, 2.5), 0.04, deep, s.pick(wood(s), anything(s), flooring(s)), s.rng.normal() * 0.15)
    for _ in range(int(s.rng.integers(2, 14))):
        clutter(s, s.uniform(-0.55, 0.55), h, z0 + s.uniform(0.15, 1) * deep, s.uniform(0.06, 0.35))
    if s.chance(0.25):
        person(s, s.uniform(-0.5, 0.5), 0, z0 + deep + 0.3, seated=True, yaw=math.pi)
    indoor_light(s, 3, 2.5, 0.0, 1.5)
    s.eye = (0, h + s.uniform(0.15, 0.8), -0.25)
    s.pitch = -math.atan2(s.eye[1] - h - 0.05, s.uniform(0.4, 1.0)) + s.rng.normal() * 0.08
    s.view = s.uniform(40, 75)


def portrait(s: Scene) -> None:
    """One big person before a room, a street or nothing."""
    kind = s.rng.random()
    if kind < 0.45:
        shell(s, s.uniform(3, 6), 2.7, -1.5, s.uniform(1.5, 6))
        furnish_light = indoor_light
        for _ in range(3):
            piece(s, 3, 2.7, 4)
        furnish_light(s, 3, 2.6, 0, 2)
    elif kind < 0.8:
        fields(s, populate=s.chance(0.6))
    else:
        s.put(PLANE, (0, 0, 0), (1, 1, 1), flooring(s), casts=False)
        s.box(0, -1, s.uniform(1.3, 4), 30, 20, 0.1, wall_paint(s), casts=False)
        indoor_light(s, 3, 2.6, 0, 2)
    z = s.uniform(0.55, 1.6)
    if s.chance(0.35):
        creature(s, s.rng.normal() * 0.1, 1.5, z * 0.8, s.uniform(0.8, 1.8))
        if s.chance(0.3):
            creature(s, s.pick(-1, 1) * s.uniform(0.35, 0.7), 1.5 + s.uniform(-0.2, 0.1), z * s.uniform(1.2, 2))
        s.eye, s.pitch = (0, 1.5 + s.rng.normal() * 0.08, 0), s.rng.normal() * 0.08 - 0.05
    elif s.chance(0.6):
        bust(s, s.rng.normal() * 0.12, 1.5 + s.uniform(-0.1, 0.05), z)
        if s.chance(0.3):
            bust(s, s.pick(-1, 1) * s.uniform(0.35, 0.6), 1.5 + s.uniform(-0.2, 0.1), z * s.uniform(0.9, 1.8))
        s.eye, s.pitch = (0, 1.5 + s.rng.normal() * 0.08, 0), s.rng.normal() * 0.08 - 0.08
    else:
        for _ in range(int(s.rng.integers(1, 4))):
            person(s, s.rng.normal() * 0.5, 0, s.uniform(1.3, 3.0), yaw=math.pi + s.rng.normal() * 0.7)
        s.eye, s.pitch = (0, s.uniform(0.9, 1.6), 0), s.rng.normal() * 0.08 - 0.05
    s.view = s.uniform(38, 65)


def facade(s: Scene):
    if s.chance(0.7):
        colours = palette(s, s.pick(0.05, 0.08, 0.1, 0.6), s.uniform(0, 0.5), s.uniform(0.3, 1))
        return s.material(FACADE, (colours[0], colours[1], hsv(0.58, 0.3, s.uniform(0.05, 0.6))), s.uniform(0.25, 0.6), spec=0.0)
    return s.material(s.pick(BRICKS, PLANKS, PLAIN, TILES, CLOUDS), palette(s, sat=0.3), s.uniform(0.5, 3))


def house(s: Scene, x, z, w, h, d, yaw=0.0) -> None:
    m = facade(s)
    s.box(x, 0, z, w, h, d, m, yaw)
    if s.chance(0.4):  # a pitched roof: a box on its edge
        r = w * 0.36
        c, q = math.cos(yaw), math.sin(yaw)
        k = math.sqrt(0.5)
        roof = s.material(s.pick(TILES, STRIPES, PLAIN), palette(s, 0.03, 0.5, 0.5), 3)
        s.put(BOX, (x, h, z), (r, r, d * 0.499), roof, ((k * c, k, -k * q), (-k * c, k, k * q), (q, 0, c)))
    for _ in range(int(s.rng.integers(0, 4))):  # balconies, signs, porches
        a = s.uniform(-0.4, 0.4) * d
        c, q = math.cos(yaw), math.sin(yaw)
        side = -1 if x > 0 else 1
        px, pz = x + side * w / 2 * c + a * q, z - side * w / 2 * q + a * c
        s.box(px, s.uniform(0, h * 0.7), pz, s.uniform(0.4, 1.5), s.uniform(0.3, 1.2), s.uniform(0.8, 3), s.pick(m, s.material(s.pick(TEXT, PLAIN, STRIPES))), yaw)


def street(s: Scene) -> None:
    """A road between buildings, with cars, people, poles and trees."""
    half = s.uniform(2.5, 7)
    pavement = s.uniform(1, 4)
    stone = s.material(s.pick(TILES, SPECKLE, CLOUDS, BRICKS), palette(s, sat=0.1), s.uniform(0.7, 3), 0.0)
    s.put(PLANE, (0, 0, 0), (1, 1, 1), stone, casts=False)
    road = s.material(s.pick(ROAD, ROAD, SPECKLE, CLOUDS, BRICKS), palette(s, sat=0.08, value=s.uniform(0.2, 0.6)), s.uniform(0.9, 1.1) / half * 1.05)
    s.box(0, -0.5, 100, 2 * half, 0.5 - (0.03 if s.chance(0.5) else -0.01), 260, road, casts=False)
    for side in (-1, 1):
        z = s.uniform(-4, 6)
        while z < 90 and s.chance(0.93):
            w, d, h = s.uniform(5, 12), s.uniform(4, 16), math.exp(s.uniform(1.0, 3.2))
            house(s, side * (half + pavement + w / 2 + s.uniform(0, 1.5)), z + d / 2, w, h, d)
            z += d + (s.uniform(0.5, 8) if s.chance(0.3) else 0)
    if s.chance(0.35):
        house(s, s.uniform(-3, 3), s.uniform(25, 80), s.uniform(10, 30), s.uniform(5, 25), 8)
    for _ in range(int(s.rng.integers(0, 6))):
        side = s.pick(-1, 1)
        car(s, side * s.uniform(0.35, 0.8) * half, 0, math.exp(s.uniform(1.4, 3.9)), s.pick(0, math.pi) + s.rng.normal() * 0.05)
    for _ in range(int(s.rng.integers(0, 7))):
        person(s, s.pick(-1, 1) * (half + s.uniform(-1.5, pavement)), 0, math.exp(s.uniform(0.8, 3.3)))
    if s.chance(0.12):
        stairs(s, s.uniform(-0.5, 0.5) * half, s.uniform(3, 9), s.uniform(2, 8), int(s.rng.integers(4, 14)))
    if s.chance(0.12):
        branches(s)
    if s.chance(0.6):
        m, gap = s.material(PLAIN, palette(s, sat=0.1)), s.uniform(5, 14)
        for n in range(6):
            x, z = s.pick(-1, 1) * (half + 0.4), 3 + n * gap
            top = s.uniform(2.5, 7)
            s.tube(x, 0, z, 0.06, top, m)
            if s.chance(0.5):
                s.box(x, top, z, s.uniform(0.3, 1.5), s.uniform(0.2, 0.8), 0.1, s.material(s.pick(TEXT, PLAIN)))
    if s.chance(0.5):
        for n in range(int(s.rng.integers(1, 7))):
            tree(s, s.pick(-1, 1) * (half + s.uniform(0.5, 2)), 0, s.uniform(4, 50), s.uniform(3, 9))
    outdoor_light(s)
    yaw_room(s, s.rng.normal() * 0.2, (s.uniform(-0.6, 0.6) * half, 0, 0))
    s.eye, s.pitch, s.view = (0, s.uniform(1.0, 2.2) if s.chance(0.85) else s.uniform(2, 8), 0), s.rng.normal() * 0.09, s.uniform(40, 80)


def fields(s: Scene, populate=True) -> None:
    """Open land: grass, hills, trees, rocks, animals, people, perhaps mountains."""
    hills = s.chance(0.6)
    hue = s.pick(0.2, 0.25, 0.28, 0.1, 0.12, 0.08, None)
    texture = s.pick(SPECKLE, CLOUDS, STRANDS, CLOUDS, SPECKLE, PLAIN)
    land = s.material(texture, palette(s, hue, None if hue is None else s.uniform(0.1, 0.7)), math.exp(s.uniform(-1.5, 1.5)), 0.0, s.uniform(0, 0.8))
    s.ground[:] = [s.uniform(0.2, 4) if hills else 0.0, s.uniform(8, 40), s.uniform(20, 160) if s.chance(0.4) else 0.0, s.rng.integers(1000), s.uniform(6, 25)]
    if hills or s.ground[2] > 0:
        s.put(TERRAIN, (0, 0, 0), (1, 1, 1), land, casts=False)
    else:
        s.put(PLANE, (0, 0, 0), (1, 1, 1), land, casts=False)

    def somewhere(near, far):
        z = math.exp(s.uniform(math.log(near), math.log(far)))
        x = s.uniform(-0.8, 0.8) * z
        return x, float(raytrace.height_at(x, z, s.ground)), z

    if populate:
        for _ in range(int(s.rng.integers(0, 9))):
            tree(s, *somewhere(5, 90))
        for _ in range(int(s.rng.integers(0, 5))):
            bush(s, *somewhere(2, 40), s.uniform(0.4, 2))
        for _ in range(int(s.rng.integers(0, 5))):
            x, y, z = somewhere(1.5, 25)
            k = s.uniform(0.2, 1.5)
            s.put(BALL, (x, y, z), (k, k * s.uniform(0.4, 0.9), k * s.uniform(0.5, 1)), s.material(s.pick(CLOUDS, SPECKLE), palette(s, sat=0.15), 2, 0, 0.7), turn_y(s.uniform(0, 3)))
        for _ in range(int(s.rng.integers(0, 4)) if s.chance(0.5) else 0):
            person(s, *somewhere(2.5, 25))
        for _ in range(int(s.rng.integers(1, 5)) if s.chance(0.3) else 0):
            animal(s, *somewhere(2, 20), s.uniform(0.6, 1.6))
        for _ in range(int(s.rng.integers(1, 6)) if s.chance(0.4) else 0):
            tuft(s, *somewhere(1.2, 10), s.uniform(0.2, 0.9))
        if s.chance(0.25):  # a fence
            m, z, yaw = s.pick(wood(s), s.material()), s.uniform(3, 20), s.rng.normal() * 0.3
            for n in range(-8, 9):
                s.box(n * 1.5 * math.cos(yaw), -0.3, z - n * 1.5 * math.sin(yaw), 0.1, 1.5, 0.1, m)
            for h in (0.5, 0.95):
                s.box(0, h, z, 26, 0.1, 0.05, m, yaw)
        if s.chance(0.3):
            for _ in range(int(s.rng.integers(1, 4))):
                x, _, z = somewhere(15, 80)
                house(s, x, z, s.uniform(5, 12), s.uniform(3, 10), s.uniform(5, 12), s.uniform(0, 3))
    outdoor_light(s)
    s.eye, s.pitch, s.view = (0, s.uniform(0.5, 2.0) if s.chance(0.8) else s.uniform(2, 12), 0), s.rng.normal() * 0.1 - 0.03, s.uniform(38, 75)


def wildlife(s: Scene) -> None:
    """A big animal or two before open land, often through grass."""
    fields(s, populate=s.chance(0.4))
    for _ in range(int(s.rng.integers(1, 4))):
        z = s.uniform(1.3, 5)
        x = s.rng.normal() * 0.25 * z
        animal(s, x, float(raytrace.height_at(x, z, s.ground)), z, s.uniform(0.8, 1.6))
    for _ in range(int(s.rng.integers(0, 5))):
        tuft(s, s.rng.normal() * 0.8, 0, s.uniform(0.8, 3), s.uniform(0.15, 0.5))
    if s.chance(0.3):  # lying or standing on a rock
        k, z = s.uniform(0.4, 1.2), s.uniform(1.6, 4)
        x = s.rng.normal() * 0.3
        stone = s.material(s.pick(CLOUDS, SPECKLE, MARBLE), palette(s, s.pick(0.06, 0.08, 0.6), 0.2), 2, 0, 0.7)
        s.put(BALL, (x, 0, z), (k * 1.7, k * 0.8, k), stone, turn_y(s.rng.normal() * 0.4))
        animal(s, x, k * 0.62, z + s.uniform(-0.2, 0.3), s.uniform(0.7, 1.2))
    s.eye, s.pitch, s.view = (0, s.uniform(0.5, 1.4), 0), s.rng.normal() * 0.08 - 0.08, s.uniform(28, 55)


def landmark(s: Scene) -> None:
    """A tower, monument or big building, mostly seen from below."""
    fields(s, populate=s.chance(0.5))
    x, z = s.rng.normal() * 6, s.uniform(18, 70)
    h = z * s.uniform(0.4, 1.2)
    kind = s.rng.random()
    lattice = (LATTICE, s.uniform(0.3, 1.2), s.uniform(0.2, 0.5)) if s.chance(0.5) else (0, 1, 0)
    m = s.material(s.pick(PLAIN, FACADE, BRICKS, CLOUDS), palette(s, sat=0.3), 0.4, hole=lattice)
    if kind < 0.35:  # legs and a tapering shaft
        w = h * 0.2
        for a in (-1, 1):
            for b in (-1, 1):
                s.rod((x + a * w, 0, z + b * w), (x + a * w * 0.4, h * 0.3, z + b * w * 0.4), h * 0.035, m, 0.8)
        s.box(x, h * 0.17, z, w * 1.7, h * 0.03, w * 1.7, m)
        s.box(x, h * 0.3, z, w * 1.1, h * 0.03, w * 1.1, m)
        s.tube(x, h * 0.3, z, w * 0.5, h * 0.65, m, 0.1)
    elif kind < 0.6:
        s.tube(x, 0, z, h * s.uniform(0.06, 0.2), h, m, s.uniform(0.4, 1.1))
        s.tube(x, h, z, h * 0.12, h * 0.2, s.material(), 0.05)
    else:
        house(s, x, z, h * s.uniform(0.3, 1.2), h * s.uniform(0.5, 1), h * 0.5, s.uniform(-0.6, 0.6))
        for a in (-0.2, 0.2):
            s.box(x + a * h, 0, z - h * 0.2, h * 0.08, h * s.uniform(0.6, 1.1), h * 0.08, m)
    s.eye, s.pitch, s.view = (0, 1.6, 0), s.uniform(0.0, 0.3), s.uniform(45, 75)
    if s.chance(0.4):  # only the upper part before the sky
        s.pitch, s.view = math.atan2(h * s.uniform(0.5, 0.8), z), s.uniform(28, 55)
    if s.chance(0.35):
        branches(s)


def branches(s: Scene) -> None:
    """Twigs or leaves of a near tree that hang into the upper part of the picture."""
    bark, green = s.material(CLOUDS, palette(s, 0.08, 0.3, 0.25), 4), leaf(s)
    up, side, z = math.tan(s.pitch + 0.3), s.pick(-1, 1), s.uniform(2.5, 6)
    for _ in range(int(s.rng.integers(3, 12))):
        a = (side * z * s.uniform(0.5, 0.7), 1.6 + z * (up + s.uniform(-0.1, 0.3)), z)
        b = (side * z * s.uniform(0.0, 0.4), 1.6 + z * (up + s.uniform(-0.35, 0.2)), z * s.uniform(0.8, 1.2))
        s.rod(a, b, s.uniform(0.01, 0.04), bark, 0.4)
        if s.chance(0.5):
            s.ball(*b, *(s.uniform(0.1, 0.5) for _ in range(3)), green)


def stairs(s: Scene, x, z, w, count, yaw=0.0) -> None:
    """Steps that rise away from the camera."""
    m, rise, run = s.pick(flooring(s), wood(s), wall_paint(s)), s.uniform(0.13, 0.2), s.uniform(0.25, 0.35)
    c, q = math.cos(yaw), math.sin(yaw)
    for n in range(count):
        s.box(x + n * run * q, 0, z + n * run * c, w, (n + 1) * rise, run, m, yaw)
    if s.chance(0.5):
        rail = s.material()
        for side in (-1, 1):
            a = (x + side * w / 2 * c, 0.9, z - side * w / 2 * q)
            b = (a[0] + count * run * q, 0.9 + count * rise, a[2] + count * run * c)
            s.rod(a, b, 0.03, rail)
            for k in range(0, count, 2):
                s.tube(a[0] + k * run * q, 0, a[2] + k * run * c, 0.02, 0.9 + k * rise, rail)


def jumble(s: Scene) -> None:
    """Any shapes with any textures, for breadth: nothing here means anything."""
    k = math.exp(s.uniform(-0.5, 1.5))
    open_air = s.chance(0.5)
    if open_air:
        s.put(PLANE, (0, 0, 0), (1, 1, 1), anything(s, 1 / k), casts=False)
        outdoor_light(s, haze=s.uniform(0, 0.03) / k if s.chance(0.3) else 0.0)
    else:
        w, h, d = s.uniform(2, 5) * k, s.uniform(2, 4) * k, s.uniform(2.5, 7) * k
        s.put(BOX, (0, h / 2, d / 2 - 0.5), (w / 2, h / 2, d / 2 + 0.6), anything(s, 1 / k), casts=False)
        indoor_light(s, w, h, 0.5, d)
        for light in s.lights:
            light[7] *= k
    for _ in range(int(s.rng.integers(4, 40))):
        z = math.exp(s.uniform(0.0, 1.9)) * k
        x, y = s.uniform(-0.8, 0.8) * z, (s.uniform(0, 2.2) * k if s.chance(0.5) else 0)
        a, b, c = (math.exp(s.uniform(-2.5, -0.3)) * k * (0.6 + 0.2 * z / k) for _ in range(3))
        m = anything(s, 1 / k)
        shape = s.pick(BOX, BOX, BALL, TUBE)
        if s.chance(0.25):
            s.rod((x, y, z), (x + s.rng.normal() * k, y + s.rng.normal() * k, z + s.rng.normal() * 0.5 * k), 0.03 * k, m)
        elif s.chance(0.5):
            s.put(shape, (x, y + b, z), (a, b, c), m, turn_any(s), s.uniform(0, 1))
        else:
            s.put(shape, (x, y + b, z), (a, b, c), m, turn_y(s.uniform(0, 3)), s.uniform(0, 1))
    s.eye, s.pitch, s.view = (0, s.uniform(0.6, 2) * k, -0.2 * k), s.rng.normal() * 0.2 - 0.12, s.uniform(40, 80)


COMPOSERS = (
    (room, 0.34), (corridor, 0.06), (tabletop, 0.11), (portrait, 0.10), (street, 0.12),
    (fields, 0.09), (wildlife, 0.06), (landmark, 0.04), (jumble, 0.08),
)  # fmt: skip


def compose(seed: int) -> tuple[Scene, str]:
    """The scene of a seed, and the name of its composer."""
    s = Scene(np.random.default_rng(seed))
    chances = np.array([p for _, p in COMPOSERS])
    composer = COMPOSERS[int(s.rng.choice(len(chances), p=chances / chances.sum()))][0]
    composer(s)
    s.roll = s.rng.normal() * 0.03 if s.chance(0.7) else s.rng.normal() * 0.12
    return s, composer.__name__


def camera_turn(pitch: float, roll: float) -> np.ndarray:
    """Camera-to-world rotation (3×3); positive pitch looks up."""
    cp, sp, cr, sr = math.cos(pitch), math.sin(pitch), math.cos(roll), math.sin(roll)
    tilt = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    return tilt @ np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])


def draw(s: Scene, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Linear colour (H×W×3 float32) and z-depth in metres (H×W float32, 0 for sky) of a scene."""
    shapes = np.array(s.shapes, np.float64)
    materials = np.array(s.materials, np.float64)
    lights = np.array(s.lights, np.float64).reshape(-1, raytrace.LIGHT)
    eye = np.array(s.eye, np.float64)
    eye[1] += raytrace.height_at(0.0, 0.0, s.ground)
    turn = camera_turn(s.pitch, s.roll)
    focal = 0.5 * max(height, width) / math.tan(math.radians(s.view) / 2)
    depth, owner = raytrace.trace(shapes, materials, eye, turn, focal, height, width, s.ground)
    colour = raytrace.shade(depth, owner, shapes, materials, lights, s.air, eye, turn, focal, s.ground)
    return colour, np.where(owner < 0, np.float32(0), depth)


def render(seed: int, height: int = 256, width: int = 256) -> Picture:
    """The photo-like picture and depth of a seed; equal seeds give equal pictures."""
    s, kind = compose(seed)
    colour, depth = draw(s, height, width)
    return Picture(photograph(colour, depth, s.rng), depth, kind)
