"""Direct quantisation of the generator's latent: what it costs, and that it keeps its budget."""

import numpy as np
import pytest
import torch

from latentpress.codecs.shape_source import points_source
from latentpress.models.shape.generator import build_shape_autoencoder
from latentpress.train.control_shape import OVERHEAD_BYTES, control, own_latent, quantised


def test_finer_steps_cost_more_and_err_less() -> None:
    latent = torch.randn(1, 64, 4)
    values = [quantised(latent, step) for step in (0.2, 0.8, 3.2)]
    sizes = [size for _, size in values]
    errors = [float((value - latent).square().mean()) for value, _ in values]
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)
    # Entropy of a standard normal value in steps of 0.2: 2.05 - log2(0.2) bits.
    assert sizes[0] * 8 / latent.numel() == pytest.approx(4.37, rel=0.1)


@pytest.mark.parametrize("target", [80, 300])
def test_budget_is_kept(target) -> None:
    torch.manual_seed(0)
    network = build_shape_autoencoder(4, 2, 32, 1, 4, 4, 4, 32, 32, 1).eval()
    directions = np.random.default_rng(0).normal(size=(300, 3))
    source = points_source(directions / np.linalg.norm(directions, axis=1, keepdims=True), colour=False)
    latent = own_latent(network, source)
    found = control(network.generator, latent, torch.zeros(64, 6), torch.ones(64, 6), source, target)
    assert OVERHEAD_BYTES <= found.bytes <= target
    assert found.chamfer > 0
