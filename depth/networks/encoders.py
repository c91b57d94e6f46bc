"""The encoders: timm backbones that return their feature maps, shallow to deep. The only file importing timm.

Papers: ViT (arXiv:2010.11929), BEiT (arXiv:2106.08254), Swin (arXiv:2103.14030), Swin V2 (arXiv:2111.09883),
Next-ViT (arXiv:2207.05501), LeViT (arXiv:2104.01136), ResNeXt WSL (arXiv:1805.00932), EfficientNet
(arXiv:1905.11946), MobileNetV4 (arXiv:2404.10518). Original: `midas/backbones/*.py` and `midas/blocks.py` of
https://github.com/isl-org/MiDaS (MIT), written for timm 0.6; backbones from timm (Apache-2.0).

What we do differently: the original taps blocks with forward hooks into a global dictionary and replaces
methods of timm's objects; here each encoder runs the blocks itself and returns what it needs. Classifier
heads, final norms and blocks behind the last tap feed nothing and are not built. Where timm 1.x disagrees
with what the checkpoints were trained with (position embedding, BEiT's bias table), a comment says so.
"""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from depth.networks.decoder import Reassemble
from depth.networks.importing import part

layers = part("timm.layers")

PATCH = 16  # side in pixels of one token of the plain transformers
IDLE = 7  # rows of nothing behind the tokens. h*w + 1 is odd, on which oneDNN's matrix product loses a seventh


def attend(qkv: torch.Tensor, heads: int, bias: torch.Tensor | None = None) -> torch.Tensor:
    """B, tokens + IDLE, 3C to B, tokens + IDLE, C; the idle rows neither ask nor are asked.

    `bias` 1, heads, tokens, tokens is added to the scores.
    """
    qkv = qkv[:, :-IDLE].unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)  # 3, B, heads, tokens, c
    if qkv.device.type == "cpu":  # or the rows of a head lie 12 kB apart for all that follows
        qkv = qkv.contiguous()
    query, key, value = qkv.unbind(0)
    x = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    return F.pad(x.transpose(1, 2).flatten(2), (0, 0, 0, IDLE))


class VitEncoder(nn.Module):
    """Plain transformer: the tokens after the blocks `hooks`, reassembled to maps of width `features`."""

    first_level = 1  # levels below come from elsewhere
    attend = staticmethod(attend)  # compiled networks have another

    options: ClassVar = {"weight_init": "skip"}  # timm's way not to fill what a checkpoint will replace

    def __init__(self, backbone: str, hooks: tuple[int, ...], features: tuple[int, ...]):
        super().__init__()
        self.model = headless(backbone, depth=1, **self.options)
        self.model.blocks.extend(_twin(self.model.blocks[0]) for _ in range(hooks[-1]))
        self.hooks = hooks
        for level in range(self.first_level, len(features) + 1):
            self.add_module(f"act_postprocess{level}",
                            Reassemble(self.model.embed_dim, features[level - 1], level))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        h, w = x.shape[-2] // PATCH, x.shape[-1] // PATCH
        x, early = self.patches(x)
        x = x.flatten(2).transpose(1, 2)  # B, C, h, w -> B, h*w, C
        x = torch.cat((self.model.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        taps = self.run_blocks(x, h, w)
        return (*early, *(self.get_submodule(f"act_postprocess{level}")(tokens, h, w)
                          for level, tokens in enumerate(taps, start=self.first_level)))

    def patches(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Patch embeddings B, C, h, w and the maps that are features already."""
        return self.model.patch_embed.proj(x), ()

    def run_blocks(self, x: torch.Tensor, h: int, w: int) -> list[torch.Tensor]:
        x = F.pad(x + _resized_positions(self.model.pos_embed, h, w), (0, 0, 0, IDLE))
        taps = []
        for index, block in enumerate(self.model.blocks):
            heads = self.attend(block.attn.qkv(block.norm1(x)), block.attn.num_heads)
            x = x + block.attn.proj(heads)
            x = x + block.mlp(block.norm2(x))
            if index in self.hooks:
                taps.append(x[:, :-IDLE])
        return taps


class _ResNetPatches(nn.Module):
    """The first three stages of a ResNet-50 as patch embedding. timm's own first runs them to see what comes out."""

    def __init__(self, img_size: int | tuple[int, int], embed_dim: int, **_: object):
        super().__init__()
        self.backbone = part("timm.models.resnetv2").ResNetV2(
            layers=(3, 4, 9), num_classes=0, global_pool="", preact=False, stem_type="same",
            conv_layer=partial(layers.StdConv2dSame, eps=1e-8))
        self.proj = nn.Conv2d(self.backbone.num_features, embed_dim, 1)
        h, w = layers.to_2tuple(img_size)
        self.num_patches = (h // PATCH) * (w // PATCH)


class HybridEncoder(VitEncoder):
    """A ResNet whose last stage becomes the tokens; its first two stages are levels 1 and 2 as they are."""

    first_level = 3
    options: ClassVar = {**VitEncoder.options, "embed_layer": _ResNetPatches}

    def patches(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        resnet = self.model.patch_embed.backbone
        x = resnet.stem(x)
        maps = []
        for stage in resnet.stages:
            x = stage(x)
            maps.append(x)
        return self.model.patch_embed.proj(x), tuple(maps[:2])


def _resized_positions(positions: torch.Tensor, h: int, w: int) -> torch.Tensor:
    """Position embeddings 1, 1+n*n, C for an h x w grid; the class token's stays.

    Bilinear without antialias, as MiDaS was trained and run; timm's own resampling is bicubic with it.
    """
    side = int((positions.shape[1] - 1) ** 0.5)
    grid = positions[:, 1:].transpose(1, 2).unflatten(2, (side, side))  # 1, C, n, n
    grid = F.interpolate(grid, size=(h, w), mode="bilinear", align_corners=False)
    return torch.cat((positions[:, :1], grid.flatten(2).transpose(1, 2)), dim=1)


class BeitEncoder(VitEncoder):
    """BEiT: no position embedding, but a learned bias per relative position in every block.

    The blocks' attention is computed here, because timm's own changes the parameters when the picture's
    size changes and resizes the bias table in another way. Its index table (202 MB for the 512 model) is
    computed once per call instead of kept once per block.
    """

    options: ClassVar = {}

    def __init__(self, backbone: str, hooks: tuple[int, ...], features: tuple[int, ...]):
        super().__init__(backbone, hooks, features)
        self.relative_positions = timm_file(backbone).gen_relative_position_index
        for block in self.model.blocks:
            block.attn.relative_position_index = None
            block.attn.k_bias = None  # constant zero

    def run_blocks(self, x: torch.Tensor, h: int, w: int) -> list[torch.Tensor]:
        index = self.relative_positions((h, w), device=x.device)  # tokens, tokens
        x = F.pad(x, (0, 0, 0, IDLE))
        taps = []
        for number, block in enumerate(self.model.blocks):
            attention = block.attn
            qkv_bias = torch.cat((attention.q_bias, torch.zeros_like(attention.v_bias), attention.v_bias))
            qkv = attention.qkv(block.norm1(x)) + qkv_bias  # queries and values have a bias, keys have none
            heads = self.attend(qkv, attention.num_heads, _relative_bias(attention, index, h, w))
            x = x + block.gamma_1 * attention.proj(heads)
            x = x + block.gamma_2 * block.mlp(block.norm2(x))
            if number in self.hooks:
                taps.append(x[:, :-IDLE])
        return taps


def _relative_bias(attention: nn.Module, index: torch.Tensor, h: int, w: int) -> torch.Tensor:
    """The attention bias 1, heads, tokens, tokens for an h x w grid.

    The table's first rows are a square over (2n-1) x (2n-1) offsets, the last three concern the class token.
    """
    table = attention.relative_position_bias_table.t()  # heads, rows
    side = 2 * attention.window_size[0] - 1
    offsets = table[:, :-3].unflatten(1, (side, side)).unsqueeze(0)
    offsets = F.interpolate(offsets, size=(2 * h - 1, 2 * w - 1), mode="bilinear", align_corners=False)
    table = torch.cat((offsets[0].flatten(1), table[:, -3:]), dim=1)
    return table[:, index].unsqueeze(0)


class SwinEncoder(nn.Module):
    """Swin and Swin V2, square pictures of the trained size only: each stage's output, no final norm."""

    def __init__(self, backbone: str):
        super().__init__()
        self.model = headless(backbone)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.model.patch_embed(x)  # B, h, w, C
        features = []
        for stage in self.model.layers:
            x = stage(x)
            features.append(x.permute(0, 3, 1, 2))  # B, C, h, w
        return tuple(features)


class NextVitEncoder(nn.Module):
    """Next-ViT: each stage's output, no final norm."""

    def __init__(self, backbone: str):
        super().__init__()
        self.model = headless(backbone)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.model.stem(x)
        features = []
        for stage in self.model.stages:
            x = stage(x)
            features.append(x)
        return tuple(features)


class LevitEncoder(nn.Module):
    """LeViT, 224 x 224 only: three levels, tapped behind block `taps[stage]` of each stage.

    The blocks of the last stage behind its tap feed nothing and are not built.
    """

    taps = (1, 0, 0)

    def __init__(self, backbone: str):
        super().__init__()
        self.model = headless(backbone)
        last = self.model.stages[-1]
        last.blocks = last.blocks[: self.taps[-1] + 1]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.model.stem(x)
        h, w = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2)  # B, h*w, C
        features = []
        for stage, tap in zip(self.model.stages, self.taps, strict=True):
            if features:
                h, w = (h + 1) // 2, (w + 1) // 2  # each later stage begins by keeping every second token
            x = stage.downsample(x)
            for index, block in enumerate(stage.blocks):
                x = block(x)
                if index == tap:
                    features.append(x.transpose(1, 2).unflatten(2, (h, w)))  # B, C, h, w
        return tuple(features)


class StagedEncoder(nn.Module):
    """A convolutional encoder in four layers, each of which reads the one before."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layer1, self.layer2, self.layer3, self.layer4 = layers

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            features.append(x)
        return tuple(features)


def resnext(backbone: str) -> StagedEncoder:
    net = timm_network(backbone)
    stem = nn.Sequential(net.conv1, net.bn1, net.act1, net.maxpool, net.layer1)
    return StagedEncoder(stem, net.layer2, net.layer3, net.layer4)


def efficientnet(backbone: str) -> StagedEncoder:
    """The empty third place keeps the checkpoint's count: timm's `bn1` already contains the activation."""
    net = timm_network(backbone)
    blocks = net.blocks
    return StagedEncoder(nn.Sequential(net.conv_stem, net.bn1, nn.Identity(), blocks[0], blocks[1]),
                         nn.Sequential(blocks[2]), nn.Sequential(blocks[3], blocks[4]),
                         nn.Sequential(blocks[5], blocks[6]))


def mobilenet(backbone: str) -> StagedEncoder:
    """The first four stages; the last one and the classifier of timm's network are left away."""
    net = timm_network(backbone)
    return StagedEncoder(nn.Sequential(net.conv_stem, net.bn1, net.blocks[0]), *net.blocks[1:4])


def _twin(module: nn.Module) -> nn.Module:
    """A module like this one for other weights, in a quarter of the time that its constructor takes.

    What it holds are the same tensors, until it is given others: without memory they are shapes and nothing more.
    """
    twin = object.__new__(type(module))
    twin.__dict__ = {name: value.copy() if isinstance(value, (dict, set)) else value
                     for name, value in vars(module).items()}
    for name, child in module._modules.items():
        twin._modules[name] = None if child is None else _twin(child)
    return twin


def headless(backbone: str, **options: object) -> nn.Module:
    """timm's network without its classifier and final norm. Draws no random numbers on the meta device."""
    model = timm_network(backbone, num_classes=0, **options)
    for name in ("norm", "fc_norm"):
        if hasattr(model, name):
            setattr(model, name, nn.Identity())
    return model


def timm_network(backbone: str, **options: object) -> nn.Module:
    """timm's network by its file and its name there, `levit.levit_384`. Nothing is downloaded."""
    return getattr(timm_file(backbone), backbone.split(".")[1])(pretrained=False, **options)


def timm_file(backbone: str) -> ModuleType:
    """The file of timm that makes this network."""
    return part(f"timm.models.{backbone.split('.')[0]}")
