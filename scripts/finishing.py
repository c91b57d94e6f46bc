"""The finishing round of training the bundled model: small steps towards what it is judged by.

    python scripts/finishing.py --start sixth.safetensors --weights seventh.safetensors

`train_tiny.py` ends with it. The batch norms keep their statistics, for batches are small, and the outlier loss is
added to the others: δ1 made smooth. It is for two processor cores, on which it takes less than an hour beside the
rendering of what is not there yet.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from any folder

import numpy as np
import torch
from torch import nn

from scripts import depth_measures, large_round, learning, scene_pool, scenes
from scripts.large_round import SHAPES
from scripts.scene_pool import Batch, Pool

STEPS, BATCH = 4_500, 16
RATE, RISE, FALL = 3e-4, 0.01, 0.8  # the highest rate; the shares of the steps in which it rises and falls
INERTIA = 0.998  # of the running mean
SHARES = (0.55, 0.15, 0.3)  # scenes of all kinds, close views of rooms, nearby views
NEARBY = 9_600  # nearby views
OTHER = 99  # so many seeds later is the one whose nearby views these are


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    for pool in (whole(options), nearby(options)):
        render(pool)
    learning.run(train, options)
    return 0


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="finishing", description="Train the bundled model's finishing round.")
    p.add_argument("--start", type=Path, default=learning.WEIGHTS, help="weights to go on from")
    p.add_argument("--weights", type=Path, required=True, help="file to write")
    p.add_argument("--steps", type=int, default=STEPS)
    p.add_argument("--seed", type=large_round.number_of_seed, default=large_round.SEED)
    p.add_argument("--processes", type=int, default=2, help="training processes that share each batch (default 2)")
    p.add_argument("--workers", type=int, default=2, help="rendering processes")
    p.add_argument("--work", type=Path, default=Path(".training"), help="scenes")
    return p


def train(rank: int, options: argparse.Namespace) -> None:
    """One of the training processes; all hold the same network, the first one also its running mean and the file."""
    learning.join(rank, options.processes)
    pools = parts(options)
    network, mean = started(options.start), started(options.start)
    learning.keep_precise(network)
    matrices, rest = learning.divided(network)
    learners = [torch.optim.AdamW(learning.groups(rest), fused=True), learning.FilterMuon(matrices)]
    said, losses = time.monotonic(), []
    for step in range(options.steps):
        shape = np.random.default_rng([options.seed, step]).choice(len(SHAPES), p=[shape.share for shape in SHAPES])
        batch = drawn(pools, np.random.default_rng([options.seed, step, rank]), BATCH // options.processes,
                      SHAPES[int(shape)][:2])
        for group in itertools.chain.from_iterable(learner.param_groups for learner in learners):
            group["lr"] = rate(step, options.steps)
        losses.append(move(network, batch, learners, options.processes))
        learning.follow(mean, network, min(INERTIA, (step + 1) / (step + 20)))
        if rank == 0 and time.monotonic() - said > 60:
            print(f"step {step + 1} loss {np.mean(losses):.4f}", flush=True)
            learning.save_weights(mean, options.weights)
            said, losses = time.monotonic(), []
    if rank == 0:
        learning.save_weights(mean, options.weights)


def whole(options: argparse.Namespace) -> Pool:
    """The scenes that the first rounds saw."""
    first = options.seed * large_round.APART
    return Pool(options.work / f"scenes{options.seed}", first, scene_pool.SCENES, options.workers)


def nearby(options: argparse.Namespace) -> Pool:
    """Nearby views, of those another seed would have."""
    other = (options.seed + OTHER) % large_round.SEEDS
    first = other * large_round.APART + scenes.NEARBY
    return Pool(options.work / f"nearby{options.seed}", first, NEARBY, options.workers)


def render(pool: Pool) -> None:
    """What is not there yet."""
    crew = pool.start()
    pool.wait(pool.count)
    for worker in crew:
        worker.join()


def parts(options: argparse.Namespace) -> list[Pool]:
    """The scenes, in the order of `SHARES`."""
    mixed, close = whole(options), whole(options)
    mixed.used, close.used = np.split(mixed.used, [np.searchsorted(mixed.used, scene_pool.MIXED)])
    return [mixed, close, nearby(options)]


def drawn(pools: list[Pool], rng: np.random.Generator, size: int, shape: tuple[int, int]) -> Batch:
    """Pictures of all pools, by their shares."""
    counts = rng.multinomial(size, SHARES)
    batches = [scene_pool.draw(pool, rng, pool.count, count, shape)
               for pool, count in zip(pools, counts.tolist(), strict=True) if count]
    return Batch(torch.cat([batch.pictures for batch in batches]).contiguous(memory_format=torch.channels_last),
                 torch.cat([batch.inverse for batch in batches]))


def started(weights: Path) -> nn.Module:
    """The network that learns, its batch norms with fixed statistics."""
    network = learning.fresh()
    network.load_state_dict(learning.read(weights))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return network


def rate(step: int, steps: int) -> float:
    """Learning rate: a linear rise, a plateau, then a linear fall to nothing."""
    share = step / steps
    return RATE * min(1.0, (share + 1 / steps) / RISE, (1 - share) / FALL)


def move(network: nn.Module, batch: Batch, learners: list[torch.optim.Optimizer], processes: int) -> float:
    """One step; returns its loss."""
    with torch.autocast("cpu", torch.bfloat16):
        prediction = network(batch.pictures)
    prediction = prediction.float()
    loss = (learning.criterion(prediction, batch.inverse, fitted=True)
            + depth_measures.outlier_loss(prediction, batch.inverse))
    network.zero_grad(set_to_none=True)
    loss.backward()
    learning.share_gradients(network, processes)
    nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    for learner in learners:
        learner.step()
    return float(loss.detach())


if __name__ == "__main__":
    raise SystemExit(main())
