"""Direct numerical simulation of isotropic turbulence: a pseudo-spectral solver in torch.

Incompressible flow in periodic boxes of side 2 pi, from the Navier-Stokes equations in rotational form:

    du/dt = P (u x omega) + nu laplace(u) + f,    div u = 0

where P is the Leray projection, which removes the gradient part. Products are formed on the grid and
dealiased by the 2/3 rule, viscosity is integrated exactly (integrating factor) and everything else by
classical Runge-Kutta of fourth order (Canuto et al., "Spectral Methods in Fluid Dynamics", 1988, sections
3.3 and 7.2). The force acts on the modes with ``|k| <= 2.5`` and is proportional to them, so that it
supplies a constant power.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

FORCED_BELOW = 2.5
"""Modes up to this wave number are forced."""

_SMALLEST = 1e-30


class SpectralGrid:
    """Wave numbers of a periodic cube of side 2 pi, for real transforms.

    Args:
        size: N, grid points a side, even.
        device: Where the tables live.

    Attributes:
        k: ``(3, N, N, N/2+1)`` wave vectors in array order, integers in float32.
        k_squared: ``(N, N, N/2+1)``.
        dealiased: Boolean, the modes kept by the 2/3 rule.
        multiplicity: How many modes of the full transform each entry stands for, 1 or 2.
    """

    def __init__(self, size: int, device: torch.device | str = "cpu") -> None:
        if size < 4 or size % 2:
            raise ValueError(f"a grid has an even number of points a side, at least 4, got {size}")
        self.size = size
        self.device = torch.device(device)
        full = torch.fft.fftfreq(size, 1 / size, device=device)
        half = torch.arange(size // 2 + 1, device=device, dtype=full.dtype)
        self.k = torch.stack(torch.meshgrid(full, full, half, indexing="ij"))
        self.k_squared = self.k.square().sum(0)
        self.dealiased = (self.k.abs() <= size / 3).all(0)
        self.multiplicity = torch.where((half == 0) | (half == size // 2), 1.0, 2.0).expand_as(self.k_squared)

    def to_physical(self, modes: Tensor) -> Tensor:
        """Fourier coefficients ``(..., N, N, N/2+1)`` to values on the grid ``(..., N, N, N)``."""
        return torch.fft.irfftn(modes, s=(self.size,) * 3, dim=(-3, -2, -1), norm="forward")

    def to_spectral(self, values: Tensor) -> Tensor:
        """Values on the grid to Fourier coefficients, normalised so that a mode is its amplitude."""
        return torch.fft.rfftn(values, dim=(-3, -2, -1), norm="forward")

    def project(self, modes: Tensor) -> Tensor:
        """Leray projection of ``(..., 3, N, N, N/2+1)``: what is left has no divergence."""
        along = (self.k * modes).sum(-4, keepdim=True) / self.k_squared.clamp(min=1)
        return modes - self.k * along

    def curl(self, modes: Tensor) -> Tensor:
        """Fourier coefficients of the curl."""
        k0, k1, k2 = self.k
        u0, u1, u2 = modes.unbind(-4)
        return 1j * torch.stack((k1 * u2 - k2 * u1, k2 * u0 - k0 * u2, k0 * u1 - k1 * u0), dim=-4)


class FlowState(NamedTuple):
    """Flows in Fourier space.

    Attributes:
        velocity: ``(B, 3, N, N, N/2+1)`` complex64; component i points along array axis i.
        scalar: ``(B, N, N, N/2+1)`` complex64 of a passive scalar, or None.
    """

    velocity: Tensor
    scalar: Tensor | None = None


class TurbulenceSolver:
    """Advances a batch of independent flows.

    ::

        modes -> irfftn -> u, omega on the grid -> u x omega -> rfftn -> dealias, project, + force -> du/dt

    Args:
        grid: The grid of every box.
        viscosity: ``(B,)`` or a number.
        power: Energy input a unit of mass and time; 0 lets the flow decay.
        schmidt: Viscosity over diffusivity of the passive scalar.
        scalar_gradient: Mean gradient of the scalar along the first axis, which feeds its fluctuations.

    Example:
        >>> grid = SpectralGrid(16)
        >>> solver = TurbulenceSolver(grid, viscosity=0.1)
        >>> state = random_flow(grid, 2, torch.Generator().manual_seed(0))
        >>> solver.advance(state, dt=0.01, steps=2).velocity.shape
        torch.Size([2, 3, 16, 16, 9])
    """

    def __init__(
        self,
        grid: SpectralGrid,
        viscosity: Tensor | float,
        power: float = 1.0,
        schmidt: float = 1.0,
        scalar_gradient: float = 1.0,
    ) -> None:
        self.grid = grid
        self.viscosity = torch.as_tensor(viscosity, dtype=torch.float32, device=grid.device).reshape(-1)
        self.power = power
        self.schmidt = schmidt
        self.scalar_gradient = scalar_gradient
        self._forced = ((grid.k_squared > 0) & (grid.k_squared <= FORCED_BELOW**2)).float()

    @torch.no_grad()
    def advance(self, state: FlowState, dt: float, steps: int) -> FlowState:
        """Advances all flows by ``steps`` time steps of ``dt``."""
        viscosity = self.viscosity[:, None, None, None]
        decay = torch.exp(-0.5 * dt * viscosity * self.grid.k_squared) * self.grid.dealiased
        factors = [decay[:, None]]
        if state.scalar is not None:
            diffusion = torch.exp(-0.5 * dt / self.schmidt * viscosity * self.grid.k_squared)
            factors.append((diffusion * self.grid.dealiased)[:, None])
        parts = [state.velocity] if state.scalar is None else [state.velocity, state.scalar[:, None]]
        for _ in range(steps):
            parts = self._runge_kutta(parts, factors, dt)
        return FlowState(parts[0], parts[1][:, 0] if len(parts) > 1 else None)

    def _runge_kutta(self, parts: list[Tensor], factors: list[Tensor], dt: float) -> list[Tensor]:
        """One step; a factor is the exact decay over half a step."""
        k1 = self._rate(parts)
        half = [f * (p + (0.5 * dt) * k) for p, k, f in zip(parts, k1, factors, strict=True)]
        k2 = self._rate(half)
        decayed = [f * p for p, f in zip(parts, factors, strict=True)]
        k3 = self._rate([d + (0.5 * dt) * k for d, k in zip(decayed, k2, strict=True)])
        k4 = self._rate([f * (d + dt * k) for d, k, f in zip(decayed, k3, factors, strict=True)])
        return [
            f * (d + (dt / 6) * (f * a + 2 * (b + c))) + (dt / 6) * e
            for d, a, b, c, e, f in zip(decayed, k1, k2, k3, k4, factors, strict=True)
        ]

    def _rate(self, parts: list[Tensor]) -> list[Tensor]:
        """Time derivatives without the viscous terms."""
        grid, modes = self.grid, parts[0]
        velocity = grid.to_physical(modes)
        product = torch.cross(velocity, grid.to_physical(grid.curl(modes)), dim=1)
        rate = grid.project(grid.to_spectral(product) * grid.dealiased)
        if self.power:
            energy = 0.5 * (modes.abs().square().sum(1) * (self._forced * grid.multiplicity)).sum((1, 2, 3))
            gain = self.power / (2 * energy.clamp(min=_SMALLEST))
            rate = rate + modes * (gain[:, None, None, None] * self._forced)[:, None]
        if len(parts) == 1:
            return [rate]
        flux = grid.to_spectral(velocity * grid.to_physical(parts[1]))
        divergence = 1j * (grid.k * flux).sum(1, keepdim=True)
        source = self.scalar_gradient * modes[:, :1]
        return [rate, (-divergence - source) * grid.dealiased]


def random_flow(
    grid: SpectralGrid, count: int, generator: torch.Generator, energy: float = 2.0, peak: float = 2.0
) -> FlowState:
    """Random solenoidal flows with the spectrum ``k^4 exp(-2 (k / peak)^2)``.

    Args:
        grid: The grid of every box.
        count: B.
        generator: Of the grid's device.
        energy: Kinetic energy a unit of mass.
        peak: Wave number where the spectrum is largest.
    """
    noise = torch.randn((count, 3) + (grid.size,) * 3, generator=generator, device=grid.device)
    modes = grid.project(grid.to_spectral(noise)) * grid.dealiased
    # The energy of a shell is spread over about k^2 modes, and its amplitude is the square root.
    k = grid.k_squared.sqrt()
    modes = modes * (k * torch.exp(-grid.k_squared / peak**2))
    modes[..., 0, 0, 0] = 0
    found = 0.5 * (modes.abs().square().sum(1) * grid.multiplicity).sum((1, 2, 3))
    return FlowState(modes * (energy / found).sqrt()[:, None, None, None, None])


def taylor_green(grid: SpectralGrid) -> FlowState:
    """The Taylor-Green vortex ``(sin x cos y cos z, -cos x sin y cos z, 0)``, of well documented decay."""
    axis = torch.arange(grid.size, device=grid.device) * (2 * math.pi / grid.size)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    velocity = torch.stack((x.sin() * y.cos() * z.cos(), -x.cos() * y.sin() * z.cos(), torch.zeros_like(x)))
    return FlowState(grid.to_spectral(velocity[None]))


def refined(state: FlowState, grid: SpectralGrid) -> FlowState:
    """The same flows on a finer grid: new modes are zero.

    Args:
        state: On a coarser grid.
        grid: The finer grid.

    Example:
        >>> state = random_flow(SpectralGrid(8), 1, torch.Generator().manual_seed(0))
        >>> refined(state, SpectralGrid(16)).velocity.shape
        torch.Size([1, 3, 16, 16, 9])
    """

    def pad(modes: Tensor) -> Tensor:
        size = modes.shape[-3]
        fine = modes.new_zeros((*modes.shape[:-3], grid.size, grid.size, grid.size // 2 + 1))
        # Without the Nyquist modes, which have no counterpart; dealiased flows do not have them.
        rows = torch.cat((torch.arange(size // 2), torch.arange(1 - size // 2, 0) % grid.size)).to(
            modes.device
        )
        source = torch.cat((torch.arange(size // 2), torch.arange(size // 2 + 1, size))).to(modes.device)
        part = modes[..., source, :, : size // 2][..., :, source, :]
        fine[..., rows[:, None], rows[None, :], : size // 2] = part
        return fine

    return FlowState(pad(state.velocity), None if state.scalar is None else pad(state.scalar))


class Snapshots(NamedTuple):
    """Flows at several times.

    Attributes:
        velocity: ``(T, B, 3, N, N, N)`` float32.
        viscosity: ``(B,)``.
        scalar: ``(T, B, N, N, N)`` float32, or None.
    """

    velocity: Tensor
    viscosity: Tensor
    scalar: Tensor | None = None


def simulate(
    viscosities: Sequence[float],
    size: int,
    seed: int,
    device: torch.device | str = "cpu",
    count: int = 4,
    spacing: float = 0.5,
    spin_up: Sequence[float] = (5.0, 3.0, 2.0),
    passive_scalar: bool = False,
    decay: float = 0.0,
) -> Snapshots:
    """Forced isotropic turbulence from a random start, one box for every viscosity.

    Large eddies take longest to develop and need the fewest points, so boxes are spun up on coarser grids
    first, each half as fine as the next, at viscosities that resolve as well there.

    Args:
        viscosities: One a box; 0.0115 is resolved with ``k_max eta = 1.5`` on 128^3 points.
        size: Points a side.
        seed: Of the random start.
        device: Where to compute.
        count: Snapshots to keep.
        spacing: Time between them; an eddy turns over in about one unit.
        spin_up: Time on every grid, coarsest first, the last one on the full grid.
        passive_scalar: Carry a scalar with a mean gradient along.
        decay: Switch the force off for this long before the first snapshot.

    Example:
        >>> simulate([0.1], 16, seed=0, count=2, spacing=0.1, spin_up=(0.2,)).velocity.shape
        torch.Size([2, 1, 3, 16, 16, 16])
    """
    generator = torch.Generator(device).manual_seed(seed)
    viscosity = torch.tensor(list(viscosities), device=device)
    state: FlowState | None = None
    for level, duration in zip(reversed(range(len(spin_up))), spin_up, strict=True):
        grid = SpectralGrid(size // 2**level, device)
        if state is None:
            state = random_flow(grid, len(viscosity), generator)
            if passive_scalar:
                state = FlowState(state.velocity, torch.zeros_like(state.velocity[:, 0]))
        else:
            state = refined(state, grid)
        # k_max eta stays the same when the viscosity grows with the grid spacing to the power 4/3.
        solver = TurbulenceSolver(grid, viscosity * 2 ** (level * 4 / 3))
        state = solver.advance(state, *time_steps(duration, grid.size))
    if decay:
        solver = TurbulenceSolver(grid, viscosity, power=0.0)
        state = solver.advance(state, *time_steps(decay, size))
    velocities, scalars = [], []
    for number in range(count):
        if number:
            state = solver.advance(state, *time_steps(spacing, size))
        velocities.append(grid.to_physical(state.velocity))
        if state.scalar is not None:
            scalars.append(grid.to_physical(state.scalar))
    return Snapshots(torch.stack(velocities), viscosity, torch.stack(scalars) if scalars else None)


def time_steps(duration: float, size: int) -> tuple[float, int]:
    """Length and number of the time steps that cover a duration: at most ``0.5 / size`` each.

    With velocities up to about six, as unit power makes them, the Courant number then stays below one half.

    Example:
        >>> time_steps(0.5, 128)
        (0.00390625, 128)
    """
    steps = max(1, math.ceil(duration * size / 0.5))
    return duration / steps, steps
