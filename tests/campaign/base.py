"""What all campaigns share: their result, their world, and processes that may be killed."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cache.errors import DepthmapError
from tests.cache_world import World, environment, no_pauses
from tests.hub_server import HubServer

SHORT, CI, NIGHTLY = 0, 1, 2
WATCHDOG = 120  # seconds after which a process counts as hanging
PRELOAD = ["torch", "h5py", "httpx", "huggingface_hub", "huggingface_hub.file_download", "cache.manager",
           "tests.cache_world", "tests.campaign.workers"]


@dataclass
class Result:
    """`tried` faults, of which `survived`; the rest are told in `lost`, one line each."""

    name: str
    tried: int = 0
    survived: int = 0
    lost: list[str] = field(default_factory=list)
    note: str = ""

    def count(self, problem: str | None) -> None:
        self.tried += 1
        if problem is None:
            self.survived += 1
        else:
            self.lost.append(problem[:300])


@contextlib.contextmanager
def world(names: tuple[str, ...] = ("A",), width: int = 64, rate: int | None = None) -> Iterator[World]:
    """A fresh cache and Hub, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="depthmap-campaign-", dir=_fast_disk()))
    try:
        with pytest.MonkeyPatch.context() as patch, HubServer(rate) as hub:
            environment(patch, folder, hub)
            no_pauses(patch)
            yield World(folder, hub, names, width)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fast_disk() -> Path | None:
    """Memory where there is enough: processes die here, not machines, so a real disk proves no more."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 30
    return memory if roomy else None


def wipe(world: World) -> None:
    shutil.rmtree(world.own, ignore_errors=True)
    world.forget_hub()


def context() -> Any:
    """Processes forked from one that has everything imported and no threads."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOAD)
    return found


def start(world: World, work: Callable, *arguments: Any) -> Any:
    """`work(world's sources, *arguments)` in a process of its own, with this world's environment."""
    names = ("HF_HOME", "DEPTHMAP_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "DEPTHMAP_FORMATS")
    variables = {name: os.environ.get(name) for name in names}
    from tests.campaign.workers import enter

    process = context().Process(target=enter, args=(variables, work, (dict(world.files), *arguments)), daemon=True)
    process.start()
    return process


def finish(process: Any) -> str | None:
    """None for a process that ended, however it did; a line for one that hangs."""
    process.join(WATCHDOG)
    if process.is_alive():
        process.kill()
        process.join()
        return f"a process hung for {WATCHDOG} s"
    return None


def consistent(world: World, *, swept: bool = True) -> str | None:
    """What must hold after any fault: recorded files verify, a plain run completes, nothing is left over."""
    manager = world.manager()
    try:
        wrong = [f"{verdict.name}.{verdict.format} {verdict.state}" for verdict in manager.verify()
                 if not verdict.ok and verdict.format != "hub"]
        if wrong:
            return "recorded but wrong: " + ", ".join(wrong)
        for name in world.content:
            if not world.same(manager.open(name).tensors, name):
                return f"wrong tensors of {name}"
            manager.download(name)
        if swept:
            manager.optimize()
            left = [path.name for path in world.own.rglob("*.tmp")]
            if left:
                return "left over: " + ", ".join(left)
    except DepthmapError as error:
        return f"does not recover: {error}"
    return None
