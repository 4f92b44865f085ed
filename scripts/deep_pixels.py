"""Colour of 16 bits from picture files, which Pillow has no mode for: it keeps the upper byte of each sample.

The lower ones are read by opening the file again and telling Pillow that the bytes are the other way round.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

_SUFFIX = ";16"
_TOP = 65535
_TIFF_BITS_PER_SAMPLE = 258


class DeepLayout(NamedTuple):
    """How the bytes of a file have to be read.

    Attributes:
        upper: Raw mode that gives the upper bytes.
        lower: Raw mode that gives the lower bytes; None if the first gives both, in turns.
    """

    upper: str
    lower: str | None


def deep_layout(image: Image.Image) -> DeepLayout | None:
    """Finds out whether a file has colour, or grey with alpha, of 16 bits that can be read.

    Args:
        image: As opened and not yet loaded.
    """
    raw = _raw_modes(image)
    if len(raw) != 1:
        return None
    mode, _, order = raw.pop().partition(_SUFFIX)
    if mode == "LA" and order == "B" and image.mode == "RGBA":
        # Two samples of two bytes are four bytes, whatever they are called.
        return DeepLayout("RGBA", None)
    if mode != image.mode or mode not in ("RGB", "RGBA") or not order:
        return None
    big, little = f"{mode}{_SUFFIX}B", f"{mode}{_SUFFIX}L"
    # Pillow's third order, N, is that of this machine.
    is_big = order == "B" or (order == "N" and np.little_endian is False)
    return DeepLayout(big, little) if is_big else DeepLayout(little, big)


def is_reduced(image: Image.Image) -> bool:
    """Whether Pillow makes 8 bits of the 16 that a file has."""
    return not image.mode.startswith("I") and any(_SUFFIX in raw for raw in _raw_modes(image))


def is_misread(image: Image.Image) -> bool:
    """Whether Pillow reads wrong pixels: those of 16 bits in a TIFF file with a plane for each colour."""
    bits = getattr(image, "tag_v2", {}).get(_TIFF_BITS_PER_SAMPLE, ())
    return 16 in tuple(bits) and len(bits) > 1 and not any(_SUFFIX in raw for raw in _raw_modes(image))


def deep_planes(open_file: Callable[[], ImageFile.ImageFile], layout: DeepLayout) -> NDArray[Any]:
    """Reads a picture of 16 bits.

    Args:
        open_file: Opens it.
        layout: Of :func:`deep_layout`.

    Returns:
        uint16, ``(C, H, W)``, turned upright: RGB, RGBA, or grey and alpha.
    """
    with open_file() as image:
        transparent = image.info.get("transparency")
    upper = _bytes_as(open_file, layout.upper).astype(np.uint16)
    if layout.lower is None:
        return upper[0::2] << 8 | upper[1::2]
    planes = upper << 8 | _bytes_as(open_file, layout.lower)
    if isinstance(transparent, tuple) and len(transparent) == len(planes):
        seen = (planes != np.array(transparent, np.uint16)[:, None, None]).any(axis=0)
        return np.concatenate([planes, np.where(seen, _TOP, 0).astype(np.uint16)[None]])
    return planes


def _bytes_as(open_file: Callable[[], ImageFile.ImageFile], raw: str) -> NDArray[np.uint8]:
    with open_file() as image:
        image.tile = [
            tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw)
            for tile in image.tile
        ]
        image.load()
        return np.asarray(ImageOps.exif_transpose(image)).transpose(2, 0, 1)


def _raw_modes(image: Image.Image) -> set[str]:
    found = set()
    for tile in getattr(image, "tile", []):
        first = tile.args if isinstance(tile.args, str) else next(iter(tile.args or ()), "")
        found.add(str(first))
    return found
