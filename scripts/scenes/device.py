"""The same drawing by a GPU, one thread for each pixel (numba.cuda): for while it has nothing else to do.

The functions of a pixel are those of `raytrace.py` and `shade.py`.
"""

from __future__ import annotations

import numpy as np
from numba import cuda, float32

from scripts import scenes
from scripts.scenes.raytrace import FAR, crossing, direction, window
from scripts.scenes.shade import colour_of, leader, lit, surface
from scripts.scenes.stage import Scene
from scripts.scenes.texture import sky

BLOCK = (8, 16)  # threads
close = cuda.close  # gives the GPU back


def draw(s: Scene, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """As `scenes.draw`."""
    rows = scenes.rows(s, height, width)
    windows = np.array([window(p, rows.eye, rows.turn, rows.focal, height, width) for p in rows.shapes], np.int32)
    casters = np.flatnonzero(rows.shapes[:, 19] > 0)
    shapes, materials, lights, air, ground, eye, turn = map(_sent, rows[:-1])
    depth, owner = cuda.device_array((height, width), np.float32), cuda.device_array((height, width), np.int32)
    vis = cuda.device_array((height, width, len(rows.lights) + 1), np.float32)
    colour = cuda.device_array((height, width, 3), np.float32)
    grid = (-(-height // BLOCK[0]), -(-width // BLOCK[1]))
    _trace[grid, BLOCK](shapes, materials, _sent(windows), eye, turn, rows.focal, ground, depth, owner)
    found = depth, owner, shapes, materials, lights, air, ground, eye, turn, rows.focal, vis
    _light[grid, BLOCK](*found, _sent(casters))
    _colour[grid, BLOCK](*found, colour)
    return colour.copy_to_host(), np.where(owner.copy_to_host() < 0, np.float32(0), depth.copy_to_host())


def _sent(array: np.ndarray):
    """On the device, also where it is empty."""
    return cuda.to_device(array) if array.size else cuda.to_device(np.zeros((1, *array.shape[1:]), array.dtype))[:0]


@cuda.jit(fastmath=True, cache=True)
def _trace(shapes, materials, windows, eye, turn, focal, ground, depth, owner):
    i, j = cuda.grid(2)
    height, width = depth.shape
    if i >= height or j >= width:
        return
    dx, dy, dz = direction(i, j, height, width, turn, focal)
    depth[i, j] = FAR
    owner[i, j] = -1
    for n in range(shapes.shape[0]):
        if windows[n, 0] <= j < windows[n, 1] and windows[n, 2] <= i < windows[n, 3]:
            p = shapes[n]
            t = crossing(p, materials[int(p[17])], eye, dx, dy, dz, ground)
            if t < depth[i, j]:
                depth[i, j] = t
                owner[i, j] = n


@cuda.jit(fastmath=True, cache=True)
def _light(depth, owner, shapes, materials, lights, air, ground, eye, turn, focal, vis, casters):
    """For the pixels that others take their lights from, and for those that take their own."""
    i, j = cuda.grid(2)
    height, width = depth.shape
    if i >= height or j >= width or owner[i, j] < 0:
        return
    first_i, first_j = leader(i, j, owner)
    if first_i != i or first_j != j:
        return
    ray = direction(i, j, height, width, turn, focal)
    place, _, normal = surface(shapes[owner[i, j]], ray, depth[i, j], eye, ground)
    lit(shapes, materials, casters, place, normal, lights, air, vis[i, j])


@cuda.jit(fastmath=True, cache=True)
def _colour(depth, owner, shapes, materials, lights, air, ground, eye, turn, focal, vis, colour):
    i, j = cuda.grid(2)
    height, width = depth.shape
    if i >= height or j >= width:
        return
    ray = direction(i, j, height, width, turn, focal)
    if owner[i, j] < 0:
        sky(ray[0], ray[1], ray[2], air, colour[i, j])
        return
    p, t = shapes[owner[i, j]], depth[i, j]
    place, local, normal = surface(p, ray, t, eye, ground)
    first_i, first_j = leader(i, j, owner)
    out = cuda.local.array(3, float32)
    colour_of(p, materials[int(p[17])], ray, t, place, local, normal, lights, vis[first_i, first_j], air, out,
              colour[i, j])
