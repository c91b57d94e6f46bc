"""Scenes rendered by many processes at once, in shared memory, for a trainer that keeps them on a GPU.

No disk is fast enough, and none is needed: the trainer takes a scene once, and its place is used again. It lends its
GPU to them, above all while it does not need it yet.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path
from types import ModuleType

import numpy as np

from scripts import scenes
from scripts.scene_pool import SCENES, SIDE, inverse_depth

TRIES = 4  # numbers a scene may choose from, so that thinned-out kinds leave no gap
KINDS = (0,) * 13 + (scenes.CLOSE,) * 2 + (scenes.NEARBY,) * 5  # in turn: all kinds, close views of rooms, nearby views


def seed_of(first: int, n: int) -> int:
    """The seed of a ring's scene n: the first of its numbers that is used, or the last."""
    begin = first + SCENES + TRIES * n + KINDS[n % len(KINDS)]
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
        self.lent = mapped("lent.i64", np.int64, 1)  # so many workers may draw on the GPU
        self.proven = mapped("proven.i64", np.int64, 1)  # 1 once it has drawn a scene, so that the others may
        self._gpu: ModuleType | None = None

    def ready(self) -> int:
        """How many scenes were rendered from the first on, without a gap."""
        return min(int(self.done[k]) * self.workers + k for k in range(self.workers))

    def put(self, first: int, n: int) -> None:
        """Render scene n into its place."""
        seed = seed_of(first, n)
        picture = self._drawn(seed, n % self.workers)
        self.rgb[n % self.places] = picture.rgb
        self.inverse[n % self.places] = inverse_depth(picture.depth)
        self.done[n % self.workers] += 1

    def _drawn(self, seed: int, worker: int) -> scenes.Picture:
        """By the GPU as long as it is lent and does what it is told, else by this processor."""
        if worker < self.lent[0] and self.proven[0]:
            try:
                from scripts.scenes import device

                self._gpu = device
                return scenes.render(seed, SIDE, SIDE, device.draw)
            except Exception as error:  # its memory is full, say
                self.proven[0] = 0
                print(f"Scenes are drawn by the processors alone from now on: {error}", flush=True)
        elif self._gpu is not None:
            self._gpu.close()
            self._gpu = None
        return scenes.render(seed, SIDE, SIDE)

    def remove(self) -> None:
        """Give the memory back, when nobody works with it any more."""
        for file in self.files:
            file.unlink()

    def start(self, first: int) -> multiprocessing.Process:
        """Render in the background, as long as this process lives and there is a free place."""
        context = multiprocessing.get_context("spawn")
        crew = context.Process(target=_crew, args=(self.folder, self.places, self.workers, first))
        crew.start()
        return crew


def _crew(folder: Path, places: int, workers: int, first: int) -> None:
    """Compile the renderer once, then work as many processes, which give way to all others."""
    parent = os.getppid()
    os.nice(19)
    ring, context = Ring(folder, places, workers), multiprocessing.get_context("fork")
    if ring.lent[0]:  # tried in a process of its own, since one that has used a GPU cannot be forked
        apart = multiprocessing.get_context("spawn")
        apart.Process(target=_try_gpu, args=(folder, places, workers), daemon=True).start()
    for n in range(len(KINDS)):
        scenes.render(seed_of(first, n), 32, 32)
    for k in range(1, workers):
        context.Process(target=_fill, args=(ring, first, k, os.getpid()), daemon=True).start()
    _fill(ring, first, 0, parent)


def _try_gpu(folder: Path, places: int, workers: int) -> None:
    """Compile for the GPU and draw one scene there."""
    try:
        from scripts.scenes import device

        scenes.render(0, SIDE, SIDE, device.draw)
    except Exception as error:  # a GPU that numba cannot use is no reason not to train on it
        raise SystemExit(f"Scenes are drawn by the processors alone: {str(error).strip().splitlines()[0]}") from None
    Ring(folder, places, workers).proven[0] = 1


def _fill(ring: Ring, first: int, k: int, parent: int) -> None:
    """Worker k renders scenes k, k + workers, ... as places become free."""
    n = k
    while os.getppid() == parent:
        if n < ring.taken[0] + ring.places:
            ring.put(first, n)
            n += ring.workers
        else:
            time.sleep(0.05)
