"""Which pictures a run is about: from files, folders and zips, each with an output name of its own."""

from __future__ import annotations

import os
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cache.errors import UsageError
from depth import archives

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".mpo", ".ppm"}
MAX_STEM = 180  # bytes of an output name before its ending; file systems stop at 255


@dataclass(frozen=True)
class Source:
    """One picture to do: its name for people, the relative output name without ending, and where it is.

    `entry` is set for one that lies in the zip at `path`; `mark` for one whose `path` is a passing copy.
    """

    name: str
    stem: str
    path: Path
    entry: zipfile.ZipInfo | None = None
    mark: str | None = None

    @property
    def stamp(self) -> str:
        """Changes when the picture does: its size with its time, or its checksum in a zip."""
        if self.mark:
            return self.mark
        if self.entry:
            return f"{self.entry.file_size}-{self.entry.CRC:08x}"
        found = self.path.stat()
        return f"{found.st_size}-{found.st_mtime_ns}"


def find(inputs: Iterable[Path], output: Path | None = None, names: Mapping[Path, str] | None = None) -> list[Source]:
    """The pictures in files, folders (all the way down) and zips, in a stable order, each once.

    A file named by itself is taken whatever its ending; in folders and zips the ending decides, and hidden
    files and the output folder are left out. `names` tells what people call an input whose file is called
    otherwise. Raises UsageError for a path that is not there, and if there is no picture.
    """
    inputs, names = list(inputs), names or {}
    several = sum(path.is_dir() or is_zip(path) for path in inputs) > 1
    found: list[tuple[str, Path, zipfile.ZipInfo | None]] = []
    for path in inputs:
        called = Path(names.get(path) or path.resolve().name)
        prefix = f"{called.stem if is_zip(path) else called.name}/" if several else ""
        if path.is_dir():
            found += [(prefix + file.relative_to(path).as_posix(), file, None) for file in _pictures(path, output)]
        elif is_zip(path) and path.is_file():
            found += [(prefix + entry.filename, path, entry) for entry in _entries(path)]
        elif path.is_file():
            found.append((names.get(path, path.name), path, None))
        else:
            raise UsageError("There is no such file or folder.", where=path)
    if not found:
        raise UsageError("There are no pictures here.", where=", ".join(path.name or str(path) for path in inputs),
                         expected="files ending in " + ", ".join(sorted(SUFFIXES)))
    unique = {(path.resolve(), entry.filename if entry else ""): (name, path, entry) for name, path, entry in found}
    tame = stems([name for name, _, _ in unique.values()])
    return [Source(name, stem, path, entry) for (name, path, entry), stem in zip(unique.values(), tame, strict=True)]


class Opener:
    """Gives a source as a file; keeps archives open for the run, their directories may be long."""

    def __init__(self, stack: ExitStack):
        self._stack, self._archives = stack, {}

    @contextmanager
    def open(self, source: Source) -> Iterator[Path]:
        if source.entry is None:
            yield source.path
            return
        if source.path not in self._archives:
            self._archives[source.path] = self._stack.enter_context(archives.opened(source.path))
        with archives.extracted(self._archives[source.path], source.entry) as path:
            yield path


def _pictures(folder: Path, output: Path | None) -> list[Path]:
    """Pictures below a folder in the order of their names; links to folders are not followed."""
    left_out, found = output.resolve() if output else None, []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders
                            if not name.startswith(".") and (Path(root) / name).resolve() != left_out)
        found += [Path(root) / name for name in sorted(files) if is_picture(name)]
    return found


def _entries(path: Path) -> list[zipfile.ZipInfo]:
    """Pictures in a zip, and what must be refused by name, so that nobody wonders where it went."""
    with archives.opened(path) as archive:
        return [entry for entry in archives.entries(archive) if is_picture(entry.filename) or archives.refusal(entry)]


def is_picture(name: str) -> bool:
    """By its name: the ending of a picture, and not hidden."""
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


def stems(names: list[str]) -> list[str]:
    """An output name for each picture: safe on every file system, and none like another in any case."""
    taken: set[str] = set()
    found = []
    for name in names:
        wanted = stem = _tidy(name)
        number = 1
        while stem.casefold() in taken:
            number += 1
            stem = f"{wanted}-{number}"
        taken.add(stem.casefold())
        found.append(stem)
    return found


def _tidy(name: str) -> str:
    """A relative path without ending, without tricks, composed Unicode, and short enough.

    >>> _tidy("../a:b/Été\\x00.JPG"), _tidy("x/" + "y" * 300 + ".png")[-3:]
    ('a_b/Été_', 'yyy')
    """
    path = PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/")))
    parts = [part for part in path.with_suffix("").parts if part.strip("./ ")]
    return "/".join(_tidy_part(part) for part in parts) or "picture"


def _tidy_part(part: str) -> str:
    kept = "".join("_" if letter in '<>:"|?*' or not letter.isprintable() else letter for letter in part)
    return kept.encode("utf-8", "replace")[:MAX_STEM].decode("utf-8", "ignore").strip().rstrip(".") or "_"
