"""Published checkpoints to ready networks: strict checks, and loading without a second copy.

Two layouts are read. *Official*: the state dicts released with https://github.com/isl-org/MiDaS (MIT),
also inside `{"model": ..., "optimizer": ...}`. *Transformers*: Intel's conversions, which map back without
loss. What the tensors are called in each stands in `keys.py`.

Floats of any precision are accepted, because exports may be half precision, and held as float32. Index
tables and masks that follow from the architecture are never taken from a file: they are computed again.
What we do differently from the original: the network is built without memory and takes the file's tensors
as they are, so memory-mapped ones stay shared, and nothing is initialised only to be overwritten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from depth.networks import keys, outline

if TYPE_CHECKING:
    from depth.models import Model

Tensors = Mapping[str, torch.Tensor]
Schema = dict[str, tuple[tuple[int, ...], str]]
COUNTER = "num_batches_tracked"


class CheckpointError(ValueError):
    """Well-formed tensors that are not this model's."""


def schema(model: Model) -> Schema:
    """Official key -> (shape, dtype name) of every tensor the network needs.

    A file may hold more: see `keys.DROPPED`.
    """
    return {keys.official_key(model.family, key): (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for key, tensor in outline(model).state_dict().items()}


def load(model: Model, tensors: Tensors) -> nn.Module:
    """The ready network on the CPU, in eval mode, without gradients, sharing memory with float32 `tensors`.

    Raises CheckpointError when the tensors are not this model's.
    """
    network = outline(model)
    places, computing = _places(network)
    for key, tensor in _adapted(model, {key: place.like for key, place in places.items()}, tensors).items():
        places[key].put(tensor)
    _recompute_buffers(computing)
    _refuse_meta(network)
    return network


def adapt(model: Model, tensors: Tensors) -> dict[str, torch.Tensor]:
    """The tensors under our network's own keys, as float32 and int64, without those it does not use.

    Raises CheckpointError for a missing or unknown key, a wrong shape or a wrong kind of number.
    """
    return _adapted(model, outline(model).state_dict(), tensors)


def to_official(model: Model, tensors: Tensors) -> dict[str, torch.Tensor]:
    """The tensors in the official layout: unchanged if they are, renamed and joined from transformers.

    What an official file holds beyond the network's needs stays in it. Raises CheckpointError as `adapt`.
    """
    own = outline(model).state_dict()
    official = _official(model, [keys.official_key(model.family, key) for key in own], tensors)
    _adapted(model, own, official)
    return official


def _adapted(model: Model, own: Tensors, tensors: Tensors) -> dict[str, torch.Tensor]:
    """The tensors under the keys of the network's `own`, each checked against its own."""
    names = {key: keys.official_key(model.family, key) for key in own}
    official = _official(model, list(names.values()), tensors)
    return {key: _checked(model, names[key], official, like) for key, like in own.items()}


def _official(model: Model, needs: list[str], tensors: Tensors) -> dict[str, torch.Tensor]:
    """The tensors in the official layout, with every key of `needs` and no key that nobody knows."""
    tensors = _unwrap(tensors)
    if keys.in_transformers_layout(tensors):
        return _from_transformers(model, needs, tensors)
    _refuse_unknown(model, "official", tensors, set(needs))
    tensors = _with_counters(tensors, needs)
    _refuse_missing(model, tensors, needs)
    return dict(tensors)


def _unwrap(tensors: Mapping) -> Tensors:
    """The state dict itself: training checkpoints hold it under "model" beside the optimizer's state."""
    inner = tensors.get("model")
    tensors = inner if isinstance(inner, Mapping) else tensors
    strangers = [str(key) for key, value in tensors.items() if not isinstance(value, torch.Tensor)]
    if strangers:
        raise CheckpointError(f"A state dict holds tensors only, but {_some(strangers)} are none.")
    return tensors


def _from_transformers(model: Model, needs: list[str], tensors: Tensors) -> dict[str, torch.Tensor]:
    """Official key -> tensor. Joining query, key and value copies them; everything else is shared."""
    if not keys.has_transformers_layout(model.family):
        raise CheckpointError(f"{model.name} has no transformers layout, but the file is in it."
                              f"{_belongs(model, tensors)}")
    sources = {name: keys.transformers_keys(model.family, name) for name in needs}
    used = {source for group in sources.values() for source in group}
    _refuse_unknown(model, "transformers", tensors, used)
    _refuse_missing(model, tensors, used)
    return {name: tensors[group[0]] if len(group) == 1 else torch.cat([tensors[key] for key in group])
            for name, group in sources.items()}


def _with_counters(tensors: Tensors, needs: list[str]) -> Tensors:
    """Add the batch counters if the file has none at all: torch wrote none before its batch-norm version 2.

    They count training steps; inference does not read them. A file that has some, or that says it is
    newer, must have all.
    """
    counters = [name for name in needs if name.endswith(COUNTER)]
    versions = [about.get("version") or 0 for about in getattr(tensors, "_metadata", {}).values()]
    if max(versions, default=0) >= 2 or any(name in tensors for name in counters):
        return tensors
    return {**tensors, **{name: torch.zeros((), dtype=torch.int64) for name in counters}}


def _refuse_unknown(model: Model, layout: str, tensors: Tensors, used: set[str]) -> None:
    unknown = [key for key in tensors
               if key not in used and keys.reason_to_drop(model.family, layout, key) is None]
    if unknown:
        raise CheckpointError(f"{model.name} has no place for {_some(unknown)}.{_belongs(model, tensors)}")


def _refuse_missing(model: Model, tensors: Tensors, used: Iterable[str]) -> None:
    missing = [key for key in used if key not in tensors]
    if missing:
        raise CheckpointError(f"{model.name} needs {_some(missing)}, which the file lacks."
                              f"{_belongs(model, tensors)}")


def _checked(model: Model, name: str, official: Tensors, like: torch.Tensor) -> torch.Tensor:
    tensor = official[name]
    if tensor.shape != like.shape:
        raise CheckpointError(f"{name} of {model.name} has shape {tuple(like.shape)}, but in the file "
                              f"{tuple(tensor.shape)}.{_belongs(model, official)}")
    if tensor.is_floating_point() and like.is_floating_point():
        return tensor.to(like.dtype)
    if tensor.dtype != like.dtype:
        raise CheckpointError(f"{name} of {model.name} holds {like.dtype}, but in the file {tensor.dtype}.")
    return tensor


def _belongs(model: Model, tensors: Tensors) -> str:
    name = keys.owner(tensors)
    return f" The file looks like a checkpoint of {name}." if name not in (None, model.name) else ""


def _some(names: list[str]) -> str:
    """A few of the names, sorted, and how many more there are.

    >>> _some(["b", "a", "d", "c", "e"])
    'a, b, c and 2 more'
    """
    first, rest = sorted(names)[:3], len(names) - 3
    return ", ".join(first) + (f" and {rest} more" if rest > 0 else "")


class _Place(NamedTuple):
    """A parameter or buffer of a network that is not filled yet."""

    module: nn.Module
    name: str
    like: torch.Tensor  # on the meta device

    def put(self, tensor: torch.Tensor) -> None:
        if isinstance(self.like, nn.Parameter):
            self.module.register_parameter(self.name, nn.Parameter(tensor, requires_grad=False))
        else:
            self.module.register_buffer(self.name, tensor)


def _places(network: nn.Module) -> tuple[dict[str, _Place], list[nn.Module]]:
    """Where each tensor of the state dict belongs, by its key; and the modules with buffers that are in none.

    With these a large network is filled in half the time of `load_state_dict(assign=True)`, which looks for each
    tensor in each module, and is not needed to compare keys and shapes once more.
    """
    places, computing, left = {}, [], [("", network)]
    while left:
        prefix, module = left.pop()
        left += [(f"{prefix}{name}.", child) for name, child in module.named_children()]
        lost = module._non_persistent_buffers_set
        places |= {f"{prefix}{name}": _Place(module, name, like)
                   for name, like in (*module._parameters.items(), *module._buffers.items())
                   if like is not None and name not in lost}
        if any(module._buffers[name] is not None for name in lost):
            computing.append(module)
    return places, computing


def _recompute_buffers(modules: Iterable[nn.Module]) -> None:
    """Give every buffer that no checkpoint may hold its memory and its value.

    timm computes them in its constructors, which on the meta device computes nothing, and offers
    `init_non_persistent_buffers` to do it again.
    """
    for module in modules:
        for name in module._non_persistent_buffers_set:
            if (buffer := getattr(module, name)) is not None:
                module.register_buffer(name, torch.empty_like(buffer, device="cpu"), persistent=False)
        module.init_non_persistent_buffers()


def _refuse_meta(network: nn.Module) -> None:
    """A tensor left on meta has no value, and a CPU index with one reads garbage without an error."""
    empty = [name for group in (network.named_parameters(), network.named_buffers())
             for name, tensor in group if tensor.is_meta]
    if empty:
        raise RuntimeError(f"The network was built but not filled: {_some(empty)} have no values.")
