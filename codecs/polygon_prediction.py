"""Where the next corner of a mesh is likely to be: a distribution over the nodes of a grid, in integers only.

A gate is an edge a -> b of a known triangle with the third corner o, behind which another triangle follows.
Its third corner is expected about where a parallelogram would have it, and the spread differs along the edge,
across it and out of the plane. A Student distribution in three dimensions says so; its coordinates are coded
one after the other, each given those before::

    a, b, o -> Gate: mean, 3 x 3 spread -> row for x -> x -> mean and spread given x -> row for y -> ...

All numbers are Python's integers, which have no limit, and divisions round downwards: every machine gets the
same rows. The way of predicting is that of Touma and Gotsman (1998), the spread is our own.
"""

from __future__ import annotations

from math import isqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.polygon_tables import (
    ACROSS_LENGTH,
    ACROSS_SHARE,
    ACROSS_SIZE,
    ALONG_SHARE,
    EXPERT_TRUST,
    EXPERTS,
    FREEDOM,
    HABIT_PRIOR,
    PRIOR_SPREADS,
    PRIOR_WEIGHT,
    RISE,
    ROUNDING_SPREAD,
    UNIFORM_WEIGHT,
)

Point = tuple[int, int, int]
"""A node of the grid, or a vector between nodes."""

FRACTION = 256
"""Parts of a grid step that means are told in."""

SHARE = 4096
"""Unit of factors."""

_LARGEST_RATIO = 4 * SHARE
_FARTHEST = (1 << 31) + (1 << 18)


def difference(a: Point, b: Point) -> Point:
    """The vector from b to a."""
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def dot(a: Point, b: Point) -> int:
    """Scalar product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: Point, b: Point) -> Point:
    """Vector product."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


class Prediction(NamedTuple):
    """A Student distribution of a corner.

    Attributes:
        mean: In parts of :data:`FRACTION`.
        spread: The upper triangle of the scale matrix, xx, xy, xz, yy, yz, zz, in parts squared.
    """

    mean: Point
    spread: tuple[int, int, int, int, int, int]


def around(place: Point, variance: int) -> Prediction:
    """The same spread in all directions.

    Args:
        place: A node.
        variance: In grid steps squared.
    """
    wide = variance * FRACTION * FRACTION + ROUNDING_SPREAD
    x, y, z = place
    return Prediction((x * FRACTION, y * FRACTION, z * FRACTION), (wide, 0, 0, wide, 0, wide))


class Gate:
    """The prediction behind an edge.

    Args:
        a: Where the edge begins.
        b: Where it ends.
        o: The third corner of the triangle that is known.

    Attributes:
        size: Square of the size that everything is relative to, in parts of :data:`FRACTION` squared.
    """

    def __init__(self, a: Point, b: Point, o: Point) -> None:
        edge = difference(b, a)
        length2 = max(dot(edge, edge), 1)
        # Twice the vector from o to the middle, and its part across the edge.
        away = (a[0] + b[0] - 2 * o[0], a[1] + b[1] - 2 * o[1], a[2] + b[2] - 2 * o[2])
        along = dot(away, edge) * FRACTION // (2 * length2)
        across = tuple(FRACTION * w // 2 - along * e for w, e in zip(away, edge, strict=True))
        self._edge = (edge[0] * FRACTION, edge[1] * FRACTION, edge[2] * FRACTION)
        self._across: Point = (across[0], across[1], across[2])
        self._length2 = length2 * FRACTION * FRACTION
        self._across2 = max(dot(self._across, self._across), 1)
        self._normal = cross(self._across, self._edge)
        self._normal2 = max(dot(self._normal, self._normal), 1)
        self._along = along
        self._twice_middle = (a[0] + b[0], a[1] + b[1], a[2] + b[2])
        self.size = (3 * self._length2 + 5 * self._across2) // 8

    def mean(self, rise: int) -> Point:
        """Where the corner is expected, in parts of :data:`FRACTION`.

        Args:
            rise: Out of the plane, in parts of :data:`SHARE` of the size.
        """
        ratio = min(isqrt(self._length2 * SHARE * SHARE // self._across2), _LARGEST_RATIO)
        size = isqrt(self.size * SHARE * SHARE // self._across2)
        across = ACROSS_SHARE + (ACROSS_LENGTH * ratio - ACROSS_SIZE * size) // SHARE
        along = ALONG_SHARE * self._along // FRACTION
        out = rise * isqrt(self.size * SHARE * SHARE // self._normal2)
        x, y, z = (
            FRACTION * m // 2 + (along * e + across * t) // SHARE + out * n // (SHARE * SHARE)
            for m, e, t, n in zip(self._twice_middle, self._edge, self._across, self._normal, strict=True)
        )
        return x, y, z

    def parts(self, vector: Point) -> Point:
        """Squared shares of a vector in the three directions of a gate, in :data:`SHARE` of the size."""
        directions = (
            (self._edge, self._length2),
            (self._across, self._across2),
            (self._normal, self._normal2),
        )
        x, y, z = (dot(vector, d) ** 2 * SHARE // (norm * self.size) for d, norm in directions)
        return x, y, z

    def height(self, vector: Point) -> int:
        """How far a vector leads out of the plane, in :data:`SHARE` of the size's root."""
        return dot(vector, self._normal) * SHARE // isqrt(self._normal2 * self.size)

    def predictions(self, spreads: Point, rise: int) -> list[Prediction]:
        """Distributions of the corner, by every expert."""
        along, across, out = spreads
        return [
            self.prediction((along * e // 64, across * t // 64, out * n // 64), rise) for e, t, n in EXPERTS
        ]

    def prediction(self, spreads: Point, rise: int) -> Prediction:
        """A distribution of the corner.

        Args:
            spreads: Variances along the edge, across it and out of the plane, in :data:`SHARE` of the size.
            rise: See :meth:`mean`.
        """
        e, t, n = self._edge, self._across, self._normal
        first, second, third = (s * self.size // SHARE for s in spreads)

        def entry(i: int, j: int) -> int:
            return (
                first * e[i] * e[j] // self._length2
                + second * t[i] * t[j] // self._across2
                + third * n[i] * n[j] // self._normal2
                + (ROUNDING_SPREAD if i == j else 0)
            )

        spread = entry(0, 0), entry(0, 1), entry(0, 2), entry(1, 1), entry(1, 2), entry(2, 2)
        return Prediction(self.mean(rise), spread)


class Spreads:
    """Variances that follow the mesh, beginning with what meshes have in the mean."""

    def __init__(self) -> None:
        self._sums = [PRIOR_WEIGHT * s for s in PRIOR_SPREADS]
        self._rises = PRIOR_WEIGHT * RISE
        self._weight = PRIOR_WEIGHT
        self.trust = [t << 20 for t in EXPERT_TRUST]

    def believe(self, trust: list[int]) -> None:
        """Learns from what the experts said of a corner."""
        self.trust = [a + b for a, b in zip(self.trust, trust, strict=True)]

    @property
    def values(self) -> Point:
        """Along an edge, across it and out of the plane."""
        x, y, z = (s // self._weight for s in self._sums)
        return x, y, z

    @property
    def rise(self) -> int:
        """The mean height out of the plane."""
        return self._rises // self._weight

    def count(self, gate: Gate, corner: Point) -> None:
        """Learns from a corner that is known now."""
        mean = gate.mean(self.rise)
        flat = gate.mean(0)
        place = (corner[0] * FRACTION, corner[1] * FRACTION, corner[2] * FRACTION)
        found = gate.parts(difference(place, mean))
        limits = self.values
        height = gate.height(difference(place, flat))
        for k in range(3):
            # One far away must not spoil the rest.
            self._sums[k] += min(found[k], 6 * limits[k])
        self._rises += max(-SHARE, min(SHARE, height))
        self._weight += 1


def student_row(nodes: NDArray[np.int64], mean: int, spread: int) -> NDArray[np.int64]:
    """Weights of values by a Student distribution of seven degrees of freedom, their sum about 2^24.

    Args:
        nodes: The values, in parts of :data:`FRACTION`, below 2^24.
        mean: In parts.
        spread: Squared scale, in parts squared.
    """
    wide = np.int64(min(FREEDOM * spread, 1 << 47))
    # Further away everything is as unlikely, and squares would not fit.
    away = nodes - np.int64(max(-_FARTHEST, min(mean, _FARTHEST)))
    share = (wide << 15) // (wide + away * away)
    half = share * share >> 15
    found = half * half
    return found * (1 << 24) // max(int(found.sum()), 1) + 1


def mixed(rows: list[NDArray[np.int64]], trust: list[int]) -> NDArray[np.int64]:
    """One row of several, each weighing as much as it is trusted."""
    whole = sum(trust)
    found = np.zeros_like(rows[0])
    for row, t in zip(rows, trust, strict=True):
        found += row * (t * 4096 // whole)
    return (found >> 12) + UNIFORM_WEIGHT


def trusted(rows: list[NDArray[np.int64]], trust: list[int], symbol: int) -> list[int]:
    """Trust after a symbol is known: more in those who said so."""
    found = [max(t * int(row[symbol]) >> 8, 1) for t, row in zip(trust, rows, strict=True)]
    whole = sum(found)
    return [t * (1 << 20) // whole + 1 for t in found]


class _Student:
    """One expert: a Student distribution in three dimensions, coordinate after coordinate."""

    def __init__(self, prediction: Prediction, nodes: NDArray[np.int64]) -> None:
        self._mean = list(prediction.mean)
        xx, xy, xz, yy, yz, zz = prediction.spread
        self._spread = [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]
        self._nodes = nodes
        self._distance = 0
        self._axis = 0

    def row(self) -> NDArray[np.int64]:
        """Weights of all nodes for the next coordinate, their sum about 2^24."""
        axis = self._axis
        spread = max(self._spread[axis][axis], ROUNDING_SPREAD)
        # What came before says how far out this corner is (the conditional Student distribution).
        spread = spread * (FREEDOM * SHARE + self._distance) // ((FREEDOM + axis) * SHARE)
        return student_row(self._nodes, self._mean[axis], spread)

    def know(self, node: int) -> None:
        """Goes on to the next coordinate."""
        axis, s = self._axis, self._spread
        own = max(s[axis][axis], ROUNDING_SPREAD)
        away = node * FRACTION - self._mean[axis]
        self._distance += away * away * SHARE // own
        for i in range(axis + 1, 3):
            self._mean[i] += s[axis][i] * away // own
        for i in range(axis + 1, 3):
            for j in range(axis + 1, 3):
                s[i][j] -= s[axis][i] * s[axis][j] // own
        self._axis += 1


class CornerRows:
    """Rows of weights for the coordinates of a corner, one after the other.

    Args:
        predictions: Of the corner, by several experts.
        trust: How much each is believed, positive.
        habits: Coordinates that the mesh likes.
        nodes: Of the grid along an axis.

    Attributes:
        trust: After all that is known.
    """

    def __init__(
        self, predictions: list[Prediction], trust: list[int], habits: Habits, nodes: NDArray[np.int64]
    ) -> None:
        self._experts = [_Student(one, nodes) for one in predictions]
        self.trust = list(trust)
        self._habits = habits
        self._rows: list[NDArray[np.int64]] = []
        self._axis = 0

    def row(self) -> NDArray[np.int64]:
        """Weights of all nodes for the next coordinate."""
        self._rows = [expert.row() for expert in self._experts]
        return self._habits.favoured(self._axis, mixed(self._rows, self.trust))

    def know(self, node: int) -> None:
        """Goes on to the next coordinate."""
        self.trust = trusted(self._rows, self.trust, node)
        for expert in self._experts:
            expert.know(node)
        self._axis += 1


class Habits:
    """Coordinates that were used before: in meshes of straight parts they come again.

    Args:
        grid: Steps of the grid.
    """

    def __init__(self, grid: int) -> None:
        self._used = np.zeros((3, grid + 1), np.int64)
        self._hits = HABIT_PRIOR
        self._expected = HABIT_PRIOR
        self._last: tuple[int, int] = (0, 1)

    def favoured(self, axis: int, row: NDArray[np.int64]) -> NDArray[np.int64]:
        """A row in which nodes that were used before weigh more, by as much as they did so far."""
        used = self._used[axis]
        self._last = int(row[used > 0].sum()), int(row.sum())
        factor = max(16, min(16 * 32, 16 * self._hits // self._expected))
        return np.where(used > 0, row * factor, row * 16) >> 4

    def count(self, axis: int, node: int) -> None:
        """Counts a coordinate, after its row was made."""
        part, whole = self._last
        self._hits += SHARE * int(self._used[axis, node] > 0)
        self._expected += SHARE * part // whole
        self._used[axis, node] += 1
