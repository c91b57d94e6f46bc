"""A depth map as colours and as files: 8-bit colour and 16-bit grey PNG, .npy, PFM.

Values are `H×W` relative inverse depth, larger is nearer; every function here takes the array itself
or a `DepthMap`. Files appear whole or not at all: they are written beside the target and renamed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, PngImagePlugin

from cache.errors import UsageError
from depth.choices import ANCHORS, COLORMAPS

CONVENTION = "relative inverse depth, larger is nearer; value = min + sample / 65535 * (max - min)"
OUTLIERS = 0.1  # percent of the pixels, at either end, that colours leave out: a few stray ones must not darken all


def colorize(values: ArrayLike, colormap: str = "inferno", invert: bool = False,
             bounds: tuple[float, float] | None = None) -> np.ndarray:
    """Colours for looking at, uint8 `H×W×3`: the far end of the map first, or last with `invert`.

    `bounds` are the values shown as farthest and nearest; None takes `robust_bounds`.
    Values beyond are clipped; a constant map becomes the far colour. Raises UsageError for an unknown
    name and for values that are not finite.
    """
    depth = checked(values)
    low, high = bounds if bounds is not None else robust_bounds(depth)
    levels = np.round(unit(depth, low, high) * 255).astype(np.uint8)
    return palette(colormap)[255 - levels if invert else levels]


def palette(colormap: str) -> np.ndarray:
    """The 256 colours of a map from far to near, uint8 `256×3`.

    >>> palette("gray")[[0, 255]].tolist()
    [[0, 0, 0], [255, 255, 255]]
    """
    if colormap not in ANCHORS:
        raise UsageError("Unknown colour map.", expected=", ".join(COLORMAPS), got=repr(colormap))
    anchors = np.frombuffer(bytes.fromhex(ANCHORS[colormap]), np.uint8).reshape(-1, 3)
    steps, at = np.linspace(0, 1, len(anchors)), np.linspace(0, 1, 256)
    return np.stack([np.interp(at, steps, channel) for channel in anchors.T], axis=1).round().astype(np.uint8)


def robust_bounds(values: ArrayLike, far: float = OUTLIERS, near: float = OUTLIERS) -> tuple[float, float]:
    """Farthest and nearest value to show when these percentages of the pixels, at either end, are left out.

    The full range where nearly all are equal. Raises UsageError for percentages that leave nothing.
    """
    if not (far >= 0 and near >= 0 and far + near < 100):
        raise UsageError("These limits leave nothing.", expected="far and near together below 100 %",
                         got=f"far {far:g} %, near {near:g} %")
    depth = checked(values)
    step = max(1, depth.size // 1_000_000)  # a regular sample of a large map is enough for percentiles
    low, high = (float(bound) for bound in np.percentile(depth.ravel()[::step], (far, 100 - near)))
    return (low, high) if high > low else (float(depth.min()), float(depth.max()))


def unit(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """float32 `(values - low) / (high - low)` clipped to 0..1; zeros if `high` is not above `low`."""
    if not high > low:
        return np.zeros(values.shape, np.float32)
    scaled = np.subtract(values, np.float32(low), dtype=np.float32)
    scaled /= np.float32(high - low)
    return scaled.clip(0, 1, out=scaled)


def checked(values: ArrayLike) -> np.ndarray:
    """The values as float32 `H×W`; UsageError for another shape, an empty map, NaN or infinity."""
    depth = np.asarray(values, dtype=np.float32)
    if depth.ndim != 2 or not depth.size:
        raise UsageError("This is not a depth map.", expected="values of shape H×W",
                         got="shape " + "×".join(map(str, depth.shape)))
    if not float(depth.max()) - float(depth.min()) <= np.finfo(np.float32).max:  # false for NaN, too
        raise UsageError("The depth map holds values that are not numbers.", expected="finite values",
                         got="NaN or infinity")
    return depth


def matching(rgb: np.ndarray, values: ArrayLike) -> np.ndarray:
    """The values, checked, of a map that belongs to this `H×W×3` picture; UsageError if sizes differ."""
    depth = checked(values)
    if rgb.shape != (*depth.shape, 3):
        raise UsageError("The picture and its depth map differ in size.", expected="×".join(map(str, depth.shape)),
                         got="×".join(map(str, rgb.shape[:2])))
    return depth


def save_png16(path: str | Path, values: ArrayLike, model: str = "") -> Path:
    """Grey 16-bit PNG: minimum 0, maximum 65535, near is bright; a constant map is all zeros.

    Text chunks `depthmap:min`, `depthmap:max`, `depthmap:model` and `depthmap:convention` hold what
    is needed to get the values back: value = min + sample / 65535 · (max - min).
    """
    depth = checked(values)
    low, high = float(depth.min()), float(depth.max())
    samples = np.round(unit(depth, low, high) * 65535).astype(np.uint16)
    return _save_png(path, samples, {"min": repr(low), "max": repr(high), "model": model, "convention": CONVENTION})


def save_png(path: str | Path, values: ArrayLike, colormap: str = "inferno", invert: bool = False,
             bounds: tuple[float, float] | None = None) -> Path:
    """Coloured 8-bit PNG, see `colorize`."""
    return _save_png(path, colorize(values, colormap, invert, bounds), {"colormap": colormap})


def save_picture(path: str | Path, pixels: np.ndarray) -> Path:
    """Any uint8 `H×W×3` picture (normals, stereo) as PNG."""
    return _save_png(path, pixels, {})


def save_npy(path: str | Path, values: ArrayLike) -> Path:
    """float32 `H×W` as numpy's .npy."""
    depth = checked(values)
    return save_atomically(path, lambda file: np.save(file, depth, allow_pickle=False))


def save_pfm(path: str | Path, values: ArrayLike) -> Path:
    """Portable float map: grey, little-endian float32, rows from the bottom upwards."""
    depth = checked(values)
    header = f"Pf\n{depth.shape[1]} {depth.shape[0]}\n-1.0\n".encode()
    return save_atomically(path, lambda file: file.write(header + depth[::-1].astype("<f4").tobytes()))


def save_atomically(path: str | Path, write: Callable[[BinaryIO], object]) -> Path:
    """Let `write` fill a file beside `path`, then rename it. UsageError where the folder refuses."""
    path = Path(path)
    partial = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        with partial.open("xb") as file:
            write(file)
        partial.replace(path)
    except OSError as error:
        raise UsageError("The file cannot be written.", where=path.name, expected="a folder that takes it",
                         got=error.strerror or str(error)) from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def _save_png(path: str | Path, pixels: np.ndarray, facts: dict[str, str]) -> Path:
    chunks = PngImagePlugin.PngInfo()
    for key, fact in facts.items():
        chunks.add_text(f"depthmap:{key}", fact)
    picture = Image.fromarray(pixels)
    return save_atomically(path, lambda file: picture.save(file, "PNG", pnginfo=chunks, compress_level=4))
