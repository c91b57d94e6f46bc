"""Light for rooms and for the open air."""

from __future__ import annotations

import math

from scripts.scenes.stage import Scene, hsv, palette


def indoor_light(s: Scene, w, h, z0, z1) -> None:
    warm = s.uniform(0.0, 0.5)
    for _ in range(int(s.rng.integers(1, 3))):
        strength = s.uniform(0.5, 1.6)
        colour = (strength, strength * (1 - 0.3 * warm), strength * (1 - 0.7 * warm))
        s.lights.append(
            [
                1,
                s.uniform(-w / 2, w / 2) * 0.9,
                h * s.uniform(0.6, 0.97),
                s.uniform(z0, z1),
                *colour,
                s.uniform(1.5, 6),
            ]
        )
    level = s.uniform(0.15, 0.6)
    tint = [level * s.uniform(0.8, 1.2) for _ in range(3)]
    s.air[16:19] = tint
    s.air[19:22] = [t * s.uniform(0.5, 0.9) for t in tint]
    s.air[22] = s.uniform(0.4, 1.0)
    s.air[4:7], s.air[7:10] = hsv(0.58, 0.2, 1), hsv(0.58, 0.5, 0.9)
    s.air[14] = 1.0


def outdoor_light(s: Scene, haze=None) -> None:
    """Sun or no sun, a sky, and haze in the colour of its horizon."""
    mood = s.rng.random()
    height = s.uniform(0.12, 1.2)
    angle = s.uniform(0, 6.3)
    sun = (math.cos(height) * math.sin(angle), math.sin(height), math.cos(height) * math.cos(angle))
    if mood < 0.45:  # clear or broken clouds
        horizon, zenith = (
            hsv(0.57, s.uniform(0.05, 0.4), s.uniform(0.8, 1)),
            hsv(s.uniform(0.54, 0.63), s.uniform(0.3, 0.9), s.uniform(0.5, 1)),
        )
        light, ambient, clouds = s.uniform(0.8, 1.8), s.uniform(0.25, 0.6), s.uniform(0, 1) if s.chance(0.6) else 0.0
    elif mood < 0.75:  # overcast
        g = s.uniform(0.5, 1)
        horizon, zenith = hsv(0.6, s.uniform(0, 0.12), g), hsv(0.6, s.uniform(0, 0.2), g * s.uniform(0.7, 1.05))
        light, ambient, clouds = s.uniform(0, 0.25), s.uniform(0.5, 0.9), s.uniform(0, 1) if s.chance(0.6) else 0.0
    elif mood < 0.88:  # low sun
        horizon, zenith = (
            hsv(s.uniform(0.0, 0.13), s.uniform(0.3, 0.8), 1),
            hsv(s.uniform(0.55, 0.75), s.uniform(0.1, 0.6), s.uniform(0.3, 0.8)),
        )
        light, ambient, clouds = s.uniform(0.3, 1.2), s.uniform(0.15, 0.4), s.uniform(0, 1)
    elif mood < 0.95:  # night
        horizon, zenith = hsv(0.65, 0.5, s.uniform(0.02, 0.3)), hsv(0.66, 0.6, s.uniform(0.01, 0.12))
        light, ambient, clouds = s.uniform(0, 0.2), s.uniform(0.05, 0.2), 0.0
        s.lights.append([1, s.uniform(-6, 6), s.uniform(3, 7), s.uniform(3, 25), 1.0, 0.8, 0.5, s.uniform(2, 8)])
    else:  # any colour at all
        horizon, zenith = palette(s)[0], palette(s)[0]
        light, ambient, clouds = s.uniform(0.2, 1.2), s.uniform(0.2, 0.6), s.uniform(0, 1)
    warm = s.uniform(0, 0.35)
    if light > 0.02:
        s.lights.append([0, *sun, light, light * (1 - 0.3 * warm), light * (1 - 0.8 * warm), 1])
    white = s.uniform(0.5, 1.1) * max(horizon)
    density = haze if haze is not None else (math.exp(s.uniform(-6.5, -3)) if s.chance(0.6) else 0.0)
    s.air[0:3], s.air[3], s.air[4:7], s.air[7:10] = horizon, density, horizon, zenith
    s.air[10:13] = white, white, white * s.uniform(0.9, 1.05)
    s.air[13:16] = clouds, s.uniform(0.5, 2.5), float(s.rng.integers(1000))
    s.air[16:19] = [ambient * (0.7 + 0.3 * z / max(max(zenith), 1e-3)) for z in zenith]
    s.air[19:22] = [ambient * s.uniform(0.3, 0.6) for _ in range(3)]
    s.air[22] = s.uniform(0.4, 1)
