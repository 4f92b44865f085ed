"""The flow solver against exact solutions and published ones, and what it must conserve."""

import math

import pytest
import torch

from latentpress.train.data.turbulence import (
    FlowState,
    SpectralGrid,
    TurbulenceSolver,
    random_flow,
    refined,
    simulate,
    taylor_green,
    time_steps,
)
from latentpress.train.metrics.turbulence import flow_statistics, objections


def energy(grid: SpectralGrid, state: FlowState) -> torch.Tensor:
    return 0.5 * grid.to_physical(state.velocity).double().square().sum(1).mean((1, 2, 3))


def flow(grid: SpectralGrid, count: int = 1, seed: int = 0) -> FlowState:
    return random_flow(grid, count, torch.Generator().manual_seed(seed))


def test_taylor_green_vortex_dissipates_as_published() -> None:
    """At Re = 100 it peaks near t = 5 at about 0.0127 (Brachet et al., J. Fluid Mech. 130, 1983)."""
    grid = SpectralGrid(32)
    solver = TurbulenceSolver(grid, 0.01, power=0.0)
    state = taylor_green(grid)
    assert float(energy(grid, state)) == pytest.approx(0.125, rel=1e-6)
    dissipation = []
    for _ in range(13):
        state = solver.advance(state, 0.05, 10)
        dissipation.append(flow_statistics(grid.to_physical(state.velocity)[0], 0.01).dissipation)
    peak = max(range(13), key=dissipation.__getitem__)
    assert 0.5 * (peak + 1) == pytest.approx(5, abs=0.6)
    assert dissipation[peak] == pytest.approx(0.0127, rel=0.04)


def test_energy_falls_by_what_is_dissipated() -> None:
    grid = SpectralGrid(24)
    state = flow(grid)
    solver = TurbulenceSolver(grid, 0.05, power=0.0)
    before = flow_statistics(grid.to_physical(state.velocity)[0], 0.05)
    state = solver.advance(state, 0.005, 4)
    after = flow_statistics(grid.to_physical(state.velocity)[0], 0.05)
    expected = 0.02 * 0.5 * (before.dissipation + after.dissipation)
    assert before.energy - after.energy == pytest.approx(expected, rel=1e-3)


def test_force_supplies_its_power() -> None:
    grid = SpectralGrid(16)
    state = flow(grid, count=2)
    solver = TurbulenceSolver(grid, 1e-9, power=0.7)
    later = solver.advance(state, 0.002, 5)
    assert ((energy(grid, later) - energy(grid, state)) / 0.01).tolist() == pytest.approx(
        [0.7, 0.7], rel=2e-3
    )


def test_viscosity_is_integrated_exactly() -> None:
    """A shear wave has no non-linear term and decays exponentially, however large the step."""
    grid = SpectralGrid(8)
    x = torch.arange(8) * (2 * math.pi / 8)
    velocity = torch.zeros(1, 3, 8, 8, 8)
    velocity[0, 1] = torch.sin(2 * x)[:, None, None]
    state = TurbulenceSolver(grid, 0.3, power=0.0).advance(FlowState(grid.to_spectral(velocity)), 0.5, 2)
    assert torch.allclose(grid.to_physical(state.velocity), velocity * math.exp(-0.3 * 4), atol=1e-6)


def test_no_divergence_and_boxes_are_independent() -> None:
    grid = SpectralGrid(16)
    state = flow(grid, count=2)
    solver = TurbulenceSolver(grid, torch.tensor([0.05, 0.1]))
    both = solver.advance(state, 0.01, 3).velocity
    divergence = (grid.k * both).sum(1).abs().max() / both.abs().max()
    assert float(divergence) < 1e-5
    alone = TurbulenceSolver(grid, 0.1).advance(FlowState(state.velocity[1:]), 0.01, 3).velocity
    assert torch.allclose(both[1:], alone, atol=1e-6)


def test_curl_by_hand() -> None:
    grid = SpectralGrid(8)
    x = torch.arange(8) * (2 * math.pi / 8)
    velocity = torch.zeros(3, 8, 8, 8)
    velocity[1] = torch.sin(x)[:, None, None]
    curl = grid.to_physical(grid.curl(grid.to_spectral(velocity)))
    expected = torch.zeros_like(curl)
    expected[2] = torch.cos(x)[:, None, None]
    assert torch.allclose(curl, expected, atol=1e-6)


def test_scalar_is_carried_and_keeps_its_variance_without_diffusion() -> None:
    grid = SpectralGrid(24)
    state = flow(grid)
    scalar = grid.to_spectral(torch.cos(torch.arange(24) * (2 * math.pi / 24)).expand(1, 24, 24, 24).clone())
    solver = TurbulenceSolver(grid, 1e-9, power=0.0, scalar_gradient=0.0)
    later = solver.advance(FlowState(state.velocity, scalar), 0.002, 5)
    before, after = (grid.to_physical(s) for s in (scalar, later.scalar))
    assert float(after.square().mean()) == pytest.approx(float(before.square().mean()), rel=1e-3)
    assert float((after - before).abs().max()) > 1e-3


def test_refined_flow_has_the_same_values() -> None:
    coarse, fine = SpectralGrid(8), SpectralGrid(16)
    state = flow(coarse)
    values = fine.to_physical(refined(state, fine).velocity)
    assert torch.allclose(values[..., ::2, ::2, ::2], coarse.to_physical(state.velocity), atol=1e-5)


def test_simulated_turbulence_passes_the_checks() -> None:
    found = simulate([0.12], 32, seed=3, count=2, spacing=0.3, spin_up=(3.0, 2.0))
    assert found.velocity.shape == (2, 1, 3, 32, 32, 32)
    reasons = [objections(flow_statistics(v[0], 0.12)) for v in found.velocity]
    assert any(not r or all("skewness" in text for text in r) for r in reasons), reasons
    again = simulate([0.12], 32, seed=3, count=1, spin_up=(0.1, 0.1))
    other = simulate([0.12], 32, seed=4, count=1, spin_up=(0.1, 0.1))
    assert not torch.allclose(again.velocity, other.velocity)


def test_random_flow_is_refused() -> None:
    grid = SpectralGrid(16)
    reasons = objections(flow_statistics(grid.to_physical(flow(grid).velocity)[0], 0.001))
    assert any("skewness" in text for text in reasons)
    assert any("k_max eta" in text for text in reasons)


def test_decaying_flow_has_less_energy() -> None:
    forced = simulate([0.1], 16, seed=0, count=1, spin_up=(0.2,))
    decayed = simulate([0.1], 16, seed=0, count=1, spin_up=(0.2,), decay=0.5, passive_scalar=True)
    assert decayed.velocity.square().mean() < 0.9 * forced.velocity.square().mean()
    assert decayed.scalar is not None
    assert decayed.scalar.shape == (1, 1, 16, 16, 16)


def test_time_steps_cover_the_duration() -> None:
    dt, steps = time_steps(1.0, 64)
    assert dt * steps == pytest.approx(1.0)
    assert dt <= 0.5 / 64


@pytest.mark.parametrize("size", [3, 7, 2])
def test_wrong_grid(size) -> None:
    with pytest.raises(ValueError, match="even number"):
        SpectralGrid(size)
