"""`python -m benchmarks [--quick] [--only PART …]`: everything that SPEED.md claims, measured again.

Parts: load, start, inference, imports, growth, throughput. Results go to benchmarks/results.md and .json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks import growth, inference, material, measure, tables, throughput
from benchmarks.measure import Table

HERE = Path(__file__).resolve().parent
WORK = HERE.parent / "build" / "bench"
MODELS = ["MiDaS_small", "DPT_Large"]


def load(folder: Path, quick: bool) -> list[Table]:
    """From a copy on disk, page cache warm, to a network whose every page has been touched."""
    found = []
    for name in MODELS[:1] if quick else MODELS:
        workers = {"torch.hub's way": ["load_hub", str(folder), name]}
        if name == "DPT_Large":
            workers["transformers"] = ["load_transformers", str(folder), name]
        workers |= {f".{kind}": ["load_own", str(folder), name, kind] for kind in material.FORMATS}
        workers["compiled"] = ["load_compiled", str(folder), name]
        found.append(measure.interleaved(f"Load {name}, libraries imported before", workers, 3 if quick else 5))
    return found


def start(folder: Path, quick: bool) -> list[Table]:
    """Whole processes, from the command to ready and to the first depth map."""
    found = []
    for name in MODELS[:1] if quick else MODELS:
        for first, words in (("ready", "ready"), ("depth", "its first depth map")):
            workers = {"torch.hub's way": ["start_hub", str(folder), name, first]}
            if name == "DPT_Large":
                workers["transformers"] = ["start_transformers", str(folder), name, first]
            workers["Depthmap"] = ["start_own", str(folder), name, first]
            found.append(measure.interleaved(f"Start to {words}, {name}, whole process", workers, 3, whole=True))
    return found


def run_inference(folder: Path, quick: bool) -> list[Table]:
    found = [inference.measure(folder, "MiDaS_small", (256, 256), 5 if quick else 15)]
    if not quick:
        found.append(inference.measure(folder, "DPT_Large", (384, 384), 5))
    return found


def imports(folder: Path, quick: bool) -> list[Table]:
    """What each entry point imports, and the libraries it is measured against."""
    modules = ("json", "scripts.manage_models", "scripts.setup_models", "depth.estimator", "onnxruntime", "torch",
               "depth.networks", "gradio", "app")
    workers = {module: ["imports", str(folder), module] for module in modules}
    return [measure.interleaved("Imports, whole process", workers, 1 if quick else 3, whole=True)]


def run_growth(folder: Path, quick: bool) -> list[Table]:
    return [growth.pictures(1 if quick else 3), growth.entries((1, 10) if quick else (1, 10, 100), 3)]


def run_throughput(folder: Path, quick: bool) -> list[Table]:
    return throughput.measure(folder, 100 if quick else 300, 500 if quick else 10_000)


PARTS: dict[str, Callable[[Path, bool], list[Table]]] = {
    "load": load, "start": start, "inference": run_inference, "imports": imports, "growth": run_growth,
    "throughput": run_throughput}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small models and few rounds: some minutes")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts only")
    parser.add_argument("--output", type=Path, default=HERE, help="folder for results.md and results.json")
    parser.add_argument("--work", type=Path, default=WORK, help="folder for the made-up models (6 GB, 400 MB if quick)")
    chosen = parser.parse_args(arguments)
    about = tables.machine()
    material.prepare(chosen.work, MODELS[:1] if chosen.quick else MODELS)
    if not chosen.quick:
        material.transformers_model(material.Material(chosen.work))
    found = [table for part in chosen.only for table in PARTS[part](chosen.work, chosen.quick)]
    tables.save(found, about, chosen.output)
    print(tables.markdown(found, about))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
