"""Compiled networks: made of a model's weights, no format of them, and trusted only if nobody else wrote them.

    <directory>/<model>/compiled/<key>/manifest.json   the facts it was made for, and the digest of every file
                                      /…               the files
                                /<key>.failed.json     why making it failed; this key leaves the weights out
                                /.….tmp                only while one is written

Facts are everything an artefact depends on, as a JSON object with at least "model" and "kind"; the key is
their digest, so what no longer fits is simply not found. They are published whole. What stands in the files
is the business of who makes them, and whether it would load them is told by its `current`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache import locks
from cache.files import sha256
from cache.record import Record

if TYPE_CHECKING:
    from cache.records import Artefact  # who only opens an artefact starts without the records

FOLDER = "compiled"
MANIFEST = "manifest.json"
RETRY = 7 * 86_400.0  # seconds until a failed making is tried again
_FAILED = ".failed.json"

Facts = Mapping[str, Any]


class Maker(Record):
    """Who makes artefacts. `models`: those that may have some beside the cache's own, with the file of their weights.

    `current(facts, digest)`: would one of these facts be loaded now, if the model's weights have that digest
    (`Folder.digest`; None: there are none)?
    """

    models: Mapping[str, Path] = field(default_factory=dict)
    current: Callable[[Facts, str | None], bool] = lambda facts, digest: False


def folder_of(directory: Path, name: str) -> Path:
    """Where the model's artefacts lie in a cache directory."""
    return directory / name / FOLDER


def key(facts: Facts) -> str:
    """The artefact's folder name."""
    return hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()[:16]


# -- making and opening ----------------------------------------------------------------------------

@contextlib.contextmanager
def making(folder: Path) -> Iterator[None]:
    """The right to make artefacts in this folder, which it creates. Raises CacheBusy at once if another has it."""
    with locks.hold(_lock(folder), f"compiling {folder.parent.name}", seconds=0):
        folder.mkdir(parents=True, exist_ok=True)
        yield


def _lock(folder: Path) -> Path:
    return folder.parent.parent / ".locks" / f"{folder.parent.name}.{FOLDER}.lock"


def publish(folder: Path, facts: Facts, write: Callable[[Path], Mapping[str, Any]]) -> Path:
    """Let `write` fill a temporary folder, record it, and rename it to its place; private to this user.

    `write` returns more for the manifest. If it raises, nothing is left behind.
    """
    import tempfile

    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    temporary = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=folder))
    try:
        more = write(temporary)
        files = {}
        for path in temporary.iterdir():
            path.chmod(0o600)
            files[path.name] = {"size": path.stat().st_size, "sha256": sha256(path)}
        manifest = {"facts": dict(facts), "files": files, "created": time.time(), **more}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        target = folder / key(facts)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        return target
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def opened(folder: Path, facts: Facts) -> tuple[Path, dict[str, Any]] | None:
    """Path and manifest of the artefact with exactly these facts, its files checked; None if there is none.

    Raises ValueError if it is damaged, of other facts, or if others could have written it.
    """
    path = folder / key(facts)
    if not path.is_dir():
        return None
    if reason := broken(path):
        raise ValueError(reason)
    manifest = _read(path / MANIFEST)
    if manifest.get("facts") != dict(facts):
        raise ValueError("its manifest tells of something else")
    return path, manifest


def broken(path: Path, tick: Callable[[int], None] | None = None) -> str | None:
    """Why this artefact must not be loaded, after hashing its files; None if it is as it was made."""
    if reason := _strange(path):
        return reason
    wanted = _files(_read(path / MANIFEST))
    if not wanted:
        return "its manifest is damaged"
    for name, (_, digest) in wanted.items():
        try:
            if sha256(path / name, tick) != digest:
                return f"{name} is damaged"
        except OSError:
            return f"{name} is missing"
    return None


# -- looking and removing --------------------------------------------------------------------------

def listed(folder: Path, current: Callable[[Facts], bool] = lambda facts: True) -> tuple[Artefact, ...]:
    """Everything in the folder, by a cheap look that hashes nothing."""
    name = folder.parent.name
    if folder.is_symlink():
        from cache.records import Artefact

        return (Artefact(name, "-", folder, "foreign", 0, 0.0, "it is a link"),)
    found = []
    for path in _entries(folder):
        with contextlib.suppress(OSError):  # removed meanwhile
            found.append(_look(name, path, current))
    return tuple(found)


def remove(path: Path) -> None:
    """Delete an artefact, a leftover or a note. Processes that use it keep their copy."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        gone = path.with_name(f".{path.name.strip('.')}.tmp")  # never seen half deleted
        path.replace(gone)
        shutil.rmtree(gone)
    with contextlib.suppress(OSError):  # others are left in it
        path.parent.rmdir()


# -- failures --------------------------------------------------------------------------------------

def note_failure(folder: Path, facts: Facts, reason: str) -> None:
    """Remember why making this failed."""
    folder.mkdir(parents=True, exist_ok=True)
    note = {"reason": reason, "time": time.time(), "facts": dict(facts)}
    _note(folder, facts).write_text(json.dumps(note), encoding="utf-8")


def forget_failure(folder: Path, facts: Facts) -> None:
    _note(folder, facts).unlink(missing_ok=True)


def failure(folder: Path, facts: Facts) -> str | None:
    """Why making exactly this failed within the last week; None: it may be tried."""
    note = _read(_note(folder, facts))
    lately = note.get("facts") == dict(facts) and time.time() - note.get("time", 0.0) < RETRY
    return str(note.get("reason")) if lately else None


def _note(folder: Path, facts: Facts) -> Path:
    """Named after all but the weights, so that what comes of newer ones replaces or removes it."""
    return folder / f"{key({**facts, 'weights': None})}{_FAILED}"


# -- helpers ---------------------------------------------------------------------------------------

def _look(name: str, path: Path, current: Callable[[Facts], bool]) -> Artefact:
    """What this entry of the folder is."""
    from cache.records import Artefact

    facts = path.lstat()
    size = sum(file.lstat().st_size for file in _entries(path)) if path.is_dir() else facts.st_size
    if path.name.endswith(_FAILED):
        note = _read(path)
        state = "failed" if not isinstance(note.get("facts"), dict) or current(note["facts"]) else "stale"
        return Artefact(name, _kind(note), path, state, size, facts.st_mtime, str(note.get("reason", "unknown")))
    if path.name.startswith("."):
        state = "making" if locks.is_taken(_lock(path.parent)) else "leftover"
        return Artefact(name, "-", path, state, size, facts.st_mtime)
    manifest = _read(path / MANIFEST)
    state, reason = _state(path, manifest, current)
    return Artefact(name, _kind(manifest), path, state, size, facts.st_mtime, reason)


def _state(path: Path, manifest: Mapping[str, Any], current: Callable[[Facts], bool]) -> tuple[str, str | None]:
    if reason := _strange(path):
        return "foreign", reason
    wanted = _files(manifest)
    if not wanted:
        return "damaged", "its manifest is damaged"
    for name, (size, _) in wanted.items():
        if not (path / name).is_file() or (path / name).stat().st_size != size:
            return "damaged", f"{name} is missing or cut short"
    return ("ok", None) if current(manifest["facts"]) else ("stale", "made for something else than is here now")


def _strange(path: Path) -> str | None:
    """Why this could be another's work; None if only this user can have written it."""
    for place in (path.parent, path, *_entries(path)):
        if not _is_ours(place):
            return f"others may write {place.name}"
    return None


def _is_ours(path: Path) -> bool:
    """Owned by this user or root, no link, writable by nobody else. (Windows keeps profiles private itself.)"""
    if os.name == "nt":
        return not path.is_symlink()
    info = path.lstat()
    return info.st_uid in (0, os.geteuid()) and not stat.S_ISLNK(info.st_mode) and not info.st_mode & 0o022


def _files(manifest: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    """File name → size and sha256; empty if the manifest is not one of ours."""
    try:
        files = {name: (int(one["size"]), str(one["sha256"])) for name, one in manifest["files"].items()}
        tame = all(Path(name).name == name for name in files) and isinstance(manifest["facts"], dict)
        return files if tame else {}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _kind(manifest: Mapping[str, Any]) -> str:
    facts = manifest.get("facts")
    return str(facts.get("kind", "-"))[:20] if isinstance(facts, dict) else "-"


def _read(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty if there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
