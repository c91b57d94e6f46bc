"""Composers for both worlds: portraits, and jumbles in which nothing means anything."""

from __future__ import annotations

import math

from scripts.scenes.furniture import piece
from scripts.scenes.light import indoor_light, outdoor_light
from scripts.scenes.living import bust, creature, person
from scripts.scenes.materials import anything, flooring, wall_paint
from scripts.scenes.outdoors import fields
from scripts.scenes.raytrace import BALL, BOX, PLANE, TUBE
from scripts.scenes.stage import Scene, turn_any, turn_y
from scripts.scenes.walls import shell


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
            s.rod(
                (x, y, z), (x + s.rng.normal() * k, y + s.rng.normal() * k, z + s.rng.normal() * 0.5 * k), 0.03 * k, m
            )
        elif s.chance(0.5):
            s.put(shape, (x, y + b, z), (a, b, c), m, turn_any(s), s.uniform(0, 1))
        else:
            s.put(shape, (x, y + b, z), (a, b, c), m, turn_y(s.uniform(0, 3)), s.uniform(0, 1))
    s.eye, s.pitch, s.view = (0, s.uniform(0.6, 2) * k, -0.2 * k), s.rng.normal() * 0.2 - 0.12, s.uniform(40, 80)
