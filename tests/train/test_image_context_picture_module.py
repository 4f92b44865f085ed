"""Training of an entropy model by decoded pictures: what moves, what the loss is, that it helps pictures."""

import pytest
import torch

from latentpress.models.entropy.latent_model import to_nearest
from latentpress.models.image.families import build_image_max_network
from latentpress.models.mlic.design import ResidualPredictionDesign, SliceContextDesign
from latentpress.train.image_context_module import ImageContextTraining
from latentpress.train.image_context_picture_module import ImageContextPictureTraining


def made(kind):
    torch.manual_seed(1)
    design = SliceContextDesign(
        width=8, channel_context=8, residual_prediction=ResidualPredictionDesign(width=8), selective=None
    )
    network = build_image_max_network(16, 16, 16, 1, 1, 4, 8, 8, context=design)
    with torch.no_grad():
        network.gain.knots.fill_(2.0)
        network.inverse_gain.knots.fill_(-2.0)
    return kind(network, lr=1e-2)


@pytest.fixture
def module():
    return made(ImageContextPictureTraining)


@pytest.fixture
def batch():
    torch.manual_seed(2)
    return torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8), torch.tensor([10.0, 50.0, 90.0])


@torch.no_grad()
def test_error_is_that_of_the_networks_picture(module, batch) -> None:
    image, quality = batch
    module.network.eval()
    picture = module.network(image.float() / 255, quality).image
    error = (255 * picture - image).square().mean()
    assert float(module.loss_of_batch(image, quality).squared_error) == pytest.approx(float(error), rel=1e-4)


@torch.no_grad()
def test_loss_is_rate_and_lambda_times_error(module, batch) -> None:
    image, quality = batch
    y, features = module.frozen_part(image, quality)
    latent = module.network.context.quantise(features, y, to_nearest)
    weighted, error = module.distortion(image, quality, y, latent)
    expected = module.lambda_min * (module.lambda_max / module.lambda_min) ** (quality / 100) * error
    torch.testing.assert_close(weighted, expected)


def test_only_the_entropy_model_moves(module, batch) -> None:
    before = {name: value.clone() for name, value in module.network.state_dict().items()}
    optimizer = module.configure_optimizers()
    for _ in range(2):
        optimizer.zero_grad()
        module.loss_of_batch(*batch).loss.backward()
        optimizer.step()
    moved = {n for n, v in module.network.state_dict().items() if not torch.equal(v, before[n])}
    assert moved
    assert all(name.startswith("context.") for name in moved)


def test_pictures_get_better_where_latents_need_not(batch) -> None:
    """Residual prediction that learns from pictures makes their error smaller than one that learns from y."""
    image, quality = batch
    found = {}
    for kind in (ImageContextTraining, ImageContextPictureTraining):
        module = made(kind)
        for name, parameter in module.network.context.named_parameters():
            parameter.requires_grad_("residual_prediction" in name)
        optimizer = torch.optim.Adam([p for p in module.network.parameters() if p.requires_grad], 1e-2)
        # Only errors count here, so that both have nothing else to gain.
        for _ in range(40):
            optimizer.zero_grad()
            y, features = module.frozen_part(image, quality)
            latent = module.network.context.quantise(features, y, to_nearest)
            module.distortion(image, quality, y, latent)[0].mean().backward()
            optimizer.step()
        with torch.no_grad():
            module.network.eval()
            picture = module.network(image.float() / 255, quality).image
        found[kind] = float((255 * picture - image).square().mean())
    assert found[ImageContextPictureTraining] < found[ImageContextTraining]
