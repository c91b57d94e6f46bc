"""The networks: tensors in, tensors out. `build` makes one from its row, `checkpoints` gives it its weights.

Nothing here reads a file, prints, chooses a device or draws a random number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

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


def build(model: Model) -> torch.nn.Module:
    """The model's network in eval mode on the meta device: shapes without memory, no weights yet.

    Takes normalised pictures N, 3, h, w (float) and gives relative inverse depth N, h, w (no unit, larger
    is nearer). Call `checkpoints.load` for one with weights.
    """
    with torch.device("meta"):
        network = FAMILIES[model.family](size=model.size, **model.network)
    return network.eval()
