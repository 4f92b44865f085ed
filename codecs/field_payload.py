"""The field payload's own header: shape, type, how it was coded and to which bound. No torch here."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from enum import IntEnum

from latentpress.codecs.bitstream import CorruptStream, Limits, TruncatedStream, decode_varint, encode_varint

QUALITY_TENTHS_MAX = 1000

RATIOS = (8, 64, 512)
"""Ratios in the counting of samples: 2, 4 and 8 along every axis."""

DTYPES = ("<f4", "<f8")

ANY_MODEL = bytes(8)
"""Fingerprint of streams that need no network."""

GROUP = 3
"""Components that a network codes together."""


class Mode(IntEnum):
    """How the values are coded; of fields in blocks see :mod:`latentpress.codecs.field_blocks`."""

    LOSSLESS = 0
    INTERPOLATION = 1
    NETWORK = 2
    BLOCKS = 3


@dataclass(frozen=True)
class FieldHeader:
    """What a payload says of the field.

    Attributes:
        mode: How the values are coded.
        shape: ``(C, D, H, W)``; D is 1 for fields of two dimensions.
        flat: The field came with two dimensions.
        double: Values are float64 rather than float32.
        periodic: Axes that continue at their far ends.
        masked: Some values are not finite; a mask says which.
        bound: No value differs by more than this; None if nothing was promised.
        ratio: Of the network, one of :data:`RATIOS`.
        quality_tenths: Of the network, 0 to 1000.
        offsets: Subtracted from each component, ``C`` numbers; none when lossless.
        scales: Divided by, one for each group of three components; of the network only.
    """

    mode: Mode
    shape: tuple[int, int, int, int]
    flat: bool
    double: bool
    periodic: tuple[bool, bool, bool] = (False, False, False)
    masked: bool = False
    bound: float | None = None
    ratio: int = RATIOS[0]
    quality_tenths: int = 0
    offsets: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()

    @property
    def dtype(self) -> str:
        """Of the values, as numpy names it."""
        return DTYPES[self.double]

    @property
    def quality(self) -> float:
        """Quality in [0, 100]."""
        return self.quality_tenths / 10

    @property
    def groups(self) -> int:
        """Groups of components that a network codes together."""
        return -(-self.shape[0] // GROUP)

    def to_bytes(self) -> bytes:
        """The header's bytes.

        Example:
            >>> len(FieldHeader(Mode.LOSSLESS, (1, 1, 4, 4), flat=True, double=False).to_bytes())
            6
        """
        flags = (
            self.mode | self.flat << 2 | self.double << 3 | self.masked << 4 | (self.bound is not None) << 5
        )
        axes = sum(flag << axis for axis, flag in enumerate(self.periodic))
        parts = [bytes([flags]), *map(encode_varint, self.shape), bytes([axes])]
        if self.bound is not None:
            parts.append(struct.pack("<d", self.bound))
        if self.mode != Mode.LOSSLESS:
            parts.append(struct.pack(f"<{len(self.offsets)}d", *self.offsets))
        if self.mode == Mode.NETWORK:
            parts.append(bytes([RATIOS.index(self.ratio)]) + encode_varint(self.quality_tenths))
            parts.append(struct.pack(f"<{len(self.scales)}d", *self.scales))
        return b"".join(parts)


def read_field_header(payload: bytes, limits: Limits) -> tuple[FieldHeader, int]:
    """Reads and checks the header.

    Args:
        payload: Of a field stream.
        limits: Caps on the number of values.

    Returns:
        The header, and the offset of what follows.

    Raises:
        TruncatedStream: The payload ends too early.
        CorruptStream: A value is impossible.
        LimitExceeded: The field has more values than allowed.
    """
    flags, offset = read_byte(payload, 0)
    mode_number, flat, double = flags & 3, bool(flags & 4), bool(flags & 8)
    if mode_number == Mode.BLOCKS or flags >> 6:
        raise CorruptStream(f"a field cannot be coded in mode {flags}")
    sizes = []
    for _ in range(4):
        size, offset = decode_varint(payload, offset)
        sizes.append(size)
    components, depth, height, width = sizes
    if min(sizes) < 1 or (flat and depth != 1):
        raise CorruptStream(f"a field cannot have the shape {tuple(sizes)}")
    limits.check_voxels(sizes)
    axes, offset = read_byte(payload, offset)
    if axes > 7:
        raise CorruptStream("a field has three axes")
    bound: float | None = None
    if flags & 32:
        (bound,), offset = read_floats(payload, offset, 1)
        if not 0 <= bound < math.inf:
            raise CorruptStream(f"a bound cannot be {bound}")
    header = FieldHeader(
        mode=Mode(mode_number),
        shape=(components, depth, height, width),
        flat=flat,
        double=double,
        periodic=(bool(axes & 1), bool(axes & 2), bool(axes & 4)),
        masked=bool(flags & 16),
        bound=bound,
    )
    return _read_rest(payload, offset, header)


def _read_rest(payload: bytes, offset: int, header: FieldHeader) -> tuple[FieldHeader, int]:
    offsets: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()
    ratio, tenths = RATIOS[0], 0
    if header.mode != Mode.LOSSLESS:
        offsets, offset = read_floats(payload, offset, header.shape[0])
    if header.mode == Mode.NETWORK:
        number, offset = read_byte(payload, offset)
        tenths, offset = decode_varint(payload, offset)
        if number >= len(RATIOS) or tenths > QUALITY_TENTHS_MAX:
            raise CorruptStream(f"there is no ratio {number} at quality {tenths / 10}")
        ratio = RATIOS[number]
        scales, offset = read_floats(payload, offset, header.groups)
    if not all(map(math.isfinite, offsets + scales)):
        raise CorruptStream("offsets and scales of a field are finite")
    if header.mode == Mode.INTERPOLATION and not header.bound:
        raise CorruptStream("interpolation needs a positive bound")
    complete = FieldHeader(
        mode=header.mode,
        shape=header.shape,
        flat=header.flat,
        double=header.double,
        periodic=header.periodic,
        masked=header.masked,
        bound=header.bound,
        ratio=ratio,
        quality_tenths=tenths,
        offsets=offsets,
        scales=scales,
    )
    return complete, offset


def join_parts(parts: list[bytes]) -> bytes:
    """Byte strings one after another, each with its length in front."""
    return b"".join(encode_varint(len(part)) + part for part in parts)


def split_parts(payload: bytes, offset: int, count: int) -> list[bytes]:
    """Inverse of :func:`join_parts`, from an offset to the end.

    Raises:
        TruncatedStream: A part reaches beyond the end.
        CorruptStream: Something is left over.
    """
    parts = []
    for _ in range(count):
        length, offset = decode_varint(payload, offset)
        if offset + length > len(payload):
            raise TruncatedStream(f"a part needs {length} bytes, {len(payload) - offset} are left")
        parts.append(payload[offset : offset + length])
        offset += length
    if offset != len(payload):
        raise CorruptStream(f"{len(payload) - offset} bytes follow the last part of a field")
    return parts


def read_byte(payload: bytes, offset: int) -> tuple[int, int]:
    """The byte at an offset, and the offset behind it."""
    if offset >= len(payload):
        raise TruncatedStream("the field header is incomplete")
    return payload[offset], offset + 1


def read_floats(payload: bytes, offset: int, count: int) -> tuple[tuple[float, ...], int]:
    """Some float64 numbers at an offset, and the offset behind them."""
    end = offset + 8 * count
    if end > len(payload):
        raise TruncatedStream("the field header is incomplete")
    return struct.unpack_from(f"<{count}d", payload, offset), end
