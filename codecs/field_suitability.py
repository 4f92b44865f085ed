"""Whether the networks of the field codec know a kind of field at all, tried on a piece of it.

Networks take three components for a velocity without divergence. Of others they may lose most, and a quality
would not say so: waves along their own axes come back as something far larger than they were. So a piece is
coded and decoded before a stream without a bound is given out. In blocks it is the same piece, so a field is
refused at once or in blocks alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.volume_coder import Axes

if TYPE_CHECKING:
    from latentpress.codecs.field_networks import RatioModel

PIECE = 32
"""Samples each way of a piece; smaller fields are tried as a whole."""

LARGEST_LOSS = 0.5
"""Share of the square that may be lost. Turbulence loses less than 0.01 at the smallest quality."""


def piece_around(
    place: Sequence[int], sizes: Sequence[int], periodic: Axes
) -> tuple[tuple[slice, ...], Axes]:
    """The piece of a field around a sample.

    Args:
        place: Of the sample, along D, H and W.
        sizes: Of the field.
        periodic: Axes of the field that continue at their far ends.

    Returns:
        Its samples along the axes, and which of them continue within the piece.

    Example:
        >>> piece_around((0, 50, 5), (1, 99, 32), (False, True, True))
        ((slice(0, 1, None), slice(34, 66, None), slice(0, 32, None)), (False, False, True))
    """
    cuts = []
    for index, size in zip(place, sizes, strict=True):
        start = max(0, min(index - PIECE // 2, size - PIECE))
        cuts.append(slice(start, min(start + PIECE, size)))
    first, second, third = (
        continues and size <= PIECE for continues, size in zip(periodic, sizes, strict=True)
    )
    return tuple(cuts), (first, second, third)


def lost_share(model: RatioModel, group: NDArray[np.float64], tenths: int, periodic: Axes) -> float:
    """Which share of its square a piece of a field loses, around the field's largest value.

    Args:
        model: The networks of a ratio.
        group: ``(3, D, H, W)`` of unit variance.
        tenths: Tenths of the quality.
        periodic: Axes that continue at their far ends.

    Returns:
        Squared error over the square of the piece or of the whole field, whichever is larger.
    """
    _, *place = np.unravel_index(int(np.abs(group).argmax()), group.shape)
    cuts, around = piece_around(list(map(int, place)), group.shape[1:], periodic)
    piece = group[(slice(None), *cuts)]
    _, depth, height, width = piece.shape
    data = model.encode(piece, tenths, around)
    decoded = model.decode(data, (depth, height, width), tenths, around, "faithful").cpu().numpy()
    return float(np.square(decoded - piece).mean()) / max(1.0, float(np.square(piece).mean()))


def check_suits(model: RatioModel, group: NDArray[np.float64], tenths: int, periodic: Axes) -> None:
    """Refuses a field of which too much would be lost.

    Args:
        model: The networks of a ratio.
        group: ``(3, D, H, W)`` of unit variance.
        tenths: Tenths of the quality.
        periodic: Axes that continue at their far ends.

    Raises:
        ValueError: It is one.
    """
    if lost_share(model, group, tenths, periodic) > LARGEST_LOSS:
        raise ValueError(
            "the networks do not suit this field, more than half of it would be lost: they take three "
            "components for a velocity without divergence; relative_error or max_error keep any field"
        )
