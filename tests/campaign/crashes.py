"""Processes that die or whose writes fail on the way from the Hub to a recorded file."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from tests.campaign import workers
from tests.campaign.base import Result, consistent, finish, start, wipe, world

MIB = 1 << 20


def random_kills(scale: int) -> Result:
    """kill -9 at a random moment of download, three conversions and record."""
    result, chance = Result("kill -9 at random"), random.Random(1)
    rounds = (8, 100, 1000)[scale]
    with world(rate=4 * MIB) as here:
        finish(start(here, workers.download))
        began = time.monotonic()
        wipe(here)
        finish(start(here, workers.download))
        length = time.monotonic() - began
        temporaries = 0
        for _ in range(rounds):
            if chance.random() < 0.5:
                wipe(here)
            elif chance.random() < 0.5:
                here.manager().clear(all=True)
            process = start(here, workers.download)
            time.sleep(chance.random() * length)
            process.kill()
            process.join()
            left = len(list(here.own.rglob("*.tmp")))
            temporaries += left
            result.count(f"{left} temporaries after one kill" if left > 1 else consistent(here))
    result.note = f"{temporaries} temporaries, all swept"
    return result


def kill_at_each_step(scale: int) -> Result:
    """SIGKILL instead of the N-th call that writes, for every N until the run gets through."""
    return _each_write("kill -9 at each write", (None,), (13, 1, 1)[scale])


def fail_each_write(scale: int) -> Result:
    """The N-th open, fsync, replace, link, mkdir or unlink fails, for every N and every error."""
    return _each_write("each write fails once", workers.CODES[: (1, 3, 3)[scale]], (13, 1, 1)[scale])


def _each_write(name: str, codes: tuple, stride: int) -> Result:
    result, through = Result(name), 0
    with world() as here:
        for code in codes:
            number = 1
            while True:
                wipe(here)
                counter = here.folder / "through"
                counter.unlink(missing_ok=True)
                process = start(here, workers.download_with_fault, number, code, str(counter))
                hung = finish(process)
                good = process.exitcode in (0, workers.REFUSED) if code is not None else True
                strange = None if good else f"write {number}, {os.strerror(code)}: exit {process.exitcode}"
                if counter.exists():  # the whole way has fewer writes than this
                    through = int(counter.read_bytes())
                    break
                result.count(hung or strange or consistent(here))
                number += stride
    result.note = f"{through} writes from Hub to record"
    return result


def killed_downloads(scale: int) -> Result:
    """One download killed again and again, then finished: how many bytes were sent twice?"""
    result, chance = Result("download killed k times"), random.Random(2)
    kills = (3, 20, 200)[scale]
    with world(width=1200 if scale == 0 else 6000, rate=20 * MIB) as here:
        for _ in range(kills):
            process = start(here, workers.download)
            part, goal = None, chance.randrange(1, 5) * MIB
            limit = time.monotonic() + 30
            while process.is_alive() and time.monotonic() < limit:
                part = next(here.hf.rglob("*.depthmap.incomplete"), part)
                if part is not None and part.exists() and part.stat().st_size >= goal:
                    break
                time.sleep(0.002)
            process.kill()
            process.join()
        here.hub.rate = None
        problem = consistent(here)
        size, sent = len(here.data["A"]), here.hub.sent
        if sent > size + (kills + 1) * (MIB + 8 * (64 << 10)) + kills * MIB * 3:
            problem = problem or f"{sent} bytes sent for a file of {size}"
        result.count(problem)
    result.note = f"{sent / size:.2f} of the file sent over {kills} kills"
    return result


def small_disks(scale: int) -> Result:
    """The whole way on disks from too small to large enough, with and without the check beforehand."""
    result = Result("full disk")
    step = ((3072, 256, 64)[scale]) << 10
    with world(width=1000) as here:
        need = 4 * len(here.data["A"])
        for forced in (False, True):
            for size in range(1 * MIB, need + step, step):
                with small_disk(here.folder / "disk", size) as disk:
                    if disk is None:
                        result.note = "no small disk can be mounted here"
                        return result
                    result.count(_fill(here, disk, forced, size))
    return result


def _fill(here, disk: Path, forced: bool, size: int) -> str | None:
    os.environ.update(DEPTHMAP_CACHE=str(disk / "own"), HF_HOME=str(disk / "hf"))
    try:
        process = start(here, workers.fill_disk, forced)
        hung = finish(process)
        if hung or process.exitcode not in (0, workers.REFUSED):
            return hung or f"{size} bytes, forced {forced}: exit {process.exitcode}"
        wrong = [verdict.reason or "" for verdict in here.manager().verify() if not verdict.ok]
        left = [path.name for path in (disk / "own").rglob("*.tmp")]
        if wrong or left:
            return f"{size} bytes, forced {forced}: wrong {wrong}, left {left}"
        if not forced and process.exitcode and any((disk / "hf").rglob("blobs/*")):
            return f"{size} bytes: bytes were fetched although the disk is too small"
        return None
    finally:
        os.environ.update(DEPTHMAP_CACHE=str(here.own), HF_HOME=str(here.folder / "hf"))


class small_disk:
    """A tmpfs of `size` bytes at `path`, None where mounting is not allowed."""

    def __init__(self, path: Path, size: int):
        self.path, self.size, self.mounted = path, size, False

    def __enter__(self) -> Path | None:
        import subprocess

        self.path.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={self.size}", "tmpfs", str(self.path)]
        try:
            self.mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            self.mounted = False
        return self.path if self.mounted else None

    def __exit__(self, *unused) -> None:
        import subprocess

        if self.mounted:
            subprocess.run(["umount", "-l", str(self.path)], check=False)
