"""Steady speed of every way to run a network, interleaved in one process, with each one's difference from eager."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.measure import Row, Table
from depth import compiled, compiling, supply
from depth.engines import Eager, Engine, no_collection
from depth.models import find

Run = Callable[[np.ndarray], np.ndarray]


def measure(folder: Path, name: str, size: tuple[int, int], rounds: int, batch: int = 1) -> Table:
    """One forward of `batch` pictures of `size`, all ways in turn, `rounds` times after a first one to warm up."""
    picture = np.concatenate([compiling._picture(*size)] * batch)
    ways = _ways(folder, name)
    wanted = _plain(folder, name)(picture)
    samples: dict[str, list[float]] = {way: [] for way in ways}
    facts: dict[str, dict[str, object]] = {}
    for lap in range(rounds + 1):
        for way, run in ways.items():
            start = time.perf_counter()
            answer = run(picture)
            if lap:
                samples[way].append(time.perf_counter() - start)
                facts[way] = {"difference": _difference(answer, wanted) if way != "transformers" else None}
        print(f"  {name} {size[0]}×{size[1]}: round {lap}", file=sys.stderr, flush=True)
    rows = tuple(Row(way, tuple(values), facts[way]) for way, values in samples.items())
    return Table(f"{name}, {batch} × {size[0]}×{size[1]}, seconds a pass", rows)


def _difference(answer: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(answer - wanted).max() / max(float(np.ptp(wanted)), 1e-12))


def _ways(folder: Path, name: str) -> dict[str, Run]:
    ways: dict[str, Run] = {}
    if name == "DPT_Large" and (peer := _transformers(folder)):
        ways["transformers"] = peer
    ways["eager, plain torch"] = _plain(folder, name)
    ways["eager"] = Eager(_network(folder, name))
    for kind in compiled.runnable(find(name)):
        if engine := artefact(folder, name, kind):
            ways[engine.name] = engine
    if name == "DPT_Large" and (peer := _onnx_peer(folder, name)):
        ways["onnxruntime, its own weights"] = peer
    return ways


def artefact(folder: Path, name: str, kind: str) -> Engine | None:
    """The cache's compiled network, if there is one."""
    tensors, digest = _weights(folder, name)
    return compiled.load(folder / "cache", compiling.facts(find(name), kind, tensors, digest), tensors)


def _weights(folder: Path, name: str):
    cache = supply.manager(folder / "cache")
    return supply.tensors(find(name), cache=cache, offline=True)[0], supply.digest(find(name), cache)


def _network(folder: Path, name: str):
    with no_collection():
        from depth.networks import checkpoints

        return checkpoints.load(find(name), _weights(folder, name)[0])


def _plain(folder: Path, name: str) -> Run:
    """The network as it was written, without any tuning."""
    import torch

    network = _network(folder, name)

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(batch)).numpy()

    return run


def _transformers(folder: Path) -> Run | None:
    import torch

    try:
        from transformers import DPTForDepthEstimation
    except ImportError:
        return None
    network = DPTForDepthEstimation.from_pretrained(folder / "transformers-dpt-large").eval()

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(batch)).predicted_depth.numpy()

    return run


def _onnx_peer(folder: Path, name: str) -> Run | None:
    """onnxruntime as anybody would use it on an exported file, if `material` made one."""
    path = folder / f"{name}.onnx"
    if not path.exists() or "onnx" not in compiled._NEEDS:
        return None
    from depth.engines import Onnx, sizes_of

    return Onnx(path, sizes_of(find(name)), optimized=False)
