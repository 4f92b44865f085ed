"""A network that starts as a linear transform codec."""

from types import SimpleNamespace

import pytest
import torch

from latentpress.models.image.network import build_image_network
from latentpress.train.initialise import PrincipalComponents, initialise


@pytest.fixture
def crops():
    """Smooth pictures: sums of a few waves."""
    generator = torch.Generator().manual_seed(3)
    grid = torch.arange(64) / 64
    frequencies = torch.rand(12, 2, 3, generator=generator) * 9
    waves = torch.sin(frequencies[:, :1, None] * grid[:, None, None] + frequencies[:, 1:, None])
    other = torch.cos(frequencies[:, 1:, None] * grid[None, :, None] - frequencies[:, :1, None])
    return ((waves * other).reshape(12, 64, 64, 3) * 100 + 128).round().to(torch.uint8)


@pytest.fixture(params=["none", "contrast"])
def network(request):
    torch.manual_seed(0)
    return build_image_network(
        channels=200, deep_channels=96, latent_channels=96, depth=1, deep_depth=1, hyper_channels=8,
        hyper_width=8, context_channels=16, context_depth=1, normalisation=request.param
    ).eval()  # fmt: skip


@torch.no_grad()
def squared_error(network, crops, quality) -> float:
    images = crops.float() / 255
    decoded = network(images, torch.full((len(crops),), quality)).image
    return float((decoded - images).square().mean()) * 255**2


def test_error_falls_with_the_quality_and_is_small(network, crops) -> None:
    untrained = squared_error(network, crops, 100.0)
    initialise(network, crops, 0.0009, 0.14)
    errors = [squared_error(network, crops, quality) for quality in (0.0, 50.0, 100.0)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 10 < untrained


@torch.no_grad()
def test_synthesis_undoes_analysis(network, crops) -> None:
    """Without quantisation only what the components leave out is lost: here next to nothing."""
    initialise(network, crops, 0.0009, 0.14)
    images, quality = crops.float() / 255, torch.full((len(crops),), 50.0)
    decoded = network.synthesis(network.analysis(images, quality), quality)
    assert float((decoded - images).square().mean()) * 255**2 < 1


@torch.no_grad()
def test_gains_are_inverse(network, crops) -> None:
    initialise(network, crops, 0.0009, 0.14)
    quality = torch.tensor([0.0, 33.0, 100.0])
    assert torch.allclose(network.gain(quality) * network.inverse_gain(quality), torch.ones(3, 96))
    # From one quality to another the step shrinks with the square root of lambda.
    ratio = network.gain(torch.tensor([100.0])) / network.gain(torch.tensor([0.0]))
    assert torch.allclose(ratio, torch.full((1, 96), (0.14 / 0.0009) ** 0.5), rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("network", ["contrast"], indirect=True)
def test_blocks_see_all_channels_alike(network, crops) -> None:
    initialise(network, crops, 0.0009, 0.14)
    images, quality = crops.float() / 255, torch.full((len(crops),), 50.0)
    seen = []
    network.analysis.blocks[0].normalise_mixing.register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0] * module.weight)
    )
    network.analysis(images, quality)
    deviation = seen[0].flatten(0, -2).square().mean(0).sqrt()
    # These pictures have few components; those that they have come out at one.
    assert deviation.max() == pytest.approx(1, rel=0.05)
    assert int((deviation > 0.9).sum()) >= 10


def test_callback_takes_crops_from_the_loader(network, crops) -> None:
    class Loader:
        """Three batches of four pictures."""

        def __iter__(self):
            return (SimpleNamespace(image=crops[i : i + 4]) for i in (0, 4, 8))

    module = SimpleNamespace(network=network, device="cpu", lambda_min=0.0009, lambda_max=0.14)
    trainer = SimpleNamespace(global_step=0, train_dataloader=Loader())
    PrincipalComponents(crops=6).on_train_start(trainer, module)
    expected = network.analysis.stem.weight[:96].detach().clone()
    initialise(network, crops[:8], 0.0009, 0.14)
    assert torch.equal(network.analysis.stem.weight[:96], expected)


def test_a_resumed_run_is_left_alone(network) -> None:
    before = network.analysis.stem.weight.detach().clone()
    PrincipalComponents().on_train_start(SimpleNamespace(global_step=7), SimpleNamespace(network=network))
    assert torch.equal(network.analysis.stem.weight, before)
