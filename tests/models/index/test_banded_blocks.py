"""Blocks a few rows at a time are the same blocks."""

import pytest
import torch

from latentpress.models.entropy.fixed_point import convolutions
from latentpress.models.index.banded_blocks import BandedBlock, runs_in_bands
from latentpress.models.index.decoder import ModulatedBlock


@pytest.mark.parametrize("band", [1, 200, 2**17])
def test_bands_equal_layers(monkeypatch, band) -> None:
    monkeypatch.setattr(convolutions, "_BAND", band)
    torch.manual_seed(1)
    block, x, condition = ModulatedBlock(16, 8), torch.randn(2, 7, 5, 16), torch.randn(2, 7, 5, 8)
    torch.nn.init.normal_(block.scale.weight)
    given = x.clone()
    with torch.inference_mode():
        found = block(x, condition)
    assert torch.allclose(found, block(x, condition), atol=1e-5)
    assert torch.equal(x, given)


def test_training_goes_layer_by_layer() -> None:
    block, x = BandedBlock(8), torch.randn(1, 4, 4, 8, requires_grad=True)
    assert not runs_in_bands(x)
    block(x).sum().backward()
    assert x.grad is not None


def test_lower_precision_goes_layer_by_layer() -> None:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert not runs_in_bands(torch.zeros(1, 4, 4, 8))
