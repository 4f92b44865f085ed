"""Brings Pillow images of any mode to the planes that codecs take, and picks their metadata.

A picture that lost something on the way in must not look like the codec's doing, so every loss leaves a note.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from latentpress.codecs.picture_sections import with_bits

EXIF_PREFIX = b"Exif\0\0"
"""What JPEG puts before EXIF data, and Pillow keeps there; streams hold the data without it."""

DEPTH_NOTE = "16 bits a channel were reduced to 8"
WHITE_NOTE = "the transparent picture was put on white"

Planes = NDArray[Any]
"""``(C, H, W)``, uint8 or uint16: grey, grey and alpha, RGB or RGBA, in this order for C from 1 to 4."""

_GREY_MODES = ("1", "L", "LA", "La")
_DEEP_TOP = 65535
_ROWS_AT_ONCE = 256


class UnsupportedMode(ValueError):
    """The pixels of an image have no meaning as samples from black to white."""


class Converted(NamedTuple):
    """An image as codecs take it.

    Attributes:
        planes: Its samples; with alpha only if some pixel is not opaque.
        metadata: What of the given metadata is still right for it.
        notes: A line for everything the pixels lost.
    """

    planes: Planes
    metadata: dict[str, bytes]
    notes: tuple[str, ...]


def to_planes(image: Image.Image, metadata: Mapping[str, bytes] | None = None) -> Converted:
    """Brings an image to planes of 8 or 16 bits.

    Palettes become colours, transparency of any kind becomes alpha that colour is not multiplied by, CMYK and
    Lab become RGB, by their profile if they have one.

    Args:
        image: Of any mode.
        metadata: As of :func:`metadata_of`; the ``icc`` profile decides how CMYK is converted.

    Raises:
        UnsupportedMode: The image holds floating-point numbers or integers of more than 16 bits.

    Example:
        >>> to_planes(Image.new("RGBA", (2, 2), (255, 0, 0, 7))).planes[:, 0, 0].tolist()
        [255, 0, 0, 7]
    """
    kept = dict(metadata or {})
    notes: list[str] = []
    if image.mode.startswith("I"):
        return Converted(without_opaque_alpha(_from_16_bit(image)), kept, ())
    if image.mode == "F":
        raise UnsupportedMode(
            "floating-point pixels have no black and white: scale them to 8 or 16 bits first"
        )
    if image.mode == "CMYK":
        # The profile describes CMYK, so it is wrong for what comes out.
        image = _from_cmyk(image, kept.pop("icc", None), notes)
    elif image.mode == "LAB":
        image = _from_lab(image, notes)
        kept.pop("icc", None)
    elif image.has_transparency_data or image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode in _GREY_MODES else "RGBA")
    elif image.mode not in ("L", "RGB"):  # which Pillow would copy
        image = image.convert("L" if image.mode in _GREY_MODES else "RGB")
    return Converted(without_opaque_alpha(planes_of(image)), kept, tuple(notes))


def planes_of(image: Image.Image) -> Planes:
    """The samples of an image of mode L, LA, RGB or RGBA."""
    width, height = image.size
    planes = np.empty((len(image.getbands()), height, width), np.uint8)
    # Pillow copies what it hands out, so a little at a time.
    for top in range(0, height, _ROWS_AT_ONCE):
        rows = np.asarray(image.crop((0, top, width, min(top + _ROWS_AT_ONCE, height))))
        planes[:, top : top + len(rows)] = rows.reshape(len(rows), width, -1).transpose(2, 0, 1)
    return planes


def image_of(planes: Planes) -> Image.Image:
    """Wraps planes for Pillow.

    Args:
        planes: Of 8 bits, or grey of 16 bits, for which Pillow has a mode.

    Returns:
        An image of mode L, LA, RGB, RGBA or I;16.

    Example:
        >>> image_of(np.zeros((2, 4, 3), np.uint8)).mode, image_of(np.zeros((1, 4, 3), np.uint16)).mode
        ('LA', 'I;16')
    """
    if len(planes) == 1:
        return Image.fromarray(planes[0])
    return Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))


def without_opaque_alpha(planes: Planes) -> Planes:
    """The same without alpha if that says of every pixel that it is opaque, which is to say nothing."""
    if len(planes) % 2 or (planes[-1] != np.iinfo(planes.dtype).max).any():
        return planes
    return planes[:-1]


def flattened(planes: Planes) -> tuple[Planes, tuple[str, ...]]:
    """Brings planes to 8-bit grey or RGB, on white.

    Args:
        planes: Any.

    Returns:
        Those planes, and a note for everything they lost.

    Example:
        >>> flattened(np.array([[[0]], [[128]]], np.uint8))[0].tolist()
        [[[127]]]
    """
    notes = []
    if planes.dtype == np.uint16:
        notes.append(DEPTH_NOTE)
        planes = with_bits(planes, 8)
    if len(planes) % 2 == 0:
        notes.append(WHITE_NOTE)
        colour, alpha = planes[:-1].astype(np.int32), planes[-1].astype(np.int32)
        planes = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return planes, tuple(notes)


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


def _from_16_bit(image: Image.Image) -> Planes:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > _DEEP_TOP:
        raise UnsupportedMode(
            "32-bit integer pixels have no black and white: scale them to 8 or 16 bits first"
        )
    grey = values.astype(np.uint16)[None]
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return grey
    return np.concatenate([grey, np.where(grey == transparent, 0, _DEEP_TOP).astype(np.uint16)])


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


def _from_lab(image: Image.Image, notes: list[str]) -> Image.Image:
    notes.append("Lab was converted to RGB")
    converted = ImageCms.profileToProfile(
        image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert converted is not None  # None only for conversions in place
    return converted
