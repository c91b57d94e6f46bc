"""A network on a CUDA device as recorded graphs. What is recorded and when is shown without one."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from depth import graphs
from depth.engines import Eager
from depth.graphs import LIMIT, Graphs, Recorded
from scripts import learning

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")


def batch(side: int = 2) -> torch.Tensor:
    return torch.zeros(1, 3, side, side)


def network(x: torch.Tensor) -> torch.Tensor:
    return x.sum(1)


@pytest.fixture
def recorded(monkeypatch):
    """The sizes that were recorded, by something that needs no device."""
    sizes = []

    class Written(Recorded):
        def __init__(self, run, example, memory):
            sizes.append(example.shape[-1])
            self.run, self.memory = run, memory or (0, len(sizes))

        def __call__(self, x):
            return self.run(x)

    monkeypatch.setattr(graphs, "Recorded", Written)
    return sizes


def test_a_size_is_recorded_when_it_comes_again(recorded):
    run = Graphs(network)
    run(batch())
    assert recorded == []
    run(batch())
    assert recorded == [2]


def test_another_size_is_not_recorded_with_it(recorded):
    run = Graphs(network)
    for side in (2, 3, 2):
        assert run(batch(side)).shape == (1, side, side)
    assert recorded == [2]


def test_the_size_used_longest_ago_is_let_go(recorded):
    run = Graphs(network)
    for side in (2, 2, *range(3, 3 + LIMIT), 2):
        run(batch(side))
    assert recorded == [2]
    run(batch())
    assert recorded == [2, 2]


def test_all_sizes_compute_in_the_memory_of_the_first(recorded):
    run = Graphs(network)
    for side in (2, 2, 3, 3, 4, 4):
        run(batch(side))
    assert [one.memory for one in run._sizes.values()] == [(0, 1)] * 3


def test_what_cannot_be_recorded_runs_as_it_is(monkeypatch, caplog):
    def refuse(self, run, example, memory):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(Recorded, "__init__", refuse)
    run = Graphs(network)
    for _ in range(4):
        assert run(batch()).shape == (1, 2, 2)
    assert len(caplog.records) == 1 and "1×3×2×2" in caplog.text


def test_graphs_give_their_memory_back_when_it_runs_out(recorded):
    def hungry(x):
        if len(x) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return network(x)

    run = Graphs(hungry)
    run(batch())
    run(batch())
    with pytest.raises(RuntimeError, match="out of memory"):
        run(batch().expand(2, 3, 2, 2))
    run(batch())
    assert recorded == [2]  # it begins anew, and is recorded when it comes again
    run(batch())
    assert recorded == [2, 2]
    assert [one.memory for one in run._sizes.values()] == [(0, 2)]  # not what was given back


def test_two_networks_are_not_recorded_at_once(monkeypatch):
    now, most = [], []

    class Slow(Recorded):
        def __init__(self, run, example, memory):
            now.append(run)
            time.sleep(0.1)
            most.append(len(now))
            now.remove(run)

        def __call__(self, x):
            return x

    monkeypatch.setattr(graphs, "Recorded", Slow)
    with ThreadPoolExecutor(2) as pool:
        for run in (Graphs(lambda x: x), Graphs(lambda x: -x)):
            pool.submit(lambda run=run: [run(batch()) for _ in range(2)])
    assert most == [1, 1]


def tiny(device: str = "cuda", dtype: str = "float32") -> Eager:
    return Eager(learning.load(learning.WEIGHTS), device, dtype)


def picture(seed: int, count: int = 1, height: int = 192) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3, height, 256)).astype(np.float32)


@on_gpu
def test_the_recorded_network_equals_the_one_that_was_not():
    engine = tiny()
    first = engine(picture(0))
    engine(picture(1))
    assert isinstance(next(iter(engine._run._sizes.values())), Recorded)
    np.testing.assert_allclose(engine(picture(0)), first, atol=1e-5 * np.ptp(first))


@on_gpu
def test_a_result_stays_when_the_next_one_comes():
    engine = tiny()
    results = [engine(picture(seed)) for seed in (0, 0, 1, 2)]
    assert np.abs(results[1] - results[0]).max() < 1e-5 * np.ptp(results[0])
    assert np.abs(results[2] - results[3]).max() > 1e-3 * np.ptp(results[0])


@on_gpu
def test_the_device_gives_what_the_processor_gives():
    wanted = tiny("cpu")(picture(0, 2))
    engine = tiny()
    for _ in range(3):
        got = engine(picture(0, 2))
    assert np.abs(got - wanted).max() < 2e-3 * np.ptp(wanted)  # TF32 in convolutions


@on_gpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_comes_close(dtype):
    wanted = tiny("cpu")(picture(0))
    engine = tiny(dtype=dtype)
    for _ in range(3):
        got = engine(picture(0))
    assert np.abs(got - wanted).mean() < 0.02 * np.ptp(wanted)


@on_gpu
def test_threads_of_different_sizes_get_their_own_results():
    engine = tiny()
    heights = (64, 128, 192, 256, 320, 384) * 8
    wanted = {height: tiny("cpu")(picture(height, height=height)) for height in set(heights)}
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(lambda height: engine(picture(height, height=height)), heights))
    for height, one in zip(heights, got, strict=True):
        assert np.abs(one - wanted[height]).max() < 2e-3 * np.ptp(wanted[height])
