"""The header of a polygon payload: a mesh whose triangles are kept, in a shape stream. No torch here.

::

    flags (1) | grid (varint) | faces (varint) [| colour step (1)]
      [| scale (2) | centre (3 zigzag LEB128)] [| unit (1)] | checksum (2) | coded symbols
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from latentpress.codecs.bitstream import CorruptStream, Limits, encode_varint
from latentpress.codecs.shape_payload import (
    COLOUR_FLAG,
    KIND_MASK,
    KINDS,
    POLYGON_FLAG,
    POSE_FLAG,
    UNIT_FLAG,
    HeaderReader,
    Pose,
    place_bytes,
    read_place,
)

HALF_WIDTH = (17, 16)
"""The grid covers a cube of this half width, a little more than the shape's: rounded corners stick out."""

MIN_GRID, MAX_GRID = 8, 1023
MAX_FACES = 1 << 15
TABLES_VERSION = 0
"""Of what the coder assumes at first."""

_VERSION_SHIFT = 5
_VERSION_MASK = 3


@dataclass(frozen=True)
class PolygonHeader:
    """What a polygon payload says of the mesh.

    Attributes:
        grid: Steps along an axis, 8 to 1023.
        faces: How many triangles, 1 to 32768.
        colour_step: Step of the brightness of vertex colours, 1 to 255; None for a mesh without.
        pose: Position and scale.
        unit: Of the coordinates, one of :data:`latentpress.codecs.shape_payload.UNITS`, or None.
        checksum: Low 16 bits of the CRC32C of all symbols.
    """

    grid: int
    faces: int
    colour_step: int | None
    pose: Pose
    unit: str | None
    checksum: int

    def to_bytes(self) -> bytes:
        """The header's bytes.

        Example:
            >>> PolygonHeader(90, 12, None, Pose(), None, 0).to_bytes().hex()
            '805a0c0000'
        """
        flags = POLYGON_FLAG | KINDS.index("mesh") | TABLES_VERSION << _VERSION_SHIFT
        flags |= COLOUR_FLAG * (self.colour_step is not None)
        flags |= POSE_FLAG * (self.pose != Pose()) | UNIT_FLAG * (self.unit is not None)
        parts = [bytes([flags]), encode_varint(self.grid), encode_varint(self.faces)]
        if self.colour_step is not None:
            parts.append(bytes([self.colour_step]))
        parts.append(place_bytes(self.pose, self.unit))
        parts.append(struct.pack("<H", self.checksum & 0xFFFF))
        return b"".join(parts)


def is_polygons(payload: bytes) -> bool:
    """Whether a shape payload holds polygons."""
    return bool(payload) and bool(payload[0] & POLYGON_FLAG)


def read_polygon_header(payload: bytes, limits: Limits) -> tuple[PolygonHeader, int]:
    """Reads and checks the header.

    Args:
        payload: Of a shape stream that holds polygons.
        limits: Cap on the faces, and on the vertices that so many faces have at least.

    Returns:
        The header, and the offset of the coded symbols.

    Raises:
        TruncatedStream: The payload ends too early.
        CorruptStream: A value is impossible.
        LimitExceeded: The mesh is too large.
    """
    reader = HeaderReader(payload)
    flags = reader.byte()
    if not flags & POLYGON_FLAG or flags & KIND_MASK or flags >> _VERSION_SHIFT & _VERSION_MASK:
        raise CorruptStream(f"polygon flags {flags:#x} are not defined")
    grid, faces = reader.varint(), reader.varint()
    if not MIN_GRID <= grid <= MAX_GRID:
        raise CorruptStream(f"a grid of {grid} steps is not defined")
    if not 1 <= faces <= MAX_FACES:
        raise CorruptStream(f"polygons of {faces} triangles are not defined")
    limits.check_faces(faces)
    colour_step = reader.byte() if flags & COLOUR_FLAG else None
    if colour_step == 0:
        raise CorruptStream("the step of colours is 0")
    pose, unit = read_place(reader, flags)
    checksum = reader.short()
    return PolygonHeader(grid, faces, colour_step, pose, unit, checksum), reader.offset


def describe_polygons(payload: bytes, limits: Limits) -> dict[str, int | float | str]:
    """What :func:`latentpress.codecs.inspect` says of polygons."""
    header, _ = read_polygon_header(payload, limits)
    found: dict[str, int | float | str] = {
        "kind": "mesh",
        "mode": "polygons",
        "faces": header.faces,
        "grid": header.grid,
        "colour": "no" if header.colour_step is None else "yes",
        "longest_side": 2 * header.pose.scale,
    }
    if header.unit is not None:
        found["unit"] = header.unit
    return found
