"""What the known pixels around others say of these: the context of their class, and a prediction.

Known pixels stand on a grid; what is asked for are its pixels of one *lattice*, those of certain parities. A
value of -1 in the padding means that there is no pixel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.alpha_tables import ACTIVITIES, SHARES

Values = NDArray[np.int32]

PHASES = (((1, 1),), ((0, 1), (1, 0)))
"""Parities (row, column) of the lattices that are filled in each phase."""

PAD = 3
OUTSIDE = -1

# Offsets (row, column) of known pixels on the grid, by phase. Of the four nearest the first and the last are
# opposite each other, and so are the two in the middle.
_NEAREST = (
    ((-1, -1), (-1, 1), (1, -1), (1, 1)),
    ((-1, 0), (0, -1), (0, 1), (1, 0)),
)
_NEXT = (
    ((-3, -1), (-3, 1), (-1, -3), (-1, 3), (1, -3), (1, 3), (3, -1), (3, 1)),
    ((-2, -1), (-2, 1), (-1, -2), (-1, 2), (1, -2), (1, 2), (2, -1), (2, 1)),
)


class Surroundings(NamedTuple):
    """What is known of n pixels.

    Attributes:
        context: ``(n,)`` of the class, in [0, CLASS_CONTEXTS).
        prediction: ``(n,)`` of the value, from 1 to one less than the top.
        activity: ``(n,)``, in [0, top]: how much the neighbours differ that the prediction is made of.
    """

    context: Values
    prediction: Values
    activity: Values


def surroundings(grid: Values, phase: int, top: int) -> Surroundings:
    """Looks around the pixels of a phase.

    Args:
        grid: ``(h, w)``, known except for the pixels of this phase and, in the first, of the second.
        phase: 0 or 1.
        top: Value of opaque pixels.

    Returns:
        Of all pixels of the phase, lattice after lattice, each in raster order.

    Example:
        >>> grid = np.array([[10, 0, 30], [0, 0, 0], [50, 0, 70]], np.int32)
        >>> surroundings(grid, phase=0, top=255).prediction.tolist()
        [40]
    """
    padded = np.pad(grid, PAD, constant_values=OUTSIDE)
    parts = []
    for lattice in PHASES[phase]:
        nearest, following = (
            [_shifted(padded, lattice, offset) for offset in offsets]
            for offsets in (_NEAREST[phase], _NEXT[phase])
        )
        near, far = (_Sums.of(planes, top) for planes in (nearest, following))
        parts.append(Surroundings(_context(near, far, top), *_predict(nearest, near, top)))
    return Surroundings(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def activity_class(activity: Values) -> Values:
    """Number of bits of each activity, at most that of the last context."""
    bits = np.searchsorted(1 << np.arange(ACTIVITIES - 1), activity, side="right")
    return bits.astype(np.int32)


def _shifted(padded: Values, lattice: tuple[int, int], offset: tuple[int, int]) -> Values:
    """For every pixel of a lattice the one at an offset from it."""
    top, left = (PAD + parity + step for parity, step in zip(lattice, offset, strict=True))
    bottom, right = (size - PAD + step for size, step in zip(padded.shape, offset, strict=True))
    return padded[top:bottom:2, left:right:2].ravel()


def _context(near: _Sums, far: _Sums, top: int) -> Values:
    # Sixteen times a value. Where all twelve are there the nearest count six and the next minus one, which
    # follows edges and curves more closely than a mean.
    value = np.where(
        (near.there == len(_NEAREST[0])) & (far.there == len(_NEXT[0])),
        6 * near.total - far.total,
        16 * near.total // near.there,
    )
    share = 1 + np.clip((value + 4 * top) * SHARES // (24 * top), 0, SHARES - 1)
    total, most = near.total + far.total, (near.there + far.there) * top
    share = np.where(total == 0, 0, np.where(total == most, SHARES + 1, share))
    degree = np.where(near.between > 0, np.minimum(near.between, 3) + 1, np.minimum(far.between, 1))
    return (degree * (SHARES + 2) + share).astype(np.int32)


def _predict(nearest: list[Values], near: _Sums, top: int) -> tuple[Values, Values]:
    first, second, third, fourth = nearest
    whole = near.there == len(nearest)
    mean = (2 * near.total + near.there) // (2 * near.there)
    highest = np.maximum.reduce(nearest)
    lowest = np.minimum.reduce([np.where(plane == OUTSIDE, top, plane) for plane in nearest])
    along, across = np.abs(first - fourth), np.abs(second - third)
    # Where one pair of opposite neighbours differs much less than the other, an edge runs along it.
    follow_first, follow_second = whole & (2 * along < across), whole & (2 * across < along)
    prediction = np.where(
        follow_first, (first + fourth + 1) >> 1, np.where(follow_second, (second + third + 1) >> 1, mean)
    )
    activity = np.where(
        follow_first,
        along + (across >> 2),
        np.where(follow_second, across + (along >> 2), highest - lowest),
    )
    return np.clip(prediction, 1, top - 1).astype(np.int32), activity.astype(np.int32)


class _Sums(NamedTuple):
    """Sums over some neighbours, those that there are."""

    total: Values
    there: Values
    between: Values

    @classmethod
    def of(cls, planes: list[Values], top: int) -> _Sums:
        total, there, between = (np.zeros_like(planes[0]) for _ in range(3))
        for plane in planes:
            inside = plane != OUTSIDE
            total += np.where(inside, plane, 0)
            there += inside
            between += (plane > 0) & (plane < top)
        return cls(total, there, between)
