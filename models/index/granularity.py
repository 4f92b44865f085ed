"""Granularity: which parts of a picture get few indices and which get many.

A picture is divided into *cells* of 16x16 pixels. A coarse cell has one index. A split cell has four
*quarters* of 8x8 pixels, each with one index (medium) or with four (fine, one for every 4x4 pixels). The
three granularities and the router by local entropy are those of Control-GIC (arXiv 2406.00758, section 3.2),
except that every picture is divided by itself, not a whole batch together.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

CELL = 16
"""Side of a cell, in pixels."""

QUARTER = 8
"""Side of a quarter of a cell, in pixels."""

FINE = 4
"""Side of what a fine index stands for, in pixels."""

HISTOGRAM_BINS = 32


class GrainMap(NamedTuple):
    """The granularity of every part of a picture.

    Attributes:
        split: ``(B, h, w)`` bool, a cell each: False where coarse.
        fine: ``(B, 2h, 2w)`` bool, a quarter each: True where fine; False in coarse cells.
    """

    split: Tensor
    fine: Tensor

    def coarse_mask(self) -> Tensor:
        """Where there is a coarse index, ``(B, h, w)`` bool."""
        return ~self.split

    def medium_mask(self) -> Tensor:
        """Where there is a medium index, ``(B, 2h, 2w)`` bool."""
        return repeat_positions(self.split, 2) & ~self.fine

    def fine_mask(self) -> Tensor:
        """Where there is a fine index, ``(B, 4h, 4w)`` bool."""
        return repeat_positions(self.fine, 2)


def uniform_maps(rows: int, columns: int, device: torch.device | str) -> tuple[GrainMap, GrainMap, GrainMap]:
    """Maps of one picture that is coarse, medium and fine everywhere.

    Args:
        rows: Of cells.
        columns: Of cells.
        device: Where they are.

    Example:
        >>> [bool(grains.fine.any()) for grains in uniform_maps(1, 2, "cpu")]
        [False, False, True]
    """

    def grains(split: bool, fine: bool) -> GrainMap:
        return GrainMap(
            torch.full((1, rows, columns), split, device=device),
            torch.full((1, 2 * rows, 2 * columns), fine, device=device),
        )

    return grains(False, False), grains(True, False), grains(True, True)


def repeat_positions(x: Tensor, factor: int) -> Tensor:
    """Repeats every position ``factor`` times each way.

    Args:
        x: ``(B, H, W)`` or ``(B, H, W, C)``.
        factor: How often.

    Example:
        >>> repeat_positions(torch.tensor([[[1, 2]]]), 2).tolist()
        [[[1, 1, 2, 2], [1, 1, 2, 2]]]
    """
    b, h, w, *rest = x.shape
    x = x.view(b, h, 1, w, 1, *rest).expand(b, h, factor, w, factor, *rest)
    return x.reshape(b, h * factor, w * factor, *rest)


def patch_histograms(image: Tensor) -> Tensor:
    """Grey-level histograms of all quarters, every pixel shared between its two nearest bins.

    Args:
        image: ``(B, H, W, 3)`` in [0, 1], H and W multiples of 16.

    Returns:
        Pixel counts, ``(B, H/8, W/8, 32)``, float32.
    """
    b, height, width, _ = image.shape
    red, green, blue = image.float().unbind(-1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    position = luma.clamp(0, 1) * (HISTOGRAM_BINS - 1)
    lower = position.floor().clamp(max=HISTOGRAM_BINS - 2)
    share = position - lower
    rows, columns = height // QUARTER, width // QUARTER
    patch = torch.arange(b * rows * columns, device=image.device).view(b, rows, columns)
    slot = repeat_positions(patch, QUARTER) * HISTOGRAM_BINS + lower.long()
    counts = torch.zeros(b * rows * columns * HISTOGRAM_BINS, device=image.device)
    counts.scatter_add_(0, slot.flatten(), (1 - share).flatten())
    counts.scatter_add_(0, slot.flatten() + 1, share.flatten())
    return counts.view(b, rows, columns, HISTOGRAM_BINS)


def histogram_entropy(counts: Tensor) -> Tensor:
    """Entropy in bits of histograms ``(..., bins)``."""
    p = counts / counts.sum(dim=-1, keepdim=True)
    return -(p * torch.log2(p.clamp(min=1e-9))).sum(dim=-1)


class GrainScores(NamedTuple):
    """What a router goes by: the larger the score, the finer.

    Attributes:
        cells: ``(B, h, w)``, such as the local entropy in bits.
        quarters: ``(B, 2h, 2w)``.
    """

    cells: Tensor
    quarters: Tensor


def patch_entropy(image: Tensor) -> GrainScores:
    """Entropy of the grey levels in every cell and every quarter.

    Args:
        image: ``(B, H, W, 3)`` in [0, 1], H and W multiples of 16.

    Example:
        >>> patch_entropy(torch.full((1, 16, 32, 3), 0.5)).cells.shape
        torch.Size([1, 1, 2])
    """
    quarters = patch_histograms(image)
    b, rows, columns, bins = quarters.shape
    cells = quarters.view(b, rows // 2, 2, columns // 2, 2, bins).sum(dim=(2, 4))
    return GrainScores(histogram_entropy(cells), histogram_entropy(quarters))


def routing_scores(image: Tensor) -> GrainScores:
    """What the router goes by: local entropy, made coherent so that the map is cheap to code.

    Quarters take half of their cell's entropy into account, and everything half of the mean around it. Maps
    of Kodak's pictures cost a quarter less than with entropies alone (docs/index-codecs.md).

    Args:
        image: ``(B, H, W, 3)`` in [0, 1], H and W multiples of 16.
    """
    found = patch_entropy(image)
    quarters = found.quarters + 0.5 * repeat_positions(found.cells, 2)
    return GrainScores(_coherent(found.cells), _coherent(quarters))


def _coherent(scores: Tensor) -> Tensor:
    padded = F.pad(scores[:, None], (1, 1, 1, 1), mode="replicate")
    return 0.5 * scores + 0.5 * F.avg_pool2d(padded, 3, 1)[:, 0]


def _largest(scores: Tensor, count: Tensor) -> Tensor:
    """Marks the ``count`` largest scores of every row; the first ones among equals."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order)
    places = torch.arange(scores.shape[1], device=scores.device).expand_as(order)
    rank.scatter_(1, order, places)
    return rank < count[:, None]


def route(scores: GrainScores, split_fraction: Tensor, fine_fraction: Tensor) -> GrainMap:
    """Splits the cells with the largest scores, then refines the quarters with the largest.

    Args:
        scores: Of every cell and quarter; larger means finer.
        split_fraction: ``(B,)`` in [0, 1], the part of the cells that is split.
        fine_fraction: ``(B,)`` in [0, 1], the part of the split cells' quarters that is fine.

    Example:
        >>> scores = GrainScores(torch.tensor([[[1.0, 2.0]]]), torch.rand(1, 2, 4))
        >>> route(scores, torch.tensor([0.5]), torch.tensor([0.25])).split.tolist()
        [[[False, True]]]
    """
    b, h, w = scores.cells.shape
    splits = (split_fraction * (h * w)).round()
    split = _largest(scores.cells.reshape(b, -1), splits).view(b, h, w)
    quarters = scores.quarters.masked_fill(~repeat_positions(split, 2), -math.inf)
    fine = _largest(quarters.reshape(b, -1), (fine_fraction * 4 * splits).round()).view(b, 2 * h, 2 * w)
    return GrainMap(split, fine & repeat_positions(split, 2))


def fractions_of_detail(detail: Tensor) -> tuple[Tensor, Tensor]:
    """The path from all coarse to all fine that the codec's qualities and rate control follow.

    Args:
        detail: In [0, 1], any shape.

    Returns:
        Split fraction and fine fraction for :func:`route`.

    Example:
        >>> fractions_of_detail(torch.tensor([0.0, 0.5, 1.0]))
        (tensor([0.0000, 0.5000, 1.0000]), tensor([0.0000, 0.2500, 1.0000]))
    """
    return detail, detail.square()
