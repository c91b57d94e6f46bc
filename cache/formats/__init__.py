"""Weight files, recognised by content and hostile until proven: pt, h5, pkl, safetensors.

`read(path)` gives `{name: tensor}` on the CPU, memory-mapped where the format allows it, or raises
InvalidModelFile; nothing in the file is executed and nothing outside of it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cache.errors import InvalidModelFile, UsageError
from cache.files import open_regular

if TYPE_CHECKING:
    import torch

NAMES = ("pt", "h5", "pkl", "safetensors")
_SUFFIXES = {".pt": "pt", ".pth": "pt", ".bin": "pt", ".h5": "h5", ".hdf5": "h5", ".pkl": "pkl", ".pickle": "pkl",
             ".safetensors": "safetensors", ".zip": "bundle"}


def read(path: Path, *, finite: bool = True) -> tuple[dict[str, torch.Tensor], str]:
    """(tensors, format). Checks that all are plain and finite; does not know which model they are of.

    finite False leaves out that check, for bytes whose digest was published.
    """
    path = Path(path)
    with open_regular(path) as file:
        return read_open(file, path, finite=finite)


def read_open(file: BinaryIO, path: Path, *, finite: bool = True) -> tuple[dict[str, torch.Tensor], str]:
    """As `read`, for a file that is open already; `path` is for messages."""
    from cache.formats import h5, layout, pkl, pt, safetensors

    try:
        format = sniff(file)
        if format == "bundle":
            raise layout.refuse("a bundle of models, not the weights of one")
        reader = {"pt": pt.read, "h5": h5.read, "pkl": pkl.read, "safetensors": safetensors.read}[format]
        tensors = reader(file)
        layout.check_tensors(tensors, finite=finite)
    except InvalidModelFile as error:
        if error.where is None:
            error.where = path
        raise
    return tensors, format


def sniff(file: BinaryIO) -> str:
    """The format by the first bytes: one of NAMES, or "bundle". Raises InvalidModelFile with a guess."""
    from cache.formats import h5, layout, pt_gate

    file.seek(0)
    start = file.read(512)
    if start.startswith(pt_gate.ZIP_MAGIC):
        return "bundle" if start[30:41] == b"bundle.json" else "pt"
    if start.startswith(h5.MAGIC):
        return "h5"
    if start.startswith(pt_gate.LEGACY_MAGIC):
        return "pt"
    if start[:1] == b"\x80" and 2 <= (start[1:2] or b"\0")[0] <= 5:
        return "pkl"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= 1 << 40:
        return "safetensors"
    raise layout.refuse(_guess(start))


def _guess(start: bytes) -> str:
    if not start:
        return "an empty file"
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, perhaps a login page"
    if start.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer; the file itself was not downloaded"
    if not any(start):
        return "zeros"
    return f"unknown content starting with {start[:8].hex()}"


def by_suffix(path: Path) -> str:
    """The format a file name asks for; raises UsageError for others."""
    format = _SUFFIXES.get(path.suffix.lower())
    if format is None:
        raise UsageError("The file name does not tell a format.", where=path, expected=", ".join(_SUFFIXES))
    return format


def write(format: str, tensors: Mapping[str, torch.Tensor], path: Path,
          notes: Mapping[str, object] | None = None) -> None:
    """A self-contained file of that format."""
    from cache.formats import h5, pkl, pt, safetensors

    if format == "h5":
        h5.write(tensors, path, notes)
    else:
        {"pt": pt, "pkl": pkl, "safetensors": safetensors}[format].write(tensors, path)
