"""`python -m depth IN… -o OUT`: depth files of pictures, folders, zips and clips.

Exit code 0: everything is done; 1: something failed, and a sentence says what; 2: the call itself is
wrong; 130: interrupted (what is done is kept, nothing is half-written).
"""

# ruff: noqa: E402, T201 - it reads its arguments before the slower imports, and a command prints
from __future__ import annotations

import argparse
from pathlib import Path

from depth.choices import COLORMAPS, ENDINGS
from depth.models import DEFAULT, MODELS, find

EXAMPLES = """examples:
  python -m depth photo.jpg -o depth                      depth/photo_depth16.png
  python -m depth photos -o depth --format png16,npy      a folder; say it again to resume
  python -m depth photos.zip -o depth.zip --format png    a zip in, a zip out
  python -m depth clip.mp4 -o depth.mp4 --smooth 0.6      a clip, steadied over time
"""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m depth", description="Relative depth of pictures and clips.",
                                  epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("inputs", nargs="+", metavar="IN", type=Path, help="pictures, folders, zips, or clips")
    top.add_argument("-o", "--output", metavar="OUT", type=Path, required=True,
                     help="a folder or a .zip; for one clip also an .mp4")
    top.add_argument("--model", default=DEFAULT, metavar="NAME",
                     help=f"{', '.join(row.name for row in MODELS)} (default: %(default)s)")
    top.add_argument("--weights", type=Path, metavar="FILE", help="a checkpoint of your own for this model")
    top.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    top.add_argument("--format", default="png16", metavar="NAMES",
                     help=f"comma-separated from {', '.join(ENDINGS)} (default: %(default)s)")
    top.add_argument("--colormap", default="inferno", choices=COLORMAPS, help="of png and of clips")
    top.add_argument("--invert", action="store_true", help="dark is near")
    top.add_argument("--zip", action="store_true", help="OUT is a zip whatever its name")
    top.add_argument("--overwrite", action="store_true", help="do again what is there already")
    top.add_argument("--json", action="store_true", help="one JSON object a line, for programs")
    clip = top.add_argument_group("clips")
    clip.add_argument("--video", action="store_true", help="IN are clips whatever their names")
    clip.add_argument("--side-by-side", action="store_true", help="the picture to the left of its depth")
    clip.add_argument("--smooth", type=float, default=0.0, metavar="S", help="0 (default) to 0.95: steady over time")
    clip.add_argument("--frames", type=Path, metavar="ZIP", help="also every frame as a 16-bit PNG, one clip only")
    clip.add_argument("--max-seconds", type=float, metavar="N", help="longest clip (default: 600); 0 for any length")
    ray = top.add_argument_group("clusters (needs requirements-ray.txt)")
    ray.add_argument("--ray", type=int, metavar="N", help="share the work among N Ray workers; IN may be Parquet too")
    ray.add_argument("--gpus", type=float, default=0, metavar="G", help="each worker's share of GPUs (default: 0)")
    return top


if __name__ == "__main__":
    ASKED = parser().parse_args()  # before the slower imports: --help and typing errors are answered at once

import gc
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from functools import cache, partial
from typing import TYPE_CHECKING

from cache.errors import DepthmapError, UnknownModel, UsageError
from depth import batch
from depth.batch import Estimator, Record
from depth.outputs import Options, digest
from depth.sources import is_zip

if TYPE_CHECKING:
    from depth.video import VideoOptions

CLIPS = {".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".mts", ".mpg", ".mpeg", ".ogv", ".flv", ".wmv",
         ".3gp"}


def main(argv: list[str] | None = None, *, estimator: Estimator | None = None) -> int:
    """Run the command; the exit code. `estimator` replaces the one that the arguments name."""
    try:
        args = parser().parse_args(argv)
    except SystemExit as done:  # argparse has printed help or the mistake
        return int(done.code or 0)
    return run(args, estimator)


def run(args: argparse.Namespace, estimator: Estimator | None = None) -> int:
    """`main` after the command line has been read."""
    try:
        with closing(_records(args, estimator)) as records:
            return _finish(args, list(_shown(args, records)))
    except (UsageError, UnknownModel) as error:
        return _fail(args, error, 2)
    except DepthmapError as error:
        return _fail(args, error, 1)
    except KeyboardInterrupt:
        print("Stopped. Nothing is half-written; say it again to go on.", file=sys.stderr)
        return 130


def _records(args: argparse.Namespace, estimator: Estimator | None) -> Iterator[Record]:
    """The work, as it goes on. The model is loaded when all of the call has been found right."""
    if args.video or any(_is_clip(path) for path in args.inputs):
        return _clips(args, estimator)
    options = Options(tuple(args.format.split(",")), args.colormap, args.invert)
    if args.ray is not None:
        return _cluster(args, options)
    output = args.output.with_name(args.output.name + ".zip") if args.zip and not is_zip(args.output) else args.output
    label = find(args.model).name + (f" {digest(_weights(args.weights))}" if args.weights else "")
    return batch.run(args.inputs, output, estimator or partial(_estimator, args), options=options,
                     overwrite=args.overwrite, label=label)


def _cluster(args: argparse.Namespace, options: Options) -> Iterator[Record]:
    from depth import raydata

    if args.ray < 1 or args.overwrite or args.zip or args.device:
        raise UsageError("This does not go with --ray.", expected="at least 1 worker, and a folder or .parquet as OUT",
                         next_step="Leave out --overwrite, --zip and --device; --gpus gives workers a GPU.")
    return raydata.run(args.inputs, args.output, model=args.model, weights=args.weights and _weights(args.weights),
                       options=options, workers=args.ray, gpus=args.gpus)


def _clips(args: argparse.Namespace, estimator: Estimator | None) -> Iterator[Record]:
    """Each clip into its own mp4; one bad clip never stops the rest."""
    from depth.video import MAX_SECONDS, VideoOptions

    pictures = [path for path in args.inputs if not args.video and not _is_clip(path)]
    if pictures:
        raise UsageError("Clips and pictures need calls of their own.", got=pictures[0],
                         next_step="If it is a clip, add --video.")
    if len(args.inputs) > 1 and (args.frames or _is_clip(args.output)):
        raise UsageError("Several clips need a folder to go to, and no --frames.", where=args.output)
    limit = MAX_SECONDS if args.max_seconds is None else args.max_seconds or None
    options = VideoOptions(args.side_by_side, args.smooth, args.colormap, args.invert, args.frames, limit)
    load = cache(lambda: estimator or _estimator(args))
    return (_clip(args, options, load, done, path) for done, path in enumerate(args.inputs, 1))


def _clip(args: argparse.Namespace, options: VideoOptions, load: Callable[[], Estimator], done: int,
          path: Path) -> Record:
    from depth.video import convert, probe

    started, total = time.perf_counter(), len(args.inputs)
    try:
        target = _target(args, path)
        probe(path)  # before the model is loaded
        for step in convert(path, target, load(), options=options):
            _progress(f"{path.name}: {step.phase} {step.done}/{step.total or '?'}")
    except DepthmapError as error:
        if isinstance(error, UsageError) and total == 1:
            raise
        return Record(done, total, path.name, False, str(error), time.perf_counter() - started)
    finally:
        _progress("")
    return Record(done, total, path.name, True, None, time.perf_counter() - started, False, (target.name,))


def _target(args: argparse.Namespace, path: Path) -> Path:
    """Where a clip's depth goes: OUT itself if it is an mp4, else into the folder OUT."""
    target = args.output
    if not _is_clip(target):
        target.mkdir(parents=True, exist_ok=True)
        target = target / f"{path.stem}_depth.mp4"
    if target.exists() and not args.overwrite:
        raise UsageError("The output is there already.", where=target.name, next_step="Name another, or --overwrite.")
    return target


def _estimator(args: argparse.Namespace) -> Estimator:
    from depth.estimator import MiDaSDepthEstimator

    try:
        return MiDaSDepthEstimator(args.model, device=args.device, weights=args.weights, progress=_downloading)
    finally:
        _progress("")


def _weights(path: Path) -> Path:
    if not path.is_file():
        raise UsageError("There is no such file of weights.", where=path)
    return path


def _is_clip(path: Path) -> bool:
    return path.suffix.lower() in CLIPS


def _shown(args: argparse.Namespace, records: Iterator[Record]) -> Iterator[Record]:
    for record in records:
        print(json.dumps(asdict(record)) if args.json else _line(record), flush=True)
        yield record


def _line(record: Record) -> str:
    """
    >>> _line(Record(2, 10, "a.png", True, None, 0.5, False, ("a_depth16.png",)))
    '[2/10] a.png: a_depth16.png, 0.50 s'
    """
    told = record.error or ("done before" if record.skipped else f"{', '.join(record.outputs)}, {record.seconds:.2f} s")
    return f"[{record.done}/{record.total}] {record.name}: {told}"


def _finish(args: argparse.Namespace, records: list[Record]) -> int:
    failed, skipped = sum(not record.ok for record in records), sum(record.skipped for record in records)
    counts = {"total": len(records), "ok": len(records) - failed, "skipped": skipped, "failed": failed}
    if args.json:
        print(json.dumps({"summary": counts | {"output": str(args.output)}}))
    else:
        print(", ".join(f"{count} {word}" for word, count in counts.items() if count))
    return 1 if failed else 0


def _fail(args: argparse.Namespace, error: DepthmapError, code: int) -> int:
    if args.json:
        print(json.dumps({"error": {"code": error.code, "message": str(error)}}))
    else:
        print(f"Error: {error}", file=sys.stderr)
    return code


def _downloading(progress) -> None:
    share = f"{progress.done * 100 // progress.total} %" if progress.total else f"{progress.done >> 20} MiB"
    _progress(f"{progress.name}: {progress.phase} {share}")


def _progress(words: str) -> None:
    """One line that replaces itself, for people who look on; nothing in logs and pipes."""
    if sys.stderr.isatty():
        print(f"\r\033[K{words}", end="", file=sys.stderr, flush=True)


def _stop(signal_number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)  # a polite kill is an interrupt: clean up, then go
    code = run(ASKED)
    gc.freeze()  # or the collector walks all of torch three times before the process may end: 0.4 s
    sys.exit(code)
