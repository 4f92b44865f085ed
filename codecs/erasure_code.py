"""Reed-Solomon shares of bytes: any so many of them restore what all were made of.

Byte b of the first K shares are the values of a polynomial of degree K - 1 over GF(256) at the points 0 to
K - 1; further shares are its values at further points. The field is that of x^8 + x^4 + x^3 + x^2 + 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

MAX_SHARES = 255
_POLYNOMIAL = 0x11D


def share_bytes(length: int, needed: int) -> int:
    """Bytes of a share.

    Example:
        >>> share_bytes(10, 4)
        3
    """
    return -(-length // needed)


def make_shares(data: bytes, needed: int, count: int) -> list[bytes]:
    """Makes shares.

    Args:
        data: What they are of.
        needed: How many of them restore it, 1 to count.
        count: How many to make, at most 255.

    Example:
        >>> shares = make_shares(b"erasures", 2, 3)
        >>> restore({2: shares[2], 0: shares[0]}, 2, 8)
        b'erasures'
    """
    if not 1 <= needed <= count <= MAX_SHARES:
        raise ValueError(f"no {count} shares of which {needed} restore everything")
    length = share_bytes(len(data), needed)
    rows = np.frombuffer(data.ljust(length * needed, b"\0"), np.uint8).reshape(needed, length)
    points = tuple(range(needed))
    more = [_value(rows, points, point).tobytes() for point in range(needed, count)]
    return [row.tobytes() for row in rows] + more


def restore(shares: Mapping[int, bytes], needed: int, length: int) -> bytes:
    """What shares were made of.

    Args:
        shares: At least ``needed`` of them, of one length, by number.
        needed: How many it takes.
        length: Of what they were made of.
    """
    points = tuple(sorted(shares)[:needed])
    rows = np.stack([np.frombuffer(shares[point], np.uint8) for point in points])
    # A share of the first ones is part of the data as it is.
    parts = [shares[n] if n in points else _value(rows, points, n).tobytes() for n in range(needed)]
    return b"".join(parts)[:length]


def _value(rows: NDArray[np.uint8], points: tuple[int, ...], at: int) -> NDArray[np.uint8]:
    """The value at a point of polynomials with given values at others, by Lagrange's formula.

    Args:
        rows: ``(n, length)``, the values at each of the other points.
        points: The n others.
        at: None of them.
    """
    exponents, logarithms = _field()
    others = np.array(points)
    # The sum of two elements, and their difference, is their exclusive or; a product is a sum of logarithms.
    distances = logarithms[at ^ others]
    between = logarithms[others[:, None] ^ others].sum(axis=1)
    powers = distances.sum() - distances - between
    result = np.zeros(rows.shape[1], np.uint8)
    for row, power in zip(rows, powers.tolist(), strict=True):
        product = exponents[(logarithms[row] + power) % 255]
        result ^= np.where(row == 0, np.uint8(0), product)
    return result


@cache
def _field() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Powers of 2 in the field, and logarithms; that of 0, which has none, is 0."""
    exponents, logarithms, value = np.zeros(255, np.uint8), np.zeros(256, np.int64), 1
    for power in range(255):
        exponents[power], logarithms[value] = value, power
        value <<= 1
        if value > 255:
            value ^= _POLYNOMIAL
    return exponents, logarithms
