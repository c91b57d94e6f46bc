"""Distances, normals and points: exact on planes, one clear refusal for what decides nothing."""

import numpy as np
import pytest

from cache.errors import UsageError
from depth.geometry import (
    FAR,
    FARTHEST,
    Calibration,
    calibrated,
    distances,
    focal_length,
    guessed,
    normal_colors,
    normals,
    positions,
)

IDENTITY = Calibration(1.0, 0.0)
SIZE, VIEW = (40, 60), 60.0


def plane(normal: tuple[float, float, float], distance: float = 2.0) -> np.ndarray:
    """Inverse depth of the plane through the axis at `distance`, seen with `VIEW`; space as in the module."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]].astype(float)
    f = focal_length(SIZE, VIEW)
    rays = np.stack([(columns - (SIZE[1] - 1) / 2) / f, -(rows - (SIZE[0] - 1) / 2) / f, -np.ones(SIZE)], -1)
    return rays @ np.array(normal) / (-normal[2] * distance)


@pytest.mark.parametrize("normal", [(0, 0, 1), (0.6, 0, 0.8), (0, 0.6, 0.8), (-0.48, 0.6, 0.64)])
def test_a_plane_has_one_normal_everywhere(normal):
    found = normals(plane(normal), IDENTITY, VIEW)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.broadcast_to(normal, found.shape), atol=1e-4)


def test_ground_below_the_camera_looks_up():
    rows = np.arange(*SIZE[:1])[:, None] + np.zeros(SIZE)
    ground = (rows - (SIZE[0] - 1) / 2).clip(0)  # horizon in the middle
    np.testing.assert_allclose(normals(ground, IDENTITY, VIEW)[-5, 30], [0, 1, 0], atol=1e-5)


def test_normals_are_of_length_one():
    found = normals(np.random.default_rng(0).random(SIZE))
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (4, 5)])
def test_a_constant_map_faces_the_camera(shape):
    np.testing.assert_array_equal(normals(np.full(shape, 3.0)), np.broadcast_to((0, 0, 1), (*shape, 3)))


def test_normal_colours_reach_both_ends():
    ends = np.array([[[-1.0, 0, 1]]])
    np.testing.assert_array_equal(normal_colors(ends), [[[0, 128, 255]]])


def test_two_points_recover_the_calibration():
    truth = Calibration(0.02, 0.05)
    values = np.random.default_rng(1).uniform(0, 30, SIZE).astype(np.float32)
    metres = distances(values, truth)
    found = calibrated(values, (3, 4, metres[3, 4]), (30, 50, metres[30, 50]))
    np.testing.assert_allclose(distances(values, found), metres, rtol=1e-4)


@pytest.mark.parametrize(("first", "second", "words"), [
    ((0, 0, 1.0), (0, 0, 2.0), "same value"), ((0, 0, 1.0), (0, 5, 1.0), "same distance"),
    ((0, 0, 1.0), (0, 5, 2.0), "contradict"), ((0, 0, 0.0), (0, 5, 2.0), "not a distance"),
    ((0, 0, -1.0), (0, 5, 2.0), "not a distance"), ((0, 0, np.nan), (0, 5, 2.0), "not a distance"),
    ((0, 0, np.inf), (0, 5, 2.0), "not a distance"), ((-1, 0, 2.0), (0, 5, 1.0), "outside"),
    ((0, 0, 2.0), (0, 10, 1.0), "outside"),
])
def test_points_that_decide_nothing_are_refused(first, second, words):
    ramp = np.tile(np.arange(10.0), (4, 1))  # to the right is nearer
    with pytest.raises(UsageError, match=words):
        calibrated(ramp, first, second)


def test_constant_map_cannot_be_calibrated():
    with pytest.raises(UsageError, match="equal points"):
        calibrated(np.ones((4, 4)), (0, 0, 1.0), (3, 3, 2.0))


def test_beyond_infinity_is_the_farthest_distance():
    np.testing.assert_array_equal(distances([[1.0, 0.0, -5.0]], IDENTITY, farthest=50), [[1, 50, 50]])


def test_without_a_limit_it_is_a_multiple_of_the_nearest_in_any_unit():
    for metres in (0.5, 500.0):  # 500 mm
        found = distances([[1 / metres, 0.0]], IDENTITY)
        np.testing.assert_allclose(found, [[metres, FARTHEST * metres]], rtol=1e-6)


def test_everything_beyond_infinity_is_refused():
    with pytest.raises(UsageError, match="beyond infinity"):
        distances([[1.0, 2.0]], Calibration(1, -2))


def test_points_that_hardly_differ_are_refused():
    values = np.array([[0.0, 0.001, 1.0]])
    with pytest.raises(UsageError, match="same value"):
        calibrated(values, (0, 0, 3.0), (0, 1, 1.0))


def test_a_guess_puts_near_at_one_and_far_at_its_limit():
    values = np.random.default_rng(2).uniform(-7, 900, SIZE)
    metres = distances(values, guessed(values))
    np.testing.assert_allclose([metres.min(), metres.max()], [1, FAR], rtol=1e-5)
    assert metres.flat[values.argmax()] == metres.min()


def test_a_guess_for_a_constant_map_is_distance_one():
    np.testing.assert_array_equal(distances(np.full((2, 2), 9.0), guessed(np.full((2, 2), 9.0))), 1)


def test_corner_of_the_picture_lies_at_the_edge_of_the_view():
    where = positions(np.full((3, 1001), 2.0), fov=90)
    np.testing.assert_allclose(where[1, 500], [0, 0, -2], atol=1e-6)
    np.testing.assert_allclose(where[1, -1], [2, 0, -2], rtol=2e-3)  # half a pixel inside
    assert where[0, 500, 1] > 0 > where[2, 500, 1]


@pytest.mark.parametrize("fov", [0, 0.5, 180, -10, float("nan")])
def test_impossible_field_of_view_is_refused(fov):
    with pytest.raises(UsageError, match="field of view"):
        focal_length((10, 10), fov)
