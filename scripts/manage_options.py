"""Look after the model cache: download, inspect, verify, export, import, convert, clear, optimize.

Exit code 0: well. 1: something is wrong (a download failed, a file is corrupt or missing). 2: usage.
"""

from __future__ import annotations

import argparse

from cache import FORMATS

EXPORTS = (*FORMATS, "bundle")


def parser() -> argparse.ArgumentParser:
    """The command line of `manage_models.py`, without what its commands import; the guide is tested against it."""
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
