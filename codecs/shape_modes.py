"""The two ways to code a mesh, and which of them is better for one.

::

    mesh -> generator: code of the networks -> decoded mesh -+
        -> polygons: fewer triangles -> decoded mesh --------+-> Judge -> the better stream
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.base import Progress
from latentpress.codecs.chamfer import sample_triangles
from latentpress.codecs.shape_source import ShapeSource

if TYPE_CHECKING:
    import trimesh

    from latentpress.codecs.polygon_payload import PolygonHeader
    from latentpress.codecs.polygon_stream import PolygonMesh
    from latentpress.codecs.shape import EncodedShape, ShapeCodec
    from latentpress.codecs.shape_payload import ShapeHeader
    from latentpress.models.shape.generator import ShapeGenerator

_SHARE = 0.3


def encode_either(
    codec: ShapeCodec,
    source: ShapeSource,
    limit: int,
    effort: int,
    colour_quality: float | None,
    mode: str,
    notify: Progress,
) -> EncodedShape:
    """The better of generator and polygons for a mesh.

    Args:
        codec: Whose networks are used.
        source: Of a mesh.
        limit: Most bytes of the stream.
        effort: 0 to 10.
        colour_quality: Of the generator's colour.
        mode: ``auto`` or ``polygons``.
        notify: Called with the fraction done and the stage.

    Raises:
        ValueError: Nothing fits.
    """
    from latentpress.codecs.polygon_encoding import Judge, PolygonEncoding
    from latentpress.codecs.shape import EncodedShape, Report

    judge = Judge(source)
    notify(0.0, "polygons")
    polygons = PolygonEncoding(source, judge, effort, codec.pack_payload).within_bytes(limit)
    if polygons is None and mode == "polygons":
        raise ValueError(f"target_bytes {limit} cannot be met: this mesh takes more bytes as polygons")

    def rest(fraction: float, stage: str) -> None:
        notify(_SHARE + (1 - _SHARE) * fraction, stage)

    if mode == "auto":
        try:
            found, trial = codec.encode_generated(source, "target_bytes", limit, effort, colour_quality, rest)
        except ValueError:
            if polygons is None:
                raise
        else:
            if polygons is None:
                return found
            mesh, colours = codec.coloured_mesh(trial)
            if judge.loss(mesh.vertices, mesh.faces, colours) <= polygons.loss:
                return found
    assert polygons is not None
    data = codec.pack_payload(polygons.payload)
    notify(1.0, "done")
    chamfer = judge.chamfer(polygons.vertices, polygons.faces)
    return EncodedShape(data, Report(len(data), chamfer, None, None, 0, "polygons"))


def decoded_polygons(generator: ShapeGenerator, mesh: PolygonMesh, as_: str, count: int) -> Any:
    """Polygons as a mesh, points or a field; arguments as for decompress.

    Raises:
        ValueError: There is no surface to sample.
    """
    if as_ == "field":
        from latentpress.codecs.polygon_field import PolygonField

        return PolygonField(generator, mesh)
    if as_ == "points":
        return _points(mesh, count)
    return placed_mesh(mesh.vertices, mesh.faces, mesh.colours, mesh.header)


def placed_mesh(
    vertices: NDArray[np.float32],
    faces: NDArray[np.int64],
    colours: NDArray[np.uint8] | None,
    header: PolygonHeader | ShapeHeader,
) -> trimesh.Trimesh:
    """A decoded mesh where the shape stood.

    Args:
        vertices: ``(V, 3)`` in the cube.
        faces: ``(F, 3)``.
        colours: RGB of the vertices ``(V, 3)``, or None.
        header: Of the payload, with pose and unit.
    """
    import trimesh

    rgba = None
    if colours is not None:
        rgba = np.full((len(colours), 4), 255, np.uint8)
        rgba[:, :3] = colours
    placed = vertices.astype(np.float64) * header.pose.scale + header.pose.centre
    result = trimesh.Trimesh(placed, faces, vertex_colors=rgba, process=False)
    if header.unit is not None:
        result.units = header.unit
    return result


def _points(mesh: PolygonMesh, count: int) -> NDArray[np.float32]:
    from latentpress.codecs.polygon_field import corner_weights

    a, b, c = (mesh.vertices[mesh.faces[:, k]].astype(np.float64) for k in range(3))
    if not np.cross(b - a, c - a).any():
        raise ValueError("the decoded shape has no surface to sample")
    points, face = sample_triangles(mesh.vertices, mesh.faces, count)
    pose = mesh.header.pose
    placed = (points * pose.scale + pose.centre).astype(np.float32)
    if mesh.colours is None:
        return placed
    weights = corner_weights(mesh.vertices[mesh.faces[face]].astype(np.float64), points)
    colours = (mesh.colours[mesh.faces[face]] / 255.0 * weights[:, :, None]).sum(1)
    return np.hstack((placed, colours.astype(np.float32)))
