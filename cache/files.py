"""Verbs for files on disk: hash, publish atomically, link, measure space. Errors in our own words."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from cache.errors import CacheError, CachePermission, Cancelled, InvalidModelFile, NoSpace

CHUNK = 1 << 20
MARGIN = 64 << 20  # bytes left free beyond what we write
_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_FICLONE = 0x40049409  # linux/fs.h: share the extents of another file (btrfs, XFS)


@contextlib.contextmanager
def disk_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn an OSError of the block into NoSpace, CachePermission or CacheError."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        if error.errno in _FULL:
            raise NoSpace(f"The disk is full; could not {doing}.", where=where,
                          next_step="Free some space or set DEPTHMAP_CACHE to another disk.") from error
        if error.errno in _DENIED:
            raise CachePermission(f"No permission to {doing}.", where=where, got=error.strerror,
                                  next_step="Change the owner or set DEPTHMAP_CACHE to another folder.") from error
        raise CacheError(f"Could not {doing}.", where=where, got=error.strerror or str(error)) from error


def open_regular(path: Path) -> BinaryIO:
    """The file opened for reading; refuses folders, devices and pipes without touching them."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        file = open(path, "rb", opener=lambda name, _: os.open(name, flags))  # noqa: SIM115 - handed out
    except (OSError, ValueError) as error:
        raise InvalidModelFile("Cannot open the file.", where=path,
                               got=getattr(error, "strerror", None) or str(error)) from error
    mode = os.fstat(file.fileno()).st_mode
    if not stat.S_ISREG(mode):
        file.close()
        raise InvalidModelFile("This is not a file.", where=path, expected="a regular file",
                               got="a pipe" if stat.S_ISFIFO(mode) else "a device")
    return file


def sha256(source: Path | BinaryIO, tick: Callable[[int], None] | None = None,
           cancel: threading.Event | None = None) -> str:
    """The hex digest; `tick(bytes so far)` each MiB."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            return sha256(file, tick, cancel)
    digest, done, buffer = hashlib.sha256(), 0, bytearray(CHUNK)
    view = memoryview(buffer)
    while count := source.readinto(buffer):
        digest.update(view[:count])
        done += count
        check(cancel)
        if tick:
            tick(done)
    return digest.hexdigest()


def check(cancel: threading.Event | None) -> None:
    if cancel is not None and cancel.is_set():
        raise Cancelled("Stopped on request.", next_step="Start again to go on where it stopped.")


def unique() -> str:
    """Eight random hex digits, for a name that nobody else takes."""
    return os.urandom(4).hex()


def publish(target: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `target`, then make it durable and rename it there.

    At every moment `target` is the whole old file or the whole new one, and after a return it
    survives a power cut. Leaves no temporary behind unless the process is killed.
    """
    temporary = target.with_name(f".{target.name}.{unique()}.tmp")
    try:
        write(temporary)
        sync_file(temporary)
        temporary.replace(target)  # does nothing where both are links to one file; then `finally` tidies
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    sync_folder(target.parent)


def is_temporary(name: str) -> bool:
    """Is this one of our own temporaries?

    >>> is_temporary(".weights.pt.0123abcd.tmp"), is_temporary("notes.tmp")
    (True, False)
    """
    return name.startswith(".") and name.endswith(".tmp") and name.count(".") >= 3


def sync_file(path: Path) -> None:
    # Only Windows wants a writable handle; a linked Hub blob may be read-only.
    handle = os.open(path, os.O_RDWR | os.O_BINARY if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make renames in the folder durable; Windows has no such call."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def link_or_copy(source: Path, target: Path) -> str:
    """Make `target` hold the bytes of `source` as cheaply as can be: "reflink", "link" or "copy"."""
    source = source.resolve()
    if _reflink(source, target):
        return "reflink"
    try:
        os.link(source, target)
        return "link"
    except OSError as error:
        if error.errno in _FULL:
            raise
    shutil.copyfile(source, target)
    return "copy"


def copy_bytes(source: Path, target: Path) -> None:
    """An independent copy: changing one never changes the other."""
    if not _reflink(source, target):
        shutil.copyfile(source, target)


def _reflink(source: Path, target: Path) -> bool:
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        with source.open("rb") as old, target.open("xb") as new:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
        return True
    except OSError:
        with contextlib.suppress(OSError):
            target.unlink()
        return False


def require_space(needs: Mapping[Path, int]) -> None:
    """Raise NoSpace unless every file system has room for what goes to its folders."""
    total: dict[int, tuple[Path, int]] = {}
    for folder, size in needs.items():
        folder = existing(folder)
        device = folder.stat().st_dev
        total[device] = (folder, total.get(device, (folder, 0))[1] + size)
    for folder, size in total.values():
        whole, _, free = shutil.disk_usage(folder)
        if size and whole and free < size + MARGIN:  # a virtual file system has no size; writing will tell
            raise NoSpace("Not enough free disk space.", where=folder, expected=f"{size + MARGIN:,} bytes",
                          got=f"{free:,} bytes free",
                          next_step=f"Free {size + MARGIN - free:,} bytes or choose another folder.")


def existing(path: Path) -> Path:
    """The path, or its nearest parent that exists."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def size_of(path: Path) -> int:
    """Bytes of the file, 0 for one that somebody has just removed."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def unique_bytes(path: Path) -> int:
    """Bytes that deleting the path would free: 0 while another hard link keeps them."""
    try:
        facts = path.lstat()
    except OSError:
        return 0
    return facts.st_size if facts.st_nlink <= 1 else 0
