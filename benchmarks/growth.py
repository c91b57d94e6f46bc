"""How cost grows: with the picture's size, the number of cached models, and the batch."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.measure import Row, Table, interleaved, worker


def _repeat(work: Callable[[], object], rounds: int) -> tuple[float, ...]:
    samples = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        samples.append(time.perf_counter() - start)
    return tuple(samples)


def pictures(folder: Path, rounds: int) -> Table:
    """Whole predictions. Only preparing and restoring grow with the picture; the network's input does not."""
    sizes = ((480, 640), (1080, 1920), (2160, 3840), (4320, 7680))
    return interleaved("One picture of so many pixels, bundled model, seconds", {
        f"{height}×{width}": worker("grow_picture", folder, height, width) for height, width in sizes}, rounds)


def batches(folder: Path, rounds: int) -> Table:
    return interleaved("So many pictures in one call, bundled model, seconds a picture", {
        f"{count} pictures": worker("grow_batch", folder, count) for count in (1, 2, 4, 8, 16)}, rounds)


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
