"""Requests that come together run together, each gets its own answer, and errors find their owner."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from depth.batching import Batcher


def picture(value: float, h: int = 32, w: int = 32) -> np.ndarray:
    return np.full((1, 3, h, w), value, np.float32)


class Engine:
    """Answers with the first channel; the first pass waits until `go`, so that others can queue."""

    def __init__(self, fail=None):
        self.sizes, self.go, self.entered, self.fail = [], threading.Event(), threading.Event(), fail

    def __call__(self, batch):
        self.sizes.append(len(batch))
        self.entered.set()
        assert self.go.wait(30)
        if self.fail:
            self.fail(batch)
        return batch[:, 0]


def ask(batcher, pictures):
    """One thread per picture, all queued behind the first; returns the threads and what each got."""
    answers = [None] * len(pictures)

    def work(place):
        try:
            answers[place] = batcher(pictures[place])
        except Exception as error:
            answers[place] = error

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(pictures))]
    threads[0].start()
    assert batcher._run.entered.wait(30)
    for thread in threads[1:]:
        thread.start()
    while len(batcher._waiting) < len(pictures) - 1:
        threading.Event().wait(0.005)
    batcher._run.go.set()
    for thread in threads:
        thread.join(30)
    return answers


def test_those_who_wait_share_one_pass():
    engine = Engine()
    answers = ask(Batcher(engine), [picture(n) for n in range(6)])
    assert engine.sizes == [1, 5]
    assert [float(answer[0, 0]) for answer in answers] == [0, 1, 2, 3, 4, 5]


def test_sizes_are_not_mixed():
    engine = Engine()
    answers = ask(Batcher(engine), [picture(0), picture(1), picture(2, 64), picture(3)])
    assert sorted(engine.sizes) == [1, 1, 2]
    assert [answer.shape for answer in answers] == [(32, 32), (32, 32), (64, 32), (32, 32)]


def test_a_batch_that_needs_too_much_memory_is_halved_once():
    def fail(batch):
        if len(batch) > 2:
            raise MemoryError

    engine = Engine(fail)
    answers = ask(Batcher(engine), [picture(n) for n in range(5)])
    assert engine.sizes == [1, 4, 2, 2]
    assert [float(answer[0, 0]) for answer in answers] == [0, 1, 2, 3, 4]


def test_an_error_reaches_all_of_its_pass_and_nobody_else():
    def fail(batch):
        if batch[0, 0, 0, 0] == 1:
            raise ValueError("no")

    engine = Engine(fail)
    answers = ask(Batcher(engine), [picture(0), picture(1), picture(1)])
    assert answers[0].shape == (32, 32)
    assert all(isinstance(answer, ValueError) for answer in answers[1:])


def test_no_pass_exceeds_the_pixels_allowed():
    sizes = []
    batcher = Batcher(lambda batch: sizes.append(len(batch)) or batch[:, 0])
    batcher.all([picture(0, 384, 1024)] * 5)
    assert sizes == [2, 2, 1]


def test_an_error_is_raised_to_who_asked_for_several():
    with pytest.raises(ValueError, match="no"):
        Batcher(lambda batch: (_ for _ in ()).throw(ValueError("no"))).all([picture(0)])
