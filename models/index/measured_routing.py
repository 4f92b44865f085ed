"""Which cells to split, by what that does to the decoded picture instead of by what the picture looks like.

The router of Control-GIC (arXiv 2406.00758) goes by local entropy. An encoder that has the time decodes the
picture three times, all coarse, all medium and all fine, and sees where finer indices lessen the distortion
and where they only cost bits::

    decoded coarse, medium, fine -> local distortions -> critical prices of splits and refinements -> map

A price is the distortion that a bit must save to be worth it. Every cell has one up to which it is split and
every quarter one up to which it is fine, so maps at falling prices only ever get finer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from latentpress.models.index.granularity import GrainMap, GrainScores, repeat_positions, uniform_maps

COARSE_BITS = 6.8
"""What a coarse index costs with the shipped prior, in the mean over Kodak's pictures."""

MEDIUM_BITS = 7.0
"""What the index of a medium quarter costs."""

FINE_BITS = 22.0
"""What the four indices of a fine quarter cost."""

_SEARCH_STEPS = 40


class GrainDistortions(NamedTuple):
    """Distortion of every quarter of a cell, if the picture is decoded with one granularity everywhere.

    Attributes:
        coarse: ``(B, 2h, 2w)``.
        medium: The same shape.
        fine: The same shape.
    """

    coarse: Tensor
    medium: Tensor
    fine: Tensor


def critical_prices(distortions: GrainDistortions) -> GrainScores:
    """Prices up to which cells are split and quarters fine, in the place of their entropies.

    Below its price, a cell's distortion plus the price of its bits is smaller split than coarse, with the
    best choice for its quarters.

    Example:
        >>> one = torch.ones(1, 2, 2)
        >>> found = critical_prices(GrainDistortions(5 * one, 4 * one, 3 * one))
        >>> round(float(found.cells), 4), round((20 - 16) / (28 - 6.8), 4)
        (0.1887, 0.1887)
    """
    refined = (distortions.medium - distortions.fine) / (FINE_BITS - MEDIUM_BITS)
    coarse = _quarters(distortions.coarse).sum(-1)
    medium, fine = _quarters(distortions.medium), _quarters(distortions.fine)
    # The largest distortion that bits can save, per bit, when the k most worthwhile quarters are fine. The
    # minimum over choices is a minimum of lines, whose last crossing is the largest of all crossings.
    order = (medium - fine).argsort(dim=-1, descending=True)
    saved = (medium - fine).gather(-1, order).cumsum(-1)
    saved = torch.cat((torch.zeros_like(saved[..., :1]), saved), dim=-1)
    count = torch.arange(5, device=saved.device, dtype=saved.dtype)
    bits = count * FINE_BITS + (4 - count) * MEDIUM_BITS - COARSE_BITS
    cells = ((coarse - medium.sum(-1))[..., None] + saved) / bits
    return GrainScores(cells.amax(-1), refined)


def index_bits(split: Tensor, fine: Tensor, cells: int) -> Tensor:
    """About how many bits indices cost.

    Args:
        split: How many cells are split, any shape.
        fine: How many quarters are fine, the same shape.
        cells: How many cells there are.
    """
    split, fine = split.double(), fine.double()
    return (cells - split) * COARSE_BITS + (4 * split - fine) * MEDIUM_BITS + fine * FINE_BITS


def route_by_price(prices: GrainScores, split_fraction: float, fine_fraction: float) -> GrainMap:
    """The map of one price whose indices cost about as much as those of :func:`route` with these fractions.

    Args:
        prices: Of one picture, see :func:`critical_prices`.
        split_fraction: In [0, 1].
        fine_fraction: In [0, 1].

    Example:
        >>> prices = GrainScores(torch.tensor([[[1.0, 2.0]]]), torch.rand(1, 2, 4))
        >>> route_by_price(prices, 0.5, 0.0).split.tolist()
        [[[False, True]]]
    """
    total = prices.cells.numel()
    wanted = torch.tensor([round(split_fraction * total)], dtype=torch.float64)
    bits = float(index_bits(wanted, (fine_fraction * 4 * wanted).round(), total))
    if split_fraction >= 1 and fine_fraction >= 1:
        _, rows, columns = prices.cells.shape
        return uniform_maps(rows, columns, prices.cells.device)[2]
    every = torch.cat((prices.cells.flatten(), prices.quarters.flatten()))
    low, high = float(every.min()) - 1e-9, float(every.max())
    best = _map_of_price(prices, high)
    for _ in range(_SEARCH_STEPS):
        price = (low + high) / 2
        grains = _map_of_price(prices, price)
        if float(index_bits(grains.split.sum(), grains.fine.sum(), total)) > bits:
            low = price
        else:
            high, best = price, grains
    return best


def _map_of_price(prices: GrainScores, price: float) -> GrainMap:
    split = prices.cells > price
    return GrainMap(split, (prices.quarters > price) & repeat_positions(split, 2))


def _quarters(x: Tensor) -> Tensor:
    """The four quarters of every cell, ``(B, 2h, 2w)`` to ``(B, h, w, 4)``."""
    return x.unflatten(1, (-1, 2)).unflatten(3, (-1, 2)).permute(0, 1, 3, 2, 4).flatten(-2)
