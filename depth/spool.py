"""The depth of a whole clip on disk, because its range is known only when its last frame is done.

A map takes at most `SPOOL_PIXELS` (the networks' own grids are hardly finer) of 16 bits between its own
minimum and maximum, which is finer than float16. The maps lie one after the other in a file that the
caller opens; one without a name, such as `tempfile.TemporaryFile`, is gone even after a kill.
"""

from __future__ import annotations

import io
import json
import math
import shutil
import struct
import zipfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from cache.errors import NoSpace
from depth import render
from depth.clips import Clip

SPOOL_PIXELS = 2**18  # stored of a frame: 512×512, two bytes each
RESERVE = 256 * 2**20  # bytes of disk that the spool leaves free
CLIPPED = 0.001  # share of the values beyond each end of the shown range, so that few wild pixels do not set it
_HEAD = struct.Struct("<ff")


class Spool:
    """Depth maps on disk, one after the other: minimum and maximum as float32, then uint16 `h×w`."""

    def __init__(self, file: BinaryIO, clip: Clip):
        self._file, self.size = file, spool_size(clip)
        self.count, self.model = 0, ""
        self.low, self.high = float("inf"), float("-inf")

    def shrink(self, values: np.ndarray) -> np.ndarray:
        return resized(values, self.size, Image.Resampling.BOX)

    def add(self, values: np.ndarray, model: str) -> None:
        low, high = float(values.min()), float(values.max())
        samples = np.round(render.unit(values, low, high) * 65535).astype("<u2")
        self._file.write(_HEAD.pack(low, high) + samples.tobytes())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.count, self.model = self.count + 1, model

    def __iter__(self) -> Iterator[np.ndarray]:
        """The maps in order, float32 `h×w`. One reader at a time."""
        height, width = self.size
        self._file.seek(0)
        while head := self._file.read(_HEAD.size):
            low, high = _HEAD.unpack(head)
            samples = np.frombuffer(self._file.read(2 * height * width), "<u2").reshape(height, width)
            yield samples * np.float32((high - low) / 65535) + np.float32(low)

    def bounds(self) -> tuple[float, float]:
        """The range that is shown: all values but `CLIPPED` at each end, found by counting them in 65536 bins."""
        if not self.high > self.low:
            return self.low, self.high
        counts = np.zeros(65536, np.int64)
        for values in self:
            bins = (render.unit(values, self.low, self.high) * 65535).astype(np.uint16)
            counts += np.bincount(bins.ravel(), minlength=65536)
        share = np.cumsum(counts) / counts.sum()
        low, high = (int(np.searchsorted(share, part)) for part in (CLIPPED, 1 - CLIPPED))
        step = (self.high - self.low) / 65535
        return (self.low + low * step, self.low + high * step) if high > low else (self.low, self.high)


class FrameZip:
    """A zip of 16-bit frames that share one scale, which `scale.json` tells."""

    def __init__(self, path: Path):
        self._archive = zipfile.ZipFile(path, "w")
        self._times: list[float] = []

    def add(self, values: np.ndarray, low: float, high: float, time: Fraction) -> None:
        self._times.append(round(float(time), 6))
        png = io.BytesIO()
        samples = np.round(render.unit(values, low, high) * 65535).astype(np.uint16)
        Image.fromarray(samples).save(png, "PNG", compress_level=1)
        self._archive.writestr(f"frame_{len(self._times):06d}.png", png.getvalue())

    def finish(self, spool: Spool) -> None:
        facts = {"min": spool.low, "max": spool.high, "model": spool.model, "convention": render.CONVENTION,
                 "seconds": self._times}
        self._archive.writestr("scale.json", json.dumps(facts), zipfile.ZIP_DEFLATED)

    def close(self) -> None:
        self._archive.close()


def check_room(clip: Clip, folder: Path) -> None:
    """Before an hour of work: is there room for the spool of the whole clip?"""
    height, width = spool_size(clip)
    needed = (clip.frames or 0) * (2 * height * width + _HEAD.size) + RESERVE
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NoSpace("The disk has no room for this clip's depth.", where=folder, expected=f"{needed} bytes free",
                      got=free, next_step="Make room, or cut the clip.")


def spool_size(clip: Clip) -> tuple[int, int]:
    """The clip's own size, or one of its shape with `SPOOL_PIXELS`."""
    shrink = min(1.0, math.sqrt(SPOOL_PIXELS / (clip.height * clip.width)))
    return max(1, round(clip.height * shrink)), max(1, round(clip.width * shrink))


def resized(values: np.ndarray, size: tuple[int, int], how: Image.Resampling) -> np.ndarray:
    """float32 `H×W` at another size; as it is where it has it."""
    if values.shape == size:
        return np.asarray(values, np.float32)
    return np.asarray(Image.fromarray(np.ascontiguousarray(values, np.float32)).resize(size[::-1], how))
