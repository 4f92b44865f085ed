"""Training of an entropy model alone: what moves, what the loss is made of, what skipping costs."""

import pytest
import torch

from latentpress.models.entropy.gaussian import gaussian_bits, scale_from_raw
from latentpress.models.entropy.latent_model import to_nearest
from latentpress.models.image.families import build_image_max_network
from latentpress.models.mlic.design import SliceContextDesign
from latentpress.train.image_context_module import ERROR_WORTH, ImageContextTraining


@pytest.fixture
def module():
    torch.manual_seed(1)
    design = SliceContextDesign(width=8, channel_context=8)
    network = build_image_max_network(16, 16, 16, 1, 1, 4, 8, 8, context=design)
    with torch.no_grad():
        network.gain.knots.fill_(2.0)
    return ImageContextTraining(network, lr=1e-2)


@pytest.fixture
def batch():
    torch.manual_seed(2)
    return torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8), torch.tensor([10.0, 50.0, 90.0])


def test_only_the_entropy_model_moves(module, batch) -> None:
    before = {name: value.clone() for name, value in module.network.state_dict().items()}
    optimizer = module.configure_optimizers()
    for _ in range(3):
        optimizer.zero_grad()
        module.loss_of_batch(*batch).loss.backward()
        optimizer.step()
    moved = {n for n, v in module.network.state_dict().items() if not torch.equal(v, before[n])}
    assert moved
    assert all(name.startswith("context.") for name in moved)
    assert {n for n, p in module.network.named_parameters() if p.grad is not None} == {
        f"context.{n}" for n, _ in module.network.context.named_parameters()
    }


def test_it_learns(module, batch) -> None:
    optimizer = module.configure_optimizers()
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        terms = module.loss_of_batch(*batch)
        terms.loss.backward()
        optimizer.step()
        losses.append(float(terms.loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


@torch.no_grad()
def test_rate_is_that_of_rounded_residuals(module, batch) -> None:
    image, quality = batch
    y, features = module.frozen_part(image, quality)
    latent = module.network.context.quantise(features, y, to_nearest)
    bits = gaussian_bits(torch.round(y - latent.mean), scale_from_raw(latent.raw_scale)) * latent.coded
    found = module.loss_of_batch(image, quality)
    assert float(found.bpp) == pytest.approx(float(bits.sum()) / image[..., 0].numel(), rel=1e-4)
    assert float(found.squared_error) == pytest.approx(float((latent.y_hat - y).square().mean()), rel=1e-4)


def _loss_with_skipping(module, batch, bias: float) -> tuple[float, float]:
    with torch.no_grad():
        for name, parameter in module.network.context.named_parameters():
            if name.endswith("selective.head.bias"):
                parameter.fill_(bias)
        terms = module.loss_of_batch(*batch)
    return float(terms.loss), float(terms.bpp)


@torch.no_grad()
def test_skipping_what_rounds_to_something_is_dear(module, batch) -> None:
    """Everything skipped costs no bits, and more than the error alone would."""
    coded, rate = _loss_with_skipping(module, batch, -1e3)
    skipped, none = _loss_with_skipping(module, batch, 1e3)
    assert rate > 0
    assert none == 0
    image, quality = batch
    y, features = module.frozen_part(image, quality)
    latent = module.network.context.quantise(features, y, to_nearest)
    weight = module.lambda_min * (module.lambda_max / module.lambda_min) ** (quality / 100)
    balance = (module.lambda_min * module.lambda_max) ** 0.25 / weight.sqrt()
    error = (latent.y_hat - y).square().sum((1, 2, 3)) / (64 * 64)
    assert skipped > 1.5 * float((ERROR_WORTH * error * balance).mean())
    assert coded != skipped
