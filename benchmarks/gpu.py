"""DPT_Large on a CUDA device: ours in every precision and in batches against transformers' eager float32."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from benchmarks import inference
from benchmarks.measure import Row, Table, in_turn, say
from depth import compiling
from depth.engines import Eager

TITLE = "DPT_Large on the GPU, seconds a picture"


def is_there() -> bool:
    import torch

    return torch.cuda.is_available()


def measure(folder: Path, rounds: int) -> Table:
    """One line that says so where there is no such device."""
    import torch

    if not is_there():
        return Table(TITLE, (), "Not measured: torch finds no CUDA device here.")
    ways, rows = _ways(folder), []
    samples: dict[tuple[str, int], list[float]] = {(way, batch): [] for way in ways for batch in (1, 8)}
    for lap in range(rounds + 2):
        for way, batch in in_turn(samples, lap):
            picture = np.concatenate([compiling._picture(384, 384)] * batch)
            start = time.perf_counter()
            ways[way](picture)
            if lap > 1:
                samples[way, batch].append((time.perf_counter() - start) / batch)
    for (way, batch), taken in samples.items():
        facts = {"peer": way.startswith("transformers") or None, "batch": batch}
        rows.append(Row(f"{way}, {batch} at once", tuple(taken), facts))
        say(f"{TITLE}: {rows[-1].name} {rows[-1].median:.4f}")
    return Table(TITLE, tuple(rows), f"{torch.cuda.get_device_name()}, 384×384, copies to and from it included.")


def _ways(folder: Path) -> dict[str, inference.Run]:
    ways: dict[str, inference.Run] = {}
    try:
        ways["transformers, float32"] = inference.transformers_dpt(folder, "cuda")
    except (ImportError, OSError) as error:
        say(f"transformers is left out: {error}")
    for dtype in ("float32", "bfloat16", "float16"):
        ways[f"Depthmap, {dtype}"] = Eager(inference.plain(folder, "DPT_Large"), "cuda", dtype)
    return ways
