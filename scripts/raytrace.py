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
from numba import njit

BOX, BALL, TUBE, PLANE, TERRAIN = range(5)
SHAPE, MATERIAL, LIGHT, AIR, GROUND = 20, 19, 8, 23, 5
FAR = 2000.0  # metres; nothing is drawn beyond
NEAR = 0.05

_jit = njit(cache=True, fastmath=True, nogil=True, error_model="numpy")


@_jit
def _hash(x, y, z, seed):
    """Integers to a float in 0..1 that looks random."""
    h = (x * 0x8DA6B343 + y * 0xD8163841 + z * 0xCB1AB31F + seed * 0x9E3779B1) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    h = ((h ^ (h >> 12)) * 0x297A2D39) & 0xFFFFFFFF
    return (h ^ (h >> 15)) * 2.3283064e-10


@_jit
def _noise(x, y, z, seed):
    """Smooth value noise in 0..1 with one feature per unit."""
    i, j, k = int(math.floor(x)), int(math.floor(y)), int(math.floor(z))
    u, v, w = x - i, y - j, z - k
    u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
    a = _hash(i, j, k, seed) * (1 - u) + _hash(i + 1, j, k, seed) * u
    b = _hash(i, j + 1, k, seed) * (1 - u) + _hash(i + 1, j + 1, k, seed) * u
    c = _hash(i, j, k + 1, seed) * (1 - u) + _hash(i + 1, j, k + 1, seed) * u
    d = _hash(i, j + 1, k + 1, seed) * (1 - u) + _hash(i + 1, j + 1, k + 1, seed) * u
    return (a * (1 - v) + b * v) * (1 - w) + (c * (1 - v) + d * v) * w


@_jit
def _flat_noise(x, y, seed):
    i, j = int(math.floor(x)), int(math.floor(y))
    u, v = x - i, y - j
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    a = _hash(i, j, 0, seed) * (1 - u) + _hash(i + 1, j, 0, seed) * u
    b = _hash(i, j + 1, 0, seed) * (1 - u) + _hash(i + 1, j + 1, 0, seed) * u
    return a * (1 - v) + b * v


@_jit
def _fractal(x, y, z, seed):
    return (
        0.53 * _noise(x, y, z, seed)
        + 0.29 * _noise(2.1 * x, 2.1 * y, 2.1 * z, seed + 1)
        + 0.18 * _noise(4.3 * x, 4.3 * y, 4.3 * z, seed + 2)
    )


@_jit
def height_at(x, z, ground):
    """Terrain height in metres above y = 0; nearly flat around the camera, so that it stays above ground."""
    seed = int(ground[3])
    r = math.sqrt(x * x + z * z)
    s = ground[1]
    h = ground[0] * (_flat_noise(x / s, z / s, seed) * 0.7 + _flat_noise(x / s * 2.7, z / s * 2.7, seed + 1) * 0.3 - 0.5)
    h *= min(1.0, r / ground[4])
    if ground[2] > 0 and r > 60.0:
        far = min(1.0, (r - 60.0) / 300.0)
        h += ground[2] * far * max(0.0, _flat_noise(x / 210.0, z / 210.0, seed + 2) + 0.25 * _flat_noise(x / 57.0, z / 57.0, seed + 3) - 0.45)
    return h


@_jit
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


@_jit
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


@_jit
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


@_jit
def _is_hole(m, x, y, z):
    """Whether a cut-out material has a hole at a local point in metres: leaves, lattice, blades."""
    kind, s, seed = int(m[15]), m[16], int(m[18])
    if kind == 1:
        return _noise(x * s, y * s, z * s, seed) > m[17]
    if kind == 2:
        u, v = x * s + z * s, y * s
        return (u - math.floor(u)) > m[17] and (v - math.floor(v)) > m[17]
    if kind == 3:
        u = _hash(int(math.floor((x + z) * s)), 0, 0, seed)
        return u < m[17] or y > 0.3 + 1.4 * u - 1.0
    u = x * s + z * s
    return (u - math.floor(u)) > m[17]


@_jit
def _first(p, m, o, dx, dy, dz, start):
    """Nearest crossing of a world ray with one shape, holes taken out; FAR when it misses."""
    ax, ay, az = o[0] - p[9], o[1] - p[10], o[2] - p[11]
    ox, oy, oz = p[0] * ax + p[1] * ay + p[2] * az, p[3] * ax + p[4] * ay + p[5] * az, p[6] * ax + p[7] * ay + p[8] * az
    ex, ey, ez = p[0] * dx + p[1] * dy + p[2] * dz, p[3] * dx + p[4] * dy + p[5] * dz, p[6] * dx + p[7] * dy + p[8] * dz
    kind = int(p[16])
    for _ in range(3):
        t = _hit(kind, ox, oy, oz, ex, ey, ez, start, p[18])
        if t >= FAR or m[15] == 0:
            return t
        if not _is_hole(m, (ox + t * ex) * p[12], (oy + t * ey) * p[13], (oz + t * ez) * p[14]):
            return t
        start = t * 1.0001 + 1e-4
    return FAR


@_jit
def _bounds(p, origin, turn, focal, cx, cy, width, height):
    """Columns and rows that a shape can cover: its corners projected, or everything if some lie behind the camera."""
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


@_jit
def trace(shapes, materials, origin, turn, focal, height, width, ground):
    """z-depth in metres (H×W float32, FAR for sky) and shape number per pixel (-1 for sky).

    `turn` is the camera-to-world rotation, `focal` in pixels; the axis passes through the picture's centre.
    """
    depth = np.full((height, width), np.float32(FAR))
    owner = np.full((height, width), -1, np.int32)
    cx, cy = 0.5 * (width - 1), 0.5 * (height - 1)
    for n in range(shapes.shape[0]):
        p = shapes[n]
        m = materials[int(p[17])]
        left, right, top, bottom = 0, width, 0, height
        kind = int(p[16])
        if kind < PLANE:
            left, right, top, bottom = _bounds(p, origin, turn, focal, cx, cy, width, height)
        for i in range(top, bottom):
            b = (cy - i) / focal
            for j in range(left, right):
                a = (j - cx) / focal
                dx = turn[0, 0] * a + turn[0, 1] * b + turn[0, 2]
                dy = turn[1, 0] * a + turn[1, 1] * b + turn[1, 2]
                dz = turn[2, 0] * a + turn[2, 1] * b + turn[2, 2]
                if kind == TERRAIN:
                    t = _march(origin, dx, dy, dz, ground)
                else:
                    t = _first(p, m, origin, dx, dy, dz, NEAR)
                if t < depth[i, j]:
                    depth[i, j] = t
                    owner[i, j] = n
    return depth, owner


@_jit
def _blend(m, k, out):
    """Colour between A (k = 0) and B (k = 1)."""
    k = min(1.0, max(0.0, k))
    for c in range(3):
        out[c] = m[2 + c] * (1 - k) + m[5 + c] * k


@_jit
def _paint(m, x, y, z, u, v, out):
    """Texture colour at a local point in metres; (u, v) are the coordinates in the face's plane."""
    kind, s, seed = int(m[0]), m[1], int(m[18])
    u, v = u * s, v * s
    grain = _fractal(x * s * 1.7, y * s * 1.7, z * s * 1.7, seed)
    if kind == 0:  # plain
        _blend(m, 0.25 * grain, out)
    elif kind == 1:  # clouds
        _blend(m, 2.5 * (grain - 0.3), out)
    elif kind == 2:  # checks
        _blend(m, 0.85 * ((int(math.floor(u)) + int(math.floor(v))) & 1) + 0.15 * grain, out)
    elif kind == 3:  # bricks
        row = math.floor(v * 2.5)
        w = u + 0.5 * (int(row) & 1)
        du, dv = w - math.floor(w), v * 2.5 - row
        if du < 0.05 or dv < 0.1:
            for c in range(3):
                out[c] = m[8 + c]
        else:
            _blend(m, 0.7 * _hash(int(math.floor(w)), int(row), 0, seed) + 0.3 * grain, out)
    elif kind == 4:  # planks with grain
        row = int(math.floor(v))
        k = 0.5 * _hash(row, int(math.floor(u * 0.2 + row * 0.37)), 1, seed)
        k += 0.6 * _flat_noise(u * 0.5 + row * 7, v * 9, seed) * _flat_noise(u * 2, v * 30, seed + 1) + 0.2 * grain
        _blend(m, k if v - row > 0.03 else 1.0, out)
    elif kind == 5:  # stripes
        w = u + 0.3 * m[13] * grain
        k = w - math.floor(w)
        _blend(m, 1.0 if k < 0.5 else 0.0, out)
        if 0.5 < k < 0.62:
            for c in range(3):
                out[c] = m[8 + c]
    elif kind == 6:  # marble
        _blend(m, 0.5 + 0.5 * math.sin(6.0 * u + 14.0 * grain), out)
    elif kind == 7:  # tiles
        du, dv = u - math.floor(u), v - math.floor(v)
        if min(du, dv) < 0.04:
            for c in range(3):
                out[c] = m[8 + c]
        else:
            _blend(m, 0.5 * _hash(int(math.floor(u)), int(math.floor(v)), 2, seed) + 0.3 * grain, out)
    elif kind == 8:  # printed lines of text
        row = math.floor(v * 6)
        word = _hash(int(math.floor(u * 9)), int(row), 3, seed)
        ink = word > 0.3 and v * 6 - row > 0.4 and _hash(int(row), 5, 0, seed) > 0.2
        _blend(m, 1.0 if ink else 0.0, out)
        if _hash(int(math.floor(u)), int(math.floor(v)), 4, seed) > 0.8:
            for c in range(3):
                out[c] = m[8 + c]
    elif kind == 9:  # spots
        i, j = int(math.floor(u)), int(math.floor(v))
        du = u - i - 0.25 - 0.5 * _hash(i, j, 6, seed)
        dv = v - j - 0.25 - 0.5 * _hash(i, j, 7, seed)
        _blend(m, 1.0 if du * du + dv * dv < 0.03 + 0.1 * _hash(i, j, 8, seed) else 0.2 * grain, out)
    elif kind == 10:  # speckle: gravel, leaves, carpet
        _blend(m, _noise(x * s * 4, y * s * 4, z * s * 4, seed) * 1.6 - 0.3 + 0.3 * (grain - 0.5), out)
        if _noise(x * s * 9, y * s * 9, z * s * 9, seed + 5) > 0.72:
            for c in range(3):
                out[c] = m[8 + c]
    elif kind == 11:  # gradient
        _blend(m, 0.5 + 0.4 * v + 0.2 * grain, out)
    elif kind == 12:  # picture: overlapping patches
        for c in range(3):
            out[c] = m[2 + c]
        for level in range(3):
            f = 0.7 * (1.9**level)
            i, j = int(math.floor(u * f)), int(math.floor(v * f))
            h = _hash(i, j, 10 + level, seed)
            du, dv = u * f - i - 0.5, v * f - j - 0.5
            if h > 0.4 and (h > 0.7 or du * du + dv * dv < 0.2):
                for c in range(3):
                    out[c] = 0.1 + 0.8 * _hash(i, j, 20 + level * 3 + c, seed)
    elif kind == 13:  # facade with windows
        du, dv = u - math.floor(u), v - math.floor(v)
        if 0.25 < du < 0.75 and 0.25 < dv < 0.8:
            h = _hash(int(math.floor(u)), int(math.floor(v)), 9, seed)
            for c in range(3):
                out[c] = m[8 + c] * (0.5 + h)
        else:
            _blend(m, grain, out)
    elif kind == 14:  # grass, fur: stretched strands
        _blend(m, 1.4 * _flat_noise(u * 12, v * 2, seed) - 0.2 + 0.8 * (grain - 0.5), out)
    else:  # road with lane marks: x across, z along
        _blend(m, 0.6 * _noise(x * 9, y * 9, z * 9, seed) + 0.5 * grain, out)
        w = abs(x) * s
        along = z * s * 0.5
        if abs(w - 1.0) < 0.03 or (w < 0.03 and along - math.floor(along) < 0.5):
            for c in range(3):
                out[c] = m[8 + c]


@_jit
def _sky(dx, dy, dz, air, out):
    r = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
    up = max(0.0, dy * r)
    k = min(1.0, up**0.6 * 1.3)
    for c in range(3):
        out[c] = air[4 + c] * (1 - k) + air[7 + c] * k
    if air[13] > 0 and dy > 0:
        q = air[14] / (up + 0.08)
        k = _fractal(dx * r * q, 3.0, dz * r * q, int(air[15]))
        k = min(1.0, max(0.0, (k - 0.75 + air[13] * 0.6) * 5.0)) * min(1.0, up * 8 + 0.2)
        for c in range(3):
            out[c] = out[c] * (1 - k) + air[10 + c] * k


@_jit
def _local(p, x, y, z):
    a, b, c = x - p[9], y - p[10], z - p[11]
    return p[0] * a + p[1] * b + p[2] * c, p[3] * a + p[4] * b + p[5] * c, p[6] * a + p[7] * b + p[8] * c


@_jit
def _normal(p, lx, ly, lz, x, z, ground):
    """Unit normal in the world at a local point, outwards."""
    kind = int(p[16])
    nx, ny, nz = 0.0, 1.0, 0.0
    if kind == TERRAIN:
        e = 0.05 + 0.01 * math.sqrt(x * x + z * z)
        nx = (height_at(x - e, z, ground) - height_at(x + e, z, ground)) / (2 * e)
        nz = (height_at(x, z - e, ground) - height_at(x, z + e, ground)) / (2 * e)
        r = 1.0 / math.sqrt(nx * nx + 1.0 + nz * nz)
        return nx * r, r, nz * r
    if kind == BOX:
        ax, ay, az = abs(lx), abs(ly), abs(lz)
        nx, ny, nz = 0.0, 0.0, 0.0
        if ax >= ay and ax >= az:
            nx = 1.0 if lx > 0 else -1.0
        elif ay >= az:
            ny = 1.0 if ly > 0 else -1.0
        else:
            nz = 1.0 if lz > 0 else -1.0
    elif kind == BALL:
        nx, ny, nz = lx, ly, lz
    elif kind == TUBE:
        b = 0.5 * (p[18] - 1)
        a = 0.5 * (1 + p[18]) + b * ly
        if abs(ly) > 0.9995 and lx * lx + lz * lz < a * a * 0.998:
            ny = 1.0 if ly > 0 else -1.0
        else:
            nx, ny, nz = lx, -b * a, lz
    wx, wy, wz = p[0] * nx + p[3] * ny + p[6] * nz, p[1] * nx + p[4] * ny + p[7] * nz, p[2] * nx + p[5] * ny + p[8] * nz
    r = 1.0 / math.sqrt(wx * wx + wy * wy + wz * wz + 1e-20)
    return wx * r, wy * r, wz * r


@_jit
def _face(p, lx, ly, lz):
    """Coordinates in metres within the face (box, plane) or around the shape."""
    x, y, z = lx * p[12], ly * p[13], lz * p[14]
    kind = int(p[16])
    if kind >= PLANE:
        return x, z
    ax, ay, az = abs(lx), abs(ly), abs(lz)
    if kind == BOX:
        if ay >= ax and ay >= az:
            return x, z
        return (z, y) if ax >= az else (x, y)
    return math.atan2(lx, lz) * 0.5 * (p[12] + p[14]), y


@_jit
def _lit(shapes, materials, casters, x, y, z, nx, ny, nz, lights, air, vis):
    """Fill vis: 1 where a light is seen, 0 where shadowed; the last entry is the share of open surroundings."""
    lift = 2e-3 + 1e-3 * math.sqrt(x * x + z * z)
    o = (x + nx * lift, y + ny * lift, z + nz * lift)
    count = lights.shape[0]
    for k in range(count):
        vis[k] = 1.0
    shade = 0.0
    for q in range(casters.shape[0]):
        p = shapes[casters[q]]
        ax, ay, az = p[9] - o[0], p[10] - o[1], p[11] - o[2]
        dd = ax * ax + ay * ay + az * az
        rr = p[15] * p[15]
        facing = ax * nx + ay * ny + az * nz
        if facing > 0 and dd > rr * 0.3 and dd < rr * 16:
            shade += 0.35 * facing / math.sqrt(dd) * min(1.0, rr / dd)
        for k in range(count):
            g = lights[k]
            if vis[k] == 0:
                continue
            lx, ly, lz = g[1], g[2], g[3]
            reach = FAR
            if g[0] > 0:
                lx, ly, lz, reach = lx - o[0], ly - o[1], lz - o[2], 1.0
            along = ax * lx + ay * ly + az * lz
            ll = lx * lx + ly * ly + lz * lz
            if along * along < (dd - rr) * ll or (along < 0 and dd > rr):
                continue
            if _first(p, materials[int(p[17])], o, lx, ly, lz, 1e-4) < reach * 0.98:
                vis[k] = 0.0
    vis[count] = 1.0 - air[22] * min(0.85, shade)


@_jit
def shade(depth, owner, shapes, materials, lights, air, origin, turn, focal, ground):
    """Linear colour (H×W×3 float32, roughly 0..1 and above) of what `trace` found."""
    height, width = depth.shape
    colour = np.zeros((height, width, 3), np.float32)
    count = lights.shape[0]
    vis = np.ones((height, width, count + 1), np.float32)
    casters = np.array([n for n in range(shapes.shape[0]) if shapes[n, 19] > 0], np.int64)
    cx, cy = 0.5 * (width - 1), 0.5 * (height - 1)
    out = np.zeros(3, np.float32)
    for i in range(height):
        for j in range(width):
            a, b = (j - cx) / focal, (cy - i) / focal
            dx = turn[0, 0] * a + turn[0, 1] * b + turn[0, 2]
            dy = turn[1, 0] * a + turn[1, 1] * b + turn[1, 2]
            dz = turn[2, 0] * a + turn[2, 1] * b + turn[2, 2]
            n = owner[i, j]
            if n < 0:
                _sky(dx, dy, dz, air, out)
                colour[i, j] = out
                continue
            t = depth[i, j]
            p = shapes[n]
            m = materials[int(p[17])]
            x, y, z = origin[0] + dx * t, origin[1] + dy * t, origin[2] + dz * t
            lx, ly, lz = _local(p, x, y, z)
            nx, ny, nz = _normal(p, lx, ly, lz, x, z, ground)
            length = math.sqrt(dx * dx + dy * dy + dz * dz)
            if nx * dx + ny * dy + nz * dz > 0:
                nx, ny, nz = -nx, -ny, -nz
            # Shadows vary slowly: every second pixel of a surface takes its neighbour's.
            ii, jj = i & ~1, j & ~1
            if (ii != i or jj != j) and owner[ii, jj] == n:
                vis[i, j] = vis[ii, jj]
            else:
                _lit(shapes, materials, casters, x, y, z, nx, ny, nz, lights, air, vis[i, j])
            u, v = _face(p, lx, ly, lz)
            qx, qy, qz = lx * p[12], ly * p[13], lz * p[14]
            _paint(m, qx, qy, qz, u, v, out)
            if m[13] > 0:
                s = m[1] * 5
                nx += m[13] * (_noise(qx * s, qy * s, qz * s, 11) - 0.5)
                ny += m[13] * (_noise(qx * s, qy * s, qz * s, 12) - 0.5)
                nz += m[13] * (_noise(qx * s, qy * s, qz * s, 13) - 0.5)
                r = 1.0 / math.sqrt(nx * nx + ny * ny + nz * nz + 1e-9)
                nx, ny, nz = nx * r, ny * r, nz * r
            open_ = vis[i, j, count]
            sky_share = 0.5 + 0.5 * ny
            for c in range(3):
                colour[i, j, c] = out[c] * (m[14] + open_ * (air[16 + c] * sky_share + air[19 + c] * (1 - sky_share)))
            for k in range(count):
                seen = vis[i, j, k]
                if seen == 0:
                    continue
                g = lights[k]
                ux, uy, uz, fall = g[1], g[2], g[3], 1.0
                if g[0] > 0:
                    ux, uy, uz = ux - x, uy - y, uz - z
                    dd = ux * ux + uy * uy + uz * uz
                    fall = 1.0 / (1.0 + dd / (g[7] * g[7]))
                    r = 1.0 / math.sqrt(dd + 1e-9)
                    ux, uy, uz = ux * r, uy * r, uz * r
                cosine = ux * nx + uy * ny + uz * nz
                if cosine <= 0:
                    continue
                hx, hy, hz = ux - dx / length, uy - dy / length, uz - dz / length
                r = 1.0 / math.sqrt(hx * hx + hy * hy + hz * hz + 1e-9)
                spark = m[11] * max(0.0, (hx * nx + hy * ny + hz * nz) * r) ** m[12] if m[11] > 0 else 0.0
                for c in range(3):
                    colour[i, j, c] += seen * fall * g[4 + c] * (out[c] * cosine + spark)
            if air[3] > 0:
                k = 1.0 - math.exp(-air[3] * t * length)
                for c in range(3):
                    colour[i, j, c] = colour[i, j, c] * (1 - k) + air[c] * k
    return colour
