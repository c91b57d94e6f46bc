"""The networks: tensors in, tensors out. `build` makes one from its row, `checkpoints` gives it its weights.

Nothing here reads a file, prints, chooses a device or draws a random number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.overrides import TorchFunctionMode

from depth.meta_kernels import arrive, unneeded
from depth.networks import dpt, midas

if TYPE_CHECKING:
    from depth.models import Model

FAMILIES = {
    "vit": dpt.vit,
    "vit_hybrid": dpt.vit_hybrid,
    "beit": dpt.beit,
    "swin": dpt.swin,
    "swinv2": dpt.swin,
    "nextvit": dpt.nextvit,
    "levit": dpt.levit,
    "resnext": midas.resnext,
    "efficientnet": midas.efficientnet,
    "tiny": midas.tiny,
}


class OnMeta(TorchFunctionMode):
    """While it is active, new tensors have shapes but no memory, and nobody fills them.

    As `torch.device("meta")` does it, but there torch still works out every random initialisation, in Python,
    which takes longer than all the rest of building a large network. And who takes a buffer's device for what he
    works out for it (indices and masks, which `checkpoints` works out again) does so on the CPU: arithmetic
    without memory makes torch import its compiler, which takes longer than importing torch.
    """

    _makers = frozenset((torch.empty, torch.zeros, torch.ones, torch.full, torch.tensor, torch.arange, torch.linspace,
                         torch.rand, torch.randn, torch.eye))
    _fillers = frozenset(("kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "normal_", "uniform_", "erfinv_",
                          "mul_", "add_", "div_", "clamp_", "fill_", "zero_", "copy_"))

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function.__name__ in self._fillers:
            filled = args[0] if args else kwargs["tensor"]
            if filled.is_meta:
                return filled
        elif function in self._makers:
            kwargs["device"] = "meta" if kwargs.get("device") is None else "cpu"
        return function(*args, **kwargs)


def build(model: Model) -> torch.nn.Module:
    """The model's network in eval mode on the meta device: shapes without memory, no weights yet.

    Takes normalised pictures N, 3, h, w (float) and gives relative inverse depth N, h, w (no unit, larger
    is nearer). Call `checkpoints.load` for one with weights: until then, alike blocks may share their tensors.
    """
    network = outline(model)
    arrive()
    return network


def outline(model: Model) -> torch.nn.Module:
    """As `build`, for who only looks at its tensors and replaces them: torch's meta kernels may go on waiting."""
    try:
        with unneeded():
            return _built(model)
    except NotImplementedError:  # another timm, which works something out where there is no memory
        return _built(model)


def _built(model: Model) -> torch.nn.Module:
    with OnMeta():
        network = FAMILIES[model.family](size=model.size, **model.network)
    for module in network.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and not buffer.is_meta:  # worked out, see OnMeta
                module._buffers[name] = buffer.to("meta")
    return network.eval()
