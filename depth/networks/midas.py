"""The convolutional networks: MiDaS v2.1, its small version, and our bundled Tiny of the same design.

Paper: "Towards Robust Monocular Depth Estimation" (arXiv:1907.01341). Original: `midas/midas_net.py`,
`midas/midas_net_custom.py` and `midas/blocks.py` of https://github.com/isl-org/MiDaS (MIT). What we do
differently stands in `decoder.py`. Tiny is MiDaS_small's decoder at half the width on a newer encoder.
"""

from __future__ import annotations

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
    return DepthNetwork(encoders.mobilenet(backbone), _widening_decoder(features, width, head))


def _widening_decoder(features: tuple[int, ...], width: int, head: int) -> Decoder:
    """Twice the width at each deeper level; every fusion block but the last halves it again."""
    widths = tuple(width << level for level in range(4))
    return Decoder(features, widths, (width, *widths[:3]), (width, width // 2, head), head_align_corners=False)
