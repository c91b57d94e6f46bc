"""What the benchmarks run on: checkpoints of the right shapes with made-up weights, a filled cache, a picture.

Speed does not depend on the values, so nothing is downloaded. Everything is made once and kept in a folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measure import run, say, worker
from depth.models import find
from depth.supply import BUNDLED

LARGE = "DPT_Large"
FORMATS = ("pt", "h5", "pkl", "safetensors")


@dataclass(frozen=True)
class Material:
    """Where things are. `cache` holds every model in all formats."""

    folder: Path

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def picture(self) -> Path:
        return self.folder / "square.jpg"

    def checkpoint(self, name: str) -> Path:
        return self.folder / f"{name}.pt"

    def exported(self, name: str) -> Path:
        return self.folder / "onnx" / name / "network.onnx"

    def transformers(self) -> Path:
        return self.folder / "transformers-dpt-large"


def prepare(folder: Path, names: list[str]) -> Material:
    """Make what is missing for these models."""
    material = Material(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not material.picture.exists():
        _picture(material.picture)
    for name in names:
        if _is_missing(material.checkpoint(name), name):
            _checkpoint(name, material.checkpoint(name))
        if not find(name).bundled:
            _cached(name, material)
        _compiled(name, material)
    return material


def _is_missing(path: Path, name: str) -> bool:
    """There is no such file, or it was made of bundled weights that have been replaced since."""
    row = find(name)
    return not path.exists() or (bool(row.bundled) and path.stat().st_mtime < (BUNDLED / row.bundled).stat().st_mtime)


def _picture(path: Path, height: int = 1080, width: int = 1080) -> None:
    """A square one: transformers takes no other, so that all networks compute as much."""
    from PIL import Image

    y, x = np.mgrid[0:1:height * 1j, 0:1:width * 1j]
    planes = np.stack([x, y, (np.hypot(x - 0.5, y - 0.5) < 0.3) * 0.8], axis=2)
    noise = np.random.default_rng(0).normal(0, 0.03, planes.shape)
    Image.fromarray(((planes + noise).clip(0, 1) * 255).astype(np.uint8)).save(path, quality=92)


def _checkpoint(name: str, path: Path) -> None:
    """A state dict in the official layout."""
    import torch

    from benchmarks import inference

    tensors = inference.weights(path.parent, name)[0] if find(name).bundled else _made_up(name)
    temporary = path.with_suffix(".tmp")
    torch.save(tensors, temporary)
    temporary.rename(path)


def _made_up(name: str) -> dict:
    """Random tensors of magnitudes that keep the activations finite."""
    import torch

    from depth.networks import checkpoints

    generator = torch.Generator().manual_seed(0)
    return {key: _values(key, shape, dtype, generator)
            for key, (shape, dtype) in checkpoints.schema(find(name)).items()}


def _values(key: str, shape: tuple[int, ...], dtype: str, generator):
    import torch

    if not dtype.startswith("float"):
        return torch.zeros(shape, dtype=getattr(torch, dtype))
    if key.endswith("running_var"):
        return torch.rand(shape, generator=generator) * 0.5 + 0.75
    if len(shape) >= 2:
        inputs = int(np.prod(shape[1:])) or 1
        return torch.randn(shape, generator=generator) * (1.2 / inputs**0.5)
    middle = 1.0 if key.endswith("weight") else 0.02
    return middle + torch.randn(shape, generator=generator) * 0.02


def _cached(name: str, material: Material) -> None:
    """The checkpoint in the benchmark's own cache, in all formats."""
    from depth.supply import manager

    os.environ["DEPTHMAP_FORMATS"] = ",".join(FORMATS)
    cache = manager(material.cache)
    if not (material.cache / name / "manifest.json").exists():
        cache.import_(material.checkpoint(name), name)
    for format in FORMATS:
        cache.convert(name, format)


def _compiled(name: str, material: Material) -> None:
    """The compiled networks that users would have: the fastest kind, and in eight bits if it pays.

    The large one in every kind, since each has a bar.
    """
    from benchmarks import inference
    from cache import artefacts
    from depth import compiled, making
    from depth.supply import manager

    for one in manager(material.cache).store.folder(name).artefacts():
        if one.state == "stale":  # of older code; nobody's cache keeps them
            artefacts.remove(one.path)
    whole = compiled.runnable(find(name)) if name == LARGE else (compiled.makeable(find(name)),)
    for kind in filter(None, (*whole, compiled.makeable(find(name), dtype="int8"))):
        if inference.artefact(material.folder, name, kind) is None and not making.failed_lately(
                find(name), kind, material.cache):
            say(f"compiling {name} ({kind})")
            making.make(find(name), kind, material.cache)  # says why not


def peers(material: Material, names: list[str]) -> None:
    """What the peers run: exported networks, and transformers' own checkpoint. Missing packages leave them out."""
    for name in names:
        if _is_missing(material.exported(name), name):
            say(f"exporting {name} for onnxruntime and OpenVINO")
            _made(worker("export_onnx", material.folder, name))
    if LARGE in names and not (material.transformers() / "config.json").exists():
        say(f"saving {LARGE} as transformers does")
        _made(worker("save_transformers", material.folder, LARGE))


def _made(command: list[str]) -> None:
    try:
        run(command)
    except RuntimeError as error:
        say(f"it could not be made: {error}")
