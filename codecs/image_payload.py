"""The image payload's own header: size, quality, colour and the checksum of the symbols. No torch here."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from latentpress.codecs.bitstream import CorruptStream, Limits, TruncatedStream, decode_varint, encode_varint

QUALITY_TENTHS_MAX = 1000

_COLOURS = (3, 1)
"""Channels by colour code: 0 is RGB, 1 is grey."""

_CHECKSUM = struct.Struct("<I")


@dataclass(frozen=True)
class ImageHeader:
    """What a payload says of the picture.

    Attributes:
        height: Rows of pixels.
        width: Columns of pixels.
        channels: 3 (RGB) or 1 (grey).
        quality_tenths: Quality in tenths, 0 to 1000.
        checksum: CRC32C of the coded symbols, each a little-endian int32, in coding order.
    """

    height: int
    width: int
    channels: int
    quality_tenths: int
    checksum: int

    @property
    def quality(self) -> float:
        """Quality in [0, 100]."""
        return self.quality_tenths / 10

    def to_bytes(self) -> bytes:
        """The header's bytes, at most 17, usually 10.

        Example:
            >>> len(ImageHeader(512, 768, 3, 500, 0).to_bytes())
            10
        """
        code = self.quality_tenths * 2 + _COLOURS.index(self.channels)
        numbers = (self.height, self.width, code)
        return b"".join(map(encode_varint, numbers)) + _CHECKSUM.pack(self.checksum)


def read_image_header(payload: bytes, limits: Limits) -> tuple[ImageHeader, int]:
    """Reads and checks the header.

    Args:
        payload: Of an image stream.
        limits: Caps on the picture's size.

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
    limits.check_pixels(height, width)
    quality_tenths, colour = divmod(code, 2)
    if quality_tenths > QUALITY_TENTHS_MAX:
        raise CorruptStream(f"quality {quality_tenths / 10} is above {QUALITY_TENTHS_MAX / 10}")
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
    """
    header, _ = read_image_header(payload, limits)
    return {
        "width": header.width,
        "height": header.height,
        "channels": header.channels,
        "quality": header.quality,
    }
