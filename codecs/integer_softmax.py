"""Frequency tables out of integer logits, in integers from end to end.

A logit of the index prior is a power of two in units of 2^-10. Its weight is read from a table of
2^(-r/1024), made with integer square roots, and shifted; the weights of a row are scaled to frequencies by
integer division. So no machine can round anything differently.
"""

from __future__ import annotations

from functools import cache
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from latentpress.codecs.bitstream.tables import TOTAL

FRACTION_BITS = 10
"""Logits are in units of 2^-10, as the activations of integer networks."""

WEIGHT_BITS = 30
_STEPS = 1 << FRACTION_BITS
_PRECISION = 128


@cache
def power_table() -> NDArray[np.int64]:
    """``round(2^30 * 2^(-r / 1024))`` for r from 0 to 1023, int64.

    Example:
        >>> power_table()[[0, 512]].tolist()
        [1073741824, 759250125]
    """
    root = 1 << (_PRECISION - 1)
    for _ in range(FRACTION_BITS):
        root = isqrt(root << _PRECISION)
    values, power = [], 1 << _PRECISION
    half = 1 << (_PRECISION - WEIGHT_BITS - 1)
    for _ in range(_STEPS):
        values.append((power + half) >> (_PRECISION - WEIGHT_BITS))
        power = power * root >> _PRECISION
    return np.array(values, np.int64)


def frequencies_of(logits: NDArray[np.float64]) -> NDArray[np.int64]:
    """Turns rows of logits into rows of frequencies.

    Every slot gets 1, then its share of the rest rounded down; what is left goes to the largest logit, the
    first among equals.

    Args:
        logits: ``(n, k)`` integers held in float64, in units of 2^-10; k from 2 to 1024.

    Returns:
        ``(n, k)`` int64, positive, each row summing to 2^24.

    Example:
        >>> frequencies_of(np.array([[0.0, 1024.0]])).tolist()
        [[5592405, 11184811]]
    """
    values = logits.astype(np.int64)
    slots = values.shape[1]
    below = values.max(axis=1, keepdims=True) - values
    # Beyond 31 halvings nothing is left, and larger shifts are undefined.
    shifts = np.minimum(below >> FRACTION_BITS, WEIGHT_BITS + 1)
    weights = power_table()[below & (_STEPS - 1)] >> shifts
    result: NDArray[np.int64] = 1 + weights * (TOTAL - slots) // weights.sum(axis=1, keepdims=True)
    largest = values.argmax(axis=1)
    result[np.arange(len(result)), largest] += TOTAL - result.sum(axis=1)
    return result
