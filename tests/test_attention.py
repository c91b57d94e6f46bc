"""The attention of compiled networks gives what torch's own gives, and where it cannot be, that one is compiled."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from depth import attention, compiling
from depth.engines import Sizes
from depth.models import find
from depth.networks import build, encoders
from depth.tuning import simplified, vectors

HEADS, WIDTH = 3, 64
PLAIN = ["DPT_Large", "DPT_Hybrid", "DPT_BEiT_L_512"]
needs_vectors = pytest.mark.skipif(vectors() not in attention.WIDTHS, reason="needs a processor with AVX2 or AVX-512")


class Attending(nn.Module):
    def forward(self, qkv, bias=None):
        return attention.attend(qkv + 1, HEADS, bias)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "biased"])
def code(request, tmp_path_factory):
    """The compiled step for any batch and any number of tokens, and whether it takes a bias."""
    biased, path = request.param, tmp_path_factory.mktemp("attention") / "code.pt2"
    tokens = torch.export.Dim("tokens", min=2, max=5000)
    free = [{0: torch.export.Dim("batch", min=1, max=8), 1: tokens + encoders.IDLE}, {2: tokens, 3: tokens}]
    program = torch.export.export(Attending(), given(2, 30, biased), dynamic_shapes=tuple(free[: 1 + biased]))
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    return torch._inductor.aoti_load_package(str(path)), biased


def given(batch, tokens, biased):
    noise = torch.Generator().manual_seed(tokens)
    qkv = torch.randn(batch, tokens + encoders.IDLE, 3 * HEADS * WIDTH, generator=noise) * 2
    return (qkv, torch.randn(1, HEADS, tokens, tokens, generator=noise)) if biased else (qkv,)


@pytest.mark.slow
@needs_vectors
@pytest.mark.parametrize(("batch", "tokens"), [(1, 2), (3, 16), (1, 97), (2, 577), (1, 768), (1, 1601)])
def test_compiled_attention_equals_torchs_own(code, batch, tokens):
    """Fewer tokens than a vector holds, whole tiles and parts of them, one block of keys and several."""
    run, biased = code
    pictures = given(batch, tokens, biased)
    wanted = encoders.attend(pictures[0] + 1, HEADS, *pictures[1:])
    torch.testing.assert_close(run(*pictures), wanted, atol=3e-5, rtol=0)


@pytest.mark.slow
@needs_vectors
def test_scores_too_large_for_an_exponential_do_no_harm(code):
    run, biased = code
    pictures = [40 * part for part in given(1, 800, biased)]
    wanted = encoders.attend(pictures[0] + 1, HEADS, *pictures[1:])
    got = run(*pictures)
    assert torch.isfinite(got).all()
    torch.testing.assert_close(got, wanted, atol=1e-4 * wanted.abs().max().item(), rtol=0)


@pytest.mark.slow
@needs_vectors
def test_more_threads_than_heads_share_a_head(code):
    run, biased = code
    pictures, before = given(1, 333, biased), torch.get_num_threads()
    wanted = encoders.attend(pictures[0] + 1, HEADS, *pictures[1:])
    torch.set_num_threads(8)
    try:
        got = run(*pictures)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(got, wanted, atol=3e-5, rtol=0)


@pytest.mark.slow
@needs_vectors
def test_a_compiled_transformer_attends_by_it_and_equals_the_eager_one(tmp_path):
    torch.manual_seed(0)
    encoder = encoders.VitEncoder("vision_transformer.vit_tiny_patch16_384", hooks=(0, 1), features=(8, 8))
    encoder.eval().requires_grad_(False)
    for tensor in encoder.state_dict().values():  # built without initialisation
        tensor.copy_(torch.randn(tensor.shape) * 0.1)
    assert attention.fuse(encoder)
    free = {axis: 32 * torch.export.Dim(name, min=2, max=40) for axis, name in ((2, "h"), (3, "w"))}
    program = torch.export.export(encoder, (torch.randn(1, 3, 96, 128),), dynamic_shapes=(free,))
    assert sum("depthmap.attend" in str(node.target) for node in program.graph.nodes) == 2
    path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "code.pt2"))
    run = torch._inductor.aoti_load_package(path)
    del encoder.attend
    for h, w in ((96, 128), (384, 384), (64, 512)):
        picture = torch.randn(1, 3, h, w)
        for got, wanted in zip(run(picture), encoder(picture), strict=True):
            torch.testing.assert_close(got, wanted, atol=1e-5 * wanted.abs().max().item(), rtol=0)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_transformers_attend_by_it(name, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    network = build(find(name))
    assert attention.fuse(network) and network.pretrained.attend is attention.attend


@pytest.mark.parametrize("name", ["MiDaS_small", "DPT_SwinV2_T_256", "DPT_LeViT_224"])
def test_other_networks_are_left_alone(name):
    assert not attention.fuse(build(find(name)))


def test_without_long_vectors_torchs_own_is_compiled(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    network = build(find("DPT_Large"))
    assert not attention.fuse(network) and network.pretrained.attend is encoders.attend


def test_where_the_template_cannot_be_imported_torchs_own_is_compiled(monkeypatch, tmp_path, caplog):
    monkeypatch.setitem(sys.modules, "depth.attention", None)
    monkeypatch.delattr("depth.attention")
    monkeypatch.setattr(compiling, "_packaged", lambda network, *_: network.pretrained.attend)
    row = find("DPT_Large")
    assert compiling._aoti(simplified(build(row)), row, Sizes(), {}, tmp_path) is encoders.attend
    assert "with torch's own attention" in caplog.text


def test_where_the_template_cannot_be_compiled_torchs_own_is(monkeypatch, tmp_path, caplog):
    tried = []

    def packaged(network, *_):
        tried.append(network.pretrained.attend)
        if network.pretrained.attend is attention.attend:
            raise AttributeError("no such template")
        return "engine", {}

    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(compiling, "_packaged", packaged)
    row = find("DPT_Large")
    assert compiling._aoti(simplified(build(row)), row, Sizes(), {}, tmp_path) == ("engine", {})
    assert tried == [attention.attend, encoders.attend]
    assert "no such template" in caplog.text
