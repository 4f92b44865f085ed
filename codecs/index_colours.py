"""Which colours an index stream says besides its indices: the encoder's choice, and what a decoder needs.

Only pictures with colours that photographs do not have are looked at. Their anchors are chosen by decoding
the stream, and only those are sent that bring the decoded picture closer to the original.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from latentpress.codecs.bitstream import CorruptStream
from latentpress.codecs.index_colour_section import (
    COLOUR_TOP,
    GAIN_TOP,
    MOST_COLOURS,
    CellColours,
    read_colours,
    write_colours,
)
from latentpress.models.index.colour_anchors import ColourAnchors, cell_means, with_anchors
from latentpress.models.index.granularity import CELL

GAMUT = (175, 85, 115, 250, 60, 205)
"""How far cells of photographs go towards red, green, blue, cyan, magenta and yellow, in 8-bit steps.

Of training photographs, two cells in a thousand go further, and of Kodak's none.
"""

ERROR = 6 / 255
"""A mean that is further off than this, in any channel, needs an anchor."""

SPREAD = 24 / 255
"""Standard deviation in a cell, of the channel that varies most, above which it has several colours."""

GRADIENT = 48 / 255
"""Cells beside one with an anchor get one too if their colours differ by no more: a slope has no steps."""

GAIN = 0.7
"""Squared error around an anchor, as a share of that without, up to which it is kept.

Where textures are wrong as well, as in photographs at low rates, anchors cost more than they are worth.
"""

# Colours this close, in their own steps, are sent as one; more, where there are too many.
_TOLERANCE = 2


def read_section(section: bytes, picture: tuple[int, int, int]) -> CellColours:
    """Reads a COLOUR section.

    Args:
        section: Its content.
        picture: Channels, height and width.

    Raises:
        StreamError: A value is impossible, or the picture is grey.
    """
    channels, height, width = picture
    if channels != 3:
        raise CorruptStream("a grey picture cannot have a colour section")
    return read_colours(section, -(-height // CELL), -(-width // CELL))


def anchors_of(cells: CellColours, device: torch.device) -> ColourAnchors:
    """What a section says, as the decoder applies it."""
    values = torch.from_numpy(cells.colours[cells.numbers.clip(0)]).float().to(device)
    present = torch.from_numpy(cells.numbers >= 0).to(device)
    return ColourAnchors(present, values[..., :3] / COLOUR_TOP, values[..., 3] / GAIN_TOP)


def beyond_photographs(means: Tensor) -> Tensor:
    """Whether colours are more saturated than those of photographs.

    Args:
        means: ``(..., 3)`` in [0, 1].

    Returns:
        ``(...)`` bool: those whose largest channel is too far above the middle one, or the middle one above
        the least, see :data:`GAMUT`.

    Example:
        >>> colours = [(0, 0, 255), (255, 0, 0), (12, 200, 90), (40, 90, 160), (250, 200, 30)]
        >>> beyond_photographs(torch.tensor(colours) / 255).tolist()
        [True, True, True, False, False]
    """
    low, middle, high = means.sort(dim=-1).values.unbind(dim=-1)
    limits = means.new_tensor(GAMUT) / 255
    # The largest channel says which primary colour it is, the least one which of the others.
    too_primary = high - middle > limits[:3][means.argmax(dim=-1)]
    too_secondary = middle - low > limits[3:][means.argmin(dim=-1)]
    return too_primary | too_secondary


class ColourChoice:
    """Chooses anchors for one picture.

    Args:
        picture: ``(3, H, W)`` in [0, 1].

    Attributes:
        possible: Whether the picture may need any; if not, nothing is decoded to see.
    """

    def __init__(self, picture: Tensor) -> None:
        self._picture = picture
        self._means = cell_means(picture)
        self._saturated = beyond_photographs(self._means)
        self.possible = False
        if bool(self._saturated.any()):
            variance = (cell_means(picture.square()) - self._means.square()).clamp_min(0)
            self._plain = variance.sqrt().amax(dim=-1) <= SPREAD
            self.possible = bool((self._plain & self._saturated).any())

    def section(self, decoded: Tensor) -> bytes | None:
        """Content of the COLOUR section for a decoded picture ``(3, H, W)``; None if it needs none.

        Only if it is :attr:`possible` that there is one.
        """
        decoded = decoded.clamp(0, 1)
        means = cell_means(decoded)
        wrong = (means - self._means).abs().amax(dim=-1) > ERROR
        wanted = self._plain & self._saturated & wrong
        wanted = wanted | (self._plain & self._beside(wanted))
        if not bool(wanted.any()):
            return None
        gains = self._gains(decoded, means)
        before = self._nearby_errors(decoded)
        # Each anchor changes what its neighbours are worth, so those that are left are looked at again.
        for _ in range(2):
            cells = _quantised(self._means, gains, wanted)
            after = self._nearby_errors(with_anchors(decoded, anchors_of(cells, decoded.device)))
            kept = wanted & (after <= GAIN * before)
            if bool((kept == wanted).all()):
                break
            wanted = kept
            if not bool(wanted.any()):
                return None
        cells = _quantised(self._means, gains, wanted)
        corrected = with_anchors(decoded, anchors_of(cells, decoded.device))
        if not bool((corrected - self._picture).square().sum() < (decoded - self._picture).square().sum()):
            return None
        return write_colours(cells)

    def _beside(self, wanted: Tensor) -> Tensor:
        """Cells with a wanted one among the eight around them, of a colour like theirs."""
        rows, columns = wanted.shape
        held = F.pad(wanted, (1, 1, 1, 1))
        colours = F.pad(self._means, (0, 0, 1, 1, 1, 1))
        found = torch.zeros_like(wanted)
        for row in range(3):
            for column in range(3):
                there = slice(row, row + rows), slice(column, column + columns)
                distance = (colours[there] - self._means).abs().amax(dim=-1)
                found |= held[there] & (distance <= GRADIENT)
        return found

    def _gains(self, decoded: Tensor, means: Tensor) -> Tensor:
        """How much of the decoded differences to the mean the original has, by least squares, ``(h, w)``."""
        covariance = (cell_means(decoded * self._picture) - means * self._means).sum(dim=-1)
        variance = (cell_means(decoded.square()) - means.square()).sum(dim=-1)
        return (covariance / variance.clamp_min(1e-8)).clamp(0, 1)

    def _nearby_errors(self, decoded: Tensor) -> Tensor:
        """Squared error around each cell, ``(h, w)``."""
        errors = cell_means((decoded - self._picture).square()).sum(dim=-1)
        return F.avg_pool2d(errors[None, None], 3, 1, padding=1)[0, 0]


def _quantised(means: Tensor, gains: Tensor, wanted: Tensor) -> CellColours:
    """The colours of cells as few as they can be said with."""
    exact = torch.cat([means * COLOUR_TOP, gains[..., None] * GAIN_TOP], dim=-1).round()
    values = exact[wanted].cpu().numpy().astype(np.int64)
    tolerance = _TOLERANCE
    while len(colours := _merged(values, tolerance)) > MOST_COLOURS:
        tolerance *= 2
    distance = np.stack([np.abs(values - colour).max(axis=1) for colour in colours])
    numbers = np.full(wanted.shape, -1, np.int64)
    numbers[wanted.cpu().numpy()] = distance.argmin(axis=0)
    return CellColours(numbers, colours)


def _merged(values: NDArray[np.int64], tolerance: int) -> NDArray[np.int64]:
    """Colours within a tolerance of all, the most frequent first."""
    left, counts = np.unique(values, axis=0, return_counts=True)
    left = left[np.argsort(-counts, kind="stable")]
    found = []
    while len(left):
        found.append(left[0])
        left = left[np.abs(left - left[0]).max(axis=1) > tolerance]
    return np.array(found)
