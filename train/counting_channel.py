"""Counts of symbols that would be sent, for tables to be made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream import TableSet


class CountingChannel:
    """Takes the place of a :class:`~latentpress.codecs.symbol_channel.Sender` and counts what would be sent.

    Args:
        tables: Number of tables.
        symbols: Number of symbols of each.

    Attributes:
        counts: ``(tables, symbols)``: how often each would be sent with each table.
    """

    def __init__(self, tables: int, symbols: int) -> None:
        self.counts = np.zeros((tables, symbols))

    def exchange(
        self,
        symbols: NDArray[np.int32] | None,
        indexes: NDArray[Any],
        tables: TableSet,
        escapes: bool = False,
    ) -> NDArray[np.int32]:
        """Counts symbols with a table index each."""
        assert symbols is not None
        np.add.at(self.counts, (indexes, symbols), 1)
        return symbols

    def exchange_rows(
        self, symbols: NDArray[np.int32] | None, frequencies: NDArray[np.int64]
    ) -> NDArray[np.int32]:
        """Symbols with a row of frequencies each have no table."""
        raise NotImplementedError
