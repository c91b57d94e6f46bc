"""One depth map as what the page shows and hands out: previews, files, names, and what was done in words."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from depth import render
from depth.depthmap import DepthMap

PREVIEW_SIDE = 1600  # pixels; the page shows at most this, the downloads are whole


def stem_of(name: str) -> str:
    """A tame file name without suffix, from the name that the visitor's file had.

    >>> stem_of("../my holiday (1).png"), stem_of("???.jpg")
    ('my_holiday_1', 'photo')
    """
    return re.sub(r"[^\w-]+", "_", Path(name).stem).strip("_")[:60] or "photo"


def save_coloured(npy: Path, colormap: str) -> tuple[str, str]:
    """Preview and full-size PNG. The colour map is part of their names, because browsers cache by name."""
    values, stem = np.load(npy), f"{npy.stem}_{colormap}"
    whole = render.save_png(npy.with_name(f"{stem}.png"), values, colormap)
    return save_preview(npy.with_name(f"{stem}_preview.png"), render.colorize(values, colormap)), str(whole)


def save_preview(path: Path, pixels: np.ndarray) -> str:
    """A picture small enough to look at, in the format that the suffix names."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    picture.save(path, quality=92)
    return str(path)


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
