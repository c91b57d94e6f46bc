"""One estimate as what the page shows and hands out: previews, files, names, and what was done in words.

A `Result` lies in a folder of its own; whatever is asked for later is made from its files, without the
network. What is looked at is small (`PREVIEW_SIDE`), what is downloaded is whole. The names of pictures
tell how they were made, because browsers cache by name.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cache.errors import ImageError, UsageError
from depth import geometry, images, render, solid, stereo
from depth.depthmap import DepthMap
from depth.geometry import Calibration, Point

PREVIEW_SIDE = 1600  # pixels; the page shows at most this, the downloads are whole
KEPT_PREVIEWS = 12  # of one result: a slider that is dragged about makes many
STEREO: dict[str, Callable[..., np.ndarray]] = {"anaglyph": stereo.anaglyph, "side_by_side": stereo.side_by_side}
_DEPTH = "_depth.npy"


@dataclass(frozen=True)
class Result:
    """One estimate on disk, known by its `…_depth.npy`; the photo and a preview of it lie beside it."""

    depth: Path

    @property
    def photo(self) -> Path:
        """The picture as it came."""
        return self.file("_photo")

    @property
    def preview(self) -> Path:
        """The picture, small."""
        return self.file(".jpg")

    def values(self) -> np.ndarray:
        """The depth, float32 `H×W`."""
        return _kept(lambda: np.load(self.depth, allow_pickle=False))

    def rgb(self) -> np.ndarray:
        """The photo, float32 `H×W×3` in 0..1."""
        return _kept(lambda: images.open_rgb(self.photo))

    def small(self) -> tuple[np.ndarray, np.ndarray]:
        """Photo and depth at the preview's size."""
        rgb = _kept(lambda: images.open_rgb(self.preview))
        return rgb, shrunk(self.values(), rgb.shape[:2])

    def file(self, ending: str) -> Path:
        """The path of one more file of this result."""
        return self.depth.with_name(self.depth.name.removesuffix(_DEPTH) + ending)


@dataclass(frozen=True)
class Look:
    """How depth becomes colours. `far` and `near`: percent of the pixels that the colours leave out at either end."""

    colormap: str = render.COLORMAPS[0]
    invert: bool = False
    far: float = render.OUTLIERS
    near: float = render.OUTLIERS

    @property
    def name(self) -> str:
        """For file names.

        >>> Look("turbo").name, Look("gray", invert=True, far=20).name
        ('turbo', 'gray_inverted_20-0.1')
        """
        limits = f"{self.far:g}-{self.near:g}"
        usual = f"{render.OUTLIERS:g}-{render.OUTLIERS:g}"
        return "_".join([self.colormap] + ["inverted"] * self.invert + [limits] * (limits != usual))


def save(depth: DepthMap, rgb: np.ndarray, photo: Path, folder: Path, stem: str) -> Result:
    """Keep an estimate of `photo` (RGB `H×W×3` in 0..1) in a folder made for it."""
    result = Result(render.save_npy(folder / f"{stem}{_DEPTH}", depth.values))
    shutil.copyfile(photo, result.photo)
    save_preview(result.preview, np.uint8(rgb * 255 + 0.5))
    return result


def find(depth: Path) -> Result:
    """The result whose depth this is. Raises UsageError if it is none, or no longer whole."""
    result = Result(depth)
    if not (depth.name.endswith(_DEPTH) and all(map(Path.is_file, (depth, result.photo, result.preview)))):
        raise _gone()
    return result


def stem_of(name: str) -> str:
    """A tame file name without suffix, from the name that the visitor's file had.

    >>> stem_of("../my holiday (1).png"), stem_of("???.jpg")
    ('my_holiday_1', 'photo')
    """
    return re.sub(r"[^\w-]+", "_", Path(name).stem).strip("_")[:60] or "photo"


# --- Pictures -----------------------------------------------------------------------------------------------


def coloured(result: Result, look: Look) -> Path:
    """The whole depth in colours."""
    def write(path: Path) -> Path:
        values = result.values()
        bounds = render.robust_bounds(values, look.far, look.near)
        return render.save_png(path, values, look.colormap, look.invert, bounds)

    return _once(result.file(f"_depth_{look.name}.png"), write)


def coloured_preview(result: Result, look: Look) -> Path:
    """The same, small: over the whole map's range, so that both have the same colours."""
    render.palette(look.colormap)
    values, size = result.values(), _size(result.preview)
    bounds = render.robust_bounds(values, look.far, look.near)
    pixels = render.colorize(shrunk(values, size), look.colormap, look.invert, bounds)
    return save_preview(result.file(f"_depth_{look.name}_preview.png"), pixels)


def stereo_preview(result: Result, kind: str, strength: float, fill: bool) -> Path:
    """Two eyes' views, small. `kind`: a key of `STEREO`; `strength` in percent of the width."""
    return save_preview(result.file(f"{_stereo_name(kind, strength, fill)}_preview.jpg"),
                        STEREO[kind](*result.small(), strength / 100, fill=fill))


def stereo_picture(result: Result, kind: str, strength: float, fill: bool) -> Path:
    """The same, whole, as PNG."""
    return _once(result.file(f"{_stereo_name(kind, strength, fill)}.png"), lambda path: render.save_picture(
        path, STEREO[kind](result.rgb(), result.values(), strength / 100, fill=fill)))


def normals(result: Result) -> tuple[Path, Path]:
    """Surface normals as colours: preview, and the whole as PNG."""
    pixels = geometry.normal_colors(geometry.normals(result.values()))
    return (save_preview(result.file("_normals_preview.png"), pixels),
            render.save_picture(result.file("_normals.png"), pixels))


def pfm(result: Result) -> Path:
    """The depth as a portable float map."""
    return render.save_pfm(result.file("_depth.pfm"), result.values())


# --- Space --------------------------------------------------------------------------------------------------


def mesh(result: Result, fov: float, edges: float, calibration: Calibration | None = None) -> Path:
    """The textured surface as GLB, with `fov` in degrees.

    `edges`: jumps above this percentage of the map's range are cut open; 100 cuts nothing. Without a
    calibration the shape is guessed.
    """
    return _once(result.file(f"_{_space_name(fov, edges, calibration)}.glb"), lambda path: solid.save_glb(
        path, result.rgb(), result.values(), fov=fov, edges=edges / 100, calibration=calibration))


def points(result: Result, fov: float, edges: float, calibration: Calibration | None = None) -> Path:
    """The coloured point cloud as PLY; parameters as in `mesh`."""
    return _once(result.file(f"_{_space_name(fov, edges, calibration)}.ply"), lambda path: solid.save_ply(
        path, result.rgb(), result.values(), fov=fov, edges=edges / 100, calibration=calibration))


def measure(result: Result, first: Point, second: Point) -> tuple[Calibration, Path, str]:
    """Two points' distances turn the map into distances: the calibration, an .npy in the same unit, and words.

    Raises UsageError for points that decide nothing.
    """
    values = result.values()
    calibration = geometry.calibrated(values, first, second)
    distance = geometry.distances(values, calibration)
    beyond = distance > 0.999 * geometry.FARTHEST * distance.min()
    nearest, middle, farthest = map(_short, np.percentile(distance, (0, 50, 100)))
    words = f"Nearest **{nearest}**, middle **{middle}**, farthest **{farthest}**, in your unit."
    if beyond.any():
        words += (f" For {max(float(beyond.mean()), 0.001):.1%} of the picture the two points give no end: there the "
                  f"file says {farthest}.")
    return calibration, render.save_npy(result.file("_distance.npy"), distance), words


def marked(result: Result, *places: tuple[float, float] | None) -> np.ndarray:
    """The photo's preview, uint8, with the places `(row, column)` of the whole picture ringed and numbered."""
    with _kept(lambda: Image.open(result.preview)) as opened:
        picture = opened.convert("RGB")
    pen, scale = ImageDraw.Draw(picture), picture.width / result.values().shape[1]
    size = max(8, max(picture.size) // 60)
    for number, place in enumerate(places, 1):
        if place is not None:
            row, column = ((one + 0.5) * scale for one in place)
            for width, colour in ((5, "black"), (2, "white")):
                pen.ellipse((column - size, row - size, column + size, row + size), outline=colour, width=width)
            pen.text((column + size + 4, row - size), str(number), "white", font_size=2 * size, stroke_width=2,
                     stroke_fill="black")
    return np.asarray(picture)


def place(result: Result, x: float, y: float) -> tuple[int, int]:
    """`(row, column)` in the whole picture of a point of its preview."""
    size, shown = result.values().shape, _size(result.preview)
    return tuple(min(whole - 1, int((at + 0.5) * whole / small))
                 for at, whole, small in zip((y, x), size, shown, strict=True))


# --- Words --------------------------------------------------------------------------------------------------


def facts(depth: DepthMap) -> dict:
    """What was done, for programs; `in_a_line` says it for people."""
    height, width = depth.values.shape
    return {"model": depth.model, "height": height, "width": width,
            "minimum": float(depth.values.min()), "maximum": float(depth.values.max()),
            "meaning": "relative inverse depth, larger is nearer, no unit",
            "seconds": asdict(depth.seconds) | {"total": depth.seconds.total}}


def in_a_line(done: dict) -> str:
    """The facts as Markdown."""
    seconds = done["seconds"]
    return (f"**{done['model']}** · {done['width']} × {done['height']} · load {seconds['load']:.2f} s, "
            f"preprocess {seconds['prepare']:.2f} s, infer {seconds['infer']:.2f} s")


def batch_in_a_line(records: int, failed: int, total: int) -> str:
    """How a run over many pictures went, as Markdown.

    >>> batch_in_a_line(20, 2, 20), batch_in_a_line(37, 0, 200)
    ('**18 of 20 photos done** · 2 failed', '**37 of 200 photos done** · the rest was left out: the zip is full')
    """
    words = [f"**{records - failed} of {total} photos done**"]
    words += [f"{failed} failed"] if failed else []
    words += ["the rest was left out: the zip is full"] if records < total else []
    return " · ".join(words)


# --- Helpers ------------------------------------------------------------------------------------------------


def save_preview(path: Path, pixels: np.ndarray) -> Path:
    """A picture small enough to look at, in the format that the suffix names; old previews beside it go."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    kind = {".png": "PNG", ".jpg": "JPEG"}[path.suffix]
    render.save_atomically(path, lambda file: picture.save(file, kind, quality=92))
    previews = sorted(path.parent.glob("*_preview.*"), key=lambda one: one.stat().st_mtime_ns)
    for old in previews[:-KEPT_PREVIEWS]:
        old.unlink(missing_ok=True)
    return path


def shrunk(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The map averaged down to `(height, width)`; itself if it has that size."""
    if values.shape == tuple(size):
        return values
    return np.asarray(Image.fromarray(values).resize(size[::-1], Image.Resampling.BOX))


def _size(picture: Path) -> tuple[int, int]:
    """`(height, width)` of a picture file."""
    with _kept(lambda: Image.open(picture)) as opened:
        return opened.height, opened.width


def _once(path: Path, write: Callable[[Path], Path]) -> Path:
    """The file, written if it is not there: its name tells all that it depends on, and it appears whole."""
    return path if path.exists() else write(path)


def _kept(read: Callable):
    """What `read` gives; a UsageError if the files are gone, as old results are."""
    try:
        return read()
    except (OSError, ImageError) as error:
        raise _gone() from error


def _gone() -> UsageError:
    return UsageError("This result is no longer kept.", next_step="Estimate the depth again.")


def _short(number: float) -> str:
    """Three digits that count.

    >>> _short(1738.2), _short(0.012345), _short(3.0)
    ('1,740', '0.0123', '3')
    """
    return f"{float(f'{number:.3g}'):,.10g}"


def _space_name(fov: float, edges: float, calibration: Calibration | None) -> str:
    scale = f"_metric_{calibration.a:.4g}_{calibration.b:.4g}" if calibration else ""
    return f"fov{fov:g}_cut{edges:g}{scale}"


def _stereo_name(kind: str, strength: float, fill: bool) -> str:
    if kind not in STEREO:
        raise UsageError("Unknown kind of stereo picture.", expected=", ".join(STEREO), got=repr(kind))
    return f"_{kind}_{strength:g}" + "_holes" * (not fill)
