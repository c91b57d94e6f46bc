"""A picture and its depth as things in space: point cloud (PLY) and textured mesh (GLB).

Both are views of one surface from one side: what the camera did not see is not there. Without a
calibration the shape is a guess in scale and in depth (see `geometry.guessed`).

PLY: binary little-endian 1.0, vertices with x y z and red green blue. GLB: glTF 2.0 (Khronos, ISO/IEC
12113:2022), one unlit material, so that the viewer shows the photo's own light.
"""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from cache.errors import UsageError
from depth.geometry import FOV, Calibration, distances, guessed, positions
from depth.render import matching, save_atomically

MAX_POINTS = 1_000_000
MAX_VERTICES = 250_000  # more makes browsers slow and shows no more than the network saw
MAX_TEXTURE = 4096  # pixels on the longer side; what every graphics card takes
EDGES = 0.04  # a jump of this part of the map's range between neighbours is an edge
BACKDROP = 10.0  # what is farther than so many times the nearest distance stands there
_FLOAT, _UINT32 = 5126, 5125  # glTF component types
_VERTICES, _INDICES = 34962, 34963  # glTF buffer targets
_PLY_VERTEX = [(axis, "<f4") for axis in "xyz"] + [(colour, "u1") for colour in ("red", "green", "blue")]


def save_ply(path: str | Path, rgb: np.ndarray, values: ArrayLike, *, fov: float = FOV, edges: float | None = None,
             calibration: Calibration | None = None, most: int = MAX_POINTS) -> Path:
    """One coloured point for each pixel, or for a regular grid of at most `most` of them.

    `rgb`: `H×W×3` in 0..1, as large as the map. `edges`: points beside a larger jump than this part of
    the map's range are left out, since at blurred edges they hang in the air; None keeps all. Raises
    UsageError, also when nothing would be left.
    """
    depth, rows, columns = _grid(rgb, values, most)
    grid = np.ix_(rows, columns)
    kept = _steepest(depth[grid]) <= (np.inf if edges is None else edges * np.ptp(depth))
    _refuse_nothing(kept.any(), edges)
    vertices = np.empty(np.count_nonzero(kept), _PLY_VERTEX)
    where = _space(depth, calibration, fov)[grid][kept]
    colours = np.round(rgb[grid][kept] * 255)
    for column, name in enumerate("xyz"):
        vertices[name] = where[:, column]
    for column, name in enumerate(("red", "green", "blue")):
        vertices[name] = colours[:, column]
    properties = "".join(f"property {'float' if kind == '<f4' else 'uchar'} {name}\n" for name, kind in _PLY_VERTEX)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n{properties}end_header\n"
    return save_atomically(path, lambda file: file.write(header.encode() + vertices.tobytes()))


def save_glb(path: str | Path, rgb: np.ndarray, values: ArrayLike, *, fov: float = FOV, edges: float | None = EDGES,
             calibration: Calibration | None = None, most: int = MAX_VERTICES) -> Path:
    """The surface as triangles with the picture as its texture, cut open along depth edges.

    `edges`: triangles across a larger jump than this part of the map's range are left out; None keeps
    all. The grid has at most `most` vertices. Raises UsageError, also when nothing would be left.
    """
    depth, rows, columns = _grid(rgb, values, most)
    grid = np.ix_(rows, columns)
    triangles = _triangles(depth[grid], edges, float(np.ptp(depth)))
    used, corners = np.unique(triangles, return_inverse=True)
    where = _space(depth, calibration, fov)[grid].reshape(-1, 3)[used]
    across, down = np.meshgrid((columns + 0.5) / depth.shape[1], (rows + 0.5) / depth.shape[0])
    texture = np.stack([across, down], axis=-1).reshape(-1, 2)[used]
    content = _glb(where, texture.astype("<f4"), corners.reshape(-1).astype("<u4"), _jpeg(rgb))
    return save_atomically(path, lambda file: file.write(content))


def _grid(rgb: np.ndarray, values: ArrayLike, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The map, and the rows and columns of a grid over it with about square cells, border included."""
    depth = matching(rgb, values)
    short, long = sorted(depth.shape)
    few = max(min(short, 2), int(short / max(1.0, (depth.size / most) ** 0.5)))
    counts = {short: few, long: min(long, most // few)} if short < long else {short: few}
    rows, columns = (np.linspace(0, side - 1, counts[side]).round().astype(int) for side in depth.shape)
    return depth, rows, columns


def _space(depth: np.ndarray, calibration: Calibration | None, fov: float) -> np.ndarray:
    """Positions; what is farther than `BACKDROP` times the nearest point stands there, as a backdrop."""
    calibration = calibration or guessed(depth)
    nearest = float(distances(depth, calibration).min())
    return positions(distances(depth, calibration, BACKDROP * nearest), fov)


def _triangles(depth: np.ndarray, edges: float | None, spread: float) -> np.ndarray:
    """Vertex numbers `N×3` of the grid's triangles, counter-clockwise for the camera."""
    number = np.arange(depth.size).reshape(depth.shape)
    top_left, top_right, low_left, low_right = number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]
    triangles = np.concatenate([np.stack(corners, axis=-1).reshape(-1, 3) for corners in (
        (top_left, low_left, top_right), (top_right, low_left, low_right))])
    if not len(triangles):
        raise UsageError("The picture is too small for a mesh.", expected="at least 2×2 pixels",
                         got=f"{depth.shape[0]}×{depth.shape[1]}")
    if edges is not None:
        triangles = triangles[np.ptp(depth.reshape(-1)[triangles], axis=1) <= edges * spread]
    _refuse_nothing(len(triangles) > 0, edges)
    return triangles


def _steepest(depth: np.ndarray) -> np.ndarray:
    """The largest jump from each sample to one of its four neighbours, `H×W`."""
    jumps = np.zeros(depth.shape)
    for axis in (0, 1):
        step = np.abs(np.diff(depth, axis=axis))
        for side in ((0, 1), (1, 0)):  # the neighbour after, the neighbour before
            jumps = np.maximum(jumps, np.pad(step, [side if axis == padded else (0, 0) for padded in (0, 1)]))
    return jumps


def _refuse_nothing(something: bool, edges: float | None) -> None:
    if not something:
        raise UsageError("Cutting at edges leaves nothing.", got=f"edges at {edges}", next_step="Cut less.")


def _jpeg(rgb: np.ndarray) -> bytes:
    picture = Image.fromarray(np.round(rgb * 255).astype(np.uint8))
    picture.thumbnail((MAX_TEXTURE, MAX_TEXTURE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def _glb(where: np.ndarray, texture: np.ndarray, corners: np.ndarray, jpeg: bytes) -> bytes:
    """The file: a header, a JSON chunk that describes the scene, and a chunk of bytes it points into."""
    parts = [where.astype("<f4").tobytes(), texture.tobytes(), corners.tobytes(), jpeg]
    *starts, total = np.cumsum([0] + [len(_padded(part)) for part in parts]).tolist()
    views = [{"buffer": 0, "byteOffset": start, "byteLength": len(part)}
             for start, part in zip(starts, parts, strict=True)]
    for view, target in zip(views[:3], (_VERTICES, _VERTICES, _INDICES), strict=True):
        view["target"] = target
    scene = {
        "asset": {"version": "2.0"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "metallicFactor": 0},
                       "doubleSided": True, "extensions": {"KHR_materials_unlit": {}}}],
        "textures": [{"source": 0}],
        "images": [{"bufferView": 3, "mimeType": "image/jpeg"}],
        "accessors": [
            {"bufferView": 0, "componentType": _FLOAT, "count": len(where), "type": "VEC3",
             "min": where.min(axis=0).tolist(), "max": where.max(axis=0).tolist()},
            {"bufferView": 1, "componentType": _FLOAT, "count": len(texture), "type": "VEC2"},
            {"bufferView": 2, "componentType": _UINT32, "count": len(corners), "type": "SCALAR"},
        ],
        "bufferViews": views,
        "buffers": [{"byteLength": total}],
    }
    chunks = (_chunk(b"JSON", _padded(json.dumps(scene).encode(), b" "))
              + _chunk(b"BIN\0", b"".join(map(_padded, parts))))
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack("<I4s", len(body), kind) + body


def _padded(body: bytes, filler: bytes = b"\0") -> bytes:
    """glTF aligns everything to four bytes."""
    return body + filler * (-len(body) % 4)
