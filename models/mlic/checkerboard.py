"""The checkerboard: half of all positions are anchors and coded first, the others see them as neighbours.

::

    A o A o        anchors (A): row + column even       both halves are stored densely, as
    o A o A                                             (B, h, ceil(w / 2), C), so that a layer
    A o A o                                             that runs on one half costs half

With an odd width one half has a position too many in every row; it is filled with zeros and belongs to no
position of the picture. Source of the idea: He et al., arXiv 2103.15306.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Halves(NamedTuple):
    """A map of positions, taken apart.

    Attributes:
        anchor: ``(B, h, ceil(w / 2), C)``.
        other: Same shape.
    """

    anchor: Tensor
    other: Tensor


def even_rows(height: int, device: torch.device | str = "cpu") -> Tensor:
    """Which rows begin with an anchor, boolean ``(height, 1, 1)``."""
    return (torch.arange(height, device=device) % 2 == 0)[:, None, None]


def split(x: Tensor) -> Halves:
    """Takes a map apart.

    Args:
        x: ``(B, h, w, C)``, any type.

    Example:
        >>> x = torch.arange(6).view(1, 2, 3, 1)
        >>> split(x).anchor[0, :, :, 0]
        tensor([[0, 2],
                [4, 0]])
    """
    batch, height, width, channels = x.shape
    if width % 2:
        x = F.pad(x, (0, 0, 0, 1))
    first, second = x.reshape(batch, height, (width + 1) // 2, 2, channels).unbind(3)
    even = even_rows(height, x.device)
    return Halves(torch.where(even, first, second), torch.where(even, second, first))


def merge(halves: Halves, width: int) -> Tensor:
    """Puts a map together again, the inverse of :func:`split`.

    Args:
        halves: Of the map.
        width: w.

    Returns:
        ``(B, h, w, C)``.

    Example:
        >>> x = torch.rand(2, 3, 5, 4)
        >>> torch.equal(merge(split(x), 5), x)
        True
    """
    anchor, other = halves
    batch, height, columns, channels = anchor.shape
    even = even_rows(height, anchor.device)
    pairs = torch.stack((torch.where(even, anchor, other), torch.where(even, other, anchor)), dim=3)
    return pairs.reshape(batch, height, 2 * columns, channels)[:, :, :width]


def window_offsets(radius: int) -> list[tuple[int, int]]:
    """Where the anchors of a square window are, seen from the position in its middle, which is none.

    Args:
        radius: Positions from the middle to the border of the window.

    Returns:
        Pairs (rows down, columns right) in raster order.

    Example:
        >>> window_offsets(1)
        [(-1, 0), (0, -1), (0, 1), (1, 0)]
    """
    reach = range(-radius, radius + 1)
    return [(dy, dx) for dy in reach for dx in reach if (dy + dx) % 2]


def anchors_around(anchor: Tensor, radius: int) -> Tensor:
    """The anchors in the window around every other position.

    Args:
        anchor: ``(B, h, columns, C)``.
        radius: Of the window, in positions.

    Returns:
        ``(B, h, columns, n, C)``, n in the order of :func:`window_offsets`; zeros outside the picture.
    """
    height, columns = anchor.shape[1:3]
    # A step of two columns in the picture is one in a half; odd steps need one more on either side.
    margin = (radius + 2) // 2
    padded = F.pad(anchor, (0, 0, margin, margin, radius, radius))
    even = even_rows(height, anchor.device)

    def moved(dy: int, columns_right: int) -> Tensor:
        top, left = radius + dy, margin + columns_right
        return padded[:, top : top + height, left : left + columns]

    found = []
    for dy, dx in window_offsets(radius):
        if dy % 2:
            found.append(moved(dy, dx // 2))
        else:
            # In an even row the position lies to the right of the anchor with its number, else to the left.
            found.append(torch.where(even, moved(dy, (dx + 1) // 2), moved(dy, (dx - 1) // 2)))
    return torch.stack(found, dim=3)


def anchors_inside(height: int, width: int, radius: int, device: torch.device | str = "cpu") -> Tensor:
    """Which of :func:`anchors_around` are positions of the picture.

    Returns:
        Boolean ``(height, ceil(width / 2), n)``.

    Example:
        >>> anchors_inside(1, 3, 1)[0, 0].tolist()  # the position (0, 1) has anchors at its sides
        [False, True, True, False]
    """
    ones = torch.ones((1, height, width, 1), device=device)
    return anchors_around(split(ones).anchor, radius)[0, ..., 0] > 0
