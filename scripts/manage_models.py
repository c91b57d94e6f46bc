"""Look after the model cache: download, inspect, verify, export, import, convert, clear, optimize.

Exit code 0: well. 1: something is wrong (a download failed, a file is corrupt or missing). 2: usage.
"""

from __future__ import annotations

import argparse
import os.path
import sys

HERE = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120 - pathlib takes longer than all of --help
sys.path.insert(0, os.path.dirname(HERE))  # noqa: PTH120 - so that it runs from any folder

from cache import FORMATS

EXPORTS = (*FORMATS, "bundle")


def parser() -> argparse.ArgumentParser:
    """The command line; the guide is tested against it."""
    top = argparse.ArgumentParser(prog="manage_models.py", description=__doc__,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str, *options: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.add_argument("--cache-dir", metavar="DIR", help="the cache (default: DEPTHMAP_CACHE, or the user's)")
        sub.add_argument("--json", action="store_true", help="print JSON for programs")
        if "deletes" in options:
            sub.add_argument("--dry-run", action="store_true", help="only show what would be done")
            sub.add_argument("--yes", "-y", action="store_true", help="do not ask")
        return sub

    command("models", "List the models: size, published quality and speed, cached or not.")
    sub = command("download", "Download, verify and convert models; resumes what was interrupted.")
    sub.add_argument("--model", nargs="+", required=True, metavar="NAME", help='model names, or "all"')
    sub.add_argument("--formats", nargs="+", metavar="FORMAT", help="pt,h5,pkl,safetensors (default: DEPTHMAP_FORMATS)")
    sub = command("info", "Show what is cached, how large it is, and whether it is well.")
    sub.add_argument("--detailed", action="store_true", help="every file, with digest and origin")
    sub = command("verify", "Hash every cached file, offline; fails on corrupt and on missing files.")
    sub.add_argument("--model", nargs="+", metavar="NAME", help="only these models (default: all that are cached)")
    sub = command("export", "Write a model, or with --format bundle everything, to a file of your own.")
    sub.add_argument("--model", metavar="NAME", help="may be left out with --format bundle")
    sub.add_argument("--output", required=True, metavar="PATH", help="a file, or an existing folder")
    sub.add_argument("--format", choices=EXPORTS, help="default: by the suffix of --output")
    sub.add_argument("--dtype", choices=("fp16", "bf16"), help="halve the size of the tensors")
    sub.add_argument("--overwrite", action="store_true", help="replace an existing file")
    sub = command("import", "Take in a weight file or bundle, after checking it against the model.")
    sub.add_argument("path", metavar="PATH", help="recognised by its content, not by its name")
    sub.add_argument("--model", metavar="NAME", help="needed only where the tensors fit several models")
    sub = command("convert", "Make one more format of a cached model.")
    sub.add_argument("--model", required=True, metavar="NAME", help="a cached model")
    sub.add_argument("--format", required=True, choices=FORMATS, help="the format to make")
    sub = command("clear", "Remove models from the cache; the Hub client's cache is never touched.", "deletes")
    which = sub.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", nargs="+", metavar="NAME", help="these models")
    which.add_argument("--all", action="store_true", help="every model")
    command("optimize", "Remove leftovers and duplicates, repair what is broken, keep the quota.", "deletes")
    sub = command("keep", "Never evict a model to keep the quota.")
    sub.add_argument("--model", required=True, metavar="NAME", help="a cached model")
    sub.add_argument("--off", action="store_true", help="lift the mark again")
    command("health", "Show everything that is not as it should be.")
    return top


if __name__ == "__main__":
    ASKED = parser().parse_args()  # before the slower imports: --help and typing errors are answered at once

from pathlib import Path

from cache import report
from cache.errors import UsageError
from cache.records import Plan
from scripts import terminal
from scripts.terminal import WELL, WRONG


def main(argv: list[str] | None = None, *, manager=None) -> int:
    """Run one command and return its exit code. `manager`: another cache than the product's."""
    try:
        args = parser().parse_args(argv)
    except SystemExit as done:  # argparse has printed help or the mistake
        return int(done.code or 0)
    return run(args, manager)


def run(args, manager=None) -> int:
    """`main` after the command line has been read."""
    work = COMMANDS[args.command]
    return terminal.run(lambda: work(args, manager or terminal.open_manager(args.cache_dir)), as_json=args.json)


def models(args, manager) -> int:
    status = manager.status()
    _show(args, terminal.models_json(status), lambda rows: terminal.models_table(status))
    return WELL


def download(args, manager) -> int:
    formats, entries = terminal.formats(args.formats), []
    with terminal.Bars(quiet=args.json) as bars:
        for name in terminal.names(args.model, manager):
            entries.append(manager.download(name, formats, progress=bars))
    _show(args, entries, lambda done: "\n\n".join(map(report.entry, done)))
    return WELL


def info(args, manager) -> int:
    _show(args, manager.info(args.detailed), report.info)
    return WELL


def verify(args, manager) -> int:
    names = None if args.model is None else terminal.names(args.model, manager)
    with terminal.Bars(quiet=args.json) as bars:
        verdicts = manager.verify(names, progress=bars)
    _show(args, verdicts, report.verdicts)
    return WELL if all(verdict.ok for verdict in verdicts) else WRONG


def export(args, manager) -> int:
    if args.model is None and args.format != "bundle":
        raise UsageError("--model is needed.", next_step="Name a model, or take everything with --format bundle.")
    name = None if args.model is None else _one(args, manager)
    path = Path(args.output).expanduser()
    if path.is_dir():
        from cache.actions import export_name

        args.format = args.format or "safetensors"
        path /= export_name(name, args.format, args.dtype)
    with terminal.Bars(quiet=args.json) as bars:
        made = manager.export(name, path, args.format, args.dtype, overwrite=args.overwrite, progress=bars)
    _show(args, made, report.exported)
    return WELL


def import_(args, manager) -> int:
    with terminal.Bars(quiet=args.json) as bars:
        taken = manager.import_(Path(args.path).expanduser(), args.model and _one(args, manager), progress=bars)
    _show(args, taken, report.imported)
    return WELL


def convert(args, manager) -> int:
    with terminal.Bars(quiet=args.json) as bars:
        entry = manager.convert(_one(args, manager), args.format, progress=bars)
    _show(args, entry, report.entry)
    return WELL


def clear(args, manager) -> int:
    names = None if args.all else terminal.names(args.model, manager)
    return _execute(args, manager, manager.clear(names, all=args.all, dry_run=True), "Remove this?")


def optimize(args, manager) -> int:
    return _execute(args, manager, manager.optimize(dry_run=True), "Do this?")


def keep(args, manager) -> int:
    _show(args, manager.keep(_one(args, manager), not args.off), report.entry)
    return WELL


def health(args, manager) -> int:
    found = manager.health()
    _show(args, found, report.health)
    return WRONG if found.state == "broken" else WELL


def _one(args, manager) -> str:
    return terminal.names([args.model], manager)[0]


def _execute(args, manager, plan: Plan, question: str) -> int:
    """Show a plan, ask, and do exactly what was shown."""
    if args.dry_run or not plan.steps:
        _show(args, plan, report.plan)
        return WELL
    if not args.yes:
        if args.json:
            raise UsageError("--json does not ask questions.", next_step="Add --yes, or --dry-run to see the plan.")
        print(report.plan(plan))
    if not terminal.confirm(question, yes=args.yes):
        print("Nothing was changed.")
        return WELL
    done = manager.execute(plan)
    _show(args, done, report.plan)
    return WELL if done.ok else WRONG


def _show(args, record, words) -> None:
    print(report.as_json(record) if args.json else words(record))


COMMANDS = {"models": models, "download": download, "info": info, "verify": verify, "export": export,
            "import": import_, "convert": convert, "clear": clear, "optimize": optimize, "keep": keep,
            "health": health}

if __name__ == "__main__":
    terminal.leave(run(ASKED))
