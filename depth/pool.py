"""Loaded things that all users of a process share: bounded in number and bytes, one load at a time per key."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Protocol

from cache.errors import Cancelled, UsageError

MAX_LOADED, MAX_LOADED_BYTES = 2, 4 * 2**30  # where DEPTHMAP_MAX_LOADED and DEPTHMAP_MAX_LOADED_BYTES are not set


class Sized(Protocol):
    bytes: int


class Pool:
    """What was loaded last, least recently used first. The newest is always kept, however large."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, Sized] = OrderedDict()
        self._turns: dict[Hashable, threading.Lock] = {}
        self._guard = threading.Lock()

    def get(self, key: Hashable, load: Callable[[], Sized], cancel: threading.Event | None = None) -> Sized:
        """The thing under `key`, or what `load` makes. Who comes while it is being made waits for it.

        After a failed load the next one who waits tries again. Raises Cancelled if `cancel` is set
        while waiting, and what `load` raises.
        """
        with self._guard:
            turn = self._turns.setdefault(key, threading.Lock())
        while not turn.acquire(timeout=0.2):
            if cancel is not None and cancel.is_set():
                raise Cancelled("Stopped waiting for a model that is being loaded.")
        try:
            return self._find(key) or self._keep(key, load())
        finally:
            turn.release()

    def kept(self) -> tuple[Hashable, ...]:
        """The keys, least recently used first."""
        with self._guard:
            return tuple(self._kept)

    def clear(self) -> None:
        """Let go of everything; who uses a thing keeps it alive."""
        with self._guard:
            self._kept.clear()

    def _find(self, key: Hashable) -> Sized | None:
        with self._guard:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _keep(self, key: Hashable, thing: Sized) -> Sized:
        count = _setting("DEPTHMAP_MAX_LOADED", MAX_LOADED)
        most = _setting("DEPTHMAP_MAX_LOADED_BYTES", MAX_LOADED_BYTES)
        with self._guard:
            self._kept[key] = thing
            while len(self._kept) > 1 and (len(self._kept) > count or self._bytes() > most):
                self._kept.popitem(last=False)
        return thing

    def _bytes(self) -> int:
        return sum(thing.bytes for thing in self._kept.values())


def _setting(variable: str, default: int) -> int:
    """A whole number above 0 from the environment."""
    text = os.environ.get(variable, "").strip() or str(default)
    if not text.isdecimal() or int(text) < 1:
        raise UsageError("A setting is not a number.", where=variable, expected="a whole number above 0",
                         got=repr(text))
    return int(text)
