"""One wish to the cache, as every part of loading, exchange and tidying passes it on."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from cache import hub
from cache.hub import ProgressCallback, RemoteFile
from cache.manifest import Source
from cache.record import Record
from cache.records import Checkpoint
from cache.store import Folder


class Ask(Record):
    """One wish: which model, in which formats, and how to go about it."""

    checkpoint: Checkpoint
    folder: Folder
    formats: tuple[str, ...]  # to be made where they are missing
    progress: ProgressCallback | None = None
    cancel: threading.Event | None = None
    offline: bool = False

    def source(self, file: RemoteFile, digest: str, path: Path | None = None) -> Source:
        """What to record of bytes with that digest, found at `path` (None: no longer there)."""
        pinned = any(known.where == file.where and known.sha256 for known in self.checkpoint.sources)
        commit, etag = hub.provenance(file, path) if path is not None else (file.revision, None)
        return Source.of(file, sha256=digest, etag=etag, commit=commit, pinned=pinned)

    def known(self, file: RemoteFile) -> RemoteFile:
        """The source with the digest of its first download, where nobody published one."""
        return file if file.sha256 else replace(file, sha256=self.folder.store.known("file", file.where))
