"""What each model costs on this machine: load time, inference time at native size, peak memory.

    python -m benchmarks.zoo                              # all models, a Markdown table
    python -m benchmarks.zoo --models Tiny dpt_levit_224 --runs 5 --json zoo.json

The weights are random numbers in the right shapes, written to a temporary folder as a PyTorch file like the
cache's own, because time and memory do not depend on their values and nothing has to be downloaded. Each
model runs in a process of its own on the CPU; its peak memory includes Python, torch and timm, which the
line below the table states. Loading is measured from a file the system has just written,
so from its page cache: memory-mapping, building on meta and checking, but no disk.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from cache.errors import UnknownModel
from depth.models import MODELS, Model, find

HEADER = ("Model", "Input", "Parameters", "Load", "Inference", "Peak memory")


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.child:
        print(json.dumps(_measure(find(options.child), Path(options.file), options.runs, options.threads)))
        return 0
    try:
        rows = [find(name) for name in options.models] or list(MODELS)
    except UnknownModel as error:
        print(error, file=sys.stderr)
        return 2
    results = []
    for row in rows:
        print(f"{row.name} ...", file=sys.stderr, flush=True)
        results.append(_in_own_process(row, options.runs, options.threads))
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(table(results, options.threads))
    return 0


def table(results: list[dict], threads: int) -> str:
    """The results as a Markdown table."""
    lines = ["| " + " | ".join(HEADER) + " |", "|---|" + "---:|" * (len(HEADER) - 1)]
    lines += ["| " + " | ".join(_cells(result)) + " |" for result in results]
    base = max((result["base_bytes"] for result in results), default=0)
    lines += ["", f"CPU, {threads} threads, float32, one picture; random weights. "
              f"{base / 1e6:.0f} MB of each peak are Python, torch and timm."]
    return "\n".join(lines)


def _cells(result: dict) -> tuple[str, ...]:
    return (result["name"], f"{result['height']}×{result['width']}", f"{result['parameters'] / 1e6:.1f} M",
            f"{result['load_seconds']:.2f} s", f"{result['inference_seconds']:.2f} s",
            f"{result['peak_bytes'] / 1e6:.0f} MB")


def _in_own_process(row: Model, runs: int, threads: int) -> dict:
    with tempfile.TemporaryDirectory(prefix="depthmap-zoo-") as folder:
        file = Path(folder) / f"{row.file}.pt"
        _write_random(row, file)
        command = [sys.executable, str(Path(__file__)), "--child", row.name, "--file", str(file),
                   "--runs", str(runs), "--threads", str(threads)]
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if answer.returncode:
        raise SystemExit(f"{row.name} failed:\n{answer.stderr}")
    return json.loads(answer.stdout)


def _write_random(row: Model, file: Path) -> None:
    import torch

    from depth.networks import checkpoints

    torch.manual_seed(0)
    torch.save({key: _random(key, shape, dtype) for key, (shape, dtype) in checkpoints.schema(row).items()}, file)


def _random(key: str, shape: tuple[int, ...], dtype: str):
    """Values that keep the signal's size from layer to layer: denormal numbers would be slow, infinite ones fast."""
    import torch

    if len(shape) > 1:
        return torch.randn(shape) / math.prod(shape[1:]) ** 0.5
    fill = torch.ones if key.endswith((".weight", ".running_var", "gamma_1", "gamma_2")) else torch.zeros
    return fill(shape, dtype=getattr(torch, dtype))


def _measure(row: Model, file: Path, runs: int, threads: int) -> dict:
    import torch

    from depth.networks import checkpoints

    torch.set_num_threads(threads)
    base = _peak_bytes()
    start = time.perf_counter()
    network = checkpoints.load(row, torch.load(file, mmap=True, weights_only=True))
    loaded = time.perf_counter() - start
    picture = torch.rand(1, 3, row.size, row.size)
    with torch.inference_mode():
        seconds = [_seconds(network, picture) for _ in range(runs + 1)][1:]  # the first one reads the file
    return {"name": row.name, "height": row.size, "width": row.size, "parameters": row.parameters,
            "load_seconds": loaded, "inference_seconds": statistics.median(seconds),
            "peak_bytes": _peak_bytes(), "base_bytes": base, "threads": threads, "runs": runs}


def _seconds(network, picture) -> float:
    start = time.perf_counter()
    network(picture)
    return time.perf_counter() - start


def _peak_bytes() -> int:
    """The most memory this process has ever held.

    On Linux `getrusage` would also count what the parent held when it started us, so the kernel's own
    record of this program is read instead.
    """
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=[], metavar="NAME", help="only these (default: all)")
    parser.add_argument("--runs", type=int, default=3, help="timed runs after one to warm up; the median counts")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="torch threads")
    parser.add_argument("--json", metavar="FILE", help="write the raw numbers there too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
