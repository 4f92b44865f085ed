"""What symbols cost by the probabilities of their tables, to hold the coder's real output against."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream.range_coder import ESCAPE_LENGTH_FREQUENCIES
from latentpress.codecs.bitstream.tables import TOTAL, TableSet


def information_bits(symbols: NDArray[Any], indexes: NDArray[Any], tables: TableSet) -> float:
    """The information content of symbols, escapes included.

    Args:
        symbols: integers, shape (n,).
        indexes: integers in [0, len(tables)), shape (n,): each symbol's table.
        tables: the frequency tables.

    Returns:
        Bits.

    Example:
        >>> tables = TableSet([2**23, 2**22, 2**22], [3], [0])
        >>> information_bits(np.array([0, 0, 1]), np.zeros(3, np.uint8), tables)
        4.0
    """
    total = 0.0
    for number in np.unique(indexes):
        total += float(table_information(symbols[indexes == number], tables, int(number)).sum())
    return total


def table_information(symbols: NDArray[Any], tables: TableSet, number: int) -> NDArray[np.float64]:
    """The information content of every symbol under one table, in bits.

    Args:
        symbols: integers, shape (n,).
        tables: the frequency tables.
        number: of the table.

    Returns:
        Bits, shape (n,).
    """
    support, cost = tables.support(number), -np.log2(tables.table(number) / TOTAL)
    symbols = np.asarray(symbols, np.int64)
    inside = (symbols >= support.start) & (symbols < support.stop)
    bits = np.empty(symbols.shape)
    bits[inside] = cost[symbols[inside] - support.start]
    bits[~inside] = cost[-1] + _distance_information(symbols[~inside], support)
    return bits


def _distance_information(symbols: NDArray[np.int64], support: range) -> NDArray[np.float64]:
    """What follows an escape slot: the distance from the support in an Exp-Golomb code."""
    above = symbols - support.stop
    distance = np.where(above >= 0, 2 * above, 2 * (support.start - 1 - symbols) + 1)
    length = np.frexp((distance + 1).astype(np.float64))[1] - 1
    bits: NDArray[np.float64] = length - np.log2(ESCAPE_LENGTH_FREQUENCIES / TOTAL)[length]
    return bits
