"""What the processes of a campaign do; each may be killed at any time."""

from __future__ import annotations

import errno
import io
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from cache.errors import CacheBusy, DepthmapError, NotAvailable
from cache.hub import RemoteFile
from cache.manager import ModelManager
from tests.cache_world import checkpoint, tensors

WRITES = (("replace", os), ("fsync", os), ("unlink", os), ("link", os), ("mkdir", os), ("open", io))
HOLD_SECONDS = 1800.0  # a reader whose campaign was killed ends by itself
REFUSED, WRONG = 3, 4  # exit codes: one of our own errors, wrong tensors


def enter(variables: dict[str, str | None], work: Callable, arguments: tuple) -> None:
    """Take over the environment, then work; the forked process starts with that of its parent."""
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - lives as long as the process
    import torch

    from cache import transfer

    torch.set_num_threads(1)
    transfer.PAUSES = (0.0, 0.0, 0.0, 0.0)
    work(*arguments)


def manager(files: dict[str, RemoteFile], **options: Any) -> ModelManager:
    return ModelManager([checkpoint(name, tensors(seed), file) for seed, (name, file) in enumerate(files.items())],
                        **options)


def download(files: dict[str, RemoteFile]) -> None:
    """Download, convert, record: the whole way."""
    for name in files:
        manager(files).download(name)


def download_with_fault(files: dict[str, RemoteFile], number: int, code: int | None, counter: str) -> None:
    """The whole way, with the `number`-th call that writes failing with `code`, or killing us (None)."""
    count = 0

    def watched(call: Callable) -> Callable:
        def instead(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            writing = call is not real_open or any(letter in str((*args, "r")[1]) for letter in "wxa+")
            if writing:
                count += 1
                if count == number:
                    if code is None:
                        os.kill(os.getpid(), signal.SIGKILL)
                    raise OSError(code, os.strerror(code), str(args[0]) if args else None)
            return call(*args, **kwargs)
        return instead

    real_open = io.open
    real = [(module, name, getattr(module, name)) for name, module in WRITES]
    for module, name, call in real:
        setattr(module, name, watched(call))
    try:
        download(files)
    except DepthmapError:
        sys.exit(REFUSED)
    finally:
        for module, name, call in real:  # what follows is the campaign's own note, not a write of the cache
            setattr(module, name, call)
        if count < number:
            Path(counter).write_bytes(str(count).encode())


def crowd(files: dict[str, RemoteFile], seconds: float, seed: int) -> None:
    """Load, clear, verify, convert and tidy at random; exit WRONG on the first wrong tensor."""
    import torch

    chance, end = random.Random(seed), time.monotonic() + seconds
    mine = manager(files, lock_seconds=60)
    content = {name: tensors(number) for number, name in enumerate(files)}
    while time.monotonic() < end:
        name = chance.choice(list(files))
        action = chance.choice(["open"] * 5 + ["download", "verify", "clear", "optimize", "convert", "status"])
        try:
            if action == "open":
                found = mine.open(name).tensors
                if not all(torch.equal(found[key], value) for key, value in content[name].items()):
                    os._exit(WRONG)
            elif action in ("verify", "clear", "download"):
                {"verify": mine.verify, "clear": mine.clear}.get(action, lambda names: mine.download(names[0]))([name])
            elif action == "convert":
                mine.convert(name, "safetensors")
            else:
                getattr(mine, action)()
        except (NotAvailable, CacheBusy):
            pass
        except DepthmapError as error:
            if "while it was being made" not in str(error):
                raise
        time.sleep(chance.random() * 0.02)


def hold(files: dict[str, RemoteFile], ready: str, done: str) -> None:
    """Open all models, then compare their bytes again and again until `done` exists."""
    import torch

    mine = manager(files)
    held = {name: mine.open(name).tensors for name in files}
    content = {name: tensors(number) for number, name in enumerate(files)}
    Path(ready).touch()
    last, end = False, time.monotonic() + HOLD_SECONDS
    while not last and time.monotonic() < end:
        last = Path(done).exists()
        time.sleep(0.01)
        for name, found in held.items():
            if not all(torch.equal(found[key], value) for key, value in content[name].items()):
                os._exit(WRONG)


def fill_disk(files: dict[str, RemoteFile], forced: bool) -> None:
    """The whole way on a small disk; `forced` switches the check before the first byte off."""
    if forced:
        for module in ("cache.building", "cache.loading", "cache.hub"):
            import_module(module).require_space = lambda needs: None  # type: ignore[attr-defined]
    else:
        from cache import files as disk

        disk.MARGIN = 64 << 10
    try:
        download(files)
    except DepthmapError:
        sys.exit(REFUSED)


CODES = (errno.EIO, errno.ENOSPC, errno.EACCES)
