"""Symbols that an attacker would send, in the place of those that hostile bytes decode to.

Whoever knows a codec can encode any symbols, with right checksums. Mutated bytes hardly ever decode to an
end, so what comes after entropy decoding would see nothing but good symbols from a fuzzer. Here each input
chooses the symbols instead, and checksums agree with everything.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream import TableSet

_DECODING = (
    "latentpress.codecs.symbol_coders",
    "latentpress.codecs.symbol_channel",
    "latentpress.codecs.shape_coder",
    "latentpress.codecs.bounded_residual",
    "latentpress.codecs.alpha_coder",
)
# Decoders refuse symbols beyond some of these, so a stream has one magnitude.
_MAGNITUDES = (1000, 4095, 32767, 2**31 - 1)


class HostileSymbols:
    """Stands in for `SymbolDecoder`: symbols that the words could hold, chosen by a number made of the words.

    Example:
        >>> tables = TableSet([2**23, 2**22, 2**22], [3], [-1])
        >>> HostileSymbols(b"").get(np.zeros(4, np.uint8), tables).tolist()
        [0, 0, -1, -1]
    """

    def __init__(self, data: bytes) -> None:
        number = zlib.crc32(data)
        self._random = np.random.default_rng(number)
        self._magnitude = int(self._random.choice(_MAGNITUDES))
        self._choose = (self._usual, self._ends, self._some_escapes, self._all_escapes)[number % 4]

    def get(self, indexes: NDArray[Any], tables: TableSet) -> NDArray[np.int32]:
        """A symbol for each index of a table."""
        lowest = tables.minimums[indexes].astype(np.int64)
        # The last slot of a table stands for whatever is not in it.
        return self._choose(lowest, np.maximum(tables.lengths[indexes].astype(np.int64) - 2, 0))

    def get_rows(self, frequencies: NDArray[np.int64]) -> NDArray[np.int32]:
        """A symbol for each row of frequencies, one that has any."""
        weight = self._random.random(frequencies.shape) * (frequencies > 0)
        return weight.argmax(axis=1).astype(np.int32)

    def finish(self) -> None:
        """Nothing is left over."""

    def _usual(self, lowest: NDArray[np.int64], reach: NDArray[np.int64]) -> NDArray[np.int32]:
        return (lowest + self._random.integers(0, reach + 1)).astype(np.int32)

    def _ends(self, lowest: NDArray[np.int64], reach: NDArray[np.int64]) -> NDArray[np.int32]:
        return (lowest + reach * self._random.integers(0, 2, len(reach))).astype(np.int32)

    def _some_escapes(self, lowest: NDArray[np.int64], reach: NDArray[np.int64]) -> NDArray[np.int32]:
        rare = self._random.random(len(reach)) < 0.02
        return np.where(rare, self._all_escapes(lowest, reach), self._usual(lowest, reach))

    def _all_escapes(self, lowest: NDArray[np.int64], reach: NDArray[np.int64]) -> NDArray[np.int32]:
        signs = self._random.choice(np.array([-1, 1], np.int32), len(reach))
        return signs * np.int32(self._magnitude)


class _AnyChecksum(int):
    """Equal to every checksum."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    def __and__(self, other: int) -> int:
        return self

    def __hash__(self) -> int:
        return 0


def _agree(*_: bytes) -> int:
    return _AnyChecksum()


@contextmanager
def hostile_symbols() -> Iterator[None]:
    """All decoders of the library see hostile symbols, and all checksums of symbols agree."""
    with ExitStack() as changes:
        for name in _DECODING:
            module = import_module(name)
            if hasattr(module, "SymbolDecoder"):
                changes.enter_context(mock.patch.object(module, "SymbolDecoder", HostileSymbols))
            if hasattr(module, "crc32c"):
                changes.enter_context(mock.patch.object(module, "crc32c", _agree))
        yield
