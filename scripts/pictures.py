"""Picture files to tensors and back, through Pillow.

Codecs take 8-bit grey or RGB. Whatever else a file holds is brought to that here, and said: a picture that
lost something on the way in must not look like the codec's doing.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from latentpress.codecs.bitstream import Limits
from latentpress.codecs.picture_modes import DEPTH_NOTE, EXIF_PREFIX, UnsupportedMode, metadata_of, to_8_bit
from latentpress.scripts.exif import upright
from latentpress.scripts.failures import PictureError

# What damaged or foreign files make Pillow raise, besides OSError.
_PILLOW_ERRORS = (
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    IndexError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
_XMP_KEYS = ("xmp", "XML:com.adobe.xmp")
_XMP_TIFF_TAG = 700
# A decoded picture is what was paid for, so little more may be lost when it is written.
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4", "optimize": True},
    "WEBP": {"lossless": True},
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
        pixels: uint8, shape (1, H, W) or (3, H, W), upright.
        metadata: What of ``icc``, ``exif`` and ``xmp`` the file held, each as raw bytes; EXIF without the
            prefix that JPEG puts before it.
        notes: A line for everything the picture lost on the way from the file.
    """

    pixels: torch.Tensor
    metadata: dict[str, bytes]
    notes: tuple[str, ...]


def read_picture(data: bytes, limits: Limits | None = None) -> Picture:
    """Decodes the content of a picture file.

    The EXIF orientation is applied. Alpha is composited over white, deeper pixels are rounded to 8 bits, CMYK
    becomes RGB by its profile, of several frames the first is taken; each leaves a note.

    Args:
        data: PNG, JPEG, WebP, TIFF, AVIF or anything else that Pillow reads.
        limits: Cap on the number of pixels; None for the default limits.

    Returns:
        The picture.

    Raises:
        PictureError: This is no picture, it is damaged or too large, or its pixels are of a kind that has no
            8-bit meaning.
    """
    cap = (limits or Limits()).max_pixels
    try:
        with _pillow_capped(cap), Image.open(io.BytesIO(data)) as image:
            notes = _file_notes(image)
            image.load()
            turned = ImageOps.exif_transpose(image)
            converted = to_8_bit(turned, _metadata(image.info, turned.info))
            # np.array copies: tensors must be writable, and the view into Pillow's memory is not.
            array = np.array(converted.image)
    except UnsupportedMode as error:
        raise PictureError(str(error)) from None
    except UnidentifiedImageError:
        raise PictureError("not a picture in a format that can be read") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PictureError(f"the picture has more than {cap} pixels") from None
    except (OSError, *_PILLOW_ERRORS) as error:
        raise PictureError(f"the picture cannot be read: {error}") from error
    planes = array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))
    return Picture(torch.from_numpy(planes), converted.metadata, (*notes, *converted.notes))


def picture_bytes(
    pixels: torch.Tensor, suffix: str, metadata: Mapping[str, bytes] | None = None, **options: Any
) -> bytes:
    """Encodes a picture file.

    Args:
        pixels: uint8, shape (1, H, W) or (3, H, W), on any device.
        suffix: One of `PICTURE_SUFFIXES`, in any case: the format.
        metadata: ``icc``, ``exif`` and ``xmp`` to write into it.
        **options: Overrides Pillow's options for the format. Without them JPEG is written with quality 95 and
            full colour, AVIF with 90 and full colour, the others without loss.

    Returns:
        The content of the file.

    Raises:
        PictureError: The suffix is unknown, or the format cannot hold this picture.
    """
    name = _FORMATS.get(suffix.lower())
    if name is None:
        raise PictureError(f"cannot write '{suffix}' files: use one of {', '.join(PICTURE_SUFFIXES)}")
    image = to_image(pixels)
    buffer = io.BytesIO()
    try:
        chosen = _SAVE_OPTIONS.get(name, {}) | options | _metadata_options(name, metadata or {})
        image.save(buffer, name, **chosen)
    except (OSError, *_PILLOW_ERRORS) as error:
        raise PictureError(f"the picture cannot be written as {name}: {error}") from error
    return buffer.getvalue()


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
        pixels: uint8, shape (1, H, W) or (3, H, W), on any device.

    Returns:
        An image of mode L or RGB.
    """
    array = pixels.detach().cpu().permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


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


def _file_notes(image: Image.Image) -> list[str]:
    """What is lost that only the file tells, not the image that Pillow makes of it."""
    notes: list[str] = []
    # Pillow reads 16-bit colour as 8 bits without a word; only the raw mode of the file tells.
    if not image.mode.startswith("I") and any(";16" in str(tile.args) for tile in getattr(image, "tile", [])):
        notes.append(DEPTH_NOTE)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # the other frames of an MPO are previews and gain maps
        notes.append(f"only the first of {frames} frames is kept")
    return notes


def _metadata(stored: Mapping[Any, Any], turned: Mapping[Any, Any]) -> dict[str, bytes]:
    """Picks what is kept from Pillow's notes on the stored picture and on the one turned upright."""
    found = metadata_of(stored)
    if exif := found.get("exif"):
        found["exif"] = upright(exif)
    # Of XMP the turned one: Pillow has taken the orientation out.
    found.pop("xmp", None)
    if xmp := metadata_of({name: turned.get(name) for name in _XMP_KEYS}):
        found |= xmp
    return found


def _metadata_options(name: str, metadata: Mapping[str, bytes]) -> dict[str, Any]:
    """The options of Pillow that write metadata in one format."""
    options: dict[str, Any] = {}
    icc, exif, xmp = (metadata.get(kind) for kind in ("icc", "exif", "xmp"))
    if icc:
        options["icc_profile"] = icc
    if name == "TIFF":
        options["exif"] = _tiff_tags(exif, xmp)
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


def _tiff_tags(exif: bytes | None, xmp: bytes | None) -> Image.Exif:
    """EXIF and XMP as tags of a TIFF file, which is what they are there."""
    tags = Image.Exif()
    if exif:
        tags.load(exif)
        # Some cameras repeat the layout of their own file, and it would replace that of this one.
        for tag in (*range(254, 270), *range(273, 282), 284, *range(317, 340)):
            tags.pop(tag, None)
    if xmp:
        tags[_XMP_TIFF_TAG] = xmp
    return tags
