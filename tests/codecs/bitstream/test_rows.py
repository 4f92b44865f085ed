"""Symbols with a frequency table each: the same bytes as the reference coder, and hostile words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress.codecs.bitstream import StreamError, SymbolDecoder, SymbolEncoder, TableSet
from latentpress.codecs.bitstream.reference_coder import ReferenceDecoder, ReferenceEncoder

TOTAL = 2**24
FAST = settings(deadline=None, database=None, max_examples=60)


def rows_of(seed: int, count: int, slots: int, sharpness: float) -> np.ndarray:
    random = np.random.default_rng(seed)
    weights = np.exp2(-sharpness * random.random((count, slots)))
    shares = weights / weights.sum(axis=1, keepdims=True)
    rows = 1 + np.floor(shares * (TOTAL - slots)).astype(np.int64)
    rows[np.arange(count), rows.argmax(axis=1)] += TOTAL - rows.sum(axis=1)
    return rows


puts = st.lists(
    st.tuples(st.integers(0, 99), st.integers(0, 20), st.integers(2, 40), st.floats(0, 60)), max_size=3
)


@FAST
@given(puts, st.integers(0, 99))
def test_same_bytes_as_the_reference_coder(calls, seed) -> None:
    random = np.random.default_rng(seed)
    fast, slow, sent = SymbolEncoder(), ReferenceEncoder(), []
    for call in calls:
        rows = rows_of(*call)
        symbols = random.integers(0, rows.shape[1], len(rows)).astype(np.int32)
        fast.put_rows(symbols, rows)
        slow.put_rows(symbols, rows)
        sent.append((symbols, rows))
    data = fast.finish()
    assert data == slow.finish()
    for decoder in (SymbolDecoder(data), ReferenceDecoder(data)):
        for symbols, rows in sent:
            assert np.array_equal(decoder.get_rows(rows), symbols)
        decoder.finish()


def test_rows_and_tables_share_a_stream() -> None:
    tables = TableSet([2**23, 2**22, 2**22], [3], [0])
    rows = rows_of(1, 5, 4, 3.0)
    symbols = np.array([0, 3, 1, 2, 0], np.int32)
    encoder = SymbolEncoder()
    encoder.put(symbols, np.zeros(5, np.uint8), tables)
    encoder.put_rows(symbols, rows)
    decoder = SymbolDecoder(encoder.finish())
    assert np.array_equal(decoder.get(np.zeros(5, np.uint8), tables), symbols)
    assert np.array_equal(decoder.get_rows(rows), symbols)
    decoder.finish()


@FAST
@given(st.binary(max_size=40).map(lambda b: b[: len(b) // 4 * 4]), st.integers(0, 50))
def test_hostile_words(data, count) -> None:
    decoder = SymbolDecoder(data)
    try:
        found = decoder.get_rows(rows_of(3, count, 8, 10.0))
        decoder.finish()
    except StreamError:
        return
    assert found.shape == (count,)


@pytest.mark.parametrize(
    ("symbols", "rows", "error"),
    [
        (np.zeros(1, np.int64), np.full((1, 2), 2**23), TypeError),
        (np.zeros(1, np.int32), np.full((1, 2), 2.0**23), TypeError),
        (np.zeros(2, np.int32), np.full((1, 2), 2**23), ValueError),
        (np.full(1, 2, np.int32), np.full((1, 2), 2**23), ValueError),
        (np.zeros(1, np.int32), np.full((1, 2), 2**22), ValueError),
        (np.zeros(1, np.int32), np.array([[0, 2**24]]), ValueError),
        (np.zeros(1, np.int32), np.full((1, 1), 2**24), ValueError),
        (np.zeros(2, np.int32), np.full(2, 2**23), ValueError),
    ],
)
def test_wrong_arguments(symbols, rows, error) -> None:
    with pytest.raises(error):
        SymbolEncoder().put_rows(symbols, rows)


def test_finished_coders_refuse() -> None:
    rows = np.full((1, 2), 2**23)
    encoder = SymbolEncoder()
    encoder.put_rows(np.zeros(1, np.int32), rows)
    data = encoder.finish()
    with pytest.raises(ValueError, match="finished"):
        encoder.put_rows(np.zeros(1, np.int32), rows)
    decoder = SymbolDecoder(data)
    decoder.get_rows(rows)
    decoder.finish()
    with pytest.raises(ValueError, match="finished"):
        decoder.get_rows(rows)
