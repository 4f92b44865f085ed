"""Picture files to tensors and back, through Pillow.

Codecs take grey or RGB of 8 or 16 bits, with or without alpha. Whatever else a file holds is brought to that
here, and said: a picture that lost something on the way in must not look like the codec's doing.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from latentpress.codecs.bitstream import Limits
from latentpress.codecs.picture_modes import (
    DEPTH_NOTE,
    EXIF_PREFIX,
    Converted,
    UnsupportedMode,
    flattened,
    image_of,
    metadata_of,
    to_planes,
    without_opaque_alpha,
)
from latentpress.codecs.picture_sections import with_bits
from latentpress.scripts.deep_pixels import deep_layout, deep_planes, is_misread, is_reduced
from latentpress.scripts.exif import NESTED_TAGS, block_of_tiff, tiff_tags, upright
from latentpress.scripts.failures import PictureError
from latentpress.scripts.png_rows import png_bytes

# What damaged or foreign files make Pillow raise, besides OSError.
_PILLOW_ERRORS = (
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    IndexError,
    OverflowError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
_XMP_KEYS = ("xmp", "XML:com.adobe.xmp")
_ORIENTATION_TAG, _UPRIGHT = 0x0112, 1
# A decoded picture is what was paid for, so little more may be lost when it is written.
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4", "optimize": True},
    "WEBP": {"lossless": True, "exact": False},
    "TIFF": {"compression": "tiff_adobe_deflate"},
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
}
_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".avif": "AVIF",
}
PICTURE_SUFFIXES = tuple(_FORMATS)


class Picture(NamedTuple):
    """A picture as codecs take it.

    Attributes:
        pixels: uint8 or uint16, upright; (1, H, W) grey, (2, H, W) grey and alpha, (3, H, W) RGB or (4, H, W)
            RGBA.
        metadata: What of ``icc``, ``exif`` and ``xmp`` the file held, each as raw bytes; EXIF without the
            prefix that JPEG puts before it.
        notes: A line for everything the picture lost on the way from the file.
    """

    pixels: torch.Tensor
    metadata: dict[str, bytes]
    notes: tuple[str, ...]


class PictureFile(NamedTuple):
    """A picture as a file.

    Attributes:
        data: The content of the file.
        notes: A line for everything that the format cannot hold.
    """

    data: bytes
    notes: tuple[str, ...]


def read_picture(data: bytes | Path, limits: Limits | None = None) -> Picture:
    """Decodes a picture file.

    The EXIF orientation is applied. Transparency of any kind becomes alpha, which is left out if all pixels
    are opaque. CMYK becomes RGB by its profile, of several frames the first is taken; each leaves a note.

    Args:
        data: The content of the file, or its path, which takes less memory: PNG, JPEG, WebP, TIFF, AVIF or
            anything else that Pillow reads.
        limits: Cap on the number of pixels; None for the default limits.

    Returns:
        The picture.

    Raises:
        PictureError: This is no picture, it is damaged or too large, or its pixels are of a kind that has no
            meaning as samples of 8 or 16 bits.
    """
    cap = (limits or Limits()).max_pixels
    with open(data, "rb") if isinstance(data, Path) else io.BytesIO(data) as file:
        return _read_picture(file, data, cap)


def read_flat_picture(data: bytes, limits: Limits | None = None) -> Picture:
    """The same as 8-bit grey or RGB on white, which is what codecs are compared with.

    Args:
        data: As for :func:`read_picture`.
        limits: Cap on the number of pixels; None for the default limits.

    Returns:
        The picture, uint8, (1, H, W) or (3, H, W), with a note for what it lost.

    Raises:
        PictureError: As from :func:`read_picture`.
    """
    picture = read_picture(data, limits)
    planes, notes = flattened(picture.pixels.numpy())
    return Picture(torch.from_numpy(planes), picture.metadata, (*picture.notes, *notes))


def picture_file(
    pixels: torch.Tensor, suffix: str, metadata: Mapping[str, bytes] | None = None, **options: Any
) -> PictureFile:
    """Makes a picture file.

    Args:
        pixels: uint8 or uint16, (C, H, W) with C from 1 to 4, on any device.
        suffix: One of `PICTURE_SUFFIXES`, in any case: the format.
        metadata: ``icc``, ``exif`` and ``xmp`` to write into it.
        **options: Overrides Pillow's options for the format. Without them JPEG is written with quality 95 and
            full colour, AVIF with 90 and full colour, the others without loss.

    Returns:
        The file. What the format cannot hold is brought to what it can, with a note: alpha to white, 16 bits
        to 8.

    Raises:
        PictureError: The suffix is unknown, or the format cannot hold this picture.
    """
    name = _FORMATS[format_of(f"picture{suffix}").lower()]
    planes, notes = _as_format_holds(pixels.detach().cpu().numpy(), name)
    buffer = io.BytesIO()
    try:
        if name == "PNG" and planes.dtype == np.uint16:
            return PictureFile(png_bytes(planes, metadata), notes)
        chosen = _SAVE_OPTIONS.get(name, {}) | options | _metadata_options(name, metadata or {})
        image_of(planes).save(buffer, name, **chosen)
    except (OSError, *_PILLOW_ERRORS) as error:
        raise PictureError(f"the picture cannot be written as {name}: {error}") from error
    return PictureFile(buffer.getvalue(), notes)


def picture_bytes(
    pixels: torch.Tensor, suffix: str, metadata: Mapping[str, bytes] | None = None, **options: Any
) -> bytes:
    """The content of :func:`picture_file`, for pictures that every format can hold."""
    return picture_file(pixels, suffix, metadata, **options).data


def format_of(path: str) -> str:
    """Checks that a picture can be written to a path.

    Args:
        path: A path with a suffix.

    Returns:
        The suffix.

    Raises:
        PictureError: The suffix names no format that can be written.
    """
    suffix = Path(path).suffix
    if suffix.lower() not in _FORMATS:
        raise PictureError(f"cannot write '{suffix}' files: use one of {', '.join(PICTURE_SUFFIXES)}")
    return suffix


def to_image(pixels: torch.Tensor) -> Image.Image:
    """Wraps pixels for Pillow.

    Args:
        pixels: uint8, (C, H, W) with C from 1 to 4, on any device.

    Returns:
        An image of mode L, LA, RGB or RGBA.
    """
    return image_of(pixels.detach().cpu().numpy())


@contextmanager
def _pillow_capped(max_pixels: int) -> Iterator[None]:
    """Makes Pillow refuse larger pictures before it allocates them, and keep its other remarks to itself."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _read_picture(file: BinaryIO, data: bytes | Path, cap: int) -> Picture:
    try:
        with _pillow_capped(cap), Image.open(file) as image:
            if is_misread(image):
                raise PictureError("TIFF files of 16 bits with a plane for each colour cannot be read")
            notes = _frame_notes(image)
            found = _read_planes(image, data)
    except UnsupportedMode as error:
        raise PictureError(str(error)) from None
    except UnidentifiedImageError:
        raise PictureError("not a picture in a format that can be read") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PictureError(f"the picture has more than {cap} pixels") from None
    except (OSError, *_PILLOW_ERRORS) as error:
        raise PictureError(f"the picture cannot be read: {error}") from error
    pixels = torch.from_numpy(np.ascontiguousarray(found.planes))
    return Picture(pixels, found.metadata, (*notes, *found.notes))


def _read_planes(image: Image.Image, data: bytes | Path) -> Converted:
    layout, reduced = deep_layout(image), is_reduced(image)
    image.load()
    # What is upright already would be copied.
    is_turned = image.getexif().get(_ORIENTATION_TAG, _UPRIGHT) != _UPRIGHT
    turned = ImageOps.exif_transpose(image) if is_turned else image
    metadata, notes = _metadata(image, turned)
    if layout is not None:
        planes = deep_planes(lambda: Image.open(data if isinstance(data, Path) else io.BytesIO(data)), layout)
        return Converted(without_opaque_alpha(planes), metadata, notes)
    found = to_planes(turned, metadata)
    depth = (DEPTH_NOTE,) if reduced else ()
    return found._replace(notes=(*depth, *found.notes, *notes))


def _frame_notes(image: Image.Image) -> tuple[str, ...]:
    frames = getattr(image, "n_frames", 1)
    # The other frames of an MPO are previews and gain maps.
    return () if frames == 1 or image.format == "MPO" else (f"only the first of {frames} frames is kept",)


def _metadata(stored: Image.Image, turned: Image.Image) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Picks what is kept from Pillow's notes on the stored picture and on the one turned upright."""
    found = metadata_of(stored.info)
    notes: tuple[str, ...] = ()
    if "exif" not in found and stored.format == "TIFF":
        try:
            found["exif"] = block_of_tiff(stored) or b""
        except (OSError, *_PILLOW_ERRORS):
            notes = ("its tags are damaged and were not kept",)
    if exif := found.pop("exif", None):
        found["exif"] = upright(exif)
    # Of XMP the turned one: Pillow has taken the orientation out.
    found.pop("xmp", None)
    if xmp := metadata_of({name: turned.info.get(name) for name in _XMP_KEYS}):
        found |= xmp
    return found, notes


def _as_format_holds(planes: NDArray[Any], name: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    if name == "JPEG":
        return flattened(planes)
    if planes.dtype == np.uint8 or name == "PNG" or (name == "TIFF" and len(planes) == 1):
        return planes, ()
    return with_bits(planes, 8), (f"{DEPTH_NOTE}, which is what can be written as {name}: use .png for 16",)


def _metadata_options(name: str, metadata: Mapping[str, bytes]) -> dict[str, Any]:
    """The options of Pillow that write metadata in one format."""
    options: dict[str, Any] = {}
    icc, exif, xmp = (metadata.get(kind) for kind in ("icc", "exif", "xmp"))
    if icc:
        options["icc_profile"] = icc
    if name == "TIFF":
        options["exif"] = tags = tiff_tags(exif, xmp)
        if any(tag in tags for tag in NESTED_TAGS):
            # Pillow writes directories of EXIF and GPS only into files that libtiff has no part in.
            options["compression"] = None
        return options
    if exif:
        options["exif"] = exif if name == "AVIF" else EXIF_PREFIX + exif
    if xmp and name == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
        options["pnginfo"] = text
    elif xmp:
        options["xmp"] = xmp
    return options
