"""Pictures that are decoded band by band, to files that are written as the bands come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO

import torch

from latentpress.codecs.image_decoding import PictureBands
from latentpress.scripts.png_rows import PngWriter


def write_png(file: BinaryIO, picture: PictureBands, metadata: Mapping[str, bytes] | None = None) -> None:
    """Writes a picture as PNG, of which no more than a band is in memory.

    Args:
        file: Where to.
        picture: Not yet gone through.
        metadata: ``icc``, ``exif`` and ``xmp`` to write into it.

    Raises:
        StreamError: The picture cannot be decoded.
        OSError: It cannot be written.
    """
    channels, height, width = picture.shape
    writer = PngWriter(file, width, height, channels, 8 * picture.dtype.itemsize, metadata)
    for band in picture:
        writer.write(band.cpu().numpy())
    writer.finish()


def gathered(picture: PictureBands) -> torch.Tensor:
    """The whole picture, laid out in memory as writers of picture files want it.

    Args:
        picture: Not yet gone through.

    Returns:
        ``(C, H, W)`` on the CPU, with the channels last in memory.
    """
    channels, height, width = picture.shape
    pixels = torch.empty((height, width, channels), dtype=picture.dtype)
    top = 0
    for band in picture:
        pixels[top : top + band.shape[1]] = band.cpu().permute(1, 2, 0)
        top += band.shape[1]
    return pixels.permute(2, 0, 1)
