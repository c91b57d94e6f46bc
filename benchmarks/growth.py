"""How cost grows: with the picture's size, the number of cached models, and the batch."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measure import Row, Table


def _repeat(work: Callable[[], object], rounds: int) -> tuple[float, ...]:
    samples = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        samples.append(time.perf_counter() - start)
    return tuple(samples)


def pictures(rounds: int) -> Table:
    """Preparing and restoring, which grow with the picture; the network's input does not."""
    from depth import images
    from depth.models import find

    rows = []
    for height, width in ((480, 640), (1080, 1920), (2160, 3840), (4320, 7680)):
        rgb = np.random.default_rng(0).random((height, width, 3), np.float32)
        small = np.random.default_rng(1).random((384, 672), np.float32)
        rows += [Row(f"prepare {height}×{width}", _repeat(partial(images.prepare, rgb, find("DPT_Large")), rounds)),
                 Row(f"restore {height}×{width}", _repeat(partial(_restore, small, (height, width)), rounds))]
    return Table("Pictures, seconds", tuple(rows))


def _restore(small: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    from depth import images

    try:
        return images.restore(small, size)
    except (AttributeError, TypeError):  # where it takes a tensor
        import torch

        return images.restore(torch.from_numpy(small), size)


def entries(counts: tuple[int, ...], rounds: int) -> Table:
    """`info` and `verify` with so many cached models of 1 MB each."""
    rows = []
    for count in counts:
        folder = Path(tempfile.mkdtemp(prefix="depthmap-growth-"))
        try:
            cache = _cache_of(count, folder)
            rows += [Row(f"info, {count} models", _repeat(cache.info, rounds)),
                     Row(f"info in detail, {count} models", _repeat(partial(cache.info, detailed=True), rounds)),
                     Row(f"verify, {count} models", _repeat(cache.verify, rounds))]
        finally:
            shutil.rmtree(folder)
    return Table("Cached models, seconds", tuple(rows))


def _cache_of(count: int, folder: Path):
    """A cache with so many small models, imported like any other."""
    import torch

    from cache.manager import Checkpoint, ModelManager

    shape = (512, 512)
    checkpoints = [Checkpoint(f"model_{number}", (), (), dict, lambda: {"weight": (shape, "float32")})
                   for number in range(count)]
    manager = ModelManager(checkpoints, folder / "cache", formats=("pt",))
    for number in range(count):
        path = folder / "one.pt"
        torch.save({"weight": torch.full(shape, float(number))}, path)
        manager.import_(path, f"model_{number}")
    return manager
