"""Composer: what a hand-held camera sees within a few metres: workplaces, shelves, stairs, homes, yards."""

from __future__ import annotations

import math

import numpy as np

from scripts.scenes import raytrace
from scripts.scenes.furniture import cabinet, chair, furnish, piece, shelf, table
from scripts.scenes.handheld import counters, desk, dining
from scripts.scenes.homes import bare, bathroom, doorway, kitchen, lounge
from scripts.scenes.light import indoor_light, outdoor_light
from scripts.scenes.living import bush, person, tree
from scripts.scenes.materials import anything, cloth, facade, leaf, wood
from scripts.scenes.raytrace import PLANE, TUBE
from scripts.scenes.stage import (
    BARS,
    BRICKS,
    CLOUDS,
    PLAIN,
    PLANKS,
    SPECKLE,
    TILES,
    Scene,
    palette,
    yaw_room,
)
from scripts.scenes.things import car, stairs
from scripts.scenes.trifles import (
    bag,
    bench,
    bicycle,
    bulky,
    folders,
    inside,
    lamp,
    laptop,
    middles,
    monitor,
    placed,
    plain,
    plant,
    rack,
    shoes,
    small,
    swivel,
)
from scripts.scenes.walls import shell, wall_piece


def nearby(s: Scene) -> None:
    """One of several settings, seen from among its things."""
    s.view = s.uniform(40, 80)
    chances = np.array([share for _, share in SETTINGS])
    hold(s, *SETTINGS[int(s.rng.choice(len(chances), p=chances / chances.sum()))][0](s))


def hold(s: Scene, space, targets, near=0.6, far=2.6, low=0, high=55, side=None) -> None:
    """Put the camera within `space` (low and high x, y, z) near a target, `low` to `high` degrees above it."""
    shapes, materials = np.array(s.shapes, np.float64), np.array(s.materials, np.float64)
    solid = shapes[shapes[:, 16] < PLANE]
    wide = np.where(solid[:, 16] == TUBE, np.maximum(1, solid[:, 18]), 1.0)
    reach = solid[:, 12:15] * np.stack([wide, np.ones_like(wide), wide], 1)
    space, best = np.reshape(space, (3, 2)), (9.0, None)
    focal = 6 / math.tan(math.radians(s.view) / 2)  # for a picture of 12 x 12
    for n in range(120):
        target = np.array(targets[int(s.rng.integers(len(targets)))], np.float64)
        around = s.uniform(0, 6.3) if side is None else side + s.rng.normal() * 0.6
        rise = math.radians(low + (high - low) * s.rng.random() ** 1.4)
        distance = near * (far / near) ** s.rng.random() ** 0.7
        away = np.array((math.cos(rise) * math.sin(around), math.sin(rise), math.cos(rise) * math.cos(around)))
        place = target + distance * away if n < 60 else s.rng.uniform(space[:, 0], space[:, 1])
        if (place < space[:, 0]).any() or (place > space[:, 1]).any():
            continue
        offset = np.abs(np.einsum("nij,nj->ni", solid[:, :9].reshape(-1, 3, 3), place - solid[:, 9:12]))
        if (offset * solid[:, 12:15] < reach + 0.2).all(1).any():
            continue
        x, y, z = target - place
        yaw, pitch = math.atan2(x, z) + s.rng.normal() * 0.2, math.atan2(y, math.hypot(x, z)) + s.rng.normal() * 0.15
        c, q, up, out = math.cos(yaw), math.sin(yaw), math.sin(pitch), math.cos(pitch)
        turn = np.array([[c, -q * up, q * out], [0, out, up], [-q, -c * up, c * out]])
        depth, _ = raytrace.trace(shapes, materials, place, turn, focal, 12, 12, s.ground)
        blocked = float((depth < 0.4).mean()) + (np.median(depth) < 0.55)
        if blocked < best[0]:
            best = blocked, (place, yaw, pitch)
        if blocked < 0.06:
            break
    place, yaw, pitch = best[1] or (space.mean(1), s.uniform(0, 6.3), -0.3)
    yaw_room(s, yaw, (place[0], 0, place[2]))
    s.eye, s.pitch = (0, float(place[1]), 0), pitch


def workplace(s: Scene, w, deep, wall) -> None:
    """A desk about the origin whose sitter is at +z."""
    h, back = s.uniform(0.7, 0.77), -deep / 2
    table(s, 0, 0, w, deep, h, things=False)
    h += 0.015
    kind = s.rng.random()
    for n in range(s.pick(1, 1, 2) if kind < 0.7 else 0):
        with placed(s, s.uniform(-0.3, 0.0) * w + n * 0.6, back + s.uniform(0.2, 0.35), s.rng.normal() * 0.25, h):
            monitor(s)
    if kind > 0.55:
        with placed(s, s.uniform(-0.3, 0.3) * w, s.uniform(-0.05, 0.1), s.rng.normal() * 0.4, h):
            laptop(s)
    if s.chance(0.75):
        with placed(s, s.uniform(-0.2, 0.15) * w, deep * s.uniform(0.1, 0.3), s.rng.normal() * 0.15, h):
            dark = s.pick(0.08, 0.8)
            s.box(0, 0, 0, 0.44, 0.018, 0.14, plain(s, dark, 0))
            s.box(0, 0.018, 0, 0.42, 0.006, 0.115, s.material(TILES, palette(s, sat=0, value=dark), 50, 0))
            s.ball(0.32, 0.01, 0, 0.03, 0.025, 0.05, plain(s, s.pick(0.1, 0.8)))
    for _ in range(int(s.rng.integers(2, 12))):
        small(s, s.uniform(-0.46, 0.46) * w, h, s.uniform(-0.45, 0.42) * deep)
    for _ in range(int(s.rng.integers(0, 3))):  # cables that hang over an edge
        a, r, m = s.uniform(-0.4, 0.4) * w, s.uniform(0.003, 0.006), plain(s, s.pick(0.08, 0.9))
        s.rod((a, h, 0), (a + s.rng.normal() * 0.2, h, back), r, m)
        s.rod((a, h - 0.05, back), (a + s.rng.normal() * 0.2, 0, back), r, m)
    if s.chance(0.3):
        lamp(s, s.pick(-0.4, 0.4) * w, h, back + 0.15)
    if s.chance(0.4):
        cabinet(s, s.pick(-0.32, 0.32) * w, 0, 0.4, h - 0.08, deep * 0.8, 0.0)
    if s.chance(0.7 if not wall else 0.15):
        s.box(0, 0, back - 0.04, w, s.uniform(1.0, 1.5), 0.04, s.pick(cloth(s), plain(s), plain(s)))
    if wall and s.chance(0.35):
        y = s.uniform(1.25, 1.5)
        s.box(0, y, back + 0.14, w * 0.9, 0.025, 0.26, s.pick(wood(s), plain(s)))
        with placed(s, 0, back + 0.14):
            folders(s, w * 0.8, y + 0.025, 0.26)
    if s.chance(0.12):
        person(s, s.rng.normal() * 0.1, 0, deep / 2 + 0.35, seated=True, yaw=math.pi)
    if s.chance(0.8):
        place = s.rng.normal() * 0.25, deep / 2 + s.uniform(-0.05, 0.7)
        s.pick(swivel, swivel, swivel, chair)(s, *place, s.uniform(1.5, 4.8))


def office(s: Scene) -> tuple:
    """Desks along the walls or back to back, with what goes with them."""
    w, h, d = s.uniform(2.8, 7), s.uniform(2.3, 3.0), s.uniform(3, 7.5)
    shell(s, w, h, 0, d)
    first, deep, wide, kind = len(s.shapes), s.uniform(0.6, 0.85), s.uniform(1.2, 1.8), int(s.rng.integers(4))
    spots, side = [], s.pick(-1, 1)
    for n in range(3):
        a = (n + 0.5) * (wide + 0.04)
        spots.append((side * (a - w / 2 + 0.1), d - deep / 2 - 0.06, math.pi) if kind != 1 else
                     (side * (w / 2 - deep / 2 - 0.06), d - a - 0.1, -side * math.pi / 2))  # fmt: skip
    if kind == 2:
        spots = [(side * (0.1 - w / 2 + wide * (n + 0.5)), 0.5 * d + k * (deep / 2 + 0.03), math.pi * (k < 0))
                 for n in range(2) for k in (-1, 1)]  # fmt: skip
    targets, facing = middles(s), None
    for x, z, yaw in spots:
        if len(s.shapes) < 78 and abs(x) < w / 2 - 0.3 and z > 1.0 and (len(s.shapes) == first or s.chance(0.8)):
            with placed(s, x, z, yaw):
                here = len(s.shapes)
                workplace(s, wide, deep, kind != 2)
            targets, facing = [m for m in middles(s, here) if m[1] > 0.6], yaw if s.chance(0.75) else None
    if kind == 3 and len(s.shapes) < 70:
        desk(s, 0.0, d - deep - 0.8)
    if len(s.shapes) < 95 and s.chance(0.5):
        with placed(s, -side * (w / 2 - 0.2), s.uniform(0.8, d - 0.8), side * math.pi / 2):
            rack(s, s.uniform(0.6, 1.2), s.uniform(0.8, h - 0.2), 0.32)
    elif s.chance(0.6):
        cabinet(s, -side * (w / 2 - 0.25), s.uniform(0.8, d - 0.8), 0.9, s.uniform(0.6, 1.9), 0.45, side * math.pi / 2)
    for _ in range(int(s.rng.integers(0, 3))):
        s.pick(bag, bulky)(s, s.uniform(-0.4, 0.4) * w, 0, s.uniform(0.2, 0.9) * d)
    indoor_light(s, w, h, 0.2, d)
    return inside(w, h, d, 0.85), targets, 0.7, s.pick(1.4, 2.5, 5), -5, 60, facing


def home(s: Scene) -> tuple:
    """A room with tables, chairs, counters and all that stands in rooms, as `handheld.closeup` furnishes it."""
    w, h, d = s.uniform(2.4, 6), s.uniform(2.2, 3.2), s.uniform(2.5, 7)
    shell(s, w, h, 0, d)
    first = len(s.shapes)
    if s.chance(0.6):
        dining(s, s.uniform(-0.2, 0.2) * w, s.uniform(0.3, 0.7) * d)
    if s.chance(0.5):
        counters(s, w, h, d)
    furnish(s, w, h, d)
    indoor_light(s, w, h, 0.2, d)
    return inside(w, h, d, 0.6), middles(s, first), 0.7, s.pick(2.5, 5), -5, 60


def shelves(s: Scene) -> tuple:
    """Racks along one or both sides of an aisle, or one on the wall."""
    w, h, d = s.uniform(1.6, 3.4), s.uniform(2.3, 3.2), s.uniform(2.4, 7)
    shell(s, w, h, 0, d)
    first, high, wide = len(s.shapes), s.uniform(1.3, h - 0.15), s.uniform(0.7, 1.3)
    sides = s.pick((-1, 1), (-1, 1), (s.pick(-1, 1),))
    for n in range(4):
        for k in sides:
            z = d - wide * (n + 0.5) - 0.1
            if z > wide / 2 and len(s.shapes) < 95:
                with placed(s, k * (w / 2 - 0.2), z, -k * math.pi / 2):
                    s.pick(rack, rack, lambda s, *size: shelf(s, 0, 0, *size, 0.0))(s, wide - 0.04, high, 0.34)
    targets = middles(s, first)
    if s.chance(0.15):
        person(s, 0, 0, s.uniform(1.2, d - 0.3))
    for _ in range(int(s.rng.integers(0, 3))):
        bulky(s, s.uniform(-0.2, 0.2) * w, 0, s.uniform(0.2, 1) * d)
    indoor_light(s, w, h, 0.2, d)
    return inside(w, h, d, 0.7), targets, 0.7, s.pick(1.6, 5), -15, 35


def stairwell(s: Scene) -> tuple:
    """A flight of stairs between walls, from below or from its landing."""
    count, wide = int(s.rng.integers(5, 15)), s.uniform(0.8, 1.6)
    w, h, d = wide + s.pick(0.0, s.uniform(0.5, 2)), count * 0.2 + s.uniform(2.1, 2.6), 3.4 + count * 0.35
    shell(s, w, h, 0, d)
    x, start, first = s.pick(-1, 1) * (w - wide) / 2, s.uniform(1.2, 2.0), len(s.shapes)
    stairs(s, x, start, wide - 0.02, count)
    last = s.shapes[first + count - 1]
    top, end, stone = 2 * last[13], last[11] + last[14], int(last[17])
    s.box(0, 0, (end + d) / 2, w, top, d - end, stone, casts=False)
    targets = [(p[9], p[10] + p[13], p[11]) for p in s.shapes[first : first + count]]
    indoor_light(s, w, h, 0.2, d)
    if s.chance(0.5):
        return (0.2 - w / 2, w / 2 - 0.2, 0.6, 1.8, 0.2, start - 0.2), targets, 0.8, 3.5, -50, 45, math.pi
    return (0.2 - w / 2, w / 2 - 0.2, top + 0.7, min(h - 0.2, top + 1.8), end, d - 0.2), targets, 1, 4, 20, 75, 0


def beside(s: Scene, x, z, side) -> None:
    """Something that stands by a wall at x, on its side towards the middle."""
    kind, yaw, green = int(s.rng.integers(8)), -side * math.pi / 2, leaf(s)
    if kind == 0:
        with placed(s, x - side * 0.35, z, s.rng.normal() * 0.1):
            bicycle(s)
    elif kind == 1:
        bench(s, x - side * 0.4, z, yaw)
    elif kind == 2:  # bins
        for n in range(int(s.rng.integers(1, 4))):
            m = s.material(PLAIN, palette(s, s.pick(0.3, 0.6, 0.12, None), 0.5))
            s.box(x - side * 0.4, 0, z + n * 0.7, 0.55, 0.95, 0.55, m, s.rng.normal() * 0.1)
            s.box(x - side * 0.43, 0.95, z + n * 0.7, 0.62, 0.07, 0.6, m)
    elif kind == 3:  # a hedge
        k, tall = s.uniform(1, 4), s.uniform(0.5, 1.8)
        s.box(x - side * 0.4, 0, z, 0.6, tall, k, green)
        s.box(x - side * 0.4, 0, z, 0.5, tall - 0.06, k - 0.1, s.material(SPECKLE, palette(s, 0.3, 0.6, 0.2), 9))
    elif kind == 4:
        table(s, x - side * 0.8, z, s.uniform(0.7, 1.4), s.uniform(0.6, 0.9), 0.72, yaw)
        for k in (-1, 1):
            chair(s, x - side * 0.8, z + k * 0.7, math.pi * (k > 0) + s.rng.normal() * 0.3)
    elif kind == 5:
        bush(s, x - side * 0.5, 0, z, s.uniform(0.3, 0.8))
    elif kind == 6:
        plant(s, x - side * 0.4, z)
        bulky(s, x - side * 0.4, 0, z + 0.5)
    else:
        person(s, x - side * 0.6, 0, z)


def yard(s: Scene) -> tuple:
    """A path or street along a house wall, a fence or a hedge, with what stands there."""
    kind, hue = s.pick(TILES, SPECKLE, CLOUDS, BRICKS, PLANKS), s.pick(0.25, 0.1, None)
    stone = s.material(kind, palette(s, hue, 0.2), s.uniform(0.7, 5), 0.0)
    s.put(PLANE, (0, 0, 0), (1, 1, 1), stone, casts=False)
    first, long = len(s.shapes), s.uniform(6, 18)
    for side, x in ((-1, -s.uniform(0.9, 2.5)), (1, s.uniform(1.2, 6))):
        kind, tall = s.rng.random(), s.uniform(2.5, 7)
        if kind < 0.5:
            rough = s.material(s.pick(BRICKS, PLAIN, CLOUDS, PLANKS), palette(s, sat=0.3), s.uniform(1, 5))
            wall = s.pick(rough, facade(s))
            s.box(x + side * 2, 0, long / 2 - 2, 4, tall, long, wall)
            for n in range(int(s.rng.integers(1, 4))):
                wall_piece(s, x, n * 2.4 + s.uniform(0, 1.2), side * math.pi / 2, 2.7)
        elif kind < 0.75:
            tall, m = s.uniform(0.8, 2), palette(s, s.pick(0.08, 0.08, 0.3, None))
            holes = BARS, s.uniform(4, 9), s.uniform(0.6, 0.95)
            boards, post = s.material(PLANKS, m, 4, 0, hole=holes), wood(s)
            s.box(x, 0.05, long / 2 - 2, 0.03, tall, long, boards)
            for n in range(6):
                s.box(x + side * 0.06, 0, n * long / 6 - 1.8, 0.09, tall + 0.05, 0.09, post)
        else:
            for n in range(int(s.rng.integers(1, 4))):
                car(s, x + side * 1.2, 0, n * 5.2 + s.uniform(0, 1), s.pick(0, math.pi))
        for _ in range(int(s.rng.integers(1, 4))):
            if len(s.shapes) < 115:
                beside(s, x, s.uniform(0, long * 0.6), side)
    targets = middles(s, first) + [(x, s.uniform(0, 1), z) for z in (0.5, 2, 4)]
    for _ in range(int(s.rng.integers(0, 4))):
        tree(s, s.uniform(-8, 12), 0, long + s.uniform(0, 15))
    for _ in range(int(s.rng.integers(0, 4))):
        s.pick(bag, bulky, small)(s, s.uniform(-0.8, 0.8), 0, s.uniform(0.3, 3))
    outdoor_light(s)
    return (-0.7, 0.9, 0.6, 1.9, -1.5, long * 0.5), targets, 1.0, s.pick(3, 7), -5, 50


def lookdown(s: Scene) -> tuple:
    """A floor or a table top with things lying on it, from above."""
    w, h, d = s.uniform(2.4, 4.5), s.uniform(2.3, 3.0), s.uniform(2.4, 4.5)
    shell(s, w, h, 0, d)
    x, z, y = s.uniform(-0.2, 0.2) * w, s.uniform(0.4, 0.6) * d, 0.0
    wide, deep = s.uniform(0.6, 1.8), s.uniform(0.6, 1.1)
    if s.chance(0.5):
        y = s.uniform(0.4, 0.78)
        table(s, x, z, wide, deep, y, things=False)
        y += 0.012
        if s.chance(0.5):
            chair(s, x + s.rng.normal() * 0.2, z + deep / 2 + 0.3, math.pi)
    elif s.chance(0.5):
        s.box(x, 0, z, wide * 1.4, 0.012, deep * 1.4, s.pick(cloth(s), anything(s)), s.rng.normal() * 0.3, casts=False)
    for _ in range(int(s.rng.integers(3, 16))):
        thing = s.pick(small, small, small, bag, shoes) if y == 0.0 else small
        thing(s, x + s.uniform(-0.5, 0.5) * wide, y + 0.001, z + s.uniform(-0.5, 0.5) * deep)
    if s.chance(0.2):
        with placed(s, x, z, s.uniform(0, 6.3), y):
            laptop(s)
    targets = [(x + s.rng.normal() * 0.2, y, z + s.rng.normal() * 0.2)]
    if s.chance(0.4):
        piece(s, w, h, d)
    indoor_light(s, w, h, 0.2, d)
    return inside(w, h, d, y + 0.4), targets, 0.6, 2.0, 30, 88


SETTINGS = (
    (office, 0.30), (home, 0.25), (shelves, 0.08), (stairwell, 0.06), (doorway, 0.07), (kitchen, 0.10),
    (bathroom, 0.06), (lounge, 0.13), (bare, 0.10), (yard, 0.10), (lookdown, 0.10),
)  # fmt: skip
