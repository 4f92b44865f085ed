"""The one thing in EXIF data that has to change when a picture is turned upright."""

from __future__ import annotations

import struct

_ORIENTATION = 0x0112
_SHORT = 3
_ENTRY_BYTES = 12
_UPRIGHT = 1


def upright(exif: bytes) -> bytes:
    """Says "upright" where EXIF data named an orientation, and leaves every other byte as it is.

    The value is changed in place: writing the data anew without the tag would move what cameras keep in
    private blocks that address by absolute position.

    Args:
        exif: EXIF data from its byte-order mark on, as in a TIFF file.

    Returns:
        Data of the same length; unchanged if there is no orientation, or this is no EXIF data.

    Example:
        >>> turned = bytes.fromhex("4d4d002a00000008 0001 01120003000000010006 0000 00000000")
        >>> upright(turned)[18:20].hex()
        '0001'
    """
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return exif
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    if start + 2 > len(exif):
        return exif
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    patched = bytearray(exif)
    for k in range(count):
        place = start + 2 + k * _ENTRY_BYTES
        if place + _ENTRY_BYTES > len(exif):
            break
        tag, kind = struct.unpack_from(f"{order}HH", exif, place)
        if tag == _ORIENTATION and kind == _SHORT:
            struct.pack_into(f"{order}H", patched, place + 8, _UPRIGHT)
    return bytes(patched)
