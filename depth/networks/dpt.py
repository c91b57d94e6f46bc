"""The DPT networks of MiDaS 3.0 and 3.1: a transformer encoder and the convolutional decoder of width 256.

Papers: "Vision Transformers for Dense Prediction" (arXiv:2103.13413), "MiDaS v3.1" (arXiv:2307.14460).
Original: `midas/dpt_depth.py`, `midas/blocks.py` and `midas/backbones/levit.py` of
https://github.com/isl-org/MiDaS (MIT). What we do differently stands in `decoder.py` and `encoders.py`.
"""

from __future__ import annotations

from torch import nn

from depth.networks import encoders
from depth.networks.decoder import Decoder, DepthNetwork

WIDTH = 256


def vit(*, size: int, backbone: str, hooks: tuple[int, ...], features: tuple[int, ...]) -> DepthNetwork:
    return DepthNetwork(encoders.VitEncoder(backbone, hooks, features), _decoder(features))


def vit_hybrid(*, size: int, backbone: str, hooks: tuple[int, ...],
               features: tuple[int, ...]) -> DepthNetwork:
    return DepthNetwork(encoders.HybridEncoder(backbone, hooks, features), _decoder(features))


def beit(*, size: int, backbone: str, hooks: tuple[int, ...], features: tuple[int, ...]) -> DepthNetwork:
    return DepthNetwork(encoders.BeitEncoder(backbone, hooks, features), _decoder(features))


def swin(*, size: int, backbone: str, features: tuple[int, ...]) -> DepthNetwork:
    """Swin and Swin V2: both take one square size only, whatever the picture's shape."""
    return DepthNetwork(encoders.SwinEncoder(backbone), _decoder(features), side=size)


def nextvit(*, size: int, backbone: str, features: tuple[int, ...]) -> DepthNetwork:
    return DepthNetwork(encoders.NextVitEncoder(backbone), _decoder(features))


def levit(*, size: int, backbone: str, features: tuple[int, ...]) -> DepthNetwork:
    """LeViT stops at an eighth of the size of the others, so two transposed convolutions follow the fusion."""
    stem = nn.Sequential(_TransposedConv(WIDTH, WIDTH // 2), nn.Hardswish(),
                         _TransposedConv(WIDTH // 2, WIDTH // 4), nn.Hardswish())
    decoder = _decoder(features, head=(64, 32, 8), stem=stem)
    return DepthNetwork(encoders.LevitEncoder(backbone), decoder, side=size)


def _decoder(features: tuple[int, ...], head: tuple[int, int, int] = (WIDTH, 128, 32),
             stem: nn.Module | None = None) -> Decoder:
    widths = (WIDTH,) * len(features)
    return Decoder(features, widths, widths, head, head_align_corners=True, stem=stem)


class _TransposedConv(nn.Sequential):
    """Twice the size. The original hands its dilation of 1 over in the place of `output_padding`."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.c = nn.ConvTranspose2d(channels, out, 3, stride=2, padding=1, output_padding=1, bias=False)
        self.bn = nn.BatchNorm2d(out)
