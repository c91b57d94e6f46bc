"""Whatever deletes: first a plan of steps, then exactly these steps.

`clear_plan` and `optimize_plan` look and decide; `execute` acts, under the lock of each model, and
touches no path that is not in the plan.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from cache import FORMATS, artefacts, hub, inventory, locks, notebook
from cache.ask import Ask
from cache.errors import CacheError, DepthmapError, IntegrityError, UsageError, WeightsError
from cache.files import disk_errors, is_temporary, link_or_copy, publish, unique_bytes
from cache.loading import check_located, repair
from cache.records import Artefact, Checkpoint, FileEntry, ModelEntry, Plan, Step
from cache.store import MANIFEST, STEM, UNPACKING, Folder, Store

GRACE = 3600.0  # seconds: an interrupted download may be wanted again
SWEPT = {"stale": "stale", "damaged": "corrupt", "foreign": "foreign", "leftover": "temporary"}  # state → reason
_OURS = {MANIFEST, notebook.NAME, *(f"{STEM}.{format}" for format in FORMATS)}
AskFor = Callable[[Checkpoint], Ask]


# -- clear -----------------------------------------------------------------------------------------

def clear_plan(store: Store, checkpoints: Sequence[Checkpoint], everything: bool) -> Plan:
    """Remove these models; with `everything` also what belongs to none of them."""
    names = [checkpoint.name for checkpoint in checkpoints]
    steps = [step for name in names for step in _whole(store.folder(name), "asked")]
    steps += [_remove(path, "asked") for checkpoint in checkpoints for path in _downloads(store, checkpoint)]
    if everything:
        steps += [step for name in store.folders() if name not in names for step in _whole(store.folder(name), "asked")]
        planned = {step.path for step in steps}
        loose = [*store.quarantined(), *store.leftovers(), *sorted(store.downloads().glob("*.part"))]
        steps += [_remove(path, "asked") for path in loose if path not in planned]
    absent = [name for name in names if not any(step.name == name for step in steps)]
    return Plan(tuple(steps), notes=() if everything else tuple(f"{name} is not in the cache." for name in absent))


def _whole(folder: Folder, reason: str) -> Iterator[Step]:
    """All files of ours in a model's folder, the record first: a crash then leaves an absent model."""
    for path in sorted(_ours(folder), key=lambda path: (path.name != MANIFEST, path.name)):
        format = path.suffix[1:] if path.name in _OURS and path.stem == STEM else None
        yield _remove(path, reason, folder.name, format)
    yield from (_drop(one, reason) for one in folder.artefacts() if one.state != "making")


def _drop(one: Artefact, reason: str) -> Step:
    return Step("remove", one.path, reason, one.size, one.name, one.kind)


def _ours(folder: Folder) -> list[Path]:
    try:
        return [path for path in folder.path.iterdir() if path.name in _OURS or is_temporary(path.name)]
    except OSError:
        return []


def _downloads(store: Store, checkpoint: Checkpoint) -> Iterator[Path]:
    for file in checkpoint.sources:
        if file.url:
            target = hub.download_path(file, store.downloads())
            yield from (path for path in (target, target.with_name(target.name + ".part")) if path.exists())


def _remove(path: Path, reason: str, name: str | None = None, format: str | None = None) -> Step:
    return Step("remove", path, reason, unique_bytes(path), name, format)


# -- optimize --------------------------------------------------------------------------------------

def optimize_plan(store: Store, checkpoints: Sequence[Checkpoint], formats: tuple[str, ...], quota: int | None,
                  ask_for: AskFor) -> Plan:
    """Leftovers out, broken copies repaired, copies that the Hub's cache holds too linked, quota kept."""
    steps: list[Step] = []
    for checkpoint in checkpoints:
        folder = store.folder(checkpoint.name)
        if not locks.is_taken(folder.lock_path):
            steps += _tidy(folder, checkpoint, ask_for)
    made = inventory.artefacts(store, checkpoints)
    steps += [_drop(one, SWEPT[one.state]) for one in made if one.state in SWEPT]
    names = inventory.known(store, checkpoints)
    steps += [step for name in store.folders() if name not in names for step in _whole(store.folder(name), "orphan")]
    steps += [_remove(path, "quarantine") for path in store.quarantined()]
    steps += [_remove(path, "temporary") for path in store.leftovers()]
    steps += [_remove(path, "temporary") for path in inventory.partial_files(store) if _age(path) > GRACE]
    if quota is None:
        return Plan(tuple(steps))
    entries = inventory.models(store, checkpoints, formats)
    _refuse_tiny(quota, entries)
    left = inventory.used(store) - sum(step.frees for step in steps)
    steps += _evict(store, entries, made, quota, {step.path for step in steps}, left)
    return Plan(tuple(steps))


def _tidy(folder: Folder, checkpoint: Checkpoint, ask_for: AskFor) -> Iterator[Step]:
    yield from (_remove(path, "temporary", folder.name) for path in folder.temporaries())
    try:
        manifest = folder.manifest()
    except DepthmapError:
        yield Step("repair", folder.path / MANIFEST, "corrupt", 0, folder.name)
        return
    payloads = [folder.file(format) for format in FORMATS if folder.file(format).exists()]
    if manifest is None:
        if payloads:
            yield Step("repair", folder.path / MANIFEST, "missing", 0, folder.name)
        return
    recorded = {payload.name for payload in manifest.files.values()}
    yield from (_remove(path, "orphan", folder.name, path.suffix[1:]) for path in payloads if path.name not in recorded)
    for format, payload in manifest.files.items():
        path = folder.path / payload.name
        try:
            folder.check(format, payload)
        except WeightsError:
            yield Step("repair", path, "corrupt" if path.exists() else "missing", 0, folder.name, format)
            continue
        if format == "pt" and unique_bytes(path) and _twin(ask_for(checkpoint), payload.sha256, path):
            yield Step("link", path, "duplicate", payload.size, folder.name, format)


def _twin(ask: Ask, digest: str, path: Path) -> Path | None:
    """The Hub's copy with the same bytes on the same file system."""
    for file in map(ask.known, ask.checkpoint.sources):
        found = hub.locate(file) if file.sha256 == digest and not file.url else None
        try:
            if found and found.stat().st_dev == path.stat().st_dev and check_located(ask, file, found) == digest:
                return found
        except (OSError, DepthmapError):
            continue
    return None


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


# -- the quota -------------------------------------------------------------------------------------

def _refuse_tiny(quota: int, entries: Sequence[ModelEntry]) -> None:
    sizes = [entry.files[0].size for entry in entries if entry.files]
    if sizes and quota < min(sizes):
        raise UsageError("The quota is smaller than one model.", got=f"{quota:,} bytes",
                         expected=f"at least {min(sizes):,} bytes",
                         next_step="Raise DEPTHMAP_CACHE_MAX_BYTES, or clear the models you do not need.")


def _evict(store: Store, entries: Sequence[ModelEntry], made: Sequence[Artefact], quota: int, planned: set[Path],
           used: int) -> Iterator[Step]:
    """Derived formats first, then compiled networks, then whole models, the longest unused first.

    Never a kept model, one that is open in a live process, or an import that no source can give again.
    """
    mapped = inventory.mapped_files(store.directory)
    candidates = sorted((entry for entry in entries if entry.files and not entry.busy and not entry.kept
                         and (entry.official or not entry.imported)),
                        key=lambda entry: entry.last_used or entry.created or 0.0)
    gone: set[Path] = set()
    for entry in candidates:
        if used <= quota:
            return
        for file in reversed(entry.files[1:]):  # a .pkl goes before the .h5 it borrows from
            if file.path not in planned and file.path.resolve() not in mapped and not _lends(file, entry, gone):
                gone.add(file.path)
                used -= file.unique
                yield Step("remove", file.path, "quota", file.unique, entry.name, file.format)
    protected = {entry.name for entry in entries} - {entry.name for entry in candidates}
    for one in made:
        if used <= quota:
            return
        if one.state == "ok" and one.name not in protected:
            gone.add(one.path)
            used -= one.size
            yield _drop(one, "quota")
    for entry in candidates:
        if used <= quota:
            return
        if entry.in_use:
            continue
        for step in _whole(store.folder(entry.name), "quota"):
            if step.path not in planned | gone:
                used -= step.frees
                yield step


def _lends(file: FileEntry, entry: ModelEntry, gone: set[Path]) -> bool:
    """Is this an .h5 whose bytes a remaining .pkl borrows?"""
    return file.format == "h5" and any(other.format == "pkl" and other.path not in gone for other in entry.files)


# -- acting ----------------------------------------------------------------------------------------

def execute(store: Store, plan: Plan, ask_for: Callable[[str], Ask]) -> Plan:
    """Do the steps; each comes back done or with the reason why not."""
    done: list[Step] = []
    for name, group in groupby(plan.steps, key=lambda step: step.name):
        steps = list(group)
        done += _execute_in(store.folder(name), steps, ask_for) if name else [_delete(store, step) for step in steps]
    return Plan(tuple(done), executed=True, notes=plan.notes)


def _execute_in(folder: Folder, steps: list[Step], ask_for: Callable[[str], Ask]) -> list[Step]:
    try:
        repaired = {step: _repair(step, ask_for) for step in steps if step.action == "repair"}
        with folder.lock("tidy"):
            result = [repaired.get(step) or _act(folder, step, ask_for) for step in steps]
            _remove_empty(folder.path)
        return result
    except CacheError as error:
        return [replace(step, error=str(error)) for step in steps]


def _repair(step: Step, ask_for: Callable[[str], Ask]) -> Step:
    try:
        repair(ask_for(step.name))
        return replace(step, done=True)
    except DepthmapError as error:
        return replace(step, error=str(error))


def _act(folder: Folder, step: Step, ask_for: Callable[[str], Ask]) -> Step:
    if step.action == "link":
        return _link(folder, step, ask_for)
    try:
        manifest = folder.manifest() if step.format else None
    except IntegrityError:
        manifest = None
    if manifest is not None and step.format in manifest.files and step.path == folder.file(step.format):
        try:
            folder.save(manifest.without(step.format))
        except CacheError as error:
            return replace(step, error=str(error))
    return _delete(folder.store, step)


def _delete(store: Store, step: Step) -> Step:
    try:
        if not (_inside(step.path, store.directory) or step.path in hub.partial_files()):
            raise CacheError("This path is not in the cache.", where=step.path)
        with disk_errors(step.path, "remove it"):
            if artefacts.FOLDER in (step.path.name, step.path.parent.name):
                artefacts.remove(step.path)
            else:
                step.path.unlink(missing_ok=True)
        if step.path.parent.name.startswith(UNPACKING):
            _remove_empty(step.path.parent)
        return replace(step, done=True)
    except CacheError as error:
        return replace(step, error=str(error))


def _link(folder: Folder, step: Step, ask_for: Callable[[str], Ask]) -> Step:
    """Replace an own copy by a link to the same bytes in the Hub's cache."""
    try:
        manifest = folder.manifest()
        payload = manifest.files.get("pt") if manifest else None
        twin = _twin(ask_for(folder.name), payload.sha256, step.path) if payload else None
        if twin is None:
            return replace(step, error="The copy in the Hub's cache is gone.")
        with disk_errors(step.path, "link it"):
            publish(step.path, lambda path: link_or_copy(twin, path) and None)
        notebook.remember(folder.path, "pt", step.path, payload.sha256)
        return replace(step, done=True)
    except (CacheError, IntegrityError) as error:
        return replace(step, error=str(error))


def _inside(path: Path, directory: Path) -> bool:
    return ".." not in path.parts and directory in path.parents


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
