"""The refined surface as a textured triangle mesh."""

from __future__ import annotations

import importlib.util
import io as streams
import logging
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from redepth import io
from redepth.errors import InputError
from redepth.exports.source import Array, NotWrittenError, Source, Written
from redepth.exports.surface import EDGE, Indices, Surface

log = logging.getLogger(__name__)

Faces = NDArray[np.int64]

SURPLUS = 4
"""Triangles of the regular grid for each one that is left after its simplification."""
FINE = 400_000
"""Triangles of a grid that is simplified, at least: a coarse cell is lost if any pixel in it is torn."""


def write_mesh(source: Source, folder: Path) -> Written:
    """Write the mesh of the refined surface as binary glTF 2.0, with the photo as its texture."""
    output = source.preset.output
    surface = Surface.of(source)
    try:
        mesh = mesh_of(surface, source.photo, faces=output.mesh_faces, texture_side=output.texture_side)
    except InputError as error:
        raise NotWrittenError(str(error)) from error
    with io.atomic_path(folder / "mesh.glb") as temporary:
        temporary.write_bytes(mesh.export(file_type="glb", include_normals=True))
    holds = f"textured surface by the {surface.camera.kind} camera; x right, y up, the camera looks along -z"
    return Written(
        "mesh.glb", holds, surface.unit, {"vertices": len(mesh.vertices), "faces": len(mesh.faces)}
    )


def mesh_of(
    surface: Surface,
    photo: ArrayLike,
    *,
    faces: int = 200_000,
    texture_side: int = 2048,
    limit: float = EDGE,
) -> Any:
    """Return a surface as a mesh with the photo as its texture, a `trimesh.Trimesh`.

    A regular grid of pixels, two triangles per cell. Cells that hold a torn pixel are left out
    (`Surface.intact`). If fast_simplification is installed (the extra ``mesh``), the grid has four times the
    triangles or more, and the quadric error metric chooses which are merged (Garland and Heckbert, Surface
    simplification using quadric error metrics, 1997). A panorama stays a regular grid.

    Args:
        surface: (H, W).
        photo: (H, W, 3) sRGB, uint8 or floats in [0, 1].
        faces: the most triangles.
        texture_side: the longer side of the texture, at most.
        limit: the largest relative step to a neighbour; ``math.inf`` keeps all.

    Returns:
        The mesh, in the frame of `Surface.points`: y up, seen by a camera at the origin that looks along -z,
        as in glTF. Triangles are anticlockwise as the camera sees them.

    Raises:
        InputError: no triangle is left.
        ValueError: the sizes differ.
    """
    picture = np.asarray(photo)
    if picture.shape != (*surface.size, 3):
        raise ValueError(f"depth must be (H, W), photo (H, W, 3), got {surface.size}, {picture.shape}")
    simplifies = not surface.camera.spherical and _can_simplify()
    rows, columns = _grid(surface, max(faces * SURPLUS, FINE) if simplifies else faces)
    triangles = _triangles(whole_cells(surface, rows, columns, limit))
    if not len(triangles):
        raise InputError(
            f"no four neighbouring depths are finite and within {limit:g} of each other: allow more faces"
        )
    points = surface.points(rows, columns).reshape(-1, 3)
    used, triangles = np.unique(triangles, return_inverse=True)
    triangles = triangles.reshape(-1, 3)
    points = points[used]
    if simplifies and len(triangles) > faces:
        points, triangles = _simplified(points, triangles, faces)
        uv = _uv(*_pixels(surface, points), surface.size)
    else:
        down, across = (grid.ravel()[used] for grid in np.meshgrid(rows, columns, indexing="ij"))
        uv = _uv(down, across, surface.size)
    return _textured(points, triangles, uv, picture, texture_side)


def _can_simplify() -> bool:
    if importlib.util.find_spec("fast_simplification"):
        return True
    log.info('meshes are regular grids; for fewer triangles on planes run: pip install "redepth[mesh]"')
    return False


def _grid(surface: Surface, faces: int) -> tuple[Indices, Indices]:
    """Return the rows and columns of the vertices: the borders, and evenly between them."""
    height, width = surface.size
    cells = max(1.0, faces / 2)
    down = min(height - 1, max(1, math.floor(math.sqrt(cells * height / width))))
    across = min(width - 1 + surface.camera.closed, max(1, math.floor(cells / max(1, down))))
    rows = np.rint(np.linspace(0, height - 1, down + 1)).astype(np.intp)
    # Column W of a closed panorama is column 0, at the other end of the texture.
    last = width if surface.camera.closed else width - 1
    return rows, np.rint(np.linspace(0, last, across + 1)).astype(np.intp)


def whole_cells(surface: Surface, rows: Indices, columns: Indices, limit: float) -> NDArray[np.bool_]:
    """Return the cells all of whose pixels are intact, borders included."""
    whole = np.empty((len(rows) - 1, len(columns) - 1), bool)
    every = np.arange(columns[-1] + 1)
    for k, (top, bottom) in enumerate(pairwise(rows)):
        intact = surface.intact(np.arange(top, bottom + 1), every, limit)
        column = np.logical_and.reduce(intact, axis=0, out=np.empty(len(every), bool))
        whole[k] = np.logical_and.reduceat(column, columns[:-1]) & column[columns[1:]]
    return whole


def _triangles(whole: NDArray[np.bool_]) -> Faces:
    """Return two triangles per cell, indices of the grid's vertices, anticlockwise for the camera."""
    height, width = whole.shape
    index = np.arange((height + 1) * (width + 1)).reshape(height + 1, width + 1)
    above, below = index[:-1], index[1:]
    a, b, c, d = (corner[whole] for corner in (above[:, :-1], below[:, :-1], above[:, 1:], below[:, 1:]))
    return np.stack([a, b, c, d, c, b], axis=-1).reshape(-1, 3)


def _simplified(points: Array, triangles: Faces, faces: int) -> tuple[Array, Faces]:
    import fast_simplification

    points, triangles = fast_simplification.simplify(points, triangles.astype(np.int32), target_count=faces)
    return np.asarray(points, np.float32), np.asarray(triangles, np.int64)


def _pixels(surface: Surface, points: Array) -> tuple[Array, Array]:
    """Return the row and the column, from the pixels' centres, at which the camera sees points."""
    (height, width), camera = surface.size, surface.camera
    x, y, z = points.T
    if not camera.pinhole:
        return (1 - y) / 2 * (height - 1), (x * height / width + 1) / 2 * (width - 1)
    fx, fy, cx, cy = camera.intrinsics_in_pixels(height, width)
    return cy - fy * y / -z - 0.5, cx + fx * x / -z - 0.5


def _uv(rows: NDArray[Any], columns: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float64]:
    """Return positions in the texture: from its left lower corner, as trimesh has them."""
    height, width = size
    return np.stack([(columns + 0.5) / width, 1 - (rows + 0.5) / height], axis=-1)


def _textured(points: Array, triangles: Faces, uv: NDArray[Any], picture: NDArray[Any], side: int) -> Any:
    import trimesh
    from trimesh.visual.material import PBRMaterial

    material = PBRMaterial(
        baseColorTexture=_texture(picture, side), metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True
    )
    return trimesh.Trimesh(
        points,
        triangles,
        vertex_normals=_vertex_normals(points, triangles),
        visual=trimesh.visual.TextureVisuals(uv=uv, material=material),
        process=False,
    )


def _vertex_normals(points: Array, triangles: Faces) -> NDArray[np.float64]:
    """Return the normalised sum of the normals of each vertex's faces, weighted with their areas."""
    a, b, c = (points[triangles[:, k]].astype(np.float64) for k in range(3))
    areas = np.cross(b - a, c - a)
    corners = triangles.T.ravel()
    total = np.stack(
        [np.bincount(corners, np.tile(areas[:, k], 3), minlength=len(points)) for k in range(3)], axis=-1
    )
    length = np.linalg.norm(total, axis=-1, keepdims=True)
    # A vertex all of whose faces have no area faces the viewer.
    return np.where(length > 0, total / np.where(length > 0, length, 1.0), [0.0, 0.0, 1.0])


def _texture(picture: NDArray[Any], side: int) -> Image.Image:
    """Return the photo as JPEG, so that it is stored as such in the mesh."""
    image = Image.fromarray(io.to_uint8(picture))
    image.thumbnail((side, side), Image.Resampling.BOX)
    stream = streams.BytesIO()
    image.save(stream, format="JPEG", quality=90)
    return Image.open(stream)
