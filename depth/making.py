"""Makes compiled networks, each in a process of low priority that may hang or die without harm.

`compiled.py` says what they depend on and loads them; `compiling.py` is what the process runs.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cache import artefacts
from cache.errors import CacheBusy, DepthmapError
from depth import supply
from depth.compiled import facts, sentence
from depth.devices import free_memory
from depth.models import Model

TIMEOUT = 1800.0  # seconds; the largest network takes 70 to 350, the latter on a busy machine
MEMORY = {"aoti": 1.5, "onnx": 4.5, "int8": 4.5}  # what making takes, times the weights, and
MEMORY_BESIDE = 700 << 20  # bytes more
_ROOT = Path(__file__).resolve().parents[1]
log = logging.getLogger(__name__)


def make(model: Model, kind: str, directory: Path, *, timeout: float = TIMEOUT) -> str | None:
    """Make the artefact in a process of low priority; None if it is there afterwards, else why not.

    `directory` is the cache that holds the weights and gets the artefact. Two processes never make the
    same: the second one returns at once. Why it failed is remembered (`failed_lately`).
    """
    folder = artefacts.folder_of(directory, model.name)
    if reason := _too_large(model, kind):  # perhaps not for long, so it is not remembered
        log.warning("%s stays uncompiled: %s.", model.name, reason)
        return reason
    try:
        with artefacts.making(folder):
            about = _tried(model, kind, directory)  # before, since the weights may be exchanged meanwhile
            reason = _make(model, kind, directory, timeout)
            _remember(folder, about, reason)
    except CacheBusy:
        return "another process makes it already"
    except (DepthmapError, OSError) as error:  # a cache that cannot be written
        reason = sentence(error)
    if reason:
        log.warning("%s stays uncompiled: %s.", model.name, reason)
    return reason


def _too_large(model: Model, kind: str) -> str | None:
    """Why there is too little memory to make it; a system that runs out of it may end the server instead."""
    needed, free = MEMORY_BESIDE + int(MEMORY[kind] * 4 * model.parameters), free_memory()
    if free is None or free >= needed:
        return None
    return f"making it takes {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free"


def _make(model: Model, kind: str, directory: Path, timeout: float) -> str | None:
    """Make it; whatever the compilers leave lies in the model's folder, where `optimize` finds it after a crash."""
    folder = artefacts.folder_of(directory, model.name)
    with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=folder, ignore_cleanup_errors=True) as scratch:
        return _run([sys.executable, "-m", "depth.compiling", model.name, kind, str(directory)], timeout,
                    TMPDIR=scratch, TORCHINDUCTOR_CACHE_DIR=scratch, TORCHINDUCTOR_COMPILE_THREADS="1")


def _remember(folder: Path, about: Mapping[str, Any], reason: str | None) -> None:
    if reason:
        artefacts.note_failure(folder, about, reason)
    else:
        artefacts.forget_failure(folder, about)


def failed_lately(model: Model, kind: str, directory: Path) -> str | None:
    """Why making it failed within the last week with this installation and weights; None: it may be tried."""
    return artefacts.failure(artefacts.folder_of(directory, model.name), _tried(model, kind, directory))


def _tried(model: Model, kind: str, directory: Path) -> dict[str, Any]:
    """What a failure is remembered under: any kind may fail for the weights' sake."""
    return facts(model, kind, supply.digest(model, supply.manager(directory)) or "")


def make_later(model: Model, kind: str, directory: Path, done: Callable[[], object]) -> threading.Thread | None:
    """`make` on a thread of its own, one at a time in this process; calls `done` if the artefact is there.

    Nothing is made that failed lately, or for an owner of `done` that is gone when its turn comes.
    """
    if failed_lately(model, kind, directory):
        return None
    wanted = weakref.WeakMethod(done)

    def work() -> None:
        with _ONE_AT_A_TIME:
            if wanted() and make(model, kind, directory) is None and (go_over := wanted()):
                go_over()

    thread = threading.Thread(target=work, name=f"compile-{model.name}", daemon=True)
    thread.start()
    return thread


_ONE_AT_A_TIME = threading.Lock()


def _run(command: list[str], timeout: float, **environment: str) -> str | None:
    """The last line that the command wrote to stderr, if it failed; None if it went well."""
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, cwd=_ROOT, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True)
        try:
            code = child.wait(timeout)
        except subprocess.TimeoutExpired:
            return f"it took longer than {timeout:g} seconds"
        finally:
            _end(child)
        if code == 0:
            return None
        errors.seek(0)
        lines = [line.strip() for line in errors.read()[-10_000:].splitlines() if line.strip()]
        return (lines[-1][:300] if lines else f"the compiler ended with code {code}").rstrip(".")


def _end(child: subprocess.Popen) -> None:
    """End the process, if it runs still, and the compilers it started."""
    if child.poll() is None:
        if hasattr(os, "killpg"):
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
        child.wait()
