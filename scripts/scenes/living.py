"""People, animals and plants as clusters of simple shapes."""

from __future__ import annotations

import math

from scripts.scenes.materials import cloth, leaf, skin
from scripts.scenes.raytrace import BALL, TUBE
from scripts.scenes.stage import (
    BLADES,
    CLOUDS,
    MARBLE,
    PLAIN,
    PLANKS,
    SPECKLE,
    SPOTS,
    STRANDS,
    STRIPES,
    Scene,
    palette,
    turn_y,
)


def person(s: Scene, x, y, z, tall=None, seated=False, yaw=None) -> None:
    """A person-like cluster standing (or seated) at x, z with the feet at height y."""
    tall = tall or s.uniform(1.4, 1.95)
    k = tall / 1.75
    yaw = s.uniform(0, 6.3) if yaw is None else yaw
    c, w = math.cos(yaw), math.sin(yaw)
    top, legs, flesh = cloth(s), cloth(s), skin(s)
    hair = s.material(STRANDS, palette(s, 0.07, 0.5, s.uniform(0.05, 0.7)), 3, 0.0)

    def at(a, b, h):
        return (x + (a * c + b * w) * k, y + h * k, z + (-a * w + b * c) * k)

    hip = 0.5 if seated else 0.88
    stride = s.uniform(-0.25, 0.25)
    for side in (-1, 1):
        if seated:
            s.rod(at(side * 0.1, 0, hip), at(side * 0.12, 0.45, hip), 0.09 * k, legs)
            s.rod(at(side * 0.12, 0.45, hip), at(side * 0.12, 0.45, 0), 0.065 * k, legs)
        else:
            s.rod(at(side * 0.11, side * stride, 0), at(side * 0.09, 0, hip), 0.085 * k, legs)
        elbow = at(side * s.uniform(0.24, 0.4), s.uniform(-0.05, 0.25), hip + s.uniform(0.1, 0.35))
        s.rod(at(side * 0.2, 0, hip + 0.52), elbow, 0.055 * k, top)
        s.rod(
            elbow,
            at(side * s.uniform(0.1, 0.45), s.uniform(0, 0.4), hip + s.uniform(-0.05, 0.4)),
            0.045 * k,
            s.pick(flesh, top),
        )
    fat = s.uniform(0.9, 1.4)
    s.put(BALL, at(0, 0, hip + 0.12), (0.19 * k * fat, 0.22 * k, 0.14 * k * fat), legs, turn_y(yaw))
    s.put(BALL, at(0, 0, hip + 0.36), (0.23 * k * fat, 0.31 * k, 0.14 * k * fat), top, turn_y(yaw))
    s.rod(at(0, 0, hip + 0.55), at(0, 0.02, hip + 0.7), 0.055 * k, flesh)
    s.put(BALL, at(0, 0.02, hip + 0.77), (0.085 * k, 0.125 * k, 0.1 * k), flesh, turn_y(yaw))
    s.put(BALL, at(0, -0.025, hip + 0.81), (0.095 * k, s.uniform(0.1, 0.13) * k, 0.1 * k), hair, turn_y(yaw))


def bust(s: Scene, x, y, z, k=1.0) -> None:
    """Head and shoulders close to the camera; (x, y, z) is the middle of the head."""
    flesh, top = skin(s), cloth(s)
    hair = s.material(STRANDS, palette(s, 0.07, 0.5, s.uniform(0.05, 0.7)), s.uniform(4, 12), 0.1)
    yaw = math.pi + s.uniform(-0.8, 0.8)
    c, w = math.cos(yaw), math.sin(yaw)

    def at(a, b, h):
        return (x + (a * c + b * w) * k, y + h * k, z + (-a * w + b * c) * k)

    turn = turn_y(yaw)
    s.put(BALL, at(0, 0, 0), (0.078 * k, 0.115 * k, 0.095 * k), flesh, turn)
    s.put(BALL, at(0, 0.05, -0.05), (0.055 * k, 0.07 * k, 0.06 * k), flesh, turn)
    s.put(BALL, at(0, 0.1, -0.015), (0.016 * k, 0.03 * k, 0.022 * k), flesh, turn)
    long_hair = s.chance(0.4)
    s.put(BALL, at(0, -0.03, 0.04), (0.09 * k, 0.1 * k, 0.1 * k), hair, turn)
    if long_hair:
        s.put(BALL, at(0, -0.06, -0.1), (0.12 * k, 0.2 * k, 0.07 * k), hair, turn)
    dark = s.material(PLAIN, palette(s, value=0.1), 3)
    for side in (-1, 1):
        s.put(BALL, at(side * 0.035, 0.083, 0.015), (0.016 * k, 0.009 * k, 0.012 * k), dark, turn)
        elbow = at(side * s.uniform(0.22, 0.3), 0.05, -0.75)
        s.rod(at(side * 0.2, 0, -0.3), elbow, 0.07 * k, top)
        s.rod(
            elbow,
            at(side * s.uniform(0.0, 0.35), s.uniform(0, 0.35), s.uniform(-1.2, -0.4)),
            0.05 * k,
            s.pick(flesh, top),
        )
    s.rod(at(0, -0.02, -0.05), at(0, -0.02, -0.22), 0.055 * k, flesh)
    s.put(BALL, at(0, -0.02, -0.33), (0.23 * k, 0.14 * k, 0.12 * k), top, turn)
    s.put(TUBE, at(0, -0.02, -0.85), (0.2 * k, 0.53 * k, 0.12 * k), top, turn, 1.05)


def creature(s: Scene, x, y, z, k=1.0) -> None:
    """The head of an animal or of something stranger, with its neck and body behind; k = 1 is a man's size."""
    texture = s.pick(STRANDS, SPOTS, SPOTS, CLOUDS, SPECKLE, PLANKS, MARBLE, PLAIN)
    fur = s.material(
        texture,
        palette(s, s.pick(0.08, 0.1, 0.06, None), s.uniform(0, 0.6), s.uniform(0.15, 0.95)),
        s.uniform(5, 30) / k,
        0.0,
        s.uniform(0, 0.8),
    )
    pale, dark = s.material(PLAIN, palette(s, 0.09, 0.2, 0.9), 5), s.material(PLAIN, palette(s, value=0.08), 5, 0.5)
    turn = turn_y(math.pi + s.uniform(-0.9, 0.9))

    def at(a, h, b):
        return [(x, y, z)[i] + k * (a * turn[0][i] + h * turn[1][i] + b * turn[2][i]) for i in range(3)]

    w, tall, snout = s.uniform(0.09, 0.14), s.uniform(0.1, 0.16), s.uniform(0.02, 0.14)
    s.put(BALL, at(0, 0, 0), (w * k, tall * k, 0.12 * k), fur, turn)
    s.put(
        BALL,
        at(0, -0.04, 0.07 + snout * 0.5),
        (w * 0.55 * k, 0.06 * k, (0.06 + snout * 0.5) * k),
        s.pick(fur, pale),
        turn,
    )
    s.put(BALL, at(0, -0.02, 0.12 + snout), (0.025 * k, 0.018 * k, 0.018 * k), dark, turn)
    for side in (-1, 1):
        s.put(BALL, at(side * w * 0.5, 0.03, 0.105), (0.018 * k, 0.014 * k, 0.015 * k), dark, turn)
        s.put(
            BALL, at(side * w * 0.85, tall * 0.8, -0.02), (0.045 * k, s.uniform(0.03, 0.1) * k, 0.02 * k), fur, turn
        )
    if s.chance(0.4):
        mane = s.material(STRANDS, palette(s, 0.07, 0.6, s.uniform(0.2, 0.8)), s.uniform(4, 10) / k, 0.0, 0.6)
        s.put(BALL, at(0, -0.02, -0.08), (w * 1.7 * k, tall * 1.6 * k, 0.12 * k), mane, turn)
    s.rod(at(0, -0.05, -0.05), at(0, -0.45, -0.25), s.uniform(0.08, 0.13) * k, fur, 1.4)
    s.put(
        BALL,
        at(s.uniform(-0.1, 0.1), -0.6, -0.4),
        (s.uniform(0.2, 0.32) * k, 0.32 * k, s.uniform(0.3, 0.7) * k),
        s.pick(fur, fur, cloth(s)),
        turn,
    )


def animal(s: Scene, x, y, z, k=1.0, yaw=None) -> None:
    """A four-legged cluster; k = 1 is about 0.8 m high."""
    texture = s.pick(STRANDS, SPOTS, PLAIN, STRIPES, CLOUDS, SPECKLE)
    fur = s.material(texture, palette(s, 0.08, s.uniform(0, 0.6), s.uniform(0.1, 0.95)), s.uniform(6, 25) / k, 0.0)
    yaw = s.uniform(0, 6.3) if yaw is None else yaw
    c, w = math.cos(yaw), math.sin(yaw)
    low = s.uniform(0.2, 0.6) if s.chance(0.3) else 1.0

    def at(a, b, h):
        return (x + (a * c + b * w) * k, y + h * k * low, z + (-a * w + b * c) * k)

    turn = turn_y(yaw)
    s.put(BALL, at(0, 0, 0.62), (0.17 * k, 0.19 * k, 0.5 * k), fur, turn)
    s.put(BALL, at(0, 0.3, 0.64), (0.18 * k, 0.22 * k, 0.22 * k), fur, turn)
    for a in (-0.11, 0.11):
        for b in (-0.35, 0.35):
            s.rod(at(a, b + s.uniform(-0.15, 0.15), 0), at(a, b, 0.6), 0.05 * k, fur, 1.3)
    nod = s.uniform(0.5, 1.05)
    s.rod(at(0, 0.4, 0.68), at(0, 0.62, nod), 0.1 * k, fur)
    s.put(BALL, at(0, 0.68, nod), (0.11 * k, 0.12 * k, 0.14 * k), fur, turn)
    s.put(BALL, at(0, 0.8, nod - 0.04), (0.06 * k, 0.06 * k, 0.1 * k), fur, turn)
    for a in (-0.08, 0.08):
        s.put(BALL, at(a, 0.64, nod + 0.12), (0.04 * k, 0.06 * k, 0.02 * k), fur, turn)
    if s.chance(0.3):  # a mane
        s.put(
            BALL,
            at(0, 0.56, nod),
            (0.2 * k, 0.24 * k, 0.16 * k),
            s.material(STRANDS, palette(s, 0.07, 0.6, 0.4), 6, 0),
            turn,
        )
    s.rod(at(0, -0.48, 0.65), at(s.uniform(-0.2, 0.2), -0.85, s.uniform(0.2, 0.8)), 0.03 * k, fur)


def tree(s: Scene, x, y, z, k=None) -> None:
    k = k or math.exp(s.uniform(0.7, 2.2))
    bark = s.material(s.pick(CLOUDS, STRANDS, SPECKLE), palette(s, 0.08, 0.35, s.uniform(0.2, 0.6)), 3, 0.0, 0.6)
    trunk = k * s.uniform(0.15, 0.5)
    r = k * s.uniform(0.02, 0.05)
    green = leaf(s)
    s.tube(x, y - 0.3, z, r, trunk + 0.3 + k * 0.3, bark, 0.6)
    kind = s.rng.random()
    if kind < 0.25:  # conifer
        for n in range(3):
            h = y + trunk * 0.6 + n * k * 0.25
            s.tube(x, h, z, k * (0.3 - 0.07 * n), k * 0.4, green, 0.05)
    elif kind < 0.37:  # bare
        for _ in range(7):
            h = y + trunk * s.uniform(0.6, 1.3)
            tip = (x + k * s.uniform(-0.4, 0.4), h + k * s.uniform(0.1, 0.5), z + k * s.uniform(-0.4, 0.4))
            s.rod((x, h, z), tip, r * 0.4, bark, 0.3)
    else:
        for _ in range(int(s.rng.integers(2, 6))):
            q = k * s.uniform(0.15, 0.3)
            s.ball(
                x + k * s.uniform(-0.2, 0.2),
                y + trunk + k * s.uniform(0.1, 0.45),
                z + k * s.uniform(-0.2, 0.2),
                q,
                q * s.uniform(0.6, 1),
                q,
                green,
            )


def bush(s: Scene, x, y, z, k) -> None:
    green = leaf(s)
    for _ in range(int(s.rng.integers(1, 4))):
        q = k * s.uniform(0.4, 0.8)
        s.ball(
            x + k * s.uniform(-0.5, 0.5),
            y + q * 0.5,
            z + k * s.uniform(-0.5, 0.5),
            q,
            q * s.uniform(0.5, 1),
            q,
            green,
        )


def tuft(s: Scene, x, y, z, k) -> None:
    """Tall grass: thin upright sheets with gaps."""
    hole = (BLADES, s.uniform(25, 70) / max(k, 0.3), s.uniform(0.3, 0.65))
    green = s.material(STRANDS, palette(s, s.pick(0.14, 0.2, 0.27), 0.5, s.uniform(0.3, 0.8)), 2, 0.0, 0.0, hole=hole)
    for _ in range(2):
        s.box(
            x + s.uniform(-0.3, 0.3),
            y - 0.05,
            z + s.uniform(-0.3, 0.3),
            k * 2.5,
            k * s.uniform(0.4, 0.9),
            0.01,
            green,
            s.uniform(-0.5, 0.5),
            casts=False,
        )


def branches(s: Scene) -> None:
    """Twigs or leaves of a near tree that hang into the upper part of the picture."""
    bark, green = s.material(CLOUDS, palette(s, 0.08, 0.3, 0.25), 4), leaf(s)
    up, side, z = math.tan(s.pitch + 0.3), s.pick(-1, 1), s.uniform(2.5, 6)
    for _ in range(int(s.rng.integers(3, 12))):
        a = (side * z * s.uniform(0.5, 0.7), 1.6 + z * (up + s.uniform(-0.1, 0.3)), z)
        b = (side * z * s.uniform(0.0, 0.4), 1.6 + z * (up + s.uniform(-0.35, 0.2)), z * s.uniform(0.8, 1.2))
        s.rod(a, b, s.uniform(0.01, 0.04), bark, 0.4)
        if s.chance(0.5):
            s.ball(*b, *(s.uniform(0.1, 0.5) for _ in range(3)), green)
