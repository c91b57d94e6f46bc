"""Export to and import from files that leave this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cache import loading
from cache.ask import Ask
from cache.building import Tensors, build, describe, to_official
from cache.errors import DepthmapError, NotAvailable, UsageError, WrongCheckpoint
from cache.files import copy_bytes, disk_errors, open_regular, publish, require_space, sha256
from cache.hub import Progress, ProgressCallback
from cache.manifest import Manifest, Source
from cache.records import Exported
from cache.store import Folder

if TYPE_CHECKING:
    pass

DTYPES = {"fp16": "float16", "float16": "float16", "half": "float16", "bf16": "bfloat16", "bfloat16": "bfloat16",
          "fp32": "float32", "float32": "float32"}


# -- export ----------------------------------------------------------------------------------------

def export(ask: Ask, path: Path, format: str, dtype: str | None, overwrite: bool) -> Exported:
    """Write one self-contained file; unchanged bytes where nothing must change."""
    check_target(path, overwrite)
    if dtype is not None and dtype not in DTYPES:
        raise UsageError("There is no such number type.", got=dtype[:40], expected="fp16, bf16 or fp32")
    weights = local_weights(ask)
    tensors = _cast(weights.tensors, dtype)
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    require_space({path.parent: size})
    own = _own_file(ask, format) if dtype is None else None
    _tell(ask.progress, "export", 0, size, path.name)
    with disk_errors(path, "write the export"):
        publish(path, (lambda target: copy_bytes(own, target)) if own else _writer(format, tensors, ask))
    _tell(ask.progress, "export", size, size, path.name)
    return Exported(path, format, dtype, path.stat().st_size, sha256(path), (ask.checkpoint.name,))


def check_target(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise UsageError("The export needs a file name.", got=f"the folder {path}")
    if not path.parent.is_dir():
        raise UsageError("The folder for the export does not exist.", got=path.parent)
    if path.exists() and not overwrite:
        raise UsageError("There is a file of this name already.", got=path,
                         next_step="Choose another name or overwrite it.")


def local_weights(ask: Ask) -> loading.Weights:
    """Checked tensors from this machine, without storing anything. Raises NotAvailable."""
    notes: list[str] = []
    weights = loading.own_copy(ask, notes) or loading.from_hub_cache(ask, notes)
    if weights is None:
        raise NotAvailable(f"{ask.checkpoint.name} is not in the cache.", where=ask.folder.path,
                           got="; ".join(notes) or None, next_step="Download it first.")
    return weights


def _own_file(ask: Ask, format: str) -> Path | None:
    """The checked own copy, if its bytes can leave as they are."""
    manifest = ask.folder.manifest()
    if manifest is None or format == "pkl" or format not in manifest.files:
        return None
    ask.folder.check(format, manifest.files[format], ask.cancel)
    return ask.folder.file(format)


def _writer(format: str, tensors: Tensors, ask: Ask) -> Callable[[Path], None]:
    from cache import formats

    notes = {"format": "depthmap weights", "model": ask.checkpoint.name}
    return lambda target: formats.write(format, tensors, target, notes)


def _cast(tensors: Tensors, dtype: str | None) -> Tensors:
    if dtype is None:
        return tensors
    import torch

    wanted = getattr(torch, DTYPES[dtype])
    return {name: tensor.to(wanted) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


# -- import ----------------------------------------------------------------------------------------

def import_file(path: Path, asks: Sequence[Ask]) -> tuple[str, Ask]:
    """Take a weight file into the cache of the one model it fits; returns (format, whose)."""
    from cache import formats

    with open_regular(path) as file:
        tensors, format = formats.read_open(file, path)  # hashed and read through one handle
        file.seek(0)
        size = os.fstat(file.fileno()).st_size
        ask = asks[0]
        digest = sha256(file, lambda done: _tell(ask.progress, "import", done, size, path.name), ask.cancel)
        ask, official = _whose(asks, tensors, digest)
        known = next((source for source in ask.checkpoint.sources if source.sha256 == digest), None)
        source = (Source.of(known, sha256=digest, etag=None, commit=None, pinned=True) if known
                  else Source(f"file {path.name}", filename=path.name, sha256=digest, size=size, pinned=False))
        blob = _handle_path(file, path) if known and known.layout == "official" and format == "pt" else None
        store_import(ask, official, source, made_from="import", blob=blob, proven=known is not None)
    return format, ask


def _handle_path(file, path: Path) -> Path:
    handle = Path(f"/proc/self/fd/{file.fileno()}")
    return handle if sys.platform == "linux" and handle.exists() else path


def _whose(asks: Sequence[Ask], tensors: Tensors, digest: str) -> tuple[Ask, Tensors]:
    """The model these tensors belong to, and they in its official layout."""
    for ask in asks:  # a published digest says it without building a single network
        if any(source.sha256 == digest for source in ask.checkpoint.sources):
            return ask, to_official(ask.checkpoint, tensors, strict=False)
    fits, reasons = [], []
    for ask in asks:
        try:
            fits.append((ask, to_official(ask.checkpoint, tensors, strict=True)))
        except WrongCheckpoint as error:
            reasons.append(error)
    if len(asks) == 1 and reasons:
        raise reasons[0]
    if len(fits) != 1:
        names = ", ".join(ask.checkpoint.name for ask, _ in fits)
        raise WrongCheckpoint("The file fits more than one model." if fits else "The file fits no model of the table.",
                              got=names or f"{len(tensors)} tensors, such as {next(iter(tensors))[:80]}",
                              next_step="Say which model it is." if fits else None)
    return fits[0]


def store_import(ask: Ask, tensors: Tensors, source: Source, *, made_from: str, blob: Path | None,
                 proven: bool) -> Manifest:
    """Replace the model's files by ones made of these tensors."""
    folder = ask.folder
    with folder.lock("import", cancel=ask.cancel):
        old = _old(folder)
        manifest = describe(ask.checkpoint.name, source, tensors, kept=bool(old and old.kept), cancel=ask.cancel)
        official = proven or folder.store.known("tensors", ask.checkpoint.name) == manifest.tensors_sha256
        manifest = replace(manifest, imported=not proven, official=official)
        if old is not None:
            folder.save(replace(old, files={}))  # from here on a crash leaves the model absent, not mixed
        manifest = build(folder, manifest, ask.formats, tensors, made_from=made_from, blob=blob,
                         progress=ask.progress, cancel=ask.cancel)
        remove_unrecorded(folder, manifest)
    return manifest


def remove_unrecorded(folder: Folder, manifest: Manifest) -> None:
    """Old formats that the new record does not know."""
    for path in _payloads(folder):
        if path.name not in {payload.name for payload in manifest.files.values()}:
            with disk_errors(path, "remove an old copy"):
                path.unlink(missing_ok=True)


def _payloads(folder: Folder) -> Iterator[Path]:
    from cache import FORMATS

    return (path for format in FORMATS if (path := folder.file(format)).exists())


def _old(folder: Folder) -> Manifest | None:
    try:
        return folder.manifest()
    except DepthmapError:
        return None


def _tell(progress: ProgressCallback | None, phase: str, done: int, total: int, name: str) -> None:
    if progress is not None:
        progress(Progress(phase, done, total, name))
