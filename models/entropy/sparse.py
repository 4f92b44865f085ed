"""Integer context blocks at some positions only.

Where few positions of a grid are asked for, most of a dense network's work is for nothing. Here blocks run on
lists of positions: the layers that mix channels as they are, the depthwise convolution by gathering
neighbours. All sums are exact integers in float64, so the results equal those of the dense blocks to the last
unit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from latentpress.models.entropy.blocks import ContextBlock
from latentpress.models.entropy.fixed_point import ACTIVATION_LIMIT, FixedPointDepthwise

WORTHWHILE = 0.4
"""Fraction of a grid below which lists of positions are faster than the whole grid."""


def grown(mask: Tensor, reach: int) -> Tensor:
    """Adds to a mask ``(H, W)`` everything within ``reach`` positions, diagonals included.

    Example:
        >>> grown(torch.eye(4).bool()[:1], 1).tolist()
        [[True, True, False, False]]
    """
    if not reach:
        return mask
    size = 2 * reach + 1
    return F.max_pool2d(mask[None, None].float(), size, stride=1, padding=reach)[0, 0] > 0


class Positions:
    """Some positions of a grid, with their neighbours among them.

    Args:
        mask: ``(H, W)`` bool.
    """

    def __init__(self, mask: Tensor) -> None:
        height, width = mask.shape
        self.mask = mask
        self.index = mask.flatten().nonzero().flatten()
        count = len(self.index)
        # A border of places that hold nothing, which the last row of a list of values stands for.
        place = torch.full((height + 2, width + 2), count, dtype=torch.int64, device=mask.device)
        inner = place[1:-1, 1:-1]
        inner[mask] = torch.arange(count, device=mask.device)
        self._place = place
        self.neighbours = [place[i : i + height, j : j + width][mask] for i in range(3) for j in range(3)]

    def rows_of(self, mask: Tensor) -> Tensor:
        """Where in the list those of a mask ``(H, W)`` are, which must all be in it; ``(m,)`` int64."""
        return self._place[1:-1, 1:-1][mask]

    def take(self, grid: Tensor) -> Tensor:
        """Values ``(n, C)`` of a grid ``(1, H, W, C)``."""
        return grid[0].flatten(0, 1)[self.index]


def run_blocks(
    blocks: Sequence[ContextBlock], values: Tensor, positions: Positions, wanted: Tensor | None = None
) -> Tensor:
    """Runs integer blocks on a list.

    Args:
        blocks: Converted context blocks.
        values: ``(n, C)`` integers in float64, one row a position.
        positions: Those positions. What is outside counts as zero behind the blocks' rectifier, so results
            are right where everything within as many positions as there are blocks is in the list.
        wanted: Rows of the list, ``(m,)`` int64, for which alone results are wanted; None for all.

    Returns:
        ``(n, C)``, or ``(m, C)`` for what is wanted.
    """
    for block in blocks:
        rows = wanted if block is blocks[-1] else None
        hidden = _depthwise(block.depthwise, block.rectifier(block.expand(values)), positions, rows)
        values = block.mix_channels(values if rows is None else values[rows], hidden)
    return values


def _depthwise(layer: torch.nn.Module, values: Tensor, positions: Positions, rows: Tensor | None) -> Tensor:
    """:class:`FixedPointDepthwise` by gathering: sums of nine 36-bit products stay below 2^53."""
    assert isinstance(layer, FixedPointDepthwise)
    limited = values.clamp(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)
    padded = torch.cat((limited, torch.zeros_like(limited[:1])))
    total: Tensor | None = None
    for neighbour, tap in zip(positions.neighbours, layer.taps(), strict=True):
        seen = padded[neighbour if rows is None else neighbour[rows]]
        total = seen * tap if total is None else total.addcmul_(seen, tap)
    assert total is not None
    return total.add_(layer.bias.double() + 0.5).floor_()
