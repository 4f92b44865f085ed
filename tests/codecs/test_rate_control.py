"""The search for a quality that meets a target."""

import math
from itertools import accumulate
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentpress.codecs.rate_control import QualitySearch, search_nearby

HIGHEST = 1000
MOST_TRIALS = 24


class Counted:
    def __init__(self, sizes):
        self.sizes = sizes
        self.trials = []

    def __call__(self, setting: int) -> int:
        self.trials.append(setting)
        return setting


def search(sizes, target):
    trial = Counted(sizes)
    result = QualitySearch(trial, lambda setting: sizes[setting], len(sizes) - 1).at_most(target)
    return result, trial.trials


@st.composite
def rising(draw):
    """Curves that rise in steps of every size, with flat stretches and cliffs."""
    base = draw(st.floats(1.0001, 1.02))
    bumps = draw(st.lists(st.tuples(st.integers(0, HIGHEST), st.floats(0, 1e5)), max_size=8))
    flats = draw(st.lists(st.tuples(st.integers(0, HIGHEST), st.integers(0, 400)), max_size=3))
    steps = [base**setting * (base - 1) for setting in range(HIGHEST + 1)]
    for setting, height in bumps:
        steps[setting] += height
    for start, length in flats:
        steps[start : start + length] = [0.0] * len(steps[start : start + length])
    return list(accumulate(steps, initial=10.0))[1:]


@given(rising(), st.floats(1, 1e9))
def test_largest_setting_within_the_target(sizes, target):
    found, trials = search(sizes, target)
    within = [setting for setting, size in enumerate(sizes) if size <= target]
    # Logarithms may put a size that is the target to a rounding error on the wrong side.
    if all(abs(size / target - 1) > 1e-9 for size in sizes):
        assert found == (within[-1] if within else None)
    assert len(trials) <= MOST_TRIALS
    assert len(trials) == len(set(trials))


@given(rising(), st.floats(1, 1e6), st.integers(0, 2**32 - 1), st.floats(0, 0.2))
def test_ripple(sizes, target, seed, height):
    """With ripples the result is still within the target, and one step more is not."""
    random = Random(seed)
    rippled = [size * (1 + random.uniform(-height, height)) for size in sizes]
    found, trials = search(rippled, target)
    assert len(trials) <= MOST_TRIALS
    if found is None:
        assert rippled[0] > target * (1 - 1e-9)
    else:
        assert rippled[found] <= target * (1 + 1e-9)
        assert found == HIGHEST or rippled[found + 1] > target * (1 - 1e-9)


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_whole_numbers_are_compared_exactly(size, target):
    """Bytes: no rounding of a logarithm decides."""
    found, _ = search([size, size + 10**9], target)
    assert found == (0 if size <= target else None)


@pytest.mark.parametrize("setting", [0, 1, 499, 999, 1000])
def test_target_that_is_met_exactly(setting):
    sizes = [1000 + 3 * k for k in range(HIGHEST + 1)]
    assert search(sizes, sizes[setting])[0] == setting


@pytest.mark.parametrize("highest", [0, 1, 2, 3])
def test_few_settings(highest):
    sizes = [10 * (k + 1) for k in range(highest + 1)]
    for target in range(1, 10 * highest + 20):
        found, trials = search(sizes, target)
        assert found == (min(highest, target // 10 - 1) if target >= 10 else None)
        assert len(trials) <= highest + 1


def test_smooth_curves_take_few_trials():
    """The point of interpolating: bytes that grow about exponentially, as those of pictures do."""
    sizes = [round(800 * 1.005**k + 2 * k) for k in range(HIGHEST + 1)]
    for target in range(900, sizes[-1], 997):
        assert len(search(sizes, target)[1]) <= 6


@given(rising(), st.floats(1, 1e9))
def test_closest_is_the_lowest_where_none_is_within(sizes, target):
    trial = Counted(sizes)
    found = QualitySearch(trial, lambda setting: sizes[setting], len(sizes) - 1).closest(target)
    within, trials = search(sizes, target)
    assert found == (0 if within is None else within)
    assert trial.trials == trials


def test_constant_measure():
    assert search([5] * 20, 5)[0] == 19
    assert search([5] * 20, 4)[0] is None


class TestNearby:
    """A search that has few trials and a good place to start."""

    @given(
        st.floats(1.001, 1.05),
        st.floats(0.5, 2.0),
        st.integers(0, HIGHEST),
        st.floats(0.5, 2.0),
        st.integers(1, 4),
    )
    def test_never_tries_twice_or_outside(self, base, factor, start, off, most):
        target = factor * base**start
        growth = off * math.log(base)
        tried = search_nearby(lambda s: s, lambda s: base**s, target, start, growth, HIGHEST, most)
        assert tried[0] == start
        assert len(tried) == len(set(tried)) <= most
        assert all(0 <= setting <= HIGHEST for setting in tried)

    @given(st.integers(100, 900), st.floats(-0.1, 0.1), st.floats(0.8, 1.25))
    def test_comes_close(self, start, excess, off):
        """Even with a growth that is a quarter off."""
        base = 1.01
        target = base**start * math.exp(excess)
        growth = off * math.log(base)
        tried = search_nearby(lambda s: s, lambda s: base**s, target, start, growth, HIGHEST, 3)
        inside = [base**setting for setting in tried if base**setting <= target]
        assert max(inside) > target * 0.965

    @pytest.mark.parametrize("growth", [0.0, -0.01])
    def test_a_curve_that_does_not_rise(self, growth):
        assert search_nearby(lambda s: s, lambda s: 5.0, 6.0, 10, growth, HIGHEST, 3) == [10]
