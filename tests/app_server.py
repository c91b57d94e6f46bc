"""The app as its users start it: a server in a process of its own, offline, with its own cache."""

from __future__ import annotations

import io
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cache.hub import RemoteFile

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 120  # seconds until a test gives up; none waits that long
TOKEN = "open sesame"
REMOTE = "Remote"  # the model that only the tests' Hub has


@dataclass(frozen=True)
class Server:
    """A running app. `home` holds its cache (`models`), its uploads (`gradio`), passing files (`tmp`) and its log."""

    url: str
    home: Path
    process: subprocess.Popen

    @property
    def models(self) -> Path:
        return self.home / "models"

    def made(self) -> set[Path]:
        """What it has made and not removed: results, and passing files of ours. Uploads lie elsewhere."""
        return {*(self.home / "gradio").glob("tmp*"), *(self.home / "tmp").glob("*depthmap*")}

    def log(self) -> str:
        return (self.home / "log.txt").read_text(encoding="utf-8", errors="replace")


def free_port() -> int:
    """For a server that takes it a moment later: below those that the system gives to whoever asks for any."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def serving(home: Path, *, arguments: tuple[str, ...] = (), remote: RemoteFile | None = None,
            command: tuple[str, ...] = ("app.py",), **environ: str) -> Iterator[Server]:
    """`python app.py`, or another command, with its own cache in `home`; with `remote`, one more model from there.

    The port travels in GRADIO_SERVER_PORT, unless `arguments` name one.
    """
    port = free_port() if "--port" not in arguments else int(arguments[arguments.index("--port") + 1])
    if remote is not None:
        command = ("-m", "tests.app_server", json.dumps(asdict(remote)))
    settings = {"GRADIO_SERVER_PORT": str(port), "DEPTHMAP_CACHE": str(home / "models"), "HF_HOME": str(home / "hf"),
                "HF_HUB_CACHE": str(home / "hf" / "hub"), "GRADIO_TEMP_DIR": str(home / "gradio"),
                "TMPDIR": str(home / "tmp"), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    (home / "tmp").mkdir(exist_ok=True)
    with (home / "log.txt").open("w") as log:
        process = subprocess.Popen([sys.executable, *command, *arguments], cwd=ROOT, stdout=log,
                                   stderr=subprocess.STDOUT, env=os.environ | settings | environ)
        server = Server(f"http://127.0.0.1:{port}", home, process)
        try:
            until(lambda: process.poll() is not None or "Running on" in server.log())
            assert process.poll() is None, f"the app did not start:\n{server.log()}"
            yield server
        finally:
            process.kill()
            process.wait()


def until(happens: Callable[[], object]) -> None:
    """Wait for something that will happen; fail if it does not."""
    end = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def remote_weights() -> bytes:
    """The bundled model's tensors as the .pt file that the tests' Hub offers."""
    import torch
    from safetensors.torch import load_file

    from depth.models import find
    from depth.supply import BUNDLED

    tensors, file = load_file(BUNDLED / find("Tiny").bundled), io.BytesIO()
    torch.save({key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}, file)
    return file.getvalue()


def run_with_remote_model(source: str, arguments: list[str]) -> None:
    """In the server's process: the app as it is, and one more row in its model table."""
    from depth import models

    row = replace(models.find("Tiny"), name=REMOTE, aliases=(), file="remote", bundled=None,
                  sources=(RemoteFile(**json.loads(source)),))
    models.MODELS += (row,)
    models._ROWS[REMOTE.lower()] = row
    import app

    app.main(arguments)


if __name__ == "__main__":
    run_with_remote_model(sys.argv[1], sys.argv[2:])
