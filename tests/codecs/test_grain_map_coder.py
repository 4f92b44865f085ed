"""The coder of the granularity map."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentpress.codecs.grain_map_coder import (
    CONTEXTS,
    TABLES_EACH,
    code_map,
    context_of,
    level_of,
    levels_of,
    steps_of,
    tables_from_counts,
)
from latentpress.codecs.symbol_channel import Receiver, Sender

TABLES = tables_from_counts(np.zeros((2 * TABLES_EACH, 2)))


def random_map(seed: int, h: int, w: int, split: float, fine: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    cells = random.random((h, w)) < split
    quarters = random.random((2 * h, 2 * w)) < fine
    return cells, quarters & cells.repeat(2, axis=0).repeat(2, axis=1)


@given(st.integers(0, 99), st.integers(1, 9), st.integers(1, 9), st.floats(0, 1), st.floats(0, 1))
def test_maps_round_trip(seed, h, w, split, fine) -> None:
    grains = random_map(seed, h, w, split, fine)
    levels = levels_of(*grains)
    sender = Sender()
    code_map(sender, TABLES, levels, (h, w), grains)
    receiver = Receiver(sender.finish())
    found = code_map(receiver, TABLES, levels, (h, w), None)
    receiver.finish(sender.checksum)
    assert np.array_equal(found[0], grains[0])
    assert np.array_equal(found[1], grains[1])


@pytest.mark.parametrize(("split", "fine"), [(0, 0), (1, 1), (1, 0)])
def test_all_or_none_cost_nothing(split, fine) -> None:
    grains = random_map(0, 6, 6, split, fine)
    sender = Sender()
    code_map(sender, TABLES, levels_of(*grains), (6, 6), grains)
    assert sender.finish() == b""


def test_levels_rise_with_the_share() -> None:
    shares = np.linspace(0, 1, 500)
    levels = [level_of(share) for share in shares]
    assert levels == sorted(levels)
    assert (levels[0], levels[1], levels[-2], levels[-1]) == (0, 1, 14, 15)


def test_steps_are_the_positions_of_a_square() -> None:
    assert steps_of(4, 4)[:2, :2].tolist() == [[0, 3], [2, 1]]
    assert np.bincount(steps_of(6, 8).ravel()).tolist() == [12] * 4


def test_contexts_count_known_neighbours() -> None:
    known = np.zeros((3, 3), bool)
    bits = np.zeros((3, 3), bool)
    assert context_of(bits, known)[1, 1] == 0
    known[0, 0] = True
    assert context_of(bits, known)[1, 1] == 1
    bits[0, 0] = True
    assert context_of(bits, known)[1, 1] == CONTEXTS - 1
    known[:] = True
    assert 2 <= context_of(bits, known)[1, 1] <= CONTEXTS - 2
    # What is not known does not count, whatever is written there.
    assert context_of(np.ones((3, 3), bool), np.zeros((3, 3), bool))[1, 1] == 0


def test_tables_follow_the_counts() -> None:
    counts = np.zeros((2 * TABLES_EACH, 2))
    counts[5] = 1000, 3000
    tables = tables_from_counts(counts)
    assert tables.table(5)[1] / 2**24 == pytest.approx(0.75, abs=0.01)
    assert len(tables) == 2 * TABLES_EACH
    assert list(tables.support(5)) == [0, 1]


def test_smooth_maps_cost_less_than_a_bit() -> None:
    y, x = np.mgrid[0:32, 0:48]
    cells = np.hypot(y - 16, x - 20) < 11
    sender = Sender()
    code_map(sender, TABLES, levels_of(cells, cells.repeat(2, 0).repeat(2, 1)), (32, 48),
             (cells, cells.repeat(2, 0).repeat(2, 1)))  # fmt: skip
    assert len(sender.finish()) * 8 < 0.5 * cells.size
