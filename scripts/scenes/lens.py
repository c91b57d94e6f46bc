"""From linear light to a spoilt photo: exposure, white balance, blur, vignette, noise, gamma, JPEG."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageFilter


def photograph(colour: np.ndarray, depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Linear colour (H×W×3 float32) as a photo, uint8 H×W×3; depth (0 for sky) places the focus."""
    picture = expose(colour, rng)
    if rng.random() < 0.5:
        picture = picture * vignette(picture.shape[:2], rng)
    picture = develop(picture, rng)
    if rng.random() < 0.2:
        picture = defocus(picture, depth, rng)
    elif rng.random() < 0.07:
        picture = panned(picture, depth, rng)
    elif rng.random() < 0.4:
        picture = blurred(picture, rng.uniform(0.3, 1.2))
    if rng.random() < 0.6:
        picture = picture + rng.standard_normal(picture.shape, np.float32) * np.float32(rng.random() ** 2 * 0.06)
    picture = (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    return compressed(picture, int(rng.integers(30, 96))) if rng.random() < 0.5 else picture


def expose(colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scale to a random mean brightness, as a camera's meter does, with a colour cast."""
    level = float(np.mean(np.minimum(colour, 4.0))) + 1e-4
    cast = np.exp(rng.normal(0, 0.08, 3)).astype(np.float32)
    return np.maximum(colour, 0) * (np.float32(np.exp(rng.normal(-1.45, 0.4)) / level) * cast)


def vignette(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    return (1 - np.float32(rng.uniform(0.05, 0.5)) * (x[None, :] ** 2 + y[:, None] ** 2) / 2)[..., None]


def develop(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Soft clipping of highlights, gamma and contrast: linear light to 0..1."""
    knee = np.float32(rng.uniform(0.5, 1.5))
    picture = picture * (1 + picture / (knee * 4)) / (1 + picture / knee * 0.6) if rng.random() < 0.5 else picture
    picture = np.clip(picture, 0, 1) ** np.float32(1 / rng.uniform(1.9, 2.5))
    contrast = np.float32(rng.uniform(0.75, 1.3))
    return (picture - 0.5) * contrast + 0.5 + np.float32(rng.normal(0, 0.03))


def blurred(picture: np.ndarray, radius: float) -> np.ndarray:
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255


def defocus(picture: np.ndarray, depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur what lies away from the focused distance, mostly the background."""
    near = 1 / np.maximum(depth, 0.05) * (depth > 0)
    focus = np.quantile(near, rng.uniform(0.6, 0.97) if rng.random() < 0.8 else rng.random())
    away = np.abs(near - focus) / (focus + 1e-3)
    away = np.clip(away * rng.uniform(0.5, 2), 0, 1)[..., None].astype(np.float32)
    strong = blurred(picture, rng.uniform(2, 7))
    soft = blurred(picture, 1.2)
    return np.where(
        away < 0.5, picture * (1 - 2 * away) + soft * 2 * away, soft * (2 - 2 * away) + strong * (2 * away - 1)
    )


def panned(picture: np.ndarray, depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Motion blur along the rows; when the camera follows the nearest thing, that one stays sharp."""
    span = int(rng.integers(3, 40))
    sums = np.cumsum(np.pad(picture, ((0, 0), (span, span), (0, 0)), "edge"), axis=1, dtype=np.float64)
    smeared = ((sums[:, 2 * span :] - sums[:, : -2 * span]) / (2 * span)).astype(np.float32)
    if rng.random() < 0.4:
        return smeared
    near = 1 / np.maximum(depth, 0.05) * (depth > 0)
    away = np.clip(3 - 4 * near / (np.quantile(near, 0.97) + 1e-6), 0, 1)[..., None].astype(np.float32)
    return picture * (1 - away) + smeared * away


def compressed(picture: np.ndarray, quality: int) -> np.ndarray:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))
