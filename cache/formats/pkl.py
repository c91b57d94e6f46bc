"""Pickles of numpy arrays: a small one that borrows the bytes of the `.h5`, and a self-contained one.

The linked file is two protocol-5 pickles: a header that says which bytes of which `.h5` (by sha256)
are the buffers, then `{name: array}` with its buffers out of band. Python's own pickle reads it too:
`head = pickle.load(f); arrays = pickle.load(f, buffers=[h5[o:o + n] for o, n in head["buffers"]])`.
The self-contained file is one ordinary `pickle.dump({name: array})`. Both are read as data only.
"""

from __future__ import annotations

import math
import mmap
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from cache.files import sha256 as sha256_of
from cache.formats.data_pickle import DataPickle, Token
from cache.formats.layout import (
    DTYPES,
    MAX_DIMENSIONS,
    Slot,
    array_of,
    check_slots,
    dtype_name,
    item_size,
    map_slots,
    refuse,
)

if TYPE_CHECKING:
    import torch

KIND = "depthmap linked pickle 1"
DTYPE_KEY = "__dtypes__"  # {name: "bfloat16"} where numpy has no such type and the array holds its bits
_BY_CODE = {numpy[1:]: numpy for numpy in DTYPES.values()} | {"b1": "|b1"}


class _Dtype:
    __slots__ = ("numpy",)

    def __init__(self, numpy: str):
        self.numpy = numpy


class _Array:
    """What the stream says of an array: bytes (a view of the file), type and shape."""

    __slots__ = ("fortran", "numpy", "payload", "shape")

    def __init__(self) -> None:
        self.payload: Any = None
        self.numpy, self.shape, self.fortran = "", (), False


class _NumpyPickle(DataPickle):
    names = frozenset({
        "numpy dtype", "numpy ndarray", "collections OrderedDict", "_codecs encode", "__builtin__ bytes",
        *(f"numpy.{core}.multiarray _reconstruct" for core in ("core", "_core")),
        *(f"numpy.{core}.numeric _frombuffer" for core in ("core", "_core"))})

    def call(self, name: str, args: tuple) -> Any:
        short = name.split()[-1]
        if short == "OrderedDict" and args == ():
            return {}
        if short == "dtype" and len(args) == 3 and type(args[0]) is str and args[0] in _BY_CODE:
            return _Dtype(_BY_CODE[args[0]])
        if short == "_frombuffer" and len(args) == 4 and type(args[3]) is str and args[3] in ("C", "F"):
            return _fill(_Array(), args[0], args[1], args[2], args[3] == "F")
        if short == "_reconstruct" and len(args) == 3 and type(args[0]) is Token and args[0].name == "numpy ndarray":
            return _Array()
        if short == "encode" and len(args) == 2 and type(args[0]) is str and args[1] == "latin1":
            return _latin(args[0])
        if short == "bytes" and args == ():
            return memoryview(b"")
        raise refuse("a pickle with a call that arrays do not need")

    def build(self, target: Any, state: Any) -> Any:
        if type(state) is not tuple:
            raise refuse("a pickle with strange state")
        if type(target) is _Dtype:
            plain = state[2:5] == (None, None, None) and state[5:] == (-1, -1, 0)
            if len(state) != 8 or state[0] != 3 or state[1] not in ("<", "|") or not plain:
                raise refuse("a pickle with a strange number type")
            return target
        if type(target) is _Array and target.payload is None and len(state) == 5 and state[0] == 1:
            return _fill(target, state[4], state[2], state[1], state[3] is True)
        raise refuse("a pickle with strange state")


def _latin(text: str) -> memoryview:
    try:
        return memoryview(text.encode("latin-1"))
    except UnicodeEncodeError:
        raise refuse("a pickle with broken bytes") from None


def _fill(array: _Array, payload: Any, dtype: Any, shape: Any, fortran: bool) -> _Array:
    sane = (type(payload) is memoryview and type(dtype) is _Dtype and type(shape) is tuple
            and len(shape) <= MAX_DIMENSIONS and all(type(n) is int and 0 <= n < 1 << 40 for n in shape))
    if not sane or math.prod(shape) * int(dtype.numpy[2:]) != len(payload):
        raise refuse("an array whose bytes do not fit its shape")
    array.payload, array.numpy, array.shape, array.fortran = payload, dtype.numpy, shape, fortran
    return array


def read(file: BinaryIO, *, trusted: bool = False) -> dict[str, torch.Tensor]:
    """The tensors. A linked file maps the `.h5` beside it and is refused where that is gone.

    trusted: the caller has compared the digest of the `.h5` with `linked(file)` already.
    """
    head = linked(file)
    if head is not None:
        return _read_linked(file, head, Path(file.name).with_name(head["h5"]), trusted)
    if os.fstat(file.fileno()).st_size == 0:
        raise refuse("an empty file")
    mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    arrays, end = _arrays(mapped, 0, ())
    if end != len(mapped):
        raise refuse("something behind the pickle")
    return _tensors(arrays)


def linked(file: BinaryIO) -> dict[str, Any] | None:
    """The header of a linked file, `{"kind", "h5", "sha256", "size", "buffers", "end"}`; None for any other."""
    file.seek(0)
    start = file.read(8 << 20)
    if KIND.encode() not in start[:200]:
        return None
    reader = DataPickle(memoryview(start))
    head = reader.read()
    good = (type(head) is dict and head.get("kind") == KIND and type(head.get("h5")) is str
            and head["h5"] == Path(head["h5"]).name and type(head.get("sha256")) is str
            and type(head.get("buffers")) is list
            and all(type(pair) is tuple and len(pair) == 2 and all(type(n) is int and n >= 0 for n in pair)
                    for pair in head["buffers"]))
    if not good:
        raise refuse("a linked pickle with a strange header")
    return head | {"end": reader.at}


def write(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """The self-contained form."""
    content: dict[str, Any] = {name: array_of(tensor) for name, tensor in tensors.items()}
    if special := _special(tensors):
        content[DTYPE_KEY] = special
    with path.open("wb") as file:
        pickle.dump(content, file, protocol=5)


def write_linked(tensors: Mapping[str, torch.Tensor], slots: Sequence[Slot], h5: Path, sha256: str, path: Path) -> None:
    """The small form: `slots` say where each tensor lies in `h5`, whose digest is `sha256`."""
    places = {slot.name: (slot.offset, slot.size) for slot in slots}
    content: dict[str, Any] = {name: array_of(tensor) for name, tensor in tensors.items()}
    buffers = [places[name] for name in content]
    if special := _special(tensors):
        content[DTYPE_KEY] = special
    head = {"kind": KIND, "h5": h5.name, "sha256": sha256, "size": h5.stat().st_size, "buffers": buffers}
    with path.open("wb") as file:
        pickle.dump(head, file, protocol=5)
        pickle.dump(content, file, protocol=5, buffer_callback=lambda buffer: None)


def _special(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    return {name: "bfloat16" for name, tensor in tensors.items() if dtype_name(tensor) == "bfloat16"}


def _arrays(view: memoryview, start: int, buffers: Sequence[memoryview]) -> tuple[dict[str, Any], int]:
    reader = _NumpyPickle(view[start:], buffers)
    root = reader.read()
    if type(root) is not dict or any(type(key) is not str for key in root):
        raise refuse("no dictionary of arrays")
    return root, start + reader.at


def _split(root: dict[str, Any]) -> tuple[dict[str, _Array], dict[str, str]]:
    special = root.pop(DTYPE_KEY, {})
    if type(special) is not dict or any(value != "bfloat16" for value in special.values() if type(value) is str) \
            or any(type(value) is not str for value in special.values()):
        raise refuse("a pickle with strange number types")
    if any(type(array) is not _Array or array.payload is None for array in root.values()):
        raise refuse("something else than arrays under names")
    return root, special


def _name_dtype(name: str, array: _Array, special: dict[str, str]) -> str:
    if special.get(name) == "bfloat16" and array.numpy == DTYPES["bfloat16"]:
        return "bfloat16"
    for dtype, numpy in DTYPES.items():
        if numpy == array.numpy and dtype != "bfloat16":
            return dtype
    raise refuse("numbers of an unknown type")


def _tensors(root: dict[str, Any]) -> dict[str, torch.Tensor]:
    import numpy as np
    import torch

    arrays, special = _split(root)
    total = sum(len(array.payload) for array in arrays.values())
    check_slots([Slot(name, _name_dtype(name, array, special), array.shape, 0)
                 for name, array in arrays.items()], total)
    result = {}
    for name, array in arrays.items():
        dtype = _name_dtype(name, array, special)
        flat = np.frombuffer(array.payload, np.uint8)
        if flat.ctypes.data % item_size(dtype) or not flat.flags.writeable:
            flat = flat.copy()
        flat = flat.view(array.numpy)
        shaped = flat.reshape(array.shape, order="F" if array.fortran else "C")
        shaped = np.ascontiguousarray(shaped).reshape(array.shape)
        tensor = torch.from_numpy(shaped.view(np.int16) if dtype == "bfloat16" else shaped)
        result[name] = tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor
    return result


def _read_linked(file: BinaryIO, head: dict[str, Any], h5: Path, trusted: bool) -> dict[str, torch.Tensor]:
    if not h5.is_file() or h5.stat().st_size != head.get("size"):
        raise refuse(f"the {h5.name} whose bytes it borrows is not beside it", file.name)
    if not trusted and sha256_of(h5) != head["sha256"]:
        raise refuse(f"the {h5.name} beside it holds other bytes than it was made for", file.name)
    file.seek(0)
    view = memoryview(file.read())
    with h5.open("rb") as source:
        size = os.fstat(source.fileno()).st_size
        if any(offset + count > size for offset, count in head["buffers"]):
            raise refuse("buffers outside of the .h5")
        mapped = memoryview(mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ))
        pieces = [mapped[offset:offset + count] for offset, count in head["buffers"]]
        arrays, end = _arrays(view, head["end"], pieces)
        if end != len(view):
            raise refuse("something behind the pickle")
        arrays, special = _split(arrays)
        places = {id(piece): offset for piece, (offset, _) in zip(pieces, head["buffers"], strict=True)}
        slots = []
        for name, array in arrays.items():
            offset = places.get(id(array.payload), 0 if not len(array.payload) else None)
            if offset is None or array.fortran:
                raise refuse("a linked pickle with bytes of its own")
            slots.append(Slot(name, _name_dtype(name, array, special), array.shape, offset))
        check_slots(slots, size)
        return map_slots(source, slots)
