"""Projection on the fields without divergence."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress.models.field.projection import solenoidal

SHAPE = (12, 9, 10)


def flow(shape: tuple[int, int, int]) -> torch.Tensor:
    """A smooth flow without divergence, the curl of a potential; not periodic."""
    z, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) / 8 for n in shape), indexing="ij")
    # The curl of (sin(x + y), cos(z + 2 x), sin(y - z)) in the order of the axes.
    return torch.stack(
        [
            torch.cos(y - z) + 2 * torch.sin(z + 2 * x),
            torch.cos(x + y) + torch.cos(y - z),
            -torch.sin(z + 2 * x) - torch.cos(x + y),
        ]
    )


def fourth_order_divergence(velocity: torch.Tensor) -> torch.Tensor:
    """Inside the borders, written without matrices."""
    total = torch.zeros(())
    for axis in range(3):
        u = velocity[axis].movedim(axis, 0)
        d = 2 / 3 * (u[3:-1] - u[1:-3]) - 1 / 12 * (u[4:] - u[:-4])
        d = d[:, 2:-2, 2:-2].movedim(0, axis)
        total = total + d
    return total


@given(st.integers(0, 10_000), st.sampled_from([(0, 0, 0), (1, 0, 0), (0, 1, 1), (1, 0, 1)]))
@settings(max_examples=20, deadline=None)
def test_nothing_is_left_and_nothing_else_taken(seed: int, wraps: tuple[int, int, int]) -> None:
    """The result has no divergence, stays as it is, and what was taken is at right angles to it."""
    noise = torch.randn(3, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    periodic = tuple(map(bool, wraps))
    once = solenoidal(noise, periodic)
    assert fourth_order_divergence(once).abs().max() < 1e-10
    assert torch.allclose(solenoidal(once, periodic), once, atol=1e-10)
    assert abs(float(((noise - once) * once).sum())) < 1e-8
    assert float((noise - once).square().sum()) > 0.05 * float(noise.square().sum())


def test_errors_shrink_and_the_flow_stays() -> None:
    true = flow((20, 16, 18))
    assert float((solenoidal(true, (False,) * 3) - true).abs().max()) < 2e-3
    noisy = true + 0.1 * torch.randn(
        true.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    before, after = ((x - true).square().mean() for x in (noisy, solenoidal(noisy, (False,) * 3)))
    assert after < 0.85 * before


def test_periodic_fields_are_projected_in_fourier_space() -> None:
    """A gradient vanishes but for its mean."""
    x = torch.arange(16) * (2 * math.pi / 16)
    gradient = torch.zeros(3, 16, 16, 16)
    gradient[0] = torch.cos(3 * x)[:, None, None] + 0.5
    assert torch.allclose(
        solenoidal(gradient), torch.full((), 0.5) * (torch.arange(3) == 0)[:, None, None, None]
    )


def test_type_is_kept() -> None:
    assert solenoidal(torch.zeros(3, 5, 5, 5), (False,) * 3).dtype == torch.float32


@pytest.mark.parametrize("shape", [(2, 8, 8, 8), (3, 8, 8), (3, 8, 4, 8)])
def test_shapes_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected three components|more than 4 samples"):
        solenoidal(torch.zeros(shape), (False,) * 3)


@pytest.mark.parametrize("periodic", [(False, False, False), (True, False, False), (False, True, True)])
def test_divergence_up_to_the_ends(periodic: tuple[bool, bool, bool]) -> None:
    """Differences of second order beside the outermost samples of open axes, of fourth order elsewhere."""
    noise = torch.randn(3, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    once = solenoidal(noise, periodic, to_ends=True)
    total = torch.zeros(())
    inner = tuple(slice(None) if wraps else slice(1, -1) for wraps in periodic)
    for axis, wraps in enumerate(periodic):
        u = once[axis].movedim(axis, 0)
        near, far = u.roll(-1, 0) - u.roll(1, 0), u.roll(-2, 0) - u.roll(2, 0)
        d = 2 / 3 * near - 1 / 12 * far
        if not wraps:
            d[[1, -2]] = near[[1, -2]] / 2
        total = total + d.movedim(0, axis)[inner]
    assert total.abs().max() < 1e-10
    assert torch.allclose(solenoidal(once, periodic, to_ends=True), once, atol=1e-10)
    assert abs(float(((noise - once) * once).sum())) < 1e-8
