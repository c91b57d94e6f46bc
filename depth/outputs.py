"""A depth map as the files that somebody asked for, and the record of what is already done.

One run may use many processes on many machines (see `raydata.py`): every writer keeps a ledger file of
its own, so that nobody waits and nobody loses a line; all of them are read when a run starts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from uuid import uuid4

from cache.errors import UsageError
from depth import render
from depth.choices import ENDINGS
from depth.depthmap import DepthMap

LEDGER = ".depthmap"  # folder inside the output folder, one JSON-lines file per writer

_WRITERS: dict[str, Callable[[Path, DepthMap, Options], object]] = {
    "png16": lambda path, depth, how: render.save_png16(path, depth.values, model=depth.model),
    "npy": lambda path, depth, how: render.save_npy(path, depth.values),
    "pfm": lambda path, depth, how: render.save_pfm(path, depth.values),
    "png": lambda path, depth, how: render.save_png(path, depth.values, how.colormap, how.invert),
}
FORMATS = {name: (ending, _WRITERS[name]) for name, ending in ENDINGS.items()}  # how they end, how one is written


@dataclass(frozen=True)
class Options:
    """Which files to write, and how the coloured one ("png") looks. Raises UsageError for unknown names."""

    formats: tuple[str, ...] = ("png16",)
    colormap: str = "inferno"
    invert: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown or not self.formats:
            raise UsageError("Unknown depth format.", expected=f"one or more of {', '.join(FORMATS)}",
                             got=", ".join(map(repr, unknown)) or "none")
        render.palette(self.colormap)

    @property
    def key(self) -> str:
        """What the outputs depend on, in one word.

        >>> Options(("npy", "png"), "turbo").key
        'npy png turbo'
        """
        looks = [self.colormap] + ["invert"] * self.invert if "png" in self.formats else []
        return " ".join([*self.formats, *looks])


def write(depth: DepthMap, folder: Path, stem: str, options: Options) -> dict[str, str]:
    """Write the files of one picture below `folder`; {name relative to it: sha256}.

    Each file appears whole or not at all. Raises UsageError if the folder does not take it.
    """
    written = {}
    for name in options.formats:
        ending, save = FORMATS[name]
        path = folder / f"{stem}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, depth, options)
        written[f"{stem}{ending}"] = digest(path)
    return written


@contextmanager
def growing(target: Path) -> Iterator[Path]:
    """A path beside `target` to write a long file to: it becomes `target` if the block ends well, else vanishes."""
    with TemporaryDirectory(dir=target.parent, prefix=".depthmap-") as scratch:
        path = Path(scratch) / target.name
        yield path
        path.replace(target)


def digest(path: Path) -> str:
    """The sha256 of a file, in hex."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


@dataclass(frozen=True)
class Identity:
    """What must be the same for an output to be still good: the picture's name relative to its folder, its
    size and time (`stamp`), the model, and what was asked for."""

    name: str
    stamp: str
    model: str
    options: str


class Ledger:
    """What is done in one output folder: read once, then appended to. One writer, many readers."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._path = folder / LEDGER / f"{uuid4().hex}.jsonl"
        self._done = dict(_lines(folder / LEDGER))

    def outputs(self, identity: Identity) -> dict[str, str] | None:
        """The good outputs of an earlier run, {name: sha256}; None if one is missing or has changed."""
        outputs = self._done.get(identity)
        if outputs and all(_is_intact(self._folder, name, sha256) for name, sha256 in outputs.items()):
            return outputs
        return None

    def add(self, identity: Identity, outputs: dict[str, str]) -> None:
        """Note one picture as done. A line torn by a crash is skipped when read: that picture is done again."""
        self._done[identity] = outputs
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**vars(identity), "outputs": outputs}) + "\n")


def _lines(folder: Path) -> Iterable[tuple[Identity, dict[str, str]]]:
    """Every readable line of every ledger; anything else was torn and does not count.

    Two writers may hold different outputs for one picture only if both are good or one is gone, so the
    order of the files does not matter much: a wrong guess costs one picture done again.
    """
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                fields = json.loads(line)
                outputs = {str(name): str(sha256) for name, sha256 in fields.pop("outputs").items()}
                yield Identity(**{key: str(value) for key, value in fields.items()}), outputs
            except (ValueError, TypeError, KeyError, AttributeError):
                continue


def _is_intact(folder: Path, name: str, sha256: str) -> bool:
    """Whether an output is there with the bytes it was written with; a ledger cannot point outside its folder."""
    relative = PurePosixPath(name)
    path = folder / relative
    if relative.is_absolute() or ".." in relative.parts:
        return False
    try:
        return path.is_file() and digest(path) == sha256
    except OSError:
        return False
