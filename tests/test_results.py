"""One estimate's other outputs, made from its files: right values, tame names, and nothing that piles up."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cache.errors import UsageError
from depth import geometry, results, stereo
from depth.depthmap import DepthMap
from depth.results import Look, Result

SIZE = (60, 2000)  # wider than a preview


@pytest.fixture
def values() -> np.ndarray:
    """To the right is nearer, from 1 to 5."""
    return np.tile(np.linspace(1, 5, SIZE[1], dtype=np.float32), (SIZE[0], 1))


@pytest.fixture
def result(tmp_path, values) -> Result:
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)).save(photo)
    rgb = np.asarray(Image.open(photo), np.float32) / 255
    (tmp_path / "out").mkdir()
    return results.save(DepthMap(values, "Tiny"), rgb, photo, tmp_path / "out", "sea")


def pixels(path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_result_keeps_photo_and_depth_whole_and_a_small_preview(result, values):
    np.testing.assert_array_equal(result.values(), values)
    assert result.rgb().shape == (*SIZE, 3)
    assert pixels(result.preview).shape == (48, results.PREVIEW_SIDE, 3)


def test_preview_and_whole_picture_have_the_same_colours(result):
    look = Look("viridis", far=10, near=20)
    whole, small = pixels(results.coloured(result, look)), pixels(results.coloured_preview(result, look))
    assert whole.shape == (*SIZE, 3) and small.shape == (48, results.PREVIEW_SIDE, 3)
    at = np.linspace(0, SIZE[1] - 1, results.PREVIEW_SIDE).round().astype(int)
    assert np.abs(whole[0, at].astype(int) - small[0]).max() <= 4


def test_clipping_leaves_out_a_share_of_the_picture_at_either_end(result):
    row = pixels(results.coloured(result, Look("gray", far=25, near=50)))[0, :, 0]
    assert (row == 0).mean() == pytest.approx(0.25, abs=0.01) and (row == 255).mean() == pytest.approx(0.5, abs=0.01)


def test_invert_makes_far_bright(result):
    row = pixels(results.coloured(result, Look("gray", invert=True)))[0, :, 0]
    assert row[0] == 255 and row[-1] == 0


@pytest.mark.parametrize(("far", "near"), [(50, 50), (-1, 0), (float("nan"), 1), (100, 0)])
def test_clipping_that_leaves_nothing_is_refused(result, far, near):
    with pytest.raises(UsageError, match="leave nothing"):
        results.coloured_preview(result, Look(far=far, near=near))


def test_names_tell_how_a_picture_was_made(result):
    assert results.coloured(result, Look("turbo")).name == "sea_depth_turbo.png"
    assert results.stereo_picture(result, "anaglyph", 3, True).name == "sea_anaglyph_3.png"
    assert results.mesh(result, 55, 4).name == "sea_fov55_cut4.glb"


@pytest.mark.parametrize("kind", results.STEREO)
def test_stereo_is_whole_for_download_and_small_for_show(result, values, kind):
    made = {"anaglyph": stereo.anaglyph, "side_by_side": stereo.side_by_side}[kind](result.rgb(), values, 0.05)
    np.testing.assert_array_equal(pixels(results.stereo_picture(result, kind, 5, True)), made)
    assert pixels(results.stereo_preview(result, kind, 5, True)).shape[1] <= results.PREVIEW_SIDE


def test_unknown_stereo_is_refused(result):
    with pytest.raises(UsageError, match="anaglyph, side_by_side"):
        results.stereo_preview(result, "../../x", 5, True)


def test_normals_and_pfm_come_from_the_whole_map(result, values):
    small, whole = results.normals(result)
    np.testing.assert_array_equal(pixels(whole), geometry.normal_colors(geometry.normals(values)))
    assert pixels(small).shape[1] == results.PREVIEW_SIDE
    assert results.pfm(result).read_bytes().startswith(b"Pf\n2000 60\n-1.0\n")


def test_measured_distances_go_through_both_points(result):
    calibration, path, words = results.measure(result, (0, 1900, 2.0), (0, 300, 10.0))
    distance = np.load(path)
    assert distance.dtype == np.float32 and distance.shape == SIZE
    np.testing.assert_allclose([distance[0, 1900], distance[0, 300]], [2, 10], rtol=1e-4)
    assert calibration.a > 0 and "Nearest **1.9" in words


def test_measuring_says_how_much_has_no_end(result):
    _, path, words = results.measure(result, (0, 1900, 1.0), (0, 1000, 100.0))
    assert np.load(path).max() == pytest.approx(geometry.FARTHEST * np.load(path).min())
    assert "49.6% of the picture the two points give no end" in words


@pytest.mark.parametrize(("first", "second"), [
    ((0, 5, 1.0), (0, 5, 2.0)), ((0, 5, 1.0), (0, 900, 1.0)), ((0, 5, 1.0), (0, 900, 2.0)), ((0, 5, -1.0), (0, 9, 2.0)),
    ((0, 5, 0.0), (0, 900, 2.0)), ((99, 5, 1.0), (0, 900, 2.0)),
])
def test_points_that_decide_nothing_are_refused_and_leave_no_file(result, first, second):
    with pytest.raises(UsageError):
        results.measure(result, first, second)
    assert not result.file("_distance.npy").exists()


def test_calibrated_mesh_has_another_name_and_the_units_size(result):
    calibration, _, _ = results.measure(result, (0, 1900, 200.0), (0, 300, 1000.0))
    guess, metric = results.points(result, 55, 100), results.points(result, 55, 100, calibration)
    assert guess != metric
    assert abs(vertices(metric)["z"]).min() == pytest.approx(192, abs=5)


def vertices(path) -> np.ndarray:
    header, _, body = path.read_bytes().partition(b"end_header\n")
    assert header.startswith(b"ply\nformat binary_little_endian")
    return np.frombuffer(body, [(axis, "<f4") for axis in "xyz"] + [(colour, "u1") for colour in "rgb"])


@pytest.mark.parametrize(("x", "y", "expected"), [(0, 0, (0, 0)), (1599, 47, (59, 1999)), (800, 24, (30, 1000))])
def test_point_of_the_preview_is_found_in_the_whole_picture(result, x, y, expected):
    assert results.place(result, x, y) == expected


def test_marks_are_drawn_where_the_points_are(result):
    plain, both = results.marked(result), results.marked(result, None, (30, 1000))
    changed = np.flatnonzero((plain != both).any((0, 2)))
    assert changed.min() > 760 and changed.max() < 880


def test_dragging_a_slider_leaves_few_previews(result):
    for far in range(40):
        last = results.coloured_preview(result, Look(far=far))
    previews = list(result.depth.parent.glob("*_preview.*"))
    assert len(previews) == results.KEPT_PREVIEWS and last in previews


def test_result_is_found_again_by_its_depth(result, tmp_path):
    assert results.find(result.depth) == result
    for other in (result.photo, tmp_path / "none_depth.npy"):
        with pytest.raises(UsageError, match="no longer kept"):
            results.find(other)


def test_photo_is_kept_even_if_the_upload_goes(result, tmp_path):
    (tmp_path / "photo.png").unlink()
    assert result.rgb().shape == (*SIZE, 3)


def test_old_result_says_what_to_do(result):
    result.depth.unlink()
    with pytest.raises(UsageError, match=r"no longer kept\. Estimate the depth again"):
        results.coloured(result, Look())
    result.photo.unlink()
    with pytest.raises(UsageError, match="no longer kept"):
        result.rgb()
