"""What each command of `manage_models.py` does: it asks the library once and shows the answer."""

from __future__ import annotations

from pathlib import Path

from cache import report
from cache.errors import UsageError
from cache.records import Plan
from scripts import terminal
from scripts.terminal import WELL, WRONG


def run(args, manager=None) -> int:
    """Run the command that was read and return its exit code. `manager`: another cache than the product's."""
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
