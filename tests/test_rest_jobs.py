"""Jobs: progress, cancel, one log; no test waits for a clock."""

import threading

import pytest

from cache.errors import Cancelled, NoSpace
from cache.hub import Progress
from cache.jobs import Jobs, TooBusy, UnknownJob, _rate

PATIENCE = 30  # seconds until a test gives up; none waits that long


@pytest.fixture
def gate():
    """Lets blocked work go at the end, so that no thread stays behind."""
    event = threading.Event()
    yield event
    event.set()


def blocked(gate):
    return lambda progress, cancel: gate.wait(PATIENCE)


def obedient(progress, cancel):
    cancel.wait(PATIENCE)
    raise Cancelled("Stopped.")


def test_result_of_the_work_is_kept():
    jobs = Jobs()
    job = jobs.start("verify", None, lambda progress, cancel: ("fine",))
    assert jobs.wait(job.id, PATIENCE).result == ("fine",)


def test_progress_shows_phase_and_bytes(gate):
    jobs, told = Jobs(), threading.Event()

    def work(progress, cancel):
        progress(Progress("download", 3, 12, "a.pt"))
        told.set()
        gate.wait(PATIENCE)

    job = jobs.start("download", "A", work)
    told.wait(PATIENCE)
    now = jobs.get(job.id)
    assert (now.state, now.phase, now.done, now.total) == ("running", "download", 3, 12)


def test_wait_for_a_change_returns_before_the_end(gate):
    jobs = Jobs()
    job = jobs.start("download", "A", blocked(gate))
    assert jobs.wait(job.id, PATIENCE, version=job.version).state == "running"


def test_cancel_stops_running_work():
    jobs = Jobs()
    job = jobs.start("download", "A", obedient)
    jobs.cancel(job.id)
    assert jobs.wait(job.id, PATIENCE).state == "cancelled"


def test_cancel_reaches_work_that_still_waits(gate):
    jobs = Jobs(workers=1)
    jobs.start("download", "A", blocked(gate))
    waiting = jobs.start("download", "B", blocked(gate))
    jobs.cancel(waiting.id)
    assert jobs.wait(waiting.id, PATIENCE).state == "cancelled"


def test_cancel_after_the_end_changes_nothing():
    jobs = Jobs()
    job = jobs.wait(jobs.start("verify", None, lambda progress, cancel: 1).id, PATIENCE)
    assert jobs.cancel(job.id) == job


def test_our_error_keeps_code_and_sentence():
    def work(progress, cancel):
        raise NoSpace("The disk is full.")

    jobs = Jobs()
    job = jobs.wait(jobs.start("download", "A", work).id, PATIENCE)
    assert (job.state, job.error.code, job.error.message) == ("failed", "no_space", "The disk is full.")


def test_foreign_error_shows_nothing_of_its_text():
    jobs = Jobs()
    job = jobs.wait(jobs.start("download", "A", lambda progress, cancel: 1 / 0).id, PATIENCE)
    assert (job.error.code, "zero" in job.error.message) == ("internal", False)


def test_same_work_twice_is_one_job(gate):
    jobs = Jobs()
    first = jobs.start("download", "A", blocked(gate))
    assert jobs.start("download", "A", blocked(gate)).id == first.id


def test_other_detail_is_another_job(gate):
    jobs = Jobs()
    first = jobs.start("export", "A", blocked(gate), "fp16")
    assert jobs.start("export", "A", blocked(gate), "bf16").id != first.id


def test_full_line_refuses(gate):
    jobs = Jobs(workers=1, line=2)
    for model in "AB":
        jobs.start("download", model, blocked(gate))
    with pytest.raises(TooBusy):
        jobs.start("download", "C", blocked(gate))


def test_line_holds_no_more_at_once_than_workers(gate):
    jobs = Jobs(workers=2)
    started = [jobs.start("download", model, blocked(gate)) for model in "ABC"]
    for job in started[:2]:
        jobs.wait(job.id, PATIENCE, version=0)
    assert sum(job.state == "running" for job in jobs.list()) <= 2


def test_unknown_id_is_refused():
    with pytest.raises(UnknownJob):
        Jobs().get("nonesuch")


def test_history_is_bounded():
    jobs = Jobs(history=3)
    for number in range(9):
        jobs.wait(jobs.start("verify", str(number), lambda progress, cancel: None).id, PATIENCE)
    assert len(jobs.list()) <= 4


def test_log_tells_start_and_end():
    jobs = Jobs()
    jobs.wait(jobs.start("verify", "A", lambda progress, cancel: None).id, PATIENCE)
    assert [(event.kind, event.model, event.state) for event in jobs.events()] == [
        ("verify", "A", "running"), ("verify", "A", "done")]


def test_log_goes_on_from_a_number():
    jobs = Jobs()
    first = jobs.note("clear", "A", "done", "1 file")
    second = jobs.note("clear", "B", "done")
    assert jobs.events(since=first.number) == (second,)


def test_rate_is_that_of_the_last_seconds():
    from collections import deque

    samples = deque()
    for second, done in ((0, 0), (10, 0), (14, 0), (16, 1000)):
        rate = _rate(samples, second, done)
    assert rate == 1000 / 6
