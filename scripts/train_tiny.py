"""Train the bundled model from scratch on made-up scenes, and judge it.

    python scripts/train_tiny.py                   # renders, trains, writes depth/weights/tiny.safetensors
    python scripts/train_tiny.py --evaluate        # figures of the shipped weights on 500 held-out scenes

The scene of each number, the crops of each step and the first weights follow from --seed. There are nine
rounds in which the learning rate rises, stays, and falls: the first with AdamW, the others with Muon from the result of
the one before. The first five go from small pictures to full-size ones and are for processors, the last four
(`last_round.py`) are for a GPU. From the fifth on each ends with gathering the batch norms' statistics anew.
Interrupted training goes on from the last checkpoint in --work.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from any folder

import numpy as np
import torch
from torch import distributed, multiprocessing, nn

from scripts import depth_measures, last_round, scene_pool, scenes
from scripts.learning import WEIGHTS, FilterMuon, criterion, divided, fresh, groups, load, save_weights, settle, short

WARM = 100  # steps in which the learning rate rises


class Round(NamedTuple):
    """One rise and fall of the learning rate."""

    end: int  # the step that belongs to the next round
    rate: float  # the highest
    fall: int  # the last steps, in which the rate falls to nothing
    scenes: int
    earlier: float = 0.0  # share of the round before in the result; the rest is the running mean


ROUNDS = (
    Round(12_500, 2e-3, 5_000, 18_000),
    Round(23_000, 1.5e-3, 6_500, 18_000),
    Round(39_000, 1.5e-3, 10_000, 18_000),
    Round(51_000, 1.5e-3, 8_000, scene_pool.MIXED, earlier=0.3),
    Round(68_000, 1.5e-3, 10_000, scene_pool.SCENES, earlier=0.45),
)
STEPS, SCENES = ROUNDS[-1].end, ROUNDS[-1].scenes
AT_ONCE = 1_500  # scenes to begin with; one more with each step
STAGES = (  # until this step: pictures in a step, their sizes, whether the losses that fit scale and shift count
    (800, 32, ((64, 64), (64, 96), (96, 64)), False),  # a fit that ranks nothing yet would only disturb
    (3_500, 32, ((64, 64), (64, 96), (96, 64)), True),
    (7_000, 32, ((96, 96), (96, 128), (128, 96)), True),
    (10_000, 16, ((128, 160), (160, 128), (160, 160)), True),
    (12_500, 8, ((192, 256), (256, 192), (256, 256), (160, 256)), True),
    (17_500, 32, ((96, 96), (96, 128), (128, 96)), True),
    (20_500, 16, ((128, 160), (160, 128), (160, 160)), True),
    (23_000, 8, ((192, 256), (256, 192), (256, 256), (160, 256)), True),
    (28_000, 32, ((96, 96), (96, 128), (128, 96)), True),
    (33_000, 16, ((128, 160), (160, 128), (160, 160)), True),
    (39_000, 8, ((192, 256), (256, 192), (256, 256), (160, 256)), True),
    (43_000, 32, ((96, 96), (96, 128), (128, 96)), True),
    (46_500, 16, ((128, 160), (160, 128), (160, 160)), True),
    (51_000, 8, ((192, 256), (256, 192), (256, 256), (160, 256)), True),
    (55_000, 32, ((96, 96), (96, 128), (128, 96)), True),
    (60_500, 16, ((128, 160), (160, 128), (160, 160)), True),
    (68_000, 8, ((192, 256), (256, 192), (256, 256), (160, 256)), True),
)


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.evaluate:
        network = load(options.weights)
        print(report(network, options.scenes_held_out))
        return 0
    if options.processes > 1:
        multiprocessing.spawn(train, (options,), options.processes)
    else:
        train(0, options)
    if options.steps < STEPS:
        return 0
    weights = str(options.weights)
    for number, steps in enumerate(last_round.ROUNDS):
        print(f"round {len(ROUNDS) + 1 + number}", flush=True)
        last_round.main(["--start", weights, "--weights", weights, "--steps", str(steps),
                         "--seed", str(options.seed + number)])
    return 0


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="train_tiny", description="Train or judge the bundled model.")
    p.add_argument("--steps", type=number_of_steps, default=STEPS, help=f"stop before {STEPS} and the last rounds")
    p.add_argument("--scenes", type=int, default=SCENES, help=f"training scenes to render (default {SCENES})")
    p.add_argument("--seed", type=number_of_seed, default=last_round.SEED, help="all follows from it")
    p.add_argument("--processes", type=int, default=1, help="training processes that share each batch (default 1)")
    p.add_argument("--workers", type=int, default=1, help="rendering processes")
    p.add_argument("--work", type=Path, default=Path(".training"), help="scenes and checkpoints")
    p.add_argument("--weights", type=Path, default=WEIGHTS, help="file to write, or to judge")
    p.add_argument("--evaluate", action="store_true", help="judge --weights on held-out scenes and stop")
    p.add_argument("--scenes-held-out", type=int, default=500)
    return p


def number_of_steps(text: str) -> int:
    count = int(text)
    if not 0 < count <= STEPS:
        raise argparse.ArgumentTypeError(
            f"1 to {STEPS} are the recipe's, not {text}; more are a further round in ROUNDS and STAGES"
        )
    return count


def number_of_seed(text: str) -> int:
    return last_round.number_of_seed(text, rounds=len(last_round.ROUNDS))


def train(rank: int, options: argparse.Namespace) -> None:
    """One of the training processes; all hold the same network, the first one also its running mean and the files."""
    torch.set_num_threads(1)  # busy machines stall threads that wait for each other at every layer
    torch.manual_seed(options.seed)
    pool = scene_pool.Pool(
        options.work / f"scenes{options.seed}", options.seed * last_round.APART, options.scenes, options.workers
    )
    crew = pool.start() if rank == 0 else []
    if options.processes > 1:
        distributed.init_process_group("gloo", "tcp://127.0.0.1:29517", rank=rank, world_size=options.processes)
    network, mean, before = fresh(), fresh(), fresh()
    keep_precise(network)
    checkpoint = options.work / f"checkpoint{options.seed}.pt"
    first, learners = resume(checkpoint, network, mean, before)
    begun, losses = time.time(), []
    for step in range(first, options.steps):
        if begins_round(step):
            conclude(round_of(step - 1), network, mean, before)
            learners = optimizers(network, step)
        losses.append(one_step(step, rank, options, pool, network, learners))
        follow(mean, network, min(0.999, (step + 1) / (step + 20)))
        if rank:
            continue
        if step % 50 == 49:
            print(
                f"step {step + 1} loss {np.mean(losses):.4f} {(time.time() - begun) / len(losses):.3f} s/step",
                flush=True,
            )
            begun, losses = time.time(), []
        if step % 250 == 249 or step + 1 == options.steps:
            save_checkpoint(checkpoint, step + 1, network, mean, before, learners)
            save_weights(mean, options.weights)
    if rank == 0 and options.steps == STEPS:
        conclude(ROUNDS[-1], network, mean, before)
        settle(mean, closing(pool, options.seed))
        save_weights(mean, options.weights)
    for worker in crew:
        worker.terminate()


def one_step(
    step: int, rank: int, options: argparse.Namespace, pool: scene_pool.Pool, network: nn.Module, learners: list
) -> float:
    size, shapes, fitted = next(stage[1:] for stage in STAGES if step < stage[0])
    shape = shapes[int(np.random.default_rng([options.seed, step]).integers(len(shapes)))]
    rng = np.random.default_rng([options.seed, step, rank])
    batch = drawn(pool, rng, step, size // options.processes, shape)
    for group in itertools.chain.from_iterable(learner.param_groups for learner in learners):
        group["lr"] = rate(step)
    with torch.autocast("cpu", torch.bfloat16, enabled=short(torch.device("cpu")) is torch.bfloat16):
        prediction = network(batch.pictures)
    loss = criterion(prediction.float(), batch.inverse, fitted)
    network.zero_grad(set_to_none=True)
    loss.backward()
    if options.processes > 1:
        share_gradients(network, options.processes)
    nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    for learner in learners:
        learner.step()
    return float(loss.detach())


def drawn(
    pool: scene_pool.Pool, rng: np.random.Generator, step: int, size: int, shape: tuple[int, int]
) -> scene_pool.Batch:
    """Pictures of the scenes that a step draws from, once these are rendered."""
    ready = min(pool.count, scenes_of(step))
    pool.wait(ready)
    return scene_pool.draw(pool, rng, ready, size, shape)


class FullPrecision(nn.Conv2d):
    """A convolution that stays in single precision: backwards, oneDNN's depthwise ones are slow in bfloat16."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


def keep_precise(network: nn.Module) -> None:
    """Keep the encoder's depthwise convolutions in single precision."""
    for module in network.pretrained.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.__class__ = FullPrecision


def share_gradients(network: nn.Module, processes: int) -> None:
    """Every process goes on with the mean of all gradients."""
    gradients = [p.grad for p in network.parameters()]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    distributed.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient) / processes)


def round_of(step: int) -> Round:
    return next(part for part in ROUNDS if step < part.end)


def begins_round(step: int) -> bool:
    """Does a round other than the first begin with this step?"""
    return any(step == part.end for part in ROUNDS)


def scenes_of(step: int) -> int:
    """How many scenes a step draws from, however fast the renderer is."""
    return min(AT_ONCE + step, round_of(step).scenes)


def rate(step: int) -> float:
    """Learning rate: in each round a linear rise, a plateau, then a half cosine to nothing."""
    part = round_of(step)
    begin = max((past.end for past in ROUNDS if past.end <= step), default=0)
    fallen = max(0.0, (step - part.end + part.fall) / part.fall)
    return part.rate * min(1.0, (step - begin + 1) / WARM) * 0.5 * (1 + math.cos(math.pi * fallen))


def optimizers(network: nn.Module, step: int) -> list[torch.optim.Optimizer]:
    """Who moves the weights in this step's round: AdamW, from the second round on Muon where there are matrices."""
    if step < ROUNDS[0].end:
        return [torch.optim.AdamW(groups(network.parameters()), fused=True)]
    matrices, rest = divided(network)
    return [torch.optim.AdamW(groups(rest), fused=True), FilterMuon(matrices)]


@torch.no_grad()
def follow(mean: nn.Module, network: nn.Module, inertia: float) -> None:
    """Move the running mean of all weights and statistics a little towards the network."""
    for slow, fast in zip(mean.state_dict().values(), network.state_dict().values(), strict=True):
        if slow.is_floating_point():
            slow.lerp_(fast, 1 - inertia)
        else:
            slow.copy_(fast)


def conclude(part: Round, network: nn.Module, mean: nn.Module, before: nn.Module) -> None:
    """All three become the round's result: the running mean, mixed with the result of the round `before`."""
    follow(mean, before, 1 - part.earlier)
    for other in (network, before):
        other.load_state_dict(mean.state_dict())


def closing(pool: scene_pool.Pool, seed: int, batches: int = 60) -> Iterator[torch.Tensor]:
    """The pictures whose statistics the batch norms keep."""
    rng = np.random.default_rng([seed, STEPS])
    _, size, shapes, _ = STAGES[-1]
    for number in range(batches):
        yield drawn(pool, rng, STEPS - 1, size, shapes[number % len(shapes)]).pictures


def save_checkpoint(
    path: Path, step: int, network: nn.Module, mean: nn.Module, before: nn.Module, learners: list
) -> None:
    state = {
        "step": step,
        "network": network.state_dict(),
        "mean": mean.state_dict(),
        "before": before.state_dict(),
        "optimizers": [learner.state_dict() for learner in learners],
    }
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def resume(
    path: Path, network: nn.Module, mean: nn.Module, before: nn.Module
) -> tuple[int, list[torch.optim.Optimizer]]:
    """The step to go on with, 0 without a checkpoint, and its optimizers."""
    if not path.exists():
        mean.load_state_dict(network.state_dict())
        return 0, optimizers(network, 0)
    state = torch.load(path, weights_only=True)
    for name, part in (("network", network), ("mean", mean), ("before", before)):
        part.load_state_dict(state[name])
    learners = optimizers(network, state["step"] - 1)
    for learner, saved in zip(learners, state["optimizers"], strict=True):
        learner.load_state_dict(saved)
    return state["step"], learners


@torch.inference_mode()
def evaluate(network: nn.Module, count: int, first: int = scene_pool.HELD_OUT) -> list[tuple[str, float, float]]:
    """(kind, δ1, Spearman) of held-out scenes from seed `first` on; landscape, portrait and square ones in turn."""
    figures = []
    for seed in filter(scenes.is_used, itertools.count(first)):
        if len(figures) == count:
            break
        picture = scenes.render(seed, *((192, 256), (256, 192), (256, 256))[len(figures) % 3])
        if depth_measures.judged(picture.depth).mean() < 0.01:
            continue  # all sky: nothing to judge
        rgb = torch.from_numpy(picture.rgb.copy()).permute(2, 0, 1)[None].float() / 255
        prediction = network((rgb - scene_pool.MEAN) / scene_pool.STD)[0].numpy()
        figures.append((picture.kind, *depth_measures.judge(prediction, picture.depth)))
    return figures


def report(network: nn.Module, count: int) -> str:
    """Figures over all held-out scenes and for each kind; close views of rooms and nearby views apart from them."""
    figures = evaluate(network, count)
    lines = [_line("all", figures)]
    lines += [_line(kind, [f for f in figures if f[0] == kind]) for kind in sorted({f[0] for f in figures})]
    for name, offset in (("closeup", scenes.CLOSE), ("nearby", scenes.NEARBY)):
        lines.append(_line(name, evaluate(network, count, scene_pool.HELD_OUT + offset)))
    return "\n".join(lines)


def _line(name: str, figures: list[tuple[str, float, float]]) -> str:
    delta1, spearman = (np.array([f[k] for f in figures]) for k in (1, 2))
    ranks = f"Spearman median {np.median(spearman):.4f} mean {spearman.mean():.4f}"
    return f"{name:10} {len(figures):4} scenes  delta1 mean {delta1.mean():.4f}  {ranks}"


if __name__ == "__main__":
    raise SystemExit(main())
