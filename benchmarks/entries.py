"""What each way into the program costs to start, and how much it may: the interpreter and what it truly needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.measure import Row, Table, interleaved

NOTHING = "python -c pass"
OPTIONS, TABLE = "import argparse", "import argparse, dataclasses, pathlib"
LOOK = "import argparse, dataclasses, hashlib, json, pathlib, shutil"  # the last one argparse needs for any option
PICTURES = "import dataclasses, hashlib, json, numpy, pathlib, PIL.ImageOps"
ENCODERS, PAGE = "import torch", "import gradio"  # timm's layers count as ours: alone they cannot be had everywhere
# Each with the libraries that it truly needs, and how many times the interpreter's own start it may take besides.
ENTRIES: dict[str, tuple[list[str], str]] = {
    "manage_models.py --help": (["scripts/manage_models.py", "--help"], OPTIONS),
    "manage_models.py info": (["scripts/manage_models.py", "info", "--cache-dir"], LOOK),  # and the folder
    "setup_models.py --help": (["scripts/setup_models.py", "--help"], OPTIONS),
    "python -m depth --help": (["-m", "depth", "--help"], TABLE),
    "app.py --help": (["app.py", "--help"], OPTIONS),
    "import depth.estimator": (["-c", "import depth.estimator"], PICTURES),
    "import depth.networks": (["-c", "import depth.networks"], ENCODERS),
    "import app": (["-c", "import app"], PAGE),
}
TIMES = 3.0


def measure(folder: Path, rounds: int) -> Table:
    """Whole processes. The budget of each: its libraries alone, and three times `python -c pass` for itself.

    `info` looks into the filled cache in `folder`.
    """
    libraries = {library: ["-c", library] for _, library in ENTRIES.values()}
    commands = {NOTHING: ["-c", "pass"], **libraries, **{name: command for name, (command, _) in ENTRIES.items()}}
    commands["manage_models.py info"] = [*commands["manage_models.py info"], str(folder / "cache")]
    return judged(interleaved("Entry points and their budgets", commands, rounds, whole=True, note=(
        f"Seconds of a whole process. The budget: what its libraries take, and {TIMES:g} × `{NOTHING}` for all else.")))


def judged(table: Table) -> Table:
    """The same with each entry point's budget, and whether it is kept."""
    nothing = table.row(NOTHING)
    rows = []
    for row in table.rows:
        needed = table.row(ENTRIES[row.name][1]) if row.name in ENTRIES else None
        if nothing and needed:
            budget = TIMES * nothing.median + needed.median - nothing.median
            row = replace(row, facts={**row.facts, "budget": budget, "within": bool(row.median <= budget)})
        rows.append(row)
    return replace(table, rows=tuple[Row, ...](rows))
