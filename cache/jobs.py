"""Long work with a name tag: progress, cancel, and one log that page and REST share.

A job runs in its own thread, a few at a time; the rest wait in line, and a full line refuses.
The same work asked for twice (two windows, two buttons) is one job. Everything handed out is a
frozen snapshot, so a reader never sees a job half changed.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from cache.errors import Cancelled, DepthmapError, UsageError
from cache.hub import Progress

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
FINISHED = (DONE, FAILED, CANCELLED)
RATE_SECONDS = 5.0  # the rate is that of the last seconds, so that a stall shows
log = logging.getLogger(__name__)
Work = Callable[[Callable[[Progress], None], threading.Event], object]


class UnknownJob(UsageError):
    """No job of that id is known, or it is too old to be remembered."""

    code = "unknown_job"


class TooBusy(DepthmapError):
    """The line is full; nothing was started."""

    code = "too_busy"


@dataclass(frozen=True)
class Failure:
    code: str
    message: str


@dataclass(frozen=True)
class Job:
    """One piece of work. `done` and `total` are bytes of the present `phase`; `rate` bytes a
    second and `eta` seconds, None while unknown; times are seconds since 1970. `result` is the
    record that the work returned, `version` grows with every change."""

    id: str
    kind: str  # "download", "verify", ...
    model: str | None
    detail: str = ""  # what tells it from other work of its kind: formats, a dtype
    state: str = QUEUED  # "queued" | "running" | "done" | "failed" | "cancelled"
    phase: str | None = None
    done: int = 0
    total: int | None = None
    rate: float | None = None
    eta: float | None = None
    error: Failure | None = None
    result: object = None
    created: float = 0.0
    started: float | None = None
    finished: float | None = None
    version: int = 0

    def is_active(self) -> bool:
        """Does it still wait or run?"""
        return self.state not in FINISHED


@dataclass(frozen=True)
class Event:
    """One line of the log; `number` counts up from 1 and never repeats."""

    number: int
    time: float
    kind: str
    model: str | None
    state: str
    text: str = ""


class Jobs:
    """The registry. workers: jobs at once; line: unfinished jobs in all; history: finished jobs
    and log lines remembered."""

    def __init__(self, workers: int = 2, line: int = 8, history: int = 200):
        self.workers, self.line, self.history = workers, line, history
        self._changed = threading.Condition()
        self._jobs: dict[str, Job] = {}
        self._cancels: dict[str, threading.Event] = {}
        self._samples: dict[str, deque[tuple[float, int]]] = {}
        self._events: deque[Event] = deque(maxlen=history)
        self._numbers = itertools.count(1)

    def start(self, kind: str, model: str | None, work: Work, detail: str = "") -> Job:
        """Begin `work(progress, cancel)` in the background, or return the unfinished job of the
        same kind, model and detail. Raises TooBusy when the line is full."""
        with self._changed:
            active = [job for job in self._jobs.values() if job.is_active()]
            same = next((job for job in active
                         if (job.kind, job.model, job.detail) == (kind, model, detail)), None)
            if same:
                return same
            if len(active) >= self.line:
                raise TooBusy("Too many jobs are waiting.", expected=f"at most {self.line}",
                              next_step="Wait for one to end, or cancel one.")
            job = Job(secrets.token_hex(8), kind, model, detail, created=time.time())
            self._jobs[job.id] = job
            self._cancels[job.id] = threading.Event()
            self._forget_old()
        # daemon: an interrupted server ends at once; the cache survives a kill at any point
        threading.Thread(target=self._run, args=(job.id, work), daemon=True, name=f"job-{kind}").start()
        return job

    def get(self, id: str) -> Job:
        """The job as it is now. Raises UnknownJob."""
        with self._changed:
            if id not in self._jobs:
                raise UnknownJob(f"There is no job {id[:40]!r}.", next_step="List the jobs, or start it again.")
            return self._jobs[id]

    def list(self) -> tuple[Job, ...]:
        """All remembered jobs, oldest first."""
        with self._changed:
            return tuple(self._jobs.values())

    def cancel(self, id: str) -> Job:
        """Ask a job to stop; a finished one stays as it is. Raises UnknownJob."""
        with self._changed:
            job = self.get(id)
            if job.is_active():
                self._cancels[id].set()
                self._changed.notify_all()
        return job

    def wait(self, id: str, timeout: float | None = None, *, version: int | None = None) -> Job:
        """The job once it has ended (or, given a version, once it has changed), else as it is
        after `timeout` seconds. Raises UnknownJob."""
        with self._changed:
            self._changed.wait_for(lambda: not self.get(id).is_active() or
                                   (version is not None and self.get(id).version != version), timeout)
            return self.get(id)

    def note(self, kind: str, model: str | None, state: str, text: str = "") -> Event:
        """Write a line into the shared log."""
        with self._changed:
            event = Event(next(self._numbers), time.time(), kind, model, state, text)
            self._events.append(event)
        return event

    def events(self, since: int = 0) -> tuple[Event, ...]:
        """Log lines with a number above `since`, oldest first."""
        with self._changed:
            return tuple(event for event in self._events if event.number > since)

    def _run(self, id: str, work: Work) -> None:
        cancel = self._cancels[id]
        if not self._wait_for_turn(id, cancel):
            return self._end(id, CANCELLED)
        try:
            result = work(lambda progress: self._advance(id, progress), cancel)
        except Cancelled:
            self._end(id, CANCELLED)
        except DepthmapError as error:
            self._end(id, FAILED, error=Failure(error.code, str(error)))
        except Exception:
            log.exception("job %s failed", id)
            self._end(id, FAILED, error=Failure("internal", "Something unexpected went wrong; see the server's log."))
        else:
            self._end(id, DONE, result=result)

    def _wait_for_turn(self, id: str, cancel: threading.Event) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: cancel.is_set() or self._running() < self.workers)
            if cancel.is_set():
                return False
            job = self._change(id, state=RUNNING, started=time.time())
        self.note(job.kind, job.model, RUNNING)
        return True

    def _running(self) -> int:
        return sum(job.state == RUNNING for job in self._jobs.values())

    def _advance(self, id: str, progress: Progress) -> None:
        with self._changed:
            job = self._jobs[id]
            samples = self._samples.setdefault(id, deque())
            if progress.phase != job.phase or progress.done < job.done:
                samples.clear()
            rate = _rate(samples, time.monotonic(), progress.done)
            left = None if progress.total is None else max(progress.total - progress.done, 0)
            self._change(id, phase=progress.phase, done=progress.done, total=progress.total, rate=rate,
                         eta=left / rate if rate and left is not None else None)

    def _end(self, id: str, state: str, **facts: object) -> None:
        with self._changed:
            job = self._change(id, state=state, finished=time.time(), rate=None, eta=None, **facts)
            self._samples.pop(id, None)
            self._cancels.pop(id, None)
            self.note(job.kind, job.model, state, job.error.message if job.error else "")

    def _change(self, id: str, **facts: object) -> Job:
        job = self._jobs[id]
        self._jobs[id] = replace(job, version=job.version + 1, **facts)
        self._changed.notify_all()
        return self._jobs[id]

    def _forget_old(self) -> None:
        ended = [id for id, job in self._jobs.items() if not job.is_active()]
        for id in ended[:max(len(ended) - self.history, 0)]:
            del self._jobs[id]


def _rate(samples: deque[tuple[float, int]], now: float, done: int) -> float | None:
    """Bytes a second over the last seconds; adds the new sample and drops those too old."""
    samples.append((now, done))
    while len(samples) > 2 and now - samples[1][0] >= RATE_SECONDS:
        samples.popleft()
    seconds, amount = now - samples[0][0], done - samples[0][1]
    return amount / seconds if seconds > 0.2 else None
