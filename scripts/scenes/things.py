"""Cars, houses, stairs and small objects."""

from __future__ import annotations

import math

from scripts.scenes.living import person
from scripts.scenes.materials import anything, facade, flooring, leaf, wall_paint, wood
from scripts.scenes.raytrace import BOX, TUBE
from scripts.scenes.stage import GRADIENT, PICTURE, PLAIN, STRIPES, TEXT, TILES, Scene, palette


def car(s: Scene, x, y, z, yaw=0.0, k=1.0) -> None:
    """A car, van or bus along its own z axis."""
    big = s.chance(0.25)
    w, length, tall = (
        (2.5, s.uniform(7, 12), s.uniform(2.6, 3.4)) if big else (1.75, s.uniform(3.6, 4.8), s.uniform(1.35, 1.9))
    )
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
            s.box(
                x,
                h,
                z,
                k * s.uniform(0.7, 1),
                t,
                k * s.uniform(0.5, 0.8),
                s.material(s.pick(PLAIN, TEXT), scale=4 / k),
                s.uniform(-0.5, 0.5) + yaw,
            )
            h += t
    elif kind == 5:  # plant in a pot
        s.tube(x, y, z, k * 0.18, k * 0.35, m, 1.3)
        s.ball(x, y + k * 0.75, z, k * 0.35, k * 0.45, k * 0.35, leaf(s))
    elif kind == 6:  # lamp
        s.tube(x, y, z, k * 0.2, k * 0.05, m)
        s.tube(x, y, z, k * 0.03, k * 0.9, m)
        s.tube(
            x,
            y + k * 0.75,
            z,
            k * 0.35,
            k * 0.35,
            s.material(PLAIN, palette(s, 0.12, 0.2, 1), emission=s.pick(0, 1.2)),
            0.6,
        )
    elif kind == 7:  # figure
        person(s, x, y, z, k * s.uniform(0.8, 1.4))
    else:  # screen
        s.box(x, y, z, k * 0.3, k * 0.05, k * 0.2, m, yaw)
        s.box(x, y, z, k * 0.05, k * 0.3, k * 0.05, m, yaw)
        s.box(
            x,
            y + k * 0.2,
            z,
            k * 1.2,
            k * 0.7,
            k * 0.05,
            s.material(s.pick(PICTURE, TEXT, PLAIN), scale=3 / k, emission=s.pick(0, 0.5)),
            yaw,
        )


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
        s.box(
            px,
            s.uniform(0, h * 0.7),
            pz,
            s.uniform(0.4, 1.5),
            s.uniform(0.3, 1.2),
            s.uniform(0.8, 3),
            s.pick(m, s.material(s.pick(TEXT, PLAIN, STRIPES))),
            yaw,
        )


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


def floor_things(s: Scene, x0, x1, z0, z1, count) -> None:
    for _ in range(count):
        clutter(s, s.uniform(x0, x1), 0.0, s.uniform(z0, z1), s.uniform(0.15, 0.8))
