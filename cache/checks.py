"""Proving a downloaded file, moving it into its place, and telling how far it is."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

from cache.errors import IntegrityError
from cache.files import CHUNK, check, disk_errors, sha256, sync_file
from cache.remote import Progress, ProgressCallback, RemoteFile


def verifier(pin: str | None, etag: str | None, file: RemoteFile, progress: ProgressCallback | None,
              cancel: threading.Event | None) -> Callable[[Path], None]:
    """A check of a whole file against the pin, else against what the Hub's etag promises."""
    expected = pin or etag

    def verify(path: Path) -> None:
        size = path.stat().st_size
        got = None
        if expected is None:
            return
        with disk_errors(path, "read the download"):
            got = (sha256(path, lambda done: tell(progress, "verify", done, size, file), cancel)
                   if len(expected) == 64 else _git_sha1(path, size, cancel))
        if got != expected:
            raise IntegrityError("The bytes are not the published ones.", where=path, expected=expected, got=got)

    return verify


def _git_sha1(path: Path, size: int, cancel: threading.Event | None) -> str:
    """The object id git gives to a small file that is stored outside of LFS."""
    digest = hashlib.sha1(b"blob %d\0" % size)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            check(cancel)
            digest.update(chunk)
    return digest.hexdigest()


def accepts(verify: Callable[[Path], None], path: Path) -> bool:
    try:
        verify(path)
        return True
    except IntegrityError:
        return False


def move(part: Path, target: Path) -> None:
    with disk_errors(target, "store the download"):
        sync_file(part)
        part.replace(target)


def tell(progress: ProgressCallback | None, phase: str, done: int, total: int | None, file: RemoteFile) -> None:
    if progress is not None:
        progress(Progress(phase, done, total, file.filename))


def meter(progress: ProgressCallback | None, total: int | None, file: RemoteFile) -> Callable[[int], None]:
    """Tells each advance; a transfer that must start over stays silent until it is ahead again."""
    best = -1

    def tick(done: int) -> None:
        nonlocal best
        if done > best:
            best = done
            tell(progress, "download", done, total, file)

    return tick
