"""The load order, and healing: from whatever copy is still good to tensors and complete files.

Own `.pt`, `.h5`, `.pkl`, the Hub client's cache, the network. A copy that fails its check goes to
quarantine, the next one serves, and what was bad is made again from what was good.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path

from cache import hub, notebook, places
from cache.building import Tensors, build, describe, estimate, to_official
from cache.errors import (
    CacheError,
    Cancelled,
    DepthmapError,
    FetchError,
    IntegrityError,
    NotAvailable,
    WeightsError,
)
from cache.files import existing, require_space, sha256
from cache.hub import Progress, ProgressCallback, RemoteFile
from cache.manifest import Manifest, Payload, Source
from cache.records import FORMATS, Checkpoint, Weights
from cache.store import MANIFEST, Folder


@dataclass(frozen=True)
class Ask:
    """One wish: which model, in which formats, and how to go about it."""

    checkpoint: Checkpoint
    folder: Folder
    formats: tuple[str, ...]  # to be made where they are missing
    progress: ProgressCallback | None = None
    cancel: threading.Event | None = None
    offline: bool = False

    def known(self, file: RemoteFile) -> RemoteFile:
        """The source with the digest of its first download, where nobody published one."""
        return file if file.sha256 else replace(file, sha256=self.folder.store.known("file", file.where))


def open_weights(ask: Ask) -> Weights:
    """Checked tensors from the first good copy. Raises NotAvailable with a line for each copy tried."""
    notes: list[str] = []
    weights = own_copy(ask, notes) or from_hub_cache(ask, notes) or from_network(ask, notes)
    notebook.use(ask.folder.path)
    return weights


def ensure(ask: Ask) -> Manifest:
    """Make every wanted format present and checked; raises where `open_weights` would serve regardless."""
    notes: list[str] = []
    weights = own_copy(ask, notes)
    if weights is None:
        weights = from_hub_cache(ask, notes, must_store=True) or from_network(ask, notes, must_store=True)
    with ask.folder.lock("complete", cancel=ask.cancel):
        manifest = ask.folder.manifest()
        if manifest is None:
            raise CacheError("The model was cleared while it was being made.", where=ask.folder.path)
        missing = [format for format in ask.formats if not _is_good(ask, manifest, format)]
        if missing:
            manifest = build(ask.folder, manifest, missing, weights.tensors, made_from=weights.format,
                             blob=_blob(ask, manifest), progress=ask.progress, cancel=ask.cancel)
    return manifest


def repair(ask: Ask) -> None:
    """Make every recorded format good again from what is on this machine. Raises where nothing good is left."""
    notes: list[str] = []
    weights = own_copy(ask, notes) or from_hub_cache(ask, notes, must_store=True)
    manifest = ask.folder.manifest()
    if weights is None or manifest is None:
        raise NotAvailable("No good copy is left on this machine.", where=ask.folder.path,
                           got=" | ".join(notes) or None, next_step="Download the model again.")
    bad = {format: "found broken by optimize" for format in manifest.files if not _is_good(ask, manifest, format)}
    if bad:
        _heal(ask, bad, weights, notes)


# -- own copies ------------------------------------------------------------------------------------

def own_copy(ask: Ask, notes: list[str]) -> Weights | None:
    """The first own copy that passes its check, after the bad ones before it were made again."""
    manifest = _recorded(ask, notes)
    if manifest is None:
        return None
    bad: dict[str, str] = {}
    weights = None
    for format in (format for format in FORMATS if format in manifest.files):
        try:
            tensors = ask.folder.read(manifest, format, ask.cancel)
        except WeightsError as error:
            bad[format] = str(error)
            notes.append(f"{format}: {error}")
            continue
        payload = manifest.files[format]
        weights = Weights(tensors, "cache", format, ask.folder.path / payload.name, payload.sha256)
        break
    if bad:
        _heal(ask, bad, weights, notes)
    if weights is None and manifest.imported and not manifest.official:
        raise NotAvailable(
            "The imported weights are lost, and the published ones differ from them.", where=ask.folder.path,
            got="; ".join(notes) or "no file is left", next_step=f"Import them again, or clear {ask.checkpoint.name} "
            "to use the published weights.")
    return replace(weights, notes=tuple(notes)) if weights else None


def _recorded(ask: Ask, notes: list[str]) -> Manifest | None:
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
            for path in candidates if found is None else []:
                found = _recover_pt(ask, path) if path.suffix == ".pt" else _recover_h5(ask, path)
                if found is not None:
                    notes.append(f"record: written anew from {path.name}")
                    return found
            return found
    except (CacheError, WeightsError) as error:
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
    manifest = describe(ask.checkpoint.name, _source(ask, file, digest, None), tensors, cancel=ask.cancel)
    return ask.folder.adopt(manifest, "pt", digest, made_from="hub", slots=slots_of(path))


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
    source = (_source(ask, file_, origin, None) if file_
              else Source(str(notes.get("source")), sha256=origin, pinned=False))
    official = file_ is not None or known == notes["tensors_sha256"]
    manifest = describe(ask.checkpoint.name, source, tensors, imported=not official, official=official,
                        cancel=ask.cancel)
    return ask.folder.adopt(manifest, "h5", sha256(path, cancel=ask.cancel), made_from="recovered", slots=slots)


def _heal(ask: Ask, bad: dict[str, str], weights: Weights | None, notes: list[str]) -> None:
    """Quarantine the bad copies and, from good tensors, make them again. Failing to is only a note."""
    try:
        with ask.folder.lock("repair", cancel=ask.cancel):
            manifest = ask.folder.manifest()
            if manifest is None:
                return
            lost = [format for format in bad if format in manifest.files and not _is_good(ask, manifest, format)]
            for format in lost:
                payload = manifest.files[format]
                manifest = manifest.without(format)
                ask.folder.save(manifest)
                if not _has_own_bytes(ask, format, payload):
                    ask.folder.quarantine(ask.folder.path / payload.name, bad[format])
            if weights is not None and lost:
                build(ask.folder, manifest, lost, weights.tensors, made_from=weights.format,
                      blob=_blob(ask, manifest), progress=ask.progress, cancel=ask.cancel)
    except (CacheError, IntegrityError) as error:
        notes.append(f"not repaired: {error}")


def _has_own_bytes(ask: Ask, format: str, payload: Payload) -> bool:
    """A .pkl may be sound itself while the .h5 it borrows from is not."""
    try:
        ask.folder.check(format, payload, ask.cancel)
        return True
    except WeightsError:
        return False


def _is_good(ask: Ask, manifest: Manifest, format: str) -> bool:
    if format not in manifest.files:
        return False
    try:
        ask.folder.check(format, manifest.files[format], ask.cancel)
        if format == "pkl":
            ask.folder.check_linked(manifest, ask.cancel)
        return True
    except WeightsError:
        return False


# -- the Hub client's cache and the network ----------------------------------------------------------

def from_hub_cache(ask: Ask, notes: list[str], *, must_store: bool = False) -> Weights | None:
    """Tensors of a source that is on disk already, checked against its digest."""
    for file in map(ask.known, ask.checkpoint.sources):
        path = hub.locate(file, downloads=ask.folder.store.downloads())
        if path is None:
            continue
        try:
            digest = check_located(ask, file, path)
            return _adopt(ask, file, path, digest, "hub", notes, must_store)
        except WeightsError as error:
            notes.append(f"{file.where}: {error}")
    return None


def check_located(ask: Ask, file: RemoteFile, path: Path, *, fresh: bool = False, tick=None) -> str:
    """The digest of a located file; hashes only what changed. Raises IntegrityError for wrong bytes."""
    expected = file.sha256
    if expected is None:
        etag = hub.provenance(file, path)[1] or ""
        expected = etag if len(etag) == 64 else None
    key = f"hub {file.where}"
    facts = path.stat()
    if expected and not fresh and notebook.is_checked(ask.folder.path, key, facts, expected):
        return expected
    got = sha256(path, tick or _ticker(ask, file, facts.st_size), ask.cancel)
    if expected not in (None, got):
        raise IntegrityError("The bytes in the Hub's cache have changed.", where=path, expected=expected, got=got)
    notebook.remember(ask.folder.path, key, path, got, facts)
    return got


def from_network(ask: Ask, notes: list[str], *, must_store: bool = False) -> Weights:
    """Tensors of the first source that gives its file. Raises NotAvailable with a line for each."""
    if ask.offline or places.offline():
        raise NotAvailable(f"{ask.checkpoint.name} is not in the cache, and the network is switched off.",
                           where=ask.folder.path, got="; ".join(notes) or None,
                           next_step="Unset HF_HUB_OFFLINE, or import the weights from a file.")
    for file in map(ask.known, ask.checkpoint.sources):
        try:
            _check_space(ask, file)
            path = hub.fetch(file, progress=ask.progress, cancel=ask.cancel,
                             downloads=ask.folder.store.downloads(), lock_seconds=ask.folder.store.lock_seconds)
            digest = file.sha256 or sha256(path, cancel=ask.cancel)
            return _adopt(ask, file, path, digest, "download", notes, must_store)
        except Cancelled:
            raise
        except (FetchError, WeightsError) as error:
            notes.append(f"{file.where}: {error}")
    if not ask.checkpoint.sources:
        raise NotAvailable(f"{ask.checkpoint.name} has no source to download from.", got="; ".join(notes) or None,
                           next_step="If it does not come with the program, import its weights from a file.")
    raise NotAvailable(f"No source gives the weights of {ask.checkpoint.name}.", got=" | ".join(notes),
                       next_step="Check the connection, or import the weights from a file.")


def _check_space(ask: Ask, file: RemoteFile) -> None:
    """Room for the download and for the formats made of it, before the first byte."""
    store = ask.folder.store
    target = store.downloads() if file.url else places.hub_directory()
    same = existing(target).stat().st_dev == existing(store.directory).stat().st_dev
    left = max(0, (file.size or 0) - hub.partial_size(file, store.downloads()))
    needs = {target: left}
    needs[store.directory] = needs.get(store.directory, 0) + estimate(file, ask.formats, same)
    require_space(needs)


def _adopt(ask: Ask, file: RemoteFile, path: Path, digest: str, source: str, notes: list[str],
           must_store: bool) -> Weights:
    """Own files and tensors from a fetched file with that digest."""
    from cache import formats

    pinned = any(known.where == file.where and known.sha256 for known in ask.checkpoint.sources)
    tensors, format = formats.read(path, finite=not pinned)
    tensors = to_official(ask.checkpoint, tensors, strict=not pinned or file.layout != "official")
    try:
        return replace(_store(ask, file, path, digest, tensors, format), source=source, notes=tuple(notes))
    except (CacheError, IntegrityError) as error:
        if must_store:
            raise
        # A read-only or full own cache is no reason to refuse weights that are here and checked.
        notes.append(f"own cache: {error}")
        return Weights(dict(tensors), source, format, path, digest, tuple(notes))


def _store(ask: Ask, file: RemoteFile, path: Path, digest: str, tensors: Tensors, format: str) -> Weights:
    folder = ask.folder
    with folder.lock("build", cancel=ask.cancel):
        manifest = folder.manifest()
        if manifest is None or not any(_is_good(ask, manifest, made) for made in manifest.files):
            kept = manifest.kept if manifest else False
            manifest = describe(ask.checkpoint.name, _source(ask, file, digest, path), tensors, kept=kept,
                                cancel=ask.cancel)
            blob = path if file.layout == "official" and format == "pt" else None
            manifest = build(folder, manifest, ask.formats, tensors, made_from=format, blob=blob,
                             progress=ask.progress, cancel=ask.cancel)
            _note_digests(ask, file, digest, manifest)
    if file.url:  # its bytes now live in the own cache; a second copy would serve nobody
        path.unlink(missing_ok=True)
    made = next(name for name in FORMATS if name in manifest.files)
    payload = manifest.files[made]
    return Weights(folder.read(manifest, made, ask.cancel), "cache", made, folder.path / payload.name, payload.sha256)


def _note_digests(ask: Ask, file: RemoteFile, digest: str, manifest: Manifest) -> None:
    store = ask.folder.store
    store.note("tensors", ask.checkpoint.name, manifest.tensors_sha256)
    if not manifest.source.pinned:
        store.note("file", file.where, digest)


def _source(ask: Ask, file: RemoteFile, digest: str, path: Path | None) -> Source:
    pinned = any(known.where == file.where and known.sha256 for known in ask.checkpoint.sources)
    commit, etag = hub.provenance(file, path) if path is not None else (file.revision, None)
    return Source.of(file, sha256=digest, etag=etag, commit=commit, pinned=pinned)


def _blob(ask: Ask, manifest: Manifest) -> Path | None:
    """The Hub's copy of the manifest's own source, if it is here and good: the cheapest `.pt`."""
    for file in map(ask.known, ask.checkpoint.sources):
        if file.sha256 != manifest.source.sha256 or file.layout != "official" or file.format != "pt" or file.url:
            continue
        path = hub.locate(file)
        try:
            if path is not None and check_located(ask, file, path) == manifest.source.sha256:
                return path
        except (DepthmapError, OSError):
            continue
    return None


def _ticker(ask: Ask, file: RemoteFile, size: int):
    if ask.progress is None:
        return None
    return lambda done: ask.progress(Progress("verify", done, size, file.filename))
