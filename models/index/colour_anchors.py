"""Colour anchors: means that cells of a decoded picture must have, where its own are far off.

Codes and decoder learnt photographs, in which nothing is as blue as a logo: what the nearest code decodes to
may have another hue altogether. An anchor says which mean colour a cell of 16x16 pixels has, and how much of
what the decoder puts around it is to be kept. The decoder measures the mean of its own picture, so it need
not make the same picture everywhere, to the last bit or with packets lost::

    decoded cell -> mean -> sent colour + gain * (decoded - mean) -+-> blend of nine cells -> picture
    pixels without an anchor: as decoded ---------------------------+

A cell's correction reaches into the cells around it. Between anchored cells of like colour it fades from
centre to centre. In cells without an anchor it is for pixels that look like what the anchored cell decoded
to: the part of a disc that lies in cells of its edge gets the colour of the disc, and the white beside it
stays white.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from latentpress.models.index.granularity import CELL

ALIKE = 16 / 255
"""Colours no further apart than this, in the channel that differs most, count as the same."""

UNLIKE = 56 / 255
"""Colours this far apart have nothing to do with each other."""

_SHARPNESS = 4
"""Power of a cell's weight over the distance; with 1, cells of several corrections would blur."""

_REACH = 1.5
"""Cells from a cell's centre to where its correction ends: all of the eight around it."""

# Rows of cells that are corrected at a time, so that a large picture needs little memory besides itself.
_BAND = 16


class ColourAnchors(NamedTuple):
    """What is known of the colours of cells.

    Attributes:
        present: ``(h, w)`` bool: cells that have an anchor.
        colours: ``(h, w, 3)``, means in [0, 1]; anything where there is no anchor.
        gains: ``(h, w)`` in [0, 1]: what is left of differences to the mean.
    """

    present: Tensor
    colours: Tensor
    gains: Tensor


def cell_means(picture: Tensor) -> Tensor:
    """Means of cells of a picture ``(C, H, W)``, ``(h, w, C)``; those at its end may have fewer pixels."""
    means = F.avg_pool2d(picture[None], CELL, CELL, ceil_mode=True, count_include_pad=False)
    return means[0].permute(1, 2, 0)


def similarity(first: Tensor, second: Tensor) -> Tensor:
    """How much colours ``(..., 3)`` are the same: 1 up to :data:`ALIKE`, 0 from :data:`UNLIKE`, ``(...)``."""
    distance = (first - second).abs().amax(dim=-1)
    return ((UNLIKE - distance) / (UNLIKE - ALIKE)).clamp(0, 1)


def with_anchors(picture: Tensor, anchors: ColourAnchors) -> Tensor:
    """Gives a decoded picture the colours that are known.

    Args:
        picture: ``(3, H, W)`` around [0, 1].
        anchors: Of its ``ceil(H / 16)`` rows and ``ceil(W / 16)`` columns of cells, on the same device.

    Returns:
        The same in [0, 1]; further than one cell from an anchor it is what it was.

    Example:
        >>> white = torch.ones(1, 1, 3)
        >>> anchors = ColourAnchors(white[..., 0] > 0, white, torch.zeros(1, 1))
        >>> bool((with_anchors(torch.full((3, 5, 4), 0.25), anchors) > 0.9999).all())
        True
    """
    picture = picture.clamp(0, 1)
    means = cell_means(picture)
    rows = means.shape[0]
    bands = []
    for start in range(0, rows, _BAND):
        pixels = picture[:, start * CELL : (start + _BAND) * CELL]
        near = anchors.present[max(0, start - 1) : start + _BAND + 1]
        bands.append(_corrected_band(pixels, start, means, anchors) if bool(near.any()) else pixels)
    return torch.cat(bands, dim=1)


def _corrected_band(pixels: Tensor, start: int, means: Tensor, anchors: ColourAnchors) -> Tensor:
    """Corrects the rows of pixels ``(3, H, W)`` that begin with a row of cells."""
    height, width = pixels.shape[1:]
    decoded = pixels.permute(1, 2, 0)
    row_of = torch.arange(height, device=pixels.device).div(CELL, rounding_mode="floor") + start
    column_of = torch.arange(width, device=pixels.device).div(CELL, rounding_mode="floor")
    own = anchors.present[row_of][:, column_of]
    own_colour = anchors.colours[row_of][:, column_of]
    weights = torch.zeros_like(decoded[..., 0])
    total = torch.zeros_like(decoded)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            at_row, at_column = row_of + down, column_of + right
            row_weight = _weight(at_row, start, means.shape[0])
            column_weight = _weight(at_column, 0, means.shape[1])
            at_row = at_row.clamp(0, means.shape[0] - 1)
            at_column = at_column.clamp(0, means.shape[1] - 1)
            present = anchors.present[at_row][:, at_column]
            weight = row_weight[:, None] * column_weight * present
            colour, mean = anchors.colours[at_row][:, at_column], means[at_row][:, at_column]
            alike = torch.where(own, similarity(colour, own_colour), similarity(decoded, mean))
            gain = anchors.gains[at_row][:, at_column, None]
            correction = colour + gain * (decoded - mean) - decoded
            total += (weight * alike)[..., None] * correction
            weights += torch.where(own, weight * alike, weight)
    return (decoded + total / weights.clamp_min(1e-12)[..., None]).clamp(0, 1).permute(2, 0, 1)


def _weight(cells: Tensor, start: int, count: int) -> Tensor:
    """What a neighbouring cell weighs at every pixel of an axis, by its distance; 0 beyond the picture.

    Args:
        cells: Number of the neighbour for every pixel.
        start: The first pixel's cell.
        count: How many cells there are.
    """
    place = (torch.arange(len(cells), device=cells.device) + 0.5) / CELL + start
    distance = (place - (cells + 0.5)).abs()
    inside = (cells >= 0) & (cells < count)
    return (_REACH - distance).clamp_min(0) ** _SHARPNESS * inside
