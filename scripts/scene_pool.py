"""Rendered scenes on disk, growing while the training runs, and the pictures a training step draws from them."""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from depth.models import find
from scripts import scenes

SIDE = 256
HELD_OUT = 1_000_000_000  # seeds from here on are never trained on
SCENES = 60_000  # that the largest pool of a seed has; its further numbers are another's
MIXED = 40_000  # scenes of all kinds; what comes after them are close views of rooms
AHEAD = 800  # scenes rendered before they are asked for; more would only take time from the training
MEAN, STD = (torch.tensor(values).view(1, 3, 1, 1) for values in (find("Tiny").mean, find("Tiny").std))


@dataclass(frozen=True)
class Batch:
    """Normalised pictures N×3×h×w, and inverse depth N×h×w in 1/m (0 where there is only sky), float32."""

    pictures: torch.Tensor
    inverse: torch.Tensor


class Pool:
    """Scenes `first` to `first + count` as memory-mapped arrays, filled in order by worker processes."""

    def __init__(self, folder: Path, first: int, count: int, workers: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.first, self.count, self.workers = folder, first, count, workers
        self.rgb = _mapped(folder / "rgb.u8", np.uint8, (count, SIDE, SIDE, 3))
        self.inverse = _mapped(folder / "inverse.f16", np.float16, (count, SIDE, SIDE))
        self.done = _mapped(folder / f"done{workers}.i64", np.int64, (workers,))
        self.wanted = _mapped(folder / "wanted.i64", np.int64, (1,))
        self.used = np.flatnonzero([scenes.is_used(seed_of(first, n)) for n in range(count)])

    def start(self) -> list[multiprocessing.Process]:
        """Render what is missing in background processes, which end with this one."""
        context = multiprocessing.get_context("spawn")
        arguments = (self.folder, self.first, self.count, self.workers)
        crew = [context.Process(target=_fill, args=(*arguments, k), daemon=True) for k in range(self.workers)]
        for worker in crew:
            worker.start()
        return crew

    def wait(self, ready: int) -> None:
        """Return when the first `ready` scenes are there."""
        self.wanted[0] = ready
        while any(self.done[k] * self.workers + k < ready for k in range(self.workers)):
            time.sleep(0.2)


def seed_of(first: int, n: int) -> int:
    """The seed of a pool's scene n."""
    return first + n + (scenes.CLOSE if n >= MIXED else 0)


def _mapped(path: Path, kind, shape) -> np.memmap:
    return np.memmap(path, kind, "r+" if path.exists() else "w+", shape=shape)


def _fill(folder: Path, first: int, count: int, workers: int, k: int) -> None:
    """Worker k renders scenes k, k + workers, ... and counts them."""
    parent = os.getppid()
    pool = Pool(folder, first, count, workers)
    for n in range(k + int(pool.done[k]) * workers, count, workers):
        seed = seed_of(first, n)
        if scenes.is_used(seed):
            picture = scenes.render(seed, SIDE, SIDE)
            pool.rgb[n] = picture.rgb
            pool.inverse[n] = inverse_depth(picture.depth)
        pool.done[k] += 1
        while n > pool.wanted[0] + AHEAD and os.getppid() == parent:
            time.sleep(0.5)
        if os.getppid() != parent:
            return


def inverse_depth(depth: np.ndarray) -> np.ndarray:
    """1/m, float32, 0 for sky."""
    return np.where(depth > 0, 1 / np.maximum(depth, 1e-2), 0).astype(np.float32)


def draw(pool: Pool, rng: np.random.Generator, ready: int, size: int, shape: tuple[int, int]) -> Batch:
    """`size` random crops of one random scale from the first `ready` scenes, spoilt further."""
    h, w = shape
    zoom = rng.uniform(0.75, 1) * SIDE / max(shape)  # nearly all of the picture: its layout tells the depth
    high, wide = round(h * zoom), round(w * zoom)
    rgb = np.empty((size, high, wide, 3), np.uint8)
    inverse = np.empty((size, high, wide), np.float32)
    usable = int(np.searchsorted(pool.used, ready))
    for k, n in enumerate(pool.used[rng.integers(0, usable, size)]):
        top, left = rng.integers(0, SIDE - high + 1), rng.integers(0, SIDE - wide + 1)
        flip = -1 if rng.random() < 0.5 else 1
        rgb[k] = pool.rgb[n, top : top + high, left : left + wide][:, ::flip]
        inverse[k] = pool.inverse[n, top : top + high, left : left + wide][:, ::flip]
    pictures = torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 255
    smooth = rng.random() < 0.5  # photos reach the network both smoothed and aliased
    pictures = torch.nn.functional.interpolate(pictures, shape, mode="bilinear", antialias=smooth)
    target = torch.nn.functional.interpolate(torch.from_numpy(inverse)[:, None], shape, mode="nearest")[:, 0]
    return Batch((recolour(pictures, rng) - MEAN) / STD, target)


def recolour(pictures: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Another light, contrast, hue and saturation for each picture, sometimes grey; N×3×h×w in about 0..1."""
    n = len(pictures)
    grey = np.full((3, 3), 1 / 3)
    matrices = np.empty((n, 3, 3), np.float32)
    for k in range(n):
        keep = 0.0 if rng.random() < 0.1 else rng.uniform(0.6, 1.3)
        matrix = keep * turn_hue(rng.normal(0, 0.1)) + (1 - keep) * grey
        matrices[k] = matrix * np.exp(rng.normal(0, 0.12, (3, 1))) * np.exp(rng.normal(0, 0.15))
    mixed = torch.einsum("nij,njhw->nihw", torch.from_numpy(matrices), pictures)
    gamma = torch.from_numpy(np.exp(rng.normal(0, 0.2, (n, 1, 1, 1))).astype(np.float32))
    return mixed.clamp(0, 1).pow(gamma).contiguous(memory_format=torch.channels_last)


def turn_hue(angle: float) -> np.ndarray:
    """Rotation of colours about the grey axis (3×3)."""
    c, s = np.cos(angle), np.sin(angle)
    a, b = (1 - c) / 3, s / np.sqrt(3)
    return np.array([[c + a, a - b, a + b], [a + b, c + a, a - b], [a - b, a + b, c + a]])
