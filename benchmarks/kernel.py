"""What the kernel tells of a process's memory, and does with its page cache.

Imports next to nothing, since starts are timed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def private_bytes(process: int | str = "self") -> int | None:
    """Memory that is one process's alone (Linux)."""
    return memory(process).get("Private_Dirty")


def memory(process: int | str = "self") -> dict[str, int]:
    """The kernel's sums over a process's memory in bytes, such as Pss; empty where it does not tell."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return {}
    return {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in lines}


def forget(folder: Path) -> None:
    """Make the system drop the folder's large files from its page cache, where it can."""
    for path in _large(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def settle(folder: Path) -> None:
    """Read the folder's large files into the page cache, as they lie there on any day but that of their making.

    Linux keeps what it read in larger pieces than what was written: they map ten times as fast, and copy faster too.
    """
    forget(folder)
    warm(_large(folder))


def warm(paths: Iterable[Path]) -> None:
    """Read files into the page cache, or find them there. Systems that save memory forget what lay idle for seconds."""
    piece = bytearray(1 << 24)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(piece):
                pass


def _large(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 1 << 20]
