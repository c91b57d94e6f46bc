"""The record of a model, also where it was lost: payloads that can prove themselves get a new one."""

from __future__ import annotations

from pathlib import Path

from cache.ask import Ask
from cache.building import describe
from cache.errors import CacheError, IntegrityError, WeightsError
from cache.files import sha256
from cache.manifest import Manifest, Source
from cache.store import MANIFEST


def recorded(ask: Ask, notes: list[str]) -> Manifest | None:
    """The manifest; a damaged one goes to quarantine and is written anew from files that prove themselves."""
    try:
        manifest = ask.folder.manifest()
        if manifest is not None or not ask.folder.path.is_dir():
            return manifest
    except IntegrityError as error:
        if "newer version" in error.what:
            raise
        notes.append(f"record: {error}")
        _set_aside_record(ask, str(error), notes)
    return _recover(ask, notes)


def _set_aside_record(ask: Ask, reason: str, notes: list[str]) -> None:
    try:
        with ask.folder.lock("repair", cancel=ask.cancel):
            try:
                ask.folder.manifest()
            except IntegrityError:
                ask.folder.quarantine(ask.folder.path / MANIFEST, reason)
    except CacheError as error:
        notes.append(str(error))


def _recover(ask: Ask, notes: list[str]) -> Manifest | None:
    """A record for payloads that lost theirs: a `.pt` with a published digest, or an `.h5` with its own."""
    candidates = [path for format in ("pt", "h5") if (path := ask.folder.file(format)).is_file()]
    if not candidates:
        return None
    try:
        with ask.folder.lock("recover", cancel=ask.cancel):
            found = ask.folder.manifest()
            for path in filter(Path.is_file, candidates if found is None else []):
                found = _recover_pt(ask, path) if path.suffix == ".pt" else _recover_h5(ask, path)
                if found is not None:
                    notes.append(f"record: written anew from {path.name}")
                    return found
            return found
    except (CacheError, WeightsError, OSError) as error:
        notes.append(str(error))
        return None


def _recover_pt(ask: Ask, path: Path) -> Manifest | None:
    digest = sha256(path, cancel=ask.cancel)
    file = next((file for file in ask.checkpoint.sources if file.sha256 == digest and file.layout == "official"), None)
    if file is None:
        return None
    from cache import formats
    from cache.building import slots_of

    tensors, _ = formats.read(path, finite=False)
    manifest = describe(ask.checkpoint.name, ask.source(file, digest), tensors, cancel=ask.cancel)
    return ask.folder.adopt(manifest, "pt", digest, made_from="hub", slots=slots_of(path, "pt"))


def _recover_h5(ask: Ask, path: Path) -> Manifest | None:
    from cache.formats import h5, layout

    with path.open("rb") as file:
        notes, slots = h5.notes(file), h5.slots(file)
        tensors = layout.map_slots(file, slots)
    if notes.get("model") != ask.checkpoint.name or layout.digest(tensors, ask.cancel) != notes.get("tensors_sha256"):
        return None
    origin = str(notes.get("source_sha256")) or None
    file_ = next((file for file in ask.checkpoint.sources if file.sha256 == origin), None)
    known = ask.folder.store.known("tensors", ask.checkpoint.name)
    source = (ask.source(file_, origin) if file_
              else Source(str(notes.get("source")), sha256=origin, pinned=False))
    official = file_ is not None or known == notes["tensors_sha256"]
    manifest = describe(ask.checkpoint.name, source, tensors, imported=not official, official=official,
                        cancel=ask.cancel)
    return ask.folder.adopt(manifest, "h5", sha256(path, cancel=ask.cancel), made_from="recovered", slots=slots)
