"""Fields between snapshots: what is carried along is found again."""

import math

import pytest
import torch

from latentpress.codecs.field_time import between, travel


def eddies(shift: float, size: int = 32) -> torch.Tensor:
    """Small solenoidal waves on a uniform flow along the first axis, carried by ``shift`` spacings."""
    x = torch.arange(size) * (2 * math.pi / size)
    along = x - shift * 2 * math.pi / size
    field = torch.zeros(3, size, size, size)
    field[0] = 2.0
    field[1] = 0.3 * torch.sin(5 * along)[:, None, None]
    field[2] = 0.3 * torch.cos(4 * along)[:, None, None]
    return field


def test_carried_waves_are_followed() -> None:
    a, b, middle = eddies(0), eddies(3), eddies(1.5)
    assert travel(a, b, True) == pytest.approx(1.5, abs=0.1)
    found, blend = between(a, b, 0.5, periodic=True), 0.5 * (a + b)
    assert float((found - middle).square().mean()) < 0.1 * float((blend - middle).square().mean())
    quarter = between(a, b, 0.25, periodic=True)
    assert float((quarter - eddies(0.75)).square().mean()) < 0.1 * float((blend - middle).square().mean())


@pytest.mark.parametrize("periodic", [False, True])
def test_ends_are_the_snapshots(periodic) -> None:
    a, b = eddies(0, 16).double(), eddies(2, 16).double()
    assert torch.equal(between(a, b, 0.0, periodic), a)
    assert torch.equal(between(a, b, 1.0, periodic), b)
    assert between(a, b, 0.5, periodic).dtype == torch.float64


def test_other_fields_are_blended() -> None:
    a, b = torch.rand(2, 8, 8), torch.rand(2, 8, 8)
    assert torch.allclose(between(a, b, 0.25), 0.75 * a + 0.25 * b)
    still = torch.zeros(3, 8, 8, 8)
    assert torch.equal(between(still, still, 0.5), still)


def test_wrong_arguments() -> None:
    a = torch.rand(3, 8, 8, 8)
    with pytest.raises(ValueError, match="same shape"):
        between(a, a[:2], 0.5)
    with pytest.raises(ValueError, match="t must be"):
        between(a, a, 1.5)
