"""Noise, terrain, solid textures and sky: what is seen at a point or in a direction (numba)."""

from __future__ import annotations

import math

from numba import njit

OPTIONS = {"cache": True, "fastmath": True, "nogil": True, "error_model": "numpy"}
compiled = njit(**OPTIONS)
joined = njit(inline="always", **OPTIONS)  # large functions, which LLVM would call at every pixel


@compiled
def floor(x):
    """The whole number below; `math.floor` is none on a GPU."""
    return int(math.floor(x))  # noqa: RUF046


@compiled
def hashed(x, y, z, seed):
    """Integers to a float in 0..1 that looks random."""
    h = (x * 0x8DA6B343 + y * 0xD8163841 + z * 0xCB1AB31F + seed * 0x9E3779B1) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    h = ((h ^ (h >> 12)) * 0x297A2D39) & 0xFFFFFFFF
    return (h ^ (h >> 15)) * 2.3283064e-10


@compiled
def noise(x, y, z, seed):
    """Smooth value noise in 0..1 with one feature per unit."""
    i, j, k = floor(x), floor(y), floor(z)
    u, v, w = x - i, y - j, z - k
    u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
    a = hashed(i, j, k, seed) * (1 - u) + hashed(i + 1, j, k, seed) * u
    b = hashed(i, j + 1, k, seed) * (1 - u) + hashed(i + 1, j + 1, k, seed) * u
    c = hashed(i, j, k + 1, seed) * (1 - u) + hashed(i + 1, j, k + 1, seed) * u
    d = hashed(i, j + 1, k + 1, seed) * (1 - u) + hashed(i + 1, j + 1, k + 1, seed) * u
    return (a * (1 - v) + b * v) * (1 - w) + (c * (1 - v) + d * v) * w


@compiled
def flat_noise(x, y, seed):
    i, j = floor(x), floor(y)
    u, v = x - i, y - j
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    a = hashed(i, j, 0, seed) * (1 - u) + hashed(i + 1, j, 0, seed) * u
    b = hashed(i, j + 1, 0, seed) * (1 - u) + hashed(i + 1, j + 1, 0, seed) * u
    return a * (1 - v) + b * v


@compiled
def fractal(x, y, z, seed):
    return (
        0.53 * noise(x, y, z, seed)
        + 0.29 * noise(2.1 * x, 2.1 * y, 2.1 * z, seed + 1)
        + 0.18 * noise(4.3 * x, 4.3 * y, 4.3 * z, seed + 2)
    )


@compiled
def height_at(x, z, ground):
    """Terrain height in metres above y = 0; nearly flat around the camera, so that it stays above ground."""
    seed = int(ground[3])
    r = math.sqrt(x * x + z * z)
    s = ground[1]
    h = ground[0] * (
        flat_noise(x / s, z / s, seed) * 0.7 + flat_noise(x / s * 2.7, z / s * 2.7, seed + 1) * 0.3 - 0.5
    )
    h *= min(1.0, r / ground[4])
    if ground[2] > 0 and r > 60.0:
        far = min(1.0, (r - 60.0) / 300.0)
        h += (
            ground[2]
            * far
            * max(
                0.0,
                flat_noise(x / 210.0, z / 210.0, seed + 2) + 0.25 * flat_noise(x / 57.0, z / 57.0, seed + 3) - 0.45,
            )
        )
    return h


@compiled
def is_hole(m, x, y, z):
    """Whether a cut-out material has a hole at a local point in metres: leaves, lattice, blades."""
    kind, s, seed = int(m[15]), m[16], int(m[18])
    if kind == 1:
        return noise(x * s, y * s, z * s, seed) > m[17]
    if kind == 2:
        u, v = x * s + z * s, y * s
        return (u - floor(u)) > m[17] and (v - floor(v)) > m[17]
    if kind == 3:
        u = hashed(floor((x + z) * s), 0, 0, seed)
        return u < m[17] or y > 0.3 + 1.4 * u - 1.0
    u = x * s + z * s
    return (u - floor(u)) > m[17]


@compiled
def _blend(m, k, out):
    """Colour between A (k = 0) and B (k = 1)."""
    k = min(1.0, max(0.0, k))
    for c in range(3):
        out[c] = m[2 + c] * (1 - k) + m[5 + c] * k


@compiled
def paint(m, x, y, z, u, v, out):
    """Texture colour at a local point in metres; (u, v) are the coordinates in the face's plane."""
    kind, s, seed = int(m[0]), m[1], int(m[18])
    u, v = u * s, v * s
    grain = fractal(x * s * 1.7, y * s * 1.7, z * s * 1.7, seed)
    if kind == 0:  # plain
        _blend(m, 0.25 * grain, out)
    elif kind == 1:  # clouds
        _blend(m, 2.5 * (grain - 0.3), out)
    elif kind == 2:  # checks
        _blend(m, 0.85 * ((floor(u) + floor(v)) & 1) + 0.15 * grain, out)
    elif kind == 3:  # bricks
        row = floor(v * 2.5)
        w = u + 0.5 * (int(row) & 1)
        du, dv = w - floor(w), v * 2.5 - row
        if du < 0.05 or dv < 0.1:
            for c in range(3):
                out[c] = m[8 + c]
        else:
            _blend(m, 0.7 * hashed(floor(w), int(row), 0, seed) + 0.3 * grain, out)
    elif kind == 4:  # planks with grain
        row = floor(v)
        k = 0.5 * hashed(row, floor(u * 0.2 + row * 0.37), 1, seed)
        k += 0.6 * flat_noise(u * 0.5 + row * 7, v * 9, seed) * flat_noise(u * 2, v * 30, seed + 1) + 0.2 * grain
        _blend(m, k if v - row > 0.03 else 1.0, out)
    elif kind == 5:  # stripes
        w = u + 0.3 * m[13] * grain
        k = w - floor(w)
        _blend(m, 1.0 if k < 0.5 else 0.0, out)
        if 0.5 < k < 0.62:
            for c in range(3):
                out[c] = m[8 + c]
    elif kind == 6:  # marble
        _blend(m, 0.5 + 0.5 * math.sin(6.0 * u + 14.0 * grain), out)
    elif kind == 7:  # tiles
        du, dv = u - floor(u), v - floor(v)
        if min(du, dv) < 0.04:
            for c in range(3):
                out[c] = m[8 + c]
        else:
            _blend(m, 0.5 * hashed(floor(u), floor(v), 2, seed) + 0.3 * grain, out)
    elif kind == 8:  # printed lines of text
        row = floor(v * 6)
        word = hashed(floor(u * 9), int(row), 3, seed)
        ink = word > 0.3 and v * 6 - row > 0.4 and hashed(int(row), 5, 0, seed) > 0.2
        _blend(m, 1.0 if ink else 0.0, out)
        if hashed(floor(u), floor(v), 4, seed) > 0.8:
            for c in range(3):
                out[c] = m[8 + c]
    elif kind == 9:  # spots
        i, j = floor(u), floor(v)
        du = u - i - 0.25 - 0.5 * hashed(i, j, 6, seed)
        dv = v - j - 0.25 - 0.5 * hashed(i, j, 7, seed)
        _blend(m, 1.0 if du * du + dv * dv < 0.03 + 0.1 * hashed(i, j, 8, seed) else 0.2 * grain, out)
    elif kind == 10:  # speckle: gravel, leaves, carpet
        _blend(m, noise(x * s * 4, y * s * 4, z * s * 4, seed) * 1.6 - 0.3 + 0.3 * (grain - 0.5), out)
        if noise(x * s * 9, y * s * 9, z * s * 9, seed + 5) > 0.72:
            for c in range(3):
                out[c] = m[8 + c]
    elif kind == 11:  # gradient
        _blend(m, 0.5 + 0.4 * v + 0.2 * grain, out)
    elif kind == 12:  # picture: overlapping patches
        for c in range(3):
            out[c] = m[2 + c]
        for level in range(3):
            f = 0.7 * (1.9**level)
            i, j = floor(u * f), floor(v * f)
            h = hashed(i, j, 10 + level, seed)
            du, dv = u * f - i - 0.5, v * f - j - 0.5
            if h > 0.4 and (h > 0.7 or du * du + dv * dv < 0.2):
                for c in range(3):
                    out[c] = 0.1 + 0.8 * hashed(i, j, 20 + level * 3 + c, seed)
    elif kind == 13:  # facade with windows
        du, dv = u - floor(u), v - floor(v)
        if 0.25 < du < 0.75 and 0.25 < dv < 0.8:
            h = hashed(floor(u), floor(v), 9, seed)
            for c in range(3):
                out[c] = m[8 + c] * (0.5 + h)
        else:
            _blend(m, grain, out)
    elif kind == 14:  # grass, fur: stretched strands
        _blend(m, 1.4 * flat_noise(u * 12, v * 2, seed) - 0.2 + 0.8 * (grain - 0.5), out)
    else:  # road with lane marks: x across, z along
        _blend(m, 0.6 * noise(x * 9, y * 9, z * 9, seed) + 0.5 * grain, out)
        w = abs(x) * s
        along = z * s * 0.5
        if abs(w - 1.0) < 0.03 or (w < 0.03 and along - floor(along) < 0.5):
            for c in range(3):
                out[c] = m[8 + c]


@compiled
def sky(dx, dy, dz, air, out):
    r = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
    up = max(0.0, dy * r)
    k = min(1.0, up**0.6 * 1.3)
    for c in range(3):
        out[c] = air[4 + c] * (1 - k) + air[7 + c] * k
    if air[13] > 0 and dy > 0:
        q = air[14] / (up + 0.08)
        k = fractal(dx * r * q, 3.0, dz * r * q, int(air[15]))
        k = min(1.0, max(0.0, (k - 0.75 + air[13] * 0.6) * 5.0)) * min(1.0, up * 8 + 0.2)
        for c in range(3):
            out[c] = out[c] * (1 - k) + air[10 + c] * k
