"""The last rounds of training the bundled model, with pictures by the hundred: for a GPU.

    python scripts/last_round.py --start eighth.safetensors --weights ninth.safetensors --seed 4

`train_tiny.py` ends with four of them. Processes render scenes while the device trains on those it was given before,
full size from the first step to the last. Views, colours, the passes and both optimizers run on the device, and a GPU
draws the scenes too. There the network and the loss are compiled for each picture size, which takes Triton, a compiler
for C and some minutes: the steps begin with the first size and go on meanwhile. A whole step is a CUDA graph. The
learning rate rises, stays and falls to nothing with the share of the steps. It runs without a GPU as well, for days.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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

ROUNDS = (12_000, 24_000, 26_000, 36_000)  # steps of the rounds, each with the next seed
BATCH = 128  # pictures in a step
RATE, RISE, FALL = 2e-3, 0.02, 0.7  # the highest rate; the shares of the steps in which it rises and falls
AT_ONCE, KEPT = 4_500, 140_000  # scenes to begin with, and on the device
INERTIA = 0.999  # of the running mean
TURN, STRETCH, ZOOM = 0.06, 0.05, 0.7  # of a view: deviations of the angle and of the log of its height; the least part
LANES = 6  # streams beside each other
PLACES, PART = 8_192, 256  # scenes that wait for the device; those it is given at once
AHEAD = 2  # steps the device is sent before it has finished one
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
    if options.device.type == "cuda":  # the steps go before what is drawn and compiled beside them
        torch.cuda.set_stream(torch.cuda.Stream(priority=-1))
        sys.setswitchinterval(5e-4)
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
    p.add_argument("--workers", type=int, help="rendering processes; beside a GPU three a processor")
    p.add_argument("--scenes", type=int, default=KEPT, help="to keep on the device, 328 KB each, the latest")
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
    """The latest scenes on the device, in the order of their numbers, and pictures drawn from them."""

    def __init__(self, options: argparse.Namespace):
        self.device, on_gpu = options.device, options.device.type == "cuda"
        processors = os.cpu_count() or 2
        workers = options.workers or (3 * processors if on_gpu else max(1, processors - 1))
        self.ring = Ring(options.ring, PLACES, workers, "w+")
        self.crew = self.ring.start(options.seed * APART, on_gpu)
        self.capacity = -(-options.scenes // PART) * PART
        self.rgb = torch.empty((self.capacity, SIDE, SIDE, 3), dtype=torch.uint8, device=self.device)
        self.inverse = torch.empty((self.capacity, SIDE, SIDE), dtype=torch.float16, device=self.device)
        self.mean, self.std = (values.to(self.device) for values in (scene_pool.MEAN, scene_pool.STD))
        self.oldest, self.newest = (torch.zeros((), dtype=torch.float64, device=self.device) for _ in range(2))
        self.side = torch.cuda.Stream() if on_gpu else None
        self.count, self.over, self.alone = 0, threading.Event(), threading.Lock()
        self.hands = ThreadPoolExecutor(2)
        self.taker = self.hands.submit(self._take_all)
        if on_gpu:
            self.hands.submit(self._serve)

    def close(self) -> None:
        """No more scenes."""
        self.over.set()
        self.hands.shutdown()
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
        """Take what is rendered, in a thread of its own; from then on it is drawn from."""
        while not self.over.is_set():
            if self.ring.ready() >= self.count + PART:
                with self.alone:
                    self._take()
            else:
                time.sleep(0.05)

    def _take(self) -> None:
        """Into the places of the oldest. Those of the next part are not drawn from either: a step may lag behind."""
        first = self.count % self.capacity
        here = slice(first, first + PART)
        there = slice(self.count % PLACES, self.count % PLACES + PART)
        with torch.cuda.stream(self.side):  # beside the training, not after it
            self.oldest.fill_(max(0, self.count + 2 * PART - self.capacity))
            self.rgb[here].copy_(torch.from_numpy(self.ring.rgb[there]))
            self.inverse[here].copy_(torch.from_numpy(self.ring.inverse[there]))
            self.newest.fill_(self.count + PART)
        if self.side:
            self.side.synchronize()
        self.count += PART
        self.ring.taken[0] = self.count

    def _serve(self) -> None:
        """Draw for those who render, once a GPU was seen to do it well."""
        while not self.ring.proven[0]:
            if self.over.wait(0.1):
                return
        from scripts.scenes import device

        try:
            self.ring.serve(device.draw, self.alone, self.over)
        except Exception as error:  # its memory is full, say
            print(f"Scenes are drawn by the processors alone from now on: {error}", flush=True)

    def draw(self, shape: Shape) -> scene_pool.Batch:
        """Random views of random scenes, spoilt further; see `scene_pool.draw`. No number of it comes from here."""
        share = torch.rand(BATCH, dtype=torch.float64, device=self.device)
        chosen = self.oldest.lerp(self.newest, share).long() % self.capacity
        places = F.affine_grid(self._views(shape), [BATCH, 3, shape.height, shape.width], align_corners=False)
        colours, half = self.rgb[chosen].permute(0, 3, 1, 2).float() / 255, BATCH // 2
        pictures = torch.cat([  # photos reach the network both soft and sharp
            F.grid_sample(colours[:half], places[:half], "bilinear", "border", align_corners=False),
            F.grid_sample(colours[half:], places[half:], "bicubic", "border", align_corners=False),
        ])
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
        self.graphs: dict[Shape, tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]] = {}  # and what they train on
        self.ahead = torch.cuda.Stream() if on_gpu else None
        self.sent: deque[torch.cuda.Event] = deque()
        self.hand, self.compiling = ThreadPoolExecutor(1), None
        self.rng = np.random.default_rng(options.seed)
        self.step = self.unsaid = 0
        self.total = torch.zeros((), device=self.device)

    def prepare(self, store: Store) -> None:
        """On a GPU capture a step's graph for the first shape; those of the others follow during the steps."""
        if self.device.type != "cuda":
            return
        self.compiling = self._compiling()
        store.wait(AT_ONCE)
        self.compiling.result()
        drawn = store.draw(SHAPES[0])
        self._move(drawn.pictures.to(self.short, memory_format=torch.channels_last), drawn.inverse)  # at no rate
        for value in itertools.chain(*(state.values() for state in (*self.adam.state.values(), *self.muon.state))):
            value.zero_()
        self.total.zero_()
        self._capture(store)

    def _compiling(self) -> Future | None:
        """The compiler at work on the next shape, in another thread."""
        return self.hand.submit(self._compile, SHAPES[len(self.graphs)]) if len(self.graphs) < len(SHAPES) else None

    def _compile(self, shape: Shape) -> None:
        """By a loss and its gradients, of noise."""
        with torch.cuda.stream(torch.cuda.Stream()):
            pictures = torch.randn((BATCH, 3, shape.height, shape.width), device=self.device, dtype=self.short)
            pictures = pictures.contiguous(memory_format=torch.channels_last)
            inverse = torch.rand((BATCH, shape.height, shape.width), device=self.device)
            for _ in range(3):
                self._gradients(pictures, inverse)
            torch.cuda.synchronize()

    def _capture(self, store: Store) -> None:
        """The graph of a step for the shape that was compiled: it trains on pictures and draws the next ones."""
        shape, graph, stream = SHAPES[len(self.graphs)], torch.cuda.CUDAGraph(), torch.cuda.Stream(priority=-1)
        with torch.cuda.stream(self.ahead):
            drawn = store.draw(shape)
        torch.cuda.current_stream().wait_stream(self.ahead)
        pictures = drawn.pictures.to(self.short, memory_format=torch.channels_last)
        inverse = drawn.inverse.clone()
        self._gradients(pictures, inverse)  # so that all this thread needs is there
        memory = next((other.pool() for other, *_ in self.graphs.values()), None)
        with store.alone, torch.cuda.graph(graph, memory, stream):  # others' copies would be recorded, or forbidden
            self.ahead.wait_stream(stream)
            with torch.cuda.stream(self.ahead):
                following = store.draw(shape)
            self._move(pictures, inverse)
            stream.wait_stream(self.ahead)
            pictures.copy_(following.pictures)
            inverse.copy_(following.inverse)
        self.graphs[shape] = graph, pictures, inverse
        self.compiling = self._compiling()

    def advance(self, store: Store, share: float) -> None:
        """One step, when this share of the round is over."""
        if self.compiling and self.compiling.done():
            self.compiling.result()
            self._capture(store)
        shapes = list(self.graphs) or SHAPES
        shares = np.array([shape.share for shape in shapes])
        shape = shapes[int(self.rng.choice(len(shapes), p=shares / shares.sum()))]
        self.rate.fill_(rate(share))
        if self.graphs:
            graph, *_ = self.graphs[shape]
            graph.replay()
            self._keep_pace()
        else:
            store.wait(AT_ONCE)
            batch = store.draw(shape)
            self._move(batch.pictures, batch.inverse)
        self.step, self.unsaid = self.step + 1, self.unsaid + 1

    def _keep_pace(self) -> None:
        """Wait for the device if it lags behind: the rate belongs to the time of a step."""
        self.sent.append(torch.cuda.Event(blocking=True))
        self.sent[-1].record()
        if len(self.sent) > AHEAD:
            self.sent.popleft().synchronize()

    def _move(self, pictures: torch.Tensor, inverse: torch.Tensor) -> None:
        """Forward, backward, both optimizers, the running mean."""
        with torch.no_grad():
            torch._foreach_copy_(list(self.halves.values()), list(self.halved.values()))
        loss, found = self._gradients(pictures, inverse)
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

    def _gradients(self, pictures: torch.Tensor, inverse: torch.Tensor) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
        loss = self._compiled(pictures, inverse)
        return loss, torch.autograd.grad(loss, [*self.halves.values(), *self.whole.values()])

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
        self.lanes = [torch.cuda.Stream(priority=-1) for _ in range(LANES)] if rate.device.type == "cuda" else []

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
