"""One measured thing in a process of its own: `python -m benchmarks.worker ACTION FOLDER …` prints one JSON line.

Every action measures from the moment its words say; private memory is read from the kernel where it tells.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

clock = time.perf_counter
BORN = clock()


def private_bytes() -> int | None:
    """Memory that is this process's alone (Linux)."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    words = {line.split(":")[0]: line.split() for line in lines}
    return int(words["Private_Dirty"][1]) * 1024 if "Private_Dirty" in words else None


def touch(tensors) -> float:
    """Read one number of every page, as the first use would."""
    return sum(float(tensor.detach().reshape(-1)[::1024].sum()) for tensor in tensors if tensor.dtype.is_floating_point)


def _timed(work: Callable[[], object]) -> dict[str, object]:
    start = clock()
    network = work()
    ready = clock() - start
    touch(network.state_dict().values())
    return {"seconds": clock() - start, "ready": ready, "private": private_bytes()}


def load_own(folder: Path, name: str, format: str) -> dict[str, object]:
    """From this format's copy in the cache to a network; torch and the networks' code are imported before."""
    from depth.engines import no_collection
    from depth.estimator import manager
    from depth.models import find

    with no_collection():
        from depth.networks import checkpoints
        from depth.tuning import WithoutValues
    store = manager(folder / "cache").store.folder(name)
    manifest = store.manifest()
    store.check(format, manifest.files[format])  # hashed before, remembered: not part of a warm start

    def work():
        with no_collection(), WithoutValues():
            return checkpoints.load(find(name), store.read(store.manifest(), format))

    return _timed(work)


def load_hub(folder: Path, name: str) -> dict[str, object]:
    """torch.hub's way: build with random weights, read the checkpoint, copy it over."""
    import torch

    from depth.models import find
    from depth.networks import FAMILIES

    row = find(name)

    def work():
        network = FAMILIES[row.family](size=row.size, **row.network)
        network.load_state_dict(torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True))
        return network.eval()

    return _timed(work)


def load_transformers(folder: Path, name: str) -> dict[str, object]:
    from transformers import DPTForDepthEstimation

    return _timed(lambda: DPTForDepthEstimation.from_pretrained(folder / "transformers-dpt-large").eval())


def load_compiled(folder: Path, name: str) -> dict[str, object]:
    """From torch imported to a compiled network, fed with the cache's .pt."""
    import torch  # noqa: F401

    from depth import compiled
    from depth.estimator import manager
    from depth.models import find

    start = clock()
    weights = manager(folder / "cache").open(name, offline=True).tensors
    about = compiled.facts(find(name), "aoti", compiled.signature(weights))
    engine = compiled.load(folder / "cache", about, weights)
    return {"seconds": clock() - start, "private": private_bytes(), "ok": engine is not None,
            "timm": "timm" in sys.modules, "inductor": "torch._inductor" in sys.modules}


def start_own(folder: Path, name: str, first: str) -> dict[str, object]:
    """The estimator as a user starts it; `first` is "ready" or "depth"."""
    from depth import MiDaSDepthEstimator
    from depth.estimator import manager

    estimator = MiDaSDepthEstimator(name, manager=manager(folder / "cache"))
    if first == "depth":
        estimator.predict(folder / "picture.jpg")
    return {"seconds": clock() - BORN, "private": private_bytes(), "torch": "torch" in sys.modules,
            "engine": getattr(estimator, "engine", "eager")}


def start_hub(folder: Path, name: str, first: str) -> dict[str, object]:
    load_hub_network = load_hub_ready(folder, name)
    if first == "depth":
        _eager_depth(load_hub_network, folder, name)
    return {"seconds": clock() - BORN, "private": private_bytes()}


def load_hub_ready(folder: Path, name: str):
    import torch

    from depth.models import find
    from depth.networks import FAMILIES

    row = find(name)
    network = FAMILIES[row.family](size=row.size, **row.network)
    network.load_state_dict(torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True))
    return network.eval()


def _eager_depth(network, folder: Path, name: str) -> None:
    import torch

    from depth import images
    from depth.models import find

    rgb = images.open_rgb(folder / "picture.jpg")
    with torch.inference_mode():
        output = network(torch.as_tensor(images.prepare(rgb, find(name))))
    torch.nn.functional.interpolate(output[None], rgb.shape[:2], mode="bicubic", align_corners=False)


def start_transformers(folder: Path, name: str, first: str) -> dict[str, object]:
    from transformers import DPTForDepthEstimation

    network = DPTForDepthEstimation.from_pretrained(folder / "transformers-dpt-large").eval()
    if first == "depth":
        _eager_depth(lambda batch: network(batch).predicted_depth, folder, name)
    return {"seconds": clock() - BORN, "private": private_bytes()}


def imports(folder: Path, module: str) -> dict[str, object]:
    """What importing one module costs."""
    import importlib

    start = clock()
    importlib.import_module(module)
    return {"seconds": clock() - start}


ACTIONS = {action.__name__: action for action in (
    load_own, load_hub, load_transformers, load_compiled, start_own, start_hub, start_transformers, imports)}

if __name__ == "__main__":
    action, folder, *rest = sys.argv[1:]
    print(json.dumps(ACTIONS[action](Path(folder), *rest)))
