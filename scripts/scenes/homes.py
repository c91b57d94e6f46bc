"""Settings at home: kitchens, bathrooms, living rooms, corners, doors; each returns what `nearby.hold` takes."""

from __future__ import annotations

import math

from scripts.scenes.furniture import bed, cabinet, chair, piece, sofa, table
from scripts.scenes.handheld import dining
from scripts.scenes.light import indoor_light
from scripts.scenes.living import person
from scripts.scenes.materials import anything, cloth, wall_paint, wood
from scripts.scenes.raytrace import TUBE
from scripts.scenes.stage import (
    CHECKS,
    GRADIENT,
    PICTURE,
    PLAIN,
    STRIPES,
    TILES,
    Scene,
    palette,
)
from scripts.scenes.things import clutter
from scripts.scenes.trifles import (
    bag,
    bulky,
    inside,
    lamp,
    middles,
    placed,
    plain,
    plant,
    radiator,
    screen,
    shoes,
    small,
    tray,
)
from scripts.scenes.walls import shell


def worktop(s: Scene, w) -> None:
    """A kitchen run about the origin facing +z: cupboards, a sunk basin, a stove, things, perhaps a hood."""
    top, steel = s.pick(anything(s), wood(s), plain(s)), s.material(PLAIN, palette(s, sat=0.03), 3, 0.5, 0)
    cabinet(s, 0, 0, w, 0.74, 0.58, 0.0)
    bw, bd = s.uniform(0.35, 0.7), s.uniform(0.34, 0.42)
    at = s.uniform(-0.5, 0.5) * (w - bw - 0.2)
    left, right = at - bw / 2 + w / 2, w / 2 - at - bw / 2
    s.box(left / 2 - w / 2, 0.74, 0, left, 0.15, 0.62, top)
    s.box(w / 2 - right / 2, 0.74, 0, right, 0.15, 0.62, top)
    for k in (-1, 1):
        s.box(at, 0.74, k * (0.31 + bd / 2) / 2, bw, 0.15, 0.31 - bd / 2, top)
    with placed(s, at, 0, 0.0, 0.745):
        tray(s, bw, 0.148, bd, steel)
    s.rod((at, 0.88, -0.25), (at, 1.15, -0.25), 0.014, steel)
    s.rod((at, 1.15, -0.25), (at, 1.1, -0.06), 0.012, steel)
    wide, far = max(left, right), 0.5 * (w - max(left, right)) * (1 if right > left else -1)
    if wide > 0.75 and s.chance(0.7):
        s.box(far, 0.89, 0, 0.58, 0.008, 0.5, plain(s, 0.08))
        for n in range(4):
            s.tube(far + (n % 2 - 0.5) * 0.28, 0.89, (n // 2 - 0.5) * 0.24, 0.09, 0.02, plain(s, 0.15))
        s.box(far, 0.12, 0.3, 0.56, 0.6, 0.04, plain(s, s.pick(0.1, 0.8)))
        s.rod((far - 0.24, 0.66, 0.36), (far + 0.24, 0.66, 0.36), 0.012, steel)
        if s.chance(0.6):
            s.tube(far + 0.14, 0.9, -0.12, 0.11, s.uniform(0.08, 0.18), steel)
        if s.chance(0.6):
            s.box(far, 1.55, -0.1, 0.6, s.uniform(0.1, 0.4), 0.45, plain(s))
    for _ in range(int(s.rng.integers(2, 8))):
        u = s.uniform(-0.48, 0.48) * w
        if abs(u - at) > bw / 2 + 0.08:
            small(s, u, 0.895, s.uniform(-0.25, 0.2))
    if s.chance(0.5):
        wall = s.material(s.pick(TILES, CHECKS, PLAIN), None, s.uniform(5, 12))
        s.box(0, 0.89, -0.3, w, s.uniform(0.3, 0.6), 0.02, wall)
    if s.chance(0.5):
        cabinet(s, -far * 0.5, -0.13, w * s.uniform(0.3, 0.5), 0.7, 0.33, 0.0, 1.42)


def kitchen(s: Scene) -> tuple:
    """Worktops along one or two walls, a fridge, perhaps a table."""
    w, h, d = s.uniform(1.9, 4), s.uniform(2.3, 2.8), s.uniform(2.2, 4.5)
    shell(s, w, h, 0, d)
    first, k, run = len(s.shapes), s.pick(-1, 1), s.uniform(1.4, 2.6)
    with placed(s, 0, d - 0.34, math.pi):
        if s.chance(0.6):
            worktop(s, min(run, w - 0.05))
        else:
            cabinet(s, 0, 0, w - 0.7, 0.88, 0.6, 0.0)
    with placed(s, k * (w / 2 - 0.34), max(0.75, d - 1.4), -k * math.pi / 2):
        if len(s.shapes) < first + 15 or s.chance(0.3):
            worktop(s, 1.5)
        else:
            cabinet(s, 0, 0, 1.4, 0.88, 0.6, 0.0)
    if s.chance(0.6):
        m, tall = plain(s, s.pick(0.3, 0.9)), s.uniform(0.85, 1.9)
        with placed(s, -k * (w / 2 - 0.34), d - s.uniform(0.4, 1.4), k * math.pi / 2):
            s.box(0, 0, 0, 0.6, tall, 0.62, m)
            s.box(0, 0.03, 0.32, 0.59, tall * 0.6, 0.05, m)
            s.box(0, tall * 0.62 + 0.03, 0.32, 0.59, tall * 0.36, 0.05, m)
            s.rod((0.24, tall * 0.4, 0.37), (0.24, tall * 0.6, 0.37), 0.012, plain(s))
    targets = middles(s, first)
    if w > 2.8 and d > 3 and s.chance(0.5) and len(s.shapes) < 100:
        dining(s, 0, d * 0.4)
    indoor_light(s, w, h, 0.2, d)
    return inside(w, h, d, 0.95), targets, 0.7, s.pick(1.8, 4.5), 0, 55


def bathroom(s: Scene) -> tuple:
    """Tiled walls, a tub or shower, a basin, a bowl, towels."""
    w, h, d = s.uniform(1.5, 2.8), s.uniform(2.2, 2.7), s.uniform(1.7, 3.2)
    shell(s, w, h, 0, d)
    first, k, white = len(s.shapes), s.pick(-1, 1), s.material(PLAIN, palette(s, sat=0.03, value=0.95), 2, 0.4, 0)
    tiles, high = s.material(s.pick(TILES, TILES, CHECKS), None, s.uniform(3, 12), 0.3), s.uniform(1.1, h)
    for x, z, a, b in ((-w / 2, d / 2, 0.03, d), (w / 2, d / 2, 0.03, d), (0, d, w, 0.03)):
        s.box(x, 0, z, a, high, b, tiles, casts=False)
    steel = s.material(PLAIN, palette(s, sat=0.02, value=0.7), 3, 0.6, 0)
    if s.chance(0.6):  # a tub
        with placed(s, 0, d - 0.38):
            tray(s, min(w - 0.04, 1.7), 0.55, 0.7, white, 0.06)
            s.rod((-0.6 * k, 0.7, 0.3), (-0.6 * k, 0.7, 0.15), 0.02, steel)
            s.rod((-0.6 * k, 1.9, 0.25), (-0.6 * k, 0.7, 0.32), 0.01, steel)
    else:  # a shower behind a curtain or a wall
        s.box(k * (w / 2 - 0.42), 0, d - 0.44, 0.85, 0.12, 0.85, white)
        m = s.material(s.pick(STRIPES, PLAIN, PICTURE), None, s.uniform(3, 12))
        s.box(k * (w / 2 - 0.85), 0.1, d - s.uniform(0.3, 0.6), 0.03, s.uniform(1.6, 1.95), s.uniform(0.5, 0.9), m)
        s.rod((k * (w / 2 - 0.4), 1.2, d - 0.05), (k * (w / 2 - 0.4), 2.0, d - 0.1), 0.012, steel)
    with placed(s, -k * (w / 2 - 0.26), s.uniform(0.5, max(0.6, d - 1.2)), k * math.pi / 2):
        bw, y = s.uniform(0.45, 0.65), s.uniform(0.72, 0.82)
        if s.chance(0.5):
            s.tube(0, 0, -0.05, 0.09, y, white)
        else:
            cabinet(s, 0, 0, bw + 0.1, y, 0.44, 0.0)
        with placed(s, 0, 0, 0.0, y):
            tray(s, bw, s.uniform(0.1, 0.16), 0.44, white, 0.03)
        s.rod((0, y + 0.1, -0.18), (0, y + 0.28, -0.18), 0.014, steel)
        s.rod((0, y + 0.28, -0.18), (0, y + 0.25, -0.06), 0.012, steel)
        glass = s.material(GRADIENT, palette(s, sat=0.1), 1, 0.6)
        s.box(0, 1.2, -0.22, s.uniform(0.4, 0.7), s.uniform(0.5, 0.8), 0.04, glass)
    with placed(s, k * (w / 2 - 0.36), s.uniform(0.5, max(0.6, d - 1.3)), -k * math.pi / 2):
        s.tube(0, 0, 0.05, 0.13, 0.36, white, 1.3)
        s.put(TUBE, (0, 0.39, 0.08), (0.19, 0.02, 0.25), white)
        s.box(0, 0.36, -0.23, 0.38, 0.38, 0.17, white)
    for _ in range(int(s.rng.integers(0, 4))):
        z, y, x = s.uniform(0.3, d - 0.8), s.uniform(0.6, 1.2), s.pick(-1, 1)
        s.box(x * (w / 2 - 0.06), y, z, 0.05, s.uniform(0.4, 0.8), s.uniform(0.3, 0.5), cloth(s))
        small(s, s.uniform(-0.3, 0.3) * w, 0, z)
    indoor_light(s, w, h, 0.2, d)
    return inside(w, h, d, 0.9), middles(s, first + 3), 0.7, 3, 5, 60


def lounge(s: Scene) -> tuple:
    """A sofa or two about a low table, a television, plants; or a bed."""
    w, h, d = s.uniform(2.8, 5.5), s.uniform(2.3, 3.0), s.uniform(3, 6)
    shell(s, w, h, 0, d)
    first, k, asleep = len(s.shapes), s.pick(-1, 1), s.chance(0.35)
    if s.chance(0.5):
        s.box(0, 0, d - 1.5, s.uniform(1.2, 2.2), 0.02, s.uniform(1, 2), s.pick(anything(s), cloth(s)), casts=False)
    if asleep:
        x = s.uniform(-0.25, 0.25) * w
        bed(s, x, d - 1.08, math.pi)
        for _ in range(int(s.rng.integers(1, 3))):
            size = s.uniform(0.4, 0.9), s.uniform(0.05, 0.15), s.uniform(0.3, 0.7)
            s.box(x + s.uniform(-0.3, 0.3), s.uniform(0.4, 0.58), d - 1.5, *size, cloth(s), s.rng.normal() * 0.4)
        for side in (-1, 1):
            cabinet(s, x + side * s.uniform(1.2, 1.3), d - 0.22, 0.42, s.uniform(0.4, 0.6), 0.38, math.pi)
            clutter(s, x + side * 1.25, 0.6, d - 0.22, s.uniform(0.2, 0.45))
    else:
        sofa(s, s.uniform(-0.15, 0.15) * w, d - 0.47, s.uniform(1.5, 2.4), math.pi)
        size = s.uniform(0.7, 1.2), s.uniform(0.45, 0.7), s.uniform(0.3, 0.5)
        table(s, s.rng.normal() * 0.2, d - s.uniform(1.5, 1.9), *size)
        if s.chance(0.7):
            sofa(s, k * (w / 2 - 0.6), d - s.uniform(1.8, 2.4), s.uniform(0.8, 1.7), -k * s.uniform(1.2, 1.9))
    with placed(s, -k * (w / 2 - 0.24), d * s.uniform(0.3, 0.5), k * math.pi / 2):
        y, wide = s.uniform(0.35, 0.95), s.uniform(0.9, 1.8)
        cabinet(s, 0, 0, wide, y, 0.42, 0.0)
        if s.chance(0.7):
            s.box(0, y, -0.05, 0.5, 0.02, 0.2, plain(s, 0.1))
            screen(s, s.uniform(0.7, 1.2), s.uniform(0.45, 0.65), y + 0.05)
        for _ in range(int(s.rng.integers(0, 4))):
            clutter(s, s.uniform(-0.45, 0.45) * wide, y, 0.08, s.uniform(0.1, 0.3))
    for _ in range(int(s.rng.integers(0, 3))):
        plant(s, s.pick(-1, 1) * (w / 2 - 0.35), s.uniform(0.5, d - 0.4))
    if s.chance(0.4):
        lamp(s, s.pick(-1, 1) * (w / 2 - 0.4), 0, d - 0.4, s.uniform(2, 3))
    if s.chance(0.1):
        person(s, k * 0.5, 0, d - 0.75, seated=True, yaw=math.pi)
    targets = middles(s, first)
    if s.chance(0.4) and len(s.shapes) < 120:
        piece(s, w, h, d)
    indoor_light(s, w, h, 0.2, d)
    return inside(w, h, d, 0.7), targets, 0.9, s.pick(2, 4, 6), -5, 45


def bare(s: Scene) -> tuple:
    """Walls, corners and floor with little in them."""
    w, h, d = s.uniform(2, 5), s.uniform(2.2, 3.0), s.uniform(2, 5)
    shell(s, w, h, 0, d)
    walls = [(0, d, math.pi, w), (-w / 2, d / 2, math.pi / 2, d), (w / 2, d / 2, -math.pi / 2, d), (0, 0, 0.0, w)]
    targets = [(k * w / 2, s.uniform(0, 1.2), z) for k in (-1, 1) for z in (0, d)]
    for x, z, yaw, long in walls:
        with placed(s, x, z, yaw):
            a = s.uniform(-0.3, 0.3) * long
            targets.append((x + a * math.cos(yaw), s.uniform(0, 1.6), z - a * math.sin(yaw)))
            if s.chance(0.3):
                with placed(s, a, 0.06):
                    radiator(s)
            for _ in range(int(s.rng.integers(0, 3))):  # sockets, switches
                b, y = s.uniform(-0.4, 0.4) * long, s.pick(0.3, 0.3, 1.05)
                s.box(b, y, 0, s.pick(0.08, 0.16), 0.08, 0.03, plain(s, 1))
            if s.chance(0.5):
                s.box(0, 0, 0, long, s.uniform(0.05, 0.12), 0.035, s.pick(wood(s), plain(s)))
            if s.chance(0.2):  # a curtain, in folds
                m, b = cloth(s), s.uniform(-0.3, 0.3) * long
                for n in range(int(s.rng.integers(4, 12))):
                    s.tube(b + n * 0.09, 0.03, 0.07, 0.055, h - 0.2, m)
    for _ in range(int(s.rng.integers(0, 4))):
        x, z = s.pick(-1, 1) * (w / 2 - 0.35), s.uniform(0.4, d - 0.4)
        s.pick(bag, shoes, bulky, small)(s, x, 0, z)
    if s.chance(0.25):
        s.pick(plant, lambda s, x, z: chair(s, x, z, s.uniform(0, 6.3)))(s, s.pick(-1, 1) * (w / 2 - 0.4), d - 0.4)
    indoor_light(s, w, h, 0.2, d)
    return inside(w, h, d, 0.6), targets, 0.8, s.pick(1.8, 4), -10, 60


def doorway(s: Scene) -> tuple:
    """A door that stands open to a further room."""
    w, h, z = s.uniform(1.3, 4.5), s.uniform(2.3, 2.9), s.uniform(1.6, 3.5)
    d, gap, top, t = z + s.uniform(1.5, 4.5), s.uniform(0.75, 1.05), s.uniform(1.98, 2.15), s.uniform(0.08, 0.25)
    shell(s, w, h, 0, d)
    a, paint, frame = s.uniform(-0.5, 0.5) * (w - gap - 0.2), wall_paint(s), s.pick(wood(s), plain(s))
    left, right = a - gap / 2 + w / 2, w / 2 - a - gap / 2
    s.box(-w / 2 + left / 2, 0, z, left, h, t, paint, casts=False)
    s.box(w / 2 - right / 2, 0, z, right, h, t, paint, casts=False)
    s.box(a, top, z, gap, h - top, t, paint, casts=False)
    for k in (-1, 1):
        s.box(a + k * gap / 2, 0, z, 0.09, top + 0.05, t + 0.04, frame, casts=False)
    s.box(a, top, z, gap, 0.07, t + 0.04, frame, casts=False)
    hinge, inward = s.pick(-1, 1), s.pick(-1, 1)
    if s.chance(0.75):
        with placed(s, a + hinge * gap / 2, z + inward * t / 2, hinge * inward * s.uniform(0.5, 1.8)):
            s.box(-hinge * gap / 2, 0, 0, gap - 0.06, top - 0.02, 0.045, s.pick(wood(s), plain(s), frame))
            s.rod((-hinge * (gap - 0.1), 1.02, 0.06), (-hinge * (gap - 0.22), 1.02, 0.06), 0.012, plain(s))
    with placed(s, 0, z):
        for _ in range(int(s.rng.integers(1, 6))):
            piece(s, w, h, d - z)
    k = s.pick(-1, 1)
    if w > 2 and s.chance(0.5):
        cabinet(s, k * (w / 2 - 0.2), s.uniform(0.5, z - 0.6), 0.8, s.uniform(0.6, 2), 0.36, -k * math.pi / 2)
    for _ in range(int(s.rng.integers(0, 3))):
        s.pick(bag, shoes, bulky)(s, s.uniform(-0.4, 0.4) * w, 0, s.uniform(0.5, z - 0.3))
    indoor_light(s, w, h, 0.2, z)
    indoor_light(s, w, h, z, d)
    space = -w / 2 + 0.15, w / 2 - 0.15, 0.7, 1.8, 0.15, z - 0.3
    return space, [(a, s.uniform(0.2, 1.5), z)], 0.8, 3.5, -10, 35, math.pi
