"""The convolutional networks: MiDaS v2.1, its small version, and our bundled Tiny of the same design.

Paper: "Towards Robust Monocular Depth Estimation" (arXiv:1907.01341). Original: `midas/midas_net.py`,
`midas/midas_net_custom.py` and `midas/blocks.py` of https://github.com/isl-org/MiDaS (MIT). What we do
differently stands in `decoder.py`. Tiny is MiDaS_small's decoder at half the width on a newer encoder,
its two deepest levels are told where in the picture they are, and it looks at each picture in the mirror too.
"""

from __future__ import annotations

import torch

from depth.networks import encoders
from depth.networks.decoder import Decoder, DepthNetwork


def resnext(*, size: int, backbone: str, features: tuple[int, ...], width: int) -> DepthNetwork:
    """MiDaS v2.1: equal widths, no closing convolution in the fusion blocks, rectified residuals."""
    decoder = Decoder(features, (width,) * 4, (None,) * 4, (width, width // 2, 32),
                      head_align_corners=False, rectified_skip=True)
    return DepthNetwork(encoders.resnext(backbone), decoder)


def efficientnet(*, size: int, backbone: str, features: tuple[int, ...], width: int,
                 head: int) -> DepthNetwork:
    return DepthNetwork(encoders.efficientnet(backbone), _widening_decoder(features, width, head))


def tiny(*, size: int, backbone: str, features: tuple[int, ...], width: int, head: int) -> DepthNetwork:
    told = (*features[:2], *(channels + 2 for channels in features[2:]))
    return PlacedNetwork(encoders.mobilenet(backbone), _widening_decoder(told, width, head))


class PlacedNetwork(DepthNetwork):
    """A depth network whose two deepest feature maps carry their rows and columns as two more channels.

    That lower is nearer and that a corridor's middle is far would otherwise have to be learnt from the padding.
    Outside training it gives the mean of its depth of the picture and of the mirrored picture: part of what it
    gets wrong differs between the two.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._check(*x.shape[-2:])
        if self.training:
            return self._once(x)
        plain, mirrored = self._once(torch.cat((x, x.flip(-1)))).unflatten(0, (2, -1))
        return (plain + mirrored.flip(-1)) / 2

    def _once(self, x: torch.Tensor) -> torch.Tensor:
        *shallow, third, deepest = self.pretrained(x)
        return self.scratch((*shallow, _with_place(third), _with_place(deepest)))


def _with_place(x: torch.Tensor) -> torch.Tensor:
    """Append the row and the column of each pixel's centre, -1 to 1: B, C, h, w -> B, C+2, h, w."""
    batch, _, h, w = x.shape
    rows = (torch.arange(h, device=x.device, dtype=x.dtype) * 2 + 1) / h - 1
    columns = (torch.arange(w, device=x.device, dtype=x.dtype) * 2 + 1) / w - 1
    place = torch.stack((rows[:, None].expand(h, w), columns[None, :].expand(h, w)))  # 2, h, w
    return torch.cat((x, place.expand(batch, 2, h, w)), dim=1)


def _widening_decoder(features: tuple[int, ...], width: int, head: int) -> Decoder:
    """Twice the width at each deeper level; every fusion block but the last halves it again."""
    widths = tuple(width << level for level in range(4))
    return Decoder(features, widths, (width, *widths[:3]), (width, width // 2, head), head_align_corners=False)
