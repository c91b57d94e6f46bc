"""Many pictures in, depth files in a folder or a zip out. One bad picture never stops the rest.

    >>> from depth import MiDaSDepthEstimator, batch              # doctest: +SKIP
    >>> for record in batch.run(["photos"], "depth", MiDaSDepthEstimator("MiDaS_small")):  # doctest: +SKIP
    ...     print(record.done, record.total, record.name, record.error or "ok")

A run into a folder can be stopped and started again: what is done stays done (see `outputs.Ledger`).
A run into a zip leaves one whole zip or none.
"""

from __future__ import annotations

import errno
import json
import logging
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np
from PIL import Image

from cache.errors import DepthmapError, NoSpace, UsageError
from depth.depthmap import DepthMap
from depth.outputs import Identity, Ledger, Options, growing, write
from depth.render import save_atomically
from depth.sources import SUFFIXES, Opener, Source, find, is_zip

REPORT = "report.json"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
log = logging.getLogger(__name__)


class Estimator(Protocol):
    """What this room needs of `MiDaSDepthEstimator`."""

    def predict(self, image: str | Path | Image.Image | np.ndarray) -> DepthMap: ...


@dataclass(frozen=True)
class Record:
    """One picture of a run. `done` counts this one; `error` is a sentence; `outputs` are relative to the output;
    `skipped` means that an earlier run had made them. `seconds` is wall time."""

    done: int
    total: int
    name: str
    ok: bool
    error: str | None = None
    seconds: float = 0.0
    skipped: bool = False
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Limits:
    """The most `pictures` of a run, and of a zip that it writes the most `bytes`; None sets no limit."""

    pictures: int | None = None
    bytes: int | None = None

    def check(self, pictures: int) -> None:
        """Raise UsageError for more pictures than that."""
        if self.pictures is not None and pictures > self.pictures:
            raise UsageError("These are too many pictures for one run.", expected=f"at most {self.pictures}",
                             got=pictures, next_step="Share them among several runs.")


def run(inputs: Iterable[str | Path], output: str | Path, estimator: Estimator | Callable[[], Estimator], *,
        options: Options | None = None, overwrite: bool = False, cancel: threading.Event | None = None,
        label: str | None = None, names: Mapping[Path, str] | None = None,
        limits: Limits | None = None) -> Iterator[Record]:
    """Estimate the depth of every picture in files, folders and zips; one `Record` each, as it is done.

    `output` is a folder, or a zip where it ends so. `estimator` may be a function that gives one: it is
    called at the first picture that is not done yet, and what it raises ends the run. `label` names the
    model in the ledger (with weights of your own: say which); None takes the estimator's. `names` tells what
    people call an input whose file is called otherwise. `limits` bound what strangers may ask for.

    Setting `cancel` ends the run after the picture in hand; what is done is kept, and a report is written
    either way. Closing the generator also ends a run, but then a zip is not written. Raises UsageError
    and ArchiveError before the first picture, NoSpace when the disk is full.
    """
    options, output, limits = options or Options(), Path(output), limits or Limits()
    inputs = [Path(path) for path in inputs]
    _check_output(inputs, output, overwrite)
    sources = find(inputs, output, names)
    limits.check(len(sources))
    make(output.parent if is_zip(output) else output)
    label = label or str(getattr(getattr(estimator, "model", None), "name", None) or type(estimator).__name__)
    load = cache(estimator if not hasattr(estimator, "predict") else lambda: estimator)
    job = Job(load, options, label, overwrite, cancel or threading.Event(), limits)
    return _into_zip(job, sources, output) if is_zip(output) else _into_folder(job, sources, output)


@dataclass(frozen=True)
class Job:
    """What is the same for every picture of a run."""

    load: Callable[[], Estimator]
    options: Options
    label: str
    overwrite: bool
    cancel: threading.Event
    limits: Limits

    def identity(self, source: Source) -> Identity:
        """What an output of this run depends on. Raises OSError if the picture is gone."""
        return Identity(source.name, source.stamp, self.label, self.options.key)


def _into_folder(job: Job, sources: list[Source], output: Path) -> Iterator[Record]:
    ledger, records, started = Ledger(output), [], time.time()
    try:
        with ExitStack() as stack:
            opener = Opener(stack)
            for source in _until_cancelled(job, sources):
                records.append(do_one(job, source, opener, output, ledger, len(records) + 1, len(sources)))
                yield records[-1]
    finally:
        report = _report(job, records, len(sources), started)
        with suppress(UsageError):  # a full disk is being told already
            save_atomically(output / REPORT, lambda file: file.write(report))


def _into_zip(job: Job, sources: list[Source], output: Path) -> Iterator[Record]:
    records, started = [], time.time()
    with growing(output) as path, TemporaryDirectory(prefix="depthmap-") as scratch, ExitStack() as stack:
        archive = stack.enter_context(zipfile.ZipFile(path, "w"))
        opener = Opener(stack)
        for source in _until_cancelled(job, sources):
            records.append(do_one(job, source, opener, Path(scratch), None, len(records) + 1, len(sources)))
            with _disk_errors(output):
                for name in records[-1].outputs:
                    archive.write(Path(scratch) / name, name, compress_type=_compression(name))
                    (Path(scratch) / name).unlink()
            yield records[-1]
            if job.limits.bytes is not None and path.stat().st_size > job.limits.bytes:
                break  # the rest is left out, and the report says that the run is not complete
        archive.writestr(REPORT, _report(job, records, len(sources), started), zipfile.ZIP_DEFLATED)
        archive.close()


def do_one(job: Job, source: Source, opener: Opener, folder: Path, ledger: Ledger | None,
         done: int, total: int) -> Record:
    """Do one picture; whatever is wrong with it becomes a sentence in its record."""
    started = time.perf_counter()
    earlier = _earlier(job, source, ledger)
    if earlier:
        return Record(done, total, source.name, True, None, time.perf_counter() - started, True, tuple(earlier))
    estimator = job.load()  # outside the `try`: without a model every picture fails
    try:
        outputs = _outputs(job, source, estimator, opener, folder, ledger)
        return Record(done, total, source.name, True, None, time.perf_counter() - started, False, tuple(outputs))
    except DepthmapError as error:
        if getattr(error.__cause__, "errno", None) in _FULL:
            raise _no_space(folder) from error
        sentence = str(error)
    except OSError as error:
        if error.errno in _FULL:
            raise _no_space(folder) from error
        sentence = f"The file cannot be read: {error.strerror or error}."
    except Exception as error:  # a fault of ours or of a library; the other pictures still count
        log.exception("Depth of %s failed", source.name)
        sentence = f"Something unexpected failed: {type(error).__name__}: {error}"
    return Record(done, total, source.name, False, sentence, time.perf_counter() - started)


def _earlier(job: Job, source: Source, ledger: Ledger | None) -> dict[str, str] | None:
    """What an earlier run has made of this picture. One that has vanished is told when it is opened."""
    try:
        return ledger.outputs(job.identity(source)) if ledger and not job.overwrite else None
    except OSError:
        return None


def _outputs(job: Job, source: Source, estimator: Estimator, opener: Opener, folder: Path,
             ledger: Ledger | None) -> dict[str, str]:
    """Make the files of one picture. Its stamp is taken first: if it changes meanwhile, it is done again."""
    identity = job.identity(source)
    with opener.open(source) as path:
        depth = estimator.predict(path)
    outputs = write(depth, folder, source.stem, job.options)
    if ledger:
        ledger.add(identity, outputs)
    return outputs


def _until_cancelled(job: Job, sources: list[Source]) -> Iterator[Source]:
    for source in sources:
        if job.cancel.is_set():
            return
        yield source


def _report(job: Job, records: list[Record], total: int, started: float) -> bytes:
    """The run as JSON: what was asked, the counts, and a line for each picture."""
    files = [{key: value for key, value in asdict(record).items() if key not in {"done", "total"}}
             for record in records]
    facts = {
        "model": job.label, "formats": job.options.formats, "colormap": job.options.colormap,
        "convention": "relative inverse depth, larger is nearer", "started": round(started, 3),
        "seconds": round(time.time() - started, 3), "total": total, "ok": sum(record.ok for record in records),
        "skipped": sum(record.skipped for record in records), "failed": sum(not record.ok for record in records),
        "complete": len(records) == total, "files": files,
    }
    return json.dumps(facts, indent=1).encode()


def _check_output(inputs: list[Path], output: Path, overwrite: bool) -> None:
    if output.resolve() in {path.resolve() for path in inputs}:
        raise UsageError("The output is one of the inputs; the next run would take depth for pictures.",
                         where=output.name, next_step="Name another folder.")
    if is_zip(output):
        if output.is_dir() or (output.exists() and not overwrite):
            raise UsageError("The output is there already.", where=output.name,
                             next_step="Name another, or allow overwriting.")
    elif output.suffix.lower() in SUFFIXES | {".npy", ".pfm"} or output.is_file():
        raise UsageError("The output must be a folder or a zip.", where=output.name, next_step="Name a folder.")


def make(folder: Path) -> None:
    """An output folder and those above it. Raises UsageError where that is not allowed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError("The output folder cannot be made.", where=folder, got=error.strerror) from error


def _compression(name: str) -> int:
    """PNGs are compressed already."""
    return zipfile.ZIP_STORED if name.endswith(".png") else zipfile.ZIP_DEFLATED


@contextmanager
def _disk_errors(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _no_space(where) from error


def _no_space(where: Path) -> NoSpace:
    return NoSpace("The depth files cannot be written: the disk is full or read-only.", where=where,
                   next_step="Make room and start again; what is done is kept.")
