"""An estimator without a network, for tests of what stands around one: brightness is depth."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

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


def picture(path: Path, height: int = 12, width: int = 16, start: int = 0) -> Path:
    """A small real picture file, a ramp from left to right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(start, 255, width).astype(np.uint8)
    Image.fromarray(np.broadcast_to(ramp[None, :, None], (height, width, 3)).copy()).save(path)
    return path
