"""Reordering the latent channels of a network with the slice-wise entropy model."""

import pytest
import torch

from latentpress.models.channel_order.permutation import (
    ChangesPredictions,
    permute_latent,
    preserves_predictions,
    preserving_order,
)
from latentpress.models.channel_order.ports import ports_of
from latentpress.models.channel_order.saliency import order_channels
from latentpress.models.entropy.fixed_point import UNIT, convert, to_fixed_point
from latentpress.models.image.families import build_image_max_network
from latentpress.models.mlic.design import LocalAttentionDesign, SliceContextDesign, TokenMixingDesign
from latentpress.models.mlic.schedule import SliceSchedule, Stage

SCHEDULES = {
    "grouped": SliceSchedule.grouped(4, core=2),
    "some of a stage": SliceSchedule(4, (Stage((0, 1)), Stage((2,), (0,)), Stage((3,), (0, 1, 2)))),
}


@pytest.fixture(params=SCHEDULES)
def network(request):
    torch.manual_seed(0)
    found = build_image_max_network(
        16, 16, 16, 1, 1, 4, 8, 8,
        schedule=SCHEDULES[request.param],
        context=SliceContextDesign(8, 8, LocalAttentionDesign(8, 1)),
        token_mixing=TokenMixingDesign(1, 1),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return found.eval().requires_grad_(False)


def shuffled(network) -> torch.Tensor:
    torch.manual_seed(5)
    blocks = ports_of(network).interchangeable
    return torch.cat([block.start + torch.randperm(len(block)) for block in blocks])


def coded(context, features, y):
    """Predictions of every element on integers, and the decoded latent."""
    flat = to_fixed_point(y).flatten()
    predicted = torch.zeros(2, flat.numel(), dtype=torch.float64)

    def exchange(step):
        predicted[0, step.positions], predicted[1, step.positions] = step.mean, step.raw_scale
        return torch.round((flat[step.positions] - step.mean) / UNIT) * UNIT

    y_hat = context.code(features, exchange)
    return predicted.view(2, *y.shape), y_hat


def test_orders_inside_the_stages_preserve_everything(network) -> None:
    order = shuffled(network)
    assert preserves_predictions(ports_of(network), order)
    image, quality = torch.rand(2, 48, 64, 3), torch.tensor([30.0, 80.0])
    torch.manual_seed(1)
    features, y = to_fixed_point(torch.randn(1, 5, 6, 8)), torch.randn(1, 5, 6, 16) * 3
    picture = network.synthesis(y * network.inverse_gain(quality[:1])[:, None, None, :], quality[:1])
    latent = network.analysis(image, quality) * network.gain(quality)[:, None, None, :]
    z = network.hyper_analysis(latent, quality)
    before, y_hat = coded(convert(network.context), features, y)
    permute_latent(network, order)
    after, y_hat_after = coded(convert(network.context), features, y[..., order])
    assert torch.equal(after, before[..., order])
    assert torch.equal(y_hat_after, y_hat[..., order])
    assert not torch.equal(order, torch.arange(16))
    permuted = network.analysis(image, quality) * network.gain(quality)[:, None, None, :]
    torch.testing.assert_close(permuted, latent[..., order])
    torch.testing.assert_close(network.hyper_analysis(permuted, quality), z, rtol=1e-4, atol=1e-4)
    gain = network.inverse_gain(quality[:1])[:, None, None, :]
    torch.testing.assert_close(
        network.synthesis(y[..., order] * gain, quality[:1]), picture, rtol=1e-4, atol=1e-4
    )


def test_converting_and_permuting_commute(network) -> None:
    order = shuffled(network)
    features, y = to_fixed_point(torch.randn(1, 3, 4, 8)), torch.randn(1, 3, 4, 16)
    integers = convert(network.context)
    permute_latent(network, order)
    expected = coded(convert(network.context), features, y)
    network.context = integers
    inverse = torch.argsort(order)
    permute_latent(network, inverse)  # transforms back again, integers by the inverse
    permute_latent(network, order)
    permute_latent(network, order)
    for a, b in zip(coded(network.context, features, y), expected, strict=True):
        assert torch.equal(a, b)


def test_other_orders_need_training(network) -> None:
    order = torch.arange(16).flip(0)
    with pytest.raises(ChangesPredictions):
        permute_latent(network, order)
    image, quality = torch.rand(1, 32, 32, 3), torch.tensor([50.0])
    before = network.analysis(image, quality)
    permute_latent(network, order, allow_retraining=True)
    torch.testing.assert_close(network.analysis(image, quality), before[..., order])
    assert network(image, quality).y_bits.isfinite().all()


def test_iscs_order(network) -> None:
    groups = order_channels(network)
    assert sorted(groups.order.tolist()) == list(range(16))
    ports = ports_of(network)
    assert preserves_predictions(ports, preserving_order(ports, groups.order))
    network.context = convert(network.context)
    network.hyper_synthesis = convert(network.hyper_synthesis)
    assert len(order_channels(network).core) == 4
