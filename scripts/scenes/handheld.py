"""Composer: rooms seen from among their furniture, by a camera held in the hand."""

from __future__ import annotations

import math

import numpy as np

from scripts.scenes import raytrace
from scripts.scenes.furniture import cabinet, chair, furnish, table
from scripts.scenes.light import indoor_light
from scripts.scenes.materials import anything, cloth, wood
from scripts.scenes.stage import PLAIN, Scene, cross, palette, yaw_room
from scripts.scenes.things import clutter
from scripts.scenes.walls import shell

LARGEST = 1.6  # metres; the radius of what one looks at: a table, a bed, but no wall


def closeup(s: Scene) -> None:
    """A room with tables, chairs and counters; the camera stands anywhere and looks at a thing, mostly down."""
    w, h, d = s.uniform(2.4, 6), s.uniform(2.2, 3.2), s.uniform(2.5, 7)
    shell(s, w, h, -1.0, d)
    if s.chance(0.6):
        dining(s, s.uniform(-0.2, 0.2) * w, s.uniform(1.3, d - 1.0))
    if s.chance(0.5):
        counters(s, w, h, d)
    if s.chance(0.4):
        desk(s, s.uniform(-0.25, 0.25) * w, d)
    furnish(s, w, h, d)
    indoor_light(s, w, h, 0.2, d)
    step_in(s, h)


def dining(s: Scene, x, z) -> None:
    """A table with chairs on its sides, some of them moved away."""
    w, d, yaw = s.uniform(0.8, 2.0), s.uniform(0.7, 1.0), s.uniform(-0.8, 0.8)
    table(s, x, z, w, d, s.uniform(0.68, 0.78), yaw)
    c, q = math.cos(yaw), math.sin(yaw)
    make = s.pick(chair, slatted)
    for side in (-1, 1):
        for n in range(int(s.rng.integers(0, 1 + max(1, round(w / 0.65))))):
            a, b = (n + 0.5) * 0.65 - w / 2, side * (d / 2 + s.uniform(-0.15, 0.45))
            turned = yaw + (math.pi if side > 0 else 0.0) + s.rng.normal() * 0.3
            make(s, x + a * c + b * q, z - a * q + b * c, turned)


def slatted(s: Scene, x, z, yaw) -> None:
    """A chair whose back is two posts with bars between them."""
    m = s.pick(wood(s), wood(s), s.material(PLAIN))
    c, q = math.cos(yaw), math.sin(yaw)
    h, w, tall = s.uniform(0.42, 0.48), s.uniform(0.38, 0.46), s.uniform(0.8, 1.05)

    def at(a, b):
        return x + (a * c + b * q) * w, z + (-a * q + b * c) * w

    s.box(x, h - 0.04, z, w, 0.04, w, s.pick(m, cloth(s)), yaw)
    for a in (-0.46, 0.46):
        for b in (-0.46, 0.46):
            px, pz = at(a, b)
            s.box(px, 0, pz, 0.04, tall if b < 0 else h - 0.04, 0.04, m, yaw)
    px, pz = at(0, -0.46)
    bars = int(s.rng.integers(1, 6))
    for n in range(bars):
        rise = h + 0.12 + (tall - h - 0.15) * (n + 0.5) / bars
        s.box(px, rise, pz, w * 0.9, min(0.07, 0.3 / bars), 0.025, m, yaw)


def counters(s: Scene, w, h, d) -> None:
    """Cupboards and a worktop along one side wall, round a corner as often as not, with things on them."""
    side, deep, high = s.pick(-1, 1), s.uniform(0.5, 0.65), s.uniform(0.8, 0.95)
    top = s.pick(anything(s), wood(s), s.material(PLAIN))
    x, length = side * (w / 2 - deep / 2 - 0.02), s.uniform(0.5, 0.9) * d
    runs = [(x, d - length / 2 - 0.02, length, -side * math.pi / 2)]
    if s.chance(0.5):
        long = s.uniform(0.4, 0.9) * (w - deep)
        runs.append((side * (w / 2 - deep - long / 2), d - deep / 2 - 0.02, long, math.pi))
    for px, pz, run, yaw in runs:
        cabinet(s, px, pz, run, high - 0.04, deep, yaw)
        s.box(px, high - 0.04, pz, run + 0.02, 0.04, deep + 0.04, top, yaw)
        for _ in range(int(s.rng.integers(0, 7))):
            a = s.uniform(-0.48, 0.48) * run
            clutter(s, px + a * math.cos(yaw), high, pz - a * math.sin(yaw), s.uniform(0.1, 0.45))
        if s.chance(0.5):  # wall cupboards
            back = deep / 2 - 0.17
            ux, uz = px - back * math.sin(yaw), pz - back * math.cos(yaw)
            cabinet(s, ux, uz, run * s.uniform(0.4, 1), min(0.75, h - 1.45), 0.34, yaw, 1.4)


def desk(s: Scene, x, d) -> None:
    """A desk at the far wall with a good many things on it and a chair on wheels."""
    w, deep, h = s.uniform(1.2, 2.4), s.uniform(0.6, 0.9), s.uniform(0.7, 0.76)
    z = d - deep / 2 - s.uniform(0.02, 0.8)
    table(s, x, z, w, deep, h, s.rng.normal() * 0.1, things=False)
    for _ in range(int(s.rng.integers(3, 12))):
        clutter(s, x + s.uniform(-0.45, 0.45) * w, h, z + s.uniform(-0.4, 0.4) * deep, s.uniform(0.1, 0.45))
    for _ in range(int(s.rng.integers(0, 3))):
        px, pz, yaw = x + s.uniform(-0.5, 0.5) * w, z - deep / 2 - s.uniform(0, 0.5), s.uniform(0, 6.3)
        m, metal = cloth(s), s.material(PLAIN, palette(s, sat=0.05))
        c, q = math.cos(yaw), math.sin(yaw)
        s.box(px, 0.44, pz, 0.48, 0.08, 0.46, m, yaw)
        s.box(px - 0.23 * q, 0.58, pz - 0.23 * c, 0.42, s.uniform(0.3, 0.6), 0.06, m, yaw)
        s.tube(px, 0.08, pz, 0.03, 0.38, metal)
        for n in range(5):
            a = yaw + n * 1.257
            s.rod((px, 0.1, pz), (px + 0.3 * math.cos(a), 0.05, pz + 0.3 * math.sin(a)), 0.025, metal)


def step_in(s: Scene, h) -> None:
    """Put the camera where nothing stands between it and the door, near a thing, and turn it past it.

    The turn has the wrong sign, so the thing is often beside the picture. It stays, for the weights learnt from these
    views and are judged on them; `nearby.hold` turns the camera to the thing.
    """
    s.view = s.uniform(45, 80)
    start = np.array((0.0, min(h - 0.4, 1.6), 0.0))
    things = [p for p in s.shapes if p[19] and p[15] < LARGEST and p[11] > 0.8 and p[10] < 1.6]
    place, target = start, np.array((0.0, 1.0, 2.0))
    for _ in range(12):
        thing = np.array(s.pick(*things)[9:12]) if things else target
        angle = math.atan2(start[0] - thing[0], start[2] - thing[2]) + s.rng.normal() * 0.6
        rise, distance = math.radians(s.uniform(0, 60)), math.exp(s.uniform(math.log(0.7), math.log(3.0)))
        away = np.array((math.cos(rise) * math.sin(angle), math.sin(rise), math.cos(rise) * math.cos(angle)))
        wanted = thing + distance * away
        if 0.5 < wanted[1] < h - 0.25 and is_free(s, start, wanted):
            place, target = wanted, thing
            break
    x, y, z = target - place
    yaw_room(s, -math.atan2(x, z) + s.rng.normal() * 0.2, (place[0], 0, place[2]))
    s.eye = (0, float(place[1]), 0)
    s.pitch = math.atan2(y, math.hypot(x, z)) + s.rng.normal() * 0.18


def is_free(s: Scene, start: np.ndarray, end: np.ndarray) -> bool:
    """Whether one can go from `start` to a hand's breadth beyond `end` without meeting a shape."""
    way = end - start
    length = float(np.linalg.norm(way))
    forward = way / length
    right = np.array(cross((0.0, 1.0, 0.0), forward))
    turn = np.stack([right, np.array(cross(forward, right)), forward], 1)
    shapes, materials = np.array(s.shapes, np.float64), np.array(s.materials, np.float64)
    depth, _ = raytrace.trace(shapes, materials, start, turn, 1.0, 1, 1, s.ground)
    return bool(depth[0, 0] > length + 0.2)
