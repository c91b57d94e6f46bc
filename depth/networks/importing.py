"""timm, imported so that it works beside every torch, and without torch's compiler.

Both cures are for torchvision, which timm imports for a few functions that no network here calls.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import torch

UTILS = "torch._dynamo.utils"


def declare_operators() -> torch.library.Library:
    """Let torchvision be imported although its compiled part does not fit this torch.

    PyPI's torchvision for Linux is built for CUDA. Beside a CPU torch its extension is not loaded, and
    `import torchvision`, and so `import timm`, dies because it describes two operators that the extension
    would have declared. Declaring them is enough; no model here calls them. The declaration lives as long
    as the returned object.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


@contextmanager
def without_compiler() -> Iterator[None]:
    """While it is active, torchvision and timm are imported without torch's compiler, `torch._dynamo`.

    Importing that takes as long as importing torch itself, and 66 MB. torchvision wants one function of it, for a call
    that may come later, and timm `torch.compiler.disable`, for decorators. The function is looked up when it is
    called, and for the decorator stands torch's own that waits for the first call. Where the compiler is
    loaded already, nothing is done.
    """
    if "torch._dynamo" in sys.modules or _disable is None:
        yield
        return
    at_once = torch.compiler.disable
    sys.modules[UTILS], torch.compiler.disable = _Utils(UTILS), _disable_later
    try:
        yield
    finally:
        torch.compiler.disable = at_once
        _withdraw()


_disable = getattr(getattr(torch, "_compile", None), "_disable_dynamo", None)  # not public


def _disable_later(fn: Callable | None = None, recursive: bool = True, *, reason: str | None = None) -> Callable:
    return _disable(fn, recursive)


class _Utils(ModuleType):
    """In the place of `torch._dynamo.utils`; whoever asks for anything else gets it from the real one."""

    @staticmethod
    def is_compile_supported(device_type: str) -> bool:
        return _real().is_compile_supported(device_type)

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_real(), name)


def _real() -> ModuleType:
    _withdraw()
    return importlib.import_module(UTILS)


def _withdraw() -> None:
    if isinstance(sys.modules.get(UTILS), _Utils):
        del sys.modules[UTILS]
