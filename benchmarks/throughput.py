"""Many clients at once on the real app: requests a second, waiting times, errors, and its memory."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.measure import Row, Table
from benchmarks.serving import App, ask_page, ask_rest, serving

Ask = Callable[..., None]
WARM = 200  # requests until the server's memory has settled


@dataclass
class Crowd:
    """Clients that share out `requests` among them, each on a connection of its own."""

    app: App
    ask: Ask
    picture: bytes
    requests: int
    waits: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def go(self, clients: int) -> float:
        """All requests; the seconds they took."""
        tickets, guard = iter(range(self.requests)), threading.Lock()
        threads = [threading.Thread(target=self._client, args=(tickets, guard)) for _ in range(clients)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - start

    def _client(self, tickets, guard: threading.Lock) -> None:
        connection = self.app.connect()
        while True:
            with guard:
                if next(tickets, None) is None:
                    return connection.close()
            start = time.perf_counter()
            try:
                self.ask(connection, self.picture)
            except Exception as error:  # counted and shown
                self.errors.append(f"{type(error).__name__}: {error}")
                connection.close()
            self.waits.append(time.perf_counter() - start)


def measure(home: Path, requests: int, many: int) -> list[Table]:
    """Both doors with 1, 8 and 64 clients; then `many` requests of 8 clients and the memory they leave behind."""
    with serving(home) as app:
        picture = jpeg(480, 640)
        for ask in (ask_rest, ask_page):
            Crowd(app, ask, picture, WARM // 2).go(8)
        rows = [_row(Crowd(app, ask, picture, requests), clients, door)
                for clients in (1, 8, 64) for door, ask in (("REST", ask_rest), ("page", ask_page))]
        return [Table("Tiny through the app, seconds a request", tuple(rows),
                      "480×640 JPEGs over HTTP; clients and server share the processor. REST gives a 16-bit PNG, "
                      "the page's /predict with five files, one of them coloured."),
                _memory(app, jpeg(96, 96), many)]


def _row(crowd: Crowd, clients: int, door: str) -> Row:
    before, seconds, after = crowd.app.cpu_seconds(), crowd.go(clients), crowd.app.cpu_seconds()
    print(f"  {door}, {clients} clients: {crowd.requests / seconds:.1f} requests/s, {len(crowd.errors)} errors"
          f"{': ' + crowd.errors[0] if crowd.errors else ''}", file=sys.stderr, flush=True)
    return Row(f"{door}, {clients} client{'s' * (clients > 1)}", tuple(crowd.waits), {
        "per_second": crowd.requests / seconds, "p99": float(np.percentile(crowd.waits, 99)),
        "errors": len(crowd.errors),
        "cpu": None if before is None or after is None else (after - before) / crowd.requests})


def _memory(app: App, picture: bytes, many: int) -> Table:
    """The server's private memory after every tenth of so many requests."""
    Crowd(app, ask_rest, picture, WARM).go(8)
    rows, first = [], app.private_bytes()
    for part in range(1, 11):
        crowd = Crowd(app, ask_rest, picture, many // 10)
        seconds, now = crowd.go(8), app.private_bytes()
        print(f"  memory: {part * many // 10} requests, {now}", file=sys.stderr, flush=True)
        rows.append(Row(f"{part * many // 10} requests", tuple(crowd.waits), {
            "per_second": crowd.requests / seconds, "errors": len(crowd.errors), "private": now,
            "grown": None if now is None or first is None else now - first}))
    return Table("Memory over many requests", tuple(rows), "REST, 8 clients, 96×96 JPEGs; one server all the time.")


def jpeg(height: int, width: int) -> bytes:
    """A made-up photo."""
    from PIL import Image

    y, x = np.mgrid[0:1:height * 1j, 0:1:width * 1j]
    planes = np.stack([x, y, np.hypot(x - 0.5, y - 0.5)], axis=2)
    noise = np.random.default_rng(0).normal(0, 0.03, planes.shape)
    file = io.BytesIO()
    Image.fromarray(((planes + noise).clip(0, 1) * 255).astype(np.uint8)).save(file, "JPEG", quality=92)
    return file.getvalue()
