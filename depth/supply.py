"""A model's weights, wherever they are, and the cache of all models: the door between `depth/` and `cache/`.

Importing this file imports neither torch nor numpy, so that listing and deleting stay quick.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.errors import DepthmapError, WrongCheckpoint
from depth.models import MODELS, Model

if TYPE_CHECKING:
    import torch
    from torch import nn

    from cache.artefacts import Maker
    from cache.hub import ProgressCallback
    from cache.manager import ModelManager
    from cache.records import Checkpoint

BUNDLED = Path(__file__).parent / "weights"


def manager(directory: str | Path | None = None) -> ModelManager:
    """The cache for this project's models, in its default directory if None. Imports no torch."""
    from cache.manager import ModelManager

    checkpoints = [_checkpoint(model) for model in MODELS if not model.bundled]
    return ModelManager(checkpoints, None if directory is None else Path(directory), maker=maker())


def maker() -> Maker:
    """Who makes compiled networks, as the cache sees it."""
    from cache.artefacts import Maker

    return Maker({model.name: BUNDLED / model.bundled for model in MODELS if model.bundled}, _is_current)


def tensors(model: Model, weights: str | Path | None = None, cache: ModelManager | None = None, *,
            progress: ProgressCallback | None = None, cancel: threading.Event | None = None,
            offline: bool | None = None) -> tuple[dict[str, torch.Tensor], str]:
    """The model's tensors and where they came from: the user's own file, the bundled one, or the cache."""
    if weights is None and not model.bundled:
        opened = (cache or manager()).open(model.name, progress=progress, cancel=cancel, offline=offline)
        return opened.tensors, opened.source
    from cache.formats import read

    path = Path(weights) if weights is not None else BUNDLED / model.bundled
    found, _ = read(path)
    return found, path.name if weights is not None else "bundled"


def digest(model: Model, cache: ModelManager) -> str | None:
    """A digest of the tensors that would be opened, without opening them; None if there are none yet.

    It is the same for every format that they are cached in.
    """
    return cache.store.folder(model.name).digest()


def use(model: Model, cache: ModelManager) -> None:
    """Note that the model is in use, where its weights are not opened for it."""
    from cache import notebook

    if not model.bundled:
        notebook.use(cache.store.folder(model.name).path)


def network(model: Model, tensors: dict[str, torch.Tensor], where: str | None = None) -> nn.Module:
    """The network with these tensors, ready to run. Raises WrongCheckpoint, which names `where`."""
    from depth.networks import checkpoints

    return _translated(model, lambda: checkpoints.load(model, tensors), where)


def _checkpoint(model: Model) -> Checkpoint:
    """The model as the cache sees it; torch is imported when a function of it is called."""
    from cache.records import Checkpoint

    def to_official(tensors):
        from depth.networks import checkpoints

        return _translated(model, lambda: checkpoints.to_official(model, tensors))

    def schema():
        from depth.networks import checkpoints

        return checkpoints.schema(model)

    return Checkpoint(model.name, model.aliases, model.sources, to_official, schema)


def _translated(model: Model, work: Callable, where: str | None = None) -> Any:
    """What `work` returns; the networks' own error becomes one of the project's tree."""
    from depth.networks.checkpoints import CheckpointError

    try:
        return work()
    except CheckpointError as error:
        raise WrongCheckpoint(f"These weights do not fit {model.name}.", where=where, got=str(error).rstrip("."),
                              next_step="Name the model they were made for, or choose another file.") from error


def _is_current(facts, digest: str | None) -> bool:
    """Would a compiled network of these facts be loaded now? (For the cache, which knows no networks.)"""
    from depth import compiled

    try:
        return compiled.is_current(facts, digest)
    except (DepthmapError, KeyError, TypeError):
        return False
