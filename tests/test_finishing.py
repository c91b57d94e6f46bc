"""The finishing round of training Tiny: its scenes, its steps, its loss."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import torch

from scripts import depth_measures, finishing, large_round, learning, scene_pool, scenes


@pytest.fixture
def few(monkeypatch):
    """Two scenes of all kinds, two close views and two nearby ones, in pictures of one small size."""
    for module, name, value in ((scene_pool, "SCENES", 4), (scene_pool, "MIXED", 2), (finishing, "NEARBY", 2),
                                (finishing, "BATCH", 2), (finishing, "SHAPES", (large_round.Shape(96, 128, 1.0),))):
        monkeypatch.setattr(module, name, value)


def asked(folder, *more: str) -> argparse.Namespace:
    return finishing.parser().parse_args(
        ["--work", str(folder), "--weights", str(folder / "new.safetensors"), "--processes", "1", *more])


# ---- scenes ----------------------------------------------------------------------------------------------------------


def test_each_part_has_scenes_of_its_own_kind(tmp_path, few):
    options = asked(tmp_path)
    kinds = [{scenes.compose(scene_pool.seed_of(pool.first, n))[1] for n in pool.used}
             for pool in finishing.parts(options)]
    assert kinds[0].isdisjoint({"closeup", "nearby"})
    assert kinds[1:] == [{"closeup"}, {"nearby"}]


@pytest.mark.parametrize("seed", [0, large_round.SEEDS - 1])
def test_nearby_views_are_never_held_out(tmp_path, few, seed):
    pool = finishing.nearby(asked(tmp_path, "--seed", str(seed)))
    assert scenes.NEARBY <= pool.first < scene_pool.HELD_OUT - large_round.APART / 2


def test_pictures_come_from_the_parts_by_their_shares(monkeypatch):
    counts = np.zeros(3, int)

    def draw(part, rng, ready, size, shape):
        counts[part.number] += size
        return scene_pool.Batch(torch.zeros(size, 3, *shape), torch.zeros(size, *shape))

    monkeypatch.setattr(scene_pool, "draw", draw)
    parts = [argparse.Namespace(number=number, count=1) for number in range(3)]
    for step in range(100):
        assert len(finishing.drawn(parts, np.random.default_rng(step), 16, (32, 32)).inverse) == 16
    np.testing.assert_allclose(counts / counts.sum(), finishing.SHARES, atol=0.03)


# ---- steps -----------------------------------------------------------------------------------------------------------


def test_learning_rate_rises_to_its_highest_and_falls_to_nothing():
    rates = [finishing.rate(step, finishing.STEPS) for step in range(finishing.STEPS)]
    assert max(rates) == finishing.RATE
    assert rates[0] < 0.1 * finishing.RATE and rates[-1] < 1e-3 * finishing.RATE


def test_a_step_moves_the_weights_and_leaves_the_statistics():
    network = finishing.started(learning.WEIGHTS)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    batch = scene_pool.Batch(torch.randn(2, 3, 64, 64), torch.rand(2, 64, 64))
    finishing.move(network, batch, [torch.optim.SGD(network.parameters(), 1e-3)], processes=1)
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and not any("running" in key or "batches" in key for key in changed)


@pytest.mark.slow
def test_a_short_finishing_round_writes_weights_that_see(tmp_path, few):
    threads = torch.get_num_threads()
    finishing.main(["--work", str(tmp_path), "--weights", str(tmp_path / "new.safetensors"), "--processes", "1",
                    "--workers", "1", "--steps", "3"])
    torch.set_num_threads(threads)
    with torch.inference_mode():
        values = learning.load(tmp_path / "new.safetensors")(torch.randn(1, 3, 64, 64))
    assert values.isfinite().all() and values.max() > values.min()


# ---- the loss --------------------------------------------------------------------------------------------------------


def test_outlier_loss_is_nearly_the_share_of_pixels_beyond_the_factor():
    inverse = torch.from_numpy(1 / np.random.default_rng(0).uniform(1, 10, (1, 24, 32)).astype(np.float32))
    assert float(depth_measures.outlier_loss(0.2 + 5 * inverse, inverse)) < 0.07  # all are right
    wrong = inverse.clone()
    wrong[:, ::2] = 0.5
    assert 0.3 < float(depth_measures.outlier_loss(wrong, inverse)) < 0.9
