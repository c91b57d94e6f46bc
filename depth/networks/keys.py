"""What the tensors of one model are called in each layout, and what a file may hold beyond them.

Every name is derived from ours: `official_key` says what the official layout calls one of our keys, and
`transformers_keys` what transformers calls that. So a missing tensor is always found, and whatever is left
over must stand in a table of dropped keys with its reason.

Sources: the checkpoints' own layout (https://github.com/isl-org/MiDaS, MIT, on timm 0.6); the conversion
scripts `convert_dpt_{to_pytorch,hybrid_to_pytorch,beit_to_hf,swinv2_to_hf}.py` of
https://github.com/huggingface/transformers (Apache-2.0), which only rename, and cut the joint
query-key-value matrix in three.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol


class Shaped(Protocol):
    shape: tuple[int, ...]


# --- ours to official: only where timm has renamed modules since the checkpoints were made -------

_MODEL = "pretrained.model."
_NEXTVIT_FIRST = (0, 3, 7, 37)  # the number in one list of blocks of each stage's first
_LEVIT_FIRST = (0, 10, 20)  # attention and mlp counted apart; the stages are joined by two of their own


def official_key(family: str, key: str) -> str:
    """What the official checkpoint calls our `key`.

    >>> official_key("swin", "pretrained.model.layers.1.downsample.norm.weight")
    'pretrained.model.layers.0.downsample.norm.weight'
    >>> official_key("levit", "pretrained.model.stages.1.blocks.0.mlp.ln2.linear.weight")
    'pretrained.model.blocks.11.m.2.c.weight'
    """
    rename = _OFFICIAL.get(family)
    if rename is None or not key.startswith(_MODEL):
        return key
    return _MODEL + rename(key.removeprefix(_MODEL))


def _swin(key: str) -> str:
    """The downsampling between two stages belonged to the first and now belongs to the second."""
    return re.sub(r"^layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key)


def _nextvit(key: str) -> str:
    """Blocks were counted through all stages."""
    key = re.sub(r"^stages\.(\d)\.blocks\.(\d+)",
                 lambda m: f"features.{_NEXTVIT_FIRST[int(m[1])] + int(m[2])}", key)
    return re.sub(r"\.mlp\.fc([12])\.", r".mlp.conv\1.", key)


def _levit(key: str) -> str:
    """Attention, mlp and the joints between stages were one list, each wrapped in a residual `m`."""
    key = re.sub(r"^stem\.conv(\d)", lambda m: f"patch_embed.{2 * int(m[1]) - 2}", key)
    key = re.sub(r"^stages\.(\d)\.blocks\.(\d+)\.(attn|mlp)", _levit_block, key)
    key = re.sub(r"^stages\.(\d)\.downsample\.attn_downsample",
                 lambda m: f"blocks.{_LEVIT_FIRST[int(m[1])] - 2}", key)
    key = re.sub(r"^stages\.(\d)\.downsample\.mlp",
                 lambda m: f"blocks.{_LEVIT_FIRST[int(m[1])] - 1}.m", key)
    key = re.sub(r"\.m\.ln([12])\.", lambda m: f".m.{2 * int(m[1]) - 2}.", key)
    key = re.sub(r"\.(proj|q)\.ln\.", r".\1.1.", key)
    return key.replace(".linear.", ".c.")


def _levit_block(match: re.Match) -> str:
    number = _LEVIT_FIRST[int(match[1])] + 2 * int(match[2]) + (match[3] == "mlp")
    return f"blocks.{number}.m"


_OFFICIAL: Mapping[str, Callable[[str], str]] = {
    "swin": _swin, "swinv2": _swin, "nextvit": _nextvit, "levit": _levit,
}


# --- official to transformers --------------------------------------------------------------------

_Rules = tuple[tuple[str, "str | Callable[[re.Match], str]"], ...]
_RESIZE = "neck.reassemble_stage"

_DECODER: _Rules = (
    (r"^scratch\.layer(\d)_rn", lambda m: f"neck.convs.{int(m[1]) - 1}"),
    (r"^scratch\.refinenet(\d)", lambda m: f"neck.fusion_stage.layers.{4 - int(m[1])}"),
    (r"\.out_conv\.", ".projection."),
    (r"\.resConfUnit(\d)\.conv(\d)\.", r".residual_layer\1.convolution\2."),
    (r"^scratch\.output_conv", "head.head"),
    (r"^pretrained\.act_postprocess(\d)\.0\.project",
     lambda m: f"{_RESIZE}.readout_projects.{int(m[1]) - 1}"),
    (r"^pretrained\.act_postprocess(\d)\.3", lambda m: f"{_RESIZE}.layers.{int(m[1]) - 1}.projection"),
    (r"^pretrained\.act_postprocess(\d)\.4", lambda m: f"{_RESIZE}.layers.{int(m[1]) - 1}.resize"),
)
_BLOCK: _Rules = (
    (r"^blocks\.", "encoder.layer."),
    (r"\.norm1\.", ".layernorm_before."), (r"\.norm2\.", ".layernorm_after."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."), (r"\.mlp\.fc2\.", ".output.dense."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
)
_EMBEDDINGS: _Rules = (
    (r"^cls_token$", "embeddings.cls_token"), (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
)
_RESNET: _Rules = (
    (r"^patch_embed\.proj\.", "embeddings.projection."),
    (r"^patch_embed\.backbone\.stem\.conv\.", "embeddings.backbone.bit.embedder.convolution."),
    (r"^patch_embed\.backbone\.stem\.norm\.", "embeddings.backbone.bit.embedder.norm."),
    (r"^patch_embed\.backbone\.stages\.(\d)\.blocks\.",
     r"embeddings.backbone.bit.encoder.stages.\1.layers."),
)
_BEIT: _Rules = (
    (r"\.gamma_([12])$", r".lambda_\1"),
    (r"\.attn\.relative_position_bias_table$",
     ".attention.attention.relative_position_bias.relative_position_bias_table"),
)
_SWIN2: _Rules = (
    (r"^patch_embed\.norm\.", "embeddings.norm."),
    (r"^layers\.", "encoder.layers."),
    (r"\.attn\.logit_scale$", ".attention.self.logit_scale"),
    (r"\.attn\.cpb_mlp\.", ".attention.self.continuous_position_bias_mlp."),
)
# family -> prefix, rules of the encoder, what encloses query, key and value
_TRANSFORMERS: Mapping[str, tuple[str, _Rules, str]] = {
    "vit": ("dpt.", _EMBEDDINGS + _BLOCK, ".attention.attention."),
    "vit_hybrid": ("dpt.", _RESNET + _EMBEDDINGS + _BLOCK, ".attention.attention."),
    "beit": ("backbone.", _EMBEDDINGS + _BLOCK + _BEIT, ".attention.attention."),
    "swinv2": ("backbone.", _EMBEDDINGS + _SWIN2 + _BLOCK, ".attention.self."),
}


def transformers_keys(family: str, key: str) -> tuple[str, ...]:
    """What transformers calls the official `key`; three names are to be joined along the first axis.

    >>> transformers_keys("vit", "pretrained.model.blocks.0.norm1.weight")
    ('dpt.encoder.layer.0.layernorm_before.weight',)
    """
    if not key.startswith(_MODEL):
        return (_apply(_DECODER, key),)
    prefix, rules, attention = _TRANSFORMERS[family]
    name = key.removeprefix(_MODEL)
    if ".backbone." in name:
        rules = _RESNET  # its blocks have a norm1 and norm2 of their own, which keep their names
    name = prefix + _apply(rules, name)
    for part, projection in ((".attn.q_bias", "query.bias"), (".attn.v_bias", "value.bias")):
        name = name.replace(part, attention + projection)
    head, joint, tail = name.partition(".attn.qkv.")
    if not joint:
        return (name,)
    return tuple(f"{head}{attention}{projection}.{tail}" for projection in ("query", "key", "value"))


def in_transformers_layout(names: Iterable[str]) -> bool:
    return any(name.startswith(("neck.", "head.head.")) for name in names)


def has_transformers_layout(family: str) -> bool:
    return family in _TRANSFORMERS


def _apply(rules: _Rules, key: str) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


# --- what a file may contain beyond what the network uses ---------------------------------------

_CLASSIFIER = "ImageNet classifier of the encoder; depth does not use it"
_NORM = "final norm of the encoder; features are taken before it"
_STRUCTURAL = "follows from the architecture; computed again, never trusted"
_LONELY = "residual unit of the deepest fusion block, which has no skip connection to refine"
_LATE = "blocks behind the last tap; nothing reads them"
_STATISTICS = r"(weight|bias|running_mean|running_var|num_batches_tracked)"

DROPPED: dict[str, tuple[tuple[str, str], ...]] = {
    "vit": ((r"pretrained\.model\.head\.(weight|bias)", _CLASSIFIER),
            (r"pretrained\.model\.norm\.(weight|bias)", _NORM)),
    "beit": ((r"pretrained\.model\.head\.(weight|bias)", _CLASSIFIER),
             (r"pretrained\.model\.fc_norm\.(weight|bias)", _NORM),
             (r"pretrained\.model\.blocks\.\d+\.attn\.relative_position_index", _STRUCTURAL)),
    "swin": ((r"pretrained\.model\.head\.(weight|bias)", _CLASSIFIER),
             (r"pretrained\.model\.norm\.(weight|bias)", _NORM),
             (r"pretrained\.model\.layers\.\d\.blocks\.\d+\.attn_mask", _STRUCTURAL),
             (r"pretrained\.model\.layers\.\d\.blocks\.\d+\.attn\."
              r"(relative_position_index|relative_coords_table)", _STRUCTURAL)),
    "nextvit": ((r"pretrained\.model\.proj_head\.0\.(weight|bias)", _CLASSIFIER),
                (rf"pretrained\.model\.norm\.{_STATISTICS}", _NORM)),
    "levit": ((rf"pretrained\.model\.head(_dist)?\.(l|bn)\.{_STATISTICS}", _CLASSIFIER),
              (r"pretrained\.model\.blocks\.\d+\.(m\.)?attention_bias_idxs", _STRUCTURAL),
              (rf"pretrained\.model\.blocks\.2[2-7]\.m\.(\w+\.)*{_STATISTICS}", _LATE),
              (r"pretrained\.model\.blocks\.2[2-7]\.m\.attention_biases", _LATE),
              (r"scratch\.refinenet3\.resConfUnit1\.conv[12]\.(weight|bias)", _LONELY)),
    "resnext": (),
    "efficientnet": (),
    "tiny": (),
}
DROPPED["vit_hybrid"] = DROPPED["vit"]
DROPPED["swinv2"] = DROPPED["swin"]
_DROPPED_ALWAYS = ((r"scratch\.refinenet4\.resConfUnit1\.conv[12]\.(weight|bias)", _LONELY),)
_DROPPED_TRANSFORMERS = (
    (r"neck\.fusion_stage\.layers\.0\.residual_layer1\.convolution[12]\.(weight|bias)", _LONELY),
    (r"dpt\.layernorm\.(weight|bias)", _NORM),
    (r"dpt\.pooler\.dense\.(weight|bias)", "pooling layer that transformers adds; not part of MiDaS"),
    (r"backbone\.encoder\..*\.(relative_position_index|relative_coords_table)", _STRUCTURAL),
)

# A tensor, by name and shape, that only this model's checkpoint has: to tell people what they hold.
_BEIT_TABLE = "blocks.0.attn.relative_position_bias_table"
_HF_BEIT_TABLE = ("backbone.encoder.layer.0.attention.attention.relative_position_bias."
                  "relative_position_bias_table")
_HF_PATCHES = "backbone.embeddings.patch_embeddings.projection.weight"
_SWIN2_HEADS = "pretrained.model.layers.0.blocks.0.attn.logit_scale"
SIGNATURES: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    ("Tiny", "pretrained.layer1.2.0.conv.weight", (32, 32, 3, 3)),
    ("DPT_Large", "pretrained.model.pos_embed", (1, 577, 1024)),
    ("DPT_Large", "dpt.embeddings.position_embeddings", (1, 577, 1024)),
    ("DPT_Hybrid", "pretrained.model.pos_embed", (1, 577, 768)),
    ("DPT_Hybrid", "dpt.embeddings.position_embeddings", (1, 577, 768)),
    ("MiDaS", "pretrained.layer1.4.0.conv1.weight", (256, 64, 1, 1)),
    ("MiDaS_small", "pretrained.layer1.3.0.conv_dw.weight", (32, 1, 3, 3)),
    ("DPT_BEiT_L_512", f"pretrained.model.{_BEIT_TABLE}", (3972, 16)),
    ("DPT_BEiT_L_512", _HF_BEIT_TABLE, (3972, 16)),
    ("DPT_BEiT_L_384", f"pretrained.model.{_BEIT_TABLE}", (2212, 16)),
    ("DPT_BEiT_L_384", _HF_BEIT_TABLE, (2212, 16)),
    ("DPT_BEiT_B_384", f"pretrained.model.{_BEIT_TABLE}", (2212, 12)),
    ("DPT_BEiT_B_384", _HF_BEIT_TABLE, (2212, 12)),
    ("DPT_SwinV2_L_384", _SWIN2_HEADS, (6, 1, 1)),
    ("DPT_SwinV2_L_384", _HF_PATCHES, (192, 3, 4, 4)),
    ("DPT_SwinV2_B_384", _SWIN2_HEADS, (4, 1, 1)),
    ("DPT_SwinV2_B_384", _HF_PATCHES, (128, 3, 4, 4)),
    ("DPT_SwinV2_T_256", _SWIN2_HEADS, (3, 1, 1)),
    ("DPT_SwinV2_T_256", _HF_PATCHES, (96, 3, 4, 4)),
    ("DPT_Swin_L_384", "pretrained.model.layers.0.blocks.0.attn.relative_position_bias_table", (529, 6)),
    ("DPT_Next_ViT_L_384", "pretrained.model.features.0.patch_embed.conv.weight", (96, 64, 1, 1)),
    ("DPT_LeViT_224", "pretrained.model.patch_embed.0.c.weight", (48, 3, 3, 3)),
)


def reason_to_drop(family: str, layout: str, key: str) -> str | None:
    """Why a file's `key` is left away, or None: then nobody knows it."""
    table = _DROPPED_TRANSFORMERS if layout == "transformers" else DROPPED[family] + _DROPPED_ALWAYS
    return next((reason for pattern, reason in table if re.fullmatch(pattern, key)), None)


def owner(tensors: Mapping[str, Shaped]) -> str | None:
    """The model whose signature these tensors bear, or None."""
    return next((name for name, key, shape in SIGNATURES
                 if key in tensors and tuple(tensors[key].shape) == shape), None)
