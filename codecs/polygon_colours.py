"""Colours of vertices to symbols and back, once the mesh is known: each predicted from its neighbours.

::

    RGB -> Y, Co, Cg -> divided by steps, rounded -> levels; levels of known neighbours -> mean, spread
                                                     -> three experts, mixed -> row -> range coder

Y, Co and Cg are those of Malvar and Sullivan (2003), Co and Cg in coarser steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.polygon_channel import WeightedChannel
from latentpress.codecs.polygon_prediction import FRACTION, mixed, student_row, trusted
from latentpress.codecs.polygon_tables import (
    COLOUR_EXPERT_TRUST,
    COLOUR_EXPERTS,
    COLOUR_FLOOR,
    COLOUR_SPREADS,
    COLOUR_WEIGHT,
)

CHROMA_COARSER = 2
"""Steps of Co and Cg are this many steps of Y."""

_TOP = 255


def level_range(channel: int, step: int) -> tuple[int, int]:
    """Least and largest level of Y (0), Co (1) or Cg (2).

    Example:
        >>> level_range(0, 16), level_range(1, 16)
        ((0, 16), (-8, 8))
    """
    if channel == 0:
        return 0, (_TOP + step // 2) // step
    most = (_TOP + CHROMA_COARSER * step // 2) // (CHROMA_COARSER * step)
    return -most, most


def to_levels(colours: NDArray[Any], step: int) -> NDArray[np.int64]:
    """Levels of RGB colours ``(V, 3)`` in [0, 1]."""
    red, green, blue = np.asarray(colours, np.float64).T * _TOP
    light = (red + 2 * green + blue) / 4
    orange, greenish = red - blue, green - (red + blue) / 2
    coarse = CHROMA_COARSER * step
    levels = np.stack((light / step, orange / coarse, greenish / coarse), axis=1)
    low, high = np.array([level_range(k, step) for k in range(3)]).T
    rounded: NDArray[np.int64] = np.rint(levels).clip(low, high).astype(np.int64)
    return rounded


def from_levels(levels: NDArray[np.int64], step: int) -> NDArray[np.uint8]:
    """RGB ``(V, 3)`` of levels.

    Example:
        >>> from_levels(to_levels(np.array([[1.0, 0.5, 0.0]]), 1), 1).tolist()
        [[255, 128, 0]]
    """
    # In quarters, so that halves stay whole.
    light = 4 * step * levels[:, 0]
    orange, greenish = (4 * CHROMA_COARSER * step * levels[:, k] for k in (1, 2))
    green = light + greenish // 2
    blue = light - greenish // 2 - orange // 2
    found = (np.stack((blue + orange, green, blue), axis=1) + 2) // 4
    rounded: NDArray[np.uint8] = found.clip(0, _TOP).astype(np.uint8)
    return rounded


class ColourCoder:
    """Sends the colours of one mesh or receives them.

    Args:
        channel: Where symbols go or come from.
        step: Of Y, of 255.
    """

    def __init__(self, channel: WeightedChannel, step: int) -> None:
        self._channel = channel
        self._ranges = [level_range(k, step) for k in range(3)]
        self._values = [np.arange(low, high + 1, dtype=np.int64) * FRACTION for low, high in self._ranges]
        scale = FRACTION * FRACTION
        self._sums = [COLOUR_WEIGHT * s * scale // (step * step) for s in COLOUR_SPREADS]
        self._weight = COLOUR_WEIGHT
        self._trust = [t << 20 for t in COLOUR_EXPERT_TRUST]

    def code(
        self, wanted: NDArray[np.int64] | None, count: int, faces: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Codes levels ``(V, 3)``; None to receive them.

        Args:
            wanted: The levels.
            count: Number of vertices.
            faces: Of the mesh, which tell the neighbours.
        """
        neighbours: list[set[int]] = [set() for _ in range(count)]
        for a, b, c in faces.tolist():
            for one, other in ((a, b), (b, c), (c, a)):
                neighbours[max(one, other)].add(min(one, other))
        levels = np.zeros((count, 3), np.int64)
        for vertex in range(count):
            given = None if wanted is None else wanted[vertex]
            levels[vertex] = self._vertex(given, levels[sorted(neighbours[vertex])])
        return levels

    def _vertex(self, wanted: NDArray[np.int64] | None, known: NDArray[np.int64]) -> list[int]:
        trust = list(self._trust)
        found = []
        far = not len(known)
        for k in range(3):
            low, high = self._ranges[k]
            if far:
                mean, unlike = (low + high) * FRACTION // 2, (high - low) ** 2 * FRACTION * FRACTION // 16
            else:
                values = [int(v) * FRACTION for v in known[:, k]]
                mean = sum(values) // len(values)
                unlike = sum((v - mean) ** 2 for v in values) // len(values)
            usual = self._sums[k] // self._weight
            rows = [
                student_row(self._values[k], mean, (usual * own + unlike * others) // 64 + COLOUR_FLOOR)
                for own, others in COLOUR_EXPERTS
            ]
            symbol = None if wanted is None else int(wanted[k]) - low
            symbol = self._channel.exchange(symbol, mixed(rows, trust))
            trust = trusted(rows, trust, symbol)
            found.append(symbol + low)
            if not far:
                off = (found[k] * FRACTION - mean) ** 2
                self._sums[k] += min(off, 8 * usual + COLOUR_FLOOR)
        if not far:
            self._weight += 1
            self._trust = [a + b for a, b in zip(self._trust, trust, strict=True)]
        return found
