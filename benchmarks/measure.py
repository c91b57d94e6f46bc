"""Runs processes interleaved and reduces what they say to medians, spreads and ratios."""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import kernel

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

    def record(self) -> dict[str, object]:
        """The table as JSON."""
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping) -> Table:
        """What `record` wrote."""
        rows = tuple(Row(row["name"], tuple(row["samples"]), row["facts"]) for row in record["rows"])
        return cls(record["title"], rows, record["note"])


def worker(*arguments: object) -> list[str]:
    """Python's arguments for one action of `worker.py`."""
    return ["-m", "benchmarks.worker", *map(str, arguments)]


def interleaved(title: str, runs: dict[str, list[str]], rounds: int, *, whole: bool = False, warm: bool = False,
                files: Mapping[str, Iterable[Path]] | None = None, note: str = "") -> Table:
    """Each of `python ARGUMENTS` once per round, in turn.

    `whole` takes the wall time from outside, from the process's birth to its answer; for one that has nothing to say,
    to its end.

    `warm`: a round before the first, uncounted, so that every library is in the page cache. `files`: what each will
    read; it is brought there before each of its runs.
    What cannot run (a peer that is not installed) is left out and said in the note.
    """
    samples: dict[str, list[float]] = {name: [] for name in runs}
    facts: dict[str, dict] = {}
    absent: dict[str, str] = {}
    for lap in range(-1 if warm else 0, rounds):
        for name in in_turn(runs, lap):
            if name in absent:
                continue
            kernel.warm((files or {}).get(name, ()))
            try:
                wall, cpu, answer = run(runs[name])
            except RuntimeError as error:
                absent[name] = str(error)[:300]
                say(f"{title}: {name} cannot run: {absent[name]}")
                continue
            seconds = wall if whole else float(answer["seconds"])
            say(f"{title}: {name} {seconds:.3f} s{', to warm up' if lap < 0 else ''}")
            samples[name] += [seconds] if lap >= 0 else []
            facts[name] = answer | ({"cpu": cpu} if whole else {})
    rows = tuple(Row(name, tuple(values), facts[name]) for name, values in samples.items() if values)
    return Table(title, rows, " ".join(filter(None, [note, *unmeasured(absent)])))


def in_turn(names: Iterable[str], lap: int) -> list[str]:
    """The names in another order in each round, so that nobody always comes after the same neighbour.

    Threads of the one before may still spin, and its data lie in the processor's caches.

    >>> sorted(in_turn("abc", 1)), in_turn("abcdef", 1) == in_turn("abcdef", 2)
    (['a', 'b', 'c'], False)
    """
    names = list(names)
    return random.Random(lap).sample(names, len(names))


def unmeasured(absent: Mapping[str, str]) -> list[str]:
    """A sentence for each thing that could not be measured."""
    return [f"{name}: not measured ({why})." for name, why in absent.items()]


def run(arguments: list[str], timeout: float = 900) -> tuple[float, float | None, dict[str, object]]:
    """Seconds of `python ARGUMENTS` from its birth to its answer, those of the processor until its end, and the answer.

    The answer is the line of JSON that it prints; it has "ended" added, the seconds to the process's end. For one that
    prints none the first figure is those seconds. Raises RuntimeError with the last line of what went wrong.
    """
    before, start, said, answer = _cpu_of_children(), time.perf_counter(), None, {}
    with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
            text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}) as child:
        guard = threading.Timer(timeout, child.kill)
        guard.start()
        for line in child.stdout:
            if line.startswith("{"):
                said, answer = time.perf_counter() - start, json.loads(line)
        code = child.wait()
        ended, after = time.perf_counter() - start, _cpu_of_children()
        guard.cancel()
        if code:
            errors.seek(0)
            lines = errors.read().strip().splitlines() or [f"no reason given, code {code} after {ended:.0f} s"]
            raise RuntimeError(lines[-1][:160])
    return said or ended, None if after is None else after - before, answer | ({"ended": ended} if said else {})


def _cpu_of_children() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def say(line: str) -> None:
    """How far it is, beside the results."""
    print(f"  {line}", file=sys.stderr, flush=True)
