"""Scores of latent channels from latents that a network makes up."""

import pytest
import torch

from latentpress.models.channel_order.made_up import made_up_score
from latentpress.models.channel_order.permutation import permute_latent
from latentpress.models.channel_order.saliency import order_channels
from latentpress.models.entropy.fixed_point import convert
from latentpress.models.entropy.hyperprior import SideInformationDesign
from latentpress.models.image.families import build_image_max_network
from latentpress.models.image.network import build_image_network
from latentpress.models.mlic.design import SliceContextDesign

CHANNELS = 16


@pytest.fixture
def image():
    torch.manual_seed(0)
    return build_image_network(16, 16, CHANNELS, 1, 1, 4, 8, 8, 1).eval().requires_grad_(False)


@pytest.fixture
def with_context_of_z():
    torch.manual_seed(0)
    design = SideInformationDesign(8, 1)
    network = build_image_network(16, 16, CHANNELS, 1, 1, 4, 8, 8, 1, side_information=design)
    return network.eval().requires_grad_(False)


@pytest.fixture
def image_max():
    torch.manual_seed(0)
    design = SliceContextDesign(width=8, channel_context=8)
    network = build_image_max_network(16, 16, CHANNELS, 1, 1, 4, 8, 8, context=design)
    return network.eval().requires_grad_(False)


@pytest.fixture
def mean_scale(compressai_models):
    torch.manual_seed(0)
    return compressai_models.MeanScaleHyperprior(12, CHANNELS).eval().requires_grad_(False)


@pytest.fixture
def cheng2020(compressai_models):
    torch.manual_seed(0)
    return compressai_models.Cheng2020Anchor(CHANNELS).eval().requires_grad_(False)


@pytest.fixture(params=["image", "with_context_of_z", "image_max", "mean_scale", "cheng2020"])
def network(request):
    """Random weights, with biases that differ by channel and latents of several steps."""
    found = request.getfixturevalue(request.param)
    for parameter in found.parameters():
        if parameter.ndim == 1:
            parameter += 0.05 * torch.randn_like(parameter).abs()
    return found


@torch.no_grad()
def test_every_channel_has_a_score(network) -> None:
    score = made_up_score(network, 50.0, latents=1)
    assert score.shape == (CHANNELS,)
    assert score.dtype == torch.float64
    assert bool((score >= 0).all())
    assert float(score.max()) > 0
    assert torch.equal(score, made_up_score(network, 50.0, latents=1))
    assert not torch.equal(score, made_up_score(network, 50.0, latents=1, seed=1))


@pytest.mark.parametrize("name", ["image", "image_max", "mean_scale"])
@torch.no_grad()
def test_what_the_synthesis_does_not_read_has_no_score(name, request) -> None:
    network = request.getfixturevalue(name)
    if hasattr(network, "synthesis"):
        network.synthesis.stem.weight[:, [3, 5]] = 0
    else:  # a transposed convolution has its inputs first
        network.g_s[0].weight[[3, 5]] = 0
    score = made_up_score(network, 50.0, latents=1)
    # Some processors add a batch of several up in another order than one.
    assert (score < 1e-9 * score.max()).nonzero().flatten().tolist() == [3, 5]


@torch.no_grad()
def test_integer_networks_are_taken_as_real_numbers(image) -> None:
    score = made_up_score(image, 50.0, latents=1)
    for part in ("hyper_prior", "hyper_synthesis", "context"):
        setattr(image, part, convert(getattr(image, part)))
    torch.testing.assert_close(made_up_score(image, 50.0, latents=1), score, rtol=0.2, atol=1e-6)


@torch.no_grad()
def test_scores_move_with_their_channels(mean_scale) -> None:
    """Not exactly, as other random numbers meet other channels."""
    mean_scale.g_s[0].weight *= torch.logspace(0, 2, CHANNELS)[:, None, None, None]
    score = made_up_score(mean_scale, 50.0, latents=2)
    order = torch.randperm(CHANNELS, generator=torch.Generator().manual_seed(1))
    permute_latent(mean_scale, order)
    moved = made_up_score(mean_scale, 50.0, latents=2)
    assert float(torch.corrcoef(torch.stack((moved.log(), score[order].log())))[0, 1]) > 0.95


@torch.no_grad()
def test_channels_can_be_ordered_by_it(mean_scale) -> None:
    score = made_up_score(mean_scale, 50.0, latents=1)
    groups = order_channels(mean_scale, core=5, score=score)
    assert groups.core.tolist() == score.argsort(descending=True)[:5].tolist()
