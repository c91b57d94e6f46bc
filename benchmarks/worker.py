"""One measured thing in a process of its own: `python -m benchmarks.worker [cold|hold] ACTION FOLDER …`.

Prints one JSON line.
Every action measures from the moment its words say; private memory is read from the kernel where it tells.
"cold" first makes the system forget the files, where it can; "hold" stays alive afterwards until stdin ends.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.kernel import forget, private_bytes

clock = time.perf_counter
BORN = clock()
KEPT: list[object] = []  # what "hold" must not let go of


def touch(tensors) -> float:
    """Read one number of every page, as the first use would."""
    return sum(float(tensor.detach().reshape(-1)[::1024].sum()) for tensor in tensors if tensor.dtype.is_floating_point)


def _timed(work: Callable[[], object]) -> dict[str, object]:
    before, start = private_bytes(), clock()
    network = work()
    ready = clock() - start
    touch(network.state_dict().values())
    seconds = clock() - start
    KEPT.append(network)
    after = private_bytes()
    return {"seconds": seconds, "ready": ready, "private": after,
            "grown": None if before is None or after is None else after - before}


def load_own(folder: Path, name: str, format: str) -> dict[str, object]:
    """From this format's copy in the cache to a network; torch and the networks' code are imported before."""
    from depth.engines import no_collection
    from depth.models import find
    from depth.supply import manager

    row = find(name)
    with no_collection():
        from depth.networks import checkpoints, encoders
        encoders.timm_file(row.network["backbone"])
    store = manager(folder / "cache").store.folder(name)
    manifest = store.manifest()
    store.check(format, manifest.files[format])  # hashed before, remembered: not part of a warm start

    def work():
        with no_collection():
            return checkpoints.load(row, store.read(store.manifest(), format))

    return _timed(work)


def load_hub(folder: Path, name: str) -> dict[str, object]:
    """torch.hub's way: build with random weights, read the checkpoint, copy it over."""
    import_everything()
    return _timed(lambda: load_hub_ready(folder, name))


def load_transformers(folder: Path, name: str) -> dict[str, object]:
    network = dpt_of_transformers()

    return _timed(lambda: network.from_pretrained(folder / "transformers-dpt-large").eval())


def load_compiled(folder: Path, name: str) -> dict[str, object]:
    """From torch imported to an estimator with a compiled network, fed with the cache's copy."""
    import torch  # noqa: F401

    from cache import artefacts

    start = clock()
    from depth import MiDaSDepthEstimator
    from depth.supply import manager

    estimator = MiDaSDepthEstimator(name, manager=manager(folder / "cache"))
    seconds = clock() - start
    if estimator.engine != "compiled":
        raise SystemExit("there is no compiled network")
    made = artefacts.listed(artefacts.folder_of(folder / "cache", name))
    return {"seconds": seconds, "private": private_bytes(), "timm": "timm" in sys.modules,
            "inductor": "torch._inductor" in sys.modules,
            "disk": max(one.size for one in made if one.kind == "aoti")}


def start_own(folder: Path, name: str, first: str) -> dict[str, object]:
    """The estimator as a user starts it; `first` is "ready" or "depth"."""
    from depth import MiDaSDepthEstimator
    from depth.supply import manager

    estimator = MiDaSDepthEstimator(name, manager=manager(folder / "cache"))
    if first == "depth":
        estimator.predict(folder / "square.jpg")
    return {"seconds": clock() - BORN, "private": private_bytes(), "torch": "torch" in sys.modules,
            "engine": getattr(estimator, "engine", "eager")}


def start_eager(folder: Path, name: str, first: str) -> dict[str, object]:
    """`start_own` where nothing has been compiled yet."""
    os.environ["DEPTHMAP_COMPILE"] = "0"
    return start_own(folder, name, first)


def start_hub(folder: Path, name: str, first: str) -> dict[str, object]:
    network = load_hub_ready(folder, name)
    if first == "depth":
        _eager_depth(network, folder, name)
    return {"seconds": clock() - BORN, "private": private_bytes()}


def import_everything() -> None:
    """timm as everybody gets it: whole, with torchvision and so with torch's compiler."""
    import depth.networks  # noqa: F401  (before it, so that it works beside every torch)

    from timm import create_model  # noqa: F401  isort: skip


def load_hub_ready(folder: Path, name: str):
    import_everything()
    import torch

    from depth.models import find

    network = random_network(find(name))
    network.load_state_dict(torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True))
    return network.eval()


def random_network(row):
    """The network filled with random numbers, as the original's constructor leaves it.

    Ours fill nothing in a plain transformer, and build one block of it. So here timm's own is put in, built and filled
    as timm does it when asked by name, which is what the original asks.
    """
    from torch import nn

    from depth.networks import FAMILIES, build, encoders

    if row.family != "vit":
        return FAMILIES[row.family](size=row.size, **row.network)
    network = build(row)
    network.pretrained.model = nn.Identity()
    for module in network.to_empty(device="cpu").modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    network.pretrained.model = encoders.headless(row.network["backbone"])
    return network


def _eager_depth(network, folder: Path, name: str) -> None:
    import torch

    from depth import images
    from depth.models import find

    rgb = images.open_rgb(folder / "square.jpg")
    with torch.inference_mode():
        output = network(torch.as_tensor(images.prepare(rgb, find(name))))
    torch.nn.functional.interpolate(output[None], rgb.shape[:2], mode="bicubic", align_corners=False)


def dpt_of_transformers():
    """The class. torchvision is kept from it: it needs none, and one built for another torch cannot be imported."""
    sys.modules.setdefault("torchvision", None)
    from transformers import DPTForDepthEstimation

    return DPTForDepthEstimation


def save_transformers(folder: Path, name: str) -> dict[str, object]:
    """A DPT-Large with made-up weights in transformers' own layout."""
    network = dpt_of_transformers()
    from transformers import DPTConfig

    config = DPTConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
                       image_size=384, patch_size=16, backbone_out_indices=[5, 11, 17, 23],
                       neck_hidden_sizes=[256, 512, 1024, 1024], qkv_bias=True, is_hybrid=False)
    network(config).save_pretrained(folder / "transformers-dpt-large")
    return {}


def start_transformers(folder: Path, name: str, first: str) -> dict[str, object]:
    network = dpt_of_transformers().from_pretrained(folder / "transformers-dpt-large").eval()
    if first == "depth":
        _eager_depth(lambda batch: network(batch).predicted_depth, folder, name)
    return {"seconds": clock() - BORN, "private": private_bytes()}


def grow_picture(folder: Path, height: str, width: str) -> dict[str, object]:
    """One picture of this size through the bundled model, after a small one to warm up."""
    return _grown(folder, [(int(height), int(width))])


def grow_batch(folder: Path, count: str) -> dict[str, object]:
    """So many pictures in one call; seconds are a picture's."""
    grown = _grown(folder, [(480, 640)] * int(count))
    return grown | {"seconds": grown["seconds"] / int(count)}


def _grown(folder: Path, sizes: list[tuple[int, int]]) -> dict[str, object]:
    import numpy as np

    from benchmarks.zoo import _peak_bytes
    from depth import MiDaSDepthEstimator
    from depth.supply import manager

    estimator = MiDaSDepthEstimator("Tiny", manager=manager(folder / "cache"))
    estimator.predict(np.zeros((64, 64, 3), np.uint8))
    pictures = [np.random.default_rng(number).integers(0, 255, (*size, 3), np.uint8)
                for number, size in enumerate(sizes)]
    start = clock()
    estimator.predict_batch(pictures)
    return {"seconds": clock() - start, "peak": _peak_bytes(), "engine": estimator.engine}


def export_onnx(folder: Path, name: str) -> dict[str, object]:
    """The network as anybody would export it for onnxruntime and OpenVINO, at its native size."""
    import torch

    from benchmarks.inference import plain
    from depth.models import find

    row, start = find(name), clock()
    network = plain(folder, name)
    picture = torch.zeros(1, 3, row.size, row.size)
    with torch.no_grad():
        program = torch.onnx.export(network, (picture,), dynamo=True, optimize=True, verbose=False,
                                    input_names=["pictures"], output_names=["depth"])
    place = folder / "onnx" / name
    place.mkdir(parents=True, exist_ok=True)
    program.save(str(place / "exported.onnx"), external_data=True)
    (place / "exported.onnx").rename(place / "network.onnx")  # only a whole one has this name
    return {"seconds": clock() - start}


ACTIONS = {action.__name__: action for action in (
    load_own, load_hub, load_transformers, load_compiled, start_own, start_eager, start_hub, start_transformers,
    grow_picture, grow_batch, export_onnx, save_transformers)}


def main(arguments: list[str]) -> None:
    manner = arguments.pop(0) if arguments[0] in ("cold", "hold") else ""
    action, folder, *rest = arguments
    if manner == "cold":
        forget(Path(folder))
    print(json.dumps(ACTIONS[action](Path(folder), *rest)), flush=True)
    if manner == "hold":
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1:])
