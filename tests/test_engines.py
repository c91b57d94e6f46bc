"""Engines: numpy in, numpy out, equal to the plain network, and no size they were not made for."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from depth import engines, supply, tuning
from depth.engines import Eager, Sizes, kinds, no_collection, sizes_of
from depth.models import MODELS, find
from depth.networks.decoder import FusionBlock
from depth.tuning import FIXED, EarlyProjection, FastLinear, OneOutput, blocks, in_blocks, simplified, tuned


class Toy(nn.Module):
    """A patch embedding, a linear layer on tokens and a convolution, as the large networks have them."""

    side = None  # takes any size

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 16, 16)
        self.mix = nn.Sequential(nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 32, bias=False))
        self.out = nn.Conv2d(32, 1, 3, padding=1)

    def forward(self, x):
        x = self.patch(x)
        h, w = x.shape[-2:]
        x = self.mix(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (h, w))
        return nn.functional.interpolate(self.out(x), scale_factor=16.0, mode="bilinear")[:, 0]


def picture(n=1, h=64, w=96):
    return np.random.default_rng(0).normal(size=(n, 3, h, w)).astype(np.float32)


def test_eager_equals_the_plain_network():
    network = Toy().eval()
    with torch.inference_mode():
        wanted = network(torch.from_numpy(picture(2))).numpy()
    got = Eager(network)(picture(2))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, atol=1e-5 * np.ptp(wanted))


def test_eager_runs_in_half_precision():
    network = Toy().eval()
    wanted = Eager(network)(picture())
    got = Eager(Toy().eval().requires_grad_(False), dtype="bfloat16")(picture())
    assert got.dtype == np.float32 and got.shape == wanted.shape


def test_eager_leaves_mapped_weights_alone_until_the_first_picture():
    network = Toy().eval()
    place = network.patch.weight.data_ptr()
    engine = Eager(network)
    assert network.patch.weight.data_ptr() == place
    engine(picture())
    assert network.patch.weight.is_contiguous(memory_format=torch.channels_last)


def test_tuning_keeps_every_parameter_where_it_lies():
    network = Toy().eval().requires_grad_(False)
    before = {name: tensor.data_ptr() for name, tensor in network.state_dict().items()}
    after = {name: tensor.data_ptr() for name, tensor in tuned(network).state_dict().items()}
    assert after == before


class Operators(TorchDispatchMode):
    """Notes which of torch's operators are called."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.name())
        return function(*args, **kwargs or {})


WAYS = {("AVX512", False): "mkldnn::_linear_pointwise", ("AVX512", True): "aten::bmm", ("AVX2", False): "aten::bmm",
        ("AVX2", True): "aten::bmm", ("DEFAULT", False): "aten::addmm", ("DEFAULT", True): "aten::addmm"}


@pytest.fixture(params=WAYS, ids=str)
def processor(request, monkeypatch):
    """Vectors, and whether it is Intel's."""
    vectors, intel = request.param
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: vectors)
    monkeypatch.setattr("depth.tuning._is_intel", lambda: intel)
    return request.param


@pytest.mark.parametrize(("told", "intel"), [("vendor_id : GenuineIntel", True), ("vendor_id : AuthenticAMD", False)])
def test_the_kernel_tells_whose_processor_it_is(told, intel, monkeypatch):
    monkeypatch.setattr("depth.tuning.Path.read_text", lambda *_, **__: told)
    assert tuning._is_intel.__wrapped__() is intel


@pytest.mark.parametrize(("told", "intel"), [("Intel64 Family 6, GenuineIntel", True), ("arm", False), ("", False)])
def test_where_the_kernel_does_not_python_tells_whose_processor_it_is(told, intel, monkeypatch):
    def absent(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr("depth.tuning.Path.read_text", absent)
    monkeypatch.setattr("platform.processor", lambda: told)
    assert tuning._is_intel.__wrapped__() is intel


def test_products_go_the_way_that_is_fastest_on_this_processor(processor, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    layer = FastLinear(nn.Linear(1024, 1024).requires_grad_(False))
    with Operators() as called:
        layer(torch.ones(3, 1024))
    assert called.names & {*WAYS.values()} == {WAYS[processor]}


@pytest.mark.parametrize(("inputs", "outputs"), [(48, 80), (1024, 1024), (1024, 4096)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_fast_linear_layer_equals_torchs(bias, inputs, outputs, processor):
    linear = nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)
    x = torch.randn(2, 7, inputs)
    torch.testing.assert_close(FastLinear(linear)(x), linear(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(48,), (7, 48), (2, 3, 7, 48)])
def test_a_product_in_blocks_has_the_shape_of_the_whole(shape):
    weight, bias, x = torch.randn(24, 48), torch.randn(24), torch.randn(shape)
    torch.testing.assert_close(in_blocks(x, weight, bias, 4), nn.functional.linear(x, weight, bias),
                               atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("outputs", "threads", "largest", "count"), [
    (4096, 2, 512, 8), (3072, 2, 512, 6), (1024, 2, 512, 2), (1024, 1, 512, 2), (1024, 8, 512, 8),
    (4096, 2, 2048, 2), (3072, 2, 2048, 2), (1024, 2, 2048, 2), (1024, 1, 2048, 1),
    (1024, 6, 512, 1), (1024, 16, 512, 1), (1021, 2, 512, 1)])  # what cannot be shared out evenly or without crumbs
def test_outputs_are_shared_out_among_the_threads(outputs, threads, largest, count):
    assert blocks(outputs, 1024, threads, largest) == count


def test_outputs_of_few_inputs_are_not_shared_out():
    assert blocks(4096, 768, 2, 512) == 1


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_linear_layers_become_fast_ones_in_full_precision_only(device):
    assert type(tuned(Toy().to(device)).mix[0]) is FastLinear
    assert type(tuned(Toy().to(device, torch.bfloat16)).mix[0]) is nn.Linear


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (7, 2), (3, 1)])
@pytest.mark.parametrize("kind", ["Conv2dSame", "StdConv2dSame"])
def test_fixed_padding_equals_the_computed_one(kind, kernel, stride):
    from depth.networks import encoders  # knows how timm can be imported beside a torchvision that does not fit

    convolution = getattr(encoders.layers, kind)(4, 6, kernel, stride=stride).requires_grad_(False)
    x = torch.randn(1, 4, 64, 32)
    torch.testing.assert_close(FIXED[kind](convolution)(x), convolution(x))


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2)])
def test_a_maximum_with_fixed_padding_equals_that_with_the_computed_one(kernel, stride):
    from depth.networks import encoders

    x = torch.randn(1, 4, 64, 32) - 5  # zeros at the border would win
    pool = encoders.layers.pool2d_same.MaxPool2dSame(kernel, stride)
    torch.testing.assert_close(FIXED["MaxPool2dSame"](pool)(x), pool(x))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_no_layer_is_left_that_computes_its_padding(model):
    from depth.networks import build

    left = {type(module).__name__ for module in simplified(build(model)).modules()
            if type(module).__name__.endswith("2dSame") and getattr(module, "same_pad", True)}
    assert not left


@pytest.mark.parametrize(("doubles", "size"), [(True, (12, 16)), (False, (11, 15))])
@pytest.mark.parametrize("has_skip", [True, False])
def test_projecting_early_equals_projecting_last(doubles, size, has_skip):
    block = FusionBlock(8, 4, has_skip=has_skip).requires_grad_(False)
    path, skip = torch.randn(2, 2, 8, 6, 8)
    skip = skip if has_skip else None
    early = EarlyProjection(block, doubles)(path, skip, size)
    torch.testing.assert_close(early, block(path, skip, size), atol=1e-5, rtol=1e-5)


def test_the_product_of_one_output_equals_the_convolution():
    convolution = nn.Conv2d(32, 1, 1).requires_grad_(False)
    x = torch.randn(2, 32, 6, 10).to(memory_format=torch.channels_last)
    torch.testing.assert_close(OneOutput(convolution)(x), convolution(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(256, 256), (160, 224)])
def test_the_tuned_bundled_network_equals_the_plain_one(size):
    plain, fast = (supply.network(find("Tiny"), supply.tensors(find("Tiny"))[0]) for _ in range(2))
    x = torch.randn(1, 3, *size)
    with torch.inference_mode():
        wanted, got = plain(x), tuned(fast)(x)
    assert (got - wanted).abs().max() <= 2e-5 * torch.aminmax(wanted).max


def test_tuning_leaves_half_precision_alone():
    network = tuned(Toy().to(torch.bfloat16))
    assert type(network.mix[0]) is nn.Linear


@pytest.mark.parametrize(("h", "w"), [(384, 500), (32, 384), (384, 4096)])
def test_free_sizes_refuse_what_was_not_compiled(h, w):
    assert not Sizes().accept(h, w)


def test_square_models_accept_their_square_only():
    sizes = sizes_of(find("DPT_SwinV2_T_256"))
    assert sizes.accept(256, 256) and not sizes.accept(256, 288)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_large_weights_are_never_stored_twice(model):
    large = model.bytes > engines.ONNX_BYTES
    assert ("onnx" in kinds(model)) != large and "aoti" in kinds(model)


def test_nothing_is_compiled_for_what_was_not_measured():
    model = SimpleNamespace(bytes=1, parameters=1)
    assert kinds(model, "cuda") == () and kinds(model, "cpu", "bfloat16") == ()


def test_threads_follow_the_usual_variable(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert engines.threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "zero")
    assert engines.threads() >= 1


def test_collection_comes_back_even_after_an_error():
    with pytest.raises(ValueError, match="no"), no_collection():
        assert not gc.isenabled()
        raise ValueError("no")
    assert gc.isenabled()


def test_what_was_made_without_collection_is_old_afterwards():
    with no_collection():
        made = [[] for _ in range(1000)]
    assert {id(thing) for thing in made} <= {id(thing) for thing in gc.get_objects(generation=2)}


def test_what_somebody_has_frozen_stays_frozen():
    """In a process of its own: here things that other threads let go would be missing from the count."""
    code = ("import gc\nfrom depth.engines import no_collection\ngc.freeze()\nfrozen = gc.get_freeze_count()\n"
            "with no_collection():\n    pass\nassert gc.get_freeze_count() == frozen > 0")
    subprocess.run([sys.executable, "-c", code], cwd=Path(engines.__file__).parents[1], check=True)


def test_collection_stays_off_where_it_was_off():
    gc.disable()
    try:
        with no_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
