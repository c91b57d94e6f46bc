"""Point clouds and meshes parse back with the right numbers."""

import io
import json
import struct

import numpy as np
import pytest
from PIL import Image

from cache.errors import UsageError
from depth.geometry import FAR, Calibration
from depth.solid import BACKDROP, save_glb, save_ply

RGB = np.random.default_rng(0).integers(0, 256, (12, 16, 3)) / 255
RAMP = np.tile(np.linspace(0, 1, 16), (12, 1))
TYPES = {5126: np.float32, 5125: np.uint32}
WIDTHS = {"VEC3": 3, "VEC2": 2, "SCALAR": 1}


def read_ply(path) -> np.ndarray:
    head, body = path.read_bytes().split(b"end_header\n", 1)
    lines = head.decode().splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    kinds = [(line.split()[2], {"float": "<f4", "uchar": "u1"}[line.split()[1]]) for line in lines
             if line.startswith("property")]
    vertices = np.frombuffer(body, kinds)
    assert f"element vertex {len(vertices)}" in lines
    return vertices


def read_glb(path) -> tuple[dict, list[np.ndarray], bytes]:
    """The scene, its accessors' arrays, and the picture."""
    content = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", content)
    assert (magic, version, length) == (b"glTF", 2, len(content))
    size, kind = struct.unpack_from("<I4s", content, 12)
    assert kind == b"JSON" and size % 4 == 0
    scene = json.loads(content[20:20 + size])
    binary_size, kind = struct.unpack_from("<I4s", content, 20 + size)
    binary = content[28 + size:]
    assert kind == b"BIN\0" and binary_size == len(binary) == scene["buffers"][0]["byteLength"]

    def view(number: int) -> bytes:
        about = scene["bufferViews"][number]
        assert about["byteOffset"] % 4 == 0
        return binary[about["byteOffset"]:about["byteOffset"] + about["byteLength"]]

    arrays = [np.frombuffer(view(one["bufferView"]), TYPES[one["componentType"]]).reshape(-1, WIDTHS[one["type"]])
              for one in scene["accessors"]]
    assert [len(array) for array in arrays] == [one["count"] for one in scene["accessors"]]
    return scene, arrays, view(scene["images"][0]["bufferView"])


def test_ply_has_one_coloured_point_for_each_pixel(tmp_path):
    vertices = read_ply(save_ply(tmp_path / "a.ply", RGB, RAMP))
    assert len(vertices) == 12 * 16
    colours = np.stack([vertices[name] for name in ("red", "green", "blue")], -1)
    np.testing.assert_array_equal(colours, np.round(RGB * 255).reshape(-1, 3))


def test_points_lie_before_the_camera_at_their_distance(tmp_path):
    vertices = read_ply(save_ply(tmp_path / "a.ply", RGB, RAMP))
    z = vertices["z"].reshape(12, 16)
    np.testing.assert_allclose([z[0, -1], z[0, 0]], [-1, -FAR], rtol=1e-5)
    assert vertices["x"][0] < 0 < vertices["y"][0]  # the first pixel is at the top left


def test_calibrated_points_are_in_its_unit_and_have_a_backdrop(tmp_path):
    z = -read_ply(save_ply(tmp_path / "a.ply", RGB, RAMP, calibration=Calibration(0.5, 0)))["z"].reshape(12, 16)
    np.testing.assert_allclose(z[0, 8:], 2 / RAMP[0, 8:], rtol=1e-5)
    np.testing.assert_allclose(z.max(), 2 * BACKDROP, rtol=1e-5)


def test_points_beside_an_edge_are_left_out_on_request(tmp_path):
    step = np.zeros((12, 16))
    step[:, 8:] = 1
    vertices = read_ply(save_ply(tmp_path / "a.ply", RGB, step, edges=0.5))
    assert len(vertices) == 12 * 14
    expected = np.round(np.delete(RGB, [7, 8], axis=1)[..., 0] * 255).ravel()
    np.testing.assert_array_equal(vertices["red"], expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (3, 4)])
def test_constant_map_keeps_all_its_points(tmp_path, shape):
    vertices = read_ply(save_ply(tmp_path / "a.ply", np.zeros((*shape, 3)), np.ones(shape), edges=0.0))
    assert len(vertices) == shape[0] * shape[1]


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3000, 7), (300, 400)])
def test_points_are_bounded(tmp_path, shape):
    vertices = read_ply(save_ply(tmp_path / "a.ply", np.zeros((*shape, 3)), np.ones(shape), most=1000))
    assert 0 < len(vertices) <= 1000


def test_mesh_of_a_smooth_surface_is_whole(tmp_path):
    scene, (where, texture, corners), _ = read_glb(save_glb(tmp_path / "a.glb", RGB, RAMP, edges=0.1))
    assert len(where) == len(texture) == 12 * 16 and len(corners) == 3 * 2 * 11 * 15
    assert corners.max() == len(where) - 1
    np.testing.assert_array_equal(scene["accessors"][0]["min"], where.min(0))
    np.testing.assert_array_equal(scene["accessors"][0]["max"], where.max(0))


def test_triangles_face_the_camera(tmp_path):
    _, (where, _, corners), _ = read_glb(save_glb(tmp_path / "a.glb", RGB, RAMP, edges=None))
    a, b, c = (where[corners.reshape(-1, 3)[:, corner]] for corner in range(3))
    facing = (np.cross(b - a, c - a) * -a).sum(-1)
    assert (facing > 0).all()


def test_texture_covers_the_picture(tmp_path):
    _, (_, texture, _), jpeg = read_glb(save_glb(tmp_path / "a.glb", RGB, RAMP, edges=None))
    np.testing.assert_allclose(texture[0], [0.5 / 16, 0.5 / 12], rtol=1e-6)
    np.testing.assert_allclose(texture[-1], [15.5 / 16, 11.5 / 12], rtol=1e-6)
    assert Image.open(io.BytesIO(jpeg)).size == (16, 12)


def test_mesh_is_cut_where_depth_jumps(tmp_path):
    step = np.zeros((12, 16))
    step[:, 8:] = 1
    _, (where, _, corners), _ = read_glb(save_glb(tmp_path / "a.glb", RGB, step))
    assert len(corners) == 3 * 2 * 11 * 14  # one column of cells is missing
    depths = where[corners.reshape(-1, 3), 2]
    np.testing.assert_array_equal(depths.min(1), depths.max(1))


def test_points_that_no_triangle_uses_are_left_out(tmp_path):
    spike = np.zeros((12, 16))
    spike[5, 5] = 1
    _, (where, _, _), _ = read_glb(save_glb(tmp_path / "a.glb", RGB, spike))
    assert len(where) == 12 * 16 - 1


def test_constant_map_is_a_flat_mesh(tmp_path):
    _, (where, _, _), _ = read_glb(save_glb(tmp_path / "a.glb", RGB, np.full((12, 16), 4.0)))
    np.testing.assert_array_equal(where[:, 2], -1)


def test_mesh_is_bounded_and_keeps_the_border(tmp_path):
    shape = (300, 400)
    depth = np.tile(np.linspace(0, 1, 400), (300, 1))
    _, (where, texture, _), _ = read_glb(save_glb(tmp_path / "a.glb", np.zeros((*shape, 3)), depth, most=2000))
    assert 1500 < len(where) <= 2000
    np.testing.assert_allclose(texture.max(0), [399.5 / 400, 299.5 / 300], rtol=1e-6)


def test_wider_view_makes_a_wider_mesh(tmp_path):
    def extent(fov: float) -> float:
        _, (where, _, _), _ = read_glb(save_glb(tmp_path / "a.glb", RGB, np.ones((12, 16)), fov=fov))
        return float(np.ptp(where[:, 0]))

    np.testing.assert_allclose(extent(90) / extent(53.13010235), 2, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_picture_too_small_for_a_mesh_is_refused_and_leaves_no_file(tmp_path, shape):
    with pytest.raises(UsageError, match="too small"):
        save_glb(tmp_path / "a.glb", np.zeros((*shape, 3)), np.ones(shape))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("save", [save_glb, save_ply])
def test_cutting_everything_away_is_refused(tmp_path, save):
    with pytest.raises(UsageError, match="leaves nothing"):
        save(tmp_path / "a", RGB, np.indices((12, 16)).sum(0) % 2, edges=0.5)  # a checkerboard


@pytest.mark.parametrize("save", [save_glb, save_ply])
def test_picture_of_another_size_is_refused(tmp_path, save):
    with pytest.raises(UsageError, match="differ in size"):
        save(tmp_path / "a", RGB[:5], RAMP)
