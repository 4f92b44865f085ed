"""The image payload: its own header of size, quality and colour, then parts of coded symbols. No torch here.

::

    height, width, quality and colour (varints)
    all parts but the last:   checksum (4) | length (varint) | coded symbols
    the last part:            checksum (4) | coded symbols, to the end

How many parts there are is the model's matter; with one, the header is followed by a checksum and symbols.

A picture may be coded in tiles. Then the third varint says so, a fourth tells the tiles' size, and what
follows is nothing but coded symbols; where those of each tile are, and their checksums, is in a section of
its own, see :mod:`latentpress.codecs.image_stream`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from latentpress.codecs.bitstream import CorruptStream, Limits, TruncatedStream, decode_varint, encode_varint
from latentpress.codecs.image_tiles import TILE_STEP, TileGrid

QUALITY_TENTHS_MAX = 1000

_COLOURS = (3, 1)
"""Channels by colour code: 0 is RGB, 1 is grey."""

_TILED = 2048
"""Added to the code of quality and colour where there are tiles; without, it is at most 2001."""

_CHECKSUM = struct.Struct("<I")


@dataclass(frozen=True)
class ImageHeader:
    """What a payload says of the picture.

    Attributes:
        height: Rows of pixels.
        width: Columns of pixels.
        channels: 3 (RGB) or 1 (grey).
        quality_tenths: Quality in tenths, 0 to 1000.
        checksum: CRC32C of the coded symbols of the first part, each a little-endian int32, in coding order;
            0 with tiles, which have checksums of their own.
        tile_size: Side of a tile in pixels, a multiple of 64; 0 for a picture that is coded as a whole.
    """

    height: int
    width: int
    channels: int
    quality_tenths: int
    checksum: int
    tile_size: int = 0

    @property
    def quality(self) -> float:
        """Quality in [0, 100]."""
        return self.quality_tenths / 10

    @property
    def grid(self) -> TileGrid:
        """Where the tiles are; a picture that is coded as a whole is one."""
        return TileGrid(self.height, self.width, self.tile_size)

    @property
    def fields(self) -> bytes:
        """The header's bytes without the checksum, usually 6, with tiles 7."""
        code = self.quality_tenths * 2 + _COLOURS.index(self.channels)
        numbers = [self.height, self.width, code]
        if self.tile_size:
            numbers = [self.height, self.width, _TILED + code, self.tile_size // TILE_STEP]
        return b"".join(map(encode_varint, numbers))

    def to_bytes(self) -> bytes:
        """The header's bytes, usually 10, with tiles 7.

        Example:
            >>> len(ImageHeader(512, 768, 3, 500, 0).to_bytes())
            10
        """
        return self.fields + (b"" if self.tile_size else _CHECKSUM.pack(self.checksum))


class Part(NamedTuple):
    """A part of the payload.

    Attributes:
        data: Words of the range coder.
        checksum: CRC32C that the symbols must have.
        end: Offset in the payload where it ends.
    """

    data: bytes
    checksum: int
    end: int


def join_parts(fields: bytes, parts: Sequence[tuple[bytes, int]]) -> bytes:
    r"""Makes a payload.

    Args:
        fields: Of the header.
        parts: Words and checksum of each part.

    Example:
        >>> join_parts(b"h", [(b"core", 1), (b"rest", 2)])
        b'h\x01\x00\x00\x00\x04core\x02\x00\x00\x00rest'
    """
    pieces = [fields]
    for number, (data, checksum) in enumerate(parts):
        last = number == len(parts) - 1
        pieces += [_CHECKSUM.pack(checksum), b"" if last else encode_varint(len(data)), data]
    return b"".join(pieces)


def read_parts(payload: bytes, offset: int, count: int, missing: int = 0) -> list[Part]:
    """Takes a payload apart.

    Args:
        payload: Or as much of it as there is.
        offset: Where the fields of the header end.
        count: Parts that the model has.
        missing: Bytes that the payload should have besides.

    Returns:
        All parts; if bytes are missing, the complete ones, at least one.

    Raises:
        TruncatedStream: Not even the first part is complete.
        CorruptStream: A part is longer than the payload.
    """
    found: list[Part] = []
    try:
        for number in range(count):
            if len(payload) < offset + _CHECKSUM.size:
                raise TruncatedStream("a part of the picture has no checksum")
            (checksum,) = _CHECKSUM.unpack_from(payload, offset)
            start, length = offset + _CHECKSUM.size, 0
            if number < count - 1:
                length, start = decode_varint(payload, start)
            else:
                length = len(payload) + missing - start
            offset = start + length
            if offset > len(payload) + missing:
                raise CorruptStream(f"a part of {length} bytes does not fit into the payload")
            if offset > len(payload):
                raise TruncatedStream(f"a part of the picture lacks {offset - len(payload)} bytes")
            found.append(Part(payload[start:offset], checksum, offset))
    except TruncatedStream:
        if not missing or not found:
            raise
    return found


def read_image_header(payload: bytes, limits: Limits | None) -> tuple[ImageHeader, int]:
    """Reads and checks the header.

    Args:
        payload: Of an image stream.
        limits: Caps on the picture's size; None if somebody else checks it.

    Returns:
        The header, and the offset of the coded symbols.

    Raises:
        TruncatedStream: The payload ends too early.
        CorruptStream: A value is impossible.
        LimitExceeded: The picture has more pixels than allowed.
    """
    height, offset = decode_varint(payload, 0)
    width, offset = decode_varint(payload, offset)
    code, offset = decode_varint(payload, offset)
    if height < 1 or width < 1:
        raise CorruptStream(f"a picture cannot be {width}x{height} pixels")
    if limits is not None:
        limits.check_pixels(height, width)
    tiled = code >= _TILED
    quality_tenths, colour = divmod(code - _TILED if tiled else code, 2)
    if quality_tenths > QUALITY_TENTHS_MAX:
        raise CorruptStream(f"quality {quality_tenths / 10} is above {QUALITY_TENTHS_MAX / 10}")
    if tiled:
        steps, offset = decode_varint(payload, offset)
        if steps < 1:
            raise CorruptStream("tiles cannot be without size")
        return ImageHeader(height, width, _COLOURS[colour], quality_tenths, 0, steps * TILE_STEP), offset
    if len(payload) < offset + _CHECKSUM.size:
        raise TruncatedStream("the image header is incomplete")
    (checksum,) = _CHECKSUM.unpack_from(payload, offset)
    header = ImageHeader(height, width, _COLOURS[colour], quality_tenths, checksum)
    return header, offset + _CHECKSUM.size


def describe(payload: bytes, limits: Limits) -> dict[str, int | float | str]:
    """What an image stream says of its picture.

    Args:
        payload: Of an image stream.
        limits: Caps on the picture's size.

    Raises:
        StreamError: The header is not one of an image.

    Example:
        >>> describe(ImageHeader(512, 768, 3, 500, 0).to_bytes(), Limits())["quality"]
        50.0
        >>> describe(ImageHeader(512, 768, 3, 500, 0, tile_size=256).to_bytes(), Limits())["tiles"]
        6
    """
    header, _ = read_image_header(payload, limits)
    found: dict[str, int | float | str] = {
        "width": header.width,
        "height": header.height,
        "channels": header.channels,
        "quality": header.quality,
    }
    if header.tile_size:
        found |= {"tiles": header.grid.count, "tile_size": header.tile_size}
    return found
