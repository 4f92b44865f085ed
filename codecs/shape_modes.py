"""The two ways to code a mesh, and which of them is better for one.

::

    mesh -> generator: code of the networks -> decoded mesh -+
        -> polygons: fewer triangles -> decoded mesh --------+-> Judge -> the better stream
"""

from __future__ import annotations

from latentpress.codecs.base import Progress
from latentpress.codecs.shape_generator_mode import encode_generated
from latentpress.codecs.shape_model import ShapeModel
from latentpress.codecs.shape_report import EncodedShape, Report
from latentpress.codecs.shape_source import ShapeSource

_SHARE = 0.3


def encode_either(
    model: ShapeModel,
    source: ShapeSource,
    limit: int,
    effort: int,
    colour_quality: float | None,
    mode: str,
    notify: Progress,
) -> EncodedShape:
    """The better of generator and polygons for a mesh.

    Args:
        model: With the networks.
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

    judge = Judge(source)
    notify(0.0, "polygons")
    polygons = PolygonEncoding(source, judge, effort, model.pack_payload).within_bytes(limit)
    if polygons is None and mode == "polygons":
        raise ValueError(f"target_bytes {limit} cannot be met: this mesh takes more bytes as polygons")

    def rest(fraction: float, stage: str) -> None:
        notify(_SHARE + (1 - _SHARE) * fraction, stage)

    if mode == "auto":
        try:
            found, trial = encode_generated(
                model, source, "target_bytes", limit, effort, colour_quality, rest
            )
        except ValueError:
            if polygons is None:
                raise
        else:
            if polygons is None:
                return found
            mesh, colours = model.coloured_mesh(trial)
            if judge.loss(mesh.vertices, mesh.faces, colours) <= polygons.loss:
                return found
    assert polygons is not None
    data = model.pack_payload(polygons.payload)
    notify(1.0, "done")
    chamfer = judge.chamfer(polygons.vertices, polygons.faces)
    return EncodedShape(data, Report(len(data), chamfer, None, None, 0, "polygons"))
