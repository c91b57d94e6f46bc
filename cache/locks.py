"""One kernel lock per thing that is written, waited for with a limit, by name of the holder.

The lock dies with its process, so lock files are never deleted and never broken by age. Who holds
it stands in a side file (`<lock>.holder`), which is only a hint for the message.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cache.errors import CacheBusy, Cancelled
from cache.files import disk_errors

if TYPE_CHECKING:
    import filelock

POLL_SECONDS = 0.05


@contextlib.contextmanager
def hold(path: Path, doing: str, *, seconds: float, cancel: threading.Event | None = None) -> Iterator[None]:
    """Hold the lock at `path` while the block runs.

    Raises CacheBusy with the holder's name after `seconds` (0: do not wait), Cancelled on request.
    Threads of one process exclude each other as processes do.
    """
    with disk_errors(path, "lock the cache"):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquire(path, seconds, cancel)
    try:
        _sign(path, doing)
        yield
    finally:
        with contextlib.suppress(OSError):  # only a hint for the message of those who wait
            _holder_file(path).unlink()
        lock.release()


def is_held(path: Path) -> bool:
    """Does somebody who signed hold the lock now?

    Without a name beside the lock nothing is tried: a try takes it for a moment, in which others find it held.
    """
    return _holder_file(path).exists() and is_taken(path)


def is_taken(path: Path) -> bool:
    """Does anybody hold the lock now, with a name or without?"""
    if not path.exists():
        return False
    try:
        lock = _try(path)
    except OSError:
        return False
    if lock is not None:
        lock.release()
    return lock is None


def _acquire(path: Path, seconds: float, cancel: threading.Event | None) -> filelock.BaseFileLock:
    deadline = time.monotonic() + seconds
    while (lock := _try(path)) is None:
        if cancel is not None and cancel.is_set():
            raise Cancelled("Stopped while waiting for another writer.", where=path)
        if time.monotonic() >= deadline:
            raise CacheBusy(
                "Somebody else is writing this.", where=path, expected=f"a free lock within {seconds:g} s",
                got=_holder(path), next_step="Wait for it or stop it, then try again.")
        time.sleep(POLL_SECONDS)
    return lock


def _try(path: Path) -> filelock.BaseFileLock | None:
    """The lock, held; None if somebody else holds it."""
    import filelock  # takes longer than all else here, and most starts lock nothing

    # Mode: group-writable, so that the users of a shared cache can wait for each other.
    lock = filelock.FileLock(path, timeout=0, mode=0o664, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        return None
    return lock


def _holder_file(path: Path) -> Path:
    return path.with_name(path.name + ".holder")


def _sign(path: Path, doing: str) -> None:
    import socket

    note = {"pid": os.getpid(), "host": socket.gethostname(), "doing": doing, "since": time.time()}
    with contextlib.suppress(OSError):
        _holder_file(path).write_text(json.dumps(note))


def _holder(path: Path) -> str:
    try:
        note = json.loads(_holder_file(path).read_text())
        age = max(0, time.time() - note["since"])
        return f"process {note['pid']} on {note['host']}, {note['doing']}, for {age:.0f} s"
    except (OSError, ValueError, KeyError, TypeError):
        return "a holder that left no name"
