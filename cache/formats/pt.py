"""PyTorch checkpoints (`.pt`, `.pth`, `.bin`): the gate, and reading with `weights_only=True`.

`torch.load(weights_only=True)` runs no code but still believes sizes: compressed records would be
mapped as raw numbers, a patched count reads the neighbour's bytes, a small zip unfolds to gigabytes.
So the gate (`pt_gate.py`) reads the container and the pickle as data first.
"""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from cache.formats.layout import Slot, check_slots, item_size, refuse
from cache.formats.pt_gate import ZIP_MAGIC, check_legacy, check_zip, unwrap

if TYPE_CHECKING:
    import torch


def read(file: BinaryIO, *, trusted: bool = False) -> dict[str, torch.Tensor]:
    """The tensors; memory-mapped for the zip format. `trusted`: the digest proves we checked it before."""
    import torch

    mapped = is_zip(file)
    if not trusted and mapped:
        check_zip(file)
    elif not trusted:
        check_legacy(file)
    file.seek(0)
    # Through the open handle, so that nobody can exchange the file after the check.
    source: Any = file
    if mapped:
        handle = Path(f"/proc/self/fd/{file.fileno()}")
        source = str(handle if handle.exists() else file.name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of the old TypedStorage it uses itself
            loaded = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch raises nine kinds here, and its text advises to run the code
        raise refuse(f"torch cannot read it ({type(error).__name__})") from error
    return {name: tensor.detach() for name, tensor in unwrap(loaded).items()}


def slots(file: BinaryIO) -> list[Slot]:
    """Where the tensors lie, so that a file whose digest is known can be mapped without a pickle.

    Empty for the older container and for tensors that are stored in another order than they are read.
    """
    if not is_zip(file):
        return []
    views, records = check_zip(file)
    if not all(view.contiguous for view in views.values()):
        return []
    found = [Slot(name, view.storage.dtype, view.shape,
                  records[view.storage.key][0] + view.offset * item_size(view.storage.dtype))
             for name, view in views.items()]
    check_slots(found, os.fstat(file.fileno()).st_size)
    return found


def write(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """A zip checkpoint of an ordinary dict; the same bytes each time."""
    import torch

    own = {name: tensor.detach().clone(memory_format=torch.contiguous_format)
           if tensor.untyped_storage().nbytes() != tensor.nbytes or not tensor.is_contiguous() else tensor.detach()
           for name, tensor in tensors.items()}
    with path.open("wb") as file:  # torch writes the name into the file when it is given a path
        try:
            torch.save(own, file)
        except RuntimeError as error:  # torch hides the disk's own error behind one of its container
            reason = error.__context__
            raise reason if isinstance(reason, OSError) else OSError(errno.EIO, str(error)[:200]) from error


def is_zip(file: BinaryIO) -> bool:
    """The zip container can be memory-mapped, torch's older one can not."""
    file.seek(0)
    return file.read(4) == ZIP_MAGIC
