"""`ModelManager`: everything the cache can do, as one library class behind every face.

Each method returns a frozen record (see `records.py`) and raises only errors of `errors.py`.
Methods may be called from several threads and several processes at once. Each imports what it alone needs, so
that a look into the cache costs no more than the look.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from cache import FORMATS, inventory, places
from cache.artefacts import Maker
from cache.ask import Ask
from cache.errors import NotAvailable, UsageError
from cache.files import open_regular
from cache.hub import ProgressCallback
from cache.records import (
    Checkpoint,
    Exported,
    Health,
    Imported,
    Info,
    ModelEntry,
    Plan,
    Status,
    Verdict,
    Weights,
)
from cache.store import Store

__all__ = ["Checkpoint", "ModelManager"]


class ModelManager:
    """The cache of one directory for the given checkpoints.

    directory: None takes `DEPTHMAP_CACHE`, else `/data/depthmap/models` on a Space with persistent
    storage, else `~/.cache/depthmap/models`. formats: those made on download, None takes
    `DEPTHMAP_FORMATS` (comma-separated), else pt, h5, pkl. max_bytes: quota for `optimize`, None
    takes `DEPTHMAP_CACHE_MAX_BYTES`, else no limit. lock_seconds: longest wait for another writer.
    maker: who makes compiled networks of the weights; None: whatever lies there is stale.
    """

    def __init__(self, checkpoints: Iterable[Checkpoint], directory: Path | None = None,
                 formats: Sequence[str] | None = None, *, max_bytes: int | None = None,
                 lock_seconds: float = 600.0, maker: Maker | None = None):
        self.checkpoints = tuple(checkpoints)
        self.formats = self._formats(formats) if formats else places.formats(FORMATS)
        self.max_bytes = places.max_bytes() if max_bytes is None else max_bytes or None
        self.store = Store(Path(directory) if directory else places.own_directory(), lock_seconds, maker)

    @property
    def names(self) -> tuple[str, ...]:
        """The models of the table, in its order."""
        return tuple(checkpoint.name for checkpoint in self.checkpoints)

    def find(self, name: str) -> Checkpoint:
        """The checkpoint by name or alias, in any case. Raises UnknownModel with near names."""
        return inventory.find(self.checkpoints, name)

    def open(self, name: str, *, progress: ProgressCallback | None = None,
             cancel: threading.Event | None = None, offline: bool | None = None) -> Weights:
        """Checked tensors from the first good copy: own pt, h5, pkl, Hub cache, download.

        A copy that fails its check goes to quarantine, the next one serves, and the bad copy is
        built again. offline True never opens a socket; None asks `HF_HUB_OFFLINE`.
        Raises NotAvailable when no copy is left, with one line per copy tried.
        """
        from cache import loading

        return loading.open_weights(self._ask(name, None, progress, cancel, offline))

    def download(self, name: str, formats: Sequence[str] | None = None, *,
                 progress: ProgressCallback | None = None,
                 cancel: threading.Event | None = None) -> ModelEntry:
        """Make the formats (None: the manager's) present and verified; fetch only what is needed."""
        from cache import loading

        ask = self._ask(name, formats, progress, cancel)
        loading.ensure(ask)
        return self._entry(ask.checkpoint)

    def status(self) -> Status:
        """A cheap look at every model of the table. No hashing, no torch, no network."""
        return inventory.status(self.store, self.checkpoints, self.formats, self.max_bytes)

    def info(self, detailed: bool = False) -> Info:
        """Totals and the cached models; `detailed` lists their files. No torch, no network."""
        return inventory.info(self.store, self.checkpoints, self.formats, self.max_bytes, detailed)

    def verify(self, names: Sequence[str] | None = None, *, progress: ProgressCallback | None = None,
               cancel: threading.Event | None = None) -> tuple[Verdict, ...]:
        """Hash every cached file (None: all models), the Hub client's copies and compiled networks. Offline, no torch.

        A model that was named but has no copy gives one "missing" verdict.
        """
        from cache import verifying

        chosen = self.checkpoints if names is None else [self.find(name) for name in _listed(names)]
        verdicts = [verdict for checkpoint in chosen for verdict in verifying.verify(
            self.store.folder(checkpoint.name), checkpoint, names is not None, progress, cancel)]
        makers = self.store.maker.models if names is None else ()
        for name in (*(checkpoint.name for checkpoint in chosen), *makers):
            verdicts += verifying.verify_artefacts(self.store.folder(name), progress, cancel)
        return tuple(verdicts)

    def convert(self, name: str, format: str, *, progress: ProgressCallback | None = None,
                cancel: threading.Event | None = None) -> ModelEntry:
        """Make one more format of a cached model. Raises NotAvailable if no good copy is here."""
        from cache import loading

        ask = self._ask(name, [format], progress, cancel, offline=True)
        loading.ensure(ask)
        return self._entry(ask.checkpoint)

    def export(self, name: str | None, path: Path, format: str | None = None,
               dtype: str | None = None, *, overwrite: bool = False, progress: ProgressCallback | None = None,
               cancel: threading.Event | None = None) -> Exported:
        """Write a self-contained file. format None goes by the suffix; "bundle" packs all formats.

        dtype "fp16" or "bf16" converts floating tensors (not in bundles). name None with "bundle"
        packs every cached model.
        """
        from cache import bundle, exchange

        path = Path(path)
        format = self._export_format(path, format)
        if format == "bundle":
            if dtype is not None:
                raise UsageError("A bundle keeps the number types as they are.", got=dtype[:40])
            chosen = [self.find(name)] if name else self.checkpoints
            asks = [self._ask(checkpoint.name, None, progress, cancel) for checkpoint in chosen]
            return bundle.write(asks, path, overwrite)
        if name is None:
            raise UsageError("Say which model to export, or export a bundle of all.", expected=", ".join(self.names))
        ask = self._ask(name, [format], progress, cancel, offline=True)
        return exchange.export(ask, path, format, dtype, overwrite)

    def import_(self, path: Path, name: str | None = None, *,
                progress: ProgressCallback | None = None, cancel: threading.Event | None = None) -> Imported:
        """Take in a weight file or bundle, recognised by content and checked against the schema.

        name None works when the tensors fit exactly one model. A bundle enters whole or not at all.
        """
        from cache import bundle, exchange, formats

        path = Path(path)
        chosen = [self.find(name)] if name else self.checkpoints
        asks = [self._ask(checkpoint.name, None, progress, cancel, offline=True) for checkpoint in chosen]
        with open_regular(path) as file:
            packed = formats.sniff(file) == "bundle"
        if packed:
            if name:
                raise UsageError("A bundle says itself which models it holds.", got=f"the model {name}", where=path,
                                 next_step="Import it without naming a model.")
            taken = bundle.read(path, asks)
            return Imported(path, "bundle", tuple(self._entry(ask.checkpoint) for ask in taken))
        format, ask = exchange.import_file(path, asks)
        return Imported(path, format, (self._entry(ask.checkpoint),))

    def clear(self, names: Sequence[str] | str | None = None, *, all: bool = False,
              dry_run: bool = False) -> Plan:
        """Remove models from the own cache; the Hub client's cache is never touched."""
        from cache import plans

        if all == bool(names):
            raise UsageError("Say which models to clear, or all.", expected=", ".join(self.names))
        chosen = self.checkpoints if all else [self.find(name) for name in dict.fromkeys(_listed(names))]
        plan = plans.clear_plan(self.store, chosen, all)
        return plan if dry_run else self.execute(plan)

    def optimize(self, dry_run: bool = False) -> Plan:
        """Remove temporaries, quarantine, orphans, duplicates and dead compiled networks; repair; keep the quota.

        The quota evicts derived formats first, then compiled networks, then models by last use; never a
        kept model, never one that is open in a live process.
        """
        from cache import plans

        plan = plans.optimize_plan(self.store, self.checkpoints, self.formats, self.max_bytes,
                                   lambda checkpoint: self._ask(checkpoint.name, None, None, None, offline=True))
        return plan if dry_run else self.execute(plan)

    def execute(self, plan: Plan) -> Plan:
        """Do exactly the steps of a plan made by `clear` or `optimize` with dry_run."""
        from cache import plans

        return plans.execute(self.store, plan, lambda name: self._ask(name, None, None, None, offline=True))

    def keep(self, name: str, kept: bool = True) -> ModelEntry:
        """Mark a cached model as never to be evicted by the quota (or lift the mark)."""
        checkpoint = self.find(name)
        folder = self.store.folder(checkpoint.name)
        with folder.lock("mark"):
            manifest = folder.manifest()
            if manifest is None:
                raise NotAvailable(f"{checkpoint.name} is not in the cache.", where=folder.path,
                                   next_step="Download it first.")
            folder.save(replace(manifest, kept=kept))
        return self._entry(checkpoint)

    def health(self) -> Health:
        """Everything that is not as it should be, by a cheap look (no hashing)."""
        return inventory.health(self.store, self.checkpoints, self.formats, self.max_bytes)

    # -- helpers --

    def _ask(self, name: str, formats: Sequence[str] | None, progress: ProgressCallback | None,
             cancel: threading.Event | None, offline: bool | None = None) -> Ask:
        checkpoint = self.find(name)
        chosen = self._formats(formats) if formats else self.formats
        return Ask(checkpoint, self.store.folder(checkpoint.name), chosen, progress, cancel,
                           places.offline() if offline is None else offline)

    def _entry(self, checkpoint: Checkpoint) -> ModelEntry:
        return inventory.entry(self.store.folder(checkpoint.name), checkpoint, self.formats)

    @staticmethod
    def _export_format(path: Path, format: str | None) -> str:
        if format is None:
            from cache import formats

            return formats.by_suffix(path)
        format = format.lower().lstrip(".")
        if format not in (*FORMATS, "bundle"):
            raise UsageError("There is no such format.", got=format[:40], expected=", ".join((*FORMATS, "bundle")))
        return format

    @staticmethod
    def _formats(formats: Sequence[str]) -> tuple[str, ...]:
        asked = [format.lower().lstrip(".") for format in _listed(formats)]
        if unknown := [format for format in asked if format not in FORMATS]:
            raise UsageError("There is no such format.", got=", ".join(unknown)[:100], expected=", ".join(FORMATS))
        return tuple(format for format in FORMATS if format in asked)


def _listed(names: Sequence[str] | str) -> list[str]:
    return [names] if isinstance(names, str) else list(names)
