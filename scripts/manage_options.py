"""Look after the model cache: download, inspect, verify, export, import, convert, clear, optimize.

Exit code 0: well. 1: something is wrong (a download failed, a file is corrupt or missing). 2: usage.
"""

from __future__ import annotations

import argparse

from cache import FORMATS


def _option(*names: str, **how) -> tuple[tuple[str, ...], dict]:
    return names, how


EVERYWHERE = (
    _option("--cache-dir", metavar="DIR", help="the cache (default: DEPTHMAP_CACHE, or the user's)"),
    _option("--json", action="store_true", help="print JSON for programs"))
DELETING = (
    _option("--dry-run", action="store_true", help="only show what would be done"),
    _option("--yes", "-y", action="store_true", help="do not ask"))
CACHED = _option("--model", required=True, metavar="NAME", help="a cached model")
# What each command is for, and its options; of those in a list one is wanted.
COMMANDS: dict[str, tuple] = {
    "models": ("List the models: size, published quality and speed, cached or not.",),
    "download": (
        "Download, verify and convert models; resumes what was interrupted.",
        _option("--model", nargs="+", required=True, metavar="NAME", help='model names, or "all"'),
        _option("--formats", nargs="+", metavar="FORMAT", help="pt,h5,pkl,safetensors (default: DEPTHMAP_FORMATS)")),
    "info": (
        "Show what is cached, how large it is, and whether it is well.",
        _option("--detailed", action="store_true", help="every file, with digest and origin")),
    "verify": (
        "Hash every cached file, offline; fails on corrupt and on missing files.",
        _option("--model", nargs="+", metavar="NAME", help="only these models (default: all that are cached)")),
    "export": (
        "Write a model, or with --format bundle everything, to a file of your own.",
        _option("--model", metavar="NAME", help="may be left out with --format bundle"),
        _option("--output", required=True, metavar="PATH", help="a file, or an existing folder"),
        _option("--format", choices=(*FORMATS, "bundle"), help="default: by the suffix of --output"),
        _option("--dtype", choices=("fp16", "bf16"), help="halve the size of the tensors"),
        _option("--overwrite", action="store_true", help="replace an existing file")),
    "import": (
        "Take in a weight file or bundle, after checking it against the model.",
        _option("path", metavar="PATH", help="recognised by its content, not by its name"),
        _option("--model", metavar="NAME", help="needed only where the tensors fit several models")),
    "convert": (
        "Make one more format of a cached model.", CACHED,
        _option("--format", required=True, choices=FORMATS, help="the format to make")),
    "clear": (
        "Remove models from the cache; the Hub client's cache is never touched.", *DELETING,
        [_option("--model", nargs="+", metavar="NAME", help="these models"),
         _option("--all", action="store_true", help="every model")]),
    "optimize": ("Remove leftovers and duplicates, repair what is broken, keep the quota.", *DELETING),
    "keep": (
        "Never evict a model to keep the quota.", CACHED,
        _option("--off", action="store_true", help="lift the mark again")),
    "health": ("Show everything that is not as it should be.",),
}


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """The command line of `manage_models.py`, without what its commands import; the guide is tested against it.

    With the name of a `command` it knows that one alone: all eleven take more than ten times as long to make.
    """
    top = argparse.ArgumentParser(prog="manage_models.py", description=__doc__,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in (command,) if command in COMMANDS else COMMANDS:
        help, *options = COMMANDS[name]
        sub = commands.add_parser(name, help=help, description=help)
        for option in (*EVERYWHERE, *options):
            group = sub.add_mutually_exclusive_group(required=True) if isinstance(option, list) else sub
            for names, how in option if isinstance(option, list) else [option]:
                group.add_argument(*names, **how)
    return top
