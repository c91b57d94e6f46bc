"""The bundled model while it learns: its first weights, what is made small, who moves the weights, its file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from depth.models import find
from depth.networks import build
from scripts import depth_measures

WEIGHTS = Path(__file__).parents[1] / "depth" / "weights" / "tiny.safetensors"
DECAY = 0.02  # of the weights


def fresh() -> nn.Module:
    """The network with first weights."""
    network = build(find("Tiny")).to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.reset_parameters()
    for module in network.pretrained.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] ** 2 * module.out_channels // module.groups
            nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))
    nn.init.constant_(network.scratch.output_conv[4].bias, 0.5)  # above the closing ReLU's dead half
    network.scratch.output_conv[5] = nn.LeakyReLU(0.05)  # while it learns; a plain ReLU would let pixels die
    return network.to(memory_format=torch.channels_last).train()


def criterion(prediction: torch.Tensor, inverse: torch.Tensor, fitted: bool) -> torch.Tensor:
    """What is made small: the plain error and, once there is something to fit, the two fitted ones."""
    plain = depth_measures.plain_loss(prediction, inverse)
    if not fitted:
        return plain
    return plain + 0.3 * depth_measures.midas_loss(prediction, inverse) + depth_measures.ratio_loss(prediction, inverse)


def divided(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """What Muon moves, and the rest."""
    matrices = [p for p in network.parameters() if is_matrix(p)]
    taken = set(map(id, matrices))
    return matrices, [p for p in network.parameters() if id(p) not in taken]


def groups(parameters: Iterable[nn.Parameter]) -> list[dict[str, object]]:
    """For AdamW: filters decay, biases and norms do not."""
    parameters = list(parameters)
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def is_matrix(filters: torch.Tensor) -> bool:
    """Convolutions that mix channels, and have several outputs."""
    return filters.ndim == 4 and filters.shape[1] > 1 and len(filters) >= 8 and filters[0].numel() >= 16


class FilterMuon(torch.optim.Optimizer):
    """Muon (https://kellerjordan.github.io/posts/muon) for convolutions: a bank of filters is one matrix.

    It moves as `torch.optim.Muon` does, which multiplies in bfloat16 on every device: on a processor without it a
    step would take seconds.
    """

    def __init__(self, filters: list[nn.Parameter]):
        super().__init__(filters, {"lr": 1e-3})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for bank in group["params"]:
                if bank not in self.state:
                    self.state[bank]["momentum"] = torch.zeros_like(as_matrix(bank)[None])
                move([bank], self.state[bank]["momentum"], group["lr"])


def move(banks: Sequence[nn.Parameter], momentum: torch.Tensor, rate: float | torch.Tensor) -> None:
    """A step of Muon for banks whose matrices have one shape. `momentum`, banks × rows × columns, is moved along."""
    gradients = torch.stack([as_matrix(bank.grad) for bank in banks])
    momentum.lerp_(gradients, 0.05)
    changes = orthogonal(gradients.lerp(momentum, 0.95)) * (rate * 0.2 * max(gradients.shape[1:]) ** 0.5)
    for bank, change in zip(banks, changes.unbind(), strict=True):
        as_matrix(bank).mul_(1 - rate * DECAY).sub_(change)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Nearly the nearest matrices with equal singular values: five Newton-Schulz steps, as `torch.optim.Muon` does."""
    x = matrices.to(short(matrices.device))
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.775, alpha=2.0315), x, beta=3.4445)
    return (x.mT if tall else x).float()


def short(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies in it, else float32: a processor without it takes ten times as long."""
    computed = device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if computed else torch.float32


def as_matrix(filters: torch.Tensor) -> torch.Tensor:
    """Outputs × (kernel · inputs); shares memory with filters that lie channels last."""
    return filters.permute(0, 2, 3, 1).flatten(1)


@torch.no_grad()
def settle(network: nn.Module, pictures: Iterable[torch.Tensor]) -> None:
    """Gather the batch norms' statistics anew, over these batches and with the weights as they are.

    Those from training are of a few pictures a step, of weights that moved meanwhile, and of each process's own
    pictures only.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over all batches
        norm.train()
    for batch in pictures:
        network(batch)
    network.eval()


def save_weights(network: nn.Module, path: Path) -> None:
    """Half precision on disk, keys sorted, so that equal weights give equal bytes."""
    state = {
        k: v.half().contiguous() if v.is_floating_point() else v for k, v in sorted(network.state_dict().items())
    }
    save_file(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def read(path: Path) -> dict[str, torch.Tensor]:
    """The file's state dict in single precision."""
    return {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}


def load(path: Path) -> nn.Module:
    network = build(find("Tiny"))
    network.load_state_dict(read(path), strict=True, assign=True)
    return network.eval().to(memory_format=torch.channels_last)
