"""`ModelManager`: everything the cache can do, as one library class behind every face.

Each method returns a frozen record (see `records.py`) and raises only errors of `errors.py`.
Methods may be called from several threads and several processes at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from cache.hub import ProgressCallback
from cache.records import (
    Checkpoint, Exported, Health, Imported, Info, ModelEntry, Plan, Status, Verdict, Weights,
)

__all__ = ["Checkpoint", "ModelManager"]


class ModelManager:
    """The cache of one directory for the given checkpoints.

    directory: None takes `DEPTHMAP_CACHE`, else `/data/depthmap/models` on a Space with persistent
    storage, else `~/.cache/depthmap/models`. formats: those made on download, None takes
    `DEPTHMAP_FORMATS` (comma-separated), else pt, h5, pkl. max_bytes: quota for `optimize`, None
    takes `DEPTHMAP_CACHE_MAX_BYTES`, else no limit. lock_seconds: longest wait for another writer.
    """

    def __init__(self, checkpoints: Iterable[Checkpoint], directory: Path | None = None,
                 formats: Sequence[str] | None = None, *, max_bytes: int | None = None,
                 lock_seconds: float = 600.0):
        raise NotImplementedError

    @property
    def names(self) -> tuple[str, ...]:
        """The models of the table, in its order."""
        raise NotImplementedError

    def find(self, name: str) -> Checkpoint:
        """The checkpoint by name or alias, in any case. Raises UnknownModel with near names."""
        raise NotImplementedError

    def open(self, name: str, *, progress: ProgressCallback | None = None,
             cancel: threading.Event | None = None, offline: bool | None = None) -> Weights:
        """Checked tensors from the first good copy: own pt, h5, pkl, Hub cache, download.

        A copy that fails its check goes to quarantine, the next one serves, and the bad copy is
        built again. offline True never opens a socket; None asks `HF_HUB_OFFLINE`.
        Raises NotAvailable when no copy is left, with one line per copy tried.
        """
        raise NotImplementedError

    def download(self, name: str, formats: Sequence[str] | None = None, *,
                 progress: ProgressCallback | None = None,
                 cancel: threading.Event | None = None) -> ModelEntry:
        """Make the formats (None: the manager's) present and verified; fetch only what is needed."""
        raise NotImplementedError

    def status(self) -> Status:
        """A cheap look at every model of the table. No hashing, no torch, no network."""
        raise NotImplementedError

    def info(self, detailed: bool = False) -> Info:
        """Totals and the cached models; `detailed` lists their files. No torch, no network."""
        raise NotImplementedError

    def verify(self, names: Sequence[str] | None = None, *, progress: ProgressCallback | None = None,
               cancel: threading.Event | None = None) -> tuple[Verdict, ...]:
        """Hash every cached file (None: all models) and the Hub client's copies. Offline, no torch.

        A model that was named but has no copy gives one "missing" verdict.
        """
        raise NotImplementedError

    def convert(self, name: str, format: str, *, progress: ProgressCallback | None = None,
                cancel: threading.Event | None = None) -> ModelEntry:
        """Make one more format of a cached model. Raises NotAvailable if no good copy is here."""
        raise NotImplementedError

    def export(self, name: str | None, path: Path, format: str | None = None,
               dtype: str | None = None, *, overwrite: bool = False,
               progress: ProgressCallback | None = None) -> Exported:
        """Write a self-contained file. format None goes by the suffix; "bundle" packs all formats.

        dtype "fp16" or "bf16" converts floating tensors (not in bundles). name None with "bundle"
        packs every cached model.
        """
        raise NotImplementedError

    def import_(self, path: Path, name: str | None = None, *,
                progress: ProgressCallback | None = None) -> Imported:
        """Take in a weight file or bundle, recognised by content and checked against the schema.

        name None works when the tensors fit exactly one model. A bundle enters whole or not at all.
        """
        raise NotImplementedError

    def clear(self, names: Sequence[str] | str | None = None, *, all: bool = False,
              dry_run: bool = False) -> Plan:
        """Remove models from the own cache; the Hub client's cache is never touched."""
        raise NotImplementedError

    def optimize(self, dry_run: bool = False) -> Plan:
        """Remove temporaries, quarantine, orphans and duplicates; repair; keep the quota.

        The quota evicts derived formats first, then models by last use; never a kept model, never
        one that is open in a live process.
        """
        raise NotImplementedError

    def execute(self, plan: Plan) -> Plan:
        """Do exactly the steps of a plan made by `clear` or `optimize` with dry_run."""
        raise NotImplementedError

    def keep(self, name: str, kept: bool = True) -> ModelEntry:
        """Mark a cached model as never to be evicted by the quota (or lift the mark)."""
        raise NotImplementedError

    def health(self) -> Health:
        """Everything that is not as it should be, by a cheap look (no hashing)."""
        raise NotImplementedError
