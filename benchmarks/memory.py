"""What a second process with the same model costs: the kernel's proportional share of each one's memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.kernel import memory
from benchmarks.measure import ROOT, Row, Table, unmeasured, worker


def two_processes(folder: Path, name: str, ways: dict[str, list[str]]) -> Table:
    """Two at once of each way to load, every page touched. `copies`: their memory in sizes of the weight file."""
    weights, rows, absent = (folder / f"{name}.pt").stat().st_size, [], {}
    for way, arguments in ways.items():
        try:
            shares, seconds = _both(worker("hold", *arguments))
        except RuntimeError as error:
            absent[way] = str(error)
            continue
        if all(shares):
            rows.append(Row(way, tuple(seconds), {"pss": sum(shares), "copies": round(sum(shares) / weights, 2)}))
    note = "Pss of both together, Python and torch included. Seconds: each one's loading, both at once."
    return Table(f"Two processes with {name}", tuple(rows), " ".join([note, *unmeasured(absent)]))


def _both(arguments: list[str]) -> tuple[list[int], list[float]]:
    """Bytes and seconds of two processes that hold the same model at the same time."""
    held = [subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
            for _ in range(2)]
    try:
        answers = [_answer(process) for process in held]
        return [memory(process.pid).get("Pss", 0) for process in held], [float(one["seconds"]) for one in answers]
    finally:
        for process in held:
            process.communicate()


def _answer(process: subprocess.Popen) -> dict:
    for line in process.stdout:
        if line.startswith("{"):
            return json.loads(line)
    raise RuntimeError("it ended before it was loaded")
