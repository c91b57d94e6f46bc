"""Remote file in, verified local file out. The only file that imports huggingface_hub.

The Hub client's own cache stays the source of truth for what came from the Hub: `locate` looks
there without a network, `fetch` adds to it what the client lacks (see `transfer.py`): resume after
a kill, a sha256 of every byte, progress each MiB, cancel, and bounded waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class RemoteFile:
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


@dataclass(frozen=True)
class Progress:
    """`phase`: "download" | "verify" | "convert" | "import" | "export"; `done` of `total` bytes."""

    phase: str
    done: int
    total: int | None
    name: str


ProgressCallback = Callable[[Progress], None]


def locate(file: RemoteFile) -> Path | None:
    """The file in the Hub client's cache (or our downloads folder for a URL), or None. No network."""
    raise NotImplementedError


def fetch(file: RemoteFile, *, progress: ProgressCallback | None = None,
          cancel: threading.Event | None = None) -> Path:
    """The verified local file; downloads what is missing. Raises FetchError and its kinds."""
    raise NotImplementedError
