"""Statistics of a field that is seen part by part are those of the whole."""

from __future__ import annotations

import numpy as np
import pytest

from latentpress.codecs.field_statistics import SourceStatistics


@pytest.fixture
def field() -> np.ndarray:
    x = np.random.default_rng(0).normal(5, 2, (4, 10, 11, 12))
    x[1, 3] = np.nan
    x[3] = 7
    return x


def by_parts(x: np.ndarray) -> SourceStatistics:
    found = SourceStatistics(len(x))
    for start, stop in ((0, 1), (1, 4), (4, 9), (9, 10)):
        for low, high in ((0, 6), (6, 12)):
            found.add(x[:, start:stop, :, low:high], (start, 0, low))
    return found


def test_moments_and_range(field) -> None:
    found = by_parts(field)
    np.testing.assert_allclose(found.means, np.nanmean(field, (1, 2, 3)))
    first = np.concatenate([(field[c] - np.nanmean(field[c])).ravel() for c in range(3)])
    np.testing.assert_allclose(found.scales, [np.sqrt(np.nanmean(np.square(first))), 1.0])
    assert found.range == np.nanmax(field) - np.nanmin(field)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("place", [(0, 0, 0), (4, 10, 5), (9, 3, 11)])
def test_place_of_the_largest_value(field, sign, place) -> None:
    assert by_parts(field).largest_place(0) != place
    field[(2, *place)] = 5 + sign * 40
    assert by_parts(field).largest_place(0) == place


def test_nothing_finite() -> None:
    found = by_parts(np.full((2, 10, 1, 12), np.inf))
    assert found.range == 0
    assert found.scales == (1.0,)
    assert found.largest_place(0) == (0, 0, 0)
