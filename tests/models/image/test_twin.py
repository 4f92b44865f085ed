"""Two entropy models on the same transforms: what each of them sees and decodes."""

import pytest
import torch

from latentpress.models.channel_order.permutation import permute_latent
from latentpress.models.entropy.latent_model import to_nearest, to_nearest_with_gradient
from latentpress.models.image.families import (
    build_from_config,
    build_image_max_network,
    build_image_network,
    build_image_twin_network,
)
from latentpress.models.image.twin import matching_order
from latentpress.models.mlic.design import SliceContextDesign

SIZES = {"channels": 16, "deep_channels": 16, "latent_channels": 16, "depth": 1, "deep_depth": 1}
HYPER = {"hyper_channels": 4, "hyper_width": 8, "context_channels": 8}
DESIGN = SliceContextDesign(width=8, channel_context=8, shared_blocks=1)


def lively(network):
    """With heads that predict something."""
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".head." in name or ".heads." in name:
                parameter.add_(torch.randn_like(parameter) / 10)
    return network


@pytest.fixture
def twin():
    torch.manual_seed(1)
    network = lively(build_image_twin_network(**SIZES, **HYPER, context=DESIGN))
    network.order.copy_(torch.randperm(16))
    return network


@pytest.fixture
def batch():
    torch.manual_seed(2)
    return torch.rand(4, 64, 64, 3), torch.tensor([5.0, 30.0, 60.0, 95.0])


def test_every_other_picture_is_decoded_from_the_companion(twin, batch) -> None:
    output = twin.train()(*batch)
    y, features, _ = twin.latents(*batch)
    back = torch.argsort(twin.order)
    own = twin.context.quantise(features, y, to_nearest_with_gradient).y_hat
    other = twin.companion.quantise(features, y[..., back], to_nearest_with_gradient).y_hat[..., twin.order]
    assert not torch.equal(own, other)
    pictures = twin.decoded(own, batch[1]), twin.decoded(other, batch[1])
    for number in range(4):
        torch.testing.assert_close(output.image[number], pictures[number % 2][number])


def test_rate_is_the_mean_of_both(twin, batch, monkeypatch) -> None:
    monkeypatch.setattr(twin, "_rate_proxy", torch.round)
    y, features, z_bits = twin.latents(*batch)
    own = twin.latent_bits(y, twin.context.quantise(features, y, to_nearest))
    y_sorted = y[..., torch.argsort(twin.order)]
    other = twin.latent_bits(y_sorted, twin.companion.quantise(features, y_sorted, to_nearest))
    output = twin.train()(*batch)
    torch.testing.assert_close(output.y_bits, (own + other) / 2)
    torch.testing.assert_close(output.z_bits, z_bits)


def test_both_entropy_models_and_the_transforms_learn(twin, batch) -> None:
    output = twin.train()(*batch)
    (output.image.square().mean() + output.y_bits.mean() + output.z_bits.mean()).backward()
    moved = {name.split(".")[0] for name, p in twin.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved >= {"analysis", "synthesis", "hyper_analysis", "hyper_synthesis", "context", "companion"}


def test_it_is_image_max_when_not_in_training(twin, batch) -> None:
    single = build_image_max_network(**SIZES, **HYPER, context=DESIGN).eval()
    single.load_state_dict({k: v for k, v in twin.state_dict().items() if k in single.state_dict()})
    expected, found = single(*batch), twin.eval()(*batch)
    for one, two in zip(expected, found, strict=True):
        assert torch.equal(one, two)


def test_config_builds_it_again(twin) -> None:
    again = build_from_config(twin.family, twin.config)
    again.load_state_dict(twin.state_dict())
    assert again.config == twin.config


def test_matching_order_undoes_a_permutation() -> None:
    torch.manual_seed(3)
    image = build_image_network(**SIZES, **HYPER)
    network = build_image_network(**SIZES, **HYPER)
    network.load_state_dict(image.state_dict())
    order = torch.randperm(16)
    permute_latent(network, order, allow_retraining=True)
    assert torch.equal(matching_order(image, network), order)


def test_matching_order_refuses_other_transforms() -> None:
    torch.manual_seed(3)
    networks = [build_image_network(**SIZES, **HYPER) for _ in range(2)]
    with pytest.raises(ValueError, match="differ in more than the order"):
        matching_order(*networks)
