"""The answer of a prediction, as a record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timings:
    """Seconds. `load` is what the model's loading took, once; `infer` is a picture's share of its batch."""

    load: float = 0.0
    prepare: float = 0.0  # opening, decoding, resizing, normalising
    infer: float = 0.0
    restore: float = 0.0

    @property
    def total(self) -> float:
        """Seconds this picture took, loading left out."""
        return self.prepare + self.infer + self.restore


@dataclass(frozen=True, eq=False)
class DepthMap:
    """Relative inverse depth of one picture.

    `values`: float32 `H×W` at the picture's size, no unit, larger is nearer, read-only. Scale and
    offset differ from picture to picture: depth = 1 / (a · value + b) with unknown a and b.
    `numpy.asarray(depth_map)` gives `values` without a copy.

    >>> DepthMap(np.array([[1, 2]]), "Tiny").values.dtype
    dtype('float32')
    """

    values: np.ndarray
    model: str
    seconds: Timings = Timings()

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float32).view()
        values.flags.writeable = False
        object.__setattr__(self, "values", values)

    @property
    def shape(self) -> tuple[int, int]:
        """`(H, W)`."""
        return self.values.shape

    def __array__(self, dtype=None, copy: bool | None = None) -> np.ndarray:
        """numpy's protocol, with its version 2 meaning of `copy` (None: only if needed)."""
        wanted = np.dtype(dtype) if dtype is not None else self.values.dtype
        if copy is False and wanted != self.values.dtype:
            raise ValueError(f"Depth values are float32; as {wanted} they need a copy.")
        return self.values.astype(wanted, copy=bool(copy))
