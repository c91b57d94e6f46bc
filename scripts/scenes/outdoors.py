"""Composers: streets, open land, animals and landmarks."""

from __future__ import annotations

import math

from scripts.scenes.light import outdoor_light
from scripts.scenes.living import animal, branches, bush, person, tree, tuft
from scripts.scenes.materials import wood
from scripts.scenes.raytrace import BALL, PLANE, TERRAIN
from scripts.scenes.stage import (
    BRICKS,
    CLOUDS,
    FACADE,
    LATTICE,
    MARBLE,
    PLAIN,
    ROAD,
    SPECKLE,
    STRANDS,
    TEXT,
    TILES,
    Scene,
    palette,
    turn_y,
    yaw_room,
)
from scripts.scenes.texture import height_at
from scripts.scenes.things import car, house, stairs


def street(s: Scene) -> None:
    """A road between buildings, with cars, people, poles and trees."""
    half = s.uniform(2.5, 7)
    pavement = s.uniform(1, 4)
    stone = s.material(s.pick(TILES, SPECKLE, CLOUDS, BRICKS), palette(s, sat=0.1), s.uniform(0.7, 3), 0.0)
    s.put(PLANE, (0, 0, 0), (1, 1, 1), stone, casts=False)
    road = s.material(
        s.pick(ROAD, ROAD, SPECKLE, CLOUDS, BRICKS),
        palette(s, sat=0.08, value=s.uniform(0.2, 0.6)),
        s.uniform(0.9, 1.1) / half * 1.05,
    )
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
        car(
            s,
            side * s.uniform(0.35, 0.8) * half,
            0,
            math.exp(s.uniform(1.4, 3.9)),
            s.pick(0, math.pi) + s.rng.normal() * 0.05,
        )
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
        for _ in range(int(s.rng.integers(1, 7))):
            tree(s, s.pick(-1, 1) * (half + s.uniform(0.5, 2)), 0, s.uniform(4, 50), s.uniform(3, 9))
    outdoor_light(s)
    yaw_room(s, s.rng.normal() * 0.2, (s.uniform(-0.6, 0.6) * half, 0, 0))
    s.eye, s.pitch, s.view = (
        (0, s.uniform(1.0, 2.2) if s.chance(0.85) else s.uniform(2, 8), 0),
        s.rng.normal() * 0.09,
        s.uniform(40, 80),
    )


def fields(s: Scene, populate=True) -> None:
    """Open land: grass, hills, trees, rocks, animals, people, perhaps mountains."""
    hills = s.chance(0.6)
    hue = s.pick(0.2, 0.25, 0.28, 0.1, 0.12, 0.08, None)
    texture = s.pick(SPECKLE, CLOUDS, STRANDS, CLOUDS, SPECKLE, PLAIN)
    land = s.material(
        texture,
        palette(s, hue, None if hue is None else s.uniform(0.1, 0.7)),
        math.exp(s.uniform(-1.5, 1.5)),
        0.0,
        s.uniform(0, 0.8),
    )
    s.ground[:] = [
        s.uniform(0.2, 4) if hills else 0.0,
        s.uniform(8, 40),
        s.uniform(20, 160) if s.chance(0.4) else 0.0,
        s.rng.integers(1000),
        s.uniform(6, 25),
    ]
    if hills or s.ground[2] > 0:
        s.put(TERRAIN, (0, 0, 0), (1, 1, 1), land, casts=False)
    else:
        s.put(PLANE, (0, 0, 0), (1, 1, 1), land, casts=False)

    def somewhere(near, far):
        z = math.exp(s.uniform(math.log(near), math.log(far)))
        x = s.uniform(-0.8, 0.8) * z
        return x, float(height_at(x, z, s.ground)), z

    if populate:
        for _ in range(int(s.rng.integers(0, 9))):
            tree(s, *somewhere(5, 90))
        for _ in range(int(s.rng.integers(0, 5))):
            bush(s, *somewhere(2, 40), s.uniform(0.4, 2))
        for _ in range(int(s.rng.integers(0, 5))):
            x, y, z = somewhere(1.5, 25)
            k = s.uniform(0.2, 1.5)
            s.put(
                BALL,
                (x, y, z),
                (k, k * s.uniform(0.4, 0.9), k * s.uniform(0.5, 1)),
                s.material(s.pick(CLOUDS, SPECKLE), palette(s, sat=0.15), 2, 0, 0.7),
                turn_y(s.uniform(0, 3)),
            )
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
    s.eye, s.pitch, s.view = (
        (0, s.uniform(0.5, 2.0) if s.chance(0.8) else s.uniform(2, 12), 0),
        s.rng.normal() * 0.1 - 0.03,
        s.uniform(38, 75),
    )


def wildlife(s: Scene) -> None:
    """A big animal or two before open land, often through grass."""
    fields(s, populate=s.chance(0.4))
    for _ in range(int(s.rng.integers(1, 4))):
        z = s.uniform(1.3, 5)
        x = s.rng.normal() * 0.25 * z
        animal(s, x, float(height_at(x, z, s.ground)), z, s.uniform(0.8, 1.6))
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
