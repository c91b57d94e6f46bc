"""Steady speed of every way to run a network, interleaved in one process, with each one's difference from eager."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.bars import OWN
from benchmarks.measure import Row, Table, in_turn, say, unmeasured
from cache.errors import DepthmapError
from depth import compiled, compiling, supply
from depth.engines import Eager, Engine, no_collection, sizes_of, threads
from depth.images import network_input, open_rgb
from depth.models import find

Run = Callable[[np.ndarray], np.ndarray]
PLAIN = "plain torch"


def measure(folder: Path, name: str, size: tuple[int, int], rounds: int, batch: int = 1, passes: int = 1) -> Table:
    """Passes of `batch` pictures of `size`: all ways in turn, `rounds` times after a first one to warm up.

    Each turn has `passes`, the first of several uncounted: what another way left in the caches is not its fault.
    """
    picture = np.concatenate([compiling._picture(*size)] * batch)
    title, absent = f"{name}, {batch} × {size[0]}×{size[1]}, seconds a pass", {}
    ways = _opened(folder, name, absent)
    wanted, peers = ways[PLAIN](picture), _peers(folder, name)
    samples: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    facts: dict[str, dict[str, object]] = {}
    for lap in range(rounds + 1):
        for way in in_turn(ways, lap):
            if way in absent:
                continue
            try:
                answer, taken = _turn(ways[way], picture, passes)
            except Exception as error:  # a peer that cannot run is a line
                absent[way] = compiled.sentence(error)
                continue
            samples[way] += taken if lap else []
            facts[way] = {"difference": _difference(answer, wanted) if way != "transformers" else None,
                          "peer": way in peers or None}
        say(f"{title}: round {lap} of {rounds}")
    rows = tuple(Row(way, tuple(wall for wall, _ in taken),
                     facts[way] | {"cpu": float(np.median([used for _, used in taken]))})
                 for way, taken in samples.items() if taken)
    return Table(title, rows, " ".join([f"{threads()} threads; cpu: processor seconds.", *unmeasured(absent)]))


def _turn(run: Run, picture: np.ndarray, passes: int) -> tuple[np.ndarray, list[tuple[float, float]]]:
    taken = []
    for _ in range(passes):
        start, used = time.perf_counter(), time.process_time()
        answer = run(picture)
        taken.append((time.perf_counter() - start, time.process_time() - used))
    return answer, taken[1:] or taken


def _difference(answer: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(answer.reshape(wanted.shape) - wanted).max() / max(float(np.ptp(wanted)), 1e-12))


def _peers(folder: Path, name: str) -> dict[str, Callable[[], Run]]:
    """What others offer for the same network. Nobody else has a MiDaS_small."""
    peers: dict[str, Callable[[], Run]] = {}
    if name == "DPT_Large":
        peers["transformers"] = lambda: transformers_dpt(folder)
    return {**peers, PLAIN: lambda: _plain(folder, name), "onnxruntime": lambda: _onnxruntime(folder, name),
            "OpenVINO": lambda: _openvino(folder, name)}


def _opened(folder: Path, name: str, absent: dict[str, str]) -> dict[str, Run]:
    """Every way that can be opened here; why the others cannot goes to `absent`."""
    makers = {**_peers(folder, name), OWN: lambda: _default(folder, name),
              f"{OWN}, eager": lambda: Eager(plain(folder, name))}
    ways: dict[str, Run] = {}
    for way, make in makers.items():
        try:
            ways[way] = make()
        except Exception as error:
            absent[way] = compiled.sentence(error)
    for kind in compiled.runnable(find(name)):
        if engine := artefact(folder, name, kind):
            ways[f"{OWN}, {engine.name}"] = engine
    return ways


def reduced(folder: Path, name: str, rounds: int) -> Table:
    """Fewer bits against float32: seconds a picture, and how far the depth of photographs moves."""
    from depth import MiDaSDepthEstimator

    ways, absent = {}, {}
    for dtype in ("float32", "bfloat16", "int8"):
        try:
            ways[dtype] = MiDaSDepthEstimator(name, dtype=dtype, manager=supply.manager(folder / "cache"))
        except DepthmapError as error:
            absent[dtype] = compiled.sentence(error)
    photos = [network_input(open_rgb(path), find(name)) for path in _photos()]
    samples: dict[str, list[tuple[float, float]]] = {dtype: [] for dtype in ways}
    for lap in range(rounds + 1):
        for dtype in in_turn(ways, lap):
            _, taken = _turn(ways[dtype]._engine, photos[0], 2 if lap else 1)
            samples[dtype] += taken if lap else []
        say(f"{name} in fewer bits: round {lap} of {rounds}")
    wanted = [ways["float32"]._engine(photo) for photo in photos]
    rows = [Row(dtype, tuple(wall for wall, _ in taken), {
        "engine": ways[dtype].engine, "cpu": float(np.median([used for _, used in taken])),
        **_loss(ways[dtype]._engine, photos, wanted)}) for dtype, taken in samples.items()]
    note = ("moved: mean difference to float32 as a share of the depth's range, worst of some photographs; "
            "correlation: the lowest." + ("" if find(name).bundled else " Made-up weights tell little of these two."))
    return Table(f"{name} in fewer bits, seconds a pass", tuple(rows), " ".join([note, *unmeasured(absent)]))


def _loss(engine: Run, photos: list[np.ndarray], wanted: list[np.ndarray]) -> dict[str, float]:
    got = [engine(photo) for photo in photos]
    pairs = list(zip(got, wanted, strict=True))
    return {"moved": max(float(np.abs(a - b).mean() / np.ptp(b)) for a, b in pairs),
            "correlation": round(min(float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a, b in pairs), 4)}


def _photos() -> list[Path]:
    """Photographs that come with Gradio."""
    folder = Path(importlib.util.find_spec("gradio").origin).parent / "media_assets" / "images"
    return [folder / name for name in ("lion.jpg", "tower.jpg", "cheetah1.jpg", "groot.jpeg")]


def _default(folder: Path, name: str) -> Engine:
    """What the estimator itself chooses."""
    from depth import MiDaSDepthEstimator

    return MiDaSDepthEstimator(name, manager=supply.manager(folder / "cache"))._engine


def artefact(folder: Path, name: str, kind: str) -> Engine | None:
    """The cache's compiled network, if there is one."""
    tensors, digest = weights(folder, name)
    about = compiling.facts(find(name), kind, tensors, digest)
    return compiled.load(folder / "cache", about, tensors)


def weights(folder: Path, name: str):
    """Tensors and their digest, from the cache or as they come with the program."""
    cache = supply.manager(folder / "cache")
    return supply.tensors(find(name), cache=cache, offline=True)[0], supply.digest(find(name), cache)


def plain(folder: Path, name: str):
    """The network as it was written, with the cache's weights."""
    with no_collection():
        from depth.networks import checkpoints

        return checkpoints.load(find(name), weights(folder, name)[0])


def _plain(folder: Path, name: str) -> Run:
    """The network as it was written, without any tuning: what torch.hub gives."""
    import torch

    network = plain(folder, name)

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(batch)).numpy()

    return run


def transformers_dpt(folder: Path, device: str = "cpu") -> Run:
    import torch

    from benchmarks.worker import dpt_of_transformers
    from depth import networks  # noqa: F401  (before it, so that torchvision is there for both)

    network = dpt_of_transformers().from_pretrained(folder / "transformers-dpt-large").eval().to(device)

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(batch).to(device)).predicted_depth.cpu().numpy()

    return run


def _onnxruntime(folder: Path, name: str) -> Run:
    """onnxruntime with its own optimisation of the exported file."""
    from depth.engines import Onnx

    return Onnx(_exported(folder, name), sizes_of(find(name)), optimized=False)


def _openvino(folder: Path, name: str) -> Run:
    """OpenVINO on the same file and as many threads, in float32 as everybody here."""
    import openvino

    network = openvino.Core().compile_model(_exported(folder, name), "CPU", {
        "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads(), "PERFORMANCE_HINT": "LATENCY"})
    return lambda batch: network(batch)[0]


def _exported(folder: Path, name: str) -> Path:
    path = folder / "onnx" / name / "network.onnx"
    if not path.exists():
        raise FileNotFoundError("the network was not exported")
    return path
