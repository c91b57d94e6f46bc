"""The last rounds of training the bundled model, with pictures by the hundred: for a GPU.

    python scripts/last_round.py --start seventh.safetensors --weights eighth.safetensors --seed 3

`train_tiny.py` ends with three of them. Processes render scenes while the device trains on those it was given before,
full size from the first step to the last. Views, colours, the passes and both optimizers run on the device; there the
network and the loss are compiled for each picture size (which takes Triton, a C compiler and a minute or two, in which
the device draws scenes), and a whole step is a CUDA graph. The learning rate rises, stays and falls to nothing with the
share of the steps. It runs without a GPU as well, for days.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from any folder

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from depth.tuning import simplified
from scripts import learning, scene_pool, scenes
from scripts.compilable import compilable
from scripts.scene_pool import SIDE
from scripts.scene_ring import Ring

ROUNDS, BATCH = (12_000, 24_000, 26_000), 128  # steps of the rounds, each with the next seed; pictures in a step
RATE, RISE, FALL = 2e-3, 0.02, 0.7  # the highest rate; the shares of the steps in which it rises and falls
AT_ONCE, MORE = 4_500, 3  # scenes to begin with; room for so many more with each step
INERTIA = 0.999  # of the running mean
TURN, STRETCH, ZOOM = 0.06, 0.05, 0.7  # of a view: deviations of the angle and of the log of its height; the least part
LANES = 6  # streams beside each other
PLACES, PART = 8_192, 256  # scenes that wait for the device; those it is given at once
SEED = 1
APART = 1_000_000  # between the first scenes of two seeds
SEEDS = (scenes.NEARBY - scenes.CLOSE) // APART


class Shape(NamedTuple):
    """Pictures of one size, and the share of the steps that have them."""

    height: int
    width: int
    share: float


SHAPES = (Shape(192, 256, 0.4), Shape(256, 256, 0.35), Shape(256, 192, 0.25))


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    torch.manual_seed(options.seed)
    end = time.monotonic() + 60 * options.minutes
    store = Store(options)
    try:
        trainer = Trainer(options)
        trainer.prepare(store)
        begun = said = time.monotonic()
        while (share := max(trainer.step / options.steps, (time.monotonic() - begun) / (end - begun))) < 1:
            trainer.advance(store, share)
            if time.monotonic() - said > 10:
                said = time.monotonic()
                print(f"step {trainer.step} loss {trainer.loss():.4f} scenes {store.count} after {said - begun:.0f} s",
                      flush=True)
    finally:
        store.close()
    learning.settle(trainer.mean, store.closing())
    learning.save_weights(trainer.mean, options.weights)
    return 0


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="last_round", description="Train the bundled model's last rounds, on a GPU.")
    p.add_argument("--start", type=Path, default=learning.WEIGHTS, help="weights to go on from")
    p.add_argument("--weights", type=Path, required=True, help="file to write")
    p.add_argument("--steps", type=int, default=ROUNDS[-1])
    p.add_argument("--minutes", type=float, default=7 * 24 * 60, help="end after so many, with fewer steps")
    p.add_argument("--seed", type=number_of_seed, default=SEED)
    p.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="rendering processes")
    p.add_argument("--ring", type=Path, default=Path("/dev/shm/depthmap-scenes"), help="a folder in memory")
    p.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    return p


def number_of_seed(text: str, rounds: int = 1) -> int:
    """A seed that leaves one for each of the `rounds` after the first."""
    count, most = int(text), SEEDS - rounds
    if not 0 <= count <= most:
        raise argparse.ArgumentTypeError(f"0 to {most}, not {text}; further ones would draw held-out scenes")
    return count


def rate(share: float) -> float:
    """Learning rate: a linear rise, a plateau, then a linear fall to nothing."""
    return RATE * min(1.0, share / RISE, (1 - share) / FALL)


class Store:
    """The scenes on the device, in the order of their numbers, and pictures drawn from them."""

    def __init__(self, options: argparse.Namespace):
        self.ring, self.device = Ring(options.ring, PLACES, options.workers, "w+"), options.device
        self.ring.lent[0] = options.workers if self.device.type == "cuda" else 0
        self.crew = self.ring.start(options.seed * APART)
        self.rng = np.random.default_rng(options.seed)
        self.capacity = -(-(AT_ONCE + MORE * options.steps) // PART) * PART
        self.rgb = torch.empty((self.capacity, SIDE, SIDE, 3), dtype=torch.uint8, device=self.device)
        self.inverse = torch.empty((self.capacity, SIDE, SIDE), dtype=torch.float16, device=self.device)
        self.mean, self.std = (values.to(self.device) for values in (scene_pool.MEAN, scene_pool.STD))
        self.side = torch.cuda.Stream() if self.device.type == "cuda" else None
        self.count, self.closed, self.taking = 0, False, threading.Lock()
        self.hand = ThreadPoolExecutor(1)
        self.taker = self.hand.submit(self._take_all)

    def close(self) -> None:
        """No more scenes."""
        self.closed = True
        self.hand.shutdown()
        self.crew.terminate()
        self.crew.join()
        self.ring.remove()

    def wait(self, least: int) -> None:
        """Return when there are at least so many."""
        while self.count < least:
            if self.taker.done():
                self.taker.result()
                return
            time.sleep(0.1)

    def _take_all(self) -> None:
        """Take what is rendered, in a thread of its own, as far as there is room; from then on it is drawn from."""
        while self.count < self.capacity and not self.closed:
            if self.ring.ready() >= self.count + PART:
                with self.taking:
                    self._take()
            else:
                time.sleep(0.05)

    def _take(self) -> None:
        here = slice(self.count, self.count + PART)
        there = slice(self.count % PLACES, self.count % PLACES + PART)
        with torch.cuda.stream(self.side):  # beside the training, not after it
            self.rgb[here].copy_(torch.from_numpy(self.ring.rgb[there]))
            self.inverse[here].copy_(torch.from_numpy(self.ring.inverse[there]))
        if self.side:
            self.side.synchronize()
        self.count += PART
        self.ring.taken[0] = self.count

    def draw(self, shape: Shape) -> scene_pool.Batch:
        """Random views of random scenes, spoilt further; see `scene_pool.draw`."""
        chosen = torch.randint(self.count, (BATCH,), device=self.device)
        places = F.affine_grid(self._views(shape), [BATCH, 3, shape.height, shape.width], align_corners=False)
        sharp = self.rng.random() < 0.5  # photos reach the network both soft and sharp
        pictures = F.grid_sample(self.rgb[chosen].permute(0, 3, 1, 2).float() / 255, places,
                                 "bicubic" if sharp else "bilinear", "border", align_corners=False)
        inverse = F.grid_sample(self.inverse[chosen].float()[:, None], places, "nearest", "border", align_corners=False)
        return scene_pool.Batch((recoloured(pictures.clamp(0, 1)) - self.mean) / self.std, inverse[:, 0])

    def _views(self, shape: Shape) -> torch.Tensor:
        """For each picture a part of a scene, somewhat turned and stretched, half of them mirrored; N×2×3.

        As `affine_grid` wants them: from a picture's places, -1 to 1, to the scene's.
        """
        def spread(low: float, high: float) -> torch.Tensor:
            return torch.empty(BATCH, device=self.device).uniform_(low, high)

        def normal(deviation: float) -> torch.Tensor:
            return torch.randn(BATCH, device=self.device) * deviation

        angle, stretch, zoom = normal(TURN), normal(STRETCH).exp(), spread(ZOOM, 1)
        wide = zoom * shape.width / max(shape.width, shape.height)
        high = zoom * shape.height / max(shape.width, shape.height) * stretch
        c, s = angle.cos(), angle.sin()
        reach_x, reach_y = wide * c + high * s.abs(), wide * s.abs() + high * c
        within = torch.maximum(reach_x, reach_y).clamp(min=1)  # nothing from outside the scene
        wide, high, reach_x, reach_y = (length / within for length in (wide, high, reach_x, reach_y))
        mirror = torch.where(spread(0, 1) < 0.5, -1.0, 1.0)
        across = torch.stack((wide * c * mirror, -high * s, spread(-1, 1) * (1 - reach_x)), 1)
        down = torch.stack((wide * s * mirror, high * c, spread(-1, 1) * (1 - reach_y)), 1)
        return torch.stack((across, down), 1)

    def closing(self, batches: int = 40) -> Iterator[torch.Tensor]:
        """The pictures whose statistics the batch norms keep."""
        for number in range(batches):
            yield self.draw(SHAPES[number % len(SHAPES)]).pictures


def recoloured(pictures: torch.Tensor) -> torch.Tensor:
    """Another light, contrast, hue and saturation for each; see `scene_pool.recolour`."""
    n = len(pictures)

    def normal(spread: float, *shape: int) -> torch.Tensor:
        return torch.randn((n, *shape), device=pictures.device) * spread

    keep = torch.empty((n, 1, 1), device=pictures.device).uniform_(0.6, 1.3)
    keep = torch.where(torch.rand_like(keep) < 0.1, 0.0, keep)
    angle = normal(0.1)
    c, s = angle.cos(), angle.sin()
    a, b = (1 - c) / 3, s / 3**0.5
    turned = torch.stack([c + a, a - b, a + b, a + b, c + a, a - b, a - b, a + b, c + a], 1).view(n, 3, 3)
    matrices = (keep * turned + (1 - keep) / 3) * normal(0.12, 3, 1).exp() * normal(0.15, 1, 1).exp()
    mixed = torch.bmm(matrices, pictures.flatten(2)).view_as(pictures)
    return mixed.clamp(0, 1).pow(normal(0.2, 1, 1, 1).exp())


class Trainer:
    """The network, its running mean, and on a GPU a graph of a step for each shape.

    Convolutions and all that lies between layers are computed in bfloat16, if the device can, from copies of the
    weights. The sums of the batch norms and of the loss are not.
    """

    def __init__(self, options: argparse.Namespace):
        self.device, self.short = options.device, learning.short(options.device)
        on_gpu = self.device.type == "cuda"
        self.weights = learning.read(options.start)
        self.network = started(self.weights, self.device, compilable if on_gpu else simplified)
        self.mean = started(self.weights, self.device, simplified)
        for p in self.network.parameters():
            p.grad = torch.zeros_like(p)
        norms = {name: module for name, module in self.network.named_modules() if isinstance(module, nn.BatchNorm2d)}
        for module in norms.values():
            module.track_running_stats = False  # the mean's are gathered at the end
        self.whole = {name: p for name, p in self.network.named_parameters() if name.rpartition(".")[0] in norms}
        self.halved = {name: p for name, p in self.network.named_parameters() if name not in self.whole}
        self.halves = {name: p.detach().to(self.short).requires_grad_() for name, p in self.halved.items()}
        self._compiled = torch.compile(self._error, dynamic=False) if on_gpu else self._error
        self.rate = torch.zeros((), device=self.device)
        matrices, rest = learning.divided(self.network)
        self.muon = Muon(matrices, self.rate)
        self.adam = torch.optim.AdamW(learning.groups(rest), lr=self.rate, fused=True, capturable=on_gpu)
        self.graphs: dict[Shape, tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]] = {}
        self.ahead = torch.cuda.Stream() if on_gpu else None
        self.rng = np.random.default_rng(options.seed)
        self.step = self.unsaid = 0
        self.total = torch.zeros((), device=self.device)

    def prepare(self, store: Store) -> None:
        """On a GPU capture the graphs, on noise; afterwards all is as it was. Until then the GPU draws scenes."""
        if self.device.type != "cuda":
            return
        for shape in SHAPES:
            self.graphs[shape] = self._captured(shape, store.taking)
        store.ring.lent[0] = 0
        for module in (self.network, self.mean):
            module.load_state_dict(self.weights)
        for value in itertools.chain(*(state.values() for state in (*self.adam.state.values(), *self.muon.state))):
            value.zero_()
        self.total.zero_()

    def _captured(self, shape: Shape, alone: threading.Lock) -> tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]:
        """The graph of a step, and the tensors from which it takes pictures and inverse depth."""
        pictures = torch.randn((BATCH, 3, shape.height, shape.width), device=self.device, dtype=torch.bfloat16)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        inverse = torch.rand((BATCH, shape.height, shape.width), device=self.device)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._move(pictures, inverse)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        memory = next((other.pool() for other, *_ in self.graphs.values()), None)
        with alone, torch.cuda.graph(graph, pool=memory):  # others' copies would be recorded, or forbidden
            self._move(pictures, inverse)
        return graph, pictures, inverse

    def advance(self, store: Store, share: float) -> None:
        """One step, when this share of the round is over."""
        shape = SHAPES[int(self.rng.choice(len(SHAPES), p=[shape.share for shape in SHAPES]))]
        store.wait(AT_ONCE)
        if shape in self.graphs:
            graph, pictures, inverse = self.graphs[shape]
            here = torch.cuda.current_stream()
            with torch.cuda.stream(self.ahead):
                batch = store.draw(shape)
            here.wait_stream(self.ahead)
            pictures.copy_(batch.pictures)
            inverse.copy_(batch.inverse)
            self.ahead.wait_stream(here)  # so the next pictures are drawn beside this step, after they were copied
            self.rate.fill_(rate(share))
            graph.replay()
        else:
            batch = store.draw(shape)
            self.rate.fill_(rate(share))
            self._move(batch.pictures, batch.inverse)
        self.step, self.unsaid = self.step + 1, self.unsaid + 1

    def _move(self, pictures: torch.Tensor, inverse: torch.Tensor) -> None:
        """Forward, backward, both optimizers, the running mean."""
        with torch.no_grad():
            torch._foreach_copy_(list(self.halves.values()), list(self.halved.values()))
        loss = self._compiled(pictures, inverse)
        found = torch.autograd.grad(loss, [*self.halves.values(), *self.whole.values()])
        gradients = [p.grad for p in (*self.halved.values(), *self.whole.values())]
        for part in (slice(len(self.halves)), slice(len(self.halves), None)):  # one kind of number each
            torch._foreach_copy_(gradients[part], found[part])
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_mul_(gradients, (5.0 / (norm + 1e-6)).clamp(max=1.0))
        self.adam.step()
        self.muon.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.mean.parameters()), list(self.network.parameters()), 1 - INERTIA)
            self.total += loss

    def _error(self, pictures: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
        return learning.criterion(self._predicted(pictures).float(), inverse, fitted=True)

    def _predicted(self, pictures: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(self.network, self.halves | self.whole, (pictures.to(self.short),))

    def loss(self) -> float:
        """Its mean since it was last asked for."""
        value = float(self.total) / max(1, self.unsaid)
        self.total.zero_()
        self.unsaid = 0
        return value


def started(weights: dict[str, torch.Tensor], device: torch.device,
            arrange: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """The network that learns, with these weights."""
    network = learning.fresh()
    network.load_state_dict(weights)
    return arrange(network).to(device, memory_format=torch.channels_last)


class Muon:
    """`learning.FilterMuon` for graphs: filters of equal shape in one product, the rate on the device."""

    def __init__(self, filters: list[nn.Parameter], rate: torch.Tensor):
        self.rate = rate
        self.banks: dict[tuple[int, int], list[nn.Parameter]] = {}
        for bank in filters:
            self.banks.setdefault(tuple(learning.as_matrix(bank).shape), []).append(bank)
        self.state = [{"momentum": torch.zeros((len(banks), *shape), device=rate.device)}
                      for shape, banks in self.banks.items()]
        self.lanes = [torch.cuda.Stream() for _ in range(LANES)] if rate.device.type == "cuda" else []

    @torch.no_grad()
    def step(self) -> None:
        """Each size of filters is a chain of small products; on a GPU the chains run beside each other."""
        here = torch.cuda.current_stream() if self.lanes else None
        for lane in self.lanes:
            lane.wait_stream(here)
        for number, (banks, state) in enumerate(zip(self.banks.values(), self.state, strict=True)):
            with torch.cuda.stream(self.lanes[number % LANES] if self.lanes else None):
                learning.move(banks, state["momentum"], self.rate)
        for lane in self.lanes:
            here.wait_stream(lane)


if __name__ == "__main__":
    raise SystemExit(main())
