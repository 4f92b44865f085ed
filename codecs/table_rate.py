"""The rate of latents that are not rounded yet, by the tables that will code them, with gradients."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from latentpress.codecs.bitstream import TableSet
from latentpress.codecs.bitstream.information import table_information
from latentpress.models.entropy.gaussian import INDEX_OFFSET, INDEX_SLOPE

LARGEST_MAGNITUDE = 255
"""Beyond it, costs go on along a straight line: only the widest tables come so far without an escape."""


class TableRate:
    """What symbols cost under a set of tables, linear between integers and between neighbouring tables.

    ::

        bits      table k + 1 ----.
         |                         `---.     residual 0.3, raw scale between tables k and k + 1:
         |        table k ---.          `--  0.7 * cost of 0 + 0.3 * cost of 1, in both tables,
         |                    `----.         weighted by the distance to each
         +---- 0 ------ 1 ------ 2 ---- |residual|

    For a value that is rounded up or down at random this is the expected cost, and for integers it is the
    cost itself but for the rounding of the scale. Both signs of a symbol cost their average.

    Args:
        tables: One table for every entry of the scale table.

    Example:
        >>> from latentpress.codecs.bitstream import gaussian_tables
        >>> rate = TableRate(gaussian_tables(np.array([0.5, 1.0, 2.0])))
        >>> cost = rate(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([-9.0, -9.0, -9.0]))
        >>> bool(torch.isclose(cost[1], (cost[0] + cost[2]) / 2))
        True
    """

    def __init__(self, tables: TableSet) -> None:
        magnitudes = np.arange(LARGEST_MAGNITUDE + 1)
        rows = [
            table_information(magnitudes, tables, number) + table_information(-magnitudes, tables, number)
            for number in range(len(tables))
        ]
        self._costs = torch.from_numpy(np.stack(rows) / 2).float()

    def __call__(self, residual: Tensor, raw_scale: Tensor) -> Tensor:
        """Bits of every element.

        Args:
            residual: Distance to the mean in quantisation steps, any shape, float32.
            raw_scale: Same shape, see ``gaussian.scale_from_raw``.

        Returns:
            Bits, same shape, differentiable by both.
        """
        self._costs = self._costs.to(residual.device)
        tables, magnitudes = self._costs.shape
        index = (raw_scale * INDEX_SLOPE + INDEX_OFFSET).clamp(0, tables - 1)
        table = index.detach().floor().clamp(max=tables - 2)
        magnitude = residual.abs()
        symbol = magnitude.detach().floor().clamp(max=magnitudes - 2)
        towards_table, towards_symbol = index - table, magnitude - symbol
        cell = table.long() * magnitudes + symbol.long()
        costs = self._costs.flatten()
        narrow = torch.lerp(costs[cell], costs[cell + 1], towards_symbol)
        cell += magnitudes
        return torch.lerp(narrow, torch.lerp(costs[cell], costs[cell + 1], towards_symbol), towards_table)
