"""Vectors that depend on the quality."""

import pytest
import torch

from latentpress.models.quality import QualityGain, QualityVector


def filled(kind=QualityVector, knots: int = 5) -> QualityVector:
    torch.manual_seed(0)
    layer = kind(3, knots)
    torch.nn.init.normal_(layer.knots)
    return layer


def test_knots_are_met_exactly() -> None:
    layer = filled()
    torch.testing.assert_close(layer(torch.linspace(0, 100, 5)), layer.knots, rtol=0, atol=1e-6)


def test_linear_between_knots() -> None:
    layer = filled()
    quality = torch.tensor([30.0])
    expected = 0.8 * layer.knots[1] + 0.2 * layer.knots[2]
    torch.testing.assert_close(layer(quality)[0], expected)


@pytest.mark.parametrize(("outside", "end"), [(-5.0, 0.0), (120.0, 100.0)])
def test_clamped_outside(outside, end) -> None:
    layer = filled()
    assert torch.equal(layer(torch.tensor([outside])), layer(torch.tensor([end])))


def test_line_from_first_to_last() -> None:
    layer = QualityVector(2, knots=21, first=-1.0, last=3.0)
    quality = torch.linspace(0, 100, 11)
    torch.testing.assert_close(layer(quality), (-1 + quality / 25)[:, None].expand(11, 2))


def test_continuous_and_a_batch_is_its_items() -> None:
    layer = filled(knots=21)
    quality = torch.linspace(0, 100, 1001)
    batch = layer(quality)
    steepest = layer.knots.detach().diff(dim=0).abs().max()
    assert float(batch.detach().diff(dim=0).abs().max()) <= float(steepest) * 0.1 / 5 * 1.001
    assert torch.equal(batch[250:251], layer(quality[250:251]))


def test_gradient_reaches_the_two_neighbours() -> None:
    layer = filled()
    layer(torch.tensor([30.0])).sum().backward()
    assert layer.knots.grad[:, 0].tolist() == pytest.approx([0, 0.8, 0.2, 0, 0], abs=1e-6)


def test_gain_is_the_exponential_and_starts_at_one() -> None:
    quality = torch.tensor([0.0, 33.0, 100.0])
    assert torch.equal(QualityGain(4)(quality), torch.ones(3, 4))
    gain, vector = filled(QualityGain), filled()
    torch.testing.assert_close(gain(quality), vector(quality).exp())
    assert bool((gain(quality) > 0).all())


def test_full_precision_under_autocast() -> None:
    layer = filled()
    quality = torch.tensor([41.0])
    expected = layer(quality)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(quality).float(), expected)
