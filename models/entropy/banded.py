"""Integer context blocks on a whole grid, a few rows at a time.

Layer by layer, every layer of a block writes as many numbers as the grid has, and on a processor that takes
longer than all products. Here everything between two depthwise convolutions is done for a band of rows while
these are in cache. All sums are exact integers in float64, so the results equal those of the blocks to the
last unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from latentpress.models.entropy.blocks import ContextBlock
from latentpress.models.entropy.fixed_point import ACTIVATION_LIMIT, bands


def run_banded(blocks: Sequence[ContextBlock], grid: Tensor, wanted: Tensor | None = None) -> Tensor:
    """Runs integer blocks on a grid.

    What the last block does at every position by itself, which is most of it, is done where it is wanted.

    Args:
        blocks: Converted context blocks, at least one.
        grid: ``(1, H, W, C)`` integers in float64; overwritten.
        wanted: ``(H, W)`` bool; None for everything.

    Returns:
        ``(1, H, W, C)``; with ``wanted``, ``(n, C)`` in raster order.

    Example:
        >>> from latentpress.models.entropy.fixed_point import convert, to_fixed_point
        >>> blocks = convert(torch.nn.Sequential(ContextBlock(4), ContextBlock(4)))
        >>> grid = to_fixed_point(torch.rand(1, 2, 3, 4))
        >>> found = blocks(grid)
        >>> torch.equal(run_banded(blocks, grid), found)
        True
    """
    if grid.device.type != "cpu":
        for block in blocks:
            grid = block(grid)
        return grid if wanted is None else grid[0][wanted]
    _, height, width, channels = grid.shape
    padded = grid.new_zeros(1, height + 2, width + 2, channels)
    for block in blocks if wanted is None else blocks[:-1]:
        for rows, hidden in _hidden(block, grid, padded):
            grid[:, rows] = block.mix_channels(grid[:, rows], hidden)
    if wanted is None:
        return grid
    last = blocks[-1]
    parts = [
        last.mix_channels(grid[0, rows][wanted[rows]], hidden[0][wanted[rows]])
        for rows, hidden in _hidden(last, grid, padded)
    ]
    return torch.cat(parts)


def _hidden(block: ContextBlock, grid: Tensor, padded: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """What a block's depthwise convolution says, band by band.

    Args:
        block: A converted one.
        grid: ``(1, H, W, C)``; what was yielded may be overwritten.
        padded: Room for ``(1, H + 2, W + 2, C)``, zeros at the border.
    """
    _, height, width, channels = grid.shape
    for rows in bands(height, width * channels):
        seen = block.rectifier(block.expand(grid[:, rows]))
        torch.clamp(
            seen,
            -ACTIVATION_LIMIT,
            ACTIVATION_LIMIT,
            out=padded[:, rows.start + 1 : rows.stop + 1, 1:-1],
        )
    depthwise: Any = block.depthwise
    found: Iterator[tuple[slice, Tensor]] = depthwise.by_bands(padded)
    return found
