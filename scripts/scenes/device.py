"""The same drawing by a GPU, one thread for each pixel (numba.cuda): for while it has nothing else to do.

The functions of a pixel are those of `raytrace.py` and `shade.py`.
"""

from __future__ import annotations

import numpy as np

if not hasattr(np, "row_stack"):  # numba-cuda 0.30 looks for it when it compiles, numpy 2.5 has it no more
    np.row_stack = np.vstack

from numba import cuda, float32

from scripts import scenes
from scripts.scenes.raytrace import FAR, crossing, direction, window
from scripts.scenes.shade import colour_of, leader, lit, surface
from scripts.scenes.stage import Scene
from scripts.scenes.texture import sky

BLOCK = (8, 16)  # threads
_rooms: dict[str, np.ndarray] = {}  # memory, here and on the device, for one scene after another


def draw(s: Scene, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """As `scenes.draw`.

    All goes there in one piece and comes back in one, since processes that share a GPU wait for each other each time.
    """
    rows = scenes.rows(s, height, width)
    windows = np.array([window(p, rows.eye, rows.turn, rows.focal, height, width) for p in rows.shapes], np.float64)
    casters = np.flatnonzero(rows.shapes[:, 19] > 0).astype(np.float64)
    shapes, materials, lights, air, ground, eye, turn, windows, casters = _sent(*rows[:-1], windows, casters)
    pixels = height * width
    found = _room("found", 4 * pixels, np.float32)
    colour, depth = found[: 3 * pixels].reshape(height, width, 3), found[3 * pixels :].reshape(height, width)
    owner = _room("owner", pixels, np.int32).reshape(height, width)
    entries = len(rows.lights) + 1
    vis = _room("vis", entries * pixels, np.float32).reshape(height, width, entries)
    grid = (-(-height // BLOCK[0]), -(-width // BLOCK[1]))
    _trace[grid, BLOCK](shapes, materials, windows, eye, turn, rows.focal, ground, depth, owner)
    given = depth, owner, shapes, materials, lights, air, ground, eye, turn, rows.focal, vis
    _light[grid, BLOCK](*given, casters)
    _colour[grid, BLOCK](*given, colour)
    back = _room("back", 4 * pixels, np.float32)
    found.copy_to_host(back)
    return back[: 3 * pixels].reshape(height, width, 3).copy(), back[3 * pixels :].reshape(height, width).copy()


def close() -> None:
    """Give the GPU back."""
    _rooms.clear()
    cuda.close()


def _sent(*arrays: np.ndarray) -> list[np.ndarray]:
    """On the device, all in one."""
    size = sum(array.size for array in arrays)
    here, there = _room("here", size, np.float64), _room("there", size, np.float64)
    np.concatenate([array.ravel() for array in arrays], out=here)
    there.copy_to_device(here)
    ends = np.cumsum([array.size for array in arrays])
    return [there[end - array.size : end].reshape(array.shape) for array, end in zip(arrays, ends, strict=True)]


def _room(name: str, size: int, kind: type) -> np.ndarray:
    """Memory of at least so many numbers, the first of them; page-locked where it is the host's."""
    if name not in _rooms or _rooms[name].size < size:
        new = cuda.pinned_array if name in ("here", "back") else cuda.device_array
        _rooms[name] = new(2 * size, kind)
    return _rooms[name][:size]


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
        depth[i, j] = 0.0
        return
    p, t = shapes[owner[i, j]], depth[i, j]
    place, local, normal = surface(p, ray, t, eye, ground)
    first_i, first_j = leader(i, j, owner)
    out = cuda.local.array(3, float32)
    colour_of(p, materials[int(p[17])], ray, t, place, local, normal, lights, vis[first_i, first_j], air, out,
              colour[i, j])
