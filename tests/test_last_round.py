"""The last round of training Tiny, as it runs without a GPU: its scenes, its pictures, its steps."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

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
    assert kinds[14:] == ["closeup"] + ["nearby"] * 5
    seeds = [scene_ring.seed_of(0, n) for n in range(20)]
    assert len(set(seeds)) == 20 and all(map(scenes.is_used, seeds))


def test_no_scene_of_the_last_round_was_trained_on_before_or_is_held_out():
    last = scene_ring.OF_A_SEED - 20
    for n in range(20):
        first = scene_ring.seed_of(0, n) - scene_ring.KINDS[n]
        assert first >= scene_pool.SCENES
        assert scene_ring.seed_of(0, last + n) - scene_ring.KINDS[(last + n) % 20] < last_round.APART
    assert scene_ring.seed_of((last_round.SEEDS - 1) * last_round.APART, 19) < scene_pool.HELD_OUT


def test_when_all_scenes_of_a_seed_were_rendered_they_come_again():
    assert scene_ring.seed_of(7, scene_ring.OF_A_SEED + 3) == scene_ring.seed_of(7, 3)


# ---- a GPU that draws ------------------------------------------------------------------------------------------------


def wall(drawn: Sequence[scenes.Rows], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws nothing but a grey wall one metre away."""
    count = len(drawn)
    return np.full((count, height, width, 3), 0.5, np.float32), np.ones((count, height, width), np.float32)


def fails(*_) -> None:
    raise RuntimeError("out of memory")


@contextmanager
def serving(ring: Ring, draw: Callable) -> Iterator[None]:
    """The ring's workers are served by this one meanwhile."""
    over = threading.Event()
    with ThreadPoolExecutor(1) as hand:
        served = hand.submit(ring.serve, draw, threading.Lock(), over)
        while not (ring.serves[0] or served.done()):
            time.sleep(0.01)
        yield
        over.set()
        if draw is not fails:
            served.result()


@pytest.fixture
def pretend(monkeypatch) -> Callable[[Callable], None]:
    """There is a GPU, which draws by this."""
    def gpu(draw: Callable) -> None:
        device = SimpleNamespace(draw=draw)
        monkeypatch.setitem(sys.modules, "scripts.scenes.device", device)
        monkeypatch.setattr(scenes, "device", device, raising=False)
    return gpu


def drawn_there(ring: Ring, n: int = 0) -> bool:
    """Whether the GPU draws scene n."""
    ring.put(0, n)
    return bool((ring.inverse[n % ring.places] == 1).all())


def test_a_scene_comes_back_from_its_row_of_numbers():
    rows = scenes.rows(scenes.compose(5)[0], 256, 256)
    again = scene_ring.unpacked(np.append(scene_ring.packed(rows), np.ones(9)))
    for got, wanted in zip(again, rows, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_a_gpu_draws_as_long_as_it_serves(ring):
    with serving(ring, wall):
        assert drawn_there(ring)
    assert not drawn_there(ring, 1)


def test_a_gpu_draws_for_several_workers_at_once(tmp_path):
    ring, together = Ring(tmp_path, 3, 3, "w+"), []
    with ThreadPoolExecutor(3) as workers, serving(ring, lambda *a: together.append(len(a[0])) or wall(*a)):
        assert all(workers.map(drawn_there, [ring] * 3, range(3)))
    assert sum(together) == 3 and len(together) < 3


def test_a_scene_of_too_many_numbers_is_drawn_by_the_processor(ring, monkeypatch):
    monkeypatch.setattr(scene_ring, "LONGEST", 10)
    with serving(ring, wall):
        assert not drawn_there(ring)


def test_where_a_gpu_fails_the_processors_draw(ring):
    with serving(ring, fails):
        assert not drawn_there(ring)
    assert ring.serves[0] == 0


def test_a_gpu_that_draws_as_the_processor_does_is_proven():
    def draw(rows, height, width):
        tried = [scenes.compose(seed)[0] for seed in (0, 1, 2, scenes.CLOSE, scenes.NEARBY)]
        for got, wanted in zip(rows, tried, strict=True):
            np.testing.assert_array_equal(got.shapes, scenes.rows(wanted, height, width).shapes)
        return map(np.stack, zip(*(scenes.draw(s, height, width) for s in tried), strict=True))

    scene_ring.prove(draw, 24)


def test_a_gpu_that_draws_otherwise_is_not_proven():
    with pytest.raises(ValueError, match="100% of the numbers of a scene differ"):
        scene_ring.prove(lambda *a: [np.full_like(part, 1e3) for part in wall(*a)], 24)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_without_a_gpu_nothing_is_proven(ring):
    with pytest.raises(SystemExit, match="Scenes are drawn by the processors alone"):
        scene_ring._try_gpu(ring.folder, ring.places, ring.workers)
    assert ring.proven[0] == 0


@pytest.mark.slow
def test_a_gpu_draws_what_the_processor_draws():
    """In numba's simulator, pixel after pixel, several scenes and one."""
    code = """if True:
        import numpy as np
        from scripts import scenes
        from scripts.scenes import device
        made = [scenes.compose(seed)[0] for seed in (3, 4, 5, scenes.CLOSE, scenes.NEARBY)]
        for together in (made, made[:1]):
            found = device.draw([scenes.rows(s, 9, 14) for s in together], 9, 14)
            for s, *got in zip(together, *found, strict=True):
                for mine, wanted in zip(got, scenes.draw(s, 9, 14)):
                    np.testing.assert_array_equal(mine, wanted)
    """
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=ROOT)


# ---- pictures --------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(monkeypatch):
    """Two scenes: a grey ramp to the right that is as near as it is bright, and a black one that is all sky."""
    monkeypatch.setattr(last_round, "BATCH", 32)
    store = object.__new__(Store)
    store.device, store.count, store.capacity = torch.device("cpu"), 2, 2
    store.oldest, store.newest = (torch.tensor(value, dtype=torch.float64) for value in (0.0, 2.0))
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
    store.newest.fill_(1)
    assert store.draw(SMALL).inverse.amax((1, 2)).min() > 0.5


def test_of_the_scenes_that_are_here_the_latest_are_drawn(store):
    store.oldest.fill_(2)
    store.newest.fill_(3)  # at the place of the first
    assert store.draw(SMALL).inverse.amax((1, 2)).min() > 0.5


@pytest.fixture
def taking(ring, store, monkeypatch) -> Store:
    """A store with room for six scenes that takes two at once."""
    monkeypatch.setattr(last_round, "PLACES", 2)
    monkeypatch.setattr(last_round, "PART", 2)
    ring.taken, store.ring = np.zeros(1, np.int64), ring
    store.count, store.capacity, store.side = 0, 6, None
    store.newest.fill_(0)
    store.over, store.alone = threading.Event(), threading.Lock()
    store.rgb, store.inverse = torch.zeros(6, 256, 256, 3, dtype=torch.uint8), torch.zeros(6, 256, 256)
    store.hands = ThreadPoolExecutor(1)
    yield store
    store.over.set()
    store.hands.shutdown()


def test_scenes_are_taken_in_their_order(taking, ring):
    taking._take()
    taking._take()
    assert taking.count == ring.taken[0] == 4
    for scene in range(4):
        np.testing.assert_array_equal(taking.rgb[scene], ring.rgb[scene % 2])


def test_new_scenes_take_the_places_of_the_oldest(taking, ring):
    for _ in range(3):
        taking._take()
    ring.rgb[:] = 77
    taking._take()
    assert (taking.rgb[:2] == 77).all() and not (taking.rgb[2:] == 77).all()


@pytest.mark.parametrize(("parts", "drawn"), [(1, (0, 2)), (2, (0, 4)), (3, (2, 6)), (4, (4, 8))])
def test_scenes_whose_places_are_next_are_not_drawn_from_any_more(taking, parts, drawn):
    for _ in range(parts):
        taking._take()
    assert (int(taking.oldest), int(taking.newest)) == drawn


def test_only_whole_parts_are_taken(taking, ring):
    ring.ready = lambda: 3
    taking.taker = taking.hands.submit(taking._take_all)
    taking.wait(2)
    assert taking.count == 2


def test_who_waits_for_scenes_hears_why_none_come(taking, ring):
    ring.ready = lambda: 1 / 0
    taking.taker = taking.hands.submit(taking._take_all)
    with pytest.raises(ZeroDivisionError):
        taking.wait(2)


def test_a_gpu_serves_once_it_was_proven(taking, ring, pretend):
    pretend(wall)
    serves = taking.hands.submit(taking._serve)
    assert not drawn_there(ring)
    ring.proven[0] = 1
    while not ring.serves[0]:
        assert not serves.done()
    assert drawn_there(ring)


def test_a_gpu_that_fails_is_spoken_of(taking, ring, pretend, capsys):
    pretend(fails)
    ring.proven[0], ring.stage[0] = 1, scene_ring.ASKED
    row = scene_ring.packed(scenes.rows(scenes.compose(5)[0], 256, 256))
    ring.asked[0, : len(row)] = row
    taking._serve()
    assert "processors alone from now on: out of memory" in capsys.readouterr().out


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


@pytest.mark.slow
def test_the_compiler_sees_the_loss_as_one_whole(trainer):
    """From another thread, too, as it works beside the steps: it is not compiled once more for this one."""
    compiled = torch.compile(trainer._error, dynamic=False, fullgraph=True, backend="aot_eager")
    trainer.network = last_round.compilable(trainer.network)
    trainer._compiled = compiled
    with ThreadPoolExecutor(1) as hand:
        there, _ = hand.submit(trainer._gradients, *scene()).result()
    with torch.compiler.set_stance("fail_on_recompile"):
        here, _ = trainer._gradients(*scene())
    assert here.item() == pytest.approx(there.item(), rel=1e-5)


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
                     "--scenes", "12", "--device", "cpu"])
    network = learning.load(file)
    with torch.inference_mode():
        values = network(scene()[0])
    assert values.isfinite().all() and values.max() > values.min()
    assert not list((tmp_path / "ring").iterdir())
