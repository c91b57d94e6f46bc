"""The same as `batch.py` on a Ray cluster: many machines, one output. Needs requirements-ray.txt.

The rows that travel are names and paths (or the pictures of a Parquet table), a few at a time; depth is
written by the worker that made it. Ray starts a killed worker again and repeats the rows it held; the new
one reads the ledger first, so that only the picture in hand is done twice. A restarted job works alike.
Workers load the model through the machine's cache, whose lock lets one of them download.
"""

from __future__ import annotations

import hashlib
import time
import zlib
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
from depth import models, sources
from depth.batch import Estimator, Job, Record, do_one, make
from depth.outputs import FORMATS, Identity, Ledger, Options, digest
from depth.render import save_atomically
from depth.sources import Opener, Source, stems

if TYPE_CHECKING:
    import pyarrow
    import ray.data

CHUNK = 16  # pictures that a worker is given at a time
MAX_BLOCKS = 4096  # Ray plans each of them
_KEY = ("name", "stamp", "model", "options")


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

    Yields a `Record` for each picture, as it is done. Raises UsageError before the first, and whatever
    loading the model raises.
    """
    ray = _ray()
    options, output = options or Options(), Path(output).absolute()
    label = models.find(model).name + (f" {digest(weights)}" if weights else "")
    rows = _rows(ray, [inputs] if isinstance(inputs, str | Path) else list(inputs), output)
    make(output)
    task = Task(load or partial(_estimator, model, weights), label, options, output)
    return _run(ray, rows, task, workers, gpus)


def _run(ray, rows: ray.data.Dataset, task: Task, workers: int, gpus: float) -> Iterator[Record]:
    done, total = 0, rows.count()
    answers = rows.map_batches(Worker, fn_constructor_args=(task,), batch_size=CHUNK, batch_format="pyarrow",
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
    """One process of the cluster: rows in, records out; the depth goes straight to the output."""

    def __init__(self, task: Task):
        self._job = Job(cache(task.load), task.options, task.label, False, Event())
        self._output = task.output
        self._parts = Parts(task.output) if _is_parquet(task.output) else None
        self._ledger = None if self._parts else Ledger(task.output)

    def __call__(self, rows: pyarrow.Table) -> pyarrow.Table:
        import pyarrow

        try:
            with TemporaryDirectory(prefix="depthmap-") as scratch:
                answers = [asdict(self._one(row, Path(scratch))) for row in rows.to_pylist()]
            if self._parts:
                self._parts.flush()
        except DepthmapError as error:  # Ray would pass on its text, but not its kind
            answers = [{"error": str(error), "fatal": type(error).__name__}]
        return pyarrow.Table.from_pylist(answers, schema=_answer())

    def _one(self, row: dict, scratch: Path) -> Record:
        folder = scratch / "depth" if self._parts else self._output
        if self._parts:
            self._parts.folder = folder
        with ExitStack() as stack:
            return do_one(self._job, _source(row, scratch), Opener(stack), folder, self._parts or self._ledger, 0, 0)


class Parts:
    """A Parquet folder as a ledger: what is in its parts is done. A part appears whole or not at all."""

    def __init__(self, output: Path):
        self._output, self._rows, self.folder = output, [], output
        self._done = {Identity(*row) for row in _identities(output)}

    def outputs(self, identity: Identity) -> dict[str, str] | None:
        return {"in an earlier part": ""} if identity in self._done else None

    def add(self, identity: Identity, outputs: dict[str, str]) -> None:
        """Keep the files' bytes for the next part, and drop the files."""
        files = {}
        for name in outputs:
            path = self.folder / name
            files[next(key for key, (ending, _) in FORMATS.items() if name.endswith(ending))] = path.read_bytes()
            path.unlink()
        self._rows.append({**asdict(identity), "written": time.time(), **files})

    def flush(self) -> None:
        """Write the part. Its name follows from what is in it, so that a repeated write replaces itself."""
        import pyarrow
        import pyarrow.parquet

        if not self._rows:
            return
        keys = repr(sorted(tuple(row[key] for key in _KEY) for row in self._rows))
        table = pyarrow.Table.from_pylist(self._rows)
        path = self._output / f"part-{hashlib.sha256(keys.encode()).hexdigest()[:32]}.parquet"
        save_atomically(path, lambda file: pyarrow.parquet.write_table(table, file))
        self._done |= {Identity(*(row[key] for key in _KEY)) for row in self._rows}
        self._rows = []


def _identities(folder: Path) -> Iterator[tuple[str, ...]]:
    import pyarrow.parquet

    for path in sorted(folder.glob("part-*.parquet")):
        yield from zip(*(column.to_pylist() for column in pyarrow.parquet.read_table(path, columns=list(_KEY)).columns),
                       strict=True)


def _rows(ray, inputs: list[str | Path], output: Path) -> ray.data.Dataset:
    """The work as small rows: a name, an output stem, and a path or the picture's bytes."""
    if len(inputs) == 1 and _is_parquet(Path(inputs[0])):
        return _table(ray, Path(inputs[0]).absolute())
    found = sources.find([path for given in inputs for path in _expanded(given)], output)
    if any(source.entry for source in found):
        raise UsageError("Workers do not read zips.", where=found[0].path.name, next_step="Unpack it to a folder.")
    rows = [{"name": source.name, "stem": source.stem, "path": str(source.path.absolute())} for source in found]
    return ray.data.from_items(rows, override_num_blocks=min(-(-len(rows) // CHUNK), MAX_BLOCKS))


def _table(ray, path: Path) -> ray.data.Dataset:
    """A Parquet table's pictures. Only its names are read here, to give each an output name of its own."""
    import pyarrow.dataset

    try:
        table = pyarrow.dataset.dataset(path, format="parquet")
    except (OSError, ValueError) as error:
        raise UsageError("The Parquet table cannot be read.", where=path.name, got=error) from error
    if "image" not in table.schema.names:
        raise UsageError("The table has no pictures.", where=path.name, expected="a column `image`",
                         got=", ".join(table.schema.names))
    columns = [name for name in ("image", "name") if name in table.schema.names]
    if "name" in columns:
        _refuse_equal(table.to_table(columns=["name"])["name"].to_pylist(), path)
    return ray.data.read_parquet(str(path), columns=columns)


def _refuse_equal(names: list[str], path: Path) -> None:
    tidy = stems([str(name) for name in names])
    twice = [name for name, stem in zip(names, tidy, strict=True) if stem != stems([str(name)])[0]]
    if twice:
        raise UsageError("Two pictures of the table would get one output name.", where=path.name, got=twice[0],
                         next_step="Make the column `name` unique.")


def _source(row: dict, scratch: Path) -> Source:
    """The picture of a row; bytes become a passing file, because files are what is read with care."""
    if "path" in row:
        return Source(row["name"], row["stem"], Path(row["path"]))
    content = row["image"]["bytes"] if isinstance(row["image"], dict) else row["image"]
    content = content or b""
    name = str(row.get("name") or hashlib.sha256(content).hexdigest()[:32])
    stem = stems([name])[0]
    path = scratch / stem.rpartition("/")[2]
    path.write_bytes(content)
    return Source(name, stem, path, mark=f"{len(content)}-{zlib.crc32(content):08x}")


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


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in {".parquet", ".pq"}


def _answer() -> pyarrow.Schema:
    """The columns of a `Record`, the same with errors and without; `fatal` names one that ends the run."""
    import pyarrow

    return pyarrow.schema({"done": pyarrow.int64(), "total": pyarrow.int64(), "name": pyarrow.string(),
                           "ok": pyarrow.bool_(), "error": pyarrow.string(), "seconds": pyarrow.float64(),
                           "skipped": pyarrow.bool_(), "outputs": pyarrow.list_(pyarrow.string()),
                           "fatal": pyarrow.string()})
