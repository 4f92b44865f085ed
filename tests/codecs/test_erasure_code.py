"""Shares of bytes: any so many of them restore everything."""

from functools import reduce
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentpress.codecs.erasure_code import MAX_SHARES, make_shares, restore, share_bytes


@given(st.binary(max_size=40), st.integers(1, 9), st.integers(0, 9), st.randoms())
def test_any_shares_restore(data, needed, more, random) -> None:
    shares = make_shares(data, needed, needed + more)
    assert {len(share) for share in shares} == {share_bytes(len(data), needed)}
    kept = random.sample(range(len(shares)), needed)
    assert restore({n: shares[n] for n in kept}, needed, len(data)) == data


def test_every_choice() -> None:
    shares = make_shares(b"any three of six", 3, 6)
    for kept in combinations(range(6), 3):
        assert restore({n: shares[n] for n in kept}, 3, 16) == b"any three of six"
    assert b"".join(shares[:3]).rstrip(b"\0") == b"any three of six"


def product(a: int, b: int) -> int:
    """In the field of x^8 + x^4 + x^3 + x^2 + 1, by long multiplication."""
    found = reduce(int.__xor__, (a << bit for bit in range(8) if b >> bit & 1), 0)
    for bit in range(14, 7, -1):
        if found >> bit & 1:
            found ^= 0x11D << bit - 8
    return found


def test_shares_are_values_of_a_polynomial() -> None:
    """c0 + c1 x + c2 x^2 at the points 0, 1, 2, ..."""
    coefficients = (201, 7, 99)
    values = [
        coefficients[0] ^ product(coefficients[1], x) ^ product(coefficients[2], product(x, x))
        for x in range(MAX_SHARES)
    ]
    shares = make_shares(bytes(values[:3]), 3, MAX_SHARES)
    assert [share[0] for share in shares] == values


def test_large_ones() -> None:
    data = np.random.default_rng(0).bytes(5000)
    shares = make_shares(data, 128, MAX_SHARES)
    assert restore(dict(enumerate(shares[127:], 127)), 128, len(data)) == data


@pytest.mark.parametrize(("needed", "count"), [(0, 3), (4, 3), (3, 256)])
def test_impossible_numbers(needed, count) -> None:
    with pytest.raises(ValueError, match="shares"):
        make_shares(b"data", needed, count)
