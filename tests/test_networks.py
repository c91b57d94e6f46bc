"""The networks compute what the original code computed, from facts recorded in `tests/references`.

Errors are maximal errors over the output's range. In float64 nothing but the last digits may differ: a mistake as
small as a layer norm's epsilon shows there, on every processor.

In float32 two correct evaluations differ by their rounding, which the networks amplify. The error may be 2e-5, or
what the recording itself is off from the original in float64, where that is more (DPT_Hybrid's square, 3.0e-5 and
wide part, 2.2e-5; MiDaS's wide part, 2.4e-5). The original code misses its own recordings by as much: MiDaS's by
2.2e-5 on a processor without AVX-512. LeViT's batch norms amplify rounding, so it is given 1e-4.
"""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch

from benchmarks import zoo
from benchmarks.worker import random_network
from depth import images
from depth.models import MODELS, find
from depth.networks import build, checkpoints
from tests.references import NAMES, Reference

TOLERANCE, TOLERANCE_LEVIT = 2e-5, 1e-4
TOLERANCE_FLOAT64 = 1e-12  # found: 1.3e-14 and less
STATISTICS = ("num_batches_tracked", "running_mean", "running_var")
LARGE = {row.name for row in MODELS if row.parameters > 2e8}
ONE_PER_FAMILY = list({row.family: row for row in reversed(MODELS)}.values())
NON_SQUARE = [row for row in MODELS if row.resize != "square"]
SQUARE = [row for row in MODELS if row.resize == "square"]


CHEAP_FIRST = [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else [])
               for name in sorted(NAMES, key=lambda name: find(name).parameters)]


@pytest.fixture(scope="module", params=CHEAP_FIRST)
def recorded(request):
    """The recording and our network with its weights, one at a time: the large ones take gigabytes."""
    reference = Reference(request.param)
    return reference, seeded(reference)


def hollow(row):
    """A network that can compute but holds zeros: every tensor is one number, seen through its shape."""
    return checkpoints.load(row, {
        key: torch.zeros((), dtype=getattr(torch, dtype)).expand(shape)
        for key, (shape, dtype) in checkpoints.schema(row).items()})


def seeded(reference: Reference) -> torch.nn.Module:
    return checkpoints.load(find(reference.name), {
        key: torch.from_numpy(array) for key, array in reference.state_dict().items()})


@torch.inference_mode()
def error(network: torch.nn.Module, picture: np.ndarray, expected: np.ndarray) -> float:
    """Of every so many pixels of the output, as the recording has them."""
    output = network(torch.from_numpy(picture))[0].numpy()
    step = -(-len(output) // len(expected))
    output = output[::step, ::step]
    assert output.dtype == expected.dtype == picture.dtype
    assert output.shape == expected.shape
    return float(np.abs(output - expected).max() / (expected.max() - expected.min()))


def test_every_published_model_has_a_recording():
    assert set(NAMES) == {row.name for row in MODELS if row.sources}


def test_output_equals_the_original(recorded):
    """Whole picture, and where the encoder can, a part that is wider than high."""
    reference, network = recorded
    tolerance = TOLERANCE_LEVIT if find(reference.name).family == "levit" else TOLERANCE
    assert error(network, reference.picture(), reference.square) <= max(tolerance, reference.noise)
    if reference.wide is not None:
        assert error(network, reference.part(), reference.wide) <= max(tolerance, reference.noise_wide)


def test_output_in_float64_equals_the_original_to_its_last_digits(recorded):
    """The part that is wider than high, where the encoder can, else the whole picture."""
    reference, network = recorded
    picture = reference.picture() if reference.wide is None else reference.part()
    network = copy.deepcopy(network).double()
    assert error(network, picture.astype(np.float64), reference.exact) <= TOLERANCE_FLOAT64


def test_wide_recording_exists_for_every_encoder_that_can():
    assert {name for name in NAMES if Reference(name).wide is not None} == {
        row.name for row in NON_SQUARE if row.sources}


def test_output_does_not_depend_on_the_other_pictures_of_the_batch():
    reference = Reference("MiDaS_small")
    network = seeded(reference)
    picture = torch.from_numpy(reference.picture())
    with torch.inference_mode():
        alone, together = network(picture), network(torch.cat((picture, picture.flip(3))))
    assert (alone - together[:1]).abs().max() <= 1e-5 * alone.max()


@pytest.mark.parametrize("row", [row for row in NON_SQUARE if row.name not in LARGE], ids=lambda row: row.name)
def test_any_multiple_of_32_is_taken(row):
    network = hollow(row)
    with torch.inference_mode():
        for size in [(64, 96), (96, 32)]:
            assert network(torch.zeros(2, 3, *size)).shape == (2, *size)


@pytest.mark.parametrize("row", SQUARE, ids=lambda row: row.name)
def test_square_network_refuses_another_size(row):
    network = build(row)
    for size in [(row.size, row.size - 32), (row.size - 32, row.size), (row.size + 32, row.size + 32)]:
        with pytest.raises(ValueError, match=f"{row.size}x{row.size}"):
            network(torch.zeros(1, 3, *size, device="meta"))


@pytest.mark.parametrize("row", SQUARE, ids=lambda row: row.name)
def test_preparing_a_picture_squeezes_it_to_the_square_network(row):
    prepared = images.prepare(np.full((40, 90, 3), 0.5, dtype=np.float32), row)
    assert prepared.shape == (1, 3, row.size, row.size)
    assert build(row)(prepared.to("meta")).shape == (1, row.size, row.size)


@pytest.mark.parametrize("row", ONE_PER_FAMILY, ids=lambda row: row.family)
def test_half_precision_goes_through_the_whole_network(row):
    """Nothing on the way is pinned to float32. Shapes and dtypes are all that meta computes."""
    picture = torch.empty(1, 3, row.size, row.size, dtype=torch.float16, device="meta")
    assert build(row).half()(picture).dtype == torch.float16


@pytest.mark.parametrize("row", NON_SQUARE, ids=lambda row: row.name)
def test_size_that_is_no_multiple_of_32_is_refused(row):
    with pytest.raises(ValueError, match="multiples of 32"):
        build(row)(torch.zeros(1, 3, 96, 100, device="meta"))


@pytest.mark.parametrize("row", MODELS, ids=lambda row: row.name)
def test_build_takes_no_memory(row):
    network = build(row)
    assert all(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))
    assert not network.training


@pytest.mark.parametrize("row", MODELS, ids=lambda row: row.name)
def test_building_and_loading_draw_no_random_numbers(row):
    before = torch.get_rng_state()
    hollow(row)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("row", MODELS, ids=lambda row: row.name)
def test_parameter_count_of_the_row_is_the_checkpoints(row):
    """Counters and structural tensors are no parameters; running statistics are none either."""
    if row.bundled:
        counted = sum(parameter.numel() for parameter in build(row).parameters())
    else:
        counted = sum(int(np.prod(shape)) for key, (shape, rule) in Reference(row.name).tensors.items()
                      if rule != "structural" and not key.endswith(STATISTICS))
    assert counted == row.parameters


def test_building_leaves_no_hooks_behind():
    for row in MODELS:
        for module in build(row).modules():
            assert not module._forward_hooks
            assert not module._forward_pre_hooks


def test_a_hook_on_one_block_stays_on_it():
    first, second, *_ = build(find("DPT_Large")).pretrained.model.blocks
    first.mlp.register_forward_hook(print)
    assert not second.mlp._forward_hooks


def test_the_original_way_in_the_benchmarks_fills_every_tensor():
    small = {"backbone": "vision_transformer.vit_tiny_patch16_384", "hooks": (2, 5, 8, 11), "features": (8, 8, 8, 8)}
    row = dataclasses.replace(find("DPT_Large"), network=small)
    filled = random_network(row).state_dict()
    assert filled.keys() == build(row).state_dict().keys()
    weights = [tensor for key, tensor in filled.items() if tensor.ndim > 1 and not key.endswith("cls_token")]
    assert all(float(tensor.std()) > 1e-3 for tensor in weights)


def test_zoo_benchmark_measures_a_model(tmp_path, capsys):
    assert zoo.main(["--models", "tiny", "--runs", "1", "--threads", "1", "--json", str(tmp_path / "zoo.json")]) == 0
    [result] = json.loads((tmp_path / "zoo.json").read_text())
    assert result["name"] == "Tiny"
    assert result["peak_bytes"] > result["base_bytes"] > 0
    assert "| Tiny | 256×256 | 3.6 M |" in capsys.readouterr().out


def test_zoo_benchmark_refuses_an_unknown_model(capsys):
    assert zoo.main(["--models", "dpt_larg"]) == 2
    assert "Did you mean DPT_Large" in capsys.readouterr().err
