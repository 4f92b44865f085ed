"""Integer tables: validation, quantisation, storage."""

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress.codecs.bitstream import SymbolEncoder, TableSet, gaussian_tables

TOTAL = 2**24
FAST = settings(deadline=None, database=None, max_examples=60)

weight_lists = st.lists(st.floats(0, 1e300, allow_subnormal=True), min_size=2, max_size=40).filter(any)


@FAST
@given(st.lists(weight_lists, min_size=1, max_size=5), st.integers(-(2**31), 2**31 - 50))
def test_from_probabilities_sums_exactly(weights, minimum):
    tables = TableSet.from_probabilities(weights, [minimum] * len(weights))
    assert len(tables) == len(weights)
    for k, row in enumerate(weights):
        table = tables.table(k).astype(np.int64)
        assert table.sum() == TOTAL
        assert table.min() >= 1
        assert len(tables.support(k)) == len(row) - 1
        share = np.array(row) / max(row)
        assert np.abs(table - share / share.sum() * TOTAL).max() <= len(row) + 2


@pytest.mark.parametrize("slots", [2, 3, 1000, 65536])
@pytest.mark.parametrize("heavy", [0, -1])
def test_all_mass_in_one_slot(slots, heavy):
    weights = np.zeros(slots)
    weights[heavy] = 1e-300
    table = TableSet.from_probabilities([weights], [0]).table(0)
    assert table[heavy] == TOTAL - slots + 1
    assert np.delete(table, heavy).tolist() == [1] * (slots - 1)


def test_remainders_go_to_lower_slots_first():
    assert TableSet.from_probabilities([[1, 1, 1]], [0]).table(0).tolist() == [5592406, 5592405, 5592405]


@FAST
@given(st.lists(weight_lists, min_size=1, max_size=4))
def test_storage_pickle_and_copy_keep_the_content(weights):
    tables = TableSet.from_probabilities(weights, np.arange(len(weights)))
    tables.model(0)
    for again in (
        TableSet.from_arrays(tables.to_arrays()),
        pickle.loads(pickle.dumps(tables)),
        copy.deepcopy(tables),
    ):
        assert again == tables
        assert hash(again) == hash(tables)
        assert again.digest() == tables.digest()
    assert all(array.dtype == np.int32 for array in tables.to_arrays().values())


def test_digest_tells_tables_apart():
    half = 2**23
    sets = [
        TableSet([half, half], [2], [0]),
        TableSet([half, half], [2], [1]),
        TableSet([half + 1, half - 1], [2], [0]),
        TableSet([half, half] * 2, [2, 2], [0, 0]),
    ]
    assert len({tables.digest() for tables in sets}) == len(set(sets)) == 4
    assert sets[0] != "something else"
    assert sets[0].digest().hex() == "03e146827df508376ac72099a80a8236fa1f32f531b561c4ed19ef22c28ae2fb", (
        "fingerprints of released models depend on this value"
    )


def test_arrays_are_read_only_copies():
    frequencies = np.array([2**23, 2**23], np.uint32)
    tables = TableSet(frequencies, [2], [0])
    frequencies[0] = 0
    assert tables.table(0)[0] == 2**23
    with pytest.raises(ValueError, match="read-only"):
        tables.table(0)[0] = 1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (([TOTAL - 1, 2], [2], [0]), "sums to 16777217"),
        (([TOTAL, 0], [2], [0]), r"frequencies must be in \[1"),
        (([TOTAL, -1, 1], [3], [0]), r"frequencies must be in \[1"),
        (([2**31, 2**31], [2], [0]), "frequencies must be in"),
        (([TOTAL], [1], [0]), "lengths must be in"),
        (([1] * 65537, [65537], [0]), "lengths must be in"),
        (([2**23] * 2, [3], [0]), "lengths sum to 3"),
        (([2**23] * 2, [2], [0, 0]), "1 lengths but 2 minimums"),
        (([2**23] * 2, [2], [2**31]), "minimums must be in"),
        (([2**22] * 4, [4], [2**31 - 1]), "leaves the range of int32"),
        (([[2**23] * 2], [2], [0]), "frequencies must be 1-D"),
        ((np.zeros(0, int), np.zeros(0, int), np.zeros(0, int)), "1 to 65536 tables"),
    ],
)
def test_invalid_tables(arrays, message):
    with pytest.raises(ValueError, match=message):
        TableSet(*arrays)


def test_wrong_types():
    with pytest.raises(TypeError, match="frequencies must hold integers, got float64"):
        TableSet([0.5, 0.5], [2], [0])
    with pytest.raises(ValueError, match="missing arrays: lengths, minimums"):
        TableSet.from_arrays({"frequencies": [1]})


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[1.0]], "2 to 65536 slots"),
        ([[1.0, -1e-9]], "negative or not finite"),
        ([[1.0, math.nan]], "negative or not finite"),
        ([[1.0, math.inf]], "negative or not finite"),
        ([[0.0, 0.0]], "sum to 0"),
        ([[1.0, 1.0], [[1.0]]], "table 1 must be 1-D"),
        ([], "1 to 65536 tables"),
    ],
)
def test_invalid_probabilities(weights, message):
    with pytest.raises(ValueError, match=message):
        TableSet.from_probabilities(weights, np.zeros(len(weights), int))


def test_gaussian_tables_are_gaussian():
    scales = np.exp(np.linspace(math.log(0.11), math.log(256), 24))
    tables = gaussian_tables(scales)
    for k, scale in enumerate(scales):
        support = tables.support(k)
        m = support[-1]
        table = tables.table(k).astype(np.int64)
        assert support[0] == -m
        assert np.abs(table[:-1] - table[:-1][::-1]).max() <= 1
        assert math.erfc((m + 0.5) / scale / 2**0.5) < 2**-22
        assert m == 0 or math.erfc((m - 0.5) / scale / 2**0.5) >= 2**-22
        assert table[-1] <= 6
        expected = math.erf(0.5 / scale / 2**0.5) * TOTAL
        assert abs(table[m] - expected) <= len(table) + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.0],), "positive"),
        (([math.nan],), "positive"),
        (([math.inf],), "positive"),
        (([1e5],), "at most 65535"),
        (([1.0], 0.0), "tail_mass"),
    ],
)
def test_invalid_gaussians(arguments, message):
    with pytest.raises(ValueError, match=message):
        gaussian_tables(*arguments)


def test_coded_size_is_the_cost_the_table_states():
    rng = np.random.default_rng(0)
    scales = np.array([0.2, 1.0, 7.0, 30.0])
    tables = gaussian_tables(scales)
    indexes = rng.integers(0, 4, 4000).astype(np.uint8)
    symbols = np.rint(rng.normal(size=4000) * scales[indexes]).astype(np.int32)
    bits = 0.0
    for symbol, index in zip(symbols.tolist(), indexes.tolist(), strict=True):
        if symbol in tables.support(index):
            bits += 24 - math.log2(tables.table(index)[symbol - tables.support(index)[0]])
    encoder = SymbolEncoder()
    encoder.put(symbols, indexes, tables)
    assert bits - 1 < 8 * len(encoder.finish()) < bits + 64 + 40
