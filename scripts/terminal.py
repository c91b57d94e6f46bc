"""What both command lines share: the model table, progress bars, questions, exit codes."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cache import FORMATS, report
from cache.errors import DepthmapError, UnknownModel, UsageError
from cache.records import Status
from depth.models import MODELS, Model, find

if TYPE_CHECKING:
    from cache.hub import Progress
    from cache.manager import ModelManager

WELL, WRONG, USAGE, STOPPED = 0, 1, 2, 130  # exit codes
LEGEND = ("Errors as published by MiDaS, lower is better: DIW is WHDR, ETH3D and Sintel are AbsRel, KITTI and NYU\n"
          "are % of pixels off by 25 %; (…) was among the training data. Gain is over DPT_Large; fps on an RTX 3090.")


def run(command: Callable[[], int], *, as_json: bool) -> int:
    """Call the command; a mistake the user can mend becomes a sentence and an exit code."""
    try:
        return command()
    except DepthmapError as error:
        if as_json:
            print(report.as_json({"error": {"code": error.code, "message": str(error)}}))
        else:
            print(lines(error), file=sys.stderr)
        return USAGE if isinstance(error, (UsageError, UnknownModel)) else WRONG
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on where it was.", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # the reader, such as `head`, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return WRONG


def lines(message: object) -> str:
    """A message as printable text, each source that failed on a line of its own."""
    return "\n  ".join(map(report.plain, str(message).split(" | ")))


def open_manager(cache_dir: str | None) -> ModelManager:
    """The cache of the product's models."""
    from depth.supply import manager

    return manager(cache_dir)


def names(words: Sequence[str], manager: ModelManager) -> list[str]:
    """Model names as the cache knows them; "all" is every one of them.

    Raises UnknownModel, or UsageError for a bundled model, which is never in the cache.
    """
    asked = split(words)
    return list(manager.names) if asked == ["all"] else [_managed(word, manager) for word in asked]


def _managed(word: str, manager: ModelManager) -> str:
    try:
        return manager.find(word).name
    except UnknownModel:
        if (model := find(word)).bundled:
            raise UsageError(f"{model.name} is bundled: it needs no download and is not in the cache.",
                             next_step="Use it as it is.") from None
        raise


def split(words: Sequence[str]) -> list[str]:
    """Words that may be joined by commas too, without repeats.

    >>> split(["pt,h5", "pkl", "pt"])
    ['pt', 'h5', 'pkl']
    """
    return list(dict.fromkeys(part for word in words for part in word.replace(",", " ").split()))


def formats(words: Sequence[str] | None) -> tuple[str, ...] | None:
    """`--formats` as names in loading order; None stays None. Raises UsageError."""
    if words is None:
        return None
    asked = [word.lower().lstrip(".") for word in split(words)]
    if not asked or set(asked) - set(FORMATS):
        raise UsageError("--formats names an unknown format.", got=", ".join(asked) or "nothing",
                         expected=f"some of {', '.join(FORMATS)}")
    return tuple(name for name in FORMATS if name in asked)


def models_table(status: Status) -> str:
    """One numbered line for each model: size, published quality and speed, cached or not."""
    rows = [(str(number), model.name, "bundled" if model.bundled else report.size(model.bytes),
             f"{model.parameters / 1e6:.0f} M", *_quality(model), model.speed, _cached(model, status))
            for number, model in enumerate(MODELS, 1)]
    return report.table(["#", "model", "download", "weights", "DIW", "ETH3D", "Sintel", "KITTI", "NYU", "gain", "fps",
                         "on CPU", "cached"], rows,
                        right="#,download,weights,DIW,ETH3D,Sintel,KITTI,NYU,gain,fps") + f"\n\n{LEGEND}"


def _quality(model: Model) -> tuple[str, ...]:
    told = model.quality
    if told is None:
        return ("-",) * 7
    kitti, nyu = (f"{value:.2f}" if told.zero_shot else f"({value:.2f})" for value in (told.kitti, told.nyu))
    return (f"{told.diw:.4f}", f"{told.eth3d:.4f}", f"{told.sintel:.4f}", kitti, nyu,
            f"{told.improvement:+d} %", f"{told.fps:g}")


def _cached(model: Model, status: Status) -> str:
    if model.bundled:
        return "always"
    entry = next((entry for entry in status.models if entry.name == model.name), None)
    return ", ".join(entry.formats) if entry and entry.cached else "-"


def models_json(status: Status) -> list[dict[str, object]]:
    """The same as plain values."""
    cached = {entry.name: entry.formats for entry in status.models if entry.cached}
    return [{"name": model.name, "aliases": model.aliases, "bytes": model.bytes, "parameters": model.parameters,
             "size": model.size, "quality": model.quality, "speed": model.speed, "licence": model.licence,
             "bundled": bool(model.bundled), "cached": bool(model.bundled) or model.name in cached,
             "formats": cached.get(model.name, ()), "note": model.note} for model in MODELS]


def confirm(question: str, *, yes: bool) -> bool:
    """Ask on the terminal. Raises UsageError where nobody can answer and `yes` is not given."""
    if yes:
        return True
    require_terminal("Add --yes to go on without being asked.")
    return ask(f"{question} [y/N] ").lower() in ("y", "yes")


def require_terminal(next_step: str) -> None:
    """Raise UsageError unless a person sits there: a script must fail, not hang."""
    if not (sys.stdin and sys.stdin.isatty()):
        raise UsageError("This asks a question, and there is no terminal to answer it.", next_step=next_step)


def ask(question: str) -> str:
    """One answer, stripped; the end of input is an empty one."""
    try:
        return input(question).strip()
    except EOFError:
        print()
        return ""


@contextmanager
def clock(label: str, *, quiet: bool = False) -> Iterator[None]:
    """Show on stderr how long something has taken whose end nobody knows; where nobody looks, the label alone."""
    if quiet or not sys.stderr.isatty():
        if not quiet:
            print(label, file=sys.stderr, flush=True)
        yield
        return
    from tqdm import tqdm

    done = threading.Event()
    with tqdm(desc=label, bar_format="{desc} {elapsed}", file=sys.stderr) as bar:
        def run() -> None:
            while not done.wait(0.5):
                bar.refresh()

        ticking = threading.Thread(target=run, daemon=True)
        ticking.start()
        try:
            yield
        finally:
            done.set()
            ticking.join()


class Bars:
    """Progress on stderr: a bar for each phase on a terminal, a line for each elsewhere.

    quiet: nothing at all. Use as a context, so that the last bar is closed.
    """

    def __init__(self, quiet: bool = False):
        self._quiet, self._tty = quiet, sys.stderr.isatty()
        self._now: tuple[str, str] | None = None
        self._bar = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *unused: object) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = self._now = None

    def __call__(self, progress: Progress) -> None:
        if self._quiet:
            return
        if (progress.phase, progress.name) != self._now:
            self._begin(progress)
        if self._bar is not None:
            self._bar.total = progress.total
            self._bar.update(progress.done - self._bar.n)

    def _begin(self, progress: Progress) -> None:
        self.__exit__()
        self._now = (progress.phase, progress.name)
        label = report.plain(f"{progress.phase} {progress.name}")
        if not self._tty:
            print(f"{label} ({report.size(progress.total)})", file=sys.stderr)
            return
        from tqdm import tqdm

        self._bar = tqdm(total=progress.total, desc=label, unit="B", unit_scale=True, file=sys.stderr,
                         ncols=min(shutil.get_terminal_size().columns or 80, 100), nrows=20)
