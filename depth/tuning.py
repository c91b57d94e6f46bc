"""A network's layers replaced by faster ones with the very same parameters. The results stay equal.

Linear layers: torch sends them to MKL, the fastest where it uses the whole vector width, on Intel's processors and
where AVX2 is all there is. But each of its threads puts all weights into an order of its own first. With the outputs in
blocks, a product each, it is only the thread's own share. On other makers' processors with AVX-512 MKL leaves half
the width unused (measured on one AMD core: 88 against 205 GFLOP/s); there oneDNN multiplies. It takes the same weights
as they lie, so a memory-mapped checkpoint stays mapped. Convolutions go through it anyway.

Convolutions and maxima with TensorFlow's "same" padding: timm computes the padding from the picture's size at each
call. For the sizes that our networks accept it is a constant, and export with free sizes takes seconds
instead of minutes.

Fusion blocks: their closing 1x1 convolution may as well come before the upsampling, on a quarter of the
pixels, and where every level is twice the size of the next, saying so lets onnxruntime keep its own layout.
The last convolution of all has one output; engines that compute sixteen at a time waste fifteen.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from depth.networks.decoder import DepthNetwork, FusionBlock

LARGEST_BLOCK, SMALLEST_BLOCK = {"AVX2": 512, "AVX512": 2048}, 128  # outputs of a product, at most and at least
DEEP = 1024  # inputs from which blocks pay


class FastLinear(nn.Module):
    """`nn.Linear` the fastest way on this processor, with the very same parameters; float32 on the CPU."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.training = linear.training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return product(x, self.weight, self.bias)


class FixedSameConv(nn.Module):
    """A strided "same" convolution of inputs whose sides are multiples of the stride."""

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.options = {"stride": convolution.stride, "dilation": convolution.dilation, "groups": convolution.groups}
        self.padding = _same_padding(convolution)
        self.training = convolution.training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.pad(x, self.padding), self.filters(), self.bias, **self.options)

    def filters(self) -> torch.Tensor:
        return self.weight


class FixedSameStandardConv(FixedSameConv):
    """The same of timm's `StdConv2dSame`: each filter is shifted and scaled to mean 0 and deviation 1 as it is used."""

    def __init__(self, convolution: nn.Conv2d):
        super().__init__(convolution)
        self.eps = convolution.eps

    def filters(self) -> torch.Tensor:
        rows = self.weight.flatten(1)[None]  # 1, out, in * kernel
        return F.batch_norm(rows, None, None, training=True, momentum=0.0, eps=self.eps).view_as(self.weight)


class FixedSamePool(nn.Module):
    """A strided "same" maximum of inputs whose sides are multiples of the stride."""

    def __init__(self, pool: nn.MaxPool2d):
        super().__init__()
        self.kernel, self.stride, self.padding = pool.kernel_size, pool.stride, _same_padding(pool)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(F.pad(x, self.padding, value=float("-inf")), self.kernel, self.stride)


class EarlyProjection(FusionBlock):
    """A fusion block that projects before it upsamples: the same, since bilinear weights sum to one.

    `doubles`: what the size comes to is always twice the path's.
    """

    def __init__(self, block: FusionBlock, doubles: bool):
        nn.Module.__init__(self)
        self.doubles = doubles
        for name, child in block.named_children():
            self.add_module(name, child)
        self.training = block.training

    def forward(self, path: torch.Tensor, skip: torch.Tensor | None, size: tuple[int, int]) -> torch.Tensor:
        path = self.out_conv(self.fused(path, skip))
        extent = {"scale_factor": 2.0} if self.doubles else {"size": size}
        return F.interpolate(path, **extent, mode="bilinear", align_corners=True)


class OneOutput(nn.Module):
    """A 1x1 convolution to one channel as a product of a row and a matrix; B, C, h, w to B, 1, h, w."""

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.training = convolution.training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        row = self.weight.flatten(1)  # 1, C
        return (row @ x.flatten(2)).unflatten(2, x.shape[2:]) + self.bias


def _same_padding(layer: nn.Conv2d | nn.MaxPool2d) -> tuple[int, int, int, int]:
    """Left, right, top, bottom: as TensorFlow does it, the odd pixel goes to the right and the bottom."""
    down, across = (max(dilation * (kernel - 1) + 1 - stride, 0) for kernel, stride, dilation in
                    zip(layer.kernel_size, layer.stride, layer.dilation, strict=True))
    return across // 2, across - across // 2, down // 2, down - down // 2


FIXED = {"Conv2dSame": FixedSameConv, "StdConv2dSame": FixedSameStandardConv, "MaxPool2dSame": FixedSamePool}


def simplified(network: DepthNetwork) -> DepthNetwork:
    """The network itself, ready to be exported or run: paddings fixed, no work done twice."""
    replace(network, _pads_anew, lambda module: FIXED[type(module).__name__](module))
    doubles = network.side is None  # networks for one square round where it halves to an odd number
    replace(network, lambda module: type(module) is FusionBlock, partial(EarlyProjection, doubles=doubles))
    replace(network, _has_one_output, OneOutput)
    return network


def _pads_anew(module: nn.Module) -> bool:
    """Is it one of timm's layers that compute their padding at each call?"""
    return type(module).__name__ in FIXED and getattr(module, "same_pad", True)


def _has_one_output(module: nn.Module) -> bool:
    return type(module) is nn.Conv2d and module.out_channels == 1 and module.kernel_size == (1, 1)


def tuned(network: DepthNetwork) -> DepthNetwork:
    """The network itself, simplified, and on CPUs in float32 its linear layers the fastest way."""
    simplified(network)
    first = next(network.parameters(), None)
    if first is not None and first.device.type in ("cpu", "meta") and first.dtype == torch.float32:
        replace(network, lambda module: type(module) is nn.Linear, FastLinear)
    return network


def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`F.linear` the fastest way on this processor; float32 on the CPU."""
    if onednn_pays():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    if mkl_pays() and (count := blocks(*weight.shape, torch.get_num_threads(), LARGEST_BLOCK[vectors()])) > 1:
        return in_blocks(x, weight, bias, count)
    return F.linear(x, weight, bias)


def in_blocks(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, count: int) -> torch.Tensor:
    """`F.linear` as so many products of equally many outputs each."""
    rows, parts = x.reshape(-1, x.shape[-1]), weight.unflatten(0, (count, -1))
    y = torch.bmm(rows.expand(count, *rows.shape), parts.mT).transpose(0, 1)  # rows, count, outputs of a block
    if bias is not None:
        y = y + bias.unflatten(0, (count, -1))
    return y.reshape(*x.shape[:-1], -1)


def blocks(outputs: int, inputs: int, threads: int, largest: int) -> int:
    """The fewest that share the outputs out among the threads, none larger than `largest`; 1 where none do, or in vain.

    They leave the outputs in an order of their own. To put that right costs more than is won unless many inputs
    are added up to each.
    """
    counts = range(threads, outputs // SMALLEST_BLOCK + 1, threads) if inputs >= DEEP else ()
    return next((count for count in counts if outputs % count == 0 and outputs // count <= largest), 1)


def onednn_pays() -> bool:
    """Is its product there, and faster than MKL's? The operator is torch's own but not public, it may go again."""
    return (vectors() == "AVX512" and not mkl_pays() and torch.backends.mkldnn.is_available()
            and hasattr(torch.ops.mkldnn, "_linear_pointwise"))


def mkl_pays() -> bool:
    """Does MKL use the whole vector width here, so that no other products are faster?"""
    return torch.backends.mkl.is_available() and (vectors() == "AVX2" or (vectors() == "AVX512" and _is_intel()))


def vectors() -> str:
    """"DEFAULT", "AVX2" or "AVX512": what torch computes with."""
    return torch.backends.cpu.get_cpu_capability().partition("_")[0]


@lru_cache(maxsize=1)
def _is_intel() -> bool:
    """Is the processor Intel's? MKL asks the same of it."""
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "GenuineIntel" in platform.processor()


def replace(module: nn.Module, wanted: Callable[[nn.Module], bool],
            substitute: Callable[[nn.Module], nn.Module]) -> None:
    """Substitute whatever is wanted below the module."""
    for name, child in module.named_children():
        if wanted(child):
            setattr(module, name, substitute(child))
        else:
            replace(child, wanted, substitute)
