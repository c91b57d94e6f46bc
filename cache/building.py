"""From checked tensors to the files of a model: convert, publish, record."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cache import FORMATS
from cache.errors import WrongCheckpoint
from cache.files import check, link_or_copy, require_space
from cache.hub import Progress, ProgressCallback, RemoteFile
from cache.manifest import Manifest, Source
from cache.records import Checkpoint
from cache.store import Folder

if TYPE_CHECKING:
    import torch

    from cache.formats.layout import Slot

Tensors = Mapping[str, "torch.Tensor"]


def describe(name: str, source: Source, tensors: Tensors, *, imported: bool = False, official: bool = True,
             kept: bool = False, cancel: threading.Event | None = None) -> Manifest:
    """A manifest without files for these tensors."""
    from cache.formats import layout

    return Manifest(name, source, len(tensors), layout.digest(tensors, cancel), time.time(), imported, official, kept)


def build(folder: Folder, manifest: Manifest, formats: Sequence[str], tensors: Tensors, *, made_from: str,
          blob: Path | None = None, progress: ProgressCallback | None = None,
          cancel: threading.Event | None = None) -> Manifest:
    """Make the formats from the tensors and record each; call it with the folder's lock held.

    blob: a file with `manifest.source.sha256` that may serve as the `.pt` without a second copy.
    """
    wanted = [format for format in FORMATS if format in formats]
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    shared = blob is not None and _can_serve(blob)
    require_space({folder.path: total * _copies(wanted, manifest, shared)})
    pending = {*wanted, *manifest.building}
    manifest = replace(manifest, building=tuple(format for format in FORMATS if format in pending))
    for number, format in enumerate(wanted):
        check(cancel)
        _tell(progress, number * total, len(wanted) * total, folder.name)
        manifest = _publish(folder, manifest, format, tensors, made_from, blob if shared else None, cancel)
    _tell(progress, len(wanted) * total, len(wanted) * total, folder.name)
    return manifest


def _publish(folder: Folder, manifest: Manifest, format: str, tensors: Tensors, made_from: str,
             blob: Path | None, cancel: threading.Event | None) -> Manifest:
    from cache.formats import h5, pkl, write

    if format == "pt":
        def fill(path: Path) -> None:
            if blob is not None:
                link_or_copy(blob, path)
            else:
                write("pt", tensors, path)

        return folder.publish(manifest, format, fill, made_from="hub" if blob else made_from, cancel=cancel,
                              slots=lambda: slots_of(folder.file("pt"), "pt"),
                              digest=manifest.source.sha256 if blob else None)
    if format == "h5":
        slots: list = []
        return folder.publish(manifest, format,
                              lambda path: slots.extend(h5.write(tensors, path, _notes(manifest))),
                              slots=lambda: slots, made_from=made_from, cancel=cancel)
    lender = manifest.files.get("h5")
    if format == "pkl" and lender is not None:
        places = [_slot(slot) for slot in lender.slots]
        return folder.publish(
            manifest, format, lambda path: pkl.write_linked(tensors, places, folder.file("h5"), lender.sha256, path),
            made_from="h5", cancel=cancel)
    return folder.publish(manifest, format, lambda path: write(format, tensors, path), made_from=made_from,
                          slots=lambda: slots_of(folder.file(format), format), cancel=cancel)


def slots_of(path: Path, format: str) -> list[Slot]:
    """Where the tensors lie, for the manifest; empty for a format or a file that cannot be mapped by it alone."""
    from cache.formats import pt, safetensors

    readers = {"pt": pt.slots, "safetensors": safetensors.slots}
    if format not in readers:
        return []
    with path.open("rb") as file:
        return readers[format](file)


def _slot(slot: tuple):
    from cache.formats.layout import Slot

    return Slot(*slot)


def _notes(manifest: Manifest) -> dict[str, object]:
    """What the `.h5` says of itself; no dates, so that two machines write the same bytes."""
    return {"format": "depthmap weights", "version": 1, "model": manifest.model, "source": manifest.source.where,
            "source_sha256": manifest.source.sha256 or "", "tensors": manifest.tensors,
            "tensors_sha256": manifest.tensors_sha256}


def _copies(formats: Sequence[str], manifest: Manifest, shared: bool) -> int:
    """How many of the formats need new bytes on disk, each about the size of the tensors."""
    borrowed = "h5" in formats or "h5" in manifest.files
    free = {"pt"} if shared else set()
    free |= {"pkl"} if borrowed else set()
    return sum(format not in free for format in formats)


def estimate(file: RemoteFile, formats: Sequence[str], same_disk: bool) -> int:
    """Bytes the own cache will need beyond the download itself, as far as is known before it."""
    shared = same_disk and file.format == "pt" and file.layout == "official"
    free = ({"pt"} if shared else set()) | ({"pkl"} if "h5" in formats else set())
    return (file.size or 0) * sum(format not in free for format in formats)


def _can_serve(blob: Path) -> bool:
    from cache.formats import pt

    with blob.open("rb") as file:
        return pt.is_zip(file)


def to_official(checkpoint: Checkpoint, tensors: Tensors, *, strict: bool) -> Tensors:
    """The tensors in the official layout, if `strict` compared with the schema. Raises WrongCheckpoint."""
    try:
        official = checkpoint.to_official(tensors)
    except ValueError as error:
        raise WrongCheckpoint(f"These are not the weights of {checkpoint.name}.", got=str(error)[:300]) from error
    if strict:
        check_schema(checkpoint, official)
    return official


def check_schema(checkpoint: Checkpoint, tensors: Tensors) -> None:
    """Raise WrongCheckpoint unless every tensor the network uses is there, in its shape and kind."""
    schema = checkpoint.schema()
    missing = [key for key in schema if key not in tensors]
    other = [f"{key} is {tuple(tensors[key].shape)}, expected {tuple(shape)}"
             for key, (shape, _) in schema.items() if key in tensors and tuple(tensors[key].shape) != tuple(shape)]
    mixed = [key for key, (_, dtype) in schema.items()
             if key in tensors and tensors[key].is_floating_point() != ("float" in dtype)]
    if missing or other or mixed:
        facts = ([f"{len(missing)} missing, such as {missing[0]}"] if missing else []) + other[:2] + mixed[:2]
        raise WrongCheckpoint(f"These are not the weights of {checkpoint.name}.",
                              expected=f"{len(schema)} tensors of its layout", got="; ".join(facts))


def _tell(progress: ProgressCallback | None, done: int, total: int, name: str) -> None:
    if progress is not None:
        progress(Progress("convert", done, total, name))
