"""Writes PNG row by row: for pictures that are made band by band and never in memory as a whole.

::

    rows -> filter, the best of four for each row -> zlib -> IDAT chunks -> file

Pillow writes PNG too, but only of whole pictures.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 3: 2, 2: 4, 4: 6}
"""By the number of channels: grey, RGB, grey and alpha, RGBA."""

_ROWS_AT_ONCE = 64
_CHUNK_BYTES = 1 << 16
_LEVEL = 6
_SUB, _UP, _AVERAGE, _PAETH = 1, 2, 3, 4
_XMP_KEYWORD = b"XML:com.adobe.xmp"

Samples = NDArray[Any]


class PngWriter:
    """A PNG file that is being written.

    Args:
        file: Where to; it is neither closed nor sought in.
        width: Of the picture.
        height: Of the picture.
        channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
        bits: 8 or 16 for each sample.
        metadata: ``icc``, ``exif`` and ``xmp`` to write into it.

    Example:
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> writer = PngWriter(file, width=5, height=4, channels=3)
        >>> for _ in range(2):
        ...     writer.write(np.full((3, 2, 5), 200, np.uint8))
        >>> writer.finish()
        >>> Image.open(file).getpixel((4, 3))
        (200, 200, 200)
    """

    def __init__(
        self,
        file: BinaryIO,
        width: int,
        height: int,
        channels: int,
        bits: int = 8,
        metadata: Mapping[str, bytes] | None = None,
    ) -> None:
        self._file = file
        self._shape = (channels, width)
        self._rows_left = height
        self._bits = bits
        self._pixel_bytes = channels * bits // 8
        self._previous = np.zeros(width * self._pixel_bytes, np.uint8)
        self._zlib = zlib.compressobj(_LEVEL, strategy=zlib.Z_FILTERED)
        self._waiting = bytearray()
        file.write(_SIGNATURE)
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, _COLOUR_TYPES[channels], 0, 0, 0))
        self._metadata(metadata or {})

    def write(self, rows: Samples) -> None:
        """Adds rows.

        Args:
            rows: ``(C, n, width)``, uint8 or uint16 as the file has bits.

        Raises:
            ValueError: They are of another shape or type, or more than there is space for.
        """
        channels, count, width = rows.shape
        if (channels, width) != self._shape or rows.dtype.itemsize * 8 != self._bits:
            raise ValueError(f"rows of shape {rows.shape} and type {rows.dtype} do not fit the picture")
        if count > self._rows_left:
            raise ValueError(f"{count} rows are too many: {self._rows_left} are left")
        self._rows_left -= count
        for top in range(0, count, _ROWS_AT_ONCE):
            some = rows[:, top : top + _ROWS_AT_ONCE].transpose(1, 2, 0)
            if self._bits == 16:
                some = some.astype(">u2")
            raw = np.ascontiguousarray(some).reshape(some.shape[0], -1).view(np.uint8)
            self._waiting += self._zlib.compress(_filtered(raw, self._previous, self._pixel_bytes).tobytes())
            self._previous = raw[-1].copy()
            if len(self._waiting) >= _CHUNK_BYTES:
                self._send()

    def finish(self) -> None:
        """Writes the end of the file.

        Raises:
            ValueError: Rows are missing.
        """
        if self._rows_left:
            raise ValueError(f"{self._rows_left} rows are missing")
        self._waiting += self._zlib.flush()
        self._send()
        self._chunk(b"IEND", b"")

    def _send(self) -> None:
        if self._waiting:
            self._chunk(b"IDAT", bytes(self._waiting))
            self._waiting.clear()

    def _metadata(self, metadata: Mapping[str, bytes]) -> None:
        if icc := metadata.get("icc"):
            self._chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
        if exif := metadata.get("exif"):
            self._chunk(b"eXIf", exif)
        if xmp := metadata.get("xmp"):
            self._chunk(b"iTXt", _XMP_KEYWORD + b"\0\0\0\0\0" + xmp)

    def _chunk(self, kind: bytes, content: bytes) -> None:
        self._file.write(struct.pack(">I", len(content)) + kind)
        self._file.write(content)
        self._file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))


def png_bytes(planes: Samples, metadata: Mapping[str, bytes] | None = None) -> bytes:
    """A whole PNG file.

    Args:
        planes: ``(C, H, W)``, uint8 or uint16; grey, grey and alpha, RGB or RGBA.
        metadata: ``icc``, ``exif`` and ``xmp`` to write into it.
    """
    channels, height, width = planes.shape
    file = io.BytesIO()
    writer = PngWriter(file, width, height, channels, 8 * planes.dtype.itemsize, metadata)
    writer.write(planes)
    writer.finish()
    return file.getvalue()


def _filtered(rows: NDArray[np.uint8], previous: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Rows ``(n, bytes)`` as differences to what is around, each with the number of its filter in front.

    Args:
        rows: Bytes of the samples.
        previous: The row above.
        step: Bytes of a pixel.
    """
    above = np.concatenate((previous[None], rows[:-1]))
    left, corner = (np.pad(some[:, :-step], ((0, 0), (step, 0))) for some in (rows, above))
    average = (left & above) + ((left ^ above) >> 1)  # rounded down, without a carry
    candidates = {
        _SUB: rows - left,
        _UP: rows - above,
        _AVERAGE: rows - average,
        _PAETH: rows - _paeth(left, above, corner),
    }
    found = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    least = np.full(len(rows), np.iinfo(np.int64).max)
    for number, differences in candidates.items():
        # Differences are modulo 256; what is nearer to 0 is what zlib likes.
        cost = np.minimum(differences, 0 - differences).sum(axis=1, dtype=np.int64)
        better = cost < least
        found[better, 0] = number
        found[better, 1:] = differences[better]
        least = np.minimum(least, cost)
    return found


def _paeth(left: NDArray[np.uint8], above: NDArray[np.uint8], corner: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The one of the three that is nearest to ``left + above - corner``."""
    a, b, c = (some.astype(np.int16) for some in (left, above, corner))
    to_left, to_above, to_corner = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    nearest = np.where(to_above <= to_corner, above, corner)
    return np.where((to_left <= to_above) & (to_left <= to_corner), left, nearest)
