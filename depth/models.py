"""The model table: one row per model, and `find` to look one up. Imports no torch.

A row is everything the rest of the house may know about a model: its torch-hub name and aliases, which
network to build with which numbers, how a picture is resized and normalised for it, where its weights
lie with which sha256, and what was published about it.

Sources
  Preprocessing and hub names: `hubconf.py` and `midas/model_loader.py` of https://github.com/isl-org/MiDaS
  (commit 4545977, MIT).
  Quality and speed: the accuracy table in that repository's README.md (same commit); technical report
  "MiDaS v3.1 – A Model Zoo for Robust Monocular Relative Depth Estimation", arXiv:2307.14460.
  Digests of official files: git-LFS pointers of the listed Hub commits, cross-checked for the v2.1 and
  v3.0 files with the eight hex digits in their torch-hub names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field

from cache.errors import UnknownModel
from cache.record import Record
from cache.remote import RemoteFile

HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Quality(Record):
    """Published errors, lower is better, after aligning scale and shift; and published speed.

    `diw` is WHDR, `eth3d` and `sintel` are AbsRel, `tum`, `kitti` and `nyu` are the percentage of pixels
    with delta > 1.25. `improvement` is the mean relative gain over DPT_Large in percent, `fps` the frames
    per second on an RTX 3090 at training resolution. `zero_shot` is False where KITTI and NYU were part
    of the training data, so that those two columns do not tell how the model generalises.
    """

    diw: float
    eth3d: float
    sintel: float
    tum: float
    kitti: float
    nyu: float
    improvement: int
    fps: float
    zero_shot: bool = True


class Model(Record):
    """One row of the table.

    `file` is the stem of the official checkpoint; `family` and `network` choose and size the network in
    `depth.networks.build`; `size` is the side in pixels for which `resize` ("minimal", "upper_bound",
    "half_bound" or "square") computes the network's input. `mean` and `std` apply to RGB in 0..1. `sources`
    stand in the order in which they are tried; one without a sha256 has no independently published digest: the first
    download records it. `parameters` counts the official checkpoint's, `bytes` is its size on disk, exact
    where a source states it and within a percent elsewhere. `speed` is "fast" (under half a second on two
    CPU cores), "medium" (up to three) or "slow". `bundled` names a file in `depth/weights/`.
    """

    name: str
    aliases: tuple[str, ...]
    file: str
    family: str
    network: Mapping[str, object] = field(hash=False)
    size: int
    resize: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    sources: tuple[RemoteFile, ...]
    licence: str
    parameters: int
    bytes: int
    quality: Quality | None
    speed: str
    bundled: str | None = None
    note: str = ""


def _official(repo: str, revision: str, filename: str, sha256: str | None, size: int | None) -> RemoteFile:
    """A Hub file in the official layout, pinned to a commit."""
    return RemoteFile(repo=repo, revision=revision, filename=filename, sha256=sha256, size=size)


def _intel(repo: str, revision: str, filename: str, sha256: str) -> RemoteFile:
    """Intel's own conversion for transformers. Its exact size is not published, so it is not stated."""
    return RemoteFile(repo=f"Intel/{repo}", revision=revision, filename=filename, sha256=sha256, size=None,
                      layout="transformers")


def _release(tag: str, filename: str, sha256: str | None = None, size: int | None = None) -> RemoteFile:
    """The file's first home: a release of isl-org/MiDaS."""
    return RemoteFile(repo=None, revision=None, filename=filename, sha256=sha256, size=size,
                      url=f"https://github.com/isl-org/MiDaS/releases/download/{tag}/{filename}")


_LARGE = ("2f21e586477d90cb9624c7eef5df7891edca49a1c4795ee2cb631fd4daa6ca69", 1_376_378_527)
_HYBRID = ("501f0c75b3bca7daec6b3682c5054c09b366765aef6fa3a09d03a5cb4b230853", 492_757_791)
_V21 = ("f6b980704cfd7259c7cc2b058c2f160159c55e84b3b6c08331b4156a84629f70", 422_509_849)
_SMALL = ("70d6b9c891758c67f974a6097fb0c608c7ee67fb81ac3e5588847d5596d56fca", 85_761_505)
_BEIT_L_512 = ("9e9e900747e9e8b3112df716979219836a27716277b3d0dc53889cbba8b82328", 1_581_966_003)
_BEIT_L_384 = ("9a86e82345dee25004eeacbc25db11fae827d32cd6939a9056eb7db6ef895413", 1_441_465_011)
_SWIN2_L = ("8820c77a09e6b1d4bf2bcf71d1f52509239aa07c5f51709d8eee95c8775d5ec8", None)

_NO_DIGEST = "No digest of the official file is published; the first download records its own."


MODELS: tuple[Model, ...] = (
    Model(
        name="Tiny",
        aliases=("depthmap_tiny",),
        file="tiny",
        family="tiny",
        network={"backbone": "mobilenetv3.mobilenetv4_conv_small",
                 "features": (32, 64, 96, 128), "width": 32, "head": 16},
        size=256, resize="half_bound", mean=IMAGENET_MEAN, std=IMAGENET_STD,
        sources=(),
        licence="MIT",
        parameters=3_601_809, bytes=7_277_370, quality=None, speed="fast",
        bundled="tiny.safetensors",
        note="A demonstration model trained on rendered scenes; for real work use MiDaS.",
    ),
    Model(
        name="DPT_Large",
        aliases=("dpt_large", "dpt_large-midas-2f21e586"),
        file="dpt_large_384",
        family="vit",
        network={"backbone": "vision_transformer.vit_large_patch16_384",
                 "hooks": (5, 11, 17, 23), "features": (256, 512, 1024, 1024)},
        size=384, resize="minimal", mean=HALF, std=HALF,
        sources=(
            _official("damaimai/dpt_large-midas-2f21e586.pt", "c3cfe97d4703c17d0f7a30f256920a346c7551ac",
                      "dpt_large-midas-2f21e586.pt", *_LARGE),
            _official("ysheng/DrBokeh", "f450c1a620528df484cacf205f4670f13f435499",
                      "dpt_large-midas-2f21e586.pt", *_LARGE),
            _official("AunyMoons/loras-pack", "15fbb247edb66f1b3e5104dcbb7381086fcd166b",
                      "dpt_large_384.pt", *_LARGE),
            _intel("dpt-large", "cc27b92e869fc79f52a0241addbbcd1579b66b11", "model.safetensors",
                   "c173e7fd575c4d6c2164621063fed3a0e7e2eb6adbfb7c1845b364bc0fed9ce8"),
            _release("v3", "dpt_large_384.pt", *_LARGE),
        ),
        licence="MIT",
        parameters=344_055_465, bytes=_LARGE[1], speed="slow",
        quality=Quality(0.1082, 0.0888, 0.2697, 9.97, 8.46, 8.32, 0, 61),
    ),
    Model(
        name="DPT_Hybrid",
        aliases=("dpt_hybrid", "dpt_hybrid-midas-501f0c75"),
        file="dpt_hybrid_384",
        family="vit_hybrid",
        network={"backbone": "vision_transformer.vit_base_patch16_384",
                 "hooks": (8, 11), "features": (256, 512, 768, 768)},
        size=384, resize="minimal", mean=HALF, std=HALF,
        sources=(
            _official("lllyasviel/Annotators", "982e7edaec38759d914a963c48c4726685de7d96",
                      "dpt_hybrid-midas-501f0c75.pt", *_HYBRID),
            _official("lllyasviel/ControlNet", "38a62cbf79862c1bac73405ec8dc46133aee3e36",
                      "annotator/ckpts/dpt_hybrid-midas-501f0c75.pt", *_HYBRID),
            _official("ckpt/ControlNet-v1-1", "a9fd295265a1481bab563e3de96a03c3aa2ca2b3",
                      "dpt_hybrid-midas-501f0c75.pt", *_HYBRID),
            _official("huangyuyang11/dpt-weights", "77ce994eae4a26ca6acfc701a4164303f8f01cc5",
                      "dpt_hybrid-midas-501f0c75.pt", *_HYBRID),
            _intel("dpt-hybrid-midas", "11eaf7a1cf4bd70740697dbc216f98980c0aeb03", "pytorch_model.bin",
                   "b6c4d44f9d96ca3fa76dd3bbb153989a60b4ad5526559f3c598562a368d687ec"),
            # That the release file has these bytes too is likely (as for DPT_Large) but not evidenced.
            _release("v3", "dpt_hybrid_384.pt", *_HYBRID),
        ),
        licence="MIT",
        parameters=123_146_985, bytes=_HYBRID[1], speed="medium",
        quality=Quality(0.1106, 0.0934, 0.2741, 10.89, 11.56, 8.69, -10, 50),
    ),
    Model(
        name="MiDaS",
        aliases=("midas_v21", "model-f6b98070"),
        file="midas_v21_384",
        family="resnext",
        network={"backbone": "resnet.resnext101_32x8d", "features": (256, 512, 1024, 2048), "width": 256},
        size=384, resize="upper_bound", mean=IMAGENET_MEAN, std=IMAGENET_STD,
        sources=(
            _official("ckpt/ControlNet-v1-1", "06560ecfceed04d83f0f576b4dea1dd44fd7c6a2",
                      "midas_v21_384.pt", *_V21),
            _release("v2_1", "midas_v21_384.pt", *_V21),
            _release("v2_1", "model-f6b98070.pt", *_V21),
        ),
        licence="MIT",
        parameters=105_362_945, bytes=_V21[1], speed="medium",
        quality=Quality(0.1295, 0.1155, 0.3285, 12.51, 16.08, 8.71, -32, 47),
    ),
    Model(
        name="MiDaS_small",
        aliases=("midas_v21_small", "model-small-70d6b9c8"),
        file="midas_v21_small_256",
        family="efficientnet",
        network={"backbone": "efficientnet.tf_efficientnet_lite3",
                 "features": (32, 48, 136, 384), "width": 64, "head": 32},
        size=256, resize="upper_bound", mean=IMAGENET_MEAN, std=IMAGENET_STD,
        sources=(
            _official("ckpt/ControlNet-v1-1", "e3a4f29170c73d413abe4f67ef4c9691cf37cb28",
                      "midas_v21_small_256.pt", *_SMALL),
            _release("v2_1", "midas_v21_small_256.pt", *_SMALL),
            _release("v2_1", "model-small-70d6b9c8.pt", *_SMALL),
        ),
        licence="MIT",
        parameters=21_320_545, bytes=_SMALL[1], speed="fast",
        quality=Quality(0.1344, 0.1344, 0.3370, 14.53, 29.27, 13.43, -76, 90),
    ),
    Model(
        name="DPT_BEiT_L_512",
        aliases=("dpt_beit_l_512",),
        file="dpt_beit_large_512",
        family="beit",
        network={"backbone": "beit.beit_large_patch16_512",
                 "hooks": (5, 11, 17, 23), "features": (256, 512, 1024, 1024)},
        size=512, resize="minimal", mean=HALF, std=HALF,
        sources=(
            _official("ckpt/ControlNet-v1-1", "3bda72be44aa8644c9fc72690393e96b49a9ebd2",
                      "dpt_beit_large_512.pt", *_BEIT_L_512),
            _intel("dpt-beit-large-512", "d69e82bb24edc1433f9b70c2fa48e0cabbdb6d7f", "model.safetensors",
                   "1b8f53dd5004a5c8f33ddf8998803fcf566bfb40b8d189531ac4946d488a7364"),
            _release("v3_1", "dpt_beit_large_512.pt", *_BEIT_L_512),
        ),
        licence="MIT",
        parameters=345_014_441, bytes=_BEIT_L_512[1], speed="slow",
        quality=Quality(0.1137, 0.0659, 0.2366, 6.13, 11.56, 1.86, 19, 5.7, zero_shot=False),
    ),
    Model(
        name="DPT_BEiT_L_384",
        aliases=("dpt_beit_l_384",),
        file="dpt_beit_large_384",
        family="beit",
        network={"backbone": "beit.beit_large_patch16_384",
                 "hooks": (5, 11, 17, 23), "features": (256, 512, 1024, 1024)},
        size=384, resize="minimal", mean=HALF, std=HALF,
        sources=(
            _official("ckpt/ControlNet-v1-1", "c7e3d0256ba303fc8553bd005e69f230199a4b65",
                      "dpt_beit_large_384.pt", *_BEIT_L_384),
            _intel("dpt-beit-large-384", "29da77663f9c127dd6f1cb221aa7d13ace65e355", "model.safetensors",
                   "0d353badaf2cb08a05ab343cc70d1895c769ff1da34da4e2962c08dce8d4d1a1"),
            _release("v3_1", "dpt_beit_large_384.pt", *_BEIT_L_384),
        ),
        licence="MIT",
        parameters=344_338_601, bytes=_BEIT_L_384[1], speed="slow",
        quality=Quality(0.1239, 0.0667, 0.2545, 7.17, 9.84, 2.21, 17, 13, zero_shot=False),
    ),
    Model(
        name="DPT_BEiT_B_384",
        aliases=("dpt_beit_b_384",),
        file="dpt_beit_base_384",
        family="beit",
        network={"backbone": "beit.beit_base_patch16_384", "hooks": (2, 5, 8, 11), "features": (96, 192, 384, 768)},
        size=384, resize="minimal", mean=HALF, std=HALF,
        sources=(
            _intel("dpt-beit-base-384", "37e4dfa1c4a009f5f00aef17211b0de098c79e7f", "model.safetensors",
                   "6ce0e6f0620e5d8fbb515721e6c668c49e24fb738ef6c2f8f0d472b5582170b9"),
            _release("v3_1", "dpt_beit_base_384.pt"),
        ),
        licence="MIT",
        parameters=111_531_689, bytes=478_197_552, speed="medium",
        quality=Quality(0.1159, 0.0967, 0.2901, 9.88, 26.60, 3.91, -31, 31, zero_shot=False),
        note=_NO_DIGEST,
    ),
    Model(
        name="DPT_SwinV2_L_384",
        aliases=("dpt_swinv2_large_384",),
        file="dpt_swin2_large_384",
        family="swinv2",
        network={"backbone": "swin_transformer_v2.swinv2_large_window12to24_192to384",
                 "features": (192, 384, 768, 1536)},
        size=384, resize="square", mean=HALF, std=HALF,
        sources=(
            _official("AlonzoLeeeooo/StableV2V", "eb37a794c85c623130eddd6504b3cb9271020c82",
                      "dpt_swin2_large_384.pt", *_SWIN2_L),
            _official("halffried/midas_v3_1_dpt_swin2_large_384", "bff19fa1d6bc502560dc02c7d93d58bf5da12104",
                      "dpt_swin2_large_384.pt", *_SWIN2_L),
            _intel("dpt-swinv2-large-384", "0f21a84d9f0f39ac6a2eacc41e65a8b72d4e7c54", "model.safetensors",
                   "cacd7f27eadd9d17a9ea0d4bc5d545d6259aac3f07977722cac1cef1207197b4"),
            _release("v3_1", "dpt_swin2_large_384.pt", *_SWIN2_L),
        ),
        licence="MIT",
        parameters=213_411_869, bytes=880_389_888, speed="slow",
        quality=Quality(0.1106, 0.0732, 0.2442, 8.87, 5.84, 2.92, 22, 41, zero_shot=False),
    ),
    Model(
        name="DPT_SwinV2_B_384",
        aliases=("dpt_swinv2_base_384",),
        file="dpt_swin2_base_384",
        family="swinv2",
        network={"backbone": "swin_transformer_v2.swinv2_base_window12to24_192to384",
                 "features": (128, 256, 512, 1024)},
        size=384, resize="square", mean=HALF, std=HALF,
        sources=(
            _intel("dpt-swinv2-base-384", "9697d067b154a0ce1fbf4ac74de3a22d274259bc", "model.safetensors",
                   "368ec4d87b8be9fb6664d6d5f16ecfd6df65870319a86d631b197bee148f0361"),
            _release("v3_1", "dpt_swin2_base_384.pt"),
        ),
        licence="MIT",
        parameters=102_378_913, bytes=436_258_688, speed="medium",
        quality=Quality(0.1095, 0.0790, 0.2404, 8.93, 5.97, 3.28, 22, 39, zero_shot=False),
        note=_NO_DIGEST,
    ),
    Model(
        name="DPT_SwinV2_T_256",
        aliases=("dpt_swinv2_tiny_256",),
        file="dpt_swin2_tiny_256",
        family="swinv2",
        network={"backbone": "swin_transformer_v2.swinv2_tiny_window16_256", "features": (96, 192, 384, 768)},
        size=256, resize="square", mean=HALF, std=HALF,
        sources=(
            _intel("dpt-swinv2-tiny-256", "abee38fce637fc6898c3ca58a88c1f718e3c7df0", "model.safetensors",
                   "b11e8b50dee40e953a1c38c9d9330e3bf5512247389b87b74d0c47c263b64983"),
            _release("v3_1", "dpt_swin2_tiny_256.pt"),
        ),
        licence="MIT",
        parameters=41_701_331, bytes=172_162_988, speed="medium",
        quality=Quality(0.1211, 0.1106, 0.2868, 13.43, 10.13, 5.55, -11, 64, zero_shot=False),
        note=_NO_DIGEST,
    ),
    Model(
        name="DPT_Swin_L_384",
        aliases=("dpt_swin_l_384",),
        file="dpt_swin_large_384",
        family="swin",
        network={"backbone": "swin_transformer.swin_large_patch4_window12_384", "features": (192, 384, 768, 1536)},
        size=384, resize="square", mean=HALF, std=HALF,
        sources=(_release("v3_1", "dpt_swin_large_384.pt"),),
        licence="MIT",
        parameters=213_407_453, bytes=867_402_687, speed="medium",
        quality=Quality(0.1126, 0.0853, 0.2428, 8.74, 6.60, 3.34, 17, 49, zero_shot=False),
        note=_NO_DIGEST,
    ),
    Model(
        name="DPT_Next_ViT_L_384",
        aliases=("dpt_next_vit_l_384",),
        file="dpt_next_vit_large_384",
        family="nextvit",
        network={"backbone": "nextvit.nextvit_large", "features": (96, 256, 512, 1024)},
        size=384, resize="minimal", mean=HALF, std=HALF,
        sources=(_release("v3_1", "dpt_next_vit_large_384.pt"),),
        licence="MIT",
        parameters=72_260_713, bytes=289_744_083, speed="medium",
        quality=Quality(0.1031, 0.0954, 0.2295, 9.21, 6.89, 3.47, 16, 30, zero_shot=False),
        note=_NO_DIGEST,
    ),
    Model(
        name="DPT_LeViT_224",
        aliases=("dpt_levit",),
        file="dpt_levit_224",
        family="levit",
        network={"backbone": "levit.levit_384", "features": (384, 512, 768)},
        size=224, resize="square", mean=HALF, std=HALF,
        sources=(_release("v3_1", "dpt_levit_224.pt"),),
        licence="MIT",
        parameters=50_630_837, bytes=204_519_335, speed="fast",
        quality=Quality(0.1314, 0.1206, 0.3148, 18.21, 15.27, 8.64, -40, 73, zero_shot=False),
        note=_NO_DIGEST,
    ),
)


def find(name: str) -> Model:
    """The row with this name, alias or checkpoint file name, in any case, with `-` and `_` alike.

    Raises UnknownModel, which names the nearest known names and all of them.

    >>> find("dpt-large").name, find("midas_v21_small_256.pt").name
    ('DPT_Large', 'MiDaS_small')
    """
    row = _ROWS.get(_fold(name))
    if row is None:
        raise _unknown(name)
    return row


def _fold(name: object) -> str:
    return str(name).strip().lower().removesuffix(".pt").replace("-", "_")


_ROWS = {_fold(word): row for row in MODELS for word in (row.name, row.file, *row.aliases)}


def _default() -> str:
    """`DEPTHMAP_MODEL` by any of its names, else the model that needs no download.

    A name that is unknown stays as it is: who uses it is told, in the sentence that `find` has for that.
    """
    name = os.environ.get("DEPTHMAP_MODEL") or "Tiny"
    return _ROWS[_fold(name)].name if _fold(name) in _ROWS else name


DEFAULT = _default()  # where no model is named


def _unknown(name: object) -> UnknownModel:
    import difflib

    close = difflib.get_close_matches(_fold(name), _ROWS, n=3, cutoff=0.5)
    nearest = list(dict.fromkeys(_ROWS[word].name for word in close))
    known = ", ".join(row.name for row in MODELS)
    hint = f"Did you mean {' or '.join(nearest)}? " if nearest else ""
    return UnknownModel(f"There is no model named {str(name)!r}.", expected=f"one of {known}",
                        next_step=f"{hint}Choose one of the names above.")
