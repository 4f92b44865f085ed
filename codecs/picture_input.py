"""What codecs of pictures accept: the tensor, and metadata to carry along."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from latentpress.codecs.bitstream import SectionType

METADATA_SECTIONS = {"icc": SectionType.ICC, "exif": SectionType.EXIF, "xmp": SectionType.XMP}
"""Metadata that a stream can carry, by the name it has in ``compress(metadata=...)``."""


def checked_picture(x: Tensor) -> Tensor:
    """Checks a picture and brings it to floating point.

    Args:
        x: ``(3, H, W)`` RGB or ``(1, H, W)`` grey, uint8 or floating point in [0, 1], any device.

    Returns:
        float32 in [0, 1], the same shape and device, detached.

    Raises:
        TypeError: It is no tensor, or of another type.
        ValueError: Its shape is another, or a value is not finite or out of range.

    Example:
        >>> float(checked_picture(torch.full((1, 2, 2), 255, dtype=torch.uint8)).max())
        1.0
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"expected a torch tensor (3, H, W) or (1, H, W), got {type(x).__name__}")
    if x.ndim != 3 or x.shape[0] not in (1, 3) or 0 in x.shape:
        raise ValueError(f"expected a picture of shape (3, H, W) or (1, H, W), got {tuple(x.shape)}")
    x = x.detach()
    if x.dtype == torch.uint8:
        return x.float() / 255
    if not x.dtype.is_floating_point:
        raise TypeError(f"expected uint8 or floating point of shape {tuple(x.shape)}, got {x.dtype}")
    if not bool(torch.isfinite(x).all()) or float(x.min()) < 0 or float(x.max()) > 1:
        raise ValueError(
            f"a floating-point picture of shape {tuple(x.shape)} must be finite and within [0, 1]"
        )
    return x.float()


def metadata_sections(metadata: Mapping[str, bytes]) -> list[tuple[int, bytes]]:
    """Sections of a container that carry metadata.

    Args:
        metadata: Blocks by the names of :data:`METADATA_SECTIONS`.

    Raises:
        ValueError: A name is unknown.
    """
    unknown = set(metadata) - set(METADATA_SECTIONS)
    if unknown:
        raise ValueError(f"metadata can be {', '.join(METADATA_SECTIONS)}, not {', '.join(sorted(unknown))}")
    return [(METADATA_SECTIONS[name], content) for name, content in metadata.items()]
