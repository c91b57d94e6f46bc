"""The same as `batch.py` on a Ray cluster: many machines, one output. Needs requirements-ray.txt.

What travels is names: of pictures, or of the row groups of a Parquet table. Workers read and write by
themselves. Ray starts a killed worker again and repeats the rows it held; the new
one reads the ledger first, so that only the picture in hand is done twice. A restarted job works alike.
Workers load the model through the machine's cache, whose lock lets one of them download.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cache, partial
from glob import glob
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import TYPE_CHECKING

from cache import errors
from cache.errors import DepthmapError, UsageError
from depth import models, sources, tables
from depth.batch import Estimator, Job, Limits, Record, do_one, make
from depth.outputs import Ledger, Options, digest
from depth.sources import Opener, Source, is_zip
from depth.tables import CHUNK, Parts, is_table

if TYPE_CHECKING:
    import pyarrow

MAX_BLOCKS = 4096  # Ray plans each of them


@dataclass(frozen=True)
class Task:
    """What every worker needs to know; travels to it. `load` gives the estimator, once in each worker."""

    load: Callable[[], Estimator]
    label: str
    options: Options
    output: Path


def run(inputs: str | Path | Iterable[str | Path], output: str | Path, *, model: str = models.DEFAULT,
        weights: Path | None = None, options: Options | None = None, workers: int = 2, gpus: float = 0,
        load: Callable[[], Estimator] | None = None) -> Iterator[Record]:
    """Estimate the depth of every picture on `workers` worker processes of the connected or a new local cluster.

    inputs: pictures, folders, globs; or one Parquet file or folder with a column `image` (the file's bytes,
    or a struct with `bytes`) and, if there is one, `name`. output: a folder for depth files; or, where it
    ends in .parquet, a folder of Parquet parts with the files' bytes in a column for each format. Both must
    lie where all machines see them under the same path. `gpus` is a worker's share of its machine's GPUs.
    `load` replaces the estimator that `model` and `weights` name.

    Workers share a table by its row groups, so it needs at least as many of them.

    Yields a `Record` for each picture, as it is done. Raises UsageError before the first, and whatever
    loading the model raises.
    """
    ray = _ray()
    options, output = options or Options(), Path(output).absolute()
    label = models.find(model).name + (f" {digest(weights)}" if weights else "")
    if is_zip(output):
        raise UsageError("Workers do not write zips.", where=output.name, next_step="Name a folder.")
    portions = _portions([inputs] if isinstance(inputs, str | Path) else list(inputs), output)
    make(output)
    task = Task(load or partial(_estimator, model, weights), label, options, output)
    return _run(ray, portions, task, workers, gpus)


def _run(ray, portions: list[dict], task: Task, workers: int, gpus: float) -> Iterator[Record]:
    done, total = 0, sum(portion["rows"] for portion in portions)
    size = CHUNK if "stem" in portions[0] else 1
    shared = ray.data.from_items(portions, override_num_blocks=min(-(-len(portions) // size), MAX_BLOCKS))
    answers = shared.map_batches(Worker, fn_constructor_args=(task,), batch_size=size, batch_format="pyarrow",
                                 compute=_pool(ray, workers), num_cpus=1, num_gpus=gpus)
    try:
        for answer in answers.iter_rows():
            fatal = answer.pop("fatal")
            if fatal:
                raise getattr(errors, fatal, DepthmapError)(answer["error"])
            done += 1
            yield Record(**answer | {"done": done, "total": total, "outputs": tuple(answer["outputs"])})
    except ray.exceptions.RayError as error:
        last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise DepthmapError("The Ray job failed.", got=last, next_step="Look into the workers' logs.") from error


class Worker:
    """One process of the cluster: portions of the work in, records out; the depth goes straight to the output."""

    def __init__(self, task: Task):
        self._job = Job(cache(task.load), task.options, task.label, False, Event(), Limits())
        self._output = task.output
        self._parts = Parts(task.output) if is_table(task.output) else None
        self._ledger = None if self._parts else Ledger(task.output)

    def __call__(self, portions: pyarrow.Table) -> pyarrow.Table:
        import pyarrow

        try:
            with TemporaryDirectory(prefix="depthmap-") as scratch:
                answers = [asdict(record) for portion in portions.to_pylist()
                           for record in self._done(portion, Path(scratch))]
            if self._parts:
                self._parts.flush()
        except DepthmapError as error:  # Ray would pass on its text, but not its kind
            answers = [{"error": str(error), "fatal": type(error).__name__}]
        return pyarrow.Table.from_pylist(answers, schema=_answer())

    def _done(self, portion: dict, scratch: Path) -> Iterator[Record]:
        for source in _sources(portion, scratch):
            with ExitStack() as stack:
                yield do_one(self._job, source, Opener(stack), self._folder(scratch), self._parts or self._ledger, 0, 0)

    def _folder(self, scratch: Path) -> Path:
        """Where depth files are written: the output, or a passing folder on their way into a table."""
        if self._parts is None:
            return self._output
        self._parts.folder = scratch / "depth"
        return self._parts.folder


def _portions(inputs: list[str | Path], output: Path) -> list[dict]:
    """The work in small pieces: a picture, or a row group of a table."""
    if len(inputs) == 1 and is_table(Path(inputs[0])):
        return tables.groups(Path(inputs[0]).absolute())
    found = sources.find([path for given in inputs for path in _expanded(given)], output)
    if any(source.entry for source in found):
        raise UsageError("Workers do not read zips.", where=found[0].path.name, next_step="Unpack it to a folder.")
    return [{"path": str(source.path.absolute()), "name": source.name, "stem": source.stem, "rows": 1}
            for source in found]


def _sources(portion: dict, scratch: Path) -> Iterator[Source]:
    """The pictures of a portion, one at a time."""
    if "stem" in portion:
        yield Source(portion["name"], portion["stem"], Path(portion["path"]))
    else:
        yield from tables.sources(portion, scratch)


def _expanded(given: str | Path) -> list[Path]:
    """A glob's matches, or the path itself."""
    path = Path(given)
    if path.exists() or not any(letter in str(given) for letter in "*?["):
        return [path]
    return [Path(match) for match in sorted(glob(str(given), recursive=True))]  # noqa: PTH207 - takes absolute ones


def _pool(ray, workers: int):
    """As many workers as fit now; more as the cluster grows; never waiting for ones that do not fit."""
    now = int(ray.cluster_resources().get("CPU", 1))
    return ray.data.ActorPoolStrategy(min_size=1, max_size=workers, initial_size=max(1, min(workers, now)))


def _ray():
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError("Ray is not installed.", next_step="pip install -r requirements-ray.txt") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray


def _estimator(model: str, weights: Path | None) -> Estimator:
    from depth.estimator import MiDaSDepthEstimator

    return MiDaSDepthEstimator(model, weights=weights)


def _answer() -> pyarrow.Schema:
    """The columns of a `Record`, the same with errors and without; `fatal` names one that ends the run."""
    import pyarrow

    return pyarrow.schema({"done": pyarrow.int64(), "total": pyarrow.int64(), "name": pyarrow.string(),
                           "ok": pyarrow.bool_(), "error": pyarrow.string(), "seconds": pyarrow.float64(),
                           "skipped": pyarrow.bool_(), "outputs": pyarrow.list_(pyarrow.string()),
                           "fatal": pyarrow.string()})
