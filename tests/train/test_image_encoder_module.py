"""Training of what only an encoder runs: what moves, what the loss is, and that files get smaller by it."""

import numpy as np
import pytest
import torch

from latentpress.codecs.bitstream.information import table_information
from latentpress.models.entropy.latent_model import QuantisedLatent
from latentpress.models.image.families import build_image_twin_network
from latentpress.models.mlic.design import SliceContextDesign
from latentpress.train.image_coded_module import tables_of
from latentpress.train.image_encoder_module import ImageEncoderTraining

SIZES = {"channels": 16, "deep_channels": 16, "latent_channels": 16, "depth": 1, "deep_depth": 1}
HYPER = {"hyper_channels": 4, "hyper_width": 8, "context_channels": 8}


def made(**options):
    torch.manual_seed(1)
    design = SliceContextDesign(width=8, channel_context=8, selective=None)
    network = build_image_twin_network(**SIZES, **HYPER, context=design)
    with torch.no_grad():
        network.gain.knots.fill_(2.0)
        network.inverse_gain.knots.fill_(-2.0)
    network.order.copy_(torch.randperm(16))
    return ImageEncoderTraining(network, lr=3e-3, **options)


@pytest.fixture
def batch():
    torch.manual_seed(2)
    return torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8), torch.tensor([10.0, 40.0, 60.0, 90.0])


def steps(module, batch, count: int) -> list[float]:
    optimizer = module.configure_optimizers()
    losses = []
    for _ in range(count):
        optimizer.zero_grad()
        terms = module.loss_of_batch(*batch)
        terms.loss.backward()
        optimizer.step()
        losses.append(float(terms.loss.detach()))
    return losses


def test_only_what_an_encoder_alone_runs_moves(batch) -> None:
    module = made()
    before = {name: value.clone() for name, value in module.network.state_dict().items()}
    steps(module, batch, 2)
    moved = {n.split(".")[0] for n, v in module.network.state_dict().items() if not torch.equal(v, before[n])}
    assert moved == {"analysis", "gain", "hyper_analysis"}


def test_it_learns(batch) -> None:
    losses = steps(made(), batch, 40)
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:5])


def test_whole_latents_cost_what_the_tables_say() -> None:
    """On integers there is nothing to choose, so the expected cost is that of the symbols themselves."""
    module, tables = made(), tables_of(None)
    symbols = torch.randint(-2, 3, (2, 4, 4, 8), generator=torch.Generator().manual_seed(3))
    raw_scale = torch.full(symbols.shape, 0.5)  # table 28 exactly
    y = symbols.float()
    rates = module.rates_of(y, QuantisedLatent(y, torch.zeros_like(y), raw_scale), module.rounding_of("y"))
    expected = table_information(symbols[0].flatten().numpy(), tables, 28).sum()
    assert float(rates.coded[0]) == pytest.approx(float(expected), rel=1e-3)
    assert torch.equal(rates.coded, rates.to_minimise)


def test_a_cold_rounding_is_that_of_the_network(batch) -> None:
    image, quality = batch
    module = made(temperature=0.02)
    with torch.no_grad():
        found = float(module.loss_of_batch(image, quality).squared_error)
        module.network.eval()
        picture = module.network(image.float() / 255, quality).image
        error = (255 * picture - image).square().mean(dim=(1, 2, 3))
    # Every other picture is decoded by the other entropy model, whose means differ a little at first.
    assert found == pytest.approx(float(error.mean()), rel=0.05)
