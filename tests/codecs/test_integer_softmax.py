"""Frequencies out of integer logits: valid tables, close to the real softmax, in exact integers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentpress.codecs.integer_softmax import frequencies_of, power_table

TOTAL = 2**24


def test_power_table_is_rounded_correctly() -> None:
    """x = round(2^30 2^(-r/1024)) if and only if (2x - 1)^1024 < 2^(31 * 1024 - r) < (2x + 1)^1024."""
    for r, value in list(enumerate(power_table().tolist()))[::31]:
        assert (2 * value - 1) ** 1024 <= 1 << (31 * 1024 - r) <= (2 * value + 1) ** 1024


@given(st.lists(st.lists(st.integers(-60_000, 60_000), min_size=5, max_size=5), min_size=1, max_size=9))
def test_rows_are_tables(logits) -> None:
    rows = frequencies_of(np.array(logits, np.float64))
    assert rows.dtype == np.int64
    assert (rows >= 1).all()
    assert (rows.sum(axis=1) == TOTAL).all()


def test_close_to_the_real_softmax() -> None:
    logits = np.round(np.random.default_rng(0).normal(0, 3000, (200, 32)))
    exact = np.exp2((logits - logits.max(axis=1, keepdims=True)) / 1024)
    exact /= exact.sum(axis=1, keepdims=True)
    found = frequencies_of(logits) / TOTAL
    excess = (exact * np.log2(exact / found)).sum(axis=1)
    assert excess.max() < 1e-4


def test_what_every_implementation_must_find() -> None:
    logits = [0, 1, -1, 1023, 1024, -1024 * 29, -1024 * 30 - 1, -1024 * 40]
    table = power_table().tolist()
    top = max(logits)
    weights = [table[(top - x) % 1024] >> min((top - x) // 1024, 31) for x in logits]
    rows = [1 + int(Fraction(w * (TOTAL - 8), sum(weights))) for w in weights]
    rows[logits.index(top)] += TOTAL - sum(rows)
    assert frequencies_of(np.array([logits], np.float64)).tolist() == [rows]
    assert rows[-1] == 1


def test_shifting_all_logits_changes_nothing() -> None:
    logits = np.array([[5.0, -700.0, 3000.0]])
    assert np.array_equal(frequencies_of(logits), frequencies_of(logits - 123456))


def test_equal_logits_are_equal_but_for_the_rest() -> None:
    rows = frequencies_of(np.zeros((1, 3)))[0].tolist()
    assert rows == pytest.approx([TOTAL / 3] * 3, abs=2)
    assert rows[1] == rows[2] <= rows[0]
