"""The gate for PyTorch checkpoints: container and pickle are read as data, every tensor proven inside its record.

Two containers: a zip of `data.pkl` and one stored record per storage, and the older one of five pickles
followed by the numbers.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from cache.formats.data_pickle import DataPickle
from cache.formats.layout import MAX_DIMENSIONS, MAX_TENSORS, item_size, refuse

MAX_PICKLE = 8 << 20
MAX_DIRECTORY = 2 << 20
MAX_LEGACY = 4 << 30
ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
LEGACY_PROTOCOL = 1001
_STORAGES = {"Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Double": "float64", "Long": "int64",
             "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool"}
_WRAPPERS = ("model", "state_dict")  # MiDaS 3.1 files are {"model": …, "optimizer": …}


@dataclass(frozen=True)
class Storage:
    dtype: str
    key: str
    count: int


@dataclass(frozen=True)
class View:
    """A tensor as the pickle describes it, before any byte of it was read."""

    storage: Storage
    shape: tuple[int, ...]
    offset: int  # elements into the storage
    contiguous: bool


class _TorchPickle(DataPickle):
    names = frozenset({"collections OrderedDict", "torch._utils _rebuild_tensor_v2",
                       "torch._utils _rebuild_parameter", *(f"torch {name}Storage" for name in _STORAGES)})

    def call(self, name: str, args: tuple) -> Any:
        if name == "collections OrderedDict" and args == ():
            return {}
        if name == "torch._utils _rebuild_parameter" and len(args) == 3 and type(args[0]) is View:
            return args[0]
        if name == "torch._utils _rebuild_tensor_v2" and len(args) in (6, 7) and type(args[0]) is Storage:
            return _view(*args[:4])
        raise refuse("a checkpoint with a call that plain weights do not need")

    def build(self, target: Any, state: Any) -> Any:
        # Modules give their state dict an attribute `_metadata`; it is of no use here.
        if type(target) is dict and type(state) is dict and set(state) <= {"_metadata"}:
            return target
        raise refuse("a checkpoint with an object in it")

    def persistent(self, key: Any) -> Storage:
        if type(key) is not tuple or len(key) not in (5, 6) or key[0] != "storage" or key[5:] not in ((), (None,)):
            raise refuse("a checkpoint with a strange storage")
        kind, name, count = getattr(key[1], "name", ""), key[2], key[4]
        dtype = _STORAGES.get(kind.removeprefix("torch ").removesuffix("Storage"))
        if dtype is None or type(name) is not str or len(name) > 40 or type(count) is not int or count < 0:
            raise refuse("a checkpoint with a strange storage")
        return Storage(dtype, name, count)


def _view(storage: Storage, offset: Any, shape: Any, stride: Any) -> View:
    whole = all(type(part) is tuple and len(part) <= MAX_DIMENSIONS and all(type(n) is int and n >= 0 for n in part)
                for part in (shape, stride))
    if not whole or len(shape) != len(stride) or type(offset) is not int or offset < 0:
        raise refuse("a tensor with a strange shape")
    if 0 in shape:
        return View(storage, shape, 0, True)
    count = 1
    for step, size in sorted(zip(stride, shape, strict=True)):  # dense in some order of axes, so nothing overlaps
        if size > 1 and step != count:
            raise refuse("a tensor that is not stored densely")
        count *= size
    if offset + count > storage.count:
        raise refuse("a tensor that is larger than its storage")
    return View(storage, shape, offset, _is_contiguous(shape, stride))


def _is_contiguous(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    count = 1
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size > 1 and step != count:
            return False
        count *= size
    return True


def unwrap(loaded: Any) -> Mapping[str, Any]:
    for key in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            return loaded[key]
    if not isinstance(loaded, Mapping):
        raise refuse("no dictionary of tensors")
    return loaded


def _views(root: Any) -> Mapping[str, View]:
    tensors = unwrap(root)
    if not 0 < len(tensors) <= MAX_TENSORS or any(type(value) is not View for value in tensors.values()):
        raise refuse("something else than tensors under names")
    return tensors


# -- the zip container -----------------------------------------------------------------------------

def check_zip(file: BinaryIO) -> tuple[Mapping[str, View], dict[str, tuple[int, int]]]:
    """The gate; returns the tensors it describes, and (start, bytes) of each record."""
    size = os.fstat(file.fileno()).st_size
    check_directory(file, size)
    try:
        archive = zipfile.ZipFile(file)
        members = archive.infolist()
        records = _records(file, members, size)
        pickled = archive.read(next(item for item in members if item.filename.endswith("/data.pkl")))
    except (zipfile.BadZipFile, OSError, ValueError, struct.error, UnicodeError, NotImplementedError, RuntimeError,
            EOFError) as error:
        raise refuse(f"a broken archive ({type(error).__name__})") from error
    reader = _TorchPickle(memoryview(pickled))
    storages: dict[str, Storage] = {}
    root = _read_all(reader, storages)
    for key, storage in storages.items():
        if records.get(key, (0, -1))[1] != storage.count * item_size(storage.dtype):
            raise refuse("a tensor whose record has another size")
    return _views(root), records


def _read_all(reader: _TorchPickle, storages: dict[str, Storage]) -> Any:
    """The root object, with every storage the pickle names noted by key."""
    plain = reader.persistent

    def note(key: Any) -> Storage:
        storage = plain(key)
        if storages.setdefault(storage.key, storage) != storage:
            raise refuse("one storage with two sizes")
        return storage

    reader.persistent = note  # type: ignore[method-assign]
    root = reader.read()
    if reader.at != len(reader.view):
        raise refuse("something behind the pickle")
    return root


def _records(file: BinaryIO, members: list[zipfile.ZipInfo], size: int) -> dict[str, tuple[int, int]]:
    """(start, bytes) of each tensor record by key, after the container has been found plain."""
    names = [item.filename for item in members]
    tops = {name.split("/")[0] for name in names}
    if not names or len(set(names)) != len(names) or len(tops) != 1 or "" in tops:
        raise refuse("an archive with double or stray members")
    inner = {name.split("/", 1)[1] if "/" in name else "" for name in names}
    if "data.pkl" not in inner or any(
            part == "" or ".." in part or "\\" in part or part.startswith(("/", "code/")) or part == "constants.pkl"
            for part in inner):
        raise refuse("an archive that is not a plain checkpoint")
    end, records = 0, dict[str, tuple[int, int]]()
    for item in sorted(members, key=lambda item: item.header_offset):
        if item.compress_type != zipfile.ZIP_STORED or item.file_size != item.compress_size or item.flag_bits & 1:
            raise refuse("compressed or encrypted members")
        start = _payload(file, item)
        if item.header_offset < end or (end == 0 and item.header_offset != 0):
            raise refuse("overlapping members")
        end = start + item.file_size
        _, _, part = item.filename.partition("/")
        if part == "data.pkl" and item.file_size > MAX_PICKLE:
            raise refuse("a huge pickle")
        if part == "byteorder" and file.read(8)[:6] != b"little":
            raise refuse("numbers of another byte order")
        if part.startswith("data/"):
            records[part.removeprefix("data/")] = start, item.file_size
    if end > size:
        raise refuse("members outside of the file")
    return records


def _payload(file: BinaryIO, item: zipfile.ZipInfo) -> int:
    """Where the member's bytes start, from its own header; the file then stands there."""
    file.seek(item.header_offset)
    header = file.read(30)
    if header[:4] != ZIP_MAGIC or header[8:10] != b"\0\0":
        raise refuse("a member without its header")
    name, extra = struct.unpack("<HH", header[26:30])
    if file.read(name) != item.orig_filename.encode():
        raise refuse("a member with two names")
    return file.seek(item.header_offset + 30 + name + extra)


def check_directory(file: BinaryIO, size: int) -> None:
    """Bound the list of members before zipfile reads it whole."""
    file.seek(max(0, size - 70_000))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at != 22:
        raise refuse("a zip file that does not end where it should: it is cut off, or something follows")
    length = struct.unpack("<I", tail[at + 12:at + 16])[0]
    wide = tail.rfind(b"PK\x06\x06", 0, at)
    if length == 0xFFFFFFFF and wide >= 0:
        length = struct.unpack("<Q", tail[wide + 40:wide + 48])[0]
    if length > MAX_DIRECTORY:
        raise refuse("an archive with too many members")


# -- the older container: five pickles, then the numbers ---------------------------------------------

def check_legacy(file: BinaryIO) -> None:
    import mmap

    size = os.fstat(file.fileno()).st_size
    if size > MAX_LEGACY:
        raise refuse("an old checkpoint of more than 4 GB")
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
        _check_legacy_view(view, size)


def _check_legacy_view(view: memoryview, size: int) -> None:
    with view[len(LEGACY_MAGIC):len(LEGACY_MAGIC) + MAX_PICKLE] as head:
        reader = _TorchPickle(head)
        storages: dict[str, Storage] = {}
        plain = reader.persistent
        reader.persistent = lambda key: storages.setdefault(plain(key).key, plain(key))  # type: ignore[method-assign]
        try:
            version, system, root, keys = (reader.read() for _ in range(4))
            if version != LEGACY_PROTOCOL or type(system) is not dict or system.get("little_endian") is not True:
                raise refuse("an old checkpoint of another kind")
            if type(keys) is not list or len(keys) != len(storages) or any(type(key) is not str for key in keys):
                raise refuse("an old checkpoint with other storages than it names")
            at = len(LEGACY_MAGIC) + reader.at
        finally:
            reader.stack.clear()
            reader.memo.clear()
            reader.view.release()
    for key in keys:
        storage = storages.get(key)
        if storage is None or at + 8 > size or struct.unpack("<q", view[at:at + 8])[0] != storage.count:
            raise refuse("a tensor whose record has another size")
        at += 8 + storage.count * item_size(storage.dtype)
    if at != size:
        raise refuse("an old checkpoint that is cut off or too long")
    _views(root)
