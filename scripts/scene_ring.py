"""Scenes rendered by many processes at once, in shared memory, for a trainer that keeps them on a GPU.

No disk is fast enough, and none is needed: the trainer takes a scene once, and its place is used again. The GPU draws
for them as well: a process puts a scene together, asks, and spoils what it gets as a camera does. There are more of
them than processors, since most of them wait.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from scripts import scenes
from scripts.scene_pool import SCENES, SIDE, inverse_depth

TRIES = 4  # numbers a scene may choose from, so that thinned-out kinds leave no gap
OF_A_SEED = 235_000  # scenes; then they come again
KINDS = (0,) * 14 + (scenes.CLOSE,) + (scenes.NEARBY,) * 5  # in turn: all kinds, close views of rooms, nearby views
LONGEST = 16_384  # numbers of a scene that the GPU is asked for
IDLE, ASKED, DRAWN = range(3)
PAUSE, GATHERING = 0.002, 0.1  # seconds between two looks of who asked, and of who answers


def seed_of(first: int, n: int) -> int:
    """The seed of a ring's scene n: the first of its numbers that is used, or the last."""
    begin = first + SCENES + TRIES * (n % OF_A_SEED) + KINDS[n % len(KINDS)]
    return next((seed for seed in range(begin, begin + TRIES - 1) if scenes.is_used(seed)), begin + TRIES - 1)


class Ring:
    """So many `places` for pictures and inverse depths: scene n lies at n modulo places until it is taken."""

    def __init__(self, folder: Path, places: int, workers: int, mode: str = "r+"):
        folder.mkdir(parents=True, exist_ok=True)

        def mapped(name: str, kind: type, *shape: int) -> np.memmap:
            self.files.append(folder / name)
            return np.memmap(self.files[-1], kind, mode, shape=shape)

        self.folder, self.places, self.workers, self.files = folder, places, workers, list[Path]()
        self.rgb = mapped("rgb.u8", np.uint8, places, SIDE, SIDE, 3)
        self.inverse = mapped("inverse.f16", np.float16, places, SIDE, SIDE)
        self.done = mapped("done.i64", np.int64, workers)  # scenes rendered by each worker
        self.taken = mapped("taken.i64", np.int64, 1)
        self.proven = mapped("proven.i64", np.int64, 1)  # 1 once a GPU has drawn what a processor draws
        self.serves = mapped("serves.i64", np.int64, 1)  # 1 as long as it draws for the workers
        self.stage = mapped("stage.i64", np.int64, workers)  # of what each worker asks for
        self.asked = mapped("asked.f64", np.float64, workers, LONGEST)
        self.colour = mapped("colour.f32", np.float32, workers, SIDE, SIDE, 3)
        self.depth = mapped("depth.f32", np.float32, workers, SIDE, SIDE)

    def ready(self) -> int:
        """How many scenes were rendered from the first on, without a gap."""
        return min(int(self.done[k]) * self.workers + k for k in range(self.workers))

    def put(self, first: int, n: int) -> None:
        """Render scene n into its place."""
        picture = scenes.render(seed_of(first, n), SIDE, SIDE, partial(self._drawn, n % self.workers))
        self.rgb[n % self.places] = picture.rgb
        self.inverse[n % self.places] = inverse_depth(picture.depth)
        self.done[n % self.workers] += 1

    def _drawn(self, worker: int, s: scenes.Scene, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """As `scenes.draw`, by the GPU as long as it serves."""
        if self.serves[0] and len(numbers := packed(scenes.rows(s, height, width))) <= LONGEST:
            self.asked[worker, : len(numbers)] = numbers
            self.stage[worker] = ASKED
            while self.serves[0] and self.stage[worker] == ASKED:
                time.sleep(PAUSE)
            if self.stage[worker] == DRAWN:
                return self.colour[worker].copy(), self.depth[worker].copy()
        return scenes.draw(s, height, width)

    def serve(self, draw: Callable, alone: threading.Lock, over: threading.Event) -> None:
        """Draw what the workers ask for, all at once with `draw` (see `scenes/device.py`), until it is over."""
        self.serves[0] = 1
        try:
            while not over.wait(GATHERING):
                asked = np.flatnonzero(self.stage == ASKED)
                if len(asked) == 0:
                    continue
                with alone:
                    found = draw([unpacked(self.asked[k]) for k in asked], SIDE, SIDE)
                for k, colour, depth in zip(asked, *found, strict=True):
                    self.colour[k], self.depth[k] = colour, depth
                    self.stage[k] = DRAWN
        finally:
            self.serves[0] = 0

    def remove(self) -> None:
        """Give the memory back, when nobody works with it any more."""
        for file in self.files:
            file.unlink()

    def start(self, first: int, gpu: bool = False) -> multiprocessing.Process:
        """Render in the background, as long as this process lives and there is a free place."""
        context = multiprocessing.get_context("spawn")
        crew = context.Process(target=_crew, args=(self.folder, self.places, self.workers, first, gpu))
        crew.start()
        return crew


def packed(rows: scenes.Rows) -> np.ndarray:
    """A scene as one row of numbers, the counts of its shapes, materials and lights first."""
    counts = [len(rows.shapes), len(rows.materials), len(rows.lights)]
    return np.concatenate([counts, *(np.ravel(part) for part in rows)])


def unpacked(numbers: np.ndarray) -> scenes.Rows:
    """What `packed` was given; it shares memory with `numbers`, which may be longer."""
    many = iter(numbers[:3].astype(int))
    shapes = [(next(many), *shape[1:]) if shape[:1] == (-1,) else shape for shape in scenes.ROWS]
    ends = np.cumsum([3, *map(np.prod, shapes)]).astype(int)
    parts = (numbers[a:b].reshape(shape) for (a, b), shape in zip(pairwise(ends), shapes, strict=True))
    return scenes.Rows(*parts)


def _crew(folder: Path, places: int, workers: int, first: int, gpu: bool) -> None:
    """Compile the renderer once, then work as many processes, which give way to all others."""
    parent = os.getppid()
    ring, context = Ring(folder, places, workers), multiprocessing.get_context("fork")
    if gpu:  # tried in a process of its own, since one that has used a GPU cannot be forked
        apart = multiprocessing.get_context("spawn")
        apart.Process(target=_try_gpu, args=(folder, places, workers), daemon=True).start()
    for n in range(len(KINDS)):
        scenes.render(seed_of(first, n), 32, 32)
    os.nice(19)
    for k in range(1, workers):
        context.Process(target=_fill, args=(ring, first, k, os.getpid()), daemon=True).start()
    _fill(ring, first, 0, parent)


def _try_gpu(folder: Path, places: int, workers: int) -> None:
    """Compile for the GPU, and compare what it draws with what a processor does."""
    try:
        from scripts.scenes import device

        prove(device.draw)
    except Exception as error:  # a GPU that numba cannot use is no reason not to train on it
        raise SystemExit(f"Scenes are drawn by the processors alone: {str(error).strip().splitlines()[0]}") from None
    Ring(folder, places, workers).proven[0] = 1


def prove(draw: Callable, side: int = SIDE) -> None:
    """Raise if scenes come out otherwise than with `scenes.draw`; a few pixels at the edges of things may."""
    tried = [scenes.compose(seed)[0] for seed in (0, 1, 2, scenes.CLOSE, scenes.NEARBY)]
    found = draw([scenes.rows(s, side, side) for s in tried], side, side)
    for s, *pair in zip(tried, *found, strict=True):
        for got, wanted in zip(pair, scenes.draw(s, side, side), strict=True):
            wrong = np.mean(np.abs(got - wanted) > 0.01 * (1 + np.abs(wanted)))
            if wrong > 0.02:
                raise ValueError(f"{wrong:.0%} of the numbers of a scene differ from those of a processor")


def _fill(ring: Ring, first: int, k: int, parent: int) -> None:
    """Worker k renders scenes k, k + workers, ... as places become free."""
    n = k
    while os.getppid() == parent:
        if n < ring.taken[0] + ring.places:
            ring.put(first, n)
            n += ring.workers
        else:
            time.sleep(0.05)
