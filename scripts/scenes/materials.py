"""Ready mixtures of colour and texture."""

from __future__ import annotations

import math

from scripts.scenes.stage import (
    BRICKS,
    CHECKS,
    CLOUDS,
    FACADE,
    GRADIENT,
    LEAVES,
    MARBLE,
    PICTURE,
    PLAIN,
    PLANKS,
    SPECKLE,
    SPOTS,
    STRIPES,
    TILES,
    Scene,
    hsv,
    palette,
)


def wood(s: Scene):
    return s.material(PLANKS, palette(s, 0.075, 0.55, s.uniform(0.25, 0.9), 0.03), s.uniform(3, 9))


def cloth(s: Scene, scale=None):
    texture = s.pick(PLAIN, PLAIN, CLOUDS, STRIPES, CHECKS, SPOTS, SPECKLE)
    return s.material(texture, palette(s), scale or s.uniform(3, 20), spec=0.0)


def skin(s: Scene):
    return s.material(PLAIN, palette(s, 0.065, 0.45, s.uniform(0.3, 0.95), 0.02), 3, spec=s.uniform(0, 0.1))


def leaf(s: Scene):
    hue = s.pick(0.25, 0.27, 0.3, 0.22, 0.12, 0.05)
    hole = (LEAVES, s.uniform(4, 16), s.uniform(0.45, 0.75)) if s.chance(0.8) else (0, 1, 0)
    return s.material(SPECKLE, palette(s, hue, 0.6, s.uniform(0.2, 0.7)), s.uniform(1, 5), 0.0, 0.8, hole=hole)


def anything(s: Scene, scale=1.0):
    """Any texture at all: depth must not be guessed from it."""
    return s.material(int(s.rng.integers(15)), palette(s), scale * math.exp(s.uniform(-1.5, 2.2)))


def wall_paint(s: Scene):
    if s.chance(0.6):
        return s.material(
            s.pick(PLAIN, PLAIN, CLOUDS),
            palette(s, value=s.uniform(0.5, 1.0), sat=s.rng.random() ** 3 * 0.8, spread=0.02),
            s.uniform(0.3, 3),
            0.0,
        )
    texture = s.pick(BRICKS, STRIPES, TILES, PLANKS, SPOTS, CHECKS, MARBLE, GRADIENT, PICTURE)
    return s.material(texture, palette(s), s.uniform(0.8, 6))


def flooring(s: Scene):
    texture = s.pick(
        PLANKS,
        PLANKS,
        TILES,
        CHECKS,
        SPECKLE,
        SPECKLE,
        PLAIN,
        PLAIN,
        CLOUDS,
        MARBLE,
        PICTURE if s.chance(0.4) else PLANKS,
    )
    hue = s.pick(0.07, 0.08, 0.1, None)
    return s.material(
        texture,
        palette(s, hue, None if hue is None else 0.4),
        s.uniform(0.8, 6),
        spec=s.uniform(0, 0.5) if s.chance(0.4) else 0.0,
    )


def facade(s: Scene):
    if s.chance(0.7):
        colours = palette(s, s.pick(0.05, 0.08, 0.1, 0.6), s.uniform(0, 0.5), s.uniform(0.3, 1))
        return s.material(
            FACADE, (colours[0], colours[1], hsv(0.58, 0.3, s.uniform(0.05, 0.6))), s.uniform(0.25, 0.6), spec=0.0
        )
    return s.material(s.pick(BRICKS, PLANKS, PLAIN, TILES, CLOUDS), palette(s, sat=0.3), s.uniform(0.5, 3))
