"""How the encoder rounds: to the nearest integer, or to the next smaller where that saves bits enough."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentpress.codecs.bitstream import TableSet

MULTIPLIER = 0.015
"""Squared quantisation steps that one bit is worth when the encoder rounds.

Uniform quantisation at high rate makes it ln(2)/6 = 0.116: there, a smaller step would buy its distortion at
that price. Less was better where several values were tried, see docs/training.md.
"""

_LARGEST_CHOICE = 32


class EncoderRounding:
    """Rounds residuals by what they would cost.

    ::

        residual -> nearest integer m, and m - 1 step towards zero -> the one with less of
                                                 squared error + multiplier * bits by the table

    Decoders need not know of it: they see symbols.

    Args:
        tables: The tables that symbols are coded with.
        multiplier: Squared quantisation steps that one bit is worth; 0 rounds to the nearest.

    Example:
        >>> from latentpress.codecs.bitstream import gaussian_tables
        >>> rounding = EncoderRounding(gaussian_tables(np.array([0.2, 3.0])))
        >>> rounding(torch.tensor([0.55, 0.55, 0.9]), torch.tensor([0, 1, 0]))
        tensor([0., 1., 1.])
    """

    def __init__(self, tables: TableSet, multiplier: float = MULTIPLIER) -> None:
        self.multiplier = multiplier
        self._savings = torch.from_numpy(_bits_saved(tables))

    def __call__(self, residual: Tensor, index: Tensor) -> Tensor:
        """Rounds.

        Args:
            residual: Distances to the mean in quantisation steps, any shape.
            index: Their tables, same shape, integers.

        Returns:
            Whole numbers in the type of the residuals, same shape.
        """
        self._savings = self._savings.to(residual.device)
        nearest = torch.round(residual)
        magnitude = nearest.abs()
        savings = self._savings[index.long(), magnitude.clamp(max=_LARGEST_CHOICE).long()]
        # (|r| - m + 1)^2 - (|r| - m)^2, the squared error that one step less adds.
        added_error = 2 * (residual.abs() - magnitude) + 1
        smaller = nearest - torch.sign(nearest)
        return torch.where(added_error < self.multiplier * savings, smaller, nearest)


def _bits_saved(tables: TableSet) -> NDArray[np.float64]:
    """Bits that one step less in magnitude saves, ``(tables, _LARGEST_CHOICE + 1)``; none from zero."""
    saved = np.zeros((len(tables), _LARGEST_CHOICE + 1))
    for number in range(len(tables)):
        support, frequencies = tables.support(number), tables.table(number)
        largest = min(_LARGEST_CHOICE, -support.start, support.stop - 1)
        magnitudes = np.arange(largest + 1)
        both_signs = (
            frequencies[magnitudes - support.start] * 0.5 + frequencies[-magnitudes - support.start] * 0.5
        )
        saved[number, 1 : largest + 1] = np.diff(-np.log2(both_signs))
    return saved
