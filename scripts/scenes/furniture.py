"""Furniture, and how a room is filled with it."""

from __future__ import annotations

import math

from scripts.scenes.living import person
from scripts.scenes.materials import anything, cloth, wood
from scripts.scenes.raytrace import BALL
from scripts.scenes.stage import PLAIN, Scene, palette, turn_y
from scripts.scenes.things import clutter, floor_things


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
        s.put(
            BALL,
            (x + a * w * c - 0.75 * q, h + 0.08, z - a * w * q - 0.75 * c),
            (0.3, 0.12, 0.2),
            pillow,
            turn_y(yaw),
        )


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
                s.box(
                    px,
                    y + n * h / rows + 0.02,
                    pz,
                    k * 0.9,
                    h / rows * s.uniform(0.4, 0.85),
                    d * s.uniform(0.5, 0.9),
                    s.pick(anything(s, 3), s.material()),
                    yaw,
                )
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
            s.box(
                px, y + (j + 0.04) * h / rows, pz, w / columns * 0.94, h / rows * 0.92, 0.04, door, yaw, casts=False
            )


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


def furnish(s: Scene, w, h, d) -> None:
    if s.chance(0.35):  # rug
        s.box(
            s.uniform(-w / 4, w / 4),
            0,
            s.uniform(1.2, d * 0.8),
            s.uniform(1, 2.5),
            0.02,
            s.uniform(1, 2),
            anything(s),
            s.uniform(-0.3, 0.3),
            casts=False,
        )
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
