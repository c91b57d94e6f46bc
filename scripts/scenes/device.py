"""The same drawing by a GPU, many scenes at once, one thread for each of their pixels (numba.cuda).

The functions of a pixel are those of `raytrace.py` and `shade.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

if not hasattr(np, "row_stack"):  # numba-cuda 0.30 looks for it when it compiles, numpy 2.5 has it no more
    np.row_stack = np.vstack

from numba import cuda, float32

from scripts.scenes import Rows
from scripts.scenes.raytrace import FAR, LIGHT, crossing, direction, window
from scripts.scenes.shade import colour_of, leader, lit, surface
from scripts.scenes.texture import sky

warnings.filterwarnings("ignore", ".*Grid size .* will likely result in GPU under-utilization")  # `_project` is short
BLOCK = (8, 16)  # threads
SHAPES, LIGHTS, CASTERS = range(3)  # columns of `Order.ends`
_rooms: dict[str, np.ndarray] = {}  # memory, here and on the device, for one call after another


class Order(NamedTuple):
    """Scenes one behind the other, float64.

    `ends`, N+1×3: where the shapes, lights and casters of the scenes before each one end, and so where its own begin.
    Shapes point to materials, and casters to shapes, among all. The last five have a row for each scene.
    """

    ends: np.ndarray
    shapes: np.ndarray
    materials: np.ndarray
    lights: np.ndarray
    casters: np.ndarray
    air: np.ndarray
    ground: np.ndarray
    eye: np.ndarray
    turn: np.ndarray
    focal: np.ndarray


def draw(scenes: Sequence[Rows], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """As `scenes.draw`, of N scenes: N×H×W×3 and N×H×W, until the next call.

    It all goes in one piece and comes back in one.
    """
    here = ordered(scenes)
    there = Order(*_sent(here))
    count, pixels = len(scenes), len(scenes) * height * width
    most = np.diff(here.ends, axis=0).max(0).astype(int).tolist()
    windows = _room("windows", 4 * len(here.shapes), np.int32).reshape(len(here.shapes), 4)
    found, back = _room("found", 4 * pixels, np.float32), _room("back", 4 * pixels, np.float32)
    colour, depth = _parted(found, count, height, width)
    owner = _room("owner", pixels, np.int32).reshape(count, height, width)
    entries = most[LIGHTS] + 1
    vis = _room("vis", entries * pixels, np.float32).reshape(count, height, width, entries)
    grid = (-(-height // BLOCK[0]), -(-width // BLOCK[1]), count)
    _project[(-(-most[SHAPES] // 32), 1, count), (32, 1)](*there, windows, height, width)
    _trace[grid, BLOCK](*there, windows, depth, owner)
    _light[grid, BLOCK](*there, depth, owner, vis)
    _colour[grid, BLOCK](*there, depth, owner, vis, colour)
    found.copy_to_host(back)
    return _parted(back, count, height, width)


def ordered(scenes: Sequence[Rows]) -> Order:
    """With a spare light and a spare caster, since a GPU's arrays cannot be empty."""
    materials = np.cumsum([0, *(len(s.materials) for s in scenes)])
    casters = [np.flatnonzero(s.shapes[:, 19] > 0) for s in scenes]
    counts = [(0, 0, 0), *((len(s.shapes), len(s.lights), len(own)) for s, own in zip(scenes, casters, strict=True))]
    ends = np.cumsum(counts, 0, dtype=np.float64)
    shapes = np.concatenate([s.shapes for s in scenes])
    shapes[:, 17] += np.repeat(materials[:-1], [len(s.shapes) for s in scenes])
    return Order(ends, shapes, np.concatenate([s.materials for s in scenes]),
                 np.concatenate([*(s.lights for s in scenes), np.zeros((1, LIGHT))]),
                 np.concatenate([*map(np.add, casters, ends[:-1, SHAPES]), [0]]),
                 *(np.stack([getattr(s, name) for s in scenes]) for name in ("air", "ground", "eye", "turn", "focal")))


def _parted(found: np.ndarray, count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    pixels = count * height * width
    return found[: 3 * pixels].reshape(count, height, width, 3), found[3 * pixels :].reshape(count, height, width)


def _sent(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
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
def _project(ends, shapes, materials, lights, casters, air, ground, eye, turn, focal, windows, height, width):
    """Where in the picture each shape can be, one thread for each."""
    place, _, k = cuda.grid(3)
    n = int(ends[k, SHAPES]) + place
    if n >= ends[k + 1, SHAPES]:
        return
    left, right, top, bottom = window(shapes[n], eye[k], turn[k], focal[k], height, width)
    windows[n, 0], windows[n, 1], windows[n, 2], windows[n, 3] = left, right, top, bottom


@cuda.jit(fastmath=True, cache=True)
def _trace(ends, shapes, materials, lights, casters, air, ground, eye, turn, focal, windows, depth, owner):
    i, j, k = cuda.grid(3)
    _, height, width = depth.shape
    if i >= height or j >= width:
        return
    dx, dy, dz = direction(i, j, height, width, turn[k], focal[k])
    depth[k, i, j] = FAR
    owner[k, i, j] = -1
    for n in range(int(ends[k, SHAPES]), int(ends[k + 1, SHAPES])):
        if windows[n, 0] <= j < windows[n, 1] and windows[n, 2] <= i < windows[n, 3]:
            p = shapes[n]
            t = crossing(p, materials[int(p[17])], eye[k], dx, dy, dz, ground[k])
            if t < depth[k, i, j]:
                depth[k, i, j] = t
                owner[k, i, j] = n


@cuda.jit(fastmath=True, cache=True)
def _light(ends, shapes, materials, lights, casters, air, ground, eye, turn, focal, depth, owner, vis):
    """For the pixels that others take their lights from, and for those that take their own."""
    i, j, k = cuda.grid(3)
    _, height, width = depth.shape
    if i >= height or j >= width or owner[k, i, j] < 0:
        return
    first_i, first_j = leader(i, j, owner[k])
    if first_i != i or first_j != j:
        return
    ray = direction(i, j, height, width, turn[k], focal[k])
    place, _, normal = surface(shapes[owner[k, i, j]], ray, depth[k, i, j], eye[k], ground[k])
    lit(shapes, materials, casters[int(ends[k, CASTERS]) : int(ends[k + 1, CASTERS])], place, normal,
        lights[int(ends[k, LIGHTS]) : int(ends[k + 1, LIGHTS])], air[k], vis[k, i, j])


@cuda.jit(fastmath=True, cache=True)
def _colour(ends, shapes, materials, lights, casters, air, ground, eye, turn, focal, depth, owner, vis, colour):
    i, j, k = cuda.grid(3)
    _, height, width = depth.shape
    if i >= height or j >= width:
        return
    ray = direction(i, j, height, width, turn[k], focal[k])
    if owner[k, i, j] < 0:
        sky(ray[0], ray[1], ray[2], air[k], colour[k, i, j])
        depth[k, i, j] = 0.0
        return
    p, t = shapes[owner[k, i, j]], depth[k, i, j]
    place, local, normal = surface(p, ray, t, eye[k], ground[k])
    first_i, first_j = leader(i, j, owner[k])
    out = cuda.local.array(3, float32)
    colour_of(p, materials[int(p[17])], ray, t, place, local, normal,
              lights[int(ends[k, LIGHTS]) : int(ends[k + 1, LIGHTS])], vis[k, first_i, first_j], air[k], out,
              colour[k, i, j])
