"""What is rearranged for the compiler computes what it computed before, with the parameters where they were."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from depth import compiling, supply
from depth.models import MODELS, find
from depth.networks import build, checkpoints
from depth.networks.decoder import Readout
from depth.rearranging import GatheredConv, MinimalConv, RowNorm, SplitReadout, UpsampledConv, rearranged
from depth.tuning import simplified, tuned
from tests.references import Reference

BY_SIZE = sorted(MODELS, key=lambda model: model.parameters, reverse=True)
SMALLEST = {model.family: model for model in BY_SIZE}  # of each family; the last one stays
TOLERANCE, TOLERANCE_LEVIT = 2e-5, 1e-4  # of the range; LeViT's batch norms amplify rounding


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("h", "w"), [(1, 2), (2, 3), (24, 40)])
def test_a_convolution_before_the_upsampling_equals_one_behind_it(h, w, align_corners):
    convolution = nn.Conv2d(6, 4, 3, padding=1).requires_grad_(False)
    x = torch.randn(2, 6, h, w)
    larger = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(UpsampledConv(convolution, align_corners)(x), convolution(larger), atol=1e-5, rtol=1e-5)


def test_a_large_convolution_before_the_upsampling_is_the_more_exact_one():
    """torch rounds the places that it upsamples from; ours are a ratio of whole numbers."""
    convolution = nn.Conv2d(2, 2, 3, padding=1).requires_grad_(False)
    x = torch.randn(1, 2, 32, 1024)
    larger = F.interpolate(x.double(), scale_factor=2.0, mode="bilinear", align_corners=True)
    exact = F.conv2d(larger, convolution.weight.double(), convolution.bias.double(), padding=1)
    plain = convolution(F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True))
    assert (UpsampledConv(convolution, True)(x) - exact).abs().max() < (plain - exact).abs().max()


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(16, 16, 0), (3, 2, 1), (1, 1, 0)])
@pytest.mark.parametrize("bias", [True, False])
def test_gathered_pixels_equal_the_convolution(kernel, stride, padding, bias):
    convolution = nn.Conv2d(3, 8, kernel, stride, padding, bias=bias).requires_grad_(False)
    x = torch.randn(2, 3, 48, 32)
    torch.testing.assert_close(GatheredConv(convolution)(x), convolution(x), atol=1e-5, rtol=1e-5)


def test_gathered_pixels_equal_the_convolution_without_one_dnn(monkeypatch):
    monkeypatch.setattr("depth.tuning.onednn_pays", lambda: False)
    convolution = nn.Conv2d(3, 8, 3, 2, 1).requires_grad_(False)
    x = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(GatheredConv(convolution)(x), convolution(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("h", "w"), [(4, 4), (4, 8), (24, 40)])
@pytest.mark.parametrize("bias", [True, False])
def test_minimal_filtering_equals_the_convolution(h, w, bias):
    convolution = nn.Conv2d(6, 5, 3, padding=1, bias=bias, dtype=torch.float64).requires_grad_(False)
    x = torch.randn(2, 6, h, w, dtype=torch.float64)
    torch.testing.assert_close(MinimalConv(convolution)(x), convolution(x), atol=1e-12, rtol=1e-12)


def test_minimal_filtering_in_single_precision_is_within_a_few_roundings():
    convolution = nn.Conv2d(256, 8, 3, padding=1).requires_grad_(False)
    x = torch.randn(1, 256, 16, 16)
    got, wanted = MinimalConv(convolution)(x), convolution(x)
    assert (got - wanted).abs().max() <= 1e-5 * (wanted.max() - wanted.min())


@pytest.mark.parametrize(("pays", "count"), [(True, 5), (False, 0)])
def test_wide_convolutions_of_many_pixels_are_filtered_minimally_where_mkl_multiplies(pays, count, monkeypatch):
    monkeypatch.setattr("depth.rearranging.mkl_pays", lambda: pays)
    network = rearranged(simplified(build(find("DPT_Large"))))
    assert sum(isinstance(module, MinimalConv) for module in network.modules()) == count


def test_a_split_readout_equals_the_whole():
    readout = Readout(24).requires_grad_(False)
    tokens = torch.randn(2, 13, 24)
    torch.testing.assert_close(SplitReadout(readout)(tokens), readout(tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("offset", [0, 30])
def test_a_row_norm_equals_the_layer_norm(offset):
    """Of rows far from zero each mean is rounded to their size."""
    torch.manual_seed(0)
    norm = nn.LayerNorm(40, eps=1e-6).requires_grad_(False)
    norm.weight.copy_(torch.randn(40))
    norm.bias.copy_(torch.randn(40))
    rows = torch.randn(2, 13, 40) + offset
    wanted = copy.deepcopy(norm).double()(rows.double()).float()
    torch.testing.assert_close(RowNorm(norm)(rows), wanted, atol=2e-6 * (1 + offset), rtol=0)


def test_only_layer_norms_of_rows_become_row_norms():
    class LayerNorm2d(nn.LayerNorm):
        """As timm's: of another dimension."""

    network = nn.Sequential(nn.LayerNorm(4), LayerNorm2d(4), nn.LayerNorm((2, 4)), nn.LayerNorm(4, bias=False))
    assert [type(module) is RowNorm for module in rearranged(network)] == [True, False, False, False]


@pytest.mark.slow
@pytest.mark.parametrize("family", SMALLEST)
def test_every_network_is_the_same_rearranged(family, monkeypatch):
    """The parameters too: compiled code looks them up in the checkpoint."""
    monkeypatch.setattr("depth.rearranging.mkl_pays", lambda: True)
    model = SMALLEST[family]
    plain = _network(model)
    names = {name: tensor.shape for name, tensor in plain.state_dict().items()}
    other = tuned(rearranged(simplified(copy.deepcopy(plain))))
    assert {name: tensor.shape for name, tensor in other.state_dict().items()} == names
    assert any(isinstance(module, UpsampledConv) for module in other.modules())
    size = (model.size,) * 2 if model.resize == "square" else (96, 160)
    picture = torch.from_numpy(compiling._picture(*size))
    with torch.inference_mode():
        wanted, got = plain(picture), other(picture)
    tolerance = TOLERANCE_LEVIT if family == "levit" else TOLERANCE
    assert (got - wanted).abs().max() <= tolerance * (wanted.max() - wanted.min())


def _network(model):
    if model.bundled:
        return supply.network(model, supply.tensors(model)[0])
    tensors = Reference(model.name).state_dict()
    return checkpoints.load(model, {name: torch.from_numpy(array) for name, array in tensors.items()})
