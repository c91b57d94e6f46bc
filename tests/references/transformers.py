"""The transformers layout, written from its side: what DPTForDepthEstimation calls each MiDaS tensor.

The opposite direction of `depth.networks.keys`, and deliberately another program: plain loops, no rules.
Source: the conversion scripts `convert_dpt*_to_*.py` of huggingface/transformers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

Pair = tuple[str, str]  # transformers name, official name
LINEAR = ("weight", "bias")


def convert(name: str, official: Mapping) -> dict:
    """The tensors of the model `name`, official layout, as Intel's file would hold them."""
    encoder, blocks, attention = KINDS[name]
    pairs = [*_decoder(), *encoder(blocks)]
    converted = {new: official[old] for new, old in pairs if old in official}
    for old, joint in official.items():
        if ".attn.qkv." in old:
            inside, what = attention.format(*re.findall(r"\d+", old)), old.rpartition(".")[2]
            third = len(joint) // 3
            for part, word in enumerate(("query", "key", "value")):
                converted[f"{inside}.{word}.{what}"] = joint[part * third:(part + 1) * third]
    return converted


def _decoder() -> Iterator[Pair]:
    for i in range(1, 5):
        yield f"neck.convs.{i - 1}.weight", f"scratch.layer{i}_rn.weight"
        fusion, refine = f"neck.fusion_stage.layers.{4 - i}", f"scratch.refinenet{i}"
        stage, post = "neck.reassemble_stage", f"pretrained.act_postprocess{i}"
        for what in LINEAR:
            yield f"{fusion}.projection.{what}", f"{refine}.out_conv.{what}"
            for a in (1, 2):
                for b in (1, 2):
                    yield (f"{fusion}.residual_layer{a}.convolution{b}.{what}",
                           f"{refine}.resConfUnit{a}.conv{b}.{what}")
            yield f"{stage}.readout_projects.{i - 1}.0.{what}", f"{post}.0.project.0.{what}"
            yield f"{stage}.layers.{i - 1}.projection.{what}", f"{post}.3.{what}"
            yield f"{stage}.layers.{i - 1}.resize.{what}", f"{post}.4.{what}"
    for layer in (0, 2, 4):
        for what in LINEAR:
            yield f"head.head.{layer}.{what}", f"scratch.output_conv.{layer}.{what}"


def _common(new: str, old: str) -> Iterator[Pair]:
    """One transformer block, without its attention's projections."""
    for what in LINEAR:
        yield f"{new}.layernorm_before.{what}", f"{old}.norm1.{what}"
        yield f"{new}.layernorm_after.{what}", f"{old}.norm2.{what}"
        yield f"{new}.intermediate.dense.{what}", f"{old}.mlp.fc1.{what}"
        yield f"{new}.output.dense.{what}", f"{old}.mlp.fc2.{what}"
        yield f"{new}.attention.output.dense.{what}", f"{old}.attn.proj.{what}"


def large(blocks: int) -> Iterator[Pair]:
    yield "dpt.embeddings.cls_token", "pretrained.model.cls_token"
    yield "dpt.embeddings.position_embeddings", "pretrained.model.pos_embed"
    for what in LINEAR:
        yield f"dpt.embeddings.patch_embeddings.projection.{what}", f"pretrained.model.patch_embed.proj.{what}"
        yield f"dpt.layernorm.{what}", f"pretrained.model.norm.{what}"
    for n in range(blocks):
        yield from _common(f"dpt.encoder.layer.{n}", f"pretrained.model.blocks.{n}")


def hybrid(blocks: int) -> Iterator[Pair]:
    for new, old in large(blocks):
        yield new.replace("patch_embeddings.", ""), old
    new, old = "dpt.embeddings.backbone.bit", "pretrained.model.patch_embed.backbone"
    yield f"{new}.embedder.convolution.weight", f"{old}.stem.conv.weight"
    for what in LINEAR:
        yield f"{new}.embedder.norm.{what}", f"{old}.stem.norm.{what}"
    for s, depth in enumerate((3, 4, 9)):
        for b in range(depth):
            for part in ("conv1", "conv2", "conv3", "norm1", "norm2", "norm3", "downsample.conv", "downsample.norm"):
                for what in LINEAR:
                    yield (f"{new}.encoder.stages.{s}.layers.{b}.{part}.{what}",
                           f"{old}.stages.{s}.blocks.{b}.{part}.{what}")


def beit(blocks: int) -> Iterator[Pair]:
    yield "backbone.embeddings.cls_token", "pretrained.model.cls_token"
    for what in LINEAR:
        yield (f"backbone.embeddings.patch_embeddings.projection.{what}",
               f"pretrained.model.patch_embed.proj.{what}")
    for n in range(blocks):
        new, old = f"backbone.encoder.layer.{n}", f"pretrained.model.blocks.{n}"
        yield from _common(new, old)
        yield f"{new}.attention.attention.query.bias", f"{old}.attn.q_bias"
        yield f"{new}.attention.attention.value.bias", f"{old}.attn.v_bias"
        yield f"{new}.lambda_1", f"{old}.gamma_1"
        yield f"{new}.lambda_2", f"{old}.gamma_2"
        table = "relative_position_bias_table"
        yield f"{new}.attention.attention.relative_position_bias.{table}", f"{old}.attn.{table}"


def swin2(depths: tuple[int, ...]) -> Iterator[Pair]:
    for what in LINEAR:
        yield (f"backbone.embeddings.patch_embeddings.projection.{what}",
               f"pretrained.model.patch_embed.proj.{what}")
        yield f"backbone.embeddings.norm.{what}", f"pretrained.model.patch_embed.norm.{what}"
    for s, depth in enumerate(depths):
        new, old = f"backbone.encoder.layers.{s}", f"pretrained.model.layers.{s}"
        yield f"{new}.downsample.reduction.weight", f"{old}.downsample.reduction.weight"
        for what in LINEAR:
            yield f"{new}.downsample.norm.{what}", f"{old}.downsample.norm.{what}"
        for n in range(depth):
            yield from _swin2_block(f"{new}.blocks.{n}", f"{old}.blocks.{n}")


def _swin2_block(new: str, old: str) -> Iterator[Pair]:
    yield from _common(new, old)
    inside = f"{new}.attention.self"
    yield f"{inside}.query.bias", f"{old}.attn.q_bias"
    yield f"{inside}.value.bias", f"{old}.attn.v_bias"
    yield f"{inside}.logit_scale", f"{old}.attn.logit_scale"
    mlp = f"{inside}.continuous_position_bias_mlp"
    yield f"{mlp}.0.weight", f"{old}.attn.cpb_mlp.0.weight"
    yield f"{mlp}.0.bias", f"{old}.attn.cpb_mlp.0.bias"
    yield f"{mlp}.2.weight", f"{old}.attn.cpb_mlp.2.weight"


_PLAIN, _BEIT = "dpt.encoder.layer.{}.attention.attention", "backbone.encoder.layer.{}.attention.attention"
_SWIN2 = "backbone.encoder.layers.{}.blocks.{}.attention.self"
KINDS = {
    "DPT_Large": (large, 24, _PLAIN),
    "DPT_Hybrid": (hybrid, 12, _PLAIN),
    "DPT_BEiT_L_512": (beit, 24, _BEIT),
    "DPT_BEiT_L_384": (beit, 24, _BEIT),
    "DPT_BEiT_B_384": (beit, 12, _BEIT),
    "DPT_SwinV2_L_384": (swin2, (2, 2, 18, 2), _SWIN2),
    "DPT_SwinV2_B_384": (swin2, (2, 2, 18, 2), _SWIN2),
    "DPT_SwinV2_T_256": (swin2, (2, 2, 6, 2), _SWIN2),
}
