"""A small world for tests of the cache: models of 20 little tensors, a local Hub, a manager."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cache.hub import RemoteFile
from cache.manager import Checkpoint, ModelManager
from tests.hub_server import HubServer

VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN",
             "DEPTHMAP_FORMATS", "DEPTHMAP_CACHE_MAX_BYTES", "SPACE_ID")


def tensors(seed: int = 0, width: int = 64) -> dict:
    """20 tensors of several types; `seed` also changes a shape, so that models differ in their schema."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    result = {f"pretrained.model.blocks.{n}.attn.qkv.weight": torch.randn(width, 50 + seed, generator=generator)
              for n in range(18)}
    result["pretrained.model.bn.num_batches_tracked"] = torch.tensor(7 + seed)
    result["scratch.output_conv.weight"] = torch.randn(4, 3, 3, 3, generator=generator)
    return result


def checkpoint_bytes(content: dict, **options) -> bytes:
    import io

    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def checkpoint(name: str, content: dict, *sources: RemoteFile) -> Checkpoint:
    def to_official(found):
        return {key.removeprefix("other."): value for key, value in found.items()}

    def schema():
        return {key: (tuple(value.shape), str(value.dtype).removeprefix("torch.")) for key, value in content.items()}

    return Checkpoint(name, (f"{name.lower()}_file",), sources, to_official, schema)


class World:
    """`hub` serves `names`; `manager()` is a fresh manager, as a new process would have it."""

    def __init__(self, folder: Path, hub: HubServer, names: tuple[str, ...] = ("A",), width: int = 64):
        self.folder, self.hub = folder, hub
        self.own, self.hf = folder / "own", folder / "hf" / "hub"
        self.content = {name: tensors(seed, width) for seed, name in enumerate(names)}
        self.data = {name: checkpoint_bytes(content) for name, content in self.content.items()}
        self.files = {name: hub.add(f"org/{name}", "w.pt", data) for name, data in self.data.items()}
        self.checkpoints = [checkpoint(name, self.content[name], self.files[name]) for name in names]

    def manager(self, **options) -> ModelManager:
        return ModelManager(self.checkpoints, **options)

    def file(self, format: str, name: str = "A") -> Path:
        return self.own / name / f"weights.{format}"

    def same(self, found: dict, name: str = "A") -> bool:
        import torch

        wanted = self.content[name]
        return set(found) == set(wanted) and all(torch.equal(found[key], wanted[key]) for key in wanted)

    def forget_hub(self) -> None:
        shutil.rmtree(self.folder / "hf", ignore_errors=True)


def environment(patch: pytest.MonkeyPatch, folder: Path, hub: HubServer) -> None:
    for name in VARIABLES:
        patch.delenv(name, raising=False)
    patch.setenv("HF_HOME", str(folder / "hf"))
    patch.setenv("DEPTHMAP_CACHE", str(folder / "own"))
    patch.setenv("HF_ENDPOINT", hub.endpoint)


def flip(path: Path, at: int | None = None, bit: int = 0) -> None:
    """Change one bit in place."""
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        position = size // 2 if at is None else at % size
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ (1 << bit)]))


def no_pauses(patch: pytest.MonkeyPatch) -> None:
    from cache import transfer

    patch.setattr(transfer, "PAUSES", (0.0, 0.0, 0.0, 0.0))
