"""The mode of shapes as polygons: payload to mesh, points or field."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.chamfer import sample_triangles
from latentpress.codecs.polygon_field import PolygonField, corner_weights
from latentpress.codecs.polygon_stream import PolygonMesh
from latentpress.codecs.shape_placement import placed_mesh, placed_points
from latentpress.models.shape.generator import ShapeGenerator


def decoded_polygons(generator: ShapeGenerator, mesh: PolygonMesh, as_: str, count: int) -> Any:
    """Polygons as a mesh, points or a field.

    Args:
        generator: Of the codec, whose grids a field's renderer uses.
        mesh: As it was decoded, in the cube.
        as_: ``mesh``, ``points`` or ``field``.
        count: Number of points.

    Raises:
        ValueError: There is no surface to sample.
    """
    if as_ == "field":
        return PolygonField(generator, mesh)
    if as_ == "points":
        return _points(mesh, count)
    return placed_mesh(mesh.vertices, mesh.faces, mesh.colours, mesh.header.pose, mesh.header.unit)


def _points(mesh: PolygonMesh, count: int) -> NDArray[np.float32]:
    a, b, c = (mesh.vertices[mesh.faces[:, k]].astype(np.float64) for k in range(3))
    if not np.cross(b - a, c - a).any():
        raise ValueError("the decoded shape has no surface to sample")
    points, face = sample_triangles(mesh.vertices, mesh.faces, count)
    colours = None
    if mesh.colours is not None:
        weights = corner_weights(mesh.vertices[mesh.faces[face]].astype(np.float64), points)
        colours = (mesh.colours[mesh.faces[face]] / 255.0 * weights[:, :, None]).sum(1)
    return placed_points(points, colours, mesh.header.pose)
