"""`python -m benchmarks [--quick] [--only PART …]`: everything that SPEED.md claims, measured again.

Ours and the peers run interleaved. Results go to results.json and results.md after every part; what was not
measured this time stays as it was. A full run on defaults also puts its bars into README.md.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import entries, gpu, growth, inference, material, measure, memory, serving, tables, throughput
from benchmarks.bars import DEPTH, EAGER, HUB, LOAD, OWN, READY, TRANSFORMERS
from benchmarks.kernel import settle
from benchmarks.measure import Row, Table, interleaved, say, worker

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
WORK = HERE.parent / "build" / "bench"
SMALL, LARGE, BUNDLED = "MiDaS_small", "DPT_Large", "Tiny"


@dataclass(frozen=True)
class Run:
    """What is measured on, and how thoroughly."""

    folder: Path
    quick: bool

    @property
    def models(self) -> list[str]:
        return [SMALL] if self.quick else [SMALL, LARGE]

    def rounds(self, full: int) -> int:
        return min(2, full) if self.quick else full


def loads(run: Run, name: str) -> dict[str, list[str]]:
    """Every way from a file to a network, as worker's arguments without the module."""
    ways = {HUB: ["load_hub", run.folder, name]}
    if name == LARGE:
        ways[TRANSFORMERS] = ["load_transformers", run.folder, name]
    ways |= {f".{kind}": ["load_own", run.folder, name, kind] for kind in material.FORMATS}
    return ways | ({"compiled": ["load_compiled", run.folder, name]} if name == LARGE else {})


def load(run: Run) -> list[Table]:
    """From a copy on disk, page cache warm, to a network whose every page has been touched."""
    settle(run.folder)
    return [interleaved(LOAD.format(name), {way: worker(*rest) for way, rest in loads(run, name).items()},
                        run.rounds(5), warm=True, files=weights(run, name)) for name in run.models]


def weights(run: Run, name: str) -> dict[str, list[Path]]:
    """The files that each way reads."""
    own = {format: run.folder / "cache" / name / f"weights.{format}" for format in material.FORMATS}
    whole = {HUB: [run.folder / f"{name}.pt"],
             TRANSFORMERS: [run.folder / "transformers-dpt-large" / "model.safetensors"],
             **{f".{format}": [path] for format, path in own.items()}, ".pkl": [own["pkl"], own["h5"]],
             **{way: [own["pt"]] for way in ("compiled", OWN, EAGER)}}
    return {way: [path for path in paths if path.exists()] for way, paths in whole.items()}


def cold(run: Run) -> list[Table]:
    """The same after the system was told to forget the files."""
    if not hasattr(os, "posix_fadvise"):
        return [Table("Load from a cold disk", (), "Not measured: this system cannot be told to forget files.")]
    return [interleaved(f"Load {name} from a cold disk", {
        way: worker("cold", *rest) for way, rest in loads(run, name).items()}, run.rounds(3), note=(
            "posix_fadvise(DONTNEED) before each; the code stays warm. All must read the same bytes, so this is mostly "
            "the disk.")) for name in run.models[-1:]]


def share(run: Run) -> list[Table]:
    ways = loads(run, run.models[-1])
    chosen = {HUB: ways[HUB], **({TRANSFORMERS: ways[TRANSFORMERS]} if TRANSFORMERS in ways else {}), OWN: ways[".pt"]}
    return [memory.two_processes(run.folder, run.models[-1], chosen)]


def start(run: Run) -> list[Table]:
    """From the command to the line that says ready, or that the first depth map is there."""
    settle(run.folder)
    found = []
    for name in [BUNDLED, *run.models]:
        for title, first in ((READY, "ready"), (DEPTH, "depth")):
            ways = {HUB: worker("start_hub", run.folder, name, first)}
            if name == LARGE:
                ways[TRANSFORMERS] = worker("start_transformers", run.folder, name, first)
            ways[OWN] = worker("start_own", run.folder, name, first)
            ways[EAGER] = worker("start_eager", run.folder, name, first)
            found.append(interleaved(title.format(name), ways, run.rounds(5), whole=True, warm=first == "ready",
                                     files=weights(run, name),
                                     note="ended: seconds until the process was gone; cpu: those of the processor."))
    return found


def page(run: Run) -> list[Table]:
    """From the command to the page's first answer."""
    commands = {"a straightforward app": ("-m", "benchmarks.plain_app", str(run.folder), SMALL), OWN: ("app.py",)}
    samples: dict[str, list[float]] = {name: [] for name in commands}
    for lap in range(run.rounds(3)):
        for name in measure.in_turn(commands, lap):
            with serving.serving(run.folder, commands[name]) as app:
                samples[name].append(app.seconds)
            say(f"page: {name} {app.seconds:.2f} s")
    return [Table("Start to the page's first answer", tuple(Row(name, tuple(taken)) for name, taken in samples.items()),
                  f"The straightforward app imports everything and loads {SMALL} before it shows its page.")]


def imports(run: Run) -> list[Table]:
    return [entries.measure(run.folder, run.rounds(3))]


def passes(run: Run) -> list[Table]:
    sizes = {BUNDLED: (256, 256), SMALL: (256, 256), LARGE: (384, 384)}
    return [inference.measure(run.folder, name, sizes[name], run.rounds(5 if name == LARGE else 9),
                              passes=3 if name == LARGE else 4) for name in [BUNDLED, *run.models]]


def reduced(run: Run) -> list[Table]:
    return [inference.reduced(run.folder, name, run.rounds(2 if name == LARGE else 7))
            for name in [BUNDLED, *run.models]]


def on_gpu(run: Run) -> list[Table]:
    return [gpu.measure(run.folder, 2 if run.quick else 10)]


def grow(run: Run) -> list[Table]:
    return [growth.pictures(run.folder, run.rounds(3)), growth.batches(run.folder, run.rounds(3)),
            growth.entries((1, 10, 100), run.rounds(3))]


def crowd(run: Run) -> list[Table]:
    return throughput.measure(run.folder, 64 if run.quick else 200, 500 if run.quick else 10_000)


PARTS: dict[str, Callable[[Run], list[Table]]] = {
    "load": load, "share": share, "start": start, "page": page, "imports": imports, "inference": passes,
    "reduced": reduced, "gpu": on_gpu, "growth": grow, "throughput": crowd, "cold": cold}


def main(arguments: list[str] | None = None) -> int:
    chosen = _options(arguments)
    run = Run(chosen.work, chosen.quick)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # the peers come compiled; so may what is measured here
    output = chosen.output or (chosen.work / "quick" if chosen.quick else HERE)
    ready = material.prepare(run.folder, [BUNDLED, *run.models])
    material.peers(ready, [BUNDLED, *run.models])
    found = tables.read(output)
    for part in [] if chosen.prepare else chosen.only:
        if part == "gpu" and part in found and not gpu.is_there():
            say("gpu: there is none here; what was measured on another machine stays")
            continue
        found[part] = _measured(part, run)
        found = {name: found[name] for name in PARTS if name in found}
        tables.save(found, output)
    if found and output == HERE:
        tables.show(found, README)
    print(tables.markdown(found))
    return 0


def _measured(part: str, run: Run) -> tuple[dict[str, object], list[Table]]:
    """The part's tables and what they were measured on. A part that fails is a line, never the end of the run."""
    about, start = tables.machine(), time.perf_counter()
    try:
        found = PARTS[part](run)
    except Exception as error:
        found = [Table(f"Part “{part}”", (), f"Not measured: {type(error).__name__}: {error}")]
    say(f"{part}: {time.perf_counter() - start:.0f} s")
    return about, found


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="without DPT_Large and with few rounds: some minutes")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts only")
    parser.add_argument("--prepare", action="store_true", help="only make what is measured on")
    parser.add_argument("--output", type=Path, help=f"folder for results.md and results.json (default: {HERE.name}, "
                                                    "if quick a folder beside the models)")
    parser.add_argument("--work", type=Path, default=WORK, help="folder for the made-up models (9 GB, 400 MB if quick)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
