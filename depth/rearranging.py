"""A network rearranged for the compiler: the same sums in an order that takes less work.

    upsampling, then a 3x3 convolution   That is nine 1x1 convolutions, shifted and added up. A 1x1 convolution commutes
                                         with upsampling, and before it there are a quarter of the pixels.
    readout                              The class token is the same beside all patches: its product is made once.
    convolutions of few pixels           Products of gathered pixels and the weights as they lie. oneDNN's convolution
                                         would put the weights into an order of its own first, at each call.
    layer norms                          Sums, and what is done with them, in one loop over the rows. As torch takes
                                         them apart all threads wait for each other after each sum.
    3x3 convolutions of many pixels      Winograd's minimal filtering: sixteen outputs take 36 products instead of 144.
                                         Where MKL's products are not the fastest it gains too little.

Exact but for rounding. It pays because the compiler joins what stands between two products to one loop, so
networks that are not compiled do without. Parameters are neither changed nor copied: compiled code finds them in
the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from depth.networks.decoder import Decoder, Readout, Reassemble
from depth.tuning import EarlyProjection, mkl_pays, product, replace

SHIFTS = (-1, 0, 1)  # of a 3x3 convolution
TILE, WIDE = 4, 256  # of minimal filtering: outputs in height and in width, and channels from which it pays


class UpsampledConv(nn.Module):
    """Bilinear upsampling to twice the size, then a 3x3 convolution with padding 1; B, C, h, w to B, O, 2h, 2w."""

    def __init__(self, convolution: nn.Conv2d, align_corners: bool):
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.align_corners = align_corners
        self.training = convolution.training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        nine = self.weight.permute(2, 3, 0, 1).flatten(0, 2)  # 9 O, C
        h = x.shape[2]
        # Rows go as a batch: of a batch of one the convolution cannot tell the order of its pixels, and copies them.
        rows = x.permute(0, 2, 3, 1).flatten(0, 1).unsqueeze(1).permute(0, 3, 1, 2)  # B h, C, 1, w
        x = F.conv2d(rows, nine[:, :, None, None]).permute(0, 2, 3, 1).contiguous()
        x = x.flatten(0, 1).unflatten(0, (-1, h))  # B, h, w, 9 O
        x = x.unflatten(3, (len(SHIFTS), len(SHIFTS), -1))  # B, h, w, 3 down, 3 across, O
        # Five dimensions all along: four before a convolution the compiler would put into an order of its own.
        x = _twice([x[:, :, :, :, across] for across in range(len(SHIFTS))], 2, self.align_corners)
        x = _twice(x.split(1, dim=3), 1, self.align_corners, self.bias)  # B, 2h, 2w, 1, O
        return x.squeeze(3).permute(0, 3, 1, 2)


def _twice(shifted: Sequence[torch.Tensor], dim: int, align_corners: bool,
           start: torch.Tensor | float = 0.0) -> torch.Tensor:
    """Each tensor linearly upsampled to twice its length n along `dim` and moved by its shift, all added to `start`.

    What is moved in from beyond the border is zero. The new place 2i lies between the old i - 1 and i, and 2i + 1
    between i and i + 1, so of each tensor the even and the odd places are sums of two slices.
    """
    n, behind = shifted[0].shape[dim], shifted[0].dim() - dim - 1
    places = torch.arange(n).view(n, *[1] * behind)
    padded = [F.pad(x, (0, 0) * behind + (1, 1)) for x in shifted]
    halves = []
    for odd in (0, 1):
        half = start
        for shift, x in zip(SHIFTS, padded, strict=True):
            step, lies_odd = divmod(odd + shift, 2)
            place = places + step  # the new place, moved, is 2 * place + lies_odd
            share = _share(place, n, lies_odd, align_corners)
            inside = ((place >= 0) & (place < n)).float() if step else 1.0
            first = step + lies_odd
            half = half + (x.narrow(dim, first, n) * ((1 - share) * inside)
                           + x.narrow(dim, first + 1, n) * (share * inside))
        halves.append(half)
    return torch.stack(halves, dim + 1).flatten(dim, dim + 1)


def _share(place: torch.Tensor, n: int, odd: int, align_corners: bool) -> torch.Tensor:
    """How much of the later one of its two old places the new place 2 * `place` + `odd` has; all of the only one."""
    if align_corners:
        return (n - 1 - place if odd else 2 * n - 1 - place) / (2 * n - 1)
    return torch.where(place < n - 1, 0.25, 0.0) if odd else torch.where(place > 0, 0.75, 1.0)


class MinimalConv(nn.Module):
    """A 3x3 convolution with padding 1 by minimal filtering F(4x4, 3x3); B, C, h, w to B, O, h, w.

    Height and width are multiples of four. Pixels and filters are transformed, multiplied as 36 pairs of matrices,
    and the sums transformed back: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks"
    (arXiv:1509.09308), with the points 0, 1, -1, 2, -2 and infinity.
    """

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.training = convolution.training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, _, h, w = x.shape
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # B, h + 2, w + 2, C
        # Of each window of six pixels the first, the second, ...; across, then down. Windows lie four apart.
        x = torch.stack(_of_pixels(*(x[:, :, j:j + w - TILE + 1:TILE] for j in range(6))))  # 6, B, h + 2, w / 4, C
        x = torch.stack(_of_pixels(*(x[:, :, i:i + h - TILE + 1:TILE] for i in range(6))))  # 6, 6, B, h / 4, w / 4, C
        filters = torch.stack(_of_filters(*self.weight.permute(2, 3, 0, 1)))  # 6, 3, O, C
        filters = torch.stack(_of_filters(*filters.unbind(1)), 1)  # 6, 6, O, C
        x = torch.bmm(x.flatten(2, 4).flatten(0, 1), filters.flatten(0, 1).mT)  # 36, B h / 4 w / 4, O
        x = x.unflatten(1, (n, h // TILE, w // TILE)).unflatten(0, (6, 6))
        x = torch.stack(_of_sums(*x.unbind(1)), 4).flatten(3, 4)  # 6, B, h / 4, w, O
        x = torch.stack(_of_sums(*x), 2).flatten(1, 2)  # B, h, w, O
        return (x if self.bias is None else x + self.bias).permute(0, 3, 1, 2)


def _of_pixels(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor, e: torch.Tensor,
               f: torch.Tensor) -> tuple[torch.Tensor, ...]:
    even, odd, outer, inner = e - 4 * c, d - 4 * b, e - c, 2 * (d - b)
    return 4 * a - 5 * c + e, even + odd, even - odd, outer + inner, outer - inner, 4 * b - 5 * d + f


def _of_filters(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, ...]:
    near, middle, far, half = (a + c) * (-1 / 6), b * (-1 / 6), a * (1 / 24) + c * (1 / 6), b * (1 / 12)
    return a * (1 / 4), near + middle, near - middle, far + half, far - half, c


def _of_sums(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor, e: torch.Tensor,
             f: torch.Tensor) -> tuple[torch.Tensor, ...]:
    near, middle, far, half = b + c, b - c, d + e, d - e
    return a + near + far, middle + 2 * half, near + 4 * far, middle + 8 * half + f


class SplitReadout(nn.Module):
    """`Readout` with the patches' and the class token's half of the product made apart."""

    def __init__(self, readout: Readout):
        super().__init__()
        self.project = readout.project
        self.training = readout.training

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        linear, activation = self.project
        patches, token = linear.weight.chunk(2, dim=1)
        return activation(F.linear(tokens[:, 1:], patches) + F.linear(tokens[:, :1], token, linear.bias))


class RowNorm(nn.Module):
    """`nn.LayerNorm` over the last dimension."""

    def __init__(self, norm: nn.LayerNorm):
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.training = norm.training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        share = 1 / x.shape[-1]
        x = x - x.sum(-1, keepdim=True) * share
        variance = (x * x).sum(-1, keepdim=True) * share
        return x * torch.rsqrt(variance + self.eps) * self.weight + self.bias


class GatheredConv(nn.Module):
    """A convolution as a product of gathered pixels and the weights as they lie; B, C, h, w to B, O, h', w'."""

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.kernel, self.stride, self.padding = (
            convolution.kernel_size[0], convolution.stride[0], convolution.padding[0])
        self.training = convolution.training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.pad(x, (self.padding,) * 4).unfold(2, self.kernel, self.stride).unfold(3, self.kernel, self.stride)
        h, w = x.shape[2:4]
        x = x.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)  # B, h w, C k k
        x = product(x, self.weight.flatten(1), self.bias)
        return x.transpose(1, 2).unflatten(2, (h, w))


class Unenlarged(EarlyProjection):
    """A fusion block that leaves the upsampling to the convolution behind it."""

    def __init__(self, block: EarlyProjection):
        super().__init__(block, doubles=True)

    def forward(self, path: torch.Tensor, skip: torch.Tensor | None, size: tuple[int, int]) -> torch.Tensor:
        return self.out_conv(self.fused(path, skip))


def rearranged(network: nn.Module) -> nn.Module:
    """The simplified network itself (see `tuning.py`), rearranged."""
    for name, module in list(network.named_modules()):
        if isinstance(module, Decoder):
            _rearrange_decoder(module)
        elif isinstance(module, Reassemble):
            replace(module, lambda child: type(child) is nn.Conv2d, GatheredConv)
        elif name.endswith("patch_embed"):
            replace(module, _takes_patches, GatheredConv)
    replace(network, lambda module: type(module) is Readout, SplitReadout)
    replace(network, _normalizes_rows, RowNorm)
    return network


def _rearrange_decoder(decoder: Decoder) -> None:
    head = decoder.output_conv
    if isinstance(decoder.stem_transpose, nn.Identity):  # else the picture's quarter is no multiple of four
        decoder.refinenet1 = Unenlarged(decoder.refinenet1)
        head[0] = UpsampledConv(head[0], align_corners=True)
        if mkl_pays():
            _filter_minimally(decoder)
    head[2] = UpsampledConv(head[2], head[1].align_corners)
    head[1] = nn.Identity()


def _filter_minimally(decoder: Decoder) -> None:
    """In the largest level, whose sides are a quarter of the picture's: smaller ones hardly repay their compiling."""
    level = {*decoder.layer1_rn.modules(), *decoder.refinenet1.modules()}
    replace(decoder, lambda module: module in level and _is_wide(module), MinimalConv)


def _is_wide(module: nn.Module) -> bool:
    """Is it a 3x3 convolution whose products take longer than the transformations around them?"""
    return type(module) is nn.Conv2d and module.kernel_size == (3, 3) and module.out_channels >= WIDE


def _normalizes_rows(module: nn.Module) -> bool:
    """Is it torch's layer norm over the last dimension, or timm's of that name? timm's LayerNorm2d is another one."""
    return (isinstance(module, nn.LayerNorm) and type(module).__name__ == "LayerNorm"
            and len(module.normalized_shape) == 1 and module.bias is not None)


def _takes_patches(module: nn.Module) -> bool:
    """Is it a convolution of patches that neither overlap nor leave anything out?"""
    kernel = module.kernel_size if type(module) is nn.Conv2d else ()
    return kernel == getattr(module, "stride", None) and max(kernel) > 1
