"""Two views from one: exact shifts, near in front, holes filled from behind."""

import numpy as np
import pytest

from cache.errors import UsageError
from depth.stereo import anaglyph, side_by_side, stereo_pair

WIDTH, SHIFT = 100, 4  # strength 0.08: a disparity of 8 pixels, four for each eye


def square() -> tuple[np.ndarray, np.ndarray]:
    """A white square before black; its neighbours left and right are coloured to see what fills the holes."""
    rgb, depth = np.zeros((20, WIDTH, 3)), np.zeros((20, WIDTH))
    rgb[5:15, 40:60], depth[5:15, 40:60] = 1, 1
    rgb[:, 30:40, 0] = 1
    rgb[:, 60:70, 2] = 1
    return rgb, depth


def white(view: np.ndarray) -> np.ndarray:
    return np.flatnonzero((view[10] == 255).all(-1))


def test_near_square_moves_by_half_the_disparity_in_each_eye():
    left, right = stereo_pair(*square(), strength=2 * SHIFT / WIDTH, screen=0)
    np.testing.assert_array_equal(white(left), np.arange(40, 60) + SHIFT)
    np.testing.assert_array_equal(white(right), np.arange(40, 60) - SHIFT)


def test_what_lies_at_the_screen_does_not_move():
    left, right = stereo_pair(*square(), strength=0.08, screen=1)
    np.testing.assert_array_equal(white(left), np.arange(40, 60))
    np.testing.assert_array_equal(white(right), np.arange(40, 60))


def test_near_covers_far():
    left, _ = stereo_pair(*square(), strength=2 * SHIFT / WIDTH, screen=0)
    np.testing.assert_array_equal(left[10, 60:64], 255)  # blue is behind the moved square


def test_holes_are_filled_from_behind():
    left, right = stereo_pair(*square(), strength=2 * SHIFT / WIDTH, screen=0)
    np.testing.assert_array_equal(left[10, 40:44], [[255, 0, 0]] * 4)  # from the left, not from the square
    np.testing.assert_array_equal(right[10, 56:60], [[0, 0, 255]] * 4)


def test_holes_stay_black_without_filling():
    left, _ = stereo_pair(*square(), strength=2 * SHIFT / WIDTH, screen=0, fill=False)
    np.testing.assert_array_equal(left[10, 40:44], 0)


@pytest.mark.parametrize("screen", [0, 0.5, 1])
def test_rows_are_filled_to_the_border(screen):
    rgb = np.ones((3, WIDTH, 3))
    for view in stereo_pair(rgb, np.tile(np.linspace(0, 1, WIDTH), (3, 1)), strength=0.2, screen=screen):
        assert (view == 255).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (6, 7)])
def test_a_constant_map_gives_the_picture_itself(shape):
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3)) / 255
    for view in stereo_pair(rgb, np.full(shape, 5.0)):
        np.testing.assert_array_equal(view, np.round(rgb * 255))


def test_no_strength_gives_the_picture_itself():
    rgb, depth = square()
    np.testing.assert_array_equal(stereo_pair(rgb, depth, strength=0)[0], rgb * 255)


def test_anaglyph_is_red_for_the_left_eye_and_cyan_for_the_right():
    rgb, depth = square()
    left, right = stereo_pair(rgb, depth)
    both = anaglyph(rgb, depth)
    np.testing.assert_array_equal(both[..., 0], left[..., 0])
    np.testing.assert_array_equal(both[..., 1:], right[..., 1:])


def test_side_by_side_is_left_then_right():
    rgb, depth = square()
    left, right = stereo_pair(rgb, depth)
    np.testing.assert_array_equal(side_by_side(rgb, depth), np.hstack([left, right]))


@pytest.mark.parametrize("strength", [-0.01, 0.21, float("nan")])
def test_strength_out_of_range_is_refused(strength):
    with pytest.raises(UsageError, match="strength"):
        stereo_pair(*square(), strength=strength)


def test_picture_of_another_size_is_refused():
    with pytest.raises(UsageError, match="20×100"):
        stereo_pair(np.zeros((4, 4, 3)), square()[1])
