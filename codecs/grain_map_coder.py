"""Codes the granularity map: for every cell whether it is split, for its quarters whether they are fine.

Both are coded in four steps, one for each position of every 2x2 square, with static tables by step, by how
many positions are set in the whole picture (a level of 16, sent beforehand), and by how many of the known
neighbours are set. A level says also that none or all are set, and then nothing is coded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream import TableSet
from latentpress.codecs.index_payload import LEVELS
from latentpress.codecs.symbol_channel import SymbolChannel

STEPS = 4
CONTEXTS = 8
"""Contexts by neighbours: none known, none set, five shares in between, all set."""

TABLES_EACH = STEPS * LEVELS * CONTEXTS
"""Tables of the split bits; as many of the fine bits follow."""

# Diagonal first, as in the image codec's context model: the second step has neighbours on four sides.
_ORDER = (0, 3, 2, 1)

# Neighbours that share an edge count twice.
_WEIGHTS = ((1, 2, 1), (2, 0, 2), (1, 2, 1))

Bits = NDArray[np.bool_]


def level_of(share: float) -> int:
    """The level for a share of set positions: 0 only for none, 15 only for all.

    Example:
        >>> [level_of(share) for share in (0.0, 0.001, 0.5, 0.999, 1.0)]
        [0, 1, 8, 14, 15]
    """
    if share <= 0.0:
        return 0
    if share >= 1.0:
        return LEVELS - 1
    # Finer where few or nearly all are set: steps of equal size in log-odds from -5 to 5.
    odds = np.log(share / (1.0 - share))
    return int(np.clip(np.floor((odds + 5.0) / 10.0 * (LEVELS - 2)), 0, LEVELS - 3)) + 1


def context_of(bits: Bits, known: Bits) -> NDArray[np.int64]:
    """Context of every position by its known neighbours.

    Args:
        bits: ``(H, W)``; False where not known.
        known: ``(H, W)``.

    Returns:
        ``(H, W)`` in [0, CONTEXTS).
    """
    set_, seen = (weighted_neighbours(x) for x in (bits & known, known))
    # Shares in integers: 1 + five intervals of set/seen in (0, 1).
    between = 2 + (set_ * 5 - 1) // np.maximum(seen, 1)
    context = np.where(set_ == 0, 1, np.where(set_ == seen, CONTEXTS - 1, between))
    return np.where(seen == 0, 0, context)


def weighted_neighbours(x: NDArray[Any]) -> NDArray[np.int64]:
    """Sum of the eight neighbours of every position; those that share an edge count twice.

    Args:
        x: ``(H, W)`` integers or truth values.

    Example:
        >>> weighted_neighbours(np.eye(3, dtype=int)).tolist()
        [[1, 4, 1], [4, 2, 4], [1, 4, 1]]
    """
    height, width = x.shape
    padded = np.pad(x.astype(np.int64), 1)
    total = np.zeros((height, width), np.int64)
    for i, row in enumerate(_WEIGHTS):
        for j, weight in enumerate(row):
            total += weight * padded[i : i + height, j : j + width]
    return total


def steps_of(height: int, width: int) -> NDArray[np.int64]:
    """Step in which each position of a grid is coded, ``(height, width)``."""
    position = np.arange(height)[:, None] % 2 * 2 + np.arange(width)[None, :] % 2
    return np.argsort(_ORDER)[position]


def code_bits(
    channel: SymbolChannel,
    tables: TableSet,
    first_table: int,
    level: int,
    asked: Bits,
    bits: Bits | None,
) -> Bits:
    """Codes bits on a grid.

    Args:
        channel: Sends or receives.
        tables: Of the map.
        first_table: Number of the first table for these bits.
        level: How many are set.
        asked: ``(H, W)`` where bits are coded; elsewhere they are known to be False.
        bits: ``(H, W)``, or None to receive them.

    Returns:
        ``(H, W)``.
    """
    if level == 0:
        return np.zeros_like(asked)
    if level == LEVELS - 1:
        return asked.copy()
    found, known = np.zeros_like(asked), ~asked
    steps = steps_of(*asked.shape)
    for step in range(STEPS):
        now = asked & (steps == step)
        table = first_table + (step * LEVELS + level) * CONTEXTS + context_of(found, known)[now]
        symbols = None if bits is None else bits[now].astype(np.int32)
        found[now] = channel.exchange(symbols, table, tables) != 0
        known |= now
    return found


def code_map(
    channel: SymbolChannel,
    tables: TableSet,
    levels: tuple[int, int],
    shape: tuple[int, int],
    grains: tuple[Bits, Bits] | None,
) -> tuple[Bits, Bits]:
    """Codes a map.

    Args:
        channel: Sends or receives.
        tables: Those of the split bits, then those of the fine bits.
        levels: Of the split cells, and of the fine quarters among those of split cells.
        shape: Rows and columns of cells.
        grains: Split ``(h, w)`` and fine ``(2h, 2w)``, or None to receive them.

    Returns:
        Split and fine.

    Raises:
        StreamError: When receiving, the words cannot be decoded.
    """
    everywhere = np.ones(shape, np.bool_)
    split = code_bits(channel, tables, 0, levels[0], everywhere, None if grains is None else grains[0])
    quarters = split.repeat(2, axis=0).repeat(2, axis=1)
    fine = code_bits(channel, tables, TABLES_EACH, levels[1], quarters, None if grains is None else grains[1])
    return split, fine


def levels_of(split: Bits, fine: Bits) -> tuple[int, int]:
    """The levels of a map."""
    quarters = 4 * int(split.sum())
    return level_of(split.mean()), level_of(fine.sum() / quarters if quarters else 0.0)


def tables_from_counts(counts: NDArray[np.float64]) -> TableSet:
    """Tables out of how often bits were not set and set.

    Args:
        counts: ``(2 * TABLES_EACH, 2)``, non-negative.

    Returns:
        One table for every row; rows without counts follow the level and context alone.
    """
    level = np.arange(2 * TABLES_EACH) // CONTEXTS % LEVELS
    context = np.arange(2 * TABLES_EACH) % CONTEXTS
    density = 1 / (1 + np.exp(5 - (level - 0.5) * (10 / (LEVELS - 2))))
    near = np.where(context == 0, density, (context - 1) / (CONTEXTS - 2))
    guess = np.clip(0.5 * density + 0.5 * near, 0.01, 0.99)
    # What is guessed counts for ten bits.
    totals = counts + 10 * np.stack((1 - guess, guess), axis=1)
    share = totals[:, 1] / totals.sum(axis=1)
    return TableSet.from_probabilities(
        [[1 - p, p, 2.0**-24] for p in share.tolist()], np.zeros(len(share), np.int32)
    )
