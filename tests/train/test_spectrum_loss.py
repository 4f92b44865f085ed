"""The loss on spectra of crops."""

from __future__ import annotations

import math

import pytest
import torch

from latentpress.train.spectrum_loss import HIGHEST_WAVE, SpectrumLoss

SIZE = 32


def wave(number: int) -> torch.Tensor:
    """A wave with so many half waves along one axis, ``(1, 32, 32, 32, 3)``."""
    x = (torch.arange(SIZE) + 0.5) / SIZE
    return torch.cos(math.pi * number * x).view(1, 1, 1, SIZE, 1).expand(1, SIZE, SIZE, SIZE, 3)


def test_a_wave_is_in_its_band() -> None:
    loss = SpectrumLoss(SIZE, bands=6)
    edges = torch.logspace(math.log10(3), math.log10(HIGHEST_WAVE * SIZE), 7)
    for number in (5, 9, 16, 20):
        energies = loss.energies(wave(number))[0]
        assert int(energies.argmax()) == int(torch.bucketize(torch.tensor(float(number)), edges)) - 1


def test_faint_small_scales_count_like_strong_large_ones() -> None:
    """Half of an amplitude missing costs as much in a band with a hundredth of the energy, within twofold."""
    loss = SpectrumLoss(SIZE, bands=3)
    large, small = wave(4), 0.1 * wave(18)
    costs = [float(loss(large + small - 0.5 * part, large + small)) for part in (large, small)]
    assert max(costs) < 2.1 * min(costs)
    assert min(costs) > 0.9 * math.log(4) ** 2 / 3


def test_gradient_restores_a_band() -> None:
    loss = SpectrumLoss(16, bands=4)
    true = torch.randn(1, 16, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    found = (0.5 * true).requires_grad_()
    loss(found, true).backward()
    assert float((found.grad * true).sum()) < 0


def test_other_sizes_are_told() -> None:
    with pytest.raises(ValueError, match="16 samples a side"):
        SpectrumLoss(16)(torch.zeros(1, 8, 8, 8, 3), torch.zeros(1, 8, 8, 8, 3))


def test_nothing_of_it_is_in_checkpoints() -> None:
    assert not SpectrumLoss(16).state_dict()
