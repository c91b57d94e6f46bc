"""The network as the compiler gets it when it learns on a GPU: the same sums, and the same slopes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from scripts import learning, scene_pool, scenes
from scripts.compilable import compilable, doubled


@pytest.mark.parametrize("align_corners", [True, False])
def test_doubling_is_bilinear_upsampling_and_so_is_its_slope(align_corners):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 7, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    got, wanted = doubled(x, align_corners), F.interpolate(
        x, scale_factor=2.0, mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)
    weights = torch.randn(wanted.shape, generator=generator, dtype=torch.float64)
    slopes = [torch.autograd.grad(y, x, weights)[0] for y in (got, wanted)]
    torch.testing.assert_close(*slopes, rtol=0, atol=1e-6)


def test_doubled_maps_lie_channels_last_in_the_precision_they_came_in():
    x = doubled(torch.randn(2, 8, 3, 4).bfloat16(), align_corners=True)
    assert x.shape == (2, 8, 6, 8) and x.dtype == torch.bfloat16
    assert x.is_contiguous(memory_format=torch.channels_last)


def loss_and_slopes(network: nn.Module) -> tuple[float, dict[str, torch.Tensor]]:
    rendered = [scenes.render(seed, 96, 128) for seed in range(4)]
    rgb = torch.from_numpy(np.stack([one.rgb for one in rendered])).permute(0, 3, 1, 2) / 255
    inverse = torch.from_numpy(np.stack([scene_pool.inverse_depth(one.depth) for one in rendered]))
    network.load_state_dict(learning.read(learning.WEIGHTS))  # by the published names
    loss = learning.criterion(network((rgb - scene_pool.MEAN) / scene_pool.STD), inverse, fitted=True)
    loss.backward()
    return loss.item(), {name: p.grad for name, p in network.named_parameters()}


def test_the_rewritten_network_learns_what_the_plain_one_learns():
    wanted_loss, wanted = loss_and_slopes(learning.fresh())
    loss, slopes = loss_and_slopes(compilable(learning.fresh()))
    assert loss == pytest.approx(wanted_loss, rel=1e-5)
    assert slopes.keys() == wanted.keys()
    length = torch.stack([slope.norm() for slope in wanted.values()]).norm()
    away = torch.stack([(slopes[name] - slope).norm() for name, slope in wanted.items()]).norm()
    assert away < 1e-4 * length
