"""Bytes from an HTTP server into a `.part` file: resumed, retried, measured, cancellable.

The network is read by a helper thread that only fills a small queue; files are written by the
caller's thread alone. So a cancel is heard at once, whatever the socket is doing, and nothing is
written after the caller has left.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cache.errors import FetchError, IntegrityError
from cache.files import CHUNK, check, disk_errors

POLL_SECONDS = 0.05
PAUSES = (0.2, 0.5, 1.0, 2.0)  # seconds between attempts that bring nothing
WORTHWHILE = 64 << 10  # an attempt that brings less counts as failed
RETRY = {408, 425, 429, 500, 502, 503, 504}
T = TypeVar("T")


class Transient(Exception):
    """One attempt failed in a way that a new attempt may cure. `pause`: what the server asked for."""

    def __init__(self, reason: str, pause: float | None = None):
        super().__init__(reason)
        self.pause = pause


class Unreachable(Transient):
    """Nobody answered at all: worth one more attempt, not five."""


def timeout_seconds() -> float:
    """Longest silence of a server that is borne (`HF_HUB_DOWNLOAD_TIMEOUT`, else 10)."""
    try:
        return max(1.0, float(os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT") or 10))
    except ValueError:
        return 10.0


def patiently(call: Callable[[], T], cancel: threading.Event | None, seconds: float, what: str) -> T:
    """The result of a blocking call, given up on cancel or after `seconds`."""
    answer: queue.SimpleQueue = queue.SimpleQueue()

    def run() -> None:
        try:
            answer.put((call(), None))
        except BaseException as error:  # handed to the caller, whatever it is
            answer.put((None, error))

    threading.Thread(target=run, daemon=True, name="depthmap-wait").start()
    deadline = time.monotonic() + seconds
    while True:
        try:
            result, error = answer.get(timeout=POLL_SECONDS)
        except queue.Empty:
            check(cancel)
            if time.monotonic() > deadline:
                raise Transient(f"{what} took longer than {seconds:g} s") from None
            continue
        if error is not None:
            raise error
        return result


def retry(attempt: Callable[[], T], cancel: threading.Event | None) -> T:
    """Call until it works; Transient failures are repeated after growing pauses, then raised."""
    for failures, pause in enumerate(PAUSES):
        try:
            return attempt()
        except Transient as error:
            if failures and isinstance(error, Unreachable):
                raise
            rest(error.pause if error.pause is not None else pause, cancel)
    return attempt()


def rest(seconds: float, cancel: threading.Event | None) -> None:
    if cancel is None:
        time.sleep(seconds)
    elif cancel.wait(seconds):
        check(cancel)


def collect(part: Path, url: str, *, headers: Mapping[str, str], size: int | None,
            verify: Callable[[Path], None], tick: Callable[[int], None],
            cancel: threading.Event | None) -> None:
    """Fill `part` from `url`, going on where an earlier process stopped, until `verify` accepts it.

    `verify(path)` raises IntegrityError for wrong bytes; then one clean start from zero is made.
    Without a `size` the end of the body is the end of the file.
    Raises FetchError when the server gives nothing more, Cancelled on request; `part` then stays.
    """
    for last in (False, True):
        _fill(part, url, headers, size, tick, cancel)
        try:
            return verify(part)
        except IntegrityError:
            with disk_errors(part, "remove a broken download"):
                part.unlink(missing_ok=True)
                _tag_file(part).unlink(missing_ok=True)
            if last:
                raise


def _fill(part: Path, url: str, headers: Mapping[str, str], size: int | None,
          tick: Callable[[int], None], cancel: threading.Event | None) -> None:
    failures = 0
    while True:
        check(cancel)
        before = _length(part)
        if size is not None and before == size:
            return
        try:
            _attempt(part, url, headers, size, tick, cancel)
            return
        except Transient as error:
            failures = 0 if _length(part) - before >= WORTHWHILE else failures + 1
            if failures > (1 if isinstance(error, Unreachable) else len(PAUSES)):
                raise FetchError("The download broke off again and again.", where=url, got=str(error),
                                 next_step="Start again later; it goes on where it stopped.") from error
            if failures:
                rest(error.pause if error.pause is not None else PAUSES[failures - 1], cancel)


def _attempt(part: Path, url: str, headers: Mapping[str, str], size: int | None,
             tick: Callable[[int], None], cancel: threading.Event | None) -> None:
    """One request. Returns when the body is complete; raises Transient with what came kept."""
    start = _length(part)
    if size is not None and start > size:
        part.unlink()
        start = 0
    wire = _Wire(url, dict(headers) | _range(part, start))
    try:
        status, answer = wire.take(cancel)
        start = _where_to_write(status, answer, start, size, url, part)
        with disk_errors(part, "save the download"):
            _write(part, start, wire, size, tick, cancel)
    finally:
        wire.stop.set()
    if size is not None and _length(part) != size:
        raise Transient(f"the server closed after {_length(part)} of {size} bytes")


def _where_to_write(status: int, answer: Mapping[str, str], start: int, size: int | None,
                    url: str, part: Path) -> int:
    """The offset the body belongs to, after everything the answer says has been checked."""
    if status in RETRY:
        raise Transient(f"the server answered {status}", _retry_after(answer))
    if status == 416:
        part.unlink(missing_ok=True)
        raise Transient("the server cannot go on there (416)")
    if status not in (200, 206):
        raise FetchError("The server refused the download.", where=url, got=f"HTTP {status}")
    if status == 200:
        start = 0
    elif not answer.get("content-range", "").replace(" ", "").startswith(f"bytes{start}-"):
        raise Transient(f"the server sent another range: {answer.get('content-range')!r:.80}")
    length = answer.get("content-length")
    if size is not None and length is not None and length != str(size - start):
        raise Transient(f"expected {size - start} more bytes, the server announced {length[:20]}")
    if start == 0 and size is None and (tag := answer.get("etag")):
        with contextlib.suppress(OSError):
            _tag_file(part).write_text(tag)
    return start


def _write(part: Path, start: int, wire: _Wire, size: int | None,
           tick: Callable[[int], None], cancel: threading.Event | None) -> None:
    part.parent.mkdir(parents=True, exist_ok=True)
    told = start
    with part.open("r+b" if part.exists() else "wb") as file:
        file.truncate(start)
        file.seek(start)
        tick(start)
        while (chunk := wire.take(cancel)) is not None:
            start += len(chunk)
            if size is not None and start > size:
                raise Transient(f"the server sent more than {size} bytes")
            file.write(chunk)
            if start - told >= CHUNK or start == size:
                tick(start)
                told = start


def _range(part: Path, start: int) -> dict[str, str]:
    if not start:
        return {}
    # If-Range makes the server start over if the file has changed since; weak tags do not count.
    tag = _tag_file(part).read_text() if _tag_file(part).exists() else ""
    condition = {"If-Range": tag} if tag.startswith('"') and "\n" not in tag else {}
    return {"Range": f"bytes={start}-"} | condition


def _tag_file(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def forget(part: Path) -> None:
    """Remove the small note beside a finished download."""
    _tag_file(part).unlink(missing_ok=True)


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _retry_after(answer: Mapping[str, str]) -> float | None:
    value = answer.get("retry-after", "")
    return min(float(value), 30.0) if value.isdigit() else None


class _Wire(threading.Thread):
    """Reads one HTTP answer into a queue: first (status, headers), then chunks, then None."""

    def __init__(self, url: str, headers: dict[str, str]):
        super().__init__(daemon=True, name="depthmap-wire")
        self.url, self.headers = url, headers | {"Accept-Encoding": "identity"}
        self.stop = threading.Event()
        self.queue: queue.Queue[Any] = queue.Queue(maxsize=16)
        self.start()

    def run(self) -> None:
        import httpx

        try:
            timeout = httpx.Timeout(timeout_seconds())
            with httpx.Client(follow_redirects=True, timeout=timeout) as client, \
                    client.stream("GET", self.url, headers=self.headers) as answer:
                self._put((answer.status_code, dict(answer.headers)))
                for chunk in answer.iter_raw():
                    self._put(chunk)
            self._put(None)
        except _Left:
            pass
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            self._put_last(Unreachable(f"{type(error).__name__}: {error}"[:200]))
        except (httpx.TransportError, OSError) as error:
            self._put_last(Transient(f"{type(error).__name__}: {error}"[:200]))
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            self._put_last(FetchError("The server's answer makes no sense.", where=self.url, got=str(error)[:200]))

    def take(self, cancel: threading.Event | None) -> Any:
        while True:
            try:
                item = self.queue.get(timeout=POLL_SECONDS)
            except queue.Empty:
                check(cancel)
                continue
            check(cancel)
            if isinstance(item, Exception):
                raise item
            return item

    def _put(self, item: Any) -> None:
        while not self.stop.is_set():
            try:
                return self.queue.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue
        raise _Left

    def _put_last(self, item: Any) -> None:
        with contextlib.suppress(_Left):
            self._put(item)


class _Left(Exception):
    """The taker has gone."""
