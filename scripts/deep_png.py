"""Writes PNG files of 16 bits a sample, which Pillow does for grey alone."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BITS = 16
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""By the number of channels: grey, grey and alpha, RGB, RGBA."""


def deep_png(planes: NDArray[Any], metadata: Mapping[str, bytes] | None = None) -> bytes:
    """Makes a PNG file.

    Args:
        planes: uint16, ``(C, H, W)``: grey, grey and alpha, RGB or RGBA.
        metadata: ``icc``, ``exif`` and ``xmp`` to write into it.

    Returns:
        The content of the file.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> Image.open(io.BytesIO(deep_png(np.zeros((4, 5, 7), np.uint16)))).size
        (7, 5)
    """
    channels, height, width = planes.shape
    header = struct.pack(">IIBBBBB", width, height, _BITS, _COLOUR_TYPES[channels], 0, 0, 0)
    found = metadata or {}
    chunks = [_chunk(b"IHDR", header)]
    if icc := found.get("icc"):
        chunks.append(_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc)))
    if exif := found.get("exif"):
        chunks.append(_chunk(b"eXIf", exif))
    if xmp := found.get("xmp"):
        chunks.append(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    chunks += [_chunk(b"IDAT", zlib.compress(_filtered(planes), 9)), _chunk(b"IEND", b"")]
    return _SIGNATURE + b"".join(chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _filtered(planes: NDArray[Any]) -> bytes:
    """Rows of bytes, each behind the number of its filter: the one that leaves the smallest differences."""
    channels, height, _ = planes.shape
    size = channels * _BITS // 8
    rows = np.ascontiguousarray(planes.transpose(1, 2, 0)).astype(">u2").view(np.uint8).reshape(height, -1)
    left, above, corner = (np.zeros_like(rows) for _ in range(3))
    left[:, size:] = rows[:, :-size]
    above[1:] = rows[:-1]
    corner[1:, size:] = rows[:-1, :-size]
    mean = ((left.astype(np.uint16) + above) >> 1).astype(np.uint8)
    predictions = (np.zeros_like(rows), left, above, mean, _paeth(left, above, corner))
    differences = np.stack([rows - prediction for prediction in predictions])
    weights = np.abs(differences.view(np.int8).astype(np.int16)).sum(axis=2, dtype=np.int64)
    best = weights.argmin(axis=0)
    chosen = differences[best, np.arange(height)]
    return np.concatenate([best.astype(np.uint8)[:, None], chosen], axis=1).tobytes()


def _paeth(left: NDArray[np.uint8], above: NDArray[np.uint8], corner: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of three neighbours the one nearest to left + above - corner."""
    a, b, c = (x.astype(np.int16) for x in (left, above, corner))
    from_a, from_b, from_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    return np.where((from_a <= from_b) & (from_a <= from_c), left, np.where(from_b <= from_c, above, corner))
