"""Recorded facts about the original networks: seeded weights, pictures, and what came out.

One `NAME.npz` per network:
  recipe    JSON: the picture, mean and std, the recordings' own distance from the original in float64
            ("noise" of the square, "noise_wide", maximal error over range), and for every tensor of the official
            checkpoint, in its order, the shape, the dtype and a rule (below)
  stored/K  the tensors whose rule is "stored" (running statistics, last convolution)
  square    output of the original code (isl-org/MiDaS on timm 0.6.12) for the whole picture, every third pixel
  wide      the same for the picture's upper left 160 x 224 pixels, every second pixel; absent for networks
            that take squares only
  exact     output of the original code in float64: for the wide part every fourth pixel, for the whole picture
            of networks that take squares only every eighth

Rules, for tensor K with samples drawn from numpy's RandomState seeded with the first four bytes (little
endian) of sha256("20240:K"), in float64 and C order, then rounded to float32:
  normal a b       a + b * N(0, 1)
  uniform a b      U(a, b)
  log_uniform a b  ln U(a, b)
  constant c       c everywhere
  structural       an index table or mask that follows from the architecture: not recorded
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in HERE.glob("*.npz")))
WIDE = (160, 224)  # height, width


@dataclass(frozen=True)
class Reference:
    """The recording of the network `name`."""

    name: str

    @cached_property
    def _file(self) -> dict[str, np.ndarray]:
        with np.load(HERE / f"{self.name}.npz") as file:
            return dict(file)

    @cached_property
    def _recipe(self) -> dict:
        return json.loads(self._file["recipe"].tobytes())

    @property
    def tensors(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Key -> (shape, rule), in the checkpoint's order, structural ones included."""
        return {key: (tuple(shape), rule) for key, (shape, _, rule, *_) in self._recipe["tensors"].items()}

    @property
    def noise(self) -> float:
        return self._recipe["noise"]

    @property
    def noise_wide(self) -> float:
        return self._recipe["noise_wide"]

    def state_dict(self) -> dict[str, np.ndarray]:
        """The seeded checkpoint in the official layout, without the structural tensors."""
        return {key: self._tensor(key, *row) for key, row in self._recipe["tensors"].items()
                if row[2] != "structural"}

    def _tensor(self, key: str, shape: list[int], dtype: str, rule: str, *numbers: float) -> np.ndarray:
        if rule == "stored":
            return self._file[f"stored/{key}"]
        if rule == "constant":
            return np.full(shape, *numbers, dtype=dtype)
        seed = int.from_bytes(sha256(f"20240:{key}".encode()).digest()[:4], "little")
        return _DRAW[rule](np.random.RandomState(seed), *numbers, tuple(shape)).astype(dtype)

    def picture(self) -> np.ndarray:
        """The normalised input, 1, 3, S, S, float32."""
        with Image.open(HERE / self._recipe["input"]) as image:
            rgb = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
        rgb = (rgb - np.float32(self._recipe["mean"])) / np.float32(self._recipe["std"])
        return np.ascontiguousarray(rgb.transpose(2, 0, 1)[None])

    def part(self) -> np.ndarray:
        """The upper left part of the picture that is wider than high, 1, 3, 160, 224, float32."""
        return np.ascontiguousarray(self.picture()[:, :, :WIDE[0], :WIDE[1]])

    @property
    def square(self) -> np.ndarray:
        return self._file["square"]

    @property
    def wide(self) -> np.ndarray | None:
        return self._file.get("wide")

    @property
    def exact(self) -> np.ndarray:
        return self._file["exact"]


def _normal(random: np.random.RandomState, mean: float, deviation: float, shape: tuple[int, ...]) -> np.ndarray:
    sample = np.asarray(random.standard_normal(shape))
    sample *= deviation  # in place: the largest tensors take hundreds of megabytes
    sample += mean
    return sample


def _uniform(random: np.random.RandomState, low: float, high: float, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(random.uniform(low, high, shape))


_DRAW = {
    "normal": _normal,
    "uniform": _uniform,
    "log_uniform": lambda random, low, high, shape: np.log(_uniform(random, low, high, shape)),
}
