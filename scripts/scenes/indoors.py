"""Composers: rooms, corridors and table tops."""

from __future__ import annotations

import math

from scripts.scenes.furniture import furnish
from scripts.scenes.light import indoor_light
from scripts.scenes.living import person
from scripts.scenes.materials import anything, flooring, wall_paint, wood
from scripts.scenes.raytrace import PLANE
from scripts.scenes.stage import Scene, yaw_room
from scripts.scenes.things import clutter, floor_things, stairs
from scripts.scenes.walls import shell


def room(s: Scene) -> None:
    """A furnished room seen from inside."""
    w, h, d = s.uniform(2.4, 7), s.uniform(2.2, 3.4), s.uniform(2.5, 9)
    back = s.uniform(0.1, 1.2)  # the camera stands this far before the wall behind it
    shell(s, w, h, -back, d)
    furnish(s, w, h, d)
    indoor_light(s, w, h, 0.2, d)
    yaw_room(
        s, s.uniform(-0.6, 0.6) if s.chance(0.7) else s.rng.normal() * 0.1, (s.uniform(-w * 0.35, w * 0.35), 0, 0)
    )
    s.eye = (0, min(h - 0.3, s.uniform(0.5, 1.9) if s.chance(0.85) else s.uniform(1.8, 2.6)), 0)
    s.pitch = s.rng.normal() * 0.13 - 0.12 * (s.eye[1] - 0.9)
    s.view = s.uniform(45, 85)


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
    s.box(
        0,
        h - 0.04,
        z0 + deep / 2,
        s.uniform(0.8, 2.5),
        0.04,
        deep,
        s.pick(wood(s), anything(s), flooring(s)),
        s.rng.normal() * 0.15,
    )
    for _ in range(int(s.rng.integers(2, 14))):
        clutter(s, s.uniform(-0.55, 0.55), h, z0 + s.uniform(0.15, 1) * deep, s.uniform(0.06, 0.35))
    if s.chance(0.25):
        person(s, s.uniform(-0.5, 0.5), 0, z0 + deep + 0.3, seated=True, yaw=math.pi)
    indoor_light(s, 3, 2.5, 0.0, 1.5)
    s.eye = (0, h + s.uniform(0.15, 0.8), -0.25)
    s.pitch = -math.atan2(s.eye[1] - h - 0.05, s.uniform(0.4, 1.0)) + s.rng.normal() * 0.08
    s.view = s.uniform(40, 75)
