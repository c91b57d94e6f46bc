"""Looking, without touching: what is cached, how large, how healthy. No torch, no network, no lock.

One broken entry is a line in the report, never the end of the scan. All that a look may leave behind is a digest in
the notebook (`Folder.digest`).
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from cache import FORMATS, hub, locks, notebook, places
from cache.errors import DepthmapError, UsageError
from cache.files import existing, size_of, unique_bytes
from cache.hub import RemoteFile
from cache.manifest import Manifest
from cache.records import (
    Artefact,
    Checkpoint,
    FileEntry,
    FormatTotal,
    Health,
    Info,
    ModelEntry,
    Problem,
    Status,
)
from cache.store import MANIFEST, Folder, Store

LOW_SPACE = 1 << 30
PROBLEMS = {"stale": "stale", "damaged": "damaged", "foreign": "foreign", "failed": "uncompiled",
            "leftover": "temporary"}  # an artefact's state → what health calls it; the network serves all the same


def status(store: Store, checkpoints: Sequence[Checkpoint], formats: tuple[str, ...], quota: int | None) -> Status:
    entries = models(store, checkpoints, formats)
    return Status(store.directory, places.hub_directory(), places.endpoint(), places.offline(),
                  writable(store.directory), formats, quota, used(store), free(store), entries,
                  artefacts(store, checkpoints))


def info(store: Store, checkpoints: Sequence[Checkpoint], formats: tuple[str, ...], quota: int | None,
         detailed: bool) -> Info:
    known_models = models(store, checkpoints, formats)
    entries = [entry for entry in known_models if entry.state != "absent"]
    files = [file for entry in entries for file in entry.files]
    totals = tuple(FormatTotal(format, len(of), sum(file.size for file in of), sum(file.unique for file in of))
                   for format in FORMATS if (of := [file for file in files if file.format == format]))
    size, unique = sum(file.size for file in files), sum(file.unique for file in files)
    entries = tuple(entry if detailed else replace(entry, files=()) for entry in entries)
    made = artefacts(store, checkpoints)
    state = health(store, checkpoints, formats, quota, known_models, made).state
    return Info(store.directory, places.hub_directory(), sum(entry.cached for entry in entries), len(files), size,
                unique, size - unique, free(store), quota, state, totals, entries, made)


def models(store: Store, checkpoints: Sequence[Checkpoint], formats: tuple[str, ...]) -> tuple[ModelEntry, ...]:
    mapped = mapped_files(store.directory)
    return tuple(entry(store.folder(checkpoint.name), checkpoint, formats, mapped) for checkpoint in checkpoints)


def artefacts(store: Store, checkpoints: Sequence[Checkpoint]) -> tuple[Artefact, ...]:
    """The compiled networks of all models that are known here."""
    return tuple(one for name in known(store, checkpoints) for one in store.folder(name).artefacts())


def known(store: Store, checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    """Names whose folders belong to somebody."""
    return (*(checkpoint.name for checkpoint in checkpoints), *store.maker.models)


def entry(folder: Folder, checkpoint: Checkpoint, formats: tuple[str, ...],
          mapped: frozenset[Path] | None = None) -> ModelEntry:
    mapped = mapped_files(folder.path) if mapped is None else mapped
    first = checkpoint.sources[0] if checkpoint.sources else None
    base = ModelEntry(folder.name, False, "absent", busy=locks.is_held(folder.lock_path),
                      download_size=first.size if first else None,
                      pinned=bool(first and first.sha256), last_used=notebook.last_used(folder.path))
    located = _located(folder, checkpoint)
    if located:
        base = replace(base, hub_path=located[1], hub_size=size_of(located[1]))
    try:
        manifest = folder.manifest()
    except DepthmapError:
        return replace(base, state="broken")
    return base if manifest is None else _filled(base, folder, manifest, formats, mapped)


def _filled(base: ModelEntry, folder: Folder, manifest: Manifest, formats: tuple[str, ...],
            mapped: frozenset[Path]) -> ModelEntry:
    files = tuple(_file(folder, manifest, format, base.hub_path is not None)
                  for format in FORMATS if format in manifest.files)
    good = [file for file in files if file.state == "ok"]
    checks = [file.verified for file in good]
    state = ("broken" if len(good) < len(files) or not files
             else "ok" if set(formats) <= {file.format for file in good} else "incomplete")
    source = manifest.source
    return replace(
        base, cached=bool(good), state=state, formats=tuple(file.format for file in good), files=files,
        size=sum(file.size for file in good), unique=sum(file.unique for file in good), source=source.where,
        repo=source.repo, revision=source.revision, etag=source.etag, tensors=manifest.tensors,
        created=manifest.created, verified=None if None in checks or not checks else min(checks),
        pinned=source.pinned, imported=manifest.imported, official=manifest.official, kept=manifest.kept,
        in_use=any(file.path.resolve() in mapped for file in files))


def _file(folder: Folder, manifest: Manifest, format: str, hub_copy: bool) -> FileEntry:
    payload = manifest.files[format]
    path = folder.path / payload.name
    try:
        size = path.stat().st_size
        state = "ok" if size == payload.size and os.access(path, os.R_OK) else \
            "unreadable" if size == payload.size else "damaged"
    except OSError:
        state = "missing"
    others = set(manifest.files) - {format} - ({"pkl"} if format == "h5" else set())
    return FileEntry(format, path, payload.size, unique_bytes(path), payload.sha256, state, payload.created,
                     notebook.checked_when(folder.path, format), payload.made_from,
                     rebuildable=bool(others) or (hub_copy and (manifest.official or not manifest.imported)))


def _located(folder: Folder, checkpoint: Checkpoint) -> tuple[RemoteFile, Path] | None:
    for file in checkpoint.sources:
        if path := hub.locate(file, downloads=folder.store.downloads()):
            return file, path
    return None


# -- health ----------------------------------------------------------------------------------------

def health(store: Store, checkpoints: Sequence[Checkpoint], formats: tuple[str, ...], quota: int | None,
           entries: tuple[ModelEntry, ...] | None = None, made: tuple[Artefact, ...] | None = None) -> Health:
    """`entries` of all models and what is `made` of them, if they are at hand."""
    entries = models(store, checkpoints, formats) if entries is None else entries
    made = artefacts(store, checkpoints) if made is None else made
    problems = [problem for item in entries for problem in _problems(store.folder(item.name), item)]
    problems += [Problem("quarantined", "warning", path, size=size_of(path), detail=_reason(path))
                 for path in store.quarantined() if path.suffix != ".reason"]
    problems += [Problem("temporary", "warning", path, size=size_of(path)) for path in partial_files(store)]
    names = known(store, checkpoints)
    problems += [Problem("orphan", "warning", store.directory / name, name)
                 for name in store.folders() if name not in names]
    problems += [Problem(PROBLEMS[one.state], "warning", one.path, one.name, one.size, one.reason)
                 for one in made if one.state in PROBLEMS]
    problems += _surroundings(store, quota)
    worst = {problem.severity for problem in problems}
    state = "broken" if "broken" in worst else "warning" if worst else "ok"
    return Health(state, tuple(problems), free(store), used(store), quota, writable(store.directory), places.offline())


def _problems(folder: Folder, item: ModelEntry) -> Iterable[Problem]:
    if item.state == "broken" and not item.files:
        yield Problem("damaged", "broken", folder.path / MANIFEST, item.name, detail="the record cannot be used")
    for file in item.files:
        if file.state != "ok":
            yield Problem({"missing": "missing", "unreadable": "unreadable"}.get(file.state, "damaged"),
                          "broken", file.path, item.name, file.size)
    if item.cached and item.hub_path is None and item.repo is not None:
        others = [file for file in item.files if file.state == "ok"]
        if len(others) == 1:
            yield Problem("source_missing", "warning", others[0].path, item.name,
                          detail="the only copy on this machine")
    if not item.busy:
        for path in folder.temporaries():
            yield Problem("temporary", "warning", path, item.name, size_of(path))


def _surroundings(store: Store, quota: int | None) -> Iterable[Problem]:
    if not writable(store.directory):
        yield Problem("read_only", "warning", store.directory)
    if store.directory.exists() and os.name == "posix" and store.directory.stat().st_mode & 0o002:
        yield Problem("shared_directory", "warning", store.directory, detail="everybody may write here")
    if free(store) < LOW_SPACE:
        yield Problem("low_space", "warning", store.directory, size=free(store))
    if quota is not None and used(store) > quota:
        yield Problem("over_quota", "warning", store.directory, size=used(store) - quota)


def _reason(path: Path) -> str | None:
    try:
        return path.with_name(path.name + ".reason").read_text()[:500].strip()
    except OSError:
        return None


# -- the disk --------------------------------------------------------------------------------------

def partial_files(store: Store) -> list[Path]:
    """Interrupted downloads, of URLs and of the Hub, that nobody is writing now."""
    own = [path for path in sorted(store.downloads().glob("*.part"))
           if not locks.is_taken(path.with_name(f".{path.name.removesuffix('.part')}.lock"))]
    return own + [path for path in hub.partial_files() if not locks.is_taken(hub.partial_lock(path))]


def used(store: Store) -> int:
    """Bytes that only the own cache keeps on disk: files linked from the Hub's cache count nothing."""
    seen: dict[tuple[int, int], list[int]] = {}
    # os.walk passes by a folder that is removed meanwhile; Path.rglob would raise.
    for path in (Path(folder, name) for folder, _, names in os.walk(store.directory) for name in names):
        try:
            facts = path.lstat()
        except OSError:
            continue
        if stat.S_ISREG(facts.st_mode):
            links = seen.setdefault((facts.st_dev, facts.st_ino), [facts.st_nlink, facts.st_size, 0])
            links[2] += 1
    return sum(size for links, size, found in seen.values() if found >= links)


def free(store: Store) -> int:
    return shutil.disk_usage(existing(store.directory)).free


def writable(directory: Path) -> bool:
    return os.access(existing(directory), os.W_OK)


def mapped_files(directory: Path) -> frozenset[Path]:
    """Files below the directory that some live process has memory-mapped.

    Linux tells exactly; elsewhere nothing is known, and deleting a mapped file is safe or refused.
    """
    if sys.platform != "linux":
        return frozenset()
    root, found = os.fsencode(f"{directory.resolve()}{os.sep}"), set[bytes]()
    for maps in Path("/proc").glob("[0-9]*/maps") if directory.is_dir() else ():
        try:
            content = maps.read_bytes()
        except OSError:
            continue
        if root in content:
            found.update(line[line.index(root):] for line in content.splitlines() if root in line)
    return frozenset(Path(os.fsdecode(path)) for path in found)


def find(checkpoints: Sequence[Checkpoint], name: str) -> Checkpoint:
    from cache.errors import UnknownModel

    if not isinstance(name, str):
        raise UsageError("A model is asked for by its name.", got=type(name).__name__)
    wanted = name.lower()
    for checkpoint in checkpoints:
        if wanted in (checkpoint.name.lower(), *(alias.lower() for alias in checkpoint.aliases)):
            return checkpoint
    import difflib

    names = [checkpoint.name for checkpoint in checkpoints]
    near = difflib.get_close_matches(wanted, [known.lower() for known in names], 1, 0.4)
    hint = next((known for known in names if near and known.lower() == near[0]), None)
    raise UnknownModel("There is no model of this name.", got=name[:100], expected=", ".join(names),
                       next_step=f"Did you mean {hint}?" if hint else None)
