"""One symbol at a time, with weights: to the range coder, from it, or only priced."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream.tables import TOTAL
from latentpress.codecs.symbol_channel import SymbolChannel

MOST_SLOTS = 1 << 16
"""Rows are never longer."""


class WeightedChannel(Protocol):
    """Where symbols go or come from; a receiver is given None for them."""

    def exchange(self, symbol: int | None, weights: NDArray[np.int64]) -> int:
        """A symbol in [0, len(weights)), likely in proportion to its weight; returns it."""
        ...


class CodedChannel:
    """Symbols through a sender or a receiver.

    Args:
        channel: It.
    """

    def __init__(self, channel: SymbolChannel) -> None:
        self._channel = channel

    def exchange(self, symbol: int | None, weights: NDArray[np.int64]) -> int:
        """Sends or receives a symbol; a row of one needs no bits."""
        if len(weights) == 1:
            return 0
        given = None if symbol is None else np.array([symbol], np.int32)
        return int(self._channel.exchange_rows(given, frequencies(weights)[None])[0])


class PricingChannel:
    """Adds up what symbols would cost.

    Attributes:
        bits: So far.
    """

    def __init__(self) -> None:
        self.bits = 0.0

    def exchange(self, symbol: int | None, weights: NDArray[np.int64]) -> int:
        """Prices a symbol."""
        assert symbol is not None
        self.bits += math.log2(int(weights.sum()) / max(int(weights[symbol]), 1))
        return symbol


def frequencies(weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """A row of frequencies that sum to 2^24, none of them 0.

    Args:
        weights: ``(k,)``, non-negative, their sum from 1 to 2^38.

    Example:
        >>> frequencies(np.array([1, 3])).tolist()
        [4194304, 12582912]
    """
    found: NDArray[np.int64] = 1 + weights * (TOTAL - len(weights)) // weights.sum()
    # What rounding left goes to the slot that misses it least.
    found[found.argmax()] += TOTAL - found.sum()
    return found


class AdaptiveWeights:
    """Weights that follow what was coded with them.

    Args:
        counts: ``(contexts, symbols)``, at least 1.
        unit: What a symbol adds.

    Example:
        >>> adaptive = AdaptiveWeights(((1, 1),), 8)
        >>> adaptive.exchange(PricingChannel(), 1, 0), adaptive.row(0).tolist()
        (1, [1, 9])
    """

    def __init__(self, counts: Any, unit: int) -> None:
        self._counts = np.array(counts, np.int64)
        self._unit = unit

    def row(self, context: int) -> NDArray[np.int64]:
        """The weights now."""
        found: NDArray[np.int64] = self._counts[context]
        return found

    def exchange(self, channel: WeightedChannel, symbol: int | None, context: int) -> int:
        """Codes a symbol and counts it."""
        found = channel.exchange(symbol, self._counts[context])
        self._counts[context, found] += self._unit
        return found
