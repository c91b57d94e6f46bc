"""Many clients at once on one estimator: requests a second, waiting times, errors and memory."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.measure import Row, Table
from benchmarks.worker import private_bytes


def measure(model: str, clients: tuple[int, ...], requests: int) -> Table:
    """`requests` predictions of a 480×640 picture, shared out among so many threads."""
    from depth import MiDaSDepthEstimator

    estimator = MiDaSDepthEstimator(model)
    picture = (np.random.default_rng(0).random((480, 640, 3)) * 255).astype(np.uint8)
    for _ in range(5):
        estimator.predict(picture)
    rows = tuple(_serve(estimator, picture, count, requests) for count in clients)
    return Table(f"{model}, {requests} requests, seconds each", rows,
                 f"Engine: {getattr(estimator, 'engine', 'eager')}. The pictures are prepared and restored too.")


def _serve(estimator, picture: np.ndarray, clients: int, requests: int) -> Row:
    waits: list[float] = []
    errors: list[BaseException] = []
    before, tickets, guard = private_bytes(), iter(range(requests)), threading.Lock()

    def client() -> None:
        while True:
            with guard:
                if next(tickets, None) is None:
                    return
            start = time.perf_counter()
            try:
                estimator.predict(picture)
            except Exception as error:
                errors.append(error)
            waits.append(time.perf_counter() - start)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    after = private_bytes()
    return Row(f"{clients} clients", tuple(waits), {
        "per_second": requests / seconds,
        "p50": float(np.percentile(waits, 50)), "p99": float(np.percentile(waits, 99)),
        "errors": len(errors), "grown": None if before is None or after is None else after - before})


def main(folder: Path, quick: bool) -> Table:
    return measure("Tiny", (1, 8, 64), 200 if quick else 2000)
