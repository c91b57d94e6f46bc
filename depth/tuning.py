"""A network's layers replaced by faster ones with the very same parameters. The results stay equal.

Linear layers on CPUs: torch sends them to MKL, which on processors of other makers than Intel leaves half
the vector width unused (measured on one AMD core with AVX-512: 88 against 205 GFLOP/s). oneDNN takes the
same weights as they lie, so a memory-mapped checkpoint stays mapped. Convolutions go through it anyway.

Convolutions with TensorFlow's "same" padding: timm computes the padding from the picture's size at each
call. For the sizes that our networks accept it is a constant, and export with free sizes takes seconds
instead of minutes.
"""

from __future__ import annotations

import platform
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F


class OneDnnLinear(nn.Module):
    """`nn.Linear` through oneDNN, with the very same parameters; float32 on the CPU."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.training = linear.training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


class FixedSameConv(nn.Module):
    """A strided "same" convolution of inputs whose sides are multiples of the stride."""

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.options = {"stride": convolution.stride, "dilation": convolution.dilation, "groups": convolution.groups}
        self.padding = _same_padding(convolution)
        self.training = convolution.training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.pad(x, self.padding), self.weight, self.bias, **self.options)


def _same_padding(convolution: nn.Conv2d) -> tuple[int, int, int, int]:
    """Left, right, top, bottom: as TensorFlow does it, the odd pixel goes to the right and the bottom."""
    down, across = (max(dilation * (kernel - 1) + 1 - stride, 0) for kernel, stride, dilation in
                    zip(convolution.kernel_size, convolution.stride, convolution.dilation, strict=True))
    return across // 2, across - across // 2, down // 2, down - down // 2


def simplified(network: nn.Module) -> nn.Module:
    """The network itself, ready to be exported or run: paddings fixed."""
    _replace(network, lambda module: type(module).__name__ == "Conv2dSame", FixedSameConv)
    return network


def tuned(network: nn.Module) -> nn.Module:
    """The network itself, simplified, and on x86 CPUs in float32 its linear layers through oneDNN."""
    simplified(network)
    first = next(network.parameters(), None)
    if first is not None and first.device.type in ("cpu", "meta") and first.dtype == torch.float32 and _has_onednn():
        _replace(network, lambda module: type(module) is nn.Linear, OneDnnLinear)
    return network


def _has_onednn() -> bool:
    """The operator is torch's own but not public, so it may be gone in another version."""
    return (platform.machine().lower() in {"x86_64", "amd64"} and torch.backends.mkldnn.is_available()
            and hasattr(torch.ops.mkldnn, "_linear_pointwise"))


def _replace(module: nn.Module, wanted: Callable[[nn.Module], bool], substitute: type[nn.Module]) -> None:
    for name, child in module.named_children():
        if wanted(child):
            setattr(module, name, substitute(child))
        else:
            _replace(child, wanted, substitute)
