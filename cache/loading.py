"""The load order, and healing: from whatever copy is still good to tensors and complete files.

Own `.pt`, `.h5`, `.pkl`, the Hub client's cache, the network. A copy that fails its check goes to
quarantine, the next one serves, and what was bad is made again from what was good.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cache import FORMATS, hub, notebook, places
from cache.ask import Ask
from cache.building import Tensors, build, describe, estimate, to_official
from cache.errors import (
    CacheBusy,
    CacheError,
    Cancelled,
    DepthmapError,
    FetchError,
    IntegrityError,
    NotAvailable,
    WeightsError,
)
from cache.files import existing, require_space, sha256
from cache.hub import Progress, RemoteFile
from cache.manifest import Manifest, Payload
from cache.records import Weights
from cache.recovery import recorded

PATIENCE = 1.0  # seconds to wait for a lock where weights are in hand already


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
    manifest = recorded(ask, notes)
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
    if bad or manifest.building:
        _heal(ask, bad, weights, notes)
    if weights is None and manifest.imported and not manifest.official:
        raise NotAvailable(
            "The imported weights are lost, and the published ones differ from them.", where=ask.folder.path,
            got="; ".join(notes) or "no file is left", next_step=f"Import them again, or clear {ask.checkpoint.name} "
            "to use the published weights.")
    return replace(weights, notes=tuple(notes)) if weights else None


def _heal(ask: Ask, bad: dict[str, str], weights: Weights | None, notes: list[str]) -> None:
    """Quarantine the bad copies and, from good tensors, make them again. Failing to is only a note.

    What an interrupted process has left unmade is made too.
    """
    try:
        patience = None if weights is None else PATIENCE if bad else 0.0
        with ask.folder.lock("repair", seconds=patience, cancel=ask.cancel):
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
            missing = [*lost, *(format for format in manifest.building if format not in manifest.files)]
            if weights is not None and missing:
                build(ask.folder, manifest, missing, weights.tensors, made_from=weights.format,
                      blob=_blob(ask, manifest), progress=ask.progress, cancel=ask.cancel)
    except CacheBusy as error:
        if bad:
            notes.append(f"not repaired: {error}")
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
        except (WeightsError, OSError) as error:  # the user may tidy the Hub's cache at any time
            notes.append(f"{file.where}: {error}")
    return None


def check_located(ask: Ask, file: RemoteFile, path: Path, *, fresh: bool = False,
                  tick: Callable[[int], None] | None = None) -> str:
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
            manifest = describe(ask.checkpoint.name, ask.source(file, digest, path), tensors, kept=kept,
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


def _ticker(ask: Ask, file: RemoteFile, size: int) -> Callable[[int], None] | None:
    if ask.progress is None:
        return None
    return lambda done: ask.progress(Progress("verify", done, size, file.filename))
