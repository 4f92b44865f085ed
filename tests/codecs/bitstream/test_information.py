"""Information content against a direct count, and against what the coder writes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentpress.codecs.bitstream import SymbolEncoder, TableSet, gaussian_tables, information_bits

TABLES = gaussian_tables([0.2, 1.0, 9.0])


def test_by_hand() -> None:
    tables = TableSet([2**22, 2**23, 2**22, 2**23, 2**23], [3, 2], [-1, 5])
    symbols, indexes = np.array([-1, 0, 5]), np.array([0, 0, 1])
    assert information_bits(symbols, indexes, tables) == 2 + 1 + 1


def test_escape_costs_its_slot_and_the_distance() -> None:
    # The support is 0 and 1; 2 and -1 follow it at the distances 0 and 1, with 1 and 3 bits.
    tables = TableSet([2**23, 2**22, 2**22], [3], [0])
    zero = np.zeros(1, np.int64)
    assert information_bits(np.array([2]), zero, tables) == pytest.approx(2 + 1)
    assert information_bits(np.array([-1]), zero, tables) == pytest.approx(2 + 3)


def test_nothing_costs_nothing() -> None:
    assert information_bits(np.zeros(0, np.int32), np.zeros(0, np.int64), TABLES) == 0


@given(st.lists(st.tuples(st.integers(-5000, 5000), st.integers(0, 2)), min_size=1, max_size=200))
def test_the_coder_needs_what_information_says(pairs) -> None:
    symbols, indexes = (np.array(column, np.int32) for column in zip(*pairs, strict=True))
    encoder = SymbolEncoder()
    encoder.put(symbols, indexes, TABLES)
    written = 8 * len(encoder.finish())
    expected = information_bits(symbols, indexes, TABLES)
    # Whole words, and a sealing word at most.
    assert math.floor(expected) <= written <= expected * 1.001 + 64
