"""A reader's memory beside a model: which file was hashed when, and when the model was last used.

Readers take no lock, so this is separate from the manifest, and losing an entry only costs a hash.
A file counts as checked while its inode, size, mtime and ctime are those of the check.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from cache.files import publish

NAME = "checked.json"
TICK_NS = 20_000_000  # file systems date changes in steps of up to 10 ms; a younger date proves nothing
USED_STEP = 60.0  # seconds: how exactly "last used" is kept


def is_checked(folder: Path, key: str, facts: os.stat_result, sha256: str) -> bool:
    return checked_digest(folder, key, facts) == sha256


def checked_digest(folder: Path, key: str, facts: os.stat_result) -> str | None:
    """The sha256 that the file had when it was hashed last; None if it was never, or has changed since."""
    noted = _read(folder).get("checked", {}).get(key, {}).get("stamp")
    digest = noted[-1] if isinstance(noted, list) and noted else None
    return digest if isinstance(digest, str) and noted == _stamp(facts, digest) else None


def remember(folder: Path, key: str, path: Path, sha256: str, before: os.stat_result | None = None) -> None:
    """Note that the bytes at `path` have that digest now. `before`: its state when hashing began.

    Waits until the file is old enough that a later change must show in its dates.
    """
    with contextlib.suppress(OSError):
        facts = path.stat()
        while (age := time.time_ns() - facts.st_ctime_ns) < TICK_NS:
            if age < 0:
                return  # a clock that was set back cannot prove order
            time.sleep((TICK_NS - age) / 1e9)
            facts = path.stat()
        if before is not None and _stamp(before, sha256) != _stamp(facts, sha256):
            return
        content = _read(folder)
        content.setdefault("checked", {})[key] = {"stamp": _stamp(facts, sha256), "when": time.time()}
        _write(folder, content)


def forget(folder: Path, key: str) -> None:
    with contextlib.suppress(OSError):
        content = _read(folder)
        if content.get("checked", {}).pop(key, None) is not None:
            _write(folder, content)


def checked_when(folder: Path, key: str) -> float | None:
    return _read(folder).get("checked", {}).get(key, {}).get("when")


def use(folder: Path) -> None:
    """Note that the model was used just now."""
    with contextlib.suppress(OSError):
        content, now = _read(folder), time.time()
        if abs(now - content.get("last_used", 0)) > USED_STEP:
            _write(folder, content | {"last_used": now})


def last_used(folder: Path) -> float | None:
    value = _read(folder).get("last_used")
    return value if isinstance(value, float) else None


def stamp(facts: os.stat_result) -> list[int]:
    """What changes with a file, if it is `TICK_NS` old."""
    return [facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]


def _stamp(facts: os.stat_result, sha256: str) -> list:
    return [*stamp(facts), sha256]


def _read(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / NAME).read_bytes())
        good = (isinstance(content, dict) and isinstance(content.get("checked", {}), dict)
                and all(isinstance(entry, dict) for entry in content.get("checked", {}).values())
                and isinstance(content.get("last_used", 0), (int, float)))
        return content if good else {}
    except (OSError, ValueError):
        return {}


def _write(folder: Path, content: dict[str, Any]) -> None:
    def fill(temporary: Path) -> None:
        temporary.write_text(json.dumps(content))

    if folder.is_dir():
        publish(folder / NAME, fill)
