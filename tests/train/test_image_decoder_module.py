"""Training of what a decoder runs: what moves, what the loss is made of, what rates are of."""

import pytest
import torch

from latentpress.codecs.encoder_rounding import EncoderRounding
from latentpress.models.entropy.gaussian import gaussian_bits, scale_from_raw
from latentpress.models.entropy.latent_model import QuantisedLatent, to_nearest
from latentpress.models.image.families import build_image_twin_network
from latentpress.models.mlic.design import SliceContextDesign
from latentpress.train.export import export_image
from latentpress.train.image_coded_module import tables_of
from latentpress.train.image_decoder_module import DecoderRounding, ImageDecoderTraining, two_rates
from latentpress.train.image_module import balanced_lambdas


def made(**options):
    torch.manual_seed(1)
    design = SliceContextDesign(width=8, channel_context=8, selective=None)
    network = build_image_twin_network(
        channels=16,
        deep_channels=16,
        latent_channels=16,
        depth=1,
        deep_depth=1,
        hyper_channels=4,
        hyper_width=8,
        context_channels=8,
        context=design,
    )
    with torch.no_grad():
        network.gain.knots.fill_(2.0)
        network.inverse_gain.knots.fill_(-2.0)
    network.order.copy_(torch.randperm(16))
    return ImageDecoderTraining(network, lr=1e-2, **options)


@pytest.fixture
def module():
    return made()


@pytest.fixture
def batch():
    torch.manual_seed(2)
    return torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8), torch.tensor([10.0, 40.0, 60.0, 90.0])


def test_only_what_a_decoder_runs_moves(module, batch) -> None:
    before = {name: value.clone() for name, value in module.network.state_dict().items()}
    optimizer = module.configure_optimizers()
    for _ in range(3):
        optimizer.zero_grad()
        module.loss_of_batch(*batch).loss.backward()
        optimizer.step()
    moved = {n.split(".")[0] for n, v in module.network.state_dict().items() if not torch.equal(v, before[n])}
    assert moved == {"hyper_prior", "hyper_synthesis", "context", "companion", "inverse_gain", "synthesis"}


def test_it_learns(module, batch) -> None:
    optimizer = module.configure_optimizers()
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        terms = module.loss_of_batch(*batch)
        terms.loss.backward()
        optimizer.step()
        losses.append(float(terms.loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


@torch.no_grad()
def test_rate_and_error_are_those_of_the_network_that_rounds_to_the_nearest(batch) -> None:
    """Rates are the mean of both entropy models; even pictures are decoded from one, odd from the other."""
    image, quality = batch
    module = made(rounding_multiplier=0.0)
    network = module.network.eval()
    target = image.float() / 255
    terms = module.loss_of_batch(image, quality)
    latents = network.latents(target, quality)
    own = network.context.quantise(latents.features, latents.y, to_nearest)
    back = torch.argsort(network.order)
    other = network.companion.quantise(latents.features, latents.y[..., back], to_nearest)
    bits = [
        gaussian_bits(torch.round(y - latent.mean), scale_from_raw(latent.raw_scale)).sum((1, 2, 3))
        for y, latent in ((latents.y, own), (latents.y[..., back], other))
    ]
    bpp = (latents.z_bits + (bits[0] + bits[1]) / 2) / 64**2
    assert float(terms.bpp) == pytest.approx(float(bpp.mean()), rel=1e-4)
    y_hat = torch.stack(
        [own.y_hat[k] if k % 2 == 0 else other.y_hat[k][..., network.order] for k in range(len(image))]
    )
    errors = (255 * (network.decoded(y_hat, quality) - target)).square().mean((1, 2, 3))
    assert float(terms.squared_error) == pytest.approx(float(errors.mean()), rel=1e-4)
    weight, balance = balanced_lambdas(quality, module.lambda_min, module.lambda_max)
    assert float(terms.loss) == pytest.approx(float(((bpp + weight * errors) * balance).mean()), rel=1e-4)


def test_scales_learn_from_what_is_coded_and_means_from_noise() -> None:
    y = torch.full((1, 8, 8, 4), 0.2)
    mean = torch.zeros_like(y).requires_grad_()
    raw_scale = torch.full_like(y, -1.0).requires_grad_()
    rates = two_rates(y, QuantisedLatent(torch.zeros_like(y), mean, raw_scale), to_nearest)
    expected = gaussian_bits(torch.zeros_like(y), scale_from_raw(raw_scale))
    assert torch.allclose(rates.coded, expected.sum((1, 2, 3)))
    torch.testing.assert_close(rates.coded, rates.to_minimise)
    (of_scale,) = torch.autograd.grad(expected.sum(), raw_scale)
    found = torch.autograd.grad(rates.to_minimise.sum(), (mean, raw_scale))
    assert torch.allclose(found[1], of_scale)
    assert float(found[0].mean()) < 0  # towards what is coded


def test_rounding_is_the_encoders() -> None:
    """By the tables that the codec takes for these scales; gradients pass."""
    encoder = EncoderRounding(tables_of(None), 0.05)
    residual = torch.linspace(-3, 3, 601).requires_grad_()
    raw_scale = torch.linspace(-3.5, 3, 601)
    found = DecoderRounding(encoder)(residual, raw_scale)
    index = (8 * raw_scale + 24).round().clamp(0, 63).int()
    assert torch.equal(found.round(), encoder(residual.detach(), index))
    assert not torch.equal(found.round(), torch.round(residual))
    (gradient,) = torch.autograd.grad(found.sum(), residual)
    assert torch.equal(gradient, torch.ones_like(residual))


def test_tables_of_a_weight_file(tmp_path, tiny_config, tiny_state) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(export_image(tiny_config, tiny_state).to_bytes())
    assert len(tables_of(str(path))) == len(tables_of(None))
