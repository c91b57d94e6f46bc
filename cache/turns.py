"""Fair turns for heavy requests: a few run, the rest wait in a bounded line, visitors alternate.

One visitor with a hundred requests delays another visitor's first request by one turn, not by a
hundred. For one asyncio event loop; nothing here blocks a thread.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cache.jobs import TooBusy

RUNNING, WAITING = 4, 256  # heavy requests at once, and in line behind them; the page's queue takes the same


class Turns:
    """running: turns at once; waiting: requests in line in all; each: of one visitor."""

    def __init__(self, running: int = RUNNING, waiting: int = WAITING, each: int = WAITING // 2):
        self.running, self.waiting, self.each = running, waiting, each
        self._busy = 0
        self._lines: OrderedDict[str, deque[asyncio.Future]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, visitor: str) -> AsyncIterator[None]:
        """Wait for a turn and hold it. Raises TooBusy when the line, or the visitor's share, is full."""
        await self._enter(visitor)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, visitor: str) -> None:
        if self._busy < self.running:
            self._busy += 1
            return
        own = self._lines.get(visitor, ())
        if len(own) >= self.each or sum(map(len, self._lines.values())) >= self.waiting:
            raise TooBusy("Too many requests are waiting.", next_step="Try again in a moment.")
        place = asyncio.get_running_loop().create_future()
        self._lines.setdefault(visitor, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._leave()  # the turn came in the moment the visitor left: pass it on
            raise

    def _leave(self) -> None:
        """Hand the turn to the next visitor in the round, or give it back."""
        while self._lines:
            visitor, line = self._lines.popitem(last=False)
            place = line.popleft()
            if line:
                self._lines[visitor] = line
            if not place.done():
                return place.set_result(None)
        self._busy -= 1
