"""Side information: sizes that are no multiple of its stride, and who depends on what."""

from typing import NamedTuple

import pytest
import torch

from latentpress.models.entropy.fixed_point import UNIT, convert, to_float
from latentpress.models.entropy.hyperprior import (
    HYPER_LIMIT,
    ContextualHyperPrior,
    HyperAnalysis,
    HyperPrior,
    HyperSynthesis,
    SideInformationDesign,
    build_hyper_prior,
)
from latentpress.models.entropy.latent_model import to_nearest

DESIGN = SideInformationDesign(channels=6, depth=2)
QUALITIES = torch.tensor([12.5, 90.0])


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 8), (9, 2)])
def test_sizes(size) -> None:
    quality = torch.tensor([20.0, 80.0])
    z = HyperAnalysis(8, 6, 4)(torch.randn(2, *size, 8), quality)
    coarse = tuple(-(-side // 4) for side in size)
    assert z.shape == (2, *coarse, 4)
    features = HyperSynthesis(4, 6, 10)(z, quality)
    assert features.shape == (2, 4 * coarse[0], 4 * coarse[1], 10)
    assert HyperPrior(4)(quality).shape == (2, 4)


@torch.no_grad()
def test_padding_repeats_the_border() -> None:
    analysis = HyperAnalysis(4, 6, 4)
    y = torch.randn(1, 5, 6, 4)
    rows, columns = torch.arange(8).clamp(max=4), torch.arange(8).clamp(max=5)
    quality = torch.tensor([50.0])
    assert torch.equal(analysis(y, quality), analysis(y[:, rows][:, :, columns], quality))


@torch.no_grad()
def test_large_latents_keep_their_digits_under_autocast() -> None:
    analysis = HyperAnalysis(4, 6, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert analysis(torch.randn(1, 4, 4, 4) * 100, torch.tensor([50.0])).dtype == torch.float32


def test_side_information_is_limited_and_pulled_back() -> None:
    analysis = HyperAnalysis(4, 6, 4)
    with torch.no_grad():
        analysis.head.linear.bias[0] = 1e6
    z = analysis(torch.randn(1, 4, 4, 4), torch.tensor([50.0]))
    assert float(z.detach().abs().max()) == HYPER_LIMIT
    z.square().sum().backward()
    assert float(analysis.head.linear.bias.grad[0]) > 0


def noisy_prior(design: SideInformationDesign | None = DESIGN) -> HyperPrior:
    """For 8 channels, with weights that make it predict something."""
    prior = build_hyper_prior(8, design)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter += 0.15 * torch.randn_like(parameter)
    return prior


class Coded(NamedTuple):
    """What a prior on integers makes of z: raw scales and means where they were coded, and z decoded."""

    raw_scale: torch.Tensor
    mean: torch.Tensor
    z_hat: torch.Tensor
    steps: int


def coded(integers: HyperPrior, z: torch.Tensor, quality: torch.Tensor) -> Coded:
    raw_scale, mean = (torch.full((z.numel(),), torch.nan, dtype=torch.float64) for _ in range(2))
    steps = 0

    def exchange(step):
        nonlocal steps
        steps += 1
        raw_scale[step.positions], mean[step.positions] = step.raw_scale, step.mean.double()
        return torch.round(z.flatten()[step.positions] - step.mean / UNIT) * UNIT

    z_hat = integers.code(z.shape[1:-1], quality, exchange)
    return Coded(raw_scale.view_as(z), mean.view_as(z), z_hat, steps)


@torch.no_grad()
def test_before_training_the_contextual_prior_is_the_plain_one() -> None:
    plain, contextual = HyperPrior(8), ContextualHyperPrior(8, DESIGN)
    plain.raw_scale.knots.normal_()
    contextual.raw_scale.load_state_dict(plain.raw_scale.state_dict())
    z = 3 * torch.randn(2, 3, 5, 8)
    expected, found = (prior.quantise(z, QUALITIES, to_nearest) for prior in (plain, contextual))
    assert torch.equal(found.raw_scale, expected.raw_scale)
    assert torch.equal(found.y_hat, expected.y_hat)
    assert not found.mean.any()
    assert len(found.raw_scale.unique()) == 2 * 8
    expected, found = (coded(convert(prior), z.double(), QUALITIES) for prior in (plain, contextual))
    assert torch.equal(found.raw_scale, expected.raw_scale)
    assert torch.equal(found.z_hat, expected.z_hat)
    assert not found.mean.any()


@pytest.mark.parametrize(("design", "steps"), [(None, 1), (DESIGN, 4)])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 2)])
@torch.no_grad()
def test_integers_code_what_training_predicts(design, steps, size) -> None:
    torch.manual_seed(4)
    integers = convert(noisy_prior(design))
    z = 3 * torch.randn(2, *size, 8, dtype=torch.float64)
    found = coded(integers, z, QUALITIES)
    assert found.steps == integers.steps == steps
    assert not found.raw_scale.isnan().any()
    # The decoder's z quantises to itself, so both see the same z so far.
    decoded = (found.z_hat / UNIT).float()
    expected = to_float(integers).quantise(decoded, QUALITIES, to_nearest)
    assert float((decoded - z).abs().max()) < 0.501
    for integer, real in ((found.raw_scale, expected.raw_scale), (found.mean, expected.mean)):
        torch.testing.assert_close(integer / UNIT, real.double(), rtol=0, atol=0.01)
    assert bool(found.mean.any()) == (design is not None)


@pytest.mark.parametrize("design", [None, DESIGN])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 2)])
@torch.no_grad()
def test_in_a_batch_each_is_coded_as_alone(design, size) -> None:
    torch.manual_seed(5)
    integers = convert(noisy_prior(design))
    z = 3 * torch.randn(2, *size, 8, dtype=torch.float64)
    together = coded(integers, z, QUALITIES)
    for number in range(2):
        one = slice(number, number + 1)
        alone = coded(integers, z[one], QUALITIES[one])
        for name in ("raw_scale", "mean", "z_hat"):
            assert torch.equal(getattr(together, name)[one], getattr(alone, name))


def test_contextual_channels_must_be_divisible() -> None:
    with pytest.raises(ValueError, match="multiple of 4, got 6"):
        ContextualHyperPrior(6, DESIGN)
