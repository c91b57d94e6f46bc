"""Pages of a cached file are mapped before anybody needs them; those of one on the disk are not fetched."""

import sys
from pathlib import Path

import numpy as np
import pytest

from cache.formats import prefault

SIZE = 2 * prefault.LEAST

linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells which pages are mapped")


@pytest.fixture
def written(tmp_path):
    """A file in the page cache, as each that was just written. Skips where the system does not tell."""
    path = tmp_path / "weights"
    path.write_bytes(bytes(SIZE))
    with path.open("rb") as file:
        if not prefault.lies_in_memory(file, SIZE):
            pytest.skip("this kernel does not tell what lies in its page cache")
        yield file


def mapped_bytes(content: np.ndarray) -> int:
    """How much of the mapping that begins there has page table entries."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.startswith(f"{content.ctypes.data:x}-"):
            return next(int(fact.split()[1]) for fact in lines if fact.startswith("Rss:")) * 1024
    raise LookupError


def opened(file) -> np.ndarray:
    return np.memmap(file, np.uint8, mode="c").view(np.ndarray)


@linux
def test_pages_in_memory_are_mapped_before_they_are_needed(written):
    content = opened(written)
    prefault.prefault(written, content).join()
    assert mapped_bytes(content) == SIZE


@linux
def test_without_it_they_are_not(written):
    assert mapped_bytes(opened(written)) < SIZE // 2


@linux
def test_pages_that_are_not_in_memory_are_left_alone(tmp_path):
    with (tmp_path / "weights").open("w+b") as file:
        file.truncate(SIZE)  # a hole, of which no page was ever in memory
        content = opened(file)
        assert prefault.prefault(file, content) is None
        assert mapped_bytes(content) == 0


def test_a_small_file_is_not_worth_a_thread(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(bytes(4096))
    with path.open("rb") as file:
        assert prefault.prefault(file, opened(file)) is None


def test_other_systems_do_without(written, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert prefault.prefault(written, opened(written)) is None
