"""The shape payload's own header: what was coded, how finely, where it stood. No torch here.

::

    flags (1) | geometry quality (1) | groups sent (1) [| colour quality (1)]
      [| scale (2) | centre (3 zigzag LEB128)] [| unit (1)] | checksum (2) | coded symbols
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from latentpress.codecs.bitstream import CorruptStream, Limits, TruncatedStream, decode_varint, encode_varint

KINDS = ("mesh", "points", "images")
"""What a shape was given as, by its code."""

UNITS = ("millimeters", "centimeters", "meters", "kilometers", "inches", "feet", "yards", "miles")
"""Units of length, by their code."""

QUALITY_CODES = 250
"""Qualities are coded in steps of 0.4, codes 0 to 250."""

TENTHS_PER_CODE = 4

MAX_GROUPS = 15

_QUALITY_MAX = 100
KIND_MASK = 3
COLOUR_FLAG = 4
POSE_FLAG = 8
UNIT_FLAG = 16
POLYGON_FLAG = 128
"""With this bit the payload is that of :mod:`latentpress.codecs.polygon_payload`."""

_SMOOTHING_SHIFT = 5
_SMOOTHING_MASK = 3
_KNOWN_FLAGS = 127

_SCALE_STEPS = 512
_SCALE_OFFSET = 32768
_CENTRE_STEPS = 64
_CENTRE_LIMIT = 2**40
_CHECKSUM_MASK = 0xFFFF


@dataclass(frozen=True)
class Pose:
    """Where the cube [-1, 1]^3 lies in the shape's own coordinates.

    Attributes:
        scale_code: Logarithm of half the longest side, in steps of 1/512 octave, from 0.
        centre_codes: Centre in steps of 1/64 of half the longest side.

    Example:
        >>> pose = Pose.around((0.0, 0.0, 0.0), (4.0, 2.0, 2.0))
        >>> pose.scale, pose.centre
        (2.0, (2.0, 1.0, 1.0))
    """

    scale_code: int = 0
    centre_codes: tuple[int, int, int] = (0, 0, 0)

    @property
    def scale(self) -> float:
        """Half the longest side."""
        return float(2.0 ** (self.scale_code / _SCALE_STEPS))

    @property
    def centre(self) -> tuple[float, float, float]:
        """Centre of the cube."""
        x, y, z = (code * self.scale / _CENTRE_STEPS for code in self.centre_codes)
        return (x, y, z)

    @classmethod
    def around(cls, low: tuple[float, ...], high: tuple[float, ...]) -> Pose:
        """The pose of a bounding box, rounded: the scale up, the centre to its nearest step.

        Args:
            low: Least coordinates.
            high: Largest coordinates.

        Raises:
            ValueError: The box has no extent, is not finite, or is too large, too small or too far away.
        """
        half = max(b - a for a, b in zip(low, high, strict=True)) / 2
        if not math.isfinite(half) or half <= 0:
            raise ValueError(f"a shape needs a finite extent, its bounding box is {low} to {high}")
        # A box that already has its longest side 2 must not grow by a rounding error.
        code = math.ceil(math.log2(half) * _SCALE_STEPS - 1e-4)
        if not -_SCALE_OFFSET <= code < _SCALE_OFFSET:
            raise ValueError(f"half the longest side is {half:g}: it must be between 2^-64 and 2^64")
        step = 2.0 ** (code / _SCALE_STEPS) / _CENTRE_STEPS
        x, y, z = (round((a + b) / 2 / step) for a, b in zip(low, high, strict=True))
        if max(abs(x), abs(y), abs(z)) > _CENTRE_LIMIT:
            raise ValueError("the shape is too far from the origin for its size")
        return cls(code, (x, y, z))


@dataclass(frozen=True)
class ShapeHeader:
    """What a payload says of the shape.

    Attributes:
        kind: What it was given as, one of :data:`KINDS`.
        geometry_quality: Code of the geometry's quality, 0 to 250.
        geometry_groups: Channel groups of the geometry code that follow, 1 to 15.
        colour_quality: Code of the colour's quality; None for a shape without colour.
        colour_groups: Channel groups of the colour code; 0 without colour.
        pose: Position and scale.
        unit: Of the coordinates, one of :data:`UNITS`, or None.
        checksum: Low 16 bits of the CRC32C of the coded symbols.
        smoothing: Number of the low-pass that its meshes go through, 0 to 3.
    """

    kind: str
    geometry_quality: int
    geometry_groups: int
    colour_quality: int | None
    colour_groups: int
    pose: Pose
    unit: str | None
    checksum: int
    smoothing: int = 0

    def to_bytes(self) -> bytes:
        """The header's bytes, 5 to 30, usually 12.

        Example:
            >>> len(ShapeHeader("mesh", 100, 6, None, 0, Pose(), None, 0).to_bytes())
            5
        """
        has_pose = self.pose != Pose()
        flags = KINDS.index(self.kind)
        flags |= COLOUR_FLAG * (self.colour_quality is not None) | POSE_FLAG * has_pose
        flags |= UNIT_FLAG * (self.unit is not None) | self.smoothing << _SMOOTHING_SHIFT
        parts = [bytes([flags, self.geometry_quality, self.geometry_groups | self.colour_groups << 4])]
        if self.colour_quality is not None:
            parts.append(bytes([self.colour_quality]))
        parts.append(place_bytes(self.pose, self.unit))
        parts.append(struct.pack("<H", self.checksum & _CHECKSUM_MASK))
        return b"".join(parts)


def place_bytes(pose: Pose, unit: str | None) -> bytes:
    """Position, scale and unit as they are in a header; nothing for the cube without a unit."""
    parts = []
    if pose != Pose():
        parts.append(struct.pack("<H", pose.scale_code + _SCALE_OFFSET))
        parts += [encode_varint(2 * c if c >= 0 else -2 * c - 1) for c in pose.centre_codes]
    if unit is not None:
        parts.append(bytes([UNITS.index(unit)]))
    return b"".join(parts)


def quality_code(quality: float) -> int:
    """The code nearest to a quality.

    Raises:
        ValueError: The quality is not in [0, 100].

    Example:
        >>> quality_code(50)
        125
    """
    if not 0 <= quality <= _QUALITY_MAX:
        raise ValueError(f"quality must be in [0, {_QUALITY_MAX}], got {quality}")
    return round(float(quality) * 10 / TENTHS_PER_CODE)


class HeaderReader:
    """Bytes in order, with the errors of a stream that ends too early."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.offset = 0

    def take(self, count: int) -> bytes:
        """So many bytes."""
        end = self.offset + count
        if end > len(self.payload):
            raise TruncatedStream("the shape header is incomplete")
        found = self.payload[self.offset : end]
        self.offset = end
        return found

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def short(self) -> int:
        """The next two bytes."""
        return int.from_bytes(self.take(2), "little")

    def varint(self) -> int:
        """The next varint."""
        number, self.offset = decode_varint(self.payload, self.offset)
        return number

    def zigzag(self) -> int:
        """The next signed number."""
        number = self.varint()
        return number // 2 if number % 2 == 0 else -(number + 1) // 2


def read_place(reader: HeaderReader, flags: int) -> tuple[Pose, str | None]:
    """Position, scale and unit, as far as the flags say that they are there.

    Raises:
        TruncatedStream: The payload ends too early.
        CorruptStream: A value is impossible.
    """
    pose = Pose()
    if flags & POSE_FLAG:
        scale_code = reader.short() - _SCALE_OFFSET
        pose = Pose(scale_code, (reader.zigzag(), reader.zigzag(), reader.zigzag()))
        if pose == Pose() or max(map(abs, pose.centre_codes)) > _CENTRE_LIMIT:
            raise CorruptStream("the shape's pose is impossible")
    unit = None
    if flags & UNIT_FLAG:
        number = reader.byte()
        if number >= len(UNITS):
            raise CorruptStream(f"unit {number} of a shape is not defined")
        unit = UNITS[number]
    return pose, unit


def read_shape_header(payload: bytes) -> tuple[ShapeHeader, int]:
    """Reads and checks the header.

    Args:
        payload: Of a shape stream.

    Returns:
        The header, and the offset of the coded symbols.

    Raises:
        TruncatedStream: The payload ends too early.
        CorruptStream: A value is impossible.
    """
    reader = HeaderReader(payload)
    flags, geometry_quality, groups = reader.byte(), reader.byte(), reader.byte()
    if flags & ~_KNOWN_FLAGS or flags & KIND_MASK >= len(KINDS):
        raise CorruptStream(f"shape flags {flags:#x} are not defined")
    colour_quality = reader.byte() if flags & COLOUR_FLAG else None
    if geometry_quality > QUALITY_CODES or (colour_quality or 0) > QUALITY_CODES:
        raise CorruptStream("a shape's quality is above 100")
    geometry_groups, colour_groups = groups & 15, groups >> 4
    if not geometry_groups or (colour_groups == 0) != (colour_quality is None):
        raise CorruptStream(f"a shape cannot have {geometry_groups} and {colour_groups} code groups")
    pose, unit = read_place(reader, flags)
    checksum = reader.short()
    header = ShapeHeader(
        KINDS[flags & KIND_MASK],
        geometry_quality,
        geometry_groups,
        colour_quality,
        colour_groups,
        pose,
        unit,
        checksum,
        flags >> _SMOOTHING_SHIFT & _SMOOTHING_MASK,
    )
    return header, reader.offset


def describe(payload: bytes, limits: Limits) -> dict[str, int | float | str]:
    """What :func:`latentpress.codecs.inspect` says of a shape.

    Args:
        payload: Of a shape stream.
        limits: Nothing in the header can exceed them; how large a mesh may be is asked when it is made.

    Raises:
        StreamError: Anything is wrong with the header.
    """
    from latentpress.codecs.polygon_payload import describe_polygons, is_polygons

    if is_polygons(payload):
        return describe_polygons(payload, limits)
    header, _ = read_shape_header(payload)
    step = TENTHS_PER_CODE / 10
    found: dict[str, int | float | str] = {
        "kind": header.kind,
        "mode": "generator",
        "quality": round(header.geometry_quality * step, 1),
        "colour": "yes" if header.colour_quality is not None else "no",
        "longest_side": 2 * header.pose.scale,
    }
    if header.unit is not None:
        found["unit"] = header.unit
    return found
