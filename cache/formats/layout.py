"""Where each tensor's bytes lie in a file, and how to map them: shared by all formats.

Every reader first proves its file harmless and so arrives at a list of `Slot`s; mapping them is then
the same for all and costs no copy. The mapping is private: writing to a tensor never reaches the file.
"""

from __future__ import annotations

import hashlib
import math
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from cache.errors import InvalidModelFile
from cache.files import check
from cache.formats.prefault import prefault

if TYPE_CHECKING:
    import torch

# Name in torch -> what numpy calls the same bytes. numpy has no bfloat16; its bits travel as uint16.
DTYPES = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2", "float64": "<f8",
          "int64": "<i8", "int32": "<i4", "int16": "<i2", "int8": "|i1", "uint8": "|u1", "bool": "|b1"}
MAX_TENSORS = 4096  # the largest MiDaS network has 962
MAX_DIMENSIONS = 8
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,254}")


class Slot(NamedTuple):
    """One tensor in a file: little-endian, C-contiguous, from byte `offset` on."""

    name: str
    dtype: str  # a key of DTYPES
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        return math.prod(self.shape) * item_size(self.dtype)


def item_size(dtype: str) -> int:
    return int(DTYPES[dtype][2])


def refuse(reason: str, where: object = None) -> InvalidModelFile:
    """The one error of all readers; `reason` is our own text with bounded pieces of the file."""
    return InvalidModelFile("This file cannot be used as weights.", where=where, got=reason[:300],
                            next_step="Nothing of it was loaded; get the file again from a source you trust.")


def check_slots(slots: Sequence[Slot], size: int) -> None:
    """Raise InvalidModelFile unless the slots are sane, distinct and inside a file of `size` bytes."""
    if not 0 < len(slots) <= MAX_TENSORS:
        raise refuse(f"{len(slots)} tensors")
    if len({slot.name for slot in slots}) != len(slots):
        raise refuse("two tensors of one name")
    total = 0
    for slot in slots:
        if not _KEY.fullmatch(slot.name) or ".." in slot.name:
            raise refuse(f"a tensor named {slot.name[:80]!r}")
        if slot.dtype not in DTYPES:
            raise refuse(f"a tensor of type {slot.dtype[:40]!r}")
        sane = all(type(n) is int and 0 <= n < 1 << 40 for n in slot.shape)
        own = slot.size if sane else 0
        if not sane or len(slot.shape) > MAX_DIMENSIONS or own > size:
            raise refuse(f"an impossible shape for {slot.name[:80]!r}")
        if not 0 <= slot.offset <= size - own:
            raise refuse(f"bytes of {slot.name[:80]!r} outside of the file")
        total += own
    if total > size:
        raise refuse("more tensor bytes than the file holds")


def map_slots(file: BinaryIO, slots: Iterable[Slot]) -> dict[str, torch.Tensor]:
    """The tensors, memory-mapped copy-on-write; the file may be deleted or replaced afterwards."""
    import numpy as np
    import torch

    base = np.memmap(file, dtype=np.uint8, mode="c").view(np.ndarray)  # of which pieces are cut faster
    prefault(file, base)
    tensors = {}
    for slot in slots:
        array = base[slot.offset:slot.offset + slot.size]
        if slot.offset % item_size(slot.dtype):
            array = array.copy()  # torch needs aligned numbers; foreign files need not have them
        array = array.view(DTYPES[slot.dtype]).reshape(slot.shape)
        tensor = torch.from_numpy(array.view(np.int16) if slot.dtype == "bfloat16" else array)
        tensors[slot.name] = tensor.view(torch.bfloat16) if slot.dtype == "bfloat16" else tensor
    return tensors


def dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def array_of(tensor: torch.Tensor) -> Any:
    """The same memory as a numpy array (bfloat16 as its bits)."""
    import torch

    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.int16)
        return tensor.numpy().view("<u2")
    return tensor.numpy()


def check_tensors(tensors: Mapping[str, Any], *, finite: bool = True) -> None:
    """Raise InvalidModelFile unless these are plain CPU tensors under plain names, without NaN and infinity."""
    import torch

    if not 0 < len(tensors) <= MAX_TENSORS:
        raise refuse(f"{len(tensors)} tensors")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not _KEY.fullmatch(name) or ".." in name:
            raise refuse(f"a tensor named {str(name)[:80]!r}" if isinstance(name, (str, int)) else "a strange key")
        if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or tensor.is_quantized \
                or tensor.device.type != "cpu" or dtype_name(tensor) not in DTYPES:
            raise refuse(f"{name[:80]!r} is not a plain tensor of a known type")
        if finite and tensor.is_floating_point() and not _is_finite(tensor):
            raise refuse(f"{name[:80]!r} holds NaN or infinity")


def _is_finite(tensor: torch.Tensor) -> bool:
    """One pass without a temporary: the extremes show infinity, and NaN wins over everything."""
    if not tensor.numel():
        return True
    low, high = tensor.aminmax()
    return bool(low.isfinite()) and bool(high.isfinite())


def digest(tensors: Mapping[str, torch.Tensor], cancel: threading.Event | None = None) -> str:
    """sha256 of names, types, shapes and bytes: the same for every format and order of one model."""
    result = hashlib.sha256()
    for name in sorted(tensors):
        check(cancel)
        tensor = tensors[name]
        result.update(f"{name}|{dtype_name(tensor)}|{tuple(tensor.shape)}\n".encode())
        result.update(memoryview(array_of(tensor).reshape(-1).view("u1")))
    return result.hexdigest()
