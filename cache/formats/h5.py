"""HDF5: one contiguous, aligned dataset per tensor, so that the file can be memory-mapped.

HDF5 files can name other files (external storage, external links, virtual datasets) and unfold to
any size (filters). The gate walks the root with the low-level calls that follow nothing, and accepts
plain local contiguous datasets only; their bytes are then mapped at the offsets HDF5 reports.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from cache.formats.layout import (
    DTYPES,
    MAX_DIMENSIONS,
    MAX_TENSORS,
    Slot,
    array_of,
    check_slots,
    dtype_name,
    map_slots,
    refuse,
)

if TYPE_CHECKING:
    import torch

MAGIC = b"\x89HDF\r\n\x1a\n"
ALIGNMENT = 64  # bytes; what vector units like
_BY_NUMPY = {numpy: name for name, numpy in DTYPES.items() if name != "bfloat16"}


def read(file: BinaryIO) -> dict[str, torch.Tensor]:
    """The tensors, memory-mapped."""
    return map_slots(file, slots(file))


def write(tensors: Mapping[str, torch.Tensor], path: Path, notes: Mapping[str, Any] | None = None) -> list[Slot]:
    """Write one dataset per tensor with `shape` and `dtype` attributes, and `notes` on the root.

    Returns where the bytes lie. The same input gives the same bytes.
    """
    try:
        _write(tensors, path, notes or {})
    except RuntimeError as error:  # closing a file on a full disk
        raise OSError(errno.EIO, str(error)[:200]) from error
    with path.open("rb") as file:
        return slots(file)


def _write(tensors: Mapping[str, torch.Tensor], path: Path, notes: Mapping[str, Any]) -> None:
    import h5py

    with h5py.File(path, "w", libver=("earliest", "v110"), track_order=True, locking=False,
                   alignment_threshold=1, alignment_interval=ALIGNMENT) as store:
        for key, value in notes.items():
            store.attrs[key] = value
        for name, tensor in tensors.items():
            dataset = store.create_dataset(name, data=array_of(tensor))
            dataset.attrs["dtype"] = dtype_name(tensor)
            dataset.attrs["shape"] = list(tensor.shape)


def notes(file: BinaryIO) -> dict[str, Any]:
    """The attributes of the root, numbers and text only."""
    import h5py

    try:
        with h5py.File(_path(file), "r", locking=False) as store:
            found = {key: store.attrs[key] for key in list(store.attrs)[:64]}
    except Exception as error:  # h5py raises five kinds for a broken file
        raise refuse(f"HDF5 cannot read it ({type(error).__name__})") from error
    return {key: value if isinstance(value, str) else value.item() for key, value in found.items()
            if isinstance(value, str) or getattr(value, "shape", None) == ()}


def slots(file: BinaryIO) -> list[Slot]:
    """Where the tensors lie, in their order; raises InvalidModelFile for anything unusual."""
    import h5py

    size = os.fstat(file.fileno()).st_size
    try:
        with h5py.File(_path(file), "r", locking=False) as store:
            found = _walk(h5py, store, size)
    except Exception as error:
        if type(error).__module__.startswith("cache."):
            raise
        raise refuse(f"HDF5 cannot read it ({type(error).__name__})") from error
    check_slots(found, size)
    end = 0
    for slot in sorted(found, key=lambda slot: (slot.offset, slot.size)):
        if slot.offset < end and slot.size:
            raise refuse("overlapping tensors")
        end = max(end, slot.offset + slot.size)
    return found


def _path(file: BinaryIO) -> str:
    """A path to the open handle, so that nobody can exchange the file in between."""
    handle = Path(f"/proc/self/fd/{file.fileno()}")
    return str(handle if handle.exists() else file.name)


def _walk(h5py: Any, store: Any, size: int) -> list[Slot]:
    if store.id.get_create_plist().get_userblock():
        raise refuse("a block in front of the HDF5 data")
    root = h5py.h5g.open(store.id, b"/")
    if not 0 < root.get_num_objs() <= MAX_TENSORS:
        raise refuse(f"{root.get_num_objs()} members")
    ordered = root.get_create_plist().get_link_creation_order() & h5py.h5p.CRT_ORDER_TRACKED
    names: list[bytes] = []
    root.links.iterate(names.append, idx_type=h5py.h5.INDEX_CRT_ORDER if ordered else h5py.h5.INDEX_NAME)
    return [_dataset(h5py, root, name, size) for name in names]


def _dataset(h5py: Any, root: Any, name: bytes, size: int) -> Slot:
    text = name.decode("utf-8", "replace")
    if root.links.get_info(name).type != h5py.h5l.TYPE_HARD:
        raise refuse(f"a link at {text[:80]!r}")
    thing = h5py.h5o.open(root, name)
    if not isinstance(thing, h5py.h5d.DatasetID):
        raise refuse(f"a group or type at {text[:80]!r}")
    plan, space = thing.get_create_plist(), thing.get_space()
    if plan.get_layout() != h5py.h5d.CONTIGUOUS or plan.get_external_count() or plan.get_nfilters():
        raise refuse(f"{text[:80]!r} is not stored plainly inside the file")
    if space.get_simple_extent_type() not in (h5py.h5s.SIMPLE, h5py.h5s.SCALAR):
        raise refuse(f"{text[:80]!r} has no extent")
    kind = thing.get_type()
    if not isinstance(kind, (h5py.h5t.TypeIntegerID, h5py.h5t.TypeFloatID, h5py.h5t.TypeEnumID)):
        raise refuse(f"{text[:80]!r} is not numeric")
    shape = space.get_simple_extent_dims()
    if len(shape) > MAX_DIMENSIONS:
        raise refuse(f"{text[:80]!r} has too many axes")
    dtype = _dtype(h5py, thing, kind)
    offset = thing.get_offset()
    slot = Slot(text, dtype, tuple(int(n) for n in shape), 0 if offset is None else int(offset))
    if slot.size and (offset is None or thing.get_storage_size() != slot.size):
        raise refuse(f"{text[:80]!r} is not stored whole")
    return slot


def _dtype(h5py: Any, dataset: Any, kind: Any) -> str:
    found = kind.dtype.str
    if found == DTYPES["bfloat16"]:
        noted = dataset_note(h5py, dataset)
        if noted == "bfloat16":
            return noted
    name = _BY_NUMPY.get(found)
    if name is None:
        raise refuse(f"numbers of type {found[:20]!r}")
    return name


def dataset_note(h5py: Any, dataset: Any) -> str | None:
    value = h5py.Dataset(dataset).attrs.get("dtype")
    return value if isinstance(value, str) else None
