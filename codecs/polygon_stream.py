"""Polygon payloads: header and symbols together.

::

    Polygons, levels -> PolygonCoder, ColourCoder -> range coder -> packed words -> payload
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream import DEFAULT_LIMITS, CorruptStream, Limits
from latentpress.codecs.packed_words import packed_words, unpacked_words
from latentpress.codecs.polygon_channel import CodedChannel
from latentpress.codecs.polygon_coder import PolygonCoder, Polygons
from latentpress.codecs.polygon_colours import ColourCoder, from_levels
from latentpress.codecs.polygon_payload import HALF_WIDTH, PolygonHeader, read_polygon_header
from latentpress.codecs.shape_payload import Pose
from latentpress.codecs.symbol_channel import Receiver, Sender


class PolygonMesh(NamedTuple):
    """A mesh in the cube, as it is decoded.

    Attributes:
        vertices: ``(V, 3)`` float32.
        faces: ``(F, 3)`` int64.
        colours: ``(V, 3)`` uint8 RGB, or None.
        header: Of the payload.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int64]
    colours: NDArray[np.uint8] | None
    header: PolygonHeader


def places_of(nodes: NDArray[np.int64], grid: int) -> NDArray[np.float32]:
    """Where nodes of the grid lie in the cube.

    Example:
        >>> places_of(np.array([[0, 17, 34]]), 34).tolist()
        [[-1.0625, 0.0, 1.0625]]
    """
    above, below = HALF_WIDTH
    found: NDArray[np.float32] = ((2 * nodes - grid) * above / (below * grid)).astype(np.float32)
    return found


def write_polygons(
    mesh: Polygons,
    grid: int,
    levels: NDArray[np.int64] | None = None,
    colour_step: int | None = None,
    pose: Pose | None = None,
    unit: str | None = None,
) -> bytes:
    """The payload of a mesh.

    Args:
        mesh: Nodes and faces.
        grid: Steps of the grid.
        levels: Of the vertices' colours, ``(V, 3)``, see :mod:`latentpress.codecs.polygon_colours`.
        colour_step: That the levels are in.
        pose: Of the cube.
        unit: Of the pose's coordinates.

    Example:
        >>> mesh = Polygons(np.array([[0, 0, 0], [9, 0, 0], [0, 9, 0]]), np.array([[0, 1, 2]]))
        >>> read_polygons(write_polygons(mesh, 9)).faces.tolist()
        [[0, 1, 2]]
    """
    sender = Sender()
    channel = CodedChannel(sender)
    coder = PolygonCoder(channel, grid)
    sent = coder.code(mesh, len(mesh.faces))
    if levels is not None and colour_step is not None:
        ColourCoder(channel, colour_step).code(levels[coder.order], len(sent.nodes), sent.faces)
    header = PolygonHeader(grid, len(mesh.faces), colour_step, pose or Pose(), unit, sender.checksum & 0xFFFF)
    return header.to_bytes() + packed_words(sender.finish())


def read_polygons(payload: bytes, limits: Limits = DEFAULT_LIMITS) -> PolygonMesh:
    """Decodes a payload.

    Raises:
        StreamError: Anything is wrong with the bytes.
    """
    header, offset = read_polygon_header(payload, limits)
    receiver = Receiver(unpacked_words(payload[offset:]))
    channel = CodedChannel(receiver)
    mesh = PolygonCoder(channel, header.grid).code(None, header.faces)
    limits.check_vertices(len(mesh.nodes))
    colours = None
    if header.colour_step is not None:
        levels = ColourCoder(channel, header.colour_step).code(None, len(mesh.nodes), mesh.faces)
        colours = from_levels(levels, header.colour_step)
    receiver.finish()
    if receiver.checksum & 0xFFFF != header.checksum:
        raise CorruptStream("the polygons' symbols have another checksum than the stream says")
    return PolygonMesh(places_of(mesh.nodes, header.grid), mesh.faces, colours, header)
