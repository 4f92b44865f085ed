"""Division of an array of three axes into blocks, and which indexes of it are meant. No torch here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

POSITION = 8
"""Samples of a field for a position of its latent, each way."""


class Block(NamedTuple):
    """One block of a field.

    Attributes:
        number: In raster order.
        start: First sample along D, H and W.
        stop: Behind the last sample.
    """

    number: int
    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Samples along D, H and W."""
        d, h, w = (stop - start for start, stop in zip(self.start, self.stop, strict=True))
        return d, h, w

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Its samples in the field, along D, H and W."""
        d, h, w = (slice(start, stop) for start, stop in zip(self.start, self.stop, strict=True))
        return d, h, w


@dataclass(frozen=True)
class BlockGrid:
    """How a field is divided.

    Attributes:
        shape: D, H, W of the field.
        sides: Of a block; the last along an axis may be shorter.

    Example:
        >>> grid = BlockGrid((1, 20, 16), (8, 16, 16))
        >>> grid.counts, [block.shape for block in grid]
        ((1, 2, 1), [(1, 16, 16), (1, 4, 16)])
    """

    shape: tuple[int, int, int]
    sides: tuple[int, int, int]

    @property
    def counts(self) -> tuple[int, int, int]:
        """Blocks along D, H and W."""
        d, h, w = (-(-size // side) for size, side in zip(self.shape, self.sides, strict=True))
        return d, h, w

    def __len__(self) -> int:
        """Number of blocks."""
        return math.prod(self.counts)

    def __getitem__(self, number: int) -> Block:
        """A block by its number in raster order."""
        if not 0 <= number < len(self):
            raise IndexError(f"there are {len(self)} blocks, not one of number {number}")
        _, rows, columns = self.counts
        place = (number // (rows * columns), number // columns % rows, number % columns)
        i, j, k = (index * side for index, side in zip(place, self.sides, strict=True))
        start = (i, j, k)
        d, h, w = (
            min(first + side, size) for first, side, size in zip(start, self.sides, self.shape, strict=True)
        )
        return Block(number, start, (d, h, w))

    def __iter__(self) -> Iterator[Block]:
        """All blocks in raster order."""
        return (self[number] for number in range(len(self)))

    def touching(self, start: tuple[int, ...], stop: tuple[int, ...]) -> Iterator[Block]:
        """Blocks that have samples of a box, in raster order.

        Args:
            start: First sample along D, H and W.
            stop: Behind the last.
        """
        ranges = [
            range(first // side, -(-last // side))
            for first, last, side in zip(start, stop, self.sides, strict=True)
        ]
        _, rows, columns = self.counts
        for i in ranges[0]:
            for j in ranges[1]:
                for k in ranges[2]:
                    yield self[(i * rows + j) * columns + k]


def latent_positions(
    block: Block, halo: int, shape: tuple[int, int, int], periodic: tuple[bool, bool, bool]
) -> tuple[tuple[NDArray[np.int64], ...], tuple[slice, ...]]:
    """Latent positions that a block's samples depend on, and where the samples are in what these make."""
    positions, inner = [], []
    for start, stop, size, wraps in zip(block.start, block.stop, shape, periodic, strict=True):
        count = -(-size // POSITION)
        first, last = start // POSITION - halo, -(-stop // POSITION) + halo
        if not wraps:
            first, last = max(0, first), min(count, last)
        positions.append(np.arange(first, last) % count)
        inner.append(slice(start - first * POSITION, stop - first * POSITION))
    return tuple(positions), tuple(inner)


def index_spans(key: Any, shape: tuple[int, ...]) -> tuple[list[range], list[bool]]:
    """Indexes along every axis, and which axes an integer removes."""
    keys = list(key) if isinstance(key, tuple) else [key]
    if Ellipsis in keys:
        place = keys.index(Ellipsis)
        keys[place : place + 1] = [slice(None)] * (len(shape) - len(keys) + 1)
    keys += [slice(None)] * (len(shape) - len(keys))
    if len(keys) != len(shape):
        raise IndexError(f"a field of {len(shape)} axes has no index {key}")
    spans, reduced = [], []
    for one, size in zip(keys, shape, strict=True):
        if isinstance(one, slice):
            spans.append(range(size)[one])
        elif isinstance(one, (int, np.integer)) and -size <= one < size:
            spans.append(range(int(one) % size, int(one) % size + 1))
        else:
            raise IndexError(f"index {one} does not fit an axis of {size}")
        reduced.append(not isinstance(one, slice))
    return spans, reduced
