"""Picture in, `DepthMap` out, and the only door between `depth/` and `cache/`.

    MiDaSDepthEstimator("DPT_Large").predict("photo.jpg").values

`shared` keeps the few estimators that all users of a process use together; `manager` gives the cache
that knows this project's models. Importing this file imports no torch; the first estimator does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.errors import ImageError, UsageError, WeightsError, WrongCheckpoint
from depth import images
from depth.depthmap import DepthMap, Timings
from depth.models import DEFAULT, MODELS, Model, find
from depth.pool import Pool

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from cache.hub import ProgressCallback
    from cache.manager import ModelManager

    Picture = str | Path | Image.Image | np.ndarray

BUNDLED = Path(__file__).parent / "weights"
DTYPES = ("float32", "bfloat16", "float16")
CHUNK = 16  # pictures whose inputs are held at once
BATCH_PIXELS = 4 * 384 * 512  # of the network's input, in one go


class MiDaSDepthEstimator:
    """One model, loaded, on one device; may be used from several threads at once.

    model: name or alias from `depth.models`. device: as torch names it; None takes a CUDA device if
    there is one, else the CPU. dtype: "float32" (None), "bfloat16" or "float16", by name or as torch's;
    the halves are faster on a GPU and less exact. weights: a local checkpoint (.pt, .h5, .pkl or
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
        self.device = _device(device)
        self.dtype = _dtype(dtype)
        start = time.perf_counter()
        tensors, self.source = _tensors(self.model, weights, manager, progress, cancel)
        self._network = _network(self.model, tensors, self.source).to(self.device, self.dtype)
        self.load_seconds = time.perf_counter() - start
        self._turn = threading.Lock()  # two passes at once would need twice the memory and be no faster

    @property
    def bytes(self) -> int:
        """What the weights take in memory (or address space, while they are memory-mapped)."""
        return sum(tensor.nbytes for tensor in self._network.state_dict().values())

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
        answers: dict[int, DepthMap] = {}
        for places in _batches(inputs):
            start = time.perf_counter()
            outputs = self._infer([inputs[place].tensor for place in places])  # N, h, w
            share = (time.perf_counter() - start) / len(places)
            for place, output in zip(places, outputs, strict=True):
                answers[place] = self._answer(inputs[place], output, share)
        return [answers[place] for place in range(len(inputs))]

    def _infer(self, tensors: list[torch.Tensor]) -> torch.Tensor:
        import torch

        batch = torch.cat(tensors)  # N, 3, h, w
        try:
            with self._turn, torch.inference_mode():
                outputs = self._network(batch.to(self.device, self.dtype)).float().cpu()
        except (RuntimeError, MemoryError) as error:
            if _is_out_of_memory(error):
                raise ImageError("There is not enough memory for this picture.", where=self.model.name,
                                 got=f"a network input of {batch.shape[2]}×{batch.shape[3]}",
                                 next_step="Crop a long panorama, or choose a smaller model.") from error
            raise
        if not torch.isfinite(outputs).all():
            raise WeightsError("The network's answer is not finite.", where=self.model.name, got=str(self.dtype),
                               next_step="Use float32." if self.dtype != torch.float32 else "Check the weights.")
        return outputs

    def _answer(self, taken: _Input, output: torch.Tensor, seconds: float) -> DepthMap:
        start = time.perf_counter()
        values = images.restore(output, taken.size)
        return DepthMap(values, self.model.name,
                        Timings(self.load_seconds, taken.seconds, seconds, time.perf_counter() - start))


def manager(directory: str | Path | None = None) -> ModelManager:
    """The cache for this project's models, in its default directory if None. Imports no torch."""
    from cache.manager import ModelManager

    checkpoints = [_checkpoint(model) for model in MODELS if not model.bundled]
    return ModelManager(checkpoints, None if directory is None else Path(directory))


def shared(name: str = DEFAULT, device: str | None = None, *, manager: ModelManager | None = None,
           progress: ProgressCallback | None = None, cancel: threading.Event | None = None) -> MiDaSDepthEstimator:
    """The process's one estimator for this model and device, loaded at first use.

    Users who ask at the same time cause one load: the first one's callbacks hear of it, the others
    wait. At most `DEPTHMAP_MAX_LOADED` (2) estimators of together `DEPTHMAP_MAX_LOADED_BYTES` (4 GiB) are
    kept, but always the newest; the least recently used goes first and lives on while somebody uses it.
    """
    model = find(name)
    load = partial(MiDaSDepthEstimator, model.name, device=device, manager=manager, progress=progress, cancel=cancel)
    return _POOL.get((model.name, str(_device(device))), load, cancel)


def loaded() -> tuple[str, ...]:
    """Names of the models that `shared` holds now, least recently used first."""
    return tuple(name for name, _ in _POOL.kept())


def unload() -> None:
    """Let go of everything that `shared` holds."""
    _POOL.clear()


_POOL = Pool()


@dataclass(frozen=True)
class _Input:
    tensor: torch.Tensor  # 1, 3, h, w
    size: tuple[int, int]  # of the picture: H, W
    seconds: float


def _prepare(picture: Picture, model: Model) -> _Input:
    start = time.perf_counter()
    rgb = images.open_rgb(picture)
    tensor = images.prepare(rgb, model)
    return _Input(tensor, rgb.shape[:2], time.perf_counter() - start)


def _batches(inputs: Sequence[_Input]) -> list[list[int]]:
    """Places of inputs with equal shapes, in groups of at most `BATCH_PIXELS` (but never empty)."""
    groups: dict[tuple[int, int], list[int]] = {}
    for place, one in enumerate(inputs):
        groups.setdefault(tuple(one.tensor.shape[2:]), []).append(place)
    batches = []
    for (h, w), places in groups.items():
        most = max(1, BATCH_PIXELS // (h * w))
        batches += [places[start:start + most] for start in range(0, len(places), most)]
    return batches


def _checkpoint(model: Model) -> Any:
    """The model as the cache sees it; torch is imported when a function of it is called."""
    from cache.records import Checkpoint

    def to_official(tensors):
        from depth.networks import checkpoints

        return _translated(model, lambda: checkpoints.to_official(model, tensors))

    def schema():
        from depth.networks import checkpoints

        return checkpoints.schema(model)

    return Checkpoint(model.name, model.aliases, model.sources, to_official, schema)


def _tensors(model: Model, weights: str | Path | None, cache: ModelManager | None,
             progress: ProgressCallback | None, cancel: threading.Event | None) -> tuple[dict[str, torch.Tensor], str]:
    """The model's tensors and where they came from: the user's own file, the bundled one, or the cache."""
    if weights is None and not model.bundled:
        opened = (cache or manager()).open(model.name, progress=progress, cancel=cancel)
        return opened.tensors, opened.source
    from cache.formats import read

    path = Path(weights) if weights is not None else BUNDLED / model.bundled
    tensors, _ = read(path)
    return tensors, path.name if weights is not None else "bundled"


def _network(model: Model, tensors: dict[str, torch.Tensor], where: str) -> torch.nn.Module:
    from depth.networks import checkpoints

    return _translated(model, lambda: checkpoints.load(model, tensors), where)


def _translated(model: Model, work: Callable, where: str | None = None) -> Any:
    """What `work` returns; the networks' own error becomes one of the project's tree."""
    from depth.networks.checkpoints import CheckpointError

    try:
        return work()
    except CheckpointError as error:
        raise WrongCheckpoint(f"These weights do not fit {model.name}.", where=where, got=str(error).rstrip("."),
                              next_step="Name the model they were made for, or choose another file.") from error


def _device(name: str | torch.device | None) -> torch.device:
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:  # torch asserts that it was built with CUDA
        raise UsageError("This device cannot be used.", expected='"cpu", or a device that torch finds here',
                         got=repr(name), next_step="Leave it out to let the program choose.") from error
    return device


def _dtype(name: str | torch.dtype | None) -> torch.dtype:
    import torch

    word = "float32" if name is None else str(name).removeprefix("torch.")
    if word not in DTYPES:
        raise UsageError("This number type cannot be used.", expected=", ".join(DTYPES), got=repr(name))
    return getattr(torch, word)


def _is_out_of_memory(error: Exception) -> bool:
    """torch reports a failed allocation on the CPU as a RuntimeError with a sentence."""
    import torch

    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
