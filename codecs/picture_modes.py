"""Brings Pillow images of any mode to the 8-bit grey or RGB that codecs take, and picks their metadata.

A picture that lost something on the way in must not look like the codec's doing, so every loss leaves a note.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms

EXIF_PREFIX = b"Exif\0\0"
"""What JPEG puts before EXIF data, and Pillow keeps there; streams hold the data without it."""

DEPTH_NOTE = "16 bits a channel were reduced to 8"


class UnsupportedMode(ValueError):
    """The pixels of an image have no 8-bit meaning."""


class Converted(NamedTuple):
    """An image as codecs take it.

    Attributes:
        image: Of mode L or RGB.
        metadata: What of the given metadata is still right for it.
        notes: A line for everything the pixels lost.
    """

    image: Image.Image
    metadata: dict[str, bytes]
    notes: tuple[str, ...]


def to_8_bit(image: Image.Image, metadata: Mapping[str, bytes] | None = None) -> Converted:
    """Brings an image to mode L or RGB.

    Alpha is composited over white, 16 bits are rounded to 8, CMYK becomes RGB by its profile.

    Args:
        image: Of any mode.
        metadata: As of :func:`metadata_of`; the ``icc`` profile decides how CMYK is converted.

    Raises:
        UnsupportedMode: The image holds floating-point numbers or integers of more than 16 bits.

    Example:
        >>> to_8_bit(Image.new("RGBA", (2, 2), (255, 0, 0, 0))).image.getpixel((0, 0))
        (255, 255, 255)
    """
    kept = dict(metadata or {})
    notes: list[str] = []
    if image.mode.startswith("I"):
        notes.append(DEPTH_NOTE)
        image = _from_16_bit(image)
    elif image.mode == "F":
        raise UnsupportedMode("floating-point pixels have no 8-bit meaning: scale them to 8 bits first")
    elif image.mode == "CMYK":
        # The profile describes CMYK, so it is wrong for what comes out.
        image = _from_cmyk(image, kept.pop("icc", None), notes)
    elif image.has_transparency_data:
        image = _over_white(image, notes)
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    return Converted(image, kept, tuple(notes))


def metadata_of(info: Mapping[Any, Any]) -> dict[str, bytes]:
    r"""The ``icc``, ``exif`` and ``xmp`` blocks among Pillow's notes on an image, as raw bytes.

    Args:
        info: ``Image.info``, or options of ``Image.save``. What is empty or None counts as not there.

    Returns:
        What there is; EXIF without the prefix that JPEG puts before it.

    Example:
        >>> metadata_of({"exif": b"Exif\0\0II", "dpi": (72, 72)})
        {'exif': b'II'}
    """
    found: dict[str, bytes] = {}
    if icc := info.get("icc_profile"):
        found["icc"] = bytes(icc)
    if exif := info.get("exif"):
        raw = exif.tobytes() if isinstance(exif, Image.Exif) else bytes(exif)
        found["exif"] = raw.removeprefix(EXIF_PREFIX)
    if xmp := info.get("xmp") or info.get("XML:com.adobe.xmp"):
        found["xmp"] = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
    return found


def _from_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise UnsupportedMode("32-bit integer pixels have no 8-bit meaning: scale them to 8 bits first")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _over_white(image: Image.Image, notes: list[str]) -> Image.Image:
    grey = image.mode in ("L", "LA", "La", "1")
    layers = image.convert("RGBA")
    if layers.getchannel("A").getextrema() != (255, 255):
        notes.append("transparency is not kept yet: the picture was put on white")
        layers = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
    return layers.convert("L" if grey else "RGB")


def _from_cmyk(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    notes.append("CMYK was converted to RGB")
    if profile is not None:
        try:
            source = ImageCms.getOpenProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError):
            notes.append("its colour profile could not be used, so colours are approximate")
        else:
            assert converted is not None  # None only for conversions in place
            return converted
    return image.convert("RGB")
