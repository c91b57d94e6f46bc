"""Compiled networks, in one folder per model of the cache: made once, loaded in milliseconds.

    <cache>/<model>/compiled/<key>/network.pt2             machine code ("aoti"), a few MB; the weights stay outside
                                  /constants.safetensors   what that code needs and the checkpoint lacks
                                  /network.onnx            graph with weights ("onnx", for small models; "int8")

`making.py` makes one in a process of its own, so that a compiler that hangs or dies leaves the eager network
serving. Loading one needs neither that compiler nor timm, and for "onnx" not even torch. What
makes an artefact trustworthy stands in `cache/artefacts.py`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache import artefacts
from cache.errors import UsageError
from depth.engines import Compiled, Engine, Int8, Onnx, Sizes, kinds, sizes_of
from depth.models import Model, find

if TYPE_CHECKING:
    import torch

CODE, GRAPH, CONSTANTS = "network.pt2", "network.onnx", "constants.safetensors"
INLINED = 16  # numbers; torch 2.13 inlines up to 8
LAYOUT = 1  # of the artefact; raise it when an older one must not be loaded
_NEEDS: dict[str, dict[str, tuple[str, ...]]] = {
    "onnx": {"run": ("onnxruntime",), "make": ("onnxruntime", "onnx", "onnxscript", "torch")},
    "int8": {"run": ("onnxruntime",), "make": ("onnxruntime", "onnx", "onnxscript", "torch")},
    "aoti": {"run": ("torch",), "make": ("torch",)},
}
ENGINES = {"onnx": Onnx, "int8": Int8, "aoti": Compiled}


def mode() -> str:
    """`DEPTHMAP_COMPILE`, read at each call.

    "0": eager networks only; what is compiled is neither used nor made. "auto" (unset): what is compiled is
    used, and `estimator.shared`, which serves page and REST, makes what is missing in the background.
    "1": every estimator does, also one in a script.
    """
    chosen = (os.environ.get("DEPTHMAP_COMPILE") or "auto").strip().lower()
    if chosen not in ("0", "1", "auto"):
        raise UsageError("This setting has no such value.", where="DEPTHMAP_COMPILE", expected="0, 1 or auto",
                         got=repr(chosen))
    return chosen


def makeable(model: Model, device: str = "cpu", dtype: str = "float32") -> str | None:
    """The fastest kind of artefact that can be made and run here; None if there is none. Imports nothing."""
    return next((kind for kind in kinds(model, device, dtype) if _has(*_NEEDS[kind]["make"])), None)


def runnable(model: Model, device: str = "cpu", dtype: str = "float32") -> tuple[str, ...]:
    """The kinds of artefact that this installation can load, fastest first. Imports nothing."""
    return tuple(kind for kind in kinds(model, device, dtype) if _has(*_NEEDS[kind]["run"]))


def facts(model: Model, kind: str, weights: str) -> dict[str, Any]:
    """Everything that an artefact depends on. `weights`: the tensors' digest, or `signature` ("aoti")."""
    runtime = "torch" if kind == "aoti" else "onnxruntime"
    return {"layout": LAYOUT, "kind": kind, "model": model.name, "weights": weights, "network": _network(model),
            "dtype": "int8" if kind == "int8" else "float32", "device": "cpu", "machine": machine(),
            "runtime": f"{runtime} {_version(runtime)}",
            "sizes": asdict(sizes_of(model))}


def signature(tensors: Mapping[str, torch.Tensor]) -> str:
    """A digest of what machine code takes for granted: names, shapes, types, and the values of the smallest tensors.

    The compiler writes tensors of up to eight numbers into the code (a last bias, say); all others it reads
    from the checkpoint, so their values may be any.
    """
    rows = sorted(f"{name} {tuple(t.shape)} {t.stride()} {t.dtype} {_inlined(t)}" for name, t in tensors.items())
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def _inlined(tensor: torch.Tensor) -> list[float]:
    return tensor.flatten().tolist() if tensor.numel() <= INLINED else []


def load(directory: Path, about: Mapping[str, Any],
         tensors: Mapping[str, torch.Tensor] | None = None) -> Engine | None:
    """The engine of the artefact with exactly these facts in this cache, or None. `tensors`: for "aoti".

    Whatever is wrong with an artefact is one line in the log; the caller goes on without it.
    """
    try:
        found = artefacts.opened(artefacts.folder_of(directory, about["model"]), about)
        if found is None:
            return None
        path, manifest = found
        sizes = Sizes(**about["sizes"])
        if about["kind"] != "aoti":
            return ENGINES[about["kind"]](path / GRAPH, sizes)
        return Compiled(path / CODE, _constants(path, manifest["constants"], tensors or {}), sizes)
    except Exception as error:  # of native loaders and damaged files; eager serves in any case
        import logging  # `info`, which comes here to see what is stale, starts without it

        logging.getLogger(__name__).warning("The compiled %s is not used: %s.", about["model"], sentence(error))
        return None


def _constants(path: Path, names: Mapping[str, str], tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The code's constants: `{its name: the checkpoint's name}` looked up, and those beside the code."""
    found = {name: tensors[source] for name, source in names.items()}
    if (path / CONSTANTS).exists():
        from safetensors.torch import load_file

        found |= load_file(path / CONSTANTS)
    return found


def is_current(about: Mapping[str, Any], digest: str | None) -> bool:
    """Would this installation load an artefact of these facts for the model's tensors of this digest?

    Raises KeyError or UnknownModel for facts that are none.
    """
    wanted = about["weights"] if about["kind"] == "aoti" else digest  # machine code serves any weights of its shapes
    return digest is not None and dict(about) == facts(find(about["model"]), about["kind"], wanted)


def _network(model: Model) -> str:
    """A digest of the model's row and of the code that builds and tunes its network."""
    row = json.dumps([model.family, dict(model.network), model.size], sort_keys=True, default=str)
    return hashlib.sha256(f"{row} {_code()}".encode()).hexdigest()[:16]


@lru_cache(maxsize=1)
def _code() -> str:
    here = Path(__file__).parent
    makers = (here / f"{name}.py" for name in ("tuning", "rearranging", "attention", "compiling", "quantizing"))
    files = (*sorted((here / "networks").glob("*.py")), *makers)
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


@lru_cache(maxsize=1)
def machine() -> str:
    """The processor: its name and a digest of its abilities. Machine code for another one may not run here."""
    name, abilities, kind = "", "", os.uname().machine if hasattr(os, "uname") else ""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            word, _, value = line.partition(":")
            if word.strip() == "model name":
                name = value.strip()
            elif word.strip() in ("flags", "Features"):
                abilities = " ".join(sorted(value.split()))
                break
    except OSError:
        pass
    if not (name and kind):
        import platform  # takes longer than all else here

        name, kind = name or platform.processor(), kind or platform.machine()
    return f"{sys.platform} {kind} {name} {hashlib.sha256(abilities.encode()).hexdigest()[:8]}"


def sentence(error: BaseException) -> str:
    """The error in one line of at most 300 characters, without the closing stop."""
    return (" ".join(str(error).split()) or type(error).__name__)[:300].rstrip(".")


def _has(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) for package in packages)


@lru_cache(maxsize=4)
def _version(package: str) -> str:
    """As its folder's neighbour is named; `importlib.metadata` reads it as an e-mail, 0.017 s at each start."""
    spec = importlib.util.find_spec(package)
    near = Path(spec.origin).parents[1].glob(f"{package}-*.dist-info") if spec and spec.origin else ()
    versions = [path.name[len(package) + 1 : -len(".dist-info")] for path in near]
    if len(versions) == 1:
        return versions[0]
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
