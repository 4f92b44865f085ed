"""What has to be known of a field of any size before its first block is coded, gathered part by part."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.field_payload import GROUP

Place = tuple[int, int, int]
"""Of a sample, along D, H and W."""


@dataclass
class SourceStatistics:
    """Statistics of the finite values of a field.

    Attributes:
        smallest: Of each component, ``(C,)``; infinity if nothing is finite.
        largest: Of the same; minus infinity if nothing is.
        counts: Finite values of each component.
        means: Of each component.
        squares: Sums of squared deviations from the means.
        places: Where the smallest and the largest value of each component are, ``(2, C, 3)``.

    Example:
        >>> found = SourceStatistics(1)
        >>> found.add(np.array([1.0, np.nan, 5.0]).reshape(1, 1, 1, 3), (0, 0, 8))
        >>> found.range, found.largest_place(0)
        (4.0, (0, 0, 8))
    """

    components: int
    smallest: NDArray[np.float64] = field(init=False)
    largest: NDArray[np.float64] = field(init=False)
    counts: NDArray[np.float64] = field(init=False)
    means: NDArray[np.float64] = field(init=False)
    squares: NDArray[np.float64] = field(init=False)
    places: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        """Nothing has been seen yet."""
        self.smallest = np.full(self.components, math.inf)
        self.largest = np.full(self.components, -math.inf)
        self.counts, self.means, self.squares = (np.zeros(self.components) for _ in range(3))
        self.places = np.zeros((2, self.components, 3), np.int64)

    def add(self, values: NDArray[Any], start: Place) -> None:
        """Takes in a part.

        Args:
            values: ``(C, d, h, w)``.
            start: Where its first sample is in the field.
        """
        finite = np.isfinite(values)
        if not finite.any():
            return
        exact = values.astype(np.float64)
        self._add_ends(np.where(finite, exact, math.inf), np.where(finite, exact, -math.inf), start)
        self._add_moments(np.where(finite, exact, 0.0), finite)

    def _add_ends(self, low: NDArray[np.float64], high: NDArray[np.float64], start: Place) -> None:
        shape, everything = low.shape[1:], np.arange(self.components)
        low, high = low.reshape(self.components, -1), high.reshape(self.components, -1)
        for number, (values, index) in enumerate(((low, low.argmin(1)), (high, high.argmax(1)))):
            found = values[everything, index]
            known = (self.smallest, self.largest)[number]
            better = found > known if number else found < known
            known[better] = found[better]
            self.places[number, better] = np.stack(np.unravel_index(index, shape), 1)[better] + start

    def _add_moments(self, exact: NDArray[np.float64], finite: NDArray[np.bool_]) -> None:
        """Chan, Golub and LeVeque's update of means and squares."""
        axes = (1, 2, 3)
        counts = finite.sum(axes).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            means = exact.sum(axes) / np.maximum(counts, 1)
            spread = exact - means[:, None, None, None]
            squares = np.square(np.where(finite, spread, 0.0)).sum(axes)
            total = np.maximum(self.counts + counts, 1)
            apart = means - self.means
            self.squares += squares + np.square(apart) * self.counts * counts / total
            self.means += apart * counts / total
        self.counts += counts

    @property
    def range(self) -> float:
        """Largest less smallest value; 0 if nothing is finite."""
        return max(0.0, float(self.largest.max() - self.smallest.min()))

    @property
    def scales(self) -> tuple[float, ...]:
        """Root mean squares of groups of three components about their means; 1 for what does not vary."""
        found = []
        for start in range(0, self.components, GROUP):
            count = float(self.counts[start : start + GROUP].sum())
            square = float(self.squares[start : start + GROUP].sum()) / max(count, 1.0)
            found.append(math.sqrt(square) or 1.0)
        return tuple(found)

    def largest_place(self, group: int) -> Place:
        """Where a group of three components is furthest from its means.

        Args:
            group: Its number.
        """
        part = slice(group * GROUP, (group + 1) * GROUP)
        apart = np.stack((self.means - self.smallest, self.largest - self.means))[:, part]
        end, component = np.unravel_index(int(apart.argmax()), apart.shape)
        d, h, w = self.places[:, part][end, component].tolist()
        return d, h, w
