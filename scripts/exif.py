"""EXIF data: what has to change when a picture is turned upright, and how TIFF files keep it as tags."""

from __future__ import annotations

import struct

from PIL import Image

from latentpress.codecs.picture_modes import EXIF_PREFIX

_ORIENTATION = 0x0112
_SHORT = 3
_ENTRY_BYTES = 12
_UPRIGHT = 1

_XMP_TAG = 700
# How the pixels of one TIFF file are stored says nothing about the picture in another.
_LAYOUT_TAGS = frozenset((*range(254, 270), *range(273, 282), 284, *range(317, 340), 347, *range(512, 533)))
_BLOCK_TAGS = frozenset((_XMP_TAG, 33723, 34377, 34675))
"""XMP, IPTC, Photoshop's resources and the colour profile: blocks of their own."""

NESTED_TAGS = (0x8769, 0x8825)
"""The EXIF and the GPS directory."""

# Of the header, the number of tags and the offset of a directory that is not there.
_EMPTY_BYTES = 14


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


def block_of_tiff(image: Image.Image) -> bytes | None:
    """EXIF data made of the tags of a TIFF file, which has no block of it.

    Args:
        image: Opened from such a file.

    Returns:
        Data without the prefix that JPEG puts before it; None if the tags say nothing about the picture.
    """
    stored = image.getexif()
    block = Image.Exif()
    for tag, value in stored.items():
        if tag not in _LAYOUT_TAGS and tag not in _BLOCK_TAGS and tag not in NESTED_TAGS:
            block[tag] = value
    for tag in NESTED_TAGS:
        if nested := stored.get_ifd(tag):
            block.get_ifd(tag).update(nested)
    data = block.tobytes().removeprefix(EXIF_PREFIX)
    return data if len(data) > _EMPTY_BYTES else None


def tiff_tags(exif: bytes | None, xmp: bytes | None) -> Image.Exif:
    """EXIF and XMP as tags of a TIFF file, which is what they are there.

    Args:
        exif: Data without prefix.
        xmp: Data.
    """
    tags = Image.Exif()
    if exif:
        tags.load(exif)
        # Some cameras repeat the layout of their own file, and it would replace that of this one.
        for tag in _LAYOUT_TAGS:
            tags.pop(tag, None)
    if xmp:
        tags[_XMP_TAG] = xmp
    return tags
