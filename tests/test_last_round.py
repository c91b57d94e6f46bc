"""The last round of training Tiny, as it runs without a GPU: its scenes, its pictures, its steps."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts import last_round, learning, scene_pool, scene_ring, scenes
from scripts.last_round import Muon, Shape, Store, Trainer
from scripts.scene_ring import Ring

SMALL = Shape(96, 128, 1.0)
ROOT = Path(__file__).parents[1]


# ---- the ring --------------------------------------------------------------------------------------------------------


@pytest.fixture
def ring(tmp_path):
    ring = Ring(tmp_path, 2, 1, "w+")
    for n in range(3):
        ring.put(0, n)
    return ring


def test_a_scene_lies_in_the_ring_as_it_was_rendered(ring):
    picture = scenes.render(scene_ring.seed_of(0, 1), scene_pool.SIDE, scene_pool.SIDE)
    np.testing.assert_array_equal(ring.rgb[1], picture.rgb)
    np.testing.assert_allclose(ring.inverse[1], scene_pool.inverse_depth(picture.depth), rtol=1e-3)


def test_a_place_is_used_again(ring):
    picture = scenes.render(scene_ring.seed_of(0, 2), scene_pool.SIDE, scene_pool.SIDE)
    np.testing.assert_array_equal(ring.rgb[0], picture.rgb)


def test_scenes_are_ready_up_to_the_first_gap(tmp_path):
    ring = Ring(tmp_path, 8, 3, "w+")
    ring.done[:] = 2, 1, 2  # scenes 0 and 3, 1, 2 and 5
    assert ring.ready() == 4


def test_workers_go_on_once_places_are_free_and_end_with_their_parent(tmp_path, monkeypatch):
    ring, calls = Ring(tmp_path, 1, 1, "w+"), []
    monkeypatch.setattr(scene_ring.time, "sleep", lambda seconds: calls.append("waits") or ring.taken.fill(1))
    monkeypatch.setattr(Ring, "put", lambda self, first, n: calls.append(n))
    monkeypatch.setattr(scene_ring.os, "getppid", lambda: os.getpid() if len(calls) < 3 else 1)
    scene_ring._fill(ring, 0, 0, os.getpid())
    assert calls == [0, "waits", 1]


def test_kinds_come_in_turn_and_thinned_out_ones_leave_no_gap():
    kinds = [scenes.compose(scene_ring.seed_of(0, n))[1] for n in range(20)]
    assert kinds[13:] == ["closeup"] * 2 + ["nearby"] * 5
    seeds = [scene_ring.seed_of(0, n) for n in range(20)]
    assert len(set(seeds)) == 20 and all(map(scenes.is_used, seeds))


def test_no_scene_of_the_last_round_was_trained_on_before_or_is_held_out():
    last = last_round.AT_ONCE + last_round.MORE * max(last_round.ROUNDS)
    for n in range(20):
        first = scene_ring.seed_of(0, n) - scene_ring.KINDS[n]
        assert first >= scene_pool.SCENES
        assert scene_ring.seed_of(0, last + n) - scene_ring.KINDS[(last + n) % 20] < last_round.APART
    assert scene_ring.seed_of((last_round.SEEDS - 1) * last_round.APART, 19) < scene_pool.HELD_OUT


class Gpu:
    """Draws nothing but a grey wall one metre away."""

    def __init__(self):
        self.closed, self.full = 0, False

    def draw(self, scene, height, width):
        if self.full:
            raise RuntimeError("out of memory")
        return np.full((height, width, 3), 0.5, np.float32), np.ones((height, width), np.float32)

    def close(self):
        self.closed += 1


@pytest.fixture
def gpu(ring, monkeypatch) -> Gpu:
    """Lent to the ring, and proven."""
    gpu = Gpu()
    monkeypatch.setitem(sys.modules, "scripts.scenes.device", gpu)
    monkeypatch.setattr(scenes, "device", gpu, raising=False)
    ring.lent[0] = ring.proven[0] = 1
    return gpu


def drawn_there(ring: Ring, n: int = 0) -> bool:
    """Whether the GPU draws scene n."""
    ring.put(0, n)
    return bool((ring.inverse[n % ring.places] == 1).all())


def test_a_lent_gpu_draws_until_it_is_needed(ring, gpu):
    assert drawn_there(ring)
    ring.lent[0] = 0
    assert not drawn_there(ring, 1) and not drawn_there(ring, 2) and gpu.closed == 1


def test_a_gpu_that_was_not_proven_does_not_draw(ring, gpu):
    ring.proven[0] = 0
    assert not drawn_there(ring)


def test_a_gpu_draws_for_so_many_workers(ring, gpu):
    ring.workers, ring.done = 2, np.zeros(2, np.int64)
    assert drawn_there(ring, 0) and not drawn_there(ring, 1)


def test_where_a_gpu_fails_the_processors_draw(ring, gpu, capsys):
    gpu.full = True
    assert not drawn_there(ring) and "out of memory" in capsys.readouterr().out
    gpu.full = False
    assert not drawn_there(ring)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_without_a_gpu_nothing_is_proven(ring):
    with pytest.raises(SystemExit, match="Scenes are drawn by the processors alone"):
        scene_ring._try_gpu(ring.folder, ring.places, ring.workers)
    assert ring.proven[0] == 0


@pytest.mark.slow
def test_a_gpu_draws_what_the_processor_draws():
    """In numba's simulator, pixel after pixel."""
    code = """if True:
        import numpy as np
        from scripts import scenes
        from scripts.scenes import device
        for seed in (3, 4, 5, scenes.CLOSE, scenes.NEARBY):
            scene, _ = scenes.compose(seed)
            for got, wanted in zip(device.draw(scene, 9, 14), scenes.draw(scene, 9, 14)):
                np.testing.assert_array_equal(got, wanted)
    """
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=ROOT)


# ---- pictures --------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(monkeypatch):
    """Two scenes: a grey ramp to the right that is as near as it is bright, and a black one that is all sky."""
    monkeypatch.setattr(last_round, "BATCH", 32)
    store = object.__new__(Store)
    store.device, store.rng, store.count = torch.device("cpu"), np.random.default_rng(0), 2
    store.mean, store.std = scene_pool.MEAN, scene_pool.STD
    ramp = torch.arange(256, dtype=torch.uint8).expand(256, 256)
    store.rgb = torch.stack([ramp, torch.zeros_like(ramp)])[..., None].expand(2, 256, 256, 3)
    store.inverse = store.rgb[..., 0].half() / 255
    torch.manual_seed(0)
    return store


def test_pictures_and_inverse_depth_are_cut_alike(store):
    batch = store.draw(SMALL)
    assert batch.pictures.shape == (32, 3, 96, 128) and batch.inverse.shape == (32, 96, 128)
    for picture, inverse in zip(batch.pictures, batch.inverse, strict=True):
        if inverse.max() > 0:  # recolouring keeps the order of greys
            assert np.corrcoef(picture.mean(0).flatten(), inverse.flatten())[0, 1] > 0.9


def test_some_pictures_are_mirrored_and_some_are_not(store):
    slopes = [float(one[:, -1].mean() - one[:, 0].mean()) for one in store.draw(SMALL).inverse]
    assert min(slopes) < -0.3 and max(slopes) > 0.3


def test_views_lie_within_their_scene(store):
    theta = torch.cat([store._views(SMALL) for _ in range(30)])
    assert (theta.abs().sum(2) <= 1 + 1e-6).all()


def test_views_show_most_of_their_scene(store):
    theta = torch.cat([store._views(SMALL) for _ in range(30)])
    wide, high = theta[:, :, 0].norm(dim=1), theta[:, :, 1].norm(dim=1)
    assert 0.6 < wide.min() < 0.75 and 0.95 < wide.max() <= 1
    assert (high / wide).mean() == pytest.approx(96 / 128, rel=0.02)


def test_views_are_turned_a_little_and_half_of_them_mirrored(store):
    theta = torch.cat([store._views(SMALL) for _ in range(30)])
    assert torch.atan2(theta[:, 0, 1].abs(), theta[:, 1, 1]).mean() == pytest.approx(0.8 * last_round.TURN, rel=0.2)
    assert (theta[:, 0, 0] < 0).float().mean() == pytest.approx(0.5, abs=0.1)


def test_only_scenes_that_are_here_are_drawn(store):
    store.count = 1
    assert store.draw(SMALL).inverse.amax((1, 2)).min() > 0.5


@pytest.fixture
def taking(ring, store, monkeypatch) -> Store:
    """A store with room for four scenes that takes two at once."""
    monkeypatch.setattr(last_round, "PLACES", 2)
    monkeypatch.setattr(last_round, "PART", 2)
    ring.taken, store.ring = np.zeros(1, np.int64), ring
    store.count, store.capacity, store.side = 0, 4, None
    store.closed, store.taking = False, threading.Lock()
    store.rgb, store.inverse = torch.zeros(4, 256, 256, 3, dtype=torch.uint8), torch.zeros(4, 256, 256)
    store.hand = ThreadPoolExecutor(1)
    yield store
    store.closed = True
    store.hand.shutdown()


def test_scenes_are_taken_as_far_as_there_is_room(taking, ring):
    ring.ready = lambda: 9
    taking._take_all()
    assert taking.count == ring.taken[0] == 4
    for scene in range(4):
        np.testing.assert_array_equal(taking.rgb[scene], ring.rgb[scene % 2])


def test_only_whole_parts_are_taken(taking, ring):
    ring.ready = lambda: 3
    taking.taker = taking.hand.submit(taking._take_all)
    taking.wait(2)
    assert taking.count == 2


def test_who_waits_for_scenes_hears_why_none_come(taking, ring):
    ring.ready = lambda: 1 / 0
    taking.taker = taking.hand.submit(taking._take_all)
    with pytest.raises(ZeroDivisionError):
        taking.wait(2)


def test_who_waits_for_more_scenes_than_there_is_room_for_goes_on(taking, ring):
    ring.ready = lambda: 9
    taking.taker = taking.hand.submit(taking._take_all)
    taking.wait(5)
    assert taking.count == 4


def test_recoloured_pictures_differ_in_colour_and_stay_within_range(store):
    grey = torch.full((64, 3, 4, 4), 0.5)
    changed = last_round.recoloured(grey)
    assert changed.min() >= 0 and changed.max() <= 1
    assert (changed[:, 0] - changed[:, 2]).abs().mean() > 0.02


# ---- steps -----------------------------------------------------------------------------------------------------------


def banks() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(memory_format=torch.channels_last))
            for shape in ((16, 8, 3, 3), (64, 32, 1, 1), (16, 8, 3, 3))]


def by_torch(filters: list[torch.nn.Parameter], rate: float) -> torch.optim.Muon:
    """torch's own Muon, on the same memory; a gradient that is set later is seen as well."""
    matrices = [torch.nn.Parameter(learning.as_matrix(bank.detach())) for bank in filters]
    for bank, matrix in zip(filters, matrices, strict=True):
        bank.grad = torch.zeros_like(bank)
        matrix.grad = learning.as_matrix(bank.grad)
    return torch.optim.Muon(matrices, lr=rate, weight_decay=learning.DECAY, adjust_lr_fn="match_rms_adamw")


@pytest.mark.parametrize("ours", ["for graphs", "plain"])
def test_muon_moves_as_torch_s_own(ours, monkeypatch):
    monkeypatch.setattr(learning, "short", lambda _: torch.bfloat16)  # torch's computes in it everywhere
    one, two, rate = banks(), banks(), 1.5e-2
    theirs = by_torch(one, rate)
    mine = Muon(two, torch.tensor(rate)) if ours == "for graphs" else learning.FilterMuon(two)
    if ours == "plain":
        mine.param_groups[0]["lr"] = rate
    for _ in range(3):
        for a, b in zip(one, two, strict=True):
            a.grad.normal_()
            b.grad = a.grad.clone(memory_format=torch.preserve_format)
        theirs.step()
        mine.step()
    for a, b, first in zip(one, two, banks(), strict=True):
        assert (a - first).abs().max() > 0
        assert (a - b).abs().max() < 1e-3 * (a - first).abs().max()


def test_muon_without_short_numbers_turns_nearly_alike(monkeypatch):
    matrices = torch.randn(3, 16, 40, generator=torch.Generator().manual_seed(0))
    turned = {}
    for dtype in (torch.bfloat16, torch.float32):
        monkeypatch.setattr(learning, "short", lambda _, dtype=dtype: dtype)
        turned[dtype] = learning.orthogonal(matrices)
    short, whole = turned.values()
    assert (short - whole).norm() < 0.03 * whole.norm()


def test_learning_rate_rises_stays_and_falls_to_nothing():
    rates = [last_round.rate(share) for share in (0, last_round.RISE, 1 - last_round.FALL, 1)]
    assert rates == pytest.approx([0, last_round.RATE, last_round.RATE, 0])


@pytest.fixture
def trainer():
    options = argparse.Namespace(device=torch.device("cpu"), start=learning.WEIGHTS, seed=1)
    return Trainer(options)


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    """Four pictures of a ramp, and inverse depth that goes the other way."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0, 1, 64).expand(4, 64, 64)
    pictures = (ramp[:, None] + 0.1 * torch.rand(4, 3, 64, 64, generator=generator) - 0.5) * 4
    return pictures, 1.2 - ramp


def test_steps_lower_the_loss_on_one_batch(trainer):
    trainer.rate.fill_(1e-3)
    losses = []
    for _ in range(10):
        trainer._move(*scene())
        trainer.unsaid = 1
        losses.append(trainer.loss())
    assert losses[-1] < 0.7 * losses[0]


def test_a_step_without_a_rate_moves_no_weight(trainer):
    trainer._move(*scene())
    assert all(torch.equal(p, trainer.weights[name]) for name, p in trainer.network.named_parameters())


def test_the_mean_follows_by_a_thousandth(trainer):
    trainer.rate.fill_(0.1)
    trainer._move(*scene())
    for (name, fast), slow in zip(trainer.network.named_parameters(), trainer.mean.parameters(), strict=True):
        moved = fast - trainer.weights[name]
        assert torch.allclose(slow - trainer.weights[name], moved / 1000, rtol=0.02, atol=1e-6)


def test_half_precision_of_the_steps_comes_close_to_single(monkeypatch, request):
    monkeypatch.setattr(learning, "short", lambda _: torch.bfloat16)  # also where this processor is slow at it
    trainer = request.getfixturevalue("trainer")
    assert {half.dtype for half in trainer.halves.values()} == {torch.bfloat16}
    rgb = torch.from_numpy(np.stack([scenes.render(seed, 128, 128).rgb for seed in range(4)]))
    pictures = (rgb.permute(0, 3, 1, 2) / 255 - scene_pool.MEAN) / scene_pool.STD
    with torch.no_grad():
        got, wanted = trainer._predicted(pictures).float(), trainer.network(pictures)
    assert (got - wanted).abs().mean() < 0.01 * (wanted.max() - wanted.min())


def test_seeds_whose_scenes_are_held_out_are_refused(capsys):
    with pytest.raises(SystemExit):
        last_round.main(["--weights", "out.safetensors", "--seed", str(last_round.SEEDS)])
    assert f"0 to {last_round.SEEDS - 1}" in capsys.readouterr().err


@pytest.mark.slow
def test_a_short_round_writes_weights_that_see(tmp_path, monkeypatch):
    for name, value in {"BATCH": 2, "AT_ONCE": 8, "PART": 4, "PLACES": 16}.items():
        monkeypatch.setattr(last_round, name, value)
    monkeypatch.setattr(last_round, "SHAPES", (SMALL,))
    file = tmp_path / "last.safetensors"
    last_round.main(["--weights", str(file), "--steps", "3", "--workers", "2", "--ring", str(tmp_path / "ring"),
                     "--device", "cpu"])
    network = learning.load(file)
    with torch.inference_mode():
        values = network(scene()[0])
    assert values.isfinite().all() and values.max() > values.min()
    assert not list((tmp_path / "ring").iterdir())
