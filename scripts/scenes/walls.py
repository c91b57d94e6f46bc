"""The shell of a room with its windows, doors and pictures."""

from __future__ import annotations

import math

from scripts.scenes.materials import anything, flooring, wall_paint, wood
from scripts.scenes.stage import (
    CLOUDS,
    GRADIENT,
    MARBLE,
    PICTURE,
    PLAIN,
    PLANKS,
    STRIPES,
    TEXT,
    TILES,
    Scene,
    hsv,
    palette,
)
from scripts.scenes.things import floor_things


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
            s.box(
                s.pick(0, s.uniform(-w / 3, w / 3)),
                h - 0.1,
                0.8 + n * 1.4,
                s.pick(w * 0.98, 0.6, 0.2),
                0.1,
                0.2,
                m,
                casts=False,
            )
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
        s.box(
            x,
            y + 0.04,
            z,
            a,
            b,
            0.06,
            s.material(s.pick(PICTURE, TEXT, CLOUDS, MARBLE), None, s.uniform(1, 4)),
            yaw,
            casts=False,
        )
    elif kind < 0.7:  # window, bright; curtains
        a, b, y = s.uniform(0.6, 1.8), s.uniform(0.7, 1.5), s.uniform(0.5, 1.0)
        glow = s.uniform(0.6, 2.5) if s.chance(0.8) else 0.05
        pane = s.material(
            s.pick(GRADIENT, PLAIN, CLOUDS),
            (hsv(0.57, s.uniform(0, 0.3), 1), hsv(s.pick(0.3, 0.57), 0.3, 0.8), hsv(0, 0, 1)),
            0.6,
            0.3,
            0,
            glow,
        )
        s.box(x, y, z, a + 0.12, b + 0.12, 0.06, frame, yaw, casts=False)
        s.box(x, y + 0.06, z, a, b, 0.07, pane, yaw, casts=False)
        s.box(x, y + 0.06, z, 0.04, b, 0.1, frame, yaw, casts=False)
        s.box(x, y + b * 0.5, z, a, 0.04, 0.1, frame, yaw, casts=False)
        if s.chance(0.4):
            m = s.material(STRIPES, palette(s), s.uniform(6, 15), 0, 0)
            for side in (-1, 1):
                s.box(
                    x + side * (a * 0.5 + 0.1) * c,
                    0.05,
                    z - side * (a * 0.5 + 0.1) * q,
                    0.35,
                    y + b + 0.2,
                    0.12,
                    m,
                    yaw,
                    casts=False,
                )
    elif kind < 0.9:  # door
        a, b = s.uniform(0.75, 1.0), min(h - 0.1, s.uniform(1.95, 2.2))
        s.box(x, 0, z, a + 0.14, b + 0.07, 0.08, frame, yaw, casts=False)
        s.box(x, 0, z, a, b, 0.1, s.pick(wood(s), s.material(PLAIN)), yaw, casts=False)
    else:
        s.box(x, s.uniform(1.2, 1.6), z, 0.9, s.uniform(0.2, 0.7), s.uniform(0.3, 0.7), anything(s), yaw)
