"""The mode of shapes through the generator: shape to stream, and code to mesh, points or field."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.base import Progress
from latentpress.codecs.bitstream import Limits
from latentpress.codecs.chamfer import sample_triangles
from latentpress.codecs.shape_coder import DecodedCode
from latentpress.codecs.shape_encoding import ShapeEncoding, best_reading
from latentpress.codecs.shape_model import ShapeModel, ShapeTrial
from latentpress.codecs.shape_payload import TENTHS_PER_CODE, ShapeHeader
from latentpress.codecs.shape_placement import placed_mesh, placed_points
from latentpress.codecs.shape_report import EncodedShape, Report
from latentpress.codecs.shape_source import ShapeSource
from latentpress.models.quality import QUALITY_MAX
from latentpress.models.shape.extraction import ExtractedMesh
from latentpress.models.shape.generator import ShapeField
from latentpress.models.shape.radiance import RadianceField

if TYPE_CHECKING:
    import trimesh


def encode_generated(
    model: ShapeModel,
    source: ShapeSource,
    name: str,
    value: float,
    effort: int,
    colour_quality: float | None,
    notify: Progress,
) -> tuple[EncodedShape, ShapeTrial]:
    """Encodes a shape by the networks.

    Args:
        model: With the networks.
        source: The shape.
        name: ``quality``, ``target_bytes`` or ``max_error``.
        value: Of it.
        effort: 0 to 10.
        colour_quality: Of the colour, if it is to differ from the geometry's.
        notify: Called with the fraction done and the stage.

    Returns:
        The stream with its report, and what it was made of.

    Raises:
        ValueError: The target cannot be met.
    """

    def encoded(encoding: ShapeEncoding) -> ShapeTrial:
        if name == "target_bytes":
            return encoding.within_bytes(int(value))
        return encoding.at_quality(value if name == "quality" else QUALITY_MAX)

    source = best_reading(model, source, encoded)
    encoding = ShapeEncoding(model, source, effort, colour_quality, notify)
    trial = encoding.within_error(value) if name == "max_error" else encoded(encoding)
    notify(0.95, "measuring")
    trial, chamfer = encoding.smoothed(trial)
    data = model.pack(trial)
    header = trial.header
    step = TENTHS_PER_CODE / 10
    report = Report(
        bytes=len(data),
        chamfer=chamfer,
        quality=header.geometry_quality * step,
        colour_quality=None if header.colour_quality is None else header.colour_quality * step,
        steps=encoding.steps_done,
    )
    notify(1.0, "done")
    return EncodedShape(data, report), trial


def decoded_code(
    model: ShapeModel,
    code: DecodedCode,
    header: ShapeHeader,
    as_: str,
    resolution: int,
    count: int,
    limits: Limits,
    notify: Progress,
) -> trimesh.Trimesh | NDArray[np.float32] | RadianceField:
    """A code as a mesh, points or a field.

    Args:
        model: With the networks.
        code: As it was decoded.
        header: Of its payload.
        as_: ``mesh``, ``points`` or ``field``.
        resolution: Cells each way of the grid that the mesh is made on.
        count: Number of points.
        limits: Caps on the mesh.
        notify: Called with the fraction done and the stage.

    Raises:
        LimitExceeded: The mesh is larger than the caps.
        ValueError: There is no surface to sample.
    """
    notify(0.1, "generating")
    field = model.field_of(code, header)
    if as_ == "field":
        return RadianceField(model.system.generator, field, header.pose.scale, header.pose.centre)
    mesh = model.mesh_of(field, resolution, header.smoothing)
    limits.check_vertices(len(mesh.vertices))
    limits.check_faces(len(mesh.faces))
    notify(0.9, "colouring")
    if as_ == "points":
        return _points(model, mesh, field, header, count)
    return _mesh(model, mesh, field, header)


def _mesh(model: ShapeModel, mesh: ExtractedMesh, field: ShapeField, header: ShapeHeader) -> trimesh.Trimesh:
    colours = model.colours_of(field, mesh.vertices) if len(mesh.vertices) else None
    rgb = None if colours is None else np.round(colours * 255).astype(np.uint8)
    return placed_mesh(mesh.vertices, mesh.faces, rgb, header.pose, header.unit)


def _points(
    model: ShapeModel, mesh: ExtractedMesh, field: ShapeField, header: ShapeHeader, count: int
) -> NDArray[np.float32]:
    if not len(mesh.faces):
        raise ValueError("the decoded shape has no surface to sample")
    points, _ = sample_triangles(mesh.vertices, mesh.faces, count)
    return placed_points(points, model.colours_of(field, points), header.pose)
