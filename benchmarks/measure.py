"""Runs workers interleaved and reduces what they say to medians, spreads and ratios."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Row:
    """One line of a table: a thing that was measured some times. Seconds are medians."""

    name: str
    samples: tuple[float, ...]
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.samples)


@dataclass(frozen=True)
class Table:
    """Rows that were measured interleaved, so that they may be compared."""

    title: str
    rows: tuple[Row, ...]
    note: str = ""

    def row(self, name: str) -> Row | None:
        return next((row for row in self.rows if row.name == name), None)


def interleaved(title: str, workers: dict[str, list[str]], rounds: int, *, whole: bool = False,
                note: str = "") -> Table:
    """Each worker once per round, in turn. `whole` takes the process's wall time from outside.

    A worker that cannot run (a peer that is not installed) is left out and said in the note.
    """
    samples: dict[str, list[float]] = {name: [] for name in workers}
    facts: dict[str, dict] = {}
    absent: dict[str, str] = {}
    for _ in range(rounds):
        for name, arguments in workers.items():
            if name in absent:
                continue
            try:
                wall, answer = run(arguments)
            except RuntimeError as error:
                absent[name] = str(error)
                continue
            samples[name].append(wall if whole else float(answer["seconds"]))
            facts[name] = answer
            print(f"  {title}: {name} {samples[name][-1]:.3f} s", file=sys.stderr, flush=True)
    rows = tuple(Row(name, tuple(values), facts[name]) for name, values in samples.items() if values)
    notes = [note, *(f"{name}: not measured ({why})" for name, why in absent.items())]
    return Table(title, rows, " ".join(filter(None, notes)))


def run(arguments: list[str], timeout: float = 900) -> tuple[float, dict[str, object]]:
    """Wall seconds of a worker from its birth to its end, and what it printed."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "benchmarks.worker", *arguments], cwd=ROOT, capture_output=True,
                          text=True, timeout=timeout, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    wall = time.perf_counter() - start
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise RuntimeError(lines[-1][:160])
    return wall, json.loads(done.stdout.strip().splitlines()[-1])
