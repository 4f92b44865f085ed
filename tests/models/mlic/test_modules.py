"""The modules of the slice-wise model: integers next to real numbers, and what they look at."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress.models.entropy.fixed_point import UNIT, convert, to_fixed_point
from latentpress.models.entropy.gaussian import SCALE_MIN, scale_from_raw
from latentpress.models.mlic.channel_reweighting import ChannelReweighting
from latentpress.models.mlic.entropy_parameters import ChannelContext, EntropyParameters, PositionBlock
from latentpress.models.mlic.global_context import HyperCorrelation, InterSliceContext, IntraSliceContext
from latentpress.models.mlic.residual_prediction import ResidualPrediction
from latentpress.models.mlic.selective import SelectiveCompression, coded_share
from latentpress.models.mlic.token_mixing import TokenMixingBlock


def perturbed(module: torch.nn.Module, seed: int, scale: float = 0.1) -> torch.nn.Module:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)
    return module.eval()


def modules(seed: int):
    """Name, float module, arguments."""
    torch.manual_seed(seed + 1)
    x, y = torch.randn(1, 4, 5, 8) * 2, torch.randn(1, 4, 3, 4) * 2
    hidden = torch.randn(1, 4, 3, 8)
    yield "inter-slice", InterSliceContext(8, 8, 2), (x,)
    yield "intra-slice", IntraSliceContext(8, 4, 8, 2), (x, y)
    yield "hyper correlation", HyperCorrelation(8, 8, 2), (x,)
    yield "reweighting", ChannelReweighting(8), (x,)
    yield "channel context", ChannelContext(8, 8), (x,)
    yield "position block", PositionBlock(8), (x,)
    yield "residual prediction", ResidualPrediction(8, 4, 8), (hidden, y)
    yield "selective", SelectiveCompression(8, 4, 0.2), (hidden, y)


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_integers_are_close_to_real_numbers(seed):
    for name, module, arguments in modules(seed):
        perturbed(module, seed)
        with torch.inference_mode():
            expected = module(*arguments) * UNIT
            found = convert(module)(*map(to_fixed_point, arguments))
        assert found.dtype == torch.float64, name
        assert torch.equal(found, found.round()), name
        assert float((found - expected).abs().max()) < 40, name


def test_entropy_parameters_in_integers():
    layer = perturbed(EntropyParameters(12, 8, 4), 0)
    contexts = [torch.randn(1, 3, 2, 8), torch.randn(1, 3, 2, 4)]
    with torch.inference_mode():
        expected = layer(contexts, torch.float32)
        found = convert(layer)([to_fixed_point(x) for x in contexts], torch.float64)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.float() / UNIT, b, atol=0.02, rtol=0)


def test_every_parameter_has_a_gradient():
    for name, module, arguments in modules(3):
        perturbed(module.train(), 3)
        module(*arguments).square().sum().backward()
        for parameter_name, parameter in module.named_parameters():
            assert parameter.grad is not None, (name, parameter_name)
            assert bool(parameter.grad.any()), (name, parameter_name)


@torch.no_grad()
def test_global_contexts_see_the_whole_map():
    x, anchor = torch.randn(1, 16, 16, 8), torch.randn(1, 16, 8, 4)
    far = x.clone()
    far[0, 0, 0] += 3
    inter = perturbed(InterSliceContext(8, 8, 2), 5)
    assert bool((inter(far)[0, 15, 15] != inter(x)[0, 15, 15]).any())
    intra = perturbed(IntraSliceContext(8, 4, 8, 2), 5)
    moved = anchor.clone()
    moved[0, 0, 0] += 3
    assert bool((intra(x, moved)[0, 15, 7] != intra(x, anchor)[0, 15, 7]).any())
    hyper = perturbed(HyperCorrelation(8, 8, 2), 5)
    assert bool((hyper(far)[0, 15, 0] == hyper(x)[0, 15, 0]).all()), "keys are of the other half"
    far = x.clone()
    far[0, 0, 1] += 3
    assert bool((hyper(far)[0, 15, 0] != hyper(x)[0, 15, 0]).any())


@torch.no_grad()
def test_reweighting_keeps_positions_apart_but_for_the_scores():
    layer = perturbed(ChannelReweighting(8), 2, 0.5)
    x = torch.randn(1, 5, 7, 8)
    order = torch.randperm(35)
    shuffled = x.flatten(1, 2)[:, order].unflatten(1, (5, 7))
    torch.testing.assert_close(
        layer(shuffled).flatten(1, 2), layer(x).flatten(1, 2)[:, order], rtol=1e-4, atol=1e-4
    )


class TestResidualPrediction:
    @torch.no_grad()
    def test_at_most_half_a_step(self):
        layer = perturbed(ResidualPrediction(8, 4, 8), 1, 5.0)
        found = layer(torch.randn(100, 8) * 10, torch.randn(100, 4) * 10)
        assert float(found.abs().max()) == 0.5

    def test_learns_what_rounding_took(self):
        """A latent that is always 0.3 above its mean is rounded to it, and found again."""
        torch.manual_seed(0)
        layer = ResidualPrediction(2, 1, 8)
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.03)
        for _ in range(60):
            error = (layer(torch.ones(8, 2), torch.zeros(8, 1)) - 0.3).square().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
        assert float(error.detach()) < 1e-3


class TestSelective:
    def test_starts_at_its_threshold(self):
        layer = SelectiveCompression(8, 4, scale=0.3)
        raw_scale = torch.linspace(-4, 2, 400)[:, None].expand(400, 4)
        skipped = layer(torch.randn(400, 8), raw_scale) > 0
        assert torch.equal(skipped, scale_from_raw(raw_scale) < 0.3)

    def test_none_below_the_smallest_scale(self):
        layer = SelectiveCompression(8, 1, scale=SCALE_MIN)
        assert not bool((layer(torch.zeros(1, 8), torch.tensor([[-2.9]])) > 0).any())

    def test_bits_pull_towards_skipping_and_errors_away(self):
        score = torch.tensor([0.3, 0.3, -0.3, -0.3], requires_grad=True)
        residual = torch.tensor([0.0, 2.0, 0.0, 2.0])
        share = coded_share(score)
        assert share.tolist() == [0, 0, 1, 1]
        (share * 1.0 + (residual - share * residual).square()).sum().backward()
        # A descent step raises the scores of zeros, and lowers that of a skipped element that is not zero.
        assert score.grad[0] < 0
        assert score.grad[1] > 0
        assert score.grad[2] < 0

    def test_the_scale_is_not_moved_by_the_decision(self):
        layer = SelectiveCompression(8, 4, 0.2)
        raw_scale = torch.zeros(1, 4, requires_grad=True)
        assert not layer(torch.zeros(1, 8), raw_scale.requires_grad_()).sum().backward()
        assert raw_scale.grad is None


@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_token_mixing(size):
    block = TokenMixingBlock(8)
    x = torch.randn(1, *size, 8)
    assert torch.equal(block(x), x)
    perturbed(block.train(), 1)
    y = block(x)
    assert y.shape == x.shape
    assert not torch.equal(y, x)
    y.square().sum().backward()
    assert all(bool(p.grad.any()) for p in block.parameters())


@torch.no_grad()
def test_token_mixing_reaches_four_positions():
    block = perturbed(TokenMixingBlock(4), 2)
    x = torch.randn(1, 15, 15, 4)
    changed = x.clone()
    changed[0, 7, 7, 0] += 1  # one channel: the norm does not see what moves all alike
    moved = (block(changed) != block(x)).any(-1)[0]
    assert bool(moved[7 - 4, 7 - 4])
    assert not bool(moved[7 - 6].any())
