"""What codecs of pictures return: samples of 8 or 16 bits, with the alpha that the stream carries."""

from __future__ import annotations

import torch
from torch import Tensor

from latentpress.codecs.bitstream import (
    DEFAULT_LIMITS,
    Limits,
    StreamError,
    read_container,
    read_cut_container,
)
from latentpress.codecs.picture_input import to_samples
from latentpress.codecs.picture_sections import PictureSections


def read_picture_sections(
    data: bytes, limits: Limits = DEFAULT_LIMITS, partial: bool = False
) -> PictureSections:
    """Reads what a stream says of a picture beside its payload.

    Args:
        data: A stream.
        limits: Caps on what is accepted.
        partial: Whether the stream may have been cut off in its payload.

    Raises:
        StreamError: Anything is wrong with the bytes.
    """
    container = read_cut_container(data, limits) if partial else read_container(data, limits)
    return PictureSections.of(container)


def remaining_picture_sections(data: bytes, limits: Limits = DEFAULT_LIMITS) -> PictureSections:
    """The same of a stream that may be damaged anywhere: what is left, or 8 bits and nothing else."""
    for read in (read_container, lambda data, limits: read_cut_container(data[:-1], limits)):
        try:
            return PictureSections.of(read(data, limits))
        except StreamError:
            continue
    return PictureSections(lost=True)


def finished_picture(
    colour: Tensor,
    sections: PictureSections,
    height: int,
    width: int,
    limits: Limits = DEFAULT_LIMITS,
    region: tuple[int, int, int, int] | None = None,
) -> Tensor:
    """Rounds decoded colour and adds the alpha.

    Args:
        colour: ``(3, h, w)`` or ``(1, h, w)`` around [0, 1], any device.
        sections: Of the stream.
        height: Of the whole picture.
        width: Of the whole picture.
        limits: Caps on what is accepted.
        region: What of the picture ``colour`` is: y, x, height and width; None for all.

    Returns:
        uint8 or uint16, with a channel more if there is alpha, on the same device.

    Raises:
        StreamError: The alpha cannot be decoded.
    """
    samples = to_samples(colour, sections.bits)
    if sections.alpha is None:
        return samples
    alpha = torch.from_numpy(sections.alpha_samples(height, width, limits, region))
    return torch.cat([samples, alpha.to(samples.device)[None]])
