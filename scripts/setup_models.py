"""Choose models, download and verify them, and make the formats that load fastest.

Asks in a terminal; with --models and --yes it asks nothing, for Docker and CI. An interrupted run goes
on where it was. Exit code 0 only if everything asked for is verified; 1 if not; 2: usage.
"""

from __future__ import annotations

import argparse
import gc
import os.path
import sys

HERE = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120 - pathlib takes longer than all of --help
sys.path.insert(0, os.path.dirname(HERE))  # noqa: PTH120 - so that it runs from any folder


def parser() -> argparse.ArgumentParser:
    """The command line; the guide is tested against it."""
    top = argparse.ArgumentParser(prog="setup_models.py", description=__doc__,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--models", nargs="+", metavar="NAME", help='model names, or "all" (default: ask)')
    top.add_argument("--formats", nargs="+", metavar="FORMAT",
                     help="pt,h5,pkl,safetensors (default: DEPTHMAP_FORMATS, or pt,h5,pkl)")
    top.add_argument("--cache-dir", metavar="DIR", help="the cache (default: DEPTHMAP_CACHE, or the user's)")
    top.add_argument("--compile", action="store_true",
                     help="make the network that runs fastest on this machine too; some minutes a model")
    top.add_argument("--yes", "-y", action="store_true", help="do not ask")
    top.add_argument("--json", action="store_true", help="print JSON for programs; needs --models and --yes")
    return top


if __name__ == "__main__":
    ASKED = parser().parse_args()  # before the slower imports: --help and typing errors are answered at once

import re
from dataclasses import dataclass, replace

from cache import report
from cache.errors import DepthmapError, UnknownModel, UsageError
from cache.records import Status
from depth.models import MODELS, Model, find
from scripts import terminal
from scripts.terminal import WELL, WRONG

COPIES = ("h5", "safetensors")  # formats as large as the weights; .pt is a link, .pkl borrows from .h5


@dataclass(frozen=True)
class Outcome:
    """What became of one model: `formats` that were verified, or why it failed."""

    model: str
    ok: bool
    formats: tuple[str, ...] = ()
    size: int = 0
    code: str | None = None
    error: str | None = None
    compiled: str | None = None  # the engine that serves from now on, where --compile has asked for it
    uncompiled: str | None = None  # why it is the eager one


def main(argv: list[str] | None = None, *, manager=None) -> int:
    """Set up and return the exit code. `manager`: another cache than the product's."""
    try:
        args = parser().parse_args(argv)
    except SystemExit as done:  # argparse has printed help or the mistake
        return int(done.code or 0)
    return run(args, manager)


def run(args, manager=None) -> int:
    """`main` after the command line has been read."""
    return terminal.run(lambda: setup(args, manager or terminal.open_manager(args.cache_dir)), as_json=args.json)


def setup(args, manager) -> int:
    formats = terminal.formats(args.formats)
    if args.json and not (args.models and args.yes):
        raise UsageError("--json does not ask questions.", next_step="Add --models NAME… and --yes.")
    if not (args.models and args.yes):
        terminal.require_terminal("Say --models NAME… --yes.")
    status = manager.status()
    rows = chosen(terminal.split(args.models)) if args.models else ask_models(status)
    if not rows or not agreed(rows, status, formats, args):
        print("Nothing was changed.")
        return WELL
    outcomes = [prepare(row, formats, manager, quiet=args.json) for row in rows]
    if args.compile:
        outcomes = [compile(outcome, manager, quiet=args.json) if outcome.ok else outcome for outcome in outcomes]
    ok = all(outcome.ok and not outcome.uncompiled for outcome in outcomes)
    if args.json:
        print(report.as_json({"ok": ok, "directory": status.directory, "models": outcomes}))
    else:
        print(summary(outcomes, status))
    return WELL if ok else WRONG


def ask_models(status: Status) -> list[Model]:
    """Show the table and read a choice, until it is one; nothing chosen gives an empty list."""
    print(terminal.models_table(status))
    print(f"\nCache: {status.directory} ({report.size(status.free)} free)\n")
    while words := terminal.split([terminal.ask("Which models? Numbers or names, 'all', or Enter for none: ")]):
        try:
            return chosen(words)
        except UnknownModel as error:
            print(error)
    return []


def chosen(words: list[str]) -> list[Model]:
    """Rows for names, numbers of the table, ranges of numbers, or "all". Raises UnknownModel.

    >>> [row.name for row in chosen(["1-2", "midas_small"])]
    ['Tiny', 'DPT_Large', 'MiDaS_small']
    """
    rows: list[Model] = []
    for word in words:
        numbers = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", word, re.ASCII)
        if word.lower() == "all":
            rows += MODELS
        elif numbers:
            rows += _numbered(int(numbers[1]), int(numbers[2] or numbers[1]))
        else:
            rows.append(find(word))
    return [row for place, row in enumerate(rows) if row not in rows[:place]]


def _numbered(first: int, last: int) -> list[Model]:
    if not 1 <= first <= last <= len(MODELS):
        raise UnknownModel("There is no model of that number.", expected=f"1 to {len(MODELS)}",
                           got=str(first) if first == last else f"{first}-{last}")
    return list(MODELS[first - 1:last])


def agreed(rows: list[Model], status: Status, formats: tuple[str, ...] | None, args) -> bool:
    """Say what it costs and ask, unless --yes."""
    if args.yes:
        return True
    fetch, disk = cost(rows, status, formats or status.formats)
    print(f"\n{', '.join(row.name for row in rows)}: about {report.size(fetch)} to download, "
          f"{report.size(disk)} on disk, {report.size(status.free)} free.")
    return terminal.confirm("Go on?", yes=False)


def cost(rows: list[Model], status: Status, formats: tuple[str, ...]) -> tuple[int, int]:
    """Bytes to fetch, and bytes that the download and the wanted copies take on disk."""
    entries = {entry.name: entry for entry in status.models}
    fetch = disk = 0
    for row in rows:
        entry = entries.get(row.name)
        if entry is None:
            continue  # bundled
        size = entry.download_size or row.bytes
        missing = 0 if entry.cached or entry.hub_path else size
        fetch += missing
        disk += missing + sum(size for format in formats if format in COPIES and format not in entry.formats)
    return fetch, disk


def prepare(row: Model, formats: tuple[str, ...] | None, manager, *, quiet: bool) -> Outcome:
    """Download, convert and verify one model; a failure is an outcome, so that the others go on."""
    if row.bundled:
        return Outcome(row.name, True)
    try:
        with terminal.Bars(quiet) as bars:
            entry = manager.download(row.name, formats, progress=bars)
            verdicts = manager.verify([row.name], progress=bars)
    except DepthmapError as error:
        return Outcome(row.name, False, code=error.code, error=str(error))
    good = tuple(verdict.format for verdict in verdicts if verdict.ok)
    bad = [verdict for verdict in verdicts if not verdict.ok]
    missing = set(formats or ()) - set(good)
    if bad or missing:
        why = bad[0].reason or bad[0].state if bad else f"{', '.join(sorted(missing))} is missing"
        return Outcome(row.name, False, good, entry.size, "integrity", why)
    return Outcome(row.name, True, entry.formats, entry.size)


def compile(outcome: Outcome, manager, *, quiet: bool) -> Outcome:
    """Make the model's compiled network; without one it runs eagerly, which is told."""
    from depth.estimator import MiDaSDepthEstimator

    try:
        with terminal.clock(f"compile {outcome.model} (some minutes, only once)", quiet=quiet):
            estimator = MiDaSDepthEstimator(outcome.model, device="cpu", manager=manager)
            return replace(outcome, uncompiled=estimator.compile(), compiled=estimator.engine)
    except DepthmapError as error:
        return replace(outcome, uncompiled=str(error))


def summary(outcomes: list[Outcome], status: Status) -> str:
    """What is ready, what failed and why, and what to do next."""
    ready = [outcome.model for outcome in outcomes if outcome.ok]
    steps = ["Run the same command again to go on where it stopped."] * (len(ready) < len(outcomes))
    if ready:
        steps += ["python app.py                               opens the page",
                  "python scripts/manage_models.py info        shows the cache",
                  f'MiDaSDepthEstimator("{ready[0]}")           in Python, from depth']
    told = ["", f"Cache: {status.directory}", *map(_line, outcomes), "", "Next:"]
    return "\n".join([*told, *(f"  {step}" for step in steps)])


def _line(outcome: Outcome) -> str:
    if not outcome.ok:
        return f"{outcome.model}: failed. {terminal.lines(outcome.error)}"
    facts = [*outcome.formats, report.size(outcome.size)] if outcome.formats else ["bundled"]
    facts += [f"runs {outcome.compiled}"] if outcome.compiled else []
    facts += [f"not compiled: {outcome.uncompiled}"] if outcome.uncompiled else []
    return f"{outcome.model}: ready ({', '.join(facts)})"


if __name__ == "__main__":
    code = run(ASKED)
    gc.freeze()  # the collector does not walk everything once more
    sys.exit(code)
