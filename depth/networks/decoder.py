"""What the MiDaS and DPT decoders share: residual unit, fusion block, head, reassembly, and the network.

Papers: "Towards Robust Monocular Depth Estimation" (arXiv:1907.01341) and "Vision Transformers for Dense
Prediction" (arXiv:2103.13413). Original: `midas/blocks.py` and `midas/backbones/utils.py` of
https://github.com/isl-org/MiDaS (MIT). Attribute names are those of the published checkpoints.

What we do differently: one decoder serves both families. The original scales MiDaS's maps by two and DPT's
to the size of the next skip connection; for inputs that are multiples of 32 both are the same size, so the
skip's size is always used. The residual unit that never receives an input (the first one of the deepest
fusion block) is not built, and nothing is done in place.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

MULTIPLE = 32  # every encoder halves its input five times, or works on a grid of 16 halved once more


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions on the rectified input, added to the input; B, C, h, w in and out.

    `rectified_skip` adds the rectified input instead. MiDaS v2.1 was trained that way, because its first
    ReLU worked in place and so changed the residual as well.
    """

    def __init__(self, width: int, rectified_skip: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.rectified_skip = rectified_skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rectified = F.relu(x)
        skip = rectified if self.rectified_skip else x
        return self.conv2(F.relu(self.conv1(rectified))) + skip


class FusionBlock(nn.Module):
    """Adds a skip connection to the deeper path, refines and upsamples it.

    `out` None leaves away the closing 1x1 convolution (MiDaS v2.1); `has_skip` is False in the deepest block.
    """

    def __init__(self, width: int, out: int | None, *, has_skip: bool = True, rectified_skip: bool = False):
        super().__init__()
        if has_skip:
            self.resConfUnit1 = ResidualUnit(width, rectified_skip)
        self.resConfUnit2 = ResidualUnit(width, rectified_skip)
        self.out_conv = nn.Identity() if out is None else nn.Conv2d(width, out, 1)

    def forward(self, path: torch.Tensor, skip: torch.Tensor | None, size: tuple[int, int]) -> torch.Tensor:
        path = F.interpolate(self.fused(path, skip), size=size, mode="bilinear", align_corners=True)
        return self.out_conv(path)

    def fused(self, path: torch.Tensor, skip: torch.Tensor | None) -> torch.Tensor:
        """The path with its skip connection, refined, as large as it came."""
        if skip is not None:
            path = path + self.resConfUnit1(skip)
        return self.resConfUnit2(path)


class Decoder(nn.Module):
    """Encoder features, shallow to deep, in; relative inverse depth B, h, w, never negative, out.

    `features` and `widths` are the channels of each level before and after `layerN_rn`, `outs` those after
    each fusion block; `head` the three widths of the last convolutions. `stem` stands before the head.
    """

    def __init__(self, features: tuple[int, ...], widths: tuple[int, ...], outs: tuple[int | None, ...],
                 head: tuple[int, int, int], *, head_align_corners: bool, rectified_skip: bool = False,
                 stem: nn.Module | None = None):
        super().__init__()
        self.levels = len(features)
        for level, (channels, width, out) in enumerate(zip(features, widths, outs, strict=True), start=1):
            self.add_module(f"layer{level}_rn", nn.Conv2d(channels, width, 3, padding=1, bias=False))
            self.add_module(f"refinenet{level}", FusionBlock(
                width, out, has_skip=level < self.levels, rectified_skip=rectified_skip))
        self.stem_transpose = stem if stem is not None else nn.Identity()
        self.output_conv = _head(*head, align_corners=head_align_corners)

    def forward(self, features: tuple[torch.Tensor, ...]) -> torch.Tensor:
        skips = [self.get_submodule(f"layer{level}_rn")(x) for level, x in enumerate(features, start=1)]
        path = None
        for level in range(self.levels, 0, -1):
            size = _larger(skips[0]) if level == 1 else skips[level - 2].shape[-2:]
            fuse = self.get_submodule(f"refinenet{level}")
            skip = skips[level - 1]
            path = fuse(skip, None, size) if path is None else fuse(path, skip, size)
        return self.output_conv(self.stem_transpose(path)).squeeze(1)  # B, 1, h, w -> B, h, w


def _larger(x: torch.Tensor) -> tuple[int, int]:
    return 2 * x.shape[-2], 2 * x.shape[-1]


def _head(width: int, middle: int, last: int, *, align_corners: bool) -> nn.Sequential:
    """The closing convolutions. The indices are part of the checkpoint's names."""
    return nn.Sequential(
        nn.Conv2d(width, middle, 3, padding=1),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=align_corners),
        nn.Conv2d(middle, last, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(last, 1, 1),
        nn.ReLU(),
    )


class Readout(nn.Module):
    """Joins the class token to every other token: B, 1+n, C -> B, n, C."""

    def __init__(self, width: int):
        super().__init__()
        self.project = nn.Sequential(nn.Linear(2 * width, width), nn.GELU())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        patches = tokens[:, 1:]
        readout = tokens[:, :1].expand_as(patches)
        return self.project(torch.cat((patches, readout), dim=-1))


class Reassemble(nn.Sequential):
    """Tokens B, 1+h*w, C back to a picture-like map at 4, 2, 1 or 1/2 times the grid (level 1 to 4).

    Places 1 and 2 are empty: the original transposes and unflattens there, and the checkpoint counts them.
    """

    def __init__(self, tokens: int, width: int, level: int):
        resize = {
            1: [nn.ConvTranspose2d(width, width, 4, stride=4)],
            2: [nn.ConvTranspose2d(width, width, 2, stride=2)],
            3: [],
            4: [nn.Conv2d(width, width, 3, stride=2, padding=1)],
        }[level]
        super().__init__(Readout(tokens), nn.Identity(), nn.Identity(), nn.Conv2d(tokens, width, 1), *resize)

    def forward(self, tokens: torch.Tensor, h: int, w: int) -> torch.Tensor:
        readout, _, _, *convolutions = self
        x = readout(tokens).transpose(1, 2).unflatten(2, (h, w))  # B, n, C -> B, C, h, w
        for convolution in convolutions:
            x = convolution(x)
        return x


class DepthNetwork(nn.Module):
    """Normalised pictures B, 3, h, w in; relative inverse depth B, h, w out: no unit, larger is nearer.

    `side` is the only height and width the encoder can take, or None: then any multiples of 32.
    Raises ValueError for other sizes.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, side: int | None = None):
        super().__init__()
        self.pretrained = encoder
        self.scratch = decoder
        self.side = side

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._check(*x.shape[-2:])
        return self.scratch(self.pretrained(x))

    def _check(self, h: int, w: int) -> None:
        if self.side is not None and (h != self.side or w != self.side):
            raise ValueError(f"This network takes {self.side}x{self.side} pictures only, got {h}x{w}. "
                             "Resize the picture to that square first.")
        if h % MULTIPLE or w % MULTIPLE:
            raise ValueError(f"Height and width must be multiples of {MULTIPLE}, got {h}x{w}.")
