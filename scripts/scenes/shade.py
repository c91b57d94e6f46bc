"""Colours for what the ray tracer found: texture, lights with shadows, contact shade and haze (numba)."""

from __future__ import annotations

import math

import numpy as np

from scripts.scenes.raytrace import BALL, BOX, FAR, PLANE, TERRAIN, TUBE, direction, first
from scripts.scenes.texture import compiled, height_at, joined, noise, paint, sky


@compiled
def _local(p, x, y, z):
    a, b, c = x - p[9], y - p[10], z - p[11]
    return p[0] * a + p[1] * b + p[2] * c, p[3] * a + p[4] * b + p[5] * c, p[6] * a + p[7] * b + p[8] * c


@compiled
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
    wx, wy, wz = (
        p[0] * nx + p[3] * ny + p[6] * nz,
        p[1] * nx + p[4] * ny + p[7] * nz,
        p[2] * nx + p[5] * ny + p[8] * nz,
    )
    r = 1.0 / math.sqrt(wx * wx + wy * wy + wz * wz + 1e-20)
    return wx * r, wy * r, wz * r


@compiled
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


@compiled
def lit(shapes, materials, casters, place, normal, lights, air, vis):
    """Fill vis: 1 where a light is seen, 0 where shadowed; the last entry is the share of open surroundings."""
    x, y, z = place
    nx, ny, nz = normal
    lift = 2e-3 + 1e-3 * math.sqrt(x * x + z * z)
    o = (x + nx * lift, y + ny * lift, z + nz * lift)
    count = lights.shape[0]
    for k in range(count):
        vis[k] = 1.0
    shade = 0.0
    for q in range(casters.shape[0]):
        p = shapes[int(casters[q])]
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
            if first(p, materials[int(p[17])], o, lx, ly, lz, 1e-4) < reach * 0.98:
                vis[k] = 0.0
    vis[count] = 1.0 - air[22] * min(0.85, shade)


@joined
def surface(p, ray, t, origin, ground):
    """Where a ray meets a shape: in the world, in the shape's own frame, and the normal that faces the eye."""
    dx, dy, dz = ray
    x, y, z = origin[0] + dx * t, origin[1] + dy * t, origin[2] + dz * t
    lx, ly, lz = _local(p, x, y, z)
    nx, ny, nz = _normal(p, lx, ly, lz, x, z, ground)
    if nx * dx + ny * dy + nz * dz > 0:
        nx, ny, nz = -nx, -ny, -nz
    return (x, y, z), (lx, ly, lz), (nx, ny, nz)


@compiled
def leader(i, j, owner):
    """The pixel whose lights this one takes: shadows vary slowly, so of a surface every second one, else itself."""
    ii, jj = i & ~1, j & ~1
    return (ii, jj) if owner[ii, jj] == owner[i, j] else (i, j)


@joined
def colour_of(p, m, ray, t, place, local, normal, lights, vis, air, out, colour):
    """Fill colour (3 numbers) of a surface by what `lit` found there; `out` is room for three more."""
    dx, dy, dz = ray
    x, y, z = place
    lx, ly, lz = local
    nx, ny, nz = normal
    count = lights.shape[0]
    length = math.sqrt(dx * dx + dy * dy + dz * dz)
    u, v = _face(p, lx, ly, lz)
    qx, qy, qz = lx * p[12], ly * p[13], lz * p[14]
    paint(m, qx, qy, qz, u, v, out)
    if m[13] > 0:
        s = m[1] * 5
        nx += m[13] * (noise(qx * s, qy * s, qz * s, 11) - 0.5)
        ny += m[13] * (noise(qx * s, qy * s, qz * s, 12) - 0.5)
        nz += m[13] * (noise(qx * s, qy * s, qz * s, 13) - 0.5)
        r = 1.0 / math.sqrt(nx * nx + ny * ny + nz * nz + 1e-9)
        nx, ny, nz = nx * r, ny * r, nz * r
    open_ = vis[count]
    sky_share = 0.5 + 0.5 * ny
    for c in range(3):
        colour[c] = out[c] * (m[14] + open_ * (air[16 + c] * sky_share + air[19 + c] * (1 - sky_share)))
    for k in range(count):
        seen = vis[k]
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
            colour[c] += seen * fall * g[4 + c] * (out[c] * cosine + spark)
    if air[3] > 0:
        k = 1.0 - math.exp(-air[3] * t * length)
        for c in range(3):
            colour[c] = colour[c] * (1 - k) + air[c] * k


@compiled
def shade(depth, owner, shapes, materials, lights, air, origin, turn, focal, ground):
    """Linear colour (H×W×3 float32, roughly 0..1 and above) of what `trace` found."""
    height, width = depth.shape
    colour = np.zeros((height, width, 3), np.float32)
    vis = np.ones((height, width, lights.shape[0] + 1), np.float32)
    casters = np.array([n for n in range(shapes.shape[0]) if shapes[n, 19] > 0], np.int64)
    out = np.zeros(3, np.float32)
    for i in range(height):
        for j in range(width):
            ray = direction(i, j, height, width, turn, focal)
            if owner[i, j] < 0:
                sky(ray[0], ray[1], ray[2], air, colour[i, j])
                continue
            p, t = shapes[owner[i, j]], depth[i, j]
            m = materials[int(p[17])]
            place, local, normal = surface(p, ray, t, origin, ground)
            first_i, first_j = leader(i, j, owner)
            if first_i == i and first_j == j:
                lit(shapes, materials, casters, place, normal, lights, air, vis[i, j])
            colour_of(p, m, ray, t, place, local, normal, lights, vis[first_i, first_j], air, out, colour[i, j])
    return colour
