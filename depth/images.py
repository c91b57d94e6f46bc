"""A picture file or array in, RGB out; RGB in, network input out; network output in, depth at source size out.

Resizing follows the published MiDaS transforms to the digit (Ranftl et al., arXiv:1907.01341; the
torch-hub `transforms` of https://github.com/isl-org/MiDaS, MIT). Their resampling is OpenCV's
INTER_CUBIC: Keys' cubic kernel with a = -0.75, four taps whatever the scale, no antialias, no clamping.
`_taps` computes it the way OpenCV does, which is nearer to it on large pictures than torch's bicubic
and reads only the pixels it needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from cache.errors import ImageError

if TYPE_CHECKING:
    import torch

    from depth.models import Model

MULTIPLE = 32  # every network's input sides are multiples of this
MIN_SIDE = 8  # below, there is nothing to see: the network would be shown a smear
MAX_PIXELS = 64_000_000  # 8000×8000; decoding needs up to 20 bytes for each
MAX_SIDE = 32_768
MAX_GRID = 32  # the network's input has at most this many times size² pixels, see `network_size`
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "MPO", "PPM")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_WANTED = "a JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or PPM picture"
_KEYS_A = -0.75


def open_rgb(source: str | Path | Image.Image | np.ndarray) -> np.ndarray:
    """RGB as float32 `H×W×3` in 0..1, from a path, a Pillow picture or an array.

    An array must be `H×W×3` RGB: uint8 (divided by 255), uint16 (by 65535) or float in 0..1.
    A file is turned upright by its EXIF orientation; of an animation the first frame counts.
    Transparency is laid over white; grey becomes three equal channels. 16-bit grey is divided by
    65535; float grey outside 0..1, and integers beyond 16 bit, are stretched so that minimum..maximum
    becomes 0..1. Colour profiles are ignored, as MiDaS does.

    Size is checked before decoding: at most `MAX_PIXELS`, no side below `MIN_SIDE` or above `MAX_SIDE`. The peak
    is about 20 bytes per pixel while a file is decoded (1 GB at 48 megapixels) and 12 afterwards.
    Raises ImageError; its message names the file without its folder.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _from_picture(source, "the given picture")
    if isinstance(source, (str, Path)):
        return _from_file(Path(source))
    raise ImageError("This is not a picture.", expected="a path, a PIL picture or an H×W×3 array",
                     got=f"{type(source).__name__}")


def network_size(height: int, width: int, model: Model) -> tuple[int, int]:
    """`(h, w)` of the network's input for a picture of `height × width`: multiples of 32.

    "square": `size × size`. "minimal": both sides are scaled by the one factor, of the two that bring a
    side to `size`, that is nearer to 1. "upper_bound": by the smaller factor, and a side that rounding
    would lift above `size` is rounded down. Rounding is half to even, as numpy's.

    Ours is "half_bound": the longer side is brought to `size` and the other is rounded up, since more rows show
    more than true proportions do. Pictures wider than 2:1 get half of `size` for the shorter side, and the
    longer one in proportion, but no more than five quarters of `size`: wider ones are squeezed.

    Two bounds are ours too, where the original fails: no side is below 32, and if the input would exceed
    `MAX_GRID · size²` pixels (a panorama beyond 32:1), its longer side is cut to that area.

    >>> from types import SimpleNamespace
    >>> network_size(480, 640, SimpleNamespace(size=384, resize="minimal"))
    (384, 512)
    """
    if model.resize == "square":
        return model.size, model.size
    if model.resize == "half_bound":
        shorter, longer = _half_bound(*sorted((height, width)), model.size)
        return (shorter, longer) if height <= width else (longer, shorter)
    by_height, by_width = model.size / height, model.size / width
    if model.resize == "minimal":
        scale = by_width if abs(1 - by_width) < abs(1 - by_height) else by_height
        limit = None
    else:
        scale = min(by_width, by_height)
        limit = model.size
    h, w = (_round_side(scale * side, limit) for side in (height, width))
    longest = MAX_GRID * model.size**2 // min(h, w) // MULTIPLE * MULTIPLE
    return min(h, longest), min(w, longest)


def prepare(rgb: np.ndarray, model: Model) -> torch.Tensor:
    """`network_input` as torch's tensor."""
    import torch

    return torch.from_numpy(network_input(rgb, model))


def network_input(rgb: np.ndarray, model: Model) -> np.ndarray:
    """The network's input, float32 `1×3×h×w`: resized and normalised with the model's mean and std.

    `rgb` is `H×W×3` in 0..1. Works in float64 until the end, as the original does; values may lie
    outside the range of the picture, since cubic resampling overshoots.
    """
    resized = resample(rgb, network_size(*rgb.shape[:2], model))  # h, w, 3
    normal = (resized - np.asarray(model.mean)) / np.asarray(model.std)
    return np.ascontiguousarray(normal.transpose(2, 0, 1), dtype=np.float32)[None]


def restore(depth: np.ndarray | torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """A network's output `h×w` (or `1×h×w`) at the picture's `(H, W)`, as float32.

    The original uses torch's bicubic, which has the same kernel; its positions are rounded to float32,
    which moves the values by up to 1e-4 of the range between neighbours.
    """
    small = np.asarray(depth, np.float32).reshape(depth.shape[-2:])
    rows, row_weights = _taps(small.shape[0], size[0], np.float32)
    columns, column_weights = _taps(small.shape[1], size[1], np.float32)
    wide = sum(small[:, columns[tap]] * column_weights[tap] for tap in range(4))  # h, W
    result = wide[rows[0]] * row_weights[0][:, None]  # H, W
    part = np.empty_like(result)
    for tap in range(1, 4):  # in place: the picture may have 64 million pixels
        np.multiply(wide[rows[tap]], row_weights[tap][:, None], out=part)
        result += part
    return result


def resample(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`H×W×C` → float64 `h×w×C` by OpenCV's INTER_CUBIC rule. Memory: a few times `h×W×C` doubles."""
    rows, row_weights = _taps(picture.shape[0], size[0])
    columns, column_weights = _taps(picture.shape[1], size[1])
    tall = sum(picture[rows[tap]] * row_weights[tap][:, None, None] for tap in range(4))  # h, W, C
    return sum(tall[:, columns[tap]] * column_weights[tap][:, None] for tap in range(4))  # h, w, C


def _taps(size: int, wanted: int, dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """For each of `wanted` samples along an axis of `size`: four source positions and their weights, `4×wanted`.

    Positions are rounded to float32 before they are split, as OpenCV does: at 5000 pixels that moves
    a sample by 2e-4 of a pixel. Beyond the border the edge pixel repeats.
    """
    position = ((np.arange(wanted) + 0.5) * (size / wanted) - 0.5).astype(np.float32)
    left = np.floor(position)
    part = (position - left).astype(np.float64)
    weights = np.stack([_outer(1 + part), _inner(part), _inner(1 - part), _outer(2 - part)])
    places = left.astype(np.int64) + np.arange(-1, 3)[:, None]
    return places.clip(0, size - 1), weights.astype(dtype)


def _inner(distance: np.ndarray) -> np.ndarray:
    """Keys' kernel within one pixel."""
    return ((_KEYS_A + 2) * distance - (_KEYS_A + 3)) * distance**2 + 1


def _outer(distance: np.ndarray) -> np.ndarray:
    """Keys' kernel between one and two pixels."""
    return _KEYS_A * (((distance - 5) * distance + 8) * distance - 4)


def _half_bound(shorter: int, longer: int, size: int) -> tuple[int, int]:
    """The network's shorter and longer side for a picture with these."""
    if 2 * shorter > longer:
        return -(-size * shorter // (longer * MULTIPLE)) * MULTIPLE, size
    half = -(-size // (2 * MULTIPLE)) * MULTIPLE
    return half, min(_round_side(half * longer / shorter, None), 5 * size // (4 * MULTIPLE) * MULTIPLE)


def _round_side(length: float, limit: int | None) -> int:
    side = int(np.round(length / MULTIPLE)) * MULTIPLE
    if limit is not None and side > limit:
        side = int(length // MULTIPLE) * MULTIPLE
    return max(side, MULTIPLE)


def _from_array(array: np.ndarray) -> np.ndarray:
    if array.ndim != 3 or array.shape[2] != 3:
        raise ImageError("The array is not an RGB picture.", expected="shape H×W×3",
                         got="shape " + "×".join(map(str, array.shape)),
                         next_step="Stack a grey plane three times; drop an alpha channel.")
    _check_size(*array.shape[:2], "the given array")
    if array.dtype in (np.uint8, np.uint16):
        return np.divide(array, np.float32(np.iinfo(array.dtype).max), dtype=np.float32)
    if array.dtype.kind != "f":
        raise ImageError("The array has a type whose range is unknown.", where="the given array",
                         expected="uint8, uint16 or float in 0..1", got=str(array.dtype),
                         next_step="Convert it first.")
    _check_finite(array, "the given array")
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 1:
        raise ImageError("The array is out of range.", where="the given array", expected="floats in 0..1",
                         got=f"{low:g}..{high:g}", next_step="Divide 0..255 values by 255.")
    return array.astype(np.float32, copy=False)


def _from_file(path: Path) -> np.ndarray:
    _check_file(path)
    try:
        picture = Image.open(path, formats=_formats(path))
    except Exception as error:  # Pillow's parsers raise whatever hostile bytes provoke
        raise _unreadable(path, error) from error
    with picture:
        return _from_picture(picture, path.name)


def _check_file(path: Path) -> None:
    """Only a regular file that is not empty: a pipe would block, a folder has no bytes."""
    try:
        regular, size = path.is_file(), path.stat().st_size
    except (OSError, ValueError) as error:
        raise ImageError("The picture cannot be opened.", where=path.name or "the path", expected="a file",
                         got=getattr(error, "strerror", None) or str(error),
                         next_step="Check the name.") from error
    if not regular:
        raise ImageError("This is not a file.", where=path.name or "the path", expected="a picture file",
                         got="a folder" if path.is_dir() else "a pipe or device")
    if size == 0:
        raise ImageError("The file is empty.", where=path.name, expected=_WANTED, got="0 bytes",
                         next_step="Save or upload it again.")


def _formats(path: Path) -> tuple[str, ...]:
    """The allowed formats that this Pillow reads, and HEIF for a HEIF file if pillow-heif is there."""
    Image.init()
    known = tuple(name for name in FORMATS if name in Image.OPEN)
    if not _is_heif(path):
        return known
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise ImageError("HEIC pictures need one more package.", where=path.name, expected=_WANTED, got="HEIC",
                         next_step="Run `pip install pillow-heif`, or save the picture as JPEG.") from error
    register_heif_opener()
    return (*known, "HEIF")


def _is_heif(path: Path) -> bool:
    """By its brand; AVIF files, which Pillow reads itself, may begin with the same general one."""
    with path.open("rb") as file:
        head = file.read(64)
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS and b"avif" not in head


def _unreadable(path: Path, error: Exception) -> ImageError:
    if isinstance(error, ImageError):
        return error
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return ImageError("The picture is too large.", where=path.name, expected=_limits(),
                          got="a far larger one", next_step="Scale it down first.")
    if isinstance(error, PermissionError):
        return ImageError("The picture cannot be opened.", where=path.name, got="no permission to read it")
    return ImageError("This is not a picture that can be read.", where=path.name, expected=_WANTED,
                      got="something else", next_step="Save it as PNG or JPEG.")


def _from_picture(picture: Image.Image, where: str) -> np.ndarray:
    _check_size(picture.height, picture.width, where)
    try:
        if picture.tell():
            picture.seek(0)  # the caller's animation stands at another frame
        upright = ImageOps.exif_transpose(picture)
        pixels = np.asarray(upright) if _is_deep(upright) else _colour(upright)
    except Exception as error:  # as in _from_file: decoders raise anything
        raise ImageError("The picture is damaged.", where=where, expected="a complete picture",
                         got="data that cannot be decoded",
                         next_step="Save or upload it again.") from error
    if pixels.ndim == 2:
        _check_finite(pixels, where)
        return np.repeat(_unit(pixels)[:, :, None], 3, axis=2)
    return np.divide(pixels, np.float32(255), dtype=np.float32)


def _is_deep(picture: Image.Image) -> bool:
    """Grey with more than 8 bits: Pillow's own conversion of these clips instead of scaling."""
    return picture.mode == "F" or picture.mode.startswith("I")


def _colour(picture: Image.Image) -> np.ndarray:
    """uint8 `H×W×3`, transparency over white."""
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.asarray(picture.convert("RGB"))


def _unit(grey: np.ndarray) -> np.ndarray:
    """Deep grey to 0..1 by the rule in `open_rgb`'s docstring; a constant beyond the range becomes 0."""
    low, high = float(grey.min()), float(grey.max())
    if grey.dtype.kind in "iu" and low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0  # older Pillow opens 16-bit PNG as 32-bit integers
    elif grey.dtype.kind == "f" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    return ((grey - low) / max(high - low, np.finfo(float).tiny)).astype(np.float32)


def _check_size(height: int, width: int, where: str) -> None:
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
        raise ImageError("The picture is too large.", where=where, expected=_limits(),
                         got=f"{height}×{width}", next_step="Scale it down first.")
    if min(height, width) < MIN_SIDE:
        raise ImageError("The picture is too small.", where=where, expected=f"no side below {MIN_SIDE} pixels",
                         got=f"{height}×{width}", next_step="Choose a larger one.")


def _limits() -> str:
    return f"at most {MAX_PIXELS // 1_000_000} megapixels and no side above {MAX_SIDE}"


def _check_finite(values: np.ndarray, where: str) -> None:
    if not np.isfinite(values).all():
        raise ImageError("The picture holds values that are not numbers.", where=where,
                         expected="finite values", got="NaN or infinity", next_step="Replace them first.")
