"""Folders of compiled networks: published whole, trusted only if nobody else could have written them.

    <folder>/<key>/manifest.json       the facts it was made for and the digest of every file
                  /…                   the files
    <folder>/<key>.failed.json         why making it failed
    <folder>/.….tmp                    only while one is written

Facts are everything an artefact depends on, as a JSON object; the key is their digest, so what no longer
fits is simply not found. What is in the files is the caller's business (`compiled.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
RETRY = 7 * 86_400.0  # seconds until a failed making is tried again
LEFTOVER = 86_400.0  # seconds after which a temporary folder belongs to a process that died

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Artefact:
    """One of them on disk. `state`: "ok", "damaged" (a file is missing or has another size), "foreign"
    (others could have written it), or what the caller's judge says of its facts, such as "stale"."""

    path: Path
    facts: Facts
    state: str
    size: int  # bytes
    created: float  # seconds since 1970
    seconds: float = 0.0  # that making it took


def key(facts: Facts) -> str:
    """The artefact's folder name."""
    return hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()[:16]


def publish(folder: Path, facts: Facts, write: Callable[[Path], Mapping[str, Any]]) -> Path:
    """Let `write` fill a temporary folder, record it, and rename it to its place; private to this user.

    `write` returns more for the manifest. If it raises, nothing is left behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    temporary = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=folder))
    try:
        more = write(temporary)
        files = {}
        for path in temporary.iterdir():
            path.chmod(0o600)
            files[path.name] = {"size": path.stat().st_size, "sha256": digest(path)}
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
    if strangers := [place.name for place in (folder, path, *path.iterdir()) if not _is_ours(place)]:
        raise ValueError(f"others may write {strangers[0]}")
    manifest = _read(path / MANIFEST)
    if manifest.get("facts") != dict(facts):
        raise ValueError("its manifest is damaged or tells of something else")
    for name, wanted in manifest["files"].items():
        if Path(name).name != name or digest(path / name) != wanted["sha256"]:
            raise ValueError(f"{name} is damaged")
    return path, manifest


def listed(folder: Path, judge: Callable[[Facts], str] = lambda facts: "ok") -> tuple[Artefact, ...]:
    """Every artefact in the folder, by a cheap look that hashes nothing."""
    if not folder.is_dir():
        return ()
    places = (path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith("."))
    return tuple(_look(path, judge) for path in places)


def leftovers(folder: Path) -> tuple[Path, ...]:
    """Temporary folders of processes that died."""
    old = time.time() - LEFTOVER
    return tuple(path for path in folder.glob(".*.tmp") if path.stat().st_mtime < old) if folder.is_dir() else ()


def remove(path: Path) -> None:
    """Delete an artefact, a leftover or a note. Processes that use it keep their mapped copy."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


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
    return note.get("reason") if time.time() - note.get("time", 0.0) < RETRY else None


def failures(folder: Path) -> Iterator[tuple[Path, str]]:
    """All notes of failures and their reasons."""
    for path in sorted(folder.glob("*.failed.json")) if folder.is_dir() else ():
        yield path, str(_read(path).get("reason", "unknown"))


def _note(folder: Path, facts: Facts) -> Path:
    return folder / f"{key(facts)}.failed.json"


def _look(path: Path, judge: Callable[[Facts], str]) -> Artefact:
    manifest = _read(path / MANIFEST)
    files = [file for file in path.iterdir() if file.is_file()]
    return Artefact(path, manifest.get("facts", {}), _state(path, manifest, judge),
                    sum(file.stat().st_size for file in files), float(manifest.get("created", 0.0)),
                    float(manifest.get("seconds", 0.0)))


def _state(path: Path, manifest: Mapping[str, Any], judge: Callable[[Facts], str]) -> str:
    if not all(map(_is_ours, (path.parent, path, *path.iterdir()))):
        return "foreign"
    wanted = {name: one["size"] for name, one in manifest.get("files", {}).items()}
    if not wanted or any(not (path / name).is_file() or (path / name).stat().st_size != size
                         for name, size in wanted.items()):
        return "damaged"
    return judge(manifest["facts"])


def _is_ours(path: Path) -> bool:
    """Owned by this user or root, no link, writable by nobody else. (Windows keeps profiles private itself.)"""
    if os.name == "nt":
        return not path.is_symlink()
    info = path.lstat()
    return info.st_uid in (0, os.geteuid()) and not stat.S_ISLNK(info.st_mode) and not info.st_mode & 0o022


def _read(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty if there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def digest(path: Path) -> str:
    with path.open("rb") as file:
        if sys.version_info >= (3, 11):
            return hashlib.file_digest(file, "sha256").hexdigest()
        return hashlib.sha256(file.read()).hexdigest()
