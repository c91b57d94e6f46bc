"""What page and REST can do with the cache: the manager's methods, as jobs and with a log line.

Long work becomes a job that every window sees; deleting is done at once. Exports are written into
one folder only, `DEPTHMAP_EXPORTS` or `exports` beside the cache, under names that cannot leave it.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cache import FORMATS
from cache.errors import DepthmapError, NotAvailable, UnknownModel, UsageError
from cache.jobs import DONE, FAILED, Job, Jobs
from cache.records import ModelEntry, Plan

if TYPE_CHECKING:
    from cache.manager import ModelManager

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
SUFFIXES = {name: f".{name}" for name in FORMATS} | {"bundle": ".zip"}


class NotCached(NotAvailable):
    """The work needs a cached model, and it is not here."""

    code = "not_cached"


class Actions:
    """One per server. `manager` is called on first use, so that building this costs nothing."""

    def __init__(self, manager: Callable[[], ModelManager], *, jobs: Jobs | None = None,
                 exports: Path | None = None):
        self._make, self._made, self._lock = manager, None, threading.Lock()
        self._exports = exports
        self.jobs = jobs or Jobs()

    @property
    def manager(self) -> ModelManager:
        with self._lock:
            self._made = self._made or self._make()
            return self._made

    @property
    def exports(self) -> Path:
        """The export folder; made when first written to."""
        chosen = self._exports or os.environ.get("DEPTHMAP_EXPORTS")
        return Path(chosen).expanduser() if chosen else self.manager.status().directory.parent / "exports"

    def download(self, name: str, formats: Sequence[str] | None = None) -> Job:
        """Fetch, verify and convert in the background."""
        name, formats = self.manager.find(name).name, known(formats)
        return self.jobs.start("download", name, lambda progress, cancel: self.manager.download(
            name, formats, progress=progress, cancel=cancel), ",".join(formats or ()))

    def verify(self, names: Sequence[str] | None = None) -> Job:
        """Hash every cached file of the models (None: all)."""
        names = None if names is None else tuple(self.manager.find(name).name for name in names)
        return self.jobs.start("verify", ", ".join(names) if names else None,
                               lambda progress, cancel: self.manager.verify(names, progress=progress, cancel=cancel))

    def convert(self, name: str, format: str) -> Job:
        """Make one more format of a cached model."""
        name, formats = self._cached(name), known([format])
        return self.jobs.start("convert", name, lambda progress, cancel: self.manager.convert(
            name, formats[0], progress=progress, cancel=cancel), formats[0])

    def repair(self, name: str) -> Job:
        """Hash the files of a model and make again what is damaged or missing."""
        name = self.manager.find(name).name

        def work(progress, cancel) -> ModelEntry:
            self.manager.verify([name], progress=progress, cancel=cancel)
            return self.manager.download(name, progress=progress, cancel=cancel)

        return self.jobs.start("repair", name, work)

    def export(self, name: str | None, format: str, dtype: str | None = None, *, file: str | None = None,
               overwrite: bool = False) -> Job:
        """Write one model (None with "bundle": all) into the export folder; the result is Exported."""
        name = self._cached(name) if name else None
        path = self.export_path(export_name(name, format, dtype) if file is None else file)
        path.parent.mkdir(parents=True, exist_ok=True)
        return self.export_to(path, name, format, dtype, overwrite=overwrite)

    def export_to(self, path: Path, name: str | None, format: str, dtype: str | None = None, *,
                  overwrite: bool = False) -> Job:
        """`export` to a path that the server chose itself, never a caller."""
        return self.jobs.start("export", name, lambda progress, cancel: self.manager.export(
            name, path, format, dtype, overwrite=overwrite, progress=progress), path.name)

    def import_(self, path: Path, name: str | None = None, *, done: Callable[[], None] = lambda: None) -> Job:
        """Take in a file; `done` is called when it is no longer needed."""
        name = self.manager.find(name).name if name else None

        def work(progress, cancel):
            try:
                return self.manager.import_(path, name, progress=progress)
            finally:
                done()

        return self.jobs.start("import", name, work, str(path))

    def clear(self, name: str | None = None, *, dry_run: bool = False) -> Plan:
        """Remove one model, or with None every model."""
        names = None if name is None else [self.manager.find(name).name]
        plan = self.manager.clear(names, all=names is None, dry_run=dry_run)
        return self._logged("clear", names[0] if names else None, plan)

    def optimize(self, *, dry_run: bool = False) -> Plan:
        """Sweep, repair and keep the quota."""
        return self._logged("optimize", None, self.manager.optimize(dry_run=dry_run))

    def execute(self, plan: Plan, kind: str, model: str | None = None) -> Plan:
        """Do exactly a plan that was shown before."""
        return self._logged(kind, model, self.manager.execute(plan))

    def result(self, job: Job, watch: Callable[[Job], None] = lambda job: None) -> object:
        """What a job makes, waited for; `watch` sees it twice a second. Raises what went wrong, or that it stopped."""
        while (job := self.jobs.wait(job.id, 0.5)).is_active():
            watch(job)
        if job.error:
            raise (NotAvailable if job.error.code == NotAvailable.code else DepthmapError)(job.error.message)
        if job.result is None:
            raise DepthmapError("Stopped on request.", next_step="What was downloaded so far is kept for the next try.")
        return job.result

    def export_path(self, file: str) -> Path:
        """A name inside the export folder. Raises UsageError for anything that could leave it."""
        path = self.exports / file
        if not NAME.fullmatch(file) or path.is_symlink():
            raise UsageError("This is not a name for a file in the export folder.", got=repr(file[:100]),
                             expected="letters, digits, dots, dashes and underscores, no folders")
        return path

    def is_here(self, name: str) -> bool:
        """Can the model be loaded without a download? True for names that the cache does not manage."""
        try:
            name = self.manager.find(name).name
        except UnknownModel:
            return True
        return any(entry.cached or entry.hub_path for entry in self.manager.status().models if entry.name == name)

    def _cached(self, name: str) -> str:
        name = self.manager.find(name).name
        if not any(entry.cached for entry in self.manager.status().models if entry.name == name):
            raise NotCached(f"{name} is not cached.", next_step="Download it first.")
        return name

    def _logged(self, kind: str, model: str | None, plan: Plan) -> Plan:
        if plan.executed:
            self.jobs.note(kind, model, DONE if plan.ok else FAILED, f"{len(plan.steps)} steps, {plan.frees} bytes")
        return plan


def known(formats: Sequence[str] | None) -> tuple[str, ...] | None:
    """The formats without repeats, in loading order; None stays None. Raises UsageError."""
    if formats is None:
        return None
    wrong = [name for name in formats if name not in FORMATS]
    if wrong or not formats:
        raise UsageError("Unknown format." if wrong else "No format was named.",
                         got=", ".join(wrong)[:100] or None, expected=f"some of {', '.join(FORMATS)}")
    return tuple(name for name in FORMATS if name in formats)


def export_name(model: str | None, format: str, dtype: str | None = None) -> str:
    """The file name that an export gets when nobody chose one.

    >>> export_name("DPT_Large", "pt", "fp16"), export_name(None, "bundle")
    ('DPT_Large-fp16.pt', 'depthmap-models.zip')
    """
    if format not in SUFFIXES:
        raise UsageError("Unknown export format.", got=repr(format[:40]), expected=f"one of {', '.join(SUFFIXES)}")
    return "-".join(filter(None, (model or "depthmap-models", dtype))) + SUFFIXES[format]
