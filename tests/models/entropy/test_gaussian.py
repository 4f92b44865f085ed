"""The Gaussian entropy model against scipy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from latentpress.models.entropy.fixed_point import table_index, to_fixed_point
from latentpress.models.entropy.gaussian import (
    LIKELIHOOD_MIN,
    SCALE_COUNT,
    SCALE_MAX,
    SCALE_MIN,
    clamp_with_gradient,
    gaussian_bits,
    round_with_gradient,
    scale_from_raw,
    scale_table,
)


def reference_bits(residual: np.ndarray, scale: np.ndarray) -> np.ndarray:
    magnitude = np.abs(residual)
    mass = stats.norm.sf(magnitude - 0.5, scale=scale) - stats.norm.sf(magnitude + 0.5, scale=scale)
    return -np.log2(np.maximum(mass, LIKELIHOOD_MIN))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bits_against_scipy(dtype) -> None:
    residual, scale = np.meshgrid(np.linspace(-12, 12, 97), np.geomspace(SCALE_MIN, SCALE_MAX, 40))
    expected = reference_bits(residual, scale)
    found = gaussian_bits(torch.tensor(residual, dtype=dtype), torch.tensor(scale, dtype=dtype)).double()
    # float32 loses digits where the difference of two tails is small beside them: wide scales.
    tolerance = 2e-3 if dtype == torch.float32 else 1e-9
    np.testing.assert_allclose(found.numpy(), expected, rtol=tolerance, atol=tolerance)


def test_bits_are_symmetric_and_a_distribution() -> None:
    symbols = torch.arange(-3000, 3001, dtype=torch.float64)
    for scale in (0.11, 0.5, 3.0, 256.0):
        bits = gaussian_bits(symbols, torch.full_like(symbols, scale))
        assert torch.equal(bits, bits.flip(0))
        # The smallest likelihood allowed adds a little where the Gaussian has nothing.
        assert float(torch.exp2(-bits).sum()) == pytest.approx(1.0, abs=1e-9 * len(symbols) * 1.01)


def test_far_residuals_cost_no_more_than_the_limit() -> None:
    bits = gaussian_bits(torch.tensor([1e6]), torch.tensor([0.11]))
    assert bits.item() == pytest.approx(-math.log2(LIKELIHOOD_MIN), rel=1e-6)


def test_gradient_pulls_far_residuals_back() -> None:
    residual = torch.tensor([2.0], requires_grad=True)
    gaussian_bits(residual, torch.tensor([1.0])).sum().backward()
    assert residual.grad.item() > 0
    assert torch.autograd.gradcheck(
        gaussian_bits,
        (
            torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64, requires_grad=True),
            torch.tensor([0.4, 1.0, 2.0], dtype=torch.float64, requires_grad=True),
        ),
    )


@pytest.mark.parametrize(
    ("x", "grad", "passes"),
    [
        (-1.0, 1.0, False),  # below, and descent would lead further down
        (-1.0, -1.0, True),
        (2.0, -1.0, False),  # above, and descent would lead further up
        (2.0, 1.0, True),
        (0.5, 1.0, True),
        (0.5, -1.0, True),
    ],
)
def test_clamp_with_gradient(x, grad, passes) -> None:
    value = torch.tensor([x], requires_grad=True)
    clamped = clamp_with_gradient(value, 0.0, 1.0)
    assert torch.equal(clamped, value.clamp(0, 1))
    clamped.backward(torch.tensor([grad]))
    assert value.grad.item() == (grad if passes else 0.0)


def test_scale_table_is_geometric() -> None:
    table = scale_table()
    assert table.shape == (SCALE_COUNT,)
    assert table.dtype == torch.float64
    np.testing.assert_allclose(table.numpy(), np.geomspace(SCALE_MIN, SCALE_MAX, SCALE_COUNT), rtol=1e-12)


def test_training_and_coding_read_raw_scales_alike() -> None:
    """The table of an integer raw scale is the one nearest to the scale that training used."""
    raw = torch.linspace(-4, 6, 4001)
    index = table_index(to_fixed_point(raw)).long()
    nearest = (scale_from_raw(raw).double().log()[:, None] - scale_table().log()).abs().argmin(1)
    # On a border between two tables the fixed-point unit may decide.
    assert int((index != nearest).sum()) <= 80
    assert int((index - nearest).abs().max()) <= 1


def test_scale_from_raw_stays_in_the_table() -> None:
    raw = torch.tensor([-1e4, 0.0, 1e4], requires_grad=True)
    scale = scale_from_raw(raw)
    assert scale.tolist() == pytest.approx([SCALE_MIN, float(scale_table()[24]), SCALE_MAX], rel=1e-5)
    (-scale.log()).sum().backward()  # asks for larger scales
    assert raw.grad[0] < 0
    assert raw.grad[1] < 0
    assert raw.grad[2] == 0


def test_rounding_passes_gradients() -> None:
    x = torch.tensor([0.4, 1.6, -2.5], requires_grad=True)
    rounded = round_with_gradient(x)
    assert rounded.tolist() == torch.round(x).tolist()
    rounded.backward(torch.tensor([1.0, 2.0, 3.0]))
    assert x.grad.tolist() == [1.0, 2.0, 3.0]
