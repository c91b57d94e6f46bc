"""safetensors: a JSON header behind a bound, then raw numbers."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from cache.formats.layout import Slot, array_of, check_slots, dtype_name, map_slots, refuse

if TYPE_CHECKING:
    import torch

MAX_HEADER = 4 << 20  # the largest MiDaS header has 0.15 MB
_TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64", "I64": "int64",
          "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}
_NAMES = {name: code for code, name in _TYPES.items()}


def read(file: BinaryIO) -> dict[str, torch.Tensor]:
    """The tensors, memory-mapped."""
    return map_slots(file, slots(file))


def write(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """The tensors in their order; the published library sorts them, so that the order would be lost."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[dtype_name(tensor)], "shape": list(tensor.shape), "data_offsets": [start, end]}
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 64 + 56)  # so that the numbers start aligned
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for tensor in tensors.values():
            file.write(memoryview(array_of(tensor).reshape(-1).view("u1")))


def slots(file: BinaryIO) -> list[Slot]:
    """Where the tensors lie; raises InvalidModelFile for anything but a complete plain file."""
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    head = file.read(8)
    length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
    if not 2 <= length <= min(MAX_HEADER, size - 8):
        raise refuse("a header of an impossible length")
    header = _header(file.read(length))
    found = [_slot(name, entry, 8 + length) for name, entry in header.items() if name != "__metadata__"]
    check_slots(found, size)
    end = 8 + length
    for slot in sorted(found, key=lambda slot: (slot.offset, slot.size)):
        if slot.offset != end:
            raise refuse("overlapping tensors or a hole between them")
        end += slot.size
    if end != size:
        raise refuse("bytes behind the last tensor")
    return found


def _header(raw: bytes) -> dict[str, Any]:
    if not raw.startswith(b"{") or raw.count(b"[") > 200_000 or raw.count(b"{") > 50_000:
        raise refuse("a header that is not a plain object")
    try:
        header = json.loads(raw, object_pairs_hook=_no_doubles)
    except (ValueError, RecursionError) as error:
        raise refuse("a header that is not JSON") from error
    note = header.get("__metadata__", {})
    if type(note) is not dict or any(type(value) is not str for value in note.values()):
        raise refuse("metadata that is not text")
    return header


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise refuse("two entries of one name")
    return result


def _slot(name: str, entry: Any, base: int) -> Slot:
    if type(entry) is not dict or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise refuse("a strange entry")
    kind, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
    good = (type(kind) is str and kind in _TYPES and type(shape) is list and type(span) is list
            and len(span) == 2 and len(shape) <= 8 and all(type(n) is int and 0 <= n < 1 << 48 for n in shape + span))
    if not good:
        raise refuse("a strange entry")
    slot = Slot(name, _TYPES[kind], tuple(shape), base + span[0])
    if span[1] - span[0] != slot.size:
        raise refuse("a tensor whose bytes do not fit its shape")
    return slot
