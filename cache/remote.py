"""A file somewhere else, and the progress of getting it: records only, for everybody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

from cache.record import Record


class RemoteFile(Record):
    """Where one weight file lives and what its bytes must be.

    Either `repo` + `revision` (a full commit, best) + `filename` on the Hub, or a plain `url`
    (a GitHub release; `repo` is None). `sha256` None means nobody published it: the first download
    is trusted, recorded, and later ones must equal it. `layout` names the key layout inside.
    """

    repo: str | None
    revision: str | None
    filename: str
    sha256: str | None
    size: int | None
    layout: str = "official"  # or "transformers"
    url: str | None = None

    @property
    def format(self) -> str:
        """What the file name promises; only the content decides."""
        suffix = PurePosixPath(self.filename).suffix.lower()
        return {".safetensors": "safetensors", ".h5": "h5", ".pkl": "pkl"}.get(suffix, "pt")

    @property
    def where(self) -> str:
        """The source in one line.

        >>> RemoteFile("a/b", "main", "c.pt", None, None).where
        'a/b@main:c.pt'
        """
        return self.url or f"{self.repo}@{(self.revision or 'main')[:12]}:{self.filename}"


class Progress(Record):
    """`phase`: "download" | "verify" | "convert" | "import" | "export"; `done` of `total` bytes."""

    phase: str
    done: int
    total: int | None
    name: str


ProgressCallback = Callable[[Progress], None]
