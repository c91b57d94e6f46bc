"""A network's buffers stay while it computes and go back to the system afterwards."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from depth import buffers

SOON = 0.05  # seconds


class Libc:
    """Says when memory is given back."""

    def __init__(self):
        self.trims, self.trimmed = 0, threading.Event()

    def malloc_trim(self, _pad):
        self.trims += 1
        self.trimmed.set()


@pytest.fixture
def libc(monkeypatch):
    libc = Libc()
    monkeypatch.setattr(buffers, "_tuned_libc", lambda: libc)
    monkeypatch.setattr(buffers, "_passes", buffers._Passes())
    monkeypatch.setattr(buffers, "IDLE", SOON)
    return libc


@pytest.fixture
def untuned():
    buffers._tuned_libc.cache_clear()
    yield
    buffers._tuned_libc.cache_clear()


@pytest.mark.parametrize(("name", "value"), [
    ("MALLOC_ARENA_MAX", "2"), ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0")])
def test_memory_that_somebody_has_tuned_is_left_alone(untuned, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert buffers._tuned_libc() is None
    with buffers.buffers_kept():
        pass


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps its memory its own way")
def test_memory_of_a_pass_is_kept_and_given_back_when_none_follows():
    code = ("from depth import buffers; import time; import torch; page = 4096; statm = '/proc/self/statm'\n"
            "resident = lambda: int(open(statm).read().split()[1]) * page >> 20\n"
            "before = resident()\n"
            "with buffers.buffers_kept():\n"
            "    blocks = [torch.ones(10 << 18) for _ in range(20)]; blocks.clear()\n"
            "kept, deadline = resident(), time.monotonic() + 30\n"
            "while resident() - before > 30 and time.monotonic() < deadline: time.sleep(0.05)\n"
            "print(kept - before, resident() - before)")
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
                            cwd=Path(__file__).parents[1], env={key: value for key, value in os.environ.items()
                                                                if "MALLOC" not in key and key != "GLIBC_TUNABLES"})
    kept, left = map(int, answer.stdout.split())
    assert kept > 150 and left <= 30, answer


def test_an_error_in_a_pass_ends_it(libc):
    with pytest.raises(ValueError, match="no"), buffers.buffers_kept():
        raise ValueError("no")
    assert libc.trimmed.wait(10)


def test_nothing_is_given_back_while_another_pass_runs(libc):
    with buffers.buffers_kept():
        with buffers.buffers_kept():
            pass
        assert not libc.trimmed.wait(4 * SOON)
    assert libc.trimmed.wait(10)


def test_passes_that_follow_each_other_give_back_once(libc, monkeypatch):
    monkeypatch.setattr(buffers, "IDLE", 10 * SOON)
    for _ in range(20):
        with buffers.buffers_kept():
            pass
    assert libc.trimmed.wait(10)
    libc.trimmed.clear()
    assert not libc.trimmed.wait(20 * SOON)
    assert libc.trims == 1


def test_a_process_does_not_wait_for_its_buffers():
    code = ("import threading\nfrom depth import buffers\nbuffers.IDLE = 600\nwith buffers.buffers_kept():\n    pass\n"
            "print(buffers._tuned_libc() is None or any(t.daemon for t in threading.enumerate()))")
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                            cwd=Path(__file__).parents[1])
    assert answer.stdout.strip() == "True", answer
