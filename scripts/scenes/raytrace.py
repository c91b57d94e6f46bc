"""A small ray tracer for made-up scenes: shapes, solid textures, lights with shadows, haze and sky (numba).

Camera frame: x right, y up, z forward; rays are scaled so that z = 1, hence the ray parameter *is* the z-depth.
World: y up, metres. Every shape is a unit shape behind an affine map, so one row describes it:

    shape    0-8 world-to-local matrix (rows = axis / half size) | 9-11 centre | 12-14 half sizes | 15 bounding radius
             16 kind | 17 material | 18 taper (top radius / bottom radius) | 19 casts shadows
    material 0 texture | 1 scale (1/m) | 2-10 colours A, B, C | 11 specular | 12 gloss | 13 bump | 14 emission
             15 cut-out kind | 16 cut-out scale | 17 cut-out threshold | 18 seed
    light    0 kind (0 sun, 1 lamp) | 1-3 direction to the sun, or position | 4-6 colour | 7 reach in metres
    air      0-2 haze colour | 3 haze density | 4-6 horizon | 7-9 zenith | 10-12 cloud colour | 13 cloud amount
             14 cloud scale | 15 seed | 16-18 ambient from above | 19-21 ambient from below | 22 contact shade
    ground   0 hill height | 1 hill scale | 2 mountain height | 3 seed | 4 flat radius around the camera
"""

from __future__ import annotations

import math

import numpy as np

from scripts.scenes.texture import compiled, height_at, is_hole

BOX, BALL, TUBE, PLANE, TERRAIN = range(5)
LIGHT, AIR = 8, 23  # numbers in a row
FAR = 2000.0  # metres; nothing is drawn beyond
NEAR = 0.05


@compiled
def _march(o, dx, dy, dz, ground):
    """First crossing of a ray with the terrain, or FAR."""
    t, last = 0.3, 0.0
    while t < 900.0:
        gap = o[1] + dy * t - height_at(o[0] + dx * t, o[2] + dz * t, ground)
        if gap < 0.0:
            low, high = last, t
            for _ in range(6):
                mid = 0.5 * (low + high)
                if o[1] + dy * mid < height_at(o[0] + dx * mid, o[2] + dz * mid, ground):
                    high = mid
                else:
                    low = mid
            return high
        if dy > 0 and o[1] + dy * t > ground[0] + ground[2]:
            return FAR
        last = t
        t += max(0.03 * t + 0.03, 0.45 * gap)
    return FAR


@compiled
def _hit_tube(ox, oy, oz, dx, dy, dz, start, taper):
    """Nearest crossing after `start` of a capped cylinder |y| <= 1 with radius 1 below and `taper` above."""
    best = FAR
    a, b = 0.5 * (1 + taper), 0.5 * (taper - 1)
    qa = dx * dx + dz * dz - b * b * dy * dy
    r = a + b * oy
    qb = ox * dx + oz * dz - b * dy * r
    qc = ox * ox + oz * oz - r * r
    disc = qb * qb - qa * qc
    if disc > 0 and abs(qa) > 1e-12:
        root = math.sqrt(disc)
        for sign in (-1.0, 1.0):
            t = (-qb + sign * root) / qa
            y = oy + t * dy
            if start < t < best and -1 <= y <= 1 and a + b * y >= 0:
                best = t
    if abs(dy) > 1e-9:
        for cap in (-1.0, 1.0):
            t = (cap - oy) / dy
            x, z = ox + t * dx, oz + t * dz
            edge = 1.0 if cap < 0 else taper
            if start < t < best and x * x + z * z <= edge * edge:
                best = t
    return best


@compiled
def _hit(kind, ox, oy, oz, dx, dy, dz, start, taper):
    """Nearest crossing after `start` of a local ray with a unit shape, or FAR."""
    if kind == BOX:
        dx = dx if abs(dx) > 1e-9 else 1e-9
        dy = dy if abs(dy) > 1e-9 else 1e-9
        dz = dz if abs(dz) > 1e-9 else 1e-9
        ax, bx = (-1 - ox) / dx, (1 - ox) / dx
        ay, by = (-1 - oy) / dy, (1 - oy) / dy
        az, bz = (-1 - oz) / dz, (1 - oz) / dz
        enter = max(max(min(ax, bx), min(ay, by)), min(az, bz))
        leave = min(min(max(ax, bx), max(ay, by)), max(az, bz))
        if enter > leave or leave <= start:
            return FAR
        return enter if enter > start else leave
    if kind == BALL:
        qa = dx * dx + dy * dy + dz * dz
        qb = ox * dx + oy * dy + oz * dz
        disc = qb * qb - qa * (ox * ox + oy * oy + oz * oz - 1)
        if disc <= 0:
            return FAR
        root = math.sqrt(disc)
        t = (-qb - root) / qa
        if t <= start:
            t = (-qb + root) / qa
        return t if t > start else FAR
    if kind == TUBE:
        return _hit_tube(ox, oy, oz, dx, dy, dz, start, taper)
    if abs(dy) < 1e-9:
        return FAR
    t = -oy / dy
    return t if t > start else FAR


@compiled
def first(p, m, o, dx, dy, dz, start):
    """Nearest crossing of a world ray with one shape, holes taken out; FAR when it misses."""
    ax, ay, az = o[0] - p[9], o[1] - p[10], o[2] - p[11]
    ox, oy, oz = (
        p[0] * ax + p[1] * ay + p[2] * az,
        p[3] * ax + p[4] * ay + p[5] * az,
        p[6] * ax + p[7] * ay + p[8] * az,
    )
    ex, ey, ez = (
        p[0] * dx + p[1] * dy + p[2] * dz,
        p[3] * dx + p[4] * dy + p[5] * dz,
        p[6] * dx + p[7] * dy + p[8] * dz,
    )
    kind = int(p[16])
    for _ in range(3):
        t = _hit(kind, ox, oy, oz, ex, ey, ez, start, p[18])
        if t >= FAR or m[15] == 0:
            return t
        if not is_hole(m, (ox + t * ex) * p[12], (oy + t * ey) * p[13], (oz + t * ez) * p[14]):
            return t
        start = t * 1.0001 + 1e-4
    return FAR


@compiled
def crossing(p, m, origin, dx, dy, dz, ground):
    """Where a ray from the eye meets one shape first, or FAR."""
    if int(p[16]) == TERRAIN:
        return _march(origin, dx, dy, dz, ground)
    return first(p, m, origin, dx, dy, dz, NEAR)


@compiled
def direction(i, j, height, width, turn, focal):
    """A pixel's ray in the world; the axis passes through the picture's centre."""
    a, b = (j - 0.5 * (width - 1)) / focal, (0.5 * (height - 1) - i) / focal
    return (
        turn[0, 0] * a + turn[0, 1] * b + turn[0, 2],
        turn[1, 0] * a + turn[1, 1] * b + turn[1, 2],
        turn[2, 0] * a + turn[2, 1] * b + turn[2, 2],
    )


@compiled
def window(p, origin, turn, focal, height, width):
    """Columns and rows that a shape can cover: its corners projected, or everything if some lie behind the camera."""
    if int(p[16]) >= PLANE:
        return 0, width, 0, height
    cx, cy = 0.5 * (width - 1), 0.5 * (height - 1)
    left, right, top, bottom = float(width), 0.0, float(height), 0.0
    behind = 0
    wide = max(1.0, p[18]) if int(p[16]) == TUBE else 1.0
    for corner in range(8):
        a = (1.0 if corner & 1 else -1.0) * p[12] * p[12] * wide
        b = (1.0 if corner & 2 else -1.0) * p[13] * p[13]
        c = (1.0 if corner & 4 else -1.0) * p[14] * p[14] * wide
        wx = p[9] - origin[0] + a * p[0] + b * p[3] + c * p[6]
        wy = p[10] - origin[1] + a * p[1] + b * p[4] + c * p[7]
        wz = p[11] - origin[2] + a * p[2] + b * p[5] + c * p[8]
        z = turn[0, 2] * wx + turn[1, 2] * wy + turn[2, 2] * wz
        if z < NEAR:
            behind += 1
            continue
        u = cx + focal * (turn[0, 0] * wx + turn[1, 0] * wy + turn[2, 0] * wz) / z
        v = cy - focal * (turn[0, 1] * wx + turn[1, 1] * wy + turn[2, 1] * wz) / z
        left, right, top, bottom = min(left, u), max(right, u), min(top, v), max(bottom, v)
    if behind == 8:
        return 0, 0, 0, 0
    if behind > 0:
        return 0, width, 0, height
    return max(0, int(left) - 1), min(width, int(right) + 2), max(0, int(top) - 1), min(height, int(bottom) + 2)


@compiled
def trace(shapes, materials, origin, turn, focal, height, width, ground):
    """z-depth in metres (H×W float32, FAR for sky) and shape number per pixel (-1 for sky).

    `turn` is the camera-to-world rotation, `focal` in pixels.
    """
    depth = np.full((height, width), np.float32(FAR))
    owner = np.full((height, width), -1, np.int32)
    cx, cy = 0.5 * (width - 1), 0.5 * (height - 1)
    for n in range(shapes.shape[0]):
        p = shapes[n]
        m = materials[int(p[17])]
        left, right, top, bottom = window(p, origin, turn, focal, height, width)
        hills = int(p[16]) == TERRAIN
        for i in range(top, bottom):
            b = (cy - i) / focal
            for j in range(left, right):
                a = (j - cx) / focal  # `direction` and `crossing` written out: a third faster
                dx = turn[0, 0] * a + turn[0, 1] * b + turn[0, 2]
                dy = turn[1, 0] * a + turn[1, 1] * b + turn[1, 2]
                dz = turn[2, 0] * a + turn[2, 1] * b + turn[2, 2]
                t = _march(origin, dx, dy, dz, ground) if hills else first(p, m, origin, dx, dy, dz, NEAR)
                if t < depth[i, j]:
                    depth[i, j] = t
                    owner[i, j] = n
    return depth, owner
