"""Depth maps as colours and files: full range, recoverable values, one clear refusal each."""

import os

import numpy as np
import pytest
from PIL import Image

from cache.errors import UsageError
from depth.depthmap import DepthMap, Timings
from depth.render import (
    COLORMAPS,
    colorize,
    palette,
    robust_bounds,
    save_atomically,
    save_npy,
    save_pfm,
    save_png,
    save_png16,
)

RAMP = np.linspace(3.5, 980.25, 20 * 30, dtype=np.float32).reshape(20, 30)
WRITERS = (save_png16, save_png, save_npy, save_pfm)


@pytest.mark.parametrize("name", COLORMAPS)
def test_colours_run_from_far_to_near(name):
    colours = colorize(RAMP, name)
    assert colours.shape == (20, 30, 3) and colours.dtype == np.uint8
    np.testing.assert_array_equal(colours[0, 0], palette(name)[0])
    np.testing.assert_array_equal(colours[-1, -1], palette(name)[255])


@pytest.mark.parametrize("name", COLORMAPS)
def test_invert_swaps_near_and_far(name):
    np.testing.assert_array_equal(colorize(RAMP, name, invert=True), colorize(-RAMP, name))


@pytest.mark.parametrize(("name", "level", "colour"), [  # of the published 256-colour tables
    ("inferno", 128, (188, 55, 84)), ("magma", 128, (183, 55, 121)), ("plasma", 128, (204, 71, 120)),
    ("viridis", 128, (33, 145, 140)), ("turbo", 128, (164, 252, 60)), ("gray", 128, (128, 128, 128)),
])
def test_colours_are_those_of_the_published_maps(name, level, colour):
    np.testing.assert_allclose(palette(name)[level].astype(int), colour, atol=3)


def test_unknown_colour_map_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"inferno.*viridis.*'hot'"):
        colorize(RAMP, "hot")


@pytest.mark.parametrize("value", [0.0, -3.0, 1e9])
def test_constant_map_is_the_far_colour(value):
    np.testing.assert_array_equal(colorize(np.full((4, 5), value)), np.broadcast_to(palette("inferno")[0], (4, 5, 3)))


def test_one_stray_pixel_does_not_darken_the_picture():
    depth = RAMP.repeat(10, 0).repeat(10, 1).copy()
    depth[0, 0] = 1e9
    assert robust_bounds(depth)[1] < 1000 and colorize(depth, "gray")[-1, -1, 0] > 250


def test_nearly_constant_map_still_shows_its_difference():
    depth = np.zeros((100, 100), np.float32)
    depth[5, 5] = 1
    assert colorize(depth, "gray")[5, 5, 0] == 255


def test_given_bounds_hold_over_frames():
    np.testing.assert_array_equal(colorize(np.full((1, 1), 5.0), "gray", bounds=(0, 10))[0, 0], [128, 128, 128])
    assert colorize(np.full((1, 1), 50.0), "gray", bounds=(0, 10)).max() == 255


def test_16_bit_png_uses_the_full_range_and_near_is_bright(tmp_path):
    with Image.open(save_png16(tmp_path / "a.png", RAMP)) as picture:
        samples = np.asarray(picture)
        assert picture.mode == "I;16"
    assert samples.dtype == np.uint16 and samples[0, 0] == 0 and samples[-1, -1] == 65535
    assert len(np.unique(samples)) == RAMP.size


def test_16_bit_png_gives_the_values_back(tmp_path):
    path = save_png16(tmp_path / "a.png", RAMP, model="Tiny")
    with Image.open(path) as picture:
        samples, text = np.asarray(picture, np.float64), picture.text
    low, high = float(text["depthmap:min"]), float(text["depthmap:max"])
    assert (low, high) == (3.5, 980.25) and text["depthmap:model"] == "Tiny"
    assert "larger is nearer" in text["depthmap:convention"]
    np.testing.assert_allclose(low + samples / 65535 * (high - low), RAMP, atol=(high - low) / 65535 * 0.51)


def test_constant_map_is_a_black_16_bit_png_that_knows_its_value(tmp_path):
    with Image.open(save_png16(tmp_path / "a.png", np.full((3, 4), 7.5))) as picture:
        assert not np.asarray(picture).any()
        assert picture.text["depthmap:min"] == picture.text["depthmap:max"] == "7.5"


def test_npy_holds_the_float32_values(tmp_path):
    stored = np.load(save_npy(tmp_path / "a.npy", RAMP.astype(np.float64)), allow_pickle=False)
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, RAMP)


def test_pfm_is_read_back_by_pillow(tmp_path):
    path = save_pfm(tmp_path / "a.pfm", RAMP)
    assert path.read_bytes().startswith(b"Pf\n30 20\n-1.0\n")
    with Image.open(path) as picture:
        np.testing.assert_array_equal(np.asarray(picture), RAMP)


def test_coloured_png_holds_the_colours(tmp_path):
    with Image.open(save_png(tmp_path / "a.png", RAMP, "turbo")) as picture:
        np.testing.assert_array_equal(np.asarray(picture), colorize(RAMP, "turbo"))


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1)])
def test_thin_maps_are_written(tmp_path, write, shape):
    assert write(tmp_path / "a", np.ones(shape)).stat().st_size > 0


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("bad", [np.array([[np.nan, 1]]), np.array([[np.inf, 1]]), np.zeros((2, 2, 3)),
                                 np.zeros((0, 3))])
def test_what_is_no_depth_map_is_refused_and_leaves_no_file(tmp_path, write, bad):
    with pytest.raises(UsageError, match="depth map"):
        write(tmp_path / "a", bad)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", WRITERS)
def test_missing_folder_is_one_sentence(tmp_path, write):
    with pytest.raises(UsageError, match="cannot be written"):
        write(tmp_path / "none" / "a", RAMP)


def test_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    old = save_npy(tmp_path / "a.npy", RAMP).read_bytes()

    def stop(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_atomically(tmp_path / "a.npy", stop)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
    assert (tmp_path / "a.npy").read_bytes() == old


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_written_files_are_as_readable_as_any_other(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    assert save_npy(tmp_path / "a.npy", RAMP).stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_writers_take_a_depth_map_itself(tmp_path):
    np.testing.assert_array_equal(np.load(save_npy(tmp_path / "a.npy", DepthMap(RAMP, "Tiny"))), RAMP)


def test_depth_map_is_an_array_for_numpy():
    depth = DepthMap(RAMP, "Tiny")
    assert depth.shape == (20, 30)
    assert np.asarray(depth).dtype == np.float32 and np.shares_memory(np.asarray(depth), RAMP)
    assert np.asarray(depth, dtype=np.float64).dtype == np.float64
    assert np.array(depth).flags.writeable and not np.shares_memory(np.array(depth), RAMP)


def test_depth_map_refuses_a_conversion_without_a_copy():
    with pytest.raises(ValueError, match="copy"):
        DepthMap(RAMP, "Tiny").__array__(np.float64, copy=False)


def test_depth_map_values_cannot_be_changed():
    depth = DepthMap(RAMP, "Tiny")
    with pytest.raises(ValueError, match="read-only"):
        depth.values[0, 0] = 1
    assert RAMP.flags.writeable


def test_total_leaves_loading_out():
    assert Timings(load=9, prepare=1, infer=2, restore=3).total == 6
