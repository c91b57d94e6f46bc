"""Pictures of every kind in, hostile ones refused; sizes and resampling as the original's."""

import math
import os
import struct
import sys
import zlib
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, features

from cache.errors import ImageError
from depth import images
from depth.images import network_size, open_rgb, prepare, resample, restore
from depth.models import MODELS, find


def blocks(pixels, side: int = images.MIN_SIDE) -> np.ndarray:
    """Every pixel as a square of this side: a picture of a few colours that is large enough."""
    return np.asarray(pixels).repeat(side, 0).repeat(side, 1)


COLOURS = blocks(np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]], [[0, 0, 0], [128, 64, 32]]],
                          np.uint8))

def saved(tmp_path: Path, picture: Image.Image, name: str, **options) -> Path:
    path = tmp_path / name
    picture.save(path, **options)
    return path


def refusal(source) -> str:
    with pytest.raises(ImageError) as caught:
        open_rgb(source)
    return str(caught.value)


# Pictures in


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm", "a.webp"])
def test_lossless_files_give_their_pixels(tmp_path, name):
    path = saved(tmp_path, Image.fromarray(COLOURS), name, **({"lossless": True} if name.endswith("webp") else {}))
    rgb = open_rgb(path)
    assert rgb.dtype == np.float32 and rgb.shape == COLOURS.shape
    np.testing.assert_array_equal(rgb, (COLOURS / 255.0).astype(np.float32))


def test_path_as_text_pillow_picture_and_array_agree(tmp_path):
    path = saved(tmp_path, Image.fromarray(COLOURS), "a.png")
    for source in (str(path), Image.open(path), Image.fromarray(COLOURS), COLOURS):
        np.testing.assert_array_equal(open_rgb(source), open_rgb(path))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_picture_upright(tmp_path, orientation):
    stored = {1: COLOURS, 2: COLOURS[:, ::-1], 3: COLOURS[::-1, ::-1], 4: COLOURS[::-1],
              5: COLOURS.swapaxes(0, 1), 6: np.rot90(COLOURS, 1), 7: np.rot90(COLOURS, 2).swapaxes(0, 1),
              8: np.rot90(COLOURS, -1)}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(np.ascontiguousarray(stored)), "a.png", exif=exif)
    np.testing.assert_array_equal(open_rgb(path), COLOURS / np.float32(255))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_spoil_the_picture(tmp_path):
    path = saved(tmp_path, Image.fromarray(COLOURS), "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\xff\x01")
    assert open_rgb(path).shape == COLOURS.shape


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_lies_over_white(mode):
    picture = Image.new("RGBA", (16, 8), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (8, 0, 16, 8))
    rgb = open_rgb(picture.convert(mode))
    np.testing.assert_array_equal(rgb[0, ::8], [[1, 1, 1], [0, 0, 0]])


def test_half_transparent_black_is_mid_grey():
    rgb = open_rgb(Image.new("RGBA", (8, 8), (0, 0, 0, 128)))
    np.testing.assert_allclose(rgb, 127 / 255, atol=1e-6)


def test_transparent_palette_entry_lies_over_white(tmp_path):
    picture = Image.new("P", (16, 8))
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.paste(1, (8, 0, 16, 8))
    rgb = open_rgb(saved(tmp_path, picture, "a.png", transparency=0))
    np.testing.assert_array_equal(rgb[0, ::8], [[1, 1, 1], [0, 1, 0]])


@pytest.mark.parametrize(("mode", "value", "expected"), [
    ("L", 51, 0.2), ("1", 1, 1.0), ("I;16", 13107, 0.2), ("F", 0.25, 0.25), ("CMYK", (0, 0, 0, 255), 0.0),
    ("YCbCr", (255, 128, 128), 1.0), ("HSV", (0, 0, 255), 1.0),
])
def test_other_modes_become_equal_channels(mode, value, expected):
    rgb = open_rgb(Image.new(mode, (16, 24), value))
    assert rgb.shape == (24, 16, 3) and rgb.dtype == np.float32
    np.testing.assert_allclose(rgb, expected, atol=1e-6)


def test_cmyk_jpeg_gives_its_colour(tmp_path):
    path = saved(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "a.jpg", quality=100)
    np.testing.assert_allclose(open_rgb(path)[4, 4], [1, 0, 0], atol=0.02)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grey_keeps_its_depth(tmp_path, name):
    grey = blocks(np.array([[0, 1, 256], [40000, 65534, 65535]], np.uint16))
    rgb = open_rgb(saved(tmp_path, Image.fromarray(grey), name))
    np.testing.assert_allclose(rgb[..., 1], grey / 65535, atol=1e-7)


def test_float_tiff_beyond_one_is_stretched_over_its_range(tmp_path):
    path = saved(tmp_path, Image.fromarray(blocks(np.array([[-10, 0, 30]], np.float32))), "a.tif")
    np.testing.assert_allclose(open_rgb(path)[0, ::8, 0], [0, 0.25, 1], atol=1e-6)


def test_constant_float_tiff_beyond_one_is_black(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.full((8, 8), 7, np.float32)), "a.tif")
    assert not open_rgb(path).any()


def test_32_bit_integers_are_stretched_over_their_range():
    picture = Image.fromarray(blocks(np.array([[0, 100_000, 200_000]], np.int32)))
    np.testing.assert_allclose(open_rgb(picture)[0, ::8, 0], [0, 0.5, 1], atol=1e-6)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_first_frame_of_an_animation_counts(tmp_path, name):
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    options = {"lossless": True} if name == "a.webp" else {}
    path = saved(tmp_path, red, name, save_all=True, append_images=[blue], **options)
    np.testing.assert_array_equal(open_rgb(path)[0, 0], [1, 0, 0])


def test_a_picture_that_stands_at_another_frame_starts_again(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    picture = Image.open(saved(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:]))
    picture.seek(1)
    np.testing.assert_array_equal(open_rgb(picture)[0, 0], [1, 0, 0])


@pytest.mark.parametrize("array", [COLOURS, COLOURS.astype(np.uint16) * 257, COLOURS / 255.0,
                                   (COLOURS / 255).astype(np.float32), np.asfortranarray(COLOURS)])
def test_array_types_agree(array):
    np.testing.assert_allclose(open_rgb(array), (COLOURS / 255.0).astype(np.float32), atol=6e-8)


def test_uint8_is_divided_as_the_original_divides():
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    np.testing.assert_array_equal(open_rgb(every), (every / 255.0).astype(np.float32))


# Refusals


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb(path: Path, width: int, height: int) -> Path:
    """A small PNG that claims to be huge."""
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
                     + chunk(b"IEND", b""))
    return path


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 30_000, 60_000])
def test_bomb_is_refused_from_its_header(tmp_path, side, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded before the size was checked"))
    text = refusal(bomb(tmp_path / "bomb.png", side, side))
    assert "too large" in text and "64 megapixels" in text and "bomb.png" in text


def test_picture_above_the_longest_side_is_refused(tmp_path):
    assert "no side above" in refusal(bomb(tmp_path / "long.png", images.MAX_SIDE + 1, 1))


def test_given_picture_above_the_limit_is_refused():
    assert "too large" in refusal(Image.new("1", (9000, 9000)))


@pytest.mark.parametrize(("name", "content"), [
    ("text.png", b"just text, long enough to be something"), ("page.jpg", b"<html></html>"), ("a.pdf", b"%PDF-1.7\n"),
    ("vector.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), ("script.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n"),
    ("one.png", b"\x89"), ("head.png", b"\x89PNG\r\n\x1a\n"), ("head.gif", b"GIF89a"), ("head.bmp", b"BM1234"),
])
def test_what_is_no_picture_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    text = refusal(path)
    assert name in text and "JPEG" in text and str(tmp_path) not in text


def test_empty_file_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.touch()
    assert "empty" in refusal(path) and "0 bytes" in refusal(path)


TRUNCATABLE = ["a.jpg", "a.png", "a.webp", "a.tif", "a.bmp"] + ["a.avif"] * features.check("avif")


@pytest.mark.parametrize("name", TRUNCATABLE)
def test_truncated_file_is_refused(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), name)
    path.write_bytes(path.read_bytes()[:-len(path.read_bytes()) // 2])
    assert name in refusal(path)


def test_heic_names_the_missing_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "phone.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64)
    assert "pillow-heif" in refusal(path) and "phone.heic" in refusal(path)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_under_the_general_brand_is_read_by_pillow(tmp_path):
    path = saved(tmp_path, Image.fromarray(COLOURS), "a.avif", quality=100)
    path.write_bytes(path.read_bytes().replace(b"ftypavif", b"ftypmif1", 1))
    assert open_rgb(path).shape == COLOURS.shape


def test_missing_path_folder_and_null_byte_are_refused(tmp_path):
    assert "none.png" in refusal(tmp_path / "none.png")
    assert "folder" in refusal(tmp_path)
    assert refusal("") and refusal("a\0b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert "pipe" in refusal(tmp_path / "pipe.png")


@pytest.mark.parametrize("shape", [(4,), (4, 4), (4, 4, 1), (4, 4, 4), (3, 4, 4, 3)])
def test_array_of_wrong_shape_is_refused(shape):
    assert "H×W×3" in refusal(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 0, 3)])
def test_empty_array_is_refused(shape):
    assert "too small" in refusal(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (7, 300)])
def test_picture_with_a_side_too_short_is_refused(tmp_path, size):
    path = saved(tmp_path, Image.new("RGB", size), "line.png")
    assert refusal(path) == ("The picture is too small. In line.png: expected no side below 8 pixels, "
                             f"got {size[1]}×{size[0]}. Choose a larger one.")
    assert "too small" in refusal(np.zeros((*size, 3), np.uint8)) and "too small" in refusal(Image.new("L", size))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_array_with_a_value_that_is_no_number_is_refused(value):
    array = np.zeros((8, 8, 3), np.float32)
    array[1, 1, 1] = value
    assert "not numbers" in refusal(array)


def test_float_tiff_with_nan_is_refused(tmp_path):
    path = saved(tmp_path, Image.fromarray(blocks(np.array([[0, np.nan]], np.float32))), "a.tif")
    assert "not numbers" in refusal(path)


@pytest.mark.parametrize("array", [np.full((8, 8, 3), 255.0), np.full((8, 8, 3), -0.1),
                                   *(np.zeros((8, 8, 3), kind) for kind in (np.int64, bool, complex, object))])
def test_array_whose_range_is_unknown_is_refused(array):
    assert "uint8" in refusal(array) or "0..1" in refusal(array)


@pytest.mark.parametrize("source", [None, 3, b"bytes", [[1, 2, 3]]])
def test_other_types_are_refused(source):
    assert type(source).__name__ in refusal(source)


# Sizes


def original_rule(height: int, width: int, size: int, rule: str) -> tuple[int, int]:
    """The published rule, spelled out per axis in other words than ours."""
    if rule == "half_bound":
        ratio = Fraction(max(height, width), min(height, width))
        short, long = math.ceil(size / max(min(ratio, 2), 1) / 32) * 32, size
        if ratio >= 2:
            long = min(round(short * ratio / 32), math.floor(size * 1.25 / 32)) * 32
        return (short, long) if width >= height else (long, short)
    factors = {"h": np.float64(size) / height, "w": np.float64(size) / width}
    if rule == "minimal":
        nearer = "w" if np.abs(1 - factors["w"]) < np.abs(1 - factors["h"]) else "h"
        factors = dict.fromkeys("hw", factors[nearer])
    elif rule == "upper_bound":
        factors = dict.fromkeys("hw", min(factors.values()))
    sides = []
    for axis, length in (("h", height), ("w", width)):
        exact = factors[axis] * length / 32
        whole = np.floor(exact)
        blocks = whole + (exact - whole > 0.5 or (exact - whole == 0.5 and whole % 2 == 1))  # half to even
        if rule == "upper_bound" and blocks * 32 > size:
            blocks = whole
        sides.append(max(int(blocks) * 32, 32))
    return sides[0], sides[1]


@pytest.mark.parametrize("rule", ["minimal", "upper_bound", "half_bound", "square"])
def test_network_size_follows_the_rule_on_thousands_of_sizes(rule):
    random = np.random.default_rng(7)
    pairs = np.concatenate([random.integers(1, 4000, (3000, 2)), random.integers(1, 700, (3000, 2))])
    for size in (224, 256, 384, 512):
        model = SimpleNamespace(size=size, resize=rule)
        for height, width in pairs.tolist():
            assert network_size(height, width, model) == original_rule(height, width, size, rule), (height, width, size)


@pytest.mark.parametrize(("name", "expected"), [
    ("DPT_Large", (384, 512)), ("DPT_Hybrid", (384, 512)), ("DPT_BEiT_L_512", (512, 672)), ("MiDaS", (288, 384)),
    ("MiDaS_small", (192, 256)), ("DPT_SwinV2_T_256", (256, 256)), ("DPT_LeViT_224", (224, 224)),
])
def test_network_size_of_a_vga_picture(name, expected):
    assert network_size(480, 640, find(name)) == expected


@pytest.mark.parametrize(("size", "expected"), [
    ((1080, 1920), (160, 256)), ((1920, 1080), (256, 160)), ((2000, 3000), (192, 256)), ((500, 1000), (128, 256)),
    ((540, 1280), (128, 288)), ((376, 1248), (128, 320)), ((300, 9000), (128, 320)),
])
def test_the_bundled_model_rounds_up_and_squeezes_what_is_wide(size, expected):
    assert network_size(*size, find("Tiny")) == expected


def test_midas_small_rounds_to_the_nearest_as_the_original_does():
    assert network_size(376, 1248, find("MiDaS_small")) == (64, 256)


def test_half_way_sizes_round_to_even():
    model = SimpleNamespace(size=384, resize="minimal")
    assert network_size(384, 400, model) == (384, 384)  # 12.5 blocks
    assert network_size(384, 432, model) == (384, 448)  # 13.5 blocks


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (50, 2000), (200, 32_768), (32_768, 1900)])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_extreme_pictures_get_a_bounded_input(size, model):
    h, w = network_size(*size, model)
    assert h % 32 == w % 32 == 0 and min(h, w) >= 32 and h * w <= images.MAX_GRID * model.size**2


# Resampling


def cubic(line: np.ndarray, wanted: int) -> np.ndarray:
    """One line by Keys' kernel with a = -0.75 written as a piecewise polynomial, sample by sample."""
    def kernel(x: float) -> float:
        x = abs(x)
        if x < 1:
            return 1.25 * x**3 - 2.25 * x**2 + 1
        return -0.75 * x**3 + 3.75 * x**2 - 6 * x + 3 if x < 2 else 0.0

    centres = (np.arange(wanted) + 0.5) * len(line) / wanted - 0.5
    return np.array([sum(kernel(centre - k) * line[min(max(k, 0), len(line) - 1)]
                         for k in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3)) for centre in centres])


@pytest.mark.parametrize(("height", "width", "h", "w"),
                         [(37, 53, 64, 96), (53, 37, 32, 32), (5, 3, 32, 64), (1, 1, 32, 32)])
def test_resampling_is_the_cubic_kernel_along_both_axes(height, width, h, w):
    picture = np.random.default_rng(1).random((height, width, 3))
    across = np.stack([[cubic(row[:, c], w) for row in picture] for c in range(3)], -1)  # height, w, 3
    both = np.stack([np.stack([cubic(column[:, c], h) for column in across.swapaxes(0, 1)], 1) for c in range(3)], -1)
    np.testing.assert_allclose(resample(picture, (h, w)), both, atol=2e-5)


# cv2.resize((np.arange(7.) ** 2 % 5)[None], (12, 1), interpolation=cv2.INTER_CUBIC) of OpenCV 5.0.0, float64
OPENCV = [-0.0979280, 0.1625977, 0.8813849, 2.7258580, 4.2460938, 4.4648436,
          3.2347553, 1.3852539, 0.1589268, 0.0038158, 0.5737305, 1.0979273]


def test_resampling_equals_opencv():
    line = (np.arange(7.0) ** 2 % 5).reshape(1, 7, 1)
    np.testing.assert_allclose(resample(line, (1, 12))[0, :, 0], OPENCV, atol=5e-6)


def test_resampling_to_the_same_size_changes_nothing():
    picture = np.random.default_rng(2).random((32, 64, 3))
    np.testing.assert_array_equal(resample(picture, (32, 64)), picture)


def test_resampling_overshoots_instead_of_clipping():
    edge = np.zeros((8, 8, 1))
    edge[:, 4:] = 1
    assert resample(edge, (32, 32)).max() > 1.05


@pytest.mark.parametrize("name", ["DPT_Large", "MiDaS_small"])
def test_prepare_normalises_with_the_models_numbers(name):
    model = find(name)
    net_input = prepare(np.full((480, 640, 3), 0.25, np.float32), model)
    assert net_input.shape == (1, 3, *network_size(480, 640, model)) and str(net_input.dtype) == "torch.float32"
    for channel in range(3):
        expected = (0.25 - model.mean[channel]) / model.std[channel]
        np.testing.assert_allclose(net_input[0, channel], expected, atol=1e-6)


def test_prepare_keeps_the_order_of_the_channels():
    picture = np.zeros((32, 32, 3), np.float32)
    picture[..., 0] = 1
    means = prepare(picture, find("DPT_Large")).mean((0, 2, 3))
    np.testing.assert_allclose(means, [1, -1, -1], atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (37, 53), (96, 64)])
def test_restore_returns_the_pictures_size(size):
    import torch

    depth = restore(torch.full((1, 32, 64), 3.0), size)
    assert depth.shape == size and depth.dtype == np.float32
    np.testing.assert_allclose(depth, 3, rtol=1e-6)


def test_restore_is_the_cubic_kernel():
    import torch

    line = np.random.default_rng(3).random(8)
    depth = restore(torch.from_numpy(line)[None], (1, 20))
    np.testing.assert_allclose(depth[0], cubic(line, 20), atol=1e-5)
