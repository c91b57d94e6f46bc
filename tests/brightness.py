"""An estimator without a network, for tests of what stands around one: brightness is depth."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from cache.hub import RemoteFile
from depth.depthmap import DepthMap
from depth.images import open_rgb


class Brightness:
    """Reads pictures as the real one does, and remembers which it was asked for."""

    model = SimpleNamespace(name="Brightness")

    def __init__(self):
        self.seen: list[object] = []

    def predict(self, image) -> DepthMap:
        self.seen.append(image)
        return DepthMap(open_rgb(image).mean(axis=2) * 100, self.model.name)


class Logged(Brightness):
    """Leaves a line for each picture in a folder that all workers see, under the worker's number."""

    def __init__(self, folder: Path):
        super().__init__()
        self.log = folder / f"{os.getpid()}.log"
        self.log.touch()

    def predict(self, image):
        with self.log.open("a") as file:
            file.write(f"{Path(image).name}\n")
        return super().predict(image)


class Killed(Logged):
    """Its process is killed outright at one picture, the first time that any worker meets it."""

    def predict(self, image):
        mark = self.log.with_name("killed")
        if Path(image).stem == "07" and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(image)


class Downloaded(Logged):
    """Its weights are a file of a Hub, fetched through the cache that `environ` names."""

    def __init__(self, folder: Path, file: RemoteFile, environ: dict[str, str]):
        super().__init__(folder)
        os.environ.update(environ)
        from cache import hub

        self.weights = hub.fetch(file)


def picture(path: Path, height: int = 12, width: int = 16, start: int = 0) -> Path:
    """A small real picture file, a ramp from left to right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(start, 255, width).astype(np.uint8)
    Image.fromarray(np.broadcast_to(ramp[None, :, None], (height, width, 3)).copy()).save(path)
    return path
