"""The last round of training the bundled model, with pictures by the hundred: for a GPU.

    python scripts/last_round.py --start fifth.safetensors --weights sixth.safetensors

`train_tiny.py` ends with it. Processes render scenes while the device trains on those it was given before, full size
from the first step to the last. Crops, colours, the passes and both optimizers run on the device; there each picture
size has a CUDA graph of a whole step. The learning rate rises, stays and falls to nothing with the share of the steps.
It runs without a GPU as well, for a day.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from any folder

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from scripts import learning, scene_pool, scenes
from scripts.scene_pool import SIDE
from scripts.scene_ring import Ring

STEPS, BATCH = 12_000, 128
RATE, RISE, FALL = 2e-3, 0.02, 0.7  # the highest rate; the shares of the steps in which it rises and falls
AT_ONCE, MORE = 4_500, 3  # scenes to begin with; so many more with each step
INERTIA = 0.999  # of the running mean
PLACES, PART = 4_096, 256  # scenes that wait for the device; those it is given at once
SEED = 1
APART = 1_000_000  # between the first scenes of two seeds
SEEDS = (scenes.NEARBY - scenes.CLOSE) // APART


class Shape(NamedTuple):
    """Pictures of one size, and the share of the steps that have them."""

    height: int
    width: int
    share: float


SHAPES = (Shape(192, 256, 0.35), Shape(256, 256, 0.35), Shape(256, 192, 0.2), Shape(160, 256, 0.1))


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    torch.manual_seed(options.seed)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit = True, 3
    end = time.monotonic() + 60 * options.minutes
    store = Store(options)
    try:
        trainer = Trainer(options)
        trainer.prepare()
        begun = said = time.monotonic()
        while (share := max(trainer.step / options.steps, (time.monotonic() - begun) / (end - begun))) < 1:
            trainer.advance(store, share)
            if time.monotonic() - said > 10:
                said = time.monotonic()
                print(f"step {trainer.step} loss {trainer.loss():.4f} scenes {store.ready} after {said - begun:.0f} s",
                      flush=True)
    finally:
        store.close()
    learning.settle(trainer.mean, store.closing())
    learning.save_weights(trainer.mean, options.weights)
    return 0


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="last_round", description="Train the bundled model's last round, on a GPU.")
    p.add_argument("--start", type=Path, default=learning.WEIGHTS, help="weights to go on from")
    p.add_argument("--weights", type=Path, required=True, help="file to write")
    p.add_argument("--steps", type=int, default=STEPS)
    p.add_argument("--minutes", type=float, default=7 * 24 * 60, help="end after so many, with fewer steps")
    p.add_argument("--seed", type=number_of_seed, default=SEED)
    p.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="rendering processes")
    p.add_argument("--ring", type=Path, default=Path("/dev/shm/depthmap-scenes"), help="a folder in memory")
    p.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    return p


def number_of_seed(text: str) -> int:
    count = int(text)
    if not 0 <= count < SEEDS:
        raise argparse.ArgumentTypeError(f"0 to {SEEDS - 1}, not {text}; further ones would draw held-out scenes")
    return count


def rate(share: float) -> float:
    """Learning rate: a linear rise, a plateau, then a linear fall to nothing."""
    return RATE * min(1.0, share / RISE, (1 - share) / FALL)


class Store:
    """The scenes on the device, in the order of their numbers, and pictures drawn from them."""

    def __init__(self, options: argparse.Namespace):
        self.ring, self.device = Ring(options.ring, PLACES, options.workers, "w+"), options.device
        self.crew = self.ring.start(options.seed * APART)
        self.rng = np.random.default_rng(options.seed)
        self.capacity = -(-(AT_ONCE + MORE * options.steps) // PART) * PART
        self.rgb = torch.empty((self.capacity, SIDE, SIDE, 3), dtype=torch.uint8, device=self.device)
        self.inverse = torch.empty((self.capacity, SIDE, SIDE), dtype=torch.float16, device=self.device)
        self.mean, self.std = (values.to(self.device) for values in (scene_pool.MEAN, scene_pool.STD))
        self.side = torch.cuda.Stream() if self.device.type == "cuda" else None
        self.count = self.ready = 0

    def close(self) -> None:
        """No more scenes."""
        self.crew.terminate()
        self.crew.join()
        self.ring.remove()

    def wait(self, ready: int) -> None:
        """From now on draw from the first `ready` scenes; return when these are here."""
        self.ready = ready
        while True:
            while self.count < self.capacity and self.ring.ready() >= self.count + PART:
                self._take()
            if self.count >= ready:
                return
            time.sleep(0.1)

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
        """Random crops of one random scale, spoilt further; see `scene_pool.draw`."""
        h, w = shape.height, shape.width
        zoom = self.rng.uniform(0.75, 1) * SIDE / max(h, w)
        high, wide = round(h * zoom), round(w * zoom)

        def dice(end: int) -> torch.Tensor:
            return torch.randint(end, (BATCH, 1, 1), device=self.device)

        rows = dice(SIDE - high + 1) + torch.arange(high, device=self.device)[:, None]
        columns = torch.arange(wide, device=self.device)
        columns = dice(SIDE - wide + 1) + torch.where(dice(2) > 0, columns, wide - 1 - columns)
        chosen = dice(self.ready)
        pictures = self.rgb[chosen, rows, columns].permute(0, 3, 1, 2).float() / 255
        inverse = self.inverse[chosen, rows, columns].float()[:, None]
        if (high, wide) != (h, w):
            smooth = self.rng.random() < 0.5  # photos reach the network both smoothed and aliased
            pictures = F.interpolate(pictures, (h, w), mode="bilinear", antialias=smooth)
            inverse = F.interpolate(inverse, (h, w), mode="nearest")
        return scene_pool.Batch((recoloured(pictures) - self.mean) / self.std, inverse[:, 0])

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
    """The network, its running mean, and on a GPU a graph of a step for each shape."""

    def __init__(self, options: argparse.Namespace):
        self.device = options.device
        self.weights = learning.read(options.start)
        self.network, self.mean = (started(self.weights, self.device) for _ in range(2))
        self.halved = {f"{name}.{kind}" for name, module in self.network.named_modules()
                       if isinstance(module, nn.Conv2d) for kind in ("weight", "bias")}
        self.rate = torch.zeros((), device=self.device)
        matrices, rest = learning.divided(self.network)
        self.muon = Muon(matrices, self.rate)
        self.adam = torch.optim.AdamW(learning.groups(rest), lr=self.rate, fused=True,
                                      capturable=self.device.type == "cuda")
        self.graphs: dict[Shape, tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]] = {}
        self.rng = np.random.default_rng(options.seed)
        self.step = self.unsaid = 0
        self.total = torch.zeros((), device=self.device)

    def prepare(self) -> None:
        """On a GPU capture the graphs, on noise; afterwards all is as it was."""
        if self.device.type != "cuda":
            return
        for shape in SHAPES:
            self.graphs[shape] = self._captured(shape)
        for module in (self.network, self.mean):
            module.load_state_dict(self.weights)
        for value in itertools.chain(*(state.values() for state in (*self.adam.state.values(), *self.muon.state))):
            value.zero_()
        self.total.zero_()

    def _captured(self, shape: Shape) -> tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]:
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
        self.network.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        memory = next((other.pool() for other, *_ in self.graphs.values()), None)
        with torch.cuda.graph(graph, pool=memory):
            self._move(pictures, inverse)
        return graph, pictures, inverse

    def advance(self, store: Store, share: float) -> None:
        """One step, when this share of the round is over."""
        shape = SHAPES[int(self.rng.choice(len(SHAPES), p=[shape.share for shape in SHAPES]))]
        store.wait(AT_ONCE + MORE * self.step)
        batch = store.draw(shape)
        self.rate.fill_(rate(share))
        if shape in self.graphs:
            graph, pictures, inverse = self.graphs[shape]
            pictures.copy_(batch.pictures)
            inverse.copy_(batch.inverse)
            graph.replay()
        else:
            self._move(batch.pictures, batch.inverse)
        self.step, self.unsaid = self.step + 1, self.unsaid + 1

    def _move(self, pictures: torch.Tensor, inverse: torch.Tensor) -> None:
        """Forward, backward, both optimizers, the running mean."""
        self.network.zero_grad(set_to_none=True)
        loss = learning.criterion(self._predicted(pictures).float(), inverse, fitted=True)
        loss.backward()
        gradients = [p.grad for p in self.network.parameters()]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_mul_(gradients, (5.0 / (norm + 1e-6)).clamp(max=1.0))
        self.adam.step()
        self.muon.step()
        with torch.no_grad():
            torch._foreach_lerp_(floats(self.mean), floats(self.network), 1 - INERTIA)
            self.total += loss

    def _predicted(self, pictures: torch.Tensor) -> torch.Tensor:
        """Convolutions and all that lies between layers in bfloat16; the batch norms' own sums are not."""
        weights = {name: p.bfloat16() if name in self.halved else p for name, p in self.network.named_parameters()}
        return torch.func.functional_call(self.network, weights, (pictures.bfloat16(),))

    def loss(self) -> float:
        """Its mean since it was last asked for."""
        value = float(self.total) / max(1, self.unsaid)
        self.total.zero_()
        self.unsaid = 0
        return value


def started(weights: dict[str, torch.Tensor], device: torch.device) -> nn.Module:
    """The network that learns, with these weights."""
    network = learning.fresh()
    network.load_state_dict(weights)
    return network.to(device, memory_format=torch.channels_last)


def floats(network: nn.Module) -> list[torch.Tensor]:
    """All weights and statistics."""
    return [x for x in itertools.chain(network.parameters(), network.buffers()) if x.is_floating_point()]


class Muon:
    """`learning.FilterMuon` for graphs: filters of equal shape in one product, the rate on the device."""

    def __init__(self, filters: list[nn.Parameter], rate: torch.Tensor):
        self.rate = rate
        self.banks: dict[tuple[int, int], list[nn.Parameter]] = {}
        for bank in filters:
            self.banks.setdefault(tuple(learning.as_matrix(bank).shape), []).append(bank)
        self.state = [{"momentum": torch.zeros((len(banks), *shape), device=rate.device)}
                      for shape, banks in self.banks.items()]

    @torch.no_grad()
    def step(self) -> None:
        for (shape, banks), state in zip(self.banks.items(), self.state, strict=True):
            gradient = torch.stack([learning.as_matrix(bank.grad) for bank in banks])
            momentum = state["momentum"].lerp_(gradient, 0.05)
            update = orthogonal(gradient.lerp(momentum, 0.95)) * (self.rate * 0.2 * max(shape) ** 0.5)
            for bank, change in zip(banks, update.unbind(), strict=True):
                learning.as_matrix(bank).mul_(1 - self.rate * learning.DECAY).sub_(change)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Nearly the nearest matrices with equal singular values: five Newton-Schulz steps, as `torch.optim.Muon` does."""
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.775, alpha=2.0315), x, beta=3.4445)
    return (x.mT if tall else x).float()


if __name__ == "__main__":
    raise SystemExit(main())
