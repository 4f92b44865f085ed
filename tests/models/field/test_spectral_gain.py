"""Gains of small scales, against Fourier transforms written out and against each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from latentpress.models.field.projection import solenoidal
from latentpress.models.field.spectral_gain import (
    BANDS,
    LARGEST,
    LARGEST_MATCH,
    LEAST_SIDE,
    SEEN,
    TRANSMITTED,
    SpectralGain,
    band_densities,
    matching_logarithms,
    with_factors,
)

BOX = (True, True, True)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed))


def rising(strength: float = 0.8) -> SpectralGain:
    """The same gain for all flows and qualities, from none at large scales on, never quite alike."""
    rows = torch.zeros(2, BANDS, 3)
    rows[:, 8:, 0] = strength * torch.linspace(0, 1, BANDS - 8)
    return SpectralGain(rows, torch.zeros(2, 2, 3))


def test_factors_of_a_periodic_field() -> None:
    x = noise(32, 34, 36).double().numpy()
    axes = np.meshgrid(*(2 * np.fft.fftfreq(n) for n in x.shape[1:]), indexing="ij")
    waves = np.sqrt(sum(axis**2 for axis in axes))
    logarithm = np.interp(waves * (BANDS - 1), np.arange(BANDS), rising().rows[0, :, 0].numpy())
    expected = np.fft.ifftn(np.fft.fftn(x, axes=(1, 2, 3)) * np.exp(logarithm), axes=(1, 2, 3)).real
    found = rising()(torch.from_numpy(x).float(), 30.0, BOX)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("periodic", [(False, False, False), (True, False, False), (False, True, True)])
def test_ends_do_not_matter_inside(periodic: tuple[bool, bool, bool]) -> None:
    """In the middle, a long field is what it would be without ends."""
    x = noise(96, 96, 96)
    open_ends, box = rising()(x, 50.0, periodic), rising()(x, 50.0, BOX)
    inner = (slice(None), *[slice(40, 56)] * 3)
    error = (open_ends - box)[inner].square().mean().sqrt()
    assert error < 0.003 * (box - x)[inner].square().mean().sqrt()


def test_a_ramp_stays_a_ramp() -> None:
    """Nothing happens at open ends where the slope goes on."""
    ramp = torch.arange(48.0)[:, None, None].expand(3, 48, 40, 40) / 10
    inside = torch.arange(40.0)[:, None].expand(3, 48, 40, 40) / 20
    for x in (ramp, ramp + inside):
        assert (rising(-0.5)(x, 0.0, (False,) * 3) - x).abs().max() < 0.02


def test_densities_do_not_know_the_size() -> None:
    """Of white noise, windowed or not."""
    for shape, periodic in (((32, 33, 34), BOX), ((48, 48, 40), (False,) * 3)):
        found = band_densities(3 * noise(*shape), periodic)[8:]
        assert found.mean() == pytest.approx(9, rel=0.05)
    wave = torch.cos(torch.arange(64) * (2 * math.pi * 8 / 64)).expand(1, 64, 64, 64)
    assert int(band_densities(wave, BOX).nan_to_num().argmax()) == 8


def test_flows_are_told_apart() -> None:
    """The gain follows the densities, up to a limit, and fades where a flow is like no other."""
    rows = torch.zeros(2, BANDS, 3)
    rows[:, -1, 1] = 0.3
    rows[1, -1, 2] = 5.0
    spread = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]]).expand(2, 2, 3)
    gain = SpectralGain(rows, spread)

    def at(u: tuple[float, float], quality: float) -> float:
        densities = torch.ones(BANDS)
        densities[list(SEEN)] = torch.tensor([2 + u[0], u[1] - 1]).exp()
        return float(gain.logarithms(densities, quality)[-1])

    assert at((1, 0), 0) == pytest.approx(0.3)
    assert at((1, 1), 100) == pytest.approx(math.log(LARGEST))
    assert at((1, 0), 50) == pytest.approx(0.3)
    assert at((0, 1), 50) == pytest.approx(math.log(LARGEST) / 2)
    assert 0 < at((8, 0), 0) < 1e-7


def test_nothing_to_do() -> None:
    small = noise(LEAST_SIDE, LEAST_SIDE, LEAST_SIDE - 1)
    assert rising()(small, 50.0, BOX) is small
    large = noise(*[LEAST_SIDE] * 3)
    assert SpectralGain(torch.zeros(2, BANDS, 3), torch.zeros(2, 2, 3))(large, 50.0, BOX) is large


@pytest.mark.parametrize("damage", ["bands", "qualities", "nan"])
def test_arrays_that_are_no_gain(damage: str) -> None:
    rows, spread = torch.zeros(2, BANDS, 3), torch.zeros(2, 2, 3)
    if damage == "bands":
        rows = rows[:, 1:]
    elif damage == "qualities":
        rows, spread = rows[:1], spread[:1]
    else:
        spread[0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="gains have finite rows"):
        SpectralGain(rows, spread)


def test_waves_get_the_energy_that_they_should_have() -> None:
    """Up to a limit, fading behind the last band that says something; NaN, where there are no waves, is 1."""
    true = torch.ones(TRANSMITTED.stop - TRANSMITTED.start)
    found = torch.full((BANDS,), 4.0)
    found[10], found[11], found[12] = 1e-9, 1e9, math.nan
    factors = matching_logarithms(true, found).exp()
    assert factors[[3, 4, 10, 11, 12, 21, 28, 32]].tolist() == pytest.approx(
        [1, 0.5, LARGEST_MATCH, 1 / LARGEST_MATCH, 1, 0.5, 1, 1]
    )
    assert bool((factors[21:29].diff() > 0).all())
    x = noise(48, 40, 40)
    true = 0.3 * band_densities(x, BOX)[TRANSMITTED]
    changed = with_factors(x, matching_logarithms(true, band_densities(x, BOX)), BOX)
    torch.testing.assert_close(band_densities(changed, BOX)[5:21], true[1:17], rtol=0.02, atol=0)


@pytest.mark.parametrize("periodic", [BOX, (False,) * 3, (True, False, True)])
def test_energies_without_divergence(periodic: tuple[bool, bool, bool]) -> None:
    """They are those of the projected field, but for a window's part in it."""
    x = with_factors(noise(48, 40, 33), -0.12 * torch.arange(BANDS), BOX)
    expected = band_densities(solenoidal(x, periodic, to_ends=True), periodic)
    found = band_densities(x, periodic, divergence=False)
    tolerance = 1e-4 if all(periodic) else 0.05
    torch.testing.assert_close(found[TRANSMITTED], expected[TRANSMITTED], rtol=tolerance, atol=0)
    assert bool((found[TRANSMITTED] < 0.8 * band_densities(x, periodic)[TRANSMITTED]).all())
