"""Low-passes of decoded distances."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter

from latentpress.models.shape.extraction import surface_of
from latentpress.models.shape.layers import GRID_HALF_WIDTH
from latentpress.models.shape.smoothing import SMOOTHINGS, Smoothing, _depth, smoothed

RESOLUTION = 64
CELL = 2 * GRID_HALF_WIDTH / RESOLUTION

numbers = pytest.mark.parametrize("number", [1, 2, 3])


def nodes() -> torch.Tensor:
    line = torch.linspace(-GRID_HALF_WIDTH, GRID_HALF_WIDTH, RESOLUTION + 1)
    return torch.stack(torch.meshgrid(line, line, line, indexing="ij"))


def rough(distances: torch.Tensor) -> torch.Tensor:
    return distances + 0.01 * torch.randn(distances.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("width", [0.4, 1.0, 2.7])
def test_the_average_is_that_of_another_library(width) -> None:
    values = torch.randn(11, 12, 13, generator=torch.Generator().manual_seed(1))
    found = smoothed(values, Smoothing(width, everywhere=True), cell=1.0)
    radius = int(np.ceil(3 * width))
    expected = gaussian_filter(values.numpy(), width, mode="nearest", radius=radius)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_none_changes_nothing() -> None:
    values = rough(nodes().norm(dim=0) - 0.7)
    assert smoothed(values, SMOOTHINGS[0], CELL) is values


@numbers
def test_a_rough_ball_becomes_rounder(number) -> None:
    values = rough(nodes().norm(dim=0) - 0.7)
    plain, smooth = (
        np.linalg.norm(surface_of(values, SMOOTHINGS[k]).vertices, axis=1) - 0.7 for k in (0, number)
    )
    assert np.abs(smooth).mean() < 0.85 * np.abs(plain).mean()
    assert abs(smooth.mean()) < 0.003


@numbers
def test_thin_sheets_stay_unless_all_is_smoothed(number) -> None:
    sheet = nodes()[0].abs() - 0.006
    found = smoothed(sheet, SMOOTHINGS[number], CELL)
    if SMOOTHINGS[number].everywhere:
        assert found.min() > 0.1 * sheet.min()  # as good as melted away
    else:
        torch.testing.assert_close(found, sheet)


def test_narrow_gaps_stay() -> None:
    gap = 0.006 - nodes()[0].abs()
    torch.testing.assert_close(smoothed(gap, SMOOTHINGS[2], CELL), gap)


def test_thickness_is_looked_for_in_a_cube() -> None:
    values = torch.randn(7, 8, 9, generator=torch.Generator().manual_seed(2))
    found = _depth(values, cell=0.024)
    highest, lowest = (f(values.numpy(), 5, mode="nearest") for f in (maximum_filter, minimum_filter))
    np.testing.assert_array_equal(found.numpy(), np.minimum(highest, -lowest))
