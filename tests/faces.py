"""A whole small world for the tests of CLI, REST and guide: a local Hub with tiny checkpoints under
real model names, a real cache in a temporary folder, and a real server on loopback."""

from __future__ import annotations

import io
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from cache import artefacts
from cache.errors import WrongCheckpoint
from cache.manager import ModelManager
from cache.records import Checkpoint
from depth import making, supply
from depth.models import find
from tests.app_server import free_port
from tests.hub_server import HubServer

SIDES = {"DPT_Large": 300, "MiDaS_small": 64}  # of each model's one matrix; the first takes several sends
_FILLED: list[Path] = []
PATIENCE = 60  # seconds until a test gives up; none waits that long


def online(monkeypatch, hub: HubServer) -> None:
    """Let the cache reach the local Hub, and nothing else."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def tensors(side: int) -> dict:
    """A state dict in the official layout."""
    import torch

    values = torch.arange(side * side, dtype=torch.float32).reshape(side, side) / side
    return {"a.weight": values, "a.bias": torch.ones(side)}


def checkpoint_bytes(side: int, add: float = 0) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save({name: tensor + add for name, tensor in tensors(side).items()}, file)
    return file.getvalue()


def checkpoints(hub: HubServer) -> list[Checkpoint]:
    """Two models that the local Hub serves."""
    return [Checkpoint(name, (name.lower(),), (hub.add(f"org/{name}", "weights.pt", checkpoint_bytes(side)),),
                       _official(side), _schema(side)) for name, side in SIDES.items()]


def _schema(side: int):
    return lambda: {"a.weight": ((side, side), "float32"), "a.bias": ((side,), "float32")}


def _official(side: int):
    def to_official(given):
        if set(given) != {"a.weight", "a.bias"} or tuple(given["a.weight"].shape) != (side, side):
            raise WrongCheckpoint("These tensors belong to another model.")
        return dict(given)

    return to_official


def make_manager(hub: HubServer, directory: Path) -> ModelManager:
    return ModelManager(checkpoints(hub), directory, ("pt", "h5", "pkl"), maker=supply.maker())


def fill(directory: Path, hub_directory: Path, factory) -> None:
    """Put both models there, as if they had been downloaded; the real download happens once a process."""
    if not _FILLED:
        folder = factory.mktemp("filled")
        with HubServer() as hub, pytest.MonkeyPatch.context() as patch:
            patch.setenv("HF_HUB_CACHE", str(folder / "hub"))
            online(patch, hub)
            manager = make_manager(hub, folder / "models")
            for name in SIDES:
                manager.download(name)
        _FILLED.append(folder)
    shutil.copytree(_FILLED[0] / "models", directory)
    shutil.copytree(_FILLED[0] / "hub", hub_directory, symlinks=True)


def compiled_tiny(factory) -> Path:
    """The bundled model's folder of artefacts, made once a run, whichever of its processes asks first."""
    own = factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder = artefacts.folder_of(shared / "compiled", "Tiny")
    with FileLock(shared / "compiled.lock"):
        if not folder.exists():
            reason = making.make(find("Tiny"), "onnx", shared / "compiled")
            assert reason is None, reason
    return folder


@contextmanager
def served(routes) -> Iterator[str]:
    """The routes on a loopback server of their own; gives its address."""
    import uvicorn
    from fastapi import FastAPI

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(FastAPI(routes=routes, openapi_url=None), host="127.0.0.1", port=port,
                                           log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)


def until(happens) -> None:
    """Wait for something that will happen; fail if it does not."""
    end = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
