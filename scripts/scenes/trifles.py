"""Things that lie and stand about near a camera: on desks, on floors, in yards."""

from __future__ import annotations

import math
from contextlib import contextmanager

import numpy as np

from scripts.scenes.materials import cloth, wood
from scripts.scenes.raytrace import BALL, BOX, TUBE
from scripts.scenes.stage import (
    GRADIENT,
    PICTURE,
    PLAIN,
    STRIPES,
    TEXT,
    TILES,
    Scene,
    palette,
    turn_any,
    turn_y,
)
from scripts.scenes.things import clutter


@contextmanager
def placed(s: Scene, x, z, yaw=0.0, y=0.0):
    """What is built inside about the origin is turned by `yaw` and carried to x, y, z."""
    first = len(s.shapes)
    yield
    turn = np.array(turn_y(yaw)).T
    for p in s.shapes[first:]:
        p[9:12] = (turn @ p[9:12] + (x, y, z)).tolist()
        p[:9] = (np.reshape(p[:9], (3, 3)) @ turn.T).ravel().tolist()


def inside(w, h, d, low=0.5):
    """Where a camera may be in a room."""
    return -w / 2 + 0.15, w / 2 - 0.15, low, min(h - 0.2, 1.9), 0.15, d - 0.15


def middles(s: Scene, first=0):
    """The middles of the shapes put since `first` that are no walls."""
    return [p[9:12] for p in s.shapes[first:] if p[15] < 1.6 and p[10] < 1.7] or [(0.0, 0.5, 1.5)]


def plain(s: Scene, value=None, sat=0.1):
    """A plain paint, enamel or plastic."""
    return s.material(s.pick(PLAIN, PLAIN, PLAIN, GRADIENT), palette(s, sat=sat, value=value), s.uniform(1, 4))


def screen(s: Scene, w, h, y, lean=0.0) -> None:
    """A flat screen, dark or lit, that faces +z and leans back about its lower edge at height y."""
    lit = s.chance(0.5)
    face = s.material(
        s.pick(PICTURE, TEXT, PLAIN, GRADIENT) if lit else PLAIN, palette(s, value=None if lit else 0.06),
        s.uniform(2, 8), s.uniform(0, 0.5), 0, s.uniform(0.2, 0.8) if lit else 0.0)  # fmt: skip
    c, q = math.cos(lean), math.sin(lean)
    turn = ((1, 0, 0), (0, c, -q), (0, q, c))
    s.put(BOX, (0, y + h / 2 * c, -h / 2 * q), (w / 2, h / 2, 0.012), plain(s, s.pick(0.1, 0.7)), turn)
    s.put(BOX, (0, y + h / 2 * c, 0.005 - h / 2 * q), (w / 2 - 0.015, h / 2 - 0.015, 0.0125), face, turn, casts=False)


def monitor(s: Scene) -> None:
    """A screen on its stand, which faces +z."""
    w, m = s.uniform(0.4, 0.68), plain(s, s.pick(0.1, 0.7))
    s.box(0, 0, -0.05, 0.24, 0.015, 0.18, m)
    s.box(0, 0, -0.06, 0.05, 0.25, 0.03, m)
    if s.chance(0.15):
        s.box(0, 0.1, -0.2, w * 0.8, w * 0.6, 0.35, m)  # an old deep one
    screen(s, w, w * s.uniform(0.55, 0.75), s.uniform(0.07, 0.16), s.uniform(-0.05, 0.2))


def laptop(s: Scene) -> None:
    """An open laptop, which faces +z."""
    w, d, m = s.uniform(0.28, 0.38), s.uniform(0.2, 0.26), plain(s, s.pick(0.1, 0.5, 0.8))
    s.box(0, 0, 0, w, 0.02, d, m)
    s.box(0, 0.02, -d * 0.15, w * 0.88, 0.002, d * 0.5, s.material(TILES, palette(s, sat=0, value=0.1), 50, 0))
    with placed(s, 0, -d / 2):
        screen(s, w, d, 0.02, s.uniform(0.05, 0.7))


def paper(s: Scene, x, y, z) -> None:
    """A sheet, a magazine or a pile of paper."""
    m = s.material(s.pick(TEXT, TEXT, PLAIN, PICTURE), palette(s, sat=s.pick(0.05, 0.4), value=0.95), s.uniform(4, 12))
    s.box(x, y, z, 0.21, s.pick(0.003, 0.003, 0.02, 0.05), 0.297, m, s.uniform(0, 6.3))


def mug(s: Scene, x, y, z) -> None:
    """A mug with its handle."""
    r, m = s.uniform(0.035, 0.045), s.material(PLAIN, spec=0.3)
    s.tube(x, y, z, r, s.uniform(0.08, 0.12), m, s.uniform(0.9, 1.2))
    s.put(TUBE, (x + r, y + 0.05, z), (0.03, 0.006, 0.03), m, ((1, 0, 0), (0, 0, 1), (0, -1, 0)))


def lamp(s: Scene, x, y, z, k=1.0) -> None:
    """A lamp on two arms (k = 1 for a desk)."""
    m, a = s.material(PLAIN, palette(s, sat=0.3), spec=0.3), s.uniform(0, 6.3)
    knee = (x - 0.15 * k * math.sin(a), y + 0.3 * k, z - 0.15 * k * math.cos(a))
    head = (x + 0.15 * k * math.sin(a), y + s.uniform(0.4, 0.55) * k, z + 0.15 * k * math.cos(a))
    s.tube(x, y, z, 0.09 * k, 0.025, m)
    s.rod((x, y, z), knee, 0.008 * k, m)
    s.rod(knee, head, 0.008 * k, m)
    shade = s.material(PLAIN, palette(s, 0.12, 0.3, 1), emission=1.0) if s.chance(0.3) else m
    s.rod((head[0], head[1] - 0.1 * k, head[2]), head, 0.09 * k, shade, 0.4)


def tray(s: Scene, w, h, d, m, rim=0.015) -> None:
    """An open box: a crate, a basin, a tub."""
    s.box(0, 0, 0, w, 0.02, d, m)
    for k in (-1, 1):
        s.box(k * (w - rim) / 2, 0, 0, rim, h, d, m)
        s.box(0, 0, k * (d - rim) / 2, w, h, rim, m)


def small(s: Scene, x, y, z) -> None:
    """A thing as it lies on tables and floors."""
    kind = int(s.rng.integers(8))
    if kind < 2:
        paper(s, x, y, z)
    elif kind == 2:
        mug(s, x, y, z)
    elif kind == 3:
        with placed(s, x, z, s.uniform(0, 6.3), y):
            tray(s, s.uniform(0.15, 0.45), s.uniform(0.04, 0.25), s.uniform(0.15, 0.35), s.pick(plain(s), wood(s)))
    elif kind == 4:  # a pen or a cable
        a, k, r = s.uniform(0, 6.3), s.uniform(0.06, 0.3), s.uniform(0.003, 0.006)
        s.rod((x, y + r, z), (x + k * math.sin(a), y + r, z + k * math.cos(a)), r, s.material(PLAIN))
    else:
        clutter(s, x, y, z, s.uniform(0.06, 0.3))


def bulky(s: Scene, x, y, z) -> None:
    """A larger thing, as it stands on floors."""
    clutter(s, x, y, z, s.uniform(0.2, 0.6))


def bag(s: Scene, x, y, z) -> None:
    """A bag with a strap."""
    m, w, h = cloth(s), s.uniform(0.25, 0.45), s.uniform(0.25, 0.45)
    s.put(BALL, (x, y + h * 0.42, z), (w * 0.6, h * 0.5, 0.13), m, turn_y(s.uniform(0, 6.3)))
    s.tube(x, y, z, w * 0.4, h * 0.7, m, 0.8)
    s.rod((x, y + h * 0.85, z), (x + 0.1, y + h * 1.1, z), 0.012, m)


def shoes(s: Scene, x, y, z) -> None:
    """A pair of shoes."""
    m, sole = s.material(), plain(s)
    for k in (-1, 1):
        with placed(s, x + k * s.uniform(0.06, 0.12), z + s.rng.normal() * 0.04, s.rng.normal() * 0.3, y):
            s.box(0, 0, 0, 0.085, 0.025, 0.27, sole)
            s.ball(0, 0.04, 0.05, 0.042, 0.04, 0.09, m)
            s.ball(0, 0.055, -0.07, 0.042, 0.055, 0.065, m)


def swivel(s: Scene, x, z, yaw) -> None:
    """An office chair on five feet."""
    m, metal, tall = cloth(s), plain(s, s.pick(0.1, 0.6)), s.uniform(0.35, 0.65)
    with placed(s, x, z, yaw):
        s.box(0, 0.43, 0, 0.48, 0.09, 0.46, m)
        s.box(0, 0.58, -0.24, 0.43, tall, 0.07, m)
        s.tube(0, 0.08, 0, 0.03, 0.35, metal)
        s.box(0, 0.4, -0.25, 0.06, 0.4, 0.03, metal)
        arms = s.chance(0.5)
        for k in (-1, 1) if arms else ():
            s.box(k * 0.27, 0.63, 0, 0.05, 0.035, 0.26, metal)
            s.box(k * 0.27, 0.45, 0, 0.03, 0.18, 0.04, metal)
        for n in range(5):
            a = n * 1.257
            s.rod((0, 0.1, 0), (0.3 * math.cos(a), 0.05, 0.3 * math.sin(a)), 0.025, metal)


def folders(s: Scene, w, y, d) -> None:
    """Upright books, folders or packets along x, in groups of one kind, or one long row painted with them."""
    if s.chance(0.3):
        s.box(0, y, 0, w, s.uniform(0.15, 0.28), d * 0.7, s.material(s.pick(STRIPES, PICTURE, TEXT), None, 9))
        return
    a = -w / 2
    while a < w / 2 - 0.06 and len(s.shapes) < 118:
        t, h, m = s.uniform(0.025, 0.1), s.uniform(0.12, 0.3), s.material(s.pick(PLAIN, TEXT), None, 6)
        for _ in range(int(s.rng.integers(1, 5))):
            if a < w / 2 - t:
                s.box(a + t / 2, y, 0, t * 0.92, h * s.uniform(0.97, 1.03), d * s.uniform(0.6, 0.7), m)
                a += t
        a += s.uniform(0.0, 0.25) if s.chance(0.3) else 0.0


def rack(s: Scene, w, h, d) -> None:
    """A bookcase or shop shelf about the origin that faces +z."""
    m, rows = s.pick(wood(s), plain(s)), int(s.rng.integers(3, 7))
    for k in (-1, 1):
        s.box(k * w / 2, 0, 0, 0.03, h, d, m)
    s.box(0, 0, -d / 2, w, h, 0.02, m)
    for n in range(rows + 1):
        s.box(0, n * (h - 0.03) / rows, 0, w, 0.03, d, m)
        if n < rows and s.chance(0.9):
            folders(s, w - 0.06, n * (h - 0.03) / rows + 0.03, d)


def plant(s: Scene, x, z) -> None:
    """A tall plant in a pot: stalks that spread, with flat leaves."""
    h, green = s.uniform(0.5, 1.6), s.material(PLAIN, palette(s, s.pick(0.28, 0.3, 0.33), 0.6, s.uniform(0.2, 0.7)))
    s.tube(x, 0, z, s.uniform(0.1, 0.2), s.uniform(0.2, 0.4), s.material(), 1.25)
    for n in range(int(s.rng.integers(4, 10))):
        a, k = n * 2.4 + s.rng.normal() * 0.3, s.uniform(0.1, 0.35)
        tip = (x + k * math.sin(a), h * s.uniform(0.5, 1) + 0.2, z + k * math.cos(a))
        s.rod((x, 0.25, z), tip, 0.008, green)
        s.put(BALL, tip, (0.06, 0.012, 0.15), green, turn_any(s))


def radiator(s: Scene) -> None:
    """A ribbed radiator with its pipe, at a wall behind it."""
    w, h, m = s.uniform(0.5, 1.4), s.uniform(0.4, 0.7), plain(s, s.pick(0.8, 1.0), 0.03)
    s.box(0, 0.12, 0, w, h, 0.05, m)
    for n in range(int(w / 0.09)):
        s.box((n + 0.5) * 0.09 - w / 2, 0.13, 0.01, 0.045, h - 0.02, 0.07, m)
    s.rod((w / 2, 0.16, 0), (w / 2 + 0.12, 0.16, 0), 0.012, m)
    s.rod((w / 2 + 0.12, 0.16, 0), (w / 2 + 0.12, 0, 0), 0.012, m)


def bicycle(s: Scene) -> None:
    """A bicycle along z: rims of rods, a frame, a saddle and handlebars."""
    paint, dark = s.material(PLAIN, spec=0.4), plain(s, 0.1)
    for b in (-0.52, 0.52):
        rim = [(0, 0.34 + 0.33 * math.sin(n * 0.5236), b + 0.33 * math.cos(n * 0.5236)) for n in range(13)]
        for n in range(12):
            s.rod(rim[n], rim[n + 1], 0.02, dark)
        s.rod(rim[0], rim[6], 0.004, dark)
        s.rod(rim[3], rim[9], 0.004, dark)
    low, seat, head = (0, 0.3, -0.05), (0, 0.85, -0.2), (0, 0.85, 0.38)
    for a, b in ((low, seat), (low, head), (seat, head), (seat, (0, 0.34, -0.52)), (head, (0, 0.34, 0.52))):
        s.rod(a, b, 0.017, paint)
    s.box(0, 0.88, -0.22, 0.14, 0.05, 0.26, dark)
    s.rod((-0.28, 0.98, 0.36), (0.28, 0.98, 0.36), 0.013, dark)
    s.rod(head, (0, 0.98, 0.36), 0.013, dark)


def bench(s: Scene, x, z, yaw) -> None:
    """A slatted bench with a back, which faces +z at no turn."""
    m, w = s.pick(wood(s), plain(s)), s.uniform(1.2, 1.9)
    with placed(s, x, z, yaw):
        for n in range(3):
            s.box(0, 0.42, n * 0.14 - 0.14, w, 0.035, 0.11, m)
            s.box(0, 0.55 + n * 0.13, -0.24, w, 0.1, 0.03, m)
        for k in (-0.42, 0.42):
            s.box(k * w, 0, 0.1, 0.06, 0.42, 0.06, m)
            s.box(k * w, 0, -0.24, 0.06, 0.9, 0.05, m)
