"""The network while it learns on a GPU, written so that the compiler joins all that lies between two convolutions.

torch's own gradient of upsampling adds up with atomic operations, one number at a time. Written as slices it is a loop
like any other, forward and backward. The names and the parameters are those of the network it was made of.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from depth.networks.decoder import Decoder, DepthNetwork
from depth.tuning import EarlyProjection, OneOutput, simplified


def compilable(network: DepthNetwork) -> DepthNetwork:
    """The network itself, simplified (see `depth/tuning.py`) and rewritten."""
    decoder: Decoder = simplified(network).scratch
    for level in range(1, decoder.levels + 1):
        decoder.set_submodule(f"refinenet{level}", DoublingFusion(decoder.get_submodule(f"refinenet{level}")))
    head = decoder.output_conv
    head[1] = Doubling(head[1].align_corners)
    head[4] = WeightedSum(head[4])
    return network


class DoublingFusion(EarlyProjection):
    """A fusion block of which the compiler sees how it upsamples."""

    def __init__(self, block: EarlyProjection):
        super().__init__(block, doubles=True)

    def forward(self, path: torch.Tensor, skip: torch.Tensor | None, size: tuple[int, int]) -> torch.Tensor:
        return doubled(self.out_conv(self.fused(path, skip)), align_corners=True)


class Doubling(nn.Module):
    """`nn.Upsample(scale_factor=2, mode="bilinear")`."""

    def __init__(self, align_corners: bool):
        super().__init__()
        self.align_corners = align_corners

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return doubled(x, self.align_corners)


class WeightedSum(OneOutput):
    """A 1x1 convolution to one channel as a sum, which joins the loop before it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.weight).sum(1, keepdim=True) + self.bias


def doubled(x: torch.Tensor, align_corners: bool) -> torch.Tensor:
    """Bilinear upsampling to twice the size; B, C, h, w to B, C, 2h, 2w, channels last."""
    x = x.permute(0, 2, 3, 1)
    return _lengthened(_lengthened(x, 1, align_corners), 2, align_corners).permute(0, 3, 1, 2)


def _lengthened(x: torch.Tensor, dim: int, align_corners: bool) -> torch.Tensor:
    """Linear upsampling to twice the length n along `dim`.

    The new place 2i lies between the old i - 1 and i, and 2i + 1 between i and i + 1.
    """
    n, behind = x.shape[dim], x.dim() - dim - 1
    place = torch.arange(n, device=x.device).view(n, *[1] * behind)
    if align_corners:
        earlier, later = place / (2 * n - 1), (n - 1 - place) / (2 * n - 1)
    else:
        earlier, later = torch.where(place > 0, 0.25, 0.0), torch.where(place < n - 1, 0.25, 0.0)
    padded = F.pad(x, (0, 0) * behind + (1, 1))
    before, after = padded.narrow(dim, 0, n), padded.narrow(dim, 2, n)
    halves = torch.stack((x + earlier * (before - x), x + later * (after - x)), dim + 1)
    return halves.flatten(dim, dim + 1).to(x.dtype)
