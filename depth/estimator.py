"""Picture in, `DepthMap` out.

    MiDaSDepthEstimator("DPT_Large").predict("photo.jpg").values

`shared` keeps the few estimators that all users of a process use together; `manager` gives the cache
that knows this project's models. Importing this file imports no torch; the first estimator does, unless
a compiled network serves that needs none (see `engines.py`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cache.errors import ImageError, UsageError, WeightsError
from depth import compiled, images, supply
from depth.batching import Batcher
from depth.depthmap import DepthMap, Timings
from depth.devices import device_name, dtype_name, is_out_of_memory
from depth.engines import Eager, Engine, Switch, no_collection
from depth.models import DEFAULT, Model, find
from depth.pool import Pool
from depth.supply import manager as manager

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from cache.manager import ModelManager
    from cache.remote import ProgressCallback

    Picture = str | Path | Image.Image | np.ndarray

CHUNK = 16  # pictures whose inputs are held at once


class MiDaSDepthEstimator:
    """One model, loaded, on one device; may be used from several threads at once.

    model: name or alias from `depth.models`. device: as torch names it; None takes a CUDA device if
    there is one, else the CPU. dtype: "float32" (None), "bfloat16" or "float16", by name or as torch's;
    the halves are faster on a GPU and less exact. "int8", on the CPU: eight bits where that is faster and
    the depth stays near (docs/SPEED.md); the first such estimator of a model makes its network, which takes
    a minute or two. weights: a local checkpoint (.pt, .h5, .pkl or
    .safetensors, read without executing it and checked against the model) in place of the cache.
    manager: the cache to use, None the default one. `progress` and `cancel` reach its download.

    Raises UnknownModel, UsageError (device, dtype), WeightsError (the file is not this model's),
    FetchError (no copy and no network).
    """

    def __init__(self, model: str = DEFAULT, *, device: str | torch.device | None = None,
                 dtype: str | torch.dtype | None = None, weights: str | Path | None = None,
                 manager: ModelManager | None = None, progress: ProgressCallback | None = None,
                 cancel: threading.Event | None = None):
        self.model = find(model)
        self.device = device_name(device)
        self.dtype = dtype_name(dtype)
        start = time.perf_counter()
        self._cache = manager if manager is not None or weights is not None else supply.manager()
        self._engine, self.source = self._open(weights, progress, cancel)
        self.load_seconds = time.perf_counter() - start
        self._requests = Batcher(self._pass, is_out_of_memory)
        if compiled.mode() == "1":
            self.compile_later()

    @property
    def engine(self) -> str:
        """What computes now: "eager", "compiled" or "onnx"."""
        return self._engine.name

    @property
    def bytes(self) -> int:
        """What the weights take in memory (or address space, while they are memory-mapped)."""
        return self._engine.bytes

    def compile(self) -> str | None:
        """Make the fastest compiled network for this machine and go over to it; minutes. None, or why not."""
        kind = self._wanted()
        if kind is None:
            return "nothing is compiled for this device, number type or setting" if self.engine == "eager" else None
        from depth import making

        return making.make(self.model, kind, self._cache.store.directory) or self._go_over()

    def compile_later(self) -> None:
        """`compile` in the background, where the settings allow it and it did not fail lately; this one goes on."""
        kind = self._wanted()
        if kind is not None:
            from depth import making

            making.make_later(self.model, kind, self._cache.store.directory, self._go_over)

    def predict(self, image: Picture) -> DepthMap:
        """Relative inverse depth at the picture's own size: larger is nearer, no unit.

        image: what `depth.images.open_rgb` takes. Raises ImageError.
        """
        return self._predict_chunk([image])[0]

    def predict_batch(self, images: Iterable[Picture]) -> list[DepthMap]:
        """One depth map for each picture, in order; pictures with equal network sizes run together.

        Holds the inputs of `CHUNK` pictures at a time. Raises ImageError for the first bad picture.
        """
        pictures = list(images)
        return [depth for start in range(0, len(pictures), CHUNK)
                for depth in self._predict_chunk(pictures[start:start + CHUNK])]

    def _predict_chunk(self, pictures: Sequence[Picture]) -> list[DepthMap]:
        inputs = [_prepare(picture, self.model) for picture in pictures]
        start = time.perf_counter()
        outputs = self._outputs([taken.array for taken in inputs])
        share = (time.perf_counter() - start) / max(1, len(inputs))
        return [self._answer(taken, output, share) for taken, output in zip(inputs, outputs, strict=True)]

    def _outputs(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """The depth h×w of each input. A batch that needs too much memory has been halved before that is an error."""
        try:
            return self._requests.all(inputs)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            largest = max(inputs, key=lambda one: one.size)
            raise ImageError("There is not enough memory for this picture.", where=self.model.name,
                             got=f"a network input of {largest.shape[2]}×{largest.shape[3]}",
                             next_step="Crop a long panorama, or choose a smaller model.") from error

    def _pass(self, batch: np.ndarray) -> np.ndarray:
        """One pass of the network: N, 3, h, w → N, h, w."""
        outputs = self._engine(batch)
        if not np.isfinite(outputs).all():
            raise WeightsError("The network's answer is not finite.", where=self.model.name, got=self.dtype,
                               next_step="Use float32." if self.dtype != "float32" else "Check the weights.")
        return outputs

    def _open(self, weights: str | Path | None, progress: ProgressCallback | None,
              cancel: threading.Event | None) -> tuple[Switch, str]:
        """The fastest engine that is ready now, and where its weights came from."""
        self._compilable = (weights is None and compiled.mode() != "0"
                            and compiled.runnable(self.model, self.device, self.dtype) != ())
        if self.dtype == "int8":
            return Switch(lambda: self._eager(*supply.tensors(self.model, cache=self._cache)),
                          self._eight_bits(weights, progress, cancel)), "compiled"
        if fast := self._ready("onnx"):
            supply.use(self.model, self._cache)
            return Switch(lambda: self._eager(*supply.tensors(self.model, cache=self._cache)), fast), "compiled"
        with no_collection():
            tensors, source = supply.tensors(self.model, weights, self._cache, progress=progress, cancel=cancel)
            return Switch(lambda: self._eager(tensors, source), self._ready("aoti", tensors)), source

    def _eager(self, tensors: dict[str, torch.Tensor], source: str) -> Engine:
        with no_collection():
            exact = "float32" if self.dtype == "int8" else self.dtype  # for sizes that the eight bits do not take
            return Eager(supply.network(self.model, tensors, source), self.device, exact)

    def _eight_bits(self, weights: str | Path | None, progress: ProgressCallback | None,
                    cancel: threading.Event | None) -> Engine:
        """The eight-bit network, made now if there is none yet. Raises UsageError where it cannot be had."""
        reason, fast = self._why_not_eight_bits(weights), None
        if reason is None and (fast := self._ready("int8")) is None:
            from depth import making

            supply.tensors(self.model, cache=self._cache, progress=progress, cancel=cancel)  # fetched, if need be
            directory = self._cache.store.directory
            reason = (making.failed_lately(self.model, "int8", directory)
                      or making.make(self.model, "int8", directory))
            fast = None if reason else self._ready("int8")
        if fast is None:
            raise UsageError(f"There is no eight-bit {self.model.name}.", got=reason or "it could not be opened",
                             next_step="Leave dtype out to compute in float32.")
        supply.use(self.model, self._cache)
        return fast

    def _why_not_eight_bits(self, weights: str | Path | None) -> str | None:
        """What rules it out from the start."""
        if self.device != "cpu":
            return f"the device is {self.device}, and it runs on the CPU only"
        if weights is not None:
            return "it is made from the cache's weights, not from a file; import the file first"
        if compiled.mode() == "0":
            return "DEPTHMAP_COMPILE=0 forbids it"
        if not self._compilable or compiled.makeable(self.model, self.device, "int8") is None:
            return "it needs the packages onnxruntime, onnx and onnxscript"
        return None

    def _ready(self, kind: str, tensors: dict[str, torch.Tensor] | None = None) -> Engine | None:
        """The engine of the artefact that fits these weights, if there is one. `tensors`: for "aoti"."""
        if not self._compilable or kind not in compiled.runnable(self.model, self.device, self.dtype):
            return None
        weights = compiled.signature(tensors) if kind == "aoti" else supply.digest(self.model, self._cache)
        if weights is None:
            return None
        return compiled.load(self._cache.store.directory, compiled.facts(self.model, kind, weights), tensors)

    def _wanted(self) -> str | None:
        """The kind of artefact to make: the fastest that can be made here, unless it serves already."""
        kind = compiled.makeable(self.model, self.device, self.dtype) if self._compilable else None
        return None if kind is None or self.engine == compiled.ENGINES[kind].name else kind

    def _go_over(self) -> str | None:
        """Serve from the artefact that was made; None, or why not."""
        fast = self._ready("onnx") or self._ready(
            "aoti", supply.tensors(self.model, cache=self._cache, offline=True)[0])
        if fast is None:
            return "the compiled network could not be opened"
        self._engine.use(fast)
        return None

    def _answer(self, taken: _Input, output: np.ndarray, seconds: float) -> DepthMap:
        start = time.perf_counter()
        values = images.restore(output, taken.size)
        return DepthMap(values, self.model.name,
                        Timings(self.load_seconds, taken.seconds, seconds, time.perf_counter() - start))


def shared(name: str = DEFAULT, device: str | None = None, *, manager: ModelManager | None = None,
           progress: ProgressCallback | None = None, cancel: threading.Event | None = None) -> MiDaSDepthEstimator:
    """The process's one estimator for this model and device, loaded at first use.

    Users who ask at the same time cause one load: the first one's callbacks hear of it, the others
    wait. At most `DEPTHMAP_MAX_LOADED` (2) estimators of together `DEPTHMAP_MAX_LOADED_BYTES` (4 GiB) are
    kept, but always the newest; the least recently used goes first and lives on while somebody uses it.
    Its compiled network, if there is none yet, is made in the background (see `compiled.mode`).
    """
    model = find(name)

    def load() -> MiDaSDepthEstimator:
        made = MiDaSDepthEstimator(model.name, device=device, manager=manager, progress=progress, cancel=cancel)
        made.compile_later()
        return made

    return _POOL.get((model.name, device_name(device)), load, cancel)


def loaded() -> tuple[str, ...]:
    """Names of the models that `shared` holds now, least recently used first."""
    return tuple(name for name, _ in _POOL.kept())


def unload() -> None:
    """Let go of everything that `shared` holds."""
    _POOL.clear()


_POOL = Pool()


@dataclass(frozen=True)
class _Input:
    array: np.ndarray  # 1, 3, h, w
    size: tuple[int, int]  # of the picture: H, W
    seconds: float


def _prepare(picture: Picture, model: Model) -> _Input:
    start = time.perf_counter()
    rgb = images.open_rgb(picture)
    return _Input(images.network_input(rgb, model), rgb.shape[:2], time.perf_counter() - start)
