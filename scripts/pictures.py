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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from latentpress.codecs.bitstream import Limits
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
_EXIF_PREFIX = b"Exif\0\0"
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


@dataclass
class _Draft:
    """A picture on its way to 8-bit grey or RGB."""

    image: Image.Image
    metadata: dict[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


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
            draft = _Draft(image)
            _note_depth_and_frames(draft)
            image.load()
            draft.image = ImageOps.exif_transpose(image)
            draft.metadata = _metadata(image.info, draft.image.info)
            _to_8_bit(draft)
            # np.array copies: tensors must be writable, and the view into Pillow's memory is not.
            array = np.array(draft.image)
    except UnidentifiedImageError:
        raise PictureError("not a picture in a format that can be read") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PictureError(f"the picture has more than {cap} pixels") from None
    except (OSError, *_PILLOW_ERRORS) as error:
        raise PictureError(f"the picture cannot be read: {error}") from error
    planes = array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))
    return Picture(torch.from_numpy(planes), draft.metadata, tuple(draft.notes))


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


def _note_depth_and_frames(draft: _Draft) -> None:
    # Pillow reads 16-bit colour as 8 bits without a word; only the raw mode of the file tells.
    if any(";16" in str(tile.args) for tile in getattr(draft.image, "tile", [])) or (
        draft.image.mode.startswith("I")
    ):
        draft.notes.append("16 bits a channel were reduced to 8")
    frames = getattr(draft.image, "n_frames", 1)
    if frames > 1 and draft.image.format != "MPO":  # the other frames of an MPO are previews and gain maps
        draft.notes.append(f"only the first of {frames} frames is kept")


def _metadata(stored: Mapping[Any, Any], turned: Mapping[Any, Any]) -> dict[str, bytes]:
    """Picks what is kept from Pillow's notes on the stored picture and on the one turned upright."""
    found: dict[str, bytes] = {}
    if icc := stored.get("icc_profile"):
        found["icc"] = bytes(icc)
    if exif := stored.get("exif"):
        found["exif"] = upright(bytes(exif).removeprefix(_EXIF_PREFIX))
    # Of XMP the turned one: Pillow has taken the orientation out.
    if xmp := turned.get("xmp") or turned.get("XML:com.adobe.xmp"):
        found["xmp"] = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
    return found


def _to_8_bit(draft: _Draft) -> None:
    """Brings the image to mode L or RGB."""
    image = draft.image
    if image.mode.startswith("I"):
        draft.image = _from_16_bit(image)
    elif image.mode == "F":
        raise PictureError("floating-point pixels have no 8-bit meaning: scale them to 8 bits first")
    elif image.mode == "CMYK":
        draft.image = _from_cmyk(image, draft)
    elif image.has_transparency_data:
        draft.image = _over_white(image, draft)
    elif image.mode == "1":
        draft.image = image.convert("L")
    elif image.mode not in ("L", "RGB"):
        draft.image = image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise PictureError("32-bit integer pixels have no 8-bit meaning: scale them to 8 bits first")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _over_white(image: Image.Image, draft: _Draft) -> Image.Image:
    grey = image.mode in ("L", "LA", "La", "1")
    layers = image.convert("RGBA")
    if layers.getchannel("A").getextrema() != (255, 255):
        draft.notes.append("transparency is not kept yet: the picture was put on white")
        layers = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
    return layers.convert("L" if grey else "RGB")


def _from_cmyk(image: Image.Image, draft: _Draft) -> Image.Image:
    draft.notes.append("CMYK was converted to RGB")
    profile = draft.metadata.pop("icc", None)  # describes CMYK, so it is wrong for what comes out
    if profile is not None:
        try:
            source = ImageCms.getOpenProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError):
            draft.notes.append("its colour profile could not be used, so colours are approximate")
        else:
            assert converted is not None  # None only for conversions in place
            return converted
    return image.convert("RGB")


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
        options["exif"] = exif if name == "AVIF" else _EXIF_PREFIX + exif
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
