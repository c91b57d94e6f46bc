"""Pictures out of a zip file that nobody vouches for.

Nothing is unpacked under a name that the archive chose: one entry at a time goes to a temporary file
of ours and is gone when its picture is done. Declared sizes are checked before, real ones while reading.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from cache.errors import DepthmapError

MAX_ENTRIES = 20_000
MAX_BYTES = 16 * 2**30  # unpacked, all entries together
MAX_ENTRY_BYTES = 512 * 2**20  # a 64-megapixel picture of 16 bits and three channels has 384 MB
MAX_RATIO = 100  # unpacked to packed; pictures are below 20, bombs above 1000
RATIO_COUNTS_FROM = 64 * 2**20  # small archives may hold very flat pictures
_ARCHIVES = {".zip", ".7z", ".rar", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst"}
_BLOCK = 1 << 20


class ArchiveError(DepthmapError):
    """A zip file that cannot be read, or that would harm."""

    code = "bad_archive"


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """An open archive that has passed the checks on its directory. Raises ArchiveError."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ArchiveError("The zip file cannot be read.", where=path.name, expected="a whole zip archive",
                           got=str(error) or type(error).__name__, next_step="Make the archive again.") from error
    with archive:
        _refuse_bomb(archive, path)
        yield archive


def entries(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files of an archive, without folders and without what macOS and hidden files add."""
    return [entry for entry in archive.infolist() if not entry.is_dir() and not _is_clutter(entry.filename)]


def refusal(entry: zipfile.ZipInfo) -> str | None:
    """Why this entry is not opened, as a sentence; None if it may be.

    >>> refusal(zipfile.ZipInfo("../../etc/passwd"))
    'Its name leads out of the archive.'
    """
    parts = _parts(entry.filename)
    if ".." in parts or entry.filename.startswith(("/", "\\")) or ":" in parts[0]:
        return "Its name leads out of the archive."
    if any(ord(letter) < 32 for letter in entry.filename):
        return "Its name holds control characters."
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "It is a link, not a file."
    if entry.flag_bits & 1:
        return "It is locked with a password."
    if PurePosixPath(parts[-1]).suffix.lower() in _ARCHIVES:
        return "It is an archive inside the archive; unpack it first."
    if entry.file_size > MAX_ENTRY_BYTES:
        return f"It has {entry.file_size} bytes unpacked; at most {MAX_ENTRY_BYTES} are read."
    return None


@contextmanager
def extracted(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[Path]:
    """One entry as a temporary file, gone afterwards. Raises ArchiveError for a refused or damaged entry."""
    reason = refusal(entry)
    if reason:
        raise ArchiveError("This entry is not opened.", next_step=reason)
    with TemporaryDirectory(prefix="depthmap-") as folder:
        path = Path(folder) / _parts(entry.filename)[-1].encode("utf-8", "replace")[-120:].decode("utf-8", "ignore")
        try:
            _copy(archive, entry, path)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise ArchiveError("This entry is damaged.", expected="bytes that match their checksum",
                               got=str(error) or type(error).__name__) from error
        yield path


def _copy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    """Unpack, and stop where the entry turns out larger than its directory said."""
    left = entry.file_size
    with archive.open(entry) as packed, path.open("wb") as file:
        while block := packed.read(_BLOCK):
            left -= len(block)
            if left < 0:
                raise zipfile.BadZipFile("more bytes than declared")
            file.write(block)


def _refuse_bomb(archive: zipfile.ZipFile, path: Path) -> None:
    infos = archive.infolist()
    unpacked = sum(entry.file_size for entry in infos)
    packed = max(path.stat().st_size, 1)
    if len(infos) > MAX_ENTRIES:
        _refuse(path, f"at most {MAX_ENTRIES} entries", f"{len(infos)}")
    if unpacked > MAX_BYTES:
        _refuse(path, f"at most {MAX_BYTES} bytes unpacked", f"{unpacked}")
    if unpacked > RATIO_COUNTS_FROM and unpacked > MAX_RATIO * packed:
        _refuse(path, f"at most {MAX_RATIO} bytes out of each byte", f"{unpacked // packed}")


def _refuse(path: Path, expected: str, got: str) -> None:
    raise ArchiveError("The zip file would unpack to too much.", where=path.name, expected=expected, got=got,
                       next_step="Split it, or unpack it yourself and give the folder.")


def _is_clutter(name: str) -> bool:
    """Hidden files and macOS's shadow folder. A name of nothing but dots is a trick, not clutter."""
    parts = _parts(name)
    return parts[0] == "__MACOSX" or (parts[-1].startswith(".") and parts[-1].strip(".") != "")


def _parts(name: str) -> list[str]:
    """Both separators count: some Windows tools write the backslash."""
    return [part for part in name.replace("\\", "/").split("/") if part] or [""]
