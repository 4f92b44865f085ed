"""Frequency tables of the alpha coder: counts of what was coded, in integers only."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream import TableSet
from latentpress.codecs.bitstream.tables import TOTAL

UNIT = 64
"""What a coded symbol adds to its count; counts that nothing was coded for yet are a few units or less."""

CLASSES = 3
"""Transparent, between, opaque."""

SHARES = 14
"""Bins of how opaque the surroundings are; two more are for those that are so, or transparent, all over."""

DEGREES = 5
"""Of how many known neighbours are between transparent and opaque."""

CLASS_CONTEXTS = DEGREES * (SHARES + 2)

ACTIVITIES = 17
"""Contexts of differences: numbers of bits of the activity."""

LARGEST_SLOT = 128
"""A difference, shifted, has a slot from -128 to 127; others are escapes."""

# Share of pixels between transparent and opaque, in 256ths, that is assumed by degree.
_BETWEEN_SHARES = (5, 26, 77, 154, 205)
_ASSUMED = 2 * UNIT


class AdaptiveTables:
    """Tables that follow what was coded with them.

    Args:
        counts: ``(K, n)``, non-negative; the last column is the escape slot.
        minimum: Symbol of the first slot.

    Example:
        >>> adaptive = AdaptiveTables(np.array([[1, 1, 0]]), minimum=-1)
        >>> adaptive.tables().table(0).tolist()
        [8388608, 8388607, 1]
        >>> adaptive.count(np.array([0]), np.array([-1]))
        >>> int(adaptive.tables().table(0)[0]) > 2**24 * 64 // 66
        True
    """

    def __init__(self, counts: NDArray[np.int64], minimum: int) -> None:
        self._counts = counts.astype(np.int64)
        self._minimum = minimum

    def tables(self) -> TableSet:
        """The tables by the counts so far."""
        contexts, slots = self._counts.shape
        totals = self._counts.sum(axis=1, keepdims=True)
        frequencies = 1 + self._counts * (TOTAL - slots) // totals
        # What rounding left goes to the slot that misses it least.
        rest = TOTAL - frequencies.sum(axis=1)
        frequencies[np.arange(contexts), frequencies.argmax(axis=1)] += rest
        return TableSet(
            frequencies.ravel(),
            np.full(contexts, slots, np.int32),
            np.full(contexts, self._minimum, np.int32),
        )

    def count(self, contexts: NDArray[Any], symbols: NDArray[Any]) -> None:
        """Counts symbols that were coded; those without a slot count for the escape."""
        width = self._counts.shape[1]
        slots = symbols.astype(np.int64) - self._minimum
        slots[(slots < 0) | (slots >= width)] = width - 1
        found = np.bincount(contexts.astype(np.int64) * width + slots, minlength=self._counts.size)
        self._counts += UNIT * found.reshape(self._counts.shape)


def class_tables() -> AdaptiveTables:
    """Tables of the classes before anything is coded: for each phase one for every context.

    What is assumed is two pixels a context, shared out by how opaque the surroundings are.
    """
    share = np.arange(SHARES + 2)
    opaque, transparent = share**2, (SHARES + 1 - share) ** 2
    counts = []
    for between in _BETWEEN_SHARES:
        sure = _ASSUMED * (256 - between)
        whole = 256 * (opaque + transparent)
        row = [
            1 + sure * transparent // whole,
            np.full_like(share, 1 + _ASSUMED * between // 256),
            1 + sure * opaque // whole,
            np.zeros_like(share),
        ]
        counts.append(np.stack(row, axis=1))
    phase = np.concatenate(counts)
    return AdaptiveTables(np.concatenate([phase, phase]), minimum=0)


def difference_tables(most: int) -> AdaptiveTables:
    """Tables of the differences before anything is coded, one for every activity.

    Args:
        most: The largest magnitude that a difference can have; larger ones get the smallest frequencies.
    """
    size = np.abs(np.arange(-LARGEST_SLOT, LARGEST_SLOT))
    rows = []
    for activity in range(ACTIVITIES):
        halvings = np.minimum(2 * size >> max(activity - 1, 0), 6)
        counts = 1 + (UNIT // 2 >> halvings)
        counts[size > max(most >> shift_of(activity), 1)] = 0
        rows.append(np.append(counts, 1))
    return AdaptiveTables(np.stack(rows), minimum=-LARGEST_SLOT)


def shift_of(activity: int) -> int:
    """Lowest bits of a difference that are coded as they are: some where it varies too much for a table.

    Example:
        >>> [shift_of(activity) for activity in (0, 8, 9, 16)]
        [0, 0, 1, 8]
    """
    return max(activity - 8, 0)


@cache
def low_bits_tables() -> TableSet:
    """Tables of the lowest bits: number k is even over ``2**(k + 1)`` symbols."""
    sizes = [1 << bits for bits in range(1, shift_of(ACTIVITIES - 1) + 1)]
    rows = [(TOTAL - 1) // size + (np.arange(size) < (TOTAL - 1) % size) for size in sizes]
    frequencies = np.concatenate([np.append(row, 1) for row in rows])
    return TableSet(frequencies, np.array(sizes) + 1, np.zeros(len(sizes), np.int32))
