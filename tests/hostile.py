"""Files that want to do harm when they are read. Each builder writes one; none must ever load."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import torch

from cache import formats
from cache.formats.pt_gate import LEGACY_MAGIC
from tests.cache_world import checkpoint_bytes

CANARY = "canary.txt"  # a text file beside the samples that nobody may read or change
GOOD = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.ones(5)}
Sample = tuple[str, Callable[[Path], object]]


def samples() -> Iterator[Sample]:
    """(name, builder(path)) of every hostile file."""
    for family in (_generic, _pickle_names, _pickle_shapes, _pt_pickles, _pt_containers, _legacy, _h5, _safetensors):
        yield from family()


def _raw(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _good(format: str, path: Path) -> bytes:
    formats.write(format, GOOD, path)
    content = path.read_bytes()
    path.unlink()
    return content


def _generic() -> Iterator[Sample]:
    yield "empty", _raw(b"")
    yield "seven bytes", _raw(b"weights")
    yield "zeros", _raw(bytes(4096))
    yield "login page", _raw(b"<!DOCTYPE html><html><title>Sign in</title></html>")
    yield "lfs pointer", _raw(b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n")
    yield "shell script", _raw(b"#!/bin/sh\ntouch pwned\n")
    yield "pipe", os.mkfifo
    yield "folder", Path.mkdir
    yield "link to itself", lambda path: path.symlink_to(path)
    yield "endless device", lambda path: path.symlink_to("/dev/zero")
    yield "link to nothing", lambda path: path.symlink_to(path.parent / "nowhere")
    for format in formats.NAMES:
        cuts = (("half", lambda n: n // 2), ("last byte", lambda n: n - 1), ("head", lambda n: min(40, n // 3)))
        for part, cut in cuts:
            yield f"{format} cut: {part}", lambda path, f=format, c=cut: _cut(f, path, c)
        yield f"{format} with a tail", lambda path, f=format: path.write_bytes(_good(f, path) + b"tail") \
            if f != "h5" else path.write_bytes(b"\0" * 512 + _good(f, path))


def _cut(format: str, path: Path, cut: Callable[[int], int]) -> None:
    content = _good(format, path)
    path.write_bytes(content[:cut(len(content))])


# -- pickles -----------------------------------------------------------------------------------------

def _text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _dictionary(value: bytes, key: str = "a") -> bytes:
    return b"\x80\x04}" + _text(key) + value + b"s."


def _pickle_names() -> Iterator[Sample]:
    call = b"(" + _text("touch pwned") + b"tR"
    for module, name in (("os", "system"), ("posix", "system"), ("builtins", "eval"), ("builtins", "exec"),
                         ("builtins", "getattr"), ("operator", "attrgetter"), ("functools", "partial"),
                         ("runpy", "run_path"), ("pkgutil", "resolve_name"), ("numpy.f2py.crackfortran", "getlincoef"),
                         ("numpy.testing._private.utils", "runstring"), ("torch.storage", "_load_from_bytes"),
                         ("logging", "FileHandler"), ("_io", "FileIO"), ("subprocess", "Popen"), ("torch", "load"),
                         ("numpy", "ndarray.__class__"), ("numpy", "load"), ("numpy", "memmap"),
                         ("builtins", "bytearray"), ("codecs", "open"), ("_codecs", "encode.__class__")):
        yield f"global {module}.{name}", _raw(_dictionary(f"c{module}\n{name}\n".encode() + call))
        yield f"stack global {module}.{name}", _raw(_dictionary(_text(module) + _text(name) + b"\x93" + call))
    yield "instance", _raw(b"\x80\x02(S'touch pwned'\nios\nsystem\n.")
    yield "object", _raw(b"\x80\x02(cos\nsystem\nS'touch pwned'\no.")
    yield "new object", _raw(_dictionary(b"cnumpy\nndarray\n)\x81"))
    yield "new object with keywords", _raw(_dictionary(b"cnumpy\nndarray\n)}\x92"))
    yield "by memo", _raw(_dictionary(_text("os") + b"q\x00" + _text("system") + b"q\x01\x93" + call))
    yield "extension", _raw(_dictionary(b"\x82\x01"))
    yield "persistent id", _raw(_dictionary(b"Pone\n"))
    yield "binary persistent id", _raw(_dictionary(_text("x") + b"Q"))


def _pickle_shapes() -> Iterator[Sample]:
    dtype = (b"cnumpy\ndtype\n(" + _text("f4") + b"\x89\x88tR(K\x03" + _text("<")
             + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb")
    array = b"cnumpy._core.numeric\n_frombuffer\n("
    data = b"C\x08" + bytes(8)

    def buffer(shape: bytes, kind: bytes = dtype, payload: bytes = data, order: str = "C") -> bytes:
        return array + payload + kind + shape + _text(order) + b"tR"

    yield "memo bomb", _raw(b"\x80\x04Nr\xff\xff\xff\x7f.")
    yield "bytes of 2^62", _raw(_dictionary(b"\x8e" + struct.pack("<Q", 1 << 62)))
    yield "bytearray of 2^62", _raw(_dictionary(b"\x96" + struct.pack("<Q", 1 << 62)))
    yield "frame of 2^62", _raw(b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"}.")
    yield "number of 255 bytes", _raw(_dictionary(b"\x8a\xff" + b"\x7f" * 255))
    yield "number of a gigabyte", _raw(_dictionary(b"\x8b" + struct.pack("<i", 1 << 30)))
    laughs = b"\x80\x04)q\x00" + b"".join(
        b"h" + bytes([n]) + b"h" + bytes([n]) + b"\x86q" + bytes([n + 1]) for n in range(40))
    yield "billion laughs", _raw(laughs + b".")
    yield "billion laughs as a value", _raw(b"\x80\x04}" + _text("a") + laughs[2:] + b"s.")
    yield "billion laughs as a shape", _raw(_dictionary(buffer(laughs[2:])))
    yield "billion laughs as a key", _raw(b"\x80\x04}" + laughs[2:] + b"Ns.")
    yield "billion laughs as a module", _raw(_dictionary(laughs[2:] + _text("x") + b"\x93"))
    yield "200000 nested lists", _raw(b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b".")
    yield "200000 nested tuples", _raw(b"\x80\x04)" + b"\x85" * 200_000 + b".")
    yield "endless marks", _raw(b"\x80\x04" + b"(" * 500_000 + b".")
    yield "dictionary in itself", _raw(b"\x80\x04}q\x00" + _text("a") + b"h\x00s.")
    yield "list in itself", _raw(_dictionary(b"]q\x00h\x00a"))
    for code in ("O8", "U8", "V8", "M8[ns]", "m8", "g", "c8", "f4, f4", "object", "f8" * 100):
        kind = b"cnumpy\ndtype\n(" + _text(code) + b"\x89\x88tR"
        yield f"number type {code[:10]}", _raw(_dictionary(buffer(b"K\x02\x85", kind)))
    flagged = dtype[:-4] + b"K\x3ftb"
    yield "number type with the object flag", _raw(_dictionary(buffer(b"K\x02\x85", flagged)))
    for name, shape in (("other count", b"K\x03\x85"), ("negative", b"J\xfe\xff\xff\xff\x85"), ("no tuple", b"K\x02"),
                        ("of text", _text("2") + b"\x85"), ("of truth", b"\x88\x85"),
                        ("of 2^80", b"\x8a\x06" + bytes(5) + b"\x01\x8a\x06" + bytes(5) + b"\x01\x86")):
        yield f"shape {name}", _raw(_dictionary(buffer(shape)))
    yield "order X", _raw(_dictionary(buffer(b"K\x02\x85", order="X")))
    yield "array never filled", _raw(_dictionary(
        b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"))
    yield "lazy array of 16 GB", _raw(_dictionary(
        b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85C\x01btR"))
    yield "state on a function", _raw(_dictionary(b"cnumpy._core.numeric\n_frombuffer\nN}" + _text("__defaults__")
                                                   + b"K\x07K\x07\x86s\x86b"))
    yield "state on a class", _raw(_dictionary(b"cnumpy\nndarray\n}" + _text("x") + b"K\x01sb"))
    yield "two pickles", _raw(pickle.dumps({"a": np.ones(3)}) * 2)
    yield "double key", _raw(b"\x80\x04}" + (_text("a") + buffer(b"K\x02\x85") + b"s") * 2 + b".")
    yield "number as key", _raw(b"\x80\x04}K\x01" + buffer(b"K\x02\x85") + b"s.")
    yield "bytes as key", _raw(b"\x80\x04}C\x01a" + buffer(b"K\x02\x85") + b"s.")
    yield "no dictionary", _raw(b"\x80\x04]" + buffer(b"K\x02\x85") + b"a.")
    yield "text as value", _raw(_dictionary(_text("x")))
    yield "nothing", _raw(b"\x80\x04}.")
    yield "endless line", _raw(_dictionary(b"c" + b"x" * 100_000))
    yield "broken text", _raw(b"\x80\x04}X\x02\x00\x00\x00\xff\xfeNs.")
    yield "stack underflow", _raw(b"\x80\x04s.")
    yield "frame that hides a name", _raw(b"\x80\x04\x95" + struct.pack("<Q", 4) + b"}" + _text("a")
                                           + b"cos\nsystem\n(" + _text("touch pwned") + b"tRs.")
    for key in ("../../x.pt", "/etc/passwd", "C:\\x", "a\0b", "x" * 300, "", "a..b", "\u202egnp"):
        yield f"tensor named {key[:12]!r}", _raw(pickle.dumps({key: np.ones(2)}, protocol=5))
    yield "borrowed buffers", _raw(pickle.dumps({"a": np.ones(2)}, protocol=5, buffer_callback=lambda buffer: None))


# -- torch -------------------------------------------------------------------------------------------

class _Evil:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


def _quantised(path: Path) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is about to drop these types
        torch.save({"a": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}, path)


def _pt_pickles() -> Iterator[Sample]:
    yield "pt: evil object", lambda path: torch.save({"a": _Evil(os.system, "touch pwned")}, path)
    yield "pt: evil object beside weights", lambda path: torch.save({**GOOD, "z": _Evil(eval, "1")}, path)
    yield "pt: whole module", lambda path: torch.save(torch.nn.Linear(2, 2), path)
    yield "pt: a list", lambda path: torch.save([GOOD["a"]], path)
    yield "pt: only a tensor", lambda path: torch.save(GOOD["a"], path)
    yield "pt: text among tensors", lambda path: torch.save({**GOOD, "note": "hello"}, path)
    yield "pt: nothing", lambda path: torch.save({}, path)
    yield "pt: sparse", lambda path: torch.save({"a": torch.eye(3).to_sparse()}, path)
    yield "pt: quantised", _quantised
    yield "pt: on meta", lambda path: torch.save({"a": torch.empty(3, device="meta")}, path)
    yield "pt: stride zero", lambda path: torch.save({"a": torch.ones(1).expand(1 << 40)}, path)
    yield "pt: overlapping view", lambda path: torch.save({"a": torch.ones(9).as_strided((3, 3), (1, 1))}, path)
    yield "pt: complex", lambda path: torch.save({"a": torch.ones(3, dtype=torch.complex64)}, path)


def _members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(checkpoint_bytes(GOOD))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _pack(path: Path, members: list[tuple[str, bytes]], kind: int = zipfile.ZIP_STORED) -> None:
    import warnings

    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", kind) as archive:
        warnings.simplefilter("ignore")  # double names are meant
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, kind)


def _changed(change: Callable[[dict[str, bytes]], list[tuple[str, bytes]]], kind: int = zipfile.ZIP_STORED):
    return lambda path: _pack(path, change(_members(path)), kind)


def _rewritten(end: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return _changed(lambda members: [(name, change(content) if name.endswith(end) else content)
                                     for name, content in members.items()])


def _pt_containers() -> Iterator[Sample]:
    everything = lambda members: list(members.items())  # noqa: E731 - one of many small changes
    yield "pt: compressed", _changed(everything, zipfile.ZIP_DEFLATED)
    yield "pt: bomb", _changed(lambda m: [*m.items(), ("archive/data/9", bytes(30 << 20))], zipfile.ZIP_DEFLATED)
    yield "pt: no data.pkl", _changed(lambda m: [(n, c) for n, c in m.items() if not n.endswith("data.pkl")])
    yield "pt: two data.pkl", _changed(lambda m: [*m.items(), ("archive/data.pkl", b"\x80\x02}.")])
    yield "pt: two folders", _changed(lambda m: [*m.items(), ("other/data/0", b"x")])
    yield "pt: member that climbs", _changed(lambda m: [*m.items(), ("archive/../evil", b"x")])
    yield "pt: absolute member", _changed(lambda m: [*m.items(), ("/etc/evil", b"x")])
    yield "pt: TorchScript", _changed(lambda m: [*m.items(), ("archive/code/a.py", b"x")])
    yield "pt: TorchScript's constants", _changed(lambda m: [*m.items(), ("archive/constants.pkl", b"x")])
    yield "pt: record missing", _changed(lambda m: [(n, c) for n, c in m.items() if not n.endswith("data/0")])
    yield "pt: record short", _rewritten("data/0", lambda content: content[:-4])
    yield "pt: record long", _rewritten("data/0", lambda content: content + b"more")
    yield "pt: other byte order", _rewritten("byteorder", lambda content: b"big")
    yield "pt: huge pickle", _rewritten("data.pkl", lambda content: content + bytes(9 << 20))
    yield "pt: something behind the pickle", _rewritten("data.pkl", lambda content: content + b".")
    many = [(f"archive/data/x{number}" + "y" * 90, b"") for number in range(20_000)]
    yield "pt: 20000 members", _changed(lambda m: [*m.items(), *many])
    yield "pt: script in front", lambda path: path.write_bytes(b"#!/bin/sh\ntouch pwned\n" + checkpoint_bytes(GOOD))
    yield "pt: count patched up", _grow_storage
    yield "pt: size patched up", _grow_shape
    yield "pt: overlapping members", _overlap
    yield "pt: central name differs", _rename_local


def _grow_storage(path: Path) -> None:
    _edit_pickle(path, b"K\x0ctq", b"K\x40tq")


def _grow_shape(path: Path) -> None:
    _edit_pickle(path, b"K\x03K\x04\x86", b"K\x03K\x40\x86")


def _edit_pickle(path: Path, old: bytes, new: bytes) -> None:
    members = _members(path)
    name = next(name for name in members if name.endswith("data.pkl"))
    if old not in members[name]:
        raise AssertionError("torch writes its pickle otherwise now")
    _pack(path, list((members | {name: members[name].replace(old, new, 1)}).items()))


def _overlap(path: Path) -> None:
    """The second record's directory entry points at the first one's bytes."""
    content = bytearray(checkpoint_bytes(GOOD))
    with zipfile.ZipFile(io.BytesIO(bytes(content))) as archive:
        first, second = (archive.getinfo(f"archive/data/{n}") for n in (0, 1))
    entry = content.rfind(b"archive/data/1") - 46
    content[entry + 42:entry + 46] = struct.pack("<I", first.header_offset)
    assert second.header_offset != first.header_offset
    path.write_bytes(content)


def _rename_local(path: Path) -> None:
    content = bytearray(checkpoint_bytes(GOOD))
    at = content.find(b"archive/data/0")
    content[at:at + 14] = b"archive/data/7"
    path.write_bytes(content)


def _legacy() -> Iterator[Sample]:
    good = checkpoint_bytes(GOOD, _use_new_zipfile_serialization=False)
    yield "old pt: evil object", lambda path: torch.save({"a": _Evil(os.system, "touch pwned")}, path,
                                                         _use_new_zipfile_serialization=False)
    yield "old pt: whole module", lambda path: torch.save(torch.nn.Linear(2, 2), path,
                                                          _use_new_zipfile_serialization=False)
    yield "old pt: cut", _raw(good[:-4])
    yield "old pt: tail", _raw(good + b"tail")
    yield "old pt: only the magic", _raw(LEGACY_MAGIC)
    yield "old pt: memo bomb", _raw(LEGACY_MAGIC + b"\x80\x02Nr\xff\xff\xff\x7f.")
    at = good.find(struct.pack("<q", 12))
    yield "old pt: record of 2^40", _raw(good[:at] + struct.pack("<q", 1 << 40) + good[at + 8:])


# -- HDF5 --------------------------------------------------------------------------------------------

def _h5_file(fill: Callable[[h5py.File], object], **options) -> Callable[[Path], object]:
    def build(path: Path) -> None:
        with h5py.File(path, "w", **options) as store:
            store["good"] = np.ones(4, np.float32)
            fill(store)
    return build


def _external(store: h5py.File) -> None:
    secret = str(Path(store.filename).parent / CANARY)
    store.create_dataset("a", (8,), "u1", external=[(secret, 0, 8)])


def _virtual(store: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(str(Path(store.filename).parent / "other.h5"), "a", (4,))
    store.create_virtual_dataset("a", layout)


def _nested(store: h5py.File) -> None:
    group = store
    for _ in range(1000):
        group = group.create_group("g")


def _h5() -> Iterator[Sample]:
    link = h5py.ExternalLink("other.h5", "/a")
    yield "h5: external storage", _h5_file(_external)
    yield "h5: external link", _h5_file(lambda store: store.__setitem__("a", link))
    yield "h5: external link as a folder", _h5_file(lambda store: store.__setitem__("g/a", link))
    yield "h5: soft link", _h5_file(lambda store: store.__setitem__("a", h5py.SoftLink("/good")))
    yield "h5: dangling link", _h5_file(lambda store: store.__setitem__("a", h5py.SoftLink("/nowhere")))
    yield "h5: looping link", _h5_file(lambda store: store.__setitem__("a", h5py.SoftLink("/a")))
    yield "h5: virtual dataset", _h5_file(_virtual)
    yield "h5: hard link cycle", _h5_file(lambda store: store.create_group("g").__setitem__("up", store["/"]))
    yield "h5: the same bytes twice", _h5_file(lambda store: store.__setitem__("b", store["good"]))
    yield "h5: deep groups", _h5_file(_nested)
    yield "h5: 5000 members", _h5_file(lambda store: [store.create_dataset(f"d{n}", data=0) for n in range(5000)],
                                       libver="latest")
    yield "h5: huge unallocated", _h5_file(lambda store: store.create_dataset("a", (1 << 33,), "f4"))
    yield "h5: compressed", _h5_file(
        lambda store: store.create_dataset("a", data=np.zeros(8 << 20, "u1"), compression="gzip"))
    yield "h5: chunked", _h5_file(lambda store: store.create_dataset("a", data=np.zeros(64), chunks=(8,)))
    yield "h5: text", _h5_file(lambda store: store.create_dataset("a", data="text"))
    yield "h5: references", _h5_file(
        lambda store: store.create_dataset("a", data=store["good"].ref, dtype=h5py.ref_dtype))
    yield "h5: variable length", _h5_file(lambda store: store.create_dataset("a", (2,), h5py.vlen_dtype("f4")))
    yield "h5: compound", _h5_file(lambda store: store.create_dataset("a", data=np.zeros(2, "f4,i4")))
    yield "h5: big endian", _h5_file(lambda store: store.create_dataset("a", data=np.zeros(2, ">f4")))
    yield "h5: complex", _h5_file(lambda store: store.create_dataset("a", data=np.zeros(2, "c8")))
    yield "h5: no extent", _h5_file(lambda store: store.create_dataset("a", data=h5py.Empty("f4")))
    yield "h5: NaN", _h5_file(lambda store: store.create_dataset("a", data=np.array([np.nan], "f4")))
    yield "h5: user block", _h5_file(lambda store: None, userblock_size=512)
    yield "h5: nothing inside", lambda path: h5py.File(path, "w").close()
    yield "h5: only the magic", _raw(b"\x89HDF\r\n\x1a\n")


# -- safetensors -------------------------------------------------------------------------------------

def _safe(header: object, body: bytes = bytes(16), length: int | None = None) -> Callable[[Path], object]:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return _raw(struct.pack("<Q", len(raw) if length is None else length) + raw + body)


def _entry(shape: object = (4,), span: object = (0, 16), dtype: object = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": span}


def _safetensors() -> Iterator[Sample]:
    for length in (1 << 63, (100 << 20) + 1, 99 << 20, 0, 1):
        yield f"safetensors: header of {length}", _safe({"a": _entry()}, length=length)
    yield "safetensors: 5 MB of spaces", _safe(b'{"a":1}' + b" " * (5 << 20))
    yield "safetensors: 20000 empty tensors", _safe({f"t{n}": _entry([0], [0, 0]) for n in range(20_000)}, b"")
    yield "safetensors: deep", _safe(b'{"a":' * 100_000 + b"1" + b"}" * 100_000)
    yield "safetensors: deep lists", _safe(b'{"a":' + b"[" * 150_000 + b"]" * 150_000 + b"}")
    yield "safetensors: not JSON", _safe(b"{broken}")
    yield "safetensors: a list", _safe(b"[1, 2]")
    yield "safetensors: overlap", _safe({"a": _entry(), "b": _entry(span=(8, 24))}, bytes(24))
    yield "safetensors: hole", _safe({"a": _entry(span=(8, 24))}, bytes(24))
    yield "safetensors: tail", _safe({"a": _entry()}, bytes(20))
    yield "safetensors: short body", _safe({"a": _entry()}, bytes(12))
    one = b'"a":' + json.dumps(_entry()).encode()
    yield "safetensors: double key", _safe(b"{" + one + b"," + one + b"}")
    yield "safetensors: shape overflow", _safe({"a": _entry([1 << 62, 4])})
    yield "safetensors: negative shape", _safe({"a": _entry([-4])})
    yield "safetensors: nothing times 2^62", _safe({"a": _entry([0, 1 << 62], [0, 0])}, b"")
    yield "safetensors: truth as shape", _safe({"a": _entry([True], [0, 4])}, bytes(4))
    yield "safetensors: fraction as shape", _safe({"a": _entry([4.0])})
    yield "safetensors: unknown type", _safe({"a": _entry(dtype="F8_E4M3")})
    yield "safetensors: list as type", _safe({"a": _entry(dtype=["F32"])})
    yield "safetensors: number as metadata", _safe({"__metadata__": {"a": 1}, "a": _entry()})
    yield "safetensors: extra field", _safe({"a": _entry() | {"x": 1}})
    for name in ("../../etc/x", "/etc/x", "a\0b", "x" * 300):
        yield f"safetensors: tensor named {name[:12]!r}", _safe({name: _entry()})
