"""Transform coefficients to bytes: one dead-zone quantiser and the range coder, for rivals that need one.

Every group of coefficients, a shell of wave numbers or a band of wavelets, has the table that suits it best,
Gaussian or Laplacian, which the stream names with a byte.
"""

from __future__ import annotations

import math
import struct
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream import SymbolDecoder, SymbolEncoder, TableSet, gaussian_tables
from latentpress.codecs.bitstream.tables import TOTAL

DEAD_ZONE = 0.6
"""Magnitudes below this many steps become zero; others round to the nearest step but for the same offset."""

_SCALES = 0.05 * 1.3 ** np.arange(40)


def quantised(values: NDArray[Any], step: float) -> NDArray[np.int32]:
    """Multiples of a step, with a dead zone around zero.

    Example:
        >>> quantised(np.array([0.5, -0.7, 1.4, 1.7]), 1.0).tolist()
        [0, -1, 1, 2]
    """
    magnitude = np.floor(np.abs(values) / step + (1.0 - DEAD_ZONE))
    return (np.sign(values) * magnitude).astype(np.int32)


def encode_groups(symbols: NDArray[np.int32], groups: NDArray[np.integer[Any]]) -> bytes:
    """Codes symbols whose groups the decoder knows.

    Args:
        symbols: Flat.
        groups: Of every symbol, from 0, fewer than 65536.

    Example:
        >>> symbols, groups = np.array([0, 3, -1], np.int32), np.array([0, 1, 1])
        >>> decode_groups(encode_groups(symbols, groups), groups).tolist()
        [0, 3, -1]
    """
    count = int(groups.max()) + 1
    chosen = np.array([_best_table(symbols[groups == group]) for group in range(count)], np.uint8)
    encoder = SymbolEncoder()
    encoder.put(symbols, chosen[groups], _tables())
    return struct.pack("<H", count) + chosen.tobytes() + encoder.finish()


def decode_groups(data: bytes, groups: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """Inverse of :func:`encode_groups`."""
    (count,) = struct.unpack_from("<H", data)
    chosen = np.frombuffer(data[2 : 2 + count], np.uint8)
    decoder = SymbolDecoder(data[2 + count :])
    symbols = decoder.get(chosen[groups], _tables())
    decoder.finish()
    return symbols


def _best_table(symbols: NDArray[np.int32]) -> int:
    """The table under which the symbols take the fewest bits."""
    if not symbols.any():
        return 0
    values, counts = np.unique(symbols, return_counts=True)
    tables = _tables()
    costs = []
    for number in range(len(tables)):
        frequencies = tables.table(number).astype(np.float64)
        slots = values - int(tables.minimums[number])
        inside = (slots >= 0) & (slots < len(frequencies) - 1)
        bits = -np.log2(frequencies[np.where(inside, slots, -1)] / TOTAL)
        # An escaped symbol costs about as much as its magnitude has bits, twice.
        bits = np.where(inside, bits, bits + 2 * np.log2(np.abs(values) + 1.0))
        costs.append(float((bits * counts).sum()))
    return costs.index(min(costs))


@cache
def _tables() -> TableSet:
    """Almost nothing but zeros, then Laplacian and Gaussian tables of rising scales."""
    laplacian = [_laplacian(scale) for scale in _SCALES]
    gaussian = gaussian_tables(_SCALES[8:])
    rows = [np.array([1.0, 1e-6]), *laplacian, *(gaussian.table(k) for k in range(len(gaussian)))]
    minimums = [0, *(1 - len(row) // 2 for row in laplacian), *gaussian.minimums.tolist()]
    return TableSet.from_probabilities(rows, minimums)


def _laplacian(scale: float) -> NDArray[np.float64]:
    """Probabilities of -n to n and of the escape, for the density ``exp(-|x| / scale)`` and the dead zone."""
    most = min(4000, max(1, math.ceil(14 * scale)))
    tails = 0.5 * np.exp(-(np.arange(1, most + 2) - (1.0 - DEAD_ZONE)) / scale)
    side = tails[:-1] - tails[1:]
    centre = 1.0 - 2.0 * float(tails[0])
    return np.array([*side[::-1], centre, *side, 2.0 * tails[-1]])
